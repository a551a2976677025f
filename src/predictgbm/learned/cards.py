"""Folder of an ensemble of networks, and its card: who trained each, and who may therefore be predicted by it.

A folder holds ``card.json`` and one ``*.pt`` per network. The card says for each network which patients it saw, in
training or in choosing the training's end; it is taken from the training itself, not from the plan of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

import predictgbm
from predictgbm.growth import ModelError
from predictgbm.learned.splits import check_splits
from predictgbm.learned.training import SPACING_TOLERANCE, TrainingError, demand_one_size

#: Version of the folder's layout.
VERSION = 1
Vector = tuple[float, float, float]
E = TypeVar("E", bound="Ensemble")


def choose_device() -> str:
    """Return ``cuda`` where there is such a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def open_record(
    training: Sequence[tuple[str, Vector]],
    validation: Sequence[tuple[str, Vector]],
    *,
    settings: Mapping[str, Any],
    split: str,
    seed: int,
    data: str,
) -> dict[str, Any]:
    """Return the record of a training that has not begun, made of plain values.

    Parameters
    ----------
    training, validation
        Patient and voxel size, in mm, of each exam.
    settings, split, seed
        Which training of which network this is.
    data
        Checksum of what is learned from.

    Raises
    ------
    TrainingError
        If a part is empty, a patient is in both, or voxel sizes differ.
    """
    names = [sorted({patient for patient, _ in part}) for part in (training, validation)]
    for part, patients in zip(("training", "validation"), names, strict=True):
        if not patients:
            raise TrainingError(f"split {split}: no exam for {part}")
    if both := sorted(set(names[0]) & set(names[1])):
        raise TrainingError(
            f"split {split}: {', '.join(both)} would train and validate; draw splits by patient"
        )
    typical = demand_one_size([spacing for _, spacing in (*training, *validation)])
    return {
        "settings": dict(settings),
        "split": split,
        "seed": seed,
        "spacing_mm": [round(float(h), 3) for h in typical],
        "training": names[0],
        "validation": names[1],
        "data": data,
        "code": predictgbm.__version__,
        "history": [],
        "best_epoch": 0,
        "finished": False,
        "device": torch.cuda.get_device_name() if choose_device() == "cuda" else "CPU",
        "torch": str(torch.__version__),
    }


