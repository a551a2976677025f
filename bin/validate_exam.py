#!/usr/bin/env python3
"""Check the images of one exam and list what is wrong with them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from predictgbm.cohort.exam_checks import LABEL_COLUMNS, UNREAD_COLUMNS, check_exam, reading_fault
from predictgbm.cohort.rows import find_files
from predictgbm.images import ImageError, read_image


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
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="images of the exam (NIfTI)")
    args = parser.parse_args()

    row = json.loads(args.row.read_text("utf-8"))
    faults, images = [], {}
    try:
        files = find_files(row, args.files)
    except ImageError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    for column, path in files.items():
        if column in UNREAD_COLUMNS:
            continue
        try:
            images[column] = read_image(path, np.uint8 if column in LABEL_COLUMNS else np.float32)
        except ImageError as error:
            faults.append(reading_fault(row, column, path, error))
    reference = None
    if args.reference:
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
