"""The one NIfTI reader and writer, and the matching of grids by their affine."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

#: Two affines describe the same grid when no voxel centre moves by more than this, in mm.
AFFINE_TOLERANCE_MM = 1e-2

#: What reading a damaged image file raises.
DAMAGED = (OSError, EOFError, zlib.error, ValueError, OverflowError, ImageFileError, HeaderDataError)


class ImageError(ValueError):
    """An image cannot be used; the message names file, fault and remedy."""


class MissingInputError(ImageError):
    """An exam lacks an image that a step needs; nothing is wrong with what there is."""

    kind = "missing_input"


@dataclass(frozen=True)
class Image:
    """A volume, or several on one grid, with the voxel-to-world affine.

    Attributes
    ----------
    data : array of shape (nx, ny, nz), or (nx, ny, nz, n)
    affine : array of shape (4, 4), voxel index to RAS+ millimetres
    name : str
        What to call the image in a message, usually its path.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    name: str = "image"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        x, y, z = self.data.shape[:3]
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each axis, in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return x, y, z

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


def damaged(path: Path, error: Exception) -> ImageError:
    """Return the error of a file that raised one of :data:`DAMAGED` when it was read."""
    return ImageError(
        f"{path}: cannot be read as NIfTI, it is damaged, cut short or of another format "
        f"({type(error).__name__}: {error}); copy or export it again"
    )


def read_image(path: str | os.PathLike[str], dtype: DTypeLike = np.float32, volumes: int = 1) -> Image:
    """Read a NIfTI file as a finite 3-D image; trailing axes of length one are dropped.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz`` file.
    dtype
        Type of the returned array. An integer type demands whole numbers within its range.
    volumes
        Volumes that the file has to hold; with more than one, the array has a fourth axis.

    Raises
    ------
    ImageError
        If the file is missing, empty, truncated, not NIfTI, of another number of volumes, holds NaN or infinity, has
        a singular affine, or does not fit ``dtype``.
    """
    path = Path(path)
    if not path.exists():
        raise ImageError(f"{path}: file does not exist; check the path")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: file is empty (0 bytes); copy or export it again")
    try:
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
    except DAMAGED as error:
        raise damaged(path, error) from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if volumes > 1 and data.shape[3:] != (volumes,):
        raise ImageError(f"{path}: image has shape {data.shape}, expected {volumes} volumes in a fourth axis")
    if volumes == 1 and data.ndim != 3:
        raise ImageError(
            f"{path}: image has {data.ndim} dimensions {data.shape}, expected 3; give one volume per file"
        )
    if min(data.shape[:3]) < 2:
        raise ImageError(
            f"{path}: image of shape {data.shape} is not a volume, expected at least 2 slices per axis"
        )
    if data.dtype.kind not in "buif":
        raise ImageError(
            f"{path}: voxels of type {data.dtype} are not scalars; give a grey-value or label image"
        )
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        count = int((~np.isfinite(data)).sum())
        raise ImageError(f"{path}: {count} voxels are NaN or infinite; replace them, for example by 0")
    target = np.dtype(dtype)
    if target.kind in "bui" and data.dtype != target:
        info = np.iinfo(np.uint8 if target.kind == "b" else target)
        if data.dtype.kind == "f" and (data != np.rint(data)).any():
            raise ImageError(f"{path}: holds fractions, expected whole numbers (a label image or mask)")
        if data.min() < info.min or data.max() > info.max:
            raise ImageError(
                f"{path}: values {data.min():g} to {data.max():g} are outside {info.min} to {info.max}, "
                "expected a label image or mask"
            )
    affine = np.asarray(image.affine, np.float64)
    if not is_usable(affine):
        raise ImageError(f"{path}: orientation (affine) in the header is unusable; convert the file again")
    return Image(_c_order(data.astype(target, copy=False)), affine, str(path))


def is_usable(affine: NDArray[np.float64]) -> bool:
    """Tell whether an affine of shape (4, 4) gives voxels a size and each of their axes a direction of its own."""
    return bool(
        np.isfinite(affine).all()
        and abs(np.linalg.det(affine[:3, :3])) >= 1e-9
        and np.isfinite(nib.io_orientation(affine)).all()
    )


def write_image(path: str | os.PathLike[str], data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write one or several volumes as NIfTI with sform and qform set to ``affine``; masks become uint8.

    The bytes depend on the content alone: the same array gives the same file.
    """
    array = data.astype(np.uint8) if data.dtype == np.bool_ else data
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=2)
    image.header.set_xyzt_units("mm")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def same_grid(a: Image, b: Image) -> bool:
    """Tell whether two images have the same shape and the same affine, to :data:`AFFINE_TOLERANCE_MM`."""
    if a.shape != b.shape:
        return False
    corners = np.array(
        [(i, j, k, 1) for i in (0, a.shape[0]) for j in (0, a.shape[1]) for k in (0, a.shape[2])]
    )
    return bool(np.abs((a.affine - b.affine) @ corners.T).max() <= AFFINE_TOLERANCE_MM)


def conform(image: Image, reference: Image) -> Image:
    """Bring an image to the voxel order of a reference that covers the same grid.

    Axes are permuted and flipped as the affines demand; nothing is interpolated.

    Raises
    ------
    ImageError
        If the two grids differ by more than the order of their axes. The message names both.
    """
    if same_grid(image, reference):
        return image
    to_ras = nib.io_orientation(image.affine)
    to_reference = nib.io_orientation(reference.affine)
    transform = nib.orientations.ornt_transform(to_ras, to_reference)
    data = nib.orientations.apply_orientation(image.data, transform)
    affine = image.affine @ nib.orientations.inv_ornt_aff(transform, image.shape)
    turned = Image(_c_order(data), affine, image.name)
    if same_grid(turned, reference):
        return turned
    raise ImageError(
        f"{image.name} and {reference.name} are not on one grid: {describe(image)} against {describe(reference)}"
    )


def to_ras(image: Image) -> Image:
    """Bring an image to the voxel order right, anterior, superior, as pictures want it; nothing is interpolated."""
    ornt = nib.io_orientation(image.affine)
    data = nib.orientations.apply_orientation(image.data, ornt)
    affine = image.affine @ nib.orientations.inv_ornt_aff(ornt, image.shape)
    return Image(_c_order(data), affine, image.name)


def describe(image: Image) -> str:
    """Say shape, spacing, orientation and origin of an image in one line, for messages."""
    size = "x".join(map(str, image.shape))
    spacing = "x".join(f"{s:.4g}" for s in image.spacing)
    axes = "".join(nib.aff2axcodes(image.affine))
    origin = ", ".join(f"{v:.4g}" for v in image.affine[:3, 3])
    return f"{size} voxels of {spacing} mm, axes {axes}, origin ({origin})"


def _c_order(data: NDArray[Any]) -> NDArray[Any]:
    """Return ``np.ascontiguousarray(data)``, in half the time for data in the order in which NIfTI stores it."""
    if data.flags.c_contiguous:
        return data
    result = np.empty(data.shape, data.dtype)
    for y in range(data.shape[1]):  # plane by plane, as a plane fits into the cache
        result[:, y] = data[:, y]
    return result
