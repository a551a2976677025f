#!/usr/bin/env python3
"""Simulate longitudinal glioblastoma patients in real anatomy, with their truth."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import multiprocessing
import sys
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from predictgbm import __version__
from predictgbm.atlas import ATLASES, load_atlas
from predictgbm.dose import STANDARD, plan_dose
from predictgbm.exam import file_name
from predictgbm.images import Image, ImageError, write_image
from predictgbm.planning import soc_mask
from predictgbm.registration.transforms import write_transform
from predictgbm.simulation import SimulatedExam, SimulatedPatient, Simulator
from predictgbm.simulation.dicom import make_uid
from predictgbm.simulation.dicom import write_exam as write_exam_dicom
from predictgbm.simulation.raw import RawPatient, simulate_raw

COLUMNS = [
    "patient",
    "session",
    "cohort",
    "role",
    "days",
    "space",
    "t1",
    "t1c",
    "t2",
    "flair",
    "adc",
    "tensor",
    "brain_mask",
    "tumor_seg",
    "tumor_labels",
    "tissue_wm",
    "tissue_gm",
    "tissue_csf",
    "registered_seg",
    "dose",
    "prescription_gy",
]
#: The sheet of raw exams; ``dicom`` only with --dicom.
RAW_COLUMNS = [*COLUMNS[: COLUMNS.index("tensor")], "dose", "prescription_gy", "dicom"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(
            "Simulate longitudinal glioblastoma patients: a pre-operative exam in atlas space, a follow-up with "
            "resection cavity and recurrence in another head position, and the truth that connects them. Writes "
            "samplesheet.csv, dataset_description.json and one folder per patient. With --raw the exams are as "
            "scanners deliver them, in native space with skull, and the truth lies in a folder of the patient. "
            "A patient depends on atlas, seed, number and spacing alone, so a cohort can be made in parts: run "
            "several with --first and --count and join the rows of their samplesheets."
        )
    )
    parser.add_argument(
        "--atlas", type=Path, required=True, metavar="DIR", help="folder made by prepare_atlas.py"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--patients", type=int, required=True, metavar="N", help="size of the cohort")
    parser.add_argument("--seed", type=int, default=2025, help="seed of the cohort (default %(default)s)")
    parser.add_argument(
        "--spacing", type=float, default=1.0, metavar="MM", help="voxel edge, 1 to 6 mm (default 1)"
    )
    parser.add_argument("--adc", action="store_true", help="also make ADC maps (1e-6 mm²/s)")
    parser.add_argument(
        "--tensor",
        action="store_true",
        help="also make the diffusion tensor of the pre-operative exams; not with --raw",
    )
    parser.add_argument(
        "--dose",
        action="store_true",
        help="also make the dose that was given: the modelled dose of the standard plan, in Gy; with --raw in the "
        "frame of the T1c",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="heads with skull, each contrast on a grid of its own; voxels no finer than half --spacing",
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="--raw as DICOM: odd patients a folder per contrast, even ones one mixed folder per exam",
    )
    parser.add_argument("--first", type=int, metavar="K", help="make patients from number K on (from 1)")
    parser.add_argument("--count", type=int, metavar="M", help="make so many patients")
    parser.add_argument("--patient-index", type=int, metavar="I", help="make patient number I (from 1) only")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="patients at a time (default 1)")
    arguments = parser.parse_args()
    if arguments.patients < 1:
        parser.error("--patients must be at least 1")
    if not 1 <= arguments.spacing <= 6:
        parser.error("--spacing must be 1 to 6 mm")
    if arguments.seed < 0:
        parser.error("--seed must not be negative")
    arguments.raw |= arguments.dicom
    if arguments.raw and arguments.tensor:
        parser.error("--tensor is for exams in atlas space, not for --raw or --dicom")
    if arguments.patient_index is not None:
        if arguments.first is not None or arguments.count is not None:
            parser.error("give --patient-index or --first and --count, not both")
        arguments.first, arguments.count = arguments.patient_index, 1
    first = 1 if arguments.first is None else arguments.first
    count = arguments.patients - first + 1 if arguments.count is None else arguments.count
    # The last part of a cohort may be smaller than the others.
    arguments.numbers = range(first, min(first + count, arguments.patients + 1))
    if first < 1 or not arguments.numbers:
        parser.error(f"patients {first} to {first + count - 1} are not among 1 to {arguments.patients}")
    return arguments


def write_exam(folder: Path, prefix: str, exam: SimulatedExam) -> dict[str, Path]:
    """Write the images of an exam; return input name -> file."""
    arrays: dict[str, NDArray[np.generic]] = {
        **exam.images,
        "brain_mask": exam.brain_mask,
        "tumor_seg": exam.tumor_seg,
        # Steps of 1/1024 are finer than any use of them and halve the files.
        **{name: np.rint(array * 1024) / np.float32(1024) for name, array in exam.tissue.items()},
    }
    paths = {}
    for name, array in arrays.items():
        paths[name] = folder / file_name(prefix, name)
        write_image(paths[name], array, exam.affine)
    return paths


def write_dose(path: Path, exam: SimulatedExam, affine: NDArray[np.float64], base: Path) -> dict[str, object]:
    """Write the modelled dose of the standard plan by an affine into the wanted frame; return its columns."""
    spacing = Image(exam.tumor_seg, exam.affine).spacing
    plan = soc_mask(exam.tumor_seg, exam.brain_mask > 0, spacing)
    write_image(path, plan_dose(plan, spacing), affine)
    return {"dose": path.relative_to(base).as_posix(), "prescription_gy": STANDARD.dose_gy}


def write_field(path: Path, field: NDArray[np.float32], affine: NDArray[np.float64]) -> None:
    """Write a displacement field as ITK and ANTs read it: 5-D vector NIfTI, LPS mm."""
    lps = np.rint(field * np.array([-1, -1, 1]) * 256).astype(np.float32) / np.float32(256)
    image = nib.Nifti1Image(lps[:, :, :, None, :], affine)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=2)
    nib.save(image, path)


def write_patient(
    folder: Path, name: str, patient: SimulatedPatient, space: str, base: Path, dosed: bool = False
) -> list[dict[str, object]]:
    """Write all files of a patient; return its two rows of the samplesheet that lies in ``base``."""
    pre, post = folder / "ses-pre", folder / "ses-post"
    pre.mkdir(parents=True, exist_ok=True)
    post.mkdir(parents=True, exist_ok=True)
    atlas_space = f"{name}_ses-pre_space-{space}"
    files = {
        "preop": write_exam(pre, atlas_space, patient.preop),
        "followup": write_exam(post, f"{name}_ses-post", patient.followup),
    }
    registered = post / f"{name}_ses-post_space-{space}_desc-recurrence_dseg.nii.gz"
    write_image(registered, patient.registered_seg, patient.preop.affine)
    density = np.rint(patient.density * 4096) / np.float32(4096)
    write_image(pre / f"{atlas_space}_desc-cells_density.nii.gz", density, patient.preop.affine)
    write_field(folder / f"{name}_from-pre_to-post_xfm.nii.gz", patient.field, patient.field_affine)
    with (folder / f"{name}_landmarks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y", "z", "x_followup", "y_followup", "z_followup"])
        lps = [-1, -1, 1] * 2
        for a, b in zip(patient.landmarks_preop, patient.landmarks_followup, strict=True):
            writer.writerow([f"{v * s:.3f}" for v, s in zip([*a, *b], lps, strict=True)])
    (folder / f"{name}_simulation.json").write_text(json.dumps(patient.parameters, indent=2) + "\n")

    rows = []
    for role, session, days in (("preop", "pre", 0), ("followup", "post", patient.days)):
        paths = {key: path.relative_to(base).as_posix() for key, path in files[role].items()}
        row: dict[str, object] = dict.fromkeys(COLUMNS, "")
        row |= {"patient": name, "session": session, "cohort": patient.cohort, "role": role, "days": days}
        row["space"] = space
        row |= {key: paths[key] for key in ("t1", "t1c", "t2", "flair", "brain_mask", "tumor_seg")}
        row |= {"adc": paths.get("adc", ""), "tensor": paths.get("tensor", ""), "tumor_labels": "canonical"}
        row |= {f"tissue_{key}": paths[key] for key in ("wm", "gm", "csf")}
        if role == "followup":
            row["registered_seg"] = registered.relative_to(base).as_posix()
        elif dosed:
            path = pre / f"{atlas_space}_desc-given_dose.nii.gz"
            row |= write_dose(path, patient.preop, patient.preop.affine, base)
        rows.append(row)
    return rows


def write_scan(path: Path, image: Image) -> None:
    """Write an image as converters do: qform and sform in scanner coordinates, code 1."""
    nifti = nib.Nifti1Image(image.data, image.affine)
    nifti.set_sform(image.affine, code=1)
    nifti.set_qform(image.affine, code=1)
    nifti.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nifti, path)


def write_raw_patient(
    out: Path, name: str, number: int, seed: int, raw: RawPatient, space: str, arguments: argparse.Namespace
) -> list[dict[str, object]]:
    """Write both raw exams of a patient and their truth; return its two rows of the samplesheet."""
    truth = out / name / "truth"
    patient = raw.patient
    write_sheet(truth / "samplesheet.csv", COLUMNS, write_patient(truth, name, patient, space, truth))
    identity = f"SIM{number:03d}"
    first_day = date(2020, 1, 6) + timedelta(days=number % 700)
    rows = []
    for role, session, days, exam in (
        ("preop", "pre", 0, raw.preop),
        ("followup", "post", patient.days, raw.followup),
    ):
        folder, prefix = out / name / f"ses-{session}", f"{name}_ses-{session}"
        if arguments.dicom:
            attributes = {
                "PatientName": f"SIM^{number:03d}",
                "PatientID": identity,
                "PatientBirthDate": "19600101",
                "PatientSex": "O",
                "StudyInstanceUID": make_uid("predictgbm", seed, number, session),
                "StudyID": session,
                "StudyDescription": "simulated head",
                "StudyDate": f"{first_day + timedelta(days=days):%Y%m%d}",
                "StudyTime": "100000",
                "InstitutionName": "Simulated hospital",
                "Manufacturer": "predictgbm",
                "MagneticFieldStrength": 3.0,
            }
            paths = write_exam_dicom(folder, exam, attributes, mixed=number % 2 == 0)
        else:
            paths = {column: folder / file_name(prefix, column) for column in exam.images}
            for column, path in paths.items():
                write_scan(path, exam.images[column])

        beside = truth / f"ses-{session}"
        write_exam(beside / "native", f"{prefix}_space-T1c", exam.truth)
        write_transform(beside / "xfm" / f"from-t1c_to-{space}_xfm.tfm", exam.t1c_from_atlas)
        for column, matrix in exam.from_t1c.items():
            if column != "t1c":
                write_transform(beside / "xfm" / f"from-{column}_to-t1c_xfm.tfm", matrix)
        if role == "followup":
            matrix = exam.t1c_from_atlas @ np.linalg.inv(patient.motion)
            write_transform(beside / "xfm" / "from-t1c_to-followup_xfm.tfm", matrix)
        text = json.dumps(exam.parameters, indent=2)
        (beside / f"{prefix}_acquisition.json").write_text(text + "\n")

        columns = RAW_COLUMNS if arguments.dicom else RAW_COLUMNS[:-1]
        row: dict[str, object] = dict.fromkeys(columns, "")
        row |= {"patient": name, "session": session, "cohort": patient.cohort, "role": role, "days": days}
        row |= {"space": "native", **{key: path.relative_to(out).as_posix() for key, path in paths.items()}}
        if role == "preop" and arguments.dose:
            path = folder / f"{prefix}_space-T1c_desc-given_dose.nii.gz"
            row |= write_dose(path, patient.preop, exam.t1c_from_atlas @ patient.preop.affine, out)
        rows.append(row)
    return rows


def write_sheet(path: Path, columns: list[str], rows: list[dict[str, object]]) -> None:
    """Write a samplesheet."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Worker:
    """Makes one patient by its number; handed to each process once, as it carries the atlas."""

    current: Worker

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.simulator = Simulator(load_atlas(arguments.atlas), arguments.spacing)
        self.arguments = arguments

    def make(self, number: int) -> list[dict[str, object]]:
        """Simulate and write one patient; return its rows of the samplesheet."""
        name, seed, out = f"sub-{number:03d}", self.arguments.seed, self.arguments.out
        space = self.simulator.atlas.space
        if self.arguments.raw:
            raw = simulate_raw(self.simulator, seed, number, adc=self.arguments.adc)
            return write_raw_patient(out, name, number, seed, raw, space, self.arguments)
        patient = self.simulator.patient(seed, number, adc=self.arguments.adc, tensor=self.arguments.tensor)
        return write_patient(out / name, name, patient, space, out, self.arguments.dose)

    def remember(self) -> None:
        """Keep this worker in the process that calls, for :meth:`make_here`."""
        Worker.current = self

    @staticmethod
    def make_here(number: int) -> list[dict[str, object]]:
        """Call :meth:`make` of the worker of this process."""
        return Worker.current.make(number)


