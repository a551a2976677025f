"""Training of one network of :mod:`predictgbm.learned.unet`: loss, augmentation, and a loop that may be cut off.

All chance hangs on seed, epoch and sample alone. A training that was cut off and resumed therefore ends as one that
was not, to the bit on a CPU with the same number of threads, and however many processes prepare the samples.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import TverskyLoss
from monai.transforms import (
    Compose,
    EnsureTyped,
    MapTransform,
    RandAdjustContrastd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    Randomizable,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
    SpatialPadd,
)
from torch.nn import functional

from predictgbm.growth import ModelError
from predictgbm.labels import CORE, Tumor
from predictgbm.learned.cards import check_same, choose_device, open_record, write_file
from predictgbm.learned.training import TrainingError, TrainingExam, fill_settings
from predictgbm.learned.unet import (
    Ensemble,
    Sample,
    Settings,
    apply,
    build_network,
    make_sample,
    network_input,
)

assemble = Ensemble.assemble

#: Median volume of the core in the source's cohort, in ml: the volume at which misses weigh halfway between both ends.
MEDIAN_CORE_ML = 27.5


def miss_weight(core_ml: float, settings: Settings) -> float:
    """Return the weight of misses in a patient's Tversky index; that of false alarms is the rest to 1.

    ``large + (small - large) / (1 + V / 27.5 ml)`` with the volume ``V`` of the core. The plan has the volume of the
    core with its margin: the smaller the tumour, the smaller the plan, and the more of the recurrence it may miss.
    """
    small, large = settings.miss_small, settings.miss_large
    return large + (small - large) / (1 + core_ml / MEDIAN_CORE_ML)


def loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    labels: torch.Tensor,
    brain: torch.Tensor,
    core_ml: Sequence[float],
    settings: Settings,
) -> torch.Tensor:
    """Return the mean over patients of weighted cross-entropy, and of one minus the individual Tversky index.

    The cross-entropy is the weighted mean over the brain. The Tversky index is ``TP / (TP + a FP + b FN)``, sums over
    the brain of probabilities and targets, with ``b`` of :func:`miss_weight` and ``a = 1 - b``. It stands for what the
    source names an individualised PCC loss and gives no formula of. The settings weigh the two against each other.

    Parameters
    ----------
    logits, target, labels, brain : tensors of shape (m, 1, nx, ny, nz)
        Targets may be soft, 0 to 1.
    core_ml
        Volume of the core of each of the m exams.
    settings
    """
    brain = brain.to(logits.dtype)
    target = target.to(logits.dtype) * brain
    core = sum(labels == label for label in CORE)
    weight = brain * (
        1 + (settings.edema_weight - 1) * (labels == Tumor.EDEMA) + (settings.core_weight - 1) * core
    )
    weight = weight * (1 + (settings.recurrence_weight - 1) * target)
    entropy = weight * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    result = entropy.flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1)
    probability = torch.sigmoid(logits) * brain
    index = []
    for i, volume in enumerate(core_ml):
        b = miss_weight(volume, settings)
        index.append(TverskyLoss(alpha=1 - b, beta=b)(probability[i : i + 1], target[i : i + 1]))
    return (settings.cross_entropy * result + settings.tversky * torch.stack(index)).mean()


class BlankContrastsd(Randomizable, MapTransform):
    """Blank contrasts at random, and keep those blank that the exam lacks, whatever noise was laid over them."""

    def __init__(self, probability: float) -> None:
        MapTransform.__init__(self, ["contrasts", "brain", "present"])
        self.probability = probability

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the sample with contrasts set to 0 outside the brain, where dropped and where absent."""
        kept = data["present"] & (self.R.random(len(data["present"])) >= self.probability)
        mask = torch.from_numpy(kept)[:, None, None, None] * data["brain"]
        return data | {"contrasts": data["contrasts"] * mask}


