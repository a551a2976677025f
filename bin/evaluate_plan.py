#!/usr/bin/env python3
"""Measure a plan against the recurrence of a registered follow-up.

Coverage is the part of the recurrence inside the plan, 0 to 1: enhancing (label 3), core (1 and 3) and
all (1, 2 and 3). Every recurrence voxel counts, also outside the brain mask
(recurrence_outside_brain_ml). Dice, the 95th percentile Hausdorff distance in mm, lesions and the curve
concern the enhancing recurrence, and so does dose; calibration concerns the core, as trained models are told it.
What cannot be evaluated is null, and "reason" says why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictgbm import __version__
from predictgbm.documents import write_measures
from predictgbm.dose import STANDARD, Prescription, evaluate_dose
from predictgbm.evaluation import (
    border_spread,
    coverage,
    evaluate_margins,
    evaluate_plan,
    evaluate_score,
    evaluate_tumor,
    locate_lesions,
)
from predictgbm.exam import organ_files
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.guidelines.presets import GUIDELINES, evaluate_guideline
from predictgbm.images import Image, ImageError, read_image, to_ras
from predictgbm.labels import CONVENTIONS, CORE, RECURRENCE, region
from predictgbm.options import RECURRENCE_AXES, listed
from predictgbm.plan_inputs import read_labels, read_mask, read_on
from predictgbm.planning import MARGIN_MM, PlanError, RankOrder, soc_mask, soc_masks
from predictgbm.reliability import ProbabilityError, bin_sums, calibration_region

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
    "spread_border",
    "reason",
)

#: Tissues whose dose is told.
TISSUES = {"wm": "white matter", "gm": "grey matter", "csf": "cerebrospinal fluid"}

#: So many standard plans are ranked at first: enough for curve and margins, and mostly for dose and guidelines.
RANKED = 3


def days(text: str) -> int | None:
    return None if text in ("", "null") else int(text)


def axis_setting_path(text: str) -> tuple[str, str, str]:
    """Take AXIS:SETTING=PATH apart."""
    choice, equals, path = text.partition("=")
    axis, colon, setting = choice.partition(":")
    if not (equals and colon and path and axis in RECURRENCE_AXES and setting):
        raise argparse.ArgumentTypeError(
            f"{text}: expected AXIS:SETTING=NIFTI with one of the axes {', '.join(RECURRENCE_AXES)}"
        )
    return axis, setting, path


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
    add(
        "--spread",
        metavar="NIFTI",
        help="standard deviation of that map: adds its mean over the plan's border",
    )
    add(
        "--tumor-seg",
        metavar="NIFTI",
        help="pre-operative tumour labels: adds volumes, distances and patterns",
    )
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
        help="margin of the standard of care, for patterns and volume_at_soc_coverage_ml, in mm (default: %(default)g)",
    )
    add(
        "--other-margins",
        type=listed(float),
        default=[],
        metavar="MM,...",
        help="margins for which plans of --score are measured too, or none; --margin is left out",
    )
    add(
        "--other-recurrence",
        type=axis_setting_path,
        action="append",
        default=[],
        metavar="AXIS:SETTING=NIFTI",
        help="canonical labels of the recurrence by another choice, such as followup:last=labels.nii.gz, that the plan "
        "is also measured against; may be given several times",
    )
    add("--core-first", action="store_true", help="the plan was made with --core-first")
    add("--dose", action="store_true", help="add modelled doses in Gy, of the plan and painted by the map")
    for name, unit, value, help_text in (
        (
            "prescription",
            "GY",
            STANDARD.dose_gy,
            "dose prescribed as the median of the plan with its set-up margin",
        ),
        ("setup-margin", "MM", STANDARD.margin_mm, "margin for set-up around the plan (PTV)"),
        ("falloff", "MM", STANDARD.falloff_mm, "way from 80 %% to 20 %% of the dose across a flat edge"),
    ):
        add(f"--{name}", type=float, default=value, metavar=unit, help=f"{help_text} (default: %(default)g)")
    for name, tissue in TISSUES.items():
        add(f"--{name}", metavar="NIFTI", help=f"probability of {tissue}: adds its mean dose")
    add(
        "--organs",
        type=Path,
        metavar="DIR",
        help="prepared exam with organs at risk, *_label-<organ>_mask.nii.gz: adds their doses",
    )
    add(
        "--probability",
        action="store_true",
        help="the score is the probability of the recurrence's core: adds its calibration",
    )
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
    if args.other_margins and not args.score:
        parser.error("--other-margins needs --score")
    if args.score and not args.tumor_seg:
        parser.error("--score needs --tumor-seg, for the standard of care and for ties")
    for option in ("dose", "probability", "guidelines"):
        if getattr(args, option) and not args.score:
            parser.error(f"--{option} needs --score")
    try:
        args.prescribed = Prescription(args.prescription, args.setup_margin, args.falloff)
    except PlanError as error:
        parser.error(f"--prescription, --setup-margin, --falloff: {error}")
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
    result |= {"curve": None, "settings": []}
    result |= evaluate_plan(plan, recurrence, brain, spacing)
    if args.spread:
        spread = read_on(args.spread, reference, np.float32)
        result["spread_border"] = border_spread(plan, spread, brain)
    if args.tumor_seg:
        tumor = read_labels(args.tumor_seg, reference, args.tumor_labels)
        result |= evaluate_tumor(tumor, recurrence, spacing)
        if args.score or (region(tumor, CORE).any() and result["lesions"]):
            soc = soc_mask(tumor, brain, spacing, args.margin)
            if located := locate_lesions(tumor, recurrence, soc, spacing):
                result["lesions"] = [a | b for a, b in zip(result["lesions"], located, strict=True)]
        if args.score:
            result |= measure_score(args, plan, soc, tumor, recurrence, brain, reference)
    for axis, setting, path in args.other_recurrence:
        other = region(read_labels(path, reference, "canonical"), RECURRENCE["enhancing"])
        result["settings"].append(
            {
                "axis": axis,
                "setting": setting,
                "plan_ml": result["plan_ml"],
                "coverage_enhancing": coverage(plan, other),
            }
        )
    result["version"] = __version__
    write_measures(args.out, result)


def measure_score(
    args: argparse.Namespace,
    plan: NDArray[np.bool_],
    soc: NDArray[np.bool_],
    tumor: NDArray[np.integer],
    recurrence: NDArray[np.integer],
    brain: NDArray[np.bool_],
    reference: Image,
) -> dict[str, Any]:
    """Measure what the score map tells beyond the plan that was made of it."""
    score, spacing = read_on(args.score, reference, np.float64), reference.spacing
    core = region(tumor, CORE)
    enhancing, recurred = (region(recurrence, RECURRENCE[name]) for name in ("enhancing", "core"))
    ranking = RankOrder(score, core, brain, spacing, args.core_first, RANKED * int(np.count_nonzero(soc)))
    result = evaluate_score(ranking, soc, plan, recurrence, spacing)
    margins = [margin for margin in args.other_margins if margin != args.margin]
    others = soc_masks(tumor, brain, spacing, margins)
    result["settings"] = evaluate_margins(ranking, soc, others, plan, recurrence, spacing)
    if args.dose and plan.any():
        paths = {name: getattr(args, name) for name in TISSUES}
        tissues = {name: read_on(path, reference, np.float32) for name, path in paths.items() if path}
        masks = organ_files(args.organs) if args.organs else {}
        organs = {name: read_mask(path, reference) for name, path in masks.items()}
        result["dose"] = evaluate_dose(
            plan, soc, ranking, core, enhancing, brain, spacing, tissues, args.prescribed, organs
        )
    if args.probability and recurred.any():
        near = calibration_region(core, brain, spacing)
        try:
            result["calibration"] = bin_sums(score[near], recurred[near]).tolist()
        except ProbabilityError as error:
            # The plan needs the order of the voxels alone: its scores stand.
            result["calibration_reason"] = str(error)
    if args.guidelines:
        result["guidelines"] = [
            {"guideline": name} | evaluate_guideline(ranking, recurrence, own, allowed, spacing)
            for name, own, allowed in read_guidelines(args.guidelines, reference)
        ]
    return result


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
