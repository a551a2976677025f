#!/usr/bin/env python3
"""Take over the tumour labels of a follow-up that are already in the space of its pre-operative exam.

The labels are brought to the voxel order of the prepared exam, or where that exam was raw from its native T1c to
atlas space (nearest neighbour), and made canonical (1 necrosis, 2 oedema, 3
enhancing, 4 cavity); the summary states the volume of the recurrence in ml for each definition of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from predictgbm.cohort.rows import find_files, read_row
from predictgbm.exam import Exam
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, conform, read_image, write_image
from predictgbm.labels import to_canonical
from predictgbm.registration.transforms import read_transform, resample
from predictgbm.volumes import recurrence_volumes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--row",
        type=Path,
        required=True,
        help="JSON of the follow-up's row, as validate_samplesheet.py makes it",
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="folder of the prepared pre-operative exam"
    )
    parser.add_argument(
        "--transform",
        type=Path,
        help="from the native T1c of the pre-operative exam to the atlas (ITK transform); without it, the labels are "
        "on the prepared exam's grid",
    )
    parser.add_argument("--out", type=Path, required=True, help="labels to write (.nii.gz)")
    parser.add_argument(
        "--summary", type=Path, required=True, help="JSON to write: identity and volumes in ml"
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="registered_seg of the follow-up (NIfTI)"
    )
    add_failure_options(parser)
    args = parser.parse_args()
    row = read_row(args)

    def work() -> None:
        own = {**row, "files": {"registered_seg": row["files"]["registered_seg"]}}
        path = find_files(own, args.files)["registered_seg"]
        reference = Exam(args.reference).reference
        image = read_image(path, np.uint8)
        if args.transform:
            moved = resample(image, reference, read_transform(args.transform), interpolation="nearest")
            image = Image(moved.astype(np.uint8), reference.affine, image.name)
        image = conform(image, reference)
        labels = to_canonical(image.data, row["registered_labels"])
        write_image(args.out, labels, image.affine)
        summary = {**row["meta"], "registered_labels": row["registered_labels"]}
        summary |= recurrence_volumes(labels, image.voxel_ml)
        args.summary.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", "utf-8")

    return run_reporting(work, args, model="", stage="register follow-up")


if __name__ == "__main__":
    sys.exit(main())
