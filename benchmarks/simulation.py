#!/usr/bin/env python3
"""Size, recurrence and speed of the built-in cohort, beside the medians of the PREDICT-GBM paper."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import edt
import numpy as np
from scipy import ndimage

from predictgbm.atlas import load_atlas
from predictgbm.labels import CORE, WHOLE_TUMOR, Tumor, region
from predictgbm.simulation import Simulator

#: Medians of 243 patients, where the paper gives them.
PAPER = {"tumour core, ml": "27.5", "enhancing recurrence, ml": "5.6", "centre-of-mass distance, cm": "1.6"}


def measure(simulator: Simulator, seed: int, number: int) -> dict[str, float]:
    start = time.process_time()
    patient = simulator.patient(seed, number)
    seconds = time.process_time() - start
    spacing = simulator.spacing
    ml = spacing**3 / 1000
    core = region(patient.preop.tumor_seg, CORE)
    recurrence = patient.registered_seg == Tumor.ENHANCING
    plan = (edt.edt(~core, anisotropy=(spacing,) * 3) <= 15) & patient.preop.brain_mask
    centres = [np.array(ndimage.center_of_mass(mask)) for mask in (core, recurrence)]
    return {
        "tumour core, ml": core.sum() * ml,
        "whole tumour, ml": region(patient.preop.tumor_seg, WHOLE_TUMOR).sum() * ml,
        "enhancing recurrence, ml": recurrence.sum() * ml,
        "centre-of-mass distance, cm": float(np.linalg.norm(centres[0] - centres[1])) * spacing / 10,
        "coverage by core + 15 mm": (recurrence & plan).sum() / recurrence.sum(),
        "parts of the recurrence": ndimage.label(recurrence, np.ones((3, 3, 3)))[1],
        "CPU seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, required=True, help="folder made by prepare_atlas.py")
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--spacing", type=float, default=4.0, help="voxel edge in mm")
    parser.add_argument("--seed", type=int, default=2025)
    arguments = parser.parse_args()
    simulator = Simulator(load_atlas(arguments.atlas), arguments.spacing)
    rows = [measure(simulator, arguments.seed, n) for n in range(1, arguments.patients + 1)]
    print("| quantity | median (quartiles) | mean | paper, median |\n|---|---|---|---|")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        low, median, high = np.percentile(values, [25, 50, 75])
        print(
            f"| {name} | {median:.2f} ({low:.2f}-{high:.2f}) | {values.mean():.2f} | {PAPER.get(name, '')} |"
        )


if __name__ == "__main__":
    main()
