"""Geodesic margins against closed forms; guideline plans and their barriers."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from predictgbm.guidelines.barriers import make_guideline_plan, ventricle_mask
from predictgbm.guidelines.geodesic import geodesic_distance
from predictgbm.guidelines.presets import (
    ASTRO_2025,
    ESTRO_EANO_2023,
    GUIDELINES,
    Guideline,
    guideline,
    restricted_plan,
)
from predictgbm.planning import PlanError, RankOrder, make_plan, soc_mask

SHAPE = (24, 22, 20)
SPACINGS = st.sampled_from([(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.5, 2.5)])


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> NDArray[np.bool_]:
    steps = np.moveaxis(np.indices(shape), 0, -1) - np.array(centre)
    return np.asarray((steps**2).sum(axis=-1) <= radius**2)


def straight(source: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance to the nearest source voxel, from all pairs."""
    voxels = np.moveaxis(np.indices(source.shape), 0, -1) * spacing
    return np.asarray(cKDTree(np.argwhere(source) * spacing).query(voxels)[0])


@st.composite
def scenes(draw: Any) -> dict[str, Any]:
    """A tumour, a brain, and random walls, fluid and compartments around it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centre = tuple(int(rng.integers(6, n - 6)) for n in SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[ball(SHAPE, centre, rng.uniform(2, 8))] = 2
    labels[ball(SHAPE, centre, rng.uniform(0, 4))] = 3
    compartments = np.zeros(SHAPE, np.uint8)
    cut = int(rng.integers(3, SHAPE[0] - 3))
    compartments[:cut], compartments[cut:] = 1, 2
    compartments[:, :, : int(rng.integers(0, 10))] = 3
    for label in (4, 5):
        compartments[ball(SHAPE, tuple(rng.integers(0, SHAPE)), rng.uniform(0, 6))] = label
    return {
        "labels": labels,
        "brain": ball(SHAPE, (12, 11, 10), 11) | (labels == 3),
        "compartments": compartments,
        "csf": (rng.random(SHAPE) < 0.02) * 1.0,
        "spacing": draw(SPACINGS),
        "rng": rng,
    }


def with_ventricles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the little fluid there is in a small scene count as ventricles."""
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_DEPTH_MM", 2.0)
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_ML", 1e-6)


@pytest.fixture(autouse=True, scope="module")
def _small_ventricles() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        with_ventricles(patch)
        yield


def plan_of(scene: dict[str, Any], rules: Guideline = ESTRO_EANO_2023, **options: Any) -> Any:
    names = ("labels", "brain", "csf", "compartments", "spacing")
    return make_guideline_plan(rules, *(scene[name] for name in names), **options)


def rules(margin: float, ventricle: float = 5.0) -> Guideline:
    return Guideline("test", "", "", margin, (margin, margin), ventricle, False)


@settings(max_examples=25)
@given(scenes(), st.sampled_from(list(GUIDELINES)), st.sampled_from([1.0, 2.0]))
def test_a_plan_keeps_the_barriers(scene: dict[str, Any], name: str, speed: float) -> None:
    chosen = guideline(name)
    made = plan_of(scene, chosen, wm=scene["rng"].random(SHAPE), white_matter_speed=speed)
    uniform = soc_mask(scene["labels"], scene["brain"], scene["spacing"], chosen.margin_mm)
    flair = (scene["labels"] == 2) & chosen.includes_flair
    assert not (made.plan & made.dura).any()
    assert not (made.plan & ~made.allowed).any()
    assert not (made.plan & ~(uniform | flair)).any()
    assert (made.plan | (scene["labels"] != 3) | ~scene["brain"]).all()
    # No deeper in a ventricle than 5 mm from tissue in the plan or, for what FLAIR shows, from any tissue.
    wet = made.plan & made.ventricles
    if wet.any():
        tissue = scene["brain"] & ~made.dura & ~made.ventricles
        assert straight(tissue, scene["spacing"])[wet].max() <= 5 + 1e-3


