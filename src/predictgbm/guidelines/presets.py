"""Guidelines for the target volume: their numbers, and models' plans of their volume within their barriers.

:mod:`predictgbm.guidelines.barriers` draws the plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from predictgbm.evaluation import coverage, volume_ml
from predictgbm.labels import RECURRENCE, region
from predictgbm.planning import PlanError, RankOrder


@dataclass(frozen=True)
class Guideline:
    """What a guideline says of the clinical target volume.

    Attributes
    ----------
    name : str
        As parameters and file names give it: letters and digits.
    title, doi : str
    margin_mm : float
        Margin around the gross tumour, in mm.
    margin_range_mm : two floats
        Margins that the guideline allows, in mm; :func:`guideline` takes none beyond.
    ventricle_mm : float
        How far the margin may go into a ventricle, in mm.
    includes_flair : bool
        Whether the plan takes in what is bright in T2 and FLAIR.
    """

    name: str
    title: str
    doi: str
    margin_mm: float
    margin_range_mm: tuple[float, float]
    ventricle_mm: float
    includes_flair: bool


#: Niyazi M et al. Radiother Oncol 184:109663, 2023: 15 mm around cavity and residual enhancement, one phase, oedema not
#: included; 0 mm at skull, falx and tentorium, 5 mm at ventricles, no reduction at corpus callosum and peduncles.
#: By the abstract: one phase, contrast-enhancing T1 and cavity, 15 mm. By summaries of others only, two that agree but
#: may not be independent: the barriers' numbers. A digest of the NRG's consensus (Kruser TJ et al. J Neurooncol, 2019,
#: doi:10.1007/s11060-019-03152-9), which is independent, names falx and tentorium as barriers and corpus callosum and
#: cerebellar peduncles as ways, without numbers. No full text was read.
#: Not done: 0 mm at optic pathways and brain stem where the tumour is far from their tracts; taking in what is suspect
#: of tumour without enhancement.
ESTRO_EANO_2023 = Guideline(
    "estroeano2023", "ESTRO-EANO 2023", "10.1016/j.radonc.2023.109663", 15.0, (15.0, 15.0), 5.0, False
)
#: Yeboa DN et al. Pract Radiat Oncol, 2025, plan of a single phase: 10 to 20 mm around cavity and residual enhancement,
#: taking in T2/FLAIR changes, less at natural barriers. By summaries of others only, as above; the abstract has no
#: numbers. The middle of the range is taken unless another is asked for; no number for ventricles was found, so that of
#: ESTRO-EANO is. Labels do not tell non-enhancing tumour from oedema: both are taken in.
ASTRO_2025 = Guideline("astro2025", "ASTRO 2025", "10.1016/j.prro.2025.05.014", 15.0, (10.0, 20.0), 5.0, True)

GUIDELINES: Mapping[str, Guideline] = {g.name: g for g in (ESTRO_EANO_2023, ASTRO_2025)}


def guideline(name: str, margin_mm: float | None = None) -> Guideline:
    """Return the guideline of a name, with another margin within its range where one is given.

    Raises
    ------
    PlanError
        If there is none, or it does not allow the margin.
    """
    if name not in GUIDELINES:
        raise PlanError(f"no guideline is called '{name}'; there are {', '.join(GUIDELINES)}")
    found = GUIDELINES[name]
    if margin_mm is None:
        return found
    low, high = found.margin_range_mm
    if not low <= margin_mm <= high:
        raise PlanError(
            f"{found.title} does not allow a margin of {margin_mm:g} mm; it takes {low:g} to {high:g} mm"
        )
    return replace(found, margin_mm=margin_mm)


def restricted_plan(ranking: RankOrder, allowed: NDArray[np.bool_], n_voxels: int) -> NDArray[np.bool_]:
    """Return a model's plan that keeps the barriers: the first voxels of its ranking that lie in the allowed region.

    Parameters
    ----------
    ranking
        Of the model's map in the brain.
    allowed : bool array of shape (nx, ny, nz)
    n_voxels : int
        Voxels of the guideline's plan.

    Raises
    ------
    PlanError
        As :func:`predictgbm.planning.rank_voxels`, and if the region has fewer voxels.
    """
    # Barriers take away less than half of most plans; where they take more, all of the brain is looked at.
    for limit in (2 * n_voxels, None):
        order = ranking.first(limit)
        order = order[allowed.ravel()[order]][:n_voxels]
        if len(order) == n_voxels:
            break
    else:
        raise PlanError(f"the allowed region has {len(order)} voxels in the brain, {n_voxels} are wanted")
    plan = np.zeros(allowed.shape, bool)
    plan.flat[order] = True
    return plan


def evaluate_guideline(
    ranking: RankOrder,
    recurrence: NDArray[np.integer],
    plan: NDArray[np.bool_],
    allowed: NDArray[np.bool_],
    spacing: Sequence[float],
) -> dict[str, float]:
    """Measure a guideline's plan, and a model's plan of its volume within its barriers, against the recurrence.

    Parameters
    ----------
    ranking, allowed
        As for :func:`restricted_plan`.
    recurrence : int array of shape (nx, ny, nz)
        Canonical labels of the registered follow-up.
    plan : bool array of the same shape
        The guideline's.
    spacing : voxel size along each axis, in mm

    Returns
    -------
    dict
        ``plan_ml``; ``coverage_<definition>`` of the model's plan and ``guideline_coverage_<definition>`` of the
        guideline's for enhancing recurrence and core, 0 to 1, NaN without recurrence.

    Raises
    ------
    PlanError
        As :func:`restricted_plan`.
    """
    n_voxels = int(np.count_nonzero(plan))
    own = restricted_plan(ranking, allowed, n_voxels)
    result = {"plan_ml": volume_ml(n_voxels, spacing)}
    for definition in ("enhancing", "core"):
        target = region(recurrence, RECURRENCE[definition])
        result[f"coverage_{definition}"] = coverage(own, target)
        result[f"guideline_coverage_{definition}"] = coverage(plan, target)
    return result
