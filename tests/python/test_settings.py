"""Whether a ranking survives other settings of the evaluation: against scipy, closed forms, and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata, wilcoxon

from predictgbm.report.results import Results
from predictgbm.report.sensitivity import section
from predictgbm.statistics.benchmark import make_tables
from predictgbm.statistics.paired import direction, verdict

MODELS = ("soc", "loti", "gliodil", "pinn")


def records(seed: int = 0, n: int = 12) -> list[dict]:
    """Patients with random coverages; one setting reverses them, one has all models alike, one few patients have."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        level = rng.random()
        for j, model in enumerate(MODELS):
            main = float(np.clip(level / 2 + 0.1 * j + rng.normal(0, 0.02), 0, 1))
            settings = [("margin", "10", 1 - main), ("margin", "20", 0.5), ("registration", "syn", main)]
            settings += [("interval", "200", main)] if i < 3 else []
            found.append(
                {"patient": f"{i:03d}", "model": model, "coverage_enhancing": main, "coverage_core": main / 2}
                | {"coverage_all": 1 - main / 2, "plan_ml": 100.0}
                | {
                    "settings": [
                        {"axis": axis, "setting": setting, "plan_ml": 50.0, "coverage_enhancing": value}
                        for axis, setting, value in settings
                    ]
                }
            )
    return found


def tables(found: list[dict]) -> dict[str, pd.DataFrame]:
    return make_tables(found, {}, [], draws=100, ranking_draws=100)[0]


@pytest.fixture(scope="module")
def result() -> dict[str, pd.DataFrame]:
    return tables(records())


def test_a_ranking_that_survives_one_that_turns_and_one_that_is_lost(result) -> None:
    rows = result["agreement"].set_index(["axis", "setting"])
    assert rows["tau"].dropna().to_dict() == {
        ("margin", "10"): -1.0,
        ("definition", "core"): 1.0,
        ("definition", "all"): -1.0,
        ("registration", "syn"): 1.0,
    }
    assert rows["n"].to_dict()["interval", "200"] == 3
    assert rows["same_best"].dropna().to_dict() == {
        ("margin", "10"): False,
        ("margin", "20"): False,
        ("definition", "core"): True,
        ("definition", "all"): False,
        ("registration", "syn"): True,
    }
    # All three models beat the reference in the main analysis.
    assert rows["verdicts_changed"].dropna().to_dict() == {
        ("margin", "10"): 3,
        ("margin", "20"): 3,
        ("definition", "core"): 0,
        ("definition", "all"): 3,
        ("registration", "syn"): 0,
    }


def test_rows_are_those_of_scipy() -> None:
    rng = np.random.default_rng(5)
    found = records(5)
    for record in found:
        record["settings"] = [
            {"axis": "margin", "setting": "10", "plan_ml": 1.0, "coverage_enhancing": round(rng.random(), 3)}
        ]
    result = tables(found)
    frame = pd.DataFrame(
        [
            (r["patient"], r["model"], r["settings"][0]["coverage_enhancing"], r["coverage_enhancing"])
            for r in found
        ],
        columns=["patient", "model", "other", "main"],
    )
    other, main = (frame.pivot(index="patient", columns="model", values=c) for c in ("other", "main"))
    rows = result["sensitivity"].query("axis == 'margin'").set_index("model")
    assert rows["mean"].to_dict() == pytest.approx(other.mean().to_dict())
    assert rows["mean_main"].to_dict() == pytest.approx(main.mean().to_dict())
    assert rows["rank"].to_dict() == dict(
        zip(other.columns, rankdata(-other.mean()).astype(int), strict=True)
    )
    for model in ("loti", "gliodil", "pinn"):
        expected = wilcoxon(other[model] - other["soc"], zero_method="pratt", method="exact").pvalue
        assert rows.loc[model, "p_pratt"] == pytest.approx(expected)
    (tau,) = result["agreement"].query("axis == 'margin'")["tau"]
    assert tau == pytest.approx(kendalltau(other.mean(), main.mean()).statistic)


def test_a_missing_plan_counts_as_zero_in_means_and_not_in_tests() -> None:
    found = [r for r in records(n=40) if (r["patient"], r["model"]) != ("000", "pinn")]
    row = (
        tables(found)["sensitivity"]
        .set_index(["axis", "setting", "model"])
        .loc[("registration", "syn", "pinn")]
    )
    own = [r["coverage_enhancing"] for r in found if r["model"] == "pinn"]
    assert row["mean"] == pytest.approx(sum(own) / 40)
    assert row["n"] == 40
    assert row["shift"] == row["shift_main"]


def test_a_model_of_a_subset_is_not_ranked_by_patients_whom_it_cannot_have() -> None:
    """One model besides the standard plan, on 25 of 40 patients: there is no panel of all patients."""
    found = [
        r for r in records(n=40) if r["model"] == "soc" or (r["model"] == "pinn" and int(r["patient"]) < 25)
    ]
    result = tables(found)
    main = result["rankings"].query("method == 'mean_then_rank'").set_index("model")
    assert set(main["panel"]) == {"subset"}
    rows = result["sensitivity"].set_index(["axis", "setting", "model"]).loc[("registration", "syn")]
    assert rows["n"].tolist() == [25, 25]
    assert rows["rank_main"].to_dict() == main["rank"].to_dict() == {"pinn": 1, "soc": 2}
    assert rows.loc["pinn", "mean_main"] == pytest.approx(main.loc["pinn", "score"], abs=1e-4)


def test_too_few_patients_or_models_make_no_rows() -> None:
    result = tables(records(n=4))
    assert result["sensitivity"].empty
    assert result["agreement"].empty
    assert len(result["settings"]) == 4 * len(MODELS) * 3 + 3 * len(MODELS)


@given(st.lists(st.integers(-20, 20), min_size=5, max_size=12))
def test_verdict_turns_with_the_differences(values: list[int]) -> None:
    differences = np.array(values) / 100
    assert verdict(-differences) == -verdict(differences)
    assert direction(-differences) == -direction(differences)
    assert verdict(differences) in (0, direction(differences))


def test_section_shows_every_setting(result, tmp_path) -> None:
    for name, table in result.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    found = section(Results(tmp_path))
    assert found is not None
    _, body = found
    for words in (
        "10 mm",
        "20 mm",
        "Registration: syn",
        "Recurrence: core",
        "−1.00",
        "200 days or more (3 patients)",
    ):
        assert words in body
    assert "Left out" not in body
    # A cell for each model in each of five settings.
    assert body.count("<rect") == 5 * len(MODELS)


def test_no_section_without_settings(tmp_path) -> None:
    assert section(Results(tmp_path)) is None
