"""Rigid and affine registration against a known map, on grids that differ."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.images import Image, ImageError
from predictgbm.registration.linear import centre_of_mass, isotropic, register_linear
from predictgbm.registration.transforms import apply_points, resample

RADII = np.array([24.0, 30.0, 21.0])
LAS = np.array([[-2.0, 0, 0, 35], [0, 2.0, 0, -40], [0, 0, 2.0, -30], [0, 0, 0, 1]])


def head(
    affine: NDArray[np.float64] = LAS, shape: tuple[int, int, int] = (36, 42, 32), contrast: int = 1
) -> Image:
    """An ellipsoid of smooth texture with a bright lesion on one side; contrast 2 turns part of the scale over."""
    base = np.random.default_rng(0).standard_normal((40, 40, 40))
    texture = Image(ndimage.gaussian_filter(base, 2.0).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    texture.affine[:3, 3] = -40
    values = resample(texture, Image(np.zeros(shape, np.float32), affine))
    index = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    inside = (((index / RADII) ** 2).sum(axis=1) < 1).reshape(shape)
    lesion = (np.linalg.norm(index - [10, 5, 5], axis=1) < 6).reshape(shape)
    data = 100 + 400 * values + 60 * lesion
    if contrast == 2:
        data = 10 + 0.002 * (data - 130) ** 2
    return Image((data * inside).astype(np.float32), affine, f"contrast {contrast}")


def motion(scale: float = 1.0) -> NDArray[np.float64]:
    matrix = np.eye(4)
    c, s = np.cos(0.12), np.sin(0.12)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([scale, 1, 1 / scale])
    matrix[:3, 3] = 3.0, -2.0, 4.0
    return matrix


def moved(image: Image, matrix: NDArray[np.float64]) -> Image:
    """The image seen in a space that matrix leads to, on another grid of another voxel order."""
    grid = np.array([[0, 0, 2.2, -34], [1.8, 0, 0, -38], [0, -2.0, 0, 36], [0, 0, 0, 1]])
    reference = Image(np.zeros((44, 36, 32), np.float32), grid, "moved")
    return Image(resample(image, reference, np.linalg.inv(matrix), interpolation="bspline"), grid, "moved")


def error(found: NDArray[np.float64], truth: NDArray[np.float64], image: Image) -> float:
    points = np.argwhere(image.data > 0)[::37] @ image.affine[:3, :3].T + image.affine[:3, 3]
    return float(np.linalg.norm(apply_points(points, found) - apply_points(points, truth), axis=1).mean())


@pytest.mark.parametrize(
    ("kind", "masked", "initial"),
    [("rigid", False, "header"), ("rigid", True, "centres"), ("affine", False, "header")],
)
def test_known_motion_is_found(kind: str, masked: bool, initial: str) -> None:
    fixed, truth = head(), motion(1.06 if kind == "affine" else 1.0)
    moving = moved(fixed, truth)
    masks = {"fixed_mask": fixed.data > 0, "moving_mask": moving.data > 0} if masked else {}
    found = register_linear(fixed, moving, kind=kind, initial=initial, **masks)  # type: ignore[arg-type]
    assert error(found, truth, fixed) < (0.2 if kind == "rigid" else 0.4)
    if kind == "rigid":
        np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)


def test_another_contrast_by_mutual_information() -> None:
    fixed, truth = head(), motion()
    assert error(register_linear(fixed, moved(head(contrast=2), truth), metric="nmi"), truth, fixed) < 0.6


def test_far_away_start_and_same_bits() -> None:
    """Centres of mass bridge what the headers do not know; a matrix starts where it says."""
    fixed, truth = head(), motion()
    near = moved(fixed, truth)
    far = np.eye(4)
    far[:3, 3] = 250, -300, 900
    moving = Image(near.data, far @ near.affine, "far")
    found = register_linear(fixed, moving, initial="centres")
    assert error(found, far @ truth, fixed) < 0.2
    np.testing.assert_array_equal(found, register_linear(fixed, moving, initial="centres"))
    assert error(register_linear(fixed, moving, initial=far), far @ truth, fixed) < 0.2


def test_thick_slices() -> None:
    fixed, truth = head(), motion()
    grid = np.array([[0.9, 0, 0, -40], [0, 0.9, 0, -42], [0, 0, 6.0, -34], [0, 0, 0, 1]])
    reference = Image(np.zeros((90, 94, 12), np.float32), grid)
    fine = moved(fixed, truth)
    thick = np.mean(
        [resample(fine, Image(reference.data, shift(grid, z))) for z in (-2, -1, 0, 1, 2)], axis=0
    )
    found = register_linear(fixed, Image(thick, grid, "thick"))
    assert error(found, truth, fixed) < 0.6


def shift(affine: NDArray[np.float64], z: float) -> NDArray[np.float64]:
    result = affine.copy()
    result[2, 3] += z
    return result


def test_unusable_images() -> None:
    fixed = head()
    with pytest.raises(ImageError, match="every voxel is the same"):
        register_linear(fixed, Image(np.zeros((9, 9, 9), np.float32), LAS, "empty"))
    with pytest.raises(ImageError, match="mask is empty"):
        register_linear(fixed, fixed, fixed_mask=np.zeros(fixed.shape, bool))


def test_isotropic_grid_keeps_the_voxels_of_a_cubic_image() -> None:
    image = head()
    grid = isotropic(image, image.data > 0, 2.0, 4.0)
    index = np.linalg.inv(image.affine) @ grid.affine
    np.testing.assert_allclose(index[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(index[:3, 3], np.rint(index[:3, 3]), atol=1e-9)
    np.testing.assert_allclose(centre_of_mass(image, image.data > 0), [0, 0, 0], atol=0.3)
