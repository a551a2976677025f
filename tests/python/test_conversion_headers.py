"""Headers of raw NIfTI files: every kind is brought to the same values at the same millimetres, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from predictgbm.conversion.headers import compact, largest_shift, read_gradients, read_native
from predictgbm.images import ImageError, conform, read_image, write_image

SHAPE = (11, 12, 9)
BASE = np.array([[2.0, 0, 0, -9], [0, 2, 0, -12], [0, 0, 3, 5], [0, 0, 0, 1]])


def values(seed: int = 0) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-500, 3000, SHAPE).astype(np.int16)


def turned(spacing: tuple[float, float, float], angles: tuple[float, float, float]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (-30, 20, 10)
    return affine


def write(
    path: Path,
    data: Any,
    sform: Any = BASE,
    qform: Any = BASE,
    codes: tuple[int, int] = (1, 1),
    **header: Any,
) -> Path:
    image = nib.Nifti1Image(data, None)
    for name, value in header.items():
        image.header[name] = value
    image.set_sform(sform, code=codes[0], update_affine=False)
    image.set_qform(qform, code=codes[1], update_affine=False)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPS", "PIR", "SAL"])
def test_voxel_orders_hold_the_same_image(tmp_path: Path, axes: str) -> None:
    reference, _ = read_native(write(tmp_path / "ras.nii.gz", values()))
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axes))
    )
    data = nib.orientations.apply_orientation(values(), turn)
    affine = BASE @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    image, placement = read_native(write(tmp_path / "other.nii.gz", data, affine, affine))
    assert nib.aff2axcodes(image.affine) == tuple(axes)
    assert placement.conflict_mm < 1e-3
    np.testing.assert_array_equal(conform(image, reference).data, values())


@pytest.mark.parametrize(
    "affine",
    [
        turned((1.0, 1.0, 1.2), (10, -25, 30)),
        turned((0.4, 0.4, 6.0), (0, 0, 0)),
        turned((0.4, 0.4, 6.0), (14, 3, -5)),
    ],
    ids=["oblique", "0.4 x 0.4 x 6 mm", "both"],
)
@pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 1)])
def test_written_image_lies_where_it_lay(
    tmp_path: Path, affine: NDArray[np.float64], codes: tuple[int, int]
) -> None:
    image, placement = read_native(write(tmp_path / "a.nii.gz", values(), affine, affine, codes))
    assert placement.source == ("sform" if codes[0] else "qform")
    assert placement.conflict_mm < 0.01
    write_image(tmp_path / "b.nii.gz", compact(image.data), image.affine)
    header = nib.load(tmp_path / "b.nii.gz").header
    for written, code in (header.get_sform(coded=True), header.get_qform(coded=True)):
        assert code > 0
        assert largest_shift(written, affine, SHAPE) < 0.01
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz").data, values())


def test_conflict_of_sform_and_qform(tmp_path: Path) -> None:
    moved = BASE.copy()
    moved[0, 3] += 4
    image, placement = read_native(write(tmp_path / "a.nii.gz", values(), moved, BASE))
    assert placement.source == "sform"
    assert placement.conflict_mm == pytest.approx(4, abs=1e-4)
    np.testing.assert_allclose(image.affine, moved)
    # Of a header that mirrors left and right in one form the whole width is the conflict.
    mirrored = np.diag([-1.0, 1, 1, 1]) @ BASE
    placement = read_native(write(tmp_path / "a.nii.gz", values(), mirrored, BASE))[1]
    assert placement.conflict_mm == pytest.approx(22, abs=1e-4)
    tiny = BASE.copy()
    tiny[0, 3] += 0.05
    assert read_native(write(tmp_path / "a.nii.gz", values(), tiny, BASE))[1].conflict_mm < 0.1


def test_shear_gives_way_to_the_qform_or_is_refused(tmp_path: Path) -> None:
    sheared = BASE.copy()
    sheared[0, 1] = 0.3
    image, placement = read_native(write(tmp_path / "a.nii.gz", values(), sheared, BASE))
    assert (placement.source, placement.conflict_mm > 3) == ("qform", True)
    np.testing.assert_allclose(image.affine, BASE)
    with pytest.raises(ImageError, match="not at right angles"):
        read_native(write(tmp_path / "a.nii.gz", values(), sheared, BASE, (1, 0)))


def test_header_without_position_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no position .* left and right"):
        read_native(write(tmp_path / "a.nii.gz", values(), codes=(0, 0)))


def test_types_and_scaling_give_physical_values(tmp_path: Path) -> None:
    data = values().astype(np.float64) / 7
    image, _ = read_native(write(tmp_path / "a.nii.gz", data))
    assert image.data.dtype == np.float32
    np.testing.assert_allclose(image.data, data, rtol=1e-6)
    assert compact(image.data).dtype == np.float32

    scaled = nib.Nifti1Image(values(), BASE)
    scaled.header.set_slope_inter(0.5, -100)
    nib.save(scaled, tmp_path / "scaled.nii.gz")
    raw = nib.load(tmp_path / "scaled.nii.gz")
    assert (raw.dataobj.slope, raw.dataobj.inter) == (0.5, -100)
    stored = np.asarray(raw.dataobj.get_unscaled())
    image, _ = read_native(tmp_path / "scaled.nii.gz")
    np.testing.assert_allclose(image.data, stored * 0.5 - 100)

    for kind in (np.uint8, np.uint16, np.int32, np.float32):
        whole = (values() % 200).astype(kind)
        image, _ = read_native(write(tmp_path / "a.nii.gz", whole))
        assert compact(image.data).dtype == np.int16
        np.testing.assert_array_equal(image.data, whole)
    assert compact(np.full((2, 2, 2), 40000, np.float32)).dtype == np.float32


def test_one_volume_and_many(tmp_path: Path) -> None:
    image, _ = read_native(write(tmp_path / "a.nii.gz", values()[..., None]))
    np.testing.assert_array_equal(image.data, values())
    with pytest.raises(ImageError, match="one volume per file"):
        read_native(write(tmp_path / "a.nii.gz", np.stack([values(), values()], axis=-1)))


def test_nan_and_strangers(tmp_path: Path) -> None:
    data = values().astype(np.float32)
    data[1, 2, 3] = np.nan
    with pytest.raises(ImageError, match="1 voxels are NaN"):
        read_native(write(tmp_path / "a.nii.gz", data))
    nib.save(nib.MGHImage(values().astype(np.float32), BASE), tmp_path / "a.mgz")
    with pytest.raises(ImageError, match="expected NIfTI"):
        read_native(tmp_path / "a.mgz")


def test_gradient_tables(tmp_path: Path) -> None:
    bval, bvec = tmp_path / "a.bval", tmp_path / "a.bvec"
    bval.write_text("0 1000 1000 \n")
    bvec.write_text("0 1 0\n0 0 0.6\n0 0 0.8\n")
    b, directions = read_gradients(bval, bvec, 3)
    np.testing.assert_array_equal(b, [0, 1000, 1000])
    np.testing.assert_allclose(directions, [[0, 0, 0], [1, 0, 0], [0, 0.6, 0.8]])
    bvec.write_text("0 0 0\n2 0 0\n0 .6 .8\n0 1 0\n")
    with pytest.raises(ImageError, match="3 b-values for 4 volumes"):
        read_gradients(bval, bvec, 4)
    bval.write_text("0\n1000\n1000\n1000\n")
    np.testing.assert_allclose(read_gradients(bval, bvec, 4)[1][1], [1, 0, 0])
    with pytest.raises(ImageError, match="4 b-values for 5 volumes"):
        read_gradients(bval, bvec, 5)
    bvec.write_text("0 0 0\n2 0 0\n")
    with pytest.raises(ImageError, match="does not fit 4 volumes, expected 3 x 4"):
        read_gradients(bval, bvec, 4)
    bvec.write_text("a b c\n")
    with pytest.raises(ImageError, match="no table of numbers"):
        read_gradients(bval, bvec, 4)
    with pytest.raises(ImageError, match="does not exist"):
        read_gradients(bval, tmp_path / "absent", 4)
