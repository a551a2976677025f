"""Tables of a benchmark: their definitions, their content, and the command that writes them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from predictgbm.dose import dvh
from predictgbm.quality import Measure, write_quality
from predictgbm.reliability import bin_sums
from predictgbm.statistics import signed_rank_p
from predictgbm.statistics.benchmark import make_tables
from predictgbm.statistics.robustness import step_down_max_t
from predictgbm.tables import TABLES, TableError, build, data_dictionary

pytestmark = pytest.mark.filterwarnings("error")

COMMAND = Path(__file__).parents[2] / "bin" / "compute_statistics.py"
DRAWS = 300

COLUMNS = {
    "metrics": "patient session cohort followup_session days model coverage_enhancing coverage_core coverage_all dice "
    "hd95_mm plan_ml recurrence_enhancing_ml recurrence_core_ml tumor_core_ml tumor_whole_ml com_distance_cm n_lesions "
    "curve_area volume_at_soc_coverage_ml spread_border reason",
    "lesions": "patient model lesion volume_ml coverage core_distance_mm coverage_standard pattern",
    "recurrence_patterns": "patient n_lesions n_measurable multifocal pattern central_ml in_field_ml marginal_ml "
    "distant_ml farthest_mm outside_brain_ml",
    "coverage_by_pattern": "model unit group n n_patients mean ci_low ci_high gain gain_low gain_high",
    "causes": "patient cause value present",
    "cause_frequencies": "model cause n_worst worst_with n_others others_with ratio p",
    "curves": "patient model fraction coverage_enhancing",
    "settings": "patient model axis setting plan_ml coverage_enhancing",
    "sensitivity": "axis setting model n mean mean_main shift shift_main p_pratt p_pratt_main rank rank_main",
    "agreement": "axis setting n n_models tau same_best verdicts_changed",
    "curve_summary": "model fraction n mean ci_low ci_high",
    "volume_saved": "model n n_less n_never saved saved_low saved_high",
    "guarantee": "model n n_missing n_reached coverage level fraction kept",
    "dose": "patient model plan_d95_gy integral_gy_l recurrence_d98_gy recurrence_d95_gy recurrence_d50_gy "
    "recurrence_mean_gy recurrence_geud_gy recurrence_v95 brain_mean_gy brain_v95_ml brain_v50_ml wm_mean_gy "
    "gm_mean_gy csf_mean_gy painted_ml painted_d98_gy painted_d95_gy painted_d50_gy painted_mean_gy painted_geud_gy "
    "painted_v95",
    "dose_summary": "model measure n mean ci_low ci_high n_paired shift shift_low shift_high p_pratt",
    "organ_dose": "patient model organ volume_ml mean_gy d003cc_gy",
    "dvh": "model structure dose_gy n volume volume_low volume_high",
    "given_dose": "patient prescription_gy core_mean_gy integral_gy_l recurrence_d98_gy recurrence_d95_gy "
    "recurrence_d50_gy recurrence_mean_gy recurrence_geud_gy recurrence_v95 brain_mean_gy brain_v95_ml brain_v50_ml "
    "pattern_isodose pattern_standard",
    "given_lesions": "patient lesion volume_ml coverage_isodose coverage_standard pattern_isodose pattern_standard",
    "given_organs": "patient organ volume_ml mean_gy d003cc_gy",
    "given_summary": "measure n mean ci_low ci_high n_paired shift shift_low shift_high p_pratt",
    "given_dvh": "source structure dose_gy n volume volume_low volume_high",
    "calibration": "patient model prevalence probability brier reliability resolution uncertainty within skill ece",
    "calibration_summary": "model score n value low high",
    "reliability": "model bin_low bin_high n share probability frequency frequency_low frequency_high",
    "uncertainty": "model n rho p",
    "uncertainty_curve": "model n_kept kept coverage",
    "guidelines": "patient guideline model coverage_enhancing coverage_core plan_ml",
    "guideline_comparisons": "guideline model n n_zero mean mean_guideline shift shift_low shift_high rank_biserial "
    "p_pratt p_adjusted",
    "summary": "model dataset definition n mean sd sem median q1 q3 ci_low ci_high median_ci_low median_ci_high "
    "mean_missing_as_zero",
    "comparisons": "model dataset definition in_family identical n n_zero n_tied p_pratt p_wilcox p_signflip "
    "p_adjusted p_max_t mean_gain mean_gain_low mean_gain_high shift shift_low shift_high rank_biserial",
    "equivalence": "model dataset n bound shift shift_low shift_high p_noninferiority p_nonsuperiority p_equivalence "
    "mean p_t_noninferiority p_t_nonsuperiority p_t_equivalence",
    "mixed_model": "model n n_datasets estimate estimate_low estimate_high p sd_between sd_within fit",
    "leave_one_dataset_out": "model left_out n shift shift_low shift_high p_pratt sign_kept significance_kept",
    "power": "model n n_zero largest_gain minimum_gain minimum_gain_error n_tests family_gain family_gain_error",
    "correlations": "model covariate n rho p",
    "pairwise": "panel model_a model_b n n_zero shift rank_biserial p p_adjusted",
    "rankings": "panel method model n n_missing score rank rank_median rank_low rank_high n_complete score_complete "
    "rank_complete",
    "rank_frequencies": "panel method model rank frequency",
    "cohort": "patient cohort session followup_session days status reason_code reason tumor_core_ml tumor_whole_ml "
    "recurrence_enhancing_ml com_distance_cm tissue",
    "failures": "patient session model stage kind analysis reason",
    "quality": "patient session stage method measure value expected flagged meaning note",
}


def record(
    patient: str, model: str, coverage: float | None, cohort: str = "A", **other: Any
) -> dict[str, Any]:
    """Return what evaluate_plan writes for one plan; its curve is linear up to the plan's volume."""
    known = coverage is not None
    fraction = [0.5, 1.0, 2.0]
    return {
        "patient": patient,
        "session": "ses-pre",
        "cohort": cohort,
        "followup_session": "ses-1",
        "days": 120,
        "model": model,
        "coverage_enhancing": coverage,
        "coverage_core": coverage,
        "coverage_all": coverage / 2 if known else None,
        "dice": 0.3 if known else None,
        "hd95_mm": 12.0 if known else None,
        "plan_ml": 100.0,
        "recurrence_enhancing_ml": 5.0 if known else 0.0,
        "recurrence_core_ml": 6.0 if known else 0.0,
        "tumor_core_ml": 20.0,
        "tumor_whole_ml": 80.0,
        "com_distance_cm": 1.5 if known else None,
        "n_lesions": 1 if known else 0,
        "curve_area": 0.5 if known else None,
        "reason": None if known else "no recurrence",
        "guidelines": [
            {"guideline": "estroeano2023", "plan_ml": 90.0}
            | dict.fromkeys(("coverage_enhancing", "coverage_core"), coverage)
            | dict.fromkeys(
                ("guideline_coverage_enhancing", "guideline_coverage_core"), 0.5 if known else None
            )
        ],
        "lesions": [{"lesion": 1, "volume_ml": 5.0, "coverage": coverage}] if known else [],
        "settings": [{"axis": "margin", "setting": "10", "plan_ml": 50.0, "coverage_enhancing": coverage / 2}]
        if known
        else [],
        "curve": {"fraction": fraction, "coverage_enhancing": [min(1.0, f * coverage) for f in fraction]}
        if known
        else None,
    } | other


