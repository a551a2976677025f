"""Diffusion along tracts: a tensor per voxel, as flows between a voxel and its neighbours that are never negative.

A symmetric positive tensor D is a sum of at most six terms w e e^T with w >= 0 and e between voxel centres (Selling's
decomposition). The flow along each e is then w times the difference of two voxels: what flows is conserved, nothing
becomes negative, and for an isotropic tensor what is left are the six faces. See Fehrenbach J, Mirebeau JM. Sparse
non-negative stencils for anisotropic diffusion. Journal of Mathematical Imaging and Vision 49:123-147, 2014,
doi:10.1007/s10851-013-0446-3.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from predictgbm.growth.compilation import kernel, serial_kernel
from predictgbm.neighbours import DIRECTIONS, shifted
from predictgbm.tensors import COMPONENTS, mean_diffusivity

#: A tensor that needs farther neighbours than the 26 is made rounder by so many of these shares, at most 1.
ROUNDING_STEP = 0.05
#: Weights below this share of the trace are rounding errors.
NOTHING = 1e-9


def edge_weights(tensor: NDArray[Any], spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the weight w of the flow between each voxel and its neighbours, so that div(D grad u) = sum w (u' - u).

    Both voxels must be tissue, and a diagonal flow must have a way through tissue from face to face: nothing
    crosses the corner of a sulcus. A weight is the mean of those of its two voxels.

    Parameters
    ----------
    tensor : array of shape (nx, ny, nz, 6)
        Along the array axes; 0 outside tissue, positive definite in it.
    spacing : array of shape (3,)
        Voxel size in mm.

    Returns
    -------
    array of shape (13, nx, ny, nz), per mm^2 times the unit of the tensor
        Entry [n, x] belongs to the voxels x and x + DIRECTIONS[n]; 0 where there is no such voxel.
    """
    tissue = mean_diffusivity(tensor) > 0
    scale = np.array([1 / (spacing[i] * spacing[j]) for i, j in COMPONENTS])
    own = np.zeros((len(DIRECTIONS), *tissue.shape), np.float32)
    own[:, tissue] = _decompose(np.ascontiguousarray(tensor[tissue], np.float64), scale).T
    for n, direction in enumerate(DIRECTIONS):
        allowed = tissue & _reached(tissue, direction)
        own[n] = np.where(allowed, 0.5 * (own[n] + shifted(own[n], direction)), 0)
    return own


def within(edges: NDArray[Any]) -> NDArray[Any]:
    """Return the weights of a box, shape (13, nx, ny, nz), bordered by one voxel, without flows out of the box."""
    result = np.pad(edges, [(0, 0), (1, 1), (1, 1), (1, 1)])
    for weights, direction in zip(result, DIRECTIONS, strict=True):
        for axis, step in enumerate(direction):
            if step:
                side: list[Any] = [slice(None)] * 3
                side[axis] = -2 if step > 0 else 1
                weights[tuple(side)] = 0
    return result


def largest_exchange(edges: NDArray[Any]) -> float:
    """Return the largest sum of the weights of one voxel's 26 flows."""
    total = np.zeros(edges.shape[1:])
    for weights, direction in zip(edges, DIRECTIONS, strict=True):
        total += weights + shifted(weights, -direction)
    return float(total.max())


def _reached(tissue: NDArray[np.bool_], direction: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell from which voxels a neighbour is reached by steps along the axes that stay in tissue."""
    axes = np.flatnonzero(direction)
    found = np.zeros(tissue.shape, bool)
    for order in permutations(axes):
        place = np.zeros(3, int)
        path = np.ones(tissue.shape, bool)
        for axis in order:
            place[axis] = direction[axis]
            path &= shifted(tissue, place)
        found |= path
    return found


@kernel
def _decompose(tensor, scale):  # type: ignore[no-untyped-def]
    """Return Selling's weights, shape (n, 13), of tensors of shape (n, 6) in mm; scale turns those into voxels."""
    n = len(tensor)
    weights = np.zeros((n, 13), np.float32)
    for v in prange(n):
        mean = (tensor[v, 0] + tensor[v, 2] + tensor[v, 5]) / 3
        base = np.empty((4, 3), np.int64)
        for step in range(round(1 / ROUNDING_STEP) + 1):
            share = step * ROUNDING_STEP
            d = (1 - share) * tensor[v] * scale
            d[0] += share * mean * scale[0]
            d[2] += share * mean * scale[2]
            d[5] += share * mean * scale[5]
            if _weights_of(d, base, weights[v]):
                break
    return weights


@serial_kernel
def _weights_of(d, base, weights):  # type: ignore[no-untyped-def]
    """Decompose one tensor; tell whether the 26 neighbours were enough."""
    base[:] = 0
    for a in range(3):
        base[a, a] = 1
        base[3, a] = -1
    nothing = NOTHING * (d[0] + d[2] + d[5])
    changed = True
    while changed:  # each change shortens the base, so that it comes to an end
        changed = False
        for i in range(4):
            for j in range(i + 1, 4):
                if _product(d, base[i], base[j]) > nothing:
                    k, m = _others(i, j)
                    base[k] += base[i]
                    base[m] += base[i]
                    base[i] = -base[i]
                    changed = True
    weights[:] = 0
    for i in range(4):
        for j in range(i + 1, 4):
            weight = -_product(d, base[i], base[j])
            if weight <= nothing:
                continue
            k, m = _others(i, j)
            x = base[k, 1] * base[m, 2] - base[k, 2] * base[m, 1]
            y = base[k, 2] * base[m, 0] - base[k, 0] * base[m, 2]
            z = base[k, 0] * base[m, 1] - base[k, 1] * base[m, 0]
            if max(abs(x), abs(y), abs(z)) > 1:
                return False
            place = 9 * x + 3 * y + z  # -13 to 13, opposite directions of opposite sign
            weights[abs(place) - 1] += weight
    return True


@serial_kernel
def _product(d, a, b):  # type: ignore[no-untyped-def]
    return (
        a[0] * (d[0] * b[0] + d[1] * b[1] + d[3] * b[2])
        + a[1] * (d[1] * b[0] + d[2] * b[1] + d[4] * b[2])
        + a[2] * (d[3] * b[0] + d[4] * b[1] + d[5] * b[2])
    )


@serial_kernel
def _others(i, j):  # type: ignore[no-untyped-def]
    """Return the two of 0, 1, 2, 3 that are neither i nor j."""
    k = 0
    while k in (i, j):
        k += 1
    return k, 6 - i - j - k
