"""Deformable registration without learned weights: two displacement fields are fitted to one pair of images.

Fields u (fixed to moving) and v (moving to fixed) are cubic B-splines on a lattice of control points, found from coarse
to fine by Adam (Kingma DP, Ba J. ICLR 2015, arXiv:1412.6980) on the sum over both directions of

    similarity_weight * (1 - local squared correlation)  +  smoothness * mean |grad u|^2
    + consistency * mean |u(x) + v(x + u(x))|^2,

after an affine map that is given. The squared correlation in a window is that of Avants BB et al. Medical Image
Analysis 12:26-41, 2008; the consistency term keeps tissue that was resected or grew from tearing the
field (Mok TCW, Chung ACS. MICCAI 2022, arXiv:2206.03900). All derivatives are written out; tests compare
them with differences.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.images import Image
from predictgbm.registration import kernels
from predictgbm.registration.linear import isotropic
from predictgbm.registration.transforms import Field, compose, jacobian, resample

Array = NDArray[np.float32]

#: Voxel size, in mm, of the finest grid, and the room around the brain that the fields cover.
SPACING = 1.0
MARGIN = 12.0

#: Below this share of the image's variance, a window counts as empty.
EMPTY_WINDOW = 3e-3

#: Smallest Jacobian determinant that a result may have.
LEAST_JACOBIAN = 0.05

#: How far around a part without counterpart, in mm, tissue is not compared either: labels end before what they mark
#: does, and a rim left over draws the new lesion to itself.
UNMATCHED_MM = 3.0

#: Steps between two looks at which voxels of the two images can be compared.
COMPARISON_STEPS = 20


@dataclass(frozen=True)
class Level:
    """One step from coarse to fine.

    Attributes
    ----------
    factor : int
        Voxel edge as a multiple of :data:`SPACING`.
    iterations : int
    rate : float
        Step of Adam, in voxels of the level; it decays to 0 along a cosine.
    control : int
        Distance of control points, in voxels of the level.
    smoothness, consistency : float
        Weights of the two terms; |grad u|^2 is without unit, the inconsistency is in voxels of the level.
    """

    factor: int
    iterations: int
    rate: float = 0.25
    control: int = 4
    smoothness: float = 0.5
    consistency: float = 0.1


@dataclass(frozen=True)
class Settings:
    """What is minimised, and how.

    Attributes
    ----------
    levels : tuple of Level
        From coarse to fine.
    similarity : "ncc" or "mse"
    similarity_weight : float
    radius : int
        The window has 2 radius + 1 voxels along each axis.
    occlusion : float or None
        Voxels whose forward-backward error exceeds its mean by this much, in units of half the grid's extent, do
        not count in the similarity; None: all do.
    """

    levels: tuple[Level, ...] = (Level(4, 80), Level(2, 60))
    similarity: Literal["ncc", "mse"] = "ncc"
    similarity_weight: float = 0.9
    radius: int = 1
    occlusion: float | None = 0.015


DEFAULT = Settings()


class Side:
    """One direction of a level: an image that stays, one that is warped to it, and where the two can be compared."""

    def __init__(self, still: Array, warped: Array, settings: Settings) -> None:
        self.still, self.warped, self.settings = still, warped, settings

    def compare(self, weight: Array, valid: Array) -> None:
        """Set what each voxel counts in the similarity, and which voxels count inside the windows; both 0 to 1."""
        self.weight, self.valid = weight, valid
        self.scale = np.float32(1 / max(float(weight.sum(dtype=np.float64)), 1e-6))
        if self.settings.similarity == "ncc":
            radius = self.settings.radius
            self.count = kernels.moving_sum(valid, radius)
            part = valid * self.still
            total = kernels.moving_sum(part, radius)
            self.mean = total / np.maximum(self.count, np.float32(1e-6))
            square = kernels.moving_sum(part * self.still, radius)
            self.variance = np.maximum(square - self.mean * total, 0)

    def similarity(self, u: Array) -> tuple[float, Array]:
        """Return the dissimilarity under displacement u (3, ...) in voxels, 0 to 1 for ``ncc``, and its derivative."""
        value, gradient = kernels.warp(self.warped, u)
        if self.settings.similarity == "mse":
            difference = (value - self.still) * self.weight * self.scale
            loss = float((difference * (value - self.still)).sum(dtype=np.float64))
            return loss, 2 * difference * gradient
        radius = self.settings.radius
        part = self.valid * value
        total, f, m, constant = kernels.correlation_terms(
            self.mean,
            self.variance,
            kernels.moving_sum(part, radius),
            kernels.moving_sum(part * value, radius),
            kernels.moving_sum(part * self.still, radius),
            self.weight,
            self.count,
            np.float32(EMPTY_WINDOW),
        )
        slope = kernels.moving_sum(f, radius) * self.still
        slope -= kernels.moving_sum(m, radius) * value
        slope += kernels.moving_sum(constant, radius)
        return 1 - float(total) * float(self.scale), -self.scale * self.valid * slope * gradient

    def objective(self, level: Level, u: Array, v: Array) -> tuple[float, Array, Array]:
        """Return the terms of this direction and their derivatives by u and by v."""
        loss, by_u = self.similarity(u)
        by_u = np.float32(self.settings.similarity_weight) * by_u
        loss *= self.settings.similarity_weight
        voxels = self.still.size
        total, slope = kernels.diffusion(u)
        loss += level.smoothness * total / voxels
        by_u += np.float32(level.smoothness / voxels) * slope
        share = np.full(self.still.shape, 1 / voxels, np.float32)
        total, slope, by_v = kernels.inverse_consistency(u, v, share)
        loss += level.consistency * total
        by_u += np.float32(level.consistency) * slope
        by_v *= np.float32(level.consistency)
        return loss, by_u, by_v


def _basis(count: int, factor: int, level: Level, points: int) -> Array:
    """Return the cubic B-spline weights (count, points) of a level's control points at the voxels of a grid."""
    position = ((np.arange(count) + 0.5) * factor / level.factor - 0.5) / level.control + 1
    t = np.abs(position[:, None] - np.arange(points))
    near, far = 2 / 3 - t**2 + t**3 / 2, (2 - t) ** 3 / 6
    return np.where(t < 1, near, np.where(t < 2, far, 0)).astype(np.float32)


