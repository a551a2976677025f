"""Tumour segmentation without weights, of trial quality: outliers of a tissue model guided by the atlas.

Healthy tissue is three Gaussian classes in the four contrasts with the atlas as spatial prior and a smooth field per
contrast (after Van Leemput K, Maes F, Vandermeulen D, Suetens P. IEEE Transactions on Medical Imaging 18:885-896,
1999, doi:10.1109/42.811268); what is brighter on FLAIR than both parenchymal classes is tumour, as outliers of such a
model are (Prastawa M, Bullitt E, Ho S, Gerig G. Medical Image Analysis 8:275-283, 2004,
doi:10.1016/j.media.2004.06.007). Inside and around it, contrast uptake is T1c against T1. Only ratios to the
spread of healthy tissue count, so images may be in scanner units or normalised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import Atlas
from predictgbm.images import ImageError
from predictgbm.labels import WHOLE_TUMOR, Tumor
from predictgbm.masks import bounding_box
from predictgbm.preprocessing import two_levels

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

#: Order of the contrasts in every array with a channel axis.
CONTRASTS = ("t1", "t1c", "t2", "flair")
T1, T1C, T2, FLAIR = range(4)

#: Individual anatomy differs from the atlas by about this, in mm: the prior is smoothed by it.
PRIOR_MM = 3.0
#: Smoothness of the intensity field, in mm.
FIELD_MM = 20.0
#: Grid on which the model is fitted, in mm: it has few parameters.
FIT_MM = 2.0
ITERATIONS = 10

#: Standard deviations above parenchyma that the FLAIR of a lesion must reach somewhere, and everywhere.
FLAIR_SEED, FLAIR_EDGE = 3.0, 1.25
#: Contrast uptake begins this many standard deviations above the uptake of healthy tissue.
UPTAKE_SEED = 3.0
#: How far around a lesion tumour is looked for, and how deep the rim of the brain mask is, in mm.
NEAR_MM = 4.0
RIM_MM = 4.0
#: How probable necrosis is where enhancing tumour lies on both sides along 0, 1, 2 or 3 axes.
NECROSIS_PRIOR = (0.01, 0.1, 0.6, 0.9)
#: Enclosed tissue is told into oedema and necrosis if one part of it is oedema-like, below the first of these standard
#: deviations of oedema towards fluid, and the other beyond the second.
LIKE_OEDEMA, LIKE_FLUID = 2.0, 1.5
#: Least volume, in ml, of oedema that is not enclosed for that comparison.
SMALLEST_OEDEMA_ML = 0.5
#: How far a voxel must be from the FLAIR of healthy tissue to that of oedema to be oedema, and from the T1c of oedema
#: to that of enhancing tumour to be enhancing. Half way would be right for even lesions; they have dim parts as well.
OEDEMA_SHARE, ENHANCING_SHARE = 0.25, 0.4
#: Weight of the neighbourhood, and steps, of the relaxation.
NEIGHBOURS = 5.0
RELAXATIONS = 4
#: Smallest part without core that is kept beside one with core, in ml: most are healthy grey matter.
SMALLEST_SATELLITE_ML = 10.0
#: Smallest parts that are kept, in ml: of the whole lesion, of the enhancing tumour, of a cavity.
SMALLEST_LESION_ML, SMALLEST_ENHANCING_ML, SMALLEST_CAVITY_ML = 1.0, 0.05, 1.0


@dataclass(frozen=True)
class TissueModel:
    """Healthy tissue of one exam, in standardised intensities.

    Attributes
    ----------
    mean : array of shape (3, 4), class WM, GM, CSF by contrast
    covariance : array of shape (3, 4, 4)
    residual : float32 array (4, nx, ny, nz), standardised intensities less the smooth field, 0 outside the brain
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    residual: Array

    def above_parenchyma(self, contrast: int) -> Array:
        """Return by how many standard deviations each voxel is brighter than the brighter of WM and GM."""
        level = self.mean[:2, contrast].max()
        spread = np.sqrt(self.covariance[:2, contrast, contrast].mean())
        return np.asarray((self.residual[contrast] - level) / spread, np.float32)


