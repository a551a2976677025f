"""Reading what plans and their evaluation need, all in one voxel order.

Everything is turned to RAS, whatever the order it is stored in, so that the last tie-break of a plan, the
flat index, means the same place in the head for every file.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from predictgbm.images import Image, ImageError, conform, read_image
from predictgbm.labels import LabelError, to_canonical


def read_on(path: str | os.PathLike[str], reference: Image, dtype: DTypeLike) -> NDArray[Any]:
    """Read an image in the voxel order of a reference on the same grid.

    Raises
    ------
    ImageError
        From :func:`predictgbm.images.read_image` and :func:`predictgbm.images.conform`.
    """
    return conform(read_image(path, dtype), reference).data


def read_mask(path: str | os.PathLike[str], reference: Image) -> NDArray[np.bool_]:
    """Read a mask: any type, 0 and one other whole number.

    Raises
    ------
    ImageError
        As :func:`read_on`, and if the image holds fractions or more than two values.
    """
    data = read_on(path, reference, np.uint8)
    mask = data != 0
    if (data[mask] != data.max()).any():
        shown = ", ".join(map(str, np.unique(data[mask])[:6].tolist()))
        raise ImageError(f"{path}: holds the values {shown}; a mask has 0 and one other value")
    return mask


def read_labels(path: str | os.PathLike[str], reference: Image, convention: str) -> NDArray[np.uint8]:
    """Read a tumour segmentation and translate it to the canonical labels.

    Raises
    ------
    ImageError
        As :func:`read_on`.
    LabelError
        If the file holds a label that the convention does not know.
    """
    data = read_on(path, reference, np.uint8)
    try:
        return to_canonical(data, convention)
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
