#!/usr/bin/env python3
"""Check the images of one exam and list what is wrong with them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from predictgbm.cohort.exam_checks import (
    TEXT_COLUMNS,
    check_exam,
    is_label,
    is_native,
    read_column,
    reading_fault,
)
from predictgbm.cohort.faults import Fault
from predictgbm.cohort.rows import find_files
from predictgbm.conversion.dicom import check_folder, is_dicom
from predictgbm.conversion.headers import check_diffusion, read_native, read_placement
from predictgbm.conversion.rtdose import check_frame, read_dose
from predictgbm.images import Image, ImageError, read_image


def read_columns(row: dict[str, Any], files: dict[str, Path]) -> tuple[dict[str, Image], list[Fault]]:
    """Read the images of a row by column; of DICOM folders and diffusion series only that they can be used."""
    images, faults = {}, []
    for column, path in files.items():
        if column in TEXT_COLUMNS:
            continue
        expected = ""
        try:
            if column == "dose":
                expected = "the dose of a whole treatment in Gy, RTDOSE (.dcm) or 3-D NIfTI"
                images[column] = read_dose(path)
                scan = files.get("t1c", files.get("dicom"))
                if is_native(row) and scan and is_dicom(scan):
                    check_frame(path, scan)
            elif is_native(row) and (column == "dicom" or is_dicom(path)):
                expected = "a folder with the DICOM files of " + (
                    "the exam" if column == "dicom" else "one series"
                )
                check_folder(path)
            elif column == "dti":
                expected = "a 4-D NIfTI image with its b-values and directions in dti_bval and dti_bvec"
                read_placement(path)
                if set(TEXT_COLUMNS) <= set(files):
                    check_diffusion(path, files["dti_bval"], files["dti_bvec"])
                elif is_native(row):
                    raise ImageError(f"{path}: has no b-values; fill in dti_bval and dti_bvec")
            else:
                native = is_native(row) and column != "registered_seg"
                if native:
                    dtype = np.uint8 if is_label(column) else np.float32
                    images[column] = read_native(path, dtype)[0]
                else:
                    images[column] = read_column(column, path)
        except ImageError as error:
            # What is wrong with a diffusion series may be wrong with its tables.
            table = next((c for c in TEXT_COLUMNS if c in files and str(files[c]) in str(error)), "")
            at, expected = (table, "a table of numbers") if table else (column, expected)
            faults.append(reading_fault(row, at, files[at], error, expected))
        # A damaged file may bring a reader to raise anything; the other files are still read.
        except Exception as error:
            unreadable = ImageError(f"{path}: cannot be read ({type(error).__name__}: {error})")
            faults.append(reading_fault(row, column, path, unreadable, expected))
    return images, faults


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="An exam with faults still ends with status 0: the list of faults is the result.",
    )
    parser.add_argument(
        "--row", type=Path, required=True, help="JSON of the exam's row, as validate_samplesheet.py makes it"
    )
    parser.add_argument(
        "--reference", type=Path, help="for a follow-up: T1c of its pre-operative exam (NIfTI)"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON list of faults to write")
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="NIfTI files and DICOM folders of the exam"
    )
    args = parser.parse_args()

    row = json.loads(args.row.read_text("utf-8"))
    try:
        files = find_files(row, args.files)
    except ImageError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    images, faults = read_columns(row, files)
    reference = None
    if args.reference:
        if not args.reference.exists():
            parser.error(f"--reference: {args.reference} does not exist")
        try:
            reference = read_image(args.reference)
        except ImageError:
            reference = None  # the check of the pre-operative exam tells
    faults += check_exam(row, images, reference)
    args.out.write_text(
        json.dumps([asdict(fault) for fault in faults], indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
