"""Calibration on tumours that are known, and the model on exams that are awkward."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.growth import ModelError, calibration
from predictgbm.growth.fisher_kpp import predict
from predictgbm.growth.solver import FisherKPP, relative_diffusivity

Exam = dict[str, NDArray[Any]]


def brain(shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int = 0) -> Exam:
    """Make an ellipsoid of white matter in a rind of grey matter, with ventricles, all with blurred borders."""
    grid = np.stack(
        np.meshgrid(*[np.arange(n) * h for n, h in zip(shape, spacing, strict=True)], indexing="ij")
    )
    size = np.array(shape) * np.array(spacing)
    centred = grid - size[:, None, None, None] / 2
    half = size[:, None, None, None] / 2 - 5
    depth = 1 - np.sqrt(((centred / half) ** 2).sum(axis=0))
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4 / np.array(spacing))
    wm = 1 / (1 + np.exp(-(depth - 0.2 + 0.1 * noise / noise.std()) * 25))
    ventricle = np.sqrt((centred[0] / 6) ** 2 + (centred[1] / 16) ** 2 + (centred[2] / 8) ** 2)
    csf = 1 / (1 + np.exp((ventricle - 1) * 8))
    mask = depth > 0
    wm, gm = wm * (1 - csf) * mask, (1 - wm) * (1 - csf) * mask
    return {"wm": wm, "gm": gm, "csf": csf * mask, "brain_mask": mask.astype(np.uint8)}


def grow(
    exam: Exam,
    spacing: tuple[float, float, float],
    diffusivity: float,
    proliferation: float,
    seeds: list[tuple[float, float, float]],
    peaks: tuple[float, ...] = (calibration.SEED_PEAK,),
) -> NDArray[np.uint8]:
    """Return the labels of a tumour that the solver makes."""
    relative = relative_diffusivity(exam["wm"], exam["gm"], brain_mask=exam["brain_mask"])
    start = calibration.gaussian_seeds(relative.shape, spacing, np.array(seeds), np.array(peaks))
    u = FisherKPP(relative, spacing).simulate(start, diffusivity, proliferation, calibration.DAYS)
    labels = np.zeros(u.shape, np.uint8)
    labels[u > calibration.EDEMA_THRESHOLD] = 2
    labels[u > calibration.CORE_THRESHOLD] = 3
    return labels


TWO_MM = (2.0, 2.0, 2.0)
SHAPE = (56, 64, 48)


@pytest.fixture(scope="module")
def exam() -> Exam:
    return brain(SHAPE, TWO_MM)


@pytest.mark.parametrize(
    ("diffusivity", "proliferation", "seed"),
    [
        (0.10, 0.10, (34.0, 60.0, 50.0)),
        (0.25, 0.08, (80.0, 75.0, 46.0)),
        (0.06, 0.12, (57.0, 92.5, 41.0)),
        (0.30, 0.06, (40.0, 80.0, 60.0)),
    ],
)
def test_parameters_of_a_known_tumour_are_found(
    exam: Exam, diffusivity: float, proliferation: float, seed: tuple[float, float, float]
) -> None:
    labels = grow(exam, TWO_MM, diffusivity, proliferation, [seed])
    assert (labels == 3).sum() * 0.008 > 1  # ml
    found = predict(labels, **exam, spacing=TWO_MM, seed=0).parameters
    assert found["diffusivity_mm2_per_day"] == pytest.approx(diffusivity, rel=0.15)
    assert found["proliferation_per_day"] == pytest.approx(proliferation, rel=0.05)
    assert np.linalg.norm(np.array(found["seeds_mm"][0]) - seed) < 1.0
    assert found["dice_core"] > 0.95
    assert found["dice_whole"] > 0.95


def test_unequal_voxel_sizes() -> None:
    spacing = (1.5, 1.5, 4.0)
    exam = brain((72, 84, 24), spacing)
    labels = grow(exam, spacing, 0.15, 0.1, [(38.0, 60.0, 48.0)])
    found = predict(labels, **exam, spacing=spacing, seed=0).parameters
    assert found["diffusivity_mm2_per_day"] == pytest.approx(0.15, rel=0.15)
    assert found["proliferation_per_day"] == pytest.approx(0.1, rel=0.05)


def test_two_foci_get_a_seed_each(exam: Exam) -> None:
    seeds = [(32.0, 50.0, 48.0), (84.0, 80.0, 48.0)]
    labels = grow(exam, TWO_MM, 0.1, 0.1, seeds, (0.5, 0.1))
    found = predict(labels, **exam, spacing=TWO_MM, seed=0).parameters
    np.testing.assert_allclose(found["seeds_mm"], seeds, atol=1.5)
    assert found["seed_peaks"][1] == pytest.approx(0.1, rel=0.3)
    assert found["proliferation_per_day"] == pytest.approx(0.1, rel=0.05)
    assert found["dice_whole"] > 0.9


def test_several_foci_are_searched_from_several_starts(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three seeds whose tumours have met: the parts of the core do not tell where they began.
    seeds = [(40.0, 52.0, 48.0), (52.0, 70.0, 52.0), (72.0, 84.0, 46.0)]
    labels = grow(exam, TWO_MM, 0.12, 0.1, seeds, (0.5, 0.02, 0.2))
    # A cut through the core makes two foci of it.
    labels[:, 35:37] = np.where(labels[:, 35:37] == 3, 2, labels[:, 35:37])
    starts = []
    search = calibration._search

    def kept(*arguments: object) -> list[np.ndarray]:
        starts.append(search(*arguments))
        return starts[-1]

    monkeypatch.setattr(calibration, "_search", kept)
    several = predict(labels, **exam, spacing=TWO_MM, seed=0).parameters["misfit_mm"]
    assert len(starts[0]) == 2 * calibration.STARTS
    monkeypatch.setattr(calibration, "_search", lambda *arguments: search(*arguments)[:1])
    assert several <= predict(labels, **exam, spacing=TWO_MM, seed=0).parameters["misfit_mm"] + 1e-3


def test_map_ranks_the_brain_far_from_the_tumour(exam: Exam) -> None:
    labels = grow(exam, TWO_MM, 0.15, 0.1, [(40.0, 60.0, 50.0)])
    image = predict(labels, **exam, spacing=TWO_MM, seed=0).map
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert not image[exam["brain_mask"] == 0].any()
    tissue = relative_diffusivity(exam["wm"], exam["gm"], brain_mask=exam["brain_mask"]) > 0
    near = ndimage.distance_transform_edt(labels == 0, TWO_MM) < 30
    values = image[tissue & near]
    assert (values > 0).mean() > 0.99
    assert len(np.unique(values)) > 0.99 * len(values)


def test_prediction_repeats_and_its_parameters_are_json(exam: Exam) -> None:
    labels = grow(exam, TWO_MM, 0.15, 0.1, [(40.0, 60.0, 50.0)])
    first = predict(labels, **exam, spacing=TWO_MM, seed=0)
    second = predict(labels, **exam, spacing=TWO_MM, seed=0)
    np.testing.assert_array_equal(first.map, second.map)
    parameters = {**first.parameters, "seconds": 0}
    assert parameters == {**second.parameters, "seconds": 0}
    assert json.loads(json.dumps(parameters, allow_nan=False)) == parameters


def test_inputs_are_left_alone(exam: Exam) -> None:
    labels = grow(exam, TWO_MM, 0.15, 0.1, [(40.0, 60.0, 50.0)])
    before = {name: array.copy() for name, array in exam.items()}
    labels_before = labels.copy()
    predict(labels, **exam, spacing=TWO_MM, seed=0)
    np.testing.assert_array_equal(labels, labels_before)
    for name, array in exam.items():
        np.testing.assert_array_equal(array, before[name])


def ball(centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    grid = np.indices(SHAPE) * 2.0
    return ((grid - np.array(centre)[:, None, None, None]) ** 2).sum(axis=0) <= radius**2


@pytest.mark.parametrize(
    ("core", "edema"),
    [
        pytest.param(ball((40, 60, 50), 12), None, id="no edema"),
        pytest.param(None, ball((40, 60, 50), 15), id="edema without core"),
        pytest.param(ball((40, 60, 50), 1), ball((40, 60, 50), 14), id="core of one voxel"),
        pytest.param(ball((40, 60, 50), 1), None, id="a single voxel"),
        pytest.param(ball((56, 64, 48), 5), ball((56, 64, 48), 16), id="core in the ventricle"),
        pytest.param(ball((56, 64, 80), 16), ball((56, 64, 80), 30), id="at the border of the brain"),
        pytest.param(ball((34, 64, 48), 26), ball((40, 64, 48), 42), id="huge"),
    ],
)
def test_awkward_tumours_still_give_a_map(
    exam: Exam, core: NDArray[np.bool_] | None, edema: NDArray[np.bool_] | None
) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    if edema is not None:
        labels[edema] = 2
    if core is not None:
        labels[core] = 3
    labels[exam["brain_mask"] == 0] = 0
    result = predict(labels, **exam, spacing=TWO_MM, seed=0)
    assert np.isfinite(result.map).all()
    assert result.map.max() > 0.1
    # The map is highest where the tumour is: of its best voxels, as many as the tumour has, most are tumour.
    n = int((labels > 0).sum())
    best = np.argsort(result.map.ravel())[::-1][:n]
    assert (labels.ravel()[best] > 0).mean() > (0.6 if n > 1 else 0.0)


@pytest.mark.parametrize("width", [0.4, 1.0, 3.0])
def test_far_surface_counts_as_far_however_steep_the_front(width: float) -> None:
    # A front that is a step between core and edema would else fit both better than one with a slope.
    tissue, spacing, seed = np.ones(SHAPE, np.float32), np.array(TWO_MM), np.array([[56.0, 64.0, 48.0]])
    speed = 0.12
    vector = calibration.Parameters(
        0.5 * speed * width, 0.5 * speed / width, seed, np.array([0.5])
    ).to_vector()

    def misfit(radius: float) -> float:
        label = ball((56, 64, 48), radius)
        surface = calibration.surface(label, label >= 0, spacing, calibration.CORE_THRESHOLD)
        level = calibration._Level(tissue, [surface], spacing, (1, 1, 1))
        return float(np.sqrt((level.residual(vector)[:-2] ** 2).sum()))

    radii = np.arange(6.0, 40.0, 2.0)
    misfits = [misfit(r) for r in radii]
    nearest = int(np.argmin(misfits))
    away = radii[nearest:] - radii[nearest]
    assert away.max() >= 20
    assert np.all(np.array(misfits[nearest:]) > 0.6 * calibration.robust(away))


def test_tumour_where_the_maps_show_only_csf_can_still_grow(exam: Exam) -> None:
    labels = np.where(ball((56, 64, 48), 4), 3, 0).astype(np.uint8)
    assert exam["csf"][labels == 3].min() > 0.7
    result = predict(labels, **exam, spacing=TWO_MM, seed=0)
    assert result.parameters["displaced_voxels"] > 0
    assert result.map[labels == 3].max() > 0.1


def test_no_tumour_and_tumour_outside_the_brain_are_refused(exam: Exam) -> None:
    with pytest.raises(ModelError, match="no tumour"):
        predict(np.zeros(SHAPE, np.uint8), **exam, spacing=TWO_MM, seed=0)
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0] = 3
    with pytest.raises(ModelError, match="no tumour"):
        predict(labels, **exam, spacing=TWO_MM, seed=0)
    labels[...] = 4 * exam["brain_mask"]
    with pytest.raises(ModelError, match="no tumour"):
        predict(labels, **exam, spacing=TWO_MM, seed=0)


def test_seed_has_the_same_mass_on_every_grid() -> None:
    seeds, peaks = np.array([[31.3, 30.1, 28.7]]), np.array([0.4])
    expected = 0.4 * (2 * np.pi) ** 1.5 * calibration.SEED_WIDTH_MM**3
    for h in (1.0, 2.0, 4.0):
        field = calibration.gaussian_seeds((int(60 / h),) * 3, (h,) * 3, seeds, peaks)
        assert field.sum() * h**3 == pytest.approx(expected, rel=1e-6)


def test_block_mean_is_the_mean_of_blocks() -> None:
    image = np.random.default_rng(0).random((6, 9, 8))
    expected = image.reshape(3, 2, 3, 3, 2, 4).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(calibration.block_mean(image, (2, 3, 4)), expected, rtol=1e-5)
    # A block that the edge cuts is filled up with zeros.
    np.testing.assert_allclose(calibration.block_mean(np.ones((3, 2, 2)), (2, 2, 2)).ravel(), [1.0, 0.5])


def test_foci_are_the_large_parts_of_the_core_largest_first() -> None:
    core = ball((30, 40, 40), 6) | ball((80, 80, 50), 10) | ball((60, 100, 40), 1)
    foci = calibration.find_foci(core, np.ones(SHAPE, bool), TWO_MM)
    np.testing.assert_allclose(foci, [(80, 80, 50), (30, 40, 40)])


def test_covariance_of_a_linear_problem_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    jacobian = rng.normal(size=(500, 5)) / np.sqrt(500)
    by_thresholds = np.zeros((500, 2))
    noise = 2.0**2 / (5000 / calibration.CORRELATION_MM**2)
    prior = np.diag(np.repeat(calibration.PRIOR_SPREAD, [2, 3, 0]) ** -2.0)
    alone = np.linalg.inv(jacobian.T @ jacobian / noise + prior)
    found = calibration._covariance(jacobian, by_thresholds, 2.0, [5000.0, 5000.0])
    assert found == pytest.approx(alone)
    # A threshold that acts as the first parameter does makes that parameter as uncertain as itself.
    by_thresholds[:, 0] = 3 * jacobian[:, 0]
    found = calibration._covariance(jacobian, by_thresholds, 2.0, [5000.0, 5000.0])
    shrunk = alone @ (jacobian.T @ jacobian / noise)[:, 0] * 3 * calibration.THRESHOLD_SPREAD
    assert found == pytest.approx(alone + np.outer(shrunk, shrunk))


def test_posterior_gives_mean_and_spread(exam: Exam) -> None:
    labels = grow(exam, TWO_MM, 0.15, 0.1, [(40.0, 60.0, 50.0)])
    best = predict(labels, **exam, spacing=TWO_MM)
    found, again = (predict(labels, **exam, spacing=TWO_MM, seed=3, samples=12) for _ in range(2))
    assert best.spread is None
    assert found.spread is not None
    assert np.array_equal(found.map, again.map)
    assert np.array_equal(found.spread, again.spread)
    other = predict(labels, **exam, spacing=TWO_MM, seed=4, samples=12)
    assert not np.array_equal(found.map, other.map)
    # What is certain: full inside, empty far away. The front is not.
    assert found.spread[best.map > 0.99].max(initial=0.0) < 0.1
    assert found.spread[best.map < 1e-8].max() < 1e-3
    front = (best.map > 0.2) & (best.map < 0.6)
    assert found.spread[front].mean() > 5 * found.spread[best.map < 1e-3].mean()
    assert np.abs(found.map - best.map)[front].mean() < 2 * found.spread[front].mean()
    assert found.parameters["samples"] == 12
    assert 0 < found.parameters["log_speed_deviation"] < 0.5
    assert found.parameters["dice_core"] == best.parameters["dice_core"]


def test_unknown_thresholds_make_the_width_of_the_front_as_unknown(exam: Exam) -> None:
    labels = grow(exam, TWO_MM, 0.15, 0.1, [(40.0, 60.0, 50.0)])
    found = predict(labels, **exam, spacing=TWO_MM, samples=2).parameters
    # The width is the distance of the two surfaces over the difference of their logits.
    logits = np.log(0.6 / 0.4) - np.log(0.2 / 0.8)
    expected = np.sqrt(2) * calibration.THRESHOLD_SPREAD / logits
    assert found["log_width_deviation"] == pytest.approx(expected, rel=0.3)
