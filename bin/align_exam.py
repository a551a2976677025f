#!/usr/bin/env python3
"""Bring the images of a raw exam to atlas space.

Each contrast is registered rigidly to the T1c and the T1c to the atlas; both maps are joined, so that every image
is interpolated once. What is outside the brain becomes 0. Intensities of T1, T1c, T2 and FLAIR are scaled within the
brain; ADC, PET and tensor keep their units, labels their values.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from predictgbm.alignment import align
from predictgbm.atlas import load_atlas
from predictgbm.cohort.exam_checks import GREY_COLUMNS, TISSUE_COLUMNS, read_column
from predictgbm.exam import ORGAN
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, conform, read_image, write_image
from predictgbm.normalisation import METHODS, correct_bias, normalise
from predictgbm.quality import write_quality
from predictgbm.registration.transforms import write_transform
from predictgbm.report.overlays import draw_pair

COLUMNS = (*GREY_COLUMNS, "tensor", "tumor_seg", *TISSUE_COLUMNS)
#: Images whose intensities have no unit.
RELATIVE = ("t1", "t1c", "t2", "flair")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--exam",
        type=Path,
        required=True,
        help="folder with the images on their own grids, each named by its column: t1c.nii.gz, flair.nii.gz ...",
    )
    parser.add_argument("--brain-mask", type=Path, required=True, help="brain mask on the grid of the T1c")
    parser.add_argument(
        "--atlas", type=Path, required=True, help="atlas folder, as prepare_atlas.py makes it"
    )
    parser.add_argument(
        "--out-dir",
        type=Path,
        required=True,
        help="folder to write to: <column>.nii.gz and xfm/from-<column>_to-<space>_xfm.tfm",
    )
    parser.add_argument(
        "--atlas-transform",
        choices=["rigid", "affine"],
        default="rigid",
        help="way from the T1c to the atlas; rigid keeps millimetres (default: %(default)s)",
    )
    parser.add_argument(
        "--interpolation",
        choices=["linear", "bspline"],
        default="linear",
        help="of grey values (default: %(default)s)",
    )
    parser.add_argument(
        "--normalisation",
        choices=METHODS,
        default="percentile",
        help="of intensities in the brain (default: %(default)s)",
    )
    parser.add_argument("--n4", action="store_true", help="correct the bias field first")
    parser.add_argument("--threads", type=int, default=1, help="threads (default: %(default)s)")
    parser.add_argument("--quality", type=Path, help="JSON to write: what was measured of the result")
    parser.add_argument(
        "--picture", type=Path, help="PNG to write: T1c and atlas in the squares of a chessboard"
    )
    add_failure_options(parser)
    args = parser.parse_args()

    def work() -> None:
        organs = sorted(path.name.removesuffix(".nii.gz") for path in args.exam.glob(f"{ORGAN}*.nii.gz"))
        files = {c: path for c in (*COLUMNS, *organs) if (path := args.exam / f"{c}.nii.gz").exists()}
        if "t1c" not in files:
            raise ImageError(f"{args.exam}: holds no t1c.nii.gz; every exam needs its contrast-enhanced T1")
        images = {column: read_column(column, path) for column, path in files.items()}
        brain = conform(read_image(args.brain_mask, np.uint8), images["t1c"])
        if not brain.data.any():
            raise ImageError(f"{args.brain_mask}: mask is empty, expected 1 in the brain")
        atlas = load_atlas(args.atlas)
        result = align(
            atlas,
            images,
            brain,
            kind=args.atlas_transform,
            interpolation=args.interpolation,
            threads=args.threads,
        )
        for column, data in result.images.items():
            if column in RELATIVE:
                if args.n4:
                    data = correct_bias(data, result.brain_mask, atlas.spacing, threads=args.threads)
                data = normalise(data, result.brain_mask, args.normalisation)
            write_image(args.out_dir / f"{column}.nii.gz", data, atlas.affine)
        write_image(args.out_dir / "brain_mask.nii.gz", result.brain_mask, atlas.affine)
        for column, matrix in result.transforms.items():
            path = args.out_dir / "xfm" / f"from-{column}_to-{atlas.space}_xfm.tfm"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_transform(path, matrix)
        if args.quality:
            meta = {"patient": args.patient, "session": args.session}
            write_quality(args.quality, meta, "alignment", result.measures)
        if args.picture:
            draw_pair(
                args.picture,
                Image(np.asarray(result.images["t1c"]), atlas.affine),
                Image(atlas.t1, atlas.affine),
                f"sub-{args.patient} ses-{args.session}: T1c and atlas" if args.patient else "T1c and atlas",
            )

    return run_reporting(work, args, model="", stage="align exam")


if __name__ == "__main__":
    sys.exit(main())
