"""Diffusion by tensors: the decomposition, closed forms, conservation, barriers, the adjoint, and the model with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from predictgbm.growth import fisher_kpp
from predictgbm.growth.anisotropy import edge_weights
from predictgbm.growth.calibration import CORE_THRESHOLD, DAYS, EDEMA_THRESHOLD, gaussian_seeds
from predictgbm.growth.solver import FisherKPP, relative_diffusivity
from predictgbm.neighbours import DIRECTIONS
from predictgbm.tensors import COMPONENTS, along_axes, mean_diffusivity, rotate, shape_of_diffusion


def six(full: NDArray[Any]) -> NDArray[np.float32]:
    return np.stack([full[..., i, j] for i, j in COMPONENTS], axis=-1).astype(np.float32)


def full(tensor: NDArray[Any]) -> NDArray[np.float64]:
    matrix = np.empty((*tensor.shape[:-1], 3, 3))
    for n, (i, j) in enumerate(COMPONENTS):
        matrix[..., i, j] = matrix[..., j, i] = tensor[..., n]
    return matrix


def tensor(eigenvalues: tuple[float, float, float], seed: int) -> NDArray[np.float64]:
    turn = Rotation.random(random_state=seed).as_matrix()
    return np.asarray(turn @ np.diag(eigenvalues) @ turn.T)


def random_tensors(shape: tuple[int, ...], ratio: float, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    turns = Rotation.random(int(np.prod(shape)), random_state=seed).as_matrix()
    values = rng.uniform(1, ratio, (len(turns), 3))
    matrices = np.einsum("nij,nj,nkj->nik", turns, values, turns)
    return shape_of_diffusion(six(matrices).reshape(*shape, 6))


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(*(st.floats(1, 5.5) for _ in range(3))),
    st.integers(0, 2**31),
    st.tuples(*(st.floats(0.7, 3) for _ in range(3))),
)
def test_weights_are_positive_and_add_up_to_the_tensor(
    eigenvalues: tuple[float, float, float], seed: int, spacing: tuple[float, float, float]
) -> None:
    d = tensor(eigenvalues, seed)
    h = np.array(spacing)
    weights = edge_weights(np.broadcast_to(six(d), (3, 3, 3, 6)), h)[:, 1, 1, 1]
    assert (weights >= 0).all()
    steps = DIRECTIONS * h
    found = np.einsum("n,ni,nj->ij", weights, steps, steps)
    assert np.trace(found) == pytest.approx(np.trace(d), rel=1e-4)
    if spacing[0] == spacing[1] == spacing[2]:
        np.testing.assert_allclose(found, d, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_cubic_voxels_need_no_rounding_up_to_the_anisotropy_of_white_matter(seed: int) -> None:
    d = tensor((5.5, 1.0, 1.0), seed)
    weights = edge_weights(np.broadcast_to(six(d), (3, 3, 3, 6)), np.ones(3))[:, 1, 1, 1]
    np.testing.assert_allclose(np.einsum("n,ni,nj->ij", weights, DIRECTIONS, DIRECTIONS), d, atol=1e-5)


def test_diffusion_alone_is_the_anisotropic_heat_kernel() -> None:
    shape, width, diffusivity, days = (61, 57, 59), 3.0, 0.3, 30.0
    d = tensor((4.0, 1.5, 1.0), 3)
    d *= 3 / np.trace(d)
    centre = (np.array(shape) - 1) / 2
    start = gaussian_seeds(shape, (1.0, 1.0, 1.0), centre[None], np.array([0.5]), width=width)
    end = FisherKPP(np.broadcast_to(six(d), (*shape, 6)), (1.0, 1.0, 1.0)).simulate(
        start, diffusivity, 0.0, days
    )
    covariance = width**2 * np.eye(3) + 2 * diffusivity * days * d
    r = np.moveaxis(np.indices(shape), 0, -1) - centre
    exponent = np.einsum("...i,ij,...j->...", r, np.linalg.inv(covariance), r)
    expected = 0.5 * width**3 / np.sqrt(np.linalg.det(covariance)) * np.exp(-exponent / 2)
    assert np.abs(end - expected).max() < 0.01 * expected.max()
    places = np.stack([end * r[..., i] * r[..., j] for i, j in COMPONENTS]).reshape(6, -1).sum(axis=1)
    # Each voxel adds its own width to the variance.
    found = full(places / end.sum()) - np.eye(3) / 12
    np.testing.assert_allclose(found, covariance, rtol=0.005, atol=0.05)


def test_isotropic_tensors_change_nothing() -> None:
    rng = np.random.default_rng(0)
    wm = rng.random((20, 24, 22), np.float32)
    gm = np.where(wm < 0.15, 0, 1 - wm).astype(np.float32)
    wm[gm == 0] = 0
    ball = np.zeros((*wm.shape, 6), np.float32)
    ball[..., [0, 2, 5]] = 700
    start = np.zeros(wm.shape)
    start[10, 12, 11] = 1
    plain, tensors = (
        FisherKPP(relative_diffusivity(wm, gm, tensor=t), (1.0, 1.5, 2.0)).simulate(start, 0.3, 0.05, 40)
        for t in (None, ball)
    )
    np.testing.assert_allclose(tensors, plain, atol=1e-6)


def test_cells_are_conserved_never_negative_and_stay_in_tissue() -> None:
    shape = (18, 16, 20)
    relative = random_tensors(shape, 8.0)
    tissue = np.random.default_rng(1).random(shape) < 0.8
    relative[~tissue] = 0
    start = np.where(tissue, np.random.default_rng(2).random(shape) ** 8, 0)
    solver = FisherKPP(relative, (1.0, 1.2, 1.1))
    end = solver.simulate(start, 0.5, 0.0, 20, active_threshold=None)
    assert end.sum() == pytest.approx(start.sum(), rel=1e-5)
    assert end.min() >= 0
    assert (end[~tissue] == 0).all()
    assert solver.simulate(start, 0.5, 0.2, 40).max() <= 1 + 1e-6


def test_nothing_crosses_the_corner_between_two_walls() -> None:
    """Voxels that touch by an edge only, as on both sides of a sulcus, are no neighbours, however the tensor lies."""
    n = 16
    i, j, _ = np.indices((n, n, 6))
    across = six(np.array([[3.0, 2.0, 0], [2.0, 3.0, 0], [0, 0, 1.0]]))
    relative = np.where(((i + j) == n)[..., None], 0, across).astype(np.float32)
    start = np.where(i + j < n - 4, 0.5, 0)
    end = FisherKPP(relative, (1.0, 1.0, 1.0)).simulate(start, 1.0, 0.1, 50, active_threshold=None)
    assert (end[i + j > n] == 0).all()
    assert end[i + j == n - 1].min() > 0.5


def test_active_box_changes_nothing_visible() -> None:
    relative = random_tensors((30, 30, 30), 5.0)
    start = np.zeros((30, 30, 30))
    start[14, 15, 16] = 0.5
    solver = FisherKPP(relative, (1.0, 1.0, 1.0))
    box, whole = (solver.simulate(start, 0.2, 0.1, 40, active_threshold=t) for t in (1e-6, None))
    assert np.abs(box - whole).max() < 1e-5


def test_rotating_brain_and_tensors_rotates_the_tumour() -> None:
    shape = (14, 16, 12)
    relative = random_tensors(shape, 5.0)
    start = np.zeros(shape)
    start[6, 9, 5] = 0.8
    here = FisherKPP(relative, (1.0, 1.0, 1.0)).simulate(start, 0.3, 0.05, 20)
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = rotate(np.ascontiguousarray(np.rot90(relative)), quarter.T)
    there = FisherKPP(turned, (1.0, 1.0, 1.0)).simulate(np.rot90(start), 0.3, 0.05, 20)
    np.testing.assert_allclose(there, np.rot90(here), atol=1e-5)


def test_adjoint_agrees_with_float64_differences() -> None:
    shape = (12, 13, 14)
    rng = np.random.default_rng(5)
    relative = random_tensors(shape, 5.0).astype(np.float64)
    relative[rng.random(shape) < 0.1] = 0
    start = np.where(mean_diffusivity(relative) > 0, rng.random(shape) * 0.5, 0)
    weight = rng.normal(size=shape)
    solver = FisherKPP(relative, (1.0, 1.1, 1.3), np.float64)

    def value(initial: NDArray[Any], d: float, rho: float) -> float:
        u = solver.simulate(initial, d, rho, 10, time_step=0.25, active_threshold=None)
        return float((weight * u**2).sum())

    found = solver.gradient(
        start,
        0.3,
        0.1,
        10,
        lambda u: (float((weight * u**2).sum()), 2 * weight * u),
        time_step=0.25,
        active_threshold=None,
    )
    assert found.value == pytest.approx(value(start, 0.3, 0.1))
    step = 1e-5
    assert found.diffusivity == pytest.approx(
        (value(start, 0.3 + step, 0.1) - value(start, 0.3 - step, 0.1)) / (2 * step), rel=1e-5
    )
    assert found.proliferation == pytest.approx(
        (value(start, 0.3, 0.1 + step) - value(start, 0.3, 0.1 - step)) / (2 * step), rel=1e-5
    )
    direction = np.where(start > 0, rng.normal(size=shape), 0)
    slope = (value(start + step * direction, 0.3, 0.1) - value(start - step * direction, 0.3, 0.1)) / (
        2 * step
    )
    assert float((found.initial * direction).sum()) == pytest.approx(slope, rel=1e-5)


def test_implicit_scheme_is_refused() -> None:
    solver = FisherKPP(random_tensors((5, 5, 5), 3.0), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="use explicit"):
        solver.simulate(np.zeros((5, 5, 5)), 0.1, 0.1, 1, scheme="implicit")


def test_shape_of_diffusion_believes_only_what_can_be() -> None:
    measured = np.stack(
        [
            six(np.diag([1400.0, 350, 350])),
            six(np.diag([900.0, 800, -50])),  # noise
            np.zeros(6, np.float32),  # not measured
            six(np.diag([-10.0, -10, -10])),
        ]
    )[None, None]
    shapes = full(shape_of_diffusion(measured)[0, 0])
    np.testing.assert_allclose(shapes[0], np.diag([2.0, 0.5, 0.5]), atol=1e-6)
    np.testing.assert_allclose(np.trace(shapes, axis1=1, axis2=2), 3, atol=1e-5)
    assert np.linalg.eigvalsh(shapes[1]).min() == pytest.approx(shapes[1, 0, 0] / 10, rel=1e-5)
    np.testing.assert_array_equal(shapes[2:], [np.eye(3)] * 2)


def test_tensors_follow_the_axes_of_the_array() -> None:
    d = tensor((3.0, 2.0, 1.0), 1)
    # Axes of the array run left, superior, anterior.
    affine = np.array([[-2.0, 0, 0, 10], [0, 0, 3, 20], [0, 1, 0, 30], [0, 0, 0, 1]])
    found = full(along_axes(six(d)[None, None, None], affine)[0, 0, 0])
    axes = [-np.eye(3)[0], np.eye(3)[2], np.eye(3)[1]]
    expected = [[a @ d @ b for b in axes] for a in axes]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_model_follows_tracts_that_made_the_tumour() -> None:
    shape, spacing = (40, 40, 40), (2.0, 2.0, 2.0)
    r = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - 19.5, axis=-1)
    brain = r < 19
    wm = np.where(brain, 1, 0).astype(np.float32)
    tracts = np.broadcast_to(six(tensor((5.0, 1.0, 1.0), 2)), (*shape, 6))
    solver = FisherKPP(relative_diffusivity(wm, 0 * wm, tensor=tracts), spacing)
    seeds = np.array([[39.0, 36, 41]])
    grown = solver.simulate(gaussian_seeds(shape, spacing, seeds, np.array([0.5])), 0.2, 0.12, DAYS)
    labels = np.select([grown > CORE_THRESHOLD, grown > EDEMA_THRESHOLD], [3, 2], 0).astype(np.uint8)

    def predict(measured: NDArray[Any] | None) -> dict[str, Any]:
        return fisher_kpp.predict(labels, wm, 0 * wm, 0 * wm, brain, measured, spacing=spacing).parameters

    informed, blind = predict(tracts), predict(None)
    assert informed["anisotropic"]
    assert not blind["anisotropic"]
    assert informed["diffusivity_mm2_per_day"] == pytest.approx(0.2, rel=0.1)
    assert informed["proliferation_per_day"] == pytest.approx(0.12, rel=0.05)
    assert informed["dice_whole"] > 0.97 > blind["dice_whole"] + 0.05
