#!/usr/bin/env python3
"""Draw the plans of guidelines on one prepared exam: a margin around the tumour core that keeps anatomical barriers.

For each guideline two masks: PREFIX_desc-<guideline>_mask.nii.gz, its plan, with numbers in a .json beside it; and
PREFIX_desc-<guideline>allowed_mask.nii.gz, where a plan that keeps the same barriers may lie. Falx and tentorium come
from the atlas, which is registered to the exam, ventricles from the exam's tissue map, the skull is what lies outside
the brain mask.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from predictgbm import __version__
from predictgbm.atlas import load_atlas
from predictgbm.exam import Exam, organ_files
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.guidelines.barriers import make_guideline_plan
from predictgbm.guidelines.compartments import load_compartments
from predictgbm.guidelines.placement import exam_to_atlas, midline_shift, place_compartments
from predictgbm.guidelines.presets import GUIDELINES, guideline
from predictgbm.images import conform, read_image, write_image
from predictgbm.planning import PlanError


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--exam", required=True, type=Path, metavar="DIR", help="prepared exam")
    add("--atlas", required=True, type=Path, metavar="DIR", help="atlas folder, as prepare_atlas.py makes it")
    add("--guidelines", nargs="+", required=True, metavar="NAME", help=f"of {', '.join(GUIDELINES)}")
    add("--out-prefix", required=True, metavar="PREFIX", help="how the files' names begin")
    add(
        "--white-matter-speed",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="how much farther the margin goes in white matter, which keeps the guideline's margin, than in other "
        "tissue, which gets less (default: %(default)g, all tissue alike)",
    )
    add(
        "--margin",
        type=float,
        metavar="MM",
        help="margin around the tumour core in mm, within the range that each guideline allows (default: its own)",
    )
    add(
        "--spare",
        nargs="+",
        default=[],
        metavar="ORGAN",
        help="organs at risk of the exam (*_label-<organ>_mask.nii.gz) that the plans leave out, but for tumour core",
    )
    add_failure_options(parser)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    rules = [guideline(name, args.margin) for name in args.guidelines]
    exam = Exam(args.exam)
    reference = exam.reference
    spared = spared_organs(args, exam) if args.spare else None
    tumor, brain, csf = (exam.array(name) for name in ("tumor_seg", "brain_mask", "csf"))
    compartments = shift = None
    in_atlas = load_compartments(args.atlas)
    if in_atlas is not None:
        displacement = exam_to_atlas(load_atlas(args.atlas), exam.image("t1"), brain, tumor > 0)
        compartments = place_compartments(in_atlas, reference, displacement)
        shift = midline_shift(compartments, displacement, brain, reference)
    wm = exam.array("wm") if args.white_matter_speed > 1 else None
    for rule in rules:
        made = make_guideline_plan(
            rule, tumor, brain, csf, compartments, reference.spacing, wm, args.white_matter_speed, spared
        )
        sidecar = {
            **dataclasses.asdict(rule),
            "white_matter_speed": args.white_matter_speed,
            "spared": args.spare,
            "falx_and_tentorium": compartments is not None,
            "midline_shift_mm": None if shift is None else round(shift, 1),
            "n_voxels": int(made.plan.sum()),
            "volume_ml": float(made.plan.sum() * reference.voxel_ml),
            "ventricles_ml": float(made.ventricles.sum() * reference.voxel_ml),
            "version": __version__,
        }
        stem = Path(f"{args.out_prefix}_desc-{rule.name}")
        write_image(f"{stem}_mask.nii.gz", made.plan, reference.affine)
        write_image(f"{stem}allowed_mask.nii.gz", made.allowed, reference.affine)
        Path(f"{stem}_mask.json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")


def spared_organs(args: argparse.Namespace, exam: Exam) -> NDArray[np.bool_]:
    """Return the voxels of the organs to spare on the grid of the exam."""
    known = organ_files(args.exam)
    if missing := [name for name in args.spare if name not in known]:
        raise PlanError(
            f"{args.exam}: has no organ at risk {', '.join(missing)} to spare, it has {', '.join(known) or 'none'}; "
            "add the column oar_<name> to the samplesheet, or leave the name out of --guideline_spare"
        )
    masks = [conform(read_image(known[name], np.uint8), exam.reference).data > 0 for name in args.spare]
    return np.logical_or.reduce(masks)


def main() -> int:
    args = arguments()
    return run_reporting(lambda: run(args), args, model="", stage="guidelines")


if __name__ == "__main__":
    sys.exit(main())
