"""U-Net: loss, training that may be cut off, the model folder, and who is predicted by which network."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'predictgbm[learning]'")
pytest.importorskip("monai", reason="MONAI is not installed: pip install 'predictgbm[learning]'")

from scipy import ndimage  # noqa: E402

from predictgbm.growth import ModelError, distance  # noqa: E402
from predictgbm.learned import cards, unet, unet_training  # noqa: E402
from predictgbm.learned.splits import Case, draw_splits  # noqa: E402
from predictgbm.learned.training import TrainingError  # noqa: E402
from predictgbm.learned.unet import Ensemble, Sample, Settings, make_sample  # noqa: E402
from predictgbm.learned.unet_training import loss, miss_weight, train  # noqa: E402
from predictgbm.planning import make_plan, soc_mask  # noqa: E402

TINY = Settings(base=4, levels=3, patch=16, batch=2, epochs=3, patience=9, rate=5e-3)
SPACING = (4.0, 4.0, 4.0)
SHAPE = (20, 22, 18)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def exam(seed: int) -> dict[str, np.ndarray]:
    """Return an exam in a ball of brain, half of it white matter, with the core at its border."""
    rng = np.random.default_rng(seed)
    axes = np.indices(SHAPE)
    brain = sum(((x - (n - 1) / 2) / (n / 2 - 1)) ** 2 for x, n in zip(axes, SHAPE, strict=True)) <= 1
    side = rng.integers(2)
    wm = ((axes[0] >= SHAPE[0] // 2) == side) & brain
    centre = [(n - 1) / 2 + d for n, d in zip(SHAPE, (0, *rng.uniform(-3, 3, 2)), strict=True)]
    radius = np.sqrt(sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True)))
    labels = np.where(radius < 2, 3, np.where(radius < 3, 2, 0))
    return {
        "tumor_seg": (labels * brain).astype(np.uint8),
        "brain_mask": brain,
        "wm": wm.astype(np.float32),
        "gm": (brain & ~wm).astype(np.float32),
        "csf": np.zeros(SHAPE, np.float32),
        "t1c": (brain * (100 + 12 * (labels == 3) + rng.normal(0, 5, SHAPE))).astype(np.float32),
        "flair": (brain * (90 + 12 * (labels > 0) + rng.normal(0, 5, SHAPE))).astype(np.float32),
    }


def recurrence(given: dict[str, np.ndarray]) -> np.ndarray:
    """Return the planted rule: recurrence lies 4 to 6 voxels from the core, in white matter alone."""
    away = ndimage.distance_transform_edt(given["tumor_seg"] != 3)
    return (given["wm"] > 0) & (away >= 4) & (away < 6)


def sample(seed: int, patient: str = "") -> Sample:
    given = exam(seed)
    return make_sample(patient or f"p{seed}", **given, spacing=SPACING, recurrence=recurrence(given))


# Inputs


def test_contrasts_are_standardised_in_the_brain_and_absent_ones_are_zero() -> None:
    given = exam(0)
    given["adc"] = given["flair"] * -7.5
    made = make_sample("p", **given, spacing=SPACING)
    inside = made.brain[0]
    for channel in made.contrasts.astype(float):
        assert channel[inside].mean() == pytest.approx(0, abs=1e-3)
        assert not channel[~inside].any()
    assert made.contrasts[1][inside].astype(float).std() == pytest.approx(1, abs=0.01)
    assert np.allclose(made.contrasts[1], -made.contrasts[2], atol=2e-3)
    assert made.core_ml == pytest.approx(0.064 * (given["tumor_seg"] == 3).sum())
    bare = make_sample("p", **{k: v for k, v in given.items() if k not in unet.CONTRASTS}, spacing=SPACING)
    assert not bare.contrasts.any()
    assert np.array_equal(bare.tissues, made.tissues)


def test_sample_is_the_box_of_the_brain() -> None:
    given = {key: np.pad(value, ((3, 4), (0, 2), (5, 1))) for key, value in exam(1).items()}
    a, b = make_sample("p", **given, spacing=SPACING), make_sample("p", **exam(1), spacing=SPACING)
    assert all(np.array_equal(x, y) for x, y in zip(a[1:6], b[1:6], strict=True))
    with pytest.raises(ModelError, match="brain mask is empty"):
        make_sample("p", **(given | {"brain_mask": np.zeros_like(given["brain_mask"])}), spacing=SPACING)


def test_network_sees_each_label_in_a_channel_of_its_own() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4], dtype=torch.uint8).reshape(1, 1, 5, 1, 1)
    images = torch.arange(15.0).reshape(1, 3, 5, 1, 1)
    seen = unet.network_input(images, images + 20, labels)
    assert seen.shape == (1, unet.CHANNELS, 5, 1, 1)
    assert torch.equal(seen[0, :3, :, 0, 0], images[0, :, :, 0, 0])
    assert torch.equal(seen[0, 6:, :, 0, 0], torch.eye(5)[1:])


@pytest.mark.parametrize("length", range(1, 260, 7))
def test_windows_cover_the_box_with_overlap(length: int) -> None:
    (size,) = unet.window([length], Settings())
    assert size % 8 == 0
    assert size <= 96
    steps = max(1, -(-(length - unet.OVERLAP) // (96 - unet.OVERLAP)))
    assert steps * size - (steps - 1) * unet.OVERLAP >= length


def test_windows_give_what_the_whole_gives_where_the_network_is_local(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A network that looks at single voxels cannot see where a window ends.
    network = torch.nn.Conv3d(unet.CHANNELS, 1, 1)
    made = sample(0)
    monkeypatch.setattr(unet, "OVERLAP", 4)
    small, large = replace(TINY, patch=12), replace(TINY, patch=64)
    assert unet.window(made.brain.shape[1:], small) == (12, 12, 12)
    assert unet.window(made.brain.shape[1:], large) == (20, 20, 16)
    by_parts, whole = (unet.apply(network, made, settings, "cpu") for settings in (small, large))
    assert by_parts.shape == (1, *made.brain.shape)
    assert torch.allclose(by_parts, whole, atol=1e-5)


# Loss


def flat(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, 1, -1)


def test_loss_against_values_by_hand() -> None:
    settings = replace(
        TINY, edema_weight=3.0, core_weight=0.5, recurrence_weight=2.0, miss_small=0.9, miss_large=0.7
    )
    p = [0.8, 0.3, 0.6, 0.1, 0.9]
    y = [1.0, 0.0, 0.5, 0.0, 1.0]
    label = torch.tensor([2, 3, 1, 0, 2]).reshape(1, 1, 1, 1, -1)
    brain = [1, 1, 1, 1, 0]
    weight = [3 * 2, 0.5, 0.5 * 1.5, 1, 0]
    entropy = [-(t * math.log(q) + (1 - t) * math.log(1 - q)) for q, t in zip(p, y, strict=True)]
    expected = sum(w * e for w, e in zip(weight, entropy, strict=True)) / sum(weight)
    b = 0.7 + 0.2 / (1 + 13.75 / 27.5)
    hit = sum(q * t * m for q, t, m in zip(p, y, brain, strict=True))
    alarm = sum(q * (1 - t) * m for q, t, m in zip(p, y, brain, strict=True))
    miss = sum((1 - q) * t * m for q, t, m in zip(p, y, brain, strict=True))
    tversky = 1 - hit / (hit + (1 - b) * alarm + b * miss)
    logits = torch.logit(flat(*p))
    weighted = replace(settings, cross_entropy=0.5, tversky=3.0)
    found = loss(logits, flat(*y), label, flat(*brain), [13.75], weighted)
    assert float(found) == pytest.approx(0.5 * expected + 3 * tversky, rel=1e-4)
    expected += tversky
    found = loss(logits, flat(*y), label, flat(*brain), [13.75], settings)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    twice = loss(
        *(torch.cat([t, t]) for t in (logits, flat(*y), label, flat(*brain))), [13.75, 13.75], settings
    )
    assert float(twice) == pytest.approx(float(found))


def test_gradient_of_the_loss_against_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, 3, 4, 2)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    target = (torch.rand(shape, generator=generator) > 0.6).double()
    labels = torch.randint(0, 5, shape, generator=generator)
    brain = (torch.rand(shape, generator=generator) > 0.2).double()
    assert torch.autograd.gradcheck(
        lambda x: loss(x, target, labels, brain, [3.0, 80.0], TINY), (logits,), eps=1e-6, atol=1e-6
    )
    (slope,) = torch.autograd.grad(loss(logits, target, labels, brain, [3.0, 80.0], TINY), logits)
    assert not slope[brain == 0].any()
    assert (slope[(brain > 0) & (target > 0)] < 0).all()


def test_misses_weigh_more_the_smaller_the_tumour() -> None:
    weights = [miss_weight(ml, TINY) for ml in (0, 1, 10, 27.5, 100, 1e9)]
    assert weights[0] == TINY.miss_small
    assert weights[3] == pytest.approx((TINY.miss_small + TINY.miss_large) / 2)
    assert weights[-1] == pytest.approx(TINY.miss_large)
    assert all(a > b for a, b in pairwise(weights))
    # Two maps: one covers the recurrence with as much again around it, one has half of it and no false alarm.
    target = flat(*[1.0] * 4, *[0.0] * 8)
    labels, brain = torch.zeros_like(target).long(), torch.ones_like(target)
    wide, narrow = flat(*[9.0] * 8, *[-9.0] * 4), flat(*[9.0] * 2, *[-9.0] * 10)
    gain = [
        float(loss(narrow, target, labels, brain, [ml], TINY) - loss(wide, target, labels, brain, [ml], TINY))
        for ml in (1.0, 200.0)
    ]
    assert gain[0] > gain[1]


# Augmentation


def test_augmentation_hangs_on_seed_epoch_and_sample_alone() -> None:
    samples = [sample(0), sample(1)]
    augment = unet_training.augmentation((16, 16, 16), TINY)
    epochs = [
        unet_training.Epoch(samples, augment, seed, epoch) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    backwards = [epochs[1][1], epochs[1][0]][::-1]
    for i in range(2):
        first = epochs[0][i]
        assert all(torch.equal(first[key], backwards[i][key]) for key in ("contrasts", "labels", "target"))
        for other in epochs[2:]:
            assert not torch.equal(first["contrasts"], other[i]["contrasts"])


def test_augmentation_keeps_labels_whole_and_absent_contrasts_blank() -> None:
    augment = unet_training.augmentation((24, 24, 24), replace(TINY, drop=0.5))
    epoch = [unet_training.Epoch([sample(3)], augment, 0, n)[0] for n in range(40)]
    assert {v for cut in epoch for v in cut["labels"].unique().tolist()} == {0, 2, 3}
    assert all(cut["target"].min() >= 0 and cut["target"].max() <= 1 for cut in epoch)
    assert any(((cut["target"] > 0.05) & (cut["target"] < 0.95)).any() for cut in epoch)
    assert all(cut["contrasts"].shape == (3, 24, 24, 24) for cut in epoch)
    assert not any(cut["contrasts"][2].any() for cut in epoch)  # this exam has no ADC
    blank = [sum(not cut["contrasts"][i].any() for cut in epoch) for i in (0, 1)]
    assert all(8 < n < 32 for n in blank)
    assert all(not cut["contrasts"][:, cut["brain"][0] == 0].any() for cut in epoch)


def test_augmentation_moves_everything_together() -> None:
    augment = unet_training.augmentation((24, 24, 24), TINY)
    for n in range(20):
        cut = unet_training.Epoch([sample(3)], augment, 0, n)[0]
        # The recurrence of the planted rule lies in white matter, wherever both are moved.
        inside = cut["target"][0] > 0.9
        assert (cut["tissues"][0][inside] > 0.5).all()


# Training


def parts(count: int = 5) -> tuple[list[Sample], list[Sample]]:
    return [sample(i) for i in range(count)], [sample(100), sample(101)]


def state(path: Path) -> dict[str, Any]:
    return dict(Ensemble.read_file(path)["weights"])


def test_resumed_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    def run(name: str, stop: int = 0) -> dict[str, Any]:
        def report(epoch: int, *_: float) -> None:
            if epoch == stop:
                raise KeyboardInterrupt

        return train(*parts(), TINY, split="1", seed=4, checkpoint=tmp_path / name, report=report)

    whole = run("whole.pt")
    for stop in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run("parts.pt", stop)
        with pytest.raises(ModelError, match="not finished; resume it"):
            Ensemble.assemble(tmp_path / "x", [tmp_path / "parts.pt"], SPLITS, COHORTS)
    assert run("parts.pt") == whole
    assert len(whole["history"]) == 3
    assert whole["finished"]
    a, b = state(tmp_path / "whole.pt"), state(tmp_path / "parts.pt")
    assert all(torch.equal(a[name], b[name]) for name in a)
    # A finished training is left as it is; another seed is another training.
    assert run("parts.pt") == whole
    with pytest.raises(TrainingError, match="another seed"):
        train(*parts(), TINY, split="1", seed=5, checkpoint=tmp_path / "parts.pt")
    with pytest.raises(TrainingError, match="another training"):
        train(*parts(4), TINY, split="1", seed=4, checkpoint=tmp_path / "parts.pt")
    train(*parts(), TINY, split="1", seed=5, checkpoint=tmp_path / "other.pt")
    other = state(tmp_path / "other.pt")
    assert any(not torch.equal(a[name], other[name]) for name in a)


def test_processes_that_prepare_samples_change_nothing(tmp_path: Path) -> None:
    settings = replace(TINY, epochs=1)
    records = [
        train(*parts(3), settings, split="1", seed=0, checkpoint=tmp_path / f"{n}.pt", workers=n)
        for n in (0, 2)
    ]
    assert records[0] == records[1]


def test_training_stops_when_validation_gets_no_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.9, 0.5, 0.7, 0.6, 0.5, 0.4, 0.3])
    weights = []

    def validate(network: torch.nn.Module, *_: Any) -> float:
        weights.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(unet_training, "validation_loss", validate)
    settings = replace(TINY, epochs=20, patience=3)
    record = train(*parts(2), settings, split="1", seed=0, checkpoint=tmp_path / "n.pt")
    assert [pair[1] for pair in record["history"]] == [0.9, 0.5, 0.7, 0.6, 0.5]
    assert record["best_epoch"] == 2
    kept = state(tmp_path / "n.pt")
    assert all(torch.equal(kept[name], weights[1][name]) for name in kept)


def test_impossible_trainings_are_refused(tmp_path: Path) -> None:
    training, validation = parts(2)
    call = {"split": "1", "seed": 0, "checkpoint": tmp_path / "n.pt"}
    with pytest.raises(TrainingError, match="p1 would train and validate"):
        train(training, [sample(9, "p1")], TINY, **call)
    with pytest.raises(TrainingError, match="no exam for validation"):
        train(training, [], TINY, **call)
    with pytest.raises(TrainingError, match=r"voxel sizes from .*4. 4. 1.* to .*4. 4. 4."):
        train(training, [validation[0]._replace(spacing=(4.0, 4.0, 1.0))], TINY, **call)


def test_network_learns_a_planted_rule_that_distance_does_not_know(tmp_path: Path) -> None:
    training, validation = [sample(i) for i in range(12)], [sample(i) for i in range(50, 53)]
    settings = replace(TINY, base=6, patch=24, epochs=10)
    train(training, validation, settings, split="1", seed=0, checkpoint=tmp_path / "n.pt")
    network = unet.build_network(settings)
    network.load_state_dict(state(tmp_path / "n.pt"))
    covered = []
    for seed in range(200, 206):
        given = exam(seed)
        brain, core, truth = given["brain_mask"], given["tumor_seg"] == 3, recurrence(given)
        volume = int(soc_mask(given["tumor_seg"], brain, SPACING, margin=18.0).sum())
        made = make_sample("new", **given, spacing=SPACING)
        box = unet.bounding_box(brain)
        score = np.zeros(SHAPE)
        score[box] = torch.sigmoid(unet.apply(network, made, settings, "cpu"))[0, 0].numpy()
        nearest = distance.predict(tumor_seg=given["tumor_seg"], spacing=SPACING).map
        plans = [make_plan(m, core, brain, SPACING, volume) for m in (score, nearest)]
        covered.append([(plan & truth).sum() / truth.sum() for plan in plans])
    by_network, by_distance = np.mean(covered, axis=0)
    assert by_network > by_distance + 0.2


# Folder and prediction

NAMES = [f"p{i}" for i in range(9)]
COHORTS = {p: "a" if i % 2 else "b" for i, p in enumerate(NAMES)}
SPLITS = draw_splits([Case(p, COHORTS[p], float(i)) for i, p in enumerate(NAMES)], 3)
ONE_EPOCH = replace(TINY, epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return files of networks: three splits with one seed, and a second seed of the first."""
    folder = tmp_path_factory.mktemp("trained")
    files = []
    for name, seed in [("1", 0), ("2", 0), ("3", 0), ("1", 1)]:
        split = SPLITS["splits"][name]
        # Two exams of one patient, and one of every other.
        training = [sample(i, p) for i, p in enumerate([*split["training"], split["training"][0]])]
        validation = [sample(20 + i, p) for i, p in enumerate(split["validation"])]
        files.append(folder / f"{name}{seed}.pt")
        train(training, validation, ONE_EPOCH, split=name, seed=seed, checkpoint=files[-1])
    return files


