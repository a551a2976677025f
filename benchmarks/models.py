#!/usr/bin/env python3
"""Run every model of the list on one exam, and print seconds and memory beside what its authors report.

    python benchmarks/models.py --exam PREPARED_EXAM [--picture maps.png]

A prepared exam is a folder of results (sub-001/ses-pre/anat) or of bin/simulate_cohort.py (sub-001/ses-pre).
Each model is a process of its own on one thread, as in the pipeline; compile the kernels first (a second run has them).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from predictgbm.exam import Exam
from predictgbm.images import read_image
from predictgbm.labels import CORE, WHOLE_TUMOR, region

ROOT = Path(__file__).resolve().parents[1]
#: What the authors of a model say of its cost; sources in docs/models.md.
PUBLISHED = {
    "loti": "under 1 min on a GPU",
    "gliodil": "30-45 min on a GPU, more than 18.5 GB",
}


class Cost(NamedTuple):
    """Seconds on the clock and of the processor, largest memory in GB."""

    wall: float
    cpu: float
    memory: float


def run(model: str, exam: Path, out: Path) -> Cost:
    """Run one model as the pipeline does."""
    program = [sys.executable, str(ROOT / "bin" / "run_model.py"), "--model", model, "--exam", str(exam)]
    began = time.perf_counter()
    process = subprocess.Popen([*program, "--out", str(out), "--cpus", "1"])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{model} failed")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6)


def draw(path: Path, exam: Exam, maps: dict[str, NDArray[Any]]) -> None:
    """Draw all maps on the axial slice with the most core, with the outlines of core and whole tumour."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = exam.array("tumor_seg")
    core, whole, brain = region(labels, CORE), region(labels, WHOLE_TUMOR), exam.array("brain_mask") > 0
    k = int(core.sum(axis=(0, 1)).argmax())
    rows, columns = (np.flatnonzero(brain[:, :, k].any(axis=axis)) for axis in (1, 0))
    cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1), k)
    figure, axes = plt.subplots(1, len(maps), figsize=(2.4 * len(maps), 3.0), constrained_layout=True)
    for axis, (name, image) in zip(axes, maps.items(), strict=True):
        inside = image[brain]
        low, high = np.quantile(inside, 0.5), inside.max()
        shown = np.where(brain, np.clip((image - low) / max(high - low, 1e-12), 0, 1), np.nan)[cut]
        axis.imshow(shown.T, origin="lower", cmap="magma", vmin=0, vmax=1)
        for mask, colour in ((core, "cyan"), (whole, "white")):
            axis.contour(mask[cut].T, [0.5], colors=colour, linewidths=0.7)
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exam", type=Path, required=True, help="folder of a prepared pre-operative exam")
    parser.add_argument("--models", help="names, with commas (default: all)")
    parser.add_argument("--picture", type=Path, help="PNG of all maps")
    args = parser.parse_args()
    entries = {m["name"]: m for m in yaml.safe_load((ROOT / "assets/models.yml").read_text())["models"]}
    names = args.models.split(",") if args.models else list(entries)
    exam = Exam(args.exam)
    core, whole = (region(exam.array("tumor_seg"), kind) for kind in (CORE, WHOLE_TUMOR))
    ml = float(np.prod(exam.reference.spacing)) / 1000
    print(f"core {core.sum() * ml:.1f} ml, whole tumour {whole.sum() * ml:.1f} ml, ", end="")
    print(f"voxels of {' x '.join(f'{h:g}' for h in exam.reference.spacing)} mm")
    print(f"{'model':12}{'wall s':>8}{'CPU s':>8}{'GB':>6}  {'Dice of core, whole tumour':28}published")
    maps = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            out = Path(folder) / f"{name}.nii.gz"
            cost = run(name, args.exam, out)
            maps[name] = read_image(out).data
            found = json.loads(out.with_name(f"{name}.json").read_text())["parameters"]
            fit = ", ".join(f"{found[key]:.2f}" for key in ("dice_core", "dice_whole") if found.get(key))
            print(
                f"{name:12}{cost.wall:8.1f}{cost.cpu:8.1f}{cost.memory:6.1f}  {fit:28}{PUBLISHED.get(name, '')}",
                flush=True,
            )
    if args.picture:
        draw(args.picture, exam, maps)


if __name__ == "__main__":
    main()
