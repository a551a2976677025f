"""The built-in cohort: the mathematics of its parts, and what must hold of every patient."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg, ndimage
from small_exam import name_space

from predictgbm.atlas import T1, TISSUES, Atlas, load_atlas
from predictgbm.exam import Exam
from predictgbm.images import ImageError, write_image
from predictgbm.labels import Tumor
from predictgbm.simulation import COHORTS, SimulatedPatient, Simulator, cohort_of, simulate_patient
from predictgbm.simulation.fields import (
    Grid,
    expansion_velocity,
    exponential,
    jacobian,
    random_field,
    rigid_matrix,
    sample,
    sample_vectors,
    transform,
)
from predictgbm.simulation.growth import (
    Cells,
    Medium,
    Rates,
    edema,
    grow,
    hop_rates,
    resect,
    tract_directions,
)
from predictgbm.tensors import mean_diffusivity

COMMAND = [sys.executable, str(Path(__file__).resolve().parents[2] / "bin" / "simulate_cohort.py")]
SPACING = 4.0


# ---------------------------------------------------------------- fields


def test_interpolation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    grid = Grid((9, 7, 8), 1.5, (-4.0, 2.0, 10.0))
    volume = rng.standard_normal(grid.shape).astype(np.float32)
    index = rng.uniform(-2, 10, (3, 500))
    positions = (index * grid.spacing + np.array(grid.origin)[:, None]).astype(np.float32)
    inside = (index >= 0).all(0) & (index <= np.array(grid.shape)[:, None] - 1).all(0)
    edge = ndimage.map_coordinates(volume, index, order=1, mode="nearest")
    np.testing.assert_allclose(sample(volume, grid, positions, edge=True), edge, atol=1e-4)
    np.testing.assert_allclose(sample(volume, grid, positions), np.where(inside, edge, 0), atol=1e-4)


def test_a_covering_grid_shares_the_low_corner() -> None:
    grid = Grid((10, 11, 13), 1.0, (-239.0, 0.0, 5.0))
    coarse = grid.covering(4.0)
    assert coarse.shape == (3, 3, 4)
    np.testing.assert_allclose(np.array(coarse.origin) - 2.0, np.array(grid.origin) - 0.5)


def test_random_field_has_unit_variance_and_the_correlation_of_its_formula() -> None:
    """White noise smoothed by a Gaussian of s correlates as exp(-d²/(4 s²))."""
    grid = Grid((80, 80, 80), 2.0, (0.0, 0.0, 0.0))
    field = random_field(np.random.default_rng(1), grid, 6.0)
    assert field.std() == pytest.approx(1, abs=0.05)
    lag = 4
    got = float(np.mean(field[lag:] * field[:-lag]) / field.var())
    assert got == pytest.approx(np.exp(-((lag * grid.spacing) ** 2) / (4 * 6.0**2)), abs=0.06)


def test_the_exponential_of_a_linear_field_is_the_matrix_exponential() -> None:
    grid = Grid((31, 31, 31), 2.0, (-30.0, -30.0, -30.0))
    matrix = np.array([[0.1, -0.3, 0], [0.3, -0.1, 0.05], [0, 0.1, 0.15]])
    velocity = np.einsum("ij,j...->i...", matrix, grid.points()).astype(np.float32)
    displacement = exponential(velocity, grid)
    centre = (slice(None), *(slice(10, 21),) * 3)
    exact = np.einsum("ij,j...->i...", linalg.expm(matrix) - np.eye(3), grid.points())
    np.testing.assert_allclose(displacement[centre], exact[centre], atol=0.03)
    inner = (slice(11, 20),) * 3
    assert jacobian(displacement, 2.0)[inner].mean() == pytest.approx(
        np.linalg.det(linalg.expm(matrix)), rel=0.01
    )


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.floats(1, 3))
def test_the_flow_of_a_smooth_field_keeps_orientation_and_has_its_inverse(
    seed: int, amplitude: float
) -> None:
    grid = Grid((28, 28, 28), 4.0, (0.0, 0.0, 0.0))
    rng = np.random.default_rng(seed)
    velocity = np.stack([amplitude * random_field(rng, grid, 16.0) for _ in range(3)])
    forth, back = exponential(velocity, grid), exponential(-velocity, grid)
    assert jacobian(forth, 4.0).min() > 0
    there = grid.points() + forth
    again = there + sample_vectors(back, grid, there)
    inside = (slice(None), *(slice(7, 21),) * 3)
    assert np.abs(again - grid.points())[inside].max() < 0.35


def test_a_source_expands_by_its_strength_and_leaves_the_skull_alone() -> None:
    grid = Grid((48, 48, 48), 2.0, (0.0, 0.0, 0.0))
    radius = np.linalg.norm(grid.points() - 47.0, axis=0)
    brain = radius < 44
    source = np.where(radius < 12, 0.4, 0).astype(np.float32)
    velocity = expansion_velocity(source, brain, grid)
    divergence = sum(np.gradient(velocity[a], 2.0, axis=a) for a in range(3))
    assert divergence[radius < 8].mean() == pytest.approx(0.4, abs=0.03)
    assert np.abs(divergence[(radius > 18) & (radius < 28)]).mean() < 0.03
    assert not velocity[:, ~brain].any()
    outward = (velocity * (grid.points() - 47.0)).sum(axis=0)
    assert (outward[(radius > 6) & (radius < 30)] > 0).all()


def test_head_motion_is_rigid_about_its_centre() -> None:
    rng = np.random.default_rng(4)
    centre, shift = rng.uniform(-50, 50, 3), np.array([3.0, -2.0, 1.0])
    matrix = rigid_matrix(rng.uniform(-0.2, 0.2, 3), shift, centre)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix[:3, :3] @ centre + matrix[:3, 3], centre + shift, atol=1e-10)
    points = rng.uniform(-80, 80, (3, 20)).astype(np.float32)
    moved = transform(matrix, points)
    np.testing.assert_allclose(
        np.linalg.norm(moved[:, 1:] - moved[:, :-1], axis=0),
        np.linalg.norm(points[:, 1:] - points[:, :-1], axis=0),
        rtol=1e-4,
    )


# ---------------------------------------------------------------- growth


def medium_of(wm: NDArray[np.float32], gm: NDArray[np.float32], spacing: float = 2.0) -> Medium:
    tissue, hops = hop_rates(wm, gm, spacing)
    even = np.ones_like(wm)
    return Medium(tissue, hops, even, even, even, Grid(wm.shape, spacing, (0.0, 0.0, 0.0)))


def only_migration(wm: NDArray[np.float32], days: int, amount: float = 1e-3) -> Cells:
    """Let a small drop of migrating cells spread from the centre, with every other process switched off."""
    medium = medium_of(wm, np.zeros_like(wm))
    zero = np.zeros_like(wm)
    drop = zero.copy()
    drop[tuple(n // 2 for n in wm.shape)] = amount
    rates = Rates(proliferation=0, mobility=0.5, push=0, leave=0, flee=0, settle=0, die=0)
    cells, reached = grow(Cells(zero, drop, zero), medium, rates, 1e9, 0.5, days)
    assert reached == days
    return cells


def spread_of(density: NDArray[np.float32]) -> NDArray[np.float64]:
    """Second central moments along the axes, in voxels²."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in density.shape), indexing="ij")).reshape(3, -1)
    weight = density.reshape(-1).astype(np.float64)
    mean = (index * weight).sum(1) / weight.sum()
    return (((index - mean[:, None]) ** 2) * weight).sum(1) / weight.sum()


