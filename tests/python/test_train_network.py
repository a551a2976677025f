"""The commands of a training on a cohort, from splits to the map of a patient whom the network never saw."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_exam import (
    AFFINE,
    SHAPE,
    arrays,
    row,
    run_command,
    save,
    tumor,
    write_atlas,
    write_exam,
    write_json,
)

from predictgbm.images import read_image
from predictgbm.models import read_models

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = [f"{n:03d}" for n in range(1, 7)]
TINY = {"base": 4, "levels": 3, "patch": 16, "batch": 2, "epochs": 1}


def selection(status: str = "evaluated") -> dict[str, Any]:
    patients = [
        {"patient": p, "cohort": "AB"[n % 2], "status": status, "reason": None, "tumor_core_ml": float(n)}
        for n, p in enumerate(PATIENTS)
    ]
    return {"patients": patients, "flow": []}


def draw(tmp_path: Path, content: dict[str, Any], *options: str | Path) -> int:
    written = write_json(tmp_path / "selection.json", content)
    return run_command("draw_splits.py", "--selection", written, "--out", tmp_path / "splits.json", *options)


def test_splits_are_drawn_given_or_by_cohort(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = selection()
    content["patients"][0] |= {"status": "excluded", "reason": "no follow-up"}
    assert draw(tmp_path, content, "--splits", "2") == 0
    drawn = json.loads((tmp_path / "splits.json").read_text())
    assert sorted(p for s in drawn["splits"].values() for p in s["held_out"]) == PATIENTS[1:]
    assert drawn["cohorts"] == {p: "AB"[n % 2] for n, p in enumerate(PATIENTS) if n}
    assert drawn["left_out"] == {"001": "no follow-up"}
    shutil.copy(tmp_path / "splits.json", tmp_path / "earlier.json")
    assert draw(tmp_path, content, "--given", tmp_path / "earlier.json") == 0
    assert json.loads((tmp_path / "splits.json").read_text()) == drawn
    assert draw(tmp_path, content, "--leave-one-cohort-out") == 0
    assert set(json.loads((tmp_path / "splits.json").read_text())["splits"]) == {"A", "B"}
    capfd.readouterr()
    assert draw(tmp_path, selection(), "--given", tmp_path / "earlier.json") == 2
    assert "in no part: 001; draw new splits for this cohort" in capfd.readouterr().err
    assert draw(tmp_path, selection("predicted")) == 2
    assert "0 patients with recurrence" in capfd.readouterr().err


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six prepared exams, their recurrence and the splits."""
    folder = tmp_path_factory.mktemp("cohort")
    atlas = write_atlas(folder / "atlas")
    for n, patient in enumerate(PATIENTS):
        files = write_exam(folder / patient, arrays(n))
        described = row(files)
        described["meta"] |= {"patient": patient, "id": f"sub-{patient}_ses-pre", "cohort": "AB"[n % 2]}
        written = write_json(folder / patient / "row.json", described)
        out = folder / "exams" / f"sub-{patient}_ses-pre"
        options = ("--row", written, "--atlas", atlas, "--out-dir", out)
        assert run_command("prepare_exam.py", *options, *files.values()) == 0
        came = np.where(np.roll(tumor(), 3, axis=0) > 0, 3, 0).astype(np.uint8)
        save(folder / "came" / f"sub-{patient}_ses-post_dseg.nii.gz", came)
    assert draw(folder, selection(), "--splits", "2") == 0
    write_json(folder / "tiny.json", TINY)
    write_json(folder / "entry.json", unet())
    return folder


def unet() -> dict[str, Any]:
    models = read_models(ROOT / "assets" / "models.yml", ROOT / "assets" / "schema_models.json")
    return models["unet"].entry()


def train(cohort: Path, split: str, out: Path, *options: str | Path) -> int:
    return run_command(
        "train_network.py",
        *("--entry", cohort / "entry.json", "--exams", cohort / "exams", "--recurrences", cohort / "came"),
        *("--splits", cohort / "splits.json", "--split", split, "--settings", cohort / "tiny.json"),
        *("--cpus", "1", "--out", out, *options),
    )  # fmt: skip


