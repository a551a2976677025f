"""How well a plan meets the recurrence: coverage, overlap, surface distance, lesions, coverage-volume curve.

Every recurrence voxel counts, also one outside the brain mask, which no plan can reach: leaving it out
would reward a mask that cuts recurrence off. Its volume is reported beside the measures. What cannot be
evaluated is NaN, never 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from predictgbm.labels import CORE, RECURRENCE, WHOLE_TUMOR, region
from predictgbm.masks import bounding_box, dice
from predictgbm.patterns import classify
from predictgbm.planning import RankOrder, distance_um, distance_um_at, fill_holes

#: Volumes at which the coverage-volume curve is sampled, as fractions of the plan's volume.
CURVE_FRACTIONS: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 41))


def coverage(plan: NDArray[np.bool_], recurrence: NDArray[np.bool_]) -> float:
    """Return the part of the recurrence inside the plan, |R and P| / |R|, 0 to 1; NaN without recurrence."""
    total = np.count_nonzero(recurrence)
    return float(np.count_nonzero(plan & recurrence) / total) if total else math.nan


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of a 3-D mask with a face neighbour outside it; beyond the array is outside."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(3):
        for shift in (-1, 1):
            inner &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    return mask & ~inner


def hd95_mm(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Return the 95th percentile Hausdorff distance of two masks, in mm.

    The larger of the two directed values: the 95th percentile (linear interpolation) of the distances
    from each surface voxel centre of one mask to the nearest of the other.

    Parameters
    ----------
    a, b : bool arrays of one shape (nx, ny, nz)
    spacing : voxel size along each axis, in mm

    Returns
    -------
    float
        NaN if a mask is empty.
    """
    if not (a.any() and b.any()):
        return math.nan
    box = bounding_box(a | b)
    from_a, from_b = surface(a[box]), surface(b[box])
    return max(
        float(np.percentile(distance_um(target, spacing)[source], 95)) / 1000.0
        for source, target in ((from_a, from_b), (from_b, from_a))
    )


