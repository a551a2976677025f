"""Dose: what a plan would give to the recurrence and to the brain, and dose painting by a map.

**This is a model of dose, not a treatment plan.** Radiation is aimed at the plan with a margin for set-up, and its edge
is blurred by a Gaussian. Beams, entrance and exit dose, scatter and inhomogeneity are left out: far from the target the
dose is zero here and not in a patient, so doses to the brain are lower bounds, good to compare plans by.

A prescription of 60 Gy in 30 fractions and a set-up margin (PTV) of 3 mm are those of the ESTRO-EANO guideline (Niyazi
et al. 2023, doi:10.1016/j.radonc.2023.109663). Dose is prescribed as the median of the PTV, D50, and reported as D98,
D95, D50 and D2, as ICRU Report 83 (2010, doi:10.1093/jicru/10.1.Report83) recommends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predictgbm.evaluation import lesions
from predictgbm.exam import ORGAN
from predictgbm.masks import bounding_box
from predictgbm.patterns import classify
from predictgbm.planning import PlanError, RankOrder, distance_um, fill_holes

#: Part of the prescription that "covers", ICRU's lower limit of a homogeneous dose.
COVERING = 0.95

#: The Gaussian is cut off here, in standard deviations.
TRUNCATION = 4.0

#: Doses of plans are computed on a grid at least as fine as this, in mm: there the dose at a flat edge is right within
#: 0.2 Gy of 60, whatever the voxels (measured up to 7 mm).
FINE_MM = 1.25

#: Painted dose of the last and of the first voxel where 60 Gy are prescribed, in Gy: 46 Gy is the first phase of
#: two-phase plans (RTOG), 75 Gy the highest dose of NRG-BN001 (in 30 fractions, ClinicalTrials.gov NCT02179086).
PAINTED_GY_OF_60 = (46.0, 75.0)

#: Exponent of the generalised EUD of the recurrence; the more negative, the more the coldest part counts.
GEUD_EXPONENT = -10.0

#: Volume of the hottest part of an organ, in ml, whose least dose is told instead of the maximum, which hangs on one
#: voxel.
NEAR_MAXIMUM_ML = 0.03


@dataclass(frozen=True)
class Prescription:
    """What is prescribed and how sharply it falls off.

    Attributes
    ----------
    dose_gy : median dose of the PTV, in Gy, above 0
    margin_mm : width of the PTV around the plan, in mm, 0 or more
    falloff_mm : way from 80 % to 20 % of the dose across a flat edge, in mm. A single 6 MV field needs 3.7 to 3.9 mm
        at a depth of 10 cm (J Appl Clin Med Phys 12(3):142-160, 2011, doi:10.1120/jacmp.v12i3.3475, table 2); arcs from
        many sides fall off more slowly, and 5.5 mm is an assumption
    """

    dose_gy: float = 60.0
    margin_mm: float = 3.0
    falloff_mm: float = 5.5

    def __post_init__(self) -> None:
        """Refuse what cannot be prescribed.

        Raises
        ------
        PlanError
            Naming the value.
        """
        if not (self.dose_gy > 0 and self.margin_mm >= 0 and self.falloff_mm > 0):
            raise PlanError(
                f"{self.dose_gy:g} Gy with a margin of {self.margin_mm:g} mm and a falloff of {self.falloff_mm:g} mm "
                "cannot be prescribed; expected a dose and a falloff above 0 and a margin that is not below"
            )

    @property
    def sigma_mm(self) -> float:
        """Standard deviation of the Gaussian whose step response falls from 80 % to 20 % over ``falloff_mm``."""
        return float(self.falloff_mm / (2.0 * NormalDist().inv_cdf(0.8)))

    @property
    def painted_gy(self) -> tuple[float, float]:
        """Lowest and highest dose of dose painting: :data:`PAINTED_GY_OF_60` as the prescription is to 60 Gy."""
        low, high = PAINTED_GY_OF_60
        return low * self.dose_gy / 60.0, high * self.dose_gy / 60.0

    @property
    def aperture_mm(self) -> float:
        """How far the radiation reaches beyond the plan: to where a flat edge of the PTV gets :data:`COVERING`."""
        return float(self.margin_mm + NormalDist().inv_cdf(COVERING) * self.sigma_mm)


STANDARD = Prescription()


def plan_dose(
    plan: NDArray[np.bool_], spacing: Sequence[float], prescription: Prescription = STANDARD
) -> NDArray[np.float32]:
    """Return the dose of a plan: its widened outline, blurred, scaled until the median dose of the PTV is prescribed.

    Beyond a flat edge of the plan the dose falls as ``Phi((aperture - x) / sigma)``, x from its last voxel centre;
    fingers and holes of the plan finer than the Gaussian are lost, as they would be in a treatment. Where
    voxels are larger than :data:`FINE_MM`, the dose is computed between them, too.

    Parameters
    ----------
    plan : bool array of shape (nx, ny, nz)
        Clinical target volume.
    spacing : voxel size along each axis, in mm
    prescription

    Returns
    -------
    float32 array of the same shape, Gy

    Raises
    ------
    PlanError
        If the plan is empty.
    """
    if not plan.any():
        raise PlanError("an empty plan has no dose")
    sigma, reach = prescription.sigma_mm, prescription.aperture_mm
    pad = [math.ceil((reach + TRUNCATION * sigma) / s) for s in spacing]
    box = bounding_box(plan)
    # Padded, as radiation does not end where the image does.
    distance = distance_um(np.pad(plan[box], [(n, n) for n in pad]), spacing) / np.float32(1000.0)
    parts = [math.ceil(s / FINE_MM) for s in spacing]
    fine = [s / n for s, n in zip(spacing, parts, strict=True)]
    for axis, count in enumerate(parts):
        distance = _refine(distance, axis, count)
    # A voxel that the edge crosses counts in part.
    aperture = np.clip((reach - distance) / _width(distance, fine) + np.float32(0.5), 0, 1, dtype=np.float32)
    dose = _blur(aperture, fine, sigma)
    dose *= prescription.dose_gy / float(np.median(dose[distance <= prescription.margin_mm]))
    dose = dose[tuple(slice(None, None, n) for n in parts)]
    return _cut(dose, [side.start - n for side, n in zip(box, pad, strict=True)], plan.shape)


def painted_dose(
    order: NDArray[np.integer],
    brain: NDArray[np.bool_],
    spacing: Sequence[float],
    integral_gy_l: float,
    prescription: Prescription = STANDARD,
) -> tuple[NDArray[np.float32], float]:
    """Spend an integral dose on the brain as a map ranks it: dose painting by numbers.

    The first voxel is prescribed the highest dose, the last the lowest, linearly by rank between them; beyond it
    nothing. How many voxels are painted follows from the integral dose. The same Gaussian blurs as for a plan. There
    is no set-up margin around what is painted: the margin is part of the dose that is there to be spent.

    Linear between a lowest and a highest dose is the prescription of Bentzen (Lancet Oncol 6:112-117, 2005,
    doi:10.1016/S1470-2045(05)01737-7); by rank and not by value, as values of maps have no common meaning.

    Parameters
    ----------
    order : int array
        Flat indices of the brain's voxels, best first, of :func:`predictgbm.planning.rank_voxels`.
    brain : bool array of shape (nx, ny, nz), holes filled
    spacing : voxel size along each axis, in mm
    integral_gy_l : dose times volume that the brain is to get, in Gy l
    prescription : whose falloff, lowest and highest painted dose are taken

    Returns
    -------
    dose : float32 array of shape (nx, ny, nz), Gy
    painted_ml : volume that a dose is prescribed to

    Raises
    ------
    PlanError
        If all voxels of ``order`` together do not take up the integral dose.
    """
    low, high = prescription.painted_gy
    voxel_l = math.prod(spacing) * 1e-6
    # What is painted, and as far as the blur takes it, also beyond the brain: recurrence there gets what spills over.
    chosen = np.zeros(brain.shape, bool)
    chosen.ravel()[order] = True
    near = bounding_box(chosen, math.ceil(TRUNCATION * prescription.sigma_mm / min(spacing)))
    # Blurring is symmetric: what a voxel gives to the brain is the blurred brain at that voxel.
    given = np.zeros(brain.shape, np.float32)
    given[near] = _blur(brain[near].astype(np.float32), spacing, prescription.sigma_mm)
    share = given.ravel()[order].astype(np.float64) * voxel_l
    place = np.arange(order.size) + 0.5
    integral = high * np.cumsum(share) - (high - low) / (place + 0.5) * np.cumsum(share * place)
    if not (order.size and integral[-1] >= integral_gy_l > 0):
        raise PlanError(f"{order.size} voxels do not take up an integral dose of {integral_gy_l:g} Gy l")
    count = int(np.searchsorted(integral, integral_gy_l)) + 1
    painted = np.zeros(brain.shape, np.float32)
    painted.ravel()[order[:count]] = high - (high - low) * place[:count] / count
    dose = np.zeros_like(painted)
    # The last voxel is one too many or just enough.
    factor = np.float32(integral_gy_l / integral[count - 1])
    dose[near] = _blur(painted[near], spacing, prescription.sigma_mm) * factor
    return dose, count * voxel_l * 1000.0


def dvh(dose: ArrayLike, at_gy: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return the cumulative dose-volume histogram: the part of a structure that gets at least each dose.

    Parameters
    ----------
    dose : doses of the structure's voxels, any shape, Gy
    at_gy : shape (k,), Gy
        Default every whole dose from 0 to the first that no voxel gets, beyond which all is 0.

    Returns
    -------
    float array of shape (k,), 0 to 1; NaN for a structure without voxels
    """
    ordered = np.sort(np.asarray(dose, np.float64), axis=None)
    if at_gy is None:
        at_gy = np.arange(math.floor(ordered[-1]) + 2 if ordered.size else 1)
    if not ordered.size:
        return np.full(np.shape(at_gy), math.nan)
    return 1.0 - np.searchsorted(ordered, np.asarray(at_gy, np.float64), side="left") / ordered.size


