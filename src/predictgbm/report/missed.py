"""The small picture of what one plan missed: cut through the recurrence that lies outside it, wherever that is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from scipy.ndimage import binary_erosion, distance_transform_edt

from predictgbm.evaluation import label_lesions
from predictgbm.masks import bounding_box
from predictgbm.report.colours import MODEL_COLOURS, RECURRENCE_COLOUR, STANDARD_PLAN_COLOUR

Spacing = tuple[float, float, float]

CAPTION = (
    "Left: axial, right: coronal, through the deepest point of what the plan misses most of; the patient's left is on "
    "the left. Orange: recurrence, light blue: plan of the model, dotted pink: standard plan; below, the lesion that "
    "is cut and how much of it the model's plan covers."
)
#: Pixels of a picture from top to bottom, its line of text included.
HEIGHT, TEXT = 260, 18


def deepest(mask: NDArray[np.bool_], spacing: Spacing) -> tuple[int, int, int]:
    """Return the voxel of a mask, not empty, that is farthest from its surface."""
    box = bounding_box(mask)
    # What lies at the edge of the array has a surface there.
    depth = distance_transform_edt(np.pad(mask[box], 1), spacing)
    x, y, z = (
        int(i) - 1 + side.start
        for i, side in zip(np.unravel_index(depth.argmax(), depth.shape), box, strict=True)
    )
    return x, y, z


def most_missed(
    recurrence: NDArray[np.bool_], plan: NDArray[np.bool_], spacing: Spacing
) -> tuple[tuple[int, int, int], NDArray[np.bool_]]:
    """Return where a plan fails most: a voxel, and the lesion that it belongs to.

    Parameters
    ----------
    recurrence, plan : bool arrays of shape (nx, ny, nz)
        The recurrence is not empty.
    spacing
        Voxel size in mm.

    Returns
    -------
    point, lesion
        The deepest voxel of the uncovered part of the lesion with the largest such part, and the mask of that lesion
        in the whole array. Where nothing is missed: the deepest voxel of the largest lesion.
    """
    box, numbers = label_lesions(recurrence)
    missed = np.bincount(numbers[~plan[box]], minlength=int(numbers.max()) + 1)[1:]
    lesion = np.zeros(recurrence.shape, bool)
    lesion[box] = numbers == 1 + int(missed.argmax())
    outside = lesion & ~plan
    return deepest(outside if outside.any() else lesion, spacing), lesion


def draw_missed(
    image: NDArray[np.floating],
    brain_mask: NDArray[np.bool_],
    spacing: Spacing,
    recurrence: NDArray[np.bool_],
    plan: NDArray[np.bool_],
    standard: NDArray[np.bool_] | None,
) -> Picture.Image:
    """Draw where a plan fails most, on an axial and a coronal slice of the whole brain.

    Parameters
    ----------
    image, brain_mask, recurrence, plan : arrays of shape (nx, ny, nz), axes towards right, anterior, superior
        The recurrence and the brain are not empty.
    spacing
        Voxel size in mm.
    standard
        The standard plan; None where it is not to be drawn, or is the plan itself.
    """
    point, lesion = most_missed(recurrence, plan, spacing)
    # What lies outside the brain mask is shown as well, as it counts.
    box = bounding_box(brain_mask | recurrence, 2)
    high = float(np.percentile(image[brain_mask], 99.7)) or 1.0
    # Axial and coronal have one height on the page: scale by the taller of both.
    size = [(side.stop - side.start) * mm for side, mm in zip(box, spacing, strict=True)]
    scale = (HEIGHT - TEXT) / max(size[1], size[2])
    panels = []
    for axis in (2, 1):
        at: list[Any] = list(box)
        at[axis] = point[axis]
        across, up = (a for a in range(3) if a != axis)
        pixels = (round(size[across] * scale), round(size[up] * scale))
        panels.append(_panel(tuple(at), pixels, image, high, recurrence, plan, standard))
    width = sum(panel.width for panel in panels) + 4
    picture = Picture.new("RGB", (width, HEIGHT))
    left = 0
    for panel in panels:
        picture.paste(panel, (left, (HEIGHT - TEXT - panel.height) // 2))
        left += panel.width + 4
    volume = np.count_nonzero(lesion) * float(np.prod(spacing)) / 1000
    covered = np.count_nonzero(lesion & plan) / np.count_nonzero(lesion)
    said = f"lesion of {volume:.2f} ml, {100 * covered:.0f} % covered"
    font = ImageFont.load_default(size=12)
    ImageDraw.Draw(picture).text((4, HEIGHT - TEXT + 1), said, fill="white", font=font)
    return picture


def _panel(
    at: tuple[Any, ...],
    pixels: tuple[int, int],
    image: NDArray[np.floating],
    high: float,
    recurrence: NDArray[np.bool_],
    plan: NDArray[np.bool_],
    standard: NDArray[np.bool_] | None,
) -> Picture.Image:
    """Draw one slice, white from ``high`` on, with its outlines."""

    def resized(section: NDArray[Any]) -> NDArray[np.uint8]:
        grey = Picture.fromarray(np.clip(255 * section.T[::-1].astype(float), 0, 255).astype(np.uint8))
        return np.asarray(grey.resize(pixels, Picture.Resampling.BILINEAR))

    drawn = np.repeat(resized(image[at] / high)[..., None], 3, axis=2)
    rows, columns = np.indices(drawn.shape[:2])
    dots = (rows + columns) // 3 % 2 == 0
    for mask, colour, shown in (
        (standard, STANDARD_PLAN_COLOUR, dots),
        (plan, MODEL_COLOURS[0], True),
        (recurrence, RECURRENCE_COLOUR, True),
    ):
        if mask is not None:
            inside = resized(mask[at]) > 127
            edge = inside & ~binary_erosion(inside, np.ones((3, 3), bool), border_value=1)
            drawn[edge & shown] = colour
    return Picture.fromarray(drawn)
