"""The Fisher-KPP equation in the brain: solver and discrete adjoint.

    du/dt = div(D grad u) + rho u (1 - u),    D = Dw (P_wm + P_gm / R),    no flux through the border of the tissue

``u`` is the tumour cell concentration relative to its capacity (0 to 1), lengths are mm, times days. Where the
diffusion of water was measured, white matter has its directions: D = Dw (P_wm T + P_gm / R), T the measured tensor
over its mean diffusivity; cells then spread along tracts as water does.

Space: finite volumes on the image grid; the diffusivity of a face is the mean of its two cells and zero unless both
are tissue (P_wm + P_gm >= 0.1); tensors by :mod:`predictgbm.growth.anisotropy`. Time: Strang splitting, the logistic
part exact, the diffusion one explicit Euler step. The half logistic steps of neighbouring time steps merge, so that a
step reads the concentration and the diffusivity once and writes the concentration once, which is what memory bandwidth
allows at best. The longest stable step, h^2 / (6 D), also keeps the concentration positive, and at this very length the
leading error of the explicit step in time cancels that of the differences in space along each axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictgbm.growth import anisotropy, kernels
from predictgbm.growth.compilation import threads
from predictgbm.masks import Box, bounding_box
from predictgbm.neighbours import DIRECTIONS
from predictgbm.tensors import mean_diffusivity, shape_of_diffusion

#: Tissue is where P_wm + P_gm reaches this; nothing flows elsewhere.
TISSUE_THRESHOLD = 0.1
#: Diffusivity of white matter over that of grey matter.
WHITE_TO_GRAY = 10.0
#: A step advances the logistic part by at most this much of 1/rho.
LARGEST_REACTION = 0.25
#: The implicit scheme takes steps up to this many times as long as the stable ones of the explicit scheme, and
#: resolves growth twice as finely: both schemes then err by less than 1 % of the concentration. It costs about ten
#: times as much a step, so it pays from about 1 mm^2 / day at 1 mm.
IMPLICIT_STRETCH = 12.0
#: Concentrations below this are set to zero: denormal numbers are slow, and cells are not that divisible.
FLUSH = 1e-30
#: The active box is enlarged before a concentration above this can reach its border.
ACTIVE_THRESHOLD = 1e-6
#: Steps between two looks at the border of the active box, and the layers looked at.
LOOK_EVERY = 3
#: Voxels left around the tumour when the active box is enlarged.
BOX_MARGIN = 6
#: Cells that keep one thread busy enough to be worth waking.
CELLS_PER_THREAD = 250_000

Vector = Sequence[float] | NDArray[np.floating[Any]]


def relative_diffusivity(
    wm: NDArray[Any],
    gm: NDArray[Any],
    *,
    brain_mask: NDArray[Any] | None = None,
    white_to_gray: float = WHITE_TO_GRAY,
    tensor: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Return P_wm + P_gm / R in tissue and 0 elsewhere; with a tensor T of diffusion, P_wm T + P_gm / R.

    Parameters
    ----------
    wm, gm : arrays of shape (nx, ny, nz), 0 to 1
        Probability of white and of grey matter.
    brain_mask : array of shape (nx, ny, nz), optional
        Tissue is sought inside it only.
    white_to_gray : float
        Ratio R of the diffusivities of white and grey matter.
    tensor : array of shape (nx, ny, nz, 6), optional
        Diffusion of water: Dxx, Dxy, Dyy, Dxz, Dyz, Dzz along the array axes, in any unit; 0 where not measured.

    Returns
    -------
    array of shape (nx, ny, nz), or (nx, ny, nz, 6) with a tensor
    """
    wm, gm = np.asarray(wm, np.float32), np.asarray(gm, np.float32)
    tissue = wm + gm >= TISSUE_THRESHOLD
    if brain_mask is not None:
        tissue &= np.asarray(brain_mask).astype(bool)
    slow = gm / np.float32(white_to_gray)
    if tensor is None:
        return np.where(tissue, wm + slow, np.float32(0))
    relative = np.zeros(tensor.shape, np.float32)
    relative[tissue] = wm[tissue, None] * shape_of_diffusion(tensor[tissue])
    relative[..., [0, 2, 5]] += np.where(tissue, slow, np.float32(0))[..., None]
    return relative


def mean_relative(relative: NDArray[Any]) -> NDArray[Any]:
    """Return a relative diffusivity, shape (nx, ny, nz) or as tensors (nx, ny, nz, 6), averaged over directions."""
    return mean_diffusivity(relative) if relative.ndim == 4 else relative


class Steps(NamedTuple):
    """How a run was divided: number of time steps, their length in days, cells computed in all steps together."""

    number: int
    days: float
    cells: int