@settings(max_examples=15)
@given(scenes(), st.floats(0, 20))
def test_without_barriers_the_margin_is_the_uniform_one(scene: dict[str, Any], margin: float) -> None:
    dry = {**scene, "brain": np.ones(SHAPE, bool), "compartments": None, "csf": np.zeros(SHAPE)}
    uniform = soc_mask(scene["labels"], dry["brain"], scene["spacing"], margin)
    assert (plan_of(dry, rules(margin)).plan == uniform).all()


@settings(max_examples=25)
@given(scenes(), st.floats(0, 15), st.floats(0, 8), st.sampled_from([1.0, 3.0]))
def test_a_larger_margin_contains_the_smaller(
    scene: dict[str, Any], margin: float, more: float, speed: float
) -> None:
    options = {"wm": scene["rng"].random(SHAPE), "white_matter_speed": speed}
    small = plan_of(scene, rules(margin), **options).plan
    large = plan_of(scene, rules(margin + more), **options).plan
    assert not (small & ~large).any()


@settings(max_examples=15)
@given(scenes())
def test_a_falx_without_a_gap_keeps_the_plan_in_its_half(scene: dict[str, Any]) -> None:
    halves = np.where(np.arange(SHAPE[0])[:, None, None] < 12, 1, 2).astype(np.uint8) * np.ones(
        SHAPE, np.uint8
    )
    labels = np.where(halves == 1, scene["labels"], 0)
    if not (labels == 3).any():
        labels[5, 11, 10] = 3
    closed = plan_of({**scene, "labels": labels, "compartments": halves}, rules(30))
    assert not (closed.plan & (halves == 2)).any()


@settings(max_examples=15)
@given(scenes(), st.integers(1, 400))
def test_a_models_plan_has_so_many_voxels_of_its_best_in_the_region(
    scene: dict[str, Any], wanted: int
) -> None:
    score = scene["rng"].normal(size=SHAPE)
    core, brain = scene["labels"] == 3, scene["brain"]
    allowed = plan_of(scene).allowed
    n = min(wanted, int(allowed.sum()))
    ranking = RankOrder(score, core, brain, scene["spacing"])
    plan = restricted_plan(ranking, allowed, n)
    assert plan.sum() == n
    assert not (plan & ~allowed).any()
    free = make_plan(score, core, brain, scene["spacing"], n)
    assert not (free & allowed & ~plan).any()
    with pytest.raises(PlanError, match="allowed region"):
        restricted_plan(ranking, allowed, int(allowed.sum()) + 1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.5)])
def test_the_way_round_a_corner_has_the_length_of_its_two_legs(spacing: tuple[float, float, float]) -> None:
    passable = np.ones((41, 41, 3), bool)
    passable[20, :25] = False  # a wall that is a voxel thick and ends half way between y = 24 and y = 25
    source = np.zeros_like(passable)
    source[10, 10] = True
    way = geodesic_distance(source, passable, spacing, 100.0)
    size = np.array(spacing)[:2]
    corners = np.array([[19.5, 24.5], [20.5, 24.5]])
    for target in ((25, 12), (30, 10), (22, 20), (38, 5)):
        bends = np.vstack([[10, 10], corners, target]) * size
        legs = np.linalg.norm(np.diff(bends, axis=0), axis=1).sum()
        assert abs(way[(*target, 1)] - legs) <= max(size), target
    # What the source sees past the edge is exact.
    assert way[28, 40, 1] == pytest.approx(math.hypot(18 * size[0], 30 * size[1]), abs=1e-3)
    gate_shut = passable.copy()
    gate_shut[20] = False
    assert np.isinf(geodesic_distance(source, gate_shut, spacing, 100.0)[21:]).all()
    assert not np.isfinite(geodesic_distance(source, passable, spacing, 20.0)[30, 10, 1])


def test_a_line_does_not_slip_between_two_voxels_of_a_diagonal_wall() -> None:
    passable = np.ones((15, 15, 3), bool)
    i, j = np.indices((15, 15))
    passable[(i + j == 14) | (i + j == 13)] = False  # closed for ways by faces, two voxels thick along them
    source = np.zeros_like(passable)
    source[3, 3] = True
    way = geodesic_distance(source, passable, (1, 1, 1), 60.0)
    assert np.isinf(way[i + j > 14]).all()
    assert np.isfinite(way[i + j < 13]).all()