def test_from_exams_to_the_map_of_a_patient_who_was_held_out(
    cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("torch", "monai", "tensorboardX"):
        pytest.importorskip(name, reason=f"{name} is not installed: ./predictgbm setup --learning")
    for split in ("1", "2"):
        kept = tmp_path / "kept" / split
        assert train(cohort, split, tmp_path / f"net{split}", "--checkpoint", kept) == 0
        assert kept.read_bytes() == (tmp_path / f"net{split}.net").read_bytes()
    assert "epoch 1: training " in capfd.readouterr().out
    networks = [tmp_path / f"net{split}{end}" for split in "12" for end in (".net", "_log")]
    weights = tmp_path / "unet"
    options = ("--entry", cohort / "entry.json", "--splits", cohort / "splits.json", "--out", weights)
    assert run_command("assemble_networks.py", *options, *networks) == 0
    card = json.loads((weights / "card.json").read_text())
    assert card["cohorts"]["001"] == "A"
    assert (weights / "curves.png").stat().st_size > 5000
    assert (weights / "history.csv").read_text().count("\n") == 3
    assert len(list((weights / "log").rglob("events.*"))) == 2

    splits = json.loads((cohort / "splits.json").read_text())["splits"]
    patient = splits["2"]["held_out"][0]
    exam = cohort / "exams" / f"sub-{patient}_ses-pre"
    call = ("--model", "unet", "--exam", exam, "--out", tmp_path / "map.nii.gz", "--cpus", "1")
    assert run_command("run_model.py", *call, "--weights", weights, "--patient", patient) == 0
    assert json.loads((tmp_path / "map.json").read_text())["parameters"]["networks"] == ["split-2_seed-0"]
    assert read_image(tmp_path / "map.nii.gz").shape == SHAPE
    np.testing.assert_allclose(read_image(tmp_path / "map.nii.gz").affine, AFFINE)
    capfd.readouterr()
    assert run_command("run_model.py", *call) == 2
    assert "needs the folder that its training left (--weights)" in capfd.readouterr().err


def test_scores_of_a_model_are_those_of_the_tables(tmp_path: Path) -> None:
    coverage = {"soc": [0.2, 0.4, 0.6, 0.8, 1.0, 0.5], "unet": [0.3, 0.6, 0.9, 0.9, 1.0, None]}
    (tmp_path / "metrics").mkdir()
    for model, values in coverage.items():
        for patient, value in zip(PATIENTS, values, strict=True):
            record = {"patient": patient, "model": model, "cohort": "A", "coverage_enhancing": value}
            write_json(tmp_path / "metrics" / f"{patient}_{model}.json", record)
    options = (
        "--metrics",
        tmp_path / "metrics",
        "--out",
        tmp_path / "tables",
        "--draws",
        "100",
        "--simulated",
    )
    assert run_command("compute_statistics.py", *options) == 0
    options = ("--model", "unet", "--tables", tmp_path / "tables", "--out", tmp_path / "unet.json")
    assert run_command("score_networks.py", *options) == 0
    scores = json.loads((tmp_path / "unet.json").read_text())
    assert scores["simulated"] is True
    assert [row["coverage_enhancing"] for row in scores["patients"]] == coverage["unet"]
    pooled = {(row["dataset"], row["definition"]): row for row in scores["coverage"]}["pooled", "enhancing"]
    assert pooled["n"] == 5
    assert pooled["mean"] == pytest.approx(0.74)
    against = {(row["dataset"], row["definition"]): row for row in scores["against_reference"]}
    assert against["pooled", "enhancing"]["p_pratt"] == pytest.approx(2 / 2**4)


def test_unknown_settings_are_named(cohort: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("torch", "monai", "tensorboardX"):
        pytest.importorskip(name, reason=f"{name} is not installed: ./predictgbm setup --learning")
    wrong = write_json(tmp_path / "wrong.json", {"depth": 3})
    assert train(cohort, "1", tmp_path / "net", "--settings", wrong) == 2
    assert "U-Net, split 1, seed 0: setting depth is unknown; known are base, batch" in capfd.readouterr().err
