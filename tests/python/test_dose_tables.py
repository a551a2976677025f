"""Tables of doses and of calibration from what evaluate_plan writes, on cohorts whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from predictgbm.dose import dvh
from predictgbm.reliability import bin_sums, scores
from predictgbm.statistics.benchmark import make_tables
from predictgbm.statistics.dose import dose_tables
from predictgbm.statistics.reliability import calibration_tables

PATIENTS = [f"P{i:02d}" for i in range(12)]


def cohort_of(make: Any) -> list[dict[str, Any]]:
    """Return records of a standard plan and a model, completed by ``make(patient number, model)``."""
    return [
        {
            "patient": patient,
            "model": model,
            "cohort": "AB"[i % 2],
            "coverage_enhancing": 0.5,
            **make(i, model),
        }
        for i, patient in enumerate(PATIENTS)
        for model in ("soc", "mine")
    ]


def tables_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    cohort = pd.Series({record["patient"]: record["cohort"] for record in records})
    return dose_tables(records, cohort, "soc", 200, 1) | calibration_tables(records, cohort, 1)


def row(table: Any, **key: Any) -> dict[str, Any]:
    found = table
    for name, value in key.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0].to_dict()


def dose_of(i: int, model: str) -> dict[str, Any]:
    """Return a uniform dose: 40 + i Gy by the standard plan, i mod 3 Gy more by the model."""
    gray = 40.0 + i + (i % 3 if model == "mine" else 0)
    histogram = dvh(np.full(5, gray)).tolist()
    return {"dose": {"measures": {"recurrence_mean_gy": gray}, "dvh": {"recurrence": histogram}}}


def test_dose_tables():
    tables = tables_of(cohort_of(dose_of))
    assert len(tables["dose"]) == 24
    assert row(tables["dose"], patient="P05", model="mine")["recurrence_mean_gy"] == 47
    soc = row(tables["dose_summary"], model="soc", measure="recurrence_mean_gy")
    assert (soc["n"], soc["mean"]) == (12, 45.5)
    assert soc["ci_low"] < 45.5 < soc["ci_high"]
    mine = row(tables["dose_summary"], model="mine", measure="recurrence_mean_gy")
    # Gains of 0, 1 and 2 Gy, four times each: their Walsh averages have the median 1.
    assert (mine["mean"], mine["n_paired"], mine["shift"]) == (46.5, 12, 1.0)
    assert 0 <= mine["shift_low"] < 1 < mine["shift_high"] <= 2
    assert mine["p_pratt"] < 0.02
    # At 46 Gy half of the patients' recurrences are above, in either cohort.
    middle = row(tables["dvh"], model="soc", structure="recurrence", dose_gy=46.0)
    assert (middle["n"], middle["volume"]) == (12, 0.5)
    assert 0 < middle["volume_low"] < 0.5 < middle["volume_high"] < 1
    ends = [row(tables["dvh"], model="soc", structure="recurrence", dose_gy=d) for d in (40.0, 52.0)]
    assert [(end["volume_low"], end["volume"], end["volume_high"]) for end in ends] == [(1, 1, 1), (0, 0, 0)]
    # As far as the hottest patient, 53 Gy by the model, and one beyond.
    assert (
        tables["dvh"].groupby("model")["dose_gy"].agg(["count", "max"]).to_numpy().tolist() == [[55, 54]] * 2
    )


def test_interval_of_the_histogram_is_that_of_a_mean():
    """Its width is that of the binomial share over 12 patients, 1.96 sqrt(p (1 - p) / n) to either side."""
    records = cohort_of(dose_of)
    for entry in records:
        entry["cohort"] = "A"
    middle = row(tables_of(records)["dvh"], model="soc", structure="recurrence", dose_gy=46.0)
    assert middle["volume_high"] - middle["volume_low"] == pytest.approx(
        2 * 1.96 * np.sqrt(0.25 / 12), abs=0.1
    )


def test_organs_are_measures_of_their_own():
    """Two patients lack the organ; in the others the model's near-maximum is 2 Gy higher, its mean the same."""

    def make(i: int, model: str) -> dict[str, Any]:
        row = {
            "organ": "stem",
            "volume_ml": 20.0,
            "mean_gy": 10.0 + i,
            "d003cc_gy": 50.0 + 2 * (model == "mine"),
        }
        if i < 2:
            return {"dose": {"measures": {"plan_d95_gy": 58.0}, "dvh": {}, "organs": []}}
        curve = {"oar_stem": dvh([10.0 + i]).tolist()}
        return {"dose": {"measures": {"plan_d95_gy": 58.0}, "dvh": curve, "organs": [row]}}

    tables = tables_of(cohort_of(make))
    assert len(tables["organ_dose"]) == 20
    assert row(tables["organ_dose"], patient="P05", model="mine", organ="stem")["mean_gy"] == 15
    mean = row(tables["dose_summary"], model="soc", measure="oar_stem_mean_gy")
    assert (mean["n"], mean["mean"]) == (10, 16.5)
    highest = row(tables["dose_summary"], model="mine", measure="oar_stem_d003cc_gy")
    assert (highest["n_paired"], highest["shift"]) == (10, 2)
    assert row(tables["dose_summary"], model="mine", measure="plan_d95_gy")["n"] == 12
    # The histogram is the mean over the ten who have the organ, of 12 to 21 Gy.
    at = [row(tables["dvh"], model="mine", structure="oar_stem", dose_gy=d) for d in (12.0, 17.0, 22.0)]
    assert [(r["n"], r["volume"]) for r in at] == [(10, 1.0), (10, 0.5), (10, 0.0)]


