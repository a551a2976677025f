"""LMI, learn-morph-infer: a network reads the parameters of growth from the tumour's labels; the equation runs once.

Source: Ezhov I, Scibilia K, Franitza K, et al. Learn-Morph-Infer: a new way of solving the inverse problem for brain
tumor modeling. Medical Image Analysis 83:102672, 2023, doi:10.1016/j.media.2022.102672.

The source's network sees tumours that have been brought into the anatomy of one atlas, and its simulation is taken
back. Here the network also sees the tissue around the tumour, so that it knows each patient's own anatomy and nothing
has to be morphed; and it looks at a box as large as the tumour asks for. ``docs/models.md`` has the errors of the
shipped weights, :mod:`predictgbm.training.lmi` how they were made.

The network is small enough for numpy: torch trains it, and is not needed to use it.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.growth import ModelError, Prediction, calibration
from predictgbm.growth.calibration import Parameters, block_mean, find_parts
from predictgbm.growth.fisher_kpp import grow
from predictgbm.growth.mass_effect import grow_displaced
from predictgbm.growth.medium import Medium, prepare_medium
from predictgbm.growth.solver import (
    TISSUE_THRESHOLD,
    WHITE_TO_GRAY,
    FisherKPP,
    Vector,
    relative_diffusivity,
)
from predictgbm.masks import bounding_box

#: Cells of the network's box along each axis; masks are looked at on a grid twice as fine and averaged.
CELLS = 24
#: Edge of the box over the longest extent of the tumour.
ENLARGED = 1.5
#: The network sees logarithms of lengths against this one, in mm.
LENGTH_MM = 64.0
#: Ranges of the source: sqrt(D T) in mm and sqrt(rho T).
SPREAD_RANGE = (1.0, 10.0 * 22.5**0.5)
GROWTH_RANGE = (0.1**0.5, 300.0**0.5)
#: What the network sees: core, whole tumour, white and grey matter, the size of the box, three coordinates.
CHANNELS = 8
#: Edge of the first convolution; residual blocks, convolutions in each, and blocks after which cells are halved.
STEM = 5
BLOCKS, LAYERS, POOLED = 4, 4, 2


class Box(NamedTuple):
    """The cube around a tumour that the network sees: its centre in mm along the array's axes, its edge in mm."""

    centre: NDArray[np.float64]
    edge: float

    @staticmethod
    def around(whole: NDArray[np.bool_], spacing: Vector) -> Box:
        """Return the box of a tumour, which must not be empty."""
        box = bounding_box(whole)
        h = np.asarray(spacing, float)
        low, high = np.array([b.start for b in box]) * h, np.array([b.stop for b in box]) * h
        return Box(0.5 * (low + high - h), ENLARGED * float((high - low).max()))

    def sample(self, image: NDArray[Any], spacing: Vector, cells: int) -> NDArray[np.float32]:
        """Return an image at so many cells along each axis, linear between voxels and 0 beyond its edge."""
        h = np.asarray(spacing, float)
        step = self.edge / cells
        first = (self.centre - 0.5 * self.edge + 0.5 * step) / h
        return np.asarray(
            ndimage.affine_transform(
                np.asarray(image, np.float32),
                step / h,
                first,
                (cells,) * 3,
                order=1,
                mode="constant",
                prefilter=False,
            )
        )


