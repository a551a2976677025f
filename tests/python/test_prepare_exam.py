"""The prepared exam folder, and the follow-up labels brought to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array
from numpy.typing import NDArray
from scipy import ndimage
from small_exam import (
    AFFINE,
    SHAPE,
    arrays,
    radius,
    row,
    run_command,
    save,
    tissue,
    tumor,
    world,
    write_atlas,
    write_exam,
    write_json,
)

from predictgbm.exam import Exam, organ_files
from predictgbm.preprocessing import derive_brain_mask
from predictgbm.tensors import COMPONENTS

REPOSITORY = Path(__file__).resolve().parents[2]
VOXEL_ML = 0.216
PREFIX = "sub-007_ses-pre_space-SRI24"


def prepare(
    tmp_path: Path, exam_row: dict[str, Any], files: dict[str, Path], atlas: Path, *options: str | Path
) -> int:
    written = write_json(tmp_path / "row.json", exam_row)
    required = ("--row", written, "--atlas", atlas, "--out-dir", tmp_path / "exam")
    return run_command("prepare_exam.py", *required, *options, *files.values())


def load(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    image = nib.load(path)
    return np.asanyarray(image.dataobj), image.affine


def facts(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tmp_path / "exam" / "exam.json").read_text("utf-8"))
    return content


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_atlas(tmp_path_factory.mktemp("atlas"))


def test_prepared_exam_has_all_files_on_the_grid_of_the_t1c(tmp_path: Path, atlas: Path) -> None:
    files = write_exam(tmp_path / "Zoë Müller")
    assert prepare(tmp_path, row(files), files, atlas) == 0
    names = ("T1w", "ce-GD_T1w", "T2w", "FLAIR", "desc-brain_mask", "desc-tumor_dseg")
    maps = [f"label-{tissue}_probseg" for tissue in ("WM", "GM", "CSF")]
    expected = {f"{PREFIX}_{name}.nii.gz" for name in (*names, *maps)} | {"exam.json"}
    assert {path.name for path in (tmp_path / "exam").iterdir()} == expected
    for name in expected - {"exam.json"}:
        data, affine = load(tmp_path / "exam" / name)
        assert data.shape == SHAPE
        np.testing.assert_allclose(affine, AFFINE)
    for column, name in zip(("t1", "t1c", "t2", "flair", "tumor_seg"), (*names[:4], names[5]), strict=True):
        np.testing.assert_array_equal(
            load(tmp_path / "exam" / f"{PREFIX}_{name}.nii.gz")[0], arrays()[column]
        )
    exam = Exam(tmp_path / "exam")
    assert exam.array("tumor_seg").dtype == np.uint8
    assert exam.array("brain_mask").dtype == bool


def test_organs_at_risk_have_names_of_their_own(tmp_path: Path, atlas: Path) -> None:
    stem, lens = (radius() < 0.3).astype(np.uint8), np.zeros(SHAPE, np.uint8)
    lens[3:5, 3:5, 3:5] = 7
    files = write_exam(tmp_path / "in", {**arrays(), "oar_stem": stem, "oar_lens": lens})
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] += AFFINE[:3, 0] * (SHAPE[0] - 1)
    save(files["oar_stem"], stem[::-1], flipped)
    assert prepare(tmp_path, row(files), files, atlas) == 0
    found = organ_files(tmp_path / "exam")
    assert sorted(found) == ["lens", "stem"] == sorted(facts(tmp_path)["organs"])
    np.testing.assert_array_equal(load(found["stem"])[0], stem)
    np.testing.assert_array_equal(load(found["lens"])[0], lens > 0)
    # The brain mask is found beside them, and conforming leaves them as they are.
    assert Exam(tmp_path / "exam").path("brain_mask") is not None
    written = write_json(tmp_path / "row.json", row(files))
    arguments = ("--row", written, "--out-dir", tmp_path / "conformed", *files.values())
    assert run_command("conform_exam.py", *arguments) == 0
    np.testing.assert_array_equal(load(tmp_path / "conformed" / "oar_stem.nii.gz")[0], stem)


def test_tensor_keeps_its_meaning_in_every_voxel_order(tmp_path: Path, atlas: Path) -> None:
    """Its components run along right, anterior, superior in files, along the axes of the array for models."""
    tensor = np.random.default_rng(0).normal(size=(*SHAPE, 6)).astype(np.float32)
    files = write_exam(tmp_path, {**arrays(), "tensor": tensor})
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] += AFFINE[:3, 0] * (SHAPE[0] - 1)
    save(files["tensor"], tensor[::-1], flipped)
    assert prepare(tmp_path, row(files), files, atlas) == 0
    np.testing.assert_array_equal(load(tmp_path / "exam" / f"{PREFIX}_param-tensor_dwimap.nii.gz")[0], tensor)
    assert "tensor" in facts(tmp_path)["inputs"]
    axes = np.sign(AFFINE[:3, :3])
    assert np.count_nonzero(axes) == 3
    seen = Exam(tmp_path / "exam").array("tensor")
    for n, (i, j) in enumerate(COMPONENTS):
        (p,), (q,) = np.flatnonzero(axes[:, i]), np.flatnonzero(axes[:, j])
        place = next(m for m, pair in enumerate(COMPONENTS) if set(pair) == {p, q})
        np.testing.assert_allclose(seen[..., n], axes[p, i] * axes[q, j] * tensor[..., place], rtol=1e-6)


def test_facts_state_identity_origin_and_volumes(tmp_path: Path, atlas: Path) -> None:
    files = write_exam(tmp_path)
    assert prepare(tmp_path, row(files), files, atlas) == 0
    told = facts(tmp_path)
    labels = tumor()
    assert {k: told[k] for k in ("patient", "session", "cohort", "tissue", "brain_mask", "warnings")} == {
        "patient": "007",
        "session": "pre",
        "cohort": "A",
        "tissue": "atlas prior",
        "brain_mask": "derived from T1c",
        "warnings": [],
    }
    assert told["tumor_core_ml"] == pytest.approx(VOXEL_ML * ((labels == 1) | (labels == 3)).sum())
    assert told["tumor_whole_ml"] == pytest.approx(VOXEL_ML * (labels > 0).sum())
    assert told["brain_ml"] == pytest.approx(VOXEL_ML * (radius() < 1).sum())
    assert told["spacing_mm"] == pytest.approx([6, 6, 6])
    assert told["inputs"] == ["t1", "t1c", "t2", "flair", "tumor_seg", "brain_mask", "wm", "gm", "csf"]


def test_every_voxel_order_gives_the_same_exam_in_the_world(tmp_path: Path, atlas: Path) -> None:
    files = write_exam(tmp_path)
    for column, code in (("t1", "RAS"), ("t2", "SPL"), ("flair", "IAR"), ("tumor_seg", "ARS")):
        image = nib.load(files[column])
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(code))
        )
        nib.save(image.as_reoriented(turn), files[column])
    assert nib.aff2axcodes(nib.load(files["flair"]).affine) == ("I", "A", "R")
    assert prepare(tmp_path, row(files), files, atlas) == 0
    for column, name in (("t1", "T1w"), ("t2", "T2w"), ("flair", "FLAIR"), ("tumor_seg", "desc-tumor_dseg")):
        data, affine = load(tmp_path / "exam" / f"{PREFIX}_{name}.nii.gz")
        np.testing.assert_allclose(affine, AFFINE)
        np.testing.assert_array_equal(data, arrays()[column])


def test_labels_of_another_convention_become_canonical(tmp_path: Path, atlas: Path) -> None:
    theirs = np.where(tumor() == 3, 4, tumor()).astype(np.uint8)
    files = write_exam(tmp_path, {**arrays(), "tumor_seg": theirs})
    assert prepare(tmp_path, row(files, tumor_labels="brats2021"), files, atlas) == 0
    np.testing.assert_array_equal(load(tmp_path / "exam" / f"{PREFIX}_desc-tumor_dseg.nii.gz")[0], tumor())


def test_given_mask_and_maps_are_used_and_normalised(tmp_path: Path, atlas: Path) -> None:
    brain = radius() < 0.9
    rng = np.random.default_rng(1)
    wm, gm, csf = (rng.uniform(0.1, 0.6, SHAPE).astype(np.float32) for _ in range(3))
    extra = {"brain_mask": brain.astype(np.uint8), "tissue_wm": wm, "tissue_gm": gm, "tissue_csf": csf}
    files = write_exam(tmp_path, {**arrays(), **extra})
    assert prepare(tmp_path, row(files), files, atlas) == 0
    assert (facts(tmp_path)["tissue"], facts(tmp_path)["brain_mask"]) == ("given", "given")
    exam = Exam(tmp_path / "exam")
    np.testing.assert_array_equal(exam.array("brain_mask"), brain)
    total = wm + gm + csf
    for name, given_map in (("wm", wm), ("gm", gm), ("csf", csf)):
        np.testing.assert_allclose(exam.array(name), np.where(brain, given_map / total, 0), atol=1e-6)


def test_tumor_beyond_the_given_mask_is_warned_of(tmp_path: Path, atlas: Path) -> None:
    centre = np.array(np.nonzero(tumor() == 1)).mean(axis=1)[0]
    brain = (radius() < 1) & (np.arange(SHAPE[0]) <= centre)[:, None, None]
    files = write_exam(tmp_path, {**arrays(), "brain_mask": brain.astype(np.uint8)})
    core = np.isin(tumor(), (1, 3))
    share = (core & ~brain).sum() / core.sum()
    assert 0.2 < share < 0.6
    half = write_atlas(tmp_path / "atlas")
    for name in ("T1w", *(f"label-{t}_probseg" for t in ("GM", "WM", "CSF"))):
        data, affine = load(half / f"{name}.nii.gz")
        save(half / f"{name}.nii.gz", (data * brain).astype(np.float32), affine)
    assert prepare(tmp_path, row(files), files, half) == 0
    assert facts(tmp_path)["warnings"] == [f"{share:.0%} of the tumour core lie outside the brain mask"]


RAS = np.array([[6.0, 0, 0, -81], [0, 6, 0, -96], [0, 0, 6, -75], [0, 0, 0, 1]])
FINE = np.array([[3.0, 0, 0, -77], [0, 3, 0, -95], [0, 0, 3, -70], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("shape", "affine"),
    [(SHAPE, AFFINE), (SHAPE, RAS), ((52, 64, 48), FINE)],
    ids=["own grid", "other voxel order", "other spacing"],
)
def test_atlas_maps_are_matched_by_position(
    tmp_path: Path, shape: tuple[int, int, int], affine: NDArray[Any]
) -> None:
    files = write_exam(tmp_path)
    assert prepare(tmp_path, row(files), files, write_atlas(tmp_path / "atlas", shape, affine)) == 0
    exam = Exam(tmp_path / "exam")
    brain = exam.array("brain_mask")
    maps = {name: exam.array(name) for name in ("wm", "gm", "csf")}
    np.testing.assert_allclose(sum(maps.values())[brain], 1, atol=1e-5)
    assert not any(data[~brain].any() for data in maps.values())

    inside = radius() < 0.93  # away from the rim, where a coarser grid mixes brain and background
    for name, truth in tissue().items():
        error = np.abs(maps[name] - truth)[inside].mean()
        if affine is FINE:
            # Interpolation smooths; misplacing the map by a single voxel along any axis would cost far more.
            shifts = [
                np.abs(np.roll(truth, step, axis) - truth)[inside].mean()
                for axis in range(3)
                for step in (-1, 1)
            ]
            assert error < 0.5 * min(shifts)
        else:
            assert error < 1e-6


def test_brain_beyond_the_atlas_gets_the_composition_of_its_rim(tmp_path: Path, atlas: Path) -> None:
    bump = np.linalg.norm(world() - (0, -78, 0), axis=-1) < 20
    images = arrays()
    images["t1c"] = np.where(bump | (images["t1c"] > 0), 100, 0).astype(np.float32)
    files = write_exam(tmp_path, images)
    assert prepare(tmp_path, row(files), files, atlas) == 0
    exam = Exam(tmp_path / "exam")
    far = bump & (radius() > 1.2)
    assert far.sum() > 10
    # The outermost shell of this atlas is CSF alone.
    np.testing.assert_allclose(exam.array("csf")[far], 1, atol=0.05)
    np.testing.assert_allclose((exam.array("wm") + exam.array("gm") + exam.array("csf"))[far], 1, atol=1e-5)


def test_exam_of_another_space_is_refused_in_plain_words(tmp_path: Path, atlas: Path) -> None:
    moved = AFFINE.copy()
    moved[1, 3] += 70
    files = {c: save(tmp_path / f"{c}.nii.gz", data, moved) for c, data in arrays().items()}
    written = write_json(tmp_path / "row.json", row(files))
    command = [sys.executable, REPOSITORY / "bin" / "prepare_exam.py", "--row", written, "--atlas", atlas]
    command += ["--out-dir", tmp_path / "exam", *files.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not (tmp_path / "exam").exists()
    start, end = done.stderr.split(" by ")
    assert start == "ERROR: t1c.nii.gz: exam is not in SRI24 space, its brain overlaps the atlas brain"
    assert end.endswith(
        "% (Dice), at least 60% expected; register it to SRI24 and remove the skull, or, if its background "
        "is not 0, give a brain mask\n"
    )
    assert done.stderr.count("\n") == 1


def test_failure_is_recorded_for_the_patient_and_leaves_no_exam(tmp_path: Path, atlas: Path) -> None:
    files = write_exam(tmp_path)
    content = files["t2"].read_bytes()
    files["t2"].write_bytes(content[: len(content) // 2])
    assert prepare(tmp_path, row(files), files, atlas, "--failure", tmp_path / "failure.json") == 0
    failure = json.loads((tmp_path / "failure.json").read_text("utf-8"))
    assert {k: failure[k] for k in ("patient", "session", "stage")} == {
        "patient": "007",
        "session": "pre",
        "stage": "prepare exam",
    }
    assert failure["reason"].startswith(f"{files['t2']}: cannot be read as NIfTI, it is damaged, cut short")
    assert not (tmp_path / "exam").exists()


def test_same_input_gives_the_same_bytes(tmp_path: Path, atlas: Path) -> None:
    files = write_exam(tmp_path)
    contents = []
    for _ in range(2):
        assert prepare(tmp_path, row(files), files, atlas) == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "exam").iterdir()})
    assert contents[0] == contents[1]


@settings(max_examples=100, deadline=None)
@given(any_array(np.bool_, (6, 5, 7), elements=st.booleans()), st.floats(-5, 5).filter(bool))
def test_derived_mask_is_the_largest_component_filled(voxels: NDArray[np.bool_], value: float) -> None:
    if not voxels.any():
        with pytest.raises(ValueError, match="no brain"):
            derive_brain_mask(voxels * value)
        return
    mask = derive_brain_mask(voxels * value)
    components, _ = ndimage.label(voxels, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    candidates = [
        ndimage.binary_fill_holes(components == 1 + i) for i in np.flatnonzero(sizes == sizes.max())
    ]
    assert any(np.array_equal(mask, candidate) for candidate in candidates)


def import_followup(tmp_path: Path, labels: NDArray[Any], affine: NDArray[Any], *options: str | Path) -> int:
    files = {"registered_seg": save(tmp_path / "follow-up.nii.gz", labels, affine)}
    written = write_json(tmp_path / "followup.json", row(files, "followup", registered_labels="brats2021"))
    paths = (
        "--reference",
        tmp_path / "exam",
        "--out",
        tmp_path / "out.nii.gz",
        "--summary",
        tmp_path / "s.json",
    )
    return run_command("import_registered.py", "--row", written, *paths, *options, *files.values())


def test_followup_labels_come_to_the_grid_of_the_exam(tmp_path: Path, atlas: Path) -> None:
    files = write_exam(tmp_path)
    assert prepare(tmp_path, row(files), files, atlas) == 0
    theirs = np.where(tumor() == 3, 4, tumor()).astype(np.uint8)
    image = nib.as_closest_canonical(nib.Nifti1Image(theirs, AFFINE))
    assert import_followup(tmp_path, np.asanyarray(image.dataobj), image.affine) == 0
    data, affine = load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(data, tumor())
    np.testing.assert_allclose(affine, AFFINE)
    summary = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert (summary["patient"], summary["session"], summary["days"]) == ("007", "fu1", 120)
    counts = {value: int((tumor() == value).sum()) for value in (1, 2, 3)}
    assert summary["recurrence_enhancing_ml"] == pytest.approx(VOXEL_ML * counts[3])
    assert summary["recurrence_core_ml"] == pytest.approx(VOXEL_ML * (counts[1] + counts[3]))
    assert summary["recurrence_all_ml"] == pytest.approx(VOXEL_ML * sum(counts.values()))


def test_followup_on_another_grid_costs_only_the_followup(tmp_path: Path, atlas: Path) -> None:
    files = write_exam(tmp_path)
    assert prepare(tmp_path, row(files), files, atlas) == 0
    assert import_followup(tmp_path, tumor()[1:], AFFINE, "--failure", tmp_path / "failure.json") == 0
    failure = json.loads((tmp_path / "failure.json").read_text("utf-8"))
    assert (failure["patient"], failure["session"], failure["stage"]) == ("007", "fu1", "register follow-up")
    assert "are not on one grid: 27x34x26 voxels" in failure["reason"]
    assert not (tmp_path / "out.nii.gz").exists()
