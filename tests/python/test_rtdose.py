"""RTDOSE files made by pydicom, oblique and with frames in either order, read back where they are in the patient."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTDoseStorage, generate_uid

from predictgbm.conversion.rtdose import read_dose, read_rtdose
from predictgbm.evaluation import lesions
from predictgbm.images import ImageError, read_image, to_ras, write_image
from predictgbm.registration.transforms import write_transform

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
#: Directions of rows and columns, of an oblique grid, orthogonal.
ROW = np.array([0.8, 0.6, 0.0])
COLUMN = np.array([-0.36, 0.48, 0.8])
POSITION = np.array([-40.0, 25.0, 12.5])
SPACING = (2.5, 3.0)  # between rows, between columns


def field(points: np.ndarray) -> np.ndarray:
    """Return a dose in Gy at LPS points: linear, so that linear interpolation gives it exactly."""
    return 30 + points @ np.array([0.11, -0.07, 0.13])


def write_rtdose(path: Path, offsets: list[float], bits: int = 32, **changes: Any) -> FileDataset:
    """Write the field on an oblique grid of 6 columns, 5 rows and a frame per offset."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTDoseStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTDoseStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = (
        "RTDOSE",
        "GY",
        "PHYSICAL",
        "PLAN",
    )
    dataset.ImageOrientationPatient = [*ROW, *COLUMN]
    dataset.ImagePositionPatient = list(POSITION)
    dataset.PixelSpacing = list(SPACING)
    dataset.GridFrameOffsetVector = offsets
    for name, value in changes.items():
        setattr(dataset, name, value)
    row, column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    start = np.array(dataset.ImagePositionPatient, float)
    normal = np.cross(row, column)
    offset = np.array(offsets)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 5, 6, len(offsets)
    k, j, i = np.indices((len(offsets), 5, 6))
    points = (
        start
        + i[..., None] * SPACING[1] * row
        + j[..., None] * SPACING[0] * column
        + offset[k][..., None] * normal
    )
    scaling = 1e-3 if bits == 16 else 1e-7
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = bits - 1, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.DoseGridScaling = scaling
    dataset.PixelData = np.rint(field(points) / scaling).astype(f"<u{bits // 8}").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return dataset


@pytest.mark.parametrize("offsets", [[0, 2, 4, 6], [0, -2, -4, -6], [0, 2.5, 5, 7.5]])
@pytest.mark.parametrize("bits", [16, 32])
def test_every_voxel_is_where_its_dose_was_made(tmp_path, offsets, bits):
    write_rtdose(tmp_path / "dose.dcm", offsets, bits)
    image = read_rtdose(tmp_path / "dose.dcm")
    assert image.data.shape == (6, 5, 4)
    assert image.spacing == pytest.approx((3.0, 2.5, abs(offsets[1])))
    index = np.indices(image.data.shape).reshape(3, -1).T
    ras = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    np.testing.assert_allclose(image.data.ravel(), field(ras * LPS_TO_RAS), atol=1e-3 if bits == 16 else 1e-5)
    # GDCM, which knows nothing of the scaling, has the same voxels at the same places.
    other = SimpleITK.ReadImage(str(tmp_path / "dose.dcm"))
    places = [other.TransformIndexToPhysicalPoint(tuple(map(int, where))) for where in index]
    np.testing.assert_allclose(places * LPS_TO_RAS, ras, atol=1e-4)
    scaling = 1e-3 if bits == 16 else 1e-7
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(other).T * scaling, image.data, rtol=1e-6)


