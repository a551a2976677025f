#!/usr/bin/env python3
"""Measure a plan against the recurrence of a registered follow-up.

Coverage is the part of the recurrence inside the plan, 0 to 1: enhancing (label 3), core (1 and 3) and
all (1, 2 and 3). Every recurrence voxel counts, also outside the brain mask
(recurrence_outside_brain_ml). Dice, the 95th percentile Hausdorff distance in mm, lesions and the curve
concern the enhancing recurrence. What cannot be evaluated is null, and "reason" says why.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from predictgbm import __version__
from predictgbm.evaluation import evaluate_plan, evaluate_score, evaluate_tumor
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.guidelines import GUIDELINES, evaluate_guideline
from predictgbm.images import Image, ImageError, read_image, to_ras
from predictgbm.labels import CONVENTIONS, CORE, region
from predictgbm.plan_inputs import read_labels, read_mask, read_on
from predictgbm.planning import MARGIN_MM

#: Columns of the metrics table, in its order.
COLUMNS = (
    "patient",
    "session",
    "cohort",
    "followup_session",
    "days",
    "model",
    "coverage_enhancing",
    "coverage_core",
    "coverage_all",
    "dice",
    "hd95_mm",
    "plan_ml",
    "recurrence_enhancing_ml",
    "recurrence_core_ml",
    "tumor_core_ml",
    "tumor_whole_ml",
    "com_distance_cm",
    "n_lesions",
    "curve_area",
    "volume_at_soc_coverage_ml",
    "reason",
)


def days(text: str) -> int | None:
    return None if text in ("", "null") else int(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All images share one grid; axes may be permuted or flipped. Exit status 2 on an error.",
    )
    names = f"{', '.join(CONVENTIONS)}, or pairs such as 1:1,2:2,4:3 (value in the file:canonical)"
    add = parser.add_argument
    add("--plan", required=True, metavar="NIFTI", help="plan, a mask of 0 and one other value")
    add(
        "--recurrence",
        required=True,
        metavar="NIFTI",
        help="tumour labels of the follow-up, registered to the plan's exam: 1 necrosis, 2 oedema, "
        "3 enhancing, 4 cavity",
    )
    add("--brain-mask", required=True, metavar="NIFTI", help="brain mask of the plan's exam, 0 outside")
    add("--out", required=True, type=Path, metavar="JSON", help="measures, volumes in ml")
    add("--score", metavar="NIFTI", help="score map the plan was made of: adds the coverage-volume curve")
    add("--tumor-seg", metavar="NIFTI", help="pre-operative tumour labels: adds volumes and distance")
    add(
        "--recurrence-labels",
        default="canonical",
        metavar="CONVENTION",
        help=f"label convention of --recurrence: {names}; 1:3 for a mask of enhancing recurrence "
        "(default: %(default)s)",
    )
    add(
        "--tumor-labels",
        default="canonical",
        metavar="CONVENTION",
        help="label convention of --tumor-seg, likewise (default: %(default)s)",
    )
    add(
        "--margin",
        type=float,
        default=MARGIN_MM,
        metavar="MM",
        help="margin of the standard of care, for volume_at_soc_coverage_ml, in mm (default: %(default)g)",
    )
    add("--core-first", action="store_true", help="the plan was made with --core-first")
    add(
        "--guidelines",
        nargs="+",
        type=Path,
        default=[],
        metavar="NIFTI",
        help="masks of make_guidelines.py, *_desc-<guideline>_mask.nii.gz and *allowed_mask.nii.gz; needs --score: "
        "adds the score's plans of the guidelines' volumes and within their barriers",
    )
    add("--model", default="", help="model that made the plan; copied into the result, as are:")
    add("--cohort", default="")
    add("--followup-session", default="")
    add("--days", type=days, metavar="N", help="days from the pre-operative exam to the follow-up")
    add_failure_options(parser)
    args = parser.parse_args()
    if args.score and not args.tumor_seg:
        parser.error("--score needs --tumor-seg, for the standard of care and for ties")
    if args.guidelines and not args.score:
        parser.error("--guidelines needs --score, for the plans of other volumes")
    return args


def run(args: argparse.Namespace) -> None:
    reference = to_ras(read_image(args.brain_mask, np.uint8))
    brain = reference.data.astype(bool)
    if not brain.any():
        raise ImageError(f"{args.brain_mask}: the brain mask is empty")
    plan = read_mask(args.plan, reference)
    recurrence = read_labels(args.recurrence, reference, args.recurrence_labels)
    spacing = reference.spacing

    result: dict[str, Any] = dict.fromkeys(COLUMNS)
    for name in ("patient", "session", "cohort", "followup_session", "days", "model"):
        result[name] = getattr(args, name)
    result["curve"] = None
    result |= evaluate_plan(plan, recurrence, brain, spacing)
    if args.tumor_seg:
        tumor = read_labels(args.tumor_seg, reference, args.tumor_labels)
        result |= evaluate_tumor(tumor, recurrence, spacing)
        if args.score:
            score = read_on(args.score, reference, np.float64)
            result |= evaluate_score(
                score, tumor, plan, recurrence, brain, spacing, args.margin, args.core_first
            )
            if args.guidelines:
                result["guidelines"] = [
                    {"guideline": name}
                    | null_for_nan(
                        evaluate_guideline(
                            score,
                            region(tumor, CORE),
                            recurrence,
                            brain,
                            own,
                            allowed,
                            spacing,
                            args.core_first,
                        )
                    )
                    for name, own, allowed in read_guidelines(args.guidelines, reference)
                ]
    result["version"] = __version__
    finite = null_for_nan(result)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False)
    args.out.write_text(text + "\n", encoding="utf-8")


def null_for_nan(record: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}


def read_guidelines(files: list[Path], reference: Image) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, plan and allowed region of each guideline whose masks are there."""
    for name in GUIDELINES:
        found = [
            [path for path in files if path.name.endswith(f"_desc-{name}{kind}_mask.nii.gz")]
            for kind in ("", "allowed")
        ]
        if found[0] and found[1]:
            yield name, read_mask(found[0][0], reference), read_mask(found[1][0], reference)


def main() -> int:
    args = arguments()
    return run_reporting(lambda: run(args), args, model=args.model, stage="evaluate")


if __name__ == "__main__":
    sys.exit(main())
