"""LOTI: a static tumour concentration that agrees with the segmentation and is smooth elsewhere.

Every voxel's concentration u is a free variable. Gradient descent makes two thresholds of it agree with what imaging
shows (tumour where u is above 0.2, core above 0.6), keeps its gradients small, and pulls it towards the profile of a
travelling front, ``s u (1 - u) = |grad u|`` with one free s; no growth in time is simulated.

Source: Weidner et al., arXiv 2412.13811. The first version and the released code have the front in their loss, the
second version and PREDICT-GBM (arXiv 2509.13360) name the data and the smoothness alone; ``physics=False`` leaves it
out. ``docs/models.md`` says why it is in by default.

The loss is written for voxels of 1 mm. Differences are divided by the voxel size in mm, so that other sizes describe
the same field, and the mean of the front's residual is taken over the volume of the SRI24 grid (240 x 240 x 155 mm), so
that the amount of air around the head does not matter.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

from predictgbm.growth import ModelError, Prediction
from predictgbm.growth.compilation import kernel
from predictgbm.growth.distance import core_mask
from predictgbm.labels import WHOLE_TUMOR, region
from predictgbm.masks import bounding_box

THRESHOLD_EDEMA = 0.2
THRESHOLD_CORE = 0.6
STEEPNESS = 500.0
SMOOTH = 1e-6
WEIGHT = 1000.0
ITERATIONS = 500
LEARNING_RATE = 0.01
U_MIN = 1e-5
ACTIVE = 1e-3
SQUARE_MIN, SQUARE_MAX = 1e-5, 1e3
S_START, S_MIN, S_MAX = 0.1, 1e-5, 100.0
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
TISSUE_MIN = 0.1
PET_MIN = 1e-4
#: Volume of the grid over which the source averages the residual, in mm^3.
MEAN_VOLUME = 240.0 * 240.0 * 155.0

#: A sigmoid further than this from its threshold is 0 or 1, and its slope 0, to 1e-17.
_BAND = 40.0 / STEEPNESS
_BRAIN, _TUMOR, _CORE, _INNER, _PET = 1, 2, 4, 8, 16
_PAD = 2
(
    _P_EDEMA,
    _PQ_EDEMA,
    _P_CORE,
    _PQ_CORE,
    _SQUARES,
    _COUNT,
    _RESIDUAL,
    _RESIDUAL_S,
    _PET_U,
    _PET_UU,
    _PET_UP,
    _N_SUMS,
) = range(12)


@numba.njit(inline="always")
def _sign(d, one):  # type: ignore[no-untyped-def]
    return one if d > 0 else (-one if d < 0 else one - one)


@kernel
def _measure(u, labels, pet, first, last, inverse, s, physics, slope, local, flow, sums):  # type: ignore[no-untyped-def]
    """Sum up what the loss is made of, plane by plane, and keep what its gradient needs.

    ``slope`` is half the derivative of a voxel's squared sum of differences by that sum. ``local`` and ``flow`` are
    those of half its squared residual by u, and by the gradient per unit of gradient.
    """
    scalar = u.dtype.type
    one = scalar(1)
    hx, hy, hz = inverse[0], inverse[1], inverse[2]
    half = scalar(0.5)
    for i in numba.prange(_PAD, u.shape[0] - _PAD):
        total = np.zeros(_N_SUMS)
        for j in range(_PAD, u.shape[1] - _PAD):
            a, b = first[i, j], last[i, j]
            if a >= b:
                continue
            c = u[i, j, a:b]
            x0, x1 = u[i - 1, j, a:b], u[i + 1, j, a:b]
            y0, y1 = u[i, j - 1, a:b], u[i, j + 1, a:b]
            z0, z1 = u[i, j, a - 1 : b - 1], u[i, j, a + 1 : b + 1]
            out = slope[i, j, a:b]
            squares, count = scalar(0), scalar(0)
            for k in range(c.size):
                d = (
                    (abs(x1[k] - c[k]) + abs(c[k] - x0[k])) * hx
                    + (abs(y1[k] - c[k]) + abs(c[k] - y0[k])) * hy
                    + (abs(z1[k] - c[k]) + abs(c[k] - z0[k])) * hz
                )
                square = d * d
                active = one if c[k] > scalar(ACTIVE) else scalar(0)
                inside = square >= scalar(SQUARE_MIN) and square <= scalar(SQUARE_MAX)
                squares += active * min(max(square, scalar(SQUARE_MIN)), scalar(SQUARE_MAX))
                count += active
                out[k] = active * d if inside else scalar(0)
            total[_SQUARES] += squares
            total[_COUNT] += count
            bits = labels[i, j, a:b]
            for k in range(c.size):
                value = c[k]
                if value > scalar(THRESHOLD_EDEMA - _BAND):
                    p = one
                    if value < scalar(THRESHOLD_EDEMA + _BAND):
                        p = one / (one + math.exp(scalar(-STEEPNESS) * (value - scalar(THRESHOLD_EDEMA))))
                    total[_P_EDEMA] += p
                    if bits[k] & _TUMOR:
                        total[_PQ_EDEMA] += p
                    if value > scalar(THRESHOLD_CORE - _BAND):
                        p = one
                        if value < scalar(THRESHOLD_CORE + _BAND):
                            p = one / (one + math.exp(scalar(-STEEPNESS) * (value - scalar(THRESHOLD_CORE))))
                        total[_P_CORE] += p
                        if bits[k] & _CORE:
                            total[_PQ_CORE] += p
            if physics:
                lo, fl = local[i, j, a:b], flow[i, j, a:b]
                r2, r_s = scalar(0), scalar(0)
                for k in range(c.size):
                    gx = (x1[k] - x0[k]) * half * hx
                    gy = (y1[k] - y0[k]) * half * hy
                    gz = (z1[k] - z0[k]) * half * hz
                    square = gx * gx + gy * gy + gz * gz
                    inside = square >= scalar(SQUARE_MIN) and square <= scalar(SQUARE_MAX)
                    g = np.sqrt(min(max(square, scalar(SQUARE_MIN)), scalar(SQUARE_MAX)))
                    r = c[k] * (one - c[k]) - g / s
                    r = r if bits[k] & _INNER else scalar(0)
                    r2 += r * r
                    r_s += r * g
                    lo[k] = r * (one - c[k] - c[k])
                    fl[k] = -r / (s * g) if inside else scalar(0)
                total[_RESIDUAL] += r2
                total[_RESIDUAL_S] += r_s
            if pet.size:
                uptake = pet[i, j, a:b]
                for k in range(c.size):
                    if bits[k] & _PET:
                        total[_PET_U] += c[k]
                        total[_PET_UU] += np.float64(c[k]) * c[k]
                        total[_PET_UP] += np.float64(c[k]) * uptake[k]
        sums[i] = total


@kernel
def _descend(u, new, x, m, v, labels, pet, first, last, inverse, slope, local, flow, weights, rates, physics):  # type: ignore[no-untyped-def]
    """Take one Adam step on x from what :func:`_measure` left, and write the next u."""
    scalar = u.dtype.type
    one = scalar(1)
    hx, hy, hz = inverse[0], inverse[1], inverse[2]
    half = scalar(0.5)
    smooth, on_edema, off_edema, on_core, off_core, residual, pet_p, pet_u, pet_1 = weights
    step, root2 = rates
    low, high = scalar(U_MIN), one
    for i in numba.prange(_PAD, u.shape[0] - _PAD):
        for j in range(_PAD, u.shape[1] - _PAD):
            a, b = first[i, j], last[i, j]
            if a >= b:
                continue
            c, w = u[i, j, a:b], slope[i, j, a:b]
            x0, x1 = u[i - 1, j, a:b], u[i + 1, j, a:b]
            y0, y1 = u[i, j - 1, a:b], u[i, j + 1, a:b]
            z0, z1 = u[i, j, a - 1 : b - 1], u[i, j, a + 1 : b + 1]
            wx0, wx1 = slope[i - 1, j, a:b], slope[i + 1, j, a:b]
            wy0, wy1 = slope[i, j - 1, a:b], slope[i, j + 1, a:b]
            wz0, wz1 = slope[i, j, a - 1 : b - 1], slope[i, j, a + 1 : b + 1]
            g = new[i, j, a:b]
            # Few arrays per loop: with more, the compiler does not check that they are apart, nor use vectors.
            for k in range(c.size):
                g[k] = hx * (
                    (w[k] + wx0[k]) * _sign(c[k] - x0[k], one) + (w[k] + wx1[k]) * _sign(c[k] - x1[k], one)
                )
            for k in range(c.size):
                g[k] += hy * (
                    (w[k] + wy0[k]) * _sign(c[k] - y0[k], one) + (w[k] + wy1[k]) * _sign(c[k] - y1[k], one)
                )
            for k in range(c.size):
                g[k] += hz * (
                    (w[k] + wz0[k]) * _sign(c[k] - z0[k], one) + (w[k] + wz1[k]) * _sign(c[k] - z1[k], one)
                )
                g[k] *= smooth
            bits = labels[i, j, a:b]
            for k in range(c.size):
                if c[k] > scalar(THRESHOLD_EDEMA - _BAND):
                    away = c[k] - scalar(THRESHOLD_EDEMA)
                    if away < scalar(_BAND):
                        p = one / (one + math.exp(scalar(-STEEPNESS) * away))
                        g[k] += p * (one - p) * (on_edema if bits[k] & _TUMOR else off_edema)
                    away = c[k] - scalar(THRESHOLD_CORE)
                    if abs(away) < scalar(_BAND):
                        p = one / (one + math.exp(scalar(-STEEPNESS) * away))
                        g[k] += p * (one - p) * (on_core if bits[k] & _CORE else off_core)
            if physics:
                lo = local[i, j, a:b]
                fx0, fx1 = flow[i - 1, j, a:b], flow[i + 1, j, a:b]
                fy0, fy1 = flow[i, j - 1, a:b], flow[i, j + 1, a:b]
                fz0, fz1 = flow[i, j, a - 1 : b - 1], flow[i, j, a + 1 : b + 1]
                xx0, xx1 = u[i - 2, j, a:b], u[i + 2, j, a:b]
                yy0, yy1 = u[i, j - 2, a:b], u[i, j + 2, a:b]
                zz0, zz1 = u[i, j, a - 2 : b - 2], u[i, j, a + 2 : b + 2]
                qx, qy, qz = half * half * hx * hx, half * half * hy * hy, half * half * hz * hz
                for k in range(c.size):
                    g[k] += residual * (lo[k] + qx * (fx0[k] * (c[k] - xx0[k]) + fx1[k] * (c[k] - xx1[k])))
                for k in range(c.size):
                    g[k] += residual * qy * (fy0[k] * (c[k] - yy0[k]) + fy1[k] * (c[k] - yy1[k]))
                for k in range(c.size):
                    g[k] += residual * qz * (fz0[k] * (c[k] - zz0[k]) + fz1[k] * (c[k] - zz1[k]))
            if pet.size:
                uptake = pet[i, j, a:b]
                for k in range(c.size):
                    if bits[k] & _PET:
                        g[k] += pet_p * uptake[k] + pet_u * c[k] + pet_1
            xr, mr, vr = x[i, j, a:b], m[i, j, a:b], v[i, j, a:b]
            for k in range(c.size):
                free = (bits[k] & _BRAIN) != 0 and xr[k] >= low and xr[k] <= high
                g[k] = g[k] if free else scalar(0)
            for k in range(c.size):
                mr[k] = scalar(BETA1) * mr[k] + scalar(1 - BETA1) * g[k]
                vr[k] = scalar(BETA2) * vr[k] + scalar(1 - BETA2) * g[k] * g[k]
            for k in range(c.size):
                xr[k] -= step * mr[k] / (np.sqrt(vr[k]) * root2 + scalar(EPSILON))
            for k in range(c.size):
                g[k] = min(max(xr[k], low), high) if (bits[k] & _BRAIN) != 0 else low


class Descent:
    """The loss of LOTI on one exam, and its minimisation by Adam.

    Parameters
    ----------
    tumor_seg : integer array of shape (nx, ny, nz)
        Canonical tumour labels.
    brain : bool array of shape (nx, ny, nz)
        Where the concentration may differ from zero.
    spacing
        Voxel size in mm.
    pet : float array of shape (nx, ny, nz), optional
        Uptake; used where it is above 1e-4, in the brain and outside necrosis.
    physics
        Whether the residual of the static growth equation is part of the loss.
    dtype
        Precision of the fields.

    Attributes
    ----------
    x, m, v, u : arrays of the padded bounding box of the brain
        Free variable, Adam's two moments, concentration.
    s : float
        Free scalar of the growth equation, in 1/mm.
    box : slices of the unpadded bounding box in the exam's grid
    """

    def __init__(
        self,
        tumor_seg: NDArray[np.integer],
        brain: NDArray[np.bool_],
        spacing: tuple[float, float, float],
        pet: NDArray[np.floating] | None = None,
        physics: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.physics, self.dtype = physics, np.dtype(dtype)
        self._scalar: Any = self.dtype.type
        self.box = bounding_box(brain)

        def cut(array: NDArray[Any]) -> NDArray[Any]:
            return np.pad(array[self.box], _PAD)

        seg, inside = cut(tumor_seg), cut(brain)
        whole, core = region(seg, WHOLE_TUMOR), core_mask(seg)
        self.labels = (inside * _BRAIN + whole * _TUMOR + core * _CORE + _erode(inside) * _INNER).astype(
            np.uint8
        )
        self.n_whole, self.n_core = int(whole.sum()), int(core.sum())
        self.pet = np.empty((0, 0, 0), self.dtype)
        if pet is not None:
            self._add_pet(cut(pet).astype(self.dtype), inside & (seg != 1))
        self.first = inside.argmax(axis=2)
        self.last = np.where(inside.any(axis=2), inside.shape[2] - inside[:, :, ::-1].argmax(axis=2), 0)
        self.inverse = (1.0 / np.asarray(spacing)).astype(self.dtype)
        self.residual_mean = WEIGHT * float(np.prod(spacing)) / MEAN_VOLUME if physics else 0.0

        self.x = (0.6 * whole + 0.2 * core + 0.01 * inside).astype(self.dtype)
        self.m, self.v = np.zeros_like(self.x), np.zeros_like(self.x)
        self.s, self.s_m, self.s_v = S_START, 0.0, 0.0
        self.steps = 0
        self._slope = np.zeros_like(self.x)
        size = self.x.shape if physics else (0, 0, 0)
        self._local, self._flow = np.zeros(size, self.dtype), np.zeros(size, self.dtype)
        self._sums = np.zeros((self.x.shape[0], _N_SUMS))
        self.place(self.x, self.s)

    def _add_pet(self, pet: NDArray[Any], usable: NDArray[np.bool_]) -> None:
        mask = usable & (pet > PET_MIN)
        uptake = pet[mask].astype(np.float64)
        if uptake.size < 2 or uptake.std() == 0:
            raise ModelError(
                "the PET has no uptake, or the same everywhere, in the brain outside necrosis; "
                "check it, or leave it out of the samplesheet"
            )
        # Pearson's correlation ignores offset and scale; standard scores keep its sums accurate.
        self.pet = ((pet - uptake.mean()) / uptake.std()).astype(self.dtype)
        self.labels[mask] |= _PET
        self.n_pet = uptake.size

    def place(self, x: NDArray[Any], s: float) -> None:
        """Set the free variables, and the concentration that follows from them."""
        self.x, self.s = x.astype(self.dtype), float(s)
        floor = self._scalar(U_MIN)
        self.u = np.where((self.labels & _BRAIN) != 0, self.x.clip(floor, 1), floor)
        self._new = self.u.copy()

    def loss(self) -> dict[str, float]:
        """Evaluate the terms of the loss and their weighted ``total`` at the present place."""
        s = self._scalar(min(max(self.s, S_MIN), S_MAX))
        _measure(
            self.u, self.labels, self.pet, self.first, self.last, self.inverse, s, self.physics,
            self._slope, self._local, self._flow, self._sums,
        )  # fmt: skip
        # Planes are added in a fixed order: the result does not depend on the number of threads.
        total = self._sums.sum(axis=0)
        self._total = total
        terms = {
            "edema": 1 - _dice(total[_PQ_EDEMA], total[_P_EDEMA], self.n_whole)[0],
            "core": 1 - _dice(total[_PQ_CORE], total[_P_CORE], self.n_core)[0],
            "smoothness": WEIGHT * total[_SQUARES] / max(total[_COUNT], 1.0),
        }
        if self.physics:
            terms["residual"] = self.residual_mean * total[_RESIDUAL]
        if self.pet.size:
            terms["pet"] = 1 - self._correlation()[0]
        return {key: float(value) for key, value in terms.items()} | {"total": float(sum(terms.values()))}

    def _correlation(self) -> tuple[float, float, float, float]:
        """Return Pearson's r, and what PET, u and 1 contribute to its derivative by u."""
        total, n = self._total, self.n_pet
        mean = total[_PET_U] / n
        spread = total[_PET_UU] - n * mean**2
        if spread <= 0:
            return 0.0, 0.0, 0.0, 0.0
        # The uptake has mean 0 and n as its sum of squares.
        r = total[_PET_UP] / math.sqrt(spread * n)
        return r, 1 / math.sqrt(spread * n), -r / spread, r * mean / spread

    def step(self) -> dict[str, float]:
        """Take one Adam step, and return the loss before it."""
        terms = self.loss()
        total = self._total
        self.steps += 1
        step = LEARNING_RATE / (1 - BETA1**self.steps)
        root2 = 1 / math.sqrt(1 - BETA2**self.steps)
        _, on_edema, off_edema = _dice(total[_PQ_EDEMA], total[_P_EDEMA], self.n_whole)
        _, on_core, off_core = _dice(total[_PQ_CORE], total[_P_CORE], self.n_core)
        pet = self._correlation()[1:] if self.pet.size else (0.0, 0.0, 0.0)
        weights = (
            2 * WEIGHT / max(total[_COUNT], 1.0),
            *(-STEEPNESS * d for d in (on_edema, off_edema, on_core, off_core)),
            2 * self.residual_mean,
            *(-p for p in pet),
        )
        scalar = self._scalar
        _descend(
            self.u, self._new, self.x, self.m, self.v, self.labels, self.pet, self.first, self.last,
            self.inverse, self._slope, self._local, self._flow, tuple(map(scalar, weights)),
            (scalar(step), scalar(root2)), self.physics,
        )  # fmt: skip
        self.u, self._new = self._new, self.u
        if self.physics:
            s = min(max(self.s, S_MIN), S_MAX)
            d = 2 * self.residual_mean * total[_RESIDUAL_S] / s**2 if s == self.s else 0.0
            self.s_m = BETA1 * self.s_m + (1 - BETA1) * d
            self.s_v = BETA2 * self.s_v + (1 - BETA2) * d * d
            self.s -= step * self.s_m / (math.sqrt(self.s_v) * root2 + EPSILON)
        return terms


