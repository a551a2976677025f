"""One raw exam in atlas space: contrasts to the contrast-enhanced T1, that to the atlas, each image sampled once.

The way to the atlas is rigid unless asked otherwise: millimetres of the patient stay millimetres, so that volumes,
margins and speeds of growth mean the same in atlas space as in the patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from predictgbm.atlas import Atlas
from predictgbm.exam import ORGAN
from predictgbm.images import Image, ImageError
from predictgbm.masks import dice, overlap_coefficient
from predictgbm.preprocessing import EXPECTED_ATLAS_OVERLAP, MINIMUM_ATLAS_DICE
from predictgbm.quality import Measure
from predictgbm.registration.linear import Kind, register_linear
from predictgbm.registration.transforms import Interpolation, Transform, resample
from predictgbm.tensors import mean_diffusivity, rotate

Matrix = NDArray[np.float64]

#: Contrasts whose intensities look like those of the T1c; all others are matched by mutual information.
T1_LIKE = frozenset({"t1"})
#: Contrast agrees with the T1c if their normalised mutual information is at least this. A real exam has 1.028 to 1.039,
#: moved by 10 mm 1.009 to 1.011; simulated exams have 1.05 to 1.35, moved 1.02 to 1.04, and pass this limit either way.
MINIMUM_SIMILARITY = 1.02
#: Voxel size at which mutual information is compared, in mm.
SPACING = 1.5
#: Bins of the joint histogram.
BINS = 48


@dataclass(frozen=True)
class Alignment:
    """An exam on the grid of the atlas.

    Attributes
    ----------
    images : column -> array of the atlas's shape, 0 outside the brain; the tensor has six volumes
    brain_mask : bool array of that shape
    transforms : column -> matrix (4, 4) from the atlas to the image's own space, RAS mm
    measures : what was measured of the result
    """

    images: dict[str, NDArray[Any]]
    brain_mask: NDArray[np.bool_]
    transforms: dict[str, Matrix] = field(default_factory=dict)
    measures: list[Measure] = field(default_factory=list)


def mutual_information(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the normalised mutual information of two sets of intensities, (H(a) + H(b)) / H(a, b), 1 to 2.

    Studholme C, Hill DLG, Hawkes DJ. Pattern Recognition 32:71-86, 1999, doi:10.1016/S0031-3203(98)00091-0, with
    :data:`BINS` bins between the 0.5th and 99.5th percentile of each. NaN where either is constant.
    """
    cells = np.zeros(a.size, np.intp)
    for values in (a, b):
        if not values.size:
            return float("nan")
        low, high = np.percentile(values, (0.5, 99.5)).tolist()
        if not high > low:
            return float("nan")
        bins = ((values - low) * (BINS / (high - low))).astype(np.intp)
        cells = cells * BINS + np.clip(bins, 0, BINS - 1)
    joint = np.bincount(cells, minlength=BINS**2).reshape(BINS, BINS) / a.size

    def entropy(p: NDArray[np.float64]) -> float:
        p = p[p > 0]
        return float(-(p * np.log(p)).sum())

    return (entropy(joint.sum(axis=1)) + entropy(joint.sum(axis=0))) / entropy(joint.ravel())


def align_to_atlas(
    atlas: Atlas, t1c: Image, brain_mask: NDArray[np.bool_], kind: Kind = "rigid", threads: int = 1
) -> Matrix:
    """Return the map from atlas space to the space of a T1c, RAS mm to RAS mm.

    Both brains are laid on each other by their centres of mass, then matched by local cross-correlation within the
    brain of the atlas.

    Parameters
    ----------
    atlas
        Atlas with its brain mask.
    t1c, brain_mask
        Image on its own grid, with skull or without, and mask of the same shape.
    kind
        ``rigid`` or ``affine``.
    threads
        Threads of the registration.
    """
    template = Image(atlas.t1, atlas.affine, "atlas T1")
    stripped = Image(np.where(brain_mask, t1c.data, 0).astype(np.float32), t1c.affine, t1c.name)
    return register_linear(
        template,
        stripped,
        kind=kind,
        fixed_mask=atlas.brain_mask,
        moving_mask=brain_mask,
        initial="centres",
        metric="nmi",
        spacing=SPACING,
        threads=threads,
    )


