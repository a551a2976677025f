"""Tensors of diffusion, six components per voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Place of Dxx, Dxy, Dyy, Dxz, Dyz, Dzz in the last axis of a tensor field.
COMPONENTS = ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))
#: Largest over smallest eigenvalue that is believed; healthy white matter has 2 to 8.
LARGEST_RATIO = 10.0


def mean_diffusivity(tensor: NDArray[Any]) -> NDArray[Any]:
    """Return a third of the trace of tensors, shape (..., 6)."""
    return (tensor[..., 0] + tensor[..., 2] + tensor[..., 5]) / 3


def shape_of_diffusion(tensor: NDArray[Any]) -> NDArray[np.float32]:
    """Return measured tensors divided by their mean diffusivity, so that only direction and anisotropy are left.

    Eigenvalues are raised to a tenth (:data:`LARGEST_RATIO`) of the largest. Where nothing was measured, or no
    eigenvalue is positive, the result is isotropic.

    Parameters
    ----------
    tensor : array of shape (nx, ny, nz, 6)
        Dxx, Dxy, Dyy, Dxz, Dyz, Dzz along the array axes; any unit.

    Returns
    -------
    array of the same shape, of trace 3
    """
    result = np.zeros(tensor.shape, np.float32)
    result[..., [0, 2, 5]] = 1
    measured = tensor[..., [0, 2, 5]].max(axis=-1) > 0
    values, vectors = np.linalg.eigh(_matrices(tensor[measured]))
    values = np.maximum(values, values[:, 2:] / LARGEST_RATIO)
    values *= 3 / np.maximum(values.sum(axis=1, keepdims=True), 1e-30)
    full = np.einsum("nij,nj,nkj->nik", vectors, values, vectors)
    result[measured] = np.stack([full[:, i, j] for i, j in COMPONENTS], axis=-1)
    return result


def _matrices(tensor: NDArray[Any]) -> NDArray[np.float64]:
    full = np.empty((*tensor.shape[:-1], 3, 3))
    for n, (i, j) in enumerate(COMPONENTS):
        full[..., i, j] = full[..., j, i] = tensor[..., n]
    return full


def along_axes(tensor: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn tensors given along right, anterior, superior into tensors along the axes of their array.

    Parameters
    ----------
    tensor : array of shape (nx, ny, nz, 6)
    affine : array of shape (4, 4)
        Voxel index to RAS mm.
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return rotate(tensor, axes)


def rotate(tensor: NDArray[Any], rotation: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return R^T D R for tensors D of shape (..., 6): their components along the columns of R."""
    # Of the 36 products only sums with few terms remain; they are gathered component by component.
    result = np.zeros(tensor.shape, np.float32)
    for n, (i, j) in enumerate(COMPONENTS):
        for m, (k, h) in enumerate(COMPONENTS):
            weight = rotation[k, i] * rotation[h, j]
            if k != h:
                weight += rotation[h, i] * rotation[k, j]
            if weight:
                result[..., n] += np.float32(weight) * tensor[..., m]
    return result
