"""Conversion of raw exams: DICOM against an independent reader, mixed exams, and what must not be written."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from small_exam import run_command, save, write_json

from predictgbm.conversion.dicom import SIDECAR_FIELDS, check_folder, convert, read_series
from predictgbm.conversion.headers import read_native
from predictgbm.images import Image, ImageError
from predictgbm.simulation.dicom import write_series

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "vs_seg_001_dicom"

SECRETS = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "KH4711088",
    "PatientBirthDate": "19570315",
    "StudyDate": "20230417",
    "SeriesDate": "20230417",
    "AcquisitionDate": "20230417",
    "AcquisitionTime": "093512.250000",
    "InstitutionName": "Klinikum Entenhausen",
    "InstitutionAddress": "Erpelweg 5",
    "DeviceSerialNumber": "SN556677",
    "StationName": "MRC40123",
    "AccessionNumber": "ACC998877",
    "ReferringPhysicianName": "Quacksalber^Otto",
    "OperatorsName": "Knipser",
    "PatientComments": "claustrophobic tenor",
    "ImageComments": "see Doktor Bibber",
    "StudyID": "STU31415",
    "StudyDescription": "MRT Mustermann Kontrolle",
    "Manufacturer": "SIEMENS",
}
T1 = {"EchoTime": 3.0, "RepetitionTime": 1900.0, "InversionTime": 1100.0, "ScanningSequence": ["GR", "IR"]}
T2 = {"EchoTime": 100.0, "RepetitionTime": 5000.0, "ScanningSequence": "SE"}
FLAIR = {
    "EchoTime": 120.0,
    "RepetitionTime": 9000.0,
    "InversionTime": 2500.0,
    "ScanningSequence": ["SE", "IR"],
}
FLAIR |= {"SequenceVariant": "SK"}


def oblique(
    spacing: tuple[float, float, float] = (6.0, 6.0, 8.0),
    angles: tuple[float, float, float] = (12.0, -7.0, 20.0),
) -> NDArray[np.float64]:
    """Affine of slices in an oblique plane, columns to the left, rows to the back."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(spacing)
    affine[:3, 3] = (70.0, 80.0, -60.0)
    return affine


def noise(seed: int = 0, shape: tuple[int, int, int] = (20, 24, 18)) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)


def add_series(
    folder: Path, number: int, description: str, affine: Any = None, **attributes: Any
) -> list[Path]:
    affine = oblique() if affine is None else affine
    values = {**SECRETS, "SeriesNumber": number, "SeriesDescription": description, **attributes}
    return write_series(folder, noise(number), affine, values, prefix=f"S{number}_")


def row(files: dict[str, str], role: str = "followup", **values: Any) -> dict[str, Any]:
    session = "pre" if role == "preop" else "fu1"
    meta = {"id": f"sub-007_ses-{session}", "patient": "007", "session": session, "role": role}
    return {"line": 2, "meta": meta, "space": "native", "files": files, "tumor_labels": "canonical", **values}


def run(tmp_path: Path, files: dict[str, Path], role: str = "preop") -> str:
    """Convert an exam into tmp_path/native and return the reason it failed for, empty if it did not.

    A follow-up has its labels, so that a T1c is enough.
    """
    if role == "followup":
        files = {**files, "registered_seg": tmp_path / "unread.nii.gz"}
    written = write_json(tmp_path / "row.json", row({c: str(p) for c, p in files.items()}, role))
    failure = tmp_path / "failure.json"
    failure.unlink(missing_ok=True)
    outputs = ("--quality", tmp_path / "q.json", "--picture", tmp_path / "p.png", "--failure", failure)
    paths = files.values()
    assert (
        run_command("convert_exam.py", "--row", written, "--out-dir", tmp_path / "native", *outputs, *paths)
        == 0
    )
    return str(json.loads(failure.read_text("utf-8"))["reason"]) if failure.exists() else ""


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_same_as_itk(image: Image, reference: SimpleITK.Image, step: int = 1) -> None:
    """Assert that two readers see the same value at the same millimetre, for every (step-th) voxel."""
    array = SimpleITK.GetArrayFromImage(reference).transpose(2, 1, 0)
    assert sorted(array.shape) == sorted(image.shape)
    index = np.stack(np.meshgrid(*[np.arange(0, n, step) for n in image.shape], indexing="ij"), -1)
    index = index.reshape(-1, 3)
    points = nib.affines.apply_affine(image.affine, index) * (-1, -1, 1)  # ITK is LPS
    direction = np.array(reference.GetDirection()).reshape(3, 3)
    steps = np.linalg.inv(direction @ np.diag(reference.GetSpacing()))
    there = (points - reference.GetOrigin()) @ steps.T
    assert np.abs(there - np.rint(there)).max() < 1e-2
    i, j, k = np.rint(there).astype(int).T
    np.testing.assert_array_equal(image.data[tuple(index.T)], array[i, j, k])


