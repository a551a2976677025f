#!/usr/bin/env python3
"""Bring the dose of a treatment to the grid of a prepared exam, and measure what the recurrence got of it.

The dose is a DICOM RTDOSE file or a NIfTI image in Gy. It lies in the frame of the planning CT: give a dose that the
planning system has brought to the frame of the pre-operative T1c (or of the atlas), since how CT and MRI were
registered is not known here. Beyond the dose grid the dose is 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from predictgbm.conversion.rtdose import read_rtdose
from predictgbm.dose import recurrence_measures
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, read_image, write_image
from predictgbm.labels import RECURRENCE, region
from predictgbm.plan_inputs import read_labels
from predictgbm.registration.transforms import read_matrix, resample


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dose", type=Path, required=True, metavar="FILE", help="RTDOSE (.dcm) or NIfTI in Gy")
    add(
        "--reference",
        type=Path,
        required=True,
        metavar="NIFTI",
        help="image whose grid the result has, such as the brain mask of the prepared exam",
    )
    add(
        "--transform",
        type=Path,
        metavar="TFM",
        help="from-T1c_to-<space>_xfm.tfm of a raw exam, for a dose in the frame of its native T1c; without it the "
        "dose is in the space of the reference",
    )
    add("--out", type=Path, required=True, metavar="NIFTI", help="dose to write, Gy")
    add(
        "--recurrence",
        type=Path,
        metavar="NIFTI",
        help="labels of the registered follow-up, on the same grid",
    )
    add(
        "--measures",
        type=Path,
        metavar="JSON",
        help="D98, D95, D50, mean, gEUD in Gy and V95 of the recurrence",
    )
    add_failure_options(parser)
    args = parser.parse_args()
    if bool(args.recurrence) != bool(args.measures):
        parser.error("--recurrence and --measures belong together")

    def work() -> None:
        nifti = args.dose.name.endswith((".nii", ".nii.gz"))
        dose = read_image(args.dose) if nifti else read_rtdose(args.dose)
        if dose.data.min() < 0 or not dose.data.max() > 0:
            raise ImageError(
                f"{dose.name}: values from {dose.data.min():g} to {dose.data.max():g} are no dose in Gy"
            )
        reference = read_image(args.reference)
        way = [read_matrix(args.transform)] if args.transform else []
        moved = Image(resample(dose, reference, *way).astype(np.float32), reference.affine, str(args.out))
        if not moved.data.any():
            raise ImageError(f"{dose.name}: no dose reaches {reference.name}; they are not in one frame")
        write_image(args.out, moved.data, moved.affine)
        if args.recurrence:
            labels = read_labels(args.recurrence, moved, "canonical")
            got = moved.data[region(labels, RECURRENCE["enhancing"])]
            measures = recurrence_measures(got) if got.size else None
            args.measures.write_text(json.dumps(measures, indent=2) + "\n", encoding="utf-8")

    return run_reporting(work, args, model="", stage="dose")


if __name__ == "__main__":
    sys.exit(main())
