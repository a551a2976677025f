"""Standard of care: the core with a uniform margin, written as a score map like that of any other model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictgbm.growth import ModelError, Prediction
from predictgbm.growth.distance import core_mask
from predictgbm.planning import MARGIN_MM, PlanError, soc_mask


def predict(
    *,
    tumor_seg: NDArray[np.integer],
    brain_mask: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    seed: int = 0,
    margin: float = MARGIN_MM,
) -> Prediction:
    """Score 1 within ``margin`` mm of the core and inside the brain, 0 elsewhere.

    Parameters
    ----------
    tumor_seg : integer array of shape (nx, ny, nz)
        Canonical tumour labels.
    brain_mask : bool array of shape (nx, ny, nz)
        Brain; its holes count as brain.
    spacing
        Voxel size in mm, may be anisotropic.
    seed
        Not used: nothing is random.
    margin
        Width of the margin in mm. The default is that of Niyazi et al., doi 10.1016/j.radonc.2023.109663.

    Raises
    ------
    ModelError
        If the segmentation has no core, or the margin has no voxel in the brain.
    """
    core_mask(tumor_seg)
    try:
        mask = soc_mask(tumor_seg, brain_mask, spacing, margin=margin)
    except PlanError as error:
        raise ModelError(str(error)) from error
    return Prediction(mask.astype(np.float32), {"margin_mm": float(margin), "voxels": int(mask.sum())})
