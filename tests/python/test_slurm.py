"""The whole pipeline on a SLURM cluster of one node."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest
from conftest import LAUNCHER

pytestmark = [pytest.mark.slurm, pytest.mark.pipeline]


def test_pipeline_runs_its_tasks_as_jobs(slurm: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [
            LAUNCHER,
            "run",
            "-profile",
            "test,slurm",
            "--slurm_queue",
            "local",
            "--outdir",
            "results",
            "-ansi-log",
            "false",
        ],
        cwd=tmp_path,
        env=slurm,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert (tmp_path / "results" / "multiqc" / "multiqc_report.html").stat().st_size > 10_000
    (trace,) = (tmp_path / "results" / "pipeline_info").glob("execution_trace_*.txt")
    with trace.open(newline="") as handle:
        tasks = list(csv.DictReader(handle, delimiter="\t"))
    # A task's native id is its job number; SLURM counts them from 1 without a gap on a cluster of one user.
    jobs = sorted(int(task["native_id"]) for task in tasks)
    assert len(jobs) > 10
    assert jobs == list(range(jobs[0], jobs[0] + len(jobs)))
    last = subprocess.run(
        ["scontrol", "show", "job", str(jobs[-1])], env=slurm, capture_output=True, text=True, check=True
    )
    assert "JobState=COMPLETED" in last.stdout
    assert "Partition=local" in last.stdout
