import numba
import numpy as np
import pytest

from predictgbm.growth import ModelError
from predictgbm.growth.loti import Descent, predict

SHAPE = (9, 10, 11)
N_SRI24 = 240 * 240 * 155


def loss_of_the_source(x, s, brain, seg, spacing, pet=None, residual=True):
    """Transcribe the loss as docs/models.md writes it, on the whole grid, without any of the package's code."""
    u = np.clip(x * brain, 1e-5, 1)
    s = np.clip(s, 1e-5, 100)
    whole, core = np.isin(seg, [1, 2, 3]), np.isin(seg, [1, 3])

    def soft_dice(threshold, q):
        with np.errstate(over="ignore"):
            p = 1 / (1 + np.exp(-500 * (u - threshold)))
        return 1 - (2 * (p * q).sum() + 1e-6) / (p.sum() + q.sum() + 1e-6)

    padded = np.pad(u, 1, constant_values=1e-5)
    differences = np.zeros(u.shape)
    square = np.zeros(u.shape)
    inner = brain.copy()
    block = np.pad(brain, 1)
    for i in range(3):
        for j in range(3):
            for k in range(3):
                inner &= block[i : i + u.shape[0], j : j + u.shape[1], k : k + u.shape[2]]
    for axis, h in enumerate(spacing):
        middle = tuple(slice(1, -1) if a != axis else slice(None) for a in range(3))
        line = np.moveaxis(padded[middle], axis, 0)
        forward, backward = (line[2:] - line[1:-1]) / h, (line[1:-1] - line[:-2]) / h
        differences += np.moveaxis(np.abs(forward) + np.abs(backward), 0, axis)
        square += np.moveaxis((line[2:] - line[:-2]) / (2 * h), 0, axis) ** 2
    total = soft_dice(0.2, whole) + soft_dice(0.6, core)
    total += 1000 * np.clip(differences**2, 1e-5, 1e3)[u > 0.001].mean()
    if residual:
        r = inner * (s * u * (1 - u) - np.sqrt(np.clip(square, 1e-5, 1e3))) / s
        total += 1000 * (r**2).sum() / (N_SRI24 / np.prod(spacing))
    if pet is not None:
        uptake = np.where(seg == 1, 0, pet)
        hot = (uptake > 1e-4) & brain
        total += 1 - np.corrcoef(u[hot], uptake[hot])[0, 1]
    return total