def read_by_itk(files: list[Path]) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    folder = str(files[0].parent)
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder, reader.GetGDCMSeriesIDs(folder)[0]))
    return reader.Execute()


GRIDS = {
    "plain": oblique(angles=(0, 0, 0)),
    "oblique": oblique(),
    "sagittal": np.array([[0, 0, 5.0, -40], [-4.0, 0, 0, 50], [0, -4.0, 0, 60], [0, 0, 0, 1]]),
    "thick": oblique((0.4, 0.4, 6.0), (5, 3, -8)),
}


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_series_lies_where_an_independent_reader_puts_it(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    files = write_series(
        tmp_path / "in",
        noise() * 2 + 10,
        affine,
        {**SECRETS, "SeriesNumber": 3, "SeriesDescription": "t2", "SliceThickness": 3.0},
        slope=2.0,
        intercept=10.0,
    )
    (series,) = read_series(tmp_path / "in")
    assert series.shape == (20, 24, 18)
    assert series.spacing == pytest.approx(np.linalg.norm(affine[:3, :3], axis=0))
    assert series.thickness == 3.0
    path, _ = convert(series, tmp_path / "work")
    image, placement = read_native(path)
    assert_same_as_itk(image, read_by_itk(files))
    assert placement.conflict_mm < 0.01


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    values = {**SECRETS, **T2, "SeriesNumber": 3, "SeriesDescription": "t2"}
    files = write_series(tmp_path / "in", noise(), oblique(), values, enhanced=True)
    assert len(files) == 1
    (series,) = read_series(files[0])
    assert (series.shape, series.spacing) == ((20, 24, 18), pytest.approx((6, 6, 8)))
    assert (series.echo_time, series.repetition_time) == (100, 5000)
    path, _ = convert(series, tmp_path / "work")
    assert_same_as_itk(read_native(path)[0], SimpleITK.ReadImage(str(files[0])))


def test_files_without_preamble_and_strangers_in_the_folder(tmp_path: Path) -> None:
    for file in add_series(tmp_path / "in", 3, "t2"):
        header = pydicom.dcmread(file)
        file.unlink()
        plain = file.with_suffix("")
        pydicom.dcmwrite(plain, header, enforce_file_format=True)
        plain.write_bytes(plain.read_bytes()[132:])
    (tmp_path / "in" / "README.txt").write_text("not an image")
    (tmp_path / "in" / "VERSION").write_bytes(b"\0" * 200)
    assert [s.shape for s in read_series(tmp_path / "in")] == [(20, 24, 18)]


def test_compressed_series(tmp_path: Path) -> None:
    files = add_series(tmp_path / "in", 3, "t2", **T2)
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.compress(pydicom.uid.RLELossless)
        dataset.save_as(file)
    (series,) = read_series(tmp_path / "in")
    assert_same_as_itk(read_native(convert(series, tmp_path / "work")[0])[0], read_by_itk(files))


def test_missing_slice_is_named(tmp_path: Path) -> None:
    add_series(tmp_path / "in", 3, "t1 gd", **T1)[7].unlink()
    assert run(tmp_path, {"t1c": tmp_path / "in"}, "followup").endswith("export the series again")
    reason = json.loads((tmp_path / "failure.json").read_text())["reason"]
    assert "1 of its slices is missing between 48 mm (image 7) and 64 mm (image 9)" in reason


def test_folders_that_are_no_series(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        check_folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="is empty"):
        check_folder(tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x" * 1000)
    with pytest.raises(ImageError, match="no DICOM image"):
        check_folder(tmp_path / "text")
    add_series(tmp_path / "two", 1, "t1")
    add_series(tmp_path / "two", 2, "t1", PatientID="another")
    with pytest.raises(ImageError, match="2 patients"):
        read_series(tmp_path / "two")


def mixed_exam(folder: Path) -> Path:
    """Write what a scanner sends: the four contrasts, a localizer, a reformat, a map, and a screenshot."""
    add_series(folder, 2, "t1_mprage_sag", **T1)
    add_series(folder, 3, "t2_tse_tra Mustermann", **T2)
    add_series(folder, 4, "t2_tirm_tra_dark-fluid", **FLAIR)
    add_series(folder, 5, "t1_mprage_sag_KM", **T1, ContrastBolusAgent="Gadovist")
    add_series(folder, 6, "t1_mprage_KM_MPR", **T1, ImageType=["DERIVED", "SECONDARY", "MPR"])
    add_series(folder, 7, "ep2d_diff_3scan_trace_ADC", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])
    add_series(folder, 8, "SWI_Images")
    for turn in (0, 90):
        angled = oblique(angles=(turn, 0, 0))
        values = {**SECRETS, "SeriesNumber": 1, "SeriesDescription": "localizer"}
        write_series(folder, noise(1, (20, 20, 2)), angled, values, prefix=f"L{turn}_")
    shot = pydicom.dcmread(next(folder.glob("S2_*")))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(shot, keyword)
    shot.SOPClassUID = shot.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    shot.SeriesInstanceUID, shot.SeriesNumber, shot.SeriesDescription = "2.25.99", 99, "Screen Save"
    shot.save_as(folder / "screen.dcm")
    return folder


def test_mixed_exam(tmp_path: Path) -> None:
    assert run(tmp_path, {"dicom": mixed_exam(tmp_path / "Erika Mustermann")}) == ""
    native = tmp_path / "native"
    for column, number in {"t1": 2, "t2": 3, "flair": 4, "t1c": 5, "adc": 7}.items():
        image, _ = read_native(native / f"{column}.nii.gz")
        assert image.data.sum() == noise(number).sum(), column
    table = json.loads((native / "conversion.json").read_text("utf-8"))
    assert {s["series"]: (s["column"], s["reason"]) for s in table["series"]} == {
        1: ("", "slices of several orientations (a localizer?)"),
        2: ("t1", "the one series that looks like it"),
        3: ("t2", "the one series that looks like it"),
        4: ("flair", "the one series that looks like it"),
        5: ("t1c", "the one series that looks like it"),
        6: ("", "t1c: derived from another series"),
        7: ("adc", "the one series that looks like it"),
        8: ("", "susceptibility"),
        99: ("", "no image with a position in space"),
    }
    assert table["columns"]["t1c"]["source"] == "DICOM series 5"
    assert [s["contrast_agent"] for s in table["series"] if s["series"] == 5] == [True]
    assert (tmp_path / "p.png").stat().st_size > 10_000

    # Nobody is named in any output: not in headers, sidecars, table, quality or the picture's metadata.
    outputs = [*native.iterdir(), tmp_path / "q.json", tmp_path / "p.png"]
    assert len(outputs) == 13
    words = {w for value in SECRETS.values() for w in value.replace("^", " ").split()}
    words = {w for w in words if len(w) > 2} - {"SIEMENS", "MRT", "see"} | {"2.25."}
    words |= {"1957-03-15", "2023-04-17", "09:35:12", str(tmp_path)}
    for path in outputs:
        content = path.read_bytes()
        # Of an image the header counts; any letters may come up among the voxels.
        content = gzip.decompress(content)[:352] if path.suffix == ".gz" else content
        found = [word for word in words if word.lower().encode() in content.lower()]
        assert not found, (path.name, found)
    for path in native.glob("*.nii.gz"):
        header = nib.load(path).header
        assert all(
            not bytes(header[name]).strip(b"\0") for name in ("descrip", "aux_file", "db_name", "intent_name")
        )
    for column in ("t1", "t1c", "t2", "flair", "adc"):
        sidecar = json.loads((native / f"{column}.json").read_text("utf-8"))
        assert set(sidecar) <= {*SIDECAR_FIELDS, "ContrastAgent"}
        assert sidecar["Manufacturer"] == "Siemens"


def test_two_contrast_enhanced_series_are_ambiguous(tmp_path: Path) -> None:
    folder = mixed_exam(tmp_path / "in")
    second = tmp_path / "second"
    for file in add_series(second, 9, "t1_mprage_sag_KM_spaet", **T1):
        file.rename(folder / file.name)
    reason = run(tmp_path, {"dicom": folder})
    assert reason == (
        f"{folder}: 2 series could be t1c: series 5 't1_mprage_sag_KM' (18 slices, 6x6x8 mm); series 9 "
        "'t1_mprage_sag_KM_spaet' (18 slices, 6x6x8 mm); put the files of the wanted one into a folder of its own "
        "and name that in column t1c"
    )
    assert not (tmp_path / "native").exists()
    # As the message says: a column of its own goes before the mixed folder.
    add_series(second, 9, "t1_mprage_sag_KM_spaet", **T1)
    assert run(tmp_path, {"dicom": folder, "t1c": second}) == ""
    assert read_native(tmp_path / "native" / "t1c.nii.gz")[0].data.sum() == noise(9).sum()


def test_missing_contrast_names_what_was_found(tmp_path: Path) -> None:
    add_series(tmp_path / "in", 2, "t1_mprage", **T1)
    add_series(tmp_path / "in", 3, "t2_tse", **T2)
    add_series(tmp_path / "in", 4, "TOF")
    assert run(tmp_path, {"dicom": tmp_path / "in"}) == (
        "exam has no t1c, flair; found series 2 't1_mprage': t1; series 3 't2_tse': t2; series 4 'TOF': angiography; "
        "name the folder or file of each in its own column"
    )


def test_optional_contrast_that_is_ambiguous_is_left_out_and_flagged(tmp_path: Path) -> None:
    folder = mixed_exam(tmp_path / "in")
    add_series(folder, 10, "resolve_ADC", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])
    assert run(tmp_path, {"dicom": folder}) == ""
    assert not (tmp_path / "native" / "adc.nii.gz").exists()
    quality = json.loads((tmp_path / "q.json").read_text("utf-8"))
    assert "Adc left out, as 2 series could be it" in quality["note"]
    assert [m["flagged"] for m in quality["measures"] if m["name"] == "conversion_warnings"] == [True]


