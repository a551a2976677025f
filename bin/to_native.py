#!/usr/bin/env python3
"""Bring labels or a map from atlas space back to the image of an exam that they belong to, by one interpolation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from predictgbm.alignment import to_native
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import ImageError, read_image, write_image
from predictgbm.registration.transforms import read_matrix


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--map", type=Path, required=True, help="image in atlas space to bring back (NIfTI)")
    parser.add_argument(
        "--transform",
        type=Path,
        required=True,
        help="way of the contrast to the atlas: xfm/from-<column>_to-<space>_xfm.tfm of align_exam.py",
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="image of that contrast on its native grid (NIfTI)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="image to write, on the grid of the reference"
    )
    parser.add_argument(
        "--kind",
        choices=["auto", "labels", "map"],
        default="auto",
        help="labels keep their values, a map is interpolated linearly; auto: labels if all values are whole numbers "
        "from 0 to 255 (default: %(default)s)",
    )
    add_failure_options(parser)
    args = parser.parse_args()

    def work() -> None:
        image = read_image(args.map)
        whole = bool(
            (image.data == np.rint(image.data)).all() and 0 <= image.data.min() <= image.data.max() <= 255
        )
        if args.kind == "labels" and not whole:
            raise ImageError(
                f"{args.map}: holds fractions or values beyond 0 to 255, these are no labels; use --kind map"
            )
        transform = read_matrix(args.transform)
        reference = read_image(args.reference)
        labels = args.kind == "labels" or (args.kind == "auto" and whole)
        data = to_native(image, reference, transform, labels=labels)
        write_image(args.out, data, reference.affine)

    return run_reporting(work, args, model="", stage="to native space")


if __name__ == "__main__":
    sys.exit(main())
