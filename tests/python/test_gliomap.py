"""GlioMap: sampling, training and prediction on small synthetic exams with a planted rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictgbm.growth import ModelError
from predictgbm.images import MissingInputError
from predictgbm.labels import Tumor
from predictgbm.learned import gliomap
from predictgbm.learned.gliomap import CONTRASTS, Forest, Model, Surroundings
from predictgbm.learned.radiomics import filter_image
from predictgbm.learned.training import TrainingError, TrainingExam
from predictgbm.planning import make_plan

pytest.importorskip("sklearn", reason="scikit-learn is not installed: ./predictgbm setup --learning")

from predictgbm.learned import gliomap_training
from predictgbm.learned.gliomap_training import LEAF, Sample, draw_sample, train

SPACING = (4.0, 4.0, 4.0)
SHAPE = (18, 16, 14)
HELD_OUT = [["a", "b"], ["c", "d"]]


@pytest.fixture(autouse=True)
def _unfiltered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of each contrast instead of twelve: the rule needs no more."""
    monkeypatch.setattr(gliomap, "filter_image", lambda image, _: [next(iter(filter_image(image, SPACING)))])


def make_exam(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Contrasts, labels, brain mask and recurrence, which lies where FLAIR is bright."""
    rng = np.random.default_rng(seed)
    brain = np.zeros(SHAPE, bool)
    brain[1:-1, 1:-1, 1:-1] = True
    labels = np.zeros(SHAPE, np.uint8)
    labels[7:10, 6:9, 5:8] = Tumor.ENHANCING
    contrasts = {name: rng.normal(100, 10, SHAPE).astype(np.float32) for name in CONTRASTS}
    bright = np.zeros(SHAPE, bool)
    corner = rng.integers(2, 9, 3)
    bright[tuple(slice(c, c + 5) for c in corner)] = True
    contrasts["flair"] += 60 * bright
    return contrasts, labels, brain, bright & (labels == 0)


def train_all(samples: list[Sample], seed: int = 0, trees: int = 20, jobs: int = 1) -> Model:
    """Train a classifier for each list of HELD_OUT on all others."""
    kept = [[s for s in samples if s.patient not in out] for out in HELD_OUT]
    return Model.join([train(part, seed + n, trees, jobs) for n, part in enumerate(kept)])


def look(seed: int) -> Surroundings:
    contrasts, labels, brain, _ = make_exam(seed)
    return gliomap.survey(contrasts, labels, brain, SPACING)


@pytest.fixture(scope="module")
def model() -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gliomap, "filter_image", lambda image, _: [("original", image)])
        samples = [draw_sample(p, look(s), make_exam(s)[3], seed=s, most=150) for s, p in enumerate("abcd")]
    return train_all(samples)


def run(seed: int, patient: str, model: Model | str) -> np.ndarray:
    contrasts, labels, brain, _ = make_exam(seed)
    found = gliomap.predict(
        **contrasts, tumor_seg=labels, brain_mask=brain, spacing=SPACING, patient=patient, weights=model
    )
    return found.map


def test_region_is_brain_near_the_tumor() -> None:
    contrasts, labels, brain, _ = make_exam(0)
    labels[7, 7, 6] = Tumor.CAVITY
    found = gliomap.survey(contrasts, labels, brain, SPACING)
    assert np.array_equal(found.tumor, labels > 0)
    places = np.argwhere(brain & (labels == 0))
    to_tumor = [
        np.sqrt(((place - np.argwhere(labels > 0)) ** 2).sum(axis=1).min()) * 4 for place in places.tolist()
    ]
    expected = np.zeros(SHAPE, bool)
    expected[tuple(places[np.array(to_tumor) <= gliomap.REACH_MM].T)] = True
    assert np.array_equal(found.region, expected)


def test_sample_is_balanced_and_within_the_region() -> None:
    around, recurrence = look(1), make_exam(1)[3]
    sample = draw_sample("x", around, recurrence, seed=3, most=40)
    assert sample.features.shape == (80, len(around.radiomics.names))
    assert sample.recurrence.sum() == 40
    assert sample.share == pytest.approx(recurrence[around.region].mean())
    all_features = around.describe(around.region)
    of_recurrence = {row.tobytes() for row in all_features[recurrence[around.region]]}
    assert [row.tobytes() in of_recurrence for row in sample.features] == sample.recurrence.tolist()
    again, other = (draw_sample("x", around, recurrence, seed=s, most=40) for s in (3, 4))
    assert np.array_equal(sample.features, again.features)
    assert not np.array_equal(sample.features, other.features)


def test_exam_without_recurrence_gives_nothing() -> None:
    sample = draw_sample("x", look(1), np.zeros(SHAPE, bool))
    assert len(sample.features) == len(sample.recurrence) == sample.share == 0


def test_planted_rule_is_learned_in_an_unseen_patient(model: Model) -> None:
    found, around, recurrence = run(9, "new", model), look(9), make_exam(9)[3]
    near = around.region & (around.distance < 16)
    positive, negative = found[near & recurrence], found[near & ~recurrence]
    auc = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert auc > 0.9
    shuffled = np.random.default_rng(0).permutation(np.concatenate([positive, negative]))
    assert abs((shuffled[: len(positive), None] > shuffled[len(positive) :]).mean() - 0.5) < 0.1


def test_map_is_a_probability_with_the_tumor_first(model: Model) -> None:
    found, (_, labels, brain, _) = run(9, "new", model), make_exam(9)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert (found[labels > 0] == 1).all()
    assert found[labels == 0].max() <= 1
    assert not found[~brain].any()
    count = np.count_nonzero(labels) + 30
    plan = make_plan(found.astype(float), labels > 0, brain, SPACING, count)
    assert plan[labels > 0].all()


def test_voxels_of_any_chunk_are_the_same(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(9, "new", model)
    monkeypatch.setattr(gliomap, "CHUNK", 333)
    assert np.array_equal(run(9, "new", model), whole)


def test_seed_decides(model: Model) -> None:
    samples = [draw_sample(p, look(s), make_exam(s)[3], seed=s, most=150) for s, p in enumerate("abcd")]
    same, other = (train_all(samples, seed=s, jobs=2) for s in (0, 1))
    assert np.array_equal(run(9, "new", same), run(9, "new", model))
    assert not np.array_equal(run(9, "new", other), run(9, "new", model))


def test_no_patient_is_predicted_by_a_classifier_that_saw_it(model: Model) -> None:
    assert model.seen == (frozenset("cd"), frozenset("ab"))
    assert model.unseen("a") == model.unseen("b") == [0]
    assert model.unseen("c") == [1]
    assert model.unseen("new") == [0, 1]
    only = [Model((f,), (s,), (p,), model.columns, SPACING) for f, s, p in zip(*_parts(model), strict=True)]
    assert np.array_equal(run(0, "a", model), run(0, "new", only[0]))
    assert np.array_equal(run(2, "c", model), run(2, "new", only[1]))
    assert not np.array_equal(run(0, "a", model), run(0, "c", model))
    with pytest.raises(ModelError, match="trained on patient c"):
        run(2, "c", only[0])


def _parts(model: Model) -> tuple[tuple[Forest, ...], tuple[frozenset[str], ...], tuple[float, ...]]:
    return model.forests, model.seen, model.share


def test_what_a_held_out_patient_shows_does_not_reach_its_classifier() -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(p, rng.normal(size=(60, 5)).astype(np.float32), np.arange(60) < 30, 0.1, SPACING)
        for p in "abcd"
    ]
    changed = [s._replace(features=s.features**3, share=0.9) if s.patient in "ab" else s for s in samples]
    one, other = (train_all(s, trees=5) for s in (samples, changed))
    for name in Forest._fields:
        assert np.array_equal(getattr(one.forests[0], name), getattr(other.forests[0], name))
    assert one.share[0] == other.share[0]
    assert not np.array_equal(one.forests[1].threshold, other.forests[1].threshold)


def test_trees_are_those_of_scikit_learn() -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    rng = np.random.default_rng(2)
    # Few values: many of them are thresholds or next to one.
    x = rng.integers(0, 5, (400, 6)).astype(np.float32) / 3
    y = rng.random(400) < 0.2 + 0.6 * (x[:, 0] > x[:, 1])
    model = train([Sample("a", x, y, 0.5, SPACING)], seed=7, trees=15)
    theirs = ExtraTreesClassifier(15, min_samples_leaf=LEAF, random_state=7).fit(x, y)
    assert model.forests[0](x) == pytest.approx(theirs.predict_proba(x)[:, 1], abs=1e-6)


def test_odds_are_those_of_the_region() -> None:
    """Of balanced samples p, the probability in a population with the share s by Bayes' rule."""
    leaf = Forest(
        *(
            np.array([v], t)
            for v, t in ((0, "i4"), (-1, "i4"), (0, "f4"), (-1, "i4"), (-1, "i4"), (0.8, "f4"))
        )
    )
    model = Model((leaf,), (frozenset(),), (0.1,), 1, SPACING)
    # 0.8 among as many of both kinds: a likelihood ratio of 4.
    assert model(np.zeros((3, 1), np.float32), [0]) == pytest.approx([4 * 0.1 / (4 * 0.1 + 0.9)] * 3)


@given(st.lists(st.floats(0, 300), min_size=2, max_size=20))
def test_correction_falls_with_distance(distances: list[float]) -> None:
    d = np.sort(np.array(distances))
    correction = gliomap.correct_distance(d)
    assert (np.diff(correction) <= 0).all()
    assert ((correction >= 0) & (correction <= 1)).all()


def test_correction_has_the_values_of_its_formula() -> None:
    assert gliomap.correct_distance(np.array([20.0, 0.0, 60.0])) == pytest.approx([0.5, 1, 0])
    assert gliomap.correct_distance(np.array([19.0])) == pytest.approx(1 / (1 + np.exp(-2)))
    assert gliomap.correct_distance(np.array([gliomap.REACH_MM])) < 0.02


def test_model_is_kept_in_a_file(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "gliomap.npz"
    model.save(path)
    read = Model.load(path)
    assert read.spacing == SPACING
    assert (read.seen, read.share, read.columns) == (model.seen, model.share, model.columns)
    assert np.array_equal(run(0, "a", str(path)), run(0, "a", model))


def test_file_that_is_none_is_refused(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "gliomap.npz"
    for content in (b"", b"no model", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"gliomap\.npz: cannot be read"):
            Model.load(path)
    np.savez(path, columns=np.array([print], object))
    with pytest.raises(ModelError, match="cannot be read"):
        Model.load(path)


@pytest.mark.parametrize(
    ("name", "value"), [("left", 0), ("right", 10**6), ("feature", 10**6), ("roots", -1), ("roots", 10**6)]
)
def test_damaged_trees_are_refused(model: Model, tmp_path: Path, name: str, value: int) -> None:
    array = getattr(model.forests[0], name).copy()
    array[0] = value
    damaged = Model(
        (model.forests[0]._replace(**{name: array}),), model.seen[:1], model.share[:1], model.columns, SPACING
    )
    damaged.save(tmp_path / "gliomap.npz")
    with pytest.raises(ModelError, match="damaged"):
        Model.load(tmp_path / "gliomap.npz")


def test_exam_of_other_voxels_is_refused(model: Model) -> None:
    other = replace(model, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ModelError, match="prepare the exam on such a grid"):
        run(0, "new", other)
    one = Sample("a", np.zeros((2, 1), np.float32), np.array([True, False]), 0.5, SPACING)
    samples = [one, one._replace(spacing=(1.0, 1.0, 1.0))]
    with pytest.raises(TrainingError, match="bring all exams to one grid"):
        train(samples)


def test_model_of_other_features_is_refused(model: Model) -> None:
    with pytest.raises(ModelError, match="train it anew"):
        run(0, "a", Model(model.forests, model.seen, model.share, model.columns + 1, SPACING))


def test_exam_that_cannot_be_used_is_refused(model: Model) -> None:
    contrasts, labels, brain, _ = make_exam(0)
    for adc in (None, np.zeros(SHAPE, np.float32)):
        with pytest.raises(MissingInputError, match="diffusion subset only"):
            gliomap.survey(contrasts | {"adc": adc}, labels, brain, SPACING)
    with pytest.raises(ModelError, match="neither core"):
        gliomap.survey(contrasts, np.full(SHAPE, Tumor.EDEMA, np.uint8), brain, SPACING)
    far = np.zeros(SHAPE, bool)
    far[0, 0, 0] = True
    with pytest.raises(ModelError, match="no brain lies within 22 mm"):
        gliomap.survey(contrasts, labels, far, SPACING)
    nothing = draw_sample("a", look(0), np.zeros(SHAPE, bool))
    with pytest.raises(TrainingError, match="none of the 1 exams has recurrence"):
        train([nothing])


def test_classifiers_of_a_training_are_assembled(tmp_path: Path) -> None:
    def exams(names: str) -> list[TrainingExam]:
        found = []
        for name in names:
            contrasts, labels, brain, recurrence = make_exam(ord(name))
            inputs = {**contrasts, "tumor_seg": labels, "brain_mask": brain}
            if name == "z":
                del inputs["adc"]
            if name == "y":
                inputs["adc"] = np.zeros(SHAPE, np.float32)
            found.append(TrainingExam(name, inputs, SPACING, recurrence))
        return found

    splits = {
        "splits": {
            "1": {"training": ["c", "z"], "validation": ["d"], "held_out": ["a", "b", "y"]},
            "2": {"training": ["a", "b"], "validation": ["y"], "held_out": ["c", "d", "z"]},
        }
    }
    files, losses = [], []
    for name, parts in splits["splits"].items():
        files.append(tmp_path / f"{name}.net")
        gliomap_training.train_network(
            *(exams("".join(parts[part])) for part in ("training", "validation")),
            split=name,
            seed=0,
            settings={"samples": 150, "trees": 10},
            file=files[-1],
            report=lambda *values: losses.append(values),
        )
    assert [epoch for epoch, _, _ in losses] == [1, 1]
    assert max(loss for _, loss, _ in losses) < np.log(2), "no better than a coin"
    assert np.isnan(losses[1][2])
    card = gliomap_training.assemble(tmp_path / "gliomap", files, splits, dict.fromkeys("abcdyz", "A"))
    assert card["networks"]["split-1_seed-0"]["training"] == ["c"], "an exam without ADC was trained on"
    contrasts, labels, brain, _ = make_exam(ord("a"))
    found = gliomap.predict(
        **contrasts,
        tumor_seg=labels,
        brain_mask=brain,
        spacing=SPACING,
        patient="a",
        weights=tmp_path / "gliomap",
    )
    assert found.parameters["classifiers"] == 1
    assert card["networks"]["split-2_seed-0"]["history"][0][1] is None
    leaky = {"splits": {"1": splits["splits"]["2"], "2": splits["splits"]["1"]}}
    with pytest.raises(ModelError, match="was trained on c, whom its split holds out"):
        gliomap_training.assemble(tmp_path / "leaky", files, leaky, dict.fromkeys("abcdyz", "A"))
    for settings, said in (
        ({"depth": 1}, "depth is unknown"),
        ({"trees": 0}, "trees is 0, expected a whole number"),
    ):
        with pytest.raises(ValueError, match=f"setting {said}"):
            gliomap_training.train_network(
                [], [], split="1", seed=0, settings=settings, file=files[0], report=lambda *_: None
            )
