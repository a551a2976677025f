"""The trial segmenter: its parts against closed forms, and the whole on simulated patients and one real exam."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from scipy import ndimage

from predictgbm.atlas import Atlas, load_atlas, resample_atlas
from predictgbm.images import ImageError, conform, read_image, to_ras, write_image
from predictgbm.labels import CORE, WHOLE_TUMOR, Tumor, region
from predictgbm.preprocessing import two_levels
from predictgbm.quality import TRIAL
from predictgbm.segmentation.checks import measure_tumor
from predictgbm.segmentation.tumor import (
    CONTRASTS,
    dilate,
    enclosure,
    erode,
    hysteresis,
    mirror,
    necrosis_among,
    segment_tumor,
    standardise,
    without_satellites,
)
from predictgbm.simulation import SimulatedExam, SimulatedPatient, Simulator
from predictgbm.simulation.appearance import CONTRASTS as LOOKS
from predictgbm.simulation.appearance import Scene, render

CACHE = os.environ.get("PREDICTGBM_CACHE", "~/.cache/predictgbm")
ATLAS = Path(os.environ.get("PREDICTGBM_ATLAS", f"{CACHE}/atlas/SRI24-4")).expanduser()
REAL = ROOT.parent / "shared" / "data" / "brats2021_00001"
SPACING = 3.0


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum()))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "bin" / "segment_tumor.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_standardised_normal_values_have_mean_0_and_spread_1() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(300, 40, (30, 30, 30)).astype(np.float32)
    result = standardise(image, np.ones(image.shape, bool))
    assert abs(float(result.mean())) < 0.02
    assert float(result.std()) == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(standardise(image * 7 - 90, image > 0), result, atol=1e-3)
    with pytest.raises(ImageError, match="one value"):
        standardise(np.ones((3, 3, 3), np.float32), np.ones((3, 3, 3), bool))


def test_two_levels_finds_the_middle_between_two_groups() -> None:
    values = np.r_[np.full(700, 1.0), np.full(50, 5.0)]
    assert two_levels(values, 2.0) == (3.0, 1.0, 5.0)
    assert two_levels(values, 4.9)[0] == 3.0
    assert two_levels(values, 9.0)[0] == 9.0


def test_widening_and_narrowing_are_in_mm() -> None:
    point = np.zeros((9, 9, 9), bool)
    point[4, 4, 4] = True
    wide = dilate(point, 4.0, (2.0, 1.0, 4.0))
    assert [int(wide.any(axis=tuple(a for a in range(3) if a != k)).sum()) for k in range(3)] == [5, 9, 3]
    block = np.ones((9, 9, 9), bool)
    assert int(erode(block, 2.0, (1.0, 1.0, 1.0)).sum()) == 5**3
    assert not dilate(np.zeros_like(point), 4.0, (1.0, 1.0, 1.0)).any()


def test_hysteresis_keeps_parts_with_a_seed_that_are_large_enough() -> None:
    mask = np.zeros((12, 3, 3), bool)
    mask[0:3], mask[5:8], mask[10, 1, 1] = True, True, True
    seed = np.zeros_like(mask)
    seed[1, 1, 1] = seed[10, 1, 1] = True
    kept = hysteresis(mask, seed, 5)
    assert kept[:4].sum() == 27
    assert not kept[4:].any()


def test_enclosure_counts_axes() -> None:
    shell = np.ones((7, 7, 7), bool)
    shell[1:6, 1:6, 1:6] = False
    assert (enclosure(shell) == 3).all()
    shell[6] = False
    assert enclosure(shell)[3, 3, 3] == 2
    assert enclosure(np.zeros((3, 3, 3), bool)).max() == 0


def test_enclosed_tissue_is_necrosis_unless_part_of_it_is_oedema() -> None:
    rng = np.random.default_rng(1)
    levels = {"oedema": (-0.4, 0.0, 1.0, 3.5), "necrosis": (-1.0, -1.0, 1.8, 0.5)}
    fluid = np.array([-1.3, -2.0, 2.0, -1.5])

    def tissue(*kinds: str) -> np.ndarray:
        """100 voxels of each."""
        return np.concatenate([np.array(levels[k]) + 0.3 * rng.standard_normal((100, 4)) for k in kinds]).T

    def found(*enclosed: str) -> np.ndarray:
        y = tissue("oedema", *enclosed)
        outside = np.arange(y.shape[1]) < 100
        return necrosis_among(~outside, outside, y, fluid)[100:].reshape(-1, 100).mean(axis=1)

    np.testing.assert_allclose(found("oedema", "necrosis"), [0, 1], atol=0.02)
    np.testing.assert_allclose(found("necrosis", "oedema", "oedema"), [1, 0, 0], atol=0.02)
    # One kind alone tells nothing: place decides.
    np.testing.assert_array_equal(found("necrosis"), [1])
    np.testing.assert_array_equal(found("oedema"), [1])


def test_small_parts_without_core_go_only_beside_one_with_core() -> None:
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[2:12, 2:12, 2:12] = 2  # 1 ml
    labels[30:55, 30:55, 30:55] = 2  # 15.6 ml
    spacing = (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(without_satellites(labels, spacing), labels)
    labels[20:24, 2:6, 2:6] = 3
    kept = labels.copy()
    kept[2:12, 2:12, 2:12] = 0
    np.testing.assert_array_equal(without_satellites(labels, spacing), kept)


def test_mirror_twice_is_the_array_itself() -> None:
    array = np.random.default_rng(0).random((9, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(mirror(mirror(array, 4.0), 4.0), array)
    np.testing.assert_array_equal(mirror(array, 4.0), array[::-1])
    assert (mirror(array, 6.0)[:4] == 0).all()


def test_measures_flag_what_cannot_be() -> None:
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[2:6, 2:6, 2:6] = Tumor.EDEMA
    labels[3:5, 3:5, 3:5] = Tumor.ENHANCING
    brain = np.ones(labels.shape, bool)
    measures = {m.name: m for m in measure_tumor(labels, brain, 0.064, "preop")}
    assert measures["whole_tumor_ml"].value == pytest.approx(64 * 0.064)
    assert measures["enhancing_ml"].value == pytest.approx(8 * 0.064)
    assert measures["tumor_parts"].value == 1
    assert not any(m.flagged for m in measures.values())
    brain[4:] = False
    labels[8, 8, 8] = Tumor.CAVITY
    flagged = {m.name for m in measure_tumor(labels, brain, 0.064, "preop") if m.flagged}
    assert flagged == {"core_outside_brain", "cavity_ml"}
    empty = np.zeros_like(labels)
    assert not any(m.flagged for m in measure_tumor(empty, brain, 0.064, "followup"))
    assert {m.name for m in measure_tumor(empty, brain, 0.064, "preop") if m.flagged} == {
        "whole_tumor_ml",
        "tumor_core_ml",
    }


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    if not ATLAS.is_dir():
        pytest.skip(f"no atlas in {ATLAS}; ./predictgbm setup makes it")
    return load_atlas(ATLAS)


@pytest.fixture(scope="module")
def patient(atlas: Atlas) -> SimulatedPatient:
    return Simulator(atlas, SPACING).patient(7, 2)


@pytest.fixture(scope="module")
def grid(atlas: Atlas, patient: SimulatedPatient) -> Atlas:
    return resample_atlas(atlas, patient.preop.brain_mask.shape, patient.preop.affine)


@pytest.fixture(scope="module")
def labels(patient: SimulatedPatient, grid: Atlas) -> np.ndarray:
    return segment_tumor(patient.preop.images, patient.preop.brain_mask, grid, "preop")


def test_simulated_tumour_is_found(patient: SimulatedPatient, labels: np.ndarray) -> None:
    truth = patient.preop.tumor_seg
    assert dice(region(labels, WHOLE_TUMOR), region(truth, WHOLE_TUMOR)) > 0.9
    assert dice(region(labels, CORE), region(truth, CORE)) > 0.8
    assert dice(labels == Tumor.ENHANCING, truth == Tumor.ENHANCING) > 0.85
    assert not (labels == Tumor.CAVITY).any()
    assert not labels[~patient.preop.brain_mask].any()


def test_scale_of_the_images_does_not_matter(
    patient: SimulatedPatient, grid: Atlas, labels: np.ndarray
) -> None:
    images = {name: patient.preop.images[name] * (0.01 + k) - 3 * k for k, name in enumerate(CONTRASTS)}
    again = segment_tumor(images, patient.preop.brain_mask, grid, "preop")
    assert float((again != labels).mean()) < 1e-4


def render_head(atlas: Atlas, cavity: np.ndarray, enhancing: np.ndarray) -> dict[str, np.ndarray]:
    """Contrasts of the atlas' own head with a cavity and enhancing tumour in it, or with neither."""
    none = np.zeros(atlas.shape, np.float32)
    scene = Scene(
        *(atlas.wm, atlas.gm, atlas.csf, none, none, none, enhancing, cavity, none, none),
        atlas.brain_mask,
    )
    rng = np.random.default_rng(0)
    return {name: render(scene, LOOKS[name], rng, none + 1, 30.0, 500.0) for name in CONTRASTS}


