"""Boxes and overlaps of masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from predictgbm.masks import bounding_box, dice, overlap_coefficient

masks = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=6))


@given(masks)
def test_the_box_is_the_smallest_that_holds_the_mask(mask: NDArray[np.bool_]) -> None:
    box = bounding_box(mask)
    cut = mask[box]
    assert cut.sum() == mask.sum()
    if mask.any():
        for axis in range(3):
            faces = np.moveaxis(cut, axis, 0)
            assert faces[0].any()
            assert faces[-1].any()
    else:
        assert cut.shape == mask.shape


@given(masks, st.integers(0, 8))
def test_a_margin_widens_the_box_as_far_as_there_is_room(mask: NDArray[np.bool_], margin: int) -> None:
    for narrow, wide, n in zip(bounding_box(mask), bounding_box(mask, margin), mask.shape, strict=True):
        assert (wide.start, wide.stop) == (max(0, narrow.start - margin), min(n, narrow.stop + margin))


def test_overlap() -> None:
    a, b = np.arange(6) < 4, np.arange(6) > 2
    assert dice(a, b) == pytest.approx(2 * 1 / 7)
    assert dice(a, a) == 1
    assert dice(a, ~a) == 0
    assert math.isnan(dice(a & ~a, b & ~b))
    assert overlap_coefficient(a, b) == pytest.approx(1 / min(a.sum(), b.sum()))
    assert overlap_coefficient(a, a | b) == 1
    assert math.isnan(overlap_coefficient(a, b & ~b))