@pytest.fixture
def folder(trained: list[Path], tmp_path: Path) -> Path:
    Ensemble.assemble(tmp_path / "model", trained, SPLITS, COHORTS)
    return tmp_path / "model"


def predict(folder: Path, patient: str, seed: int = 300, **changed: Any) -> Any:
    return unet.predict(
        **{**exam(seed), "spacing": SPACING, "weights": folder, "patient": patient, **changed}
    )


def test_card_says_what_the_networks_are(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    assert (card["model"], card["version"]) == ("unet", cards.VERSION)
    assert card["splits"] == SPLITS
    assert card["cohorts"] == COHORTS
    assert Settings(**card["settings"]) == ONE_EPOCH
    assert card["spacing_mm"] == [4, 4, 4]
    assert sorted(card["networks"]) == [
        "split-1_seed-0",
        "split-1_seed-1",
        "split-2_seed-0",
        "split-3_seed-0",
    ]
    for network in card["networks"].values():
        assert network["best_epoch"] == network["epochs"] == 1
        assert network["validation_loss"] > 0


def test_no_patient_is_predicted_by_a_network_that_saw_them(
    folder: Path, trained: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    read = Ensemble.network
    monkeypatch.setattr(Ensemble, "network", lambda self, name: used.append(name) or read(self, name))
    saw = {}
    for path in trained:
        record = Ensemble.read_file(path)["record"]
        saw[f"split-{record['split']}_seed-{record['seed']}"] = {*record["training"], *record["validation"]}
    for patient in NAMES:
        used.clear()
        prediction = predict(folder, patient)
        (split,) = (n for n, s in SPLITS["splits"].items() if patient in s["held_out"])
        assert used == prediction.parameters["networks"]
        assert used == [name for name in saw if name.startswith(f"split-{split}_")]
        assert not any(patient in saw[name] for name in used)
        assert prediction.parameters["known_patient"]
    used.clear()
    assert not predict(folder, "stranger").parameters["known_patient"]
    assert used == list(saw)


def test_networks_that_saw_whom_they_hold_out_are_refused(tmp_path: Path) -> None:
    split = SPLITS["splits"]["1"]
    outsider = split["held_out"][0]
    for i, (more, other) in enumerate([([outsider], []), ([], [outsider])]):
        training = [sample(1, p) for p in [*split["training"], *more]]
        validation = [sample(2, p) for p in [*split["validation"], *other]]
        path = tmp_path / f"{i}.pt"
        train(training, validation, ONE_EPOCH, split="1", seed=0, checkpoint=path)
        with pytest.raises(ModelError, match=f"used {outsider}, who is not in that part"):
            Ensemble.assemble(tmp_path / "model", [path], SPLITS, COHORTS)


def test_patient_whom_every_network_saw_is_refused(trained: list[Path], tmp_path: Path) -> None:
    Ensemble.assemble(tmp_path, trained[1:3], SPLITS, COHORTS)
    seen = SPLITS["splits"]["1"]["held_out"][0]
    with pytest.raises(ModelError, match=f"every network saw patient {seen}.*Train the split"):
        predict(tmp_path, seen)


def test_map_is_the_mean_of_the_networks_smoothed_and_blended(folder: Path) -> None:
    given = exam(300)
    patient = SPLITS["splits"]["1"]["held_out"][0]
    plain = predict(folder, patient, smoothing=0.0, distance_weight=0.0)
    made = make_sample(patient, **given, spacing=SPACING)
    box = unet.bounding_box(given["brain_mask"])
    inside = given["brain_mask"]
    single = np.zeros((2, *SHAPE))
    for out, name in zip(single, ("split-1_seed-0", "split-1_seed-1"), strict=True):
        network = Ensemble.load(folder).network(name)
        out[box] = torch.sigmoid(unet.apply(network, made, ONE_EPOCH, "cpu"))[0, 0].numpy()
    assert np.allclose(plain.map, single.mean(axis=0) * inside, atol=1e-6)
    assert np.allclose(plain.spread, np.abs(single[0] - single[1]) / 2 * inside, atol=1e-6)
    assert plain.map.dtype == plain.spread.dtype == np.float32

    away = ndimage.distance_transform_edt(given["tumor_seg"] != 3) * 4
    nearness = (1 - away / away[inside].max()) * inside
    assert np.allclose(predict(folder, patient, distance_weight=1.0).map, nearness, atol=1e-4)
    blended = predict(folder, patient, smoothing=0.0, distance_weight=0.3)
    assert np.allclose(blended.map, 0.7 * plain.map + 0.3 * nearness, atol=1e-4)
    assert np.allclose(blended.spread, 0.7 * plain.spread, atol=1e-6)

    smooth = predict(folder, patient, smoothing=6.0, distance_weight=0.0).map
    weight = ndimage.gaussian_filter(inside.astype(float), 1.5, mode="constant")
    expected = ndimage.gaussian_filter(plain.map.astype(float), 1.5, mode="constant")[inside] / weight[inside]
    assert np.allclose(smooth[inside], expected, atol=1e-5)
    assert not smooth[~inside].any()


def test_exam_without_any_contrast_is_predicted(folder: Path) -> None:
    bare = {"t1c": None, "flair": None}
    assert predict(folder, "stranger", **bare).map.max() > 0
    whole = predict(folder, "stranger", adc=exam(300)["flair"])
    assert 0 <= whole.map.min() < whole.map.max() <= 1


def test_exams_that_do_not_suit_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="no core"):
        predict(folder, "stranger", tumor_seg=np.zeros(SHAPE, np.uint8))
    with pytest.raises(ModelError, match=r"exam has voxels of 1 x 1 x 1 mm.*trained on 4 x 4 x 4 mm"):
        predict(folder, "stranger", spacing=(1.0, 1.0, 1.0))


def test_faulty_folders_are_refused(folder: Path, trained: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.*cannot be read.*give the folder"):
        predict(tmp_path / "nowhere", "stranger")
    weights, card = folder / "split-2_seed-0.pt", folder / "card.json"
    held_out = SPLITS["splits"]["2"]["held_out"][0]
    content = weights.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 30):
        weights.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"split-2_seed-0\.pt: cannot be read.*copy it again"):
            predict(folder, held_out)
    weights.write_bytes(trained[2].read_bytes())
    with pytest.raises(ModelError, match=r"not the file that card\.json describes"):
        predict(folder, held_out)
    weights.unlink()
    with pytest.raises(ModelError, match=r"split-2_seed-0\.pt: cannot be read"):
        predict(folder, held_out)
    torch.save([1, 2], weights)
    with pytest.raises(ModelError, match="is not a network of U-Net"):
        predict(folder, held_out)

    text = card.read_text()
    for change, reason in [
        ({"version": 99}, "has version 99, expected"),
        ({"model": "gliomap"}, "not the card of U-Net"),
        ({"settings": {"colour": 1}}, "settings: .*colour"),
    ]:
        card.write_text(json.dumps(json.loads(text) | change))
        with pytest.raises(ModelError, match=reason):
            predict(folder, "stranger")
    card.write_text(json.dumps({"model": "unet", "version": cards.VERSION}))
    with pytest.raises(ModelError, match="lacks cohorts, networks, settings, spacing_mm"):
        predict(folder, "stranger")
    card.write_text(text[:200])
    with pytest.raises(ModelError, match=r"card\.json: cannot be read"):
        predict(folder, "stranger")


