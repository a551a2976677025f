"""Compiled kernels of the Fisher-KPP solver.

Fields have shape (nx, ny * nz): planes are flattened to rows, long enough to vectorise well. A border of cells with
diffusivity 0 surrounds the volume, so that no kernel tests for the edge; where a row's neighbour wraps around the end
of a plane, it does so from a cell of that border, whose value is never used.

Everywhere d is the relative diffusivity, and a face carries d_a + d_b if both are positive, 0 otherwise. What a kernel
sums, it sums plane by plane, so that no result depends on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import prange

from predictgbm.growth.compilation import FAST_MATH, kernel, serial_kernel

# The types of the arguments are those numba sees; annotations would only repeat "array" and "scalar".
# mypy: disable-error-code="no-untyped-def"


@numba.njit(inline="always")
def _face(here, there):
    return here + there if there > 0 else there - there


@numba.njit(inline="always")
def _around(x, i, width):
    """Return the inner part of row i and its neighbours: west and east, south and north, below and above."""
    a, b = width, x.shape[1] - width
    return (
        x[i, a:b],
        x[i - 1, a:b],
        x[i + 1, a:b],
        x[i, a - width : b - width],
        x[i, a + width : b + width],
        x[i, a - 1 : b - 1],
        x[i, a + 1 : b + 1],
    )


@kernel
def react(u, out, gain):
    """Advance by the exact logistic solution; gain = exp(rho dt) - 1."""
    one = u.dtype.type(1)
    for i in prange(u.shape[0]):
        row, target = u[i], out[i]
        for k in range(row.size):
            target[k] = row[k] * (one + gain) / (one + row[k] * gain)


@kernel
def explicit_step(u, out, d, ny, cx, cy, cz, gain, flush):
    """One explicit diffusion step, then one exact logistic step; c = dt D / (2 h^2).

    What is left below ``flush`` becomes 0.
    """
    zero, one = u.dtype.type(0), u.dtype.type(1)
    nz = u.shape[1] // ny
    a, b = nz, u.shape[1] - nz
    for i in prange(1, u.shape[0] - 1):
        target = out[i, a:b]
        u_0, u_w, u_e, u_s, u_n, u_b, u_t = _around(u, i, nz)
        d_0, d_w, d_e, d_s, d_n, d_b, d_t = _around(d, i, nz)
        for k in range(u_0.size):
            c, dc = u_0[k], d_0[k]
            flux_x = _face(dc, d_w[k]) * (u_w[k] - c) + _face(dc, d_e[k]) * (u_e[k] - c)
            flux_y = _face(dc, d_s[k]) * (u_s[k] - c) + _face(dc, d_n[k]) * (u_n[k] - c)
            flux_z = _face(dc, d_b[k]) * (u_b[k] - c) + _face(dc, d_t[k]) * (u_t[k] - c)
            v = c + cx * flux_x + cy * flux_y + cz * flux_z
            v = v * (one + gain) / (one + v * gain)
            target[k] = v if (dc > zero and v > flush) else zero


@kernel
def react_back(u, adjoint, gain, by_gain):
    """Pull the adjoint back, in place, through :func:`react` at u; add the derivative by the gain."""
    one = u.dtype.type(1)
    for i in prange(u.shape[0]):
        row, back = u[i], adjoint[i]
        total = u.dtype.type(0)
        for k in range(row.size):
            q = one / (one + row[k] * gain)
            total += back[k] * row[k] * (one - row[k]) * q * q
            back[k] = back[k] * (one + gain) * q * q
        by_gain[i] += total


@kernel
def explicit_step_back(u, adjoint, out, d, ny, cx, cy, cz, gain, by_gain, by_exchange):
    """Pull the adjoint back through the logistic half of :func:`explicit_step` at u.

    Adds the derivatives by the gain and by the logarithm of the diffusivity. The diffusion half is symmetric: the
    adjoint goes back through it by :func:`explicit_step` itself, with a gain of 0 and a flush of minus infinity.
    """
    zero, one = u.dtype.type(0), u.dtype.type(1)
    nz = u.shape[1] // ny
    a, b = nz, u.shape[1] - nz
    for i in prange(1, u.shape[0] - 1):
        target, after = out[i, a:b], adjoint[i, a:b]
        u_0, u_w, u_e, u_s, u_n, u_b, u_t = _around(u, i, nz)
        d_0, d_w, d_e, d_s, d_n, d_b, d_t = _around(d, i, nz)
        sum_gain, sum_exchange = zero, zero
        for k in range(u_0.size):
            c, dc = u_0[k], d_0[k]
            flux_x = _face(dc, d_w[k]) * (u_w[k] - c) + _face(dc, d_e[k]) * (u_e[k] - c)
            flux_y = _face(dc, d_s[k]) * (u_s[k] - c) + _face(dc, d_n[k]) * (u_n[k] - c)
            flux_z = _face(dc, d_b[k]) * (u_b[k] - c) + _face(dc, d_t[k]) * (u_t[k] - c)
            change = cx * flux_x + cy * flux_y + cz * flux_z
            v = c + change
            q = one / (one + v * gain)
            back = after[k] * q * q if dc > zero else zero
            sum_gain += back * v * (one - v)
            back = back * (one + gain)
            sum_exchange += back * change
            target[k] = back
        by_gain[i] += sum_gain
        by_exchange[i] += sum_exchange


@numba.njit(inline="always")
def _inflow(u, edges, shifts, i, a, b, total):
    """Sum over a row's neighbours what flows in, with edges as in :func:`anisotropic_step`."""
    total[:] = 0
    here = u[i, a:b]
    for n in range(len(shifts)):
        di, s = shifts[n]
        ahead, behind = u[i + di, a + s : b + s], u[i - di, a - s : b - s]
        to_ahead, to_behind = edges[n, i, a:b], edges[n, i - di, a - s : b - s]
        for k in range(total.size):
            total[k] += to_ahead[k] * (ahead[k] - here[k]) + to_behind[k] * (behind[k] - here[k])


