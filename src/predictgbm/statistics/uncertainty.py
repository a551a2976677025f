"""Whether the spread of a model's maps tells how well they cover: rank correlation and risk-coverage curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from predictgbm.statistics.paired import MINIMUM_PATIENTS, spearman
from predictgbm.tables import build


def kept_coverage(spread: ArrayLike, coverage: ArrayLike) -> NDArray[np.float64]:
    """Return the mean coverage of the patients that are kept when the most uncertain are set aside.

    The risk-coverage curve of selective prediction (El-Yaniv and Wiener, JMLR 11:1605-1641, 2010) with coverage of the
    recurrence in place of risk. Patients of equal spread are set aside in every order: each counts as their mean.

    Parameters
    ----------
    spread : shape (n,)
        The larger, the more uncertain.
    coverage : shape (n,), 0 to 1

    Returns
    -------
    float array of shape (n,)
        Entry k - 1 is the mean over the k patients of the smallest spread; the last that over all.
    """
    values, group, size = np.unique(np.asarray(spread, np.float64), return_inverse=True, return_counts=True)
    mean = np.bincount(group, np.asarray(coverage, np.float64), values.size) / size
    return np.cumsum(np.repeat(mean, size)) / np.arange(1, group.size + 1)


def uncertainty_tables(metrics: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Make the tables ``uncertainty`` and ``uncertainty_curve`` from table ``metrics``."""
    known = metrics.dropna(subset=["spread_border", "coverage_enhancing"])
    rows, points = [], []
    for model, own in known.groupby("model"):
        spread, coverage = (
            own[name].to_numpy(np.float64) for name in ("spread_border", "coverage_enhancing")
        )
        row = {"model": model, "n": len(own)}
        if len(own) >= MINIMUM_PATIENTS:
            row["rho"], row["p"] = spearman(spread, coverage)
            points += [
                {"model": model, "n_kept": kept, "kept": kept / len(own), "coverage": mean}
                for kept, mean in enumerate(kept_coverage(spread, coverage).tolist(), 1)
                if kept >= MINIMUM_PATIENTS
            ]
        rows.append(row)
    return {
        "uncertainty": build("uncertainty", rows),
        "uncertainty_curve": build("uncertainty_curve", points),
    }
