"""Maps between the spaces of images: matrices and displacement fields, their use, and their ITK files.

Points are RAS millimetres. A transform maps points of the fixed space (the reference, whose grid the output has)
to points of the moving space, as in ITK: to resample an image, one asks at each voxel of the reference where in
the image to look. Files follow ITK's own convention, LPS millimetres, and are read by SimpleITK and ANTs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import nibabel as nib
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.images import Image, ImageError
from predictgbm.registration import kernels

Points: TypeAlias = NDArray[np.float64]
Interpolation: TypeAlias = Literal["linear", "bspline", "nearest"]

#: Turns RAS into LPS and back.
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

#: Suffixes of files that hold a matrix.
MATRIX_SUFFIXES = (".tfm", ".txt", ".mat")

#: NIfTI's code for a file that holds one vector per voxel.
VECTOR_INTENT = 1007

#: Points mapped at a time, which bounds the memory.
BLOCK = 1 << 20


@dataclass(frozen=True)
class Field:
    """A displacement at each voxel of a grid: the point x goes to x + displacement(x).

    Between voxels the displacement is interpolated linearly; outside the grid it is that of the nearest edge.

    Attributes
    ----------
    displacement : float32 array of shape (nx, ny, nz, 3), RAS mm
    affine : array of shape (4, 4), voxel index to RAS mm
    """

    displacement: NDArray[np.float32]
    affine: NDArray[np.float64]


Transform: TypeAlias = "NDArray[np.float64] | Field"


def _to_voxels(points: Points, affine: NDArray[np.float64]) -> Points:
    """Return the voxel indices, as (3, n), of points (n, 3) in mm."""
    inverse = np.linalg.inv(affine)
    return inverse[:3, :3] @ points.T + inverse[:3, 3:]


def _sample_vectors(field: Field, points: Points) -> Points:
    """Interpolate a field linearly at points (n, 3) in mm; the edge continues outside."""
    x, y, z = _to_voxels(points, field.affine)
    return kernels.sample_vectors(field.displacement, x, y, z)


def apply_points(points: Points, *transforms: Transform) -> Points:
    """Map points through transforms, the first one first.

    Parameters
    ----------
    points
        Array of shape (n, 3), RAS mm in the fixed space of the first transform.
    transforms
        Matrices (4, 4) and fields.

    Returns
    -------
    points : float64 array of shape (n, 3), RAS mm in the moving space of the last transform
    """
    points = np.asarray(points, np.float64).reshape(-1, 3)
    for transform in transforms:
        if isinstance(transform, Field):
            points = points + _sample_vectors(transform, points)
        else:
            points = points @ transform[:3, :3].T + transform[:3, 3]
    return points


def _blocks(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Any:
    """Yield slices along the first axis and the RAS mm of their voxels, as (n, 3)."""
    step = max(1, BLOCK // (shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        block = slice(start, min(start + step, shape[0]))
        index = np.indices((block.stop - block.start, *shape[1:]), np.float64).reshape(3, -1).T
        index[:, 0] += start
        yield block, index @ affine[:3, :3].T + affine[:3, 3]


def resample(
    image: Image,
    reference: Image,
    *transforms: Transform,
    interpolation: Interpolation = "linear",
    fill: float = 0.0,
) -> NDArray[Any]:
    """Bring an image to the grid of a reference by one interpolation, whatever the number of transforms.

    A point within half a voxel of the outermost voxel centres counts as inside the image, as in ITK, so that an
    image of few thick slices keeps its outer slices.

    Parameters
    ----------
    image
        Image to resample.
    reference
        Image whose grid the result has; its data are not looked at.
    transforms
        From the reference's space to the image's, the first one first; none if both share one space.
    interpolation
        ``linear``; ``bspline``, cubic, clipped to the range of the image, which takes off its overshoot;
        ``nearest`` for labels and masks.
    fill
        Value outside the image.

    Returns
    -------
    data : array of the reference's shape; float32, or with ``nearest`` the type of the image
    """
    last = np.array(image.shape)[:, None] - 1
    data = image.data
    if interpolation != "nearest":
        data = np.asarray(data, np.float32)
        low, high = float(data.min()), float(data.max())
        if interpolation == "bspline":
            data = ndimage.spline_filter(data, order=3, output=np.float32, mode="mirror")
    result = np.full(reference.shape, fill, data.dtype)
    for block, points in _blocks(reference.shape, reference.affine):
        index = _to_voxels(apply_points(points, *transforms), image.affine)
        inside = ((index >= -0.5) & (index <= last + 0.5)).all(axis=0)
        index = np.clip(index[:, inside], 0, last)
        if interpolation == "nearest":
            i, j, k = np.floor(index + 0.5).astype(np.intp)
            values = data[i, j, k]
        else:
            order: Literal[1, 3] = 3 if interpolation == "bspline" else 1
            values = ndimage.map_coordinates(data, index, order=order, mode="mirror", prefilter=False)
            values = np.clip(values, low, high)
        result[block].reshape(-1)[inside] = values
    return result


def compose(reference: Image, *transforms: Transform) -> Field:
    """Join transforms, the first one first, in one field on the grid of a reference."""
    displacement = np.empty((*reference.shape, 3), np.float32)
    for block, points in _blocks(reference.shape, reference.affine):
        moved = apply_points(points, *transforms) - points
        displacement[block] = moved.reshape(-1, *reference.shape[1:], 3)
    return Field(displacement, reference.affine)


def _affine_part(field: Field) -> NDArray[np.float64]:
    """Return the matrix (4, 4) that fits a field best, in least squares over its grid."""
    shape = field.displacement.shape[:3]
    steps = tuple(slice(None, None, max(1, n // 16)) for n in shape)
    index = np.stack(
        np.meshgrid(*(np.arange(n)[s] for n, s in zip(shape, steps, strict=True)), indexing="ij")
    )
    points = index.reshape(3, -1).T @ field.affine[:3, :3].T + field.affine[:3, 3]
    target = points + field.displacement[steps].reshape(-1, 3)
    columns = np.column_stack([points, np.ones(len(points))])
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(columns, target, rcond=None)[0].T
    return matrix


def invert(field: Field, reference: Image, *, tolerance: float = 1e-3, iterations: int = 100) -> Field:
    """Return the inverse of a field, on the grid of a reference in its moving space.

    The field is written as its best affine map A and the rest r, y = A x + r(x), and solved for x by the fixed
    point x <- A^-1 (y - r(x)), which converges where the rest is a contraction, and, each step damped, for every
    smooth field without folds met here (Chen M et al. Medical Physics 35:81-88, 2008, without A). Outside the
    field's grid the rest continues as at its edge.

    Parameters
    ----------
    field
        Field without folds, RAS mm.
    reference
        Image whose grid the inverse has.
    tolerance
        Largest step, in mm, at which the iteration ends.
    iterations
        Most steps.
    """
    matrix = _affine_part(field)
    back = np.linalg.inv(matrix)
    shape = field.displacement.shape[:3]
    rest = Field(np.empty_like(field.displacement), field.affine)
    for block, points in _blocks((shape[0], shape[1], shape[2]), field.affine):
        linear = points @ matrix[:3, :3].T + matrix[:3, 3] - points
        rest.displacement[block] = field.displacement[block] - linear.reshape(-1, *shape[1:], 3)
    displacement = np.empty((*reference.shape, 3), np.float32)
    for block, points in _blocks(reference.shape, reference.affine):
        found = points @ back[:3, :3].T + back[:3, 3]
        active = np.arange(len(points))
        for step in range(iterations):
            here = found[active]
            target = (points[active] - _sample_vectors(rest, here)) @ back[:3, :3].T + back[:3, 3]
            move = (target - here) * (1.0 if step < 20 else 0.5)
            found[active] = here + move
            active = active[np.abs(move).max(axis=1) > tolerance]
            if not len(active):
                break
        displacement[block] = (found - points).reshape(-1, *reference.shape[1:], 3)
    return Field(displacement, reference.affine)


def jacobian(field: Field) -> NDArray[np.float32]:
    """Return the determinant of the Jacobian of x + displacement(x) at each voxel, by central differences.

    1 keeps volume, 2 doubles it from fixed to moving space, 0 or less is a fold.

    Returns
    -------
    determinant : float32 array of shape (nx, ny, nz)
    """
    gradient = np.stack([np.gradient(field.displacement, axis=axis) for axis in range(3)], axis=-1)
    matrix = gradient @ np.linalg.inv(field.affine[:3, :3]).astype(np.float32)
    matrix += np.eye(3, dtype=np.float32)
    a, b, c = (matrix[..., row, :] for row in range(3))
    determinant: NDArray[np.float32] = (a * np.cross(b, c)).sum(axis=-1)
    return determinant


def read_transform(path: str | os.PathLike[str]) -> Transform:
    """Read an ITK transform: a matrix (``.tfm``, ``.txt``, ``.mat``) or a displacement field (``.nii.gz``).

    Raises
    ------
    ImageError
        If the file is missing or unreadable, or holds anything but a linear transform or a field of 3-vectors.
    """
    path = Path(path)
    if not path.exists():
        raise ImageError(f"{path}: file does not exist; check the path")
    if path.name.endswith((".nii", ".nii.gz")):
        return _read_field(path)
    try:
        transform = SimpleITK.ReadTransform(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ImageError(f"{path}: cannot be read as an ITK transform ({reason})") from error
    if transform.GetDimension() != 3 or not transform.IsLinear():
        raise ImageError(
            f"{path}: is a {transform.GetName()}, expected a linear transform; give a displacement field as .nii.gz"
        )
    corners = np.vstack([np.zeros(3), np.eye(3)])
    moved = np.array([transform.TransformPoint(corner) for corner in corners.tolist()])
    matrix = np.eye(4)
    matrix[:3, 3] = moved[0]
    matrix[:3, :3] = (moved[1:] - moved[0]).T
    return LPS @ matrix @ LPS


def read_matrix(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Read an ITK transform that is a matrix, as those of ``align_exam.py`` are.

    Raises
    ------
    ImageError
        As :func:`read_transform`, and if it is a displacement field.
    """
    transform = read_transform(path)
    if isinstance(transform, Field):
        raise ImageError(f"{path}: is a displacement field, expected a matrix of align_exam.py (.tfm)")
    return transform