class Spline:
    """A displacement from control points of one level, evaluated on the grid of the same or a finer level."""

    def __init__(self, shape: tuple[int, ...], factor: int, level: Level) -> None:
        coarse = [n * factor // level.factor for n in shape]
        self.shape = shape
        self.points = tuple(-(-n // level.control) + 3 for n in coarse)
        self.bases = [_basis(n, factor, level, points) for n, points in zip(shape, self.points, strict=True)]

    def expand(self, control: Array) -> Array:
        """Return the field (3, nx, ny, nz) of control displacements (3, cx, cy, cz)."""
        x, y, z = self.bases
        rows = np.matmul(y, control @ z.T)
        return np.matmul(x, rows.reshape(3, len(x.T), -1)).reshape(3, *self.shape)

    def gather(self, gradient: Array) -> Array:
        """Return the derivative by the control displacements, from that by the field: the adjoint of expand."""
        x, y, z = self.bases
        rows = np.matmul(x.T, gradient.reshape(3, len(x), -1)).reshape(3, len(x.T), len(y), len(z))
        return np.matmul(y.T, rows @ z)


def _reduce(array: Array, factor: int) -> Array:
    """Average over cubes of factor voxels."""
    a, b, c = (n // factor for n in array.shape)
    blocks = array.reshape(a, factor, b, factor, c, factor)
    return np.ascontiguousarray(blocks.mean(axis=(1, 3, 5), dtype=np.float32))


def disagreement(u: Array, v: Array) -> Array:
    """Return |u(x) + v(x + u(x))| in voxels, averaged twice over cubes of 5 voxels; fields are (3, nx, ny, nz)."""
    index = np.indices(u.shape[1:], np.float32)
    x, y, z = (index + u).reshape(3, -1)
    rest = u + kernels.sample(v, x, y, z).reshape(u.shape)
    error = np.sqrt((rest * rest).sum(axis=0))
    for _ in range(2):
        error = kernels.moving_sum(error, 2) / np.float32(125)
    return error


def _visible(u: Array, v: Array, limit: float) -> NDArray[np.bool_]:
    """Tell where the forward-backward error stays below its mean plus a limit, in units of half the extent."""
    error = disagreement(u, v) * np.float32(2 / max(u.shape[1:]))
    return error <= error.mean() + limit


def optimise(
    fixed: Array,
    moving: Array,
    fixed_weight: Array,
    moving_weight: Array,
    fixed_valid: Array,
    moving_valid: Array,
    settings: Settings = DEFAULT,
    *,
    initial: tuple[Array, Array] | None = None,
    threads: int = 1,
) -> tuple[Array, Array]:
    """Fit both displacement fields to two images on one grid.

    Parameters
    ----------
    fixed, moving
        Arrays of one shape, each axis a multiple of the coarsest factor; standard deviation about 1.
    fixed_weight, moving_weight
        How much each voxel counts in the similarity, 0 to 1, of the same shape.
    fixed_valid, moving_valid
        0 where an image has what the other lacks, 1 elsewhere, of the same shape. Such voxels count neither themselves
        nor in the windows around others, in whichever image they are.
    settings
        See :class:`Settings`.
    initial
        Displacements to start from, as the result; zero without. What is finer in them than the control points stays.
    threads
        With 2 or more, the two directions are worked on at the same time. The result is the same to the bit.

    Returns
    -------
    u, v : float32 arrays of shape (3, nx, ny, nz), voxels of the grid: fixed to moving and back
    """
    found: list[tuple[Level, Array]] = []

    def total(factor: int, shape: tuple[int, ...], direction: int) -> Array:
        """Sum the start and what the levels so far found, in voxels of a grid."""
        if initial is None:
            result = np.zeros((3, *shape), np.float32)
        else:
            result = np.stack([_reduce(part, factor) for part in initial[direction]]) / np.float32(factor)
        for level, control in found:
            scale = np.float32(level.factor / factor)
            result += scale * Spline(shape, factor, level).expand(control[direction])
        return result

    with ThreadPoolExecutor(min(max(threads, 1), 2)) as pool:
        for level in settings.levels:
            images = [_reduce(a, level.factor) for a in (fixed, moving)]
            weights = [_reduce(a, level.factor) for a in (fixed_weight, moving_weight)]
            valid = [_reduce(a, level.factor) for a in (fixed_valid, moving_valid)]
            sides = [Side(images[d], images[1 - d], settings) for d in range(2)]
            shape = images[0].shape
            spline = Spline(shape, level.factor, level)
            start = [total(level.factor, shape, d) for d in range(2)]
            control = np.zeros((2, 3, *spline.points), np.float32)
            first, second = np.zeros_like(control), np.zeros_like(control)
            for step in range(level.iterations):
                fields = [start[d] + spline.expand(control[d]) for d in range(2)]
                if step % COMPARISON_STEPS == 0:
                    for d in range(2):
                        both = valid[d] * kernels.warp(valid[1 - d], fields[d])[0]
                        weight = weights[d] * both
                        if settings.occlusion is not None:
                            weight *= _visible(fields[d], fields[1 - d], settings.occlusion)
                        sides[d].compare(weight, both)

                def work(d: int, fields: list[Array] = fields) -> Any:
                    return sides[d].objective(level, fields[d], fields[1 - d])  # noqa: B023

                (_, uu, uv), (_, vv, vu) = pool.map(work, range(2))
                gradient = np.stack([spline.gather(uu + vu), spline.gather(vv + uv)])
                first += np.float32(0.1) * (gradient - first)
                second += np.float32(0.001) * (gradient * gradient - second)
                rate = level.rate * 0.5 * (1 + np.cos(np.pi * step / level.iterations))
                size = np.sqrt(second / np.float32(1 - 0.999 ** (step + 1))) + np.float32(1e-12)
                control -= np.float32(rate / (1 - 0.9 ** (step + 1))) * first / size
            found.append((level, control))
    return total(1, fixed.shape, 0), total(1, fixed.shape, 1)


def remove_folds(displacement: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Smooth a field (nx, ny, nz, 3) in mm where its Jacobian determinant is below :data:`LEAST_JACOBIAN`.

    The surroundings of each such voxel are replaced by a Gaussian average of the field, over more and more of it,
    until none is left; a field without folds is returned as it is.
    """
    for attempt in range(24):
        bad = jacobian(Field(displacement, affine)) < LEAST_JACOBIAN
        if not bad.any():
            return displacement
        sigma = 1.0 + 0.5 * attempt
        near = ndimage.distance_transform_edt(~bad) <= 2 * sigma
        blend = ndimage.gaussian_filter(near.astype(np.float32), sigma)[..., None]
        smooth = np.stack(
            [ndimage.gaussian_filter(displacement[..., a], sigma, mode="nearest") for a in range(3)], axis=-1
        )
        displacement = displacement + blend * (smooth - displacement)
    mean: NDArray[np.float32] = np.broadcast_to(displacement.mean(axis=(0, 1, 2)), displacement.shape).copy()
    return mean


def register_deformable(
    fixed: Image,
    moving: Image,
    matrix: NDArray[np.float64],
    fixed_mask: NDArray[np.bool_],
    moving_mask: NDArray[np.bool_],
    *,
    fixed_ignore: NDArray[np.bool_] | None = None,
    moving_ignore: NDArray[np.bool_] | None = None,
    settings: Settings = DEFAULT,
    initial: tuple[Field, Field] | None = None,
    threads: int = 1,
) -> tuple[Field, Field]:
    """Register two images of one contrast, after an affine map.

    Parameters
    ----------
    fixed, moving
        Images in any grids.
    matrix
        Affine map (4, 4), fixed to moving, RAS mm; the fields come on top of it.
    fixed_mask, moving_mask
        Brain, of the shape of each image. Only the brain counts in the similarity.
    fixed_ignore, moving_ignore
        What has no counterpart in the other image, for example the resection cavity: neither it nor the tissue up to
        :data:`UNMATCHED_MM` around it counts.
    initial
        Fields to start from, meant as the results are, on any grids.
    settings, threads
        As in :func:`optimise`.

    Returns
    -------
    forward, backward : Field
        On a grid of cubic voxels around the fixed brain, RAS mm, without folds; the first, then ``matrix``, maps
        fixed points to moving points. The second maps from the moving image, brought to the fixed space by
        ``matrix``, back.
    """
    # A multiple of the coarsest factor along each axis.
    coarsest = max(level.factor for level in settings.levels)
    grid = isotropic(fixed, fixed_mask, SPACING, MARGIN)
    shape = tuple(-(-n // coarsest) * coarsest for n in grid.shape)
    grid = Image(np.broadcast_to(np.float32(0), shape), grid.affine)

    def bring(
        image: Image, mask: NDArray[np.bool_], ignore: NDArray[np.bool_] | None, *chain: Any
    ) -> list[Array]:
        data = resample(image, grid, *chain)
        inside = resample(Image(mask.astype(np.float32), image.affine), grid, *chain)
        valid = np.ones(shape, np.float32)
        if ignore is not None and ignore.any():
            unmatched = ndimage.distance_transform_edt(~ignore, sampling=image.spacing) <= UNMATCHED_MM
            valid -= resample(Image(unmatched.astype(np.float32), image.affine), grid, *chain)
        values = data[(inside > 0.5) & (valid > 0.5)]
        return [(data - values.mean()) / np.float32(max(float(values.std()), 1e-6)) * inside, inside, valid]

    still, still_weight, still_valid = bring(fixed, fixed_mask, fixed_ignore)
    other, other_weight, other_valid = bring(moving, moving_mask, moving_ignore, matrix)
    axes = grid.affine[:3, :3].astype(np.float32)

    def to_voxels(field: Field) -> Array:
        displacement = compose(grid, field).displacement @ np.linalg.inv(axes).T
        return np.ascontiguousarray(np.moveaxis(displacement, -1, 0))

    u, v = optimise(
        *(still, other, still_weight, other_weight, still_valid, other_valid),
        settings,
        initial=None if initial is None else (to_voxels(initial[0]), to_voxels(initial[1])),
        threads=threads,
    )
    fields = []
    for displacement in (u, v):
        mm = np.ascontiguousarray(np.moveaxis(displacement, 0, -1) @ axes.T)
        fields.append(Field(remove_folds(mm, grid.affine), grid.affine))
    return fields[0], fields[1]


def on_grid(reference: Image, forward: Field, matrix: NDArray[np.float64]) -> Field:
    """Join a deformable and the affine map that it follows, on the grid of the fixed image."""
    return compose(reference, forward, matrix)