def test_healthy_head_is_an_error_before_and_empty_after_surgery(grid: Atlas) -> None:
    none = np.zeros(grid.shape, np.float32)
    images = render_head(grid, none, none)
    with pytest.raises(ImageError, match="no tumour was found"):
        segment_tumor(images, grid.brain_mask, grid, "preop")
    assert not segment_tumor(images, grid.brain_mask, grid, "followup").any()


def test_cavity_is_found_and_ventricles_are_not(grid: Atlas) -> None:
    white = ndimage.gaussian_filter(grid.wm, 2)
    centre = np.unravel_index(int(white.argmax()), white.shape)
    away = np.sqrt(sum((SPACING * (i - c)) ** 2 for i, c in zip(np.indices(grid.shape), centre, strict=True)))
    hole, rim = away < 12, (away >= 12) & (away < 17) & grid.brain_mask
    images = render_head(grid, hole.astype(np.float32), rim.astype(np.float32))
    labels = segment_tumor(images, grid.brain_mask, grid, "followup")
    assert dice(labels == Tumor.CAVITY, hole) > 0.8
    assert dice(labels == Tumor.ENHANCING, rim) > 0.8


def test_exam_elsewhere_and_constant_contrast_are_named(patient: SimulatedPatient, grid: Atlas) -> None:
    brain = np.zeros_like(grid.brain_mask)
    brain[:2, :2, :2] = True
    with pytest.raises(ImageError, match="atlas space"):
        segment_tumor(patient.preop.images, brain, grid, "preop")
    images: dict[str, Any] = dict(patient.preop.images) | {"t2": np.ones(grid.shape)}
    with pytest.raises(ImageError, match="t2 holds one value"):
        segment_tumor(images, patient.preop.brain_mask, grid, "preop")


