"""The pictures show what they are for: the tumour with its recurrence, and what a plan missed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from predictgbm.report.colours import RECURRENCE_COLOUR
from predictgbm.report.missed import HEIGHT, draw_missed, most_missed
from predictgbm.report.pictures import best_slice

SHAPE = (50, 60, 40)
SPACING = (1.0, 1.0, 2.0)


def ball(centre: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    place = np.indices(SHAPE).T - np.array(centre)
    return (np.linalg.norm(place * SPACING, axis=-1) < radius).T


def test_cut_goes_through_the_lesion_of_which_most_is_missed() -> None:
    near, far = ball((15, 15, 12), 9), ball((38, 45, 28), 5)
    point, lesion = most_missed(near | far, near, SPACING)
    assert point == (38, 45, 28)
    np.testing.assert_array_equal(lesion, far)
    # Half of the large lesion is more than all of the small one; the cut is not where the plan is.
    half = near & (np.indices(SHAPE)[0] < 15)
    point, lesion = most_missed(near | far, half, SPACING)
    np.testing.assert_array_equal(lesion, near)
    assert (near & ~half)[point]
    point, lesion = most_missed(near | far, near | far, SPACING)
    assert point == (15, 15, 12)


@pytest.mark.parametrize("centre", [(38, 45, 28), (2, 3, 38), (25, 30, 1)])
def test_recurrence_is_on_both_slices_wherever_it_lies(centre: tuple[int, int, int]) -> None:
    brain = ball((25, 30, 20), 24)
    missed = ball(centre, 4)
    picture = draw_missed(100 * brain.astype(float), brain, SPACING, missed, ball((20, 20, 15), 8), None)
    assert picture.height == HEIGHT
    drawn = (np.asarray(picture) == RECURRENCE_COLOUR).all(axis=-1)
    assert drawn[:, : picture.width // 2].any()
    assert drawn[:, picture.width // 2 :].any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slice_shows_tumour_and_recurrence_and_no_gap_between_foci(axis: int) -> None:
    foci = ball((10, 10, 8), 6) | ball((40, 50, 32), 5)

    def seen(mask: NDArray[np.bool_], recurrence: NDArray[np.bool_] | None) -> bool:
        return bool(mask.take(best_slice(foci, recurrence, axis), axis).any())

    assert seen(foci, None)
    beside = ball((44, 54, 34), 5)
    assert seen(foci, beside)
    assert seen(beside, beside)
    between = ball((25, 30, 20), 3)
    assert seen(foci, between)