def benchmark(
    n: int = 24, seed: int = 0, models: tuple[str, ...] = ("fisher", "loti")
) -> list[dict[str, Any]]:
    """Return records of n patients in three cohorts; coverages are whole hundredths, so that zeros and ties occur."""
    generator = np.random.default_rng(seed)
    records = []
    for i in range(n):
        soc = generator.integers(40, 80)
        patient = {
            "cohort": "ABC"[i % 3],
            "com_distance_cm": float(generator.random()),
            "tumor_core_ml": float(generator.random()),
        }
        for model in ("soc", *models):
            gain = 0 if model == "soc" else generator.integers(-3, 8)
            records.append(record(f"P{i:02d}", model, float(soc + gain) / 100, **patient))
    return records


def tables_of(records: list[dict[str, Any]], cohort: Any = None, failures: Any = (), **options: Any) -> Any:
    return make_tables(records, cohort or {}, failures, draws=DRAWS, **options)


def row_of(table: pd.DataFrame, **key: Any) -> pd.Series:
    found = table[
        np.logical_and.reduce([(table[name] == value).to_numpy(bool) for name, value in key.items()])
    ]
    assert len(found) == 1
    return found.iloc[0]


class TestDefinitions:
    def test_columns_and_their_order(self):
        assert {name: " ".join(table.names) for name, table in TABLES.items()} == COLUMNS

    def test_every_column_is_explained(self):
        dictionary = data_dictionary()
        assert list(dictionary.columns) == ["table", "column", "type", "unit", "description"]
        assert len(dictionary) == sum(len(names.split()) for names in COLUMNS.values())
        assert (dictionary["description"].str.len() > 5).all()
        quantities = dictionary[dictionary["type"] == "number"]
        assert (quantities["unit"] != "").all()
        for suffix, unit in {"_ml": "ml", "_mm": "mm", "_cm": "cm"}.items():
            assert (quantities.loc[quantities["column"].str.endswith(suffix), "unit"] == unit).all()

    def test_types_order_and_missing_values(self):
        table = build(
            "failures",
            [
                {"reason": "b", "patient": "2", "analysis": "main"},
                {"patient": "1", "model": "", "analysis": "main", "more": 1},
            ],
        )
        assert list(table["patient"]) == ["1", "2"]
        assert table["model"].isna().all()
        assert [str(t) for t in build("curves", []).dtypes] == ["string", "string", "Float64", "Float64"]

    def test_ten_digits_are_kept(self):
        table = build(
            "curves", [record("1", "soc", None) | {"fraction": 1 / 3, "coverage_enhancing": 1e-30 / 3}]
        )
        assert table.loc[0, "fraction"] == 0.3333333333
        assert table.loc[0, "coverage_enhancing"] == 3.333333333e-31

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            (
                {"coverage_enhancing": 1.2},
                "patient 1, model soc: coverage_enhancing is 1.2, expected at most 1",
            ),
            ({"dice": "0.3"}, "dice: '0.3' is not of type number"),
            ({"days": 3.5}, "days: 3.5 is not of type integer"),
            ({"hd95_mm": float("inf")}, "hd95_mm: holds an infinite number"),
            ({"patient": None}, "patient is missing"),
            ({"patient": 7}, "patient: 7 is not of type string"),
            ({"plan_ml": -1.0}, "plan_ml is -1, expected at least 0"),
        ],
    )
    def test_a_wrong_value_is_named(self, changed, told):
        with pytest.raises(TableError, match="table metrics") as error:
            build("metrics", [record("1", "soc", 0.5) | changed])
        assert told in str(error.value)

    def test_a_patient_and_model_occur_once(self):
        with pytest.raises(TableError, match="patient P1, model soc: occurs twice"):
            build("metrics", [record("P1", "soc", 0.5), record("P1", "soc", 0.6)])

    def test_a_word_out_of_the_list_is_refused(self):
        with pytest.raises(TableError, match="patient 1: status is lost, expected one of evaluated"):
            build("cohort", [{"patient": "1", "status": "lost"}])