def smooth(array: NDArray[np.generic], mm: float, spacing: Spacing) -> Array:
    """Smooth by a Gaussian of standard deviation ``mm``, with zeros beyond the edge."""
    sigma = [mm / s for s in spacing]
    return np.asarray(
        ndimage.gaussian_filter(array.astype(np.float32), sigma, mode="constant", truncate=3), np.float32
    )


def dilate(mask: Mask, mm: float, spacing: Spacing) -> Mask:
    """Widen a mask by a distance in mm."""
    return np.asarray(edt.edt(~mask, anisotropy=spacing) <= mm) if mask.any() else mask


def erode(mask: Mask, mm: float, spacing: Spacing) -> Mask:
    """Narrow a mask by a distance in mm; beyond the edge of the array is outside."""
    return np.asarray(edt.edt(mask, anisotropy=spacing, black_border=True) > mm)


def standardise(image: Array, parenchyma: Mask) -> Array:
    """Bring the median of the parenchyma to 0 and its quartiles to those of a standard normal distribution."""
    low, middle, high = np.percentile(image[parenchyma], [25, 50, 75])
    if not high > low:
        raise ImageError("holds one value in most of the brain; give the image itself, not a mask or labels")
    return np.asarray((image - middle) * (1.349 / (high - low)), np.float32)


