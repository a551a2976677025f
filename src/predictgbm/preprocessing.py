"""From the images of an exam in atlas space to what the models read: brain mask, tissue maps, volumes."""

from __future__ import annotations

from typing import Any

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from predictgbm.atlas import MINIMUM_TISSUE, Atlas, normalise_tissue, resample
from predictgbm.images import Image, ImageError
from predictgbm.masks import dice, overlap_coefficient

#: A brain that shares less than this with the atlas brain (Dice) does not lie in atlas space. The brain of MNI152 has
#: 1,887 ml: one of 900 ml that lies wholly within it reaches .65.
MINIMUM_ATLAS_DICE = 0.6
#: An exam is flagged if less of the smaller brain, its own or the atlas's, lies within the larger. Dice would flag a
#: brain of 1,450 ml for its size in MNI152. Aligned rigidly, a real exam has .994 in SRI24 and .981 in MNI152 and a
#: simulated one .966; moved by 10 mm they have .88 to .955.
EXPECTED_ATLAS_OVERLAP = 0.92

#: Depth of the atlas's rim, mostly cortex and cerebrospinal fluid, that stands in for brain beyond the atlas.
RIM_MM = 5.0


def derive_brain_mask(t1c: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return the brain of a brain-extracted image: its non-zero voxels, largest component, holes filled.

    Parameters
    ----------
    t1c
        Image of shape (nx, ny, nz), 0 outside the brain.

    Raises
    ------
    ValueError
        If every voxel is zero.
    """
    mask = t1c != 0
    if not mask.any():
        raise ValueError("every voxel is zero, there is no brain to find")
    brain = cc3d.largest_k(mask.astype(np.uint8), k=1, connectivity=26) > 0
    # A rim of background joins everything outside into one component; whatever it does not reach is a hole.
    outside = cc3d.connected_components(~np.pad(brain, 1), connectivity=6)
    filled: NDArray[np.bool_] = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return filled


def tissue_prior(
    atlas: Atlas, reference: Image, brain_mask: NDArray[np.bool_], t1: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], dict[str, Any]]:
    """Return the atlas's tissue maps for an exam in atlas space, summing to 1 in the exam's brain.

    The maps lie where the atlas has them: the exam is in atlas space, and nothing is fitted to it. Brain that
    the atlas does not reach gets the mean composition of the atlas's outermost :data:`RIM_MM`.

    Parameters
    ----------
    atlas
        Atlas on its own grid.
    reference
        Image of the exam whose grid is wanted.
    brain_mask, t1
        Brain mask and T1 image of the exam, arrays of the reference's shape.

    Returns
    -------
    wm, gm, csf : float32 arrays, 0 to 1, 0 outside the brain
    facts
        ``atlas_dice``: Dice of the exam's brain with the atlas's; ``atlas_overlap``: share of the smaller of the two
        that lies in the larger.

    Raises
    ------
    ImageError
        If the brains overlap by less than :data:`MINIMUM_ATLAS_DICE`.
    """

    def place(array: NDArray[Any]) -> NDArray[np.float32]:
        return resample(array.astype(np.float32), atlas.affine, reference.shape, reference.affine)

    total = place(atlas.brain_mask)
    covered = total >= 0.5
    overlap = dice(brain_mask, covered)
    if not overlap >= MINIMUM_ATLAS_DICE:
        raise ImageError(
            f"{reference.name}: exam is not in {atlas.space} space, its brain overlaps the atlas brain by "
            f"{overlap:.0%} (Dice), at least {MINIMUM_ATLAS_DICE:.0%} expected; register it to {atlas.space} and "
            "remove the skull, or, if its background is not 0, give a brain mask"
        )
    wm, gm = place(atlas.wm), place(atlas.gm)
    csf = total - wm - gm  # the three sum to 1 in the atlas's brain
    unknown = brain_mask & (total < MINIMUM_TISSUE)
    if unknown.any():
        depth = edt.edt(covered, anisotropy=reference.spacing)
        rim = covered & ~unknown & (depth <= max(RIM_MM, *reference.spacing))
        for array in (wm, gm, csf):
            array[unknown] = array[rim].sum() / total[rim].sum()
    wm, gm, csf = normalise_tissue(t1, wm, gm, csf, brain_mask)
    facts = {"atlas_dice": overlap, "atlas_overlap": overlap_coefficient(brain_mask, covered)}
    return wm, gm, csf, facts


def two_levels(values: NDArray[np.floating], start: float) -> tuple[float, float, float]:
    """Return the threshold midway between the means of the values on its two sides, and the two means.

    Fixed point of Ridler TW, Calvard S. IEEE Transactions on Systems, Man and Cybernetics 8:630-632, 1978.
    """
    threshold = start
    low = high = float("nan")
    for _ in range(30):
        above = values > threshold
        if not above.any() or above.all():
            break
        low, high = float(values[~above].mean()), float(values[above].mean())
        if abs((low + high) / 2 - threshold) < 1e-3:
            break
        threshold = (low + high) / 2
    return threshold, low, high
