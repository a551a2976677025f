"""Raw simulated exams: what must hold of heads, grids, motion, truth and files; the true transforms by SimpleITK."""

from __future__ import annotations

import csv
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage
from small_exam import name_space

from predictgbm.atlas import T1, TISSUES, load_atlas
from predictgbm.images import conform, read_image, same_grid, write_image
from predictgbm.simulation import Simulator
from predictgbm.simulation.dicom import SERIES, write_exam
from predictgbm.simulation.fields import Grid
from predictgbm.simulation.head import Head, Part, head_grid
from predictgbm.simulation.raw import PROTOCOLS, RawPatient, average, feasible, reorder, simulate_raw

COMMAND = [sys.executable, str(Path(__file__).resolve().parents[2] / "bin" / "simulate_cohort.py")]
SPACING = 5.0
SEED = 11
COLUMNS = ("t1", "t1c", "t2", "flair", "adc")


@pytest.fixture(scope="module")
def atlas_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An egg with cortex, white matter and two ventricles, 3 mm, of the size of a brain."""
    folder = tmp_path_factory.mktemp("egg")
    x, y, z = np.meshgrid(*(3.0 * (np.arange(n) - (n - 1) / 2) for n in (54, 64, 52)), indexing="ij")
    radius = np.sqrt((x / 66) ** 2 + (y / 82) ** 2 + (z / 64) ** 2)
    brain = radius < 1
    csf = brain & ((radius > 0.95) | (((np.abs(x) - 12) / 6) ** 2 + (y / 24) ** 2 + (z / 9) ** 2 < 1))
    wm = brain & ~csf & (radius + 0.05 * np.sin(x / 6) * np.sin(y / 7) * np.cos(z / 6) < 0.8)

    def soft(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        return (ndimage.gaussian_filter(mask.astype(np.float32), 0.6) * brain).astype(np.float32)

    maps = {"wm": soft(wm), "gm": soft(brain & ~csf & ~wm), "csf": soft(csf)}
    t1 = 700 * maps["wm"] + 500 * maps["gm"] + 300 * maps["csf"]
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = (-190, 15, 0)
    write_image(folder / T1, np.where(brain, np.maximum(t1, 100), 0).astype(np.float32), affine)
    for name, array in maps.items():
        write_image(folder / TISSUES[name], array, affine)
    name_space(folder)
    return folder


@pytest.fixture(scope="module")
def simulator(atlas_folder: Path) -> Simulator:
    return Simulator(load_atlas(atlas_folder), SPACING)


@pytest.fixture(scope="module")
def raw(simulator: Simulator) -> RawPatient:
    return simulate_raw(simulator, SEED, 2, adc=True)


def run(*arguments: object) -> None:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def rows_of(sheet: Path) -> list[dict[str, str]]:
    with sheet.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, atlas_folder: Path) -> Path:
    """Two patients as NIfTI."""
    out = tmp_path_factory.mktemp("cohort") / "raw"
    run("--atlas", atlas_folder, "--out", out, "--seed", SEED, "--spacing", SPACING, "--patients", 2, "--raw",
        "--adc")  # fmt: skip
    return out


# ---------------------------------------------------------------- parts


def test_averaging_over_thick_slices_agrees_with_its_closed_form() -> None:
    """The mean of a linear function over a voxel is its value at the centre; of a ramp's kink it is not."""
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (20, 20, 30)), indexing="ij")
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([1.0, 1.0, 6.0])
    matrix[:3, 3] = (2, 3, 5.5)
    steps = np.array([1, 1, 6])
    linear = average(2 * x - y + 3 * z, matrix, (4, 4, 3), np.ones(3), steps)
    i, j, k = np.meshgrid(np.arange(4), np.arange(4), np.arange(3), indexing="ij")
    np.testing.assert_allclose(linear, 2 * (i + 2) - (j + 3) + 3 * (6 * k + 5.5), rtol=1e-5)
    # Samples at 3, 4, ... 8 of a step at 5: three of six lie above 5.5. With a gap they move together.
    step = (z > 5.5).astype(np.float32)
    assert average(step, matrix, (1, 1, 1), np.ones(3), steps)[0, 0, 0] == pytest.approx(0.5)
    shifted = matrix.copy()
    shifted[2, 3] = 4.5
    assert average(step, shifted, (1, 1, 1), np.ones(3), steps)[0, 0, 0] == pytest.approx(2 / 6)
    half = average(step, shifted, (1, 1, 1), np.array([1, 1, 1 / 3]), np.array([1, 1, 2]))[0, 0, 0]
    assert half == pytest.approx(0.0)


