"""The Fisher-KPP equation with a residual: Crank-Nicolson in time, solved for every frame, and its discrete adjoint.

    (u' - u) / dt = (F(u) + F(u')) / 2 + r,    F(u) = div(D grad u) + rho |u| (1 - u),    D = Dw (P_wm + P_gm / R)

u and u' are neighbouring frames and r the residual at the later one. A space-time field u is thus as well described by
its first frame and its residuals: methods that punish the residual of a free field have a simple quadratic in r, and
all that u must agree with is reached through the solver. Diffusivity of faces as in :mod:`predictgbm.growth.solver`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from predictgbm.growth.compilation import kernel
from predictgbm.growth.kernels import _around, _face
from predictgbm.growth.solver import TISSUE_THRESHOLD

# The types of the kernels' arguments are those numba sees; annotations would only repeat "array" and "scalar".
# mypy: disable-error-code="no-untyped-def"

#: The implicit equation of a step is solved until an error of the explicit guess has shrunk by this factor.
REDUCTION = 1e-7
LARGEST_SWEEPS = 200


@kernel
def _diagonal(d, width, cx, cy, cz, out):
    """Return 1 / (1 + sum of the exchange with all neighbours); c = dt D / (4 h^2), here and below."""
    a, b = width, d.shape[1] - width
    for i in prange(1, d.shape[0] - 1):
        for k in range(a, b):
            dc, total = d[i, k], d.dtype.type(1)
            if dc > 0:
                total += cx * (_face(dc, d[i - 1, k]) + _face(dc, d[i + 1, k]))
                total += cy * (_face(dc, d[i, k - width]) + _face(dc, d[i, k + width]))
                total += cz * (_face(dc, d[i, k - 1]) + _face(dc, d[i, k + 1]))
            out[i, k] = d.dtype.type(1) / total


@kernel
def _advance(u, forcing, out, old, right, d, diagonal, width, cx, cy, cz, growth, force, omegas):
    """Solve one step for the next frame, in ``out``; growth = rho dt / 2. The number of sweeps is even."""
    zero, one = u.dtype.type(0), u.dtype.type(1)
    a, b = width, u.shape[1] - width
    for i in prange(1, u.shape[0] - 1):
        u_0, u_w, u_e, u_s, u_n, u_b, u_t = _around(u, i, width)
        d_0, d_w, d_e, d_s, d_n, d_b, d_t = _around(d, i, width)
        r, x, f, y = right[i, a:b], out[i, a:b], forcing[i, a:b], old[i, a:b]
        for k in range(u_0.size):
            c, dc = u_0[k], d_0[k]
            flux = cx * (_face(dc, d_w[k]) * (u_w[k] - c) + _face(dc, d_e[k]) * (u_e[k] - c))
            flux += cy * (_face(dc, d_s[k]) * (u_s[k] - c) + _face(dc, d_n[k]) * (u_n[k] - c))
            flux += cz * (_face(dc, d_b[k]) * (u_b[k] - c) + _face(dc, d_t[k]) * (u_t[k] - c))
            r[k] = (flux if dc > zero else zero) + growth * abs(c) * (one - c)
        for k in range(u_0.size):
            push = u_0[k] + force * f[k]
            x[k] = push + r[k] + r[k]
            r[k] += push
            y[k] = zero
    for n in range(omegas.size):
        omega = omegas[n]
        for i in prange(1, u.shape[0] - 1):
            x_0, x_w, x_e, x_s, x_n, x_b, x_t = _around(out, i, width)
            d_0, d_w, d_e, d_s, d_n, d_b, d_t = _around(d, i, width)
            y, r, q = old[i, a:b], right[i, a:b], diagonal[i, a:b]
            for k in range(x_0.size):
                c, dc = x_0[k], d_0[k]
                flow = cx * (_face(dc, d_w[k]) * x_w[k] + _face(dc, d_e[k]) * x_e[k])
                flow += cy * (_face(dc, d_s[k]) * x_s[k] + _face(dc, d_n[k]) * x_n[k])
                flow += cz * (_face(dc, d_b[k]) * x_b[k] + _face(dc, d_t[k]) * x_t[k])
                flow = (flow if dc > zero else zero) + growth * abs(c) * (one - c)
                y[k] += omega * (q[k] * (r[k] + flow) - y[k])
        out, old = old, out


@kernel
def _retreat(mu, after, before, w, old, d, diagonal, width, cx, cy, cz, growth, omegas, by_medium, by_growth):
    """Pull the adjoint ``mu`` of the later frame back to the earlier one, in place; ``w`` is that of the residual.

    Adds the derivatives by the relative diffusivity, per cell, and by ``growth``, per plane.
    """
    zero, one = mu.dtype.type(0), mu.dtype.type(1)
    a, b = width, mu.shape[1] - width
    for i in prange(1, mu.shape[0] - 1):
        m, q, x, y = mu[i, a:b], diagonal[i, a:b], w[i, a:b], old[i, a:b]
        for k in range(m.size):
            x[k] = q[k] * m[k]
            y[k] = zero
    for n in range(omegas.size):
        omega = omegas[n]
        for i in prange(1, mu.shape[0] - 1):
            x_0, x_w, x_e, x_s, x_n, x_b, x_t = _around(w, i, width)
            d_0, d_w, d_e, d_s, d_n, d_b, d_t = _around(d, i, width)
            y, r, q, u = old[i, a:b], mu[i, a:b], diagonal[i, a:b], after[i, a:b]
            for k in range(x_0.size):
                dc = d_0[k]
                flow = cx * (_face(dc, d_w[k]) * x_w[k] + _face(dc, d_e[k]) * x_e[k])
                flow += cy * (_face(dc, d_s[k]) * x_s[k] + _face(dc, d_n[k]) * x_n[k])
                flow += cz * (_face(dc, d_b[k]) * x_b[k] + _face(dc, d_t[k]) * x_t[k])
                slope = one - abs(u[k] + u[k]) if u[k] >= zero else -one - abs(u[k] + u[k])
                flow = (flow if dc > zero else zero) + growth * slope * x_0[k]
                y[k] += omega * (q[k] * (r[k] + flow) - y[k])
        w, old = old, w
    for i in prange(1, mu.shape[0] - 1):
        w_0, w_w, w_e, w_s, w_n, w_b, w_t = _around(w, i, width)
        d_0, d_w, d_e, d_s, d_n, d_b, d_t = _around(d, i, width)
        p_0, p_w, p_e, p_s, p_n, p_b, p_t = _around(after, i, width)
        u_0, u_w, u_e, u_s, u_n, u_b, u_t = _around(before, i, width)
        m, g = mu[i, a:b], by_medium[i, a:b]
        total = np.float64(0)
        for k in range(w_0.size):
            c, dc = w_0[k], d_0[k]
            flux = cx * (_face(dc, d_w[k]) * (w_w[k] - c) + _face(dc, d_e[k]) * (w_e[k] - c))
            flux += cy * (_face(dc, d_s[k]) * (w_s[k] - c) + _face(dc, d_n[k]) * (w_n[k] - c))
            flux += cz * (_face(dc, d_b[k]) * (w_b[k] - c) + _face(dc, d_t[k]) * (w_t[k] - c))
            u = u_0[k]
            slope = one - abs(u + u) if u >= zero else -one - abs(u + u)
            m[k] = c + (flux if dc > zero else zero) + growth * slope * c
            total += c * (abs(u) * (one - u) + abs(p_0[k]) * (one - p_0[k]))
        for k in range(w_0.size):
            c, both = w_0[k], p_0[k] + u_0[k]
            change = zero
            if d_w[k] > zero:
                change += cx * (w_w[k] - c) * (p_w[k] + u_w[k] - both)
            if d_e[k] > zero:
                change += cx * (w_e[k] - c) * (p_e[k] + u_e[k] - both)
            if d_s[k] > zero:
                change += cy * (w_s[k] - c) * (p_s[k] + u_s[k] - both)
            if d_n[k] > zero:
                change += cy * (w_n[k] - c) * (p_n[k] + u_n[k] - both)
            if d_b[k] > zero:
                change += cz * (w_b[k] - c) * (p_b[k] + u_b[k] - both)
            if d_t[k] > zero:
                change += cz * (w_t[k] - c) * (p_t[k] + u_t[k] - both)
            g[k] -= change if d_0[k] > zero else zero
        by_growth[i] += total


def refine(field: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Interpolate linearly from cells to cells half as large, along some axes; constant beyond the outer centres."""
    for axis in axes:
        line = np.moveaxis(field, axis, 0)
        before, after = np.concatenate([line[:1], line[:-1]]), np.concatenate([line[1:], line[-1:]])
        fine = np.empty((2 * len(line), *line.shape[1:]), line.dtype)
        fine[0::2], fine[1::2] = 0.75 * line + 0.25 * before, 0.75 * line + 0.25 * after
        field = np.moveaxis(fine, 0, axis)
    return np.ascontiguousarray(field)


