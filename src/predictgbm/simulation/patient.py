"""One simulated patient: anatomy, tumour, surgery, recurrence, two exams and the truth that connects them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import Atlas, resample_atlas
from predictgbm.images import ImageError
from predictgbm.labels import Tumor
from predictgbm.masks import bounding_box
from predictgbm.simulation.appearance import CONTRASTS, Scene, render, render_tensor
from predictgbm.simulation.fields import (
    Grid,
    Vectors,
    Volume,
    expansion_velocity,
    exponential,
    jacobian,
    random_field,
    rigid_matrix,
    sample,
    sample_vectors,
    transform,
)
from predictgbm.simulation.growth import Cells, Medium, Rates, edema, grow, hop_rates, resect

#: Lattice of the tumour process and grid of the deformations, in mm, whatever the spacing of the exam: the same
#: patient looks alike at every spacing.
LATTICE_MM = 2.0
DEFORMATION_MM = 4.0
#: Grid of the written deformation field, in mm, unless the exam is coarser.
FIELD_MM = 2.0

VISIBLE_CORE = 0.40
VISIBLE_RECURRENCE = 0.30

#: Ranges of the signal-to-noise ratio and of the intensity of white matter.
SNR = (22, 45)
SCALE = (300, 1100)


@dataclass(frozen=True)
class Cohort:
    """A group of patients by what their exams hold.

    Attributes
    ----------
    name : name in the samplesheet
    share : patients of this cohort among :data:`CYCLE` consecutive ones
    tumor_ml : median volume of the core
    recurrence_ml : median enhancing volume of the recurrence
    """

    name: str
    share: int
    tumor_ml: float
    recurrence_ml: float


#: Sizes and medians of the three cohorts of the PREDICT-GBM paper: RHUH, LUMIERE, TUM.
COHORTS = (
    Cohort("simA", 40, 31.4, 15.0),
    Cohort("simB", 61, 27.5, 8.5),
    Cohort("simC", 142, 25.8, 4.1),
)
CYCLE = sum(c.share for c in COHORTS)


def cohort_of(number: int) -> Cohort:
    """Return the cohort of patient ``number`` (from 1).

    Patients are dealt out one by one to the cohort that lags most behind its share, so that each prefix has the
    right proportions and 243 patients have them exactly (40 : 61 : 142), whatever their total number.
    """
    return COHORTS[_deal()[(number - 1) % CYCLE]]


@cache
def _deal() -> tuple[int, ...]:
    """Return the index of the cohort of each patient of one cycle."""
    order: list[int] = []
    for n in range(1, CYCLE + 1):
        lag = [c.share * n / CYCLE - order.count(i) for i, c in enumerate(COHORTS)]
        order.append(lag.index(max(lag)))
    return tuple(order)


@dataclass(frozen=True)
class SimulatedExam:
    """One exam on its grid.

    Attributes
    ----------
    affine : voxel index to RAS mm
    images : contrast -> int16 array; ADC and the six volumes of the tensor in 1e-6 mm²/s
    brain_mask : bool array
    tumor_seg : uint8 array, canonical labels
    tissue : "wm", "gm", "csf" -> float32 array, individual tissue as it is below the tumour
    """

    affine: NDArray[np.float64]
    images: dict[str, NDArray[np.int16]]
    brain_mask: NDArray[np.bool_]
    tumor_seg: NDArray[np.uint8]
    tissue: dict[str, Volume]


@dataclass(frozen=True)
class SimulatedPatient:
    """A patient with its truth.

    Attributes
    ----------
    preop, followup : the two exams; the follow-up in its own head position
    registered_seg : uint8 array on the pre-operative grid, the follow-up's labels moved by the true deformation
    field : float32 array (nx, ny, nz, 3), displacement in RAS mm from a pre-operative point to the point of the
        follow-up that shows the same tissue
    field_affine : its grid, voxel index to RAS mm
    landmarks_preop, landmarks_followup : arrays of shape (n, 3), the same tissue in both exams, RAS mm
    density : float32 array on the pre-operative grid, hidden density of all tumour cells, 0 to 1
    motion : rigid 4x4 matrix, RAS mm, from atlas space to the head position of the follow-up
    parameters : what was drawn and what came of it, JSON values
    """

    cohort: str
    days: int
    preop: SimulatedExam
    followup: SimulatedExam
    registered_seg: NDArray[np.uint8]
    field: NDArray[np.float32]
    field_affine: NDArray[np.float64]
    landmarks_preop: NDArray[np.float64]
    landmarks_followup: NDArray[np.float64]
    density: Volume
    motion: NDArray[np.float64]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Anatomy:
    """An individual at rest, without tumour: where in the atlas a point in mm lies, and what is there."""

    atlas: Atlas
    atlas_grid: Grid
    fraction: Volume
    detail: Volume
    coarse: Grid
    to_atlas: Vectors

    def positions(self, points: Vectors) -> Vectors:
        """Return where in the atlas points at rest lie."""
        return points + sample_vectors(self.to_atlas, self.coarse, points)

    def tissue(self, points: Vectors) -> tuple[Volume, Volume, Volume, NDArray[np.bool_], Volume]:
        """Return wm, gm, csf, brain mask and T1 detail at points at rest."""
        at = self.positions(points)
        brain = sample(self.fraction, self.atlas_grid, at)
        mask = brain >= 0.5
        maps = np.stack(
            [sample(a, self.atlas_grid, at) for a in (self.atlas.wm, self.atlas.gm, self.atlas.csf)]
        )
        maps = np.where(mask, maps / np.maximum(maps.sum(axis=0), 1e-6), 0).astype(np.float32)
        return maps[0], maps[1], maps[2], mask, sample(self.detail, self.atlas_grid, at) * mask


def grid_of(atlas: Atlas) -> Grid:
    """Return the grid of an atlas.

    Raises
    ------
    ImageError
        If its voxels are not cubes along the axes of space.
    """
    spacing = float(atlas.affine[0, 0])
    if not np.allclose(atlas.affine[:3, :3], spacing * np.eye(3), atol=1e-3) or spacing <= 0:
        raise ImageError("the simulator needs an atlas of cubic voxels along the axes of space; resample it")
    x, y, z = atlas.affine[:3, 3].tolist()
    return Grid(atlas.shape, spacing, (x, y, z))


def _spread(mask: NDArray[np.bool_], grid: Grid, target: Grid) -> NDArray[np.bool_]:
    """Bring a mask to another grid, rather too wide than too narrow."""
    return sample(mask.astype(np.float32), grid, target.points(), edge=True) > 0.2


def random_stream(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Return a random stream that depends on nothing but its arguments."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number, purpose)))


def _draw_anatomy(rng: np.random.Generator, small: Atlas, coarse: Grid) -> tuple[Vectors, dict[str, float]]:
    """Draw an individual: random deformation at two scales, and ventricles of another size.

    Parameters
    ----------
    small, coarse
        Atlas on the grid of the deformations, and that grid.

    Returns
    -------
    to_atlas : displacement from the individual at rest to the atlas, mm; its Jacobian is at least 0.15
    drawn : what was drawn
    """
    amplitude = float(rng.uniform(2.0, 4.0))
    velocity = np.stack(
        [
            amplitude * (0.8 * random_field(rng, coarse, 28.0) + 0.6 * random_field(rng, coarse, 13.0))
            for _ in range(3)
        ]
    )
    depth = ndimage.distance_transform_edt(small.brain_mask, sampling=coarse.spacing)
    ventricles = float(rng.uniform(-0.1, 0.7))
    source = (ventricles * small.csf * (depth > 22)).astype(np.float32)
    velocity -= expansion_velocity(source, small.brain_mask, coarse)
    to_atlas = exponential(velocity.astype(np.float32), coarse)
    while (smallest := float(jacobian(to_atlas, coarse.spacing).min())) < 0.15:
        velocity *= 0.85
        to_atlas = exponential(velocity.astype(np.float32), coarse)
    return to_atlas, {
        "anatomy_mm": amplitude,
        "ventricle_expansion": ventricles,
        "anatomy_jacobian_min": smallest,
    }


def _spot(grid: Grid, centre: NDArray[np.float64], radius: float, height: float) -> Volume:
    """Return a Gaussian spot of the given peak."""
    squared = sum((grid.points()[a] - np.float32(centre[a])) ** 2 for a in range(3))
    return np.asarray(height * np.exp(-squared / np.float32(2 * radius**2)), np.float32)


def _pick(rng: np.random.Generator, weight: Volume, grid: Grid) -> NDArray[np.float64] | None:
    """Draw a site with probability proportional to ``weight``; its centre in mm, None if all are 0."""
    cumulative = np.cumsum(weight, dtype=np.float64)
    if cumulative[-1] <= 0:
        return None
    site = np.unravel_index(int(np.searchsorted(cumulative, rng.random() * cumulative[-1])), grid.shape)
    return np.asarray(grid.origin) + grid.spacing * np.asarray(site, np.float64)


@dataclass(frozen=True)
class _Stage:
    """The disease at the time of an exam, on the lattice at rest.

    Attributes
    ----------
    cells : the hidden truth
    water : edema, scaled so that it is visible above 1
    cavity : resection cavity where positive
    visible : density above which the core enhances
    """

    cells: Cells
    water: Volume
    cavity: Volume
    visible: float


@dataclass(frozen=True)
class _Course:
    """The course of the disease on its lattice; ``rough`` and ``uneven`` vary the outlines of what is visible."""

    grid: Grid
    rough: Volume
    uneven: Volume
    before: _Stage
    after: _Stage


def _draw_course(
    rng: np.random.Generator, anatomy: Anatomy, grid: Grid, tumor_ml: float, recurrence_ml: float, days: int
) -> tuple[_Course, dict[str, Any]]:
    """Grow a tumour on the lattice, take it out and let it come back."""
    points = grid.points()
    wm, gm, _, mask, _ = anatomy.tissue(points)
    tissue, hops = hop_rates(wm, gm, grid.spacing)
    tissue &= mask
    proliferation = np.exp(0.5 * random_field(rng, grid, 7.0)) * np.where(wm > 0.5, 1.0, 0.8)
    niche = np.minimum(np.exp(1.2 * random_field(rng, grid, 5.0) - 0.7), 15)
    supply = np.exp(0.10 * random_field(rng, grid, 6.0))
    proliferation, niche, supply = (a.astype(np.float32) for a in (proliferation, niche, supply))
    medium = Medium(tissue, hops, proliferation, niche, supply, grid)
    rates = Rates(
        mobility=float(rng.uniform(0.4, 1.0)),
        leave=float(np.exp(rng.uniform(np.log(0.004), np.log(0.016)))),
        hypoxia=float(rng.uniform(0.60, 0.75)),
        push=float(rng.uniform(0.15, 0.3)),
    )

    # Supratentorial white matter, away from the skull. The height of the brain's centre less 18 mm is 9 mm below the
    # commissures, in SRI24 (77 and 68 mm) and in MNI152 (9 and 0 mm) alike.
    depth = ndimage.distance_transform_edt(mask, sampling=grid.spacing)
    middle = float(np.average(points[2][mask]))
    allowed = (wm > 0.6) & (depth > 12) & (points[2] > middle - 18)
    seed = _pick(rng, allowed.astype(np.float32), grid)
    if seed is None:
        raise ImageError("the atlas has no white matter where a tumour could begin; check its maps")
    foci = int(rng.choice([1, 2, 3], p=[0.72, 0.20, 0.08]))
    start = _spot(grid, seed, 2.5, 0.5)
    for _ in range(foci - 1):
        away = np.sqrt(sum((points[a] - np.float32(seed[a])) ** 2 for a in range(3)))
        other = _pick(rng, (allowed & (away > 12) & (away < 35)).astype(np.float32), grid)
        if other is not None:
            start = np.maximum(start, _spot(grid, other, 2.2, float(rng.uniform(0.1, 0.4))))
    zero = np.zeros_like(start)
    cells = Cells((start * tissue).astype(np.float32), zero, zero)
    cells, early = grow(cells, medium, rates, 0.85 * tumor_ml, VISIBLE_CORE, 500)

    # Single cells that went far along the tracts found colonies too small to be seen.
    satellites = int(rng.poisson(1.8))
    extra = np.zeros_like(start)
    away = ndimage.distance_transform_edt(cells.core < VISIBLE_CORE, sampling=grid.spacing)
    weight = (cells.migrating.clip(0, None) ** 0.2) * (away > 16) * (away < 60) * tissue
    for _ in range(satellites):
        centre = _pick(rng, weight.astype(np.float32), grid)
        if centre is not None:
            height = float(np.exp(rng.uniform(np.log(0.004), np.log(0.08))))
            extra += _spot(grid, centre, float(rng.uniform(1.5, 4.0)), height)
    seeded = Cells(
        np.minimum(cells.proliferating + extra * tissue, 1).astype(np.float32),
        cells.migrating,
        cells.necrotic,
    )
    before, late = grow(seeded, medium, rates, tumor_ml, VISIBLE_CORE, 500)

    ratio = float(np.exp(rng.normal(np.log(1.9), 0.45)))
    water = edema(before.proliferating, medium)
    water /= np.float32(_edema_level(water, before.core > VISIBLE_CORE, ratio))

    # Resection: most of the core, its bed uneven; sometimes the surgeon must leave a part.
    complete = bool(rng.random() < 0.65)
    solid: Volume = ndimage.gaussian_filter(1.5 * (before.core > VISIBLE_CORE).astype(np.float32), 1.0)
    bed_shape = np.maximum(random_field(rng, grid, 5.0), -0.8)
    cavity = _largest(solid - np.float32(0.78) - np.float32(0.08 if complete else 0.30) * bed_shape)

    # Treatment kills most of what is left, most of all in the irradiated volume, and unevenly: what survives
    # decides where the tumour comes back.
    away = ndimage.distance_transform_edt(before.core < VISIBLE_CORE, sampling=grid.spacing)
    dose = 1 / (1 + np.exp((away - 16) / 2.5))
    kill = float(rng.uniform(2.0, 9.0))
    spread = float(rng.uniform(1.2, 2.4))
    log_survival = -1 - kill * dose + spread * random_field(rng, grid, 9.0) - 0.5 * spread
    survival = np.exp(np.minimum(log_survival, 0)).astype(np.float32)
    kept, bed = resect(before, cavity > 0, medium, survival)
    again = random_field(rng, grid, 8.0)
    bed = replace(bed, proliferation=(proliferation * np.exp(0.3 * again)).astype(np.float32))
    after, regrown = grow(kept, bed, rates, recurrence_ml, VISIBLE_RECURRENCE, 900, core=False, min_days=20)
    ratio_after = float(np.exp(rng.normal(np.log(2.2), 0.4)))
    water_after = edema(after.proliferating, bed)
    water_after /= np.float32(_edema_level(water_after, after.core > VISIBLE_RECURRENCE, ratio_after))
    course = _Course(
        grid,
        random_field(rng, grid, 2.5),
        random_field(rng, grid, 5.0),
        _Stage(before, water, np.full_like(cavity, -1), VISIBLE_CORE),
        _Stage(after, water_after, cavity, VISIBLE_RECURRENCE),
    )
    drawn: dict[str, Any] = {
        "foci": foci,
        "satellites": satellites,
        "complete_resection": complete,
        "growth_days": early + late,
        # The pace of regrowth is not a parameter: it follows from interval and volume, which are drawn.
        "regrowth_pace": regrown / days,
        "edema_to_core": ratio,
        "mobility_mm2_per_day": rates.mobility,
        "seed_mm": [round(float(v), 1) for v in seed],
        "clonal_spread": spread,
        "radiation_log_kill": kill,
    }
    return course, drawn


def _edema_level(water: Volume, core: NDArray[np.bool_], ratio: float) -> float:
    """Return the level of water above which edema has ``ratio`` times the volume of the core around it."""
    wanted = int(ratio * max(int(np.count_nonzero(core)), 1))
    outside = np.sort(water[~core & (water > 1e-4)])
    return float(outside[-min(max(wanted, 1), len(outside))]) if len(outside) else 1.0


def _largest(score: Volume) -> Volume:
    """Keep the largest connected part of score > 0 and those at least a tenth of its size."""
    parts, count = ndimage.label(score > 0)
    if count < 2:
        return score
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    small = np.flatnonzero(sizes < 0.1 * sizes.max())
    return np.where((parts > 0) & np.isin(parts, small), np.minimum(score, -0.01), score).astype(np.float32)


def _soft(score: Volume, width: float) -> Volume:
    """Return a partial volume, 0 to 1, that crosses 1/2 where the score crosses 0."""
    return np.clip(np.float32(0.5) + score / np.float32(2 * width), 0, 1)


@dataclass(frozen=True)
class View:
    """Everything at a set of points at rest, as one of the two exams sees it."""

    wm: Volume
    gm: Volume
    csf: Volume
    detail: Volume
    brain: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    necrosis: Volume
    enhancing: Volume
    edema: Volume
    cavity: Volume
    infiltration: Volume
    density: Volume


def look(anatomy: Anatomy, course: _Course, stage: _Stage, points: Vectors) -> View:
    """Look at the individual at points at rest (mm): tissue, labels and partial volumes."""
    wm, gm, csf, brain, detail = anatomy.tissue(points)

    def at(volume: Volume) -> Volume:
        return sample(volume, course.grid, points)

    cells = stage.cells
    p, m, n = (np.clip(at(v), 0, 1) for v in (cells.proliferating, cells.migrating, cells.necrotic))
    rough = np.exp(np.float32(0.15) * at(course.rough))
    core = (p + n) * rough - np.float32(stage.visible)
    dead = n - p * np.exp(np.float32(0.5) * at(course.uneven))
    wet = at(stage.water) * rough - 1
    # Edema spares the cortex: grey matter swells less than white.
    wet = np.where(wm + 0.6 * gm > 0.45, wet, np.minimum(wet, -0.01)).astype(np.float32)
    hole = at(stage.cavity)
    fluid = csf > 0.6
    labels = np.zeros(core.shape, np.uint8)
    labels[(wet > 0) & ~fluid] = Tumor.EDEMA
    labels[(core > 0) & ~fluid] = Tumor.ENHANCING
    labels[(core > 0) & (dead > 0)] = Tumor.NECROSIS
    labels[hole > 0] = Tumor.CAVITY
    labels[~brain] = 0

    v_hole = _soft(hole, 0.15)
    v_core = _soft(core, 0.08) * (1 - v_hole)
    v_dead = _soft(dead, 0.15) * v_core
    v_wet = (
        _soft(wet, 0.25)
        * np.minimum(0.7 + 0.15 * np.maximum(wet, 0), 1)
        * (1 - v_hole)
        * (1 - v_core)
        * (1 - csf)
    )
    return View(
        wm,
        gm,
        csf,
        detail,
        brain,
        labels,
        v_dead,
        v_core - v_dead,
        v_wet,
        v_hole,
        m,
        np.clip(p + m + n, 0, 1),
    )


def remove_specks(labels: NDArray[np.uint8], smallest_ml: float, voxel_ml: float) -> NDArray[np.uint8]:
    """Drop lesions of enhancement or necrosis that no one would outline: smaller than ``smallest_ml``."""
    lesion = np.isin(labels, (Tumor.NECROSIS, Tumor.ENHANCING))
    parts, count = ndimage.label(lesion, np.ones((3, 3, 3)))
    if count < 2:
        return labels
    sizes = np.bincount(parts.ravel()) * voxel_ml
    sizes[0] = np.inf
    sizes[int(np.argmax(np.where(np.isinf(sizes), 0, sizes)))] = np.inf
    return np.where((sizes < smallest_ml)[parts], np.uint8(Tumor.EDEMA), labels).astype(np.uint8)


def scene_of(rng: np.random.Generator, view: View, grid: Grid) -> Scene:
    """Return what lies in each voxel of a grid, with a random field that makes the tumour uneven."""
    texture = grid.covering(max(grid.spacing, 3.0))
    grain = sample(random_field(rng, texture, 4.0), texture, grid.points(), edge=True)
    return Scene(view.wm, view.gm, view.csf, view.detail, view.necrosis, view.edema, view.enhancing,
                 view.cavity, view.infiltration, grain, view.brain)  # fmt: skip


def _expose(
    rng: np.random.Generator, view: View, grid: Grid, adc: bool, tensor: bool = False
) -> tuple[dict[str, NDArray[np.int16]], dict[str, float]]:
    """Make the images of one exam; each contrast has a random stream of its own."""
    coarse = grid.covering(8.0)
    points = grid.points()
    scene = scene_of(rng, view, grid)
    snr = float(rng.uniform(*SNR))
    images = {}
    for name, stream in zip(CONTRASTS, rng.spawn(len(CONTRASTS)), strict=True):
        if name == "adc" and not adc:
            continue
        scale = float(stream.uniform(*SCALE))
        bias = np.exp(
            np.float32(0.10) * sample(random_field(stream, coarse, 45.0), coarse, points, edge=True)
        )
        images[name] = render(scene, CONTRASTS[name], stream, bias, snr, scale)
    if tensor:
        images["tensor"] = render_tensor(scene, grid.spacing, rng.spawn(1)[0], snr)
    return images, {"snr": snr}


class Simulator:
    """Makes patients in the anatomy of an atlas.

    Parameters
    ----------
    atlas
        Atlas at its own spacing, as :func:`predictgbm.atlas.load_atlas` returns it.
    spacing
        Voxel edge of the exams, in mm.

    Raises
    ------
    ImageError
        If the atlas does not have cubic voxels along the axes of space.
    """

    def __init__(self, atlas: Atlas, spacing: float = 1.0) -> None:
        self.atlas = atlas
        self.spacing = float(spacing)
        self.grid = grid_of(atlas)
        self.exam_grid = self.grid if self.spacing == self.grid.spacing else self.grid.covering(self.spacing)
        self.coarse = self.grid.covering(DEFORMATION_MM)
        self.small = resample_atlas(atlas, self.coarse.shape, self.coarse.affine)
        # Half a voxel of the coarse grid and the reach of an individual's deformation lie within these margins.
        lattice = self.grid.covering(LATTICE_MM)
        self.lattice, _ = lattice.box(_spread(self.small.brain_mask, self.coarse, lattice), 14.0)
        self.brain = atlas.brain_mask.astype(np.float32)
        box = bounding_box(atlas.brain_mask)
        t1, maps = atlas.t1[box], [a[box] for a in (atlas.wm, atlas.gm, atlas.csf)]
        means = [float((t1 * a).sum(dtype=np.float64) / a.sum(dtype=np.float64)) for a in maps]
        expected = sum(np.float32(mean) * a for mean, a in zip(means, maps, strict=True))
        self.detail = np.zeros_like(atlas.t1)
        self.detail[box] = np.where(atlas.brain_mask[box], t1 - expected, 0) / np.float32(means[0])

    def anatomy(self, seed: int, number: int) -> tuple[Anatomy, dict[str, float]]:
        """Return the anatomy of one patient at rest, and what was drawn for it; see :meth:`patient`."""
        to_atlas, drawn = _draw_anatomy(random_stream(seed, number, 1), self.small, self.coarse)
        return Anatomy(self.atlas, self.grid, self.brain, self.detail, self.coarse, to_atlas), drawn

    def patient(self, seed: int, number: int, adc: bool = False, tensor: bool = False) -> SimulatedPatient:
        """Simulate one patient.

        The result depends on the atlas, the spacing, ``seed`` and ``number`` alone; ``adc`` adds a contrast,
        ``tensor`` the diffusion tensor of the pre-operative exam, and neither changes anything else.

        Parameters
        ----------
        seed
            Seed of the cohort, not negative.
        number
            Number of the patient, from 1.

        Raises
        ------
        ImageError
            If the atlas has no white matter where a tumour could begin.
        """
        return photograph(self, live(self, seed, number), seed, number, adc, tensor)


def simulate_patient(
    atlas: Atlas, seed: int, number: int, spacing: float = 1.0, adc: bool = False, tensor: bool = False
) -> SimulatedPatient:
    """Simulate one patient; see :meth:`Simulator.patient`, which is quicker for several."""
    return Simulator(atlas, spacing).patient(seed, number, adc, tensor)


@dataclass(frozen=True)
class Life:
    """What happened to a patient, before anyone takes an image of it.

    Attributes
    ----------
    cohort : its group
    days : from the pre-operative exam to the follow-up
    anatomy, course : the individual at rest, and the disease
    coarse : grid of the deformations
    rest_from_preop, rest_from_followup, followup_from_rest : displacements in mm, the head lying still
    drawn : what was drawn, JSON values
    """

    cohort: Cohort
    days: int
    anatomy: Anatomy
    course: _Course
    coarse: Grid
    rest_from_preop: Vectors
    rest_from_followup: Vectors
    followup_from_rest: Vectors
    drawn: dict[str, Any]

    def see(self, points: Vectors, followup: bool) -> View:
        """Look at points of an exam, in mm, the head lying as in the atlas."""
        back = self.rest_from_followup if followup else self.rest_from_preop
        stage = self.course.after if followup else self.course.before
        return look(self.anatomy, self.course, stage, points + sample_vectors(back, self.coarse, points))


def live(simulator: Simulator, seed: int, number: int) -> Life:
    """Let a patient's tumour grow, be removed and come back; see :meth:`Simulator.patient`."""
    rng = random_stream(seed, number, 0)
    cohort = cohort_of(number)
    tumor_ml = float(np.clip(cohort.tumor_ml * np.exp(0.65 * rng.standard_normal()), 3, 110))
    recurrence_ml = float(np.clip(cohort.recurrence_ml * np.exp(0.85 * rng.standard_normal()), 0.4, 45))
    days = int(np.clip(np.rint(np.exp(rng.normal(np.log(270), 0.5))), 90, 1200))
    swelling = float(rng.uniform(0.15, 0.5))
    relax = float(rng.uniform(0.05, 0.3))
    collapse = float(rng.uniform(0.2, 0.8))

    coarse = simulator.coarse
    anatomy, drawn_anatomy = simulator.anatomy(seed, number)
    # Swelling makes the tumour of the exam larger than that at rest.
    course, drawn_course = _draw_course(
        random_stream(seed, number, 2),
        anatomy,
        simulator.lattice,
        tumor_ml / (1 + 0.8 * swelling),
        recurrence_ml,
        days,
    )

    # Deformations from rest to each exam.
    rest = coarse.points()
    _, _, csf, brain, _ = anatomy.tissue(rest)

    def coarse_at(volume: Volume) -> Volume:
        smooth = ndimage.gaussian_filter(volume, 1.0)
        return sample(smooth, course.grid, rest)

    def balanced(source: NDArray[np.floating[Any]]) -> Vectors:
        # What the tumour gains the fluid spaces lose, down to a floor.
        loss = float(source.sum()) / max(float(csf.sum()), 1.0)
        return expansion_velocity((source - min(loss, 0.5) * csf).astype(np.float32), brain, coarse)

    wet_before, wet_after = (np.clip(coarse_at(e.water), 0, 1) for e in (course.before, course.after))
    core_before, core_after = (coarse_at(e.cells.core) for e in (course.before, course.after))
    hole = coarse_at((course.after.cavity > 0).astype(np.float32))
    push_before = balanced(swelling * (core_before + 0.25 * wet_before))
    push_after = balanced(
        swelling * (0.6 * core_after + 0.15 * wet_after + relax * wet_before) - collapse * hole
    )
    rest_from_preop = exponential(-push_before, coarse)
    followup_from_rest, rest_from_followup = exponential(push_after, coarse), exponential(-push_after, coarse)
    drawn = {
        "cohort": cohort.name,
        "seed": seed,
        "number": number,
        "spacing_mm": simulator.spacing,
        "interval_days": days,
        "drawn_tumor_core_ml": tumor_ml,
        "drawn_recurrence_ml": recurrence_ml,
        "mass_effect": swelling,
        "cavity_collapse": collapse,
        **drawn_anatomy,
        **drawn_course,
    }
    return Life(
        cohort, days, anatomy, course, coarse, rest_from_preop, rest_from_followup, followup_from_rest, drawn
    )


