"""GliODIL: a tumour in space and time that agrees with images and, as far as they allow, with the Fisher-KPP equation.

The concentration u of every cell in every frame, and ten scalars, minimise a sum of mean squares: the residual of the
equation, the distance of the first frame from a Gaussian seed, what the last frame disagrees with segmentation and PET
in, and hinges that keep concentration and scalars in their ranges.

Source: Balcerak M, Weidner J, Karnakov P, et al. Individualizing glioma radiotherapy planning by optimization of a data
and physics-informed discrete loss. Nature Communications 16, 2025, doi:10.1038/s41467-025-60366-4; weights and sizes as
in its released code.

The loss is the source's; how it is minimised is not. The source descends by Adam on u itself, where a change of one
frame disturbs the equation at once. Here the unknowns are the first frame and the residuals, from which
:mod:`predictgbm.growth.spacetime` solves for u, so that the residual's own term is a plain sum of squares, and L-BFGS
descends. ``docs/models.md`` has the measurements.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from predictgbm.growth import ModelError, Prediction
from predictgbm.growth.calibration import Assumptions, calibrate
from predictgbm.growth.medium import Medium, prepare_medium
from predictgbm.growth.optimisation import minimise
from predictgbm.growth.solver import relative_diffusivity
from predictgbm.growth.spacetime import Rates, SpaceTime, refine
from predictgbm.labels import Tumor, region
from predictgbm.masks import ball_radius, bounding_box, dice

CELLS = 48
FRAMES = 192
DAYS = 100.0
#: The domain is the box of the whole tumour, so many times as large, and at least so many mm larger on every side: the
#: standard plan reaches 15 mm from the core, and a plan cannot rank what lies outside the domain.
ENLARGED = 1.5
MARGIN_MM = 20.0

#: Weights of the terms, each the mean square over all cells of all frames of so many times its argument.
WEIGHT_RESIDUAL = 2400.0
WEIGHT_INITIAL = 1000.0
WEIGHT_LABELS = 12.0
WEIGHT_LABELS_WITH_PET = 4.0
WEIGHT_PET = 45.0
WEIGHT_RANGE = 1.0
WEIGHT_OUTSIDE = 0.01
PET_MIN = 0.1

#: Mass and dispersion (mm^2) of the seed, its least and largest value. A tumour whose radius is less than so many mm
#: gets a seed that is smaller in proportion.
SEED_MASS, SEED_DISPERSION = 1500.0, 15.0
#: Where the dispersion is smaller the mass is, too, and the peak stays.
SEED_PEAK = SEED_MASS / (4 * np.pi * SEED_DISPERSION) ** 1.5
SEED_MIN, SEED_MAX = 0.1, 1.0
SEED_FITS_MM = 20.0

THRESHOLD_CORE, THRESHOLD_EDEMA = 0.65, 0.3
WHITE_TO_GRAY = 100.0
PET_SCALE, PET_BACKGROUND = 1.0, 0.3
#: What the hinges, of weight 1, hold the scalars to.
RANGES = {
    "diffusivity": (0.01, 10.0),
    "proliferation": (0.02, np.inf),
    "white_to_gray": (10.0, 1000.0),
    "threshold_core": (0.5, 0.85),
    "threshold_edema": (0.2, 0.5),
    "pet_scale": (0.5, 1.02),
    "pet_background": (-np.inf, 0.5),
}

#: Where the search looks, for ranges that are open.
OPEN = {"proliferation": 2.0, "pet_background": -0.5}
#: Change of each scalar that changes the loss about as much as one unit of a scaled residual: of the logarithms of the
#: rates, of thresholds, scale and background of the PET, and of a seed's place in mm.
STEPS = (0.02, 0.02, 0.2, 0.01, 0.01, 0.05, 0.05)
SEED_STEP = 0.05
ITERATIONS = 200
TOLERANCE = 1e-3
#: Concentrations below this are the solver's error, and count as none: the plan then goes by distance.
LEAST = 1e-6


@dataclass(frozen=True)
class Scalars:
    """The unknowns beside the field: rates, thresholds of visibility, PET, and places of the seeds.

    The places, of shape (n, 3), are in mm from the corner of the domain.
    """

    diffusivity: float
    proliferation: float
    white_to_gray: float
    threshold_core: float
    threshold_edema: float
    pet_scale: float
    pet_background: float
    seeds: NDArray[np.float64]

    @property
    def rates(self) -> Rates:
        """Return what the equation needs."""
        return Rates(self.diffusivity, self.proliferation, self.white_to_gray)

    def to_vector(self) -> NDArray[np.float64]:
        """Return unbounded unknowns: the logit of where in its range a scalar lies, in units of :data:`STEPS`.

        The scalars thus stay in their ranges, where no hinge counts. A scalar at the end of its range is moved inside.
        """
        low, high = _ends()
        share = (self._bounded() - low) / (high - low)
        share = share.clip(1e-3, 1 - 1e-3)
        return np.concatenate([np.log(share / (1 - share)) / _units(), self.seeds.ravel() / SEED_STEP])

    @staticmethod
    def from_vector(vector: NDArray[np.floating[Any]]) -> Scalars:
        """Undo :meth:`to_vector`."""
        low, high = _ends()
        values = low + (high - low) * expit(np.asarray(vector[:7], float) * _units())
        seeds = np.asarray(vector[7:], float).reshape(-1, 3) * SEED_STEP
        d, rho, ratio = np.exp(values[:3]).tolist()
        core, edema, scale, background = values[3:].tolist()
        return Scalars(d, rho, ratio, core, edema, scale, background, seeds)

    def slopes(self) -> NDArray[np.float64]:
        """Return the derivative of each bounded scalar, rates by their logarithms, by its unknown."""
        low, high = _ends()
        share = (self._bounded() - low) / (high - low)
        return share * (1 - share) * (high - low) * _units()

    def _bounded(self) -> NDArray[np.float64]:
        values = self.threshold_core, self.threshold_edema, self.pet_scale, self.pet_background
        return np.array([*np.log(self.rates), *values])

    def hinges(self) -> tuple[float, NDArray[np.float64]]:
        """Return the sum of the distances from :data:`RANGES`, and the derivative by each scalar in it."""
        beyond = np.array(
            [(v := getattr(self, name)) - np.clip(v, *limits) for name, limits in RANGES.items()]
        )
        return float(np.abs(beyond).sum()), np.sign(beyond)


def _ends() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the ranges, those of the rates as logarithms."""
    closed = np.array([np.where(np.isfinite(r), r, OPEN.get(name, 0.0)) for name, r in RANGES.items()])
    closed[:3] = np.log(closed[:3])
    return closed[:, 0], closed[:, 1]