def write_exam(folder: Path, exam: SimulatedExam, axes: tuple[int, int, int] = (1, 1, 1)) -> None:
    for name in (*CONTRASTS, "brain_mask"):
        array = exam.brain_mask if name == "brain_mask" else exam.images[name]
        turn, affine = np.diag([*axes, 1.0]), exam.affine.copy()
        for axis, sign in enumerate(axes):
            if sign < 0:
                array = np.flip(array, axis)
                affine[:3, 3] += exam.affine[:3, axis] * (array.shape[axis] - 1)
        write_image(folder / f"{name}.nii.gz", array, affine @ turn)


def test_command_repeats_itself_and_does_not_mind_the_voxel_order(
    atlas: Atlas, patient: SimulatedPatient, labels: np.ndarray, tmp_path: Path
) -> None:
    write_exam(tmp_path / "ras", patient.preop)
    write_exam(tmp_path / "lps", patient.preop, (-1, -1, 1))
    options = ("--phase", "preop", "--atlas", ATLAS, "--patient", "001", "--session", "pre")
    files = (
        "--quality",
        tmp_path / "q.json",
        "--summary",
        tmp_path / "s.json",
        "--picture",
        tmp_path / "p.png",
    )
    done = run("--exam", tmp_path / "ras", *options, "--out", tmp_path / "a.nii.gz", *files)
    assert done.returncode == 0, done.stderr
    assert run("--exam", tmp_path / "lps", *options, "--out", tmp_path / "b.nii.gz").returncode == 0
    first, turned = (read_image(tmp_path / f"{name}.nii.gz", np.uint8) for name in "ab")
    np.testing.assert_array_equal(first.data, labels)
    assert turned.affine[0, 0] == -SPACING
    np.testing.assert_array_equal(conform(turned, first).data, first.data)
    quality = json.loads((tmp_path / "q.json").read_text())
    assert quality["note"].startswith("Trial quality")
    assert TRIAL in quality["method"]
    assert quality["patient"] == "001"
    assert json.loads((tmp_path / "s.json").read_text())["tumor_quality"] == "trial"
    assert (tmp_path / "p.png").stat().st_size > 10_000

    (tmp_path / "ras" / "flair.nii.gz").unlink()
    failure = tmp_path / "f.json"
    assert (
        run(
            "--exam", tmp_path / "ras", *options, "--out", tmp_path / "d.nii.gz", "--failure", failure
        ).returncode
        == 0
    )
    record = json.loads(failure.read_text())
    assert record["kind"] == "missing_input"
    assert "exam lacks flair" in record["reason"]
    assert not (tmp_path / "d.nii.gz").exists()


def test_real_exam_at_2_mm(atlas: Atlas) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no real exam in {REAL}")
    names = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f"}
    every = (slice(None, None, 2),) * 3
    images = {}
    for name, theirs in names.items():
        image = to_ras(read_image(next(REAL.glob(f"*-{theirs}.nii.gz"))))
        images[name] = ndimage.uniform_filter(image.data, 2)[every]
    affine = image.affine @ np.diag([2, 2, 2, 1.0])
    truth = to_ras(read_image(next(REAL.glob("*-seg*.nii.gz")), np.uint8)).data[every]
    brain = images["t1c"] > 0
    labels = segment_tumor(images, brain, resample_atlas(atlas, brain.shape, affine), "preop")
    assert dice(region(labels, WHOLE_TUMOR), region(truth, WHOLE_TUMOR)) > 0.85
    assert dice(region(labels, CORE), region(truth, CORE)) > 0.7