def photograph(
    simulator: Simulator, life: Life, seed: int, number: int, adc: bool, tensor: bool = False
) -> SimulatedPatient:
    """Take the images of both exams, brain-extracted, and note the truth; see :meth:`Simulator.patient`."""
    spacing, coarse = simulator.spacing, life.coarse

    # The pre-operative exam, in atlas space.
    exam_grid = simulator.exam_grid
    grid, cut = exam_grid.box(_spread(simulator.small.brain_mask, coarse, exam_grid), 12.0)
    points = grid.points()
    view = life.see(points, followup=False)
    images, drawn_preop = _expose(random_stream(seed, number, 3), view, grid, adc, tensor)

    def full(array: NDArray[Any]) -> NDArray[Any]:
        result = np.zeros((*exam_grid.shape, *array.shape[3:]), array.dtype)
        result[cut] = array
        return result

    labels = remove_specks(view.labels, 0.05, grid.voxel_ml)
    preop = SimulatedExam(
        exam_grid.affine,
        {name: full(image) for name, image in images.items()},
        full(view.brain),
        full(labels),
        {"wm": full(view.wm), "gm": full(view.gm), "csf": full(view.csf)},
    )
    # The follow-up's labels seen from the pre-operative exam: same tissue, other time.
    at_rest = points + sample_vectors(life.rest_from_preop, coarse, points)
    later = look(life.anatomy, life.course, life.course.after, at_rest)
    registered = full(remove_specks(later.labels, 0.05, grid.voxel_ml))

    # The follow-up in its own head position.
    pose = random_stream(seed, number, 4)
    centre = points[:, view.brain].mean(axis=1).astype(np.float64)
    angles = np.deg2rad(pose.uniform(-8, 8, 3))
    shift = pose.uniform(-12, 12, 3)
    motion = rigid_matrix(angles, shift, centre)
    inside = transform(motion, points[:, view.brain][:, ::7])
    low = np.floor(inside.min(axis=1)) - 14
    size = np.ceil((inside.max(axis=1) + 14 - low) / spacing).astype(int).tolist()
    followup_grid = Grid((size[0], size[1], size[2]), spacing, (float(low[0]), float(low[1]), float(low[2])))
    still = transform(np.linalg.inv(motion).astype(np.float64), followup_grid.points())
    seen = life.see(still, followup=True)
    images, drawn_followup = _expose(random_stream(seed, number, 5), seen, followup_grid, adc)
    followup = SimulatedExam(
        followup_grid.affine,
        images,
        seen.brain,
        remove_specks(seen.labels, 0.05, followup_grid.voxel_ml),
        {"wm": seen.wm, "gm": seen.gm, "csf": seen.csf},
    )

    # The true way from a pre-operative point to the same tissue in the follow-up.
    def correspond(p: Vectors) -> Vectors:
        q = p + sample_vectors(life.rest_from_preop, coarse, p)
        return transform(motion, q + sample_vectors(life.followup_from_rest, coarse, q))

    field_grid = simulator.grid.covering(max(FIELD_MM, spacing))
    there = field_grid.points()
    displacement = np.moveaxis(correspond(there) - there, 0, -1)
    landmarks = _landmarks(random_stream(seed, number, 6), view, later, grid)
    moved = correspond(landmarks.T.astype(np.float32)).T.astype(np.float64)

    volumes = {
        t.name.lower() + "_ml": round(np.count_nonzero(labels == t) * grid.voxel_ml, 3)
        for t in list(Tumor)[:3]
    }
    parameters: dict[str, Any] = {
        **life.drawn,
        "preop": {**volumes, **drawn_preop},
        "followup": {
            "enhancing_ml": round(np.count_nonzero(registered == Tumor.ENHANCING) * grid.voxel_ml, 3),
            "cavity_ml": round(np.count_nonzero(registered == Tumor.CAVITY) * grid.voxel_ml, 3),
            **drawn_followup,
        },
        "head_motion": {"degrees": np.rad2deg(angles).round(3).tolist(), "mm": shift.round(3).tolist()},
    }
    return SimulatedPatient(
        life.cohort.name,
        life.days,
        preop,
        followup,
        registered,
        np.ascontiguousarray(displacement, np.float32),
        field_grid.affine,
        landmarks,
        moved,
        full(view.density),
        motion,
        parameters,
    )


def _landmarks(
    rng: np.random.Generator, before: View, after: View, grid: Grid, count: int = 60
) -> NDArray[np.float64]:
    """Draw points at edges of tissue, where a reader could place them, outside core and cavity; RAS mm."""
    edge = before.wm * (before.gm + before.csf)
    solid = np.isin(before.labels, (Tumor.NECROSIS, Tumor.ENHANCING)) | np.isin(
        after.labels, (Tumor.NECROSIS, Tumor.ENHANCING, Tumor.CAVITY)
    )
    weight = np.where(before.brain & ~solid & (edge > 0.15), edge, 0).astype(np.float32)
    chosen = [p for p in (_pick(rng, weight, grid) for _ in range(count)) if p is not None]
    return np.array(chosen) if chosen else np.empty((0, 3))
