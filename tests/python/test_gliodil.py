"""GliODIL: the equation against closed forms, gradients against differences, a tumour that its own equation made."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from predictgbm.growth import ModelError, gliodil
from predictgbm.growth.gliodil import Domain, Loss, Scalars
from predictgbm.growth.optimisation import minimise
from predictgbm.growth.spacetime import Rates, SpaceTime

SHAPE, SPACING = (9, 8, 7), (3.0, 3.3, 3.7)


def medium(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wm = rng.random(SHAPE)
    gm = (1 - wm) * rng.random(SHAPE)
    hole = rng.random(SHAPE) < 0.15
    wm[hole] = gm[hole] = 0
    return wm, gm


def small_loss(with_pet: bool, free_rates: bool = True) -> Loss:
    core, whole = np.zeros((2, *SHAPE), bool)
    core[3:6, 3:6, 3:5], whole[2:8, 2:7, 2:6] = True, True
    pet = np.random.default_rng(1).random(SHAPE) if with_pet else None
    return Loss(
        *medium(), core, whole, SPACING, pet, frames=20, free_rates=free_rates, dtype=np.float64
    )  # fmt: skip


SCALARS = Scalars(1.2, 0.05, 30.0, 0.8, 0.3, 0.8, 0.4, np.array([[13.5, 14.6, 12.8], [17.5, 6.6, 9.8]]))


def unknowns(loss: Loss, scalars: Scalars = SCALARS) -> np.ndarray:
    """Return unknowns with noise in every cell of the field."""
    rng, vector = np.random.default_rng(2), loss.start(scalars)
    noise = np.stack([loss.equation.frame(rng.standard_normal(SHAPE)) for _ in range(20)])
    vector[: noise.size] = 5 * noise.ravel()
    return vector


def equation(frames: int, days: float, wm: np.ndarray, gm: np.ndarray) -> SpaceTime:
    return SpaceTime(wm, gm, SPACING, frames, days, np.float64)


def test_solved_field_has_the_residual_it_was_solved_for() -> None:
    solver, rng = equation(6, 0.5, *medium()), np.random.default_rng(3)
    rates = Rates(0.8, 0.2, 7.0)
    residual = np.stack([solver.frame(0.05 * rng.standard_normal(SHAPE)) for _ in range(6)])
    frames = solver.solve(solver.frame(rng.random(SHAPE) - 0.05), residual, rates)
    assert solver.residual(frames, rates)[1:] == pytest.approx(residual[1:], abs=1e-6)
    scaled = solver.solve(frames[0], 40 * residual, rates, scale=1 / 40)
    assert scaled == pytest.approx(frames, abs=1e-9)


def test_mass_is_conserved_without_growth() -> None:
    solver = equation(20, 1.0, *medium())
    start = solver.frame(np.random.default_rng(4).random(SHAPE))
    frames = solver.solve(start, np.zeros(solver.shape), Rates(2.0, 0.0, 10.0))
    assert frames.sum(axis=(1, 2)) == pytest.approx(np.full(20, start.sum()), rel=1e-6)
    assert np.abs(frames[-1] - frames[0]).max() > 0.1


def test_uniform_concentration_grows_as_the_logistic_function_to_second_order() -> None:
    errors = []
    for steps in (20, 40):
        solver = equation(steps + 1, 40.0 / steps, np.ones(SHAPE), np.zeros(SHAPE))
        start = solver.frame(np.full(SHAPE, 0.05))
        last = solver.volume(solver.solve(start, np.zeros(solver.shape), Rates(1.0, 0.1, 10.0))[-1])
        assert np.ptp(last) < 1e-6
        errors.append(abs(last[0, 0, 0] - 1 / (1 + 19 * np.exp(-4.0))))
    assert errors[1] < 1e-3
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("with_pet", [False, True])
def test_gradient_agrees_with_differences(with_pet: bool) -> None:
    loss = small_loss(with_pet)
    vector = unknowns(loss)
    _, gradient = loss.evaluate(vector)
    free = int(np.prod(loss.equation.shape))
    rng, step = np.random.default_rng(5), 1e-5
    directions = [np.eye(len(vector) - free)[k] for k in range(len(vector) - free)]
    cases = [np.concatenate([np.zeros(free), d]) for d in directions]
    field = np.stack([loss.equation.frame(rng.standard_normal(SHAPE)) for _ in range(20)])
    for case in [*cases, np.concatenate([field.ravel(), np.zeros(len(vector) - free)])]:
        ahead, back = loss.evaluate(vector + step * case)[0], loss.evaluate(vector - step * case)[0]
        assert gradient @ case == pytest.approx((ahead - back) / (2 * step), rel=1e-4, abs=1e-3)


def test_held_rates_have_no_gradient() -> None:
    loss = small_loss(False, free_rates=False)
    _, gradient = loss.evaluate(unknowns(loss))
    free = int(np.prod(loss.equation.shape))
    assert not gradient[free : free + 3].any()
    assert gradient[free + 3 : free + 5].all()


@pytest.mark.parametrize("with_pet", [False, True])
def test_loss_of_the_unknowns_is_that_of_the_field(with_pet: bool) -> None:
    loss = small_loss(with_pet)
    vector = unknowns(loss)
    frames = loss.frames(vector)
    terms = loss.terms(frames, SCALARS)
    assert loss.evaluate(vector)[0] / loss.count == pytest.approx(terms["total"], rel=1e-6)
    assert set(terms) == {"equation", "initial", "labels", "range", "outside", "scalars", "total"} | (
        {"pet"} if with_pet else set()
    )


def test_terms_are_those_of_the_source() -> None:
    loss, rng = small_loss(True), np.random.default_rng(6)
    u = rng.uniform(-0.1, 1.1, (20, *SHAPE))
    scalars = replace(SCALARS, threshold_edema=0.6, diffusivity=11.0)
    terms = loss.terms(np.stack([loss.equation.frame(frame) for frame in u]), scalars)
    core, edema, outside, pet = (
        loss.equation.volume(f) for f in (loss.core, loss.edema, loss.outside_tissue, loss.pet)
    )
    bottom = np.where(core, 0.8, np.where(edema, 0.6, -np.inf))
    bottom[~core & ~edema] = 0
    ceiling = np.where(core, 1, np.where(edema, 0.8, 0.6))
    last = u[-1]
    misfit = np.maximum(bottom - last, 0) + np.maximum(last - ceiling, 0)
    size = u.size
    assert terms["labels"] == pytest.approx(((4 * misfit) ** 2).sum() / size)
    assert terms["pet"] == pytest.approx(
        (45 * (last - 0.8 * (pet - 0.4)) * (pet > 0)).__pow__(2).sum() / size
    )
    assert terms["range"] == pytest.approx(((u - u.clip(0, 1)) ** 2).sum() / size)
    assert terms["outside"] == pytest.approx(((0.01 * u * outside) ** 2).sum() / size)
    assert terms["scalars"] == pytest.approx((0.1 + 1.0) ** 2)
    centres = [(np.arange(n) + 0.5) * h for n, h in zip(SHAPE, SPACING, strict=True)]
    grid = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1)
    seeds = np.zeros(SHAPE)
    for place in scalars.seeds:
        g = 1500 / (4 * np.pi * 15) ** 1.5 * np.exp(-((grid - place) ** 2).sum(axis=-1) / 60)
        seeds += np.where(g > 0.1, g, 0)
    assert terms["initial"] == pytest.approx(((1000 * (u[0] - seeds.clip(0, 1))) ** 2).sum() / size)


def test_scalars_survive_the_vector_and_stay_in_their_ranges() -> None:
    back = Scalars.from_vector(SCALARS.to_vector())
    assert back.seeds == pytest.approx(SCALARS.seeds)
    for name, (low, high) in gliodil.RANGES.items():
        assert getattr(back, name) == pytest.approx(getattr(SCALARS, name))
        for size in (-1e4, 1e4):
            far = Scalars.from_vector(np.full(10, size))
            assert low - 1e-9 <= getattr(far, name) <= high + 1e-9
    assert back.hinges()[0] == 0


@given(st.integers(0, 2**31), st.integers(2, 12))
@settings(max_examples=10, deadline=None)
def test_quasi_newton_finds_the_minimum_of_a_quadratic(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((size, size)) + 2 * np.eye(size)
    matrix, target = root @ root.T + np.eye(size), rng.standard_normal(size)

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        off = x.astype(float) - target
        return float(off @ matrix @ off) + 1, (2 * matrix @ off).astype(np.float32)

    *_, (value, place) = minimise(function, np.zeros(size, np.float32), 300, 0)
    assert value == pytest.approx(1, abs=1e-3)
    assert place == pytest.approx(target, abs=0.03)


def test_quasi_newton_takes_long_steps_back() -> None:
    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        value = optimize.rosen(x.astype(float)) if np.abs(x).max() < 3 else np.inf
        return float(value), optimize.rosen_der(x.astype(float)).astype(np.float32)

    values = [value for value, _ in minimise(function, np.array([-2.5, 2.0], np.float32), 200, 0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-4


def test_domain_encloses_the_tumour_and_gives_fields_back() -> None:
    whole = np.zeros((60, 50, 40), bool)
    whole[20:35, 15:30, 5:25] = True
    domain = Domain.around(whole, (1.0, 1.0, 1.5), 30, 12.0)
    low, high = domain.corner - 0.5 * domain.step, domain.corner + (domain.cells - 0.5) * domain.step
    assert low == pytest.approx([7.5, 2.5, -3.5])  # 12 mm before the first voxel's edge, or 8 voxels
    assert high == pytest.approx([46.5, 41.5, 32.5])
    ramp = np.add.outer(np.add.outer(np.arange(60.0), np.arange(50.0)), np.arange(40.0)).astype(np.float32)
    spread = domain.spread(domain.sample(ramp, 1), ramp.shape)
    inner = (slice(9, 45), slice(4, 40), slice(1, 31))
    assert spread[inner] == pytest.approx(ramp[inner], abs=1e-3)
    assert not spread[:7].any()
    assert not spread[..., 34:].any()


PLACES = np.array([[25.0, 35.0, 25.0], [58.0, 28.0, 60.0]])


def test_refined_unknowns_describe_the_same_tumour() -> None:
    exam, _ = own_tumour()
    medium = gliodil.prepare_medium(**exam)
    states = list(gliodil.descend(medium, (2.5,) * 3, None, 24, 48, iterations=5))
    coarse, coarse_value, coarse_place = next(s for s in reversed(states) if s[0].equation.grid[0] == 12)
    loss, value, place = next(s for s in states if s[0].equation.grid[0] == 24)
    assert value == pytest.approx(coarse_value, rel=0.5)
    assert value < states[0][1]
    last, before = (m.equation.volume(m.frames(p)[-1]) for m, p in ((loss, place), (coarse, coarse_place)))
    means = last.reshape(12, 2, 12, 2, 12, 2).mean(axis=(1, 3, 5))
    assert np.abs(means - before).mean() < 0.03
    assert loss.split(place)[1].seeds == pytest.approx(coarse.split(coarse_place)[1].seeds)


def own_tumour(foci: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return an exam of 2.5 mm whose tumour this model's equation made, and its concentration."""
    shape, spacing = (30, 30, 30), (2.5,) * 3
    wm = np.full(shape, 0.8, np.float32)
    wm[:, 18:] = 0.1
    gm = 0.9 - wm
    solver = SpaceTime(wm, gm, spacing, 101, 1.0)
    axes = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * 2.5 for n in shape], indexing="ij"), axis=-1)
    start = sum(0.58 * np.exp(-((axes - place) ** 2).sum(axis=-1) / 60) for place in PLACES[:foci])
    u = solver.volume(
        solver.solve(solver.frame(start), np.zeros(solver.shape, np.float32), Rates(0.3, 0.05, 100.0))[-1]
    )
    exam = {
        "tumor_seg": np.where(u > 0.65, 3, np.where(u > 0.3, 2, 0)).astype(np.uint8),
        "wm": wm, "gm": gm, "csf": np.full(shape, 0.1, np.float32), "brain_mask": np.ones(shape, bool),
    }  # fmt: skip
    return exam, u


