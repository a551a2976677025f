#!/usr/bin/env python3
"""Bring the images of an exam in atlas space to one voxel order, each named by its column: t1c.nii.gz, flair.nii.gz ...

Axes are permuted and flipped as the affines demand, to the order of the T1c; nothing is interpolated. Without a
brain mask, the non-zero T1c is taken (largest part, holes filled). Values are unchanged, also those of labels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from predictgbm.cohort.exam_checks import read_column
from predictgbm.cohort.rows import find_files, read_row
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import ImageError, conform, read_image, write_image
from predictgbm.preprocessing import derive_brain_mask


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--row", type=Path, required=True, help="JSON of the exam's row, as validate_samplesheet.py makes it"
    )
    parser.add_argument("--out-dir", type=Path, required=True, help="folder to write to")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="images of the exam (NIfTI)")
    add_failure_options(parser)
    args = parser.parse_args()
    row = read_row(args)

    def work() -> None:
        files = find_files(row, args.files)
        reference = read_image(files["t1c"])
        for column, path in files.items():
            if column == "registered_seg":
                continue
            data = conform(read_column(column, path), reference).data
            write_image(args.out_dir / f"{column}.nii.gz", data, reference.affine)
        if "brain_mask" not in files:
            if not reference.data.any():
                raise ImageError(f"{files['t1c']}: every voxel is zero, there is no brain to find")
            brain = derive_brain_mask(reference.data)
            write_image(args.out_dir / "brain_mask.nii.gz", brain, reference.affine)

    return run_reporting(work, args, model="", stage="conform exam")


if __name__ == "__main__":
    sys.exit(main())
