"""PINN-GBM: derivatives against differences, the sphere against the solver, a tumour that its own equation made."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.special import expit, logit

from predictgbm.growth import pinn
from predictgbm.growth.calibration import Assumptions, Surface, calibrate, robust, robust_slope, surface
from predictgbm.growth.pinn import DAYS, Departure, Grid, Network, Unknowns
from predictgbm.growth.solver import FisherKPP, relative_diffusivity
from predictgbm.masks import ball_radius

H = 2.5
SPACING = (H, H, H)
TRUTH = Unknowns(0.35, 0.09, 0.35, 0.7, np.array([[57.0, 50.0, 46.0]]))


@cache
def head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return white matter, grey matter and CSF: a folded rind around white matter around a ventricle."""
    x, y, z = np.meshgrid(*(np.arange(n) * H for n in (44, 44, 40)), indexing="ij")
    r = np.sqrt((x - 54) ** 2 + (y - 54) ** 2 + (z - 50) ** 2) + 3 * np.sin(x / 7) * np.sin(y / 6)
    wm, brain = expit((38 - r) / 2), r < 48
    ventricle = np.sqrt(((x - 54) / 8) ** 2 + ((y - 66) / 16) ** 2 + ((z - 50) / 9) ** 2) < 1
    wm = np.where(brain & ~ventricle, wm, 0)
    gm = np.where(brain & ~ventricle, 1 - wm, 0)
    return wm.astype(np.float32), gm.astype(np.float32), (brain & ventricle).astype(np.float32)


def grown(p: Unknowns = TRUTH) -> np.ndarray:
    wm, gm, _ = head()
    solver = FisherKPP(relative_diffusivity(wm, gm), SPACING)
    start = pinn.seed_concentration(wm.shape, SPACING, p.seeds)
    return solver.simulate(start, p.diffusivity, p.proliferation, DAYS)


def seen(u: np.ndarray, p: Unknowns = TRUTH) -> np.ndarray:
    return np.where(u > p.threshold_core, 3, np.where(u > p.threshold_edema, 2, 0)).astype(np.uint8)


def departure(base: Unknowns = TRUTH, first: Unknowns = TRUTH) -> Departure:
    wm, gm, _ = head()
    relative = relative_diffusivity(wm, gm)
    labels, tissue = seen(grown()), relative > 0
    surfaces: list[tuple[int, Surface]] = [
        (3, surface(labels == 3, tissue, SPACING, 0.7)),
        (2, surface(labels > 0, tissue, SPACING, 0.35)),
    ]
    return Departure(Grid.of(relative, np.array(SPACING), H), base, first, surfaces, Network())


def test_network_starts_with_nothing_and_its_derivative_is_that_of_differences() -> None:
    network, rng = Network((6, 5)), np.random.default_rng(0)
    inputs = rng.normal(size=(4, 3, 5)).astype(np.float32)
    weights = network.start(rng)
    assert not network.activations(weights, inputs)[-1].any()
    weights += 0.3 * rng.normal(size=network.count)
    factors = rng.normal(size=(4, 3))
    jacobian = network.jacobian(weights, network.activations(weights, inputs), factors)
    for k in range(network.count):
        step = 1e-2 * np.eye(network.count)[k]
        ends = [
            (network.activations(weights + s, inputs)[-1][..., 0] * factors).sum(axis=1)
            for s in (step, -step)
        ]
        assert jacobian[:, k] == pytest.approx((ends[0] - ends[1]) / 2e-2, abs=2e-3)


def test_robust_slope_is_that_of_differences() -> None:
    x = np.linspace(-12, 12, 49)
    assert robust_slope(x) == pytest.approx((robust(x + 1e-5) - robust(x - 1e-5)) / 2e-5, abs=1e-6)


def test_equation_of_the_logit_is_that_of_the_solver() -> None:
    """The rate that a cell and its neighbours give is that at which the solver's concentration changes."""
    one, rng = departure(), np.random.default_rng(1)
    u = expit(one.v.astype(float))
    measured = (u[2:] - u[:-2]) / (2 * DAYS / pinn.FRAMES)
    asked = one.ask(rng)
    place = asked.inputs[:, 0, :3] * one.reach + one.middle
    cell = np.rint((place - one.grid.origin) / one.grid.spacing).astype(int)
    frame = np.rint(asked.moments[:, 0] * pinn.FRAMES).astype(int) - 1
    now = expit(asked.v[:, 0])
    between = (frame > 3) & (frame < pinn.FRAMES - 1) & (now > 0.05) & (now < 0.95)
    expected = measured[(frame[between] - 1, *cell[between].T)]
    found = (asked.rate * now * (1 - now))[between]
    assert np.corrcoef(found, expected)[0, 1] > 0.995
    assert np.linalg.norm(found - expected) < 0.06 * np.linalg.norm(expected)


