"""Rows of the tables on where the recurrence came back, and what each model covers there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from predictgbm.patterns import MEASURABLE_ML, MULTIFOCAL, PATTERNS
from predictgbm.statistics.bootstrap import cohort_strata, ratio_intervals
from predictgbm.statistics.paired import MINIMUM_PATIENTS

Row = dict[str, Any]


def pattern_rows(lesions: pd.DataFrame, records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Compute the rows of table ``recurrence_patterns``, one per patient with an enhancing recurrence.

    Parameters
    ----------
    lesions
        Table ``lesions``. What it tells of a lesion beside its coverage is the same for every model.
    records
        Results of :func:`predictgbm.evaluation.evaluate_plan`, for ``recurrence_outside_brain_ml``.
    """
    outside: dict[Any, Any] = {}
    for record in records:
        if (value := record.get("recurrence_outside_brain_ml")) is not None:
            outside.setdefault(record.get("patient"), float(value))
    rows: list[Row] = []
    for patient, own in lesions.drop_duplicates(["patient", "lesion"]).groupby("patient"):
        volume = own["volume_ml"].astype("float64")
        measurable = int((volume >= MEASURABLE_ML).sum())
        row: Row = {
            "patient": patient,
            "n_lesions": len(own),
            "n_measurable": measurable,
            "multifocal": measurable >= MULTIFOCAL,
            "outside_brain_ml": outside.get(patient),
        }
        if own["pattern"].notna().all():
            by_pattern = {name: float(volume[own["pattern"] == name].sum()) for name in PATTERNS}
            row["pattern"] = max(by_pattern, key=lambda name: by_pattern[name])
            row |= {column(name): ml for name, ml in by_pattern.items()}
            row["farthest_mm"] = float(own["core_distance_mm"].max())
        rows.append(row)
    return rows


def column(pattern: str) -> str:
    """Return the column of table ``recurrence_patterns`` with the volume of a pattern."""
    return f"{pattern.replace('-', '_')}_ml"


def coverage_rows(
    lesions: pd.DataFrame,
    patterns: pd.DataFrame,
    metrics: pd.DataFrame,
    cohort: pd.Series,
    *,
    reference: str,
    draws: int,
    seed: int,
) -> list[Row]:
    """Compute the rows of table ``coverage_by_pattern``: lesions by pattern, patients by number of lesions.

    Parameters
    ----------
    lesions, patterns, metrics
        Tables ``lesions``, ``recurrence_patterns`` and ``metrics``.
    cohort
        Cohort of each patient, the strata of the bootstrap.
    reference
        Model that the others are compared with.
    draws, seed
        As for :func:`predictgbm.statistics.bootstrap.bca_interval`.
    """
    if patterns.empty:
        return []
    by_lesion = lesions.pivot(index=["patient", "lesion"], columns="model", values="coverage")
    of_lesion = lesions.drop_duplicates(["patient", "lesion"]).set_index(["patient", "lesion"])["pattern"]
    by_patient = metrics.pivot(index="patient", columns="model", values="coverage_enhancing")
    multifocal = patterns.set_index("patient")["multifocal"].map({True: "multifocal", False: "unifocal"})
    groups = [
        ("lesion", name, by_lesion[(of_lesion.loc[by_lesion.index] == name).fillna(False)])
        for name in PATTERNS
    ]
    for name in ("unifocal", "multifocal"):
        chosen = multifocal.index[multifocal == name]
        groups.append(("patient", name, by_patient.loc[by_patient.index.isin(chosen)]))
    rows: list[Row] = []
    for unit, group, wide in groups:
        values = wide.astype("float64")
        for model in values.columns:
            own = values[model].dropna()
            if own.empty:
                continue
            row: Row = {"model": model, "unit": unit, "group": group} | _clustered(
                own, cohort, draws, seed, "ci"
            )
            if reference in values.columns and model != reference:
                gain = (own - values[reference]).dropna()
                row |= _gain(gain, cohort, draws, seed)
            rows.append(row)
    return rows


def _clustered(values: pd.Series, cohort: pd.Series, draws: int, seed: int, prefix: str) -> Row:
    """Return number, mean and interval of values that belong to patients, who are drawn whole."""
    of_patient = values.groupby(level="patient").agg(["sum", "size"])
    row: Row = {"n": len(values), "n_patients": len(of_patient), "mean": values.mean()}
    if len(of_patient) >= MINIMUM_PATIENTS:
        strata = cohort_strata(cohort.loc[of_patient.index])
        totals, sizes = of_patient[["sum"]].to_numpy(np.float64), of_patient["size"].to_numpy(np.float64)
        row[f"{prefix}_low"], row[f"{prefix}_high"] = ratio_intervals(totals, sizes, strata, draws, seed)[
            0
        ].tolist()
    return row


def _gain(gain: pd.Series, cohort: pd.Series, draws: int, seed: int) -> Row:
    if gain.empty:
        return {}
    row = _clustered(gain, cohort, draws, seed, "gain")
    return {"gain": row["mean"]} | {key: value for key, value in row.items() if key.startswith("gain")}
