"""The tables of calibration: per patient, and pooled with intervals by a bootstrap of the patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from predictgbm.reliability import EDGES, scores
from predictgbm.statistics.bootstrap import cohort_strata, resample_counts
from predictgbm.statistics.paired import MINIMUM_PATIENTS
from predictgbm.tables import build

Record = Mapping[str, Any]

#: Bootstrap samples of the patients.
DRAWS = 1000


def calibration_tables(records: Sequence[Record], cohort: pd.Series, seed: int) -> dict[str, pd.DataFrame]:
    """Make the tables ``calibration``, ``calibration_summary`` and ``reliability``.

    Pooled, every patient has the same weight, however many voxels: sums are divided by their number before they are
    pooled. Intervals are percentiles over bootstrap samples of the patients, stratified.

    Parameters
    ----------
    records
        Those of the metrics; ``calibration`` holds the sums of :func:`predictgbm.reliability.bin_sums`, if any,
        ``calibration_reason`` why there are none of a map that is declared a probability.
    cohort
        Data set by patient, within which patients are resampled.
    seed
        Of the bootstrap.
    """
    summary, curve = _pool(records, cohort, seed)
    each = (
        {"patient": record["patient"], "model": record["model"], **scores(np.array(record["calibration"]))}
        for record in records
        if record.get("calibration")
    )
    return {
        "calibration": build("calibration", each),
        "calibration_summary": build("calibration_summary", summary),
        "reliability": build("reliability", curve),
    }


def calibration_remarks(records: Sequence[Record]) -> list[str]:
    """Say for each model in how many patients its map is declared a probability and is none."""
    reasons: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        if reason := record.get("calibration_reason"):
            reasons[record["model"]][record["patient"]] = str(reason)
    return [
        f"No calibration of {model} for {len(found)} patient(s), whose maps are no probabilities as its entry says; "
        f"their plans are scored as any other's ({min(found)}: {found[min(found)]})."
        for model, found in sorted(reasons.items())
    ]


def _pool(
    records: Sequence[Record], cohort: pd.Series, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of tables ``calibration_summary`` and ``reliability``."""
    found: dict[str, dict[str, NDArray[np.float64]]] = defaultdict(dict)
    for record in records:
        if record.get("calibration"):
            sums = np.array(record["calibration"], np.float64)
            found[record["model"]][record["patient"]] = sums / sums[:, 0].sum()
    summary: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    for model, by_patient in sorted(found.items()):
        patients = sorted(by_patient)
        n = len(patients)
        sums = np.stack([by_patient[patient] for patient in patients])
        pooled = sums.mean(axis=0)
        drawn = np.zeros((0, *pooled.shape))
        if n >= MINIMUM_PATIENTS:
            counts = resample_counts(n, cohort_strata(cohort.loc[patients]), DRAWS, seed)
            drawn = np.tensordot(counts, sums, 1) / n
        summary += _scored(model, n, pooled, drawn)
        curve += _drawn_curve(model, sums, pooled, drawn)
    return summary, curve


def _scored(
    model: str, n: int, pooled: NDArray[np.float64], drawn: NDArray[np.float64]
) -> list[dict[str, Any]]:
    resampled = pd.DataFrame([scores(sums) for sums in drawn])
    rows = []
    for name, value in scores(pooled).items():
        row = {"model": model, "score": name, "n": n, "value": value}
        if len(resampled):
            row["low"], row["high"] = resampled[name].quantile([0.025, 0.975]).tolist()
        rows.append(row)
    return rows


def _drawn_curve(
    model: str, sums: NDArray[np.float64], pooled: NDArray[np.float64], drawn: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Return one row for each bin that holds a voxel."""
    rows = []
    for k, (share, p, _, y, _) in enumerate(pooled.tolist()):
        if not share:
            continue
        row = {
            "model": model,
            "bin_low": EDGES[k],
            "bin_high": EDGES[k + 1],
            "n": int(np.count_nonzero(sums[:, k, 0])),
            "share": share,
            "probability": p / share,
            "frequency": y / share,
        }
        held = drawn[drawn[:, k, 0] > 0, k]
        if len(held):
            row["frequency_low"], row["frequency_high"] = np.quantile(
                held[:, 3] / held[:, 0], [0.025, 0.975]
            ).tolist()
        rows.append(row)
    return rows
