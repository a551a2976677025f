"""Mass effect: the elastic equation against closed forms, and the way to the brain before a tumour and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictgbm.growth import ModelError, Prediction, fisher_kpp, lmi
from predictgbm.growth.mass_effect import ELASTICITY, assemble, displacement, grow_displaced, lame, solve
from predictgbm.images import Image
from predictgbm.masks import dice
from predictgbm.registration.transforms import Field, invert, resample

H = 4.0


def axes(shape: tuple[int, ...], spacing: float = H) -> list[np.ndarray]:
    """Return the centres of the voxels along each axis, in mm from the middle of the grid."""
    return np.meshgrid(*((np.arange(n) - (n - 1) / 2) * spacing for n in shape), indexing="ij")


def radius(shape: tuple[int, ...], spacing: float = H, centre: tuple[float, ...] = (0, 0, 0)) -> np.ndarray:
    return np.asarray(np.sqrt(sum((x - c) ** 2 for x, c in zip(axes(shape, spacing), centre, strict=True))))


# A displacement that vanishes at the border of a box of 40 x 30 x 20 mm, in tissue that changes from place to place.
EDGES = np.array([40.0, 30.0, 20.0])


def known_displacement(x: np.ndarray) -> np.ndarray:
    bump = np.sin(np.pi * x / EDGES[:, None]).prod(axis=0)
    return bump * np.stack([np.cos(x[1] / 9), 1 + x[0] / 40, np.sin(x[2] / 7)])


def known_constants(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 1.4 + np.sin(x[0] / 8) * np.cos(x[1] / 11), 0.5 + 0.3 * np.cos(x[2] / 6)


def differences(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = 1e-3
) -> np.ndarray:
    """Return the derivatives of a function of places (3, n) along each axis, in the last dimension but one."""
    steps = step * np.eye(3)[:, :, None]
    return np.stack([(function(x + s) - function(x - s)) / (2 * step) for s in steps], axis=-2)


def known_stress(x: np.ndarray) -> np.ndarray:
    gradient = differences(known_displacement, x)
    first, second = known_constants(x)
    divergence = np.einsum("iin->n", gradient)
    return first * divergence * np.eye(3)[:, :, None] + second * (gradient + gradient.swapaxes(0, 1))


def test_second_order_where_the_tissue_changes() -> None:
    errors = []
    for cells in (8, 16):
        shape, h = (cells,) * 3, EDGES / cells
        centres = np.stack([(np.indices(shape)[a].ravel() + 0.5) * h[a] for a in range(3)])
        first, second = (c.reshape(shape) for c in known_constants(centres))
        stiffness, _, unknowns = assemble(first, second, np.zeros(shape), np.ones(shape, bool), h)
        nodes = np.indices((cells + 1,) * 3).reshape(3, -1) * h[:, None]
        force = -np.einsum("ijjn->in", differences(known_stress, nodes))
        load = (force.T * h.prod()).ravel()[unknowns]
        found = np.zeros(nodes.size)
        found[unknowns] = np.linalg.solve(stiffness.toarray(), load) if cells < 9 else solve(stiffness, load)
        errors.append(np.abs(found.reshape(-1, 3) - known_displacement(nodes).T).max())
    assert 1.8 < np.log2(errors[0] / errors[1]) < 2.4


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_stiffness_is_symmetric_and_positive_definite(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (4, 5, 4)
    first, second = np.exp(rng.normal(0, 2, (2, *shape)))
    inside = rng.random(shape) < 0.97
    stiffness = assemble(first, second, first, inside, rng.uniform(1, 4, 3))[0].toarray()
    if len(stiffness):
        assert np.abs(stiffness - stiffness.T).max() < 1e-12 * np.abs(stiffness).max()
        assert np.linalg.eigvalsh(stiffness).min() > 0


@pytest.mark.parametrize("layers", [("wm", "wm", "wm"), ("wm", "gm", "csf"), ("gm", "gm", "csf")])
def test_ball_under_pressure_in_a_hollow_ball(layers: tuple[str, str, str]) -> None:
    # In each layer w = a r + b / r^2. Displacement and stress, less the pressure within, are the same on both sides.
    pressure, edges = 0.4, (24.0, 40.0, 64.0)
    (l0, m0), (l1, m1), (l2, m2) = (lame(*ELASTICITY[name]) for name in layers)
    (r1, r2, r3) = edges

    def move(r: float) -> list[float]:
        return [r, r**-2]

    def pull(first: float, second: float, r: float) -> list[float]:
        return [3 * first + 2 * second, -4 * second * r**-3]

    rows = np.zeros((5, 5))
    rows[0] = [r1, *(-v for v in move(r1)), 0, 0]
    rows[1] = [pull(l0, m0, r1)[0], *(-v for v in pull(l1, m1, r1)), 0, 0]
    rows[2] = [0, *move(r2), *(-v for v in move(r2))]
    rows[3] = [0, *pull(l1, m1, r2), *(-v for v in pull(l2, m2, r2))]
    rows[4] = [0, 0, 0, *move(r3)]
    a0, a1, b1, a2, b2 = np.linalg.solve(rows, [0, pressure, 0, 0, 0])

    h = 2.0
    shape = (68,) * 3
    r = radius(shape, h)
    maps = {name: np.zeros(shape, np.float32) for name in ELASTICITY}
    for name, low, high in zip(layers, (0.0, *edges), edges, strict=False):
        maps[name][(r >= low) & (r < high)] = 1
    found = displacement((r < r1).astype(float), maps["wm"], maps["gm"], r < r3, (h,) * 3, pressure)
    expected = np.select([r < r1, r < r2, r < r3], [a0 * r, a1 * r + b1 / r**2, a2 * r + b2 / r**2])
    along = sum(found[..., k] * x for k, x in enumerate(axes(shape, h))) / r
    largest = np.abs(expected).max()
    assert np.abs(along - expected)[r < r3].mean() < 0.03 * largest
    assert np.quantile(np.abs(along - expected)[r < r3], 0.99) < 0.15 * largest
    across = np.linalg.norm(found, axis=-1) ** 2 - along**2
    assert np.quantile(np.sqrt(np.abs(across)), 0.99) < 0.1 * largest


SHAPE = (34, 38, 32)
BRAIN = radius(SHAPE) < 60
VENTRICLE = BRAIN & (radius(SHAPE, centre=(-12, 0, 0)) < 14)
RIND = BRAIN & (radius(SHAPE) > 50)
WM = (BRAIN & ~VENTRICLE & ~RIND).astype(np.float32)
GM = RIND.astype(np.float32)
CSF = VENTRICLE.astype(np.float32)
CENTRE = (16.0, 6.0, -4.0)


def test_no_tumour_moves_nothing_and_twice_the_pressure_moves_twice_as_far() -> None:
    def push(u: np.ndarray, pressure: float) -> np.ndarray:
        return displacement(u, WM, GM, BRAIN, (H,) * 3, pressure)

    u = np.exp(-((radius(SHAPE, centre=CENTRE) / 15) ** 2)) * ~VENTRICLE
    assert not push(np.zeros(SHAPE), 0.5).any()
    once = push(u, 0.25)
    np.testing.assert_allclose(push(u, 0.5), 2 * once, rtol=1e-4, atol=1e-5)
    assert 0.3 < np.linalg.norm(once, axis=-1).max() < 5
    assert not once[~BRAIN].any()
    # The soft ventricle beside it shrinks.
    assert sum(np.gradient(once[..., k], H, axis=k) for k in range(3))[VENTRICLE].mean() < -0.005


def profile(r: np.ndarray, size: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp((r - size) / 3)), np.float32)


def test_the_brain_before_and_the_concentration_are_found_again() -> None:
    # A known tumour pushes a known brain; only what is seen afterwards is told.
    pressure, size = 0.6, 16.0
    affine = np.diag([H, H, H, 1])
    tissue = 1 - VENTRICLE
    u = profile(radius(SHAPE, centre=CENTRE), size) * BRAIN * tissue
    field = Field(displacement(u, WM, GM, BRAIN, (H,) * 3, pressure), affine)
    grid = Image(BRAIN, affine)
    back = invert(field, grid)
    wm, gm, csf = (resample(Image(a, affine), grid, back) for a in (WM, GM, CSF))
    places = [
        x + back.displacement[..., k] - c for k, (x, c) in enumerate(zip(axes(SHAPE), CENTRE, strict=True))
    ]
    seen = profile(np.linalg.norm(places, axis=0), size) * BRAIN * (csf < 0.5)
    labels = np.where(seen > 0.6, 3, np.where(seen > 0.2, 2, 0)).astype(np.uint8)
    largest = np.linalg.norm(field.displacement, axis=-1).max()
    assert largest > 1.5

    def grow(tumor_seg: np.ndarray, csf: np.ndarray, brain_mask: np.ndarray, **_: np.ndarray) -> Prediction:
        """Return the profile whose centre and volume above 0.2 are those of the labels."""
        whole = (tumor_seg > 0) & (csf < 0.5)
        centre = [float(x[whole].mean()) for x in axes(SHAPE)]
        sizes = np.arange(8, 24, 0.1)
        r = radius(SHAPE, centre=tuple(centre))
        volumes = [np.count_nonzero((profile(r, s) > 0.2) & brain_mask & (csf < 0.5)) for s in sizes]
        best = float(sizes[np.abs(np.array(volumes) - np.count_nonzero(whole)).argmin()])
        place = [[c + (n - 1) / 2 * H for c, n in zip(centre, SHAPE, strict=True)]]
        return Prediction(profile(r, best) * brain_mask * (csf < 0.5), {"seeds_mm": place, "size": best})

    found = grow_displaced(grow, pressure, labels, wm, gm, csf, BRAIN, (H,) * 3)
    assert found.parameters["largest_displacement_mm"] == pytest.approx(largest, rel=0.1)
    assert found.parameters["size"] == pytest.approx(size, abs=0.5)
    assert found.parameters["displacement_change_mm"] < 0.2 * largest
    # Without looking back the tumour is taken for a larger one.
    assert grow(labels, csf, BRAIN).parameters["size"] > size + 0.8
    # Its place is told in the exam, not at rest.
    at_rest = np.array(CENTRE) + (np.array(SHAPE) - 1) / 2 * H
    moved = at_rest + field.displacement[tuple(np.rint(at_rest / H).astype(int))]
    assert found.parameters["seeds_mm"][0] == pytest.approx(moved, abs=1.0)
    error = np.abs(found.map - seen)[BRAIN & (labels > 0)]
    assert error.mean() < 0.04


LABELS = np.where(
    radius(SHAPE, centre=CENTRE) < 14, 3, np.where(radius(SHAPE, centre=CENTRE) < 22, 2, 0)
).astype(np.uint8) * (BRAIN & ~VENTRICLE)
EXAM = {"tumor_seg": LABELS, "wm": WM, "gm": GM, "csf": CSF, "brain_mask": BRAIN}


@pytest.mark.parametrize("model", [fisher_kpp, lmi])
def test_isolines_agree_with_the_labels_of_the_exam(model: object) -> None:
    predict = model.predict  # type: ignore[attr-defined]
    still, pushed = (predict(**EXAM, spacing=(H,) * 3, mass_effect=p) for p in (0.0, 0.4))
    assert pushed.parameters["mass_effect"] == 0.4
    assert 1 < pushed.parameters["largest_displacement_mm"] < 6
    assert "mass_effect" not in still.parameters
    for threshold, labels in ((0.6, LABELS == 3), (0.2, LABELS > 0)):
        assert dice(pushed.map > threshold, labels) > dice(still.map > threshold, labels) - 0.05
    assert np.isfinite(pushed.map).all()
    assert not pushed.map[~BRAIN | VENTRICLE].any()
    # Every voxel of tissue is still ranked.
    assert (pushed.map[(WM + GM) > 0] > 0).mean() > 0.99


def test_spread_is_carried_along() -> None:
    found = fisher_kpp.predict(**EXAM, spacing=(H,) * 3, mass_effect=0.4, samples=3)
    assert found.spread is not None
    # The mean of values between 0 and 1 leaves at most this deviation to three of them, also after the way back.
    largest = np.sqrt(found.map * (1 - found.map) * 1.5) + 0.05
    assert (found.spread <= largest).all()
    assert found.spread.max() > 0.01


@pytest.mark.parametrize("pressure", [-0.1, np.inf, np.nan])
def test_a_senseless_pressure_is_refused(pressure: float) -> None:
    with pytest.raises(ValueError, match=r"mass_effect is .*give a pressure of 0 \(off\) or more"):
        fisher_kpp.predict(**EXAM, spacing=(H,) * 3, mass_effect=pressure)


def test_a_pressure_that_folds_the_tissue_is_refused() -> None:
    with pytest.raises(ModelError, match="would fold the tissue of this exam; give less"):
        lmi.predict(**EXAM, spacing=(H,) * 3, mass_effect=20.0)
