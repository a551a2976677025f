"""Small pictures that show whether a step of the imaging road went well: outlines, and pairs of images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from predictgbm.images import Image, to_ras

#: Colours of the outlines, in the order of the masks.
OUTLINES = ("#f0a630", "#4cc9f0", "#7ae582", "#ff5d8f", "#c8b6ff")
#: Where the slices of a picture lie, as fractions of the extent of what is shown.
LEVELS = (0.35, 0.5, 0.65)


def draw_contours(
    path: str | os.PathLike[str],
    background: Image,
    masks: Mapping[str, NDArray[Any]],
    title: str,
    focus: NDArray[np.bool_] | None = None,
) -> None:
    """Draw outlines of masks over an image, on three slices of each plane.

    Parameters
    ----------
    path
        PNG to write.
    background
        Image to draw on.
    masks
        Name for the legend -> mask of the image's shape.
    title
        Line above the picture.
    focus
        Mask whose extent the slices are spread over; default all that is not the background's minimum.
    """
    image = to_ras(background)
    turned = {name: to_ras(Image(mask > 0, background.affine)).data for name, mask in masks.items()}
    shown = image.data > image.data.min() if focus is None else to_ras(Image(focus, background.affine)).data
    figure, grid = _figure(3)
    for row, (axis, indices) in enumerate(_slices(shown)):
        for axes, index in zip(grid[row], indices, strict=True):
            _show(axes, _section(image.data, axis, index), image, axis)
            for colour, mask in zip(OUTLINES, turned.values(), strict=False):
                section = _section(mask, axis, index)
                if section.any() and not section.all():
                    axes.contour(section.T.astype(float), [0.5], colors=[colour], linewidths=1.1)
    for colour, name, place in zip(OUTLINES, turned, np.linspace(0.02, 0.7, len(OUTLINES)), strict=False):
        figure.text(float(place), 0.005, name, color=colour, fontsize=9)
    _save(figure, path, title)


def draw_pair(path: str | os.PathLike[str], first: Image, second: Image, title: str) -> None:
    """Draw two images of one grid in the squares of a chessboard, on three slices of each plane.

    Where the two fit, edges run on across the squares.

    Parameters
    ----------
    path
        PNG to write.
    first, second
        Images of the same shape and affine.
    title
        Line above the picture.
    """
    a, b = to_ras(first), to_ras(second)
    figure, grid = _figure(3)
    left, right = _scaled(a.data), _scaled(b.data)
    both = (left > 0) & (right > 0)
    if both.any():
        right = _as_bright(right, left, both)
    for row, (axis, indices) in enumerate(_slices(both)):
        for axes, index in zip(grid[row], indices, strict=True):
            one, other = _section(left, axis, index), _section(right, axis, index)
            across, up = (size for i, size in enumerate(a.spacing) if i != axis)
            i, j = np.indices(one.shape)
            squares = (np.floor(i * across / 20) + np.floor(j * up / 20)) % 2 == 0
            _show(axes, np.where(squares, one, other), a, axis, top=1.0)
    _save(figure, path, title)


def _figure(rows: int) -> tuple[Figure, Any]:
    return plt.subplots(rows, len(LEVELS), figsize=(7.5, 8.2), squeeze=False, facecolor="black")


def _slices(shown: NDArray[np.bool_]) -> list[tuple[int, list[int]]]:
    """Return for axial, coronal and sagittal plane the axis and the indices of the slices to show."""
    result = []
    for axis in (2, 1, 0):
        hit = np.flatnonzero(shown.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(hit[0]), int(hit[-1])) if len(hit) else (0, shown.shape[axis] - 1)
        result.append((axis, [round(low + level * (high - low)) for level in LEVELS]))
    return result


def _section(array: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    return np.asarray(np.take(array, index, axis=axis))


def _as_bright(
    image: NDArray[np.float32], like: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Bring the quartiles of an image in a mask to those of another, so that squares differ in what they show alone."""
    low, middle, high = np.percentile(image[mask], [25, 50, 75])
    aim_low, aim, aim_high = np.percentile(like[mask], [25, 50, 75])
    if not high > low:
        return image
    matched = (image - middle) * ((aim_high - aim_low) / (high - low)) + aim
    return np.where(image > 0, matched.clip(0, 1), 0).astype(np.float32)


def _scaled(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return an image with its brightest voxels at 1."""
    inside = array[array > 0]
    top = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    return np.asarray(np.clip(array / top, 0, 1), np.float32)


def _show(axes: Axes, section: NDArray[Any], image: Image, axis: int, top: float | None = None) -> None:
    across, up = (size for i, size in enumerate(image.spacing) if i != axis)
    if top is None:
        inside = image.data[image.data > 0]
        top = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    low = min(0.0, float(image.data.min())) if top > 0 else float(image.data.min())
    axes.imshow(section.T, cmap="gray", vmin=low, vmax=top, origin="lower", aspect=up / across)
    axes.set_axis_off()


def _save(figure: Figure, path: str | os.PathLike[str], title: str) -> None:
    figure.suptitle(title, color="white", fontsize=11)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.03, top=0.94, wspace=0.02, hspace=0.02)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, facecolor="black", metadata={"Software": None})
    plt.close(figure)


def draw_slices(path: str | os.PathLike[str], images: Mapping[str, Image], title: str) -> None:
    """Draw the middle slices of several images, each on a grid of its own: one row per image, axial, coronal, sagittal.

    Parameters
    ----------
    path
        PNG to write.
    images
        Name -> image; at least one.
    title
        Line above the picture.
    """
    size = (7.5, 0.5 + 2.6 * len(images))
    figure, grid = plt.subplots(len(images), 3, figsize=size, squeeze=False, facecolor="black")
    for row, (name, image) in zip(grid, images.items(), strict=True):
        turned = to_ras(image)
        for axes, axis in zip(row, (2, 1, 0), strict=True):
            _show(axes, _section(turned.data, axis, turned.shape[axis] // 2), turned, axis)
        row[0].text(0.02, 0.97, name, color="white", fontsize=10, va="top", transform=row[0].transAxes)
    _save(figure, path, title)