def augmentation(patch: Sequence[int], settings: Settings) -> Compose:
    """Return the source's list of augmentations, for the dictionary of one sample.

    A patch of the given size, three times out of four around a voxel of the tumour; flips, affine; softened edges of
    the target; for the contrasts low resolution, intensity scale, blur, noise, gamma, contrast; and blanked channels.
    Probabilities and ranges are chosen here.
    """
    images = ["tissues", "contrasts", "target"]
    masks = ["labels", "brain"]
    contrasts = ["contrasts"]
    blur = {f"sigma_{axis}": (0.25, 1.0) for axis in "xyz"}
    return Compose(
        [
            SpatialPadd([*images, *masks], patch),
            RandCropByPosNegLabeld([*images, *masks], "labels", patch, pos=3, neg=1, allow_smaller=False),
            *(RandFlipd([*images, *masks], prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandAffined(
                [*images, *masks],
                prob=0.3,
                rotate_range=(math.pi / 12,) * 3,
                scale_range=(0.15,) * 3,
                mode=["bilinear"] * len(images) + ["nearest"] * len(masks),
                padding_mode="zeros",
            ),
            RandGaussianSmoothd(["target"], prob=0.5, **blur),
            RandSimulateLowResolutiond(contrasts, prob=0.15, zoom_range=(0.5, 1.0)),
            RandScaleIntensityd(contrasts, prob=0.3, factors=0.25),
            RandGaussianSmoothd(contrasts, prob=0.15, **blur),
            RandGaussianNoised(contrasts, prob=0.3, std=0.1),
            RandAdjustContrastd(contrasts, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            RandScaleIntensityFixedMeand(contrasts, prob=0.3, factors=0.25),
            BlankContrastsd(settings.drop),
            EnsureTyped([*images, *masks], track_meta=False),
        ]
    )


class Epoch(torch.utils.data.Dataset[dict[str, Any]]):
    """The augmented samples of one pass over the data."""

    def __init__(self, samples: Sequence[Sample], augment: Compose, seed: int, epoch: int) -> None:
        self.samples, self.augment, self.seed, self.epoch = samples, augment, seed, epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one sample, the same whenever it is asked for."""
        sample = self.samples[index]
        chance = np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)[0]
        data = {
            "tissues": torch.from_numpy(sample.tissues).float(),
            "contrasts": torch.from_numpy(sample.contrasts).float(),
            "target": torch.from_numpy(sample.target).float(),
            "labels": torch.from_numpy(sample.labels),
            "brain": torch.from_numpy(sample.brain).to(torch.uint8),
            "present": sample.contrasts.any(axis=(1, 2, 3)),
        }
        cut = self.augment.set_random_state(int(chance))(data)[0]
        keys = ("tissues", "contrasts", "target", "labels", "brain")
        return {key: cut[key] for key in keys} | {"core_ml": sample.core_ml}


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

    Parameters
    ----------
    settings
        Fields of :class:`Settings` that are not to have their default.

    Raises
    ------
    TrainingError
        If a setting is unknown or out of its range, a brain mask is empty, or as :func:`train`.
    """
    chosen = fill_settings(Settings, settings)
    first, second = ([_sample(exam) for exam in part] for part in (training, validation))
    train(first, second, chosen, split=split, seed=seed, checkpoint=file, report=report)


def _sample(exam: TrainingExam) -> Sample:
    try:
        return make_sample(exam.patient, **exam.inputs, spacing=exam.spacing, recurrence=exam.recurrence)
    except ModelError as error:
        raise TrainingError(f"patient {exam.patient}: {error}") from error


def train(
    training: Sequence[Sample],
    validation: Sequence[Sample],
    settings: Settings,
    *,
    split: str,
    seed: int,
    checkpoint: str | os.PathLike[str],
    workers: int = 0,
    report: Callable[[int, float, float], None] = lambda epoch, training_loss, validation_loss: None,
) -> dict[str, Any]:
    """Train one network, or go on where its checkpoint says that it was cut off.

    Computes on a GPU where there is one, in bfloat16 there.

    Parameters
    ----------
    training, validation
        Exams to learn from, and exams whose loss chooses the epoch that counts; no patient may be in both.
    settings
    split, seed
        Which network of the ensemble this is; the seed draws weights, order and augmentation.
    checkpoint
        File to write after each epoch. In the end :data:`assemble` takes it.
    workers
        Processes that prepare samples beside this one.
    report
        Called after each epoch with its number, its mean training loss and the validation loss.

    Returns
    -------
    dict
        Record of the training: settings, split, seed, ``spacing_mm``, the patients of both parts, ``history`` (pairs of
        training and validation loss), ``best_epoch``, counted from 1, ``finished``, device, version of torch.

    Raises
    ------
    TrainingError
        If a part is empty, a patient is in both, voxel sizes differ, or the checkpoint is of other samples or settings.
    ModelError
        If the checkpoint cannot be read.
    """
    parts = ([(sample.patient, sample.spacing) for sample in part] for part in (training, validation))
    data = _checksum([*training, *validation])
    record = open_record(*parts, settings=asdict(settings), split=split, seed=seed, data=data)
    device = choose_device()
    path = Path(checkpoint)
    torch.manual_seed(seed)
    # Channels last halves the time of a step on a CPU.
    network = build_network(settings).to(device, memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), settings.rate, weight_decay=settings.decay)
    best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    if path.exists():
        state = Ensemble.read_file(path)
        check_same(path, state["record"], record)
        record, best = state["record"], state["weights"]
        if record["finished"]:
            return record
        network.load_state_dict(state["last"])
        optimiser.load_state_dict(state["optimiser"])
    patch = [min(settings.patch, _round_up(n, settings)) for n in _largest(training)]
    augment = augmentation(patch, settings)
    history = record["history"]
    while not record["finished"]:
        epoch = len(history) + 1
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * (1 - (epoch - 1) / settings.epochs) ** 0.9
        order = np.random.default_rng([seed, epoch]).permutation(len(training)).tolist()
        batches = torch.utils.data.DataLoader(
            Epoch(training, augment, seed, epoch), settings.batch, sampler=order, num_workers=workers
        )
        network.train()
        losses = []
        for batch in batches:
            part = {key: value.to(device) for key, value in batch.items() if key != "core_ml"}
            with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
                logits = network(network_input(part["tissues"], part["contrasts"], part["labels"]))
            value = loss(
                logits.float(),
                part["target"],
                part["labels"],
                part["brain"],
                batch["core_ml"].tolist(),
                settings,
            )
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            losses.append(float(value.detach()))
        history.append([float(np.mean(losses)), validation_loss(network, validation, settings, device)])
        if not np.isfinite(history[-1]).all():
            raise TrainingError(
                f"the loss is not a number after epoch {epoch}; lower the learning rate (rate)"
            )
        record["best_epoch"] = 1 + int(np.argmin([pair[1] for pair in history]))
        if record["best_epoch"] == epoch:
            best = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        record["finished"] = epoch >= settings.epochs or epoch - record["best_epoch"] >= settings.patience
        state = {"record": record, "weights": best}
        if not record["finished"]:
            state |= {"last": network.state_dict(), "optimiser": optimiser.state_dict()}
        write_file(path, state)
        report(epoch, *history[-1])
    return record


def validation_loss(
    network: torch.nn.Module, samples: Sequence[Sample], settings: Settings, device: str
) -> float:
    """Return the mean loss of whole exams, as they are."""
    values = []
    for sample in samples:
        target, labels, brain = (
            torch.from_numpy(a)[None] for a in (sample.target, sample.labels, sample.brain)
        )
        logits = apply(network, sample, settings, device)
        values.append(float(loss(logits, target, labels, brain, [sample.core_ml], settings)))
    return float(np.mean(values))


def _checksum(samples: Sequence[Sample]) -> str:
    """Return a checksum of all that is learned from."""
    found = hashlib.sha256()
    for sample in samples:
        for array in (sample.tissues, sample.contrasts, sample.labels, sample.brain, sample.target):
            found.update(array.tobytes())
    return found.hexdigest()


def _largest(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Return the largest number of voxels along each axis."""
    return tuple(np.max([sample.brain.shape[1:] for sample in samples], axis=0).tolist())


def _round_up(length: int, settings: Settings) -> int:
    return -(-length // settings.multiple) * settings.multiple
