"""Checks of the images of one exam, in the words of the samplesheet they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from predictgbm.cohort.faults import Fault
from predictgbm.exam import ORGAN, VOLUMES
from predictgbm.images import Image, ImageError, conform, describe, read_image
from predictgbm.labels import CORE, LabelError, Tumor, region, to_canonical

#: Columns of 3-D images, each of one contrast.
GREY_COLUMNS = ("t1", "t1c", "t2", "flair", "adc", "pet")
#: Columns that hold labels or a mask, beside those of organs at risk.
LABEL_COLUMNS = ("brain_mask", "tumor_seg", "registered_seg")
TISSUE_COLUMNS = ("tissue_wm", "tissue_gm", "tissue_csf")

#: Columns that hold text, which is checked with the image it belongs to.
TEXT_COLUMNS = ("dti_bval", "dti_bvec")

#: What interpolation may add to or take from a probability.
FRACTION_TOLERANCE = 1e-3

#: The brain mask has to hold this share of the tumour core; less means that the two are not of one exam.
MINIMUM_CORE_IN_BRAIN = 0.5


def read_column(column: str, path: Path) -> Image:
    """Read the image of a column: labels as whole numbers, a tensor with its six volumes.

    Raises
    ------
    ImageError
        As :func:`~predictgbm.images.read_image`.
    """
    return read_image(path, np.uint8 if is_label(column) else np.float32, VOLUMES.get(column, 1))


def is_label(column: str) -> bool:
    """Tell whether a column holds labels or a mask, whole numbers; all others hold grey values or fractions."""
    return column in LABEL_COLUMNS or column.startswith(ORGAN)


def is_native(row: Mapping[str, Any]) -> bool:
    """Tell whether the images of a row are raw, each on a grid of its own."""
    return bool(row.get("space") == "native")


def needed_columns(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the contrasts a raw exam has to have: all four where its tumour is still to be segmented."""
    labelled = {"tumor_seg", "registered_seg"} & set(row["files"])
    if row["meta"]["role"] == "followup" and labelled:
        return ("t1c",)
    return ("t1", "t1c", "t2", "flair")


def reading_fault(
    row: Mapping[str, Any], column: str, path: Path, error: ImageError, expected: str = ""
) -> Fault:
    """Turn the error of a file or folder that could not be read into a fault of its row and column.

    ``expected`` says what belongs there, by default a 3-D NIfTI image.
    """
    text, _, remedy = str(error).replace(str(path), path.name).partition("; ")
    # The reader's own words on what it expects are said again, completely, below.
    what = text.partition(", expected ")[0]
    values = "labels (whole numbers)" if is_label(column) else "finite numbers"
    kind = f"NIfTI image of {VOLUMES[column]} volumes" if column in VOLUMES else "3-D NIfTI image"
    expected = expected or f"a complete {kind} of {values}"
    return _fault(row, column, what, f"{expected}{': ' * bool(remedy)}{remedy}")


def check_exam(
    row: Mapping[str, Any], images: Mapping[str, Image], preop: Image | None = None
) -> list[Fault]:
    """Return what is wrong with the images of one exam.

    Parameters
    ----------
    row
        The exam's row as :func:`~predictgbm.cohort.samplesheet.check_samplesheet` returns it. Where ``space`` is
        native, each contrast has a grid of its own, and masks, labels and tissue maps that of the T1c.
    images
        Image of each column that could be read; labels and masks with whole numbers.
    preop
        For a follow-up, an image of its pre-operative exam, on whose grid ``registered_seg`` has to be.
    """
    return list(_check_exam(row, images, preop))