@kernel
def anisotropic_step(u, out, d, edges, shifts, ny, c, gain, flush):
    """Do what :func:`explicit_step` does where flows go along 13 directions; c = dt D.

    edges, shape (13, nx, ny * nz), are the weights between each cell and the one ``shifts`` away: rows and places in
    the row, shape (13, 2).
    """
    zero, one = u.dtype.type(0), u.dtype.type(1)
    nz = u.shape[1] // ny
    a, b = nz + 1, u.shape[1] - nz - 1
    for i in prange(1, u.shape[0] - 1):
        target, here, medium = out[i, a:b], u[i, a:b], d[i, a:b]
        _inflow(u, edges, shifts, i, a, b, target)
        for k in range(target.size):
            v = here[k] + c * target[k]
            v = v * (one + gain) / (one + v * gain)
            target[k] = v if (medium[k] > zero and v > flush) else zero


@kernel
def anisotropic_step_back(u, adjoint, out, d, edges, shifts, ny, c, gain, by_gain, by_exchange):
    """Do what :func:`explicit_step_back` does for :func:`anisotropic_step`."""
    zero, one = u.dtype.type(0), u.dtype.type(1)
    nz = u.shape[1] // ny
    a, b = nz + 1, u.shape[1] - nz - 1
    for i in prange(1, u.shape[0] - 1):
        target, after, here, medium = out[i, a:b], adjoint[i, a:b], u[i, a:b], d[i, a:b]
        _inflow(u, edges, shifts, i, a, b, target)
        sum_gain, sum_exchange = zero, zero
        for k in range(target.size):
            change = c * target[k]
            v = here[k] + change
            q = one / (one + v * gain)
            back = after[k] * q * q if medium[k] > zero else zero
            sum_gain += back * v * (one - v)
            back = back * (one + gain)
            sum_exchange += back * change
            target[k] = back
        by_gain[i] += sum_gain
        by_exchange[i] += sum_exchange