class Rates(NamedTuple):
    """Diffusivity of white matter (mm^2 / day), proliferation (1 / day), ratio of white to grey diffusivity."""

    diffusivity: float
    proliferation: float
    white_to_gray: float


class SpaceTime:
    """All frames of a tumour on one grid.

    Frames, residuals and adjoints are arrays of shape (frames, nx + 2, (ny + 2) (nz + 2)): the grid with a border of
    one cell, which stays zero, its planes flattened; :meth:`volume` gives the grid itself. Nothing flows out of it.

    Parameters
    ----------
    wm, gm : arrays of shape (nx, ny, nz), 0 to 1
    spacing : (float, float, float)
        In mm.
    frames : int
        Number of frames, the first at time 0.
    time_step : float
        Days between two frames.
    dtype
        ``float32``; ``float64`` for verification.
    """

    def __init__(
        self,
        wm: NDArray[Any],
        gm: NDArray[Any],
        spacing: tuple[float, float, float],
        frames: int,
        time_step: float,
        dtype: Any = np.float32,
    ) -> None:
        self.spacing, self.time_step = spacing, time_step
        self.grid = wm.shape
        self.dtype = np.dtype(dtype)
        padded = tuple(n + 2 for n in wm.shape)
        self.shape = (frames, padded[0], padded[1] * padded[2])
        self._width = padded[2]
        tissue = wm + gm >= TISSUE_THRESHOLD
        self.tissues = tuple(self.frame(np.where(tissue, m, 0)) for m in (wm, gm))
        self.tissue = self.frame(tissue) > 0
        self._scratch = np.zeros((4, *self.shape[1:]), dtype)

    def frame(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return a volume of shape (nx, ny, nz) as a frame."""
        return np.pad(volume, 1).astype(self.dtype).reshape(self.shape[1:])

    def volume(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Return the grid of a frame, a view of shape (nx, ny, nz)."""
        return frame.reshape([n + 2 for n in self.grid])[1:-1, 1:-1, 1:-1]

    def medium(self, white_to_gray: float) -> NDArray[Any]:
        """Return the diffusivity relative to that of white matter, 0 outside tissue, as a frame."""
        return self.tissues[0] + self.tissues[1] / self.dtype.type(white_to_gray)

    def _prepare(self, rates: Rates) -> tuple[NDArray[Any], list[Any], Any, NDArray[Any]]:
        """Return relative diffusivity, exchange and growth of half a step, and the relaxation of the sweeps."""
        scalar, dt = self.dtype.type, self.time_step
        d = self.medium(rates.white_to_gray)
        exchange = [scalar(dt * rates.diffusivity / (4 * h * h)) for h in self.spacing]
        growth = 0.5 * dt * rates.proliferation
        _diagonal(d, self._width, *exchange, self._scratch[0])
        # Chebyshev's acceleration of Jacobi's iteration (Golub and Varga, Numer. Math. 3:147-168, 1961).
        radius = min(1 - float(self._scratch[0][self.tissue].min()) + growth, 0.999)
        sigma = radius / (1 + np.sqrt(1 - radius**2))
        sweeps = int(np.clip(np.ceil(np.log(REDUCTION) / np.log(sigma + 1e-12)), 2, LARGEST_SWEEPS))
        omegas = [1.0, 1 / (1 - 0.5 * radius**2)]
        while len(omegas) < sweeps + sweeps % 2:
            omegas.append(1 / (1 - 0.25 * radius**2 * omegas[-1]))
        return d, exchange, scalar(growth), np.array(omegas, self.dtype)

    def solve(
        self, initial: NDArray[Any], residual: NDArray[Any], rates: Rates, scale: float = 1.0
    ) -> NDArray[Any]:
        """Return all frames.

        Parameters
        ----------
        initial : frame
            Concentration at time 0.
        residual : array of shape ``shape``
            Residual at each frame, times ``1 / scale``, in 1 / day; that of the first frame is not used.
        rates : Rates
        scale : float
        """
        d, exchange, growth, omegas = self._prepare(rates)
        frames = np.zeros(self.shape, self.dtype)
        frames[0] = initial
        diagonal, old, right, _ = self._scratch
        force = self.dtype.type(self.time_step * scale)
        for n in range(1, len(frames)):
            _advance(
                frames[n - 1], residual[n], frames[n], old, right, d, diagonal, self._width, *exchange, growth, force,
                omegas,
            )  # fmt: skip
        return frames

    def pull_back(
        self,
        frames: NDArray[Any],
        rates: Rates,
        source: Callable[[int, NDArray[Any]], NDArray[Any]],
        out: NDArray[Any],
        scale: float = 1.0,
    ) -> tuple[NDArray[Any], Rates]:
        """Differentiate a function of all frames by what :meth:`solve` was given.

        Parameters
        ----------
        frames : array of shape ``shape``
            What :meth:`solve` returned.
        rates, scale
            As given to :meth:`solve`.
        source : callable
            Takes the number of a frame and the frame, returns the derivative of the function by it.
        out : array of shape ``shape``
            The derivative by the residuals is added to it, but for the first frame.

        Returns
        -------
        initial : frame
            Derivative by the first frame.
        rates : Rates
            Derivatives by the rates.
        """
        d, exchange, growth, omegas = self._prepare(rates)
        diagonal, old, _, w = self._scratch
        by_medium = np.zeros(self.shape[1:], self.dtype)
        by_growth = np.zeros(self.shape[1])
        force = self.dtype.type(self.time_step * scale)
        mu = np.array(source(len(frames) - 1, frames[-1]), self.dtype)
        for n in range(len(frames) - 1, 0, -1):
            _retreat(
                mu, frames[n], frames[n - 1], w, old, d, diagonal, self._width, *exchange, growth, omegas, by_medium,
                by_growth,
            )  # fmt: skip
            out[n] += force * w
            mu += source(n - 1, frames[n - 1])
        ratio = rates.white_to_gray
        by_rates = Rates(
            float(np.sum(by_medium * d, dtype=float)) / rates.diffusivity,
            0.5 * self.time_step * float(by_growth.sum()),
            -float(np.sum(by_medium * self.tissues[1], dtype=float)) / ratio**2,
        )
        return mu, by_rates

    def residual(self, frames: NDArray[Any], rates: Rates) -> NDArray[Any]:
        """Return the residual at each frame, 0 at the first, in 1 / day: the inverse of :meth:`solve`, written anew."""
        volumes = [self.volume(frame).astype(float) for frame in frames]
        medium = self.volume(self.medium(rates.white_to_gray)).astype(float)
        tissue = medium > 0

        def growth(u: NDArray[np.float64]) -> NDArray[np.float64]:
            change = rates.proliferation * np.abs(u) * (1 - u)
            for axis, h in enumerate(self.spacing):
                low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
                high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
                face = 0.5 * rates.diffusivity * (medium[low] + medium[high]) * (tissue[low] & tissue[high])
                flux = face * (u[high] - u[low]) / h**2
                change[low] += flux
                change[high] -= flux
            return change

        result = np.zeros(self.shape, self.dtype)
        before = growth(volumes[0])
        for n in range(1, len(frames)):
            after = growth(volumes[n])
            r = (volumes[n] - volumes[n - 1]) / self.time_step - 0.5 * (before + after)
            self.volume(result[n])[...] = r
            before = after
        return result
