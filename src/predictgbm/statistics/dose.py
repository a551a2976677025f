"""The tables of doses: per patient, against the standard of care, and mean dose-volume histograms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from predictgbm.exam import ORGAN
from predictgbm.statistics.bootstrap import bca_interval, cohort_strata, resample_counts
from predictgbm.statistics.paired import MINIMUM_PATIENTS, compare
from predictgbm.tables import build

Record = Mapping[str, Any]

#: Bootstrap samples of a mean histogram, whose interval is one of percentiles at each dose.
HISTOGRAM_DRAWS = 1000


def dose_tables(
    records: Sequence[Record], cohort: pd.Series, reference: str, draws: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Make the tables ``dose``, ``organ_dose``, ``dose_summary`` and ``dvh``.

    Parameters
    ----------
    records
        Those of the metrics; ``dose`` is what :func:`predictgbm.dose.evaluate_dose` returned, where there is one.
    cohort
        Data set by patient, within which patients are resampled.
    reference, draws, seed
        As for :func:`predictgbm.statistics.benchmark.analyse`.
    """
    dosed = [record for record in records if record.get("dose")]
    doses = build(
        "dose",
        (_identity(record) | record["dose"]["measures"] for record in dosed),
    )
    compared = doses.merge(
        pd.DataFrame(
            [_identity(record) | organ_columns(record["dose"].get("organs") or []) for record in dosed],
            columns=None if dosed else ["patient", "model"],
        ),
        on=["patient", "model"],
    )
    return {
        "dose": doses,
        "organ_dose": build(
            "organ_dose",
            (_identity(record) | organ for record in dosed for organ in record["dose"].get("organs") or []),
        ),
        "dose_summary": build("dose_summary", summarise(compared, cohort, reference, draws, seed)),
        "dvh": build("dvh", mean_histograms(records, cohort, seed)),
    }


def organ_columns(organs: Sequence[Record]) -> dict[str, Any]:
    """Return the doses of organs at risk as measures with names of their own, as the summaries call them."""
    return {f"{ORGAN}{row['organ']}_{name}": row[name] for row in organs for name in ("mean_gy", "d003cc_gy")}


def _identity(record: Record) -> dict[str, Any]:
    return {"patient": record["patient"], "model": record["model"]}


def summarise(
    doses: pd.DataFrame, cohort: pd.Series, reference: str, draws: int, seed: int
) -> list[dict[str, Any]]:
    """Return mean of each measure by model, and its shift against the reference.

    ``doses`` has ``patient``, ``model`` and a column per measure; ``cohort`` is the data set by patient.
    """
    rows = []
    for measure in [name for name in doses.columns if name not in ("patient", "model")]:
        wide = doses.pivot(index="patient", columns="model", values=measure).astype("float64")
        for model in wide.columns.tolist():
            values = wide[model].dropna()
            if values.empty:
                continue
            row = {"model": model, "measure": measure, "n": values.size, "mean": values.mean()}
            if values.size >= MINIMUM_PATIENTS:
                strata = cohort_strata(cohort.loc[values.index])
                row["ci_low"], row["ci_high"] = bca_interval(values.to_numpy(), strata, "mean", draws, seed)
            if model != reference and reference in wide:
                differences = (wide[model] - wide[reference]).dropna().to_numpy()
                row |= {"n_paired": differences.size or None} | compare(differences)
            rows.append(row)
    return rows


def mean_histograms(records: Sequence[Record], cohort: pd.Series, seed: int) -> list[dict[str, Any]]:
    """Return the mean histogram by model and structure over the patients who have it, as far as any of them goes."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
    for record in records:
        for structure, volumes in ((record.get("dose") or {}).get("dvh") or {}).items():
            found[record["model"], structure][record["patient"]] = volumes
    length = max((len(volumes) for curves in found.values() for volumes in curves.values()), default=0)
    rows = []
    for (model, structure), by_patient in sorted(found.items()):
        patients = sorted(by_patient)
        # A histogram ends where nothing gets as much: beyond, its value is 0.
        volumes = np.zeros((len(patients), length))
        for own, patient in zip(volumes, patients, strict=True):
            own[: len(by_patient[patient])] = by_patient[patient]
        low, high = np.full((2, volumes.shape[1]), np.nan)
        if len(patients) >= MINIMUM_PATIENTS:
            counts = resample_counts(
                len(patients), cohort_strata(cohort.loc[patients]), HISTOGRAM_DRAWS, seed
            )
            low, high = np.quantile(counts @ volumes / len(patients), [0.025, 0.975], axis=0)
        rows += [
            {
                "model": model,
                "structure": structure,
                "dose_gy": float(dose),
                "n": len(patients),
                "volume": volume,
                "volume_low": lowest,
                "volume_high": highest,
            }
            for dose, (volume, lowest, highest) in enumerate(
                zip(volumes.mean(axis=0), low, high, strict=True)
            )
        ]
    return rows
