#!/usr/bin/env python3
"""Measure tissue maps against the truth of simulated patients: Dice, error and CPU time of each method.

Each method runs in a process of its own, on one thread, with the seeds that make ANTs repeatable.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from predictgbm.atlas import load_atlas
from predictgbm.images import Image
from predictgbm.masks import dice
from predictgbm.segmentation.tissue import METHODS, segment_tissue
from predictgbm.simulation import Simulator

#: CPU time of the peer's way on one patient, in seconds.
PEER = 2775.0


def measure(method: str, atlas_folder: Path, archive: Path) -> dict[str, float]:
    """Run one method on one patient and compare its maps with the truth."""
    atlas = load_atlas(atlas_folder)
    case = np.load(archive)
    image = Image(case["t1"].astype(np.float32), case["affine"])
    brain, tumor = case["brain"], case["tumor"]
    start = time.process_time()
    *maps, facts = segment_tissue(atlas, image, brain, tumor, method)  # type: ignore[arg-type]
    seconds = time.process_time() - start
    true, found = (np.stack(m).argmax(axis=0) for m in (case["tissue"], maps))
    result = {"cpu": seconds, "folded": facts.get("folded_percent", 0.0)}
    for name, where in (("", brain & ~tumor), (" in tumour", brain & tumor)):
        for k, tissue in enumerate(("WM", "GM", "CSF")):
            result[tissue + name] = dice((found == k) & where, (true == k) & where)
    result["error"] = float(np.abs(np.stack(maps) - case["tissue"])[:, brain].mean())
    result["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, required=True, help="folder made by prepare_atlas.py")
    parser.add_argument(
        "--patients", type=int, nargs="+", default=[1, 2], help="numbers of simulated patients"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["atlas", "greedy", "ncc", "syn"])
    parser.add_argument("--spacing", type=float, default=1.0, help="voxel edge in mm (default %(default)s)")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "NPZ"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print("RESULT " + json.dumps(measure(args.one[0], args.atlas, Path(args.one[1]))))
        return
    import tempfile

    columns = ("WM", "GM", "CSF", "WM in tumour", "GM in tumour", "error", "folded", "cpu", "rss")
    print(f"patient {'method':8}" + "".join(f"{c:>14}" for c in columns) + "   peer / cpu")
    simulator = Simulator(load_atlas(args.atlas), args.spacing)
    env = os.environ | {
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
        "ANTS_RANDOM_SEED": "1",
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        for number in args.patients:
            exam = simulator.patient(2025, number).preop
            archive = Path(folder) / f"{number}.npz"
            tissue = np.stack([exam.tissue[t] for t in ("wm", "gm", "csf")])
            np.savez(
                archive,
                t1=exam.images["t1"],
                affine=exam.affine,
                brain=exam.brain_mask,
                tumor=exam.tumor_seg > 0,
                tissue=tissue,
            )
            for method in args.methods:
                command = [
                    sys.executable,
                    __file__,
                    "--atlas",
                    str(args.atlas),
                    "--one",
                    method,
                    str(archive),
                ]
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
                line = next(text for text in done.stdout.splitlines() if "RESULT " in text)
                r = json.loads(line.partition("RESULT ")[2])
                numbers = "".join(f"{r[c]:14.3f}" for c in columns)
                print(f"{number:7d} {method:8}{numbers}{PEER / r['cpu']:13.0f}", flush=True)


if __name__ == "__main__":
    main()
