"""What is said of a model that changes nothing for most patients: the shift is zero, and the test is sure."""

from __future__ import annotations

import subprocess
import sys
from html import unescape
from pathlib import Path

import multiqc  # first, as its plug-ins are read on import
import numpy as np
import pandas as pd
import pytest

from predictgbm.report import multiqc_module
from predictgbm.report.methods import verdict
from predictgbm.report.results import Results
from predictgbm.statistics.benchmark import analyse
from predictgbm.tables import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """Tables of 243 patients in three cohorts: 165 the same, 60 better by 10 to 30 points, 18 worse by 5 to 25."""
    rng = np.random.default_rng(20)
    gain = rng.permutation(np.r_[np.zeros(165), rng.uniform(0.1, 0.3, 60), rng.uniform(-0.25, -0.05, 18)])
    rows = []
    for i, soc in enumerate(rng.uniform(0.3, 0.7, 243)):
        for model, coverage in (("soc", soc), ("loti", soc + gain[i])):
            row = {"patient": f"{i:03d}", "cohort": "ABC"[i % 3], "model": model}
            rows.append(row | {f"coverage_{name}": coverage for name in ("enhancing", "core", "all")})
    metrics = build("metrics", rows)
    found = analyse(metrics, draws=1000, ranking_draws=100)
    cohort = build("cohort", [{"patient": row["patient"], "status": "evaluated"} for row in rows[::2]])
    made = {"metrics": metrics, "cohort": cohort}
    return made | {name: build(name, getattr(found, name)) for name in ("summary", "comparisons")}


@pytest.fixture(scope="module")
def folder(tables: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tables")
    for name, table in tables.items():
        table.to_csv(place / f"{name}.csv", index=False)
    return place


def test_mean_gain_and_its_interval(tables: dict[str, pd.DataFrame]) -> None:
    row = tables["comparisons"].query("dataset == 'pooled' and definition == 'enhancing'").iloc[0]
    assert (row["n"], row["n_zero"], row["shift"], row["shift_low"], row["shift_high"]) == (243, 165, 0, 0, 0)
    assert row["p_adjusted"] < 1e-5
    wide = tables["metrics"].pivot(index="patient", columns="model", values="coverage_enhancing")
    gain = (wide["loti"] - wide["soc"]).to_numpy(float)
    assert row["mean_gain"] == pytest.approx(gain.mean())
    assert 0.03 < row["mean_gain"] < 0.04
    # The normal approximation, which 243 patients come close to.
    error = gain.std(ddof=1) / np.sqrt(gain.size)
    assert row["mean_gain_low"] == pytest.approx(gain.mean() - 1.96 * error, abs=0.15 * error)
    assert row["mean_gain_high"] == pytest.approx(gain.mean() + 1.96 * error, abs=0.15 * error)


def test_verdict_tells_of_the_gain(folder: Path) -> None:
    said = verdict(Results(folder))
    assert said.startswith("loti (+3.")
    assert "points on average, 95 % CI +2." in said
    assert said.endswith("covered more of the recurrence than the standard plan.")


@pytest.mark.parametrize(
    ("rank_biserial", "mean_gain", "words"),
    [
        (-0.9, -0.04, "covered less of the recurrence"),
        (0.4, -0.01, "better by the ranks of the differences but not on average"),
        (-0.4, 0.01, "worse by the ranks of the differences but not on average"),
    ],
)
def test_direction_of_the_verdict(folder: Path, rank_biserial: float, mean_gain: float, words: str) -> None:
    results = Results(folder)
    for row in results.tables["comparisons"]:
        row.update(rank_biserial=rank_biserial, mean_gain=mean_gain)
    assert words in verdict(results)


def test_main_table_shows_gain_beside_shift(folder: Path) -> None:
    assert multiqc.__version__
    section = multiqc_module.headline(Results(folder))
    assert section is not None
    how, body = section
    assert "Mean gain over standard, points [95 % CI]" in body
    text = unescape(body)
    row = next(part for part in text.split("<tr") if "loti" in part)
    assert ">+3." in row
    assert '0.0 <span class="gbm-interval">[0.0 to 0.0]' in row
    assert "it is zero although the others gain" in how


def test_terminal_shows_the_gain(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bin" / "print_headline.py", folder],
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.strip().startswith("loti"))
    assert "+0.0" not in line
    assert "+3." in line
    assert "[+2." in line