def test_migration_alone_conserves_cells_and_is_diffusion() -> None:
    """In even tissue the variance grows by 2 D t, D = 0.4 mobility (13 directions, equal shares, times 1.2)."""
    days = 40
    cells = only_migration(np.ones((41, 41, 41), np.float32), days)
    # The crop of what is too thin to matter (1e-6) costs little of a drop of 1e-3.
    assert cells.migrating.sum() == pytest.approx(1e-3, rel=0.01)
    assert not cells.proliferating.any()
    variance = spread_of(cells.migrating) * 4
    np.testing.assert_allclose(variance, 2 * 0.4 * 0.5 * days, rtol=0.08)


def test_migration_follows_the_tract() -> None:
    wm = np.zeros((61, 31, 31), np.float32)
    x, y, z = np.meshgrid(np.arange(61), np.arange(31), np.arange(31), indexing="ij")
    wm[(y - 15) ** 2 + (z - 15) ** 2 < 16] = 1
    direction, coherence = tract_directions(ndimage.gaussian_filter(wm, 1.0), 2.0)
    core = (y == 15) & (z == 17) & (x > 8) & (x < 52)
    assert np.abs(direction[core][:, 0]).min() > 0.95
    assert coherence[core].mean() > 0.3
    gm = 1 - wm
    medium = medium_of(wm, gm)
    zero = np.zeros_like(wm)
    drop = zero.copy()
    drop[30, 15, 15] = 1e-3
    rates = Rates(proliferation=0, mobility=0.8, push=0, leave=0, flee=0, settle=0, die=0)
    cells, _ = grow(Cells(zero, drop, zero), medium, rates, 1e9, 0.5, 60)
    along, *across = spread_of(cells.migrating)
    assert along > 2 * max(across)


