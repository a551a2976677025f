"""The tables of doses that were given: per patient and lesion, beside the modelled dose of the standard plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from predictgbm.patterns import PATTERNS
from predictgbm.statistics.dose import mean_histograms, organ_columns, summarise
from predictgbm.tables import build

Record = Mapping[str, Any]

GIVEN = "given"
STANDARD = "standard"


def given_dose_tables(
    given: Sequence[Record],
    records: Sequence[Record],
    lesions: pd.DataFrame,
    cohort: pd.Series,
    reference: str,
    draws: int,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Make the tables ``given_dose``, ``given_lesions``, ``given_organs``, ``given_summary`` and ``given_dvh``.

    Parameters
    ----------
    given
        One per patient, of :func:`predictgbm.dose.evaluate_given_dose`.
    records
        Those of the metrics; ``dose`` of the reference model's is what the given dose is compared with.
    lesions
        Table ``lesions``, which tells how much of each lesion the standard plan covers.
    cohort
        Data set by patient, within which patients are resampled; who is not in it was not evaluated and is in no mean.
    reference, draws, seed
        As for :func:`predictgbm.statistics.benchmark.analyse`.
    """
    standard = lesions.drop_duplicates(["patient", "lesion"]).set_index(["patient", "lesion"])
    by_lesion = build("given_lesions", _lesion_rows(given, standard))
    by_patient = build(
        "given_dose",
        (
            {"patient": record["patient"], "prescription_gy": record["prescription_gy"]}
            | record["measures"]
            | _main_patterns(by_lesion[by_lesion["patient"] == record["patient"]])
            for record in given
        ),
    )
    by_organ = build(
        "given_organs",
        ({"patient": record["patient"]} | organ for record in given for organ in record.get("organs") or []),
    )
    evaluated = [record for record in given if record["patient"] in cohort.index]
    patients = {record["patient"] for record in evaluated}
    modelled = [
        record
        for record in records
        if record["model"] == reference and record["patient"] in patients and record.get("dose")
    ]
    organs = sorted({name for record in evaluated for name in organ_columns(record.get("organs") or [])})
    compared = pd.DataFrame(
        [_labelled(record, record, GIVEN) for record in evaluated]
        + [_labelled(record, record["dose"], STANDARD) for record in modelled],
        columns=["patient", "model", *_measures(by_patient), *organs],
    )
    histograms = mean_histograms(
        [_histogram(record, record["dvh"], GIVEN) for record in evaluated]
        + [_histogram(record, record["dose"]["dvh"], STANDARD) for record in modelled],
        cohort,
        seed,
    )
    return {
        "given_dose": by_patient,
        "given_lesions": by_lesion,
        "given_organs": by_organ,
        "given_summary": build(
            "given_summary",
            (row for row in summarise(compared, cohort, STANDARD, draws, seed) if row["model"] == GIVEN),
        ),
        "given_dvh": build("given_dvh", ({**row, "source": row["model"]} for row in histograms)),
    }


def _measures(table: pd.DataFrame) -> list[str]:
    """Return the columns of table ``given_dose`` that are measured."""
    text = ("patient", "prescription_gy", "pattern_isodose", "pattern_standard")
    return [name for name in table.columns if name not in text]


def _labelled(record: Record, found: Record, source: str) -> dict[str, Any]:
    """Return the measures of a dose, those of organs among them, with whose and which dose it is."""
    measures = {**found["measures"], **organ_columns(found.get("organs") or [])}
    return {**measures, "patient": record["patient"], "model": source}


def _histogram(record: Record, curves: Record, source: str) -> dict[str, Any]:
    """Return the histograms of a dose without that of dose painting, as of a model called by its source."""
    own = {name: volumes for name, volumes in curves.items() if not name.startswith("painted")}
    return {"patient": record["patient"], "model": source, "dose": {"dvh": own}}


def _lesion_rows(given: Sequence[Record], standard: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for record in given:
        for lesion in record["lesions"]:
            row = {"patient": record["patient"], **lesion}
            key = record["patient"], lesion["lesion"]
            if key in standard.index:
                row["coverage_standard"] = standard.at[key, "coverage_standard"]
                row["pattern_standard"] = standard.at[key, "pattern"]
            rows.append(row)
    return rows


def _main_patterns(own: pd.DataFrame) -> dict[str, str]:
    """Return the pattern that most of a patient's recurrence has, by either judge."""
    found = {}
    for judge in ("pattern_isodose", "pattern_standard"):
        if len(own) and own[judge].notna().all():
            volumes = own.groupby(judge)["volume_ml"].sum().to_dict()
            # Of equal volumes the more central pattern, as in table recurrence_patterns.
            found[judge] = max((name for name in PATTERNS if name in volumes), key=volumes.__getitem__)
    return found
