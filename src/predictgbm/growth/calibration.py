"""Calibration of the Fisher-KPP equation to the tumour labels of one exam.

The labels are read as isolines: the core ends where the concentration falls below the visibility threshold of T1c,
the whole tumour where it falls below that of FLAIR. Along each of these surfaces the model is compared with its
threshold, and the misfit, as a distance in mm, is minimised by least squares over diffusivity, proliferation and the
seeds, coarse grid first.

One exam shows no time: only D T and rho T can be told from it. The age T of the tumour is therefore fixed, and D and
rho are to be read as per T. Nor are the thresholds known: they are fixed as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize, sparse
from scipy.special import erf

from predictgbm.growth.solver import FisherKPP, Vector, mean_relative
from predictgbm.masks import ball_radius

#: Age of the tumour, in days.
DAYS = 100.0
#: Concentration above which tumour is visible in T1c (core).
CORE_THRESHOLD = 0.6
#: Concentration above which tumour is visible in FLAIR (whole tumour).
EDEMA_THRESHOLD = 0.2
#: A seed is a Gaussian of this standard deviation, in mm, and this peak.
SEED_WIDTH_MM = 2.0
SEED_PEAK = 0.5
#: Resolutions of the search, in mm; none is finer than the image.
LEVELS_MM = (4.0, 2.0)
#: Misfits beyond this distance, in mm, count linearly instead of squared.
ROBUST_MM = 3.0
#: Points kept of one surface.
LARGEST_SURFACE = 8000
#: A further part of the core gets its own seed when it has at least this volume and this share of the largest part.
SMALLEST_FOCUS_ML = 0.2
SMALLEST_FOCUS_SHARE = 0.05
LARGEST_FOCI = 4

#: Speed of the front 2 sqrt(D rho), in mm / day, and its width sqrt(D / rho), in mm.
SPEED_RANGE = (0.005, 2.0)
WIDTH_RANGE = (0.4, 15.0)
#: Weak belief that decides only what the surfaces leave open: speed and width, and mm of misfit per e-fold away.
BELIEF = (0.2, 1.5)
BELIEF_MM = (0.03, 0.03)
#: Logits are turned into mm by their slope at the surface, or by this, in 1 / mm, if that is steeper. A front steeper
#: than the image resolves would else reach its floor at once and make a far surface look near.
STEEPEST = 3.0
#: Nor does a slope below this tell a distance.
FLATTEST = 1e-3
#: Steps of the least squares on one grid.
LARGEST_ITERATIONS = 15
#: Several seeds share the surfaces in more than one way: least squares starts from so many fronts, and as often with
#: the seeds moved by this standard deviation, in mm.
STARTS = 4
START_SPREAD_MM = 8.0

#: What the covariance takes for known: length over which points of a surface err together and least misfit, in mm;
#: standard deviation of the thresholds' logits (about 0.1 of 0.6, and 0.07 of 0.2).
CORRELATION_MM = 10.0
LEAST_MISFIT_MM = 0.5
THRESHOLD_SPREAD = 0.4
#: Standard deviations believed before any image: of log speed and log width, of places in mm, of log peaks.
PRIOR_SPREAD = (1.0, 10.0, 2.0)

#: Least concentration told from none, so that a surface far ahead of the front still pulls.
FLOOR = 1e-16


@dataclass(frozen=True)
class Assumptions:
    """What one exam cannot tell: thresholds of visibility; standard deviation (mm) and peak of the first seed."""

    threshold_core: float = CORE_THRESHOLD
    threshold_edema: float = EDEMA_THRESHOLD
    seed_width: float = SEED_WIDTH_MM
    seed_peak: float = SEED_PEAK


@dataclass(frozen=True)
class Parameters:
    """What a Fisher-KPP tumour is made of.

    Attributes
    ----------
    diffusivity : float
        Of white matter, mm^2 / day.
    proliferation : float
        1 / day.
    seeds : array of shape (n, 3)
        Positions in mm along the array axes, from the centre of the first voxel.
    peaks : array of shape (n,)
        Height of each seed, 0 to 1.
    """

    diffusivity: float
    proliferation: float
    seeds: NDArray[np.float64]
    peaks: NDArray[np.float64]

    def to_vector(self) -> NDArray[np.float64]:
        """Return log speed, log width, all seed positions, and the log peaks of all seeds but the first."""
        d, rho = self.diffusivity, self.proliferation
        logs = np.log([2.0 * np.sqrt(d * rho), np.sqrt(d / rho)])
        return np.concatenate([logs, self.seeds.ravel(), np.log(self.peaks[1:])])

    @staticmethod
    def from_vector(vector: NDArray[np.float64], first_peak: float = SEED_PEAK) -> Parameters:
        """Undo :meth:`to_vector`."""
        n = (len(vector) - 1) // 4
        peaks = np.concatenate([[first_peak], np.exp(vector[2 + 3 * n :])])
        speed, width = np.exp(vector[:2]).tolist()
        seeds = vector[2 : 2 + 3 * n].reshape(n, 3)
        return Parameters(0.5 * speed * width, 0.5 * speed / width, seeds, peaks)


def gaussian_seeds(
    shape: Sequence[int],
    spacing: Vector,
    seeds: NDArray[np.float64],
    peaks: NDArray[np.float64],
    *,
    origin: Vector = (0.0, 0.0, 0.0),
    width: float = SEED_WIDTH_MM,
) -> NDArray[np.float64]:
    """Return the sum of Gaussian seeds, each averaged over the voxels, so that its mass is the same on every grid.

    Parameters
    ----------
    shape, spacing
        Of the grid; spacing in mm.
    seeds : array of shape (n, 3)
        Positions in mm.
    peaks : array of shape (n,)
        Heights, 0 to 1.
    origin : (float, float, float)
        Position of the centre of the first voxel, in mm.
    width : float
        Standard deviation, in mm.
    """
    field = np.zeros(tuple(shape))
    for seed, peak in zip(seeds, peaks, strict=True):
        field += peak * np.einsum("i,j,k->ijk", *_profiles(shape, spacing, seed, origin, width)[0])
    return np.minimum(field, 1.0)


def _profiles(
    shape: Sequence[int], spacing: Vector, seed: Vector, origin: Vector, width: float
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Return the voxel averages of a Gaussian along each axis, and their derivatives by its position."""
    values, slopes = [], []
    for n, h, x, start in zip(shape, spacing, seed, origin, strict=True):
        edges = (start + (np.arange(n + 1) - 0.5) * h - x) / (np.sqrt(2.0) * width)
        values.append(np.diff(erf(edges)) * np.sqrt(np.pi / 2.0) * width / h)
        slopes.append(-np.diff(np.exp(-(edges**2))) / h)
    return values, slopes