def predict(exam: dict[str, np.ndarray], **options: object) -> gliodil.Prediction:
    return gliodil.predict(**exam, spacing=(2.5,) * 3, cells=24, frames=48, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("foci", [1, 2])
def test_tumour_of_its_own_equation_is_found_again(foci: int) -> None:
    exam, truth = own_tumour(foci)
    found = predict(exam)
    parameters = found.parameters
    assert parameters["diffusivity_mm2_per_day"] == pytest.approx(0.3, rel=0.15)
    assert parameters["proliferation_per_day"] == pytest.approx(0.05, rel=0.15)
    # Places count from the centre of the first voxel.
    seeds = np.array(sorted(parameters["seeds_mm"])) + 1.25
    assert seeds == pytest.approx(np.array(sorted(PLACES[:foci].tolist())), abs=1.0)
    assert parameters["dice_core"] > 0.85
    assert parameters["dice_whole"] > 0.85
    near = truth > 0.01
    # The thresholds are unknowns as well, so that values agree less well than places.
    assert np.abs(found.map - truth)[near].mean() < 0.15
    assert np.corrcoef(found.map[near], truth[near])[0, 1] > 0.95
    assert found.parameters["loss"]["total"] < found.parameters["loss_start"]


def test_pet_that_is_the_truth_draws_the_field_to_it() -> None:
    exam, truth = own_tumour()
    # A hot half, which the labels do not show.
    uptake = truth.copy()
    uptake[:14] *= 0.6
    without, given_pet = predict(exam), predict(exam, pet=uptake * 7)
    edema = exam["tumor_seg"] == 2
    assert "pet_scale" in given_pet.parameters
    seen = edema | (exam["tumor_seg"] == 3)
    before, after = (np.corrcoef(m[seen], uptake[seen])[0, 1] for m in (without.map, given_pet.map))
    assert after > before + 0.02
    with pytest.raises(ModelError, match="no uptake"):
        predict(exam, pet=np.zeros_like(truth))


def test_small_tumour_and_tumour_without_core_or_edema() -> None:
    exam, _ = own_tumour()
    tiny = dict(exam, tumor_seg=np.zeros_like(exam["tumor_seg"]))
    tiny["tumor_seg"][14:16, 14:16, 14:16] = 3
    for labels in (
        tiny["tumor_seg"],
        np.where(exam["tumor_seg"] > 0, 2, 0),
        np.where(exam["tumor_seg"] == 3, 3, 0),
    ):
        found = predict(dict(exam, tumor_seg=labels.astype(np.uint8)))
        assert np.isfinite(found.map).all()
        centre, corner = found.map[14, 14, 14], found.map[1, 1, 1]
        assert centre > 0.2
        assert centre > corner
    with pytest.raises(ModelError, match="no tumour"):
        predict(dict(exam, tumor_seg=np.zeros_like(exam["tumor_seg"])))


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    exam, _ = own_tumour()
    maps = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        maps.append(predict(exam, iterations=5).map)
        numba.set_num_threads(before)
    assert np.array_equal(*maps)
