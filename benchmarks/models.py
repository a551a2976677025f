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
from typing import NamedTuple

import numpy as np
import yaml

from predictgbm.exam import Exam
from predictgbm.images import Image, read_image, to_ras
from predictgbm.labels import CORE, WHOLE_TUMOR, Tumor, region
from predictgbm.planning import make_plan, soc_mask

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


def draw(path: Path, exam: Exam, maps: dict[str, Image], recurrence: Image | None) -> None:
    """Draw all maps on the axial slice with the most core: map, core, whole tumour, plan, and what came."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    image = to_ras(exam.image("tumor_seg"))
    labels, spacing = image.data, image.spacing
    brain = to_ras(exam.image("brain_mask")).data > 0
    core = region(labels, CORE)
    volume = int(soc_mask(labels, brain, spacing).sum())
    k = int(core.sum(axis=(0, 1)).argmax())
    rows, columns = (np.flatnonzero(brain[:, :, k].any(axis=axis)) for axis in (1, 0))
    cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1), k)
    outlines = {"core": (core, "cyan"), "whole tumour": (region(labels, WHOLE_TUMOR), "white")}
    if recurrence is not None:
        outlines["recurrence"] = region(to_ras(recurrence).data, (Tumor.ENHANCING,)), "lime"
    width = min(4, len(maps))
    height = -(-len(maps) // width)
    figure, grid = plt.subplots(
        height, width, figsize=(2.4 * width, 2.9 * height), layout="constrained", squeeze=False
    )
    for axis in grid.ravel():
        axis.axis("off")
    for axis, (name, score) in zip(grid.ravel(), maps.items(), strict=False):
        values = to_ras(score).data
        inside = values[brain]
        low, high = np.quantile(inside, 0.5), inside.max()
        shown = np.where(brain, np.clip((values - low) / max(high - low, 1e-12), 0, 1), np.nan)[cut]
        # As in the report: the patient's right is on the right.
        axis.imshow(shown.T, origin="lower", cmap="magma", vmin=0, vmax=1)
        plan = make_plan(values.astype(float), core, brain, spacing, volume)
        for mask, colour in (*outlines.values(), (plan > 0, "orange")):
            axis.contour(mask[cut].T, [0.5], colors=colour, linewidths=0.8)
        axis.set_title(name, fontsize=9)
    names = {**{name: colour for name, (_, colour) in outlines.items()}, "plan": "orange"}
    lines = [plt.Line2D([], [], color=colour, label=name) for name, colour in names.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8, facecolor="0.35",
                  labelcolor="white")  # fmt: skip
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exam", type=Path, required=True, help="folder of a prepared pre-operative exam")
    parser.add_argument("--models", help="names, with commas (default: all that need no training)")
    parser.add_argument("--picture", type=Path, help="PNG of all maps")
    parser.add_argument("--recurrence", type=Path, help="labels of the follow-up on the exam's grid, to draw")
    args = parser.parse_args()
    entries = {m["name"]: m for m in yaml.safe_load((ROOT / "assets/models.yml").read_text())["models"]}
    untrained = [name for name, entry in entries.items() if "training" not in entry]
    names = args.models.split(",") if args.models else untrained
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
            maps[name] = read_image(out)
            found = json.loads(out.with_name(f"{name}.json").read_text())["parameters"]
            fit = ", ".join(f"{found[key]:.2f}" for key in ("dice_core", "dice_whole") if found.get(key))
            print(
                f"{name:12}{cost.wall:8.1f}{cost.cpu:8.1f}{cost.memory:6.1f}  {fit:28}{PUBLISHED.get(name, '')}",
                flush=True,
            )
    if args.picture:
        draw(args.picture, exam, maps, read_image(args.recurrence, np.uint8) if args.recurrence else None)


if __name__ == "__main__":
    main()
