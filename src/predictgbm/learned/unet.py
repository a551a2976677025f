"""U-Net: a network, trained on the user's cohort, reads the probability of recurrence from the exam.

Source: Zimmer L, Weidner J, Balcerak M, et al. PREDICT-GBM: a multi-center platform to advance personalized
glioblastoma radiotherapy planning. npj Digital Medicine 2025, arXiv 2509.13360, doi:10.48550/arXiv.2509.13360.

Here are the network, what it sees, and the prediction by those of an ensemble (:mod:`predictgbm.learned.cards`) that
never saw the patient. :mod:`predictgbm.learned.unet_training` trains them. ``docs/models.md`` tells which figures are
the source's and which were chosen here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks import one_hot
from monai.networks.nets import DynUNet
from monai.transforms import NormalizeIntensity
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.growth import ModelError, Prediction
from predictgbm.growth.distance import core_mask
from predictgbm.labels import CORE, Tumor, region
from predictgbm.learned import cards
from predictgbm.learned.cards import Vector, choose_device
from predictgbm.learned.training import check_numbers
from predictgbm.masks import bounding_box
from predictgbm.planning import distance_um, fill_holes

#: Images that an exam may lack, in the order of their channels.
CONTRASTS = ("t1c", "flair", "adc")
#: Channels of the network: white matter, grey matter, CSF; three contrasts; one per tumour label.
CHANNELS = 6 + len(Tumor)
#: Voxels by which neighbouring windows of the prediction overlap.
OVERLAP = 16


@dataclass(frozen=True)
class Settings:
    """The network, its loss, its training.

    Attributes
    ----------
    base : features of the first level, doubled on each further one up to eightfold
    levels : resolutions of the network, each half of that before; at least 3
    patch : voxels along each axis that the network sees at once; brains that are smaller are seen whole
    batch, epochs : samples per step; passes over the samples at most, each seen once in a pass
    patience : passes without a better validation loss after which training ends
    rate, decay : learning rate, falling to 0 over ``epochs`` as (1 - t)^0.9, and weight decay of AdamW
    cross_entropy, tversky : weights of the two parts of the loss; both may not be 0
    edema_weight, core_weight : weight of their voxels in the cross-entropy, that of other brain being 1
    recurrence_weight : further factor for voxels of recurrence in the cross-entropy
    miss_small, miss_large : weight of misses in the individual Tversky index for a tumour of no volume, and for one
        beyond measure; that of false alarms is the rest to 1
    drop : probability that a contrast of a training sample is blanked
    """

    base: int = 32
    levels: int = 4
    patch: int = 96
    batch: int = 7
    epochs: int = 200
    patience: int = 40
    rate: float = 1e-3
    decay: float = 1e-4
    cross_entropy: float = 1.0
    tversky: float = 1.0
    edema_weight: float = 2.0
    core_weight: float = 1.0
    recurrence_weight: float = 10.0
    miss_small: float = 0.95
    miss_large: float = 0.8
    drop: float = 0.1

    def __post_init__(self) -> None:
        check_numbers(self, {"base": 1, "levels": 3, "patch": 8, "batch": 1, "epochs": 1, "patience": 1})
        if not self.cross_entropy + self.tversky:
            raise ModelError("settings cross_entropy and tversky are both 0, nothing would be learned")

    @property
    def multiple(self) -> int:
        """Voxels of which the network takes multiples along each axis."""
        return int(2 ** (self.levels - 1))


class Sample(NamedTuple):
    """An exam as the network sees it: the box of its brain.

    Attributes
    ----------
    patient : str
        Whose exam it is.
    tissues, contrasts : float16 arrays of shape (3, nx, ny, nz)
        White matter, grey matter, CSF; :data:`CONTRASTS`, standardised in the brain, 0 outside it and where absent.
    labels : uint8 array of shape (1, nx, ny, nz)
        Canonical tumour labels.
    brain, target : bool arrays of shape (1, nx, ny, nz)
        Brain with its holes filled, and recurrence in it; the latter is empty in an exam to predict.
    spacing : three floats
        Voxel size in mm.
    core_ml : float
        Volume of the core of the whole exam.
    """

    patient: str
    tissues: NDArray[np.float16]
    contrasts: NDArray[np.float16]
    labels: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    target: NDArray[np.bool_]
    spacing: Vector
    core_ml: float


def make_sample(
    patient: str,
    *,
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    wm: NDArray[np.floating],
    gm: NDArray[np.floating],
    csf: NDArray[np.floating],
    spacing: Sequence[float],
    t1c: NDArray[np.floating] | None = None,
    flair: NDArray[np.floating] | None = None,
    adc: NDArray[np.floating] | None = None,
    recurrence: NDArray[np.bool_] | None = None,
) -> Sample:
    """Return what the network sees of one exam.

    Parameters
    ----------
    patient
        The same for all exams of a person.
    tumor_seg, brain_mask, wm, gm, csf : arrays of shape (nx, ny, nz)
        Canonical tumour labels, brain, tissue probabilities 0 to 1.
    spacing
        Voxel size in mm.
    t1c, flair, adc : arrays of the same shape, optional
        Contrasts in any unit; where one is absent its channel is zero, the mean of a standardised image.
    recurrence : bool array of the same shape, optional
        What is to be learned: registered recurrence of a follow-up.

    Raises
    ------
    ModelError
        If the brain mask is empty.
    """
    if not np.any(brain_mask):
        raise ModelError("the brain mask is empty")
    brain = fill_holes(np.asarray(brain_mask, bool))
    box = bounding_box(brain)
    inside = brain[box]
    standardise = NormalizeIntensity(nonzero=True)
    contrasts = np.zeros((len(CONTRASTS), *inside.shape), np.float16)
    for channel, image in zip(contrasts, (t1c, flair, adc), strict=True):
        if image is not None:
            channel[:] = np.clip(standardise(np.where(inside, image[box], 0).astype(np.float32)), -5, 5)
    return Sample(
        patient,
        np.stack([wm[box], gm[box], csf[box]]).astype(np.float16),
        contrasts,
        np.asarray(tumor_seg[box], np.uint8)[None],
        inside[None],
        np.zeros((1, *inside.shape), bool) if recurrence is None else (recurrence[box] & inside)[None],
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        float(np.count_nonzero(region(tumor_seg, CORE)) * np.prod(spacing) / 1000.0),
    )


def network_input(tissues: torch.Tensor, contrasts: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the network's channels, shape (m, 10, ...), from batches of tissues, contrasts and labels.

    They are the source's seven inputs; labels have a channel each, since they are kinds and not amounts.
    """
    kinds = one_hot(labels, 1 + len(Tumor))[:, 1:]
    return torch.cat([tissues.float(), contrasts.float(), kinds.float()], dim=1)


