"""Transforms: points, resampling, inverse, Jacobian and files, against closed forms, scipy and SimpleITK."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.images import Image, ImageError, write_image
from predictgbm.registration.transforms import (
    Field,
    apply_points,
    compose,
    invert,
    jacobian,
    read_transform,
    resample,
    write_transform,
)

SHAPE = (22, 26, 18)


def rotation(angles: tuple[float, float, float], shift: tuple[float, float, float]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix[:3, :3] = turn @ matrix[:3, :3]
    matrix[:3, 3] = shift
    return matrix


#: An oblique grid of anisotropic voxels, with the first axis towards the left.
OBLIQUE = rotation((0.2, -0.1, 0.3), (15.0, -20.0, 8.0)) @ np.diag([-2.0, 2.5, 3.0, 1.0])


def blob(affine: NDArray[np.float64] = OBLIQUE, shape: tuple[int, int, int] = SHAPE) -> Image:
    rng = np.random.default_rng(1)
    data = ndimage.gaussian_filter(rng.standard_normal(shape), 2).astype(np.float32)
    return Image(100 * data, affine)


def smooth_field(reference: Image, size: float = 3.0, seed: int = 2) -> Field:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*reference.shape, 3))
    field = np.stack([ndimage.gaussian_filter(noise[..., a], 4) for a in range(3)], axis=-1)
    return Field((size * field / np.abs(field).max()).astype(np.float32), reference.affine)


def voxel_points(image: Image, margin: int = 3) -> NDArray[np.float64]:
    index = np.stack(np.meshgrid(*(np.arange(margin, n - margin) for n in image.shape), indexing="ij"))
    return index.reshape(3, -1).T @ image.affine[:3, :3].T + image.affine[:3, 3]


def to_sitk(image: Image, path: Path) -> SimpleITK.Image:
    write_image(path, image.data, image.affine)
    return SimpleITK.ReadImage(str(path))


def test_points_go_through_the_first_transform_first() -> None:
    turn, shift = rotation((0, 0, np.pi / 2), (0, 0, 0)), rotation((0, 0, 0), (10, 0, 0))
    np.testing.assert_allclose(apply_points(np.array([[1.0, 0, 0]]), turn, shift), [[10, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(apply_points(np.array([[1.0, 0, 0]]), shift, turn), [[0, 11, 0]], atol=1e-12)


@pytest.mark.parametrize("interpolation", ["linear", "bspline", "nearest"])
def test_identity_returns_the_image(interpolation: str) -> None:
    image = blob()
    np.testing.assert_allclose(resample(image, image, interpolation=interpolation), image.data, atol=2e-3)  # type: ignore[arg-type]


def test_labels_keep_their_type() -> None:
    labels = Image((blob().data > 0).astype(np.uint8) * 4, OBLIQUE)
    moved = resample(labels, labels, rotation((0.1, 0, 0), (1, 2, 3)), interpolation="nearest")
    assert moved.dtype == np.uint8
    assert set(np.unique(moved)) == {0, 4}


@pytest.mark.parametrize(
    ("interpolation", "ours"), [(SimpleITK.sitkLinear, "linear"), (SimpleITK.sitkNearestNeighbor, "nearest")]
)
def test_resampling_agrees_with_simpleitk(interpolation: int, ours: str, tmp_path: Path) -> None:
    """Matrix and field through files, on oblique grids, one after the other."""
    image = blob()
    reference = Image(
        np.zeros((20, 18, 24), np.float32), rotation((0, 0.2, 0), (-25, -18, -14)) @ np.diag([1.7, 2, 2.2, 1])
    )
    matrix = rotation((0.1, -0.05, 0.08), (3, -2, 4)) @ np.diag([1.05, 0.97, 1.02, 1])
    field = smooth_field(reference)
    write_transform(tmp_path / "a.tfm", matrix)
    write_transform(tmp_path / "f.nii.gz", field)
    displacement = SimpleITK.ReadImage(str(tmp_path / "f.nii.gz"), SimpleITK.sitkVectorFloat64)
    assert displacement.GetDimension() == 3
    # ITK's composite applies the transform added last first.
    both = SimpleITK.CompositeTransform(
        [SimpleITK.ReadTransform(str(tmp_path / "a.tfm")), SimpleITK.DisplacementFieldTransform(displacement)]
    )
    target = to_sitk(reference, tmp_path / "r.nii.gz")
    theirs = SimpleITK.Resample(to_sitk(image, tmp_path / "i.nii.gz"), target, both, interpolation, -7.0)
    expected = SimpleITK.GetArrayFromImage(theirs).transpose(2, 1, 0)
    got = resample(image, reference, field, matrix, interpolation=ours, fill=-7.0)  # type: ignore[arg-type]
    assert (expected == -7).any()
    different = np.abs(got - expected) > 0.01
    assert different.mean() < 2e-3  # points on the very edge or the very middle between two voxels


@pytest.mark.parametrize("suffix", [".tfm", ".txt", ".mat"])
def test_matrix_files(suffix: str, tmp_path: Path) -> None:
    matrix = rotation((0.3, -0.2, 0.1), (12.3, -4.5, 6.7)) @ np.diag([1.1, 0.9, 1.0, 1])
    path = tmp_path / f"x{suffix}"
    write_transform(path, matrix)
    np.testing.assert_allclose(read_transform(path), matrix, atol=1e-12)
    points = np.array([[10.0, 20, 30], [-5, 7, 90]])
    itk = SimpleITK.ReadTransform(str(path))
    theirs = np.array([itk.TransformPoint(p) for p in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    np.testing.assert_allclose(apply_points(points, matrix), theirs, atol=1e-9)


def test_rigid_file_of_itk(tmp_path: Path) -> None:
    rigid = SimpleITK.Euler3DTransform((5.0, 6.0, 7.0), 0.1, 0.2, 0.3, (1.0, 2.0, 3.0))
    SimpleITK.WriteTransform(rigid, str(tmp_path / "r.tfm"))
    point = np.array([[1.0, 2.0, 3.0]])
    expected = np.array(rigid.TransformPoint((-1.0, -2.0, 3.0))) * [-1, -1, 1]
    np.testing.assert_allclose(
        apply_points(point, read_transform(tmp_path / "r.tfm"))[0], expected, atol=1e-9
    )


def test_field_file_maps_points_as_simpleitk(tmp_path: Path) -> None:
    image = blob()
    field = smooth_field(image)
    write_transform(tmp_path / "f.nii.gz", field)
    again = read_transform(tmp_path / "f.nii.gz")
    assert isinstance(again, Field)
    np.testing.assert_array_equal(again.displacement, field.displacement)
    itk = SimpleITK.DisplacementFieldTransform(
        SimpleITK.ReadImage(str(tmp_path / "f.nii.gz"), SimpleITK.sitkVectorFloat64)
    )
    points = voxel_points(image)[::50] + 0.4
    theirs = np.array([itk.TransformPoint(p) for p in (points * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    np.testing.assert_allclose(apply_points(points, field), theirs, atol=1e-3)


def test_files_have_the_same_bytes(tmp_path: Path) -> None:
    field = smooth_field(blob())
    for name in "ab":
        write_transform(tmp_path / name / "f.nii.gz", field)
    assert (tmp_path / "a" / "f.nii.gz").read_bytes() == (tmp_path / "b" / "f.nii.gz").read_bytes()


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_transform(tmp_path / "none.tfm")
    (tmp_path / "bad.tfm").write_text("no transform")
    with pytest.raises(ImageError, match="ITK transform"):
        read_transform(tmp_path / "bad.tfm")
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.eye(4)), tmp_path / "scalar.nii.gz")
    with pytest.raises(ImageError, match="no displacement field"):
        read_transform(tmp_path / "scalar.nii.gz")


def test_composition_is_one_after_the_other() -> None:
    image = blob()
    matrix, field = rotation((0.05, 0, 0.1), (1, -2, 0.5)), smooth_field(image)
    points = voxel_points(image)
    joined = compose(image, field, matrix)
    np.testing.assert_allclose(apply_points(points, joined), apply_points(points, field, matrix), atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(
    angle=st.floats(-1.5, 1.5),
    shift=st.tuples(*[st.floats(-8, 8)] * 3),
    size=st.floats(0, 4),
    seed=st.integers(0, 1000),
)
def test_inverse_takes_points_back(
    angle: float, shift: tuple[float, float, float], size: float, seed: int
) -> None:
    """Also where the field holds a large rotation, on which a plain fixed point diverges."""
    image = blob()
    centre = rotation((0, 0, 0), tuple((OBLIQUE @ [*(n / 2 for n in SHAPE), 1])[:3]))
    matrix = rotation((0, 0, 0), shift) @ centre @ rotation((0, 0, angle), (0, 0, 0)) @ np.linalg.inv(centre)
    field = compose(image, smooth_field(image, size, seed), matrix)
    moving = Image(image.data, matrix @ image.affine)
    inverse = invert(field, moving)
    points = voxel_points(image, 6)
    back = apply_points(points, field, inverse)
    assert np.linalg.norm(back - points, axis=1).mean() < 0.05


def test_jacobian_of_a_matrix_and_of_a_fold() -> None:
    image = blob()
    matrix = rotation((0.3, 0.2, 0.1), (1, 2, 3)) @ np.diag([1.2, 0.9, 1.1, 1])
    np.testing.assert_allclose(jacobian(compose(image, matrix)), 1.2 * 0.9 * 1.1, rtol=1e-4)
    mirror = compose(image, np.diag([-1.0, 1, 1, 1]))
    np.testing.assert_allclose(jacobian(mirror), -1, rtol=1e-4)


def test_spline_does_not_overshoot_and_is_sharper_than_linear() -> None:
    image = blob()
    moved = rotation((0, 0, 0), (1.0, 1.25, 1.5))
    there = resample(image, image, moved, interpolation="bspline")
    assert there.min() >= image.data.min()
    assert there.max() <= image.data.max()
    inner = (slice(4, -4),) * 3

    def loss(interpolation: str) -> float:
        first = Image(resample(image, image, moved, interpolation=interpolation), OBLIQUE)  # type: ignore[arg-type]
        back = resample(first, image, np.linalg.inv(moved), interpolation=interpolation)  # type: ignore[arg-type]
        return float(np.abs(back[inner] - image.data[inner]).mean())

    assert loss("bspline") < 0.3 * loss("linear")
