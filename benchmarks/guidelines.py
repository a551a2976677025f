#!/usr/bin/env python3
"""Print how far the falx that guidelines keep lies from the true one, on simulated exams whose midline is shifted.

    python benchmarks/guidelines.py --atlas DIR [--patients 1 2 3 4] [--seed 0] [--spacing 2]

The simulation knows which point of the atlas each point of an exam shows: there the true falx is. Told are the
distances of its voxels to the falx that is brought from the atlas by registration, and to that of the atlas itself;
and the shift of the midline, true and as the sidecars of the plans say it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import load_atlas
from predictgbm.guidelines.compartments import falx_mask, load_compartments
from predictgbm.guidelines.placement import exam_to_atlas, midline_shift, place_compartments
from predictgbm.images import Image
from predictgbm.simulation.fields import sample_vectors
from predictgbm.simulation.patient import Life, Simulator, live, photograph


def true_displacement(simulator: Simulator, life: Life) -> NDArray[np.float32]:
    """Return the way of each voxel centre of the pre-operative exam to the point of the atlas that it shows, mm."""
    points = simulator.exam_grid.points()
    rest = points + sample_vectors(life.rest_from_preop, life.coarse, points)
    way = rest + sample_vectors(life.anatomy.to_atlas, life.coarse, rest) - points
    return np.moveaxis(way, 0, -1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", type=Path, required=True, metavar="DIR")
    parser.add_argument("--patients", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--seed", type=int, default=0, help="of the cohort (default: %(default)s)")
    parser.add_argument("--spacing", type=float, default=2.0, help="voxels in mm (default: %(default)g)")
    args = parser.parse_args()
    atlas, compartments = load_atlas(args.atlas), load_compartments(args.atlas)
    if compartments is None:
        parser.error(f"--atlas {args.atlas}: has no compartments")
    simulator = Simulator(atlas, args.spacing)

    print("         midline shift, mm     falx to the true one, mm: mean (95 %)")
    print("patient     true     found       registered   as in the atlas")
    for number in args.patients:
        life = live(simulator, args.seed, number)
        exam = photograph(simulator, life, args.seed, number, adc=False).preop
        t1 = Image(exam.images["t1"], exam.affine)
        found = exam_to_atlas(atlas, t1, exam.brain_mask, exam.tumor_seg > 0)
        truth = true_displacement(simulator, life)
        true_labels = place_compartments(compartments, t1, truth)
        wall = falx_mask(true_labels) & exam.brain_mask

        shifts, errors = [], []
        placed = place_compartments(compartments, t1, found)
        for displacement, labels in ((truth, true_labels), (found, placed)):
            shifts.append(midline_shift(labels, displacement, exam.brain_mask, t1))
        for labels in (placed, place_compartments(compartments, t1)):
            distance = ndimage.distance_transform_edt(~falx_mask(labels), sampling=t1.spacing)[wall]
            errors.append(f"{distance.mean():.1f} ({np.percentile(distance, 95):.1f})")
        true, estimate = ("-" if shift is None else f"{shift:+.1f}" for shift in shifts)
        print(f"{number:>7}{true:>9}{estimate:>10}{errors[0]:>17}{errors[1]:>18}", flush=True)


if __name__ == "__main__":
    main()