def align_contrast(
    column: str, image: Image, t1c: Image, brain_mask: NDArray[np.bool_], threads: int = 1
) -> Matrix:
    """Return the rigid map from the space of the T1c to that of another contrast of the exam, RAS mm.

    The scanner's own coordinates are where the search begins, since contrasts of one exam share them. Where the
    search finds nothing better (normalised mutual information in the brain), they stand: images that are aligned
    already pass unharmed.
    """
    how: dict[str, Any] = {} if column in T1_LIKE else {"metric": "nmi", "spacing": SPACING}
    found = register_linear(
        t1c,
        image,
        fixed_mask=brain_mask,
        initial="header",
        **how,
        threads=threads,
    )
    grid, here, inside = _thinned(t1c, brain_mask)

    def similarity(matrix: Matrix) -> float:
        return mutual_information(here[inside], resample(image, grid, matrix)[inside])

    header = np.eye(4)
    # A constant, where the header leads outside the image, gives NaN and loses.
    return header if similarity(header) >= similarity(found) else found


def _thinned(image: Image, mask: NDArray[np.bool_]) -> tuple[Image, NDArray[Any], NDArray[np.bool_]]:
    """Return a grid of about 2 mm through voxels of an image, with the image and its mask there."""
    steps = [max(1, int(2 / s)) for s in image.spacing]
    x, y, z = (slice(None, None, n) for n in steps)
    data = np.asarray(image.data[x, y, z])
    return Image(data, image.affine @ np.diag([*steps, 1.0])), data, mask[x, y, z]


def align(
    atlas: Atlas,
    images: Mapping[str, Image],
    brain_mask: Image,
    *,
    kind: Kind = "rigid",
    interpolation: Interpolation = "linear",
    threads: int = 1,
) -> Alignment:
    """Bring all images of an exam to the grid of the atlas, each by one interpolation.

    Parameters
    ----------
    atlas
        Atlas, whose grid the result has.
    images
        Image by column, each on its own grid; ``t1c`` has to be among them. ``tumor_seg``, ``oar_*`` and
        ``tissue_*`` lie in the space of the T1c.
    brain_mask
        Brain mask in the space of the T1c, on its grid.
    kind
        Way from the T1c to the atlas, ``rigid`` or ``affine``.
    interpolation
        Of grey values, ``linear`` or ``bspline``; tissue maps and the brain mask are always linear, labels nearest.
    threads
        Threads of the registration.

    Returns
    -------
    Alignment

    Raises
    ------
    ImageError
        If the brain overlaps that of the atlas by less than :data:`~predictgbm.preprocessing.MINIMUM_ATLAS_DICE`.
    """
    t1c = images["t1c"]
    inside = brain_mask.data > 0
    reference = Image(atlas.t1, atlas.affine, "atlas")
    to_t1c = align_to_atlas(atlas, t1c, inside, kind, threads)
    brain = resample(Image(inside.astype(np.float32), brain_mask.affine), reference, to_t1c) >= 0.5
    overlap = dice(brain, atlas.brain_mask)
    if not overlap >= MINIMUM_ATLAS_DICE:
        raise ImageError(
            f"{t1c.name}: could not be registered to {atlas.space}, the brains overlap by {overlap:.0%} (Dice), "
            f"at least {MINIMUM_ATLAS_DICE:.0%} expected; check the brain mask and the orientation in the header"
        )
    measures = [
        Measure(
            "atlas_overlap",
            overlap_coefficient(brain, atlas.brain_mask),
            "Share of the smaller brain, the exam's or the atlas's, within the larger",
            least=EXPECTED_ATLAS_OVERLAP,
        )
    ]
    aligned: dict[str, NDArray[Any]] = {}
    transforms: dict[str, Matrix] = {}
    # The T1c first: the others are compared with it.
    for column in sorted(images, key=lambda name: name != "t1c"):
        image = images[column]
        # Labels and masks of an exam, which keep their values; an organ may lie outside the brain.
        labels = column == "tumor_seg" or column.startswith(ORGAN)
        if labels or column.startswith("tissue_"):
            matrix = to_t1c
        elif column == "t1c":
            matrix = transforms[column] = to_t1c
        elif column == "tensor":
            shown = Image(mean_diffusivity(image.data), image.affine, image.name)
            matrix = transforms[column] = align_contrast(column, shown, t1c, inside, threads) @ to_t1c
            aligned[column] = resample_tensor(image, reference, matrix) * brain[..., None]
            continue
        else:
            matrix = transforms[column] = align_contrast(column, image, t1c, inside, threads) @ to_t1c
        order: Interpolation = (
            "nearest" if labels else "linear" if column.startswith("tissue_") else interpolation
        )
        sampled = resample(image, reference, matrix, interpolation=order)
        aligned[column] = sampled if labels else sampled * brain
        if column in transforms and column != "t1c":
            measures += _compare(column, image, reference, matrix, sampled, aligned["t1c"], brain)
    return Alignment(aligned, brain, transforms, measures)


