"""Length of the shortest way from a tumour to each voxel that does not lead through a barrier.

Where the straight line to the nearest voxel of the tumour is free, its length is the answer, exact: a margin without
barriers is that of :func:`predictgbm.planning.soc_mask`. Behind a barrier ways are found by any-angle search, Theta*
(Daniel K, Nash A, Koenig S, Felner A. J Artif Intell Res 39:533-579, 2010, doi:10.1613/jair.2994): they bend at voxel
centres by the edges of barriers and are straight between. With a speed that varies the front marches from voxel to
voxel: fast marching (Sethian JA. PNAS 93:1591-1595, 1996, doi:10.1073/pnas.93.4.1591) of SimpleITK, first order.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.growth.compilation import serial_kernel
from predictgbm.masks import Box, bounding_box

#: A line of sight is probed so many times a voxel.
PROBES = 4


def geodesic_distance(
    source: NDArray[np.bool_],
    passable: NDArray[np.bool_],
    spacing: Sequence[float],
    limit: float,
    speed: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Return the length of the shortest way from a source to each voxel centre through passable voxels.

    Parameters
    ----------
    source : bool array of shape (nx, ny, nz)
        Where ways begin; always passable.
    passable : bool array of the same shape
        A way may lead where voxels share a face, in a straight line too.
    spacing : three floats
        Voxel size along each axis, in mm.
    limit : float
        Longest way wanted, in mm.
    speed : float array of the same shape, optional
        Above 0, at most 1: a way of one millimetre counts as 1/speed. The source's curvature then costs up to a
        voxel, as the front marches from the first.

    Returns
    -------
    float32 array of the same shape
        In mm, 0 in the source; infinite where the way is longer than ``limit`` or there is none.
    """
    result = np.full(source.shape, np.inf, np.float32)
    if not source.any():
        return result
    box = _widened(source, limit, spacing)
    origin, open_ = source[box], (passable | source)[box]
    straight, nearest = ndimage.distance_transform_edt(~origin, sampling=tuple(spacing), return_indices=True)
    # Whole micrometres, as the margins of plans are.
    straight = np.rint(straight * 1000.0) / 1000.0
    near = open_ & (straight <= limit)
    if speed is None:
        anchors = np.ravel_multi_index(tuple(nearest), origin.shape)
        seen = np.zeros_like(near)
        seen[near] = _in_sight(np.flatnonzero(near), anchors[near], open_)
        found = extend(np.where(seen, straight, np.inf), anchors, near & ~seen, open_, spacing, limit)
    else:
        found = np.maximum(_march(origin, near * speed[box], spacing, limit), straight)
    result[box] = np.where(found <= limit, found, np.inf)
    return result


def extend(
    values: NDArray[np.float64],
    anchors: NDArray[np.int64],
    unknown: NDArray[np.bool_],
    open_: NDArray[np.bool_],
    spacing: Sequence[float],
    limit: float,
) -> NDArray[np.float64]:
    """Continue known lengths of ways into unknown voxels.

    Parameters
    ----------
    values : float array of shape (nx, ny, nz)
        Length of the way to each voxel, in mm; infinite where not known.
    anchors : int array of the same shape
        Flat index of the voxel from which the last, straight piece of the way to each known voxel comes.
    unknown : bool array of the same shape
        Voxels to reach.
    open_ : bool array of the same shape
        Voxels through which a straight piece may lead.
    spacing : voxel size along each axis, in mm
    limit : float
        Longest way wanted, in mm.

    Returns
    -------
    float array of the same shape
        ``values``, with the lengths found.
    """
    if not unknown.any():
        return values
    border = ~unknown & ndimage.binary_dilation(unknown, np.ones((3, 3, 3), bool)) & (values <= limit)
    found = values.copy()
    size = np.array(spacing, np.float64)
    _any_angle(found, anchors.copy(), np.flatnonzero(border), unknown, open_, size, float(limit))
    return found


