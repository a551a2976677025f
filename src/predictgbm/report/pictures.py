"""The quality-control picture of one patient: exam, labels, every map and plan on the slices that matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from predictgbm.labels import Tumor
from predictgbm.masks import bounding_box
from predictgbm.report.colours import LABEL_COLOURS, MODEL_COLOURS, RECURRENCE_COLOUR, STANDARD_PLAN_COLOUR

CAPTION = (
    "Top: axial, bottom: coronal, on the slice that shows most of tumour core and recurrence, or of the core alone "
    "where no slice meets both; the patient's left is on the left. First column: contrast-enhanced T1 with the tumour "
    "labels (blue necrosis, green edema, yellow enhancement). Then one column per model: its map in colour, its plan "
    "(light blue), the standard plan of the same volume (dotted pink) and the recurrence, where one is known (orange). "
    "Look for labels that do not sit on the lesion, a plan that leaves the brain, and a recurrence far from any tumour."
)


def _hex(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    r, g, b = colour
    return r / 255, g / 255, b / 255


def _outline(
    axes: Axes,
    mask: NDArray[np.bool_],
    colour: tuple[int, int, int],
    style: str = "solid",
    width: float = 1.2,
) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask.T.astype(float), [0.5], colors=[_hex(colour)], linestyles=style, linewidths=width)


def best_slice(focus: NDArray[np.bool_], recurrence: NDArray[np.bool_] | None, axis: int) -> int:
    """Return the slice that shows most of mask and recurrence, or of the mask alone where none shows both."""
    planes = tuple({0, 1, 2} - {axis})
    shown = np.count_nonzero(focus, axis=planes)
    if recurrence is not None:
        # The product is large where both are large, and not where one is all that is seen.
        both = shown * np.count_nonzero(recurrence, axis=planes)
        shown = both if both.any() else shown
    return int(shown.argmax())


def draw_patient(
    t1c: NDArray[np.floating],
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    maps: Mapping[str, NDArray[np.floating]],
    plans: Mapping[str, NDArray[np.bool_]],
    recurrence: NDArray[np.bool_] | None,
    title: str,
) -> Figure:
    """Draw the picture of one patient.

    Parameters
    ----------
    t1c, tumor_seg, brain_mask : arrays of shape (nx, ny, nz), axes towards right, anterior, superior
    spacing
        Voxel size in mm.
    maps, plans
        Score map and plan by model name; ``soc`` is the standard plan and is drawn in every column.
    recurrence
        Mask of the enhancing recurrence in the space of the exam; None where no follow-up is known.
    """
    box = bounding_box(brain_mask, 2)
    t1c, tumor_seg, brain = t1c[box], tumor_seg[box], brain_mask[box]
    maps = {name: values[box] for name, values in maps.items()}
    plans = {name: mask[box] for name, mask in plans.items()}
    recurrence = None if recurrence is None else recurrence[box]
    core = np.isin(tumor_seg, (Tumor.NECROSIS, Tumor.ENHANCING))
    focus = core if core.any() else brain
    bright = float(np.percentile(t1c[brain], 99.7)) if brain.any() else 1.0
    columns = ["exam", *sorted(plans, key=lambda name: (name != "soc", name))]

    figure, grid = plt.subplots(
        2, len(columns), figsize=(2.5 * len(columns), 6.0), squeeze=False, facecolor="black"
    )
    for row, axis in enumerate((2, 1)):
        index: list[Any] = [slice(None)] * 3
        index[axis] = best_slice(focus, recurrence, axis)
        at = tuple(index)
        across, up = [a for a in range(3) if a != axis]
        for column, name in enumerate(columns):
            axes = grid[row][column]
            axes.imshow(
                t1c[at].T,
                cmap="gray",
                vmin=0,
                vmax=bright,
                origin="lower",
                aspect=spacing[up] / spacing[across],
            )
            if name == "exam":
                for label, colour in LABEL_COLOURS.items():
                    _outline(axes, tumor_seg[at] == label, colour)
            else:
                _draw_map(axes, maps[name][at], brain[at], maps[name], brain)
                if "soc" in plans:
                    _outline(axes, plans["soc"][at], STANDARD_PLAN_COLOUR, "dotted")
                if name != "soc":
                    _outline(axes, plans[name][at], MODEL_COLOURS[0])
            if recurrence is not None:
                _outline(axes, recurrence[at], RECURRENCE_COLOUR, width=1.6)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(name, color="white", fontsize=10)
    figure.suptitle(title, color="white", fontsize=11)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.89, wspace=0.02, hspace=0.02)
    return figure


def _draw_map(
    axes: Axes,
    section: NDArray[np.floating],
    brain: NDArray[np.bool_],
    values: NDArray[np.floating],
    inside: NDArray[np.bool_],
) -> None:
    """Overlay a map by its rank within the brain, since only the ranking of its voxels makes the plan."""
    steps = np.percentile(values[inside], np.linspace(80, 100, 64))
    rank = np.searchsorted(steps, section, side="right") / 64.0
    shown = np.ma.masked_where(~brain | (rank <= 0) | (section <= values[inside].min()), rank)
    axes.imshow(shown.T, cmap="inferno", vmin=0, vmax=1, alpha=0.45, origin="lower", aspect=axes.get_aspect())