@pytest.mark.parametrize("codes", ["LPS", "LAS", "RAS", "PIL", "PSR", "ASL"])
def test_reordered_voxels_stay_where_they_are(codes: str) -> None:
    data = np.arange(24).reshape(2, 3, 4)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (5, -7, 1)
    turned, moved = reorder(data, affine, codes)
    assert "".join(nib.aff2axcodes(moved)) == codes
    for index in np.ndindex(*turned.shape):
        place = moved @ [*index, 1]
        original = np.rint(np.linalg.solve(affine, place)[:3]).astype(int)
        assert data[tuple(original)] == turned[index]


def test_no_protocol_asks_for_more_than_the_anatomy_holds() -> None:
    for choices in PROTOCOLS.values():
        for protocol in choices:
            assert feasible(protocol, 0.8) == protocol
            coarse = feasible(protocol, 4.0)
            assert coarse.in_plane == 2.0
            assert coarse.thickness == max(4.0, protocol.thickness)
            assert coarse.size.max() == coarse.thickness + coarse.gap


def test_a_head_surrounds_its_brain() -> None:
    """From any point of a ball of a brain outwards: fluid, skull, scalp, air, in this order."""
    grid = Grid((50, 50, 50), 3.0, (-75.0, -75.0, -75.0))
    brain = np.linalg.norm(grid.points(), axis=0) < 65
    around = head_grid(grid, brain)
    head = Head(np.random.default_rng(0), np.linalg.norm(around.points(), axis=0) < 65, around)
    # A column of air to the back, away from face and neck, 0.5 mm steps.
    ray = Grid((2, 120, 2), 1.0, (0.0, -130.0, 25.0))
    parts = head.parts(ray)[0, ::-1, 0]
    order = [int(parts[0]), *(int(b) for a, b in pairwise(parts) if a != b)]
    assert order == [Part.CSF, Part.BONE, Part.MARROW, Part.BONE, Part.FAT, Part.SKIN, Part.AIR]
    counts = {part: int((parts == part).sum()) for part in Part}
    assert 4 <= counts[Part.BONE] + counts[Part.MARROW] <= 11
    assert 4 <= counts[Part.FAT] + counts[Part.SKIN] <= 12


# ---------------------------------------------------------------- exams


def test_each_contrast_has_its_own_grid_and_shows_the_head(raw: RawPatient) -> None:
    for exam in (raw.preop, raw.followup):
        assert set(exam.images) == set(COLUMNS)
        grids = list(exam.images.values())
        assert not any(same_grid(a, b) for n, a in enumerate(grids) for b in grids[:n])
        for name, image in exam.images.items():
            assert image.data.dtype == np.int16
            expected = np.sort(exam.protocols[name].size)
            np.testing.assert_allclose(np.sort(image.spacing), expected, rtol=1e-6)
            axes = image.affine[:3, :3] / image.spacing
            np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
        t1c = exam.images["t1c"].data
        # Something shines outside the brain, and the corners of the field of view hold only noise.
        assert np.percentile(t1c[~exam.truth.brain_mask], 90) > 0.5 * np.median(t1c[exam.truth.brain_mask])
        corners = t1c[:: t1c.shape[0] - 1, :: t1c.shape[1] - 1, :: t1c.shape[2] - 1]
        assert 0 < corners.mean() < 0.15 * np.median(t1c[exam.truth.brain_mask])
        # Maps of ADC are empty in air.
        assert (exam.images["adc"].data == 0).mean() > 0.1
    orders = {
        "".join(nib.aff2axcodes(image.affine))
        for exam in (raw.preop, raw.followup)
        for image in exam.images.values()
    }
    assert len(orders) >= 3


