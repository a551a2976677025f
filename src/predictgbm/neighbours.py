"""The neighbours of a voxel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: One of each pair of opposite directions to the 26 neighbours of a voxel.
DIRECTIONS = np.array([e for e in product((-1, 0, 1), repeat=3) if e > (0, 0, 0)], np.int64)


def shifted(field: NDArray[Any], offset: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
    """Return what lies at x + offset, for every voxel x of a volume; 0 outside."""
    result = np.zeros_like(field)
    here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, field.shape, strict=True))
    there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, field.shape, strict=True))
    result[here] = field[there]
    return result