def _dice(both: float, predicted: float, observed: int) -> tuple[float, float, float]:
    """Return the soft Dice coefficient, and its derivative by an observed and by another voxel."""
    sizes = predicted + observed + SMOOTH
    value = (2 * both + SMOOTH) / sizes
    return value, (2 - value) / sizes, -value / sizes


def _erode(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Erode a padded mask by a cube of 3 x 3 x 3 voxels."""
    result = mask.copy()
    for axis in range(3):
        result &= np.roll(result, 1, axis) & np.roll(result, -1, axis)
    return result


def predict(
    *,
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    wm: NDArray[np.floating],
    gm: NDArray[np.floating],
    csf: NDArray[np.floating],
    pet: NDArray[np.floating] | None = None,
    spacing: tuple[float, float, float],
    seed: int = 0,
    physics: bool = True,
    iterations: int = ITERATIONS,
) -> Prediction:
    """Estimate the tumour cell concentration of an exam.

    Parameters
    ----------
    tumor_seg : integer array of shape (nx, ny, nz)
        Canonical tumour labels.
    brain_mask : bool array of shape (nx, ny, nz)
    wm, gm, csf : float arrays of shape (nx, ny, nz)
        Probability of white matter, grey matter and CSF, 0-1.
    pet : float array of shape (nx, ny, nz), optional
        Amino-acid PET in any unit; its correlation with the concentration joins the loss.
    spacing
        Voxel size in mm, may be anisotropic.
    seed
        Not used: nothing is random.
    physics
        Let the residual of the static growth equation be part of the loss.
    iterations
        Number of Adam steps.

    Returns
    -------
    Prediction
        Concentration: 0 outside the brain, 1e-5 to 1 inside.

    Raises
    ------
    ModelError
        If the segmentation has no core, none of it is in the brain, or a PET has no contrast.
    """
    core = core_mask(tumor_seg)
    brain = ((wm + gm + csf > TISSUE_MIN) | region(tumor_seg, WHOLE_TUMOR)) & brain_mask
    if not (core & brain).any():
        raise ModelError(
            "no voxel of the tumour core is in the brain mask; "
            "check that segmentation and brain mask belong to the same exam"
        )
    descent = Descent(np.where(brain, tumor_seg, 0), brain, spacing, pet, physics)
    start = descent.loss()
    for _ in range(iterations):
        descent.step()
    end = descent.loss()
    result = np.zeros(brain.shape, np.float32)
    inner = (slice(_PAD, -_PAD),) * 3
    result[descent.box] = np.where(brain[descent.box], descent.u[inner], 0)
    parameters: dict[str, Any] = {
        "iterations": iterations,
        "physics": physics,
        "loss_start": {key: round(value, 6) for key, value in start.items()},
        "loss": {key: round(value, 6) for key, value in end.items()},
    }
    if physics:
        parameters["s_per_mm"] = round(float(min(max(descent.s, S_MIN), S_MAX)), 6)
    return Prediction(result, parameters)
