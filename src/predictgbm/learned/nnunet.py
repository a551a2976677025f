"""nnU-Net: networks that configure themselves, trained on the user's cohort, read the probability of recurrence.

Source: Isensee F, Jaeger PF, Kohl SAA, Petersen J, Maier-Hein KH. nnU-Net: a self-configuring method for deep
learning-based biomedical image segmentation. Nature Methods 18:203-211, 2021, doi:10.1038/s41592-020-01008-z; inputs
and target by PREDICT-GBM, arXiv 2509.13360. Plan, network, training and windows are those of the package ``nnunetv2``.

Here are its inputs and the prediction by those of an ensemble (:mod:`predictgbm.learned.cards`) that never saw the
patient. :mod:`predictgbm.learned.nnunet_training` trains them.

nnU-Net counts axes as SimpleITK does, z first, and voxel sizes with them; this is hidden in :func:`apply`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from predictgbm.growth import ModelError, Prediction
from predictgbm.growth.distance import core_mask
from predictgbm.labels import Tumor
from predictgbm.learned import cards
from predictgbm.learned.cards import Vector, choose_device
from predictgbm.planning import fill_holes

#: Channels: tissue probabilities, and one per tumour label, since labels are kinds and not amounts.
CHANNELS = ("wm", "gm", "csf", *(label.name.lower() for label in Tumor))


def stack_channels(
    *,
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    wm: NDArray[np.floating],
    gm: NDArray[np.floating],
    csf: NDArray[np.floating],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the channels of an exam, shape (7, nx, ny, nz), 0 outside the brain, and the brain with its holes filled.

    Raises
    ------
    ModelError
        If nothing of tissue and tumour lies in the brain.
    """
    brain = fill_holes(np.asarray(brain_mask, bool))
    stack = np.stack([wm, gm, csf, *(tumor_seg == label for label in Tumor)]).astype(np.float32) * brain
    if not stack.any():
        raise ModelError(
            "neither tissue nor tumour lies in the brain mask; check that they belong to the same exam"
        )
    return stack, brain


class Ensemble(cards.Ensemble):
    """The folder of trained nnU-Nets."""

    model = "nnunet"
    title = "nnU-Net"
    content = frozenset({"record", "weights", "plans", "dataset", "mirroring"})

    def predictor(self, name: str, mirroring: bool) -> nnUNetPredictor:
        """Return what predicts by one network, on a GPU where there is one.

        Raises
        ------
        ModelError
            If its file is absent, not the one that the card describes, or not what the installed nnU-Net can build.
        """
        content = self.read(name)
        settings, dataset = content["record"]["settings"], content["dataset"]
        try:
            plans = PlansManager(content["plans"])
            configuration = plans.get_configuration(settings["configuration"])
            _check_names(configuration.configuration["architecture"])
            network = recursive_find_trainer_class_by_name(settings["trainer"]).build_network_architecture(
                plans, configuration, len(CHANNELS), 2, enable_deep_supervision=False
            )
            network.load_state_dict(content["weights"])
        except (
            ArithmeticError,
            AttributeError,
            ImportError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise ModelError(
                f"{self.folder / name}.pt: nnU-Net cannot build this network ({error}); use the nnunetv2 it was "
                "trained with, or train it"
            ) from error
        found = nnUNetPredictor(
            use_mirroring=mirroring, device=torch.device(choose_device()), allow_tqdm=False
        )
        found.manual_initialization(
            network, plans, configuration, None, dataset, settings["trainer"], content["mirroring"]
        )
        return found


def _check_names(architecture: Mapping[str, Any]) -> None:
    """Demand that a plan names nothing but parts of networks: nnU-Net calls whatever it names."""
    named = [architecture["arch_kwargs"][key] for key in architecture["_kw_requires_import"]]
    for name in [architecture["network_class_name"], *named]:
        if name is not None and not str(name).startswith(("torch.nn.", "dynamic_network_architectures.")):
            raise ValueError(f"its plan names {name}, which is no part of a network")


def apply(
    predictor: nnUNetPredictor, channels: NDArray[np.float32], spacing: Sequence[float]
) -> NDArray[np.float32]:
    """Return the probability of recurrence, 0 to 1, float32 of shape (nx, ny, nz), by one network.

    Parameters
    ----------
    predictor
        From :meth:`Ensemble.predictor`.
    channels : float32 array of shape (7, nx, ny, nz)
        See :func:`stack_channels`.
    spacing
        Voxel size in mm along x, y, z.
    """
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    # In this process, where nnU-Net's own functions for a whole prediction start others.
    data, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
        channels.transpose(0, 3, 2, 1),
        None,
        {"spacing": list(spacing)[::-1]},
        plans,
        configuration,
        predictor.dataset_json,
    )
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(data)).cpu()
    _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plans,
        configuration,
        predictor.label_manager,
        properties,
        return_probabilities=True,
        num_threads_torch=torch.get_num_threads(),
    )
    return np.asarray(probabilities[1].transpose(2, 1, 0), np.float32)


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
    seed: int = 0,
    mirroring: bool = False,
) -> Prediction:
    """Mean probability of recurrence by the networks that never saw the patient.

    Parameters
    ----------
    tumor_seg, brain_mask, wm, gm, csf : arrays of shape (nx, ny, nz)
        Canonical tumour labels, brain, tissue probabilities 0 to 1.
    spacing
        Voxel size in mm.
    weights
        Model folder.
    patient
        Who it is. A patient who is not on the folder's card is predicted by all networks.
    seed
        Not used: nothing is random.
    mirroring
        Mean over all flips of the exam, as nnU-Net has it by default; eight times the work.

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
    core_mask(tumor_seg)
    ensemble = Ensemble.load(weights)
    ensemble.check_spacing(spacing)
    names = ensemble.unseen_by(patient)
    channels, brain = stack_channels(tumor_seg=tumor_seg, brain_mask=brain_mask, wm=wm, gm=gm, csf=csf)
    maps = [apply(ensemble.predictor(name, mirroring), channels, spacing) * brain for name in names]
    return Prediction(
        np.mean(maps, axis=0),
        {"networks": names, "known_patient": patient in ensemble.card["cohorts"]},
        np.std(maps, axis=0),
    )