def test_heads_move_as_far_as_said(raw: RawPatient) -> None:
    def motion(matrix: NDArray[np.float64]) -> tuple[float, float]:
        np.testing.assert_allclose(matrix[:3, :3].T @ matrix[:3, :3], np.eye(3), atol=1e-9)
        degrees = np.rad2deg(np.arccos((np.trace(matrix[:3, :3]) - 1) / 2))
        return float(degrees), float(np.linalg.norm(matrix[:3, 3]))

    for exam in (raw.preop, raw.followup):
        degrees, _ = motion(exam.t1c_from_atlas)
        assert 0.5 < degrees < 8 * np.sqrt(3)
        for name, matrix in exam.from_t1c.items():
            degrees, shift = motion(matrix)
            assert (degrees < 1.2 * np.sqrt(3)) & (shift < 1.2 * np.sqrt(3))
            assert (degrees > 0.05) == (name != "t1c")
        mask = exam.truth.brain_mask
        centre = exam.truth.affine[:3] @ [*np.argwhere(mask).mean(axis=0), 1]
        assert np.abs(centre).max() < 12 + SPACING


def pull(path: Path, like: Path, *transforms: Path) -> NDArray[np.float64]:
    """Resample an image on the grid of another through ITK transforms, first to be applied first."""
    composed = SimpleITK.CompositeTransform([SimpleITK.ReadTransform(str(t)) for t in reversed(transforms)])
    moved = SimpleITK.Resample(
        SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32),
        SimpleITK.ReadImage(str(like)),
        composed,
        SimpleITK.sitkLinear,
    )
    return SimpleITK.GetArrayFromImage(moved).transpose(2, 1, 0).astype(np.float64)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_true_transforms_carry_native_images_to_the_atlas(tmp_path: Path, cohort: Path) -> None:
    """By SimpleITK, which knows nothing of this package: masks, labels and contrasts meet where they should."""
    for name in ("sub-001", "sub-002"):
        truth = cohort / name / "truth"
        for session, target, last in (("pre", "_space-SRI24", "SRI24"), ("post", "", "followup")):
            prefix = f"{name}_ses-{session}"
            here, xfm = truth / f"ses-{session}", truth / f"ses-{session}" / "xfm"
            reference = here / f"{prefix}{target}_desc-brain_mask.nii.gz"
            to_t1c = xfm / f"from-t1c_to-{last}_xfm.tfm"
            brain = read_image(reference).data > 0
            native = here / "native" / f"{prefix}_space-T1c_desc-brain_mask.nii.gz"
            assert dice(pull(native, reference, to_t1c) >= 0.5, brain) > 0.95
            labels = here / "native" / f"{prefix}_space-T1c_desc-tumor_dseg.nii.gz"
            tumor = read_image(here / f"{prefix}{target}_desc-tumor_dseg.nii.gz").data > 0
            assert dice(pull(labels, reference, to_t1c) >= 0.5, tumor) > 0.75
            for column, suffix in (("t1", "T1w"), ("t2", "T2w"), ("flair", "FLAIR"), ("adc", "ADC")):
                image = cohort / name / f"ses-{session}" / f"{prefix}_{suffix}.nii.gz"
                expected = read_image(here / f"{prefix}{target}_{suffix}.nii.gz").data[brain]
                seen = pull(image, reference, to_t1c, xfm / f"from-{column}_to-t1c_xfm.tfm")[brain]
                assert np.corrcoef(seen, expected)[0, 1] > 0.4, (name, session, column)
            # The small motion between contrasts, by the edges of the head: its inverse fits worse.
            t1c, t1 = (
                cohort / name / f"ses-{session}" / f"{prefix}_{s}.nii.gz" for s in ("ce-GD_T1w", "T1w")
            )
            still = xfm / "from-t1_to-t1c_xfm.tfm"
            inverse = tmp_path / f"{prefix}.tfm"
            SimpleITK.WriteTransform(SimpleITK.ReadTransform(str(still)).GetInverse(), str(inverse))
            target_image = read_image(t1c).data
            fit = [
                np.corrcoef(pull(t1, t1c, x).ravel(), target_image.ravel())[0, 1] for x in (still, inverse)
            ]
            assert fit[0] > fit[1], (name, session, fit)


# ---------------------------------------------------------------- files


