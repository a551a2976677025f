"""The images of an exam: what is refused, and in which words."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from small_exam import AFFINE, arrays, row, run_command, save, tumor, write_exam, write_json
from test_rtdose import write_rtdose

from predictgbm.cohort.faults import Fault, format_fault
from predictgbm.simulation.dicom import write_series

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = REPOSITORY / "bin" / "validate_exam.py"
REAL = REPOSITORY.parent / "shared" / "data" / "brats2021_00001"


def faults_of(
    tmp_path: Path, exam_row: dict[str, Any], files: dict[str, Path], *options: str | Path
) -> list[str]:
    """Run the command on an exam and return its faults as lines."""
    out = tmp_path / "faults.json"
    written = write_json(tmp_path / "row.json", exam_row)
    assert run_command("validate_exam.py", "--row", written, "--out", out, *options, *files.values()) == 0
    return [format_fault(Fault(**fault), "sheet.csv") for fault in json.loads(out.read_text("utf-8"))]


def test_good_exam_has_no_fault_even_in_folders_with_blanks_and_accents(tmp_path: Path) -> None:
    files = write_exam(tmp_path / "Zoë Müller" / "T1 prä OP")
    assert faults_of(tmp_path, row(files), files) == []


def test_images_of_another_voxel_order_are_on_the_same_grid(tmp_path: Path) -> None:
    files = write_exam(tmp_path)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = arrays()["t2"].shape[0] - 1
    save(files["t2"], arrays()["t2"][::-1], AFFINE @ flip)
    assert faults_of(tmp_path, row(files), files) == []


Change = Callable[[dict[str, Path]], Any]


def replace(column: str, change: Callable[[Any], Any], affine: Any = AFFINE) -> Change:
    return lambda files: save(files[column], change(arrays()[column]), affine)


def truncate(files: dict[str, Path]) -> None:
    content = files["t1c"].read_bytes()
    files["t1c"].write_bytes(content[: len(content) // 2])


def poke(value: float) -> Callable[[Any], Any]:
    def change(data: Any) -> Any:
        data[3, 4, 5] = value
        return data

    return change


SHIFTED = AFFINE + np.array([[0, 0, 0, 5.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
COMPLETE = "expected a complete 3-D NIfTI image of finite numbers"
GRID = "28x34x26 voxels of 6x6x6 mm, axes LPS, origin (81, 102, -75)"
CORE = "expected a tumour core: voxels of label 1 (necrosis) or 3 (enhancing tumour)"

FAULTS: dict[str, tuple[Change, str]] = {
    "empty file": (
        lambda files: files["t2"].write_bytes(b""),
        f"sheet.csv:5: t2: t2.nii.gz: file is empty (0 bytes) (patient 007); {COMPLETE}: copy or export it "
        f"again",
    ),
    "truncated gzip": (
        truncate,
        f"sheet.csv:5: t1c: t1c.nii.gz: cannot be read as NIfTI, it is damaged, cut short or of another "
        f"format (EOFError: Compressed file ended before the end-of-stream marker was reached) (patient "
        f"007); {COMPLETE}: copy or export it again",
    ),
    "4-D": (
        replace("flair", lambda data: np.stack([data, data], axis=-1)),
        "sheet.csv:5: flair: flair.nii.gz: image has 4 dimensions (28, 34, 26, 2) (patient 007); "
        f"{COMPLETE}: give one volume per file",
    ),
    "NaN": (
        replace("t1", poke(np.nan)),
        "sheet.csv:5: t1: t1.nii.gz: 1 voxels are NaN or infinite (patient 007); "
        f"{COMPLETE}: replace them, for example by 0",
    ),
    "affine mismatch": (
        replace("t2", lambda data: data, SHIFTED),
        f"sheet.csv:5: t2: image is not on the voxel grid of t1c: 28x34x26 voxels of 6x6x6 mm, axes LPS, "
        f"origin (86, 102, -75) against {GRID} (patient 007); expected the same size, voxel size and "
        f"position as t1c; resample it to that grid",
    ),
    "shape mismatch": (
        replace("tumor_seg", lambda data: data[:, :-1]),
        f"sheet.csv:5: tumor_seg: image is not on the voxel grid of t1c: 28x33x26 voxels of 6x6x6 mm, axes "
        f"LPS, origin (81, 102, -75) against {GRID} (patient 007); expected the same size, voxel size and "
        f"position as t1c; resample it to that grid",
    ),
    "blank image": (
        replace("t1", lambda data: data * 0),
        "sheet.csv:5: t1: every voxel is 0, the image is blank (patient 007); expected an image that shows "
        "the brain",
    ),
    "unknown label": (
        replace("tumor_seg", poke(7)),
        "sheet.csv:5: tumor_seg: unknown label 7 (patient 007); expected only known labels (convention "
        "'canonical' knows 0, 1, 2, 3, 4); name another convention in column tumor_labels",
    ),
    "fractions as labels": (
        replace("tumor_seg", lambda data: data * 0.5),
        "sheet.csv:5: tumor_seg: tumor_seg.nii.gz: holds fractions (patient 007); expected a complete 3-D "
        "NIfTI image of labels (whole numbers)",
    ),
    "negative label": (
        replace("tumor_seg", lambda data: data.astype(np.int16) - 1),
        "sheet.csv:5: tumor_seg: tumor_seg.nii.gz: values -1 to 2 are outside 0 to 255 (patient 007); "
        "expected a complete 3-D NIfTI image of labels (whole numbers)",
    ),
    "no tumour": (
        replace("tumor_seg", np.zeros_like),
        f"sheet.csv:5: tumor_seg: segmentation shows no tumour, every voxel is 0 (patient 007); {CORE}",
    ),
    "oedema alone": (
        replace("tumor_seg", lambda data: (2 * (data > 0)).astype(np.uint8)),
        f"sheet.csv:5: tumor_seg: segmentation has oedema and no tumour core (patient 007); {CORE}",
    ),
    "BraTS 2021 labels": (
        replace("tumor_seg", lambda data: np.where(data == 3, 4, data).astype(np.uint8)),
        "sheet.csv:5: tumor_seg: label 4 (resection cavity) is present and label 3 (enhancing tumour) is "
        "not, before surgery (patient 007); expected 3 for enhancing tumour; where 4 means enhancing "
        "tumour, as in BraTS until 2021, write brats2021 in column tumor_labels",
    ),
}


@pytest.mark.parametrize(("change", "text"), FAULTS.values(), ids=FAULTS)
def test_fault_names_line_column_and_remedy(tmp_path: Path, change: Change, text: str) -> None:
    files = write_exam(tmp_path)
    change(files)
    assert faults_of(tmp_path, row(files), files) == [text]


def test_a_damaged_header_is_a_fault_of_its_file(tmp_path: Path) -> None:
    """Whatever bytes a header holds, the other images of the exam and of the cohort are still checked."""
    files = write_exam(tmp_path)
    whole = gzip.decompress(files["t2"].read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(4, 348, 3):
            data[place] = rng.integers(256)
        files["t2"].write_bytes(gzip.compress(bytes(data), 1))
        refused += bool(faults_of(tmp_path, row(files), files))
    assert refused > 15
    # A voxel type that does not exist.
    data = bytearray(whole)
    data[70:72] = (999).to_bytes(2, "little")
    files["t2"].write_bytes(gzip.compress(bytes(data)))
    (text,) = faults_of(tmp_path, row(files), files)
    assert text.startswith("sheet.csv:5: t2: t2.nii.gz: cannot be read as NIfTI")


def test_brats2021_labels_are_good_when_the_sheet_says_so(tmp_path: Path) -> None:
    labels = tumor()
    labels[labels == 3] = 4
    files = write_exam(tmp_path, {**arrays(), "tumor_seg": labels})
    assert faults_of(tmp_path, row(files, tumor_labels="brats2021"), files) == []


@pytest.mark.parametrize(
    ("column", "data", "text"),
    [
        (
            "brain_mask",
            np.zeros_like(tumor()),
            "brain_mask: mask is empty (patient 007); expected 1 in the brain and 0 outside",
        ),
        (
            "brain_mask",
            tumor(),
            "brain_mask: mask has the values 0, 1, 2, 3 (patient 007); expected 1 in the brain and 0 "
            "outside, nothing else",
        ),
        (
            "brain_mask",
            (tumor() == 1).astype(np.uint8),  # 11 of the 72 voxels of the core
            "brain_mask: mask holds 15% of the tumour core (patient 007); expected a brain mask of this "
            "exam, the tumour included",
        ),
        (
            "tissue_wm",
            100 * np.ones(tumor().shape, np.float32),
            "tissue_wm: values run from 100 to 100 (patient 007); expected probabilities from 0 to 1 (not "
            "per cent or 0-255)",
        ),
        (
            "tissue_csf",
            np.zeros(tumor().shape, np.float32),
            "tissue_csf: tissue map is zero everywhere (patient 007); expected probabilities from 0 to 1",
        ),
    ],
)
def test_masks_and_tissue_maps(tmp_path: Path, column: str, data: Any, text: str) -> None:
    files = write_exam(tmp_path, {**arrays(), column: data})
    assert faults_of(tmp_path, row(files), files) == [f"sheet.csv:5: {text}"]


COARSE = AFFINE @ np.diag([0.5, -1.5, 1.0, 1.0])


def test_dose_has_a_grid_of_its_own(tmp_path: Path) -> None:
    files = write_exam(tmp_path)
    files["dose"] = save(tmp_path / "dose.nii.gz", np.full((56, 20, 26), 60, np.float32), COARSE)
    # Its y axis leads out of the image: half of the grid is beside it, which is no fault.
    assert faults_of(tmp_path, row(files), files) == []
    assert faults_of(tmp_path, native(files), files) == []


@pytest.mark.parametrize(
    ("data", "shift", "text"),
    [
        (
            np.full((9, 9, 9), 60, np.float32),
            500.0,
            "dose: no dose reaches the T1c, they are not in one frame: 9x9x9 voxels of 6x6x6 mm, axes LPS, origin "
            f"(581, 102, -75) against {GRID} (patient 007); expected a dose in the frame of the T1c; let the planning "
            "system bring it from the planning CT to that",
        ),
        (
            np.full((9, 9, 9), 6000, np.float32),
            0.0,
            "dose: dose.nii.gz: values up to 6000 are no dose in Gy (patient 007); expected the "
            "dose of a whole treatment in Gy, RTDOSE (.dcm) or 3-D NIfTI: divide a dose in cGy by 100",
        ),
        (
            np.full((9, 9, 9), -1, np.float32),
            0.0,
            "dose: dose.nii.gz: values from -1 to -1 are no dose in Gy (patient 007); expected the "
            "dose of a whole treatment in Gy, RTDOSE (.dcm) or 3-D NIfTI: export the dose of the plan again",
        ),
    ],
)
def test_what_is_no_dose(tmp_path: Path, data: Any, shift: float, text: str) -> None:
    files = write_exam(tmp_path)
    affine = AFFINE + np.array([[0, 0, 0, shift], *[[0, 0, 0, 0]] * 3])
    files["dose"] = save(tmp_path / "dose.nii.gz", data, affine)
    assert faults_of(tmp_path, row(files), files) == [f"sheet.csv:5: {text}"]


def test_dose_that_is_no_rtdose(tmp_path: Path) -> None:
    files = write_exam(tmp_path)
    files["dose"] = tmp_path / "dose.dcm"
    files["dose"].write_text("nothing")
    (fault,) = faults_of(tmp_path, row(files), files)
    assert fault.startswith("sheet.csv:5: dose: dose.dcm: cannot be read as DICOM")
    assert "RTDOSE (.dcm) or 3-D NIfTI" in fault


def test_dose_in_the_frame_of_the_planning_ct(tmp_path: Path) -> None:
    """An RTDOSE in DICOM tells its frame: that of the T1c, or of any series of a mixed folder, and no other."""
    t1c = write_dicom(tmp_path / "t1c")
    for number, path in enumerate(sorted(t1c.iterdir())):
        data = pydicom.dcmread(path)
        data.FrameOfReferenceUID = "1.2.3" if number else "1.2.4"
        data.save_as(path)
    files = {"dose": tmp_path / "dose.dcm"}
    for column in ("t1c", "dicom"):
        for frame, count in (("1.2.3", 0), ("1.2.4", 0), ("1.2.5", 1), ("", 0)):
            changes = {"FrameOfReferenceUID": frame} if frame else {}
            write_rtdose(files["dose"], [0, 2, 4], **changes)
            found = faults_of(tmp_path, native({**files, column: t1c}), {**files, column: t1c})
            assert len(found) == count
            if found:
                assert found[0].startswith(
                    "sheet.csv:5: dose: dose.dcm: lies in another frame of reference (1.2.5) than the scan (1.2.3, "
                    "1.2.4)"
                )
                assert "let the planning system bring it to the T1c" in found[0]


def test_organs_are_masks_on_the_grid_of_the_exam(tmp_path: Path) -> None:
    files = write_exam(tmp_path, {**arrays(), "oar_stem": (tumor() > 0).astype(np.uint8)})
    assert faults_of(tmp_path, row(files), files) == []
    assert faults_of(tmp_path, native(files), files) == []
    save(files["oar_stem"], tumor(), SHIFTED)
    grid, values = faults_of(tmp_path, native(files), files)
    assert grid.startswith("sheet.csv:5: oar_stem: image is not on the voxel grid of t1c")
    assert values == (
        "sheet.csv:5: oar_stem: mask has the values 0, 1, 2, 3 (patient 007); expected 1 in the organ and 0 outside, "
        "nothing else"
    )
    save(files["oar_stem"], tumor() * 0)
    assert faults_of(tmp_path, row(files), files) == [
        "sheet.csv:5: oar_stem: mask is empty (patient 007); expected 1 in the organ and 0 outside"
    ]


def test_all_faults_of_an_exam_come_at_once(tmp_path: Path) -> None:
    files = write_exam(tmp_path)
    files["t1"].write_bytes(b"not an image")
    replace("t2", lambda data: data, SHIFTED)(files)
    replace("flair", lambda data: data * 0 + 1)(files)
    replace("tumor_seg", poke(9))(files)
    columns = [line.split(": ")[1] for line in faults_of(tmp_path, row(files), files)]
    assert sorted(columns) == ["flair", "t1", "t2", "tumor_seg"]


def test_diffusion_tensor_is_not_asked_to_be_three_dimensional(tmp_path: Path) -> None:
    files = write_exam(tmp_path, {**arrays(), "dti": np.ones((*tumor().shape, 6), np.float32)})
    assert faults_of(tmp_path, row(files), files) == []


def test_diffusion_tensor_has_six_volumes(tmp_path: Path) -> None:
    files = write_exam(tmp_path, {**arrays(), "tensor": np.ones((*tumor().shape, 6), np.float32)})
    files["tensor"].rename(tmp_path / "six.nii.gz")
    image = nib.load(tmp_path / "six.nii.gz")
    varied = np.asarray(image.dataobj) * np.arange(6, dtype=np.float32)
    save(files["tensor"], varied, image.affine)
    assert faults_of(tmp_path, row(files), files) == []
    save(files["tensor"], varied[..., :3], image.affine)
    (fault,) = faults_of(tmp_path, row(files), files)
    assert fault == (
        "sheet.csv:5: tensor: tensor.nii.gz: image has shape (28, 34, 26, 3) (patient 007); expected a complete NIfTI "
        "image of 6 volumes of finite numbers"
    )


def native(files: dict[str, Path], role: str = "preop") -> dict[str, Any]:
    """Return the row of a raw exam, its files named by path, since folders may share a name."""
    return {
        **row(files, role, space="native"),
        "files": {column: str(path) for column, path in files.items()},
    }


def write_dicom(folder: Path) -> Path:
    values = {"PatientID": "X", "SeriesNumber": 1, "SeriesDescription": "t1"}
    write_series(folder, np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([-1.0, -1, 2, 1]), values)
    return folder


def test_raw_exam_has_a_grid_per_contrast_and_masks_on_that_of_the_t1c(tmp_path: Path) -> None:
    files = write_exam(tmp_path)
    save(files["t2"], arrays()["t2"][:, :-3], SHIFTED)
    save(files["flair"], arrays()["flair"][::2], SHIFTED)
    assert faults_of(tmp_path, native(files), files) == []
    save(files["tumor_seg"], arrays()["tumor_seg"], SHIFTED)
    (fault,) = faults_of(tmp_path, native(files), files)
    assert fault.startswith("sheet.csv:5: tumor_seg: image is not on the voxel grid of t1c: 28x34x26 voxels")
    # With a T1c in DICOM the comparison has to wait for its conversion; nor does a raw exam need labels.
    files["t1c"] = write_dicom(tmp_path / "t1c")
    assert faults_of(tmp_path, native(files), files) == []
    del files["tumor_seg"]
    assert faults_of(tmp_path, native(files), files) == []


def test_dicom_folders_of_a_raw_exam(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    files = {
        "dicom": write_dicom(tmp_path / "exam"),
        "t1": tmp_path / "empty",
        "t2": tmp_path / "text",
        "flair": tmp_path / "absent",
    }
    assert faults_of(tmp_path, native(files), files) == [
        "sheet.csv:5: t1: empty: folder is empty (patient 007); expected a folder with the DICOM files of one "
        "series: copy or export the DICOM files again",
        "sheet.csv:5: t2: text: holds no DICOM image (1 files, the first is notes.txt) (patient 007); expected a "
        "folder with the DICOM files of one series: name the folder of the DICOM files, or a NIfTI file",
        "sheet.csv:5: flair: absent: folder does not exist (patient 007); expected a folder with the DICOM files "
        "of one series: check the path",
    ]


def test_raw_image_of_unknown_position_is_a_fault(tmp_path: Path) -> None:
    files = write_exam(tmp_path)
    image = nib.load(files["t2"])
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, files["t2"])
    (fault,) = faults_of(tmp_path, native(files), files)
    assert fault.startswith(
        "sheet.csv:5: t2: t2.nii.gz: header gives no position (sform and qform codes are 0)"
    )


def test_diffusion_series_and_its_tables(tmp_path: Path) -> None:
    files = write_exam(tmp_path, {**arrays(), "dti": np.ones((*tumor().shape, 4), np.float32)})
    (fault,) = faults_of(tmp_path, native(files), files)
    assert fault == (
        "sheet.csv:5: dti: dti.nii.gz: has no b-values (patient 007); expected a 4-D NIfTI image with its b-values and "
        "directions in dti_bval and dti_bvec: fill in dti_bval and dti_bvec"
    )
    files |= {"dti_bval": tmp_path / "dti.bval", "dti_bvec": tmp_path / "dti.bvec"}
    files["dti_bval"].write_text("0 1000 1000 1000")
    files["dti_bvec"].write_text("0 1 0 0\n0 0 1 0\n0 0 0 1")
    assert faults_of(tmp_path, native(files), files) == []
    files["dti_bval"].write_text("0 1000 1000")
    (fault,) = faults_of(tmp_path, native(files), files)
    assert fault == (
        "sheet.csv:5: dti_bval: dti.bval: has 3 b-values for 4 volumes (patient 007); expected a table of numbers: "
        "give the file made with the image"
    )


def test_followup_labels_are_compared_with_the_preoperative_exam(tmp_path: Path) -> None:
    reference = write_exam(tmp_path / "pre")["t1c"]
    files = {"registered_seg": save(tmp_path / "fu.nii.gz", tumor(), SHIFTED)}
    followup = row(files, "followup")
    assert faults_of(tmp_path, followup, files, "--reference", reference) == [
        f"sheet.csv:5: registered_seg: image is not on the voxel grid of the pre-operative exam: 28x34x26 "
        f"voxels of 6x6x6 mm, axes LPS, origin (86, 102, -75) against {GRID} (patient 007); expected the "
        f"same size, voxel size and position as the pre-operative exam; resample it to that grid"
    ]
    assert faults_of(tmp_path, followup, files) == []
    # A follow-up in its own space beside the registered labels: only those have to fit the pre-operative exam.
    save(files["registered_seg"], tumor())
    both = {**files, "t1c": save(tmp_path / "own_t1c.nii.gz", arrays()["t1c"], SHIFTED)}
    assert faults_of(tmp_path, row(both, "followup"), both, "--reference", reference) == []


@pytest.mark.parametrize(
    "labels", [np.zeros_like(tumor()), np.full_like(tumor(), 4)], ids=["nothing", "cavity"]
)
def test_followup_without_recurrence_is_no_fault(tmp_path: Path, labels: Any) -> None:
    files = {"registered_seg": save(tmp_path / "fu.nii.gz", labels)}
    assert faults_of(tmp_path, row(files, "followup"), files) == []


def test_file_that_was_not_handed_over_is_told_without_a_traceback(tmp_path: Path) -> None:
    files = write_exam(tmp_path)
    written = write_json(tmp_path / "row.json", row(files))
    command = [sys.executable, COMMAND, "--row", written, "--out", tmp_path / "f.json", files["t1"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "ERROR: t1c.nii.gz: not among the files given for t1c; name each file of the row once\n"
    )


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real exam is not there ({REAL})")
def test_real_exam_is_good(tmp_path: Path) -> None:
    names = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f", "tumor_seg": "seg_auto-brats23winner"}
    files = {column: REAL / f"BraTS-GLI-00001-000-{name}.nii.gz" for column, name in names.items()}
    assert faults_of(tmp_path, row(files), files) == []