def seed_gradient(
    shape: Sequence[int],
    spacing: Vector,
    seed: Vector,
    peak: float,
    by_initial: NDArray[Any],
    *,
    origin: Vector = (0.0, 0.0, 0.0),
    width: float = SEED_WIDTH_MM,
) -> NDArray[np.float64]:
    """Return the derivative by the position of a seed, given that by the concentration it starts.

    Parameters
    ----------
    shape, spacing, seed, peak, origin, width
        As for :func:`gaussian_seeds`, for a single seed.
    by_initial : array of shape (nx, ny, nz)
        Derivative by the concentration at the start, see :meth:`FisherKPP.gradient`.

    Returns
    -------
    array of shape (3,), per mm
    """
    values, slopes = _profiles(shape, spacing, seed, origin, width)
    mixed = [[slopes[a] if a == axis else values[a] for a in range(3)] for axis in range(3)]
    return np.array([peak * np.einsum("ijk,i,j,k", by_initial, *profiles) for profiles in mixed])


def block_mean(image: NDArray[Any], factors: Sequence[int]) -> NDArray[np.float32]:
    """Average blocks of voxels; a last incomplete block is filled up with zeros. Further axes stay as they are."""
    image = np.asarray(image, np.float32)
    factors = (*factors, *(1 for _ in image.shape[len(factors) :]))
    pad = [(0, -n % f) for n, f in zip(image.shape, factors, strict=True)]
    for axis, f in enumerate(factors):
        if f > 1:
            image = np.add.reduceat(
                np.pad(image, [p if a == axis else (0, 0) for a, p in enumerate(pad)]),
                np.arange(0, image.shape[axis] + pad[axis][1], f),
                axis=axis,
            ) / np.float32(f)
    return image