def volume_at_dose(dose: ArrayLike, at_gy: float) -> float:
    """Return the part of a structure that gets at least a dose, 0 to 1; NaN for a structure without voxels."""
    return float(dvh(dose, [at_gy])[0])


def dose_at_volume(dose: ArrayLike, part: float) -> float:
    """Return the dose that a part of a structure gets at least, in Gy: D95 for 0.95.

    Linear between voxels, each of which stands for the middle of its share of the volume (Hazen's quantile), so that a
    linear ramp of dose gives exactly its own value.

    Parameters
    ----------
    dose : doses of the structure's voxels, any shape, Gy
    part : of the volume, the hottest first, 0 to 1

    Returns
    -------
    float
        NaN for a structure without voxels.
    """
    values = np.asarray(dose, np.float64).ravel()
    return float(np.quantile(values, 1.0 - part, method="hazen")) if values.size else math.nan


def geud(dose: ArrayLike, exponent: float = GEUD_EXPONENT) -> float:
    """Return the generalised equivalent uniform dose, the power mean ``mean(dose ** a) ** (1 / a)``, in Gy.

    Niemierko A. A generalized concept of equivalent uniform dose. Med Phys 26:1100, 1999. For a below zero a single
    voxel without dose makes it 0.

    Parameters
    ----------
    dose : doses of the structure's voxels, any shape, Gy
    exponent : ``a``; negative for targets, 1 for the mean, not 0

    Returns
    -------
    float
        NaN for a structure without voxels.
    """
    values = np.asarray(dose, np.float64).ravel()
    if not values.size:
        return math.nan
    largest = values.max()
    if largest == 0:
        return 0.0
    with np.errstate(divide="ignore", over="ignore"):
        return float(largest * np.mean((values / largest) ** exponent) ** (1.0 / exponent))


