"""Radiotherapy plans of equal volume: the standard of care, and the best-ranked voxels of a growth model.

A plan is a mask. The standard-of-care plan is the tumour core widened by a margin; its number of voxels N
is the volume every model's plan gets. All plans lie in the brain mask with its holes filled, and all arrays
of one call share one grid.

Which of several equal voxels is taken must not depend on how a file happens to be stored. Ties go to the
voxel nearer to the core and only then to the lower flat index, so give arrays in one orientation (the
commands turn everything to RAS).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from predictgbm.labels import CORE, region
from predictgbm.masks import bounding_box

#: Margin of the standard of care around the tumour core, in mm.
MARGIN_MM = 15.0


class PlanError(ValueError):
    """No plan can be made from these arrays; the message says why."""


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a 3-D mask with every cavity filled that no path of face neighbours joins to the outside."""
    result = np.array(mask, bool)
    if not result.any():
        return result
    box = bounding_box(result)
    # One layer of background around the box makes the outside a single component, that of the first voxel.
    background = cc3d.connected_components(~np.pad(result[box], 1), connectivity=6)
    result[box] = (background != background[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return result


def distance_um(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.int32]:
    """Return the Euclidean distance of each voxel centre to the nearest centre in a mask.

    Whole micrometres: two ways to add up the same length in floating point then neither break nor make a tie.

    Parameters
    ----------
    mask : bool array, at least one voxel true
    spacing : voxel size along each axis, in mm
    """
    distance = edt.edt(~mask, anisotropy=tuple(spacing), black_border=False)
    distance *= 1000.0
    return np.rint(distance, out=distance).astype(np.int32)


def distance_um_at(
    wanted: NDArray[np.bool_], mask: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.int32]:
    """Return :func:`distance_um` at the wanted voxels alone, in C order; only their box is computed."""
    if not wanted.any():
        return np.zeros(0, np.int32)
    box = bounding_box(wanted | mask)
    return distance_um(mask[box], spacing)[wanted[box]]


def widened(
    core: NDArray[np.bool_], inside: NDArray[np.bool_], spacing: Sequence[float], reach: float
) -> NDArray[np.bool_]:
    """Return the voxels of a region whose centre is at most ``reach`` mm from that of a core voxel.

    Parameters
    ----------
    core, inside : bool arrays of one shape (nx, ny, nz)
        Tumour core, not empty, and the region.
    spacing : voxel size along each axis, in mm
    reach : 0 or more, in mm
    """
    near = tuple(
        slice(max(0, side.start - n), side.stop + n)
        for side, n in zip(bounding_box(core), (math.ceil(reach / s) for s in spacing), strict=True)
    )
    result = np.zeros_like(inside)
    result[near] = inside[near] & (distance_um(core[near], spacing) <= round(reach * 1000.0))
    return result


def soc_mask(
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    spacing: Sequence[float],
    margin: float = MARGIN_MM,
) -> NDArray[np.bool_]:
    """Return the standard-of-care plan: the tumour core widened by a margin, inside the brain.

    Parameters
    ----------
    tumor_seg : int array of shape (nx, ny, nz)
        Canonical tumour labels; necrosis and enhancing tumour make the core.
    brain_mask : bool array of the same shape
        Holes are filled.
    spacing : three floats
        Voxel size along each axis, in mm.
    margin : float
        A voxel belongs to the plan if its centre is at most this far from that of a core voxel, in mm.

    Raises
    ------
    PlanError
        If there is no core, the brain mask is empty, the two do not meet, or the margin is not zero or more.
    """
    if not (np.isfinite(margin) and margin >= 0):
        raise PlanError(f"a margin of {margin:g} mm makes no plan; give 0 mm or more")
    core = region(tumor_seg, CORE)
    _check(brain_mask, core)
    result = widened(core, fill_holes(brain_mask), spacing, margin)
    if not result.any():
        raise PlanError(
            f"no voxel within {margin:g} mm of the tumour core lies in the brain mask; "
            "check that both belong to the same exam"
        )
    return result


def soc_masks(
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    spacing: Sequence[float],
    margins: Sequence[float],
) -> dict[float, NDArray[np.bool_]]:
    """Return :func:`soc_mask` for each of several margins; one that does not reach the brain is left out."""
    result = {}
    for margin in margins:
        with suppress(PlanError):
            result[margin] = soc_mask(tumor_seg, brain_mask, spacing, margin)
    return result


def rank_voxels(
    score: NDArray[np.floating],
    core: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    spacing: Sequence[float],
    limit: int | None = None,
    core_first: bool = False,
) -> NDArray[np.int64]:
    """Order the voxels of the brain from the most to the least likely place of recurrence.

    1. Voxels with a positive score come first, the highest ahead. Scores are compared as they are, unclipped.
    2. The others follow by their distance to the positive voxels, whatever their score: the model expects no
       recurrence there.
    3. A map without any positive score in the brain is a rank (minus a distance, a log-likelihood) or empty,
       and is ordered as it is; if it is constant, rule 4 orders it by distance to the core.
    4. Equal voxels are ordered by distance to the core, then by flat index.

    The order is therefore unchanged by every increasing transform of the score that keeps its sign, and for
    scores without a positive one also by every increasing transform that makes them all positive.

    Parameters
    ----------
    score : float array of shape (nx, ny, nz)
        Any finite values, higher meaning more likely.
    core, brain : bool arrays of the same shape
        Tumour core, not empty, and brain mask, whose holes are filled.
    spacing : three floats
        Voxel size along each axis, in mm.
    limit : int, optional
        Return only this many voxels, the first of the full order, in less time.
    core_first : bool
        Put the core ahead of everything else, as GlioMap demands; it then counts as positive.

    Returns
    -------
    int array of shape (min(limit, voxels in the brain),)
        Flat (C-order) indices into the arrays.

    Raises
    ------
    PlanError
        If shapes differ, a score in the brain is NaN or infinite, or core or brain is empty.
    """
    _check(brain, core, score)
    inside = fill_holes(brain)
    value = score[inside].astype(np.float64)
    if not np.isfinite(value).all():
        raise PlanError(f"{np.count_nonzero(~np.isfinite(value))} scores in the brain are NaN or infinite")
    count = value.size if limit is None else min(max(limit, 0), value.size)
    ahead = core[inside] & core_first
    if (value > 0).any():
        chosen = (value > 0) | ahead
        if count <= np.count_nonzero(chosen):
            value[~chosen] = -np.inf
        else:
            seeds, others = np.zeros_like(inside), np.zeros_like(inside)
            seeds[inside], others[inside] = chosen, ~chosen
            # Outside the set every distance is above zero: negated, it ranks below every positive score.
            value[~chosen] = -distance_um_at(others, seeds, spacing).astype(np.float64)
    value[ahead] = np.inf

    candidates = inside
    if 0 < count < value.size:
        best = value >= np.partition(value, value.size - count)[value.size - count]
        candidates = np.zeros_like(inside)
        candidates[inside] = best
        value = value[best]
    to_core = distance_um_at(candidates, core, spacing)
    order = np.lexsort((to_core, -value))[:count]  # stable, so the flat index is the last key
    return np.flatnonzero(candidates)[order]


class RankOrder:
    """The rank order of one map, for whoever wants the first voxels of it: made once, for all.

    Parameters
    ----------
    score, core, brain, spacing, core_first
        As for :func:`rank_voxels`.
    at_first : int
        Voxels to rank when the first are wanted; who then wants more has all of the brain ranked.
    """

    def __init__(
        self,
        score: NDArray[np.floating],
        core: NDArray[np.bool_],
        brain: NDArray[np.bool_],
        spacing: Sequence[float],
        core_first: bool = False,
        at_first: int = 0,
    ) -> None:
        self._rank = partial(rank_voxels, score, core, brain, spacing, core_first=core_first)
        self._order = np.zeros(0, np.int64)
        self._limit = 0.0
        self._at_first = at_first

    def first(self, n: int | None = None) -> NDArray[np.int64]:
        """Return the first ``n`` voxels of :func:`rank_voxels`, or all of the brain, as flat indices.

        Raises
        ------
        PlanError
            As :func:`rank_voxels`.
        """
        wanted = math.inf if n is None else n
        if wanted > self._limit or not self._limit:
            limit = None if self._limit or n is None else max(n, self._at_first)
            self._order = self._rank(limit=limit)
            self._limit = math.inf if limit is None else limit
        return self._order[:n]


def make_plan(
    score: NDArray[np.floating],
    core: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    spacing: Sequence[float],
    n_voxels: int,
    core_first: bool = False,
) -> NDArray[np.bool_]:
    """Return the mask of the first ``n_voxels`` voxels of :func:`rank_voxels`, or of all the brain has.

    Raises
    ------
    PlanError
        As :func:`rank_voxels`, and if ``n_voxels`` is negative.
    """
    if n_voxels < 0:
        raise PlanError(f"a plan of {n_voxels} voxels is not possible")
    plan = np.zeros(brain.shape, bool)
    plan.flat[rank_voxels(score, core, brain, spacing, n_voxels, core_first)] = True
    return plan


def _check(
    brain: NDArray[np.bool_], core: NDArray[np.bool_], score: NDArray[np.floating] | None = None
) -> None:
    shapes = {"brain mask": brain.shape, "tumour": core.shape}
    if score is not None:
        shapes["score"] = score.shape
    if len(set(shapes.values())) > 1:
        raise PlanError("shapes differ: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
    if not brain.any():
        raise PlanError("the brain mask is empty")
    if not core.any():
        raise PlanError(
            "the segmentation holds no tumour core (1 necrosis, 3 enhancing tumour); "
            "check the segmentation and its label convention"
        )