def centre_distance_mm(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Return the distance between the centres of mass of two masks, in mm; NaN if one is empty."""
    if not (a.any() and b.any()):
        return math.nan
    shift = [np.mean(i) - np.mean(j) for i, j in zip(np.nonzero(a), np.nonzero(b), strict=True)]
    return float(np.linalg.norm(np.multiply(shift, spacing)))


def label_lesions(recurrence: NDArray[np.bool_]) -> tuple[tuple[slice, ...], NDArray[np.intp]]:
    """Return the number of the lesion that each voxel of a recurrence belongs to, the largest being 1.

    A lesion is a connected component; voxels that share a face, an edge or a corner are connected.

    Parameters
    ----------
    recurrence : bool array of shape (nx, ny, nz), not empty

    Returns
    -------
    box, numbers
        The recurrence's bounding box, and the number of each voxel in it; 0 outside the lesions.
    """
    box = bounding_box(recurrence)
    # As whole numbers: for truth values in a box one voxel thin, cc3d sets aside too few labels and gives up.
    component = cc3d.connected_components(recurrence[box].astype(np.uint8), connectivity=26)
    size = np.bincount(component.ravel())
    number = np.zeros(size.size, np.intp)
    number[1 + np.argsort(-size[1:], kind="stable")] = np.arange(1, size.size)
    return box, number[component]


def lesions(
    plan: NDArray[np.bool_], recurrence: NDArray[np.bool_], spacing: Sequence[float]
) -> list[dict[str, Any]]:
    """Return volume and coverage of each lesion of a recurrence, the largest first; see :func:`label_lesions`.

    Returns
    -------
    list of {"lesion": number from 1, "volume_ml": float, "coverage": 0 to 1}
    """
    if not recurrence.any():
        return []
    box, numbers = label_lesions(recurrence)
    size = np.bincount(numbers.ravel())
    covered = np.bincount(numbers[plan[box]], minlength=size.size)
    return [
        {
            "lesion": number,
            "volume_ml": volume_ml(int(size[number]), spacing),
            "coverage": float(covered[number] / size[number]),
        }
        for number in range(1, size.size)
    ]


def locate_lesions(
    tumor_seg: NDArray[np.integer],
    recurrence: NDArray[np.integer],
    soc: NDArray[np.bool_],
    spacing: Sequence[float],
) -> list[dict[str, Any]]:
    """Return where each lesion of the enhancing recurrence lies, in the order of :func:`lesions`.

    The standard plan judges, whatever the model: the pattern of a lesion is the same for all of them.

    Parameters
    ----------
    tumor_seg, recurrence : int arrays of one shape (nx, ny, nz)
        Canonical labels of the pre-operative exam and of the registered follow-up.
    soc : bool array of the same shape
        Standard plan, of :func:`predictgbm.planning.soc_mask`.
    spacing : voxel size along each axis, in mm

    Returns
    -------
    list of dict
        ``lesion``: number; ``core_distance_mm``: least distance of a voxel centre of the lesion to one of the
        pre-operative core, 0 where they overlap; ``coverage_standard``: part inside the standard plan, 0 to 1;
        ``pattern``: see :mod:`predictgbm.patterns`. Empty without a core or an enhancing recurrence.
    """
    core = region(tumor_seg, CORE)
    enhancing = region(recurrence, RECURRENCE["enhancing"])
    if not (core.any() and enhancing.any()):
        return []
    box, numbers = label_lesions(enhancing)
    of_voxel = numbers[enhancing[box]]
    nearest = np.full(of_voxel.max() + 1, np.inf)
    np.minimum.at(nearest, of_voxel, distance_um_at(enhancing, core, spacing) / 1000.0)
    return [
        {
            "lesion": lesion["lesion"],
            "core_distance_mm": float(nearest[lesion["lesion"]]),
            "coverage_standard": lesion["coverage"],
            "pattern": classify(lesion["coverage"]),
        }
        for lesion in lesions(soc, enhancing, spacing)
    ]


def coverage_curve(
    order: NDArray[np.integer],
    recurrence: NDArray[np.bool_],
    n_voxels: int,
    fractions: Sequence[float] = CURVE_FRACTIONS,
) -> NDArray[np.float64]:
    """Return the coverage reached by the plans of a growing volume.

    Parameters
    ----------
    order : int array
        Flat indices of the brain's voxels, best first, as :func:`predictgbm.planning.rank_voxels` gives
        them; at least as many as the largest fraction needs, or all of the brain.
    recurrence : bool array of shape (nx, ny, nz)
        Not empty.
    n_voxels : int
        Voxels of the plan at fraction 1.
    fractions
        Volumes to sample, as fractions of ``n_voxels``, rounded to whole voxels.

    Returns
    -------
    float array of shape (len(fractions),), 0 to 1
    """
    reached = np.concatenate([[0], np.cumsum(recurrence.ravel()[order])])
    voxels = np.floor(np.multiply(fractions, n_voxels) + 0.5).astype(int)
    return reached[np.minimum(voxels, len(order))] / np.count_nonzero(recurrence)


def curve_area(fractions: Sequence[float], values: NDArray[np.float64]) -> float:
    """Return the mean height of a curve over its range (trapezoids), 0 to 1 for coverages."""
    x = np.asarray(fractions)
    return float(np.sum(np.diff(x) * (values[1:] + values[:-1]) / 2) / (x[-1] - x[0]))


def voxels_to_cover(order: NDArray[np.integer], recurrence: NDArray[np.bool_], n_covered: int) -> int | None:
    """Return how many voxels of a rank order cover ``n_covered`` recurrence voxels; None if all do not."""
    if n_covered == 0:
        return 0
    reached = np.cumsum(recurrence.ravel()[order])
    needed = int(np.searchsorted(reached, n_covered)) + 1
    return needed if needed <= len(order) else None


def border_spread(
    plan: NDArray[np.bool_], spread: NDArray[np.floating], brain: NDArray[np.bool_]
) -> float | None:
    """Return the mean standard deviation of a map over the border of its plan, in units of the map.

    The border are the plan's voxels with a face neighbour that is outside the plan and inside the brain: there the map
    decided, while the plan's middle is certain and the brain's edge is given.

    Parameters
    ----------
    plan, spread, brain : arrays of one shape (nx, ny, nz)
        Plan, standard deviation of the map, brain mask, whose holes are filled.

    Returns
    -------
    float or None
        None without such a border, or if the spread is 0 everywhere, as that of a single network is.
    """
    # Beyond the array there is no brain.
    outside = np.pad(plan | ~fill_holes(brain), 1, constant_values=True)
    border = surface(outside)[1:-1, 1:-1, 1:-1] & plan
    return float(np.mean(spread[border], dtype=np.float64)) if border.any() and spread.any() else None


def evaluate_plan(
    plan: NDArray[np.bool_],
    recurrence: NDArray[np.integer],
    brain: NDArray[np.bool_],
    spacing: Sequence[float],
) -> dict[str, Any]:
    """Measure a plan against the recurrence that came.

    Parameters
    ----------
    plan : bool array of shape (nx, ny, nz)
    recurrence : int array of the same shape
        Canonical labels of the follow-up, registered to the exam of the plan.
    brain : bool array of the same shape
        Brain mask, whose holes are filled; only tells how much of plan and recurrence lies outside.
    spacing : voxel size along each axis, in mm

    Returns
    -------
    dict
        ``coverage_<definition>`` for each definition of :data:`predictgbm.labels.RECURRENCE`; ``dice`` and
        ``hd95_mm`` of plan and enhancing recurrence; volumes in ml; ``lesions`` of the enhancing recurrence;
        ``reason``, which names what is NaN and why, or None.
    """
    inside = fill_holes(brain)
    regions = {name: region(recurrence, members) for name, members in RECURRENCE.items()}
    enhancing = regions["enhancing"]
    result: dict[str, Any] = {f"coverage_{name}": coverage(plan, mask) for name, mask in regions.items()}
    has_target = bool(enhancing.any())
    result["dice"] = dice(plan, enhancing) if has_target else math.nan
    result["hd95_mm"] = hd95_mm(plan, enhancing, spacing)
    result["plan_ml"] = volume_ml(plan, spacing)
    result["plan_outside_brain_ml"] = volume_ml(plan & ~inside, spacing)
    for name, mask in regions.items():
        result[f"recurrence_{name}_ml"] = volume_ml(mask, spacing)
    result["recurrence_outside_brain_ml"] = volume_ml(enhancing & ~inside, spacing)
    result["lesions"] = lesions(plan, enhancing, spacing)
    result["n_lesions"] = len(result["lesions"])
    result["reason"] = _reason(regions, plan)
    return result


def evaluate_tumor(
    tumor_seg: NDArray[np.integer], recurrence: NDArray[np.integer], spacing: Sequence[float]
) -> dict[str, float]:
    """Measure the tumour before treatment, and how far from it the recurrence came.

    Parameters
    ----------
    tumor_seg, recurrence : int arrays of one shape (nx, ny, nz)
        Canonical labels of the pre-operative exam and of the registered follow-up.
    spacing : voxel size along each axis, in mm

    Returns
    -------
    dict
        ``tumor_core_ml``, ``tumor_whole_ml`` and ``com_distance_cm``, from the centre of mass of the core
        to that of the enhancing recurrence (NaN without one).
    """
    core = region(tumor_seg, CORE)
    enhancing = region(recurrence, RECURRENCE["enhancing"])
    return {
        "tumor_core_ml": volume_ml(core, spacing),
        "tumor_whole_ml": volume_ml(region(tumor_seg, WHOLE_TUMOR), spacing),
        "com_distance_cm": centre_distance_mm(core, enhancing, spacing) / 10.0,
    }


def evaluate_score(
    ranking: RankOrder,
    soc: NDArray[np.bool_],
    plan: NDArray[np.bool_],
    recurrence: NDArray[np.integer],
    spacing: Sequence[float],
) -> dict[str, Any]:
    """Measure a score map at other volumes than the plan's: the coverage-volume curve.

    Parameters
    ----------
    ranking
        Of the map in the brain.
    soc, plan : bool arrays of shape (nx, ny, nz)
        Standard plan, of :func:`predictgbm.planning.soc_mask`, and the map's own, whose volume is fraction 1 of the
        curve.
    recurrence : int array of the same shape
        Canonical labels of the registered follow-up.
    spacing : voxel size along each axis, in mm

    Returns
    -------
    dict
        ``curve``: {"fraction", "coverage_enhancing"} or None without plan or enhancing recurrence;
        ``curve_area``: its mean height; ``volume_at_soc_coverage_ml``: the smallest volume of this map that
        covers as much as the standard of care; ``plan_follows_score``: whether the plan is the map's top.

    Raises
    ------
    PlanError
        As :func:`predictgbm.planning.rank_voxels`.
    """
    n_voxels = int(np.count_nonzero(plan))
    order = ranking.first(math.ceil(max(CURVE_FRACTIONS) * n_voxels))
    result: dict[str, Any] = {
        "curve": None,
        "curve_area": math.nan,
        "volume_at_soc_coverage_ml": math.nan,
        "plan_follows_score": bool(plan.ravel()[order[:n_voxels]].all()),
    }
    enhancing = region(recurrence, RECURRENCE["enhancing"])
    if not (n_voxels and enhancing.any()):
        return result
    values = coverage_curve(order, enhancing, n_voxels)
    result["curve"] = {"fraction": list(CURVE_FRACTIONS), "coverage_enhancing": values.tolist()}
    result["curve_area"] = curve_area(CURVE_FRACTIONS, values)
    target = int(np.count_nonzero(soc & enhancing))
    needed = voxels_to_cover(order, enhancing, target)
    if needed is None:
        needed = voxels_to_cover(ranking.first(), enhancing, target)
    assert needed is not None, "the standard of care lies in the brain, so the whole brain covers as much"
    result["volume_at_soc_coverage_ml"] = volume_ml(needed, spacing)
    return result


def evaluate_margins(
    ranking: RankOrder,
    soc: NDArray[np.bool_],
    others: Mapping[float, NDArray[np.bool_]],
    plan: NDArray[np.bool_],
    recurrence: NDArray[np.integer],
    spacing: Sequence[float],
) -> list[dict[str, Any]]:
    """Measure the plans that a score map would get if the standard of care had other margins.

    Whoever plans as the standard of care does so at every margin: the map of that model, a mask, cannot tell.

    Parameters
    ----------
    ranking
        Of the map in the brain.
    soc : bool array of shape (nx, ny, nz)
        Standard plan, of :func:`predictgbm.planning.soc_mask`.
    others : bool arrays of the same shape
        Standard plans by their other margins, in mm.
    plan : bool array of the same shape
        Plan of the map, of the volume of ``soc``.
    recurrence : int array of the same shape
        Canonical labels of the registered follow-up.
    spacing : voxel size along each axis, in mm

    Returns
    -------
    list of {"axis": "margin", "setting": margin in mm as text, "plan_ml", "coverage_enhancing": 0 to 1 or NaN}

    Raises
    ------
    PlanError
        As :func:`predictgbm.planning.rank_voxels`.
    """
    enhancing = region(recurrence, RECURRENCE["enhancing"])
    standard = np.array_equal(plan, soc)
    rows = []
    for margin, other in others.items():
        n_voxels, chosen = int(np.count_nonzero(other)), other
        if not standard:
            chosen = np.zeros_like(other)
            chosen.flat[ranking.first(n_voxels)] = True
        rows.append(
            {
                "axis": "margin",
                "setting": f"{margin:g}",
                "plan_ml": volume_ml(n_voxels, spacing),
                "coverage_enhancing": coverage(chosen, enhancing),
            }
        )
    return rows


def volume_ml(mask_or_count: NDArray[np.bool_] | int, spacing: Sequence[float]) -> float:
    """Return the volume of a mask, or of a number of voxels, in ml; ``spacing`` in mm."""
    count = mask_or_count if isinstance(mask_or_count, int) else int(np.count_nonzero(mask_or_count))
    return count * math.prod(spacing) / 1000.0


def _reason(regions: dict[str, NDArray[np.bool_]], plan: NDArray[np.bool_]) -> str | None:
    """Say in words which measures are NaN, and why."""
    faults = []
    absent = [name for name, mask in regions.items() if not mask.any()]
    if len(absent) == len(regions):
        faults.append("no recurrence in the follow-up")
    elif absent:
        words = {
            name: f"{name} (label {', '.join(str(int(m)) for m in RECURRENCE[name])})" for name in absent
        }
        faults.append(f"no recurrence of definition {' or '.join(words.values())} in the follow-up")
    if not plan.any():
        faults.append("the plan is empty")
    return "; ".join(faults) or None
