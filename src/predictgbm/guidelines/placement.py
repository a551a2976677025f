"""Where falx and tentorium lie on an exam: the atlas's compartments, brought there by deformable registration.

An exam in atlas space lies there affinely: its own anatomy, and the midline that a tumour has pushed aside, are a few
to more than ten millimetres off. The tumour takes no part in the comparison of the images; below it the deformation
continues that of the surroundings.
"""

from __future__ import annotations

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import Atlas
from predictgbm.guidelines.compartments import Compartment, falx_mask
from predictgbm.images import Image
from predictgbm.registration.deformable import Level, Settings, register_deformable
from predictgbm.registration.transforms import compose

#: Coarse steps are enough: the fine ones of the default halve an error of less than a voxel and take as long again.
SETTINGS = Settings(levels=(Level(4, 80),))
#: So near the surface of the brain the falx is held by the skull, in mm.
HELD_MM = 12.0


def exam_to_atlas(
    atlas: Atlas, t1: Image, brain_mask: NDArray[np.bool_], tumor: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Register the atlas to an exam in its space; the exam gives the grid.

    Parameters
    ----------
    atlas
        Atlas on its own grid.
    t1
        T1 of the exam, on any grid.
    brain_mask, tumor
        Masks of the image's shape; all of the tumour with its oedema.

    Returns
    -------
    float32 array of shape (nx, ny, nz, 3)
        Displacement of each voxel centre to the point of the atlas that shows the same anatomy, mm (RAS).
    """
    fixed = Image(np.where(brain_mask, t1.data, 0).astype(np.float32), t1.affine, t1.name)
    moving = Image(atlas.t1, atlas.affine, "atlas")
    field, _ = register_deformable(
        fixed, moving, np.eye(4), brain_mask, atlas.brain_mask, fixed_ignore=tumor, settings=SETTINGS
    )
    return compose(fixed, field).displacement


def place_compartments(
    compartments: Image, reference: Image, displacement: NDArray[np.floating] | None = None
) -> NDArray[np.uint8]:
    """Return the map on the grid of an exam in atlas space; each voxel takes the label nearest to its centre.

    Parameters
    ----------
    compartments
        Map of :class:`predictgbm.guidelines.compartments.Compartment` in atlas space; its edge continues outside.
    reference
        Image of the exam.
    displacement : float array of shape (nx, ny, nz, 3), optional
        As :func:`exam_to_atlas` returns it; None: the exam lies as the atlas does.
    """
    to_source = np.linalg.inv(compartments.affine) @ reference.affine
    result = np.empty(reference.shape, np.uint8)
    y, z = np.indices(reference.shape[1:])
    for x in range(reference.shape[0]):
        plane = np.stack([np.full_like(y, x), y, z])
        points = np.tensordot(to_source[:3, :3], plane, 1) + to_source[:3, 3, None, None]
        if displacement is not None:
            moved = np.moveaxis(displacement[x], -1, 0)
            points += np.tensordot(np.linalg.inv(compartments.affine)[:3, :3], moved, 1)
        result[x] = ndimage.map_coordinates(compartments.data, points, order=0, mode="nearest")
    return result


def midline_shift(
    labels: NDArray[np.uint8],
    displacement: NDArray[np.floating],
    brain_mask: NDArray[np.bool_],
    reference: Image,
) -> float | None:
    """Return how far the middle of the brain lies off the plane in which the skull holds the falx, against the atlas.

    The mean over the midline compartment (corpus callosum, septum, third ventricle), less what the falx within
    :data:`HELD_MM` of the surface has moved there, continued linearly. A brain that is not symmetrical by nature has
    a shift, too.

    Parameters
    ----------
    labels : uint8 array of shape (nx, ny, nz), compartments on the exam
    displacement : float array of shape (nx, ny, nz, 3), as :func:`exam_to_atlas` returns it
    brain_mask : bool array of shape (nx, ny, nz)
    reference : image of the exam, in RAS voxel order or any other

    Returns
    -------
    float or None
        In mm, positive to the patient's right; None where the map has no midline compartment or no falx.
    """
    depth = edt.edt(brain_mask, anisotropy=reference.spacing, black_border=True)
    middle = brain_mask & (labels == Compartment.MIDLINE)
    held = brain_mask & falx_mask(labels) & (depth <= HELD_MM)
    if np.count_nonzero(held) < 3 or not middle.any():
        return None

    def plane(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        points = np.argwhere(mask) @ reference.affine[:3, :3].T + reference.affine[:3, 3]
        return np.column_stack([np.ones(len(points)), points[:, 1:]])

    off = -displacement[..., 0]
    fit = np.linalg.lstsq(plane(held), off[held], rcond=None)[0]
    return float((off[middle] - plane(middle) @ fit).mean())