def _units() -> NDArray[np.float64]:
    """Return the change of the logit that is one of :data:`STEPS` in the middle of a range."""
    low, high = _ends()
    return 4 * np.array(STEPS) / (high - low)


class Loss:
    """The loss of GliODIL on one grid.

    Parameters
    ----------
    wm, gm : arrays of shape (nx, ny, nz), 0 to 1
    core, whole : bool arrays of shape (nx, ny, nz)
    spacing : (float, float, float)
        In mm.
    pet : array of shape (nx, ny, nz), 0 to 1, optional
        Uptake; used where it is above 0.1.
    frames : int
    dispersion : float
        Of the seed, in mm^2.
    free_rates : bool
        Whether diffusivity, proliferation and ratio are unknowns of :meth:`evaluate`, or stay.
    dtype
        ``float32``; ``float64`` for verification.
    """

    def __init__(
        self,
        wm: NDArray[Any],
        gm: NDArray[Any],
        core: NDArray[np.bool_],
        whole: NDArray[np.bool_],
        spacing: tuple[float, float, float],
        pet: NDArray[Any] | None = None,
        frames: int = FRAMES,
        dispersion: float = SEED_DISPERSION,
        free_rates: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        self.free_rates = free_rates
        self.equation = SpaceTime(wm, gm, spacing, frames, DAYS / frames, dtype)
        frame, self.dtype = self.equation.frame, self.equation.dtype
        self.inside = frame(np.ones(wm.shape)) > 0
        self.core, self.edema = frame(core) > 0, frame(whole & ~core) > 0
        self.outside_tissue = self.inside & ~self.equation.tissue
        self.pet = None if pet is None else frame(np.where(pet > PET_MIN, pet, 0))
        self.weight_labels = WEIGHT_LABELS if pet is None else WEIGHT_LABELS_WITH_PET
        self.count = frames * wm.size
        self._free = int(np.prod(self.equation.shape))
        self.dispersion = dispersion
        self.axes = [(np.arange(n) + 0.5) * h for n, h in zip(wm.shape, spacing, strict=True)]

    def seed(self, scalars: Scalars) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the seeds as a frame, and its derivative by their places, shape (3 n, *frame)."""
        x, y, z = self.axes
        total = np.zeros([len(a) for a in self.axes])
        parts: list[NDArray[np.float64]] = []
        for place in scalars.seeds:
            off = np.stack(np.broadcast_arrays(
                (x - place[0])[:, None, None], (y - place[1])[None, :, None], (z - place[2])[None, None, :]
            ))  # fmt: skip
            value = SEED_PEAK * np.exp(-(off**2).sum(axis=0) / (4 * self.dispersion))
            value[value <= SEED_MIN] = 0
            total += value
            parts.extend(value * o / (2 * self.dispersion) for o in off)
        free = total < SEED_MAX
        slopes = np.stack([self.equation.frame(part * free) for part in parts])
        return self.equation.frame(np.minimum(total, SEED_MAX)), slopes

    def _labels(self, last: NDArray[Any], scalars: Scalars) -> tuple[float, NDArray[Any], float, float]:
        """Return the squared misfit to the labels, and half its derivatives by frame, core and edema threshold."""
        up, down = self.dtype.type(scalars.threshold_core), self.dtype.type(scalars.threshold_edema)
        bottom = np.where(self.core, up, np.where(self.edema, down, 0))
        ceiling = np.where(self.core, 1, np.where(self.edema, up, down))
        short = np.minimum(last - bottom, 0) * self.inside
        above = np.maximum(last - ceiling, 0) * self.inside
        misfit = short + above
        by_up = -float(short[self.core].sum() + above[self.edema].sum())
        by_down = -float(short[self.edema].sum() + above[~self.core & ~self.edema].sum())
        return float((misfit**2).sum()), misfit, by_up, by_down

    def _uptake(self, last: NDArray[Any], scalars: Scalars) -> tuple[float, NDArray[Any], float, float]:
        """Return the squared misfit to the PET, and half its derivatives by frame, scale and background."""
        assert self.pet is not None
        seen = self.pet > 0
        signal = self.pet - self.dtype.type(scalars.pet_background)
        misfit = np.where(seen, last - self.dtype.type(scalars.pet_scale) * signal, 0)
        by_scale = -float((misfit * signal).sum())
        return float((misfit**2).sum()), misfit, by_scale, scalars.pet_scale * float(misfit.sum())

    def terms(self, frames: NDArray[Any], scalars: Scalars) -> dict[str, float]:
        """Return each term of the loss, and their ``total``, for any space-time field."""
        residual = self.equation.residual(frames, scalars.rates)
        seed, _ = self.seed(scalars)
        beyond = frames - frames.clip(0, 1)
        squares = {
            "equation": WEIGHT_RESIDUAL**2 * float((residual.astype(float) ** 2).sum()),
            "initial": WEIGHT_INITIAL**2 * float(((frames[0] - seed).astype(float) ** 2).sum()),
            "labels": self.weight_labels**2 * self._labels(frames[-1], scalars)[0],
            "range": WEIGHT_RANGE**2 * float((beyond.astype(float) ** 2).sum()),
            "outside": WEIGHT_OUTSIDE**2 * float((frames[:, self.outside_tissue].astype(float) ** 2).sum()),
            "scalars": self.count * scalars.hinges()[0] ** 2,
        }
        if self.pet is not None:
            squares["pet"] = WEIGHT_PET**2 * self._uptake(frames[-1], scalars)[0]
        return {name: value / self.count for name, value in squares.items()} | {
            "total": sum(squares.values()) / self.count
        }

    # The vector of unknowns: the distance of the first frame from the seed and the residuals of the others, as weighted
    # in the loss, then the scalars.

    def start(self, scalars: Scalars) -> NDArray[Any]:
        """Return the unknowns of a tumour that follows the equation from its seed."""
        free = np.zeros(self._free, self.dtype)
        return np.concatenate([free, scalars.to_vector().astype(self.dtype)])

    def refined(self, coarse: Loss, vector: NDArray[Any]) -> NDArray[Any]:
        """Return the unknowns that describe, on this grid, the tumour of another with half the cells and frames.

        Residuals are taken linearly between cells, and for both steps that one of the coarse grid becomes.
        """
        field, scalars = coarse.split(vector)
        volumes = np.stack([coarse.equation.volume(frame) for frame in field])
        result = self.start(scalars)
        fine = self._field(result)
        for number in range(len(fine)):
            frame = refine(volumes[min((number + 1) // 2, len(volumes) - 1)], (0, 1, 2))
            self.equation.volume(fine[number])[...] = frame
        return result

    def split(self, vector: NDArray[Any]) -> tuple[NDArray[Any], Scalars]:
        """Return the field of unknowns and the scalars of a vector."""
        return self._field(vector), Scalars.from_vector(vector[self._free :])

    def _field(self, vector: NDArray[Any]) -> NDArray[Any]:
        return vector[: self._free].reshape(self.equation.shape)

    def frames(self, vector: NDArray[Any]) -> NDArray[Any]:
        """Solve for the space-time field that a vector stands for."""
        field, scalars = self.split(vector)
        return self._solve(field, scalars, self.seed(scalars)[0])

    def _solve(self, field: NDArray[Any], scalars: Scalars, seed: NDArray[Any]) -> NDArray[Any]:
        first = seed + field[0] / self.dtype.type(WEIGHT_INITIAL)
        return self.equation.solve(first, field, scalars.rates, 1 / WEIGHT_RESIDUAL)

    def evaluate(self, vector: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        """Return the loss times its number of cells and frames, and the gradient by the vector."""
        field, scalars = self.split(vector)
        seed, by_place = self.seed(scalars)
        frames = self._solve(field, scalars, seed)
        value, misfit, by_up, by_down = self._labels(frames[-1], scalars)
        total = self.weight_labels**2 * value + sum(float(np.vdot(f, f)) for f in field)
        last = 2 * self.weight_labels**2 * misfit
        slopes = np.zeros(7)
        slopes[3:5] = 2 * self.weight_labels**2 * by_up, 2 * self.weight_labels**2 * by_down
        if self.pet is not None:
            value, misfit, by_scale, by_background = self._uptake(frames[-1], scalars)
            total += WEIGHT_PET**2 * value
            last += 2 * WEIGHT_PET**2 * misfit
            slopes[5:7] = 2 * WEIGHT_PET**2 * by_scale, 2 * WEIGHT_PET**2 * by_background
        extra = 0.0

        def source(number: int, frame: NDArray[Any]) -> NDArray[Any]:
            nonlocal extra
            beyond = frame - frame.clip(0, 1)
            outside = frame * self.outside_tissue
            extra += WEIGHT_RANGE**2 * float(np.vdot(beyond, beyond))
            extra += WEIGHT_OUTSIDE**2 * float(np.vdot(outside, outside))
            slope = (
                self.dtype.type(2 * WEIGHT_RANGE**2) * beyond
                + self.dtype.type(2 * WEIGHT_OUTSIDE**2) * outside
            )
            return slope + last if number == len(frames) - 1 else slope

        gradient = np.empty_like(vector)
        by_field = self._field(gradient)
        np.multiply(field, 2, out=by_field)
        first, rates = self.equation.pull_back(frames, scalars.rates, source, by_field, 1 / WEIGHT_RESIDUAL)
        by_field[0] += first / self.dtype.type(WEIGHT_INITIAL)
        slopes[:3] = np.array(rates) * scalars.rates

        hinge, signs = scalars.hinges()
        total += extra + self.count * hinge**2
        slopes += 2 * self.count * hinge * signs * [*scalars.rates, 1, 1, 1, 1]
        if not self.free_rates:
            slopes[:3] = 0
        by_seeds = (by_place * first).sum(axis=(1, 2), dtype=float)
        gradient[self._free :] = np.concatenate([slopes * scalars.slopes(), by_seeds * SEED_STEP])
        return total, gradient


@dataclass(frozen=True)
class Domain:
    """The box of cells that a tumour is computed in, inside an exam's grid.

    Attributes
    ----------
    corner : array of shape (3,)
        Place of the centre of the first cell, in voxels of the exam.
    step : array of shape (3,)
        Voxels from cell to cell.
    cells : int
        Along each axis.
    """

    corner: NDArray[np.float64]
    step: NDArray[np.float64]
    cells: int

    @staticmethod
    def around(
        whole: NDArray[np.bool_],
        spacing: tuple[float, float, float],
        cells: int,
        margin_mm: float,
        part: int = 1,
    ) -> Domain:
        """Return the domain of a tumour.

        It has so many cells along each axis, or fewer: none is finer than the image. With ``part`` it has but that part
        of them, in the same box.
        """
        box = bounding_box(whole)
        low, high = np.array([b.start for b in box], float), np.array([b.stop for b in box], float)
        half = np.maximum(0.5 * ENLARGED * (high - low), 0.5 * (high - low) + margin_mm / np.asarray(spacing))
        cells = -(-min(cells, int(np.ceil(2 * half.max()))) // 2) * 2 // part
        step = 2 * half / cells
        return Domain(0.5 * (low + high) - half + 0.5 * step - 0.5, step, cells)

    def sample(self, image: NDArray[Any], order: Literal[0, 1]) -> NDArray[Any]:
        """Return an image of the exam at the cells, 0 beyond its edge; order 0 for labels, 1 for maps."""
        places = [c + s * np.arange(self.cells) for c, s in zip(self.corner, self.step, strict=True)]
        return np.asarray(
            ndimage.map_coordinates(
                image,
                np.stack(np.meshgrid(*places, indexing="ij")),
                order=order,
                mode="constant",
                prefilter=False,
            )
        )

    def sample_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a mask at the cells; one too small for any cell's centre keeps the cell that is nearest to it."""
        result = self.sample(mask.astype(np.uint8), 0) > 0
        if mask.any() and not result.any():
            place = (np.argwhere(mask).mean(axis=0) - self.corner) / self.step
            result[tuple(np.rint(place).astype(int).clip(0, self.cells - 1))] = True
        return result

    def spread(self, cells: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return values at the cells on the exam's grid, linear between cells and 0 outside the domain."""
        result = np.zeros(shape, np.float32)
        inner = tuple(
            slice(max(0, int(np.ceil(c - 0.5 * s))), min(n, int(np.floor(c + (self.cells - 0.5) * s)) + 1))
            for c, s, n in zip(self.corner, self.step, shape, strict=True)
        )
        places = [
            (np.arange(b.start, b.stop) - c) / s
            for b, c, s in zip(inner, self.corner, self.step, strict=True)
        ]
        result[inner] = ndimage.map_coordinates(
            cells, np.stack(np.meshgrid(*places, indexing="ij")), order=1, mode="nearest", prefilter=False
        )
        return result


def build_loss(
    domain: Domain,
    medium: Medium,
    spacing: tuple[float, float, float],
    pet: NDArray[Any] | None,
    frames: int = FRAMES,
    free_rates: bool = False,
) -> Loss:
    """Return the loss of an exam on the cells of a domain; PET as a share of its largest value, outside necrosis."""
    x, y, z = (float(s * h) for s, h in zip(domain.step, spacing, strict=True))
    wm, gm = (domain.sample(m, 1) for m in (medium.wm, medium.gm))
    core, whole = (domain.sample_mask(m) for m in (medium.core, medium.whole))
    whole |= core
    uptake = None if pet is None else domain.sample(pet, 0)
    radius = ball_radius(int(medium.whole.sum()), float(np.prod(spacing)))
    dispersion = SEED_DISPERSION * min(1.0, radius / SEED_FITS_MM) ** 2
    return Loss(wm, gm, core, whole, (x, y, z), uptake, frames, dispersion, free_rates)


def find_start(loss: Loss) -> Scalars:
    """Return the scalars of the Fisher-KPP model, calibrated to the labels with this model's seed and thresholds."""
    spacing = np.array(loss.equation.spacing)
    wm, gm, core, edema = (loss.equation.volume(f) for f in (*loss.equation.tissues, loss.core, loss.edema))
    assumed = Assumptions(THRESHOLD_CORE, THRESHOLD_EDEMA, float(np.sqrt(2 * loss.dispersion)), SEED_PEAK)
    relative = relative_diffusivity(wm, gm, white_to_gray=WHITE_TO_GRAY)
    found = calibrate(relative, core, core | edema, spacing, assumed).parameters
    d, rho = (
        float(np.clip(value, *RANGES[name]))
        for name, value in (("diffusivity", found.diffusivity), ("proliferation", found.proliferation))
    )
    seeds = found.seeds + 0.5 * spacing
    return Scalars(d, rho, WHITE_TO_GRAY, THRESHOLD_CORE, THRESHOLD_EDEMA, PET_SCALE, PET_BACKGROUND, seeds)


def descend(
    medium: Medium,
    spacing: tuple[float, float, float],
    pet: NDArray[Any] | None,
    cells: int,
    frames: int,
    free_rates: bool = False,
    iterations: int = ITERATIONS,
    margin_mm: float = MARGIN_MM,
) -> Iterator[tuple[Loss, float, NDArray[Any]]]:
    """Yield grid, loss and unknowns after every step, on half the cells and frames first.

    Parameters are those of :func:`predict`; ``pet`` as a share of its largest value.
    """
    coarse, place = None, np.zeros(0, np.float32)
    for part in (2, 1):
        domain = Domain.around(medium.whole, spacing, cells, margin_mm, part)
        loss = build_loss(domain, medium, spacing, pet, frames // part, free_rates)
        place = loss.start(find_start(loss)) if coarse is None else loss.refined(coarse, place)
        yield loss, loss.evaluate(place)[0] / loss.count, place
        for value, found in minimise(loss.evaluate, place, iterations, TOLERANCE):
            place = found
            yield loss, value / loss.count, place
        coarse = loss


def predict(
    *,
    tumor_seg: NDArray[Any],
    wm: NDArray[Any],
    gm: NDArray[Any],
    csf: NDArray[Any],
    brain_mask: NDArray[Any],
    pet: NDArray[Any] | None = None,
    spacing: tuple[float, float, float],
    seed: int = 0,
    free_rates: bool = False,
    cells: int = CELLS,
    frames: int = FRAMES,
    iterations: int = ITERATIONS,
) -> Prediction:
    """Estimate the tumour cell concentration on the day of the exam.

    Parameters
    ----------
    tumor_seg : array of shape (nx, ny, nz)
        Canonical tumour labels.
    wm, gm, csf : arrays of shape (nx, ny, nz), 0 to 1
        Tissue probabilities.
    brain_mask : array of shape (nx, ny, nz)
        Nothing is predicted outside.
    pet : array of shape (nx, ny, nz), optional
        Amino-acid PET in any unit; used in oedema and enhancing tumour.
    spacing : (float, float, float)
        Voxel size in mm.
    seed : int
        Not used: nothing here is random.
    free_rates : bool
        Let diffusivity, proliferation and ratio leave the calibration. The loss then falls further, towards a flat
        concentration at the largest diffusivity, between thresholds that meet: see docs/models.md.
    cells, frames : int
        Grid of the tumour's box, along each axis and in time, even; fewer cells where they would be finer than voxels.
    iterations : int
        Largest number of steps on each of the two grids.

    Raises
    ------
    ModelError
        If no tumour lies in the brain, or a PET shows nothing there.
    """
    began = time.perf_counter()
    medium = prepare_medium(tumor_seg, wm, gm, csf, brain_mask)
    if pet is not None:
        seen = medium.whole & region(np.asarray(tumor_seg), (Tumor.EDEMA, Tumor.ENHANCING))
        highest = float(np.max(pet[seen], initial=0.0))
        if not highest > 0:
            raise ModelError(
                "the PET has no uptake in oedema and enhancing tumour; check it, or leave it out"
            )
        pet = np.where(seen, np.asarray(pet, np.float32) / highest, 0)
    states = descend(medium, spacing, pet, cells, frames, free_rates, iterations)
    state = next(states)
    first, steps = state[1], 0
    for later in states:
        state, steps = later, steps + 1
    loss, _, place = state
    field, scalars = loss.frames(place), loss.split(place)[1]
    domain = Domain.around(medium.whole, spacing, cells, MARGIN_MM)
    terms = loss.terms(field, scalars)
    last = loss.equation.volume(field[-1]).clip(0, 1)
    last[last < LEAST] = 0
    inside = np.asarray(brain_mask).astype(bool)
    image = np.where(inside, domain.spread(last, inside.shape), 0).astype(np.float32)
    corner = (domain.corner - 0.5 * domain.step) * spacing
    return Prediction(
        image,
        {
            "diffusivity_mm2_per_day": scalars.diffusivity,
            "proliferation_per_day": scalars.proliferation,
            "white_to_gray_ratio": scalars.white_to_gray,
            "days": DAYS,
            "seeds_mm": (scalars.seeds + corner).tolist(),
            "threshold_core": scalars.threshold_core,
            "threshold_edema": scalars.threshold_edema,
            **(
                {}
                if pet is None
                else {"pet_scale": scalars.pet_scale, "pet_background": scalars.pet_background}
            ),
            "cell_mm": [round(float(s * h), 3) for s, h in zip(domain.step, spacing, strict=True)],
            "loss_start": float(f"{first:.6g}"),
            "loss": {name: float(f"{value:.6g}") for name, value in terms.items()},
            "steps": steps,
            "dice_core": dice(image > scalars.threshold_core, medium.core) if medium.core.any() else None,
            "dice_whole": dice(image > scalars.threshold_edema, medium.whole),
            "displaced_voxels": medium.displaced,
            "uncovered_voxels": medium.uncovered,
            "seconds": time.perf_counter() - began,
        },
    )