def fit_tissue(standardised: Array, atlas: Atlas, brain: Mask) -> TissueModel:
    """Fit classes and smooth fields by expectation maximisation, leaving out what no healthy tissue explains.

    Parameters
    ----------
    standardised : float32 array (4, nx, ny, nz), each contrast from :func:`standardise`
    atlas : atlas on the same grid
    brain : bool array (nx, ny, nz)
    """
    step = [max(1, round(FIT_MM / s)) for s in atlas.spacing]
    coarse = tuple(slice(n // 2, None, n) for n in step)
    x_mm, y_mm, z_mm = (s * n for s, n in zip(atlas.spacing, step, strict=True))
    spacing = (x_mm, y_mm, z_mm)
    inside = brain[coarse]
    half = [n / 2 if n > 1 else 0 for n in step]
    x = np.stack([ndimage.gaussian_filter(c, [h / 2 for h in half])[coarse][inside] for c in standardised])
    prior = np.stack(
        [smooth(m, PRIOR_MM, atlas.spacing)[coarse][inside] for m in (atlas.wm, atlas.gm, atlas.csf)]
    )
    prior += 0.02
    prior /= prior.sum(axis=0)

    dark = (x[FLAIR] < 2) & (x[T1C] < 3)
    mean, covariance = zip(
        *(_moments(x.clip(-4, 4), p * (p > 0.8 * p.max()) * dark) for p in prior), strict=True
    )
    field = np.zeros_like(x)
    for _ in range(ITERATIONS):
        y = x - field
        distance = np.stack([_mahalanobis(y, m, c) for m, c in zip(mean, covariance, strict=True)])
        size = np.array([np.sqrt(np.linalg.det(c)) for c in covariance])[:, None]
        share = prior * np.exp(-0.5 * distance) / size
        share /= share.sum(axis=0) + 1e-12
        share *= distance.min(axis=0) < 13
        for contrast, limit in ((FLAIR, 2.5), (T1C, 3.0)):
            highest = max(
                m[contrast] + limit * np.sqrt(c[contrast, contrast])
                for m, c in zip(mean[:2], covariance[:2], strict=True)
            )
            share *= y[contrast] < highest
        mean, covariance = zip(*(_moments(y, s) for s in share), strict=True)
        field = _fields(x, share, mean, covariance, inside, spacing)

    residual = np.zeros_like(standardised)
    whole = [np.arange(n) for n in brain.shape]
    at = np.meshgrid(
        *((w - s.start) / s.step for w, s in zip(whole, coarse, strict=True)), indexing="ij", copy=False
    )
    for contrast in range(len(CONTRASTS)):
        volume = np.zeros(inside.shape, np.float32)
        volume[inside] = field[contrast]
        if max(step) > 1:
            nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
            volume = ndimage.map_coordinates(volume[tuple(nearest)], at, order=1, mode="nearest")
        residual[contrast] = np.where(brain, standardised[contrast] - volume, 0)
    return TissueModel(np.array(mean), np.array(covariance), residual)


def _moments(
    x: NDArray[np.floating], weight: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weighted mean and covariance of the columns of ``x``; a class without voxels stays wide."""
    weight = weight.astype(np.float64) + 1e-9
    weight /= weight.sum()
    mean = x @ weight
    off = x - mean[:, None]
    return mean, (off * weight) @ off.T + 0.03 * np.eye(len(x))


def _mahalanobis(
    x: NDArray[np.floating], mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), x - mean[:, None])
    return np.asarray((whitened**2).sum(axis=0))


def _fields(
    x: Array,
    share: NDArray[np.floating],
    mean: Sequence[NDArray[np.float64]],
    covariance: Sequence[NDArray[np.float64]],
    inside: Mask,
    spacing: Spacing,
) -> Array:
    """Return the smooth part of what WM and GM leave unexplained, weighted mean 0."""
    fields = np.zeros_like(x)
    for contrast in range(len(x)):
        total, weight = np.zeros(inside.shape, np.float32), np.zeros(inside.shape, np.float32)
        precision = [share[k] / covariance[k][contrast, contrast] for k in (0, 1)]
        total[inside] = sum(p * (x[contrast] - mean[k][contrast]) for k, p in enumerate(precision))
        weight[inside] = sum(precision)
        weight = smooth(weight, FIELD_MM, spacing)
        fields[contrast] = (smooth(total, FIELD_MM, spacing) / (weight + 0.02 * weight.max() + 1e-9))[inside]
    healthy = share[0] + share[1]
    return fields - (fields * healthy).sum(axis=1, keepdims=True) / healthy.sum()


def hysteresis(mask: Mask, seed: Mask, smallest: float) -> Mask:
    """Return the connected parts of a mask that hold a voxel of ``seed`` and at least ``smallest`` voxels."""
    parts = cc3d.connected_components(mask, connectivity=26)
    count = np.bincount(parts.ravel())
    kept = (count >= smallest) & (np.bincount(parts[mask & seed], minlength=len(count)) > 0)
    kept[0] = False
    return np.asarray(kept[parts])


def enclosure(mask: Mask) -> NDArray[np.uint8]:
    """Count the axes, 0 to 3, along which a voxel has the mask on both sides or belongs to it."""
    count = np.zeros(mask.shape, np.uint8)
    for axis in range(3):
        before = np.maximum.accumulate(mask, axis=axis)
        behind = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)
        count += before & behind
    return count


def find_lesion(model: TissueModel, deep: Mask, spacing: Spacing) -> Mask:
    """Return what is brighter on FLAIR than healthy tissue, within ``deep``, the brain without its rim."""
    score = smooth(model.above_parenchyma(FLAIR).clip(-4, 8) * deep, 1.5, spacing)
    smallest = SMALLEST_LESION_ML * 1000 / float(np.prod(spacing))
    return hysteresis(deep & (score > FLAIR_EDGE), score > FLAIR_SEED, smallest)


def find_enhancing(model: TissueModel, deep: Mask, lesion: Mask, spacing: Spacing) -> Mask:
    """Return where contrast is taken up in and around a lesion.

    Uptake is T1c less half of T1, which takes out part of the anatomy they share without the noise of both. The
    threshold lies midway between tissue with and without uptake (:func:`two_levels`).
    """
    uptake = smooth((model.residual[T1C] - 0.5 * model.residual[T1]) * deep, 0.7, spacing)
    near = deep & dilate(lesion, NEAR_MM, spacing)
    if not near.any():
        return near
    low, level, high = np.percentile(uptake[deep & ~near], [16, 50, 84])
    spread = (high - low) / 2
    threshold, without, with_uptake = two_levels(uptake[near], level + UPTAKE_SEED * spread)
    if not with_uptake - without > UPTAKE_SEED * spread:
        return np.zeros_like(deep)
    seed = uptake > threshold + (with_uptake - threshold) / 4
    return hysteresis(
        near & (uptake > threshold), seed, SMALLEST_ENHANCING_ML * 1000 / float(np.prod(spacing))
    )


def find_cavity(model: TissueModel, atlas: Atlas, brain: Mask, middle: float) -> Mask:
    """Return fluid where neither the atlas nor the other side of the head has any: a resection cavity.

    Parameters
    ----------
    model, atlas, brain
        On one grid whose first axis runs from left to right.
    middle
        Index of the mid-sagittal plane on the first axis.
    """
    spacing = atlas.spacing
    distance = [
        _mahalanobis(model.residual[:, brain], m, c)
        for m, c in zip(model.mean, model.covariance, strict=True)
    ]
    bright, dark = model.above_parenchyma(T2), model.above_parenchyma(FLAIR)
    fluid = np.zeros(brain.shape, bool)
    fluid[brain] = distance[2] < np.minimum(distance[0], distance[1])
    fluid &= (bright > 3) & (dark < 0)
    mirrored = mirror(smooth(fluid, PRIOR_MM, spacing), middle)
    expected = np.maximum(smooth(atlas.csf, PRIOR_MM, spacing), mirrored)
    deep = edt.edt(brain & atlas.brain_mask, anisotropy=spacing, black_border=True) > RIM_MM
    seed = erode(fluid & (expected < 0.2) & deep, 3.0, spacing)
    # Grown back to where it was cut, but not along the fluid spaces it may open into.
    grown = fluid & dilate(seed, 6.0, spacing) & (expected < 0.5)
    return hysteresis(grown, seed, SMALLEST_CAVITY_ML * 1000 / np.prod(spacing))


def mirror(array: Array, middle: float) -> Array:
    """Reflect an array along its first axis in the plane at index ``middle``, by the nearest voxel; 0 from outside."""
    index = np.rint(2 * middle - np.arange(len(array))).astype(int)
    inside = (index >= 0) & (index < len(array))
    result = np.zeros_like(array)
    result[inside] = array[index[inside]]
    return result


def necrosis_among(enclosed: Mask, oedema: Mask, y: NDArray[np.floating], fluid: NDArray[np.float64]) -> Mask:
    """Return which enclosed voxels are necrosis rather than oedema between the lobes of an enhancing tumour.

    Both are compared in T1, T2 and FLAIR along the line that best separates oedema from fluid (Fisher's linear
    discriminant). Where that shows one kind only, place decides: all of it is necrosis.

    Parameters
    ----------
    enclosed, oedema : bool arrays of shape (n,)
        Voxels in question, and oedema that is not enclosed.
    y : array of shape (4, n)
        Standardised intensities.
    fluid : array of shape (4,)
        Those of CSF.
    """
    contrasts = [T1, T2, FLAIR]
    mean, covariance = _moments(y[contrasts][:, oedema], np.ones(np.count_nonzero(oedema)))
    axis = np.linalg.solve(covariance, fluid[contrasts] - mean)
    score = axis @ (y[contrasts][:, enclosed] - mean[:, None]) / np.sqrt(axis @ covariance @ axis)
    threshold, low, high = two_levels(score, LIKE_FLUID)
    necrosis = np.array(enclosed)
    if low < LIKE_OEDEMA and high > LIKE_FLUID:
        necrosis[enclosed] = score > threshold
    return necrosis


def relax(
    model: TissueModel, atlas: Atlas, brain: Mask, lesion: Mask, enhancing: Mask, cavity: Mask
) -> NDArray[np.uint8]:
    """Give every voxel in and around a lesion its most probable class, with what its neighbourhood holds as prior.

    Classes are healthy tissue (the model, known), oedema, necrosis, enhancing tumour and cavity (Gaussian, moments
    from their voxels). Necrosis is expected where enhancing tumour lies on all sides (:func:`enclosure`,
    :func:`necrosis_among`). A few steps of mean-field expectation maximisation, the neighbourhood being a Gaussian
    window. As a wide Gaussian would also take what at its edge is half something else, the FLAIR of oedema and the T1c
    of enhancing tumour must lie a good part of the way from what is around them.

    Returns
    -------
    labels : uint8 array, canonical labels
    """
    spacing = atlas.spacing
    around = enclosure(enhancing)
    region = brain & dilate(lesion | enhancing | cavity | (around >= 2), NEAR_MM, spacing)
    labels = np.zeros(brain.shape, np.uint8)
    if not region.any():
        return labels
    box = bounding_box(region, 6)
    inside = region[box]

    y = model.residual[:, box[0], box[1], box[2]][:, inside]
    tissue = (
        np.stack([smooth(m[box], PRIOR_MM, spacing)[inside] for m in (atlas.wm, atlas.gm, atlas.csf)]) + 0.02
    )
    tissue /= tissue.sum(axis=0)
    healthy = sum(p * _density(y, m, c) for p, m, c in zip(tissue, model.mean, model.covariance, strict=True))

    bright, active, fluid, ring = (a[box][inside] for a in (lesion, enhancing, cavity, around))
    rest = ~active & ~fluid
    oedema, enclosed = np.array(rest & bright & (ring < 2)), np.array(rest & (ring >= 2))
    necrosis = enclosed
    if np.count_nonzero(oedema) * np.prod(spacing) > 1000 * SMALLEST_OEDEMA_ML and enclosed.any():
        necrosis = necrosis_among(enclosed, oedema, y, model.mean[2])
    oedema = oedema | (enclosed & ~necrosis)
    share = np.stack([rest & ~bright & (ring < 2), oedema, necrosis, active & ~fluid, fluid]).astype(
        np.float32
    )
    present = share.sum(axis=1) > 0
    far = (
        edt.edt(~enhancing[box], anisotropy=spacing)[inside]
        if enhancing.any()
        else np.full(len(ring), np.inf)
    )
    dead = np.interp(smooth(around[box], 2.0, spacing)[inside], [0, 1, 2, 3], NECROSIS_PRIOR)
    dead *= np.exp(-np.maximum(far - 3, 0) / 8)
    prior = np.stack(
        [
            np.full_like(dead, 0.4),
            0.6 * (1 - dead),
            0.6 * dead,
            np.full_like(dead, 0.3),
            np.full_like(dead, 0.3),
        ]
    )
    prior[~present] = 0

    flair, t1c = (smooth(model.residual[c][box], 0.7, spacing)[inside] for c in (FLAIR, T1C))
    volume = np.zeros(inside.shape, np.float32)
    for _ in range(RELAXATIONS):
        moments = [_moments(y, s) for s in share[1:]]
        likelihood = np.stack([healthy, *(_density(y, *m) for m in moments)])
        parenchyma = model.mean[:2].max(axis=0)
        oedematous = moments[0][0] if present[1] else parenchyma
        for k, image, contrast, without, part in (
            (1, flair, FLAIR, parenchyma, OEDEMA_SHARE),
            (3, t1c, T1C, oedematous, ENHANCING_SHARE),
        ):
            gain = moments[k - 1][0][contrast] - without[contrast]
            likelihood[k][image < without[contrast] + part * gain] = 0
        window = np.empty_like(share)
        for k, s in enumerate(share):
            volume[inside] = s
            window[k] = smooth(volume, 1.5, spacing)[inside]
        window = (window + 0.02) / (window + 0.02).sum(axis=0)
        share = (likelihood * prior * window**NEIGHBOURS).astype(np.float32)
        share /= share.sum(axis=0) + 1e-30
    classes = np.array([0, Tumor.EDEMA, Tumor.NECROSIS, Tumor.ENHANCING, Tumor.CAVITY], np.uint8)
    labels[region] = classes[share.argmax(axis=0)]
    return without_satellites(labels, spacing)


def without_satellites(labels: NDArray[np.uint8], spacing: Spacing) -> NDArray[np.uint8]:
    """Return labels without the small connected parts that hold oedema alone, where another part holds more."""
    parts = cc3d.connected_components((labels > 0).astype(np.uint8), connectivity=6)
    with_core = np.bincount(parts[labels > Tumor.EDEMA], minlength=parts.max() + 1)
    with_core += np.bincount(parts[labels == Tumor.NECROSIS], minlength=parts.max() + 1)
    if not with_core.any():
        return labels
    large = np.bincount(parts.ravel()) * np.prod(spacing) >= 1000 * SMALLEST_SATELLITE_ML
    return np.where((large | (with_core > 0))[parts], labels, 0).astype(np.uint8)


def _density(
    y: NDArray[np.floating], mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the Gaussian density of the columns of ``y`` up to a common factor, never quite 0."""
    return np.exp(-0.5 * np.minimum(_mahalanobis(y, mean, covariance), 60)) / np.sqrt(
        np.linalg.det(covariance)
    )


def segment_tumor(
    images: Mapping[str, NDArray[np.generic]], brain: Mask, atlas: Atlas, phase: str
) -> NDArray[np.uint8]:
    """Segment a glioma from four contrasts in atlas space.

    Parameters
    ----------
    images
        ``t1``, ``t1c``, ``t2``, ``flair``: arrays of the shape of the atlas, in any linear scale of intensity.
    brain
        Brain mask; rests of dura or scalp at its rim are tolerated.
    atlas
        Atlas on the same grid, in RAS voxel order.
    phase
        ``preop`` or ``followup``; only a follow-up can have a resection cavity.

    Returns
    -------
    labels : uint8 array, canonical labels; of a follow-up possibly all zero

    Raises
    ------
    ImageError
        If a contrast is constant in the brain, brain and atlas do not meet, or a pre-operative exam shows nothing.
    """
    parenchyma = brain & (atlas.wm + atlas.gm > 0.8)
    if np.count_nonzero(parenchyma) * np.prod(atlas.spacing) < 100e3:
        raise ImageError(
            "less than 100 ml of brain mask and brain of the atlas meet; is the exam in atlas space?"
        )
    box = bounding_box(brain, 2)
    small = crop(atlas, box)
    mask = brain[box]
    standard = np.empty((len(CONTRASTS), *mask.shape), np.float32)
    for k, name in enumerate(CONTRASTS):
        try:
            standard[k] = standardise(np.asarray(images[name][box], np.float32), parenchyma[box]) * mask
        except ImageError as error:
            raise ImageError(f"{name} {error}") from error
    model = fit_tissue(standard, small, mask)
    deep = erode(mask, RIM_MM, small.spacing)
    lesion = find_lesion(model, deep, small.spacing)
    cavity = np.zeros_like(mask)
    if phase == "followup":
        middle = (
            float(np.average(np.arange(atlas.shape[0]), weights=atlas.brain_mask.sum(axis=(1, 2))))
            - box[0].start
        )
        cavity = find_cavity(model, small, mask, middle)
    enhancing = find_enhancing(model, deep, lesion | cavity, small.spacing)
    labels = np.zeros(brain.shape, np.uint8)
    labels[box] = relax(model, small, mask, lesion, enhancing & ~cavity, cavity)
    if phase == "preop" and not np.isin(labels, WHOLE_TUMOR).any():
        raise ImageError(
            "no tumour was found: nothing is clearly brighter on FLAIR than healthy tissue; check contrasts and "
            "brain mask, or give the exam a tumor_seg"
        )
    return labels


def crop(atlas: Atlas, box: tuple[slice, slice, slice]) -> Atlas:
    """Return the part of an atlas within a box."""
    affine = atlas.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return Atlas(
        atlas.t1[box],
        atlas.wm[box],
        atlas.gm[box],
        atlas.csf[box],
        atlas.brain_mask[box],
        affine,
        atlas.spacing,
        atlas.space,
    )
