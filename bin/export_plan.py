#!/usr/bin/env python3
"""Bring plans to the formats of the clinic: RTSTRUCT and DICOM-SEG on the patient's own series, NIfTI beside it.

With --transform, masks and labels are in atlas space and are taken back to the grid of the contrast; without it they
lie on that grid. DICOM needs the folder of the series; the exam's mixed folder will do, the series is then chosen as
the conversion chooses it. What is written carries the name of the patient as the series does, and is for research
use only, not for clinical use.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from predictgbm.alignment import to_native
from predictgbm.conversion.dicom import find_series
from predictgbm.exam import model_name
from predictgbm.export.dicom_seg import make_segmentation
from predictgbm.export.reference import NOTICE, Reference, Region, make_reference
from predictgbm.export.rtstruct import make_rtstruct
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, conform, read_image, write_image
from predictgbm.labels import CORE, Tumor, region
from predictgbm.plan_inputs import read_labels, read_mask
from predictgbm.planning import MARGIN_MM, soc_mask
from predictgbm.registration.transforms import read_matrix
from predictgbm.report.colours import LABEL_COLOURS, STANDARD_PLAN_COLOUR, model_places, plan_colour
from predictgbm.report.results import read_models

FORMATS = ("rtstruct", "seg", "nifti")
#: The model whose plan is the standard one.
STANDARD = "soc"
#: A volume that changes by more than this share on the way to the native grid is told.
CHANGED_VOLUME = 0.05


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--plans", type=Path, nargs="+", required=True, help="plans *_model-<name>_*.nii.gz, one file a model"
    )
    parser.add_argument(
        "--models", type=Path, nargs="*", default=[], help="lists of models; their order gives the colours"
    )
    parser.add_argument("--tumor-seg", type=Path, required=True, help="canonical tumour labels (NIfTI)")
    parser.add_argument("--brain-mask", type=Path, required=True, help="brain mask (NIfTI)")
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN_MM,
        help="margin of the standard plan in mm (default: %(default)g)",
    )
    parser.add_argument(
        "--transform",
        type=Path,
        help="way of the contrast to the atlas, *_from-<contrast>_to-<space>_xfm.tfm",
    )
    parser.add_argument("--dicom", type=Path, help="folder of the DICOM series, or of the exam")
    parser.add_argument(
        "--native", type=Path, help="the same image as NIfTI on its native grid, for an exam without DICOM"
    )
    parser.add_argument(
        "--contrast",
        default="t1c",
        help="what the series shows, a column of the samplesheet (default: %(default)s)",
    )
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=FORMATS, help="what to write (default: all)"
    )
    parser.add_argument("--out-dir", type=Path, required=True, help="folder to write to")
    parser.add_argument("--prefix", default="export", help="begin of the file names (default: %(default)s)")
    add_failure_options(parser)
    return parser.parse_args()


def read_regions(args: argparse.Namespace) -> tuple[list[Region], Image]:
    """Read what to export, all on one grid, and return that grid too: core, standard plan, plans by name."""
    grid = read_image(args.brain_mask, np.uint8)
    brain = read_mask(args.brain_mask, grid)
    labels = read_labels(args.tumor_seg, grid, "canonical")
    standard = soc_mask(labels, brain, grid.spacing, args.margin)
    regions = [
        Region(
            "core",
            "Tumour core: necrosis and enhancing tumour.",
            "tumor",
            LABEL_COLOURS[Tumor.NECROSIS],
            region(labels, CORE),
        ),
        Region(
            "standard",
            f"Standard plan: the core with a margin of {args.margin:g} mm inside the brain.",
            "margin",
            STANDARD_PLAN_COLOUR,
            standard,
        ),
    ]
    plans = {model_name(path): path for path in args.plans}
    if len(plans) < len(args.plans):
        raise ImageError(
            f"--plans: {len(args.plans)} files of {len(plans)} models; give one plan of each model"
        )
    places = model_places([*read_models(args.models), *sorted(plans)])
    for name in sorted(plans.keys() - {STANDARD}):
        text = f"Plan of the model {name}, of the volume of the standard plan."
        regions.append(Region(name, text, "model", plan_colour(name, places), read_mask(plans[name], grid)))
    return regions, grid


def read_reference(folder: Path, contrast: str) -> tuple[Reference, dict[str, Any]]:
    """Read the headers of the series that shows a contrast, and say which it is."""
    series, _, _ = find_series(folder, contrast)
    headers = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in series.files]
    return make_reference(headers), {"number": series.number, "description": series.description}


def bring(
    regions: list[Region], grid: Image, target: Image, transform: Path | None
) -> tuple[list[Region], list[dict[str, Any]], list[str]]:
    """Bring regions to the grid of the contrast, and say how their volumes change."""
    matrix = read_matrix(transform) if transform else None
    moved, volumes, remarks = [], [], []
    for item in regions:
        image = Image(item.mask.astype(np.uint8), grid.affine, item.name)
        data = (
            conform(image, target).data if matrix is None else to_native(image, target, matrix, labels=True)
        )
        moved.append(replace(item, mask=data.astype(bool)))
        before, after = item.mask.sum() * grid.voxel_ml, data.sum() * target.voxel_ml
        volumes.append({"name": item.name, "volume_ml": float(before), "exported_ml": float(after)})
        if abs(after - before) > CHANGED_VOLUME * before:
            remarks.append(
                f"{item.name}: {before:.4g} ml became {after:.4g} ml on the grid of the {target.name}; "
                "slices are thick, or the image does not show all of it."
            )
    return moved, volumes, remarks


def write_nifti(region: Region, target: Image, args: argparse.Namespace) -> None:
    entity = f"model-{region.name}_desc-isovol" if region.kind == "model" else f"desc-{region.name}"
    path = args.out_dir / f"{args.prefix}_space-{args.contrast}_{entity}_mask.nii.gz"
    write_image(path, region.mask, target.affine)


def run(args: argparse.Namespace) -> None:
    if args.dicom is None and args.native is None:
        raise ImageError("--dicom or --native: name the series or the image to bring the plans to")
    record: dict[str, Any] = {"notice": f"{NOTICE}.", "contrast": args.contrast}
    remarks, reference = [], None
    if args.dicom:
        reference, record["series"] = read_reference(args.dicom, args.contrast)
    elif set(args.formats) != {"nifti"}:
        remarks.append("The exam did not come as DICOM: RTSTRUCT and DICOM-SEG have no series to refer to.")
    target = reference.grid if reference and not args.native else read_image(args.native)
    target = replace(target, name=args.contrast)
    regions, grid = read_regions(args)
    regions, record["regions"], changes = bring(regions, grid, target, args.transform)

    args.out_dir.mkdir(parents=True, exist_ok=True)
    if "nifti" in args.formats:
        for item in regions:
            write_nifti(item, target, args)
    if reference:
        drawn = [
            replace(item, mask=conform(Image(item.mask, target.affine, args.contrast), reference.grid).data)
            for item in regions
        ]
        for kind, make in (("rtstruct", make_rtstruct), ("seg", make_segmentation)):
            if kind in args.formats:
                path = args.out_dir / f"{args.prefix}_desc-plans_{kind}.dcm"
                make(drawn, reference).save_as(path, enforce_file_format=True)
    record["remarks"] = [*remarks, *changes]
    path = args.out_dir / f"{args.prefix}_desc-plans_export.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main() -> int:
    args = arguments()
    return run_reporting(lambda: run(args), args, model="", stage="export plan")


if __name__ == "__main__":
    sys.exit(main())
