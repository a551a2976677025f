"""The solver against closed forms, an independent integrator, and the bars of benchmarks/growth.py."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from predictgbm.growth.calibration import gaussian_seeds
from predictgbm.growth.solver import FisherKPP, relative_diffusivity

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("growth_benchmark", ROOT / "benchmarks" / "growth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_medium(shape: tuple[int, int, int], seed: int = 0, holes: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    relative = rng.uniform(0.1, 1.0, shape).astype(np.float32)
    relative[rng.random(shape) < holes] = 0
    return relative


def point(position: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([position]), np.array([0.5])


def test_mass_is_conserved_without_growth(benchmark_script: ModuleType) -> None:
    assert benchmark_script.measure_mass_change() < 1e-4


@pytest.mark.parametrize(("diffusivity", "proliferation"), [(0.1, 0.05), (0.5, 0.1), (0.1, 0.2)])
def test_front_moves_at_the_kpp_speed(
    benchmark_script: ModuleType, diffusivity: float, proliferation: float
) -> None:
    assert benchmark_script.measure_front_speed(diffusivity, proliferation) == pytest.approx(1.0, abs=0.05)


def test_self_convergence_is_of_second_order(benchmark_script: ModuleType) -> None:
    assert 1.8 < benchmark_script.measure_order() < 2.3


def test_adjoint_agrees_with_float64_differences(benchmark_script: ModuleType) -> None:
    assert benchmark_script.measure_gradient_error() < 1e-3


@pytest.mark.parametrize("scheme", ["explicit", "implicit"])
def test_diffusion_alone_is_the_heat_kernel(scheme: str) -> None:
    shape, spacing, diffusivity, days = (49, 41, 33), (1.0, 1.2, 1.5), 0.4, 30.0
    centre = tuple((n - 1) / 2 * h for n, h in zip(shape, spacing, strict=True))
    width = 3.0
    start = gaussian_seeds(shape, spacing, *point(centre), width=width)
    end = FisherKPP(np.ones(shape, np.float32), spacing).simulate(
        start, diffusivity, 0.0, days, scheme=scheme
    )
    # A Gaussian of variance s^2 becomes one of variance s^2 + 2 D t, with the same mass.
    wider = np.sqrt(width**2 + 2 * diffusivity * days)
    seeds, peaks = point(centre)
    expected = gaussian_seeds(shape, spacing, seeds, peaks * (width / wider) ** 3, width=float(wider))
    assert np.abs(end - expected).max() < 0.01 * expected.max()


@given(
    start=st.floats(1e-6, 1.0),
    proliferation=st.floats(0.0, 0.3),
    days=st.floats(0.0, 200.0),
)
@settings(max_examples=30, deadline=None)
def test_growth_alone_is_logistic(start: float, proliferation: float, days: float) -> None:
    solver = FisherKPP(np.ones((3, 3, 3), np.float32), (1.0, 1.0, 1.0))
    end = solver.simulate(np.full((3, 3, 3), start), 0.0, proliferation, days, active_threshold=None)
    expected = start / (start + (1 - start) * np.exp(-proliferation * days))
    np.testing.assert_allclose(end, expected, rtol=3e-4)


@pytest.mark.parametrize("scheme", ["explicit", "implicit"])
def test_agrees_with_an_independent_integrator(scheme: str) -> None:
    shape, spacing, diffusivity, rho, days = (16, 14, 12), (2.0, 1.5, 2.5), 0.5, 0.1, 40.0
    relative = random_medium(shape, seed=3)
    start = gaussian_seeds(shape, spacing, *point((15.0, 10.0, 14.0)), width=4.0) * (relative > 0)

    # Face by face, written from the definition; no part of the solver.
    cells = np.arange(relative.size).reshape(shape)
    pairs, rates = [], []
    for axis, h in enumerate(spacing):
        a = np.take(cells, range(shape[axis] - 1), axis).ravel()
        b = np.take(cells, range(1, shape[axis]), axis).ravel()
        da, db = relative.ravel()[a].astype(float), relative.ravel()[b].astype(float)
        open_face = (da > 0) & (db > 0)
        pairs.append(np.stack([a, b])[:, open_face])
        rates.append((diffusivity * (da + db) / 2 / h**2)[open_face])
    (a, b), rate = np.concatenate(pairs, axis=1), np.concatenate(rates)

    def slope(_: float, u: np.ndarray) -> np.ndarray:
        flux = rate * (u[b] - u[a])
        into = np.bincount(a, flux, u.size) - np.bincount(b, flux, u.size)
        return into + rho * u * (1 - u)

    expected = solve_ivp(slope, (0, days), start.ravel(), rtol=1e-8, atol=1e-10).y[:, -1].reshape(shape)
    end = FisherKPP(relative, spacing).simulate(start, diffusivity, rho, days, scheme=scheme)
    assert np.abs(end - expected).max() < 0.01 * expected.max()
    assert abs(end.sum() / expected.sum() - 1) < 0.01


def test_implicit_scheme_is_of_second_order_in_time() -> None:
    shape, spacing = (20, 18, 16), (1.5, 2.0, 1.5)
    solver = FisherKPP(random_medium(shape, holes=0.02), spacing)
    start = gaussian_seeds(shape, spacing, *point((14.0, 17.0, 12.0)), width=4.0)

    def run(steps: int) -> np.ndarray:
        return solver.simulate(
            start, 0.5, 0.1, 32.0, time_step=32.0 / steps, scheme="implicit", active_threshold=None
        )

    runs = [run(n) for n in (32, 64, 128)]
    order = np.log2(np.linalg.norm(runs[0] - runs[1]) / np.linalg.norm(runs[1] - runs[2]))
    assert 1.8 < order < 2.2


def test_concentration_stays_between_zero_and_capacity_and_within_tissue() -> None:
    shape, spacing = (30, 28, 26), (1.0, 1.0, 2.0)
    relative = random_medium(shape, holes=0.3)
    start = np.zeros(shape)
    start[14:17, 13:16, 12:15] = 1.0
    solver = FisherKPP(relative, spacing)
    for scheme in ("explicit", "implicit"):
        end = solver.simulate(start, 0.6, 0.2, 80.0, scheme=scheme)
        assert end.min() >= 0
        assert end.max() <= 1 + 1e-6
        assert not end[relative == 0].any()


def test_active_box_changes_nothing_visible() -> None:
    shape, spacing = (60, 56, 52), (1.0, 1.0, 1.0)
    solver = FisherKPP(random_medium(shape), spacing)
    start = gaussian_seeds(shape, spacing, *point((30.0, 22.0, 25.0)))
    whole = solver.simulate(start, 0.1, 0.1, 60.0, active_threshold=None)
    cells = solver.steps.cells
    boxed = solver.simulate(start, 0.1, 0.1, 60.0)
    assert solver.steps.cells < cells / 2
    assert np.abs(whole - boxed).max() < 1e-4


def test_a_tumour_does_not_cross_what_is_no_tissue() -> None:
    relative = np.ones((31, 11, 11), np.float32)
    relative[15] = 0
    start = np.zeros(relative.shape)
    start[5, 5, 5] = 0.5
    end = FisherKPP(relative, (1.0, 1.0, 1.0)).simulate(start, 0.5, 0.2, 100.0, active_threshold=None)
    assert end[:15].min() > 0.9
    assert not end[15:].any()


def test_rotating_the_brain_rotates_the_tumour() -> None:
    shape, spacing = (20, 24, 28), (1.0, 1.5, 2.0)
    relative = random_medium(shape)
    start = gaussian_seeds(shape, spacing, *point((10.0, 17.0, 28.0)), width=3.0)
    here = FisherKPP(relative, spacing).simulate(start, 0.3, 0.1, 40.0)
    turned = FisherKPP(relative.T, spacing[::-1]).simulate(start.T, 0.3, 0.1, 40.0)
    np.testing.assert_allclose(turned.T, here, atol=1e-6)
    flipped = FisherKPP(relative[::-1], spacing).simulate(start[::-1], 0.3, 0.1, 40.0)
    np.testing.assert_allclose(flipped[::-1], here, atol=1e-6)


def test_tissue_is_where_white_and_grey_matter_reach_a_tenth() -> None:
    wm = np.array([[[0.5, 0.0, 0.05, 0.0, 0.6]]])
    gm = np.array([[[0.5, 0.1, 0.04, 0.0, 0.0]]])
    mask = np.array([[[1, 1, 1, 1, 0]]])
    np.testing.assert_allclose(
        relative_diffusivity(wm, gm, brain_mask=mask), [[[0.55, 0.01, 0, 0, 0]]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-0.1, 0.1, 10.0), "not negative"),
        ((0.1, np.nan, 10.0), "finite"),
        ((0.1, 0.1, np.inf), "finite"),
    ],
)
def test_bad_rates_are_refused(arguments: tuple[float, float, float], words: str) -> None:
    solver = FisherKPP(np.ones((4, 4, 4)), (1, 1, 1))
    with pytest.raises(ValueError, match=words):
        solver.simulate(np.zeros((4, 4, 4)), *arguments)


def test_unstable_step_empty_brain_and_bad_spacing_are_refused() -> None:
    solver = FisherKPP(np.ones((4, 4, 4)), (1, 1, 1))
    with pytest.raises(ValueError, match="unstable"):
        solver.simulate(np.zeros((4, 4, 4)), 1.0, 0.1, 10.0, time_step=0.2)
    with pytest.raises(ValueError, match="unknown"):
        solver.simulate(np.zeros((4, 4, 4)), 1.0, 0.1, 10.0, scheme="magic")
    with pytest.raises(ValueError, match="no voxel is tissue"):
        FisherKPP(np.zeros((4, 4, 4)), (1, 1, 1))
    with pytest.raises(ValueError, match="voxel size"):
        FisherKPP(np.ones((4, 4, 4)), (1, 0, 1))


THREAD_SCRIPT = """
import sys
import numpy as np
from predictgbm.growth import solver
from predictgbm.growth.calibration import gaussian_seeds, seed_gradient
solver.CELLS_PER_THREAD = 1
rng = np.random.default_rng(0)
relative = rng.uniform(0.1, 1, (40, 36, 32)).astype(np.float32)
kpp = solver.FisherKPP(relative, (1, 1, 1))
start = gaussian_seeds(relative.shape, (1, 1, 1), np.array([[20., 18., 15.]]), np.array([0.5]))
u = kpp.simulate(start, 0.2, 0.1, 30)
v = kpp.simulate(start, 0.2, 0.1, 30, scheme="implicit")
g = kpp.gradient(start, 0.2, 0.1, 30, lambda c: (float((c ** 2).sum()), 2 * c))
np.savez(sys.argv[1], u=u, v=v, initial=g.initial, rates=[g.diffusivity, g.proliferation])
"""


def test_result_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    results = []
    for threads in ("1", "2"):
        out = tmp_path / f"{threads}.npz"
        environment = {**os.environ, "NUMBA_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", THREAD_SCRIPT, str(out)], check=True, env=environment)
        results.append(np.load(out))
    for name in ("u", "v", "initial", "rates"):
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_works_where_no_compiled_code_can_be_kept() -> None:
    # Code given by "-c" has no file, so that numba finds no folder for it, as in a read-only image.
    script = (
        "from predictgbm.growth.compilation import serial_kernel\n"
        "@serial_kernel\n"
        "def add(a, b):\n    return a + b\n"
        "assert add(1, 2) == 3\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
