"""The DICOM series that an export refers to, as a grid, and the regions drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from predictgbm.conversion.dicom import Frame, check_slices, read_frames
from predictgbm.images import Image, ImageError
from predictgbm.registration.transforms import LPS

#: What every export says of itself; DICOM's long strings hold 64 characters.
NOTICE = "For research use only, not for clinical use"
#: Begins the name of every region in a planning system, many of which show 16 characters only.
MARK = "RES_"
#: Whom and what a series shows: attributes that every image of the study has, empty where unknown (type 2).
IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


@dataclass(frozen=True)
class Region:
    """A mask with what to call it.

    Attributes
    ----------
    name : str
        Short, unique within an export.
    description : str
        One sentence.
    kind : ``tumor``, ``margin`` (the plan of a standard margin) or ``model`` (the plan of a model)
    colour : red, green and blue, 0-255
    mask : bool array on the grid of the series: columns, rows, slices
    """

    name: str
    description: str
    kind: Literal["tumor", "margin", "model"]
    colour: tuple[int, int, int]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Reference:
    """A complete stack of slices, one image each.

    Attributes
    ----------
    datasets : headers of the series, of classic images in the order of slices, one of a multi-frame image; with
        all of :data:`IDENTITY`
    frames : position of each slice, ascending along the normal of the slices (row direction x column direction)
    grid : Image
        Shape (columns, rows, slices), voxel index to RAS mm; its data are empty.
    """

    datasets: tuple[Dataset, ...]
    frames: tuple[Frame, ...]
    grid: Image

    @property
    def multi_frame(self) -> bool:
        """Whether one file holds all slices."""
        return "PerFrameFunctionalGroupsSequence" in self.datasets[0]

    def points(self, k: int, polygon: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return vertices (n, 2), column and row in voxels, of slice ``k`` as (n, 3), mm in DICOM's axes (LPS)."""
        frame = self.frames[k]
        # DICOM gives the distance of rows first.
        steps = frame.orientation.reshape(2, 3) * np.array(frame.spacing)[::-1, None]
        return frame.position + polygon @ steps


def make_reference(datasets: Sequence[Dataset]) -> Reference:
    """Bring the headers of a series in the order of its slices.

    Parameters
    ----------
    datasets
        All images of one series, classic or one enhanced multi-frame image; pixels are not needed.

    Raises
    ------
    ImageError
        If they are no single complete stack of parallel, evenly spaced slices of one series, or have no frame of
        reference.
    """
    first = datasets[0]
    name = f"series {first.get('SeriesNumber', '')}".strip()
    for keyword, text in (("SeriesInstanceUID", "series"), ("FrameOfReferenceUID", "frame of reference")):
        uids = {str(dataset.get(keyword) or "") for dataset in datasets}
        if len(uids) > 1 or "" in uids:
            raise ImageError(
                f"{name}: headers name {'no' if '' in uids else len(uids)} {text} ({keyword}), "
                "one for all images is needed to draw on it; export the series again"
            )
    pairs = [(frame, dataset) for dataset in datasets for frame in read_frames(dataset)]
    if len(datasets) > 1 and len(pairs) != len(datasets):
        raise ImageError(f"{name}: is not one image or frame a slice; name the folder of one series")
    slices, _, volumes, fault = (
        check_slices([frame for frame, _ in pairs]) if pairs else (0, 0.0, 1, "no slices")
    )
    if fault or volumes > 1:
        raise ImageError(
            f"{name}: {fault or f'{volumes} images of each slice'}; name the folder of a plain series"
        )
    x, y = pairs[0][0].orientation.reshape(2, 3)
    pairs.sort(key=lambda pair: float(pair[0].position @ np.cross(x, y)))
    frames = tuple(frame for frame, _ in pairs)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = x * frames[0].spacing[1], y * frames[0].spacing[0]
    affine[:3, 2] = (frames[-1].position - frames[0].position) / (slices - 1)
    affine[:3, 3] = frames[0].position
    shape = (int(first.Columns), int(first.Rows), slices)
    # Only shape and place are asked of a grid; nothing is allocated.
    grid = Image(np.broadcast_to(np.uint8(0), shape), LPS @ affine, name)
    ordered = datasets if len(datasets) == 1 else [dataset for _, dataset in pairs]
    return Reference(tuple(map(_complete, ordered)), frames, grid)


def _complete(dataset: Dataset) -> Dataset:
    """Return headers with what archives leave out of :data:`IDENTITY`, empty."""
    result = Dataset()
    for keyword in IDENTITY:
        setattr(result, keyword, None)
    result.update(dataset)
    return result


def check_regions(regions: Sequence[Region], reference: Reference) -> None:
    """Check that regions can be drawn on a series.

    Raises
    ------
    ImageError
        If there is none, two have one name, one is empty, or one is of another shape.
    """
    names = [region.name for region in regions]
    if not names or len(set(names)) < len(names):
        raise ImageError(
            f"regions {', '.join(names) or '(none)'}: expected at least one, each with a name of its own"
        )
    for region in regions:
        if region.mask.shape != reference.grid.shape:
            raise ImageError(
                f"{region.name}: mask of shape {region.mask.shape} does not fit {reference.grid.name} of shape "
                f"{reference.grid.shape}"
            )
        if not region.mask.any():
            raise ImageError(f"{region.name}: has no voxel on the grid of {reference.grid.name}")