def test_series_in_the_wrong_column_is_flagged(tmp_path: Path) -> None:
    add_series(tmp_path / "in", 3, "t2_tse", **T2)
    assert run(tmp_path, {"t1c": tmp_path / "in"}, "followup") == ""
    assert "does not look like t1c" in json.loads((tmp_path / "q.json").read_text("utf-8"))["note"]


def test_masks_have_to_be_on_the_grid_of_the_t1c(tmp_path: Path) -> None:
    affine = oblique()
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 19
    labels = (noise() > 600).astype(np.uint8) * 3
    files = {"t1c": save(tmp_path / "t1c.nii.gz", noise(), affine)}
    files["tumor_seg"] = save(tmp_path / "seg.nii.gz", labels[::-1], affine @ flip)
    files["tissue_wm"] = save(tmp_path / "wm.nii.gz", labels / np.float32(3), affine)
    assert run(tmp_path, files, "followup") == ""
    written = nib.load(tmp_path / "native" / "tumor_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    assert written.get_data_dtype() == np.uint8
    files["brain_mask"] = save(tmp_path / "mask.nii.gz", labels, affine + np.eye(4, k=3) * 3)
    assert "are not on one grid" in run(tmp_path, files, "followup")


def test_thick_slices_and_small_boxes_are_flagged(tmp_path: Path) -> None:
    files = {"t1c": save(tmp_path / "t1c.nii.gz", noise(), oblique((6.0, 6.0, 4.0)))}
    measures = lambda: {  # noqa: E731
        m["name"]: (m["value"], m["flagged"])
        for m in json.loads((tmp_path / "q.json").read_text())["measures"]
    }
    assert run(tmp_path, files, "followup") == ""
    assert measures()["t1c_extent_mm"] == (pytest.approx(72), True)
    assert measures()["t1c_voxel_mm"] == (pytest.approx(6), False)
    save(files["t1c"], noise(), oblique((6.0, 6.0, 8.0)))
    assert run(tmp_path, files, "followup") == ""
    assert measures()["t1c_voxel_mm"] == (pytest.approx(8), True)
    assert measures()["t1c_slices"] == (18, False)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    add_series(tmp_path / "in", 3, "t1 gd", **T1)
    contents = []
    for _ in range(2):
        assert run(tmp_path, {"t1c": tmp_path / "in"}, "followup") == ""
        outputs = [*(tmp_path / "native").iterdir(), tmp_path / "q.json", tmp_path / "p.png"]
        contents.append({p.name: p.read_bytes() for p in outputs})
    assert contents[0] == contents[1]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["in", "native"]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real DICOM series is not there ({REAL})")
def test_real_series(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for archive in REAL.glob("*.tar.xz"):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    assert run(tmp_path, {"t1c": folder}, "followup") == ""
    image, placement = read_native(tmp_path / "native" / "t1c.nii.gz")
    assert image.shape == (512, 512, 24)
    assert image.spacing == pytest.approx((0.41015625, 0.41015625, 1.5))
    assert placement.conflict_mm < 0.01
    assert_same_as_itk(image, read_by_itk(sorted(folder.rglob("*.dcm"))), step=3)
    text = "".join(p.read_text("utf-8") for p in (tmp_path / "native").glob("*.json"))
    assert "VS-SEG" not in text
    assert "1994" not in text
