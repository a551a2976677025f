"""One tumour segmentation from several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predictgbm.labels import Tumor

#: On a tie the label that stands first here wins: a plan that leaves out tumour costs more than one that is too wide.
TIE_ORDER = (Tumor.ENHANCING, Tumor.NECROSIS, Tumor.CAVITY, Tumor.EDEMA, 0)


def majority_vote(segmentations: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Give each voxel the label most segmentations give it; ties go by :data:`TIE_ORDER`.

    The order of the segmentations does not matter.

    Parameters
    ----------
    segmentations : one or more uint8 arrays of canonical labels, of one shape

    Returns
    -------
    labels : uint8 array of that shape

    Raises
    ------
    ValueError
        If there is no segmentation, or their shapes differ.
    """
    if not segmentations or len({s.shape for s in segmentations}) != 1:
        raise ValueError("majority_vote needs one or more segmentations of one shape")
    result = np.zeros(segmentations[0].shape, np.uint8)
    most = np.zeros(result.shape, np.uint16)
    for label in TIE_ORDER:
        votes = np.zeros(result.shape, np.uint16)
        for segmentation in segmentations:
            votes += segmentation == label
        better = votes > most
        result[better] = label
        most[better] = votes[better]
    return result
