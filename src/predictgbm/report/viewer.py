"""One self-contained page per patient: exam, labels, maps, plans and recurrence as layers, drawn by NiiVue."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass, field
from importlib import resources

import nibabel as nib
import numpy as np
from jinja2 import Environment
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from predictgbm.images import Image
from predictgbm.masks import bounding_box


@dataclass(frozen=True)
class Layer:
    """One switchable layer of a viewer page.

    Attributes
    ----------
    name : str
        Text beside its switch.
    group : str
        Heading it stands under: ``Exam``, ``Labels``, ``Map``, ``Spread`` or ``Plan``.
    image : Image
        3-D volume; labels and masks hold small whole numbers.
    colours : dict of int to (r, g, b), optional
        Colour of each label, 0-255; None for grey-value images and maps.
    names : dict of int to str
        Name of each label, where one colour is not enough.
    colormap : str
        NiiVue colour map of an image without ``colours``.
    shown : bool
        Switched on when the page opens.
    """

    name: str
    group: str
    image: Image
    colours: dict[int, tuple[int, int, int]] | None = None
    names: dict[int, str] = field(default_factory=dict)
    colormap: str = "gray"
    shown: bool = False


def to_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Scale an image to 0-255 between 0 (or its minimum) and the 99.8th percentile of its non-zero voxels."""
    inside = values[values != 0]
    if inside.size == 0:
        return np.zeros(values.shape, np.uint8)
    low = min(0.0, float(inside.min()))
    high = float(np.percentile(inside, 99.8))
    if high <= low:
        high = low + 1.0
    return np.clip((values - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)


def encode(image: Image, box: tuple[slice, slice, slice], labels: bool) -> str:
    """Return the cropped volume as base64 of a gzipped uint8 NIfTI."""
    data = image.data[box]
    data = data.astype(np.uint8) if labels else to_uint8(data.astype(np.float32))
    affine = image.affine.copy()
    affine[:3, 3] = apply_affine(image.affine, [s.start for s in box])
    volume = nib.Nifti1Image(data, affine)
    volume.set_sform(affine, code=2)
    volume.set_qform(affine, code=2)
    return base64.b64encode(gzip.compress(volume.to_bytes(), 6, mtime=0)).decode("ascii")


def build_page(
    title: str,
    note: str,
    layers: list[Layer],
    brain: NDArray[np.bool_],
    focus: NDArray[np.bool_],
    niivue_js: str,
) -> str:
    """Return the HTML of a viewer page.

    Parameters
    ----------
    title, note
        Heading and the sentence under it.
    layers
        In drawing order; the first ``Exam`` layer shown is the background. All on the grid of ``brain``.
    brain : array of shape (nx, ny, nz)
        Brain mask; the page holds its bounding box only.
    focus : array of shape (nx, ny, nz)
        Mask at whose centre the cross stands when the page opens; the brain's if it is empty.
    niivue_js
        Source of the NiiVue library (UMD build), written into the page.
    """
    box = bounding_box(brain, 2)
    volumes = [
        {
            "name": layer.name,
            "group": layer.group,
            "labels": layer.colours is not None,
            "colours": layer.colours or {},
            "names": layer.names,
            "colormap": layer.colormap,
            "shown": layer.shown,
            "base64": encode(layer.image, box, layer.colours is not None),
        }
        for layer in layers
    ]
    centre = [float(c.mean()) for c in np.nonzero(focus if focus.any() else brain)]
    cross = apply_affine(layers[0].image.affine, centre).round(1).tolist()
    template = (
        resources.files("predictgbm.report")
        .joinpath("templates/viewer.html.jinja")
        .read_text(encoding="utf-8")
    )
    # "</" would end the script element early.
    payload = json.dumps(volumes).replace("</", "<\\/")
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            title=title,
            note=note,
            payload=payload,
            cross=json.dumps(cross),
            niivue=niivue_js.replace("</script", "<\\/script"),
        )
    )
