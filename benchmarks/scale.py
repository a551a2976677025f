#!/usr/bin/env python3
"""Run the pipeline on cohorts of growing size, from samplesheet to report, and print what a patient costs.

    python benchmarks/scale.py --atlas DIR --out DIR [--patients 100 300 1000] [--maps 4] [--patients-per-task 50]

A few patients are simulated at 4 mm; a cohort is as many copies of them as wanted under other names, each with score
maps of its own: the hidden cells of its original, noise on them. The scores mean nothing. All runs are the user's
command; tasks, CPU seconds and memory come from the pipeline's own trace.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from predictgbm.images import read_image, write_image
from predictgbm.report.results import parse_bytes

ROOT = Path(__file__).resolve().parents[1]
ORIGINALS = 5
SPACING_MM = 4


def simulate(atlas: Path, out: Path) -> Path:
    """Simulate the patients that are copied, and return their samplesheet."""
    if not (out / "samplesheet.csv").exists():
        command = [sys.executable, str(ROOT / "bin" / "simulate_cohort.py"), "--atlas", str(atlas)]
        options = ["--out", out, "--patients", ORIGINALS, "--spacing", SPACING_MM]
        subprocess.run(command + list(map(str, options)), check=True)
    return out / "samplesheet.csv"


def copy_cohort(sheet: Path, out: Path, patients: int, maps: int) -> Path:
    """Write the samplesheet of a cohort of copies and the score maps of each, and return the sheet."""
    rows = pd.read_csv(sheet, dtype=str, keep_default_na=False)
    originals = list(rows.groupby("patient", sort=False))
    copies = []
    shutil.rmtree(out / "images", ignore_errors=True)
    for index in range(patients):
        name, own = originals[index % len(originals)]
        own = own.assign(patient=f"{index + 1:04}")
        # Hard links: every image of a cohort has to be a file of its own.
        folder = out / "images" / f"{index + 1:04}"
        shutil.copytree(sheet.parent / name, folder, copy_function=os.link)
        files = own.map(
            lambda value, folder=folder, name=name: (
                str(folder / Path(value).relative_to(name)) if value.endswith(".nii.gz") else value
            )
        )
        pre = files["role"] == "preop"
        cells = read_image(next(sheet.parent.glob(f"{name}/ses-pre/*_desc-cells_density.nii.gz")), np.float32)
        rng = np.random.default_rng(index)
        for number in range(maps):
            path = out / "maps" / f"{index + 1:04}_model{number}.nii.gz"
            noise = rng.random(cells.data.shape, np.float32) * 0.05 * (number + 1)
            write_image(path, cells.data + noise * (cells.data > 0), cells.affine)
            files[f"score_model{chr(97 + number)}"] = np.where(pre, str(path), "")
        copies.append(files)
    table = out / f"cohort{patients}.csv"
    pd.concat(copies).to_csv(table, index=False)
    return table


def read_trace(results: Path) -> dict[str, list[dict[str, str]]]:
    """Return the tasks of a run by process."""
    tasks = defaultdict(list)
    (path,) = results.glob("pipeline_info/execution_trace_*.txt")
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle, delimiter="\t"):
            tasks[row["process"].rpartition(":")[2]].append(row)
    return tasks


def run(sheet: Path, results: Path, patients_per_task: int, work: Path) -> tuple[float, float]:
    """Run the pipeline, and return wall and CPU seconds of everything it started."""
    options = [
        "--input",
        sheet,
        "--outdir",
        results,
        "--models",
        "soc",
        "--patients_per_task",
        patients_per_task,
    ]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [str(ROOT / "predictgbm"), "run", *map(str, options), "-work-dir", str(work)],
        cwd=results.parent,
        env={**os.environ, "NXF_ANSI_LOG": "false"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", type=Path, required=True, help="atlas folder of ./predictgbm setup")
    parser.add_argument("--out", type=Path, required=True, help="folder for cohorts and results")
    parser.add_argument("--patients", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument(
        "--maps", type=int, default=4, help="score maps of each patient, beside the standard plan"
    )
    parser.add_argument("--patients-per-task", type=int, default=50)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    sheet = simulate(arguments.atlas, out / "originals")
    for patients in arguments.patients:
        name = f"{patients}x{arguments.maps}by{arguments.patients_per_task}"
        results = out / name / "results"
        results.parent.mkdir(parents=True, exist_ok=True)
        cohort = copy_cohort(sheet, out, patients, arguments.maps)
        wall, cpu = run(cohort, results, arguments.patients_per_task, out / name / "work")
        tasks = read_trace(results)
        total = sum(map(len, tasks.values()))
        print(
            f"\n{patients} patients, {arguments.maps} maps, {arguments.patients_per_task} patients a task: "
            f"{total} tasks, {wall:.0f} s, {cpu:.0f} CPU s, {cpu / patients:.2f} CPU s a patient"
        )
        print(f"{'process':22} {'tasks':>6} {'s':>8} {'s/patient':>10} {'peak MB':>8}")
        for process, rows in tasks.items():
            # Milliseconds, as the trace is written raw.
            seconds = sum(float(row["realtime"]) for row in rows) / 1000
            peak = max(parse_bytes(row["peak_rss"]) or 0 for row in rows) / 2**20
            print(f"{process:22} {len(rows):6} {seconds:8.0f} {seconds / patients:10.3f} {peak:8.0f}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