def write_description(out: Path, space: str, arguments: argparse.Namespace) -> None:
    source = ATLASES.get(space)
    description = {
        "Name": "Simulated longitudinal glioblastoma patients",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "Simulated": True,
        "License": source.licence if source else f"as the atlas {space}",
        "GeneratedBy": [
            {
                "Name": "predictgbm simulate_cohort",
                "Version": __version__,
                "Parameters": {
                    "patients": arguments.patients,
                    "seed": arguments.seed,
                    "spacing_mm": arguments.spacing,
                    "adc": arguments.adc,
                    "tensor": arguments.tensor,
                    "dose": arguments.dose,
                    "raw": arguments.raw,
                },
            }
        ],
        "SourceDatasets": [{**({"DOI": source.doi} if source else {}), "Version": space}],
    }
    (out / "dataset_description.json").write_text(json.dumps(description, indent=2) + "\n")


def main() -> int:
    arguments = parse_arguments()
    try:
        worker = Worker(arguments)
        arguments.out.mkdir(parents=True, exist_ok=True)
        jobs = min(arguments.jobs, len(arguments.numbers))
        rows = []
        with contextlib.ExitStack() as stack:
            results: Iterable[list[dict[str, object]]] = map(worker.make, arguments.numbers)
            if jobs > 1:
                pool = stack.enter_context(multiprocessing.Pool(jobs, worker.remember))
                results = pool.imap(Worker.make_here, arguments.numbers)
            for number, pair in zip(arguments.numbers, results, strict=True):
                rows += pair
                print(f"patient {number} of {arguments.patients}", file=sys.stderr, flush=True)
        columns = (RAW_COLUMNS if arguments.dicom else RAW_COLUMNS[:-1]) if arguments.raw else COLUMNS
        write_sheet(arguments.out / "samplesheet.csv", columns, rows)
        write_description(arguments.out, worker.simulator.atlas.space, arguments)
    except (ImageError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
