"""The tissue that a tumour grows in, from an exam's labels and tissue maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictgbm.growth import ModelError
from predictgbm.growth.solver import TISSUE_THRESHOLD
from predictgbm.labels import CORE, WHOLE_TUMOR, region


class Medium(NamedTuple):
    """Tissue and tumour of one exam, nothing outside the brain.

    Attributes
    ----------
    wm, gm : float32 arrays of shape (nx, ny, nz), 0 to 1
        White and grey matter; tissue is where their sum reaches ``TISSUE_THRESHOLD``.
    core, whole : bool arrays of shape (nx, ny, nz)
        Tumour core and whole tumour.
    displaced : int
        Voxels of tumour for which the maps had no tissue.
    uncovered : int
        Voxels of the brain outside the tumour that no map covers.
    """

    wm: NDArray[np.float32]
    gm: NDArray[np.float32]
    core: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    displaced: int
    uncovered: int


def prepare_medium(
    tumor_seg: NDArray[Any],
    wm: NDArray[Any],
    gm: NDArray[Any],
    csf: NDArray[Any],
    brain_mask: NDArray[Any],
) -> Medium:
    """Return the medium of an exam: what is labelled tumour was tissue, whatever maps from an atlas say there.

    Tumour without tissue in the maps becomes half white, half grey matter; brain that no map covers passes for grey.

    Parameters
    ----------
    tumor_seg : array of shape (nx, ny, nz)
        Canonical tumour labels.
    wm, gm, csf : arrays of shape (nx, ny, nz), 0 to 1
        Tissue probabilities.
    brain_mask : array of shape (nx, ny, nz)

    Raises
    ------
    ModelError
        If no tumour lies in the brain.
    """
    inside = np.asarray(brain_mask).astype(bool)
    labels = np.where(inside, np.asarray(tumor_seg), 0)
    core, whole = region(labels, CORE), region(labels, WHOLE_TUMOR)
    if not whole.any():
        raise ModelError(
            "no tumour (labels 1, 2, 3) inside the brain mask; check segmentation and brain mask"
        )
    wm, gm = np.array(wm, np.float32), np.array(gm, np.float32)
    displaced = whole & (wm + gm < TISSUE_THRESHOLD)
    uncovered = inside & ~displaced & (wm + gm + np.asarray(csf, np.float32) < TISSUE_THRESHOLD)
    wm[displaced] = gm[displaced] = 0.5
    gm[uncovered] = 1.0
    wm[~inside] = gm[~inside] = 0.0
    return Medium(wm, gm, core, whole, int(displaced.sum()), int(uncovered.sum()))
