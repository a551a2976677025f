"""Volumes of tumour and recurrence, by the names they have in tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictgbm.labels import CORE, RECURRENCE, WHOLE_TUMOR, region


def tumor_volumes(labels: NDArray[np.uint8], voxel_ml: float) -> dict[str, float]:
    """Return the volumes of tumour core and whole tumour in ml, by the names used in tables."""
    return {
        "tumor_core_ml": np.count_nonzero(region(labels, CORE)) * voxel_ml,
        "tumor_whole_ml": np.count_nonzero(region(labels, WHOLE_TUMOR)) * voxel_ml,
    }


def recurrence_volumes(labels: NDArray[np.uint8], voxel_ml: float) -> dict[str, float]:
    """Return the volume of a follow-up's recurrence in ml, for each definition of recurrence."""
    return {
        f"recurrence_{name}_ml": np.count_nonzero(region(labels, members)) * voxel_ml
        for name, members in RECURRENCE.items()
    }
