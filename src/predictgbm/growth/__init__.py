"""Growth and recurrence models: each turns a prepared exam into a map of where the tumour is expected."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class ModelError(ValueError):
    """A model refuses an exam; the message says why, in words a user can act on."""


class Prediction(NamedTuple):
    """What a model returns.

    Attributes
    ----------
    map : float32 array on the exam's grid
        The higher, the more likely tumour cells or recurrence; finite everywhere.
    parameters : dict
        What the model inferred and how well it fits, as JSON values.
    spread : float32 array on the exam's grid, optional
        Standard deviation of the map, where the model knows how uncertain it is.
    """

    map: NDArray[np.float32]
    parameters: dict[str, Any]
    spread: NDArray[np.float32] | None = None
