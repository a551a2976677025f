"""What is asked of masks everywhere: the box around one, and the overlap of two."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]


def bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> Box:
    """Return the slices that cut out a 3-D mask, widened by ``margin`` voxels within the array; all of it if empty."""
    box = [slice(0, n) for n in mask.shape]
    for axis in range(3):
        # Each axis looks only at what the axes before have left.
        where = np.flatnonzero(mask[tuple(box)].any(axis=tuple({0, 1, 2} - {axis})))
        if where.size:
            box[axis] = slice(int(where[0]), int(where[-1]) + 1)
    x, y, z = (
        slice(max(0, side.start - margin), min(n, side.stop + margin))
        for side, n in zip(box, mask.shape, strict=True)
    )
    return x, y, z


def ball_radius(voxels: int, voxel_mm3: float) -> float:
    """Return the radius, in mm, of a ball that has the volume of so many voxels."""
    return float((3.0 * voxels * voxel_mm3 / (4.0 * math.pi)) ** (1.0 / 3.0))


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient 2 |A and B| / (|A| + |B|), 0 to 1; NaN if both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return float(2 * np.count_nonzero(a & b) / total) if total else math.nan


def overlap_coefficient(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the share of the smaller mask that lies in the larger, |A and B| / min(|A|, |B|); NaN if one is empty.

    The overlap coefficient of Szymkiewicz and Simpson: unlike Dice it does not fall where sizes differ.
    """
    smaller = min(np.count_nonzero(a), np.count_nonzero(b))
    return float(np.count_nonzero(a & b) / smaller) if smaller else math.nan