class Gradient(NamedTuple):
    """A function of the final concentration and its derivatives.

    Attributes
    ----------
    value : float
    diffusivity, proliferation : float
        Derivatives by these.
    initial : array of shape (nx, ny, nz)
        Derivative by the concentration at the start.
    concentration : array of shape (nx, ny, nz)
        The final concentration.
    """

    value: float
    diffusivity: float
    proliferation: float
    initial: NDArray[Any]
    concentration: NDArray[Any]


class _ActiveBox:
    """Working copies of concentration and diffusivity in the box that the tumour needs, bordered and flattened."""

    def __init__(
        self,
        relative: NDArray[Any],
        edges: NDArray[Any] | None,
        initial: NDArray[Any],
        threshold: float | None,
    ) -> None:
        self.relative = relative
        self.whole_edges = edges
        self.threshold = threshold
        nx, ny, nz = relative.shape
        self.box: Box = (slice(0, nx), slice(0, ny), slice(0, nz))
        if threshold is not None:
            self.box = bounding_box(initial > threshold, BOX_MARGIN)
        inside = self.relative[self.box] > 0
        self._place(np.where(inside, initial[self.box], 0).astype(relative.dtype))

    def _place(self, concentration: NDArray[Any]) -> None:
        d, u = np.pad(self.relative[self.box], 1), np.pad(concentration, 1)
        self.shape = u.shape
        self.cells = concentration.size
        self.d, self.u = d.reshape(len(d), -1), u.reshape(len(u), -1)
        self.other = np.zeros_like(self.u)
        if self.whole_edges is not None:
            x, y, z = self.box
            edges = anisotropy.within(self.whole_edges[:, x, y, z])
            self.edges = edges.reshape(len(edges), len(d), -1)
            nz = self.shape[2]
            self.shifts = DIRECTIONS @ np.array([[1, 0], [0, nz], [0, 1]])

    @property
    def medium(self) -> tuple[NDArray[Any], ...]:
        """What a kernel wants to know of the medium."""
        return (self.d,) if self.whole_edges is None else (self.d, self.edges, self.shifts)

    def volume(self, field: NDArray[Any]) -> NDArray[Any]:
        """Return a working array without its border, as a volume."""
        return field.reshape(self.shape)[1:-1, 1:-1, 1:-1]

    def move_to(self, box: Box) -> None:
        """Take another box, with the concentration where the two overlap and none elsewhere."""
        if box == self.box:
            return
        whole = np.zeros(self.relative.shape, self.u.dtype)
        whole[self.box] = self.volume(self.u)
        self.box = box
        self._place(whole[box])

    def follow(self) -> None:
        """Move the sides of the box outwards where the tumour has come near one of them."""
        if self.threshold is None:
            return
        u = self.volume(self.u)
        open_sides = [
            is_open
            for side, n in zip(self.box, self.relative.shape, strict=True)
            for is_open in (side.start > 0, side.stop < n)
        ]
        if not kernels.exceeds_in_layers(u, LOOK_EVERY, u.dtype.type(self.threshold), tuple(open_sides)):
            return
        needed = bounding_box(u > self.threshold)
        x, y, z = (
            slice(
                max(0, min(old.start, old.start + new.start - BOX_MARGIN)),
                min(n, max(old.stop, old.start + new.stop + BOX_MARGIN)),
            )
            for old, new, n in zip(self.box, needed, self.relative.shape, strict=True)
        )
        self.move_to((x, y, z))


