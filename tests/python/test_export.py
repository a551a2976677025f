"""Plans as RTSTRUCT, DICOM-SEG and NIfTI: masks come back from readers that know nothing of how they were written."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage
from scipy.spatial.transform import Rotation
from small_exam import AFFINE, SHAPE, radius, run_command, save, tumor

from predictgbm.alignment import to_native
from predictgbm.conversion.dicom import convert, read_series
from predictgbm.images import Image, ImageError, read_image
from predictgbm.planning import soc_mask
from predictgbm.registration.transforms import write_transform
from predictgbm.simulation.dicom import write_series

pytest.importorskip("highdicom", reason="highdicom is not installed: ./predictgbm setup")
from predictgbm.export.contours import INWARD, trace
from predictgbm.export.dicom_seg import make_segmentation
from predictgbm.export.reference import NOTICE, Reference, Region, make_reference
from predictgbm.export.rtstruct import make_rtstruct

Mask = NDArray[np.bool_]
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "vs_seg_001_dicom"

#: Directions of columns, rows and slices; RAS.
PLANES = {
    "axial": np.diag([-1.0, -1.0, 1.0]),
    "sagittal": np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "oblique": Rotation.from_euler("xyz", (17, -11, 29), degrees=True).as_matrix()
    @ np.diag([-1.0, -1.0, 1.0]),
    "backwards": np.diag([-1.0, -1.0, -1.0]),
}
T1C = {"PatientID": "P1", "SeriesNumber": 6, "SeriesDescription": "t1 mprage gd", "EchoTime": 3.0}
T1C |= {"RepetitionTime": 1900.0, "InversionTime": 900.0, "ScanningSequence": ["GR", "IR"]}


def affine_of(plane: str, spacing: Sequence[float] = (0.9, 1.1, 2.5)) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = PLANES[plane] * spacing
    affine[:3, 3] = (31.7, -12.3, 8.1)
    return affine


def write(
    folder: Path, shape: tuple[int, int, int], affine: NDArray[np.float64], **values: Any
) -> list[Path]:
    data = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    enhanced = values.pop("enhanced", False)
    return write_series(folder, data, affine, {**T1C, **values}, enhanced=enhanced)


def headers(files: Sequence[Path]) -> list[Dataset]:
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in files]


def hard_mask(shape: tuple[int, int, int]) -> Mask:
    """Islands, one of them a voxel, in touch by a corner or the edge; two holes on one row, an island in one."""
    mask = np.zeros(shape, bool)
    mask[3:24, 4:20, 1:5] = True
    mask[5:9, 7:12, 2:4] = False
    mask[12:20, 8:16, 1:4] = False
    mask[15:17, 10:13, 2] = True
    mask[24, 20, 2] = mask[28, 3, 3] = mask[27, 2, 3] = True
    mask[0:2, 0:2, 0] = mask[-1, -1, -1] = True
    return mask


def upwards(mask: Mask, plane: str) -> Mask:
    """Return a mask with its slices along row direction x column direction, as those of a reference are."""
    return mask if np.linalg.det(PLANES[plane]) > 0 else mask[:, :, ::-1]


def region(mask: Mask, name: str = "core", kind: Any = "tumor") -> Region:
    return Region(name, f"What is called {name}.", kind, (10, 200, 30), mask)


def centres(shape: tuple[int, int]) -> NDArray[np.float64]:
    return np.indices(shape).reshape(2, -1).T.astype(np.float64)


def fill(polygons: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> tuple[Mask, Mask]:
    """Return the voxel centres within an odd number of polygons, and those within any (even-odd, by matplotlib)."""
    inside = [Outline(p, closed=False).contains_points(centres(shape)).reshape(shape) for p in polygons]
    return np.logical_xor.reduce(inside), np.logical_or.reduce(inside)


def winding(polygon: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return how often a polygon goes round each voxel centre, by the sum of angles."""
    away = polygon[None] - centres(shape)[:, None]
    angle = np.arctan2(away[..., 1], away[..., 0])
    turn = np.diff(angle, axis=1, append=angle[:, :1])
    return (
        np.rint(((turn + np.pi) % (2 * np.pi) - np.pi).sum(axis=1) / (2 * np.pi)).astype(int).reshape(shape)
    )


def area(polygon: NDArray[np.float64]) -> float:
    (x, y), (u, v) = polygon.T, np.roll(polygon, -1, axis=0).T
    return float((x * v - u * y).sum() / 2)