def _check_exam(row: Mapping[str, Any], images: Mapping[str, Image], preop: Image | None) -> Iterator[Fault]:
    own = {column: image for column, image in images.items() if column not in ("registered_seg", "dose")}
    if is_native(row):
        # Only what was drawn on the T1c has to lie on its grid; where that is DICOM, its conversion tells.
        own = {c: image for c, image in own.items() if c == "t1c" or is_label(c) or c in TISSUE_COLUMNS}
    references = ("t1c",) if is_native(row) else ("t1c", "t1", "t2", "flair", *own)
    reference_column = next((column for column in references if column in own), None)
    if reference_column:
        for column, image in own.items():
            yield from _check_grid(row, column, image, own[reference_column], reference_column)
    if "registered_seg" in images and preop is not None:
        yield from _check_grid(
            row, "registered_seg", images["registered_seg"], preop, "the pre-operative exam"
        )

    # A dose has a grid of its own; where its exam is DICOM, the task that measures it tells whether they meet.
    if "dose" in images and "t1c" in own and not _dose_reaches(images["dose"], own["t1c"]):
        yield _fault(
            row,
            "dose",
            f"no dose reaches the T1c, they are not in one frame: {describe(images['dose'])} against "
            f"{describe(own['t1c'])}",
            "a dose in the frame of the T1c; let the planning system bring it from the planning CT to that",
        )

    for column, image in images.items():
        if is_label(column) or column == "dose":
            continue
        low, high = float(image.data.min()), float(image.data.max())
        if column in TISSUE_COLUMNS:
            yield from _check_tissue(row, column, low, high)
        elif low == high:
            yield _fault(
                row, column, f"every voxel is {low:g}, the image is blank", "an image that shows the brain"
            )

    for column, image in images.items():
        if column != "brain_mask" and not column.startswith(ORGAN):
            continue
        where = f"1 in the {'brain' if column == 'brain_mask' else 'organ'} and 0 outside"
        present = np.flatnonzero(np.bincount(image.data.ravel()))
        inside = present[present > 0]
        if len(inside) == 0:
            yield _fault(row, column, "mask is empty", where)
        elif len(inside) > 1:
            values = ", ".join(map(str, present[:8]))
            yield _fault(row, column, f"mask has the values {values}", f"{where}, nothing else")

    for column, convention in (("tumor_seg", "tumor_labels"), ("registered_seg", "registered_labels")):
        if column in images:
            yield from _check_labels(row, column, convention, images)


def _check_grid(
    row: Mapping[str, Any], column: str, image: Image, reference: Image, whose: str
) -> Iterator[Fault]:
    try:
        conform(image, reference)
    except ImageError:
        yield _fault(
            row,
            column,
            f"image is not on the voxel grid of {whose}: {describe(image)} against {describe(reference)}",
            f"the same size, voxel size and position as {whose}; resample it to that grid",
        )


def _dose_reaches(dose: Image, image: Image) -> bool:
    """Tell whether any voxel with a dose lies in the box of an image."""
    points = nib.affines.apply_affine(np.linalg.inv(image.affine) @ dose.affine, np.argwhere(dose.data > 0))
    return bool(((points >= -0.5) & (points <= np.array(image.shape) - 0.5)).all(axis=1).any())


def _check_tissue(row: Mapping[str, Any], column: str, low: float, high: float) -> Iterator[Fault]:
    if low < -FRACTION_TOLERANCE or high > 1 + FRACTION_TOLERANCE:
        yield _fault(
            row,
            column,
            f"values run from {low:g} to {high:g}",
            "probabilities from 0 to 1 (not per cent or 0-255)",
        )
    elif high <= 0:
        yield _fault(row, column, "tissue map is zero everywhere", "probabilities from 0 to 1")


def _check_labels(
    row: Mapping[str, Any], column: str, convention: str, images: Mapping[str, Image]
) -> Iterator[Fault]:
    image = images[column]
    try:
        labels = to_canonical(image.data, row[convention])
    except LabelError as error:
        what, _, known = str(error).partition("; ")
        yield _fault(
            row, column, what, f"only known labels ({known}); name another convention in column {convention}"
        )
        return
    if column != "tumor_seg" or row["meta"]["role"] != "preop":
        return
    core = region(labels, CORE)
    present = set(np.flatnonzero(np.bincount(labels.ravel())).tolist())
    if Tumor.CAVITY in present and Tumor.ENHANCING not in present:
        yield _fault(
            row,
            column,
            "label 4 (resection cavity) is present and label 3 (enhancing tumour) is not, before surgery",
            "3 for enhancing tumour; where 4 means enhancing tumour, as in BraTS until 2021, "
            "write brats2021 in column tumor_labels",
        )
    elif not core.any():
        what = (
            "has oedema and no tumour core" if Tumor.EDEMA in present else "shows no tumour, every voxel is 0"
        )
        yield _fault(
            row,
            column,
            f"segmentation {what}",
            "a tumour core: voxels of label 1 (necrosis) or 3 (enhancing tumour)",
        )
    elif "brain_mask" in images and images["brain_mask"].data.any():
        try:
            brain = conform(images["brain_mask"], image).data > 0
        except ImageError:
            return  # already told by the comparison of the grids
        share = np.count_nonzero(core & brain) / np.count_nonzero(core)
        if share < MINIMUM_CORE_IN_BRAIN:
            yield _fault(
                row,
                "brain_mask",
                f"mask holds {share:.0%} of the tumour core",
                "a brain mask of this exam, the tumour included",
            )


def _fault(row: Mapping[str, Any], column: str, what: str, expected: str) -> Fault:
    return Fault(row["line"], column, what, expected, row["meta"]["patient"])
