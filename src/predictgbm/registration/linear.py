"""Registration by greedy, rigid, affine and deformable, with the settings that make it deterministic.

Yushkevich PA et al. Fast automatic segmentation of hippocampal subfields and medial temporal lobe subregions in 3 Tesla
and 7 Tesla MRI. Alzheimer's & Dementia 12(7S):126-127, 2016; https://greedy.readthedocs.io.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import picsl_greedy
import SimpleITK
from numpy.typing import NDArray

from predictgbm.images import Image, ImageError
from predictgbm.itk import to_simpleitk
from predictgbm.masks import bounding_box
from predictgbm.registration.transforms import LPS, Field, apply_points, resample

Kind = Literal["rigid", "affine"]
Metric = Literal["ncc", "nmi", "mi"]

#: Voxel size, in mm, of the grids that are registered.
SPACING = 1.0

#: Greedy's names, and steps of the optimiser at a quarter, a half and the whole of the resolution. On a real exam that
#: was moved, local cross-correlation at 2 mm is exact to 0.03 mm; mutual information is to 0.65 mm, at 1 mm to 0.3 mm.
#: Mutual information samples off the voxel centres (jitter): else it sticks to where the two grids coincide.
METRICS = {
    "ncc": "NCC 4x4x4 -n 100x50x0 -jitter 0",
    "nmi": "NMI -n 100x50x10 -jitter 0.5",
    "mi": "MI -n 100x50x10 -jitter 0.5",
}

#: The same for the rigid map that an affine one starts from.
ROUGH = "100x0x0"

#: Room left around what is registered, in mm.
MARGIN = 10.0


def isotropic(image: Image, mask: NDArray[np.bool_], spacing: float, margin: float = MARGIN) -> Image:
    """Return a grid of cubic voxels along the axes of an image, over a mask and a margin; its data are zero.

    Axes that are not at right angles are replaced by the nearest ones that are. A grid that is cubic already at
    this spacing is cut to size, and its voxel centres stay where they are.

    Parameters
    ----------
    image
        Image whose grid and axes are taken.
    mask
        Mask of the image's shape.
    spacing, margin
        In mm.
    """
    scale = np.array(image.spacing)
    u, _, vt = np.linalg.svd(image.affine[:3, :3] / scale)
    box = bounding_box(mask)
    start = np.array([s.start for s in box])
    extent = np.array([s.stop - s.start - 1 for s in box]) * scale
    pad = np.ceil(margin / spacing)
    shape = np.ceil(extent / spacing - 1e-3).astype(int) + 1 + 2 * int(pad)
    affine = np.eye(4)
    affine[:3, :3] = u @ vt * spacing
    affine[:3, 3] = (image.affine @ [*start, 1])[:3] - affine[:3, :3] @ np.full(3, pad)
    return Image(np.broadcast_to(np.float32(0), tuple(shape.tolist())), affine, image.name)


def centre_of_mass(image: Image, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return the centre of mass of the intensities above their minimum, or of a mask, in RAS mm, as (3,)."""
    weight = image.data - image.data.min() if mask is None else mask
    total = weight.sum(dtype=np.float64)
    sums = [weight.sum(axis=tuple(b for b in range(3) if b != a), dtype=np.float64) for a in range(3)]
    index = [float(s @ np.arange(len(s)) / total) for s in sums]
    return apply_points(np.array(index), image.affine)[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Send away what is printed below Python: where greedy's last step finds nothing better, it shouts about it."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def run_greedy(command: str, **objects: Any) -> picsl_greedy.Greedy3D:
    """Run greedy on images in memory; results are taken from what is returned, by name.

    The seed is fixed: without one, greedy draws the noise of its cross-correlation anew in each run.

    Raises
    ------
    ImageError
        If greedy fails; the message has its reason.
    """
    greedy = picsl_greedy.Greedy3D()
    log = io.StringIO()
    try:
        with _quiet():
            greedy.execute(f"{command} -seed 1 -V 0", log, log, **objects)
    except Exception as error:
        raise ImageError(f"greedy could not register the images: {error}") from error
    return greedy


def greedy_field(
    fixed: Image, moving: Image, options: str, weight: NDArray[np.bool_] | None = None, threads: int = 1
) -> Field:
    """Register two images of one grid by greedy's deformable method, local correlation over 5 voxels.

    Parameters
    ----------
    fixed, moving
        Images on one grid of cubes.
    options
        Greedy's iterations by level, and smoothing where it is not greedy's own: ``-n 100x50x10``.
    weight
        Where they are compared; None for everywhere.
    threads
        Threads; their number changes the last digits.

    Raises
    ------
    ImageError
        If greedy fails.
    """
    objects: dict[str, Any] = {
        "fixed": to_simpleitk(fixed.data, fixed.affine),
        "moving": to_simpleitk(moving.data, moving.affine),
    }
    mask = ""
    if weight is not None:
        objects["weight"] = to_simpleitk(weight, fixed.affine)
        mask = "-gm weight "
    command = f"-d 3 -threads {threads} -i fixed moving {mask}-m NCC 2x2x2 {options} -o warp"
    result = run_greedy(command, **objects, warp=None)
    vectors = SimpleITK.GetArrayFromImage(result["warp"]).transpose(2, 1, 0, 3) * np.diag(LPS)[:3]
    return Field(vectors.astype(np.float32), fixed.affine)


def register_linear(
    fixed: Image,
    moving: Image,
    *,
    kind: Kind = "rigid",
    fixed_mask: NDArray[np.bool_] | None = None,
    moving_mask: NDArray[np.bool_] | None = None,
    initial: Literal["header", "centres"] | NDArray[np.float64] = "header",
    metric: Metric = "ncc",
    spacing: float = SPACING,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Find the rigid or affine map between two images.

    Both are brought to cubic voxels of ``spacing`` along their own axes, cut to what is not background (or
    to the mask) plus a margin: a pyramid on thick slices would lose them. An affine map starts from the rigid one.

    Masks do one thing with ``ncc`` and another with ``nmi`` and ``mi``. With ``ncc`` the comparison is made
    inside the fixed mask. Greedy's mutual information inside a mask was measured to run away, so the images are
    set to 0 outside their masks if both are given, and one alone only cuts the image to size.

    Parameters
    ----------
    fixed, moving
        Images in any grids. Contrasts that differ want ``nmi``.
    kind
        ``rigid`` (6 degrees of freedom) or ``affine`` (12).
    fixed_mask, moving_mask
        Of the shape of their image.
    initial
        ``header``: the two world spaces are one; ``centres``: the centres of mass (of the masks, if both are
        given) are laid on each other; or a matrix (4, 4), fixed to moving, RAS mm.
    metric
        ``ncc`` (local cross-correlation, 9 voxels wide), ``nmi`` or ``mi``.
    spacing
        Voxel size the images are registered at, in mm.
    threads
        Another number changes the last digits.

    Returns
    -------
    matrix : float64 array of shape (4, 4), RAS mm of the fixed to RAS mm of the moving space

    Raises
    ------
    ImageError
        If an image is constant, a mask is empty, or greedy fails.
    """
    for image, mask in ((fixed, fixed_mask), (moving, moving_mask)):
        if image.data.min() == image.data.max():
            raise ImageError(f"{image.name}: every voxel is the same, nothing can be registered")
        if mask is not None and not mask.any():
            raise ImageError(f"{image.name}: its mask is empty, nothing can be registered")
    both = fixed_mask is not None and moving_mask is not None
    matrix = np.eye(4)
    if isinstance(initial, str):
        if initial == "centres":
            masks = (fixed_mask, moving_mask) if both else (None, None)
            matrix[:3, 3] = centre_of_mass(moving, masks[1]) - centre_of_mass(fixed, masks[0])
    else:
        matrix = np.asarray(initial, np.float64)

    # Greedy is given both images with their middle at the origin: turning about a far point is ill-conditioned.
    middle = {}
    objects = {}
    for name, image, mask in (("fixed", fixed, fixed_mask), ("moving", moving, moving_mask)):
        box = image.data > image.data.min() if mask is None else mask
        grid = isotropic(image, box, spacing)
        source = image
        if both and mask is not None and metric != "ncc":
            source = Image(np.where(mask, image.data, np.float32(0)), image.affine)
        middle[name] = np.eye(4)
        middle[name][:3, 3] = (grid.affine @ [*(n / 2 for n in grid.shape), 1])[:3]
        centred = np.linalg.inv(middle[name]) @ grid.affine
        objects[name] = to_simpleitk(resample(source, grid), centred)
        if mask is not None and name == "fixed" and metric == "ncc":
            weight = resample(Image(mask.astype(np.uint8), image.affine), grid, interpolation="nearest")
            objects["mask"] = to_simpleitk(weight, centred)

    options = f"-d 3 -a -i fixed moving -threads {threads} -m {METRICS[metric]}"
    if "mask" in objects:
        options += " -gm mask"
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.mat"  # greedy's own text format, RAS; it takes no start from memory
        steps = (f"-dof 6 -n {ROUGH}", "-dof 12") if kind == "affine" else ("-dof 6",)
        for step in steps:
            centred = np.linalg.inv(middle["moving"]) @ matrix @ middle["fixed"]
            np.savetxt(start, centred, "%.17g")
            greedy = run_greedy(f"{options} {step} -ia {start} -o found", **objects, found=None)
            matrix = middle["moving"] @ greedy["found"] @ np.linalg.inv(middle["fixed"])
    return matrix
