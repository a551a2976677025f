"""One command, many lines: each line does its work whatever becomes of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from predictgbm.images import write_image

BIN = Path(__file__).resolve().parents[2] / "bin"


def run(command: str, lines: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BIN / "run_many.py"), command],
        input="\n".join(lines) + "\n",
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def exams(tmp_path: Path) -> Path:
    """Folder with two small exams, one named as a shell would have to quote it, and a map for each."""
    rng = np.random.default_rng(1)
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[5:7, 5:7, 5:7] = 3
    for name in ("sub-1_ses-pre", "it's one"):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "x_desc-tumor_dseg.nii.gz", labels, np.eye(4))
        write_image(tmp_path / name / "x_desc-brain_mask.nii.gz", np.ones(labels.shape, np.uint8), np.eye(4))
        write_image(tmp_path / f"{name}.nii.gz", rng.random(labels.shape, np.float32), np.eye(4))
    return tmp_path


def line(quoted: str, out: str) -> str:
    return (
        f"--score {quoted}.nii.gz --tumor-seg {quoted}/*_desc-tumor_dseg.nii.gz"
        f" --brain-mask {quoted}/*_desc-brain_mask.nii.gz --margin 2 --out {out}_mask.nii.gz"
    )


def test_each_line_is_one_call_of_the_command(exams: Path) -> None:
    lines = [line("sub-1_ses-pre", "a"), "", line("'it'\"'\"'s one'", "b")]
    done = run("make_plan.py", lines, exams)
    assert done.returncode == 0, done.stderr
    made = [json.loads((exams / f"{name}_mask.json").read_text()) for name in "ab"]
    assert made[0]["n_voxels"] == made[1]["n_voxels"] == 88  # 8 of the core, 24 + 24 + 8 + 24 around it
    alone = subprocess.run(
        ["bash", "-c", f"{sys.executable} {BIN / 'make_plan.py'} {line('sub-1_ses-pre', 'alone')}"],
        cwd=exams,
        check=False,
    )
    assert alone.returncode == 0
    assert json.loads((exams / "alone_mask.json").read_text()) == made[0]
    assert made[0] != made[1]


def test_a_line_that_fails_takes_no_other_down(exams: Path) -> None:
    lines = [line("nowhere", "a"), "--no-such-option", line("sub-1_ses-pre", "c")]
    done = run("make_plan.py", lines, exams)
    assert done.returncode == 0
    assert (exams / "c_mask.nii.gz").exists()
    assert done.stderr.count("ERROR: make_plan.py ended with status 2") == 2
    assert "nowhere" in done.stderr


def test_a_file_with_marks_of_a_pattern_in_its_name(exams: Path) -> None:
    (exams / "sub-1_ses-pre.nii.gz").rename(exams / "a**b.nii.gz")
    odd = line("sub-1_ses-pre", "a").replace("sub-1_ses-pre.nii.gz", "'a**b.nii.gz'")
    gone = odd.replace("'a**b", "'gone**b")
    done = run("make_plan.py", [gone, odd], exams)
    assert done.returncode == 0
    assert (exams / "a_mask.nii.gz").exists()


def test_status_is_an_error_if_no_line_did_its_work(exams: Path) -> None:
    assert run("make_plan.py", [line("nowhere", "a")], exams).returncode == 2
    assert run("no_such.py", [line("nowhere", "a")], exams).returncode == 2
    crashed = run("draw_qc.py", ["--exam nowhere --maps a --plans b --out c.png"], exams)
    assert crashed.returncode == 1
    assert "ERROR: draw_qc.py ended with status 1" in crashed.stderr
