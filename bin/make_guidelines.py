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

from predictgbm import __version__
from predictgbm.atlas import load_atlas
from predictgbm.exam import Exam
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.guidelines.barriers import make_guideline_plan
from predictgbm.guidelines.compartments import load_compartments
from predictgbm.guidelines.placement import exam_to_atlas, midline_shift, place_compartments
from predictgbm.guidelines.presets import GUIDELINES, guideline
from predictgbm.images import write_image


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
    add_failure_options(parser)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    rules = [guideline(name) for name in args.guidelines]
    exam = Exam(args.exam)
    reference = exam.reference
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
            rule, tumor, brain, csf, compartments, reference.spacing, wm, args.white_matter_speed
        )
        sidecar = {
            **dataclasses.asdict(rule),
            "white_matter_speed": args.white_matter_speed,
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


def main() -> int:
    args = arguments()
    return run_reporting(lambda: run(args), args, model="", stage="guidelines")


if __name__ == "__main__":
    sys.exit(main())