@pytest.mark.parametrize("offsets", [[12.5, 15.5, 18.5], [12.5, 9.5, 6.5]])
@pytest.mark.parametrize("turned", [False, True])
def test_offsets_may_be_patient_coordinates(tmp_path, offsets, turned):
    """Axial planes tell their z; with rows running to the right of the patient the normal points down."""
    orientation = [-1, 0, 0, 0, 1, 0] if turned else [1, 0, 0, 0, 1, 0]
    write_rtdose(tmp_path / "dose.dcm", [0, 1, 2], ImageOrientationPatient=orientation)
    dataset = pydicom.dcmread(tmp_path / "dose.dcm")
    dataset.GridFrameOffsetVector = offsets
    dataset.save_as(tmp_path / "dose.dcm")
    image = read_rtdose(tmp_path / "dose.dcm")
    z = [(image.affine @ [0, 0, k, 1])[2] for k in range(3)]
    np.testing.assert_allclose(z, offsets)
    assert (image.affine @ [0, 0, 0, 1])[:3] == pytest.approx(POSITION * LPS_TO_RAS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Modality": "CT"}, "modality CT, expected RTDOSE"),
        ({"DoseUnits": "RELATIVE"}, "DoseUnits is RELATIVE, expected GY"),
        ({"DoseType": "ERROR"}, "DoseType is ERROR"),
        ({"DoseSummationType": "BEAM"}, "DoseSummationType is BEAM, expected PLAN"),
        ({"GridFrameOffsetVector": [0, 2, 5, 6]}, "planes are 1 to 3 mm apart"),
        ({"GridFrameOffsetVector": [0, 2]}, "2 plane offsets"),
        ({"GridFrameOffsetVector": [7, 9, 11, 13]}, "neither 0 nor the z"),
        ({"PixelData": b"\0" * 8}, "pixels are damaged"),
        ({"DoseGridScaling": None}, "lacks what a dose needs"),
        ({"PixelSpacing": None}, "lacks what a dose needs"),
        ({"PixelSpacing": [2.5, 0.0]}, "missing or unusable"),
        ({"ImagePositionPatient": None}, "missing or unusable"),
    ],
)
def test_what_is_no_dose_of_a_treatment(tmp_path, changes, message):
    write_rtdose(tmp_path / "dose.dcm", [0, 2, 4, 6])
    dataset = pydicom.dcmread(tmp_path / "dose.dcm")
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(tmp_path / "dose.dcm")
    with pytest.raises(ImageError, match=message):
        read_rtdose(tmp_path / "dose.dcm")


def test_not_dicom(tmp_path):
    (tmp_path / "dose.dcm").write_text("nothing")
    with pytest.raises(ImageError, match="cannot be read as DICOM"):
        read_rtdose(tmp_path / "dose.dcm")


def test_dose_in_centigray(tmp_path):
    write_image(tmp_path / "dose.nii.gz", np.full((3, 3, 3), 6000, np.float32), np.eye(4))
    with pytest.raises(ImageError, match="divide a dose in cGy by 100"):
        read_dose(tmp_path / "dose.nii.gz")


def test_what_splines_leave_below_zero_counts_as_zero(tmp_path):
    data = np.full((3, 3, 3), 60, np.float32)
    data[0, 0, :2] = -0.003, -0.5
    write_image(tmp_path / "dose.nii.gz", data, np.eye(4))
    read = read_dose(tmp_path / "dose.nii.gz").data
    np.testing.assert_array_equal(read, np.maximum(data, 0))
    data[0, 0, 0] = -3
    write_image(tmp_path / "dose.nii.gz", data, np.eye(4))
    with pytest.raises(ImageError, match="export the dose of the plan again"):
        read_dose(tmp_path / "dose.nii.gz")


@pytest.fixture
def convert(monkeypatch, capsys):
    path = Path(__file__).parents[2] / "bin" / "convert_dose.py"
    spec = importlib.util.spec_from_file_location("convert_dose", path)
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert_dose.py", *map(str, arguments)])
        return command.main(), capsys.readouterr().err

    return run