def test_a_tumour_grows_fills_no_more_than_its_room_and_never_enters_fluid() -> None:
    wm = np.ones((40, 40, 40), np.float32)
    wm[24:] = 0
    medium = medium_of(wm, np.zeros_like(wm))
    zero = np.zeros_like(wm)
    seed = zero.copy()
    seed[15:18, 18:22, 18:22] = 0.5
    cells, days = grow(Cells(seed, zero, zero), medium, Rates(), 12.0, 0.4, 400)
    assert 0 < days < 400
    assert (cells.core > 0.4).sum() * 0.008 == pytest.approx(12.0, rel=0.15)
    assert not cells.total[24:].any()
    assert cells.total.min() >= 0
    assert cells.total.max() < 1.15
    # Dead in the middle, alive at the rim, and migrating cells ahead of both.
    middle = ndimage.center_of_mass(cells.necrotic)
    assert 10 < middle[0] < 22
    rim = (cells.core > 0.4) & ~ndimage.binary_erosion(cells.core > 0.4)
    assert cells.proliferating[rim].mean() > cells.necrotic[rim].mean()
    away = ndimage.distance_transform_edt(cells.core < 0.4, sampling=2.0)
    assert away[cells.migrating > 1e-4].max() >= 8
    assert cells.proliferating[away > 16].max() < 0.01


def test_after_resection_nothing_grows_in_the_cavity() -> None:
    wm = np.ones((30, 30, 30), np.float32)
    medium = medium_of(wm, np.zeros_like(wm))
    cells = Cells(*(np.full_like(wm, v) for v in (0.3, 0.1, 0.2)))
    cavity = np.zeros(wm.shape, bool)
    cavity[10:20, 10:20, 10:20] = True
    survival = np.full_like(wm, 0.5)
    kept, bed = resect(cells, cavity, medium, survival)
    np.testing.assert_allclose(kept.proliferating[~cavity], 0.15)
    np.testing.assert_allclose(kept.necrotic[~cavity], 0.2)
    later, _ = grow(kept, bed, Rates(), 1e9, 0.3, 30)
    assert later.proliferating[~cavity].mean() > kept.proliferating[~cavity].mean()
    assert not later.total[cavity].any()
    assert medium.tissue[cavity].all()