def graph_distance(
    source: NDArray[np.bool_], passable: NDArray[np.bool_], spacing: Any
) -> NDArray[np.float64]:
    """Length of the shortest way to each voxel along a graph of 26 neighbours, on voxels cut in three along each axis.

    A step is open where all voxels of the box between its ends are.
    """
    fine = np.kron(passable, np.ones((3, 3, 3), bool))
    index = np.where(fine, np.cumsum(fine).reshape(fine.shape) - 1, -1)
    ends, lengths = [], []
    for step in product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):
            continue
        here = [slice(max(0, -s), n - max(0, s)) for s, n in zip(step, fine.shape, strict=True)]
        corners = [
            tuple(slice(side.start + c, side.stop + c) for side, c in zip(here, corner, strict=True))
            for corner in product(*({0, s} for s in step))
        ]
        open_ = np.logical_and.reduce([fine[corner] for corner in corners])
        there = tuple(slice(side.start + s, side.stop + s) for side, s in zip(here, step, strict=True))
        ends.append([index[tuple(here)][open_], index[there][open_]])
        lengths.append(np.full(ends[-1][0].size, np.linalg.norm(np.array(step) * spacing) / 3))
    graph = coo_array((np.concatenate(lengths), np.hstack(ends)), shape=(fine.sum(),) * 2).tocsr()
    middle = index[1::3, 1::3, 1::3]
    found = dijkstra(graph, directed=False, indices=middle[source], min_only=True)
    return np.where(middle < 0, np.inf, np.asarray(found)[middle])


def stretch(spacing: Any) -> float:
    """How much longer a way along such a graph is than the straight line, in the worst direction."""
    offsets = np.array([p for p in product(range(31), repeat=3) if max(p) == 30])
    steps = np.sort(offsets, axis=1)[:, ::-1]
    axes = np.argsort(-offsets, axis=1, kind="stable")
    along = np.zeros(len(offsets))
    for part in range(3):
        # The diagonal of the part + 1 axes that are left, as often as they are all to go.
        times = steps[:, part] - (steps[:, part + 1] if part < 2 else 0)
        along += times * np.sqrt((np.array(spacing)[axes[:, : part + 1]] ** 2).sum(axis=1))
    return float((along / np.linalg.norm(offsets * spacing, axis=1)).max())


@pytest.mark.parametrize("seed", range(4))
def test_lengths_agree_with_dijkstras_algorithm_on_a_fine_graph(seed: int) -> None:
    """An independent way to the same: the graph's ways are never shorter by more than a voxel, as ours bend at voxel
    centres beside a corner; nor longer than its stretch and a voxel explain; and the same voxels are within reach."""
    rng = np.random.default_rng(seed)
    spacing = [(1.0, 1.0, 1.0), (1.0, 1.5, 2.5)][seed % 2]
    passable = np.ones((20, 18, 12), bool)
    passable[9, :13] = passable[14, 5:] = False  # walls with gaps at opposite ends, and blocks
    for corner in rng.integers(2, (14, 12, 6), (4, 3)):
        passable[tuple(slice(c, c + 4) for c in corner)] = False
    source = np.zeros_like(passable)
    source[3:6, 3:6, 5:8] = True
    way = geodesic_distance(source, passable, spacing, 200.0)
    graph = graph_distance(source, passable | source, spacing)
    far = np.isfinite(way) & ~source
    assert (np.isfinite(graph) == np.isfinite(way)).all()
    assert (graph[far] > 1.5 * straight(source, spacing)[far]).any(), "ways that bend"
    assert (way[far] - graph[far]).max() < max(spacing)
    assert (graph[far] - stretch(spacing) * way[far]).max() < max(spacing)