def test_files_that_run_code_are_refused(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (folder / "ran",))

    torch.save({"record": Evil(), "weights": {}}, folder / "split-2_seed-0.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        predict(folder, SPLITS["splits"]["2"]["held_out"][0])
    assert not (folder / "ran").exists()


def test_networks_that_do_not_belong_together_are_refused(trained: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a second network split-1_seed-0"):
        Ensemble.assemble(tmp_path, [trained[0], trained[0]], SPLITS, COHORTS)
    with pytest.raises(ModelError, match="no network"):
        Ensemble.assemble(tmp_path, [], SPLITS, COHORTS)
    for change, reason in [
        ({"settings": {}}, "other settings"),
        ({"spacing_mm": [1.0, 1.0, 1.0]}, "trained on 1 x 1 x 1 mm, networks before it on 4 x 4 x 4 mm"),
        ({"split": "7"}, "split 7 is not one of 1, 2, 3"),
    ]:
        content = Ensemble.read_file(trained[1])
        content["record"] |= change
        cards.write_file(tmp_path / "other.pt", content)
        with pytest.raises(ModelError, match=reason):
            Ensemble.assemble(tmp_path, [trained[0], tmp_path / "other.pt"], SPLITS, COHORTS)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"base": "16"}, {"levels": 2}, {"rate": -1.0}, {"batch": True}]
)
def test_settings_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ModelError, match=f"setting {name} is .* or more"):
        Settings(**wrong)


def test_a_loss_of_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="nothing would be learned"):
        Settings(cross_entropy=0, tversky=0)


def test_a_loss_that_is_not_a_number_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unet_training, "validation_loss", lambda *_: math.nan)
    with pytest.raises(TrainingError, match="not a number after epoch 1; lower the learning rate"):
        train([sample(0)], [sample(1)], TINY, split="1", seed=0, checkpoint=tmp_path / "n")


def test_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    short = replace(TINY, epochs=1)
    train([sample(0)], [sample(1)], short, split="1", seed=0, checkpoint=tmp_path / "n")
    changed = sample(0)
    changed.labels[0, 5, 5, 5] ^= 1
    with pytest.raises(TrainingError, match="of a training with another data"):
        train([changed], [sample(1)], short, split="1", seed=0, checkpoint=tmp_path / "n")