def test_files_and_headers_are_those_of_a_converter(cohort: Path, raw: RawPatient) -> None:
    rows = rows_of(cohort / "samplesheet.csv")
    identity = ["patient", "session", "cohort", "role", "days", "space"]
    assert list(rows[0]) == [*identity, *COLUMNS, "dose", "prescription_gy"]
    assert {row["space"] for row in rows} == {"native"}
    assert [(r["patient"], r["role"]) for r in rows] == [
        (p, role) for p in ("sub-001", "sub-002") for role in ("preop", "followup")
    ]
    for row in rows:
        for column in COLUMNS:
            header = nib.load(cohort / row[column]).header
            assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
            assert header.get_data_dtype() == np.int16
            np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-3)
        truth = cohort / row["patient"] / "truth"
        native = truth / f"ses-{row['session']}" / "native"
        mask = read_image(next(native.glob("*_desc-brain_mask.nii.gz")))
        assert same_grid(mask, read_image(cohort / row["t1c"]))
    # The truth is a cohort of the ordinary kind.
    truth = cohort / "sub-002" / "truth"
    ordinary = rows_of(truth / "samplesheet.csv")
    assert {row["space"] for row in ordinary} == {"SRI24"}
    np.testing.assert_array_equal(
        read_image(truth / ordinary[0]["t1c"]).data, raw.patient.preop.images["t1c"]
    )
    np.testing.assert_array_equal(
        read_image(truth / ordinary[1]["registered_seg"]).data, raw.patient.registered_seg
    )


@pytest.mark.parametrize("mixed", [False, True], ids=["a folder per contrast", "one mixed folder"])
def test_dicom_of_an_exam_comes_back_from_dcm2niix(tmp_path: Path, raw: RawPatient, mixed: bool) -> None:
    """Affines within 0.01 mm, voxels equal."""
    exam = raw.followup if mixed else raw.preop
    attributes = {"PatientID": "SIM001", "StudyDate": "20200106", "MagneticFieldStrength": 3.0}
    folders = write_exam(tmp_path / "dicom", exam, attributes, mixed=mixed)
    assert set(folders) == ({"dicom"} if mixed else set(COLUMNS))
    (tmp_path / "nifti").mkdir()
    for folder in folders.values():
        command = [dcm2niix.bin, "-z", "n", "-f", "%s", "-o", str(tmp_path / "nifti"), str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    for column, image in exam.images.items():
        back = conform(read_image(tmp_path / "nifti" / f"{SERIES[column]}.nii", np.int16), image)
        np.testing.assert_array_equal(back.data, image.data)
    assert len(list((tmp_path / "nifti").glob("*.nii"))) == len(COLUMNS) + 3 * mixed


def test_a_patient_made_alone_as_dicom_is_the_same(tmp_path: Path, cohort: Path, atlas_folder: Path) -> None:
    run("--atlas", atlas_folder, "--out", tmp_path, "--seed", SEED, "--spacing", SPACING, "--patients", 5,
        "--patient-index", 2, "--dicom", "--adc")  # fmt: skip
    rows = rows_of(tmp_path / "samplesheet.csv")
    assert [row["dicom"] for row in rows] == ["sub-002/ses-pre/dicom", "sub-002/ses-post/dicom"]
    assert not any(row[column] for row in rows for column in COLUMNS)
    truth, expected = tmp_path / "sub-002" / "truth", cohort / "sub-002" / "truth"
    files = sorted(path.relative_to(truth) for path in truth.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(expected) for path in expected.rglob("*") if path.is_file())
    for file in files:
        assert (truth / file).read_bytes() == (expected / file).read_bytes(), file

    before, after = (
        [pydicom.dcmread(p) for p in sorted((tmp_path / row["dicom"]).glob(f"S{SERIES['t1c']:02d}_*"))]
        for row in rows
    )
    image = read_image(cohort / rows_of(cohort / "samplesheet.csv")[2]["t1c"], np.int64)
    assert sum(int(d.pixel_array.sum(dtype=np.int64)) for d in before) == image.data.sum()
    assert before[0].PatientName == after[0].PatientName == "SIM^002"
    assert before[0].SeriesDescription.endswith("_KM")
    assert before[0].ContrastBolusAgent
    assert after[0].StudyDate > before[0].StudyDate
    assert after[0].StudyInstanceUID != before[0].StudyInstanceUID


def test_adc_changes_nothing_else(simulator: Simulator, raw: RawPatient) -> None:
    again = simulate_raw(simulator, SEED, 2)
    for exam, before in ((again.preop, raw.preop), (again.followup, raw.followup)):
        assert set(before.images) - set(exam.images) == {"adc"}
        for name, image in exam.images.items():
            np.testing.assert_array_equal(image.data, before.images[name].data)
            np.testing.assert_array_equal(image.affine, before.images[name].affine)
        np.testing.assert_array_equal(exam.truth.tumor_seg, before.truth.tumor_seg)
