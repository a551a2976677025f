"""Patterns of recurrence, likely causes of low coverage, and curves with intervals: tables against counting by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from predictgbm.causes import RULES
from predictgbm.patterns import MEASURABLE_ML, classify
from predictgbm.statistics import bca_interval
from predictgbm.statistics.benchmark import make_tables
from predictgbm.statistics.causes import cause_rows, frequency_rows, worst
from predictgbm.statistics.curves import volume_rows
from predictgbm.statistics.patterns import pattern_rows
from predictgbm.tables import build

pytestmark = pytest.mark.filterwarnings("error")


def lesion(number: int, ml: float, coverage: float, standard: float, distance: float) -> dict[str, Any]:
    return {"lesion": number, "volume_ml": ml, "coverage": coverage, "coverage_standard": standard} | {
        "core_distance_mm": distance,
        "pattern": classify(standard),
    }


def record(
    patient: str, model: str, coverage: float, lesions: list[dict[str, Any]], **other: Any
) -> dict[str, Any]:
    """Return the scores of a patient in whom no rule holds."""
    return {
        "patient": patient,
        "session": "pre",
        "followup_session": "rec",
        "cohort": "A",
        "days": 200,
        "model": model,
        "coverage_enhancing": coverage,
        "plan_ml": 100.0,
        "recurrence_enhancing_ml": 4.0,
        "tumor_core_ml": 20.0,
        "recurrence_outside_brain_ml": 0.0,
        "volume_at_soc_coverage_ml": 80.0,
        "curve_area": 0.5,
        "lesions": lesions,
    } | other


@pytest.mark.parametrize(
    ("covered", "pattern"),
    [
        (1.0, "central"),
        (19 / 20, "central"),
        (94999 / 100000, "in-field"),
        (4 / 5, "in-field"),
        (79999 / 100000, "marginal"),
        (1 / 5, "marginal"),
        (19999 / 100000, "distant"),
        (0.0, "distant"),
    ],
)
def test_patterns_have_the_limits_of_the_literature(covered: float, pattern: str) -> None:
    assert classify(covered) == pattern


class TestPatterns:
    def test_patient_is_what_his_lesions_are(self) -> None:
        large, small = MEASURABLE_ML * 1.001, MEASURABLE_ML * 0.999
        records = [
            record("a", model, 0.9, [lesion(1, 4.0, 0.9, 0.99, 0.0), lesion(2, large, 0.1, 0.1, 30.5)])
            for model in ("soc", "loti")
        ]
        records.append(
            record("b", "loti", 0.1, [lesion(1, large, 0.0, 0.0, 20.0), lesion(2, small, 0.9, 0.85, 3.0)])
            | {"recurrence_outside_brain_ml": 0.25}
        )
        old = [{"lesion": 1, "volume_ml": 1.0, "coverage": 0.5}]
        records.append(record("c", "loti", 0.5, old) | {"recurrence_outside_brain_ml": None})
        lesions = [
            {"patient": r["patient"], "model": r["model"]} | own for r in records for own in r["lesions"]
        ]
        table = build("recurrence_patterns", pattern_rows(build("lesions", lesions), records))
        a, b, c = (table[table["patient"] == name].iloc[0] for name in "abc")
        assert (a["n_lesions"], a["n_measurable"], a["multifocal"], a["pattern"]) == (2, 2, True, "central")
        assert (b["n_lesions"], b["n_measurable"], b["multifocal"], b["pattern"]) == (2, 1, False, "distant")
        assert a[["central_ml", "in_field_ml", "marginal_ml"]].tolist() == [4.0, 0.0, 0.0]
        assert a["distant_ml"] == pytest.approx(large)
        assert b["in_field_ml"] == pytest.approx(small)
        assert (a["farthest_mm"], b["farthest_mm"]) == (30.5, 20.0)
        assert (a["outside_brain_ml"], b["outside_brain_ml"]) == (0.0, 0.25)
        assert c["n_lesions"] == 1
        assert c[["pattern", "central_ml", "distant_ml", "farthest_mm", "outside_brain_ml"]].isna().all()

    def test_interval_knows_that_lesions_of_a_patient_go_together(self) -> None:
        """Where all lesions of each patient are covered alike, four of each tell no more than one."""
        generator = np.random.default_rng(3)
        covered = {f"P{i:02d}": (generator.random(), generator.random()) for i in range(12)}
        records = [
            record(
                patient,
                model,
                value,
                [lesion(k, 1.0, value, 0.0 if k < 5 else 1.0, 20.0) for k in range(1, 6)],
                cohort="AB"[i % 2],
            )
            for i, (patient, values) in enumerate(covered.items())
            for model, value in zip(("soc", "loti"), values, strict=True)
        ]
        records[-1]["coverage_enhancing"] = None  # the last patient's loti is missing
        records[-1]["lesions"] = []
        tables, _ = make_tables(records, {}, [], draws=400, ranking_draws=100, seed=5)
        table = tables["coverage_by_pattern"].set_index(["group", "model"])
        loti = np.array([values[1] for values in covered.values()])[:-1]
        gain = loti - np.array([values[0] for values in covered.values()])[:-1]
        strata = ["AB"[i % 2] for i in range(11)]
        for group, lesions, unit in (
            ("distant", 44, "lesion"),
            ("central", 11, "lesion"),
            ("multifocal", 11, "patient"),
        ):
            row = table.loc[(group, "loti")]
            assert (row["n"], row["n_patients"], row["unit"]) == (lesions, 11, unit)
            assert row["mean"] == pytest.approx(loti.mean())
            assert row["gain"] == pytest.approx(gain.mean())
            for name, values in (("ci", loti), ("gain", gain)):
                expected = bca_interval(values, strata, "mean", 400, 5)
                assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(expected, abs=1e-9)
        assert table.loc[("distant", "soc"), ["gain", "gain_low"]].isna().all()
        assert set(table.index.get_level_values("group")) == {"distant", "central", "multifocal"}


HARMLESS = [lesion(1, 3.0, 0.5, 1.0, 0.0), lesion(2, 0.3, 0.5, 0.0, 20.0)]
#: Rule -> what makes it hold, and what just does not.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny_recurrence": ({"recurrence_enhancing_ml": 0.52}, {"recurrence_enhancing_ml": 0.53}),
    "distant_recurrence": (
        {
            "lesions": [
                lesion(1, 2.0, 0.5, 1.0, 0.0),
                lesion(2, 0.3, 0.0, 0.1, 20.0),
                lesion(3, 1.7, 0.0, 0.1, 20.0),
            ]
        },
        {"lesions": [lesion(1, 2.1, 0.5, 1.0, 0.0), lesion(2, 1.9, 0.0, 0.1, 20.0)]},
    ),
    "multifocal": (
        {"lesions": [lesion(1, 3.4, 0.5, 1.0, 0.0), lesion(2, 0.53, 0.0, 0.1, 20.0)]},
        {"lesions": [lesion(1, 3.4, 0.5, 1.0, 0.0), lesion(2, 0.52, 0.0, 0.1, 20.0)]},
    ),
    "tiny_core": ({"tumor_core_ml": 4.99}, {"tumor_core_ml": 5.0}),
    "long_interval": ({"days": 365}, {"days": 364}),
    "outside_brain": ({"recurrence_outside_brain_ml": 0.2}, {"recurrence_outside_brain_ml": 0.19}),
}


def causes_of(
    records: list[dict[str, Any]], *quality: tuple[str, str, str, bool]
) -> dict[str, dict[str, Any]]:
    """Return what each rule says of each patient; quality is patient, session, stage, flagged."""
    lesions = [{"patient": r["patient"], "model": r["model"]} | own for r in records for own in r["lesions"]]
    patterns = build("recurrence_patterns", pattern_rows(build("lesions", lesions), records))
    measured = [
        {"patient": patient, "session": session, "stage": stage, "measure": f"m{i}", "flagged": flagged}
        for i, (patient, session, stage, flagged) in enumerate(quality)
    ]
    rows = cause_rows(build("metrics", records), patterns, build("quality", measured))
    found: dict[str, dict[str, Any]] = {}
    for row in build("causes", rows).itertuples():
        found.setdefault(row.patient, {})[row.cause] = row.present
    return found


class TestCauses:
    def test_each_rule_holds_from_its_limit_on(self) -> None:
        records = [record("base", "soc", 0.5, HARMLESS)]
        for cause, both in CASES.items():
            for name, changed in zip(("present", "absent"), both, strict=True):
                records.append(record(f"{cause} {name}", "soc", 0.5, HARMLESS) | changed)
        found = causes_of(records)
        unknown = {"registration_flagged", "segmentation_flagged"}
        assert {name for name, value in found["base"].items() if value is pd.NA} == unknown
        assert set(found["base"]) == {rule.cause for rule in RULES} == {*CASES, *unknown}
        assert not any(found["base"][cause] for cause in CASES)
        for cause in CASES:
            assert found[f"{cause} present"][cause]
            assert not found[f"{cause} absent"][cause]

    def test_flags_are_those_of_the_two_exams_that_count(self) -> None:
        records = [record(patient, "soc", 0.5, HARMLESS) for patient in "abcd"]
        found = causes_of(
            records,
            *(("a", "rec", "registration", True), ("a", "pre", "tumor", False)),
            *(("b", "later", "registration", True), ("b", "rec", "registration", False)),
            *(("c", "later", "tumor", True), ("c", "pre", "registration", True)),
            ("elsewhere", "pre", "tumor", True),
        )
        registration = [found[patient]["registration_flagged"] for patient in "abcd"]
        segmentation = [found[patient]["segmentation_flagged"] for patient in "abcd"]
        assert registration[:3] == [True, False, True]
        assert registration[3] is pd.NA
        assert not segmentation[0]
        assert all(value is pd.NA for value in segmentation[1:])

    def test_missing_facts_judge_nothing(self) -> None:
        old = [{"lesion": 1, "volume_ml": 4.0, "coverage": 0.5}]
        given = record("a", "soc", 0.5, old, days=None, recurrence_outside_brain_ml=None)
        found = causes_of([given])["a"]
        for cause in ("distant_recurrence", "long_interval", "outside_brain"):
            assert found[cause] is pd.NA

    def test_worst_tenth_takes_equal_patients_along(self) -> None:
        coverage = pd.Series([0.3, 0.1, 0.1, *np.linspace(0.4, 1, 8)], list("abcdefghijk"))
        assert set(worst(coverage)) == {"b", "c"}  # 11 patients: the second worst is the limit
        assert set(worst(coverage.iloc[:10])) == {"b", "c"}  # 10: the worst, and who equals it

    def test_frequencies_are_counted_and_tested_by_fisher(self) -> None:
        """Both of the worst and 3 of 18 others: C(5, 2) / C(20, 2) is the chance of it, and the only as small one."""
        records = [
            record(f"P{i:02d}", "loti", i / 20, [], tumor_core_ml=1.0 if i in (0, 1, 7, 8, 9) else 20.0)
            for i in range(20)
        ]
        metrics = build("metrics", records)
        nothing = build("recurrence_patterns", []), build("quality", [])
        causes = build("causes", cause_rows(metrics, *nothing))
        table = build("cause_frequencies", frequency_rows(metrics, causes)).set_index("cause")
        row = table.loc["tiny_core"]
        assert row[["n_worst", "worst_with", "n_others", "others_with"]].tolist() == [2, 2, 18, 3]
        assert row["ratio"] == pytest.approx(6)
        assert row["p"] == pytest.approx(math.comb(5, 2) / math.comb(20, 2))
        assert table.loc["long_interval", "worst_with"] == table.loc["long_interval", "others_with"] == 0
        assert pd.isna(table.loc["long_interval", "ratio"])
        assert table.loc["multifocal", "n_worst"] == 0  # without lesions nobody knows
        assert frequency_rows(metrics.iloc[:9], causes) == []

    def test_rules_are_told_with_their_limits(self) -> None:
        said = {rule.cause: rule.said for rule in RULES}
        assert said["tiny_recurrence"] == "enhancing recurrence: below 0.524 ml"
        assert said["outside_brain"] == "part of the recurrence outside the brain mask: 5 % or more"
        assert said["multifocal"] == "lesions of at least 0.52 ml: 2 or more"


class TestOtherVolumes:
    def test_curve_meets_the_summary_at_the_plans_volume(self) -> None:
        generator = np.random.default_rng(8)
        records = []
        for i in range(17):
            for model in ("soc", "loti"):
                if (i, model) == (3, "loti"):
                    continue
                full = float(generator.beta(4, 1))
                curve = {"fraction": [0.5, 1.0, 2.0], "coverage_enhancing": [full / 2, full, 1.0]}
                records.append(
                    record(f"P{i:02d}", model, full, [], cohort="ABC"[i % 3 if i < 16 else 2], curve=curve)
                )
        tables, _ = make_tables(records, {}, [], draws=500, ranking_draws=100)
        curve = tables["curve_summary"].set_index(["model", "fraction"])
        summary = tables["summary"].set_index(["model", "dataset", "definition"])
        for model, n in (("soc", 17), ("loti", 16)):
            point, whole = curve.loc[(model, 1.0)], summary.loc[(model, "pooled", "enhancing")]
            assert (point["n"], whole["n"]) == (n, n)
            for name in ("mean", "ci_low", "ci_high"):
                assert point[name] == pytest.approx(whole[name], abs=1e-9)
            half = curve.loc[(model, 0.5)]
            assert half["ci_low"] == pytest.approx(whole["ci_low"] / 2, abs=1e-9)
            assert curve.loc[(model, 2.0), ["mean", "ci_low", "ci_high"]].tolist() == [1, 1, 1]

    def test_volume_saved_counts_who_never_gets_there(self) -> None:
        needed = [0.0, None, 250.0, 200.0, 100.0, 60.0, 30.0]  # of 100 ml; nothing to reach, never twice, ...
        records = [
            record(f"P{i}", "loti", 0.5, [], volume_at_soc_coverage_ml=ml) for i, ml in enumerate(needed)
        ]
        records.append(record("P9", "loti", 0.5, [], curve_area=None, volume_at_soc_coverage_ml=None))
        metrics = build("metrics", records)
        cohort = pd.Series("A", index=metrics["patient"].tolist())
        row = build("volume_saved", volume_rows(metrics, cohort, 300, 1)).iloc[0]
        assert (row["n"], row["n_less"], row["n_never"]) == (6, 2, 2)
        saved = [-1.0, -1.0, -1.0, 0.0, 0.4, 0.7]
        assert row["saved"] == np.median(saved)
        assert (row["saved_low"], row["saved_high"]) == bca_interval(saved, None, "median", 300, 1)
        few = build("volume_saved", volume_rows(metrics.iloc[:4], cohort, 300, 1)).iloc[0]
        assert few["n"] == 3
        assert pd.isna(few["saved_low"])