def told(i: int, model: str) -> dict[str, Any]:
    """Return calibration of the model alone: tells 30 % to voxels of which 10 % recur, and nothing to the others."""
    if model == "soc":
        return {}
    n = 1000 * (i + 1)
    probability = np.repeat([0.3, 0.0], [n // 2, n // 2])
    outcome = np.zeros(n)
    outcome[: n // 20] = 1
    return {"calibration": bin_sums(probability, outcome).tolist()}


def test_calibration_tables():
    tables = tables_of(cohort_of(told))
    assert tables["calibration"]["model"].unique().tolist() == ["mine"]
    one = row(tables["calibration"], patient="P03")
    assert one["ece"] == pytest.approx(0.1)
    assert one["brier"] == pytest.approx(0.5 * (0.1 * 0.49 + 0.9 * 0.09))
    assert one["prevalence"] == pytest.approx(0.05)
    # All patients are alike but for their size: pooled as each of them, and nothing to resample.
    pooled = tables["calibration_summary"].set_index("score")
    for name, value in scores(np.array(told(3, "mine")["calibration"])).items():
        assert pooled.loc[name, ["value", "low", "high"]].tolist() == pytest.approx([value] * 3), name
    curve = tables["reliability"]
    assert curve["bin_low"].tolist() == [0.0, 0.3]
    assert curve["probability"].tolist() == pytest.approx([0, 0.3])
    assert curve["frequency"].tolist() == pytest.approx([0, 0.1])
    assert curve["share"].tolist() == pytest.approx([0.5, 0.5])


def test_maps_that_are_no_probabilities_are_told():
    """Two of twelve: the others are calibrated, and every plan is scored."""
    records = cohort_of(told)
    wrong = [entry for entry in records if entry["model"] == "mine"][:2]
    for entry in wrong:
        del entry["calibration"]
        entry["calibration_reason"] = "probabilities run from 0 to 3"
    found, facts = make_tables(records, {}, [], draws=200, ranking_draws=100)
    scored = {entry["patient"] for entry in records if entry["model"] == "mine"}
    assert set(found["calibration"]["patient"]) == scored - {entry["patient"] for entry in wrong}
    assert set(found["metrics"].query("model == 'mine'")["patient"]) == scored
    (note,) = [note for note in facts["notes"] if "calibration" in note]
    assert "of mine for 2 patient(s)" in note
    assert "run from 0 to 3" in note


def test_patients_count_alike_whatever_their_size():
    """Half of the patients calibrated, half told four times too much: pooled in the middle, with an interval."""

    def make(i: int, model: str) -> dict[str, Any]:
        n = 100 if i % 2 else 10_000
        outcome = np.arange(n) < n * (0.2 if i % 2 else 0.8)
        return {} if model == "soc" else {"calibration": bin_sums(np.full(n, 0.8), outcome).tolist()}

    records = cohort_of(make)
    for entry in records:
        entry["cohort"] = "A"
    tables = tables_of(records)
    (bin_row,) = tables["reliability"].to_dict("records")
    assert bin_row["frequency"] == pytest.approx(0.5)
    assert 0.2 <= bin_row["frequency_low"] < 0.4
    assert 0.6 < bin_row["frequency_high"] <= 0.8
    ece = row(tables["calibration_summary"], score="ece")
    assert ece["value"] == pytest.approx(0.3)
    assert ece["low"] < 0.2 < 0.4 < ece["high"]


def test_without_doses_and_probabilities():
    tables = tables_of(cohort_of(lambda _i, _model: {}))
    for name in (
        "dose",
        "organ_dose",
        "dose_summary",
        "dvh",
        "calibration",
        "calibration_summary",
        "reliability",
    ):
        assert tables[name].empty, name