class TestContent:
    def test_summary_describes_the_coverages(self):
        records = benchmark(30)
        tables, _ = tables_of(records)
        values = np.array(
            [r["coverage_core"] for r in records if r["model"] == "loti" and r["cohort"] == "B"]
        )
        row = row_of(tables["summary"], model="loti", dataset="B", definition="core")
        expected = [
            10,
            values.mean(),
            values.std(ddof=1),
            stats.sem(values),
            *np.percentile(values, [50, 25, 75]),
        ]
        assert row[["n", "mean", "sd", "sem", "median", "q1", "q3"]].tolist() == pytest.approx(
            expected, rel=1e-9
        )
        for low, middle, high in (
            ("ci_low", "mean", "ci_high"),
            ("median_ci_low", "median", "median_ci_high"),
        ):
            assert (tables["summary"][low] <= tables["summary"][middle]).all()
            assert (tables["summary"][middle] <= tables["summary"][high]).all()
        assert set(tables["summary"]["dataset"]) == {"A", "B", "C", "pooled"}

    def test_comparisons_are_paired_by_patient(self):
        records = benchmark(30)
        tables, _ = tables_of(list(reversed(records)))
        wide = pd.DataFrame(records).pivot(index="patient", columns="model", values="coverage_enhancing")
        gain = np.round(wide["loti"] - wide["soc"], 9)
        row = row_of(tables["comparisons"], model="loti", dataset="pooled", definition="enhancing")
        assert row["p_pratt"] == pytest.approx(signed_rank_p(gain), rel=1e-9)
        assert (row["n"], row["n_zero"]) == (30, int((gain == 0).sum()))
        walsh = [(a + b) / 2 for i, a in enumerate(gain) for b in gain[i:]]
        assert row["shift"] == pytest.approx(np.median(walsh)) != 0
        assert row["shift_low"] <= row["shift"] <= row["shift_high"]
        better, worse = (signed.sum() for signed in (gain[gain > 0], gain[gain < 0]))
        assert np.sign(row["rank_biserial"]) == np.sign(better + worse)
        assert "soc" not in set(tables["comparisons"]["model"])

    def test_family_is_what_was_declared(self):
        tables, facts = tables_of(benchmark(models=("a", "b", "c")), family_definitions=("enhancing", "core"))
        table = tables["comparisons"]
        inside = table[table["in_family"]]
        assert set(zip(inside["model"], inside["definition"], strict=True)) == {
            (model, definition) for model in "abc" for definition in ("enhancing", "core")
        }
        assert set(inside["dataset"]) == {"pooled"}
        expected = multipletests(inside["p_pratt"].to_numpy(float), method="holm")[1]
        assert inside["p_adjusted"].to_numpy(float) == pytest.approx(expected, rel=1e-8)
        assert table.loc[~table["in_family"], "p_adjusted"].isna().all()
        assert len(facts["family"]) == 6

    def test_family_is_adjusted_by_joint_sign_flips_too(self):
        records = [r for r in benchmark(models=("a", "b", "c")) if r["patient"] != "P03" or r["model"] != "b"]
        tables, _ = tables_of(records, family_models=["a", "b"], seed=4)
        wide = pd.DataFrame(records).pivot(index="patient", columns="model", values="coverage_enhancing")
        gains = wide[["a", "b"]].sub(wide["soc"], axis=0)
        expected = step_down_max_t(gains.to_numpy(), DRAWS, seed=4)
        table = tables["comparisons"]
        inside = table["in_family"].to_numpy(bool)
        assert table.loc[inside, "model"].tolist() == ["a", "b"]
        assert table.loc[inside, "p_max_t"].tolist() == pytest.approx(expected.tolist(), rel=1e-9)
        assert table.loc[~inside, "p_max_t"].isna().all()

    def test_robustness_is_of_the_primary_endpoint(self):
        records = benchmark(30, models=("a",))
        tables, _ = tables_of(records, equivalence_bound=0.03)
        wide = pd.DataFrame(records).pivot(index="patient", columns="model", values="coverage_enhancing")
        gain = (wide["a"] - wide["soc"]).to_numpy()
        row = row_of(tables["equivalence"], model="a", dataset="pooled")
        assert row["p_nonsuperiority"] == pytest.approx(
            signed_rank_p(gain - 0.03, alternative="less"), rel=1e-9
        )
        assert (row["n"], row["bound"]) == (30, 0.03)
        assert row["mean"] == pytest.approx(gain.mean())
        assert set(tables["equivalence"]["dataset"]) == {"A", "B", "C", "pooled"}
        without_b = gain[np.arange(30) % 3 != 1]
        row = row_of(tables["leave_one_dataset_out"], model="a", left_out="B")
        assert row["p_pratt"] == pytest.approx(signed_rank_p(without_b), rel=1e-9)
        assert row_of(tables["mixed_model"], model="a")["n_datasets"] == 3
        assert row_of(tables["power"], model="a")["n_tests"] == 1

    def test_family_can_be_some_of_the_models(self):
        tables, _ = tables_of(benchmark(models=("a", "b", "c")), family_models=["b"])
        table = tables["comparisons"]
        row = row_of(table[table["in_family"]], model="b")
        assert row["p_adjusted"] == row["p_pratt"]
        assert table["in_family"].sum() == 1

    def test_declared_model_without_result_counts_in_the_adjustment(self):
        tables, facts = tables_of(benchmark(models=("a", "b")), family_models=["a", "b", "absent"])
        inside = tables["comparisons"].loc[lambda table: table["in_family"]]
        assert inside["p_adjusted"].min() == pytest.approx(min(1, 3 * inside["p_pratt"].min()))
        assert any("without result: absent" in note for note in facts["notes"])

    def test_unknown_definition_is_refused(self):
        with pytest.raises(TableError, match="necrosis; known are enhancing, core, all"):
            tables_of(benchmark(), family_definitions=["necrosis"])

    def test_missing_output_leaves_the_test_and_counts_zero_beside_it(self):
        records = benchmark(20)
        kept = [r for r in records if not (r["model"] == "loti" and r["patient"] < "P04")]
        failures = [
            {"patient": f"P{i:02d}", "session": "s", "model": "loti", "stage": "predict", "reason": "r"}
            for i in range(4)
        ]
        tables, _ = tables_of(kept, failures=failures)
        row = row_of(tables["summary"], model="loti", dataset="pooled", definition="enhancing")
        values = [r["coverage_enhancing"] for r in kept if r["model"] == "loti"]
        assert row["n"] == 16
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["mean_missing_as_zero"] == pytest.approx(sum(values) / 20)
        assert (
            row_of(tables["comparisons"], model="loti", dataset="pooled", definition="enhancing")["n"] == 16
        )
        assert len(tables["failures"]) == 4

    def test_failures_are_counted_by_analysis(self):
        one = {"patient": "P00", "stage": "register follow-up (rigid)", "reason": "r"}
        failures = [one | {"analysis": "secondary"}, one | {"stage": "predict"}, one | {"stage": "plan"}] * 2
        tables, facts = tables_of(benchmark(6), failures=failures)
        assert facts["failures"] == {"main": 2, "secondary": 1}
        assert list(tables["failures"]["analysis"]) == ["main", "main", "secondary"]

    def test_a_model_that_always_failed_is_listed(self):
        failures = [{"patient": "P00", "model": "broken", "stage": "predict", "reason": "no"}] * 2
        tables, facts = tables_of(benchmark(12), failures=failures)
        row = row_of(tables["summary"], model="broken", dataset="pooled", definition="enhancing")
        assert (row["n"], row["mean_missing_as_zero"]) == (0, 0)
        assert pd.isna(row["mean"])
        assert {"model": "broken", "dataset": "pooled", "definition": "enhancing"} in facts["family"]
        # The declared family has three tests, so the smallest of the others is tripled.
        inside = tables["comparisons"].loc[lambda table: table["in_family"]]
        assert inside["p_adjusted"].min() == pytest.approx(min(1, 3 * inside["p_pratt"].min()))
        assert len(tables["failures"]) == 1

    def test_patient_without_recurrence_counts_nowhere(self):
        records = benchmark(12) + [record("Q", model, None) for model in ("soc", "fisher", "loti")]
        tables, _ = tables_of(records)
        row = row_of(tables["summary"], model="loti", dataset="pooled", definition="enhancing")
        assert row["n"] == 12
        assert row["mean_missing_as_zero"] == pytest.approx(row["mean"])
        assert row_of(tables["metrics"], patient="Q", model="loti")["reason"] == "no recurrence"
        assert row_of(tables["cohort"], patient="Q")["status"] == "predicted"
        assert "Q" not in set(tables["curves"]["patient"])

    def test_volume_at_the_coverage_of_the_standard_of_care(self):
        # Curves are linear: a model of coverage 0.8 reaches 0.6 at three quarters of the plan's 100 ml.
        tables, _ = tables_of(
            [
                record("1", "soc", 0.6),
                record("1", "loti", 0.8),
                record("1", "worse", 0.2),
                record("1", "known", 0.9, volume_at_soc_coverage_ml=12.5),
                record("2", "loti", 0.5),
            ]
        )
        volumes = tables["metrics"].set_index(["patient", "model"])["volume_at_soc_coverage_ml"]
        assert volumes["1", "loti"] == pytest.approx(75)
        assert volumes["1", "soc"] == pytest.approx(100)
        assert volumes["1", "known"] == 12.5
        assert pd.isna(volumes["1", "worse"])
        assert pd.isna(volumes["2", "loti"])

    def test_guarantee_is_the_volume_of_all_but_the_allowed_patients(self):
        # Volumes for 90 %: the plan's own where it covers that much, twice it from 45 % on, else none.
        coverages = {"soc": [0.95] * 18 + [0.5, 0.3], "loti": [0.95] * 17 + [0.5, 0.3, 0.3]}
        records = [
            record(f"{i:02d}", model, value)
            for model, row in coverages.items()
            for i, value in enumerate(row)
        ]
        tables, _ = tables_of(records)
        soc, loti = (row_of(tables["guarantee"], model=model) for model in ("soc", "loti"))
        # 0.9 of 21 is 18.9: the 19th smallest of 20.
        assert (soc["n"], soc["n_reached"], soc["fraction"]) == (20, 19, 2.0)
        assert (loti["n"], loti["n_reached"]) == (20, 18)
        assert pd.isna(loti["fraction"])
        # Without one of the 18 the 18th of 19 others is 2; without that of 2 or none, it is 1.
        assert soc["kept"] == 18 / 20
        assert row_of(tables_of(records[:8])[0]["guarantee"], model="soc")["n"] == 8

    def test_guarantee_counts_a_missing_map_as_never_covered(self):
        records = [record(f"{i:02d}", model, 0.95) for model in ("soc", "loti", "adc") for i in range(20)]
        absent = {("loti", "03"), ("loti", "07"), ("adc", "03"), ("adc", "07")}
        kept = [r for r in records if (r["model"], r["patient"]) not in absent]
        failures = [
            {
                "patient": patient,
                "model": model,
                "stage": "predict",
                "kind": "crashed" if model == "loti" else "missing_input",
                "analysis": "main",
                "reason": "told",
            }
            for model, patient in sorted(absent)
        ]
        tables, _ = tables_of(kept, failures=failures)
        loti, adc = (row_of(tables["guarantee"], model=model) for model in ("loti", "adc"))
        # The 19th of 20 volumes is infinite where two are; what the exam lacks is no failure of the model.
        assert (loti["n"], loti["n_missing"], loti["n_reached"], loti["kept"]) == (20, 2, 18, 0.9)
        assert pd.isna(loti["fraction"])
        assert (adc["n"], adc["n_missing"], adc["n_reached"], adc["fraction"]) == (18, 0, 18, 1.0)
        tables, _ = tables_of(kept, failures=failures, guarantee_coverage=0.5, guarantee_level=0.8)
        loti = row_of(tables["guarantee"], model="loti")
        assert (loti["coverage"], loti["level"], loti["fraction"], loti["kept"]) == (0.5, 0.8, 1.0, 0.9)

    def test_correlations_are_of_the_gain(self):
        records = benchmark(30)
        tables, _ = tables_of(records)
        frame = pd.DataFrame(records)
        wide = frame.pivot(index="patient", columns="model", values="coverage_enhancing")
        distance = frame.groupby("patient")["com_distance_cm"].first()
        expected = stats.spearmanr(distance, np.round(wide["fisher"] - wide["soc"], 9))
        row = row_of(tables["correlations"], model="fisher", covariate="com_distance_cm")
        assert (row["rho"], row["p"]) == pytest.approx((expected.statistic, expected.pvalue))
        assert row["n"] == 30

    def test_cohort_takes_what_is_given_and_completes_it(self):
        cohort = {
            "patients": [
                {"patient": "P00", "cohort": "A", "days": 99, "tissue": "given"},
                {
                    "patient": "X",
                    "status": "excluded",
                    "reason_code": "no_followup",
                    "reason": "no follow-up",
                },
            ]
        }
        tables, facts = tables_of(benchmark(3), cohort)
        table = tables["cohort"].set_index("patient")
        assert table["status"].to_dict() == {
            "P00": "evaluated",
            "P01": "evaluated",
            "P02": "evaluated",
            "X": "excluded",
        }
        assert table.loc["P00", "days"] == 99
        assert table.loc["P00", "recurrence_enhancing_ml"] == 5
        assert [step["patients"] for step in facts["flow"]] == [4, 3, 3]
        flow = [{"step": "screened", "patients": 9}]
        assert tables_of(benchmark(3), {"flow": flow})[1]["flow"] == flow

    def test_records_may_leave_the_identity_to_the_cohort(self):
        records = [
            {k: v for k, v in r.items() if k not in ("cohort", "days")}
            | {"session": "", "followup_session": None}
            for r in benchmark(6)
        ]
        cohort = {
            "patients": [
                {"patient": f"P{i:02d}", "cohort": "TUM", "session": "s", "days": 6.8} for i in range(6)
            ]
        }
        tables, _ = tables_of(records, cohort)
        assert set(tables["summary"]["dataset"]) == {"TUM", "pooled"}
        assert set(tables["metrics"]["session"]) == {"s"}
        assert set(tables["metrics"]["days"]) == set(tables["cohort"]["days"]) == {7}

    def test_order_of_records_does_not_matter(self):
        records = benchmark(18)
        shuffled = [records[i] for i in np.random.default_rng(1).permutation(len(records))]
        (first, facts), (second, other) = tables_of(records), tables_of(shuffled)
        assert facts == other
        for name in first:
            pd.testing.assert_frame_equal(first[name], second[name])

    def test_another_model_changes_no_interval(self):
        few, _ = tables_of([r for r in benchmark(18) if r["model"] != "fisher"])
        many, _ = tables_of(benchmark(18))
        same = many["summary"][many["summary"]["model"] != "fisher"].reset_index(drop=True)
        pd.testing.assert_frame_equal(few["summary"], same)


