"""The road of raw exams as a user runs it: from DICOM folders to scores, and what becomes of exams with a fault."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from test_pipeline import rows, run, submitted, write_sheet

from predictgbm.atlas import HEAD, HEAD_BRAIN, T1, TISSUES, load_atlas, resample_atlas
from predictgbm.dose import plan_dose
from predictgbm.images import Image, read_image, write_image
from predictgbm.masks import dice
from predictgbm.planning import soc_mask
from predictgbm.registration.transforms import read_transform, resample

ROOT = Path(__file__).resolve().parents[2]
#: Voxel edge of the atlas and of the simulated anatomy, in mm: coarse, so that the whole road takes minutes.
SPACING = 2.0
#: Name of that atlas.
SPACE = "Coarse"

pytestmark = pytest.mark.pipeline


def python(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, ROOT / "bin" / script, *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an atlas folder as a user with an atlas of their own makes it: here SRI24 at 2 mm."""
    folder = tmp_path_factory.mktemp("atlas")
    python("prepare_atlas.py", "--out", folder / "fine")
    fine = load_atlas(folder / "fine")
    step = np.diag([SPACING, SPACING, SPACING, 1.0])
    step[:3, 3] = fine.affine[:3, 3] + (SPACING - 1) / 2
    x, y, z = (int(np.ceil(n / SPACING)) for n in fine.shape)
    coarse = resample_atlas(fine, (x, y, z), step)
    write_image(folder / "own" / T1, coarse.t1, coarse.affine)
    for tissue, name in TISSUES.items():
        write_image(folder / "own" / name, getattr(coarse, tissue), coarse.affine)
    for name in (HEAD, HEAD_BRAIN):
        shutil.copy(folder / "fine" / name, folder / "own" / name)
    python("prepare_atlas.py", "--atlas", folder / "own", "--space", SPACE, "--out", folder / "coarse")
    return folder / "coarse"


@pytest.fixture(scope="module")
def cohort(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated patients as DICOM: the first a folder per contrast, the second one mixed folder per exam."""
    folder = tmp_path_factory.mktemp("cohort")
    simulate = ("--patients", 2, "--seed", 7, "--spacing", SPACING, "--dicom", "--dose", "--jobs", 2)
    python("simulate_cohort.py", "--atlas", atlas, "--out", folder, *simulate)
    return folder


def series(folder: Path, description: str) -> list[Path]:
    """Return the files of the series of a mixed folder whose description holds a text."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if description in str(header.SeriesDescription).lower():
                found.append(path)
    assert found, f"{folder} holds no series {description}"
    return found


def with_second_t1c(mixed: Path, folder: Path) -> Path:
    """Copy a mixed exam and repeat its contrast-enhanced T1 under another series number."""
    shutil.copytree(mixed, folder)
    uid = generate_uid(entropy_srcs=["second series"])
    t1c = [
        path
        for path in series(folder, "t1")
        if pydicom.dcmread(path, stop_before_pixels=True).get("ContrastBolusAgent")
    ]
    assert t1c
    for number, path in enumerate(t1c):
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID = uid
        data.SeriesNumber = 90
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[f"second series {number}"]
        )
        data.save_as(path.with_name(f"second_{path.name}"))
    return folder


