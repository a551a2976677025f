#!/usr/bin/env python3
"""Measure what one network of U-Net costs on one exam of 1 mm: seconds and largest memory.

The network has random weights, which cost the same as others. The exam is an ellipsoid of brain that fills the given
box, by default that of the SRI24 atlas, in the atlas's grid.

    python benchmarks/unet.py --threads 2
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from predictgbm.learned import cards, unet
from predictgbm.learned.splits import Case, draw_splits
from predictgbm.learned.unet import Settings, build_network

GRID = (240, 240, 155)
SPACING = (1.0, 1.0, 1.0)


def make_exam(box: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Return an exam with a brain that fills the box, and a core of 34 ml in it."""
    rng = np.random.default_rng(0)
    axes = [np.arange(n) - (n - 1) / 2 for n in GRID]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    brain = (2 * x / box[0]) ** 2 + (2 * y / box[1]) ** 2 + (2 * z / box[2]) ** 2 <= 1
    away = np.sqrt((x - 25) ** 2 + y**2 + z**2)
    images = {name: (brain * rng.normal(100, 20, GRID)).astype(np.float32) for name in ("t1c", "flair")}
    tissues = {name: (brain / 3).astype(np.float32) for name in ("wm", "gm", "csf")}
    labels = np.where(away < 20, 3, np.where(away < 30, 2, 0)).astype(np.uint8)
    return {"tumor_seg": labels * brain, "brain_mask": brain, **tissues, **images}


def make_folder(folder: Path, settings: Settings) -> None:
    """Write a model folder of one network."""
    cohorts = {f"p{i}": "one" for i in range(6)}
    splits = draw_splits([Case(p, "one", 1.0) for p in cohorts], 2)
    record = {
        "settings": vars(settings),
        "split": "1",
        "seed": 0,
        "spacing_mm": list(SPACING),
        "training": splits["splits"]["1"]["training"],
        "validation": splits["splits"]["1"]["validation"],
        "history": [[1.0, 1.0]],
        "best_epoch": 1,
        "finished": True,
        "device": "none",
        "torch": str(torch.__version__),
    }
    network = build_network(settings)
    cards.write_file(folder / "network.pt", {"record": record, "weights": network.state_dict()})
    unet.Ensemble.assemble(folder / "model", [folder / "network.pt"], splits, cohorts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--base", type=int, default=32, help="features (default: %(default)s)")
    parser.add_argument("--box", type=int, nargs=3, default=(137, 174, 132), help="of the brain, in voxels")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = Settings(base=args.base)
    exam = make_exam(tuple(args.box))
    with tempfile.TemporaryDirectory() as name:
        make_folder(Path(name), settings)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        unet.predict(**exam, spacing=SPACING, weights=Path(name) / "model", patient="new")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parameters = sum(p.numel() for p in build_network(settings).parameters())
    print(f"torch {torch.__version__}, {args.threads} threads, {cards.choose_device()}; base {args.base}")
    print(
        f"{parameters / 1e6:.1f} M parameters, box {tuple(args.box)}, windows {unet.window(args.box, settings)}"
    )
    print(
        f"{wall:.1f} s wall, {cpu:.1f} CPU-s, {memory / 2**20:.2f} GB before, {peak / 2**20:.2f} GB at most"
    )


if __name__ == "__main__":
    main()