class TestDegenerate:
    def test_nothing_to_evaluate(self):
        tables, facts = tables_of([], {"patients": [{"patient": "1", "status": "predicted"}]})
        assert {name for name, table in tables.items() if len(table)} == {"cohort", "data_dictionary"}
        assert facts["notes"] == []

    def test_fewer_than_five_patients(self):
        tables, facts = tables_of(benchmark(4))
        comparisons = tables["comparisons"]
        empty = [
            "p_pratt",
            "p_wilcox",
            "p_signflip",
            "p_adjusted",
            "shift_low",
            "shift_high",
            "rank_biserial",
        ]
        assert comparisons[empty].isna().all(axis=None)
        assert comparisons.query("dataset == 'pooled'")["shift"].notna().all()
        assert tables["summary"][["ci_low", "ci_high", "median_ci_low"]].isna().all(axis=None)
        assert tables["equivalence"]["p_equivalence"].isna().all()
        assert len(tables["mixed_model"]) == len(tables["power"]) == len(tables["leave_one_dataset_out"]) == 0
        assert any("robustness not computed: fisher, loti in pooled" in note for note in facts["notes"])
        assert any("Fewer than 5 pairs" in note and "fisher, loti" in note for note in facts["notes"])

    def test_five_pairs_have_p_values_but_no_interval(self):
        tables, facts = tables_of(benchmark(5, seed=3))
        row = row_of(tables["comparisons"], model="loti", dataset="pooled", definition="enhancing")
        assert row[["p_pratt", "p_adjusted"]].notna().all()
        assert pd.isna(row["shift_low"])
        assert any("interval of the shift" in note for note in facts["notes"])

    def test_a_model_equal_to_the_standard_of_care(self):
        records = [r | {"model": m} for r in benchmark(9, models=()) for m in ("soc", "copy")]
        tables, facts = tables_of(records)
        row = row_of(tables["comparisons"], model="copy", dataset="pooled", definition="enhancing")
        assert (row["n"], row["n_zero"], row["shift"]) == (9, 9, 0)
        assert row[["p_pratt", "p_signflip", "rank_biserial"]].isna().all()
        same = row_of(tables["equivalence"], model="copy", dataset="pooled")
        assert same["p_equivalence"] == pytest.approx(2.0**-9)
        assert any("All differences are zero" in note for note in facts["notes"])
        assert row["identical"]
        assert not row["in_family"]
        assert facts["family"] == []
        assert any("Same plan as soc in every patient" in note for note in facts["notes"])

    def test_a_model_of_the_same_plans_costs_the_others_nothing(self):
        records = benchmark(20)
        copies = [r | {"model": "copy"} for r in records if r["model"] == "soc"]
        alone, _ = tables_of(records)
        beside, facts = tables_of(records + copies)
        columns = ["model", "dataset", "definition", "in_family", "p_pratt", "p_adjusted", "p_max_t"]
        others = beside["comparisons"].loc[lambda t: t["model"] != "copy"].reset_index(drop=True)
        pd.testing.assert_frame_equal(others[columns], alone["comparisons"][columns])
        assert "copy" not in {test["model"] for test in facts["family"]}
        assert beside["comparisons"].loc[lambda t: t["identical"], "model"].unique().tolist() == ["copy"]
        # Declared by name it counts, as does one that differs once or lacks a plan.
        whole = ["copy", "fisher", "loti"]
        declared, facts = tables_of(records + copies, family_models=whole)
        assert [test["model"] for test in facts["family"]] == whole
        assert any("only where it is declared" in note for note in facts["notes"])
        other = [copies[0] | {"hd95_mm": 12.5}, *copies[1:]]
        for changed in (other, copies[1:]):
            tables, _ = tables_of(records + changed)
            assert not tables["comparisons"]["identical"].any()
            inside, same = (t["comparisons"].loc[lambda t: t["in_family"]] for t in (tables, declared))
            assert inside["p_adjusted"].dropna().tolist() == same["p_adjusted"].dropna().tolist()

    def test_interval_and_test_that_disagree_over_zeros_are_told(self):
        # Ten patients gain and thirty are as before: the sign is clear, the shift of most is none.
        gains = [0.0] * 30 + [0.01 * (i + 1) for i in range(10)]
        records = [record(f"P{i:02d}", "soc", 0.5) for i in range(40)]
        records += [record(f"P{i:02d}", "loti", 0.5 + gain) for i, gain in enumerate(gains)]
        tables, facts = tables_of(records)
        row = row_of(tables["comparisons"], model="loti", dataset="pooled", definition="enhancing")
        assert row["p_pratt"] == pytest.approx(2 / 2**10)
        assert (row["n_zero"], row["shift"], row["shift_low"]) == (30, 0, 0)
        assert any("touches zero" in note for note in facts["notes"])

    def test_cohort_of_one_patient(self):
        records = [*benchmark(9), record("Z", "soc", 0.5, "Z"), record("Z", "loti", 0.6, "Z")]
        tables, _ = tables_of(records)
        row = row_of(tables["summary"], model="loti", dataset="Z", definition="enhancing")
        assert (row["n"], row["mean"]) == (1, 0.6)
        assert row[["sd", "ci_low"]].isna().all()

    def test_small_cohorts_are_resampled_together(self):
        # Within cohorts of one there would be nothing to draw, and the interval would have no width.
        records = [r | {"cohort": r["patient"]} for r in benchmark(12)]
        tables, _ = tables_of(records)
        row = row_of(tables["summary"], model="loti", dataset="pooled", definition="enhancing")
        assert row["ci_high"] - row["ci_low"] > row["sem"]

    def test_only_the_standard_of_care(self):
        tables, facts = tables_of(benchmark(9, models=()))
        assert len(tables["comparisons"]) == len(tables["correlations"]) == 0
        assert row_of(tables["summary"], model="soc", dataset="pooled", definition="enhancing")["n"] == 9
        assert facts["family"] == []
        assert any("only model" in note for note in facts["notes"])

    def test_no_standard_of_care(self):
        tables, facts = tables_of([r for r in benchmark(9) if r["model"] != "soc"])
        assert (tables["comparisons"]["n"] == 0).all()
        assert tables["comparisons"]["p_pratt"].isna().all()
        assert tables["correlations"]["rho"].isna().all()
        assert len(tables["equivalence"]) == len(tables["power"]) == 0
        assert any("'soc' has no result" in note for note in facts["notes"])

    def test_constant_covariate(self):
        tables, facts = tables_of([r | {"com_distance_cm": 1.0} for r in benchmark(9)])
        assert pd.isna(row_of(tables["correlations"], model="loti", covariate="com_distance_cm")["rho"])
        assert any("com_distance_cm" in note for note in facts["notes"])

    def test_no_cohort_is_given(self):
        tables, _ = tables_of([r | {"cohort": None} for r in benchmark(6)])
        assert set(tables["summary"]["dataset"]) == {"not given", "pooled"}

    def test_a_cohort_called_pooled_stays_apart_from_all_patients(self):
        records = [r | ({"cohort": "pooled"} if r["cohort"] == "A" else {}) for r in benchmark(6)]
        summary = tables_of(records)[0]["summary"].query("model == 'soc' and definition == 'core'")
        assert dict(zip(summary["dataset"], summary["n"], strict=True)) == {
            "B": 2,
            "C": 2,
            "pooled": 6,
            "pooled (cohort)": 2,
        }


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench mark ü")
    (folder / "in" / "more").mkdir(parents=True)
    organ = {"organ": "stem", "volume_ml": 20.0, "mean_gy": 12.0, "d003cc_gy": 54.0}
    for i, entry in enumerate(benchmark(10)):
        place = folder / "in" / ("more" if i % 2 else "")
        dose = {
            "measures": {"recurrence_mean_gy": 50.0 + i},
            "dvh": {"recurrence": dvh([50.0, 60.0]).tolist()},
            "organs": [organ],
        }
        entry |= {"dose": dose, "calibration": bin_sums([0.1, 0.7], [0, 1]).tolist()}
        entry["spread_border"] = i / 100
        (place / f"{i}_metrics.json").write_text(json.dumps(entry))
    cohort = {"patients": [{"patient": "NA", "status": "excluded", "reason": 'says "no", twice\nand ü'}]}
    (folder / "cohort.json").write_text(json.dumps(cohort), encoding="utf-8")
    (folder / "failure.json").write_text(
        json.dumps({"patient": "P00", "model": "broken", "stage": "predict"})
    )
    (folder / "failures.json").write_text(
        json.dumps([{"patient": "P01", "model": "broken", "stage": "plan"}])
    )
    measures = [Measure("brain_ml", 700.5, "volume of the brain", least=900), Measure("parts", 1, "pieces")]
    write_quality(folder / "quality.json", {"patient": "P01", "session": "pre"}, "brain", measures)
    given = {
        "patient": "P01",
        "prescription_gy": 60.0,
        "measures": {"recurrence_mean_gy": 55.0},
        "dvh": {"recurrence": dvh([55.0]).tolist()},
        "lesions": [{"lesion": 1, "volume_ml": 1.0, "coverage_isodose": 0.5, "pattern_isodose": "marginal"}],
        "organs": [organ],
    }
    (folder / "given_dose.json").write_text(json.dumps(given))
    for out in ("tables", "again"):
        run = run_command(
            *("--metrics", folder / "in", "--cohort", folder / "cohort.json"),
            *("--failures", folder / "failure.json", folder / "failures.json"),
            *("--quality", folder / "quality.json", "--given-dose", folder / "given_dose.json"),
            *("--out", folder / out),
            *("--draws", DRAWS, "--ranking-draws", 150, "--seed", 7, "--simulated"),
        )
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        assert "seed 7" in run.stdout
    return folder


