#!/usr/bin/env python3
"""Compare the coverage measured on raw exams with that from the true labels of the same simulated patients.

Simulates a raw cohort, runs the pipeline on it three times, and prints a table of the enhancing recurrence's coverage
by patient and model: on the true exams in atlas space (their truth/samplesheet.csv); on the raw exams with the true
tumour labels brought along in native space, which leaves what alignment, brain, tissue and registration cost; and on
the raw exams alone, whose tumours the trial segmenter labels.

    python benchmarks/raw_road.py --atlas ATLAS --patients 10 --out /tmp/raw_road

With --jobs of the machine idle, some 4 minutes per patient on two cores. Runs that are there are resumed.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from math import isnan
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]


def write_sheet(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def simulate(arguments: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Simulate the cohort once; return the samplesheets of the three conditions."""
    raw, labelled, true = (folder / f"{name}.csv" for name in ("samplesheet", "labelled", "truth"))
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
    write_sheet(true, rows)
    with raw.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        patient, session = row["patient"], row["session"]
        native = f"{patient}/truth/ses-{session}/native/{patient}_ses-{session}_space-T1c"
        row |= {"tumor_seg": f"{native}_desc-tumor_dseg.nii.gz", "tumor_labels": "canonical"}
    write_sheet(labelled, rows)
    return {"true": true, "labelled": labelled, "raw": raw}


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
    sheets = simulate(arguments, out / "cohort")
    coverage = {name: run(arguments, sheet, out / name) for name, sheet in sheets.items()}

    print("| patient | model | true exams | raw, true labels | raw | differences, points |")
    print("|---|---|---|---|---|---|")
    differences: dict[str, dict[str, list[float]]] = {"labelled": {}, "raw": {}}
    for patient, model in sorted(coverage["true"]):
        cells, changes = [], []
        for name in sheets:
            value = 100 * coverage[name].get((patient, model), float("nan"))
            cells.append(f"{value:.1f} %")
            if name in differences:
                change = value - 100 * coverage["true"][patient, model]
                changes.append(f"{change:+.1f}")
                differences[name].setdefault(model, []).append(change)
        print(f"| {patient} | {model} | {' | '.join(cells)} | {', '.join(changes)} |")
    for name, models in differences.items():
        for model, values in models.items():
            there = [value for value in values if not isnan(value)]
            print(
                f"{name}, {model}: {len(there)} of {len(values)} patients, mean difference {mean(there):+.1f} points, "
                f"mean absolute {mean(map(abs, there)):.1f}"
            )


if __name__ == "__main__":
    main()
