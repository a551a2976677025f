"""PINN-GBM: a physics-informed network that bends a typical tumour in space and time until it fits the patient.

Source: Zhang RZ, Ezhov I, Balcerak M, et al. Personalized predictions of glioblastoma infiltration: mathematical
models, physics-informed neural networks and multimodal scans. Medical Image Analysis 101:103423, 2025,
doi:10.1016/j.media.2024.103423.

A sphere in uniform tissue gives characteristic parameters from two radii. With them the growth equation is solved in
the patient's tissue. A network then changes this solution, while diffusivity, proliferation, seeds and thresholds of
visibility change with it: one sum of squares asks that the equation still holds, that the concentration meets its
thresholds along the surfaces of the labels, and that nothing strays far from where it began. The equation is solved
again with what was found, and so on until it stays. ``docs/models.md`` says where this differs from the source.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit, logit

from predictgbm.growth import Prediction
from predictgbm.growth.calibration import (
    SPEED_RANGE,
    WIDTH_RANGE,
    Assumptions,
    Reading,
    Surface,
    coarsen,
    find_foci,
    find_surfaces,
    robust,
    robust_slope,
)
from predictgbm.growth.fisher_kpp import RANKING_THRESHOLD
from predictgbm.growth.medium import prepare_medium
from predictgbm.growth.solver import WHITE_TO_GRAY, FisherKPP, Vector, relative_diffusivity
from predictgbm.masks import ball_radius, bounding_box, dice

DAYS = 100.0
#: A seed is ``SEED_PEAK exp(-SEED_FALL r^2)``, r in mm.
SEED_PEAK, SEED_FALL = 0.5, 0.01
THRESHOLD_EDEMA, THRESHOLD_CORE = 0.35, 0.7

#: Widths of the front, sqrt(D / rho) in mm, among which the characteristic one is sought.
WIDTHS_MM = np.geomspace(0.5, 12.0, 24)
#: Shells of the sphere along the radius of the tumour, and in all; step in units of 1 / rho, and the longest growth.
SHELLS, ALL_SHELLS = 60, 150
SHELL_STEP, LONGEST = 0.05, 300.0

#: Cells of the working grid along the radius of the tumour, none larger than this, in mm; margin around the tumour.
CELLS_PER_RADIUS, LARGEST_CELL_MM = 10.0, 2.0
MARGIN_MM = 30.0
#: Moments at which solutions are kept.
FRAMES = 20
#: The equation is asked for where the solution has concentrations between this and one minus this.
LEAST = 1e-4
#: Concentrations are kept this far from 0 and 1, so that they have a logit.
FLOOR, CEILING = 1e-12, 1 - 1e-6
#: Changes by which the solution's response to an unknown is measured: of log rates, and of a place in mm.
RATE_STEP, PLACE_STEP = 0.05, 0.5

#: Units of the hidden layers.
HIDDEN = (16, 16, 16)
#: Logits are seen by the network in this unit.
LOGIT_UNIT = 8.0
#: Cells at which the equation is asked for, and points of each surface, drawn anew for every step.
POINTS, SURFACE_POINTS = 4000, 1500
#: A misfit of 1 mm along a surface weighs as much as an error of the growth rate by this share at first. Where the
#: solution then fits worse than before, the network bridged what the unknowns should: it is reduced by this factor.
FIRST_SHARE, REDUCED, LEAST_SHARE = 0.1, 0.25, 1e-3
#: Standard deviations believed beforehand, in units of a misfit of 1 mm: of log rates, of the thresholds' logits, of
#: places in mm.
BELIEVED = (10.0, 0.3, 100.0)
#: Steps of Levenberg and Marquardt in a round, and rounds; a round that moves log rates by less ends the search.
STEPS, ROUNDS = 6, 10
SETTLED = 0.02
#: Damping at first and at least; trials of one step; largest step of an unknown, as logarithm, logit or in mm.
DAMPING, LEAST_DAMPING, TRIALS = 1e-2, 1e-4, 6
LARGEST_STEP = 2.0


class Network:
    """A multilayer perceptron with tanh between its layers and one output, all weights in one vector.

    It sees place, time and the logit of the solution that it changes.
    """

    def __init__(self, hidden: Sequence[int] = HIDDEN) -> None:
        self.sizes = (5, *hidden, 1)
        self.count = sum((a + 1) * b for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True))

    def start(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return weights of a network that answers 0 everywhere: the last layer is zero, the others are random."""
        layers = []
        for a, b in zip(self.sizes[:-2], self.sizes[1:-1], strict=True):
            layers += [rng.normal(0, np.sqrt(2 / (a + b)), a * b), rng.normal(0, 0.5, b)]
        return np.concatenate([*layers, np.zeros(self.sizes[-2] + 1)])

    def _layers(self, weights: NDArray[Any]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        layers, at = [], 0
        for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            matrix, bias = np.split(weights[at : at + (a + 1) * b].astype(np.float32), [a * b])
            layers.append((matrix.reshape(a, b), bias))
            at += (a + 1) * b
        return layers

    def activations(self, weights: NDArray[Any], inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the inputs, shape (..., 5), and what each layer makes of them; the last has shape (..., 1)."""
        result = [inputs]
        for matrix, bias in self._layers(weights)[:-1]:
            result.append(np.tanh(result[-1] @ matrix + bias))
        matrix, bias = self._layers(weights)[-1]
        return [*result, result[-1] @ matrix + bias]

    def jacobian(
        self, weights: NDArray[Any], activations: list[NDArray[np.float32]], factors: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Differentiate weighted sums of outputs by the weights.

        Parameters
        ----------
        weights : array of shape (count,)
        activations
            Of inputs of shape (n, e, 5).
        factors : array of shape (n, e)

        Returns
        -------
        array of shape (n, count)
            Row i is the derivative of ``sum_e factors[i, e] * output[i, e]``.
        """
        slope = factors[..., None].astype(np.float32)
        parts: list[NDArray[np.float32]] = []
        for (matrix, _), x in zip(self._layers(weights)[::-1], activations[-2::-1], strict=True):
            by_matrix = np.matmul(x.transpose(0, 2, 1), slope)
            parts = [by_matrix.reshape(len(slope), -1), slope.sum(axis=1), *parts]
            slope = (slope @ matrix.T) * (1 - x * x)
        return np.concatenate(parts, axis=1)


def characteristic(radius_core: float, radius_whole: float) -> tuple[float, float]:
    """Return D T in mm^2 and rho T of a sphere in uniform tissue that is seen with these radii.

    For each width of the front the sphere grows until the radius of the whole tumour is reached; the width with the
    right core wins, the one nearest to 2 mm if there is no core.

    Parameters
    ----------
    radius_core, radius_whole : float
        In mm; that of the core may be 0.
    """
    step = radius_whole / SHELLS
    r = (np.arange(ALL_SHELLS) + 0.5) * step
    inner, outer = (r - 0.5 * step) ** 2, (r + 0.5 * step) ** 2
    volume = ((r + 0.5 * step) ** 3 - (r - 0.5 * step) ** 3) / 3
    found = []
    for width in WIDTHS_MM:
        # In units of 1 / rho the diffusivity is the square of the width. Diffusion is implicit, growth exact.
        exchange = SHELL_STEP * width**2 / step / volume
        bands = np.zeros((3, len(r)))
        bands[0, 1:] = -(exchange * outer)[:-1]
        bands[1] = 1 + exchange * (inner + outer)
        bands[1, -1] -= exchange[-1] * outer[-1]
        bands[2, :-1] = -(exchange * inner)[1:]
        u, grown = SEED_PEAK * np.exp(-SEED_FALL * r**2), 0.0
        while _radius(r, u, THRESHOLD_EDEMA) < radius_whole and grown < LONGEST:
            u = linalg.solve_banded((1, 1), bands, u)
            u *= np.exp(SHELL_STEP) / (1 + u * np.expm1(SHELL_STEP))
            grown += SHELL_STEP
        wrong = abs(_radius(r, u, THRESHOLD_CORE) - radius_core) if radius_core else abs(np.log(width / 2))
        found.append((wrong, width**2 * max(grown, SHELL_STEP), max(grown, SHELL_STEP)))
    return min(found)[1:]


def _radius(r: NDArray[Any], u: NDArray[Any], threshold: float) -> float:
    """Return where a falling profile crosses a threshold; 0 or its end if it does not."""
    above = int(np.searchsorted(-u, -threshold))
    if above in (0, len(r)):
        return float(r[-1]) if above else 0.0
    share = (u[above - 1] - threshold) / (u[above - 1] - u[above])
    return float(r[above - 1] + share * (r[above] - r[above - 1]))


@dataclass(frozen=True)
class Unknowns:
    """What is found beside the network.

    Attributes
    ----------
    diffusivity, proliferation : float
        Of white matter, in mm^2 / day; 1 / day.
    threshold_edema, threshold_core : float
        Concentration above which tumour is visible in FLAIR and in T1c.
    seeds : array of shape (n, 3)
        In mm from the centre of the first voxel.
    """

    diffusivity: float
    proliferation: float
    threshold_edema: float
    threshold_core: float
    seeds: NDArray[np.float64]

    def to_vector(self) -> NDArray[np.float64]:
        """Return the logarithms of both rates, the logits of both thresholds, all places; shape (4 + 3 n,)."""
        rates = np.log([self.diffusivity, self.proliferation])
        return np.concatenate([rates, logit([self.threshold_edema, self.threshold_core]), self.seeds.ravel()])

    @staticmethod
    def from_vector(vector: NDArray[np.float64]) -> Unknowns:
        """Undo :meth:`to_vector`."""
        d, rho = np.exp(vector[:2]).tolist()
        edema, core = expit(vector[2:4]).tolist()
        return Unknowns(d, rho, edema, core, vector[4:].reshape(-1, 3))

    def bounded(self, grid: Grid) -> Unknowns:
        """Return the nearest with a front as the calibration allows and seeds in the grid."""
        d, rho = self.diffusivity, self.proliferation
        speed = float(np.clip(2 * np.sqrt(d * rho), *SPEED_RANGE))
        width = float(np.clip(np.sqrt(d / rho), *WIDTH_RANGE))
        far = grid.origin + (np.array(grid.relative.shape) - 1) * grid.spacing
        return replace(
            self,
            diffusivity=0.5 * speed * width,
            proliferation=0.5 * speed / width,
            seeds=self.seeds.clip(grid.origin, far),
        )


def seed_concentration(
    shape: Sequence[int], spacing: Vector, seeds: NDArray[np.float64], origin: Vector = (0.0, 0.0, 0.0)
) -> NDArray[np.float32]:
    """Return what a tumour starts from, on a grid of this shape and spacing in mm whose first centre is the origin."""
    total = np.zeros(tuple(shape))
    for seed in seeds:
        x, y, z = (
            np.exp(-SEED_FALL * (start + np.arange(n) * h - place) ** 2)
            for n, h, start, place in zip(shape, spacing, origin, seed, strict=True)
        )
        total += SEED_PEAK * np.einsum("i,j,k->ijk", x, y, z)
    return np.minimum(total, 1).astype(np.float32)


class Grid(NamedTuple):
    """The working grid: relative diffusivity (0 outside tissue), size of a cell and centre of the first one, in mm."""

    relative: NDArray[np.float32]
    spacing: NDArray[np.float64]
    origin: NDArray[np.float64]

    @staticmethod
    def of(relative: NDArray[np.float32], spacing: NDArray[np.float64], cell: float) -> Grid:
        """Return a grid of cells of about this size in mm, none smaller than the voxels."""
        factors = [max(1, round(cell / h)) for h in spacing]
        coarse, size, origin = coarsen(relative, spacing, factors)
        return Grid(coarse.astype(np.float32), size, origin)

    def solve(self, p: Unknowns) -> NDArray[np.float32]:
        """Return the logit of the equation's solution at all moments, shape (FRAMES, nx, ny, nz)."""
        solver = FisherKPP(self.relative, self.spacing)
        u = seed_concentration(self.relative.shape, self.spacing, p.seeds, self.origin)
        frames = []
        for _ in range(FRAMES):
            u = solver.simulate(
                u, p.diffusivity, p.proliferation, DAYS / FRAMES, active_threshold=RANKING_THRESHOLD
            )
            frames.append(u)
        return np.stack([logit(u.astype(float).clip(FLOOR, CEILING)).astype(np.float32) for u in frames])

    def exchange(self) -> NDArray[np.float64]:
        """Return what passes each cell's six faces, per unit of diffusivity: shape (6, nx, ny, nz), in 1 / mm^2."""
        faces = np.zeros((6, *self.relative.shape))
        for axis in range(3):
            a = tuple(slice(0, -1) if k == axis else slice(None) for k in range(3))
            b = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
            both = (self.relative[a] > 0) & (self.relative[b] > 0)
            face = np.where(both, 0.5 * (self.relative[a] + self.relative[b]), 0) / self.spacing[axis] ** 2
            faces[axis][b] = faces[3 + axis][a] = face
        return faces


#: A cell and its neighbours behind the six faces, in the order of :meth:`Grid.exchange`.
AROUND = np.concatenate([np.zeros((1, 3), int), -np.eye(3, dtype=int), np.eye(3, dtype=int)])
#: The network is asked at these, then twice more at the cell itself, a little later and a little earlier.
SAMPLED = [0, 1, 2, 3, 4, 5, 6, 0, 0]


def diffuse(
    v: NDArray[np.float64], faces: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``div(d grad u) / (u (1 - u))`` for cells, and its derivative by the logits.

    Parameters
    ----------
    v : array of shape (n, 7)
        Logit of the concentration u of each cell and of its six neighbours.
    faces : array of shape (n, 6)
        See :meth:`Grid.exchange`.

    Returns
    -------
    arrays of shape (n,) and (n, 7)
    """
    u = expit(v)
    slope_u = u * (1 - u)
    ratio = (u[:, 1:] - u[:, :1]) / slope_u[:, :1]
    slope = np.empty_like(v)
    slope[:, 1:] = faces * slope_u[:, 1:] / slope_u[:, :1]
    slope[:, 0] = -(faces * (1 + ratio * (1 - 2 * u[:, :1]))).sum(axis=1)
    return (faces * ratio).sum(axis=1), slope


class Asked(NamedTuple):
    """Where the equation is asked for in one step; n points, k unknowns beside the network.

    Attributes
    ----------
    inputs : float32 array of shape (n, 9, 5)
        Of the network: the cell, its six neighbours, the cell a little later and a little earlier.
    moments : array of shape (n, 9), 0 to 1
    between : float
        From the earlier to the later one, in days.
    v : array of shape (n, 7)
        Logit of the solution in the cell and its neighbours.
    rate : array of shape (n,)
        Its derivative by time.
    responses, rate_responses : arrays of shapes (n, 7, k) and (n, k)
        Derivatives of these by the unknowns.
    faces : array of shape (n, 6)
    weight : array of shape (n,)
    """

    inputs: NDArray[np.float32]
    moments: NDArray[np.float64]
    between: float
    v: NDArray[np.float64]
    rate: NDArray[np.float64]
    responses: NDArray[np.float64]
    rate_responses: NDArray[np.float64]
    faces: NDArray[np.float64]
    weight: NDArray[np.float64]


def draw(reading: Reading, rng: np.random.Generator) -> Reading:
    """Return some faces of a surface, the likelier the larger their weight; they keep it."""
    s = reading.surface
    drawn = rng.choice(len(s.weight), SURFACE_POINTS, p=s.weight if s.weight.any() else None)
    part = replace(s, inner=s.inner[drawn], outer=s.outer[drawn], weight=s.weight[drawn], step=s.step[drawn])
    return Reading(reading.inner[drawn], reading.outer[drawn], part)


class Seen(NamedTuple):
    """Where the labels are asked for in one step: points of one surface, drawn as their weights say.

    Attributes
    ----------
    inputs : float32 array of shape (n, 1, 5)
    v : array of shape (n,)
    responses : array of shape (n, k)
    slope : float
        Of the logit along the surface, per mm.
    slope_response : array of shape (k,)
        Derivative of its logarithm. Without it a flatter solution would look nearer to the surface.
    unknown : int
        Place of the surface's threshold in :meth:`Unknowns.to_vector`.
    """

    inputs: NDArray[np.float32]
    v: NDArray[np.float64]
    responses: NDArray[np.float64]
    slope: float
    slope_response: NDArray[np.float64]
    unknown: int


class Departure:
    """The sum of squares of one round: how the solution for some unknowns may be changed.

    The logit of the concentration is that of the solution, plus its response to a change of the unknowns, plus
    ``t N(x, y, z, t, v)`` by the network N, t from 0 to 1 and v the solution's logit.

    Parameters
    ----------
    grid : Grid
    base, first : Unknowns
        Those of the solution, and those that are believed beforehand.
    surfaces : list of (int, Surface)
        With the place of each one's threshold in :meth:`Unknowns.to_vector`.
    network : Network
    """

    def __init__(
        self,
        grid: Grid,
        base: Unknowns,
        first: Unknowns,
        surfaces: list[tuple[int, Surface]],
        network: Network,
    ) -> None:
        self.grid, self.network = grid, network
        self.base, self.first = base.to_vector(), first.to_vector()
        numbers = [2, 2, base.seeds.size]
        self.belief = 1 / np.repeat(BELIEVED, numbers)
        self.steps = np.repeat([RATE_STEP, 0.0, PLACE_STEP], numbers)
        self.moved = {
            k: Unknowns.from_vector(self.base + step)
            for k, step in enumerate(np.diag(self.steps))
            if self.steps[k]
        }
        self.v = grid.solve(base)
        self.v_moved = {k: grid.solve(p) for k, p in self.moved.items()}
        tissue = grid.relative > 0
        self.faces = grid.exchange()
        self.candidates = np.argwhere((np.abs(self.v) < logit(1 - LEAST)) & tissue)
        corners = np.array([np.zeros(3), np.array(tissue.shape) - 1.0]) * grid.spacing + grid.origin
        self.middle, self.reach = corners.mean(axis=0), 0.5 * float(np.ptp(corners, axis=0).max())
        self.surfaces = [
            (unknown, Reading.of(s, tissue, grid.spacing, grid.origin)) for unknown, s in surfaces
        ]

    def misfit(self) -> float:
        """Return the root mean square distance of the solution's isolines from the surfaces, in mm."""
        last = self.v[-1].ravel()
        squares = [
            float(
                np.sum(
                    one.surface.weight * robust((one.read(last) - self.base[unknown]) / one.slope(last)) ** 2
                )
            )
            for unknown, one in self.surfaces
        ]
        return float(np.sqrt(np.sum(squares) / max(1, len(squares))))

    def _inputs(
        self, places: NDArray[np.float64], moments: NDArray[np.float64], v: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        scaled = (places - self.middle) / self.reach
        inputs = np.concatenate([scaled, moments[..., None], v[..., None] / LOGIT_UNIT], axis=-1)
        return inputs.astype(np.float32)

    def ask(self, rng: np.random.Generator) -> Asked:
        """Draw cells and moments at which the equation is asked for."""
        chosen = self.candidates[rng.integers(0, len(self.candidates), POINTS)]
        frame, cell = chosen[:, :1], chosen[:, 1:]
        cells = (cell[:, None] + AROUND).clip(0, np.array(self.grid.relative.shape) - 1)
        x, y, z = np.moveaxis(cells, -1, 0)
        at = (frame, x, y, z)
        v, faces = self.v[at].astype(float), self.faces[:, cell[:, 0], cell[:, 1], cell[:, 2]].T
        d, rho = np.exp(self.base[:2])
        rate = rho + d * diffuse(v, faces)[0]
        responses = np.zeros((*v.shape, len(self.base)))
        rate_responses = np.zeros((len(v), len(self.base)))
        for k, p in self.moved.items():
            other = self.v_moved[k][at].astype(float)
            other_rate = p.proliferation + p.diffusivity * diffuse(other, faces)[0]
            responses[..., k] = (other - v) / self.steps[k]
            rate_responses[:, k] = (other_rate - rate) / self.steps[k]
        ahead = 0.25 / FRAMES
        change = DAYS * ahead * rate
        u = expit(v[:, 0])
        moments = np.repeat((frame + 1) / FRAMES, 9, axis=1) + ahead * np.r_[np.zeros(7), 1, -1]
        return Asked(
            self._inputs(
                cells[:, SAMPLED] * self.grid.spacing + self.grid.origin,
                moments,
                np.column_stack([v, v[:, 0] + change, v[:, 0] - change]),
            ),
            moments,
            2 * ahead * DAYS,
            v,
            rate,
            responses,
            rate_responses,
            faces,
            np.sqrt(4 * u * (1 - u) / len(v)) / rho,
        )

    def look(self, rng: np.random.Generator) -> list[Seen]:
        """Draw points of the surfaces."""
        result = []
        last = self.v[-1].ravel()
        for unknown, one in self.surfaces:
            part = draw(one, rng)
            v = part.read(last)
            slope, slope_response = one.slope(last), np.zeros(len(self.base))
            responses = np.zeros((len(v), len(self.base)))
            for k, frames in self.v_moved.items():
                moved = frames[-1].ravel()
                responses[:, k] = (part.read(moved) - v) / self.steps[k]
                slope_response[k] = np.log(one.slope(moved) / slope) / self.steps[k]
            places = 0.5 * (part.surface.inner + part.surface.outer)
            inputs = self._inputs(places[:, None], np.ones((len(v), 1)), v[:, None])
            result.append(Seen(inputs, v, responses, slope, slope_response, unknown))
        return result

    def _equation(
        self, asked: Asked, vector: NDArray[np.float64], derivative: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return the weighted error of d(logit u)/dt at each point, and its derivative by the vector."""
        n = self.network.count
        weights, change = vector[:n], vector[n:]
        d, rho = np.exp(self.base[:2] + change[:2])
        active = self.network.activations(weights, asked.inputs)
        bent = asked.moments * active[-1][..., 0]
        flow, slope = diffuse(asked.v + asked.responses @ change + bent[:, :7], asked.faces)
        rate = asked.rate + asked.rate_responses @ change + (bent[:, 7] - bent[:, 8]) / asked.between
        error = asked.weight * (rate - rho - d * flow)
        jacobian = np.empty((len(error) if derivative else 0, len(vector)), np.float32)
        if derivative:
            factors = np.column_stack([-d * slope, np.tile([1, -1], (len(slope), 1)) / asked.between])
            factors *= asked.weight[:, None]
            jacobian[:, :n] = self.network.jacobian(weights, active, factors * asked.moments)
            jacobian[:, n:] = np.einsum("ne,nek->nk", factors[:, :7], asked.responses)
            jacobian[:, n:] += asked.weight[:, None] * asked.rate_responses
            jacobian[:, n] -= asked.weight * d * flow
            jacobian[:, n + 1] -= asked.weight * rho
        return error, jacobian

    def _labels(
        self, seen: Seen, vector: NDArray[np.float64], share: float, derivative: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return the weighted distance from a surface at each point, and its derivative by the vector."""
        n = self.network.count
        weights, change = vector[:n], vector[n:]
        active = self.network.activations(weights, seen.inputs)
        level = self.base[seen.unknown] + change[seen.unknown]
        steepness = seen.slope * np.exp(seen.slope_response @ change)
        distance = (seen.v + seen.responses @ change + active[-1][:, 0, 0] - level) / steepness
        weight = share / np.sqrt(len(distance))
        jacobian = np.empty((len(distance) if derivative else 0, len(vector)), np.float32)
        if derivative:
            slope = weight / steepness * robust_slope(distance)
            jacobian[:, :n] = self.network.jacobian(weights, active, slope[:, None])
            jacobian[:, n:] = slope[:, None] * (
                seen.responses - np.outer(steepness * distance, seen.slope_response)
            )
            jacobian[:, n + seen.unknown] -= slope
        return weight * robust(distance), jacobian

    def residual(
        self,
        asked: Asked,
        seen: list[Seen],
        vector: NDArray[np.float64],
        share: float,
        *,
        derivative: bool = True,
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return what is squared, shape (m,), and its derivative by the vector, (m, n), without rows if not wanted.

        The vector holds the network's weights and the change of the unknowns; a misfit of 1 mm weighs as much as an
        error of the growth rate by ``share``.
        """
        parts = [self._equation(asked, vector, derivative)]
        parts += [self._labels(one, vector, share, derivative) for one in seen]
        strayed = share * self.belief * (self.base + vector[self.network.count :] - self.first)
        by_strayed = np.zeros((len(strayed) if derivative else 0, len(vector)), np.float32)
        if derivative:
            by_strayed[:, self.network.count :] = np.diag(share * self.belief)
        errors, jacobians = zip(*parts, (strayed, by_strayed), strict=True)
        return np.concatenate(errors), np.concatenate(jacobians)

    def minimise(self, rng: np.random.Generator, share: float) -> Unknowns:
        """Return the unknowns after some steps of Levenberg and Marquardt, each on points of its own."""
        vector = np.concatenate([self.network.start(rng), np.zeros(len(self.base))])
        damping = DAMPING
        for _ in range(STEPS):
            asked, seen = self.ask(rng), self.look(rng)
            error, jacobian = self.residual(asked, seen, vector, share)
            matrix = (jacobian.T @ jacobian).astype(float)
            slope = (jacobian.T @ error.astype(np.float32)).astype(float)
            diagonal = matrix.diagonal() + 1e-6 * matrix.diagonal().max()
            for _ in range(TRIALS):
                step = linalg.cho_solve(linalg.cho_factor(matrix + np.diag(damping * diagonal)), slope)
                step[self.network.count :] = step[self.network.count :].clip(-LARGEST_STEP, LARGEST_STEP)
                # A step that is far too long ends in infinities, and is not taken.
                with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                    trial, _ = self.residual(asked, seen, vector - step, share, derivative=False)
                if trial @ trial < error @ error:
                    vector, damping = vector - step, max(damping / 4, LEAST_DAMPING)
                    break
                damping *= 5
        return Unknowns.from_vector(self.base + vector[self.network.count :])


def infer(
    grid: Grid,
    first: Unknowns,
    surfaces: list[tuple[int, Surface]],
    rng: np.random.Generator,
) -> tuple[Unknowns, float, int]:
    """Return the unknowns whose solution fits the surfaces best, the misfit in mm, and the number of rounds.

    Parameters
    ----------
    grid, first, surfaces
        As for :class:`Departure`.
    rng : Generator
        Of the network's first weights and of all points.
    """
    network, share = Network(), FIRST_SHARE
    best = Departure(grid, first.bounded(grid), first, surfaces, network)
    rounds = 0
    while rounds < ROUNDS and share > LEAST_SHARE and surfaces and len(best.candidates):
        rounds += 1
        found = best.minimise(rng, share).bounded(grid)
        if np.abs(found.to_vector() - best.base)[:2].max() < SETTLED:
            break
        tried = Departure(grid, found, first, surfaces, network)
        if tried.misfit() < best.misfit():
            best = tried
        else:
            share *= REDUCED
    return Unknowns.from_vector(best.base), best.misfit(), rounds


def predict(
    tumor_seg: NDArray[Any],
    wm: NDArray[Any],
    gm: NDArray[Any],
    csf: NDArray[Any],
    brain_mask: NDArray[Any],
    *,
    spacing: Vector,
    seed: int = 0,
) -> Prediction:
    """Infer growth from the tumour labels with a physics-informed network and return the concentration it grows.

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
        Of the network's first weights and of the points.

    Raises
    ------
    ModelError
        If the exam shows no tumour inside the brain.
    """
    began = time.perf_counter()
    inside = np.asarray(brain_mask).astype(bool)
    h = np.asarray(spacing, float)
    medium = prepare_medium(tumor_seg, wm, gm, csf, inside)
    core, whole = medium.core, medium.whole
    # Tumour is tissue all through: what the maps lack there is shared out as they have it.
    total = np.where(whole, medium.wm + medium.gm, 1)
    relative = relative_diffusivity(medium.wm / total, medium.gm / total, brain_mask=inside)
    box = bounding_box(whole, int(np.ceil(MARGIN_MM / h.min())))
    corner = np.array([side.start for side in box]) * h
    tissue = relative[box] > 0

    foci = find_foci(core[box] if core.any() else whole[box], tissue, h)
    assumed = Assumptions(THRESHOLD_CORE, THRESHOLD_EDEMA)
    surfaces = [
        (3 if s.threshold == THRESHOLD_CORE else 2, s)
        for s in find_surfaces(core[box], whole[box], tissue, h, assumed)
    ]
    radius = max(ball_radius(int(whole.sum()) // len(foci), float(h.prod())), float(h.min()))
    # Where the tumour meets the border of the tissue no oedema surrounds the core: its thickness is that elsewhere.
    area = sum(s.area for _, s in surfaces) / max(1, len(surfaces))
    thickness = float((whole & ~core).sum() * h.prod()) / max(area, float(h.min()) ** 2)
    spread, growth = characteristic(max(radius - thickness, 0.0) if core.any() else 0.0, radius)
    # The sphere's diffusivity is that of the tumour's tissue on average.
    mean = float(relative[whole].mean())
    first = Unknowns(spread / mean / DAYS, growth / DAYS, THRESHOLD_EDEMA, THRESHOLD_CORE, foci)
    cell = min(LARGEST_CELL_MM, radius / CELLS_PER_RADIUS)
    grid = Grid.of(relative[box], h, cell)
    found, misfit, rounds = infer(grid, first, surfaces, np.random.default_rng(seed))

    solver = FisherKPP(relative, spacing)
    start = seed_concentration(relative.shape, h, found.seeds + corner)
    image = solver.simulate(
        start, found.diffusivity, found.proliferation, DAYS, active_threshold=RANKING_THRESHOLD
    )
    return Prediction(
        image,
        {
            "diffusivity_mm2_per_day": found.diffusivity,
            "proliferation_per_day": found.proliferation,
            "white_to_gray_ratio": WHITE_TO_GRAY,
            "days": DAYS,
            "seeds_mm": (found.seeds + corner).tolist(),
            "threshold_core": found.threshold_core,
            "threshold_edema": found.threshold_edema,
            "characteristic_diffusivity_mm2_per_day": first.diffusivity,
            "characteristic_proliferation_per_day": first.proliferation,
            "misfit_mm": misfit,
            "rounds": rounds,
            "dice_core": dice(image > found.threshold_core, core) if core.any() else None,
            "dice_whole": dice(image > found.threshold_edema, whole),
            "displaced_voxels": medium.displaced,
            "uncovered_voxels": medium.uncovered,
            "seconds": time.perf_counter() - began,
        },
    )