@kernel
def largest_exchange(d, wx, wy, wz):
    """Return per plane of a bordered volume the largest sum of its cells' face diffusivities, weighted per axis."""
    largest = np.zeros(d.shape[0])
    for i in prange(1, d.shape[0] - 1):
        for j in range(1, d.shape[1] - 1):
            for k in range(1, d.shape[2] - 1):
                dc = d[i, j, k]
                if dc > 0:
                    total = wx * (_face(dc, d[i - 1, j, k]) + _face(dc, d[i + 1, j, k]))
                    total += wy * (_face(dc, d[i, j - 1, k]) + _face(dc, d[i, j + 1, k]))
                    total += wz * (_face(dc, d[i, j, k - 1]) + _face(dc, d[i, j, k + 1]))
                    largest[i] = max(largest[i], total)
    return largest


@serial_kernel
def exceeds_in_layers(u, layers, threshold, open_sides):
    """Tell whether a volume (nx, ny, nz) exceeds a threshold in its outer layers on one of the open sides.

    open_sides are six flags: start and stop of the first axis, of the second, of the third.
    """
    nx, ny, nz = u.shape
    for i in range(nx):
        edge_x = (open_sides[0] and i < layers) or (open_sides[1] and i >= nx - layers)
        for j in range(ny):
            row = u[i, j]
            if edge_x or (open_sides[2] and j < layers) or (open_sides[3] and j >= ny - layers):
                for k in range(nz):
                    if row[k] > threshold:
                        return True
            else:
                for k in range(min(layers, nz)):
                    if (open_sides[4] and row[k] > threshold) or (
                        open_sides[5] and row[nz - 1 - k] > threshold
                    ):
                        return True
    return False


@numba.njit(fastmath=FAST_MATH, error_model="numpy")
def _crank_nicolson(u, d, c):
    """Advance all lines along the first axis of a plane, in place, by one Crank-Nicolson step; c = dt D / (4 h^2)."""
    zero, one = u.dtype.type(0), u.dtype.type(1)
    n, width = u.shape
    exchange = np.zeros((n + 1, width), u.dtype)
    upper = np.zeros((n, width), u.dtype)
    solved = np.zeros((n, width), u.dtype)
    for i in range(n - 1):
        here, there, target = d[i], d[i + 1], exchange[i + 1]
        for k in range(width):
            target[k] = c * _face(here[k], there[k]) if here[k] > zero else zero
    for i in range(n):
        low, high, up, x = exchange[i], exchange[i + 1], upper[i], solved[i]
        row, u_low, u_high = u[i], u[max(i - 1, 0)], u[min(i + 1, n - 1)]
        up_low, x_low = upper[max(i - 1, 0)], solved[max(i - 1, 0)]
        for k in range(width):
            right = row[k] + low[k] * (u_low[k] - row[k]) + high[k] * (u_high[k] - row[k])
            pivot = one / (one + low[k] + high[k] - low[k] * up_low[k])
            up[k] = high[k] * pivot
            x[k] = (right + low[k] * x_low[k]) * pivot
    for i in range(n - 2, -1, -1):
        x, up, after = solved[i], upper[i], solved[i + 1]
        for k in range(width):
            x[k] += up[k] * after[k]
    for i in range(n):
        row, x = u[i], solved[i]
        for k in range(width):
            row[k] = max(x[k], zero)


@kernel
def crank_nicolson(u, d, c, axis):
    """Crank-Nicolson along one axis of a volume (nx, ny, nz), in place; negative results become 0."""
    planes = u.shape[1] if axis == 0 else u.shape[0]
    for p in prange(planes):
        # Planes are copied so that the axis comes first and the other one is contiguous.
        if axis == 0:
            plane, medium = u[:, p, :].copy(), d[:, p, :].copy()
        elif axis == 1:
            plane, medium = u[p].copy(), d[p].copy()
        else:
            plane, medium = u[p].T.copy(), d[p].T.copy()
        _crank_nicolson(plane, medium, c)
        if axis == 0:
            u[:, p, :] = plane
        elif axis == 1:
            u[p] = plane
        else:
            u[p] = plane.T
