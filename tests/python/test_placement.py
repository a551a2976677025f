"""Compartments on an exam whose midline a tumour has pushed aside."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import Atlas
from predictgbm.guidelines.compartments import Compartment, falx_mask
from predictgbm.guidelines.placement import exam_to_atlas, midline_shift, place_compartments
from predictgbm.images import Image

SHAPE = (64, 72, 56)
AFFINE = np.array([[2.0, 0, 0, -63], [0, 2, 0, -71], [0, 0, 2, -55], [0, 0, 0, 1]])


def world() -> NDArray[np.float64]:
    points: NDArray[np.float64] = np.moveaxis(np.indices(SHAPE), 0, -1) * 2.0 + AFFINE[:3, 3]
    return points


def look(points: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return T1 and brain at points of the atlas: uneven tissue, a dark fissure in the middle."""
    rng = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2.0)
    at = np.moveaxis((points - AFFINE[:3, 3]) / 2.0, -1, 0)
    value = 100 + 200 * ndimage.map_coordinates(texture, at, order=1, mode="nearest")
    value -= 60 * np.exp(-((points[..., 0] / 3) ** 2))
    brain = ((points / (56, 64, 48)) ** 2).sum(axis=-1) < 1
    return (np.maximum(value, 1) * brain).astype(np.float32), brain


def halves(points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return compartments at points of the atlas: two hemispheres and a callosum."""
    labels = np.where(points[..., 0] < 0, Compartment.LEFT, Compartment.RIGHT).astype(np.uint8)
    middle = (np.abs(points[..., 0]) < 8) & (np.abs(points[..., 1]) < 30) & (np.abs(points[..., 2]) < 12)
    labels[middle] = Compartment.MIDLINE
    return labels


def atlas() -> tuple[Atlas, Image]:
    t1, brain = look(world())
    third = (brain / 3).astype(np.float32)
    made = Atlas(t1, third, third, third, brain, AFFINE, (2.0, 2.0, 2.0), "SRI24")
    return made, Image(halves(world()), AFFINE)


@pytest.mark.parametrize("push", [-8.0, 8.0])
def test_the_falx_goes_where_the_tumour_has_pushed_it(push: float) -> None:
    points = world()
    away = -push * np.exp(-((points / (24, 30, 24)) ** 2).sum(axis=-1))
    truth = np.zeros((*SHAPE, 3))
    truth[..., 0] = away
    t1, brain = look(points + truth)
    tumor = np.linalg.norm(points - (-np.sign(push) * 34, 0, 10), axis=-1) < 10
    t1 = np.where(tumor & brain, 250, t1).astype(np.float32)
    made, compartments = atlas()
    found = exam_to_atlas(made, Image(t1, AFFINE), brain, tumor & brain)
    placed = place_compartments(compartments, Image(t1, AFFINE), found)
    expected = halves(points + truth)

    wall = falx_mask(expected) & brain

    def error(labels: NDArray[np.uint8]) -> float:
        distance = ndimage.distance_transform_edt(~falx_mask(labels), sampling=(2, 2, 2))
        return float(np.percentile(distance[wall], 95))

    assert error(place_compartments(compartments, Image(t1, AFFINE))) > 3.5
    assert error(placed) <= 2
    estimate = midline_shift(placed, found, brain, Image(t1, AFFINE))
    exact = midline_shift(expected, truth, brain, Image(t1, AFFINE))
    assert estimate == pytest.approx(exact, abs=1)
    assert np.sign(push) * estimate > 3


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_shift_is_against_the_plane_of_the_falx_at_the_skull(mirrored: bool) -> None:
    points = world()
    _, brain = look(points)
    labels = halves(points)
    displacement = np.zeros((*SHAPE, 3))
    displacement[..., 0] = -(
        2 + 0.05 * points[..., 1] - 0.1 * points[..., 2]
    )  # a head that is turned and moved
    displacement[labels == Compartment.MIDLINE, 0] -= 4
    reference = Image(brain, AFFINE)
    if mirrored:
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = SHAPE[0] - 1
        labels, displacement, brain = labels[::-1], displacement[::-1], brain[::-1]
        reference = Image(brain, AFFINE @ flip)
    assert midline_shift(labels, displacement, brain, reference) == pytest.approx(4)
    assert midline_shift(np.minimum(labels, 2), displacement, brain, reference) is None
    assert midline_shift(np.ones_like(labels), displacement, brain, reference) is None