class FisherKPP:
    """Solver on one brain.

    Parameters
    ----------
    relative : array of shape (nx, ny, nz), >= 0, or (nx, ny, nz, 6)
        Diffusivity relative to that of pure white matter, 0 outside tissue; see :func:`relative_diffusivity`. With
        tensors a step costs about three times as much, and only the explicit scheme is there.
    spacing : (float, float, float)
        Voxel size in mm; the three may differ.
    dtype
        ``float32``; ``float64`` for verification.

    Attributes
    ----------
    shape : (int, int, int)
        Of the brain.
    steps : Steps
        How the last run was divided.

    Raises
    ------
    ValueError
        If no voxel is tissue, or the spacing is not positive.
    """

    def __init__(self, relative: NDArray[Any], spacing: Vector, dtype: Any = np.float32) -> None:
        self.spacing = tuple(float(h) for h in spacing)
        if len(self.spacing) != 3 or not min(self.spacing) > 0:
            raise ValueError(f"voxel size {spacing} is not three positive numbers")
        relative = np.asarray(relative)
        mean = mean_relative(relative)
        tissue = mean > 0
        if not tissue.any():
            raise ValueError("no voxel is tissue: white and grey matter maps are empty inside the brain")
        region = bounding_box(tissue)
        self.shape = mean.shape
        self._region = region
        self._relative = np.ascontiguousarray(mean[region], dtype)
        self._scalar = self._relative.dtype.type
        self._edges: NDArray[Any] | None = None
        if relative.ndim == 4:
            self._edges = anisotropy.edge_weights(relative[region], np.array(self.spacing)).astype(dtype)
            self._largest_exchange = anisotropy.largest_exchange(self._edges)
        else:
            weights = [0.5 / h**2 for h in self.spacing]
            bordered = np.pad(self._relative, 1)
            self._largest_exchange = float(kernels.largest_exchange(bordered, *weights).max())
        self.steps = Steps(0, 0.0, 0)

    def largest_time_step(self, diffusivity: float, proliferation: float, scheme: str = "explicit") -> float:
        """Return the longest step, in days, that is stable, keeps positive and resolves the growth."""
        implicit = scheme == "implicit"
        limits = [np.inf]
        if diffusivity > 0:
            limits.append((IMPLICIT_STRETCH if implicit else 1.0) / (diffusivity * self._largest_exchange))
        if proliferation > 0:
            limits.append(LARGEST_REACTION / proliferation / (2.0 if implicit else 1.0))
        return float(min(limits))

    def _divide(
        self, diffusivity: float, proliferation: float, days: float, time_step: float | None, scheme: str
    ) -> tuple[int, float]:
        if not all(np.isfinite(v) and v >= 0 for v in (diffusivity, proliferation, days)):
            raise ValueError("diffusivity, proliferation and days must be finite and not negative")
        if scheme not in ("explicit", "implicit"):
            raise ValueError(f"scheme '{scheme}' is unknown; use explicit or implicit")
        if scheme == "implicit" and self._edges is not None:
            raise ValueError("the implicit scheme goes axis by axis and knows no tensors; use explicit")
        if time_step is None:
            time_step = self.largest_time_step(diffusivity, proliferation, scheme)
        elif scheme == "explicit" and diffusivity * self._largest_exchange * time_step > 1 + 1e-6:
            largest = 1 / (diffusivity * self._largest_exchange)
            raise ValueError(f"a time step of {time_step:g} days is unstable here; at most {largest:g} days")
        number = max(1, int(np.ceil(days / time_step * (1 - 1e-9))))
        if scheme == "implicit":
            number += number % 2  # only pairs of steps are of second order
        return number, days / number

    def _start(self, initial: NDArray[Any], threshold: float | None) -> _ActiveBox:
        return _ActiveBox(self._relative, self._edges, np.asarray(initial)[self._region], threshold)

    def _image(self, active: _ActiveBox, field: NDArray[Any]) -> NDArray[Any]:
        image = np.zeros(self.shape, self._relative.dtype)
        image[self._region][active.box] = active.volume(field)
        return image

    def _exchange(self, diffusivity: float, dt: float) -> list[Any]:
        if self._edges is not None:
            return [self._scalar(dt * diffusivity)]
        return [self._scalar(0.5 * dt * diffusivity / h**2) for h in self.spacing]

    def _gain(self, proliferation: float, dt: float) -> Any:
        return self._scalar(np.expm1(proliferation * dt))

    def simulate(
        self,
        initial: NDArray[Any],
        diffusivity: float,
        proliferation: float,
        days: float,
        *,
        time_step: float | None = None,
        active_threshold: float | None = ACTIVE_THRESHOLD,
        scheme: str = "explicit",
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
        scheme : str
            ``explicit``, or ``implicit``: Crank-Nicolson axis by axis, of second order in time, which takes longer
            steps and pays where the diffusivity is large. Its faint tail is less exact; negative values become 0.

        Returns
        -------
        array of shape (nx, ny, nz), 0 to 1, 0 outside tissue

        Raises
        ------
        ValueError
            If a rate is negative or not finite, or the time step is unstable.
        """
        number, dt = self._divide(diffusivity, proliferation, days, time_step, scheme)
        exchange = self._exchange(diffusivity, dt)
        gain, half = self._gain(proliferation, dt), self._gain(proliferation, 0.5 * dt)
        active = self._start(initial, active_threshold)
        cells = 0
        kernels.react(active.u, active.u, half)
        every = LOOK_EVERY if scheme == "explicit" else 1
        for begin in range(0, number, every):
            active.follow()
            with threads(active.cells // CELLS_PER_THREAD):
                for n in range(begin, min(begin + every, number)):
                    reaction = half if n == number - 1 else gain
                    if scheme == "explicit":
                        self._explicit_step(active, exchange, reaction)
                    else:
                        self._implicit_step(active, exchange, reaction, forward=n % 2 == 0)
                    cells += active.cells
        self.steps = Steps(number, dt, cells)
        return self._image(active, active.u)

    def _explicit_step(
        self, active: _ActiveBox, exchange: list[Any], gain: Any, flush: float = FLUSH
    ) -> None:
        medium, last = active.medium, (active.shape[1], *exchange, gain, self._scalar(flush))
        if self._edges is None:
            kernels.explicit_step(active.u, active.other, *medium, *last)
        else:
            kernels.anisotropic_step(active.u, active.other, *medium, *last)
        active.u, active.other = active.other, active.u

    def _implicit_step(self, active: _ActiveBox, exchange: list[Any], gain: Any, *, forward: bool) -> None:
        u, d = active.u.reshape(active.shape), active.d.reshape(active.shape)
        # Every second step goes through the axes in the opposite order: the pair is then of second order.
        for axis in (0, 1, 2) if forward else (2, 1, 0):
            kernels.crank_nicolson(u, d, exchange[axis] / self._scalar(2), axis)
        kernels.react(active.u, active.u, gain)

    def gradient(
        self,
        initial: NDArray[Any],
        diffusivity: float,
        proliferation: float,
        days: float,
        function: Callable[[NDArray[Any]], tuple[float, NDArray[Any]]],
        *,
        time_step: float | None = None,
        active_threshold: float | None = ACTIVE_THRESHOLD,
    ) -> Gradient:
        """Differentiate a function of the final concentration by the discrete adjoint of the explicit scheme.

        The cost is that of about four simulations. Every sqrt(n)-th of the n states is kept and those between are
        computed again, so that memory holds about 2 sqrt(n) active boxes.

        Parameters
        ----------
        initial, diffusivity, proliferation, days, time_step, active_threshold
            As for :meth:`simulate`; the diffusivity must be positive.
        function : callable
            Takes the final concentration, returns a value and its derivative by the concentration of every voxel.
            Derivatives by parameters of the function itself, such as thresholds, are its own matter.

        Raises
        ------
        ValueError
            As :meth:`simulate`; also if the diffusivity is zero.
        """
        if not diffusivity > 0:
            raise ValueError("the derivative by the diffusivity needs a positive diffusivity")
        number, dt = self._divide(diffusivity, proliferation, days, time_step, "explicit")
        exchange = self._exchange(diffusivity, dt)
        gain, half = self._gain(proliferation, dt), self._gain(proliferation, 0.5 * dt)
        active = self._start(initial, active_threshold)
        first_box, first = active.box, active.u.copy()
        kernels.react(active.u, active.u, half)
        stride = max(1, int(np.sqrt(number)) // LOOK_EVERY * LOOK_EVERY)
        kept: dict[int, tuple[Box, NDArray[Any]]] = {}
        boxes: list[Box] = []
        for n in range(number):
            if n % LOOK_EVERY == 0:
                active.follow()
            if n % stride == 0:
                kept[n] = active.box, active.u.copy()
            boxes.append(active.box)
            with threads(active.cells // CELLS_PER_THREAD):
                self._explicit_step(active, exchange, half if n == number - 1 else gain)
        concentration = self._image(active, active.u)
        value, slope = function(concentration)

        isotropic = self._edges is None
        step_back = kernels.explicit_step_back if isotropic else kernels.anisotropic_step_back
        by_gain, by_half, by_exchange = np.zeros((3, self._relative.shape[0] + 2))
        back = _ActiveBox(self._relative, self._edges, np.zeros_like(self._relative), None)
        back.volume(back.u)[...] = np.where(self._relative > 0, np.asarray(slope)[self._region], 0)
        back.move_to(boxes[-1])
        for start in sorted(kept, reverse=True):
            box, u = kept.pop(start)
            active.move_to(box)
            active.u[...] = u
            states: list[NDArray[Any]] = []
            with threads(active.cells // CELLS_PER_THREAD):
                for n in range(start, min(start + stride, number)):
                    active.move_to(boxes[n])
                    states.append(active.u.copy())
                    self._explicit_step(active, exchange, gain)
                for n in reversed(range(start, start + len(states))):
                    back.move_to(boxes[n])
                    last = n == number - 1
                    reaction, by_reaction = (half, by_half) if last else (gain, by_gain)
                    step_back(
                        states.pop(),
                        back.u,
                        back.other,
                        *back.medium,
                        back.shape[1],
                        *exchange,
                        reaction,
                        by_reaction,
                        by_exchange,
                    )
                    back.u, back.other = back.other, back.u
                    self._explicit_step(back, exchange, self._scalar(0), -np.inf)
        back.move_to(first_box)
        kernels.react_back(first, back.u, half, by_half)
        # d gain / d rho = dt exp(rho dt)
        by_proliferation = by_gain.sum() * dt * np.exp(proliferation * dt)
        by_proliferation += by_half.sum() * 0.5 * dt * np.exp(0.5 * proliferation * dt)
        return Gradient(
            float(value),
            float(by_exchange.sum() / diffusivity),
            float(by_proliferation),
            self._image(back, back.u),
            concentration,
        )
