#!/usr/bin/env python3
"""Bring the dose of a treatment to the grid of a prepared exam, and measure what recurrence, brain and organs got.

The dose is a DICOM RTDOSE file or a NIfTI image in Gy. It lies in the frame of the planning CT: give a dose that the
planning system has brought to the frame of the pre-operative T1c (or of the atlas), since how CT and MRI were
registered is not known here. Beyond the dose grid the dose is 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from predictgbm.conversion.rtdose import read_dose
from predictgbm.documents import write_measures
from predictgbm.dose import STANDARD, evaluate_given_dose
from predictgbm.exam import Exam, organ_files
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, conform, read_image, to_ras, write_image
from predictgbm.labels import CORE, RECURRENCE, region
from predictgbm.plan_inputs import read_labels, read_mask
from predictgbm.registration.transforms import read_matrix, resample


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dose", type=Path, required=True, metavar="FILE", help="RTDOSE (.dcm) or NIfTI in Gy")
    grid = parser.add_mutually_exclusive_group(required=True)
    grid.add_argument("--exam", type=Path, metavar="DIR", help="prepared exam, whose grid the result has")
    grid.add_argument(
        "--reference", type=Path, metavar="NIFTI", help="image whose grid the result has, without an exam"
    )
    add(
        "--transform",
        type=Path,
        metavar="TFM",
        help="from-t1c_to-<space>_xfm.tfm of a raw exam, for a dose in the frame of its native T1c; without it the "
        "dose is in the space of the exam",
    )
    add("--out", type=Path, required=True, metavar="NIFTI", help="dose to write, Gy")
    add(
        "--recurrence",
        type=Path,
        metavar="NIFTI",
        help="canonical labels of the registered follow-up, on the same grid; needs --measures",
    )
    add(
        "--prescription",
        type=float,
        default=STANDARD.dose_gy,
        metavar="GY",
        help="prescribed dose, whose 95 %% isodose tells the pattern of recurrence (default: %(default)g)",
    )
    add(
        "--measures",
        type=Path,
        metavar="JSON",
        help="dose of recurrence, lesions, brain and organs of the exam (*_label-<organ>_mask.nii.gz); needs --exam",
    )
    add_failure_options(parser)
    args = parser.parse_args()
    if args.measures and not args.exam:
        parser.error("--measures needs --exam, for brain mask, tumour core and organs")
    if args.recurrence and not args.measures:
        parser.error("--recurrence needs --measures")
    if not args.prescription > 0:
        parser.error("--prescription: expected a dose above 0, in Gy")

    def work() -> None:
        dose = read_dose(args.dose)
        stored = Exam(args.exam).reference if args.exam else read_image(args.reference)
        # In one voxel order, so that the lesions of a patient have the same numbers everywhere.
        grid = to_ras(stored)
        way = [read_matrix(args.transform)] if args.transform else []
        moved = Image(resample(dose, grid, *way).astype(np.float32), grid.affine, str(args.out))
        if not moved.data.any():
            raise ImageError(
                f"{dose.name}: no dose reaches {stored.name}, they are not in one frame; let the planning system bring "
                "the dose to the frame of the T1c"
            )
        write_image(args.out, conform(moved, stored).data, stored.affine)
        if args.measures:
            write_measures(args.measures, measure(args, moved))

    return run_reporting(work, args, model="", stage="given dose")


def measure(args: argparse.Namespace, dose: Image) -> dict[str, Any]:
    """Measure a dose on the grid of an exam."""
    exam = Exam(args.exam)
    tumor, brain = (conform(exam.image(name), dose).data for name in ("tumor_seg", "brain_mask"))
    recurrence = np.zeros(brain.shape, bool)
    if args.recurrence:
        recurrence = region(read_labels(args.recurrence, dose, "canonical"), RECURRENCE["enhancing"])
    organs = {name: read_mask(path, dose) for name, path in organ_files(args.exam).items()}
    identity = {"patient": args.patient, "session": args.session}
    found = evaluate_given_dose(
        dose.data, recurrence, region(tumor, CORE), brain > 0, dose.spacing, args.prescription, organs
    )
    return identity | found


if __name__ == "__main__":
    sys.exit(main())
