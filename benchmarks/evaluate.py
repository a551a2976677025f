#!/usr/bin/env python3
"""Print the CPU seconds that bin/evaluate_plan.py needs for each plan of a run, with dose, margins and guidelines.

    python benchmarks/evaluate.py --results DIR [--repeats 3] [--out FOLDER] [--profile]

DIR holds the results of a run, such as one of ./predictgbm run --simulate 1 --guidelines estroeano2023. Each plan is
evaluated in this process, so that nothing but the evaluation is measured; imports are told apart.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ("--dose", "--other-margins", "10,15,20")


def find_plans(results: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each plan of a run that was evaluated, and the options that give its files."""
    for path in sorted(results.glob("sub-*/ses-*/*_metrics.json")):
        record: dict[str, Any] = json.loads(path.read_text())
        folder, stem = path.parent, path.name.removesuffix("_metrics.json")
        follow_up = results / f"sub-{record['patient']}" / f"ses-{record['followup_session']}"

        def one(pattern: str, where: Path = folder) -> str:
            return str(next(file for file in sorted(where.rglob(pattern)) if "_reg-" not in file.name))

        files = {
            "plan": one(f"{stem}_desc-isovol_mask.nii.gz"),
            "score": one(f"{stem}_probseg.nii.gz"),
            "brain-mask": one("*_desc-brain_mask.nii.gz"),
            "tumor-seg": one("*_desc-tumor_dseg.nii.gz"),
            "recurrence": one("*_desc-registered_dseg.nii.gz", follow_up),
            **{tissue: one(f"*_label-{tissue.upper()}_probseg.nii.gz") for tissue in ("wm", "gm", "csf")},
        }
        options = [text for name, file in files.items() for text in (f"--{name}", file)]
        masks = sorted(
            str(file) for file in folder.glob("*_desc-*_mask.nii.gz") if "_model-" not in file.name
        )
        yield stem, [*options, *(["--guidelines", *masks] if masks else [])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, metavar="DIR")
    parser.add_argument("--repeats", type=int, default=3, help="the least time counts (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the measures, to compare them")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=OPTIONS, help=f"default: {' '.join(OPTIONS)}"
    )
    args = parser.parse_args()
    plans = list(find_plans(args.results))
    if not plans:
        parser.error(f"{args.results}: no evaluated plans; give the --outdir of a run")
    before = time.process_time()
    command = runpy.run_path(str(ROOT / "bin" / "evaluate_plan.py"))["main"]
    print(f"imports: {time.process_time() - before:.2f} CPU s")
    with tempfile.TemporaryDirectory() as scratch:
        profiler, total = cProfile.Profile(), 0.0
        for stem, files in plans:
            out = (args.out or Path(scratch)) / f"{stem}.json"
            sys.argv = ["evaluate_plan.py", *files, "--out", str(out), *args.options]
            seconds = []
            for _ in range(args.repeats):
                before = time.process_time()
                if command():
                    sys.exit(f"{stem} could not be evaluated")
                seconds.append(time.process_time() - before)
            print(f"{stem}: {min(seconds):.2f} CPU s")
            total += min(seconds)
            if args.profile:
                profiler.runcall(command)
        print(f"{len(plans)} plans: {total / len(plans):.2f} CPU s per plan")
        if args.profile:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
