"""Plans as published guidelines draw them: a margin around the gross tumour that respects anatomical barriers.

The margin is measured along the shortest way that does not lead through a barrier (as Shusharina N et al. Radiother
Oncol 146:37-43, 2020, doi:10.1016/j.radonc.2020.01.028). Barriers are what lies outside the brain mask (skull), falx
and tentorium (:mod:`predictgbm.guidelines.compartments` and :mod:`predictgbm.guidelines.placement`), and the
ventricles, into which the margin goes no farther than the guideline says and never across. Corpus callosum and
peduncles are open. Brain stem and optic pathways, which a planner spares case by case, are not barriers here: there is
no map of the optic pathways.

The guidelines plan after surgery, on the cavity and what still enhances. Before surgery the tumour core stands for
both. Only the clinical target volume is drawn, as in the standard plan; no margin for positioning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.guidelines.compartments import dura_mask
from predictgbm.guidelines.geodesic import extend, geodesic_distance
from predictgbm.guidelines.presets import Guideline
from predictgbm.labels import CORE, Tumor, region
from predictgbm.masks import bounding_box
from predictgbm.planning import PlanError, fill_holes

#: Cerebrospinal fluid deeper below the brain's surface than this begins a ventricle; cisterns and the fissure of
#: Sylvius are nearer. Horns that come nearer to the surface are followed so far from there, in mm.
VENTRICLE_DEPTH_MM = 30.0
HORN_MM = 10.0
#: Less deep fluid than this is no ventricle, in ml.
VENTRICLE_ML = 1.0
#: Fluid so near to falx and tentorium lies in a fissure or cistern, in mm.
FISSURE_MM = 5.0


@dataclass(frozen=True)
class GuidelinePlan:
    """A guideline's plan, and the region in which any plan that keeps its barriers has to lie.

    Attributes
    ----------
    plan, allowed : bool arrays of one shape (nx, ny, nz); the plan lies in the region
    dura, ventricles : bool arrays of the same shape; barriers without the tumour core
    """

    plan: NDArray[np.bool_]
    allowed: NDArray[np.bool_]
    dura: NDArray[np.bool_]
    ventricles: NDArray[np.bool_]


def make_guideline_plan(
    guideline: Guideline,
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    csf: NDArray[np.floating],
    compartments: NDArray[np.uint8] | None,
    spacing: Sequence[float],
    wm: NDArray[np.floating] | None = None,
    white_matter_speed: float = 1.0,
    spared: NDArray[np.bool_] | None = None,
) -> GuidelinePlan:
    """Return the plan of a guideline.

    Parameters
    ----------
    guideline
        Its numbers.
    tumor_seg : int array of shape (nx, ny, nz)
        Canonical tumour labels. No label is ever part of a ventricle, and the core is no barrier at all, whatever the
        maps say below them.
    brain_mask : bool array of the same shape
        Holes are filled.
    csf : float array of the same shape
        Fraction of cerebrospinal fluid, 0 to 1; shows the ventricles.
    compartments : uint8 array of the same shape, optional
        Labels of :class:`predictgbm.guidelines.compartments.Compartment`; None: there is neither falx nor tentorium.
    spacing : three floats
        Voxel size along each axis, in mm.
    wm : float array of the same shape, optional
        Fraction of white matter, 0 to 1; only for ``white_matter_speed``.
    white_matter_speed : float
        How much farther the margin goes in white matter than in other tissue, 1 or more. White matter keeps the
        guideline's margin and other tissue gets less: 15 mm and 5 mm at 3.
    spared : bool array of the same shape, optional
        Organs that plan and region leave out, except for tumour core in them. They are no barrier: the margin goes on
        beyond them, as tumour may.

    Raises
    ------
    PlanError
        If there is no core, nothing of it lies in the brain, or the speed is below 1.
    """
    core = region(tumor_seg, CORE)
    inside = fill_holes(brain_mask)
    if not (core & inside).any():
        raise PlanError("no tumour core lies in the brain mask; check that both belong to the same exam")
    if not white_matter_speed >= 1:
        raise PlanError(f"a white-matter speed of {white_matter_speed:g} is not possible; give 1 or more")
    none = np.zeros(inside.shape, bool)
    dura = none if compartments is None else inside & dura_mask(compartments) & ~core
    # Fluid of a necrosis, a cyst or a cavity is the tumour's, though a tissue map may not tell it from a ventricle's.
    lesion = tumor_seg > 0
    fluid = np.where(lesion | _within(inside, dura, FISSURE_MM, spacing), 0.0, csf)
    ventricles = ventricle_mask(fluid, inside, spacing)
    tissue = inside & ~dura & ~ventricles

    speed = None
    if wm is not None and white_matter_speed > 1:
        speed = 1 / (wm + (1 - wm) * white_matter_speed)
    way = geodesic_distance(core, tissue, spacing, guideline.margin_mm, speed)
    reached = (way <= guideline.margin_mm) & inside
    plan = reached | _entered(way, reached, ventricles, spacing, guideline)
    allowed = inside & ~dura & ~(ventricles & ~_within(ventricles, tissue, guideline.ventricle_mm, spacing))
    if guideline.includes_flair:
        plan |= allowed & region(tumor_seg, (Tumor.EDEMA,))
    if spared is not None:
        kept = ~spared | core
        plan, allowed = plan & kept, allowed & kept
    return GuidelinePlan(plan, allowed, dura, ventricles)


def ventricle_mask(
    csf: NDArray[np.floating], inside: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.bool_]:
    """Return the ventricles: deep cerebrospinal fluid, and the horns that come nearer to the surface.

    Parameters
    ----------
    csf : float array of shape (nx, ny, nz), fraction of cerebrospinal fluid
    inside : bool array of the same shape, brain mask without holes
    spacing : voxel size along each axis, in mm
    """
    fluid = inside & (csf >= 0.5)
    deep = fluid & (edt.edt(inside, anisotropy=tuple(spacing), black_border=True) > VENTRICLE_DEPTH_MM)
    parts = cc3d.connected_components(deep.astype(np.uint8), connectivity=6)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    seeds = (sizes * math.prod(spacing) / 1000.0 >= VENTRICLE_ML)[parts]
    if not seeds.any():
        return seeds
    box = bounding_box(seeds, math.ceil(HORN_MM / min(spacing)))
    steps = math.ceil(HORN_MM / min(spacing))
    near = _within(fluid, seeds, HORN_MM, spacing)
    result = np.zeros_like(seeds)
    result[box] = ndimage.binary_dilation(seeds[box], iterations=steps, mask=near[box])
    return result


def _within(
    wanted: NDArray[np.bool_], mask: NDArray[np.bool_], reach: float, spacing: Sequence[float]
) -> NDArray[np.bool_]:
    """Return the wanted voxels whose centre is at most ``reach`` mm from one of a mask."""
    result = np.zeros_like(wanted)
    if wanted.any() and mask.any():
        box = bounding_box(wanted, math.ceil(reach / min(spacing)))
        if mask[box].any():
            near = edt.edt(~mask[box], anisotropy=tuple(spacing), black_border=False) <= reach + 1e-4
            result[box] = wanted[box] & near
    return result


def _entered(
    way: NDArray[np.float32],
    reached: NDArray[np.bool_],
    ventricles: NDArray[np.bool_],
    spacing: Sequence[float],
    guideline: Guideline,
) -> NDArray[np.bool_]:
    """Return how far the margin goes into the ventricles: a way in, and none out again."""
    result = _within(ventricles, reached, guideline.ventricle_mm, spacing)
    if result.any():
        box = bounding_box(result, 1)
        there = ventricles[box]
        known = np.where(there, np.inf, way[box].astype(np.float64))
        anchors = np.arange(known.size).reshape(known.shape)
        # A way in is straight from the last voxel of tissue, which is therefore open, too.
        shore = ~there & ndimage.binary_dilation(there, np.ones((3, 3, 3), bool))
        time = extend(
            known, anchors, there, there | (shore & np.isfinite(known)), spacing, guideline.margin_mm
        )
        result[box] &= time <= guideline.margin_mm
    return result