def test_to_the_grid_of_an_exam(tmp_path, convert):
    """Within the dose grid the field itself, moved by the transform; and what recurrence, core and organ got."""
    write_rtdose(tmp_path / "dose.dcm", [0, -3, -6, -9])
    inner = POSITION + 7 * ROW + 5 * COLUMN - 4 * np.cross(ROW, COLUMN)
    shift = np.array([1.0, -2.0, 0.5])
    affine = np.eye(4)
    affine[:3, 3] = inner * LPS_TO_RAS - 1 - shift
    index = np.indices((3, 3, 3))
    masks = {
        "desc-brain_mask": np.ones((3, 3, 3)),
        "desc-tumor_dseg": np.where(index[2] == 2, 3, 0),
        "label-stem_mask": index[1] == 0,
        "labels": np.where(index[0] == 1, 3, 0),
    }
    for name, data in masks.items():
        write_image(tmp_path / "exam" / f"sub-1_{name}.nii.gz", data.astype(np.uint8), affine)
    moved = np.eye(4)
    moved[:3, 3] = shift
    write_transform(tmp_path / "way.tfm", moved)
    dose, way, out = tmp_path / "dose.dcm", tmp_path / "way.tfm", tmp_path / "out.nii.gz"
    status, said = convert(
        *(
            "--dose",
            dose,
            "--exam",
            tmp_path / "exam",
            "--transform",
            way,
            "--out",
            out,
            "--prescription",
            30,
        ),
        *(
            "--recurrence",
            tmp_path / "exam" / "sub-1_labels.nii.gz",
            "--measures",
            tmp_path / "measures.json",
        ),
        *("--patient", "1"),
    )
    assert (status, said) == (0, "")
    points = (index.reshape(3, -1).T + affine[:3, 3] + shift) * LPS_TO_RAS
    expected = field(points).reshape(3, 3, 3)
    np.testing.assert_allclose(read_image(out).data, expected, atol=1e-3)
    found = json.loads((tmp_path / "measures.json").read_text())
    assert (found["patient"], found["prescription_gy"]) == ("1", 30)
    assert found["measures"]["recurrence_mean_gy"] == pytest.approx(expected[1].mean(), abs=1e-3)
    assert found["measures"]["core_mean_gy"] == pytest.approx(expected[..., 2].mean(), abs=1e-3)
    assert found["measures"]["brain_mean_gy"] == pytest.approx(expected[..., :2].mean(), abs=1e-3)
    (lesion,) = found["lesions"]
    assert lesion["coverage_isodose"] == pytest.approx(np.mean(expected[1] >= 28.5))
    (organ,) = found["organs"]
    assert (organ["organ"], organ["volume_ml"]) == ("stem", pytest.approx(0.009))
    assert organ["mean_gy"] == pytest.approx(expected[:, 0].mean(), abs=1e-3)
    # Nine voxels of 1 mm are less than 0.03 ml.
    assert organ["d003cc_gy"] is None
    # Without an exam, to any grid; and to one that no dose reaches.
    status, said = convert(
        "--dose", dose, "--reference", out, "--transform", way, "--out", tmp_path / "again.nii"
    )
    assert (status, said) == (0, "")
    np.testing.assert_array_equal(read_image(tmp_path / "again.nii").data, read_image(out).data)
    far = affine.copy()
    far[:3, 3] += 500
    write_image(tmp_path / "far.nii.gz", np.ones((3, 3, 3), np.uint8), far)
    status, said = convert("--dose", dose, "--reference", tmp_path / "far.nii.gz", "--out", out)
    assert status == 2
    assert "not in one frame" in said


def test_lesions_have_the_numbers_of_the_evaluation(tmp_path, convert):
    """Two lesions of one size: their order is that of the head, however the exam is stored."""
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    labels = np.zeros((12, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4] = labels[8:10, 2:4, 2:4] = 3
    dose = np.where(np.arange(12)[:, None, None] < 6, 60, 10) * np.ones(labels.shape, np.float32)
    write_image(tmp_path / "dose.nii.gz", dose, affine)
    brain = np.ones(labels.shape, np.uint8)
    for name, data in {"desc-brain_mask": brain, "desc-tumor_dseg": labels, "recurrence": labels}.items():
        write_image(tmp_path / "exam" / f"sub-1_{name}.nii.gz", data, affine)
    status, said = convert(
        *("--dose", tmp_path / "dose.nii.gz", "--exam", tmp_path / "exam", "--out", tmp_path / "out.nii.gz"),
        *("--recurrence", tmp_path / "exam" / "sub-1_recurrence.nii.gz", "--measures", tmp_path / "m.json"),
    )
    assert (status, said) == (0, "")
    found = json.loads((tmp_path / "m.json").read_text())["lesions"]
    # The evaluation counts from left to right.
    grid = to_ras(read_image(tmp_path / "exam" / "sub-1_recurrence.nii.gz", np.uint8))
    whole = to_ras(read_image(tmp_path / "dose.nii.gz"))
    other = lesions(whole.data >= 57, grid.data == 3, grid.spacing)
    assert (
        [lesion["coverage_isodose"] for lesion in found] == [lesion["coverage"] for lesion in other] == [0, 1]
    )
    assert [lesion["pattern_isodose"] for lesion in found] == ["distant", "central"]
