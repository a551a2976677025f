"""Tumours of the Fisher-KPP equation with known parameters, grown in many anatomies, for networks to learn from.

What one exam tells apart is drawn evenly: how far the front came and how wide it is. The ranges follow those of
Learn-Morph-Infer (see :mod:`predictgbm.growth.lmi`), as do those of the thresholds of visibility.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from predictgbm.growth import calibration, lmi
from predictgbm.growth.calibration import block_mean, gaussian_seeds
from predictgbm.growth.solver import FisherKPP, relative_diffusivity
from predictgbm.simulation.patient import Simulator, random_stream

#: How far the front would come, 2 sqrt(D rho) T, and its width sqrt(D / rho), in mm.
REACH_MM = (4.0, 80.0)
WIDTH_MM = (0.5, 8.0)
#: Thresholds of visibility in T1c and in FLAIR.
CORE_THRESHOLDS = (0.5, 0.85)
EDEMA_THRESHOLDS = (0.05, 0.5)
#: Whole tumours of other sizes are not kept, in ml.
VOLUME_ML = (0.05, 300.0)
#: Fronts narrower than this, in mm, are grown on 1 mm, others on 2 mm.
FINE_BELOW_MM = 2.5
#: Pairs of thresholds drawn for one tumour.
VIEWS = 3
#: Labels follow isolines only roughly: noise on the logit, linear between so many points along each axis of the box.
ROUGHNESS, ROUGH_POINTS = 0.3, 8
_BETWEEN = np.stack(
    [
        np.interp(np.linspace(0, ROUGH_POINTS - 1, 2 * lmi.CELLS), np.arange(ROUGH_POINTS), point)
        for point in np.eye(ROUGH_POINTS)
    ],
    axis=1,
).astype(np.float32)
#: The box is not quite where the tumour is: relative change of its edge, and shift as a share of it.
JITTER_EDGE, JITTER_SHIFT = 0.12, 0.05


@dataclass(frozen=True)
class Anatomy:
    """White and grey matter of one individual: float32 arrays of one shape, 0 to 1; voxel edge in mm.

    ``first`` is the centre of the first voxel, in mm from that of the individual's first voxel of 1 mm.
    """

    wm: NDArray[np.float32]
    gm: NDArray[np.float32]
    spacing: float = 1.0
    first: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def around(self, place: NDArray[np.float64], reach: float) -> Anatomy:
        """Return what lies within so many mm of a place along each axis."""
        voxel = (place - self.first) / self.spacing
        span = reach / self.spacing
        low = np.floor(voxel - span).astype(int).clip(0)
        cut = tuple(slice(a, max(a, int(b)) + 1) for a, b in zip(low, np.ceil(voxel + span), strict=True))
        x, y, z = (self.first + low * self.spacing).tolist()
        return Anatomy(self.wm[cut], self.gm[cut], self.spacing, (x, y, z))

    def coarser(self) -> Anatomy:
        """Return the same individual on cells twice as large."""
        wm, gm = (block_mean(tissue, (2, 2, 2)) for tissue in (self.wm, self.gm))
        x, y, z = (first + 0.5 * self.spacing for first in self.first)
        return Anatomy(wm, gm, 2 * self.spacing, (x, y, z))


class Truth(NamedTuple):
    """What made a tumour: sqrt(D T) in mm, sqrt(rho T), the seed in mm from the centre of the anatomy's first voxel."""

    spread: float
    growth: float
    seed: NDArray[np.float64]


class Tumors(NamedTuple):
    """Tumours as the network of LMI sees them.

    Attributes
    ----------
    channels : uint8 array of shape (m, 4, n, n, n), see :func:`predictgbm.growth.lmi.to_channels`
    edges : float32 array of shape (m,), of the boxes, in mm
    targets : float32 array of shape (m, 5), see :func:`predictgbm.growth.lmi.to_target`
    """

    channels: NDArray[np.uint8]
    edges: NDArray[np.float32]
    targets: NDArray[np.float32]


def draw_anatomy(simulator: Simulator, seed: int, number: int) -> Anatomy:
    """Return the individual of this number at 1 mm."""
    anatomy, _ = simulator.anatomy(seed, number)
    wm, gm, _, mask, _ = anatomy.tissue(simulator.lattice.covering(1.0).points())
    return Anatomy(wm * mask, gm * mask)