def test_edema_falls_with_distance_and_stays_in_tissue() -> None:
    wm = np.ones((40, 40, 40), np.float32)
    wm[:, :, 25:] = 0
    medium = medium_of(wm, np.zeros_like(wm))
    source = np.zeros_like(wm)
    source[18:22, 18:22, 18:22] = 1
    water = edema(source, medium)
    profile = water[20:32, 20, 20]
    assert (np.diff(profile[2:]) < 0).all()
    assert not water[:, :, 25:].any()
    assert not edema(np.zeros_like(wm), medium).any()


# ---------------------------------------------------------------- cohorts


def test_243_patients_are_dealt_as_in_the_paper() -> None:
    names = [cohort_of(n).name for n in range(1, 244)]
    assert [names.count(c.name) for c in COHORTS] == [40, 61, 142]
    assert [cohort_of(n + 243).name for n in range(1, 244)] == names


@settings(deadline=None)
@given(st.integers(1, 243))
def test_every_prefix_has_the_right_proportions(count: int) -> None:
    names = [cohort_of(n).name for n in range(1, count + 1)]
    for cohort in COHORTS:
        assert abs(names.count(cohort.name) - cohort.share * count / 243) <= 1


# ---------------------------------------------------------------- patients


def head() -> dict[str, NDArray[np.float32]]:
    """A head of 2 mm voxels with a folded cortex, two ventricles and a midline; simple, but a brain to the process."""
    shape = (80, 96, 76)
    x, y, z = np.meshgrid(*(2.0 * (np.arange(n) - (n - 1) / 2) for n in shape), indexing="ij")
    radius = np.sqrt((x / 66) ** 2 + (y / 82) ** 2 + (z / 62) ** 2)
    folds = 0.05 * np.sin(x / 6) * np.sin(y / 7) * np.cos(z / 6)
    brain = radius < 1
    gap = (np.abs(x) < 2.5) & (z > 10)
    ventricle = ((np.abs(x) - 12) / 6) ** 2 + (y / 24) ** 2 + ((z - 4) / 8) ** 2 < 1
    csf = brain & ((radius + folds > 0.95) | gap | ventricle)
    wm = brain & ~csf & (radius + folds < 0.78)
    gm = brain & ~csf & ~wm

    def soft(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        return ndimage.gaussian_filter(mask.astype(np.float32), 0.7) * brain

    maps = {TISSUES["wm"]: soft(wm), TISSUES["gm"]: soft(gm), TISSUES["csf"]: soft(csf)}
    t1 = 700 * maps[TISSUES["wm"]] + 500 * maps[TISSUES["gm"]] + 300 * maps[TISSUES["csf"]]
    return {T1: np.where(brain, np.maximum(t1, 100), 0).astype(np.float32), **maps}


@pytest.fixture(scope="module")
def atlas_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("head")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-160, 10, 0)
    for name, data in head().items():
        write_image(folder / name, data, affine)
    name_space(folder)
    return folder


@pytest.fixture(scope="module")
def atlas(atlas_folder: Path) -> Atlas:
    return load_atlas(atlas_folder)


@pytest.fixture(scope="module")
def simulator(atlas: Atlas) -> Simulator:
    return Simulator(atlas, SPACING)


@pytest.fixture(scope="module")
def patients(simulator: Simulator) -> list[SimulatedPatient]:
    return [simulator.patient(5, number) for number in (1, 2, 3)]


def arrays_of(patient: SimulatedPatient) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {
        "registered": patient.registered_seg,
        "field": patient.field,
        "landmarks": patient.landmarks_preop,
        "moved": patient.landmarks_followup,
        "density": patient.density,
    }
    for name, exam in (("pre", patient.preop), ("post", patient.followup)):
        arrays |= {f"{name} {key}": value for key, value in (*exam.images.items(), *exam.tissue.items())}
        arrays |= {
            f"{name} mask": exam.brain_mask,
            f"{name} labels": exam.tumor_seg,
            f"{name} affine": exam.affine,
        }
    return arrays