@settings(max_examples=60)
@given(arrays(bool, st.tuples(st.integers(1, 11), st.integers(1, 11))))
def test_outlines_of_a_slice_give_it_back(mask: Mask) -> None:
    polygons = trace(mask)
    islands = ndimage.label(mask)[1]
    assert len(polygons) == islands
    if islands:
        odd, any_ = fill(polygons, mask.shape)
        np.testing.assert_array_equal(odd, mask)
        np.testing.assert_array_equal(any_, mask)
        np.testing.assert_array_equal(sum(winding(p, mask.shape) for p in polygons), mask.astype(int))
    assert all((polygon[0] != polygon[-1]).all() for polygon in polygons)
    # Between four centres of which one, two neighbours, two across, three or all are inside.
    corners = np.pad(mask, 1).astype(int)
    inside = corners[:-1, :-1] + corners[1:, :-1] + corners[:-1, 1:] + corners[1:, 1:]
    across = (inside == 2) & (corners[:-1, :-1] == corners[1:, 1:])
    reach = 0.5 - INWARD
    parts = np.select(
        [across, inside == 1, inside == 2, inside == 3, inside == 4],
        [reach**2, reach**2 / 2, reach, 1 - (1 - reach) ** 2 / 2, 1.0],
    )
    assert sum(map(area, polygons)) == pytest.approx(parts.sum())


@given(arrays(bool, st.tuples(st.integers(1, 11), st.integers(1, 11))))
def test_vertices_round_to_voxels_of_the_mask(mask: Mask) -> None:
    mask = ndimage.binary_fill_holes(mask)
    for polygon in trace(mask):
        assert mask[tuple(np.floor(polygon + 0.5).astype(int).T)].all()


def test_outline_of_one_voxel_and_of_a_bar() -> None:
    end = 0.5 - INWARD
    (voxel,) = trace(np.array([[True]]))
    assert sorted(map(tuple, voxel)) == [(-end, 0), (0, -end), (0, end), (end, 0)]
    (bar,) = trace(np.ones((5, 1), bool))
    assert sorted(map(tuple, bar)) == [(-end, 0), (0, -end), (0, end), (4, -end), (4, end), (4 + end, 0)]


def read_contours(rtstruct: Dataset, number: int, image: SimpleITK.Image) -> Mask:
    """Fill the contours of an ROI in the image as SimpleITK places it; slices are found by position alone."""
    columns, rows, slices = image.GetSize()
    mask = np.zeros((columns, rows, slices), bool)
    (roi,) = (item for item in rtstruct.ROIContourSequence if item.ReferencedROINumber == number)
    for contour in roi.ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        index = np.array([image.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()])
        k = np.rint(index[:, 2])
        assert np.abs(index[:, 2] - k).max() < 1e-3
        mask[:, :, int(k[0])] ^= fill([index[:, :2]], (columns, rows))[0]
    return mask


def read_stack(files: Sequence[Path]) -> SimpleITK.Image:
    return SimpleITK.ReadImage(str(files[0]) if len(files) == 1 else list(map(str, files)))


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("plane", PLANES)
def test_rtstruct_gives_the_mask_back(tmp_path: Path, plane: str, enhanced: bool) -> None:
    mask = hard_mask((30, 24, 6))
    files = write(tmp_path / "in", mask.shape, affine_of(plane), enhanced=enhanced)
    reference = make_reference(headers(files)[::-1])
    assert reference.grid.shape == mask.shape
    drawn = upwards(mask, plane)
    make_rtstruct([region(drawn), region(~drawn, "rest", "model")], reference).save_as(
        tmp_path / "out.dcm", enforce_file_format=True
    )
    found = pydicom.dcmread(tmp_path / "out.dcm")
    image = read_stack(files)
    np.testing.assert_array_equal(read_contours(found, 1, image), mask)
    np.testing.assert_array_equal(read_contours(found, 2, image), ~mask)


