"""Distance to the tumour core: the baseline that every growth model has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from predictgbm.growth import ModelError, Prediction
from predictgbm.labels import CORE, region
from predictgbm.planning import distance_um


def core_mask(tumor_seg: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the tumour core, necrosis and enhancing tumour.

    Raises
    ------
    ModelError
        If the segmentation has no core.
    """
    core = region(tumor_seg, CORE)
    if not core.any():
        present = [str(v) for v in np.unique(tumor_seg).tolist() if v]
        raise ModelError(
            "the tumour segmentation has no core: it holds neither necrosis (label 1) nor enhancing tumour "
            f"(label 3), only {'label ' + ', '.join(present) if present else 'background'}; "
            "check the segmentation and its label convention"
        )
    return core


def predict(
    *, tumor_seg: NDArray[np.integer], spacing: tuple[float, float, float], seed: int = 0
) -> Prediction:
    """Score each voxel by minus its distance to the core.

    Parameters
    ----------
    tumor_seg : integer array of shape (nx, ny, nz)
        Canonical tumour labels.
    spacing
        Voxel size in mm, may be anisotropic.
    seed
        Not used: nothing is random.

    Returns
    -------
    Prediction
        Score in mm: 0 in the core, negative outside, on the whole grid.

    Raises
    ------
    ModelError
        If the segmentation has no core.
    """
    distance = distance_um(core_mask(tumor_seg), spacing)
    return Prediction((distance / -1000.0).astype(np.float32), {})
