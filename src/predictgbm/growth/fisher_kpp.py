"""The Fisher-KPP equation in the brain: solver, discrete adjoint, and the calibrated model.

    du/dt = div(D grad u) + rho u (1 - u),    D = Dw (P_wm + P_gm / R),    no flux through the border of the tissue

``u`` is the tumour cell concentration relative to its capacity (0 to 1), lengths are mm, times days.

Space: finite volumes on the image grid; the diffusivity of a face is the mean of its two cells and zero unless both
are tissue (P_wm + P_gm >= 0.1). Time: Strang splitting, the logistic part exact, the diffusion one explicit Euler
step. The half logistic steps of neighbouring time steps merge, so that a step reads the concentration and the
diffusivity once and writes the concentration once, which is what memory bandwidth allows at best. The longest stable
step, h^2 / (6 D), also keeps the concentration positive, and at this very length the leading error of the explicit
step in time cancels that of the differences in space along each axis.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from predictgbm.growth import ModelError, Prediction
from predictgbm.growth.compilation import kernel, threads
from predictgbm.labels import CORE, WHOLE_TUMOR, region

#: Tissue is where P_wm + P_gm reaches this; nothing flows elsewhere.
TISSUE_THRESHOLD = 0.1
#: Diffusivity of white matter over that of grey matter.
WHITE_TO_GRAY = 10.0
#: A step advances the logistic part by at most this much of 1/rho.
LARGEST_REACTION = 0.25
#: Concentrations below this are set to zero: denormal numbers are slow, and cells are not that divisible.
FLUSH = 1e-30
#: The active box is enlarged before a concentration above this can reach its border.
ACTIVE_THRESHOLD = 1e-6
#: The same for the map of a prediction, whose faint tail ranks the voxels far from the tumour.
RANKING_THRESHOLD = 1e-24
#: Steps between two looks at the border of the active box, and the layers looked at.
LOOK_EVERY = 3
#: Voxels left around the tumour when the active box is enlarged.
BOX_MARGIN = 6
#: Cells that keep one thread busy enough to be worth waking.
CELLS_PER_THREAD = 250_000

Box = tuple[slice, slice, slice]
Vector = Sequence[float] | NDArray[np.floating[Any]]


@kernel
def _react(u, out, gain):  # type: ignore[no-untyped-def]
    """Advance by the exact logistic solution; gain = exp(rho dt) - 1."""
    one = u.dtype.type(1)
    for i in prange(u.shape[0]):
        row, target = u[i], out[i]
        for k in range(row.size):
            target[k] = row[k] * (one + gain) / (one + row[k] * gain)


@kernel
def _step(u, out, d, ny, cx, cy, cz, gain, flush):  # type: ignore[no-untyped-def]
    """One explicit diffusion step and one exact logistic step; c = time step x diffusivity / (2 spacing^2).

    Arrays have shape (nx, ny * nz) and a border of cells with d = 0. A plane is one row: its ends wrap around, but
    only in cells of the border, where nothing is computed, and the inner loop is long enough to vectorise well.
    """
    zero = u.dtype.type(0)
    one = u.dtype.type(1)
    size = u.shape[1]
    nz = size // ny
    first, last = nz, size - nz
    for i in prange(1, u.shape[0] - 1):
        u_c, d_c, target = u[i, first:last], d[i, first:last], out[i, first:last]
        u_w, d_w = u[i - 1, first:last], d[i - 1, first:last]
        u_e, d_e = u[i + 1, first:last], d[i + 1, first:last]
        u_s, d_s = u[i, first - nz : last - nz], d[i, first - nz : last - nz]
        u_n, d_n = u[i, first + nz : last + nz], d[i, first + nz : last + nz]
        u_b, d_b = u[i, first - 1 : last - 1], d[i, first - 1 : last - 1]
        u_t, d_t = u[i, first + 1 : last + 1], d[i, first + 1 : last + 1]
        for k in range(u_c.size):
            c, dc = u_c[k], d_c[k]
            flux_x = (dc + d_w[k] if d_w[k] > zero else zero) * (u_w[k] - c)
            flux_x += (dc + d_e[k] if d_e[k] > zero else zero) * (u_e[k] - c)
            flux_y = (dc + d_s[k] if d_s[k] > zero else zero) * (u_s[k] - c)
            flux_y += (dc + d_n[k] if d_n[k] > zero else zero) * (u_n[k] - c)
            flux_z = (dc + d_b[k] if d_b[k] > zero else zero) * (u_b[k] - c)
            flux_z += (dc + d_t[k] if d_t[k] > zero else zero) * (u_t[k] - c)
            v = c + cx * flux_x + cy * flux_y + cz * flux_z
            v = v * (one + gain) / (one + v * gain)
            target[k] = v if (dc > zero and v > flush) else zero


@kernel
def _largest_exchange(d, wx, wy, wz):  # type: ignore[no-untyped-def]
    """Return per slice the largest sum of face diffusivities over spacing^2 of a cell; w = 1 / (2 spacing^2)."""
    largest = np.zeros(d.shape[0])
    for i in prange(1, d.shape[0] - 1):
        for j in range(1, d.shape[1] - 1):
            for k in range(1, d.shape[2] - 1):
                dc = d[i, j, k]
                if dc > 0:
                    s = wx * (
                        (dc + d[i - 1, j, k]) * (d[i - 1, j, k] > 0)
                        + (dc + d[i + 1, j, k]) * (d[i + 1, j, k] > 0)
                    )
                    s += wy * (
                        (dc + d[i, j - 1, k]) * (d[i, j - 1, k] > 0)
                        + (dc + d[i, j + 1, k]) * (d[i, j + 1, k] > 0)
                    )
                    s += wz * (
                        (dc + d[i, j, k - 1]) * (d[i, j, k - 1] > 0)
                        + (dc + d[i, j, k + 1]) * (d[i, j, k + 1] > 0)
                    )
                    largest[i] = max(largest[i], s)
    return largest


def relative_diffusivity(
    wm: NDArray[Any],
    gm: NDArray[Any],
    *,
    brain_mask: NDArray[Any] | None = None,
    white_to_gray: float = WHITE_TO_GRAY,
) -> NDArray[np.float32]:
    """Return P_wm + P_gm / R in tissue and 0 elsewhere.

    Parameters
    ----------
    wm, gm : arrays of shape (nx, ny, nz), 0 to 1
        Probability of white and of grey matter.
    brain_mask : array of shape (nx, ny, nz), optional
        Tissue is sought inside it only.
    white_to_gray : float
        Ratio R of the diffusivities of white and grey matter.
    """
    wm, gm = np.asarray(wm, np.float32), np.asarray(gm, np.float32)
    tissue = wm + gm >= TISSUE_THRESHOLD
    if brain_mask is not None:
        tissue &= np.asarray(brain_mask).astype(bool)
    return np.where(tissue, wm + gm / np.float32(white_to_gray), np.float32(0))


def bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> Box | None:
    """Return the slices of the box around the true voxels, ``margin`` voxels larger where there is room."""
    box = []
    for axis in range(3):
        where = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if not where.size:
            return None
        box.append(slice(max(0, int(where[0]) - margin), min(mask.shape[axis], int(where[-1]) + 1 + margin)))
    return box[0], box[1], box[2]


class Steps(NamedTuple):
    """How a run was divided: number of time steps, their length in days, cells computed in all steps together."""

    number: int
    days: float
    cells: int


class _ActiveBox:
    """Working copies of concentration and diffusivity in the box that the tumour needs.

    They carry a border of cells without diffusivity, through which nothing flows, and planes are flattened, as
    :func:`_step` wants them.
    """

    def __init__(self, relative: NDArray[Any], initial: NDArray[Any], threshold: float | None) -> None:
        self.relative = relative
        self.threshold = threshold
        box = None if threshold is None else bounding_box(initial > threshold, BOX_MARGIN)
        nx, ny, nz = relative.shape
        self.box: Box = box or (slice(0, nx), slice(0, ny), slice(0, nz))
        self._place(initial[self.box])

    def _place(self, concentration: NDArray[Any]) -> None:
        d, u = np.pad(self.relative[self.box], 1), np.pad(concentration, 1)
        self.padded_shape = u.shape
        self.cells = concentration.size
        self.d, self.u = d.reshape(len(d), -1), u.reshape(len(u), -1)
        self.other = np.zeros_like(self.u)

    def inside(self, field: NDArray[Any]) -> NDArray[Any]:
        """Return a working array without its border, as a volume."""
        return field.reshape(self.padded_shape)[1:-1, 1:-1, 1:-1]

    def enlarge_if_needed(self) -> None:
        """Move the sides of the box outwards where the tumour has come near one of them."""
        if self.threshold is None:
            return
        u = self.inside(self.u)
        for axis, side in enumerate(self.box):
            layers = np.moveaxis(u, axis, 0)
            at_start = side.start > 0 and layers[:LOOK_EVERY].max() > self.threshold
            at_stop = side.stop < self.relative.shape[axis] and layers[-LOOK_EVERY:].max() > self.threshold
            if at_start or at_stop:
                break
        else:
            return
        old = self.box
        whole = np.zeros(self.relative.shape, u.dtype)
        whole[old] = u
        grown = bounding_box(whole > self.threshold, BOX_MARGIN)
        assert grown is not None
        x, y, z = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(old, grown, strict=True))
        self.box = x, y, z
        self._place(whole[self.box])


class FisherKPP:
    """Solver on one brain.

    Parameters
    ----------
    relative : array of shape (nx, ny, nz), >= 0
        Diffusivity relative to that of pure white matter, 0 outside tissue; see :func:`relative_diffusivity`.
    spacing : (float, float, float)
        Voxel size in mm; the three may differ.
    dtype
        ``float32``; ``float64`` for verification.

    Raises
    ------
    ValueError
        If no voxel is tissue, or the spacing is not positive.
    """

    def __init__(self, relative: NDArray[Any], spacing: Vector, dtype: Any = np.float32) -> None:
        self.spacing = tuple(float(h) for h in spacing)
        if len(self.spacing) != 3 or min(self.spacing) <= 0:
            raise ValueError(f"voxel size {spacing} is not three positive numbers")
        region = bounding_box(np.asarray(relative) > 0)
        if region is None:
            raise ValueError("no voxel is tissue: white and grey matter maps are empty inside the brain")
        self.shape = np.asarray(relative).shape
        self.dtype = np.dtype(dtype)
        #: The bounding box of the tissue in the image; all work is done there.
        self.region = region
        self.relative = np.ascontiguousarray(np.asarray(relative)[region], self.dtype)
        weights = [0.5 / h**2 for h in self.spacing]
        self._largest_exchange = float(_largest_exchange(np.pad(self.relative, 1), *weights).max())
        #: What the last simulation did.
        self.steps = Steps(0, 0.0, 0)

    def largest_time_step(self, diffusivity: float, proliferation: float) -> float:
        """Return the longest step, in days, that is stable and positive and resolves the growth."""
        limits = [np.inf]
        if diffusivity > 0:
            limits.append(1.0 / (diffusivity * self._largest_exchange))
        if proliferation > 0:
            limits.append(LARGEST_REACTION / proliferation)
        return float(min(limits))

    def _divide(
        self, diffusivity: float, proliferation: float, days: float, time_step: float | None
    ) -> Steps:
        if not all(np.isfinite(v) and v >= 0 for v in (diffusivity, proliferation, days)):
            raise ValueError("diffusivity, proliferation and days must be finite and not negative")
        largest = self.largest_time_step(diffusivity, proliferation)
        if time_step is not None and diffusivity * self._largest_exchange * time_step > 1 + 1e-6:
            raise ValueError(f"a time step of {time_step:g} days is unstable here; at most {largest:g} days")
        length = largest if time_step is None else time_step
        count = max(1, int(np.ceil(days / length * (1 - 1e-9))))
        return Steps(count, days / count, 0)

    def simulate(
        self,
        initial: NDArray[Any],
        diffusivity: float,
        proliferation: float,
        days: float,
        *,
        time_step: float | None = None,
        active_threshold: float | None = ACTIVE_THRESHOLD,
    ) -> NDArray[Any]:
        """Return the concentration after ``days``.

        Parameters
        ----------
        initial : array of shape (nx, ny, nz), 0 to 1
            Concentration at the start; what lies outside the tissue is dropped.
        diffusivity : float
            Diffusivity of white matter, mm^2 / day.
        proliferation : float
            Growth rate, 1 / day.
        days : float
            Simulated time.
        time_step : float, optional
            Longest step in days; :meth:`largest_time_step` by default.
        active_threshold : float, optional
            Only a box around the tumour is computed, enlarged before a concentration above this value can reach
            its border; nothing flows through that border. None computes the whole brain in every step.

        Returns
        -------
        array of shape (nx, ny, nz), 0 to 1, 0 outside tissue

        Raises
        ------
        ValueError
            If a rate is negative or not finite, or the time step is unstable.
        """
        count, dt, _ = self._divide(diffusivity, proliferation, days, time_step)
        scalar = self.dtype.type
        exchange = [scalar(0.5 * dt * diffusivity / h**2) for h in self.spacing]
        gain, half = scalar(np.expm1(proliferation * dt)), scalar(np.expm1(0.5 * proliferation * dt))
        start = np.where(self.relative > 0, np.asarray(initial)[self.region], 0).astype(self.dtype)
        active = _ActiveBox(self.relative, start, active_threshold)
        cells = 0
        _react(active.u, active.u, half)
        for n in range(count):
            if n % LOOK_EVERY == 0:
                active.enlarge_if_needed()
            reaction = half if n == count - 1 else gain
            with threads(active.cells // CELLS_PER_THREAD):
                _step(
                    active.u,
                    active.other,
                    active.d,
                    active.padded_shape[1],
                    *exchange,
                    reaction,
                    scalar(FLUSH),
                )
            active.u, active.other = active.other, active.u
            cells += active.cells
        self.steps = Steps(count, dt, cells)
        image = np.zeros(self.shape, self.dtype)
        image[self.region][active.box] = active.inside(active.u)
        return image


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float | None:
    """Return the Dice overlap of two masks, None where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else None


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
    """Calibrate the Fisher-KPP equation to the tumour labels and return the concentration it grows.

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

    Raises
    ------
    ModelError
        If the exam shows no tumour inside the brain, or no tissue.
    """
    # Calibration needs the solver, so it cannot be imported before it.
    from predictgbm.growth import calibration

    began = time.perf_counter()
    inside = np.asarray(brain_mask).astype(bool)
    labels = np.where(inside, np.asarray(tumor_seg), 0)
    core, whole = region(labels, CORE), region(labels, WHOLE_TUMOR)
    if not whole.any():
        raise ModelError(
            "no tumour (labels 1, 2, 3) inside the brain mask; check segmentation and brain mask"
        )
    wm, gm = np.asarray(wm, np.float32), np.asarray(gm, np.float32)
    # What is labelled tumour was tissue, whatever maps from an atlas say there.
    displaced = whole & (wm + gm < TISSUE_THRESHOLD)
    wm, gm = np.where(displaced, np.float32(0.5), wm), np.where(displaced, np.float32(0.5), gm)
    relative = relative_diffusivity(wm, gm, brain_mask=inside)
    box = bounding_box(inside)
    assert box is not None
    parameters, misfit = calibration.calibrate(relative[box], core[box], whole[box], spacing)
    solver = FisherKPP(relative[box], spacing)
    start = calibration.gaussian_seeds(relative[box].shape, spacing, parameters.seeds, parameters.peaks)
    u = solver.simulate(
        start,
        parameters.diffusivity,
        parameters.proliferation,
        calibration.DAYS,
        active_threshold=RANKING_THRESHOLD,
    )
    image = np.zeros(inside.shape, np.float32)
    image[box] = u
    corner = [side.start * h for side, h in zip(box, spacing, strict=True)]
    return Prediction(
        image,
        {
            "diffusivity_mm2_per_day": parameters.diffusivity,
            "proliferation_per_day": parameters.proliferation,
            "white_to_gray_ratio": WHITE_TO_GRAY,
            "days": calibration.DAYS,
            "seeds_mm": (parameters.seeds + corner).tolist(),
            "seed_peaks": parameters.peaks.tolist(),
            "threshold_core": calibration.CORE_THRESHOLD,
            "threshold_edema": calibration.EDEMA_THRESHOLD,
            "misfit_mm": misfit,
            "dice_core": dice(image > calibration.CORE_THRESHOLD, core),
            "dice_whole": dice(image > calibration.EDEMA_THRESHOLD, whole),
            "displaced_voxels": int(displaced.sum()),
            "seconds": time.perf_counter() - began,
        },
    )