def test_rtstruct_refers_to_the_series(tmp_path: Path) -> None:
    mask = hard_mask((30, 24, 6))
    identity = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Müller^Jörg", "StudyDate": "20230417"}
    files = write(tmp_path / "in", mask.shape, affine_of("oblique"), **identity)
    source = headers(files)
    made = make_rtstruct([region(mask, "soc", "margin")], make_reference(source))
    made.save_as(tmp_path / "out.dcm", enforce_file_format=True)
    found = pydicom.dcmread(tmp_path / "out.dcm")
    for keyword in (*identity, "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert found[keyword].value == source[0][keyword].value, keyword
    assert found.SeriesInstanceUID != source[0].SeriesInstanceUID
    (frame,) = found.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    (roi,) = found.StructureSetROISequence
    assert frame.FrameOfReferenceUID == roi.ReferencedFrameOfReferenceUID == source[0].FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == source[0].StudyInstanceUID
    assert series.SeriesInstanceUID == source[0].SeriesInstanceUID
    listed = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert listed == [header.SOPInstanceUID for header in source]
    positions = {header.SOPInstanceUID: np.array(header.ImagePositionPatient, float) for header in source}
    normal = np.cross(*np.array(source[0].ImageOrientationPatient, float).reshape(2, 3))
    for contour in found.ROIContourSequence[0].ContourSequence:
        position = positions[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert np.abs((points - position) @ normal).max() < 2e-4
    texts = [
        found.SeriesDescription,
        found.StructureSetName,
        found.StructureSetDescription,
        roi.ROIDescription,
    ]
    assert all(NOTICE in text for text in texts)
    assert found.ApprovalStatus == "UNAPPROVED"
    assert roi.ROIName == "RES_soc"
    assert found.RTROIObservationsSequence[0].RTROIInterpretedType == ""


def test_contours_of_a_multi_frame_image_name_their_frame(tmp_path: Path) -> None:
    mask = hard_mask((30, 24, 6))
    (file,) = write(tmp_path / "in", mask.shape, affine_of("backwards"), enhanced=True)
    (source,) = headers([file])
    found = make_rtstruct([region(mask)], make_reference([source]))
    for contour in found.ROIContourSequence[0].ContourSequence:
        (image,) = contour.ContourImageSequence
        frame = source.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        assert contour.ContourData[2] == pytest.approx(frame.PlanePositionSequence[0].ImagePositionPatient[2])


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
@pytest.mark.parametrize("plane", PLANES)
def test_segmentation_gives_the_masks_back(tmp_path: Path, plane: str, enhanced: bool) -> None:
    mask = hard_mask((30, 24, 6))
    files = write(tmp_path / "in", mask.shape, affine_of(plane), enhanced=enhanced)
    source = headers(files)
    reference = make_reference(source)
    drawn = upwards(mask, plane)
    regions = [region(drawn), region(~drawn, "standard", "margin"), region(drawn | True, "lmi", "model")]
    make_segmentation(regions, reference).save_as(tmp_path / "out.dcm")
    found = pydicom.dcmread(tmp_path / "out.dcm")
    assert found.FrameOfReferenceUID == source[0].FrameOfReferenceUID
    assert found.StudyInstanceUID == source[0].StudyInstanceUID
    assert [s.SegmentLabel for s in found.SegmentSequence] == ["RES_core", "RES_standard", "RES_lmi"]
    assert NOTICE in found.ContentDescription
    assert found.SegmentationType == "BINARY"
    # Each frame goes where its position says.
    image = read_stack(files)
    masks = np.zeros((3, *mask.shape), bool)
    for pixels, group in zip(found.pixel_array, found.PerFrameFunctionalGroupsSequence, strict=True):
        position = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        i, j, k = image.TransformPhysicalPointToContinuousIndex(position)
        assert np.abs([i, j, k - round(k)]).max() < 1e-3
        masks[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1, :, :, round(k)] = pixels.T
        (origin,) = group.DerivationImageSequence[0].SourceImageSequence
        named = (
            origin.ReferencedFrameNumber - 1
            if enhanced
            else [h.SOPInstanceUID for h in source].index(origin.ReferencedSOPInstanceUID)
        )
        assert named == round(k)
    np.testing.assert_array_equal(masks, [mask, ~mask, mask | True])


def test_regions_that_cannot_be_drawn(tmp_path: Path) -> None:
    mask = hard_mask((30, 24, 6))
    reference = make_reference(headers(write(tmp_path / "in", mask.shape, affine_of("axial"))))
    for regions, fault in (
        ([], "at least one"),
        ([region(mask), region(mask)], "name of its own"),
        ([region(mask[:, :, :5])], "does not fit series 6"),
        ([region(mask & False)], "no voxel"),
    ):
        for make in (make_rtstruct, make_segmentation):
            with pytest.raises(ImageError, match=fault):
                make(regions, reference)


def test_series_that_cannot_be_drawn_on(tmp_path: Path) -> None:
    whole = headers(write(tmp_path / "a", (8, 8, 6), affine_of("axial")))
    other = headers(write(tmp_path / "b", (8, 8, 6), affine_of("axial"), SeriesNumber=7))
    with pytest.raises(ImageError, match="missing"):
        make_reference([*whole[:2], *whole[3:]])
    with pytest.raises(ImageError, match="2 series"):
        make_reference([*whole, *other])
    del whole[0].FrameOfReferenceUID
    with pytest.raises(ImageError, match="no frame of reference"):
        make_reference(whole)


#: From atlas space to the scanner, RAS mm: turned by some degrees and moved.
TO_SCANNER = np.eye(4)
TO_SCANNER[:3, :3] = Rotation.from_euler("xyz", (4, -6, 9), degrees=True).as_matrix()
TO_SCANNER[:3, 3] = (5.0, -7.0, 11.0)


@pytest.fixture
def exam(tmp_path: Path) -> dict[str, Path]:
    """A patient in atlas space, with the DICOM series he came as: an oblique T1c, and a FLAIR beside it."""
    labels, brain = tumor(), radius() < 1
    standard = soc_mask(labels, brain, (6, 6, 6))
    affine = affine_of("oblique", (4.0, 4.0, 5.0))
    shape = (46, 50, 40)
    affine[:3, 3] = TO_SCANNER[:3, 3] - affine[:3, :3] @ (np.array(shape) - 1) / 2
    write(tmp_path / "dicom", shape, affine)
    flair = {
        "EchoTime": 120.0,
        "RepetitionTime": 9000.0,
        "InversionTime": 2500.0,
        "ScanningSequence": ["SE", "IR"],
    }
    flair |= {"SeriesNumber": 4, "SeriesDescription": "flair"}
    write_series(tmp_path / "dicom", np.ones(shape, np.int16), affine, {**T1C, **flair}, prefix="F")
    write_transform(tmp_path / "t1c.tfm", TO_SCANNER)
    return {
        "dicom": tmp_path / "dicom",
        "transform": tmp_path / "t1c.tfm",
        "tumor-seg": save(tmp_path / "tumor.nii.gz", labels),
        "brain-mask": save(tmp_path / "brain.nii.gz", brain.astype(np.uint8)),
        "soc": save(tmp_path / "sub-1_model-soc_desc-isovol_mask.nii.gz", standard.astype(np.uint8)),
        "lmi": save(
            tmp_path / "sub-1_model-lmi_desc-isovol_mask.nii.gz",
            np.roll(standard, 1, axis=0).astype(np.uint8),
        ),
    }


def export(exam: dict[str, Path], out: Path, *extra: object, without: Sequence[str] = ()) -> int:
    options = [
        part
        for name in ("dicom", "transform", "tumor-seg", "brain-mask")
        if name not in without
        for part in (f"--{name}", exam[name])
    ]
    return run_command(
        "export_plan.py",
        "--plans",
        exam["soc"],
        exam["lmi"],
        *options,
        "--out-dir",
        out,
        "--prefix",
        "P",
        *map(str, extra),
    )


def test_command_from_atlas_space(exam: dict[str, Path], tmp_path: Path) -> None:
    (series,) = (s for s in read_series(exam["dicom"]) if s.number == 6)
    native, _ = convert(series, tmp_path / "converted")
    out = tmp_path / "out"
    assert export(exam, out, "--native", native) == 0
    target = read_image(native)
    masks = {}
    for name, file in (
        ("core", "desc-core"),
        ("standard", "desc-standard"),
        ("lmi", "model-lmi_desc-isovol"),
    ):
        found = read_image(out / f"P_space-t1c_{file}_mask.nii.gz", np.uint8)
        np.testing.assert_allclose(found.affine, target.affine, atol=1e-4)
        masks[name] = found.data
    plan = read_image(exam["lmi"], np.uint8)
    np.testing.assert_array_equal(masks["lmi"], to_native(plan, target, TO_SCANNER, labels=True))
    image = SimpleITK.ReadImage(list(map(str, series.files)))
    rtstruct = pydicom.dcmread(out / "P_desc-plans_rtstruct.dcm")
    assert [roi.ROIName for roi in rtstruct.StructureSetROISequence] == [
        "RES_core",
        "RES_standard",
        "RES_lmi",
    ]
    written = SimpleITK.ReadImage(str(native))
    for number, mask in enumerate(masks.values(), start=1):
        expected = SimpleITK.GetImageFromArray(mask.transpose(2, 1, 0))
        expected.CopyInformation(written)
        placed = SimpleITK.Resample(expected, image, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        drawn = read_contours(rtstruct, number, image)
        np.testing.assert_array_equal(drawn, SimpleITK.GetArrayFromImage(placed).transpose(2, 1, 0) > 0)
    assert {s.SegmentLabel for s in pydicom.dcmread(out / "P_desc-plans_seg.dcm").SegmentSequence} == {
        "RES_core",
        "RES_standard",
        "RES_lmi",
    }
    record = json.loads((out / "P_desc-plans_export.json").read_text())
    assert record["series"]["number"] == 6
    assert [r["exported_ml"] for r in record["regions"]] == pytest.approx(
        [mask.sum() * 0.08 for mask in masks.values()], rel=1e-4
    )
    assert record["regions"][1]["exported_ml"] == pytest.approx(record["regions"][1]["volume_ml"], rel=0.03)


def test_command_on_the_native_grid(exam: dict[str, Path], tmp_path: Path) -> None:
    """Without a transform, the masks lie on the grid of the series already."""
    labels, shape = tumor(), (28, 34, 26)
    write(tmp_path / "same", shape, AFFINE)
    same = {**exam, "dicom": tmp_path / "same"}
    assert export(same, tmp_path / "out", "--formats", "rtstruct", without=["transform"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "P_desc-plans_export.json",
        "P_desc-plans_rtstruct.dcm",
    ]
    found = pydicom.dcmread(tmp_path / "out" / "P_desc-plans_rtstruct.dcm")
    image = SimpleITK.ReadImage([str(f) for f in sorted((tmp_path / "same").iterdir())])
    np.testing.assert_array_equal(read_contours(found, 1, image), np.isin(labels, (1, 3)))
    assert json.loads((tmp_path / "out" / "P_desc-plans_export.json").read_text())["remarks"] == []


def test_command_for_an_exam_without_dicom(exam: dict[str, Path], tmp_path: Path) -> None:
    native = save(tmp_path / "t1c.nii.gz", np.ones(SHAPE, np.float32))
    assert export(exam, tmp_path / "out", "--native", native, without=["dicom"]) == 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".gz", ".gz", ".gz", ".json"]
    record = json.loads((tmp_path / "out" / "P_desc-plans_export.json").read_text())
    assert "did not come as DICOM" in record["remarks"][0]


def test_command_says_what_is_wrong(
    exam: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save(tmp_path / "t1c.nii.gz", np.ones(SHAPE, np.float32))
    for extra, without, fault in (
        ([], ["dicom"], "--dicom or --native"),
        (["--native", other], [], "not on one grid"),
        ([], ["transform"], "not on one grid"),
        (["--contrast", "t2"], [], "2 series could be t2"),
    ):
        assert export(exam, tmp_path / "out", *extra, without=without) == 2
        assert fault in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.dcm"))
    failure = tmp_path / "failure.json"
    assert export(exam, tmp_path / "out", "--failure", failure, "--patient", "1", without=["dicom"]) == 0
    assert json.loads(failure.read_text())["stage"] == "export plan"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real DICOM series is not there ({REAL})")
def test_real_series(tmp_path: Path) -> None:
    for archive in REAL.glob("*.tar.xz"):
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path / "in", filter="data")
    files = sorted((tmp_path / "in").rglob("*.dcm"))
    reference: Reference = make_reference(headers(files))
    x, y, z = np.indices(reference.grid.shape)
    ball = np.hypot(np.hypot((x - 250) * 0.41, (y - 230) * 0.41), (z - 12) * 1.5)
    mask = (ball < 15) & ~((ball < 6) & (x > 245))
    image = SimpleITK.ReadImage(
        [str(files[i]) for i in np.argsort([f.SliceLocation for f in headers(files)])]
    )
    found = make_rtstruct([region(mask)], reference)
    ours = nib.affines.apply_affine(reference.grid.affine, (7, 11, 3)) * (-1, -1, 1)
    np.testing.assert_allclose(ours, image.TransformIndexToPhysicalPoint((7, 11, 3)), atol=1e-3)
    np.testing.assert_array_equal(read_contours(found, 1, image), mask)
    segmentation = make_segmentation([region(mask)], reference)
    assert segmentation.pixel_array.sum() == mask.sum()
    assert Image(mask, reference.grid.affine).voxel_ml == pytest.approx(0.41015625**2 * 1.5e-3)