def to_channels(masks: NDArray[np.bool_], tissues: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return what is stored of one box, shape (4, n, n, n), shares of 255.

    Parameters
    ----------
    masks : bool array of shape (2, 2n, 2n, 2n)
        Core and whole tumour.
    tissues : array of shape (2, n, n, n), 0 to 1
        White and grey matter.
    """
    shares = [block_mean(mask, (2, 2, 2)) for mask in masks]
    return np.rint(255 * np.stack([*shares, *tissues]).clip(0, 1)).astype(np.uint8)


def look(
    core: NDArray[np.bool_], whole: NDArray[np.bool_], medium: Medium, spacing: Vector
) -> tuple[NDArray[np.uint8], Box]:
    """Return the channels of a tumour on the grid of an exam, shape (4, n, n, n), and the box they show."""
    box = Box.around(whole, spacing)
    masks = np.stack([box.sample(mask, spacing, 2 * CELLS) > 0.5 for mask in (core, whole)])
    tissues = np.stack([box.sample(tissue, spacing, CELLS) for tissue in (medium.wm, medium.gm)])
    return to_channels(masks, tissues), box


def to_target(spread: float, growth: float, offset: Vector, edge: float) -> NDArray[np.float64]:
    """Return what the network learns of one tumour: two logarithms and the seed's place as shares of the edge.

    Parameters
    ----------
    spread, growth
        sqrt(D T) in mm, and sqrt(rho T).
    offset : (float, float, float)
        Of the seed from the centre of the box, in mm.
    edge : float
        Of the box, in mm.
    """
    return np.array([np.log(spread / edge), np.log(growth), *(np.asarray(offset, float) / edge)])


class Inferred(NamedTuple):
    """What a target stands for: sqrt(D T) in mm, sqrt(rho T), and the seed's offset from the box's centre in mm."""

    spread: float
    growth: float
    offset: NDArray[np.float64]


def from_target(target: NDArray[np.floating[Any]], edge: float) -> Inferred:
    """Undo :func:`to_target`, kept within the source's ranges and within the box."""
    values = np.asarray(target, float)
    return Inferred(
        float(np.clip(edge * np.exp(values[0]), *SPREAD_RANGE)),
        float(np.clip(np.exp(values[1]), *GROWTH_RANGE)),
        edge * values[2:].clip(-0.5, 0.5),
    )


class Network:
    """The network, by its weights.

    A convolution with stride 2, then four residual blocks of four convolutions of 3 cells, as in the source; the mean
    over all cells, and a linear layer to five values. Unlike there the first two blocks end in a mean over 2 x 2 x 2
    cells, so that two cores can train it. Batch normalisation is folded into the convolutions.

    Parameters
    ----------
    weights : mapping
        ``stem``, ``block{i}.{j}``, ``head``, each with ``.weight`` and ``.bias``, and ``mean`` and ``deviation`` of the
        targets, as :func:`predictgbm.training.lmi.fold` gives them.

    Raises
    ------
    ModelError
        If one is missing or has the wrong shape; the message names it.
    """

    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        width = len(weights.get("stem.bias", ()))
        expected = {"stem.weight": (width, CHANNELS, *(STEM,) * 3), "stem.bias": (width,)}
        for i in range(BLOCKS):
            for j in range(LAYERS):
                expected[f"block{i}.{j}.weight"] = (width, width, 3, 3, 3)
                expected[f"block{i}.{j}.bias"] = (width,)
        expected |= {"head.weight": (5, width), "head.bias": (5,), "mean": (5,), "deviation": (5,)}
        for name, shape in expected.items():
            found = weights[name].shape if name in weights else None
            if found != shape or not width:
                raise ModelError(f"weights of LMI: {name} has shape {found}, expected {shape}")
        self.weights = {name: np.asarray(weights[name], np.float32) for name in expected}

    @staticmethod
    def load(path: str | os.PathLike[str] | None = None) -> Network:
        """Read weights that ``bin/train_lmi.py`` wrote, a file or its folder; those of the package by default.

        Raises
        ------
        ModelError
            If the file cannot be read or holds something else.
        """
        file = resources.files("predictgbm.growth") / "weights" / "lmi.npz" if path is None else Path(path)
        if isinstance(file, Path) and file.is_dir():
            file = file / "lmi.npz"
        try:
            with file.open("rb") as stream, np.load(stream) as archive:
                return Network({name: archive[name] for name in archive.files})
        except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(
                f"{file}: cannot be read as weights of LMI ({error}); ./predictgbm run --train lmi makes some"
            ) from error

    def __call__(self, channels: NDArray[np.uint8], edge: float) -> NDArray[np.float64]:
        """Return the target, shape (5,), for the channels of a box with this edge in mm."""
        w = self.weights
        x = _convolve(network_input(channels, edge), w["stem.weight"], w["stem.bias"], stride=2).clip(0)
        for i in range(BLOCKS):
            y = x
            for j in range(LAYERS):
                y = _convolve(y.clip(0) if j else y, w[f"block{i}.{j}.weight"], w[f"block{i}.{j}.bias"])
            x = (x + y).clip(0)
            if i < POOLED:
                x = np.stack([block_mean(channel, (2, 2, 2)) for channel in x])
        value = w["head.weight"] @ x.mean(axis=(1, 2, 3)) + w["head.bias"]
        return np.asarray(value * w["deviation"] + w["mean"], float)


def network_input(channels: NDArray[np.uint8], edge: float) -> NDArray[np.float32]:
    """Return the input of the network, shape (8, n, n, n): size and coordinates beside what the box shows."""
    n = channels.shape[-1]
    places = (2 * np.arange(n, dtype=np.float32) + 1) / n - 1
    size = np.full((1, n, n, n), np.log(edge / LENGTH_MM), np.float32)
    coordinates = np.stack(np.meshgrid(places, places, places, indexing="ij"))
    return np.concatenate([channels.astype(np.float32) / 255, size, coordinates])


def _convolve(
    x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32], stride: int = 1
) -> NDArray[np.float32]:
    """Correlate, zeros around: (channels, n, n, n) and (out, channels, k, k, k) to (out, m, m, m), m = n / stride."""
    reach = weight.shape[2] // 2
    padded = np.pad(x, [(0, 0)] + [(reach, reach)] * 3)
    size = [-(-n // stride) for n in x.shape[1:]]
    out = np.repeat(bias[:, None], int(np.prod(size)), axis=1)
    for tap in np.ndindex(*weight.shape[2:]):
        a, b, c = (
            slice(start, start + stride * (n - 1) + 1, stride) for start, n in zip(tap, size, strict=True)
        )
        seen = padded[:, a, b, c].reshape(len(x), -1)
        i, j, k = tap
        out += weight[:, :, i, j, k] @ seen
    return out.reshape(len(bias), *size)


def to_parameters(spread: float, growth: float, seed: NDArray[np.float64]) -> Parameters:
    """Return the parameters of a tumour with one seed, by sqrt(D T) in mm and sqrt(rho T)."""
    days = calibration.DAYS
    return Parameters(spread**2 / days, growth**2 / days, seed[None], np.array([calibration.SEED_PEAK]))


def infer(
    network: Network, core: NDArray[np.bool_], whole: NDArray[np.bool_], medium: Medium, spacing: Vector
) -> Parameters:
    """Return the parameters of one tumour with one seed; the seed is moved to tissue if it is in none.

    Parameters
    ----------
    core, whole : bool arrays of shape (nx, ny, nz)
        Core, which may be empty, and whole tumour.
    medium : Medium
        Of the exam; only its tissue counts.
    spacing : (float, float, float)
        Voxel size in mm.
    """
    channels, box = look(core, whole, medium, spacing)
    found = from_target(network(channels, box.edge), box.edge)
    h = np.asarray(spacing, float)
    place = box.centre + found.offset
    tissue = medium.wm + medium.gm >= TISSUE_THRESHOLD
    voxel = np.clip(np.rint(place / h).astype(int), 0, np.array(whole.shape) - 1)
    if not tissue[tuple(voxel)]:
        candidates = np.argwhere(tissue & whole) * h
        place = candidates[((candidates - place) ** 2).sum(axis=1).argmin()]
    return to_parameters(found.spread, found.growth, place)


def predict(
    tumor_seg: NDArray[Any],
    wm: NDArray[Any],
    gm: NDArray[Any],
    csf: NDArray[Any],
    brain_mask: NDArray[Any],
    *,
    spacing: Vector,
    seed: int = 0,
    weights: str | Path | None = None,
    mass_effect: float = 0.0,
) -> Prediction:
    """Infer the parameters of growth from the tumour labels by the network, and return the concentration they grow.

    Each separate part of the tumour is inferred and grown on its own; where they meet, the larger concentration counts.

    Parameters
    ----------
    tumor_seg : array of shape (nx, ny, nz)
        Canonical tumour labels.
    wm, gm, csf : arrays of shape (nx, ny, nz), 0 to 1
        Tissue probabilities.
    brain_mask : array of shape (nx, ny, nz)
        Nothing is predicted outside.
    spacing : (float, float, float)
        Voxel size in mm.
    seed : int
        Not used: nothing here is random.
    weights : str or Path, optional
        Other weights than the package's: a file, or the folder that a training left (``lmi.npz`` in it).
    mass_effect : float
        As for :func:`predictgbm.growth.fisher_kpp.predict`.

    Raises
    ------
    ModelError
        If the exam shows no tumour inside the brain, or the weights cannot be used.
    ValueError
        If ``mass_effect`` is negative.
    """
    if mass_effect:
        still = partial(predict, spacing=spacing, seed=seed, weights=weights)
        return grow_displaced(still, mass_effect, tumor_seg, wm, gm, csf, brain_mask, spacing)
    began = time.perf_counter()
    inside = np.asarray(brain_mask).astype(bool)
    medium = prepare_medium(tumor_seg, wm, gm, csf, inside)
    network = Network.load(weights)
    relative = relative_diffusivity(medium.wm, medium.gm, brain_mask=inside)
    box = bounding_box(inside)
    solver = FisherKPP(relative[box], spacing)
    corner = np.array([side.start * h for side, h in zip(box, spacing, strict=True)])
    image = np.zeros(inside.shape, np.float32)
    found = []
    for part in find_parts(medium.whole, spacing):
        parameters = infer(network, medium.core & part, part, medium, spacing)
        found.append(parameters)
        inner = replace(parameters, seeds=parameters.seeds - corner)
        image[box] = np.maximum(image[box], grow(solver, inner))
    return Prediction(
        image,
        {
            "diffusivity_mm2_per_day": [p.diffusivity for p in found],
            "proliferation_per_day": [p.proliferation for p in found],
            "white_to_gray_ratio": WHITE_TO_GRAY,
            "days": calibration.DAYS,
            "seeds_mm": np.concatenate([p.seeds for p in found]).tolist(),
            "displaced_voxels": medium.displaced,
            "uncovered_voxels": medium.uncovered,
            "seconds": time.perf_counter() - began,
        },
    )