@pytest.fixture
def exam():
    """Return a field, a brain and a tumour without ties, away from the kinks of the loss, some of it out of bounds."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0.02, 0.98, SHAPE)
    x[rng.random(SHAPE) < 0.3] = rng.uniform(0.19, 0.21)
    x[rng.random(SHAPE) < 0.2] = rng.uniform(0.59, 0.61)
    x += rng.uniform(-0.005, 0.005, SHAPE)
    x[rng.random(SHAPE) < 0.05] *= -1
    x[rng.random(SHAPE) < 0.05] += 1
    brain = np.ones(SHAPE, bool)
    brain[:2, :3], brain[-1], brain[5, 5, 9:] = False, False, False
    seg = np.zeros(SHAPE, np.uint8)
    seg[3:7, 3:8, 3:9], seg[4:6, 4:7, 4:8], seg[4, 5, 5:7] = 2, 3, 1
    return x, brain, seg, rng.uniform(0, 3, SHAPE)


def placed(exam, spacing, physics=True, with_pet=True, s=0.3):
    x, brain, seg, pet = exam
    descent = Descent(seg, brain, spacing, pet if with_pet else None, physics, np.float64)
    field = np.zeros(descent.x.shape)
    field[2:-2, 2:-2, 2:-2] = x[descent.box]
    descent.place(field, s)
    return descent


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (0.9, 1.1, 3.0)])
@pytest.mark.parametrize(("physics", "with_pet"), [(True, True), (False, False)])
def test_loss_is_that_of_the_source(exam, spacing, physics, with_pet):
    x, brain, seg, pet = exam
    expected = loss_of_the_source(x, 0.3, brain, seg, spacing, pet if with_pet else None, physics)
    assert placed(exam, spacing, physics, with_pet).loss()["total"] == pytest.approx(expected, rel=1e-10)


def test_gradient_is_that_of_finite_differences(exam):
    x, brain, seg, pet = exam
    spacing, s, e = (1.0, 1.2, 1.5), 0.3, 1e-6
    descent = placed(exam, spacing)
    descent.step()
    # The first step from zero moments leaves (1 - beta1) times the gradient in m.
    gradient = np.zeros(SHAPE)
    gradient[descent.box] = descent.m[2:-2, 2:-2, 2:-2] / 0.1

    def loss(x, s):
        return loss_of_the_source(x, s, brain, seg, spacing, pet)

    expected = {}
    for index in map(tuple, np.random.default_rng(3).integers(0, SHAPE, (150, 3))):
        high, low = x.copy(), x.copy()
        high[index] += e
        low[index] -= e
        expected[index] = (loss(high, s) - loss(low, s)) / (2 * e)
    values = np.array(list(expected.values()))
    assert np.count_nonzero(values) > 75
    found = [gradient[index] for index in expected]
    np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6 * np.abs(values).max())
    assert descent.s_m / 0.1 == pytest.approx((loss(x, s + e) - loss(x, s - e)) / (2 * e), rel=1e-6)


def test_steps_are_those_of_adam():
    rng = np.random.default_rng(2)
    shape, s = (3, 3, 3), 0.4
    x = rng.uniform(0.1, 0.9, shape)
    brain, seg = np.ones(shape, bool), rng.integers(1, 4, shape).astype(np.uint8)
    descent = Descent(seg, brain, (1.0, 1.0, 1.0), None, True, np.float64)
    descent.place(np.pad(x, 2), s)
    point = np.append(x.ravel(), s)
    m, v = np.zeros(28), np.zeros(28)
    for t in range(1, 6):
        gradient = np.zeros(28)
        for i in range(28):
            e = np.zeros(28)
            e[i] = 1e-6
            up, down = (
                loss_of_the_source(q[:27].reshape(shape), q[27], brain, seg, (1.0, 1.0, 1.0))
                for q in (point + e, point - e)
            )
            gradient[i] = (up - down) / 2e-6
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        point = point - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        descent.step()
    np.testing.assert_allclose(descent.x[2:-2, 2:-2, 2:-2].ravel(), point[:27], atol=1e-6)
    # The residual is a small part of the loss: its finite difference by s has fewer digits.
    assert descent.s == pytest.approx(point[27], abs=5e-5)
    assert abs(descent.s - s) > 0.01


def test_float32_agrees_with_float64(exam):
    _, brain, seg, pet = exam
    double = placed(exam, (1.0, 1.0, 1.0))
    single = Descent(seg, brain, (1.0, 1.0, 1.0), pet, True)
    single.place(double.x, 0.3)
    assert single.u.dtype == np.float32
    for key, value in double.step().items():
        assert single.loss()[key] == pytest.approx(value, rel=2e-4), key
    single.step()
    np.testing.assert_allclose(single.m, double.m, atol=2e-4 * np.abs(double.m).max())


def ball(shape, centre, radius, spacing=1.0):
    grid = np.indices(shape) * spacing
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def patient(spacing=1.0, centre=(24.0, 24.0, 24.0), edema=11.0, core=6.0):
    shape = (round(48 / spacing) + 1,) * 3
    brain = ball(shape, (24, 24, 24), 22, spacing)
    seg = np.zeros(shape, np.uint8)
    seg[ball(shape, centre, edema, spacing) & brain] = 2
    seg[ball(shape, centre, core, spacing) & brain] = 3
    tissue = brain.astype(np.float32)
    return {"tumor_seg": seg, "brain_mask": brain, "wm": 0.7 * tissue, "gm": 0.3 * tissue, "csf": 0 * tissue}


@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_map_falls_from_core_over_edema_to_brain(spacing):
    inputs = patient(spacing)
    u = predict(**inputs, spacing=(spacing,) * 3).map
    brain, seg = inputs["brain_mask"], inputs["tumor_seg"]
    assert u.dtype == np.float32
    assert u.shape == seg.shape
    assert (u[~brain] == 0).all()
    assert (u[brain] > 0).all()
    assert u.max() <= 1
    around = brain & (seg == 0) & ball(seg.shape, (24, 24, 24), 15, spacing)
    core, edema, near = (np.median(u[mask]) for mask in (seg == 3, seg == 2, around))
    far = np.median(u[brain & ~ball(seg.shape, (24, 24, 24), 18, spacing)])
    assert core > edema > near > far


def test_map_does_not_depend_on_threads_or_on_the_air_around_the_head():
    inputs = patient(2.0)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = predict(**inputs, spacing=(2.0, 2.0, 2.0), iterations=60).map
    finally:
        numba.set_num_threads(before)
    airy = {name: np.pad(array, ((5, 0), (0, 7), (1, 2))) for name, array in inputs.items()}
    other = predict(**airy, spacing=(2.0, 2.0, 2.0), iterations=60).map
    np.testing.assert_array_equal(one, other[5:, :-7, 1:-2])


def test_brain_that_fills_the_grid_has_no_neighbour_across_its_edge():
    inputs = {name: array[12:37, 12:37, 12:37] for name, array in patient().items()}
    inputs["tumor_seg"] = np.where(np.indices((25, 25, 25))[0] < 3, 3, 0).astype(np.uint8)
    inputs |= {"brain_mask": np.ones((25, 25, 25), bool), "wm": np.ones((25, 25, 25), np.float32)}
    u = predict(**inputs, spacing=(1.0, 1.0, 1.0), iterations=100).map
    assert u[:3].mean() > 10 * u[-3:].mean()


@pytest.mark.parametrize(
    ("centre", "edema", "core"),
    [((24.0, 24.0, 3.0), 9.0, 5.0), ((24.0, 24.0, 24.0), 0.0, 0.5), ((24.0, 24.0, 24.0), 8.0, 0.5)],
    ids=["at the skull", "one voxel, no oedema", "one voxel"],
)
def test_awkward_tumours(centre, edema, core):
    inputs = patient(1.0, centre, edema, core)
    u = predict(**inputs, spacing=(1.0, 1.0, 1.0), iterations=200).map
    seg = inputs["tumor_seg"]
    assert np.isfinite(u).all()
    assert np.median(u[seg > 0]) > np.median(u[inputs["brain_mask"] & (seg == 0)])


def test_tumour_where_the_tissue_maps_have_a_hole_is_kept():
    inputs = patient()
    for name in ("wm", "gm", "csf"):
        inputs[name] = np.where(inputs["tumor_seg"] > 0, 0, inputs[name])
    u = predict(**inputs, spacing=(1.0, 1.0, 1.0), iterations=100).map
    assert np.median(u[inputs["tumor_seg"] == 3]) > 0.4


def test_pet_draws_the_concentration():
    inputs = patient(2.0)
    left = np.indices(inputs["tumor_seg"].shape)[0] < 12
    pet = np.where(left, 3.0, 1.0) * inputs["brain_mask"]
    without = predict(**inputs, spacing=(2.0, 2.0, 2.0)).map
    with_pet = predict(**inputs, pet=pet.astype(np.float32), spacing=(2.0, 2.0, 2.0))
    right = inputs["brain_mask"] & ~left
    left &= inputs["brain_mask"]
    assert (
        with_pet.map[left].mean() / with_pet.map[right].mean()
        > 1.05 * without[left].mean() / without[right].mean()
    )
    assert "pet" in with_pet.parameters["loss"]


@pytest.mark.parametrize("pet", [0.0, 2.0])
def test_pet_without_contrast_is_refused(pet):
    inputs = patient(2.0)
    with pytest.raises(ModelError, match="PET"):
        predict(**inputs, pet=np.full(inputs["wm"].shape, pet, np.float32), spacing=(2.0, 2.0, 2.0))


def test_core_outside_the_brain_is_refused():
    inputs = patient(2.0)
    inputs["brain_mask"] = ball(inputs["wm"].shape, (24, 24, 4), 3, 2.0)
    with pytest.raises(ModelError, match="brain mask"):
        predict(**inputs, spacing=(2.0, 2.0, 2.0))