def _read_field(path: Path) -> Field:
    try:
        image = nib.load(path)
        data = np.asarray(image.dataobj, np.float32)
    except Exception as error:
        raise ImageError(f"{path}: cannot be read as NIfTI ({type(error).__name__}: {error})") from error
    if data.ndim == 5 and data.shape[3] == 1:
        data = data[:, :, :, 0]
    if data.ndim != 4 or data.shape[-1] != 3:
        raise ImageError(
            f"{path}: array of shape {data.shape} is no displacement field, expected (nx, ny, nz, 1, 3)"
        )
    if not np.isfinite(data).all():
        raise ImageError(f"{path}: displacement field holds NaN or infinity")
    data = data * np.array([-1, -1, 1], np.float32)
    return Field(np.ascontiguousarray(data), np.asarray(image.affine, np.float64))


def write_transform(path: str | os.PathLike[str], transform: Transform) -> None:
    """Write a matrix as ITK affine transform, or a field as ITK displacement field, both LPS mm.

    Parameters
    ----------
    path
        For a matrix ``.tfm``, ``.txt`` (text) or ``.mat`` (binary, as ANTs writes); for a field ``.nii.gz``.
    transform
        Matrix (4, 4) or field, RAS mm.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = (".nii", ".nii.gz") if isinstance(transform, Field) else MATRIX_SUFFIXES
    if not path.name.endswith(wanted):
        raise ValueError(f"{path}: such a transform goes to a file *{' or *'.join(wanted)}")
    if isinstance(transform, Field):
        vectors = transform.displacement * np.array([-1, -1, 1], np.float32)
        image = nib.Nifti1Image(vectors[:, :, :, None], transform.affine)
        image.set_sform(transform.affine, code=2)
        image.set_qform(transform.affine, code=2)
        image.header.set_intent(VECTOR_INTENT)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
        return
    matrix = LPS @ transform @ LPS
    affine = SimpleITK.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].ravel().tolist())
    affine.SetTranslation(matrix[:3, 3].tolist())
    SimpleITK.WriteTransform(affine, str(path))
