"""Compartments of the brain that the dura keeps apart: what lies on either side of falx and tentorium.

The atlases have no parcellation. Their T1 tells the compartments all the same: from points in the white matter of each
hemisphere, of the posterior fossa and of the midbrain fronts spread, fast in bright tissue and slowly in dark, and a
voxel belongs to the front that comes first. Fronts meet in what is dark between them, the fissures in which falx and
tentorium lie. The only way from cerebrum to posterior fossa, through the notch of the tentorium, leads by the midbrain
with the cerebral peduncles, which is open to both. The corpus callosum and what lies below it in the midline are a
compartment of their own, open to both hemispheres.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import COMPARTMENTS, Atlas, load_atlas, read_space, resample_atlas
from predictgbm.images import Image, ImageError, read_image, to_ras


class Compartment(IntEnum):
    """Labels of the map of compartments."""

    LEFT = 1
    RIGHT = 2
    #: What lies below the tentorium: cerebellum, its peduncles, pons and medulla.
    POSTERIOR_FOSSA = 3
    #: Midbrain and what is nearest to it, in the notch of the tentorium.
    MIDBRAIN = 4
    #: Corpus callosum, and the midline below it: septum, fornix, third ventricle, diencephalon.
    MIDLINE = 5


Points = Sequence[tuple[float, float, float]]

#: Space -> points in white matter from which the fronts spread, in mm of that space (right, anterior, superior):
#: centrum semiovale and medial temporal lobe, cerebellar hemispheres and pons, and midbrain. Without the temporal point
#: the brain stem's front takes the medial temporal lobe, and the way from there leads below the tentorium.
SEEDS: Mapping[str, Mapping[Compartment, Points]] = {
    "SRI24": {
        Compartment.LEFT: [(-144, 110, 95), (-142, 112, 46)],
        Compartment.RIGHT: [(-94, 110, 95), (-96, 110, 46)],
        Compartment.POSTERIOR_FOSSA: [(-134, 70, 30), (-104, 70, 30), (-119, 100, 36)],
        Compartment.MIDBRAIN: [(-119, 98, 56)],
    },
    "MNI152": {
        Compartment.LEFT: [(-26, -20, 30), (-26, -20, -26)],
        Compartment.RIGHT: [(26, -20, 30), (26, -20, -26)],
        Compartment.POSTERIOR_FOSSA: [(-22, -60, -36), (22, -60, -36), (0, -28, -32)],
        Compartment.MIDBRAIN: [(0, -26, -12)],
    },
}

#: Voxel of the map, in mm.
SPACING_MM = 2.0
#: The front is exp(this) times slower in the darkest tissue than in white matter.
SLOWING = 6.0
#: Half the width of the midline compartment, and how far it reaches above the corpus callosum of the atlas, in mm.
MIDLINE_HALF_WIDTH_MM = 10.0
CALLOSUM_MARGIN_MM = 2.0


def derive_compartments(atlas: Atlas, seeds: Mapping[Compartment, Points]) -> Image:
    """Return the map of compartments of an atlas.

    Parameters
    ----------
    atlas
        In RAS voxel order.
    seeds
        Points of each compartment but :attr:`Compartment.MIDLINE`, in mm of the atlas's space.

    Returns
    -------
    Image
        uint8, :class:`Compartment`; voxels of :data:`SPACING_MM`. Voxels outside the brain bear the label of the
        nearest in it, so that an exam whose brain is larger finds the same walls.
    """
    affine = atlas.affine.copy()
    affine[:3, :3] *= SPACING_MM / np.array(atlas.spacing)
    x, y, z = (int(n * s / SPACING_MM) for n, s in zip(atlas.shape, atlas.spacing, strict=True))
    atlas = resample_atlas(atlas, (x, y, z), affine)
    brain = atlas.brain_mask
    bright = np.clip(atlas.t1 / np.percentile(atlas.t1[brain], 99), 0, 1)
    speed = np.where(brain, np.exp(SLOWING * (bright - 1)), 0).astype(np.float32)
    names = list(seeds)
    times = [_arrival(speed, affine, seeds[name]) for name in names]
    labels = np.where(brain, np.array(names, np.uint8)[np.argmin(times, axis=0)], 0).astype(np.uint8)
    labels[_midline(labels, atlas.wm)] = Compartment.MIDLINE
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return Image(labels[tuple(nearest)], affine, COMPARTMENTS)


def _arrival(speed: NDArray[np.float32], affine: NDArray[np.float64], points: Points) -> NDArray[np.float32]:
    """Return when a front from some points comes to each voxel."""
    to_voxel = np.linalg.inv(affine)
    fast_marching = SimpleITK.FastMarchingImageFilter()
    fast_marching.SetTrialPoints([np.rint((to_voxel @ [*p, 1])[:3]).astype(int).tolist() for p in points])
    image = SimpleITK.GetImageFromArray(speed.transpose(2, 1, 0))
    times: NDArray[np.float32] = SimpleITK.GetArrayFromImage(fast_marching.Execute(image)).transpose(2, 1, 0)
    return times


def _midline(labels: NDArray[np.uint8], wm: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the corpus callosum and the cerebral midline below it, between its front and its back end."""
    hemispheres = (Compartment.LEFT, Compartment.RIGHT)
    touch = (labels[:-1] == Compartment.LEFT) & (labels[1:] == Compartment.RIGHT)
    middle = int(np.median(np.nonzero(touch)[0]))
    section = (wm[middle : middle + 2].mean(axis=0) > 0.5) & np.isin(labels[middle], hemispheres)
    parts, n_parts = ndimage.label(section)
    if not n_parts:
        return np.zeros(labels.shape, bool)
    callosum = parts == 1 + np.bincount(parts[parts > 0] - 1).argmax()
    rows = np.arange(labels.shape[2])
    roof = np.where(callosum.any(axis=1), np.where(callosum, rows, -1).max(axis=1), -np.inf)
    roof += round(CALLOSUM_MARGIN_MM / SPACING_MM)
    reach = round(MIDLINE_HALF_WIDTH_MM / SPACING_MM)
    result = np.zeros(labels.shape, bool)
    result[middle - reach + 1 : middle + reach + 1] = rows[None, None] <= roof[None, :, None]
    result &= np.isin(labels, hemispheres)
    return result