def test_a_patient_depends_on_seed_and_number_alone(atlas: Atlas, patients: list[SimulatedPatient]) -> None:
    """Made alone and with diffusion maps, the third patient is the one that was made after two others."""
    alone = simulate_patient(atlas, 5, 3, SPACING, adc=True, tensor=True)
    expected = arrays_of(patients[2])
    got = arrays_of(alone)
    assert set(got) - set(expected) == {"pre adc", "post adc", "pre tensor"}
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    assert alone.parameters == patients[2].parameters
    adc = alone.preop.images["adc"]
    fluid = alone.preop.tissue["csf"] > 0.95
    assert adc[fluid & (alone.preop.tumor_seg == 0)].mean() == pytest.approx(2900, rel=0.1)

    tensor = alone.preop.images["tensor"]
    white = (alone.preop.tissue["wm"] > 0.9) & (alone.preop.tumor_seg == 0)
    assert mean_diffusivity(tensor[white]).mean() == pytest.approx(adc[white].mean(), rel=0.02)
    full = np.stack([tensor[white][:, n] for n in (0, 1, 3, 1, 2, 4, 3, 4, 5)], axis=1).reshape(-1, 3, 3)
    values, vectors = np.linalg.eigh(full.astype(float))
    assert 1.2 < np.median(values[:, 2] / values[:, 0]) < 5
    direction, coherence = tract_directions(alone.preop.tissue["wm"], SPACING)
    clear = coherence[white] > 0.8
    along = np.abs((vectors[clear, :, 2] * direction[white][clear]).sum(axis=1))
    assert clear.sum() > 50
    assert np.median(along) > 0.95


def test_patients_and_seeds_differ(simulator: Simulator, patients: list[SimulatedPatient]) -> None:
    other = simulator.patient(6, 1)
    assert (other.preop.tumor_seg != patients[0].preop.tumor_seg).any()
    assert (patients[0].preop.tumor_seg != patients[1].preop.tumor_seg).any()


def test_labels_are_canonical_and_volumes_as_drawn(patients: list[SimulatedPatient]) -> None:
    ml = SPACING**3 / 1000
    for patient in patients:
        pre, late = patient.preop.tumor_seg, patient.registered_seg
        assert set(np.unique(pre)) <= {0, 1, 2, 3}
        assert set(np.unique(late)) <= {0, 1, 2, 3, 4}
        assert patient.days >= 90
        core = np.isin(pre, (Tumor.NECROSIS, Tumor.ENHANCING))
        assert core.sum() * ml == pytest.approx(patient.parameters["drawn_tumor_core_ml"], rel=0.35)
        recurrence = (late == Tumor.ENHANCING).sum() * ml
        assert recurrence == pytest.approx(patient.parameters["drawn_recurrence_ml"], rel=0.5, abs=0.5)
        # Surgery takes most of the core, and little else.
        cavity = late == Tumor.CAVITY
        assert (cavity & core).sum() > 0.6 * core.sum()
        assert (cavity & ~ndimage.binary_dilation(core, iterations=2)).sum() < 0.1 * cavity.sum()
        for exam in (patient.preop, patient.followup):
            assert not exam.tumor_seg[~exam.brain_mask].any()
        # What comes back was there, unseen.
        assert patient.density[late == Tumor.ENHANCING].mean() > 1e-5


def test_tissue_maps_and_images_fit_the_brain(patients: list[SimulatedPatient]) -> None:
    for patient in patients:
        for exam in (patient.preop, patient.followup):
            total = sum(exam.tissue.values())
            np.testing.assert_allclose(total[exam.brain_mask], 1, atol=1e-4)
            assert not total[~exam.brain_mask].any()
            assert ndimage.label(exam.brain_mask)[1] == 1
            assert set(exam.images) == {"t1", "t1c", "t2", "flair"}
            for image in exam.images.values():
                assert image.dtype == np.int16
                np.testing.assert_array_equal(image > 0, exam.brain_mask)


