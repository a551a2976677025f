"""Outlines of a mask, one closed polygon for each island."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

Polygon = NDArray[np.float64]

#: Voxels by which outlines keep to the inside of the middle between two centres, so that readers which round vertices
#: to whole voxels find those of the mask. A power of two, which keeps straight lines straight.
INWARD = 2.0**-8


def trace(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Return the outlines of the islands of a slice, each hole joined to its island's outline by a keyhole.

    An outline passes half way between the centre of a voxel inside and that of its neighbour outside, nearer to the
    one inside by :data:`INWARD`, and cuts the corners between such points (marching squares; Lorensen WE, Cline HE.
    Computer Graphics 21:163-169, 1987, doi:10.1145/37402.37422, in a plane). The centres within the polygons are
    therefore those of the mask, and each outline encloses half a voxel less than its island covers, each hole
    likewise, and :data:`INWARD` along all of its length. Voxels that touch at a corner only
    are islands of their own. A hole is reached through a channel without width along a row of voxels (keyhole,
    DICOM PS3.3 C.8.8.6.3), so that readers that fill, unite or exclude (XOR) polygons find the same mask.

    Parameters
    ----------
    mask
        Shape (columns, rows).

    Returns
    -------
    polygons : list of arrays of shape (n, 2)
        Column and row of the vertices in voxels, 0 at the centre of the first; the last joins the first.
    """
    padded = np.pad(mask.T, 1).astype(np.float64)
    generator = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    # The other types of filling, which the annotation allows too, return other tuples.
    islands, offsets = cast("tuple[list[Polygon], list[list[int]]]", generator.filled(0.5 + INWARD, 1.5))
    polygons = []
    for points, ends in zip(islands, offsets, strict=True):
        outer, *holes = (points[start : end - 1] - 1.0 for start, end in pairwise(ends))
        polygons.append(_tidy(_join(outer, holes)))
    return polygons


def _join(outer: Polygon, holes: Iterable[Polygon]) -> Polygon:
    """Join holes to the outline around them, each by a channel to its left.

    The channel runs a quarter voxel beside a row of centres, so that no centre lies on an edge, where readers differ.
    It starts beside the leftmost vertex of the hole, so that the outline it meets first is the outer one, or that of
    a hole further to the left, which has been joined before.
    """
    for hole in sorted(holes, key=lambda points: float(points[:, 0].min())):
        y = float(hole[hole[:, 0].argmin(), 1]) + 0.25
        edges, x = _cross(hole, y)
        start = int(x.argmin())
        gates, left = _cross(outer, y)
        near = int(np.where(left < x[start], left, -np.inf).argmax())
        ring = np.roll(hole, -1 - edges[start], axis=0)
        channel = np.array([(left[near], y), (x[start], y)])
        cut = gates[near] + 1
        outer = np.concatenate([outer[:cut], channel, ring, channel[::-1], outer[cut:]])
    return outer


def _cross(polygon: Polygon, y: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the edges that cross a horizontal line, by the index of their first vertex, and where they do."""
    after = np.roll(polygon, -1, axis=0)
    edges = np.flatnonzero((polygon[:, 1] <= y) != (after[:, 1] <= y))
    (x0, y0), (x1, y1) = polygon[edges].T, after[edges].T
    return edges, x0 + (y - y0) / (y1 - y0) * (x1 - x0)


def _tidy(polygon: Polygon) -> Polygon:
    """Drop vertices at which the outline goes straight on, and begin behind a slanting edge.

    Readers that look at two of three coordinates then do not take the first and last vertex for one.
    """
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    across = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    turns = (across != 0) | ((before * after).sum(axis=1) <= 0)
    slanting = before[turns].all(axis=1)
    return np.roll(polygon[turns], -int(slanting.argmax()), axis=0)