def _march(
    source: NDArray[np.bool_], speed: NDArray[np.floating], spacing: Sequence[float], limit: float
) -> NDArray[np.float64]:
    """Return when a front from a source comes to each voxel; infinite where it does not before the limit."""
    shore = source & ndimage.binary_dilation(~source, border_value=1)
    fast_marching = SimpleITK.FastMarchingImageFilter()
    fast_marching.SetTrialPoints(np.argwhere(shore).tolist())
    fast_marching.SetStoppingValue(float(limit))
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(speed.transpose(2, 1, 0), np.float32))
    image.SetSpacing([float(s) for s in spacing])
    times: NDArray[Any] = SimpleITK.GetArrayFromImage(fast_marching.Execute(image)).transpose(2, 1, 0)
    return np.where(source, 0.0, np.where(times <= limit, times, np.inf))


def _widened(mask: NDArray[np.bool_], reach: float, spacing: Sequence[float]) -> Box:
    x, y, z = (
        slice(max(0, side.start - math.ceil(reach / s) - 1), side.stop + math.ceil(reach / s) + 1)
        for side, s in zip(bounding_box(mask), spacing, strict=True)
    )
    return x, y, z


@serial_kernel
def _free(start: int, end: int, open_: NDArray[np.bool_]) -> bool:
    """Tell whether the line between the centres of two voxels, given by flat indices, is open.

    It may graze the corner of a blocked voxel, but not pass where two blocked voxels share no more than an edge: each
    of its steps has a way by faces, too.
    """
    _, ny, nz = open_.shape
    i, j, k = start // (ny * nz), start // nz % ny, start % nz
    di, dj, dk = end // (ny * nz) - i, end // nz % ny - j, end % nz - k
    probes = PROBES * max(abs(di), abs(dj), abs(dk))
    x, y, z = i, j, k
    for probe in range(1, probes + 1):
        a = int(np.floor(i + di * probe / probes + 0.5))
        b = int(np.floor(j + dj * probe / probes + 0.5))
        c = int(np.floor(k + dk * probe / probes + 0.5))
        if not open_[a, b, c]:
            return False
        by_x, by_y, by_z = open_[a, y, z], open_[x, b, z], open_[x, y, c]
        by_xy, by_xz, by_yz = open_[a, b, z], open_[a, y, c], open_[x, b, c]
        if not ((by_x and (by_xy or by_xz)) or (by_y and (by_xy or by_yz)) or (by_z and (by_xz or by_yz))):
            return False
        x, y, z = a, b, c
    return True


@serial_kernel
def _in_sight(
    ends: NDArray[np.int64], starts: NDArray[np.int64], open_: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell for pairs of voxels, given by flat indices, whether the line between their centres is open."""
    seen = np.empty(len(ends), np.bool_)
    for n in range(len(ends)):
        seen[n] = _free(starts[n], ends[n], open_)
    return seen


@serial_kernel
def _length(start: int, end: int, ny: int, nz: int, size: NDArray[np.float64]) -> float:
    x = (end // (ny * nz) - start // (ny * nz)) * size[0]
    y = (end // nz % ny - start // nz % ny) * size[1]
    z = (end % nz - start % nz) * size[2]
    return math.sqrt(x * x + y * y + z * z)


@serial_kernel
def _any_angle(
    values: NDArray[np.float64],
    anchors: NDArray[np.int64],
    border: NDArray[np.int64],
    unknown: NDArray[np.bool_],
    open_: NDArray[np.bool_],
    size: NDArray[np.float64],
    limit: float,
) -> None:
    """Fill the values of unknown voxels, the nearest first; each remembers where its way last bent."""
    nx, ny, nz = values.shape
    value, anchor = values.ravel(), anchors.ravel()
    queue = [(value[here], here) for here in border]
    heapq.heapify(queue)
    while queue:
        so_far, here = heapq.heappop(queue)
        if so_far > value[here]:
            continue
        i, j, k = here // (ny * nz), here // nz % ny, here % nz
        for a in range(max(0, i - 1), min(nx, i + 2)):
            for b in range(max(0, j - 1), min(ny, j + 2)):
                for c in range(max(0, k - 1), min(nz, k + 2)):
                    there = (a * ny + b) * nz + c
                    if not unknown[a, b, c] or value[there] <= so_far or not _free(here, there, open_):
                        continue
                    bend = anchor[here]
                    if not _free(bend, there, open_):
                        bend = here
                    way = value[bend] + _length(bend, there, ny, nz, size)
                    if way < value[there] and way <= limit:
                        value[there], anchor[there] = way, bend
                        heapq.heappush(queue, (way, there))
