"""Reading of raw NIfTI files, whose headers say twice, once or not at all where the image lies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

from predictgbm.images import DAMAGED, Image, ImageError, damaged, is_usable, read_image

#: Two positions of one voxel that differ by more than this contradict each other, in mm.
CONFLICT_MM = 0.1


@dataclass(frozen=True)
class Placement:
    """Where a NIfTI header puts the image.

    Attributes
    ----------
    affine : array of shape (4, 4)
        Voxel index to RAS mm, as it is used.
    source : str
        ``sform`` or ``qform``.
    conflict_mm : float
        Largest distance between the two positions of a corner; 0 if the header has one only.
    """

    affine: NDArray[np.float64]
    source: str
    conflict_mm: float = 0.0


def read_placement(path: str | os.PathLike[str]) -> Placement:
    """Decide where a NIfTI file's image lies.

    With both an sform and a qform, the sform counts, as in nibabel, FSL and SPM; a sform that shears gives way to
    a qform, which cannot. A header with neither does not tell left from right and is refused.

    Raises
    ------
    ImageError
        If the header cannot be read, gives no position, or only one that shears by more than 0.1 mm.
    """
    path = Path(path)
    header = _load(path).header
    if not isinstance(header, nib.Nifti1Header):
        raise ImageError(f"{path}: is {type(header).__name__}, expected NIfTI (.nii, .nii.gz); convert it")
    shape = header.get_data_shape()[:3]
    sform, qform = header.get_sform(coded=True)[0], _qform(path, header)
    for form in (sform, qform):
        if form is not None and not is_usable(form):
            raise ImageError(
                f"{path}: orientation (affine) in the header is unusable; convert the file again"
            )
    if sform is None and qform is None:
        raise ImageError(
            f"{path}: header gives no position (sform and qform codes are 0), so that left and right cannot be told "
            "apart; convert the image from DICOM again"
        )
    shear = 0.0 if sform is None else largest_shift(sform, _without_shear(sform), shape)
    if sform is None or (shear > CONFLICT_MM and qform is not None):
        conflict = 0.0 if sform is None else largest_shift(sform, qform, shape)
        return Placement(np.asarray(qform, np.float64), "qform", conflict)
    if shear > CONFLICT_MM:
        raise ImageError(
            f"{path}: axes of the header (sform) are not at right angles, by {shear:.3g} mm at a corner; "
            "resample the image to a grid with right angles, or give the image as the scanner made it"
        )
    conflict = 0.0 if qform is None else largest_shift(sform, qform, shape)
    return Placement(np.asarray(sform, np.float64), "sform", conflict)


def largest_shift(a: NDArray[np.float64], b: NDArray[np.float64], shape: Sequence[int]) -> float:
    """Return how far apart two affines, each (4, 4), put a corner of a grid at most, in mm."""
    extent = [(0, max(n - 1, 1)) for n in shape]
    corners = np.stack(np.meshgrid(*extent, indexing="ij"), axis=-1).reshape(-1, 3)
    difference = (a - b) @ np.c_[corners, np.ones(len(corners))].T
    return float(np.linalg.norm(difference[:3], axis=0).max())


def _without_shear(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest affine with axes at right angles (orthogonal Procrustes), voxel sizes kept."""
    size = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / np.where(size > 0, size, 1))
    result = affine.copy()
    result[:3, :3] = (left @ right) * size
    return result


def _qform(path: Path, header: Any) -> Any:
    try:
        return header.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError) as error:
        raise ImageError(
            f"{path}: orientation (qform) in the header is unusable ({error}); convert again"
        ) from error


def _load(path: Path) -> Any:
    if not path.exists():
        raise ImageError(f"{path}: file does not exist; check the path")
    try:
        return nib.load(path)
    except DAMAGED as error:
        raise damaged(path, error) from error


def read_native(path: str | os.PathLike[str], dtype: DTypeLike = np.float32) -> tuple[Image, Placement]:
    """Read a raw 3-D NIfTI file with the values it stands for (slope and intercept applied).

    Raises
    ------
    ImageError
        As :func:`~predictgbm.images.read_image` and :func:`read_placement` do.
    """
    image = read_image(path, dtype)
    placement = read_placement(path)
    return Image(image.data, placement.affine, image.name), placement