def build_network(settings: Settings) -> torch.nn.Module:
    """Return a network with random weights: MONAI's DynUNet with instance normalisation, one logit per voxel."""
    halvings = settings.levels - 1
    return DynUNet(
        spatial_dims=3,
        in_channels=CHANNELS,
        out_channels=1,
        kernel_size=[3] * settings.levels,
        strides=[1] + [2] * halvings,
        upsample_kernel_size=[2] * halvings,
        filters=[settings.base * 2 ** min(level, 3) for level in range(settings.levels)],
        norm_name=("INSTANCE", {"affine": True}),
    )


def window(shape: Sequence[int], settings: Settings) -> tuple[int, ...]:
    """Return the smallest window that covers a box in as few steps along each axis as the patch size allows."""
    multiple = settings.multiple
    sizes = []
    for length in shape:
        steps = max(1, -(-(length - OVERLAP) // max(1, settings.patch - OVERLAP)))
        least = length if length <= settings.patch else -(-(length + (steps - 1) * OVERLAP) // steps)
        sizes.append(-(-least // multiple) * multiple)
    return tuple(sizes)


def apply(network: torch.nn.Module, sample: Sample, settings: Settings, device: str) -> torch.Tensor:
    """Return the logits of a sample, float32 of shape (1, 1, nx, ny, nz), window by window.

    Memory hangs on the patch size, not on the exam.
    """
    parts = (sample.tissues, sample.contrasts, sample.labels)
    whole = network_input(*(torch.from_numpy(part)[None] for part in parts))
    size = window(whole.shape[2:], settings)
    network.eval()
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
        logits = sliding_window_inference(
            whole,
            size,
            sw_batch_size=1,
            predictor=network,
            overlap=[min(OVERLAP / n, 0.5) for n in size],
            mode="gaussian",
            sw_device=device,
            device="cpu",
        )
    return torch.as_tensor(logits).float()


class Ensemble(cards.Ensemble):
    """The folder of trained U-Nets."""

    model = "unet"
    title = "U-Net"

    @property
    def settings(self) -> Settings:
        """Those that all networks were trained with."""
        try:
            return Settings(**self.card["settings"])
        except TypeError as error:
            raise ModelError(f"{self.folder / 'card.json'}: settings: {error}") from error

    def network(self, name: str) -> torch.nn.Module:
        """Read one network.

        Raises
        ------
        ModelError
            If its file is absent, not the one that the card describes, or does not fit the settings.
        """
        content = self.read(name)
        network = build_network(self.settings)
        try:
            network.load_state_dict(content["weights"])
        except RuntimeError as error:
            raise ModelError(
                f"{self.folder / name}.pt: does not fit the settings of card.json: {error}"
            ) from error
        return network


def predict(
    *,
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    wm: NDArray[np.floating],
    gm: NDArray[np.floating],
    csf: NDArray[np.floating],
    spacing: Vector,
    weights: str | os.PathLike[str],
    patient: str,
    t1c: NDArray[np.floating] | None = None,
    flair: NDArray[np.floating] | None = None,
    adc: NDArray[np.floating] | None = None,
    seed: int = 0,
    smoothing: float = 2.0,
    distance_weight: float = 0.1,
) -> Prediction:
    """Mean of the networks that never saw the patient, smoothed, with a little of the distance to the core.

    Parameters
    ----------
    tumor_seg, brain_mask, wm, gm, csf, t1c, flair, adc, spacing
        As :func:`make_sample`.
    weights
        Model folder.
    patient
        Who it is. A patient who is not on the folder's card is predicted by all networks.
    seed
        Not used: nothing is random.
    smoothing
        Standard deviation of the Gaussian, in mm; it does not reach beyond the brain.
    distance_weight
        0 to 1: weight of ``1 - d / d_max`` against the probability, with the distance ``d`` to the core and its largest
        value in the brain. It orders the voxels of which the networks say nothing.

    Returns
    -------
    Prediction
        0 to 1 in the brain with its holes filled, 0 outside; standard deviation over the networks; their names.

    Raises
    ------
    ModelError
        If there is no core or no brain, the folder cannot be used, every network saw the patient, or the voxels have
        another size than those of the training.
    """
    ensemble = Ensemble.load(weights)
    ensemble.check_spacing(spacing)
    core = core_mask(tumor_seg)
    names = ensemble.unseen_by(patient)
    sample = make_sample(
        patient,
        tumor_seg=tumor_seg,
        brain_mask=brain_mask,
        wm=wm,
        gm=gm,
        csf=csf,
        spacing=spacing,
        t1c=t1c,
        flair=flair,
        adc=adc,
    )
    device = choose_device()
    inside = sample.brain[0]
    sigma = [smoothing / h for h in spacing]
    share = ndimage.gaussian_filter(inside.astype(np.float32), sigma, mode="constant")
    maps = []
    for name in names:
        logits = apply(ensemble.network(name).to(device), sample, ensemble.settings, device)
        probability = torch.sigmoid(logits)[0, 0].numpy() * inside
        smooth = ndimage.gaussian_filter(probability, sigma, mode="constant")
        maps.append(np.divide(smooth, share, out=np.zeros_like(share), where=inside))
    brain = fill_holes(np.asarray(brain_mask, bool))
    box = bounding_box(brain)
    distance = distance_um(core, spacing)[box].astype(np.float32)
    nearness = 1 - distance / max(1, distance[inside].max())
    score = np.zeros(brain.shape, np.float32)
    score[box] = inside * ((1 - distance_weight) * np.mean(maps, axis=0) + distance_weight * nearness)
    spread = np.zeros_like(score)
    spread[box] = inside * (1 - distance_weight) * np.std(maps, axis=0)
    return Prediction(
        score.clip(0, 1), {"networks": names, "known_patient": patient in ensemble.card["cohorts"]}, spread
    )
