"""Plans against a plain rewriting of their definition, scipy, and the properties a plan must have."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from predictgbm import planning
from predictgbm.planning import (
    PlanError,
    RankOrder,
    distance_um,
    fill_holes,
    make_plan,
    rank_voxels,
    soc_mask,
    soc_masks,
)

#: Enough to meet every branch on arrays this small; no deadline, since machines may be busy.
tries = settings(max_examples=50, deadline=None)
shapes = st.tuples(*[st.integers(2, 5)] * 3)
spacings = st.tuples(*[st.sampled_from([0.5, 0.9, 1.0, 1.2, 3.0])] * 3)


@st.composite
def cases(draw, lowest=-3, highest=3):
    """Score, core, brain and spacing of a tiny exam; few distinct scores, so that ties are the rule."""
    shape = draw(shapes)
    score = draw(hnp.arrays(np.float64, shape, elements=st.integers(lowest, highest)))
    core = draw(hnp.arrays(bool, shape))
    brain = draw(hnp.arrays(bool, shape))
    assume(core.any() and brain.any())
    return score, core, brain, draw(spacings)


def nearest(voxel, voxels, spacing):
    """Distance of a voxel to the nearest of others, in whole micrometres, one pair at a time."""
    squared = (sum(((a - b) * s) ** 2 for a, b, s in zip(voxel, v, spacing, strict=True)) for v in voxels)
    return round(1000 * math.sqrt(min(squared)))


def rank_by_definition(score, core, brain, spacing):
    """Order voxels as the definition reads, with loops and a sort by tuples."""
    voxels = [tuple(v) for v in np.argwhere(ndimage.binary_fill_holes(brain))]
    core_voxels = [tuple(v) for v in np.argwhere(core)]
    positive = [v for v in voxels if score[v] > 0]

    def key(voxel):
        to_core = nearest(voxel, core_voxels, spacing)
        if positive and score[voxel] <= 0:
            return (1, nearest(voxel, positive, spacing), to_core, voxel)
        return (0, -score[voxel], to_core, voxel)

    return [int(np.ravel_multi_index(v, score.shape)) for v in sorted(voxels, key=key)]


@tries
@given(cases())
def test_ranking_is_the_definition(case):
    assert rank_voxels(*case).tolist() == rank_by_definition(*case)


@tries
@given(cases(), st.integers(0, 130))
def test_limited_ranking_is_the_start_of_the_full_one(case, limit):
    assert rank_voxels(*case, limit=limit).tolist() == rank_voxels(*case).tolist()[:limit]


@tries
@given(cases(), st.integers(0, 130), st.lists(st.integers(0, 130) | st.none(), max_size=5), st.booleans())
def test_one_ranking_serves_whoever_asks(case, at_first, wanted, core_first):
    full = rank_voxels(*case, core_first=core_first).tolist()
    ranking = RankOrder(*case, core_first, at_first)
    for n in wanted:
        assert ranking.first(n).tolist() == full[:n]


def test_a_map_is_ranked_once_and_again_only_for_more(monkeypatch):
    limits = []

    def rank(*_, limit, **__):
        limits.append(limit)
        return np.arange(9)[:limit]

    monkeypatch.setattr(planning, "rank_voxels", rank)
    ranking = RankOrder(*[np.ones((2, 2, 2))] * 3, (1, 1, 1), at_first=4)
    assert [ranking.first(n).size for n in (2, 4, 0)] == [2, 4, 0]
    assert limits == [4]
    assert [ranking.first(n).size for n in (5, None, 20)] == [5, 9, 9]
    assert limits == [4, None]


@tries
@given(cases(), st.integers(0, 130))
def test_plan_has_exactly_n_voxels_inside_the_brain(case, n):
    _, _, brain, _ = case
    inside = ndimage.binary_fill_holes(brain)
    plan = make_plan(*case, n)
    assert plan.sum() == min(n, inside.sum())
    assert not (plan & ~inside).any()


@tries
@given(cases(), st.integers(0, 60), st.integers(0, 60))
def test_plans_are_nested(case, n, more):
    assert not (make_plan(*case, n) & ~make_plan(*case, n + more)).any()


@tries
@given(
    cases(),
    st.sampled_from(
        [lambda x: 1e-30 * x, lambda x: x**3, lambda x: np.sinh(5 * x), lambda x: x / (1 + abs(x))]
    ),
)
def test_sign_keeping_increasing_transforms_change_nothing(case, transform):
    score, *rest = case
    assert rank_voxels(transform(score), *rest).tolist() == rank_voxels(score, *rest).tolist()


@tries
@given(
    cases(-6, 0),
    st.sampled_from([lambda x: x - 7.5, np.exp, lambda x: x + 100, lambda x: -1 / (x - 8) - 9]),
)
def test_ranks_keep_their_order_whatever_their_sign(case, transform):
    """Minus a distance, its exponential and 100 minus the distance are one and the same plan."""
    score, *rest = case
    assert rank_voxels(transform(score), *rest).tolist() == rank_voxels(score, *rest).tolist()


@tries
@given(cases(), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_turned_arrays_give_the_turned_plan_up_to_the_last_tie(case, axes, flips):
    """Turning the arrays may change only which of voxels with equal score and distances is taken."""
    score, core, brain, spacing = case

    def turn(array):
        return np.flip(array.transpose(axes), [a for a, f in enumerate(flips) if f])

    n = int(brain.sum()) // 2
    plan = make_plan(*case, n)
    turned = make_plan(turn(score), turn(core), turn(brain), [spacing[a] for a in axes], n)
    differing = np.argwhere(turn(plan) != turned)
    positive = turn(fill_holes(brain) & (score > 0))
    to_core = distance_um(turn(core), [spacing[a] for a in axes])
    ranked = not positive.any()
    to_positive = to_core if ranked else distance_um(positive, [spacing[a] for a in axes])
    keys = {
        (
            float(turn(score)[v]) if ranked or turn(score)[v] > 0 else 0.0,
            int(to_positive[v]),
            int(to_core[v]),
        )
        for v in map(tuple, differing)
    }
    assert len(keys) <= 1


@tries
@given(cases())
def test_core_first(case):
    score, core, brain, spacing = case
    inside = ndimage.binary_fill_holes(brain)
    order = rank_voxels(score, core, brain, spacing, core_first=True)
    n_core = int((core & inside).sum())
    assert core.flat[order[:n_core]].all()
    assert sorted(order) == np.flatnonzero(inside).tolist()
    # The rest keeps the order of the map with the core raised above all else, the way GlioMap adds it.
    raised = np.where(core, 100.0, score)
    if (score[inside] > 0).any():
        expected = [v for v in rank_by_definition(raised, core, brain, spacing) if not core.flat[v]]
        assert order[n_core:].tolist() == expected


@tries
@given(cases(), st.sampled_from([0.0, 0.5, 0.9, 1.5, 2.0, 3.0]))
def test_soc_is_the_core_widened(case, margin):
    _, core, brain, spacing = case
    core_voxels = [tuple(v) for v in np.argwhere(core)]
    inside = ndimage.binary_fill_holes(brain)
    expected = np.zeros_like(core)
    for voxel in itertools.product(*map(range, core.shape)):
        expected[voxel] = inside[voxel] and nearest(voxel, core_voxels, spacing) <= round(1000 * margin)
    labels = np.where(core, np.where(np.arange(core.size).reshape(core.shape) % 2, 1, 3), 2).astype(np.uint8)
    if expected.any():
        np.testing.assert_array_equal(soc_mask(labels, brain, spacing, margin), expected)
    else:
        with pytest.raises(PlanError, match="no voxel within"):
            soc_mask(labels, brain, spacing, margin)


@tries
@given(cases(), st.sampled_from([0.9, 2.0]))
def test_soc_scores_and_distances_reproduce_the_soc_plan(case, margin):
    _, core, brain, spacing = case
    try:
        soc = soc_mask(np.where(core, 3, 0), brain, spacing, margin)
    except PlanError:
        assume(False)
    n = int(soc.sum())
    distance = ndimage.distance_transform_edt(~core, sampling=spacing)
    empty = np.zeros(core.shape)
    for score in (
        soc.astype(float),
        -np.round(distance, 3),
        np.exp(-np.round(distance, 3)),
        empty,
        empty - 4,
    ):
        np.testing.assert_array_equal(make_plan(score, core, brain, spacing, n), soc)


@tries
@given(hnp.arrays(bool, shapes))
def test_filled_holes_as_scipy(mask):
    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_a_cavity_is_filled_and_an_open_one_is_not():
    shell = np.ones((5, 5, 5), bool)
    shell[2, 2, 2] = False
    assert fill_holes(shell).all()
    shell[2, 2, :2] = False
    assert not fill_holes(shell)[2, 2, :3].any()


@tries
@given(hnp.arrays(bool, shapes), spacings)
def test_distances_as_scipy(mask, spacing):
    assume(mask.any())
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing)
    assert np.abs(distance_um(mask, spacing) - 1000 * expected).max() <= 0.51


def test_the_volume_of_a_margin_around_a_point():
    """A ball of 15 mm in voxels of 1 x 1.2 x 3 mm: 4/3 pi 15^3; the offset 9-12-0 lies on its edge."""
    seg = np.zeros((41, 35, 15), np.uint8)
    seg[20, 17, 7] = 1
    soc = soc_mask(seg, np.ones(seg.shape, bool), (1.0, 1.2, 3.0))
    assert soc.sum() * 3.6 == pytest.approx(4 / 3 * math.pi * 15**3, rel=0.02)
    assert soc[20 + 9, 17 + 10, 7]
    assert soc[20 + 15, 17, 7]
    assert not soc[20 + 15, 18, 7]


def test_clipping_a_score_would_change_the_plan():
    """Scores above one and below a thousandth still rank."""
    score = np.zeros((6, 2, 2))
    score[:, 0, 0] = [0.9, 3.0, 7.0, 1e-9, 1e-30, 0]
    core = np.zeros(score.shape, bool)
    core[5, 1, 1] = True
    order = rank_voxels(score, core, np.ones(score.shape, bool), (1, 1, 1))
    assert [np.unravel_index(v, score.shape)[0] for v in order[:5]] == [2, 1, 0, 3, 4]


def test_scores_outside_the_brain_are_not_seen():
    brain = np.zeros((6, 3, 3), bool)
    brain[2:] = True
    score = np.zeros(brain.shape)
    score[0] = 5
    core = np.zeros(brain.shape, bool)
    core[5] = True
    plan = make_plan(score, core, brain, (1, 1, 1), 9)
    np.testing.assert_array_equal(plan, core)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    score = np.zeros((3, 3, 3))
    score[1, 1, 1] = bad
    ones = np.ones(score.shape, bool)
    with pytest.raises(PlanError, match="1 scores in the brain are NaN or infinite"):
        make_plan(score, ones, ones, (1, 1, 1), 5)


def test_refusals():
    ones, zeros = np.ones((3, 3, 3), bool), np.zeros((3, 3, 3), bool)
    edema = np.full((3, 3, 3), 2)
    with pytest.raises(PlanError, match="no tumour core"):
        soc_mask(edema, ones, (1, 1, 1))
    with pytest.raises(PlanError, match="brain mask is empty"):
        soc_mask(edema + 1, zeros, (1, 1, 1))
    for margin in (-1, np.nan, np.inf):
        with pytest.raises(PlanError, match="margin"):
            soc_mask(edema + 1, ones, (1, 1, 1), margin)
    with pytest.raises(PlanError, match="shapes differ"):
        make_plan(np.zeros((3, 3, 4)), ones, ones, (1, 1, 1), 5)
    with pytest.raises(PlanError, match="-1 voxels"):
        make_plan(np.zeros((3, 3, 3)), ones, ones, (1, 1, 1), -1)


def test_a_whole_head_at_one_millimetre_is_planned_in_a_second_or_two():
    grid = np.indices((240, 240, 155)) - np.array([120, 120, 77])[:, None, None, None]
    x, y, z = grid
    brain = (x / 68) ** 2 + (y / 86) ** 2 + (z / 65) ** 2 < 1
    core = (x - 30) ** 2 + y**2 + z**2 < 20**2
    score = np.exp(-((x / 300.0) ** 2))
    start = time.process_time()
    soc = soc_mask(core * np.uint8(3), brain, (1, 1, 1))
    plan = make_plan(score, core, brain, (1, 1, 1), int(soc.sum()))
    assert time.process_time() - start < 4
    assert plan.sum() == soc.sum()


def test_a_margin_that_does_not_reach_the_brain_has_no_plan():
    core = np.zeros((24, 5, 5), np.uint8)
    core[8, 2, 2] = 3
    brain = np.ones(core.shape, bool) & (np.arange(24) >= 15)[:, None, None]
    plans = soc_masks(core, brain, (1, 1, 1), (5.0, 9.0))
    assert list(plans) == [9.0]
    np.testing.assert_array_equal(plans[9.0], soc_mask(core, brain, (1, 1, 1), 9.0))