def _compare(
    column: str,
    image: Image,
    reference: Image,
    matrix: Transform,
    sampled: NDArray[Any],
    t1c: NDArray[Any],
    brain: NDArray[np.bool_],
) -> list[Measure]:
    """Measure how a contrast fits the T1c: field of view, similarity, and whether its mirror image fits better."""
    name = column.upper()
    ones = Image(np.ones(image.shape, np.float32), image.affine)
    seen = resample(ones, reference, matrix, interpolation="nearest") > 0
    # Half the voxels per axis are enough for a histogram.
    thin = (slice(None, None, 2),) * 3
    inside = (brain & seen)[thin]
    here, there = np.asarray(t1c, np.float32)[thin], np.asarray(sampled, np.float32)[thin]
    similarity = mutual_information(here[inside], there[inside])
    axis = int(np.argmax(np.abs(reference.affine[0, :3])))
    both = inside & np.flip(inside, axis)
    straight = mutual_information(here[both], there[both])
    mirrored = mutual_information(here[both], np.flip(there, axis)[both])
    return [
        Measure(
            f"brain_seen_{column}",
            float(np.mean(seen[brain])),
            f"Share of the brain within the field of view of {name}",
            least=0.97,
        ),
        Measure(
            f"similarity_{column}",
            similarity,
            f"Similarity of {name} and T1C after alignment (normalised mutual information)",
            least=MINIMUM_SIMILARITY,
        ),
        Measure(
            f"mirrored_{column}",
            mirrored / straight,
            f"Similarity of the mirror image of {name} over that of {name} itself; above 1 its sides may be swapped",
            most=1.0,
        ),
    ]


def resample_tensor(image: Image, reference: Image, matrix: Matrix) -> NDArray[np.float32]:
    """Bring tensors to the grid of a reference, and turn them with the image.

    Parameters
    ----------
    image
        Six volumes, Dxx, Dxy, Dyy, Dxz, Dyz, Dzz along right, anterior, superior.
    reference
        Image whose grid the result has.
    matrix
        From the reference's space to the image's, RAS mm. Only its rotation turns the tensors (finite strain;
        Alexander et al., IEEE Transactions on Medical Imaging 20:1131-1139, 2001).

    Returns
    -------
    array of shape (nx, ny, nz, 6), linear between voxels, 0 outside the image
    """
    volumes = [
        resample(Image(np.ascontiguousarray(volume), image.affine), reference, matrix)
        for volume in np.moveaxis(image.data, -1, 0)
    ]
    rotation = linalg.polar(matrix[:3, :3])[0]
    return rotate(np.stack(volumes, axis=-1), rotation)


def to_native(image: Image, reference: Image, matrix: Matrix, *, labels: bool) -> NDArray[Any]:
    """Bring an image from atlas space to the grid of a contrast, by one interpolation.

    Parameters
    ----------
    image
        Labels or map in atlas space.
    reference
        Image of the contrast, on its own grid.
    matrix
        Way of the contrast as in :attr:`Alignment.transforms`, atlas to the contrast, RAS mm.
    labels
        A voxel gets the label that has the largest share of it when each is interpolated linearly, which rounds
        corners less than the nearest voxel does. Otherwise the image is interpolated linearly.

    Returns
    -------
    data : array of the reference's shape; uint8 labels or float32
    """
    back: Matrix = np.linalg.inv(matrix).astype(np.float64)
    if not labels:
        return resample(image, reference, back)
    result = np.zeros(reference.shape, np.uint8)
    best = np.zeros(reference.shape, np.float32)
    for value in np.unique(image.data):
        # Outside the atlas's grid there is background.
        share = resample(
            Image((image.data == value).astype(np.float32), image.affine),
            reference,
            back,
            fill=float(value == 0),
        )
        larger = share > best
        result[larger] = value
        best[larger] = share[larger]
    return result