def test_white_matter_keeps_the_margin_and_other_tissue_gets_its_part() -> None:
    shape = (61, 9, 9)
    source = np.zeros(shape, bool)
    source[30] = True
    wm = np.zeros(shape)
    wm[31:] = 1.0
    way = geodesic_distance(source, np.ones(shape, bool), (1, 1, 1), 30.0, 1 / (wm + (1 - wm) * 3.0))
    assert way[45, 4, 4] == pytest.approx(15)
    assert way[25, 4, 4] == pytest.approx(15)
    assert np.isinf(way[18, 4, 4])


@pytest.mark.parametrize("radius", [0, 2, 6])
def test_marching_alone_is_within_a_voxel_and_a_half(radius: float) -> None:
    """The option's first-order march, where nothing is white matter: a uniform margin, up to the source's curvature."""
    source = ball((41, 41, 41), (20, 20, 20), radius)
    way = geodesic_distance(source, np.ones_like(source), (1, 1, 1), 14.0, np.ones(source.shape))
    exact = np.maximum(0, geodesic_distance(source, np.ones_like(source), (1, 1, 1), 14.0))
    both = np.isfinite(way)
    assert (way[both] - exact[both]).min() >= 0
    assert (way[both] - exact[both]).max() <= 1.5


def test_the_margin_enters_a_ventricle_and_does_not_cross_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (60, 21, 21)
    brain = np.ones(shape, bool)
    csf = np.zeros(shape)
    csf[20:24] = 1.0  # a narrow ventricle from side to side, and a wide one
    csf[50:] = 1.0
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_DEPTH_MM", 0.5)
    labels = np.zeros(shape, np.uint8)
    labels[10:15, 8:13, 8:13] = 3
    narrow = plan_of(
        {"labels": labels, "brain": brain, "csf": csf, "compartments": None, "spacing": (1, 1, 1)}
    )
    assert narrow.plan[20:24, 10, 10].all()
    assert not narrow.plan[24:].any()
    labels = np.zeros(shape, np.uint8)
    labels[43:47, 8:13, 8:13] = 3
    wide = plan_of({"labels": labels, "brain": brain, "csf": csf, "compartments": None, "spacing": (1, 1, 1)})
    assert wide.plan[50:55, 10, 10].all()
    assert not wide.plan[55:].any()
    # The last tissue is slice 49: 5 mm from its centre ends slice 54.
    assert wide.allowed[54, 10, 10]
    assert not wide.allowed[55, 10, 10]


def test_ventricles_are_the_deep_fluid_and_its_horns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_DEPTH_MM", 30.0)
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_ML", 1.0)
    inside = ball((50, 50, 50), (25, 25, 25), 23)
    csf = (~ball((50, 50, 50), (25, 25, 25), 20)).astype(float)
    ventricle = np.zeros_like(inside)
    ventricle[22:28, 14:33, 22:28] = True  # ends 14 mm (7 voxels) behind the depth of 30 mm
    csf[ventricle] = 1.0
    csf[10:14, 24:27, 24:27] = 1.0  # a pocket 20 mm below the surface
    found = ventricle_mask(csf, inside, (2.0, 2.0, 2.0))
    assert not (found & ~ventricle).any()
    assert found[22:28, 20:32, 22:28].all()
    assert not ventricle_mask(csf * 0, inside, (2.0, 2.0, 2.0)).any()


