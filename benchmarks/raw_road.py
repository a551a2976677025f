#!/usr/bin/env python3
"""Compare the coverage measured on raw exams with that from the true labels of the same simulated patients.

Simulates a raw cohort, runs the pipeline on it twice, once on the raw exams and once on the true ones in atlas space
(their truth/samplesheet.csv), and prints a table of the enhancing recurrence's coverage by patient and model.

    python benchmarks/raw_road.py --atlas ATLAS --patients 10 --out /tmp/raw_road

With --jobs of the machine idle, some 4 minutes per patient on two cores. Runs that are there are resumed.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]


def simulate(arguments: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Simulate the cohort once; return the samplesheets of the raw and of the true exams."""
    raw, true = folder / "samplesheet.csv", folder / "truth.csv"
    if not raw.exists():
        subprocess.run(
            [
                *(sys.executable, ROOT / "bin" / "simulate_cohort.py", "--atlas", arguments.atlas, "--raw"),
                *("--patients", str(arguments.patients), "--seed", str(arguments.seed), "--out", folder),
                *("--spacing", str(arguments.spacing), "--jobs", "2"),
            ],
            check=True,
        )
    rows: list[dict[str, str]] = []
    for sheet in sorted(folder.glob("sub-*/truth/samplesheet.csv")):
        with sheet.open(newline="") as file:
            for row in csv.DictReader(file):
                own = sheet.parent.relative_to(folder)
                rows.append({k: f"{own}/{v}" if v.endswith(".nii.gz") else v for k, v in row.items()})
    with true.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return raw, true


def run(arguments: argparse.Namespace, sheet: Path, results: Path) -> dict[tuple[str, str], float]:
    """Run the pipeline on a samplesheet; return the coverage by patient and model."""
    subprocess.run(
        [
            *(ROOT / "predictgbm", "run", "--input", sheet, "--outdir", results, "--atlas", arguments.atlas),
            *("--models", arguments.models, "--brain_extraction", arguments.brain_extraction),
            *("-resume", "-ansi-log", "false", "-work-dir", results.parent / "work"),
        ],
        cwd=results.parent,
        check=False,  # one patient that fails ends with status 3, and the others count
    )
    with (results / "tables" / "metrics.csv").open(newline="") as file:
        return {
            (row["patient"], row["model"]): float(row["coverage_enhancing"])
            for row in csv.DictReader(file)
            if row["coverage_enhancing"]
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", required=True, type=Path, help="folder made by prepare_atlas.py")
    parser.add_argument("--out", required=True, type=Path, help="folder for cohort and results")
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--spacing", type=float, default=1.0, help="of the simulated anatomy, mm")
    parser.add_argument("--models", default="soc,distance,loti,fisherkpp")
    parser.add_argument("--brain_extraction", default="atlas", choices=["atlas", "hdbet"])
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    arguments.atlas = arguments.atlas.absolute()
    out.mkdir(parents=True, exist_ok=True)
    raw_sheet, true_sheet = simulate(arguments, out / "cohort")
    true = run(arguments, true_sheet, out / "true")
    raw = run(arguments, raw_sheet, out / "raw")

    print("| patient | model | coverage, true labels | coverage, raw road | difference, points |")
    print("|---|---|---|---|---|")
    differences: dict[str, list[float]] = {}
    for patient, model in sorted(true):
        if (patient, model) not in raw:
            print(f"| {patient} | {model} | {100 * true[patient, model]:.1f} % | none | |")
            continue
        difference = 100 * (raw[patient, model] - true[patient, model])
        differences.setdefault(model, []).append(difference)
        print(
            f"| {patient} | {model} | {100 * true[patient, model]:.1f} % | {100 * raw[patient, model]:.1f} % "
            f"| {difference:+.1f} |"
        )
    for model, values in differences.items():
        print(
            f"{model}: {len(values)} patients, mean difference {mean(values):+.1f} points, "
            f"mean absolute {mean(map(abs, values)):.1f}"
        )


if __name__ == "__main__":
    main()
