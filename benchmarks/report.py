#!/usr/bin/env python3
"""Make tables and report of a cohort as large as wanted, and print seconds, memory, size and time to open.

    python benchmarks/report.py --results DIR [--patients 243] [--models 12] [--statistics]

DIR holds the results of a small run with settings and dose. Its records are copied under other names until there are
enough, each coverage moved by a few points; the numbers of the report mean nothing. Statistics and report are made by
the pipeline's own commands with its defaults, each as one process on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
#: Largest move of a coverage.
JITTER = 0.05


def read_records(results: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the records of a run by patient and model."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(results.glob("sub-*/ses-*/*_metrics.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["patient"], {})[record["model"]] = record
    return found


def model_names(n: int) -> list[str]:
    """Return names of ``n`` models, the standard plan first, then the project's own."""
    known = [
        entry["name"] for entry in yaml.safe_load((ROOT / "assets" / "models.yml").read_text())["models"]
    ]
    names = ["soc", *(name for name in known if name != "soc")]
    return [*names, *(f"model{i}" for i in range(len(names), n))][:n]


def moved(value: Any, by: float) -> Any:
    """Return a record with each coverage moved; lesions stay, as the standard plan judges them for all models."""
    if isinstance(value, list):
        return [moved(item, by) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: np.clip(np.array(item, float) + by, 0, 1).tolist()
        if key.startswith("coverage_") and item is not None
        else item
        if key == "lesions"
        else moved(item, by)
        for key, item in value.items()
    }


def enlarge(results: Path, folder: Path, patients: int, models: list[str]) -> None:
    """Write records, cohort, pictures and trace of a large cohort as the pipeline hands them to its commands."""
    rng = np.random.default_rng(0)
    records = read_records(results)
    cohort = pd.read_csv(results / "tables" / "cohort.csv", dtype={"patient": str}).set_index("patient")
    sources = [name for name in records if cohort.loc[name, "status"] == "evaluated"]
    (folder / "metrics").mkdir()
    (folder / "pictures").mkdir()
    rows = []
    for i in range(patients):
        source, patient = sources[i % len(sources)], f"{i + 1:04d}"
        row = json.loads(cohort.loc[source].to_json())
        rows.append({**row, "patient": patient})
        for j, model in enumerate(models):
            own = [name for name in records[source] if (name == "soc") == (model == "soc")]
            record = moved(records[source][own[j % len(own)]], rng.uniform(-JITTER, JITTER))
            text = json.dumps({**record, "patient": patient, "model": model})
            (folder / "metrics" / f"{patient}_{model}_metrics.json").write_text(text)
            missed = folder / "pictures" / f"sub-{patient}_ses-pre_desc-missed" / f"{model}.webp"
            missed.parent.mkdir(exist_ok=True)
            drawn = f"sub-{source}_*_desc-missed/{own[j % len(own)]}.webp"
            shutil.copy(next((results / "qc").glob(drawn)), missed)
        picture = folder / "pictures" / f"sub-{patient}_ses-pre_desc-qc"
        shutil.copy(next((results / "qc").glob(f"sub-{source}_*desc-qc.png")), picture.with_suffix(".png"))
        picture.with_suffix(".json").write_text(json.dumps({"caption": f"Patient {patient}"}))
    flow = [{"step": "in the samplesheet", "patients": patients}, {"step": "used", "patients": patients}]
    (folder / "cohort.json").write_text(json.dumps({"patients": rows, "flow": flow}))
    head, *tasks = next((results / "pipeline_info").glob("execution_trace_*.txt")).read_text().splitlines()
    times = patients * len(models) * 3 // len(tasks) + 1
    (folder / "trace.txt").write_text("\n".join([head, *(tasks * times)]) + "\n")
    shutil.copy(results / "pipeline_info" / "params.json", folder / "params.json")
    (folder / "software_versions.yml").write_text("Workflow:\n  predict-gbm/predictgbm: benchmark\n")
    (folder / "models").mkdir()
    shutil.copy(ROOT / "assets" / "models.yml", folder / "models")


def measured(folder: Path, *command: str | Path) -> str:
    """Run a command on one thread and return what it took."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "NUMBA")}
    environment = {**os.environ, **threads, "POLARS_MAX_THREADS": "1"}
    began = time.perf_counter()
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, env=environment, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((folder / "log.txt").read_text())
    wall, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    return f"{wall:7.1f} s wall {cpu:7.1f} s CPU {usage.ru_maxrss / 2**20:5.2f} GB"


def opened(report: Path, folder: Path, browser: str) -> Iterator[float]:
    """Open a report three times; yield the seconds until the browser has run all that the page starts with."""
    note = "document.documentElement.dataset.opened = performance.now()"
    page, _, end = report.read_text(encoding="utf-8").rpartition("</body>")
    copy = folder / "opened.html"
    copy.write_text(
        f"{page}<script>addEventListener('load', () => {note})</script></body>{end}", encoding="utf-8"
    )
    quiet = ("background-networking", "component-update", "sync", "quic")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom")
    options += tuple(f"--disable-{part}" for part in quiet)
    for _ in range(3):
        command = [browser, *options, f"--user-data-dir={folder / 'profile'}", copy.as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r'data-opened="([\d.]+)"', dom)
        if not found:
            raise SystemExit("the browser gave the page back before it was loaded")
        yield float(found[1]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="results of a small run")
    parser.add_argument("--patients", type=int, default=243)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--statistics", action="store_true", help="make the tables only")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        enlarge(args.results, folder, args.patients, model_names(args.models))
        print(f"{args.patients} patients x {args.models} models")
        program = [sys.executable, ROOT / "bin" / "compute_statistics.py", "--metrics", "metrics"]
        print(
            "statistics",
            measured(folder, *program, "--cohort", "cohort.json", "--out", "tables", "--simulated"),
        )
        size = sum(path.stat().st_size for path in (folder / "tables").iterdir()) / 1e6
        largest = max((folder / "tables").glob("*.csv"), key=lambda path: path.stat().st_size)
        print(f"tables     {size:7.1f} MB, most of it {largest.name} ({largest.stat().st_size / 1e6:.1f} MB)")
        if args.statistics:
            return
        multiqc, config = Path(sys.executable).with_name("multiqc"), ROOT / "assets" / "multiqc_config.yml"
        work = folder / "report"
        work.mkdir()
        for part in ("tables", "pictures", "models", "trace.txt", "params.json", "software_versions.yml"):
            (work / part).symlink_to(folder / part)
        print("report    ", measured(work, multiqc, "--force", "--config", config, "."))
        report = work / "multiqc_report.html"
        print(f"page       {report.stat().st_size / 1e6:7.1f} MB")
        browser = (
            shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        )
        if browser:
            print(
                "opened in ", ", ".join(f"{seconds:.2f}" for seconds in opened(report, folder, browser)), "s"
            )


if __name__ == "__main__":
    main()