def test_solution_leaves_nothing_of_the_equation_and_the_labels_of_its_own_tumour() -> None:
    one, rng = departure(), np.random.default_rng(2)
    vector = np.concatenate([one.network.start(rng), np.zeros(len(one.base))])
    error, _ = one.residual(one.ask(rng), one.look(rng), vector, 0.1, derivative=False)
    assert error[: pinn.POINTS] == pytest.approx(0, abs=1e-12)
    # Voxels leave open a quarter of their size.
    assert one.misfit() < 0.25 * H


def test_derivative_of_all_residuals_is_that_of_differences() -> None:
    first = Unknowns(0.3, 0.1, 0.3, 0.75, TRUTH.seeds + 2)
    one, rng = departure(first=first), np.random.default_rng(3)
    n = one.network.count
    vector = np.concatenate([one.network.start(rng), 0.05 * rng.normal(size=len(one.base))])
    vector[n - 25 : n] = 0.1 * rng.normal(size=25)
    asked, looked = one.ask(rng), one.look(rng)
    _, jacobian = one.residual(asked, looked, vector, 0.1)
    for direction in (
        *np.eye(len(vector))[n:],
        rng.normal(size=len(vector)) * (np.arange(len(vector)) < n) * 0.1,
    ):
        ends = [
            one.residual(asked, looked, vector + s * direction, 0.1, derivative=False)[0]
            for s in (1e-2, -1e-2)
        ]
        expected = (ends[0] - ends[1]) / 2e-2
        assert np.linalg.norm(jacobian @ direction - expected) < 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize(("width", "growth"), [(2.0, 8.0), (4.0, 4.0)])
def test_sphere_has_the_radii_that_the_solver_gives_it(width: float, growth: float) -> None:
    n = 65
    solver = FisherKPP(np.ones((n, n, n), np.float32), (1.5,) * 3)
    centre = np.array([[1.5 * (n // 2)] * 3])
    start = pinn.seed_concentration((n, n, n), (1.5,) * 3, centre)
    rho = growth / DAYS
    u = solver.simulate(start, width**2 * rho, rho, DAYS)
    core, whole = (ball_radius(int((u > t).sum()), 1.5**3) for t in (0.7, 0.35))
    spread, found = pinn.characteristic(core, whole)
    # Widths are tried in steps of 15 %.
    assert np.sqrt(spread / found) == pytest.approx(width, rel=0.15)
    assert found == pytest.approx(growth, rel=0.15)


def test_unknowns_survive_the_vector_and_stay_in_their_ranges() -> None:
    again = Unknowns.from_vector(TRUTH.to_vector())
    assert again.to_vector() == pytest.approx(TRUTH.to_vector())
    grid = Grid(np.ones((5, 5, 5), np.float32), np.full(3, 2.0), np.zeros(3))
    wild = Unknowns(1e4, 1e-6, 0.3, 0.7, np.array([[-50.0, 4.0, 90.0]])).bounded(grid)
    assert wild.seeds.tolist() == [[0.0, 4.0, 8.0]]
    assert np.sqrt(wild.diffusivity / wild.proliferation) == pytest.approx(15.0)


def test_same_seed_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinn, "ROUNDS", 1)
    wm, gm, csf = head()
    maps = [
        pinn.predict(seen(grown()), wm, gm, csf, wm + gm + csf > 0, spacing=SPACING, seed=seed).map
        for seed in (3, 3, 4)
    ]
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_tumour_of_its_own_equation_is_found_again_as_by_the_calibration() -> None:
    wm, gm, csf = head()
    labels, relative = seen(grown()), relative_diffusivity(wm, gm)
    found = pinn.predict(labels, wm, gm, csf, wm + gm + csf > 0, spacing=SPACING)
    values = found.parameters
    assumed = Assumptions(0.7, 0.35, np.sqrt(0.5 / pinn.SEED_FALL), pinn.SEED_PEAK)
    direct = calibrate(relative, labels == 3, labels > 0, SPACING, assumed).parameters
    # It starts far from there.
    assert values["characteristic_diffusivity_mm2_per_day"] < 0.8 * TRUTH.diffusivity
    assert values["diffusivity_mm2_per_day"] == pytest.approx(direct.diffusivity, rel=0.15)
    assert values["proliferation_per_day"] == pytest.approx(direct.proliferation, rel=0.15)
    assert values["seeds_mm"][0] == pytest.approx(TRUTH.seeds[0], abs=1.5)
    assert values["dice_whole"] > 0.95
    assert found.map.dtype == np.float32
    assert np.isfinite(found.map).all()
    assert logit(values["threshold_core"]) == pytest.approx(logit(0.7), abs=0.3)
