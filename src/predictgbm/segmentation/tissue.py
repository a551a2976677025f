"""Tissue maps of a patient: those of the atlas, brought to the patient by deformable registration.

The tumour takes no part in the comparison of the images: there the deformation continues that of the surroundings. The
maps below the tumour are therefore the atlas's, what tissue lies there or lay there before the tumour grew. Growth
models need that, and no intensity of a tumour could tell it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import Atlas
from predictgbm.images import Image, ImageError
from predictgbm.masks import bounding_box, overlap_coefficient
from predictgbm.preprocessing import tissue_prior
from predictgbm.registration.deformable import register_deformable
from predictgbm.registration.linear import greedy_field
from predictgbm.registration.transforms import LPS, jacobian, read_transform, resample

Method = Literal["greedy", "ncc", "syn", "atlas"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Windows of the local correlation reach this far; what lies so near the tumour is left out with it, in mm.
TUMOR_MARGIN = 3.0
#: Room around both brains, in mm.
MARGIN = 8.0


def syn_field(fixed: Image, moving: Image, weight: NDArray[np.bool_]) -> list[Any]:
    """Register two images by ANTs SyN (``antsRegistrationSyN[s]``: rigid, affine, deformable), as the paper does.

    Avants BB et al. Medical Image Analysis 12:26-41, 2008. Reproducible where the variables ANTS_RANDOM_SEED and
    ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 are set before the program starts.

    Returns
    -------
    transforms : displacement field, then affine matrix, fixed to moving

    Raises
    ------
    ImageError
        If antspyx is not installed.
    """
    try:
        import ants
    except ImportError as error:
        raise ImageError(
            "tissue by syn needs the package antspyx; install it (pip install antspyx) or choose greedy"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        fixed_image, moving_image, mask = (
            _to_ants(ants, array, fixed.affine)
            for array in (fixed.data, moving.data, weight.astype(np.float32))
        )
        result = ants.registration(
            fixed_image,
            moving_image,
            type_of_transform="antsRegistrationSyN[s]",
            mask=mask,
            outprefix=str(Path(folder) / "syn"),
        )
        return [read_transform(path) for path in result["fwdtransforms"]]


def _to_ants(ants: Any, data: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    """Return an array as image of ANTs, whose axes are LPS."""
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(data, np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def segment_tissue(
    atlas: Atlas,
    image: Image,
    brain_mask: NDArray[np.bool_],
    tumor: NDArray[np.bool_],
    method: Method = "greedy",
    *,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], dict[str, float]]:
    """Return tissue maps of an exam in atlas space, which sum to 1 in its brain.

    Parameters
    ----------
    atlas
        Atlas on its own grid.
    image
        T1 of the exam, or T1c; 0 outside the brain.
    brain_mask, tumor
        Masks of the image's shape; all of the tumour with its oedema.
    method
        ``greedy``: registration by greedy (default); ``ncc``: the project's own
        (:mod:`predictgbm.registration.deformable`); ``syn``: ANTs, as in the paper; ``atlas``: no registration.
    threads
        Threads of the registration.

    Returns
    -------
    wm, gm, csf : float32 arrays of the image's shape, 0 to 1, 0 outside the brain
    facts
        ``atlas_overlap``: share of the smaller brain, the exam's or the atlas's, within the larger before registration;
        ``brain_dice`` and ``folded_percent`` of the registration, for methods that register.

    Raises
    ------
    ImageError
        If the exam does not lie in atlas space, or a package is missing.
    """
    if method == "atlas":
        return tissue_prior(atlas, image, brain_mask, image.data)
    reference = Image(atlas.t1, atlas.affine)
    on_grid = resample(reference, image)
    fraction = resample(Image(atlas.brain_mask.astype(np.float32), atlas.affine), image)
    margin = [int(np.ceil(MARGIN / s)) for s in image.spacing]
    box = bounding_box(brain_mask | (fraction > 0), max(margin))
    affine = image.affine.copy()
    affine[:3, 3] = (image.affine @ [*(s.start for s in box), 1])[:3]
    fixed = Image(np.where(brain_mask, image.data, 0)[box].astype(np.float32), affine, image.name)
    moving = Image(np.ascontiguousarray(on_grid[box]), affine, "atlas")
    distance = ndimage.distance_transform_edt(~tumor[box], sampling=image.spacing)
    weight = distance > TUMOR_MARGIN if tumor.any() else np.ones(fixed.shape, bool)
    if not (weight & brain_mask[box]).any():
        raise ImageError(f"{image.name}: the tumour fills the whole brain; check the segmentation")

    # A mask alone does not keep greedy from following what the tumour looks like; one grey level does.
    level = np.median(fixed.data[weight & brain_mask[box]])
    fixed = Image(np.where(weight | ~brain_mask[box], fixed.data, level), affine, image.name)

    transforms: list[Any]
    if method == "greedy":
        transforms = [greedy_field(fixed, moving, "-n 100x50x10", weight, threads)]
    elif method == "syn":
        transforms = syn_field(fixed, moving, weight)
    elif method == "ncc":
        field, _ = register_deformable(
            fixed, moving, np.eye(4), brain_mask[box], moving.data > 0, fixed_ignore=~weight, threads=threads
        )
        transforms = [field]
    else:
        raise ValueError(f"no way to tissue maps is called {method!r}, there are {', '.join(METHODS)}")

    def warp(array: NDArray[Any]) -> NDArray[np.float32]:
        result = np.zeros(image.shape, np.float32)
        result[box] = resample(Image(array.astype(np.float32), atlas.affine), fixed, *transforms)
        return result

    brain = warp(atlas.brain_mask)
    warped = Atlas(
        warp(atlas.t1),
        warp(atlas.wm),
        warp(atlas.gm),
        warp(atlas.csf),
        brain,  # type: ignore[arg-type]  # its share of each voxel
        image.affine,
        image.spacing,
        atlas.space,
    )
    wm, gm, csf, facts = tissue_prior(warped, image, brain_mask, image.data)
    determinant = jacobian(transforms[0])
    return (
        wm,
        gm,
        csf,
        {
            "atlas_overlap": overlap_coefficient(brain_mask, fraction >= 0.5),
            "brain_dice": facts["atlas_dice"],
            "folded_percent": 100 * float((determinant <= 0).mean()),
        },
    )