def without_flair(mixed: Path, folder: Path) -> Path:
    """Copy a mixed exam without its FLAIR."""
    shutil.copytree(mixed, folder)
    for path in series(folder, "flair"):
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def result(atlas: Path, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Run four patients, of which one is in order; return the folder and the pipeline's arguments."""
    folder = tmp_path_factory.mktemp("raw")
    table = rows(cohort / "samplesheet.csv")
    for row in table:
        row["patient"] = row["patient"].removeprefix("sub-")
        for column in ("t1", "t1c", "t2", "flair", "dicom", "dose"):
            if row[column]:
                row[column] = str(cohort / row[column])
    first, first_later, second, _ = table
    # The first patient's brain is extracted before surgery; elsewhere the sheet gives it.
    for row, exam in ((first_later, "sub-001/truth/ses-post"), (second, "sub-002/truth/ses-pre")):
        row["brain_mask"] = str(next((cohort / exam / "native").glob("*_desc-brain_mask.nii.gz")))
    # Its dose and an organ are known, the dose on a grid that lies across that of the T1c.
    second |= {"dose": "", "prescription_gy": ""}
    tumor = read_image(
        next((cohort / "sub-001/truth/ses-pre/native").glob("*_desc-tumor_dseg.nii.gz")), np.uint8
    )
    first["oar_lesion"] = str(folder / "organ.nii.gz")
    write_image(folder / "organ.nii.gz", tumor.data > 0, tumor.affine)
    mixed = Path(second["dicom"])
    # Each image belongs to one exam alone, so that the others are copies.
    stranger = shutil.copytree(mixed, folder / "stranger" / "pre")
    later = {
        c: str(shutil.copytree(first_later[c], folder / "stranger" / c)) for c in ("t1", "t1c", "t2", "flair")
    }
    sheet = [
        *(first, first_later),
        second | {"patient": "stranger", "dicom": str(stranger)},
        first_later | later | {"patient": "stranger", "cohort": second["cohort"]},
        second | {"patient": "twice", "dicom": str(with_second_t1c(mixed, folder / "twice"))},
        second | {"patient": "lacking", "dicom": str(without_flair(mixed, folder / "lacking"))},
    ]
    arguments = [
        "--input",
        str(write_sheet(folder / "sheet.csv", sheet)),
        "--atlas",
        str(atlas),
        "--atlas_space",
        SPACE,
    ]
    arguments += ["--models", "soc,loti", "--brain_extraction", "atlas", "--tissue_segmentation", "atlas"]
    arguments += ["--sensitivity_registrations", "rigid,ncc", "--sensitivity_days", "1,84,100000"]
    arguments += ["--export", "rtstruct,seg,nifti", "--outdir", "results", "-profile", "standard"]
    run(folder, *arguments, status=3)
    return folder, arguments


def test_exams_in_order_are_scored_and_the_others_told_with_their_reason(
    result: tuple[Path, list[str]],
) -> None:
    tables = result[0] / "results" / "tables"
    status = {row["patient"]: row["status"] for row in rows(tables / "cohort.csv")}
    assert status == {"001": "evaluated", "stranger": "evaluated", "twice": "excluded", "lacking": "excluded"}
    scores = rows(tables / "metrics.csv")
    assert sorted((r["patient"], r["model"]) for r in scores) == [
        (patient, model) for patient in ("001", "stranger") for model in ("loti", "soc")
    ]
    reasons = {row["patient"]: row for row in rows(tables / "failures.csv")}
    assert set(reasons) == {"twice", "lacking"}
    assert "2 series could be t1c" in reasons["twice"]["reason"]
    assert reasons["twice"]["reason"].count("'t1_mprage_tra_KM'") == 2, "both candidates are named"
    assert "exam has no flair" in reasons["lacking"]["reason"]


def test_a_follow_up_of_another_person_is_flagged(result: tuple[Path, list[str]]) -> None:
    """At 2 mm; images of 1 mm are told apart so well that the patient is stopped."""
    table = rows(result[0] / "results" / "tables" / "quality.csv")
    flagged = {row["patient"]: row["flagged"] for row in table if row["measure"] == "similarity_linear"}
    assert flagged == {"001": "False", "stranger": "True"}


def test_everything_lies_where_the_truth_lies(result: tuple[Path, list[str]], cohort: Path) -> None:
    """The truth in native space, brought along by the published transforms, meets what the pipeline found."""
    for patient, number in (("001", "001"), ("stranger", "002")):
        exam = result[0] / "results" / f"sub-{patient}" / "ses-pre"
        truth = cohort / f"sub-{number}" / "truth" / "ses-pre" / "native"
        brain = read_image(next(exam.glob("anat/*_desc-brain_mask.nii.gz")), np.uint8)
        tumor = read_image(next(exam.glob("anat/*_desc-tumor_dseg.nii.gz")), np.uint8)
        transform = read_transform(next(exam.rglob(f"*_from-t1c_to-{SPACE}_xfm.tfm")))
        masks = {}
        for name in ("brain_mask", "tumor_dseg"):
            image = read_image(next(truth.glob(f"*_desc-{name}.nii.gz")), np.uint8)
            masks[name] = resample(image, brain, transform, interpolation="nearest") > 0
        assert dice(brain.data > 0, masks["brain_mask"]) >= 0.93
        assert dice(tumor.data > 0, masks["tumor_dseg"]) >= 0.75


def test_dose_and_organs_follow_the_head(result: tuple[Path, list[str]], cohort: Path) -> None:
    """What was simulated in atlas space and laid into the frame of the T1c comes back to where it was."""
    tables = result[0] / "results" / "tables"
    (given,) = rows(tables / "given_dose.csv")
    assert (given["patient"], float(given["prescription_gy"])) == ("001", 60)
    assert float(given["core_mean_gy"]) > 58
    truth = cohort / "sub-001" / "truth" / "ses-pre"
    labels, brain = (
        read_image(next(truth.glob(f"*_desc-{name}.nii.gz")), np.uint8)
        for name in ("tumor_dseg", "brain_mask")
    )
    soc = soc_mask(labels.data, brain.data > 0, labels.spacing)
    expected = Image(plan_dose(soc, labels.spacing), labels.affine)
    found = read_image(next((result[0] / "results" / "sub-001" / "ses-pre").glob("*_desc-given_dose.nii.gz")))
    there = resample(expected, found)
    # The registration's own error is a fraction of the 2 mm voxels.
    assert all(dice(found.data >= gray, there >= gray) >= 0.95 for gray in (30, 57))
    (organ,) = rows(tables / "given_organs.csv")
    assert organ["organ"] == "lesion"
    assert float(organ["volume_ml"]) == pytest.approx(
        np.count_nonzero(labels.data) * labels.voxel_ml, rel=0.1
    )
    assert float(organ["mean_gy"]) == pytest.approx(expected.data[labels.data > 0].mean(), abs=1.5)
    modelled = {row["model"]: float(row["mean_gy"]) for row in rows(tables / "organ_dose.csv")}
    assert set(modelled) == {"soc", "loti"}
    assert modelled["soc"] == pytest.approx(float(organ["mean_gy"]), abs=3)


def test_plans_go_back_to_the_series_of_the_t1c(result: tuple[Path, list[str]], cohort: Path) -> None:
    for patient, number in (("001", "001"), ("stranger", "002")):
        out = result[0] / "results" / f"sub-{patient}" / "ses-pre" / "export"
        headers = [
            pydicom.dcmread(f, stop_before_pixels=True)
            for f in sorted((cohort / f"sub-{number}" / "ses-pre").rglob("*.dcm"))
        ]
        t1c = {h.SOPInstanceUID for h in headers if h.get("ContrastBolusAgent")}
        rtstruct = pydicom.dcmread(next(out.glob("*_desc-plans_rtstruct.dcm")))
        assert [roi.ROIName for roi in rtstruct.StructureSetROISequence] == [
            "RES_core",
            "RES_standard",
            "RES_loti",
        ]
        drawn = {
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            for roi in rtstruct.ROIContourSequence
            for contour in roi.ContourSequence
        }
        assert drawn
        assert drawn <= t1c
        assert len(pydicom.dcmread(next(out.glob("*_desc-plans_seg.dcm"))).SegmentSequence) == 3
        truth = next(
            (cohort / f"sub-{number}" / "truth" / "ses-pre" / "native").glob("*_desc-tumor_dseg.nii.gz")
        )
        labels = read_image(truth, np.uint8)
        standard = read_image(next(out.glob("*_space-t1c_desc-standard_mask.nii.gz")), np.uint8)
        core = np.isin(resample(labels, standard, interpolation="nearest"), (1, 3))
        assert (standard.data[core] > 0).mean() >= 0.95


def test_other_choices_in_the_evaluation_are_looked_at(result: tuple[Path, list[str]]) -> None:
    tables = result[0] / "results" / "tables"
    main = {(r["patient"], r["model"]): r["coverage_enhancing"] for r in rows(tables / "metrics.csv")}
    found = {
        (r["patient"], r["model"], r["axis"], r["setting"]): r["coverage_enhancing"]
        for r in rows(tables / "settings.csv")
    }
    choices = [("margin", "10"), ("margin", "20"), ("followup", "last"), ("followup", "largest")]
    choices += [("interval", "1"), ("registration", "rigid")]
    assert set(found) == {(*key, *choice) for key in main for choice in choices}
    # There is one follow-up, whatever picks it; a rigid map puts its labels elsewhere.
    for axis, setting in (("followup", "last"), ("interval", "1")):
        assert all(found[(*key, axis, setting)] == main[key] for key in main)
    otherwise = list(result[0].glob("results/sub-*/ses-*/*_reg-rigid_desc-registered_dseg.nii.gz"))
    assert len(otherwise) == len({patient for patient, _ in main})
    for path in otherwise:
        labels, usual = (
            read_image(place, np.uint8).data
            for place in (path, path.with_name(path.name.replace("_reg-rigid", "")))
        )
        assert (labels != usual).any()


def test_every_step_leaves_a_picture_and_numbers(result: tuple[Path, list[str]]) -> None:
    results = result[0] / "results"
    steps = {"conversion", "brain", "alignment", "tumor", "registration"}
    pictures = {
        path.name.split("_desc-")[1].removesuffix("_qc.png") for path in results.glob("qc/sub-001_*.png")
    }
    assert steps <= pictures
    measured = {row["stage"] for row in rows(results / "tables" / "quality.csv") if row["patient"] == "001"}
    assert len(measured) >= len(steps)
    report = (results / "multiqc" / "multiqc_report.html").read_text(encoding="utf-8")
    assert "TRIAL QUALITY." in report, "the built-in segmenter's results are marked"
    exam = json.loads((results / "sub-001" / "ses-pre" / "anat" / "exam.json").read_text())
    assert exam["tumor_seg"] == "segmented (trial)"


def test_resume_does_nothing_again(result: tuple[Path, list[str]]) -> None:
    folder, arguments = result
    output = run(folder, *arguments, "-resume", status=3)
    assert set(submitted(output)) <= {"MULTIQC_REPORT", "FOLLOWUP_REGISTER", "EXAM_CONVERT"}