def check_same(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Demand that the record of an earlier training is that of the one to begin; raises TrainingError."""
    known = ("settings", "split", "seed", "training", "validation", "data", "code")
    if other := [key for key in known if found.get(key) != expected[key]]:
        raise TrainingError(
            f"{path}: is of a training with another {', '.join(other)}; name another file or remove it"
        )


def write_file(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping of tensors and plain values; never half of it under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save(dict(content), part)
    part.replace(path)


@dataclass(frozen=True)
class Ensemble:
    """A model folder: its place and its card. Networks are read when they are asked for."""

    folder: Path
    card: dict[str, Any]

    #: Name and title of the model whose folder it is, and what each of its files holds.
    model: ClassVar[str]
    title: ClassVar[str]
    content: ClassVar[frozenset[str]] = frozenset({"record", "weights"})

    @classmethod
    def read_file(cls, path: Path) -> dict[str, Any]:
        """Read what :func:`write_file` wrote; nothing in the file is executed.

        Raises
        ------
        ModelError
            If the file is absent, cut off, or something else.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"{path}: cannot be read as a network of {cls.title} ({reason}); copy it again, or train it"
            ) from error
        if not isinstance(content, dict) or not cls.content <= content.keys():
            raise ModelError(f"{path}: is not a network of {cls.title}; its training makes some")
        return content

    @classmethod
    def assemble(
        cls,
        folder: str | os.PathLike[str],
        networks: Iterable[str | os.PathLike[str]],
        splits: Mapping[str, Any],
        cohorts: Mapping[str, str],
        simulated: bool = False,
    ) -> dict[str, Any]:
        """Make a model folder of trained networks and return its card.

        Parameters
        ----------
        folder
            To write to.
        networks
            Files that trainings left, one per split and seed.
        splits
            What they were trained by, see :mod:`predictgbm.learned.splits`.
        cohorts
            Cohort of each patient.
        simulated
            Whether the patients are.

        Raises
        ------
        ModelError
            If a file cannot be read, a training is not finished, a network saw a patient whom its split holds out, two
            are of one split and seed, or settings or voxel sizes differ.
        SplitError
            If the splits do not fit the patients.
        """
        check_splits(splits, cohorts)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        card: dict[str, Any] = {
            "model": cls.model,
            "name": folder.name,
            "version": VERSION,
            "code": predictgbm.__version__,
            "splits": dict(splits),
            "cohorts": dict(cohorts),
            "simulated": simulated,
            "networks": {},
        }
        for path in map(Path, networks):
            record = cls.read_file(path)["record"]
            name = f"split-{record['split']}_seed-{record['seed']}"
            if not record["finished"]:
                raise ModelError(f"{path}: the training is not finished; resume it")
            if name in card["networks"]:
                raise ModelError(f"{path}: a second network {name}")
            if record["split"] not in splits["splits"]:
                raise ModelError(
                    f"{path}: split {record['split']} is not one of {', '.join(splits['splits'])}"
                )
            split = splits["splits"][record["split"]]
            for part in ("training", "validation"):
                if strangers := sorted(set(record[part]) - set(split[part])):
                    raise ModelError(
                        f"{path}: {part} used {', '.join(strangers)}, who is not in that part of its split"
                    )
            if card.setdefault("settings", record["settings"]) != record["settings"]:
                raise ModelError(f"{path}: was trained with other settings than the networks before it")
            spacing = card.setdefault("spacing_mm", record["spacing_mm"])
            if not np.allclose(spacing, record["spacing_mm"], rtol=SPACING_TOLERANCE):
                raise ModelError(
                    f"{path}: was trained on {_size(record['spacing_mm'])}, networks before it on {_size(spacing)}"
                )
            shutil.copyfile(path, folder / f"{name}.pt")
            best = record["history"][record["best_epoch"] - 1]
            shared = ("split", "seed", "settings", "spacing_mm", "finished")
            card["networks"][name] = {
                "sha256": _sha256(folder / f"{name}.pt"),
                **{key: value for key, value in record.items() if key not in shared},
                "epochs": len(record["history"]),
                "training_loss": best[0],
                "validation_loss": best[1],
            }
        if not card["networks"]:
            raise ModelError("no network was given")
        (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        return card

    @classmethod
    def load(cls: type[E], folder: str | os.PathLike[str]) -> E:
        """Read the card of a folder.

        Raises
        ------
        ModelError
            If it is absent, unreadable, of another model or of another version.
        """
        path = Path(folder) / "card.json"
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path}: cannot be read ({error}); give the folder of a trained {cls.title}"
            ) from error
        if not isinstance(card, dict) or card.get("model") != cls.model:
            raise ModelError(f"{path}: is not the card of {cls.title}")
        if card.get("version") != VERSION:
            raise ModelError(
                f"{path}: has version {card.get('version')}, expected {VERSION}; train with this package"
            )
        if missing := {"settings", "spacing_mm", "cohorts", "networks"} - card.keys():
            raise ModelError(f"{path}: lacks {', '.join(sorted(missing))}")
        return cls(Path(folder), card)

    def check_spacing(self, spacing: Sequence[float]) -> None:
        """Demand that an exam has the voxel size of the training; raises ModelError."""
        trained = self.card["spacing_mm"]
        if not np.allclose(spacing, trained, rtol=SPACING_TOLERANCE):
            raise ModelError(
                f"the exam has voxels of {_size(spacing)}, the networks of {self.folder} were trained on "
                f"{_size(trained)}; prepare the exam on such a grid or train on exams like it"
            )

    def unseen_by(self, patient: str) -> list[str]:
        """Return the networks that never saw a patient, in training or in choosing the training's end.

        Raises
        ------
        ModelError
            If there is none.
        """
        names = [
            name
            for name, seen in self.card["networks"].items()
            if patient not in seen["training"] and patient not in seen["validation"]
        ]
        if not names:
            raise ModelError(
                f"{self.folder}: every network saw patient {patient}; nothing it says of them would count. "
                "Train the split that holds this patient out"
            )
        return names

    def read(self, name: str) -> dict[str, Any]:
        """Read the file of one network.

        Raises
        ------
        ModelError
            If it is absent, or not the one that the card describes.
        """
        path = self.folder / f"{name}.pt"
        content = self.read_file(path)
        if _sha256(path) != self.card["networks"][name]["sha256"]:
            raise ModelError(f"{path}: is not the file that card.json describes; copy the whole folder again")
        return content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _size(spacing: Sequence[float]) -> str:
    return " x ".join(f"{h:g}" for h in spacing) + " mm"
