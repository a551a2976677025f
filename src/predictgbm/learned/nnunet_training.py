"""Training of one network of :mod:`predictgbm.learned.nnunet` by the package ``nnunetv2``, as its commands do it.

While a training is unfinished, ``FILE.nnunet`` beside its file holds what nnU-Net has prepared and its checkpoint of
the last epoch, from where a training that was cut off goes on. That checkpoint is read by nnU-Net, which executes what
is in it; of the finished file nothing is executed.

The seed draws the first weights, and with one CPU the samples too. With more, the processes that prepare samples draw
them by chances of their own, and on a GPU sums come in any order: the same seed then gives another network, alike but
not the same; so does a training that was cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from predictgbm.images import write_image
from predictgbm.learned.cards import Vector, check_same, choose_device, open_record, write_file
from predictgbm.learned.nnunet import CHANNELS, Ensemble, stack_channels
from predictgbm.learned.training import TrainingError, TrainingExam, check_numbers, fill_settings
from predictgbm.masks import bounding_box

assemble = Ensemble.assemble

#: nnU-Net wants a number and a name.
DATASET = "Dataset001_recurrence"
#: Bytes of shared memory below which no other process prepares samples: a dozen batches of the usual patch need half.
SHARED = 4 << 30


@dataclass(frozen=True)
class Settings:
    """What may be chosen; everything else nnU-Net chooses.

    Attributes
    ----------
    trainer : name of a class of nnU-Net's trainers
    configuration : ``3d_fullres``, ``2d``, or ``3d_lowres`` where the plan has it
    epochs, iterations : epochs, and batches in each; a fifth as many validate
    """

    trainer: str = "nnUNetTrainer"
    configuration: str = "3d_fullres"
    epochs: int = 1000
    iterations: int = 250

    def __post_init__(self) -> None:
        check_numbers(self, {"epochs": 1, "iterations": 1}, names=("trainer", "configuration"))


def train_network(
    training: Iterable[TrainingExam],
    validation: Iterable[TrainingExam],
    *,
    split: str,
    seed: int,
    settings: Mapping[str, Any],
    file: Path,
    report: Callable[[int, float, float], None],
) -> None:
    """Train one network; see :mod:`predictgbm.learned.training`.

    The network is that of the last epoch, as nnU-Net has it: validation decides nothing.

    Parameters
    ----------
    settings
        Fields of :class:`Settings` that are not to have their default.

    Raises
    ------
    TrainingError
        If a setting, the trainer or the configuration is unknown, a part is empty, a patient is in both, voxel sizes
        differ, nothing recurs, or the file is of another training.
    ModelError
        If an exam has no brain, or the file cannot be read.
    """
    chosen = fill_settings(Settings, settings)
    try:
        recursive_find_trainer_class_by_name(chosen.trainer)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(
            f"setting trainer: nnU-Net {version('nnunetv2')} has none named {chosen.trainer}"
        ) from error
    folder = file.with_name(f"{file.name}.nnunet")
    begun = folder / "record.json"
    if not begun.exists():
        shutil.rmtree(folder, ignore_errors=True)
    write = not begun.exists() and not file.exists()
    seen: list[list[tuple[str, Vector]]] = [[], []]
    cases: list[list[str]] = [[], []]
    recurs, data = 0, hashlib.sha256()
    for i, part in enumerate((training, validation)):
        for exam in part:
            cases[i].append(f"case{len(cases[0]) + len(cases[1]):04d}")
            seen[i].append((exam.patient, exam.spacing))
            recurs += i == 0 and bool(exam.recurrence.any())
            for array in (*(exam.inputs[name] for name in sorted(exam.inputs)), exam.recurrence):
                data.update(array.tobytes())
            if write:
                _write_case(folder / "raw" / DATASET, cases[i][-1], exam)
    record = open_record(*seen, settings=asdict(chosen), split=split, seed=seed, data=data.hexdigest())
    record["nnunetv2"] = version("nnunetv2")
    if not recurs:
        raise TrainingError(f"split {split}: no exam for training has recurrence; give more patients")
    if file.exists():
        check_same(file, Ensemble.read_file(file)["record"], record)
        return
    if begun.exists():
        check_same(folder, json.loads(begun.read_text("utf-8")), record)
    else:
        _prepare(folder, cases, chosen.configuration)
        begun.write_text(json.dumps(record), encoding="utf-8")
    _train(folder, record, chosen, file, report)
    shutil.rmtree(folder)


def _write_case(raw: Path, name: str, exam: TrainingExam) -> None:
    """Write the box of the brain of an exam where and how nnU-Net expects it."""
    inputs = {key: exam.inputs[key] for key in ("tumor_seg", "brain_mask", "wm", "gm", "csf")}
    channels, brain = stack_channels(**inputs)
    box = bounding_box(brain)
    affine = np.diag([*exam.spacing, 1.0])
    for number, channel in enumerate(channels):
        write_image(raw / "imagesTr" / f"{name}_{number:04d}.nii", channel[box], affine)
    write_image(raw / "labelsTr" / f"{name}.nii", (exam.recurrence & brain)[box], affine)


def _prepare(folder: Path, cases: Sequence[Sequence[str]], configuration: str) -> None:
    """Let nnU-Net look at the cases, plan, and preprocess them; the raw ones are removed."""
    raw, prepared = (folder / kind / DATASET for kind in ("raw", "preprocessed"))
    prepared.mkdir(parents=True, exist_ok=True)
    count = sum(map(len, cases))
    described = {
        # Probabilities and labels mean the same in every exam.
        "channel_names": {str(number): "noNorm" for number in range(len(CHANNELS))},
        "labels": {"background": 0, "recurrence": 1},
        "numTraining": count,
        "file_ending": ".nii",
        "overwrite_image_reader_writer": "NibabelIO",
    }
    (raw / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    split = dict(zip(("train", "val"), cases, strict=True))
    (prepared / "splits_final.json").write_text(json.dumps([split]), encoding="utf-8")
    with _environment(folder, _cpus()):
        extractor = DatasetFingerprintExtractor(DATASET, _cpus())
        # Of use for normalisation alone, which there is none of; by default a hundred million.
        extractor.num_foreground_voxels_for_intensitystats = 100 * count
        extractor.show_progress_bar = False
        extractor.run()
        plans = PlansManager(ExperimentPlanner(DATASET).plan_experiment())
        single = [
            name
            for name in plans.available_configurations
            if plans.get_configuration(name).previous_stage_name is None
        ]
        if configuration not in single:
            raise TrainingError(
                f"setting configuration: {configuration} is not one of nnU-Net's plan: {', '.join(single)}"
            )
        # In this process, where nnU-Net's own loop starts others.
        chosen = plans.get_configuration(configuration)
        preprocess = chosen.preprocessor_class(verbose=False).run_case_save
        target = prepared / chosen.data_identifier
        target.mkdir()
        for name, case in get_filenames_of_train_images_and_targets(str(raw), described).items():
            preprocess(str(target / name), case["images"], case["label"], plans, chosen, described)
    shutil.rmtree(folder / "raw")


def _train(
    folder: Path,
    record: dict[str, Any],
    settings: Settings,
    file: Path,
    report: Callable[[int, float, float], None],
) -> None:
    """Train what is prepared, from the last checkpoint on, and write the network."""
    # This process computes, others prepare samples, unless memory to hand them over is short, as in many containers.
    helpers = _cpus() - 1 if shutil.disk_usage("/dev/shm").free >= SHARED else 0
    with _environment(folder, helpers):
        trainer = get_trainer_from_args(
            DATASET, settings.configuration, 0, settings.trainer, device=torch.device(choose_device())
        )
        trainer.num_epochs = settings.epochs
        trainer.num_iterations_per_epoch = settings.iterations
        trainer.num_val_iterations_per_epoch = max(1, settings.iterations // 5)
        trainer.save_every = 1
        save, end_epoch = trainer.save_checkpoint, trainer.on_epoch_end

        def save_whole(name: str) -> None:
            save(f"{name}.part")
            Path(f"{name}.part").replace(name)

        def end_and_report() -> None:
            end_epoch()
            last = (trainer.logger.get_value(f"{part}_losses", step=-1) for part in ("train", "val"))
            report(trainer.current_epoch, *map(float, last))

        trainer.save_checkpoint, trainer.on_epoch_end = save_whole, end_and_report
        # A figure of a metre and a half, each epoch; history.csv and curves.png have its content.
        trainer.logger.plot_progress_png = lambda folder: None
        saved = any(Path(trainer.output_folder).glob("checkpoint_*.pth"))
        maybe_load_checkpoint(trainer, continue_training=saved, validation_only=False)
        # Where a training goes on, chance does too: it does not repeat that of its first epochs.
        chance = int(np.random.SeedSequence([record["seed"], trainer.current_epoch]).generate_state(1)[0])
        random.seed(chance)
        np.random.seed(chance)  # noqa: NPY002
        torch.manual_seed(chance)
        trainer.run_training()
    losses = (trainer.logger.get_value(f"{part}_losses", step=None) for part in ("train", "val"))
    history = [list(map(float, pair)) for pair in zip(*losses, strict=True)]
    content = {
        "record": record | {"history": history, "best_epoch": len(history), "finished": True},
        # As it is when it is not compiled, and with what it shares still shared.
        "weights": getattr(trainer.network, "_orig_mod", trainer.network).cpu().state_dict(),
        "plans": trainer.plans_manager.plans,
        "dataset": trainer.dataset_json,
        "mirroring": trainer.inference_allowed_mirroring_axes,
    }
    write_file(file, content)


def _cpus() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


@contextmanager
def _environment(folder: Path, processes: int) -> Iterator[None]:
    """Tell nnU-Net its folders and its number of processes, for as long as it works."""
    before = dict(os.environ)
    folders = {kind: str(folder / kind) for kind in ("raw", "preprocessed", "results")}
    # Compiling needs a C compiler, which not every machine has; a user who has one may set it.
    told = {"compile": before.get("nnUNet_compile", "false"), "n_proc_DA": str(processes), **folders}
    os.environ.update({f"nnUNet_{name}": value for name, value in told.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