def test_contrasts_look_as_they_should(patients: list[SimulatedPatient]) -> None:
    for patient in patients:
        exam = patient.preop
        white = (exam.tissue["wm"] > 0.9) & (exam.tumor_seg == 0) & (patient.density < 0.01)
        fluid = (exam.tissue["csf"] > 0.9) & (exam.tumor_seg == 0)
        enhancing, edematous = exam.tumor_seg == Tumor.ENHANCING, exam.tumor_seg == Tumor.EDEMA
        mean = {k: {n: v[m].mean() for n, m in
                    (("white", white), ("fluid", fluid), ("rim", enhancing), ("edema", edematous))}
                for k, v in exam.images.items()}  # fmt: skip
        assert mean["t1c"]["rim"] > 1.2 * mean["t1c"]["white"]
        assert mean["t1"]["rim"] < mean["t1"]["white"]
        assert mean["flair"]["edema"] > 1.25 * mean["flair"]["white"]
        assert mean["t2"]["fluid"] > 2 * mean["t2"]["white"]
        assert mean["flair"]["fluid"] < mean["flair"]["white"]


def field_grid(patient: SimulatedPatient) -> Grid:
    x, y, z = patient.field_affine[:3, 3]
    nx, ny, nz = patient.field.shape[:3]
    return Grid((nx, ny, nz), float(patient.field_affine[0, 0]), (x, y, z))