def draw_truth(rng: np.random.Generator, anatomy: Anatomy) -> Truth:
    """Draw the parameters of a tumour, its seed anywhere in tissue."""
    while True:
        width = float(np.exp(rng.uniform(*np.log(WIDTH_MM))))
        reach = float(rng.uniform(*REACH_MM))
        spread, growth = np.sqrt(0.5 * width * reach), np.sqrt(0.5 * reach / width)
        ranges = (lmi.SPREAD_RANGE, lmi.GROWTH_RANGE)
        if all(low <= v <= high for v, (low, high) in zip((spread, growth), ranges, strict=True)):
            break
    tissue = anatomy.wm + anatomy.gm > 0.5
    while True:
        voxel = rng.integers(0, tissue.shape)
        if tissue[tuple(voxel)]:
            return Truth(float(spread), float(growth), voxel.astype(float) * anatomy.spacing)


def grow(anatomy: Anatomy, truth: Truth) -> tuple[NDArray[np.float32], Anatomy]:
    """Return the concentration of a tumour, and the part of the anatomy that it is on the grid of."""
    width, reach = truth.spread / truth.growth, 2 * truth.spread * truth.growth
    # A coarse front would not have the width that it should; before the front there is a tail.
    part = anatomy.around(truth.seed, reach + 2 * width + 8)
    if width >= FINE_BELOW_MM:
        part = part.coarser()
    p = lmi.to_parameters(*truth)
    solver = FisherKPP(relative_diffusivity(part.wm, part.gm), (part.spacing,) * 3)
    start = gaussian_seeds(solver.shape, solver.spacing, p.seeds, p.peaks, origin=part.first)
    u = solver.simulate(start, p.diffusivity, p.proliferation, calibration.DAYS)
    return np.asarray(u, np.float32), part


def draw_view(
    rng: np.random.Generator, anatomy: Anatomy, truth: Truth, u: NDArray[np.float32], part: Anatomy
) -> tuple[NDArray[np.uint8], float, NDArray[np.float64]] | None:
    """Return channels, edge and target of a tumour between two thresholds; None if it has no size worth keeping.

    Parameters
    ----------
    anatomy : Anatomy
        At 1 mm, whole.
    truth : Truth
    u, part
        What :func:`grow` returned.
    """
    core, edema = float(rng.uniform(*CORE_THRESHOLDS)), float(rng.uniform(*EDEMA_THRESHOLDS))
    whole = u > edema
    ml = np.count_nonzero(whole) * part.spacing**3 / 1000
    if not VOLUME_ML[0] <= ml <= VOLUME_ML[1]:
        return None
    spacing = (part.spacing,) * 3
    box = lmi.Box.around(whole, spacing)
    edge = box.edge * float(1 + rng.uniform(-JITTER_EDGE, JITTER_EDGE))
    box = lmi.Box(box.centre + edge * rng.uniform(-JITTER_SHIFT, JITTER_SHIFT, 3), edge)
    seen = logit(box.sample(u, spacing, 2 * lmi.CELLS).clip(1e-6, 1 - 1e-6))
    noise = rng.standard_normal((2, *(ROUGH_POINTS,) * 3), np.float32)
    for axis in (1, 2, 3):
        noise = np.moveaxis(np.tensordot(_BETWEEN, noise, (1, axis)), 0, axis)
    masks = seen - ROUGHNESS * noise > logit(np.array([core, edema], np.float32))[:, None, None, None]
    masks[0] &= masks[1]
    if not masks[1].any():
        return None
    box = lmi.Box(box.centre + part.first, edge)
    tissues = np.stack([box.sample(tissue, (1.0,) * 3, lmi.CELLS) for tissue in (anatomy.wm, anatomy.gm)])
    target = lmi.to_target(truth.spread, truth.growth, truth.seed - box.centre, edge)
    return lmi.to_channels(masks, tissues), edge, target


def grow_individual(simulator: Simulator, seed: int, number: int, count: int) -> Tumors:
    """Grow tumours in one individual, which hangs on atlas, seed and number alone.

    Parameters
    ----------
    simulator
        On the atlas.
    seed, number
        Of the individual.
    count
        Tumours to grow; each is seen ``VIEWS`` times, views of no sensible size are left out.
    """
    anatomy = draw_anatomy(simulator, seed, number)
    rng = random_stream(seed, number, 3)
    rows: list[tuple[NDArray[np.uint8], float, NDArray[np.float64]]] = []
    for _ in range(count):
        truth = draw_truth(rng, anatomy)
        u, part = grow(anatomy, truth)
        views = [draw_view(rng, anatomy, truth, u, part) for _ in range(VIEWS)]
        rows.extend(view for view in views if view is not None)
    n = lmi.CELLS
    return Tumors(
        np.array([channels for channels, _, _ in rows], np.uint8).reshape(-1, 4, n, n, n),
        np.array([edge for _, edge, _ in rows], np.float32),
        np.array([target for _, _, target in rows], np.float32).reshape(-1, 5),
    )


def join(parts: Sequence[Tumors]) -> Tumors:
    """Return the tumours of several individuals, one after the other."""
    return Tumors(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
