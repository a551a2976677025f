"""Whether a model's spread tells where its plans are poor: measured on made-up arrays, in tables, in the report."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from predictgbm.evaluation import border_spread
from predictgbm.report import uncertainty
from predictgbm.report.line_plots import HEIGHT, LEFT, TOP, WIDTH
from predictgbm.report.results import Results
from predictgbm.statistics.uncertainty import kept_coverage, uncertainty_tables
from predictgbm.tables import build


def test_border_is_where_the_map_decided():
    """A block of the plan at the edge of the brain: spread counts on the sides that brain lies beyond, alone."""
    brain, plan = np.zeros((2, 9, 9, 9), bool)
    brain[1:8, 1:8, 1:8] = True
    brain[5, 5, 5] = False  # a hole, which is filled
    plan[1:4, 2:7, 2:7] = True
    by_hand = [
        (x, y, z)
        for x, y, z in np.argwhere(plan)
        if any(
            brain[neighbour] and not plan[neighbour]
            for neighbour in (
                (x - 1, y, z),
                (x + 1, y, z),
                (x, y - 1, z),
                (x, y + 1, z),
                (x, y, z - 1),
                (x, y, z + 1),
            )
        )
    ]
    assert 0 < len(by_hand) < plan.sum()
    spread = np.random.default_rng(1).random(plan.shape).astype(np.float32)
    assert border_spread(plan, spread, brain) == pytest.approx(np.mean([spread[tuple(at)] for at in by_hand]))
    # Neither the plan's middle nor what is outside changes it.
    other = np.full_like(spread, 9)
    at_border = tuple(np.transpose(by_hand))
    other[at_border] = spread[at_border]
    assert border_spread(plan, other, brain) == pytest.approx(border_spread(plan, spread, brain))


def test_no_spread_to_tell():
    brain, plan = np.ones((2, 4, 4, 4), bool)
    assert border_spread(plan, np.ones(plan.shape), brain) is None
    plan[0] = False
    assert border_spread(plan, np.ones(plan.shape), brain) == 1
    assert border_spread(plan, np.zeros(plan.shape), brain) is None
    assert border_spread(np.zeros_like(plan), np.ones(plan.shape), brain) is None


def test_kept_coverage():
    coverage = [0.9, 0.1, 0.5, 0.7]
    np.testing.assert_allclose(kept_coverage([1, 4, 3, 2], coverage), [0.9, 0.8, 0.7, 0.55])
    # Of three with the same spread, the mean over all orders of setting them aside.
    orders = [np.cumsum(order) / [1, 2, 3] for order in ([0.9, 0.5, 0.1], [0.9, 0.1, 0.5], [0.5, 0.9, 0.1])]
    orders += [np.cumsum(order) / [1, 2, 3] for order in ([0.5, 0.1, 0.9], [0.1, 0.9, 0.5], [0.1, 0.5, 0.9])]
    np.testing.assert_allclose(kept_coverage([2, 2, 2], [0.9, 0.5, 0.1]), np.mean(orders, axis=0))


@pytest.fixture(scope="module")
def metrics() -> pd.DataFrame:
    """Twenty patients: one model that knows, one that does not, one of four patients, and the standard, without any."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(20):
        coverage = rng.random()
        spread = {
            "knows": 1 - coverage + 0.2 * rng.random(),
            "guesses": rng.random(),
            "rare": 0.1,
            "soc": None,
        }
        rows += [
            {"patient": f"P{i:02d}", "model": model, "coverage_enhancing": coverage, "spread_border": value}
            for model, value in spread.items()
            if model != "rare" or i < 4
        ]
    # Nothing came back: no coverage.
    rows.append({"patient": "P20", "model": "knows", "coverage_enhancing": None, "spread_border": 5.0})
    return build("metrics", rows)


def test_tables_against_scipy(metrics: pd.DataFrame):
    tables = uncertainty_tables(metrics)
    found = tables["uncertainty"].set_index("model")
    assert found["n"].to_dict() == {"guesses": 20, "knows": 20, "rare": 4}
    for model in ("knows", "guesses"):
        own = metrics[metrics["model"] == model].dropna(subset=["coverage_enhancing"])
        spread, coverage = (own[name].astype(float) for name in ("spread_border", "coverage_enhancing"))
        expected = stats.spearmanr(spread, coverage)
        assert found.loc[model, ["rho", "p"]].tolist() == pytest.approx([expected.statistic, expected.pvalue])
        curve = tables["uncertainty_curve"].query("model == @model")
        assert curve["n_kept"].tolist() == list(range(5, 21))
        by_hand = [coverage[spread.nsmallest(k).index].mean() for k in range(5, 21)]
        assert curve["coverage"].tolist() == pytest.approx(by_hand)
        assert curve["kept"].iloc[0] == 0.25
    assert found.loc["knows", "rho"] < -0.8
    assert pd.isna(found.loc["rare", "rho"])
    assert "rare" not in set(tables["uncertainty_curve"]["model"])


def test_report(metrics: pd.DataFrame, tmp_path: Path):
    for name, made in ({"metrics": metrics} | uncertainty_tables(metrics)).items():
        made.to_csv(tmp_path / f"{name}.csv", index=False)
    results = Results(tmp_path)
    how, html = uncertainty.section(results)
    assert how.count(".") == 1
    assert "Standard of care" not in html
    figure = ElementTree.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL).group())
    svg = "{http://www.w3.org/2000/svg}"
    paths = {
        p.find(f"{svg}title").text: p.get("d")
        for p in figure.iter(f"{svg}path")
        if p.find(f"{svg}title") is not None
    }
    assert set(paths) == {"knows", "guesses"}
    points = [tuple(map(float, point.split())) for point in paths["knows"][1:].split("L")]
    own = metrics[(metrics["model"] == "knows")].dropna(subset=["coverage_enhancing"])
    x, y = points[-1]
    assert (x - LEFT) / WIDTH == pytest.approx(1, abs=1e-3)
    assert (TOP + HEIGHT - y) / HEIGHT == pytest.approx(own["coverage_enhancing"].mean(), abs=1e-3)
    half = own.nsmallest(10, "spread_border")["coverage_enhancing"].mean()
    assert f"{100 * half:.1f}" in html


def test_without_a_spread(tmp_path: Path):
    metrics = build("metrics", [{"patient": "P1", "model": "soc", "coverage_enhancing": 0.5}])
    tables = uncertainty_tables(metrics)
    assert all(table.empty for table in tables.values())
    for name, made in ({"metrics": metrics} | tables).items():
        made.to_csv(tmp_path / f"{name}.csv", index=False)
    assert uncertainty.section(Results(tmp_path)) is None