class TestCommand:
    def test_same_input_gives_the_same_bytes(self, written):
        names = sorted(path.name for path in (written / "tables").iterdir())
        expected = {f"{name}.{kind}" for name in TABLES for kind in ("csv", "parquet")}
        assert set(names) == expected | {"data_dictionary.csv", "statistics.json"}
        for name in names:
            assert (written / "tables" / name).read_bytes() == (written / "again" / name).read_bytes(), name

    @pytest.mark.parametrize("name", list(TABLES))
    def test_parquet_equals_csv(self, written, name):
        parquet = pd.read_parquet(written / "tables" / f"{name}.parquet")
        assert {column: str(kind) for column, kind in parquet.dtypes.items()} == TABLES[name].dtypes
        convert = {
            "string": str,
            "integer": int,
            "number": float,
            "boolean": {"True": True, "False": False}.get,
        }
        converters = [convert[column.type] for column in TABLES[name].columns]
        with (written / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert header == COLUMNS[name].split()
        from_csv = [[f(v) if v else None for f, v in zip(converters, row, strict=True)] for row in rows]
        from_parquet = [[None if v is pd.NA else v for v in row] for row in parquet.itertuples(index=False)]
        assert from_csv == from_parquet
        assert rows

    def test_facts(self, written):
        facts = json.loads((written / "tables" / "statistics.json").read_text())
        assert facts["seed"] == 7
        assert facts["n_bootstrap"] == DRAWS
        assert facts["ranking"]["draws"] == 150
        assert facts["ranking"]["panels"]["all_patients"]["models"] == ["fisher", "loti", "soc"]
        assert facts["simulated"] is True
        assert facts["primary"] == "enhancing"
        assert {entry["model"] for entry in facts["family"]} == {"broken", "fisher", "loti"}

    def test_predict_writes_headers_only(self, tmp_path):
        (tmp_path / "empty").mkdir()
        run = run_command("--metrics", tmp_path / "empty", "--out", tmp_path / "out")
        assert (run.returncode, run.stderr) == (0, "")
        for name, columns in COLUMNS.items():
            assert (tmp_path / "out" / f"{name}.csv").read_text() == columns.replace(" ", ",") + "\n"
            assert list(pd.read_parquet(tmp_path / "out" / f"{name}.parquet").columns) == columns.split()

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ('{"patient": "1", "mod', "not readable as JSON"),
            ('["text"]', "expected an object"),
            ('{"patient": "1", "model": "soc", "coverage_enhancing": 3}', "coverage_enhancing is 3"),
        ],
    )
    def test_a_fault_is_one_line(self, tmp_path, content, told):
        (tmp_path / "m.json").write_text(content)
        run = run_command("--metrics", tmp_path / "m.json", "--out", tmp_path / "out")
        assert run.returncode == 2
        assert run.stderr.startswith("ERROR: ")
        assert run.stderr.count("\n") == 1
        assert told in run.stderr

    def test_a_bound_that_is_no_part_of_the_recurrence_is_refused(self, tmp_path):
        run = run_command("--out", tmp_path / "out", "--equivalence-bound", 5)
        assert run.returncode == 2
        assert "--equivalence-bound: expected a fraction" in run.stderr
        run = run_command("--out", tmp_path / "out", "--guarantee-level", 1)
        assert run.returncode == 2
        assert "--guarantee-level: expected a share" in run.stderr

    def test_a_missing_file_is_named(self, tmp_path):
        run = run_command("--metrics", tmp_path / "absent.json", "--out", tmp_path / "out")
        assert run.returncode == 2
        assert "absent.json" in run.stderr
