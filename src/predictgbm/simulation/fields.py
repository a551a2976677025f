"""Smooth random fields, diffeomorphisms and sampling on axis-aligned grids in millimetres.

Vector fields are arrays of shape (3, nx, ny, nz) of displacements in mm along right, anterior and superior. A map
is the array of the same shape that holds, for each voxel centre, the position in mm to look at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft, ndimage

from predictgbm.masks import bounding_box

Volume = NDArray[np.float32]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Axis-aligned grid of cubic voxels: axes run to right, anterior and superior.

    Attributes
    ----------
    shape : number of voxels along each axis
    spacing : edge of a voxel, in mm
    origin : centre of the first voxel, in RAS mm
    """

    shape: tuple[int, int, int]
    spacing: float
    origin: tuple[float, float, float]

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel index to RAS millimetres, shape (4, 4)."""
        affine = np.diag([self.spacing] * 3 + [1.0])
        affine[:3, 3] = self.origin
        return affine

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, in ml."""
        return self.spacing**3 / 1000

    def points(self) -> Vectors:
        """Return the voxel centres as the identity map, shape (3, nx, ny, nz), in mm."""
        axes = [
            (o + self.spacing * np.arange(n)).astype(np.float32)
            for o, n in zip(self.origin, self.shape, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    def covering(self, spacing: float) -> Grid:
        """Return the grid of another spacing that covers the same block of space, its low corner in common."""
        shape = [max(2, int(np.ceil(n * self.spacing / spacing - 1e-6))) for n in self.shape]
        origin = [o + (spacing - self.spacing) / 2 for o in self.origin]
        return Grid((shape[0], shape[1], shape[2]), float(spacing), (origin[0], origin[1], origin[2]))

    def box(self, mask: NDArray[np.bool_], margin: float) -> tuple[Grid, tuple[slice, slice, slice]]:
        """Return the part of the grid within ``margin`` mm of a mask, and the slices that cut it out."""
        x, y, z = bounding_box(mask, int(np.ceil(margin / self.spacing)))
        origin = [o + self.spacing * s.start for o, s in zip(self.origin, (x, y, z), strict=True)]
        shape = (x.stop - x.start, y.stop - y.start, z.stop - z.start)
        return Grid(shape, self.spacing, (origin[0], origin[1], origin[2])), (x, y, z)


@njit(cache=True, error_model="numpy")
def _sample(volumes, ox, oy, oz, inverse_spacing, positions, edge, out):  # type: ignore[no-untyped-def]
    count, nx, ny, nz = volumes.shape
    for n in range(positions.shape[1]):
        x = (positions[0, n] - ox) * inverse_spacing
        y = (positions[1, n] - oy) * inverse_spacing
        z = (positions[2, n] - oz) * inverse_spacing
        if edge:
            x = min(max(x, np.float32(0)), np.float32(nx - 1))
            y = min(max(y, np.float32(0)), np.float32(ny - 1))
            z = min(max(z, np.float32(0)), np.float32(nz - 1))
        elif not (x >= 0 and y >= 0 and z >= 0 and x <= nx - 1 and y <= ny - 1 and z <= nz - 1):
            for v in range(count):
                out[v, n] = 0
            continue
        i = min(int(x), nx - 2)
        j = min(int(y), ny - 2)
        k = min(int(z), nz - 2)
        a = x - i
        b = y - j
        c = z - k
        for v in range(count):
            here = volumes[v]
            low = (here[i, j, k] * (1 - c) + here[i, j, k + 1] * c) * (1 - b) + (
                here[i, j + 1, k] * (1 - c) + here[i, j + 1, k + 1] * c
            ) * b
            high = (here[i + 1, j, k] * (1 - c) + here[i + 1, j, k + 1] * c) * (1 - b) + (
                here[i + 1, j + 1, k] * (1 - c) + here[i + 1, j + 1, k + 1] * c
            ) * b
            out[v, n] = low * (1 - a) + high * a


def sample_vectors(field: Vectors, grid: Grid, positions: Vectors, edge: bool = True) -> Vectors:
    """Interpolate a field of vectors trilinearly at positions in mm.

    Parameters
    ----------
    field
        Array of shape (n, nx, ny, nz) on ``grid``.
    positions
        Array of shape (3, ...) of RAS mm, finite.
    edge
        Outside the grid: the value of the nearest edge if True, 0 if False.

    Returns
    -------
    values : float32 array of shape (n, ...)
    """
    flat = np.ascontiguousarray(positions, np.float32).reshape(3, -1)
    out = np.empty((len(field), flat.shape[1]), np.float32)
    ox, oy, oz = (np.float32(o) for o in grid.origin)
    field = np.ascontiguousarray(field, np.float32)
    _sample(field, ox, oy, oz, np.float32(1 / grid.spacing), flat, edge, out)
    return out.reshape(len(field), *positions.shape[1:])


def sample(volume: Volume, grid: Grid, positions: Vectors, edge: bool = False) -> Volume:
    """Interpolate one volume trilinearly; see :func:`sample_vectors`."""
    return sample_vectors(volume[None], grid, positions, edge)[0]


def random_field(rng: np.random.Generator, grid: Grid, length: float) -> Volume:
    """Draw a stationary Gaussian random field of mean 0, variance 1 and a Gaussian correlation.

    White noise on a grid of ``length / 3`` mm over the same block of space, smoothed by a Gaussian of standard
    deviation ``length`` mm (periodic), brought to standard deviation 1 and interpolated. It is the same field in
    space whatever the spacing of ``grid``, as far as its block of space is the same.
    """
    coarse = grid.covering(length / 3)
    noise = rng.standard_normal(coarse.shape, np.float32)
    field = ndimage.gaussian_filter(noise, 3.0, mode="wrap", truncate=3)
    return sample(field / np.float32(max(float(field.std()), 1e-12)), coarse, grid.points(), edge=True)


def exponential(velocity: Vectors, grid: Grid, squarings: int = 6) -> Vectors:
    """Return the displacement, in mm, of the flow of a stationary velocity field after unit time.

    Scaling and squaring (Arsigny et al., MICCAI 2006): phi = exp(v / 2^n) composed with itself n times. The
    inverse is the exponential of ``-velocity``.

    Parameters
    ----------
    velocity
        Array of shape (3, nx, ny, nz), mm per unit time, that vanishes or is nearly constant at the grid's edge.
    """
    points = grid.points()
    displacement = velocity / np.float32(2**squarings)
    for _ in range(squarings):
        displacement = displacement + sample_vectors(displacement, grid, points + displacement)
    return np.asarray(displacement, np.float32)


def jacobian(displacement: Vectors, spacing: float) -> Volume:
    """Return the Jacobian determinant of x + displacement(x), by central differences."""
    rows = [np.gradient(component, spacing) for component in displacement]
    a = [[rows[i][j] + (i == j) for j in range(3)] for i in range(3)]
    determinant = (
        a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1])
        - a[0][1] * (a[1][0] * a[2][2] - a[1][2] * a[2][0])
        + a[0][2] * (a[1][0] * a[2][1] - a[1][1] * a[2][0])
    )
    return np.asarray(determinant, np.float32)


