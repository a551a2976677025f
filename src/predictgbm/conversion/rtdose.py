"""Reading the dose of a treatment: DICOM RTDOSE, or NIfTI, to an image in Gy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from predictgbm.conversion.dicom import is_dicom, list_files, read_header
from predictgbm.images import Image, ImageError, read_image
from predictgbm.registration.transforms import LPS

#: What a dose may be the sum of; a single beam or fraction is not the dose of a treatment.
WHOLE = ("PLAN", "MULTI_PLAN", "PLAN_OVERVIEW", "RECORD")

#: No treatment of a glioma gives more, in Gy; a file that does is in cGy.
MOST_GY = 200.0

#: Planes count as evenly spaced to this, in mm.
SPACING_TOLERANCE_MM = 0.01
#: Negative values up to this part of the largest are what interpolation by splines leaves, and count as 0.
OVERSHOOT = 0.02


def read_dose(path: str | os.PathLike[str]) -> Image:
    """Read a dose in Gy: a NIfTI image by its name, else RTDOSE.

    Raises
    ------
    ImageError
        As :func:`read_rtdose` and :func:`~predictgbm.images.read_image`, and if the values are no dose in Gy.
    """
    nifti = os.fspath(path).endswith((".nii", ".nii.gz"))
    dose = read_image(path) if nifti else read_rtdose(path)
    low, high = float(dose.data.min()), float(dose.data.max())
    if high > MOST_GY:
        raise ImageError(f"{dose.name}: values up to {high:g} are no dose in Gy; divide a dose in cGy by 100")
    if high <= 0 or low < -OVERSHOOT * high:
        raise ImageError(
            f"{dose.name}: values from {low:g} to {high:g} are no dose in Gy; export the dose of the plan again"
        )
    return Image(np.maximum(dose.data, 0, dtype=dose.data.dtype), dose.affine, dose.name)


def check_frame(path: Path, scan: Path) -> None:
    """Check that an RTDOSE file lies in the frame of reference of a scan, as far as both tell theirs.

    Positions in different frames have nothing to do with each other (DICOM PS3.3, C.7.4.1), however near they look.

    Parameters
    ----------
    path
        Dose; of a NIfTI file no frame is known.
    scan
        Folder with DICOM files of the scan; one of them in the frame of the dose is enough.

    Raises
    ------
    ImageError
        Naming both frames.
    """
    if not is_dicom(path):
        return
    wanted = str(pydicom.dcmread(path, stop_before_pixels=True).get("FrameOfReferenceUID", ""))
    found: set[str] = set()
    for file in list_files(scan):
        header = read_header(file)
        found.add(str(header.get("FrameOfReferenceUID", "")) if header is not None else "")
        if wanted in found:
            return
    if wanted and (frames := sorted(found - {""})):
        raise ImageError(
            f"{path}: lies in another frame of reference ({wanted}) than the scan ({', '.join(frames)}); let the "
            "planning system bring it to the T1c; where the positions do agree, give it as NIfTI"
        )


def read_rtdose(path: str | os.PathLike[str]) -> Image:
    """Read a multi-frame RTDOSE file as a volume in Gy, whatever the orientation and the order of its frames.

    Dose is pixel value times DoseGridScaling. Frames lie along the normal of row and column direction, at the offsets
    of GridFrameOffsetVector: relative to the first frame, or, where the vector begins with the z of an axial first
    frame, patient coordinates (DICOM PS3.3, RT Dose module, C.8.8.3).

    Parameters
    ----------
    path
        File of the SOP class RT Dose Storage.

    Returns
    -------
    Image
        Float32 data of shape (columns, rows, frames), Gy; affine to RAS mm.

    Raises
    ------
    ImageError
        If the file is not RTDOSE, its dose is relative, an error, or that of a beam or fraction, its planes are
        missing or not evenly spaced, or the pixels cannot be read.
    """
    try:
        dataset = pydicom.dcmread(path)
    except (OSError, InvalidDicomError) as error:
        raise ImageError(f"{path}: cannot be read as DICOM ({error})") from error
    if dataset.get("Modality") != "RTDOSE":
        raise ImageError(f"{path}: modality {dataset.get('Modality', 'not given')}, expected RTDOSE")
    for name, accepted in (
        ("DoseUnits", ("GY",)),
        ("DoseType", ("PHYSICAL", "EFFECTIVE")),
        ("DoseSummationType", WHOLE),
    ):
        if dataset.get(name) not in accepted:
            raise ImageError(
                f"{path}: {name} is {dataset.get(name) or 'not given'}, expected {' or '.join(accepted)}"
            )
    try:
        affine = LPS @ _to_lps(dataset, str(path))
        values = dataset.pixel_array.astype(np.float64) * float(dataset.DoseGridScaling)
    except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path}: lacks what a dose needs, or its pixels are damaged ({error})") from error
    return Image(np.ascontiguousarray(values.T, np.float32), affine, str(path))


def _to_lps(dataset: Any, name: str) -> NDArray[np.float64]:
    """Return the matrix from (column, row, frame) to LPS mm."""
    row, column = np.array(dataset.ImageOrientationPatient, np.float64).reshape(2, 3)
    position = np.array(dataset.ImagePositionPatient, np.float64)
    normal = np.cross(row, column)
    offsets = np.array(dataset.get("GridFrameOffsetVector") or [], np.float64)
    if offsets.size < 2 or offsets.size != int(dataset.get("NumberOfFrames", 1)):
        raise ImageError(f"{name}: {offsets.size} plane offsets, expected one for each of several frames")
    if offsets[0] != 0:
        # Patient coordinates along z, which need planes across it.
        if abs(abs(normal[2]) - 1) > 1e-4 or abs(offsets[0] - position[2]) > SPACING_TOLERANCE_MM:
            raise ImageError(
                f"{name}: plane offsets begin with {offsets[0]:g}, neither 0 nor the z of the first plane"
            )
        offsets = (offsets - offsets[0]) * np.sign(normal[2])
    steps = np.diff(offsets)
    if np.ptp(steps) > SPACING_TOLERANCE_MM or abs(steps[0]) < SPACING_TOLERANCE_MM:
        raise ImageError(
            f"{name}: planes are {steps.min():g} to {steps.max():g} mm apart, expected even spacing"
        )
    between_rows, between_columns = (float(v) for v in dataset.PixelSpacing)
    matrix = np.eye(4)
    matrix[:3, 0] = row * between_columns
    matrix[:3, 1] = column * between_rows
    matrix[:3, 2] = normal * steps.mean()
    matrix[:3, 3] = position
    if not (np.isfinite(matrix).all() and abs(np.linalg.det(matrix[:3, :3])) > 1e-9):
        raise ImageError(f"{name}: position, orientation or spacing of the planes is missing or unusable")
    return matrix
