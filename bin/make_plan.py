#!/usr/bin/env python3
"""Make the iso-volumetric plan of a score map, and the standard-of-care plan it takes its volume from.

The standard of care (SOC) is the tumour core widened by a margin, inside the brain mask with its holes
filled. The plan takes as many voxels of the same filled mask: those with the highest score, unclipped;
equal scores by distance to the core; and where fewer are positive, those nearest to the positive ones. A
map without a positive value is taken as a rank. With --volume-ml the plan has that volume instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from predictgbm import __version__
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, conform, read_image, to_ras, write_image
from predictgbm.labels import CONVENTIONS, CORE, region
from predictgbm.plan_inputs import read_labels, read_on
from predictgbm.planning import MARGIN_MM, PlanError, fill_holes, make_plan, soc_mask


def nifti(text: str) -> Path:
    if not text.endswith((".nii", ".nii.gz")):
        raise argparse.ArgumentTypeError(f"{text}: must end in .nii or .nii.gz")
    return Path(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All images share one grid; axes may be permuted or flipped. Beside PLAN a .json says\n"
        "its size, the margin, and how far the score decided. Exit status 2 on an error.",
    )
    parser.add_argument(
        "--score",
        required=True,
        metavar="NIFTI",
        help="score map, any unit; the higher, the likelier recurrence",
    )
    parser.add_argument(
        "--tumor-seg",
        required=True,
        metavar="NIFTI",
        help="pre-operative tumour labels: 1 necrosis, 2 oedema, 3 enhancing, 4 cavity",
    )
    parser.add_argument(
        "--brain-mask", required=True, metavar="NIFTI", help="brain mask, 0 outside; gives the plan's grid"
    )
    parser.add_argument(
        "--out", required=True, type=nifti, metavar="PLAN.nii.gz", help="plan, uint8, 1 inside"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN_MM,
        metavar="MM",
        help="margin around the core in mm (default: %(default)g)",
    )
    parser.add_argument(
        "--volume-ml",
        type=float,
        metavar="ML",
        help="volume of the plan, rounded to whole voxels (default: that of the standard-of-care plan)",
    )
    parser.add_argument(
        "--soc-out", type=nifti, metavar="SOC.nii.gz", help="write the standard-of-care plan too"
    )
    parser.add_argument(
        "--tumor-labels",
        default="canonical",
        metavar="CONVENTION",
        help=f"label convention of --tumor-seg: {', '.join(CONVENTIONS)}, or pairs such as 1:1,2:2,4:3 "
        "(value in the file:canonical; default: %(default)s)",
    )
    parser.add_argument(
        "--core-first", action="store_true", help="put the core into the plan before any other voxel"
    )
    parser.add_argument("--model", default="", help="model that made the score, for the .json and --failure")
    add_failure_options(parser)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    stored = read_image(args.brain_mask, np.uint8)
    reference = to_ras(stored)
    brain = reference.data.astype(bool)
    labels = read_labels(args.tumor_seg, reference, args.tumor_labels)
    score = read_on(args.score, reference, np.float64)
    core = region(labels, CORE)

    soc = soc_mask(labels, brain, reference.spacing, args.margin)
    inside = fill_holes(brain)
    n_voxels = int(soc.sum())
    if args.volume_ml is not None:
        brain_ml = int(inside.sum()) * reference.voxel_ml
        if not reference.voxel_ml <= args.volume_ml <= brain_ml:
            raise PlanError(
                f"a plan of {args.volume_ml:g} ml is not possible; the brain has {brain_ml:.1f} ml"
            )
        n_voxels = round(args.volume_ml / reference.voxel_ml)
    plan = make_plan(score, core, brain, reference.spacing, n_voxels, args.core_first)
    n_positive = int((score[inside] > 0).sum())
    lowest = float(score[plan].min())
    write(args.out, plan, reference, stored)
    if args.soc_out:
        write(args.soc_out, soc, reference, stored)
    by_score = n_positive >= n_voxels or n_positive == 0
    sidecar = {
        "model": args.model,
        "n_voxels": n_voxels,
        "volume_ml": n_voxels * reference.voxel_ml,
        "soc_volume_ml": int(soc.sum()) * reference.voxel_ml,
        "margin_mm": args.margin,
        "core_first": args.core_first,
        "brain_voxels": int(inside.sum()),
        "brain_voxels_in_filled_holes": int((inside & ~brain).sum()),
        "positive_voxels": n_positive,
        "voxels_added_by_distance": 0 if by_score else n_voxels - n_positive,
        # Had the last score taken been a unique one, both would be 1.
        "lowest_score": lowest,
        "voxels_at_lowest_score": int((score[inside] == lowest).sum()),
        "voxels_at_lowest_score_in_plan": int((score[plan] == lowest).sum()),
        "voxels_shared_with_soc": int((plan & soc).sum()),
        "version": __version__,
    }
    stem = args.out.name.removesuffix(".gz").removesuffix(".nii")
    args.out.with_name(f"{stem}.json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")


def write(path: Path, mask: np.ndarray, grid: Image, stored: Image) -> None:
    """Write a mask in the voxel order in which the brain mask is stored."""
    write_image(path, conform(Image(mask, grid.affine, str(path)), stored).data, stored.affine)


def main() -> int:
    args = arguments()
    return run_reporting(lambda: run(args), args, model=args.model, stage="plan")


if __name__ == "__main__":
    sys.exit(main())
