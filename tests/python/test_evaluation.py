"""Measures of a plan against brute force, scipy and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.integrate import trapezoid
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from predictgbm.evaluation import (
    CURVE_FRACTIONS,
    centre_distance_mm,
    coverage,
    coverage_curve,
    curve_area,
    evaluate_margins,
    evaluate_plan,
    evaluate_score,
    evaluate_tumor,
    hd95_mm,
    lesions,
    locate_lesions,
    surface,
    voxels_to_cover,
)
from predictgbm.masks import dice
from predictgbm.planning import RankOrder, make_plan, rank_voxels, soc_mask, soc_masks

tries = settings(max_examples=50, deadline=None)
shapes = st.tuples(*[st.integers(2, 6)] * 3)
spacings = st.tuples(*[st.sampled_from([0.5, 0.9, 1.0, 1.2, 3.0])] * 3)
pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape)))
label_pairs = shapes.flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(np.uint8, shape, elements=st.integers(0, 4)))
)

exams = shapes.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(bool, shape),
        *(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 2, 3, 3])) for _ in range(2)),
    )
)


def voxels(mask):
    return {tuple(v) for v in np.argwhere(mask).tolist()}


def ball(shape, centre, radius):
    grid = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    return (grid**2).sum(axis=0) <= radius**2


@tries
@given(pairs)
def test_coverage_and_dice_count_voxels(pair):
    plan, recurrence = pair
    p, r = voxels(plan), voxels(recurrence)
    if r:
        assert coverage(plan, recurrence) == len(p & r) / len(r)
    else:
        assert math.isnan(coverage(plan, recurrence))
    if p or r:
        assert dice(plan, recurrence) == 2 * len(p & r) / (len(p) + len(r))
    else:
        assert math.isnan(dice(plan, recurrence))


@tries
@given(hnp.arrays(bool, shapes))
def test_surface_is_what_an_erosion_takes(mask):
    np.testing.assert_array_equal(surface(mask), mask & ~ndimage.binary_erosion(mask))


@tries
@given(pairs, spacings)
def test_hd95_as_a_search_tree_finds_it(pair, spacing):
    a, b = pair
    if not (a.any() and b.any()):
        assert math.isnan(hd95_mm(a, b, spacing))
        return
    points = [np.argwhere(m & ~ndimage.binary_erosion(m)) * spacing for m in (a, b)]
    expected = max(
        np.percentile(cKDTree(points[1]).query(points[0])[0], 95),
        np.percentile(cKDTree(points[0]).query(points[1])[0], 95),
    )
    assert hd95_mm(a, b, spacing) == pytest.approx(expected, abs=1e-3)
    assert hd95_mm(b, a, spacing) == hd95_mm(a, b, spacing)


def test_hd95_of_two_plates_is_their_distance():
    a, b = np.zeros((2, 12, 9, 9), bool)
    a[2], b[9] = True, True
    assert hd95_mm(a, b, (1.2, 1, 1)) == pytest.approx(7 * 1.2)
    assert hd95_mm(a, a, (1.2, 1, 1)) == 0


def test_hd95_of_concentric_balls_is_the_difference_of_their_radii():
    shape, centre = (61, 61, 61), (30, 30, 30)
    assert hd95_mm(ball(shape, centre, 28), ball(shape, centre, 12), (2, 2, 2)) == pytest.approx(32, abs=2)


def test_hd95_leaves_out_a_twentieth():
    """One far voxel in a hundred does not count, ten do."""
    a = np.zeros((1, 100, 60), bool)
    a = np.repeat(a, 2, axis=0)
    b = a.copy()
    a[0, :, 0] = b[0, :, 0] = True
    b[0, 0, 50] = True
    assert hd95_mm(a, b, (1, 1, 1)) == 0
    b[0, :10, 50] = True
    assert hd95_mm(a, b, (1, 1, 1)) == 50


def test_centres_of_mass_are_measured_in_millimetres():
    a, b = np.zeros((2, 10, 10, 10), bool)
    a[1:4, 2, 3] = True
    b[5, 6, 3:6] = True
    assert centre_distance_mm(a, b, (1, 1.5, 2)) == pytest.approx(math.hypot(3 * 1, 4 * 1.5, 1 * 2))
    assert math.isnan(centre_distance_mm(a, a & False, (1, 1, 1)))


@tries
@given(pairs, spacings)
def test_lesions_are_the_components_scipy_labels(pair, spacing):
    plan, recurrence = pair
    labels, count = ndimage.label(recurrence, np.ones((3, 3, 3)))
    ml = math.prod(spacing) / 1000
    expected = sorted((int(m.sum()), int(m[plan].sum())) for m in (labels == i for i in range(1, count + 1)))
    found = lesions(plan, recurrence, spacing)
    sizes = [round(x["volume_ml"] / ml) for x in found]
    assert sorted((n, round(n * x["coverage"])) for n, x in zip(sizes, found, strict=True)) == expected
    assert [x["lesion"] for x in found] == list(range(1, count + 1))
    volumes = [x["volume_ml"] for x in found]
    assert volumes == sorted(volumes, reverse=True)


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    mask = np.zeros((5, 5, 5), bool)
    mask[1, 1, 1] = mask[2, 2, 2] = mask[4, 4, 4] = True
    assert [x["volume_ml"] for x in lesions(mask, mask, (1, 1, 1))] == [0.002, 0.001]


@tries
@given(exams, spacings)
def test_lesions_are_located_as_a_search_over_all_voxels_does(exam, spacing):
    brain, tumor, recurrence = exam
    core, enhancing = np.isin(tumor, [1, 3]), recurrence == 3
    assume(core.any() and enhancing.any())
    margin = 1.25
    place = np.stack(np.indices(core.shape), axis=-1) * spacing
    to_core = cdist(place.reshape(-1, 3), place[core]).min(axis=1).reshape(core.shape)
    standard = ndimage.binary_fill_holes(brain) & (to_core <= margin)
    assume(standard.any())
    labels, count = ndimage.label(enhancing, np.ones((3, 3, 3)))
    found = locate_lesions(tumor, recurrence, soc_mask(tumor, brain, spacing, margin), spacing)
    assert [x["lesion"] for x in found] == list(range(1, count + 1))
    for own in (labels == i for i in range(1, count + 1)):
        # The number is that of the lesion which this component alone covers.
        number = next(x["lesion"] for x in lesions(own, enhancing, spacing) if x["coverage"] == 1)
        row = found[number - 1]
        assert row["core_distance_mm"] == pytest.approx(to_core[own].min(), abs=1e-3)
        inside, size = int((own & standard).sum()), int(own.sum())
        assert row["coverage_standard"] == inside / size
        limits = [("central", 95), ("in-field", 80), ("marginal", 20), ("distant", 0)]
        assert row["pattern"] == next(name for name, least in limits if 100 * inside >= least * size)


def test_pattern_is_that_of_the_standard_plan():
    """A core of 3 mm across, a margin of 15 mm: lesions within, half out, beyond, and on the core itself."""
    tumor, recurrence = np.zeros((2, 80, 20, 20), np.uint8)
    tumor[10:13, 9:12, 9:12] = 1
    recurrence[11, 10, 10] = 3
    recurrence[26:30, 10, 10] = 3  # the margin ends at 27: the centre at 12 and 15 mm more
    recurrence[60:62, 10, 10] = 3
    soc = soc_mask(tumor, np.ones(tumor.shape, bool), (1, 1, 1))
    found = locate_lesions(tumor, recurrence, soc, (1, 1, 1))
    assert [(x["core_distance_mm"], x["coverage_standard"], x["pattern"]) for x in found] == [
        (14.0, 0.5, "marginal"),
        (48.0, 0.0, "distant"),
        (0.0, 1.0, "central"),
    ]
    assert locate_lesions(tumor * 0 + 2, recurrence, soc, (1, 1, 1)) == []
    assert locate_lesions(tumor, recurrence * 0, soc, (1, 1, 1)) == []


@st.composite
def cases(draw):
    """Score, core, brain, spacing and recurrence of a tiny exam."""
    shape = draw(shapes)
    score = draw(hnp.arrays(np.float64, shape, elements=st.integers(-2, 4)))
    core, brain, recurrence = (draw(hnp.arrays(bool, shape)) for _ in range(3))
    assume(core.any() and brain.any() and recurrence.any())
    return score, core, brain, draw(spacings), recurrence


@tries
@given(cases(), st.integers(1, 60))
def test_curve_is_the_coverage_of_each_plan(case, n):
    score, core, brain, spacing, recurrence = case
    order = rank_voxels(score, core, brain, spacing, limit=2 * n)
    values = coverage_curve(order, recurrence, n)
    for fraction, value in zip(CURVE_FRACTIONS, values, strict=True):
        plan = make_plan(score, core, brain, spacing, math.floor(fraction * n + 0.5))
        assert value == coverage(plan, recurrence)
    assert (np.diff(values) >= 0).all()


@tries
@given(cases(), st.data())
def test_the_smallest_volume_that_covers_enough(case, data):
    score, core, brain, spacing, recurrence = case
    order = rank_voxels(score, core, brain, spacing)
    target = data.draw(st.integers(0, int(recurrence.sum())))
    found = voxels_to_cover(order, recurrence, target)
    reached = [
        int((make_plan(score, core, brain, spacing, n) & recurrence).sum()) for n in range(len(order) + 1)
    ]
    assert found == next((n for n, r in enumerate(reached) if r >= target), None)


def test_fractions_run_from_a_twentieth_to_twice_the_volume():
    assert CURVE_FRACTIONS[0] == 0.05
    assert CURVE_FRACTIONS[-1] == 2.0
    np.testing.assert_allclose(np.diff(CURVE_FRACTIONS), 0.05)
    assert 1.0 in CURVE_FRACTIONS


def test_area_of_known_curves():
    x = np.array(CURVE_FRACTIONS)
    assert curve_area(CURVE_FRACTIONS, np.ones_like(x)) == pytest.approx(1)
    assert curve_area(CURVE_FRACTIONS, x / 2) == pytest.approx((0.025 + 1) / 2)
    assert curve_area([0, 1, 3], np.array([0, 1, 1])) == pytest.approx(2.5 / 3)


@tries
@given(label_pairs, spacings)
@example((np.ones((3, 3, 3), bool), np.zeros((3, 3, 3), np.uint8)), (1, 1, 1))
def test_plan_measures_by_definition(pair, spacing):
    plan, recurrence = pair
    brain = np.ones(plan.shape, bool)
    brain[0] = False
    result = evaluate_plan(plan, recurrence, brain, spacing)
    missing = []
    for name, members in {"enhancing": {3}, "core": {1, 3}, "all": {1, 2, 3}}.items():
        target = {v for v in itertools.product(*map(range, plan.shape)) if int(recurrence[v]) in members}
        ml = math.prod(spacing) / 1000
        assert result[f"recurrence_{name}_ml"] == pytest.approx(len(target) * ml)
        if target:
            assert result[f"coverage_{name}"] == len(target & voxels(plan)) / len(target)
        else:
            assert math.isnan(result[f"coverage_{name}"])
            missing.append(name)
        if name == "enhancing":
            assert result["recurrence_outside_brain_ml"] == pytest.approx(ml * sum(v[0] == 0 for v in target))
            assert math.isnan(result["dice"]) == (not target)
            assert math.isnan(result["hd95_mm"]) == (not target or not plan.any())
            assert result["n_lesions"] == len(result["lesions"])
            covered = sum(x["volume_ml"] * x["coverage"] for x in result["lesions"])
            assert covered == pytest.approx(ml * len(target & voxels(plan)))
    assert (result["reason"] is None) == (not missing and plan.any())
    if len(missing) == 3:
        assert "no recurrence in the follow-up" in result["reason"]
    else:
        assert all(name in result["reason"] for name in missing)


def test_recurrence_outside_the_brain_counts_as_missed():
    brain = np.zeros((8, 4, 4), bool)
    brain[2:] = True
    recurrence = np.zeros(brain.shape, np.uint8)
    recurrence[1:3] = 3
    result = evaluate_plan(brain, recurrence, brain, (1, 1, 1))
    assert result["coverage_enhancing"] == 0.5
    assert result["recurrence_outside_brain_ml"] == 0.016


def test_tumor_measures():
    tumor = np.zeros((20, 20, 20), np.uint8)
    tumor[2:6, 2:6, 2:6] = 2
    tumor[3:5, 3:5, 3:5] = 1
    tumor[3, 3, 3] = 3
    tumor[10] = 4
    recurrence = np.zeros_like(tumor)
    recurrence[3:5, 3:5, 13:15] = 3
    recurrence[19, 19, 19] = 1
    assert evaluate_tumor(tumor, recurrence, (1, 1, 2)) == pytest.approx(
        {"tumor_core_ml": 0.016, "tumor_whole_ml": 0.128, "com_distance_cm": 2.0}
    )
    assert math.isnan(evaluate_tumor(tumor, tumor * 0, (1, 1, 2))["com_distance_cm"])


def test_score_measures_of_the_standard_of_care_itself():
    """Ranked by distance, a map is the standard of care at fraction 1 and reaches its coverage no later."""
    shape = (50, 44, 40)
    brain = ball(shape, (25, 22, 20), 19)
    tumor = ball(shape, (22, 22, 20), 3) * np.uint8(3)
    recurrence = ball(shape, (35, 22, 20), 6) * np.uint8(3)
    spacing = (1.0, 1.0, 1.0)
    soc = soc_mask(tumor, brain, spacing, 8)
    score = -ndimage.distance_transform_edt(tumor == 0)
    result = evaluate_score(RankOrder(score, tumor == 3, brain, spacing), soc, soc, recurrence, spacing)
    reference = coverage(soc, recurrence == 3)
    assert 0 < reference < 1
    assert result["plan_follows_score"]
    values = dict(zip(result["curve"]["fraction"], result["curve"]["coverage_enhancing"], strict=True))
    assert values[1.0] == reference
    assert result["curve_area"] == pytest.approx(trapezoid(list(values.values()), list(values)) / 1.95)
    # The last recurrence voxel the plan covers is at most at its edge, and some tie with the farthest.
    distance = -score
    farthest = distance[soc & (recurrence == 3)].max()
    ml = result["volume_at_soc_coverage_ml"]
    assert (distance[brain] < farthest).sum() / 1000 < ml <= (distance[brain] <= farthest).sum() / 1000


def test_a_bad_map_needs_more_than_twice_the_volume_to_reach_the_standard_of_care():
    shape = (30, 30, 30)
    brain = np.ones(shape, bool)
    tumor = ball(shape, (15, 15, 15), 3) * np.uint8(1)
    recurrence = ball(shape, (15, 15, 16), 2) * np.uint8(3)
    soc = soc_mask(tumor, brain, (1, 1, 1), 2)
    away = ndimage.distance_transform_edt(tumor == 0) + 1
    ranking = RankOrder(away, tumor == 1, brain, (1, 1, 1))
    result = evaluate_score(ranking, soc, soc, recurrence, (1, 1, 1))
    assert not result["plan_follows_score"]
    assert result["curve_area"] == 0
    assert result["volume_at_soc_coverage_ml"] > 26


def test_score_measures_without_recurrence_or_plan_are_not_given():
    shape = (12, 12, 12)
    brain = np.ones(shape, bool)
    tumor = ball(shape, (6, 6, 6), 2) * np.uint8(3)
    soc = soc_mask(tumor, brain, (1, 1, 1), 2)
    for plan, recurrence in ((soc, tumor * 0), (soc & False, tumor)):
        ranking = RankOrder(tumor.astype(float), tumor == 3, brain, (1, 1, 1))
        result = evaluate_score(ranking, soc, plan, recurrence, (1, 1, 1))
        assert result["curve"] is None
        assert math.isnan(result["curve_area"])
        assert math.isnan(result["volume_at_soc_coverage_ml"])


@pytest.mark.parametrize("core_first", [False, True])
def test_plans_of_other_margins_are_those_that_would_be_made(core_first):
    rng = np.random.default_rng(3)
    shape, spacing = (24, 22, 20), (1.0, 1.2, 2.0)
    brain = ball(shape, (12, 11, 10), 10)
    tumor = ball(shape, (12, 9, 10), 3) * np.uint8(1)
    recurrence = (rng.random(shape) < 0.1) * np.uint8(3)
    score = rng.random(shape) - 0.3
    margins = (6.0, 2.5, 9.0)
    soc, others = soc_mask(tumor, brain, spacing, 4.0), soc_masks(tumor, brain, spacing, margins)
    ranking = RankOrder(score, tumor == 1, brain, spacing, core_first)
    made = make_plan(score, tumor == 1, brain, spacing, int(soc.sum()), core_first)
    found = evaluate_margins(ranking, soc, others, made, recurrence, spacing)
    for margin, row in zip(margins, found, strict=True):
        n = int(soc_mask(tumor, brain, spacing, margin).sum())
        plan = make_plan(score, tumor == 1, brain, spacing, n, core_first)
        assert row == {
            "axis": "margin",
            "setting": f"{margin:g}",
            "plan_ml": pytest.approx(n * 2.4e-3),
            "coverage_enhancing": coverage(plan, recurrence == 3),
        }
    # The standard of care has other margins itself.
    itself = evaluate_margins(ranking, soc, others, soc, recurrence, spacing)
    for margin, row in zip(margins, itself, strict=True):
        assert row["coverage_enhancing"] == coverage(soc_mask(tumor, brain, spacing, margin), recurrence == 3)
    nothing = evaluate_margins(ranking, soc, others, made, recurrence * 0, spacing)
    assert math.isnan(nothing[0]["coverage_enhancing"])
    assert evaluate_margins(ranking, soc, {}, made, recurrence, spacing) == []


def test_lesions_in_a_box_one_voxel_thin_are_told_apart() -> None:
    recurrence = np.zeros((5, 5, 5), bool)
    recurrence[2, [1, 3], 2] = True
    found = lesions(recurrence, recurrence, (1.0, 1.0, 1.0))
    assert [lesion["coverage"] for lesion in found] == [1.0, 1.0]
