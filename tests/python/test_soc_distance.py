import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from predictgbm.growth import ModelError, distance, loti, soc
from predictgbm.planning import make_plan, soc_mask

SPACINGS = st.tuples(*[st.sampled_from([0.5, 1.0, 1.25, 2.0, 4.0])] * 3)


@st.composite
def exams(draw):
    shape = draw(st.tuples(*[st.integers(3, 9)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    brain = rng.random(shape) < draw(st.floats(0.5, 1))
    seg = (rng.integers(0, 5, shape) * (rng.random(shape) < draw(st.floats(0.02, 0.3)))).astype(np.uint8)
    index = tuple(draw(st.integers(0, n - 1)) for n in shape)
    seg[index], brain[index] = draw(st.sampled_from([1, 3])), True
    return seg, brain


def distances(seg, spacing):
    """Return every voxel's distance to the core, pair by pair."""
    points = np.indices(seg.shape).reshape(3, -1).T * np.asarray(spacing)
    core = np.isin(seg, [1, 3]).ravel()
    return cdist(points, points[core]).min(axis=1).reshape(seg.shape)


@settings(deadline=None)
@given(exams(), SPACINGS)
def test_distance_is_minus_the_euclidean_distance_in_mm(exam, spacing):
    seg, _ = exam
    prediction = distance.predict(tumor_seg=seg, spacing=spacing, seed=0)
    assert prediction.map.dtype == np.float32
    np.testing.assert_allclose(prediction.map, -distances(seg, spacing), atol=6e-4)


@settings(deadline=None)
@given(exams(), SPACINGS, st.sampled_from([0.0, 1.0, 3.5, 15.0]))
def test_soc_is_one_within_the_margin(exam, spacing, margin):
    seg, brain = exam
    prediction = soc.predict(tumor_seg=seg, brain_mask=brain, spacing=spacing, seed=0, margin=margin)
    near = distances(seg, spacing) <= margin + 5e-4
    assert set(np.unique(prediction.map)) <= {0.0, 1.0}
    np.testing.assert_array_equal(prediction.map[brain] == 1, near[brain])
    assert prediction.parameters["voxels"] == np.count_nonzero(prediction.map)


@settings(deadline=None)
@given(exams(), SPACINGS)
def test_planning_on_soc_gives_the_standard_plan(exam, spacing):
    seg, brain = exam
    standard = soc_mask(seg, brain, spacing)
    core = np.isin(seg, [1, 3])
    for prediction in (
        soc.predict(tumor_seg=seg, brain_mask=brain, spacing=spacing, seed=0),
        distance.predict(tumor_seg=seg, spacing=spacing, seed=0),
    ):
        # Within a margin all is nearer than outside: the distance's plan of that volume is the margin itself.
        plan = make_plan(prediction.map, core, brain, spacing, int(standard.sum()))
        np.testing.assert_array_equal(plan, standard)


def test_core_at_the_edge_of_the_brain_keeps_its_margin_inside():
    brain = np.zeros((40, 40, 40), bool)
    brain[5:35, 5:35, 5:35] = True
    seg = np.zeros(brain.shape, np.uint8)
    seg[5:8, 18:22, 18:22] = 3
    score = soc.predict(tumor_seg=seg, brain_mask=brain, spacing=(1.0, 1.0, 1.0)).map
    assert score[~brain].sum() == 0
    assert score[22, 20, 20] == 1
    assert score[23, 20, 20] == 0


@pytest.mark.parametrize("model", [soc, distance, loti])
@pytest.mark.parametrize(("labels", "said"), [((), "background"), ((2,), "label 2"), ((2, 4), "label 2, 4")])
def test_no_core_is_refused_with_what_is_there(model, labels, said):
    seg = np.zeros((6, 6, 6), np.uint8)
    for index, label in enumerate(labels):
        seg[index] = label
    tissue = np.ones(seg.shape, np.float32)
    inputs = {"tumor_seg": seg}
    if model is not distance:
        inputs["brain_mask"] = np.ones(seg.shape, bool)
    if model is loti:
        inputs |= {"wm": tissue, "gm": tissue, "csf": tissue}
    with pytest.raises(ModelError, match=rf"no core.*{said}"):
        model.predict(**inputs, spacing=(1.0, 1.0, 1.0), seed=0)


def test_soc_of_a_core_far_from_the_brain_is_refused():
    seg, brain = np.zeros((2, 4, 60), np.uint8), np.zeros((2, 4, 60), bool)
    seg[..., 0], brain[..., -1] = 3, True
    with pytest.raises(ModelError, match="brain mask"):
        soc.predict(tumor_seg=seg, brain_mask=brain, spacing=(1.0, 1.0, 1.0), seed=0)