def voxel_positions(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    return np.einsum("ij,j...->i...", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)


def look_up(
    data: NDArray[np.generic], affine: NDArray[np.float64], positions: NDArray[np.float64], order: int
) -> NDArray[np.float64]:
    from_origin = positions - affine[:3, 3].reshape(3, *[1] * (positions.ndim - 1))
    index = np.einsum("ij,j...->i...", np.linalg.inv(affine[:3, :3]), from_origin)
    return ndimage.map_coordinates(np.asarray(data, np.float64), index, order=order)


def test_the_written_deformation_carries_followup_to_preop(patients: list[SimulatedPatient]) -> None:
    """Moving the follow-up by the field, with scipy, gives the registered labels and the same anatomy."""
    for patient in patients:
        here = voxel_positions(patient.preop.affine, patient.preop.tumor_seg.shape)
        shift = np.stack([look_up(patient.field[..., a], patient.field_affine, here, 1) for a in range(3)])
        moved = look_up(patient.followup.tumor_seg, patient.followup.affine, here + shift, 0)
        cavity = (moved == Tumor.CAVITY, patient.registered_seg == Tumor.CAVITY)
        for a, b in (cavity, (moved > 0, patient.registered_seg > 0)):
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85
        wm = look_up(patient.followup.tissue["wm"], patient.followup.affine, here + shift, 1)
        inside = ndimage.binary_erosion(patient.preop.brain_mask)
        error = np.abs(wm - patient.preop.tissue["wm"])[inside].mean()
        still = look_up(patient.followup.tissue["wm"], patient.followup.affine, here, 1)
        assert error < 0.06
        assert error < 0.5 * np.abs(still - patient.preop.tissue["wm"])[inside].mean()


def test_the_deformation_folds_nowhere_in_the_brain(patients: list[SimulatedPatient]) -> None:
    for patient in patients:
        determinant = jacobian(np.moveaxis(patient.field, -1, 0), field_grid(patient).spacing)
        brain = look_up(
            patient.preop.brain_mask,
            patient.preop.affine,
            voxel_positions(patient.field_affine, determinant.shape),
            0,
        )
        assert determinant[brain > 0].min() > 0.05
        assert determinant[brain > 0].max() < 8


def test_landmarks_agree_with_the_field_and_mark_the_same_tissue(patients: list[SimulatedPatient]) -> None:
    for patient in patients:
        points, moved = patient.landmarks_preop.T, patient.landmarks_followup.T
        assert points.shape[1] >= 40
        shift = np.stack([look_up(patient.field[..., a], patient.field_affine, points, 1) for a in range(3)])
        assert np.linalg.norm(points + shift - moved, axis=0).max() < 0.6
        before = look_up(patient.preop.tissue["wm"], patient.preop.affine, points, 1)
        after = look_up(patient.followup.tissue["wm"], patient.followup.affine, moved, 1)
        assert np.abs(before - after).mean() < 0.15
        # The head was moved: the same coordinates show something else.
        assert np.linalg.norm(points - moved, axis=0).mean() > 2


def test_an_oblique_atlas_is_refused(atlas: Atlas) -> None:
    affine = atlas.affine.copy()
    affine[0, 1] = 0.5
    oblique = replace(atlas, affine=affine)
    with pytest.raises(ImageError, match="cubic voxels"):
        Simulator(oblique, SPACING)


# ---------------------------------------------------------------- command


def simulate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "samplesheet.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_part_of_a_cohort_is_the_same_as_in_the_whole(tmp_path: Path, atlas_folder: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    common = ["--atlas", atlas_folder, "--seed", 5, "--spacing", 6]
    done = simulate(*common, "--out", whole, "--patients", 2, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    done = simulate(*common, "--out", part, "--patients", 9, "--patient-index", 2)
    assert done.returncode == 0, done.stderr
    rows = rows_of(whole)
    assert [(r["patient"], r["role"]) for r in rows] == [
        (p, role) for p in ("sub-001", "sub-002") for role in ("preop", "followup")
    ]
    assert rows_of(part) == rows[2:]
    files = sorted(p.relative_to(part) for p in (part / "sub-002").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(whole) for p in (whole / "sub-002").rglob("*") if p.is_file())
    for file in files:
        assert (part / file).read_bytes() == (whole / file).read_bytes(), file

    for row in rows:
        for column, value in row.items():
            if value.endswith(".nii.gz"):
                assert (whole / value).is_file(), (column, value)
        assert (row["days"] == "0") == (row["role"] == "preop")
        assert bool(row["registered_seg"]) == (row["role"] == "followup")
        assert row["tumor_labels"] == "canonical"
    assert json.loads((whole / "dataset_description.json").read_text())["Simulated"] is True

    exam = Exam(whole / "sub-001" / "ses-pre")
    assert exam.array("brain_mask").any()
    assert exam.image("t1c").shape == exam.image("tumor_seg").shape

    field = nib.load(part / "sub-002" / "sub-002_from-pre_to-post_xfm.nii.gz")
    assert field.ndim == 5
    assert field.header.get_intent()[0] == "vector"
    vectors = np.asanyarray(field.dataobj)[:, :, :, 0]
    with (part / "sub-002" / "sub-002_landmarks.csv").open() as file:
        table = np.array([[float(v) for v in row.values()] for row in csv.DictReader(file)])
    lps = np.array([-1, -1, 1])
    here = (table[:, :3] * lps).T
    shift = np.stack([look_up(vectors[..., a], field.affine, here, 1) for a in range(3)])
    np.testing.assert_allclose((table[:, :3].T + shift).T, table[:, 3:], atol=0.8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patients", 0], "at least 1"),
        (["--patients", 3, "--patient-index", 4], "not among 1 to 3"),
        (["--patients", 3, "--first", 1, "--patient-index", 2], "not both"),
        (["--patients", 3, "--spacing", 0.2], "1 to 6 mm"),
        (["--patients", 3], "atlas lacks"),
    ],
)
def test_wrong_use_is_told_in_one_line(tmp_path: Path, arguments: list[object], message: str) -> None:
    done = simulate("--atlas", tmp_path, "--out", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
