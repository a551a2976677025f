"""Rows of the tables on plans of other volumes: mean curves with intervals, and the volume a model saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from predictgbm.statistics.bootstrap import bca_interval, cohort_strata, ratio_intervals
from predictgbm.statistics.paired import MINIMUM_PATIENTS

Row = dict[str, Any]

#: Volume over that of the plan beyond which the standard plan's coverage counts as not reached: where curves end.
LARGEST = 2.0


def curve_rows(curves: pd.DataFrame, cohort: pd.Series, draws: int, seed: int) -> list[Row]:
    """Compute the rows of table ``curve_summary``: a mean and its interval, point by point.

    Parameters
    ----------
    curves
        Table ``curves``.
    cohort
        Cohort of each patient, the strata of the bootstrap.
    draws, seed
        As for :func:`predictgbm.statistics.bootstrap.bca_interval`.
    """
    rows: list[Row] = []
    for model, own in curves.groupby("model"):
        wide = own.pivot(index="patient", columns="fraction", values="coverage_enhancing").astype("float64")
        complete = bool(wide.notna().all(axis=None))
        for part in [wide] if complete else [wide[[fraction]].dropna() for fraction in wide.columns]:
            n = len(part)
            ends = np.full((part.shape[1], 2), np.nan)
            if n >= MINIMUM_PATIENTS:
                strata = cohort_strata(cohort.loc[part.index])
                ends = ratio_intervals(part.to_numpy(), np.ones(n), strata, draws, seed)
            rows += [
                {"model": model, "fraction": fraction, "n": n, "mean": mean, "ci_low": low, "ci_high": high}
                for fraction, mean, (low, high) in zip(part.columns, part.mean(), ends, strict=True)
            ]
    return rows


def volume_rows(metrics: pd.DataFrame, cohort: pd.Series, draws: int, seed: int) -> list[Row]:
    """Compute the rows of table ``volume_saved``: what a model saves at the standard plan's coverage.

    A patient whose volume is unknown or above :data:`LARGEST` times the plan counts as not reached, with that volume in
    the median. Where the standard plan covers nothing, there is nothing to reach: the patient does not count.

    Parameters
    ----------
    metrics
        Table ``metrics``; a patient counts for a model that has a curve.
    cohort, draws, seed
        As for :func:`curve_rows`.
    """
    rows: list[Row] = []
    volume = metrics["volume_at_soc_coverage_ml"]
    scored = metrics[(metrics["curve_area"].notna() | volume.notna()) & (volume.fillna(1.0) > 0)]
    for model, own in scored.sort_values("patient").groupby("model"):
        ratio = (own["volume_at_soc_coverage_ml"] / own["plan_ml"]).astype("float64").to_numpy()
        reached = ratio <= LARGEST
        saved = 1 - np.where(reached, ratio, LARGEST)
        n = saved.size
        low = high = float("nan")
        if n >= MINIMUM_PATIENTS:
            strata = cohort_strata(cohort.loc[own["patient"].tolist()])
            low, high = bca_interval(saved, strata, "median", draws, seed)
        rows.append(
            {
                "model": model,
                "n": n,
                "n_less": int((saved > 0).sum()),
                "n_never": int((~reached).sum()),
                "saved": float(np.median(saved)),
                "saved_low": low,
                "saved_high": high,
            }
        )
    return rows
