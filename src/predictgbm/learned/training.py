"""What a model that learns from a cohort is given, and what it has to offer.

The ``training`` of its entry in ``assets/models.yml`` names a module with two functions:

- ``train_network(training, validation, *, split, seed, settings, file, report)`` trains one network on the exams of
  ``training``, ends by those of ``validation``, and leaves it in ``file``; where ``file`` is there already and
  unfinished, it goes on. ``report(epoch, training_loss, validation_loss)`` is called after each epoch.
- ``assemble(folder, files, splits, cohorts, simulated)`` makes the model's folder of such files, with
  ``card.json``, and returns that card. Its ``networks`` give the ``history`` of each, pairs of both losses.

The ``function`` of the entry gets the folder as ``weights`` and the name of the ``patient``, and uses only networks
that never saw that patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from predictgbm.growth import ModelError

#: Voxel sizes that differ by more than this share are not the same.
SPACING_TOLERANCE = 0.1

Settings = TypeVar("Settings")


class TrainingError(ValueError):
    """A network cannot be trained; the message says why."""


def fill_settings(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Return settings of a dataclass, with defaults where none is given; raises TrainingError for an unknown one."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(given.keys() - known):
        raise TrainingError(f"setting {', '.join(unknown)} is unknown; known are {', '.join(sorted(known))}")
    return kind(**given)


def check_numbers(settings: object, least: Mapping[str, int], names: Sequence[str] = ()) -> None:
    """Check settings, a dataclass: whole numbers where ``least`` names the smallest, text in ``names``, else 0 or more.

    Raises
    ------
    ModelError
        If a value is out of its range or of another kind.
    """
    for name, value in asdict(settings).items():  # type: ignore[call-overload]
        if name in names:
            if not isinstance(value, str):
                raise ModelError(f"setting {name} is {value!r}, expected a name")
            continue
        kinds = (int,) if name in least else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or value < least.get(name, 0):
            what = f"a whole number of {least[name]}" if name in least else "a number of 0"
            raise ModelError(f"setting {name} is {value!r}, expected {what} or more")


def demand_one_size(spacings: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return the typical voxel size of exams, in mm; raises TrainingError where one differs from it."""
    typical = np.median(spacings, axis=0)
    if not np.allclose(spacings, typical, rtol=SPACING_TOLERANCE):
        raise TrainingError(
            f"voxel sizes from {np.min(spacings, axis=0)} to {np.max(spacings, axis=0)} mm; bring all exams to one grid"
        )
    return np.asarray(typical)


class TrainingExam(NamedTuple):
    """An exam whose recurrence is known.

    Attributes
    ----------
    patient : str
    inputs : dict
        Arrays of shape (nx, ny, nz), by the names of the entry's inputs.
    spacing : (float, float, float)
        Voxel size in mm.
    recurrence : bool array of shape (nx, ny, nz)
        Necrosis and enhancing tumour of the follow-up.
    """

    patient: str
    inputs: dict[str, NDArray[Any]]
    spacing: tuple[float, float, float]
    recurrence: NDArray[Any]
