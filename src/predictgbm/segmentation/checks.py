"""What can be said of a tumour segmentation without its truth."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray

from predictgbm.labels import CORE, WHOLE_TUMOR, Tumor, region
from predictgbm.quality import Measure

#: Whole tumours beyond these volumes are rare enough to be looked at, in ml.
SMALLEST_ML, LARGEST_ML = 1.0, 350.0
#: Share of the core that may lie outside the brain mask.
CORE_OUTSIDE = 0.01
MOST_PARTS = 10


def measure_tumor(
    labels: NDArray[np.uint8], brain: NDArray[np.bool_], voxel_ml: float, phase: str
) -> list[Measure]:
    """Measure a segmentation, with limits that flag what a reader should look at.

    Parameters
    ----------
    labels : array of canonical labels
    brain : brain mask of the same shape
    voxel_ml : volume of one voxel
    phase
        ``preop`` or ``followup``. A follow-up may be empty; a pre-operative exam has no resection cavity.
    """
    before = phase == "preop"
    whole, core = region(labels, WHOLE_TUMOR), region(labels, CORE)
    parts = int(cc3d.connected_components(whole, connectivity=26).max())
    outside = int((core & ~brain).sum()) / max(int(core.sum()), 1)

    def ml(mask: NDArray[np.bool_]) -> float:
        return float(np.count_nonzero(mask) * voxel_ml)

    return [
        Measure("whole_tumor_ml", ml(whole), "Volume of necrosis, oedema and enhancing tumour",
                SMALLEST_ML if before else None, LARGEST_ML),
        Measure("tumor_core_ml", ml(core), "Volume of necrosis and enhancing tumour", voxel_ml if before else None),
        Measure("enhancing_ml", ml(labels == Tumor.ENHANCING), "Volume of enhancing tumour"),
        Measure("cavity_ml", ml(labels == Tumor.CAVITY), "Volume of resection cavity", most=0.0 if before else None),
        Measure("tumor_parts", parts, "Connected parts of the whole tumour", most=MOST_PARTS),
        Measure("core_outside_brain", outside, "Share of the core outside the brain mask", most=CORE_OUTSIDE),
    ]  # fmt: skip


def outlines(labels: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """Return the regions a picture of a segmentation shows, by the name of their outline."""
    return {
        "whole tumour": region(labels, WHOLE_TUMOR),
        "core": region(labels, CORE),
        "enhancing": labels == Tumor.ENHANCING,
        "cavity": labels == Tumor.CAVITY,
    }