def load_compartments(folder: str | os.PathLike[str]) -> Image | None:
    """Return the map of compartments of an atlas folder: its own file or, where it lacks one, derived on the spot.

    None for an atlas that has neither the file nor, in its brain, the :data:`SEEDS` of its space.

    Raises
    ------
    ImageError
        From :func:`predictgbm.atlas.load_atlas`, or if the file holds labels that are not :class:`Compartment`'s.
    """
    path = Path(folder) / COMPARTMENTS
    if path.exists():
        image = to_ras(read_image(path, np.uint8))
        if image.data.max() > max(Compartment):
            raise ImageError(f"{path}: holds the label {image.data.max()}; labels go to {max(Compartment)}")
        return image
    seeds = SEEDS.get(read_space(folder), {})
    atlas = load_atlas(folder) if seeds else None
    if atlas is None or not all(_in_brain(atlas, point) for points in seeds.values() for point in points):
        return None
    return derive_compartments(atlas, seeds)


def _in_brain(atlas: Atlas, point: tuple[float, float, float]) -> bool:
    x, y, z = np.rint(np.linalg.inv(atlas.affine)[:3] @ [*point, 1]).astype(int)
    inside = all(0 <= i < n for i, n in zip((x, y, z), atlas.shape, strict=True))
    return inside and bool(atlas.brain_mask[x, y, z])


def falx_mask(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the voxels at the falx: those of a hemisphere with a face in common with the other."""
    return _interface(labels == Compartment.LEFT, labels == Compartment.RIGHT)


def dura_mask(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the voxels at falx and tentorium: those with a face in common with what the dura keeps them from.

    The falx parts left from right hemisphere, the tentorium the posterior fossa from the cerebrum. Nothing parts the
    midbrain from the rest, nor the midline compartment from the hemispheres. The wall is two voxels thick and has no
    holes that lead through faces.
    """
    below = labels == Compartment.POSTERIOR_FOSSA
    cerebrum = np.isin(labels, (Compartment.LEFT, Compartment.RIGHT, Compartment.MIDLINE))
    return falx_mask(labels) | _interface(cerebrum, below)


def _interface(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.bool_]:
    result = np.zeros(a.shape, bool)
    for axis in range(3):
        first = (slice(None),) * axis + (slice(None, -1),)
        second = (slice(None),) * axis + (slice(1, None),)
        touch = (a[first] & b[second]) | (b[first] & a[second])
        result[first] |= touch
        result[second] |= touch
    return result