def compact(data: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Return an array as int16 where that loses nothing, else as float32."""
    whole = bool((data == np.rint(data)).all()) and data.min() >= -(2**15) and data.max() < 2**15
    return data.astype(np.int16 if whole else np.float32)


@dataclass(frozen=True)
class Diffusion:
    """A series of diffusion-weighted volumes.

    Attributes
    ----------
    data : float32 array of shape (nx, ny, nz, n)
    affine : array of shape (4, 4), voxel index to RAS mm
    b_values : array of shape (n,), s/mm2
    directions : array of shape (n, 3)
        Unit vectors in RAS axes; zero where a volume has none (b = 0, trace-weighted).
    placement : Placement
    name : str
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    b_values: NDArray[np.float64]
    directions: NDArray[np.float64]
    placement: Placement
    name: str


def check_diffusion(path: Path, bval: Path, bvec: Path) -> None:
    """Check from headers and text files that a diffusion series can be used.

    Raises
    ------
    ImageError
        If the image is not 4-D, the position is unknown, or numbers of b-values, directions and volumes differ.
    """
    read_placement(path)
    read_gradients(bval, bvec, _volumes(path))


def _volumes(path: Path) -> int:
    shape = _load(path).shape
    if len(shape) != 4 or shape[3] < 2:
        raise ImageError(
            f"{path}: image of shape {shape} is no series of diffusion-weighted volumes; give the 4-D image as "
            "dcm2niix makes it, or an ADC map in column adc"
        )
    return int(shape[3])


def read_diffusion(path: Path, bval: Path, bvec: Path) -> Diffusion:
    """Read a 4-D NIfTI file with its b-values and directions.

    The directions of a ``.bvec`` file are along the image's axes, the first one reversed where the affine has a
    positive determinant (FSL's convention, which dcm2niix follows); here they become RAS directions.

    Raises
    ------
    ImageError
        As :func:`check_diffusion`, or if the image is damaged or holds NaN or infinity.
    """
    placement = read_placement(path)
    b_values, vectors = read_gradients(bval, bvec, _volumes(path))
    try:
        data = np.asarray(_load(path).dataobj, np.float32)
    except DAMAGED as error:
        raise ImageError(f"{path}: is damaged or cut short ({error}); copy or export it again") from error
    if not np.isfinite(data).all():
        raise ImageError(f"{path}: holds NaN or infinite voxels; replace them, for example by 0")
    linear = _without_shear(placement.affine)[:3, :3]
    axes = linear / np.linalg.norm(linear, axis=0)
    if np.linalg.det(axes) > 0:
        vectors = vectors * (-1, 1, 1)
    return Diffusion(data, placement.affine, b_values, vectors @ axes.T, placement, str(path))


def read_gradients(bval: Path, bvec: Path, volumes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read b-values (s/mm2) and directions, in either orientation of the table.

    Returns
    -------
    b_values : array of shape (n,)
    directions : array of shape (n, 3), of length 1 or 0, along the image's axes

    Raises
    ------
    ImageError
        If a file is missing or no table of numbers, or their number is not that of the volumes.
    """
    b_values, vectors = _read_table(bval).ravel(), _read_table(bvec)
    if len(b_values) != volumes:
        raise ImageError(
            f"{bval}: has {len(b_values)} b-values for {volumes} volumes; give the file made with the image"
        )
    if vectors.shape[0] == 3:
        vectors = vectors.T
    if vectors.shape != (volumes, 3):
        raise ImageError(
            f"{bvec}: table of {' x '.join(map(str, vectors.T.shape))} numbers does not fit {volumes} volumes, "
            f"expected 3 x {volumes}; give the file made with the image"
        )
    if b_values.min() < 0:
        raise ImageError(f"{bval}: has negative b-values; give the file made with the image")
    length = np.linalg.norm(vectors, axis=1)
    # Some makers scale the vector by the square root of the b-value.
    return b_values, vectors / np.where(length > 1e-3, length, np.inf)[:, None]


def _read_table(path: Path) -> NDArray[np.float64]:
    if not path.exists():
        raise ImageError(f"{path}: file does not exist; check the path")
    try:
        table = np.loadtxt(path, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise ImageError(
            f"{path}: is no table of numbers ({error}); give the text file as dcm2niix makes it"
        ) from error
    if table.size == 0 or not np.isfinite(table).all():
        raise ImageError(f"{path}: holds no numbers, or NaN; give the text file as dcm2niix makes it")
    return table
