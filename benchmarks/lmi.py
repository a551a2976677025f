#!/usr/bin/env python3
"""Compare what LMI infers with what the calibration of Fisher-KPP finds, on tumours whose parameters are known.

Tumours are grown in individuals that the network never saw and labelled between thresholds of visibility that neither
method knows: drawn from the ranges of the training, or the two that the calibration assumes. Errors are medians:
factors of D T and rho T (1.2: half of the estimates lie within a factor of 1.2), distance of the seed; and the share of
the true plan, the most tumourous voxels in the volume of the core and 15 mm around it, that each method's plan covers.

    python benchmarks/lmi.py --atlas ATLAS --weights lmi.npz --tumors 20
"""

from __future__ import annotations

import argparse
import time
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import load_atlas
from predictgbm.growth import calibration, fisher_kpp, lmi
from predictgbm.growth.solver import FisherKPP, relative_diffusivity
from predictgbm.planning import make_plan, soc_mask
from predictgbm.simulation import Simulator
from predictgbm.simulation.patient import random_stream
from predictgbm.training import tumors
from predictgbm.training.tumors import Anatomy, Truth

#: Individuals of the benchmark: numbers that no training reaches.
FIRST = 9001
SPACING = (1.0, 1.0, 1.0)
#: Whole tumours of other sizes are drawn again, in ml.
VOLUME_ML = (5.0, 200.0)
LEAST_CORE_ML = 1.0


class Case(NamedTuple):
    """A tumour: what made it, its concentration on the grid of the anatomy, and its labels."""

    truth: Truth
    concentration: NDArray[np.float32]
    labels: NDArray[np.uint8]


def draw_case(rng: np.random.Generator, anatomy: Anatomy, known_thresholds: bool) -> Case:
    """Draw a tumour of a size that is operated on."""
    while True:
        truth = tumors.draw_truth(rng, anatomy)
        limits = (
            (calibration.CORE_THRESHOLD, calibration.EDEMA_THRESHOLD)
            if known_thresholds
            else (rng.uniform(*tumors.CORE_THRESHOLDS), rng.uniform(*tumors.EDEMA_THRESHOLDS))
        )
        u, part = tumors.grow(anatomy, truth)
        core, whole = ((u > t).sum() * part.spacing**3 / 1000 for t in limits)
        if VOLUME_ML[0] <= whole <= VOLUME_ML[1] and core >= LEAST_CORE_ML:
            break
    # Labels and plan are those of the tumour grown at 1 mm with the tail that ranks all voxels, by either method.
    relative = relative_diffusivity(anatomy.wm, anatomy.gm)
    u = fisher_kpp.grow(FisherKPP(relative, SPACING), lmi.to_parameters(*truth))
    labels = np.where(u > limits[0], 3, np.where(u > limits[1], 2, 0)).astype(np.uint8)
    return Case(truth, u, labels)


def measure(method: Any, case: Case, anatomy: Anatomy, brain: NDArray[np.bool_]) -> list[float]:
    """Return logarithms of both factors, distance of the seed, covered share and seconds of one method."""
    began = time.process_time()
    csf = np.where(brain, 1 - anatomy.wm - anatomy.gm, 0).clip(0)
    found = method(case.labels, anatomy.wm, anatomy.gm, csf, brain, spacing=SPACING)
    seconds = time.process_time() - began
    values = found.parameters
    d, rho = (np.ravel(values[name])[0] for name in ("diffusivity_mm2_per_day", "proliferation_per_day"))
    seed = np.array(values["seeds_mm"])[0]
    voxels = int(soc_mask(case.labels, brain, SPACING).sum())
    true_plan, own_plan = (
        make_plan(score, case.labels == 3, brain, SPACING, voxels)
        for score in (case.concentration, found.map)
    )
    return [
        abs(np.log(d * calibration.DAYS / case.truth.spread**2)),
        abs(np.log(rho * calibration.DAYS / case.truth.growth**2)),
        float(np.linalg.norm(seed - case.truth.seed)),
        float((true_plan & own_plan).sum() / voxels),
        seconds,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", type=Path, required=True, help="folder made by prepare_atlas.py")
    parser.add_argument("--tumors", type=int, default=20, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", help="of LMI, made by ./predictgbm run --train lmi")
    args = parser.parse_args()
    simulator = Simulator(load_atlas(args.atlas))
    methods = {"LMI": partial(lmi.predict, weights=args.weights), "calibration": fisher_kpp.predict}
    print(
        f"{'thresholds':12}{'method':13}{'D T':>7}{'rho T':>7}{'seed mm':>9}{'true plan covered':>19}{'CPU s':>7}"
    )
    draw_anatomy = cache(partial(tumors.draw_anatomy, simulator, args.seed))
    for known in (False, True):
        rows: dict[str, list[list[float]]] = {name: [] for name in methods}
        for number in range(args.tumors):
            anatomy = draw_anatomy(FIRST + number // 5)
            rng = random_stream(args.seed, FIRST + number, 4 + known)
            brain = ndimage.binary_fill_holes(anatomy.wm + anatomy.gm > 0.1)
            case = draw_case(rng, anatomy, known)
            for name, method in methods.items():
                rows[name].append(measure(method, case, anatomy, brain))
        for name, values in rows.items():
            d, rho, seed, covered, seconds = np.median(np.array(values), axis=0)
            print(
                f"{'assumed' if known else 'drawn':12}{name:13}{np.exp(d):7.2f}{np.exp(rho):7.2f}{seed:9.1f}"
                f"{100 * covered:17.1f} %{seconds:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