@dataclass(frozen=True)
class Surface:
    """Faces between voxels inside and outside a region: the two centres in mm, the face's share of all, its spacing."""

    inner: NDArray[np.float64]
    outer: NDArray[np.float64]
    weight: NDArray[np.float64]
    step: NDArray[np.float64]
    threshold: float
    area: float


def surface(
    region: NDArray[np.bool_], tissue: NDArray[np.bool_], spacing: Vector, threshold: float
) -> Surface:
    """Collect the faces of a region that lie within tissue; where tissue ends, the label says nothing of the tumour.

    Parameters
    ----------
    region, tissue : bool arrays of shape (nx, ny, nz)
    spacing : (float, float, float)
        Voxel size in mm.
    threshold : float
        Concentration that the surface is taken for.
    """
    h = np.asarray(spacing)
    inner, outer, area, step = [], [], [], []
    for axis in range(3):
        a = tuple(slice(0, -1) if k == axis else slice(None) for k in range(3))
        b = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        cells = np.argwhere((region[a] != region[b]) & tissue[a] & tissue[b])
        after = cells + np.eye(3, dtype=int)[axis]
        first_is_inner = region[tuple(cells.T)][:, None]
        inner.append(np.where(first_is_inner, cells, after) * h)
        outer.append(np.where(first_is_inner, after, cells) * h)
        area.append(np.full(len(cells), h.prod() / h[axis]))
        step.append(np.full(len(cells), h[axis]))
    keep = slice(None, None, max(1, -(-sum(map(len, area)) // LARGEST_SURFACE)))
    faces = np.concatenate(area)
    weight = faces[keep]
    return Surface(
        np.concatenate(inner)[keep],
        np.concatenate(outer)[keep],
        weight / max(weight.sum(), 1e-30),
        np.concatenate(step)[keep],
        threshold,
        # The mean of |n_axis| over faces weighted by area is 2/3: the surface is smaller than its staircase.
        float(faces.sum()) / 1.5,
    )


def find_surfaces(
    core: NDArray[np.bool_],
    whole: NDArray[np.bool_],
    tissue: NDArray[np.bool_],
    spacing: Vector,
    assumptions: Assumptions,
) -> list[Surface]:
    """Return the surfaces that the labels show, that of the core first; arrays as for :func:`surface`.

    Without any edema the border of the whole tumour is not known, rather than equal to that of the core.
    """
    visible = [(core, assumptions.threshold_core)]
    if (whole & ~core).any():
        visible.append((whole, assumptions.threshold_edema))
    found = (surface(mask, tissue, spacing, threshold) for mask, threshold in visible)
    return [s for s in found if len(s.weight)]


def interpolation(
    points: NDArray[np.float64],
    tissue: NDArray[np.bool_],
    spacing: NDArray[np.float64],
    origin: NDArray[np.float64],
) -> sparse.csr_matrix:
    """Return the matrix of trilinear interpolation that draws on cells of tissue only.

    Parameters
    ----------
    points : array of shape (m, 3)
        In mm.
    tissue : bool array of shape (nx, ny, nz)
    spacing, origin : arrays of shape (3,)
        Of the grid: size of a cell and centre of the first one, in mm.

    Returns
    -------
    sparse matrix of shape (m, nx ny nz)
        Rows without any tissue around are zero.
    """
    position = (points - origin) / spacing
    low = np.floor(position).astype(int)
    fraction = position - low
    top = np.asarray(tissue.shape) - 1
    rows, columns, values = [], [], []
    for corner in np.ndindex(2, 2, 2):
        index = np.clip(low + corner, 0, top)
        weight = np.where(corner, fraction, 1.0 - fraction).prod(axis=1) + 1e-6
        rows.append(np.arange(len(points)))
        columns.append(np.ravel_multi_index(tuple(index.T), tissue.shape))
        values.append(weight * tissue[tuple(index.T)])
    matrix = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (len(points), tissue.size)
    )
    total = np.asarray(matrix.sum(axis=1)).ravel()
    return sparse.diags_array(1.0 / np.maximum(total, 1e-12)).dot(matrix).tocsr()


def coarsen(
    relative: NDArray[np.float32], spacing: NDArray[np.float64], factors: Sequence[int]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64], NDArray[np.float64]]:
    """Return relative diffusivity on blocks of voxels, with the size of a block and the centre of the first, in mm.

    A block is tissue when at least half of it is; its diffusivity is that of its tissue.
    """
    share = block_mean(mean_relative(relative) > 0, factors)
    if relative.ndim > share.ndim:
        share = share[..., None]
    coarse = np.where(share >= 0.5, block_mean(relative, factors) / np.maximum(share, 1e-6), 0)
    return coarse, spacing * factors, spacing * (np.asarray(factors) - 1) / 2.0


class Reading(NamedTuple):
    """How a field on a grid is read on both sides of a surface.

    Attributes
    ----------
    inner, outer : sparse matrices
        Interpolation at the two centres beside each face.
    surface : Surface
        With the weights of the faces where the grid has tissue on both sides, of sum 1; all 0 if there are none.
    """

    inner: sparse.csr_matrix
    outer: sparse.csr_matrix
    surface: Surface

    @staticmethod
    def of(
        s: Surface, tissue: NDArray[np.bool_], spacing: NDArray[np.float64], origin: NDArray[np.float64]
    ) -> Reading:
        """Prepare the reading of a surface; parameters as for :func:`interpolation`."""
        inner = interpolation(s.inner, tissue, spacing, origin)
        outer = interpolation(s.outer, tissue, spacing, origin)
        seen = (inner.sum(axis=1) > 0.5) & (outer.sum(axis=1) > 0.5)
        weight = s.weight * np.asarray(seen).ravel()
        return Reading(inner, outer, replace(s, weight=weight / max(weight.sum(), 1e-30)))

    def read(self, field: NDArray[Any]) -> NDArray[np.float64]:
        """Return a flat field at each face, midway between both sides."""
        return np.asarray(0.5 * (self.inner @ field + self.outer @ field), float)

    def slope(self, field: NDArray[Any]) -> float:
        """Return a flat field's mean slope along the normal, per mm, kept where it tells distances."""
        fall = np.abs(self.inner @ field - self.outer @ field)
        # The mean of |n_axis| over faces weighted by area is 2/3 of the slope along the normal.
        slope = 1.5 * np.sum(self.surface.weight * fall / self.surface.step)
        return float(np.clip(slope, FLATTEST, STEEPEST))


class _Level:
    """The problem on one grid."""

    def __init__(
        self,
        relative: NDArray[np.float32],
        surfaces: list[Surface],
        spacing: NDArray[np.float64],
        factors: Sequence[int],
        assumptions: Assumptions = Assumptions(),
    ) -> None:
        self.assumptions = assumptions
        coarse, self.spacing, self.origin = coarsen(relative, spacing, factors)
        self.solver = FisherKPP(coarse, self.spacing)
        self.shape = self.solver.shape
        tissue = mean_relative(coarse) > 0
        self.surfaces = [Reading.of(s, tissue, self.spacing, self.origin) for s in surfaces]

    def concentration(self, p: Parameters) -> NDArray[np.float32]:
        width = self.assumptions.seed_width
        start = gaussian_seeds(self.shape, self.spacing, p.seeds, p.peaks, origin=self.origin, width=width)
        return self.solver.simulate(start, p.diffusivity, p.proliferation, DAYS, active_threshold=FLOOR)

    def residual(
        self, vector: NDArray[np.float64], shifts: Sequence[float] = (0.0, 0.0)
    ) -> NDArray[np.float64]:
        """Return the misfit in mm at each point of the surfaces, weighted to a mean square, and the weak belief.

        ``shifts`` are added to the logits of the surfaces' thresholds; there are two surfaces at most.
        """
        p = Parameters.from_vector(vector, self.assumptions.seed_peak)
        u = np.clip(self.concentration(p).ravel().astype(float), FLOOR, 1 - 1e-7)
        logit = np.log(u / (1 - u))
        parts = []
        for one, shift in zip(self.surfaces, shifts, strict=False):
            s = one.surface
            level = np.log(s.threshold / (1 - s.threshold)) + shift
            distance = (one.read(logit) - level) / one.slope(logit)
            parts.append(np.sqrt(s.weight) * robust(distance))
        parts.append(np.array(BELIEF_MM) * (vector[:2] - np.log(BELIEF)))
        return np.concatenate(parts)

    def jacobian(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the derivative of the residual by finite differences; one simulation per parameter."""
        n = (len(vector) - 1) // 4
        steps = np.concatenate([[0.02, 0.02], np.full(3 * n, 0.1 * self.spacing.min()), np.full(n - 1, 0.1)])
        base = self.residual(vector)
        columns = [(self.residual(vector + step) - base) / step.sum() for step in np.diag(steps)]
        return np.stack(columns, axis=1)


def robust(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bend distances, in mm, so that their square grows as that of a pseudo-Huber loss."""
    scaled = (distance / ROBUST_MM) ** 2
    return np.sign(distance) * ROBUST_MM * np.sqrt(2.0 * (np.sqrt(1.0 + scaled) - 1.0))


def robust_slope(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the derivative of :func:`robust`."""
    bent = robust(distance)
    near = np.abs(bent) < 1e-6
    root = np.sqrt(1.0 + (distance / ROBUST_MM) ** 2)
    return np.where(near, 1.0, distance / (root * np.where(near, 1.0, bent)))


def find_parts(mask: NDArray[np.bool_], spacing: Vector) -> list[NDArray[np.bool_]]:
    """Return the separate parts of a mask that are large enough for a seed of their own, largest first.

    The largest one always is; ``mask``, a bool array of shape (nx, ny, nz), must not be empty.
    """
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    volumes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * float(np.prod(spacing)) / 1000.0
    least = max(SMALLEST_FOCUS_ML, SMALLEST_FOCUS_SHARE * float(volumes.max()))
    by_size = np.argsort(-volumes, kind="stable")[:LARGEST_FOCI]
    return [labels == part + 1 for n, part in enumerate(by_size) if n == 0 or volumes[part] >= least]


def find_foci(core: NDArray[np.bool_], tissue: NDArray[np.bool_], spacing: Vector) -> NDArray[np.float64]:
    """Return one starting position per part of the core, largest part first, always in tissue.

    Parameters
    ----------
    core, tissue : bool arrays of shape (nx, ny, nz)
        Where they do not meet, the tissue nearest to the core is taken.
    spacing : (float, float, float)
        Voxel size in mm.

    Returns
    -------
    array of shape (n, 3)
        Positions in mm, n >= 1.
    """
    h = np.asarray(spacing, float)
    everywhere = np.argwhere(tissue) * h
    foci = []
    for part in find_parts(core, spacing):
        centre = (np.argwhere(part) * h).mean(axis=0)
        inside = np.argwhere(part & tissue) * h
        candidates = inside if len(inside) else everywhere
        nearest = candidates[((candidates - centre) ** 2).sum(axis=1).argmin()]
        foci.append(nearest)
    return np.array(foci)


def _scale(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    n = (len(vector) - 1) // 4
    return np.concatenate([[0.3, 0.3], np.full(3 * n, 3.0), np.full(n - 1, 1.0)])


def _bounds(vector: NDArray[np.float64], reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = (len(vector) - 1) // 4
    low = np.concatenate(
        [
            np.log([SPEED_RANGE[0], WIDTH_RANGE[0]]),
            vector[2 : 2 + 3 * n] - reach,
            np.full(n - 1, np.log(1e-8)),
        ]
    )
    high = np.concatenate(
        [
            np.log([SPEED_RANGE[1], WIDTH_RANGE[1]]),
            vector[2 : 2 + 3 * n] + reach,
            np.zeros(n - 1),
        ]
    )
    return low, high


def _search(level: _Level, foci: NDArray[np.float64], radius: float) -> list[NDArray[np.float64]]:
    """Try fronts of several speeds and widths from the given foci; return where least squares is to start."""
    peaks = np.full(len(foci), level.assumptions.seed_peak)
    tried: list[tuple[float, NDArray[np.float64]]] = []
    for width in (1.0, 2.0, 4.0, 8.0):
        for factor in (0.7, 1.0, 1.4, 2.0):
            speed = float(np.clip(factor * radius / DAYS, *SPEED_RANGE))
            vector = Parameters(0.5 * speed * width, 0.5 * speed / width, foci, peaks).to_vector()
            tried.append((float(np.sum(level.residual(vector) ** 2)), vector))
    best = [vector for _, vector in sorted(tried, key=lambda one: one[0])]
    if len(foci) == 1:
        return best[:1]
    moved = np.tile(best[0], (STARTS, 1))
    moved[:, 2 : 2 + foci.size] += np.random.default_rng(0).normal(0, START_SPREAD_MM, (STARTS, foci.size))
    return [*best[:STARTS], *moved]


@dataclass(frozen=True)
class Calibration:
    """What the calibration found, and how well it is determined.

    Attributes
    ----------
    parameters : Parameters
    misfit : float
        Root mean square distance between isolines and surfaces of the labels, in mm; far ones count less.
    """

    parameters: Parameters
    misfit: float
    _level: _Level
    _fit: optimize.OptimizeResult

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance of :meth:`Parameters.to_vector`, shape (n, n), by Laplace's approximation around the optimum.

        It takes a simulation per surface, when it is first asked for.
        """
        step, level, best = 0.1, self._level, self._fit.fun
        surfaces = [one.surface for one in level.surfaces]
        by_thresholds = np.zeros((len(best), len(surfaces)))
        for k, shifts in enumerate(step * np.eye(len(surfaces))):
            by_thresholds[:, k] = (level.residual(self._fit.x, shifts) - best) / step
        return _covariance(
            np.asarray(self._fit.jac), by_thresholds, self.misfit, [seen.area for seen in surfaces]
        )

    def draw(self, count: int, seed: int) -> list[Parameters]:
        """Draw parameters from the approximate posterior, kept within the ranges of the search."""
        rng = np.random.default_rng(seed)
        best = self.parameters.to_vector()
        low, high = _bounds(best, reach=np.inf)
        vectors = rng.multivariate_normal(best, self.covariance, size=count, method="cholesky")
        first_peak = float(self.parameters.peaks[0])
        return [Parameters.from_vector(np.clip(v, low, high), first_peak) for v in vectors]


def _covariance(
    jacobian: NDArray[np.float64], by_thresholds: NDArray[np.float64], misfit: float, areas: Sequence[float]
) -> NDArray[np.float64]:
    """Return the covariance of the parameters from that of the surfaces and of the thresholds.

    Parameters
    ----------
    jacobian : array of shape (m, n)
        Of the residual at the optimum; each surface's squares are a mean.
    by_thresholds : array of shape (m, k)
        Derivative of the residual by the logit of each threshold.
    misfit : float
        In mm.
    areas : sequence of float
        Of the surfaces, in mm^2.
    """
    # Neighbouring points of a surface err together: so many patches count as observations.
    patches = max(float(np.mean(areas)) / CORRELATION_MM**2, 4.0) if len(areas) else 4.0
    noise = max(misfit, LEAST_MISFIT_MM) ** 2 / patches
    seeds = (jacobian.shape[1] - 1) // 4
    prior = np.repeat(PRIOR_SPREAD, [2, 3 * seeds, seeds - 1])
    covariance = np.linalg.inv(jacobian.T @ jacobian / noise + np.diag(prior**-2.0))
    # Another threshold moves the optimum by the linear response.
    response = covariance @ (jacobian.T @ by_thresholds) / noise
    covariance += THRESHOLD_SPREAD**2 * response @ response.T
    return np.asarray(0.5 * (covariance + covariance.T))


def calibrate(
    relative: NDArray[np.float32],
    core: NDArray[np.bool_],
    whole: NDArray[np.bool_],
    spacing: Vector,
    assumptions: Assumptions = Assumptions(),
) -> Calibration:
    """Find the diffusivity, proliferation and seeds whose isolines fit the labels best.

    Parameters
    ----------
    relative : array of shape (nx, ny, nz), or (nx, ny, nz, 6)
        Relative diffusivity, 0 outside tissue; see :func:`~predictgbm.growth.solver.relative_diffusivity`.
    core, whole : bool arrays of shape (nx, ny, nz)
        Tumour core and whole tumour. Either may be empty, not both.
    spacing : (float, float, float)
        Voxel size in mm.
    assumptions : Assumptions, optional
        The defaults of :class:`Assumptions` without.
    """
    h = np.asarray(spacing, float)
    tissue = mean_relative(relative) > 0
    surfaces = find_surfaces(core, whole, tissue, h, assumptions)
    radius = ball_radius(int(whole.sum()), float(h.prod()))
    foci = find_foci(core if core.any() else whole, tissue, h)
    levels: dict[tuple[int, ...], _Level] = {}
    for resolution in (*LEVELS_MM, h.min()):
        factors = tuple(max(1, round(resolution / s)) for s in h)
        if factors not in levels:
            levels[factors] = _Level(relative, surfaces, h, factors, assumptions)
    native = levels.pop((1, 1, 1))
    searched = list(levels.values()) or [native]

    starts = _search(searched[0], foci, radius)
    low, high = _bounds(starts[0], reach=max(10.0, radius))
    for level in searched:
        fits = [
            optimize.least_squares(
                level.residual,
                np.clip(start, low + 1e-6, high - 1e-6),
                level.jacobian,
                bounds=(low, high),
                x_scale=_scale(start),
                ftol=1e-4,
                xtol=1e-4,
                gtol=1e-6,
                max_nfev=LARGEST_ITERATIONS,
            )
            for start in starts
        ]
        fit = min(fits, key=lambda one: one.cost)
        vector, starts = fit.x, [fit.x]
    # What the image's own grid sees differently is corrected with the derivative of the coarser one.
    residual = native.residual(vector)
    corrected = np.clip(vector - np.linalg.lstsq(np.asarray(fit.jac), residual, rcond=None)[0], low, high)
    after = native.residual(corrected)
    if (after**2).sum() < (residual**2).sum():
        vector, residual = corrected, after
    misfit = float(np.sqrt((residual[:-2] ** 2).sum() / max(1, len(surfaces))))
    return Calibration(Parameters.from_vector(vector, assumptions.seed_peak), misfit, level, fit)