def expansion_velocity(source: Volume, brain: NDArray[np.bool_], grid: Grid) -> Vectors:
    """Return the velocity field whose divergence is ``source``, damped to zero at the skull.

    v = grad(phi), laplacian(phi) = source - mean(source), solved by a cosine transform on the grid; then scaled
    by a smooth ramp over the last 12 mm before the edge of the brain, as the skull does not give way.

    Parameters
    ----------
    source
        Relative expansion per unit time (negative contracts), shape (nx, ny, nz).
    brain
        Mask of the brain on the same grid.
    """
    spectrum = fft.dctn(source - source.mean(), type=2)
    waves = [(2 - 2 * np.cos(np.pi * np.arange(n) / n)) / grid.spacing**2 for n in grid.shape]
    laplacian = waves[0][:, None, None] + waves[1][None, :, None] + waves[2][None, None, :]
    laplacian[0, 0, 0] = 1
    spectrum /= -laplacian
    spectrum[0, 0, 0] = 0
    potential = fft.idctn(spectrum, type=2)
    depth = ndimage.distance_transform_edt(brain, sampling=grid.spacing)
    ramp = np.clip(depth / 12, 0, 1)
    ramp = ramp**2 * (3 - 2 * ramp)
    return np.stack([np.gradient(potential, grid.spacing, axis=a) * ramp for a in range(3)]).astype(
        np.float32
    )


def rigid_matrix(
    angles: NDArray[np.float64], shift: NDArray[np.float64], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the 4x4 rigid motion: rotation about ``centre`` by angles about x, y, z in radians, then a shift in mm."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_y @ about_x
    matrix[:3, 3] = centre + shift - matrix[:3, :3] @ centre
    return matrix


def transform(matrix: NDArray[np.float64], positions: Vectors) -> Vectors:
    """Apply a 4x4 matrix to positions of shape (3, ...)."""
    linear = matrix[:3, :3].astype(np.float32)
    offset = matrix[:3, 3].astype(np.float32)
    moved = np.einsum("ij,j...->i...", linear, positions) + offset.reshape(3, *[1] * (positions.ndim - 1))
    return np.asarray(moved, np.float32)