def integral_dose(dose: NDArray[np.floating], mask: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """Return dose times volume of a structure, in Gy l."""
    return float(np.sum(dose[mask], dtype=np.float64)) * math.prod(spacing) * 1e-6


def recurrence_measures(doses: NDArray[np.floating], prescribed_gy: float) -> dict[str, float]:
    """Return D98, D95, D50, mean and gEUD of the recurrence in Gy, and its part above 95 % of the prescription."""
    return {
        "d98_gy": dose_at_volume(doses, 0.98),
        "d95_gy": dose_at_volume(doses, 0.95),
        "d50_gy": dose_at_volume(doses, 0.5),
        "mean_gy": float(np.mean(doses, dtype=np.float64)) if doses.size else math.nan,
        "geud_gy": geud(doses),
        "v95": volume_at_dose(doses, COVERING * prescribed_gy),
    }


def evaluate_dose(
    plan: NDArray[np.bool_],
    soc: NDArray[np.bool_],
    ranking: RankOrder,
    core: NDArray[np.bool_],
    recurrence: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    spacing: Sequence[float],
    tissues: Mapping[str, NDArray[np.floating]] | None = None,
    prescription: Prescription = STANDARD,
    organs: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, Any]:
    """Measure the dose of a plan, and dose painted by its map at the integral dose of the standard plan.

    Parameters
    ----------
    plan, soc, core, recurrence, brain : bool arrays of one shape (nx, ny, nz)
        Plan, standard plan, pre-operative tumour core, recurrence that came, brain mask.
    ranking
        Of the map in the brain.
    spacing : voxel size along each axis, in mm
    tissues : probability 0 to 1 by name of the tissue, on the same grid
    prescription
    organs : mask of each organ at risk by name, bool on the same grid

    Returns
    -------
    dict
        ``measures``: columns of table ``dose``; the healthy brain is the brain without the tumour core, the same for
        every model. ``dvh``: histogram (:func:`dvh`) of ``recurrence``, ``painted recurrence``, ``brain`` and, by the
        plan's dose, ``oar_<name>`` of each organ. ``organs``: of the plan's dose, see :func:`organ_measures`. What
        there is none of is NaN: recurrence, or painted dose where the brain is too small to take it up.

    Raises
    ------
    PlanError
        As the functions named above.
    """
    inside = fill_holes(brain)
    healthy = inside & ~core
    dose = plan_dose(plan, spacing, prescription)
    standard = dose if np.array_equal(plan, soc) else plan_dose(soc, spacing, prescription)
    budget = integral_dose(standard, inside, spacing)
    # Most painted voxels are well inside the brain and get the mean dose; where these do not suffice, all are ranked.
    enough = math.ceil(1.5 * budget / (np.mean(prescription.painted_gy) * math.prod(spacing) * 1e-6))
    painted, painted_ml = None, math.nan
    for limit in (enough, None):
        with suppress(PlanError):
            painted, painted_ml = painted_dose(
                ranking.first(limit), inside, spacing, budget, prescription=prescription
            )
            break

    at_recurrence, at_brain = dose[recurrence], dose[healthy]
    at_painted = dose[:0] if painted is None else painted[recurrence]
    prescribed_gy = prescription.dose_gy
    measures = {
        "plan_d95_gy": dose_at_volume(dose[plan], 0.95),
        "integral_gy_l": integral_dose(dose, inside, spacing),
        **{f"recurrence_{k}": v for k, v in recurrence_measures(at_recurrence, prescribed_gy).items()},
        **_brain_measures(at_brain, prescribed_gy, spacing),
        **{f"{name}_mean_gy": _weighted_mean(at_brain, p[healthy]) for name, p in (tissues or {}).items()},
        "painted_ml": painted_ml,
        **{f"painted_{k}": v for k, v in recurrence_measures(at_painted, prescribed_gy).items()},
    }
    histograms = {"recurrence": at_recurrence, "painted recurrence": at_painted, "brain": at_brain}
    return {
        "measures": measures,
        "dvh": _histograms(histograms | _at_organs(dose, organs)),
        "organs": organ_measures(dose, organs or {}, spacing),
    }


def evaluate_given_dose(
    dose: NDArray[np.floating],
    recurrence: NDArray[np.bool_],
    core: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    spacing: Sequence[float],
    prescribed_gy: float,
    organs: Mapping[str, NDArray[np.bool_]] | None = None,
) -> dict[str, Any]:
    """Measure a dose that was given, which no model and no plan of this benchmark has to do with.

    Parameters
    ----------
    dose : float array of shape (nx, ny, nz), Gy
    recurrence, core, brain : bool arrays of the same shape
        Recurrence that came, empty where none is known; pre-operative tumour core; brain mask.
    spacing : voxel size along each axis, in mm
    prescribed_gy : what 95 % are counted of
    organs : mask of each organ at risk by name, bool on the same grid

    Returns
    -------
    dict
        ``measures``: columns of table ``given_dose``; the core is measured as a dose in another frame shows there.
        ``dvh``: as of :func:`evaluate_dose`, of ``recurrence``, ``brain`` and ``oar_<name>``. ``lesions``: number and
        volume of each lesion of the recurrence, its part within the 95 % isodose, and the pattern that
        :mod:`predictgbm.patterns` makes of that. ``organs``: see :func:`organ_measures`.
    """
    inside = fill_holes(brain)
    at_recurrence, at_brain = dose[recurrence], dose[inside & ~core]
    within = dose >= COVERING * prescribed_gy
    return {
        "prescription_gy": prescribed_gy,
        "measures": {
            "integral_gy_l": integral_dose(dose, inside, spacing),
            "core_mean_gy": float(np.mean(dose[core], dtype=np.float64)) if core.any() else math.nan,
            **{f"recurrence_{k}": v for k, v in recurrence_measures(at_recurrence, prescribed_gy).items()},
            **_brain_measures(at_brain, prescribed_gy, spacing),
        },
        "dvh": _histograms({"recurrence": at_recurrence, "brain": at_brain} | _at_organs(dose, organs)),
        "lesions": [
            {
                "lesion": lesion["lesion"],
                "volume_ml": lesion["volume_ml"],
                "coverage_isodose": lesion["coverage"],
                "pattern_isodose": classify(lesion["coverage"]),
            }
            for lesion in lesions(within, recurrence, spacing)
        ],
        "organs": organ_measures(dose, organs or {}, spacing),
    }


def organ_measures(
    dose: NDArray[np.floating], organs: Mapping[str, NDArray[np.bool_]], spacing: Sequence[float]
) -> list[dict[str, Any]]:
    """Return volume, mean and near-maximum dose of each organ at risk, in Gy.

    The near-maximum, D0.03cc, is what the hottest :data:`NEAR_MAXIMUM_ML` get at least; NaN for a smaller organ.

    Parameters
    ----------
    dose : float array of shape (nx, ny, nz), Gy
    organs : bool array of the same shape by name
    spacing : voxel size along each axis, in mm
    """
    ml = math.prod(spacing) / 1000.0
    rows = []
    for name, organ in organs.items():
        values = dose[organ]
        volume = values.size * ml
        row = {"organ": name, "volume_ml": volume, "mean_gy": math.nan, "d003cc_gy": math.nan}
        if values.size:
            row["mean_gy"] = float(np.mean(values, dtype=np.float64))
        if volume >= NEAR_MAXIMUM_ML:
            row["d003cc_gy"] = dose_at_volume(values, NEAR_MAXIMUM_ML / volume)
        rows.append(row)
    return rows


def _at_organs(
    dose: NDArray[np.floating], organs: Mapping[str, NDArray[np.bool_]] | None
) -> dict[str, NDArray[np.floating]]:
    """Return the doses of the voxels of each organ, called by its column of the samplesheet."""
    return {f"{ORGAN}{name}": dose[organ] for name, organ in (organs or {}).items()}


def _brain_measures(
    doses: NDArray[np.floating], prescribed_gy: float, spacing: Sequence[float]
) -> dict[str, float]:
    """Return mean dose of the brain's voxels and the volumes that get much of the prescription."""
    ml = math.prod(spacing) / 1000.0
    return {
        "brain_mean_gy": float(np.mean(doses, dtype=np.float64)) if doses.size else math.nan,
        "brain_v95_ml": float(np.count_nonzero(doses >= COVERING * prescribed_gy)) * ml,
        "brain_v50_ml": float(np.count_nonzero(doses >= 0.5 * prescribed_gy)) * ml,
    }


def _histograms(doses: Mapping[str, NDArray[np.floating]]) -> dict[str, list[float]]:
    """Return the histogram of each structure that has voxels, as JSON takes it."""
    return {name: np.round(dvh(values), 6).tolist() for name, values in doses.items() if values.size}


def _weighted_mean(values: NDArray[np.floating], weights: NDArray[np.floating]) -> float:
    total = float(np.sum(weights, dtype=np.float64))
    return float(np.dot(values.astype(np.float64), weights)) / total if total > 0 else math.nan


def _refine(array: NDArray[np.float32], axis: int, parts: int) -> NDArray[np.float32]:
    """Return an array with each step along an axis parted, linear in between; distances from a flat edge stay exact."""
    if parts == 1:
        return array
    old = np.moveaxis(array, axis, 0)
    new = np.empty(((old.shape[0] - 1) * parts + 1, *old.shape[1:]), np.float32)
    new[::parts] = old
    for k in range(1, parts):
        new[k::parts] = old[:-1] + (old[1:] - old[:-1]) * np.float32(k / parts)
    return np.moveaxis(new, 0, axis)


def _width(distance: NDArray[np.float32], spacing: Sequence[float]) -> NDArray[np.float32] | np.float32:
    """Return the width of a voxel across the surfaces of equal distance, in mm.

    That of the uniform density whose variance is a voxel's projection on the normal: the voxel size where the normal is
    an axis.
    """
    if math.isclose(min(spacing), max(spacing), rel_tol=0.01):
        return np.float32(np.mean(spacing))
    slopes = [np.gradient(distance, s, axis=axis) ** 2 for axis, s in enumerate(spacing)]
    squared = sum(slope * np.float32(s**2) for slope, s in zip(slopes, spacing, strict=True))
    steepness = np.sum(slopes, axis=0)
    # Where all is equally far, as within the plan, there is no edge to soften.
    flat = steepness < 1e-6
    return np.asarray(
        np.sqrt(np.where(flat, min(spacing) ** 2, squared / np.where(flat, 1, steepness))), np.float32
    )


def _blur(array: NDArray[np.float32], spacing: Sequence[float], sigma_mm: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter  # not loaded where no dose is asked for

    sigma = [sigma_mm / s for s in spacing]
    return np.asarray(gaussian_filter(array, sigma, mode="constant", truncate=TRUNCATION), np.float32)


def _cut(block: NDArray[np.float32], start: Sequence[int], shape: Sequence[int]) -> NDArray[np.float32]:
    """Return an array of a shape with a block laid into it; what lies beyond the array is lost."""
    result = np.zeros(shape, np.float32)
    to = [slice(max(0, a), min(n, a + m)) for a, m, n in zip(start, block.shape, shape, strict=True)]
    source = [slice(side.start - a, side.stop - a) for side, a in zip(to, start, strict=True)]
    result[tuple(to)] = block[tuple(source)]
    return result