@pytest.mark.parametrize("label", [1, 2, 4])
def test_fluid_of_the_tumour_is_no_ventricle(label: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cyst that touches the ventricle: the tissue map shows one room of fluid, the labels part it."""
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_DEPTH_MM", 20.0)
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_ML", 1.0)
    shape, spacing = (60, 60, 60), (2.0, 2.0, 2.0)
    ventricle = np.zeros(shape, bool)
    ventricle[22:28, 20:40, 20:40] = True
    cyst = ball(shape, (34, 30, 30), 6.5) & ~ventricle
    crumb = np.zeros(shape, bool)
    crumb[40:43, 30, 30] = True  # a dark voxel or two beyond: no horn of a ventricle either
    labels = np.where(cyst, label, 0).astype(np.uint8)
    labels[37:40, 35:38, 28:32] = 3
    fluid = (ventricle | cyst | crumb) & (labels != 3)
    made = make_guideline_plan(ESTRO_EANO_2023, labels, np.ones(shape, bool), fluid * 1.0, None, spacing)
    assert (made.ventricles == ventricle).all()
    # What the margin reaches of the cyst it takes in, as tissue.
    uniform = soc_mask(labels, np.ones(shape, bool), spacing, 15.0)
    assert (made.plan[cyst] == uniform[cyst]).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_horns_are_followed_as_far_along_every_axis(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canal of fluid from face to face: 30 mm deep it begins, and 10 mm more belong to it, however thick a slice."""
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_DEPTH_MM", 30.0)
    monkeypatch.setattr("predictgbm.guidelines.barriers.VENTRICLE_ML", 1.0)
    spacing = (2.0, 2.0, 5.0)
    shape = tuple(round(100 / s) for s in spacing)
    csf = np.ones(shape)
    for other in {0, 1, 2} - {axis}:
        csf *= np.expand_dims(
            np.abs((np.arange(shape[other]) + 0.5) * spacing[other] - 50) < 8, tuple({0, 1, 2} - {other})
        )
    found = ventricle_mask(csf, np.ones(shape, bool), spacing)
    depth = (np.argwhere(found)[:, axis].min() + 0.5) * spacing[axis]
    assert 20 <= depth <= 20 + spacing[axis]


@pytest.mark.parametrize(
    ("name", "margin"), [("astro2025", 10.0), ("astro2025", 20.0), ("estroeano2023", 15.0)]
)
def test_a_margin_within_the_range_is_taken(name: str, margin: float) -> None:
    assert guideline(name, margin).margin_mm == margin
    assert guideline(name).margin_mm == 15


@pytest.mark.parametrize(
    ("name", "margin", "told"),
    [
        ("astro2025", 9.9, "10 to 20 mm"),
        ("astro2025", 20.1, "10 to 20 mm"),
        ("estroeano2023", 20, "15 to 15 mm"),
    ],
)
def test_a_margin_beyond_the_range_is_refused(name: str, margin: float, told: str) -> None:
    with pytest.raises(PlanError, match=told):
        guideline(name, margin)


@settings(max_examples=15)
@given(scenes(), st.sampled_from([ESTRO_EANO_2023, ASTRO_2025]))
def test_spared_organs_are_left_out_and_nothing_else(scene: dict[str, Any], chosen: Guideline) -> None:
    """Neither beyond the organ nor in the core does anything change."""
    organ = np.zeros(SHAPE, bool)
    organ[SHAPE[0] // 3 : SHAPE[0] // 2] = True
    whole, made = plan_of(scene, chosen), plan_of(scene, chosen, spared=organ)
    core = np.isin(scene["labels"], (1, 3))
    for name in ("plan", "allowed"):
        before, after = getattr(whole, name), getattr(made, name)
        assert (after == (before & (~organ | core))).all()


def test_a_guideline_takes_in_flair_or_not() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:22, 9:13, 9:12] = 2
    labels[4:6, 10:12, 10:11] = 3
    scene = {
        "labels": labels,
        "brain": np.ones(SHAPE, bool),
        "csf": np.zeros(SHAPE),
        "compartments": None,
        "spacing": (1.0, 1.0, 1.0),
    }
    assert not plan_of(scene, ESTRO_EANO_2023).plan[21, 10, 10]
    assert plan_of(scene, ASTRO_2025).plan[21, 10, 10]


def test_what_cannot_be_planned_is_said() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    scene = {"labels": labels, "brain": np.ones(SHAPE, bool), "csf": np.zeros(SHAPE), "spacing": (1, 1, 1)}
    with pytest.raises(PlanError, match="no tumour core"):
        plan_of({**scene, "compartments": None})
    labels[5, 5, 5] = 3
    with pytest.raises(PlanError, match="white-matter speed"):
        plan_of({**scene, "compartments": None}, white_matter_speed=0.5)
    with pytest.raises(PlanError, match="estroeano2023, astro2025"):
        guideline("estro")
