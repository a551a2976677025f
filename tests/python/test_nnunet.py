"""nnU-Net: axes of anisotropic exams, training that may be cut off, and who is predicted by which network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WANTED = "is not installed: ./predictgbm setup --learning"
torch = pytest.importorskip("torch", reason=f"torch {WANTED}")
pytest.importorskip("nnunetv2", reason=f"nnunetv2 {WANTED}")

from predictgbm.growth import ModelError  # noqa: E402
from predictgbm.learned import cards, nnunet, nnunet_training  # noqa: E402
from predictgbm.learned.nnunet import Ensemble  # noqa: E402
from predictgbm.learned.splits import Case, draw_splits  # noqa: E402
from predictgbm.learned.training import TrainingError, TrainingExam  # noqa: E402

# The coarsest axis, which nnU-Net puts first, is the one that it reads last.
SPACING = (6.0, 3.0, 4.0)
SHAPE = (14, 24, 18)
NAMES = [f"p{i}" for i in range(6)]
COHORTS = dict.fromkeys(NAMES, "a")
SPLITS = draw_splits([Case(p, "a", float(i)) for i, p in enumerate(NAMES)], 3)
BRIEF = {"epochs": 1, "iterations": 2}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


def exam(seed: int) -> dict[str, np.ndarray]:
    """Return an exam of noise in an ellipsoid of brain that lies off the centre, with a tumour in it."""
    rng = np.random.default_rng(seed)
    axes = np.indices(SHAPE)
    centre, half = (6, 11, 9), (5, 10, 7)
    brain = sum(((x - c) / h) ** 2 for x, c, h in zip(axes, centre, half, strict=True)) <= 1
    at = [c + rng.integers(-2, 3) for c in centre]
    radius = np.sqrt(sum((h * (x - c)) ** 2 for h, x, c in zip(SPACING, axes, at, strict=True)))
    parts = rng.dirichlet([1, 1, 1], SHAPE).astype(np.float32) * brain[..., None]
    return {
        "tumor_seg": np.select([radius < 4, radius < 7, radius < 11], [1, 3, 2], 0).astype(np.uint8) * brain,
        "brain_mask": brain,
        "wm": parts[..., 0],
        "gm": parts[..., 1],
        "csf": parts[..., 2],
    }


def training_exam(seed: int, patient: str = "", spacing: Any = SPACING) -> TrainingExam:
    given = exam(seed)
    return TrainingExam(patient or f"p{seed}", given, spacing, given["tumor_seg"] == 2)


def train(file: Path, split: str = "1", seed: int = 0, **changed: Any) -> list[tuple[int, float, float]]:
    """Train by a split of the cohort and return what was reported."""
    reports: list[tuple[int, float, float]] = []
    parts = ([training_exam(NAMES.index(p), p) for p in SPLITS["splits"][split][part]] for part in PARTS)
    call = {"settings": BRIEF, "report": lambda *losses: reports.append(losses), **changed}
    nnunet_training.train_network(*parts, split=split, seed=seed, file=file, **call)
    return reports


PARTS = ("training", "validation")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> tuple[list[Path], np.ndarray]:
    """Return the networks of two of three splits, and what nnU-Net had made of the first exam."""
    import blosc2

    folder = tmp_path_factory.mktemp("trained")
    prepared = []
    environment = dict(os.environ)

    def look(*_: Any) -> None:
        (case,) = folder.glob("*.nnunet/preprocessed/*/*/case0000.b2nd")
        prepared.append(np.array(blosc2.open(str(case), mode="r")[:]))

    files = [folder / f"{name}.net" for name in ("1", "2")]
    for file in files:
        train(file, file.stem, report=look)
    assert os.environ == environment
    assert sorted(folder.iterdir()) == files
    return files, prepared[0]


@pytest.fixture
def folder(trained: Any, tmp_path: Path) -> Path:
    nnunet_training.assemble(tmp_path / "model", trained[0], SPLITS, COHORTS)
    return tmp_path / "model"


def held_out(split: str) -> str:
    return str(SPLITS["splits"][split]["held_out"][0])


def predict(folder: Path, patient: str, seed: int = 300, **changed: Any) -> Any:
    return nnunet.predict(
        **{**exam(seed), "spacing": SPACING, "weights": folder, "patient": patient, **changed}
    )


# Grids


def test_each_label_has_a_channel_of_its_own() -> None:
    given = exam(0)
    given["wm"] = given["wm"] + 1  # also outside the brain
    stack, brain = nnunet.stack_channels(**given)
    assert stack.shape == (len(nnunet.CHANNELS), *SHAPE) == (7, *SHAPE)
    assert np.array_equal(brain, given["brain_mask"])
    assert np.array_equal(stack[0], given["wm"] * brain)
    assert np.array_equal(stack[3:].argmax(axis=0) + 1, np.where(given["tumor_seg"], given["tumor_seg"], 1))
    assert np.array_equal(stack[3:].sum(axis=0), given["tumor_seg"] > 0)


def test_training_saw_what_prediction_sees(folder: Path, trained: Any) -> None:
    patient = SPLITS["splits"]["1"]["training"][0]
    predictor = Ensemble.load(folder).predictor("split-1_seed-0", mirroring=False)
    seen: list[np.ndarray] = []

    def look(data: Any) -> Any:
        seen.append(data.numpy())
        return torch.zeros(2, *data.shape[1:])

    predictor.predict_sliding_window_return_logits = look
    stack, brain = nnunet.stack_channels(**exam(NAMES.index(patient)))
    found = nnunet.apply(predictor, stack, SPACING)
    # The coarsest axis first, then z and y of the brain's box, voxel by voxel.
    box = nnunet_training.bounding_box(brain)
    assert np.array_equal(seen[0], stack[(slice(None), *box)].transpose(0, 1, 3, 2))
    assert np.array_equal(seen[0], trained[1])
    assert np.allclose(found[box], 0.5)


@pytest.mark.parametrize("mirroring", [False, True])
def test_map_of_a_network_of_known_weights(folder: Path, mirroring: bool) -> None:
    # It looks at single voxels, so that neither windows nor mirroring change what it says.
    predictor = Ensemble.load(folder).predictor("split-1_seed-0", mirroring)
    weight = np.array([3, -2, 0.5, 1, -1, 2, 4], np.float32)
    network = torch.nn.Conv3d(7, 2, 1, bias=False)
    network.load_state_dict(
        {"weight": torch.from_numpy(np.stack([0 * weight, weight])).reshape(network.weight.shape)}
    )
    predictor.network = network
    stack, brain = nnunet.stack_channels(**exam(5))
    expected = 1 / (1 + np.exp(-np.einsum("c,cxyz", weight, stack)))
    found = nnunet.apply(predictor, stack, SPACING)
    assert found.shape == SHAPE
    assert expected[brain].std() > 0.1
    # nnU-Net keeps logits in half precision.
    assert np.allclose(found[brain], expected[brain], atol=2e-3)


# Training


def test_training_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "n.net"
    settings = {"epochs": 2, "iterations": 1}
    begun: list[Any] = []

    def stop(*losses: Any) -> None:
        begun.append(losses)
        raise KeyboardInterrupt

    # The second time from the beginning, by the same chance.
    for _ in range(2):
        shutil.rmtree(tmp_path / "n.net.nnunet" / "results", ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            train(file, settings=settings, report=stop)
    assert begun[0] == begun[1]
    assert begun[0][0] == 1
    assert not file.exists()
    with pytest.raises(TrainingError, match=r"n\.net\.nnunet: is of a training with another seed"):
        train(file, seed=1, settings=settings)
    rest = train(file, settings=settings)
    assert [epoch for epoch, *_ in rest] == [2]
    record = Ensemble.read_file(file)["record"]
    assert record["history"] == [list(losses) for _, *losses in (begun[0], rest[0])]
    assert record["finished"]
    # A finished training is left as it is; another is not taken for it.
    assert train(file, settings=settings) == []
    with pytest.raises(TrainingError, match=r"n\.net: is of a training with another settings"):
        train(file)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"colour": 1}, "setting colour is unknown; known are configuration, epochs, iterations, trainer"),
        ({"epochs": 0}, "setting epochs is 0, expected a whole number of 1 or more"),
        ({"trainer": 3}, "setting trainer is 3, expected a name"),
        ({"trainer": "nnUNetTrainerNobody"}, "has none named nnUNetTrainerNobody"),
        ({"configuration": "3d_lowres"}, "3d_lowres is not one of nnU-Net's plan: 2d, 3d_fullres"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        train(tmp_path / "n.net", settings=settings)


def test_impossible_trainings_are_refused(tmp_path: Path) -> None:
    call = {"split": "1", "seed": 0, "settings": {}, "file": tmp_path / "n.net", "report": print}
    one, other = training_exam(1), training_exam(2)
    for training, validation, reason in [
        ([one], [one], "p1 would train and validate"),
        ([], [other], "no exam for training"),
        ([one], [training_exam(2, spacing=(1.0, 3.0, 4.0))], "voxel sizes from"),
        ([one._replace(recurrence=one.recurrence & False)], [other], "no exam for training has recurrence"),
    ]:
        with pytest.raises(TrainingError, match=reason):
            nnunet_training.train_network(training, validation, **call)


# Folder and prediction


def test_card_says_what_the_networks_are(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    assert card["model"] == "nnunet"
    assert card["settings"] == {"trainer": "nnUNetTrainer", "configuration": "3d_fullres", **BRIEF}
    assert card["spacing_mm"] == list(SPACING)
    assert list(card["networks"]) == ["split-1_seed-0", "split-2_seed-0"]
    for name, network in card["networks"].items():
        split = SPLITS["splits"][name[6]]
        assert [network[part] for part in PARTS] == [split[part] for part in PARTS]
        assert [network["training_loss"], network["validation_loss"]] == network["history"][0]
        assert np.isfinite(network["history"]).all()
        assert network["best_epoch"] == network["epochs"] == 1
        assert network["nnunetv2"]


def test_no_patient_is_predicted_by_a_network_that_saw_them(
    folder: Path, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    read = Ensemble.read
    monkeypatch.setattr(Ensemble, "read", lambda self, name: used.append(name) or read(self, name))
    monkeypatch.setattr(nnunet, "apply", lambda predictor, stack, spacing: stack[0])
    for split in ("1", "2"):
        for patient in SPLITS["splits"][split]["held_out"]:
            used.clear()
            prediction = predict(folder, patient)
            assert used == prediction.parameters["networks"] == [f"split-{split}_seed-0"]
            assert prediction.parameters["known_patient"]
            record = Ensemble.read_file(trained[0][int(split) - 1])["record"]
            assert patient not in {*record["training"], *record["validation"]}
    used.clear()
    assert not predict(folder, "stranger").parameters["known_patient"]
    assert used == ["split-1_seed-0", "split-2_seed-0"]
    with pytest.raises(ModelError, match=f"every network saw patient {held_out('3')}"):
        predict(folder, held_out("3"))


def test_network_that_saw_whom_it_holds_out_is_refused(trained: Any, tmp_path: Path) -> None:
    for part in PARTS:
        content = Ensemble.read_file(trained[0][0])
        content["record"][part] = [*content["record"][part], held_out("1")]
        cards.write_file(tmp_path / "leaky.net", content)
        with pytest.raises(ModelError, match=f"{part} used {held_out('1')}, who is not in that part"):
            nnunet_training.assemble(tmp_path / "model", [tmp_path / "leaky.net"], SPLITS, COHORTS)


def test_map_is_the_mean_of_the_networks(folder: Path) -> None:
    found = predict(folder, "stranger")
    brain = exam(300)["brain_mask"]
    single = [predict(folder, held_out(split)) for split in ("1", "2")]
    assert not np.array_equal(single[0].map, single[1].map)
    assert np.allclose(found.map, (single[0].map + single[1].map) / 2, atol=1e-6)
    assert np.allclose(found.spread, np.abs(single[0].map - single[1].map) / 2, atol=1e-6)
    assert not single[0].spread.any()
    assert found.map.dtype == found.spread.dtype == np.float32
    assert not found.map[~brain].any()
    assert (found.map[brain] > 0).all()
    assert found.map.max() <= 1


def test_exams_that_do_not_suit_are_refused(folder: Path) -> None:
    for changed, reason in [
        ({"tumor_seg": np.zeros(SHAPE, np.uint8)}, "no core"),
        ({"brain_mask": np.zeros(SHAPE, bool)}, "neither tissue nor tumour lies in the brain mask"),
        ({"spacing": (3.0, 6.0, 4.0)}, "exam has voxels of 3 x 6 x 4 mm.*trained on 6 x 3 x 4 mm"),
    ]:
        with pytest.raises(ModelError, match=reason):
            predict(folder, "stranger", **changed)


def test_faulty_files_are_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "split-1_seed-0.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"split-1_seed-0\.pt: cannot be read as a network of nnU-Net"):
        predict(folder, held_out("1"))
    file.write_bytes(whole)
    for change in ("class", "weights"):
        content = Ensemble.read_file(file)
        if change == "class":
            plan = content["plans"]["configurations"]["3d_fullres"]["architecture"]
            plan["network_class_name"] = "subprocess.Popen"
        else:
            content["weights"].popitem()
        cards.write_file(tmp_path / "other.net", content)
        nnunet_training.assemble(tmp_path / change, [tmp_path / "other.net"], SPLITS, COHORTS)
        reason = "its plan names subprocess.Popen" if change == "class" else "Missing key"
        with pytest.raises(ModelError, match=f"(?s)cannot build this network.*{reason}"):
            predict(tmp_path / change, "stranger")
