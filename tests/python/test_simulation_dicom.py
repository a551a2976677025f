"""Made DICOM series: dcm2niix, which shares no code with their writer, must give back array and affine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from predictgbm.images import Image, ImageError, conform, read_image
from predictgbm.simulation.dicom import make_uid, write_series

ATTRIBUTES = {
    "PatientID": "SIM001",
    "PatientName": "SIM^001",
    "StudyDate": "20250102",
    "SeriesNumber": 3,
    "SeriesDescription": "t2_tse_tra",
    "EchoTime": 90.0,
    "RepetitionTime": 5000.0,
    "MagneticFieldStrength": 3.0,
}


def convert(folder: Path, out: Path) -> list[Path]:
    out.mkdir()
    command = [dcm2niix.bin, "-b", "y", "-z", "n", "-f", "%s", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return sorted(out.glob("*.nii"))


def slab(seed: int, shape: tuple[int, int, int] = (24, 20, 7)) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(0, 1500, shape).astype(np.int16)


def grid(
    angles: tuple[float, float, float], size: tuple[float, float, float], axes: str
) -> NDArray[np.float64]:
    """Affine of a grid whose voxel axes point as ``axes`` says, turned by angles in degrees."""
    turned = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
        ),
        (1, 1, 1),
    )
    affine = np.eye(4)
    affine[:3, :3] = (
        Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ turned[:3, :3] @ np.diag(size)
    )
    affine[:3, 3] = (12.345, -67.891, 23.4)
    return affine


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize(
    ("angles", "size", "axes"),
    [
        ((0, 0, 0), (1.0, 1.0, 1.0), "LPS"),
        ((-14.0, 3.0, 2.0), (0.4, 0.4, 6.0), "LPS"),
        ((5.0, -2.0, 1.0), (0.9, 0.8, 3.0), "RAS"),
        ((0, 4.0, 3.0), (1.0, 1.0, 1.2), "PIL"),
        ((2.0, 4.0, 0), (1.0, 1.1, 2.0), "PIR"),
        ((2.0, 4.0, 0), (1.0, 1.1, 2.0), "LIP"),
    ],
)
def test_a_series_comes_back_from_dcm2niix(
    tmp_path: Path,
    angles: tuple[float, float, float],
    size: tuple[float, float, float],
    axes: str,
    enhanced: bool,
) -> None:
    data, affine = slab(1), grid(angles, size, axes)
    written = write_series(tmp_path / "dicom", data, affine, ATTRIBUTES, enhanced=enhanced)
    assert len(written) == (1 if enhanced else data.shape[2])
    (converted,) = convert(tmp_path / "dicom", tmp_path / "nifti")
    back = read_image(converted, np.int16)
    # Voxel order is the converter's choice; conform() permutes and flips and demands 0.01 mm.
    np.testing.assert_array_equal(conform(back, Image(data, affine)).data, data)


def test_gaps_signed_values_and_rescaling(tmp_path: Path) -> None:
    affine = grid((3.0, 1.0, 2.0), (1.0, 1.0, 6.0), "LPS")
    data = (slab(2) - 700).astype(np.int16)
    (first, *_) = write_series(tmp_path / "a", data, affine, {**ATTRIBUTES, "SliceThickness": 5.0})
    header = pydicom.dcmread(first)
    assert (header.SliceThickness, header.SpacingBetweenSlices) == (5.0, 6.0)
    (converted,) = convert(tmp_path / "a", tmp_path / "a_nifti")
    np.testing.assert_array_equal(conform(read_image(converted, np.int16), Image(data, affine)).data, data)

    scaled = (2 * slab(3) - 100).astype(np.int16)
    write_series(tmp_path / "b", scaled, affine, ATTRIBUTES, slope=2.0, intercept=-100.0)
    (converted,) = convert(tmp_path / "b", tmp_path / "b_nifti")
    np.testing.assert_array_equal(conform(read_image(converted), Image(scaled, affine)).data, scaled)


def test_series_of_one_folder_are_told_apart(tmp_path: Path) -> None:
    affine = grid((0, 0, 0), (1.0, 1.0, 4.0), "LPS")
    for number in (1, 2):
        attributes: dict[str, Any] = {**ATTRIBUTES, "SeriesNumber": number}
        write_series(tmp_path / "exam", slab(number), affine, attributes, prefix=f"S{number}_")
    assert [path.stem for path in convert(tmp_path / "exam", tmp_path / "nifti")] == ["1", "2"]
    files = [pydicom.dcmread(path) for path in sorted((tmp_path / "exam").iterdir())]
    assert len({f.SOPInstanceUID for f in files}) == len(files) == 14
    assert len({f.SeriesInstanceUID for f in files}) == 2
    assert len({f.StudyInstanceUID for f in files}) == len({f.FrameOfReferenceUID for f in files}) == 1


def test_files_follow_from_their_content(tmp_path: Path) -> None:
    affine = grid((1.0, 2.0, 3.0), (1.0, 1.0, 1.0), "LPS")
    first, second = (write_series(tmp_path / name, slab(4), affine, ATTRIBUTES) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    uid = make_uid("a", 1)
    assert uid.is_valid
    assert uid == make_uid("a", 1) != make_uid("a", 2)


def test_what_a_series_cannot_hold_is_refused(tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    with pytest.raises(ImageError, match="right angles"):
        write_series(tmp_path, slab(5), sheared, ATTRIBUTES)
    with pytest.raises(ImageError, match="16 bits"):
        write_series(tmp_path, slab(5), np.eye(4), ATTRIBUTES, slope=0.3)
    with pytest.raises(ImageError, match="16 bits"):
        write_series(tmp_path, slab(5).astype(np.int32) + 70000, np.eye(4), ATTRIBUTES)
