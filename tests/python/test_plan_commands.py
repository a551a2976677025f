"""The commands make_plan.py and evaluate_plan.py: files in, files out, errors in words."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from predictgbm.dose import plan_dose
from predictgbm.evaluation import locate_lesions
from predictgbm.planning import soc_mask

BIN = Path(__file__).resolve().parents[2] / "bin"
SHAPE = (14, 12, 10)
AFFINE = np.array([[1.2, 0, 0, -30], [0, 1, 0, 20], [0, 0, 2.5, -7], [0, 0, 0, 1]])
ORIENTATIONS = [
    np.column_stack([axes, flips]) for axes in permutations(range(3)) for flips in product([1, -1], repeat=3)
]


def load(name):
    spec = importlib.util.spec_from_file_location(name, BIN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMANDS = {name: load(name) for name in ("make_plan", "evaluate_plan")}


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process; return its exit status and what it said on stderr."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        try:
            status = COMMANDS[name].main()
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().err

    return run


def save(path, data, affine=AFFINE, orientation=None):
    """Write an image, stored in another voxel order where one is given."""
    image = nib.Nifti1Image(np.asarray(data), affine)
    if orientation is not None:
        image = image.as_reoriented(orientation)
    nib.save(image, path)
    return path


def load_ras(path):
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj), image.affine


def exam():
    """Score, tumour labels, brain and recurrence of a small exam with many equal scores."""
    rng = np.random.default_rng(7)
    score = rng.integers(0, 4, SHAPE).astype(np.float32)
    tumor = np.zeros(SHAPE, np.uint8)
    tumor[5:8, 5:7, 4:6] = 2
    tumor[6, 5:7, 4:6] = 3
    tumor[5, 5, 4] = 1
    brain = np.zeros(SHAPE, np.uint8)
    brain[1:13, 1:11, 1:9] = 1
    brain[9, 9, 5] = 0
    recurrence = np.zeros(SHAPE, np.uint8)
    recurrence[8:11, 4:7, 3:6] = 2
    recurrence[8:10, 4:7, 3:6] = 3
    recurrence[10, 4, 3] = 1
    recurrence[2, 2, 2] = 3
    return score, tumor, brain, recurrence


@pytest.fixture
def files(tmp_path):
    names = ("score", "tumor", "brain", "recurrence")
    return {
        name: save(tmp_path / f"{name}.nii.gz", data) for name, data in zip(names, exam(), strict=True)
    } | {"plan": tmp_path / "plan.nii.gz", "metrics": tmp_path / "metrics.json"}


def plan_arguments(files):
    return (
        *("--score", files["score"], "--tumor-seg", files["tumor"], "--brain-mask", files["brain"]),
        *("--out", files["plan"], "--margin", "3"),
    )


def evaluate_arguments(files):
    return (
        *("--plan", files["plan"], "--recurrence", files["recurrence"], "--brain-mask", files["brain"]),
        *("--out", files["metrics"]),
    )


def measures(files):
    return json.loads(files["metrics"].read_text(encoding="utf-8"))


def test_plan_soc_and_sidecar(files, call, tmp_path):
    soc_file = tmp_path / "new folder" / "soc.nii.gz"
    assert call("make_plan", *plan_arguments(files), "--soc-out", soc_file, "--model", "loti") == (0, "")
    score, tumor, brain, _ = exam()
    inside = ndimage.binary_fill_holes(brain)
    distance = ndimage.distance_transform_edt(~np.isin(tumor, (1, 3)), sampling=(1.2, 1, 2.5))
    soc, affine = load_ras(soc_file)
    np.testing.assert_array_equal(soc, (distance <= 3) & inside)
    np.testing.assert_allclose(affine, AFFINE)

    image = nib.load(files["plan"])
    plan = np.asarray(image.dataobj)
    assert image.get_data_dtype() == np.uint8
    assert plan.sum() == soc.sum()
    assert not plan[~inside].any()
    lowest = score[plan == 1].min()
    assert (score[inside & (plan == 0)] <= lowest).all()
    tied = inside & (score == lowest)
    assert distance[tied & (plan == 1)].max() <= distance[tied & (plan == 0)].min() + 1e-3

    sidecar = json.loads((tmp_path / "plan.json").read_text())
    assert sidecar["model"] == "loti"
    assert sidecar["n_voxels"] == soc.sum()
    assert sidecar["volume_ml"] == pytest.approx(soc.sum() * 3e-3)
    assert sidecar["margin_mm"] == 3
    assert sidecar["brain_voxels"] == inside.sum()
    assert sidecar["brain_voxels_in_filled_holes"] == 1
    assert sidecar["positive_voxels"] == (score[inside] > 0).sum()
    assert sidecar["voxels_added_by_distance"] == 0
    assert sidecar["lowest_score"] == lowest
    assert sidecar["voxels_at_lowest_score"] == tied.sum()
    assert sidecar["voxels_at_lowest_score_in_plan"] == plan[tied].sum()
    assert sidecar["voxels_shared_with_soc"] == (plan & soc).sum()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.sampled_from(ORIENTATIONS)] * 3))
def test_plan_is_the_same_place_however_the_files_are_stored(files, call, tmp_path, orientations):
    """Even the last of many ties falls on the same voxel of the head."""
    score, tumor, brain, _ = exam()
    if not (tmp_path / "expected.nii.gz").exists():
        assert call("make_plan", *plan_arguments(files))[0] == 0
        files["plan"].rename(tmp_path / "expected.nii.gz")
    turned = dict(files)
    for (name, data), orientation in zip(
        {"score": score, "tumor": tumor, "brain": brain}.items(), orientations, strict=True
    ):
        turned[name] = save(tmp_path / f"turned_{name}.nii.gz", data, orientation=orientation)
    assert call("make_plan", *plan_arguments(turned)) == (0, "")
    np.testing.assert_allclose(nib.load(files["plan"]).affine, nib.load(turned["brain"]).affine, atol=1e-4)
    plan, affine = load_ras(files["plan"])
    expected, expected_affine = load_ras(tmp_path / "expected.nii.gz")
    np.testing.assert_array_equal(plan, expected)
    np.testing.assert_allclose(affine, expected_affine, atol=1e-4)


@pytest.mark.parametrize("kind", ["zero", "constant", "minus distance", "soc", "soc in 16-bit integers"])
def test_maps_that_must_give_the_standard_of_care(kind, files, call, tmp_path):
    _, tumor, _, _ = exam()
    soc_file = tmp_path / "soc.nii.gz"
    assert call("make_plan", *plan_arguments(files), "--soc-out", soc_file)[0] == 0
    soc = np.asarray(nib.load(soc_file).dataobj)
    distance = ndimage.distance_transform_edt(~np.isin(tumor, (1, 3)), sampling=(1.2, 1, 2.5))
    score = {
        "zero": np.zeros(SHAPE, np.float32),
        "constant": np.full(SHAPE, 0.3, np.float32),
        "minus distance": -distance.astype(np.float32),
        "soc": soc.astype(np.float32),
        "soc in 16-bit integers": soc.astype(np.int16),
    }[kind]
    save(files["score"], score)
    assert call("make_plan", *plan_arguments(files)) == (0, "")
    np.testing.assert_array_equal(np.asarray(nib.load(files["plan"]).dataobj), soc)


def test_few_positive_voxels_are_taken_and_grown_from(files, call, tmp_path):
    score = np.zeros(SHAPE, np.float32)
    score[11, 2, 2], score[10, 2, 2], score[0, 0, 0] = 1e-20, 5, 9
    save(files["score"], score)
    assert call("make_plan", *plan_arguments(files)) == (0, "")
    plan = np.asarray(nib.load(files["plan"]).dataobj) == 1
    seeds = score > 0
    seeds[0, 0, 0] = False
    distance = ndimage.distance_transform_edt(~seeds, sampling=(1.2, 1, 2.5))
    inside = ndimage.binary_fill_holes(exam()[2])
    assert distance[plan].max() <= distance[inside & ~plan].min() + 1e-3
    sidecar = json.loads((tmp_path / "plan.json").read_text())
    assert sidecar["positive_voxels"] == 2
    assert sidecar["voxels_added_by_distance"] == plan.sum() - 2


def test_scores_are_ranked_in_the_precision_of_the_file(files, call):
    """Two scores that are equal in 32 bits differ in 64: the plan must not leave it to the tie-break."""
    _, tumor, brain, _ = exam()
    distance = ndimage.distance_transform_edt(~np.isin(tumor, (1, 3)), sampling=(1.2, 1, 2.5))
    save(files["score"], 1 + distance * 1e-12)
    assert call("make_plan", *plan_arguments(files)) == (0, "")
    plan = np.asarray(nib.load(files["plan"]).dataobj) == 1
    assert distance[plan].min() >= distance[(brain == 1) & ~plan].max() - 1e-3


def test_core_first(files, call):
    score, tumor, _, _ = exam()
    core = np.isin(tumor, (1, 3))
    save(files["score"], np.where(core, 0, score + 1))
    assert call("make_plan", *plan_arguments(files))[0] == 0
    assert not np.asarray(nib.load(files["plan"]).dataobj)[core].any()
    assert call("make_plan", *plan_arguments(files), "--core-first")[0] == 0
    assert np.asarray(nib.load(files["plan"]).dataobj)[core].all()


def test_labels_of_another_convention(files, call, tmp_path):
    assert call("make_plan", *plan_arguments(files))[0] == 0
    expected = files["plan"].read_bytes()
    tumor = exam()[1]
    save(files["tumor"], np.where(tumor == 3, 4, tumor).astype(np.float64))
    assert call("make_plan", *plan_arguments(files), "--tumor-labels", "brats2021")[0] == 0
    assert files["plan"].read_bytes() == expected
    save(files["tumor"], np.where(tumor == 3, 9, tumor))
    status, message = call("make_plan", *plan_arguments(files))
    assert status == 2
    assert message.startswith(f"ERROR: {files['tumor']}: unknown label 9")


def shifted(files):
    affine = AFFINE.copy()
    affine[0, 3] += 1.2
    save(files["score"], exam()[0], affine)


def cropped(files):
    save(files["score"], exam()[0][:-1])


def not_a_number(files):
    score = exam()[0]
    score[3, 3, 3] = np.nan
    save(files["score"], score)


def no_core(files):
    save(files["tumor"], (exam()[1] > 0) * np.uint8(2))


def no_brain(files):
    save(files["brain"], exam()[2] * 0)


def absent(files):
    files["score"].unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shifted, ["score.nii.gz", "brain.nii.gz", "not on one grid"]),
        (cropped, ["score.nii.gz", "brain.nii.gz", "13x12x10"]),
        (not_a_number, ["score.nii.gz", "NaN"]),
        (no_core, ["no tumour core"]),
        (no_brain, ["brain mask is empty"]),
        (absent, ["score.nii.gz", "does not exist"]),
    ],
)
def test_bad_input_is_named_and_can_be_recorded(spoil, words, files, call, tmp_path):
    spoil(files)
    status, message = call("make_plan", *plan_arguments(files))
    assert status == 2
    assert message.startswith("ERROR: ")
    assert message.count("\n") == 1
    assert all(word in message for word in words)
    assert not files["plan"].exists()

    record = tmp_path / "failures" / "one.json"
    identity = ("--patient", "P 1", "--session", "pre", "--model", "loti")
    assert call("make_plan", *plan_arguments(files), "--failure", record, *identity)[0] == 0
    failure = json.loads(record.read_text(encoding="utf-8"))
    assert {k: failure[k] for k in ("patient", "session", "model", "stage")} == {
        "patient": "P 1",
        "session": "pre",
        "model": "loti",
        "stage": "plan",
    }
    assert all(word in failure["reason"] for word in words)


def test_a_plan_of_another_volume(files, call, tmp_path):
    assert call("make_plan", *plan_arguments(files)) == (0, "")
    usual, _ = load_ras(files["plan"])
    soc_ml = json.loads((tmp_path / "plan.json").read_text())["soc_volume_ml"]
    assert soc_ml == pytest.approx(usual.sum() * 3e-3)
    assert call("make_plan", *plan_arguments(files), "--volume-ml", 1.5 * soc_ml) == (0, "")
    larger, _ = load_ras(files["plan"])
    assert larger.sum() == round(1.5 * usual.sum())
    assert (larger >= usual).all()
    sidecar = json.loads((tmp_path / "plan.json").read_text())
    assert (sidecar["n_voxels"], sidecar["soc_volume_ml"]) == (larger.sum(), soc_ml)


@pytest.mark.parametrize("volume", ["0", "-1", "1000", "nan", "inf"])
def test_a_volume_that_no_plan_has_is_refused(files, call, volume):
    status, message = call("make_plan", *plan_arguments(files), "--volume-ml", volume)
    assert status == 2
    assert f"a plan of {volume} ml is not possible; the brain has" in message


def test_a_bad_margin_or_name_is_refused(files, call):
    status, message = call("make_plan", *plan_arguments(files), "--margin", "-2")
    assert status == 2
    assert "margin of -2 mm" in message
    status, message = call("make_plan", *plan_arguments(files), "--out", "plan.png")
    assert status == 2
    assert ".nii.gz" in message


def test_measures(files, call):
    assert call("make_plan", *plan_arguments(files))[0] == 0
    identity = (
        "--patient",
        "P1",
        "--session",
        "pre",
        "--cohort",
        "A",
        "--followup-session",
        "fu2",
        "--days",
        "91",
    )
    assert call(
        "evaluate_plan",
        *evaluate_arguments(files),
        *("--score", files["score"], "--tumor-seg", files["tumor"], "--margin", "3", "--model", "loti"),
        *identity,
    ) == (0, "")
    result = measures(files)
    _, tumor, brain, recurrence = exam()
    plan = np.asarray(nib.load(files["plan"]).dataobj) == 1
    names = ("patient", "session", "cohort", "followup_session", "days", "model")
    assert [result[n] for n in names] == ["P1", "pre", "A", "fu2", 91, "loti"]
    for name, members in {"enhancing": [3], "core": [1, 3], "all": [1, 2, 3]}.items():
        target = np.isin(recurrence, members)
        assert result[f"coverage_{name}"] == (plan & target).sum() / target.sum()
        assert result[f"recurrence_{name}_ml"] == pytest.approx(target.sum() * 3e-3)
    enhancing = recurrence == 3
    assert result["dice"] == 2 * (plan & enhancing).sum() / (plan.sum() + enhancing.sum())
    assert result["hd95_mm"] > 0
    assert result["plan_ml"] == pytest.approx(plan.sum() * 3e-3)
    assert result["plan_outside_brain_ml"] == 0
    assert result["recurrence_outside_brain_ml"] == 0
    assert result["tumor_core_ml"] == pytest.approx(np.isin(tumor, [1, 3]).sum() * 3e-3)
    assert result["tumor_whole_ml"] == pytest.approx((tumor > 0).sum() * 3e-3)
    shift = np.subtract(ndimage.center_of_mass(np.isin(tumor, [1, 3])), ndimage.center_of_mass(enhancing))
    assert result["com_distance_cm"] == pytest.approx(np.linalg.norm(shift * (1.2, 1, 2.5)) / 10)
    assert result["n_lesions"] == 2
    assert [x["volume_ml"] for x in result["lesions"]] == pytest.approx([0.054, 0.003])
    spacing = (1.2, 1, 2.5)
    located = locate_lesions(tumor, recurrence, soc_mask(tumor, brain, spacing, 3), spacing)
    assert [{key: lesion[key] for key in located[0]} for lesion in result["lesions"]] == located
    curve = dict(zip(*result["curve"].values(), strict=True))
    assert curve[1.0] == result["coverage_enhancing"]
    assert result["plan_follows_score"] is True
    assert 0 < result["curve_area"] < 1
    assert 0 < result["volume_at_soc_coverage_ml"] <= ndimage.binary_fill_holes(brain).sum() * 3e-3
    assert result["reason"] is None


def test_other_choices_are_measured_beside_the_main_one(files, call, tmp_path):
    assert call("make_plan", *plan_arguments(files))[0] == 0
    _, _, _, recurrence = exam()
    stored = nib.load(files["recurrence"])
    later = tmp_path / "later.nii.gz"
    nib.save(nib.Nifti1Image(np.where(recurrence == 3, 0, recurrence).astype(np.uint8), stored.affine), later)
    score = ("--score", files["score"], "--tumor-seg", files["tumor"], "--margin", "3")
    others = ("--other-margins", "2,3,5", "--other-recurrence", f"registration:rigid={files['recurrence']}")
    others += ("--other-recurrence", f"followup:last={later}")
    assert call("evaluate_plan", *evaluate_arguments(files), *score, *others) == (0, "")
    result = measures(files)
    found = {(row["axis"], row["setting"]): row for row in result["settings"]}
    assert list(found) == [
        ("margin", "2"),
        ("margin", "5"),
        ("registration", "rigid"),
        ("followup", "last"),
    ]
    assert found["margin", "2"]["plan_ml"] < result["plan_ml"] < found["margin", "5"]["plan_ml"]
    assert found["margin", "2"]["coverage_enhancing"] <= found["margin", "5"]["coverage_enhancing"]
    assert found["registration", "rigid"]["coverage_enhancing"] == result["coverage_enhancing"]
    assert found["followup", "last"]["coverage_enhancing"] is None
    for wrong in ("last=x.nii.gz", "followup:last", "colour:red=x.nii.gz"):
        status, message = call("evaluate_plan", *evaluate_arguments(files), "--other-recurrence", wrong)
        assert status == 2
        assert "AXIS:SETTING=NIFTI" in message


def test_measures_do_not_depend_on_how_files_are_stored(files, call):
    assert call("make_plan", *plan_arguments(files))[0] == 0
    more = ("--score", files["score"], "--tumor-seg", files["tumor"])
    assert call("evaluate_plan", *evaluate_arguments(files), *more)[0] == 0
    expected = measures(files)
    data = dict(zip(("score", "tumor", "brain", "recurrence"), exam(), strict=True))
    data["plan"] = np.asarray(nib.load(files["plan"]).dataobj)
    for i, (name, array) in enumerate(data.items()):
        save(files[name], array, orientation=ORIENTATIONS[7 * i + 5])
    assert call("evaluate_plan", *evaluate_arguments(files), *more)[0] == 0
    result = measures(files)
    assert result.pop("curve") == expected.pop("curve")
    for name in ("lesions", "settings"):
        assert result.pop(name) == expected.pop(name)
    assert result == pytest.approx(expected)


def test_no_recurrence_is_null_and_not_one(files, call):
    assert call("make_plan", *plan_arguments(files))[0] == 0
    save(files["recurrence"], exam()[3] * 0)
    more = ("--score", files["score"], "--tumor-seg", files["tumor"])
    assert call("evaluate_plan", *evaluate_arguments(files), *more) == (0, "")
    result = measures(files)
    for name in ("coverage_enhancing", "coverage_core", "coverage_all", "dice", "hd95_mm", "com_distance_cm"):
        assert result[name] is None
    assert result["curve"] is result["curve_area"] is result["volume_at_soc_coverage_ml"] is None
    assert result["lesions"] == []
    assert result["n_lesions"] == result["recurrence_enhancing_ml"] == 0
    assert result["reason"] == "no recurrence in the follow-up"
    assert result["plan_ml"] > 0


def test_without_enhancement_the_other_definitions_are_given(files, call):
    assert call("make_plan", *plan_arguments(files))[0] == 0
    recurrence = np.where(exam()[3] == 3, 1, exam()[3]).astype(np.uint8)
    save(files["recurrence"], recurrence)
    assert call("evaluate_plan", *evaluate_arguments(files)) == (0, "")
    result = measures(files)
    assert result["coverage_enhancing"] is result["dice"] is result["hd95_mm"] is None
    assert result["reason"] == "no recurrence of definition enhancing (label 3) in the follow-up"
    plan = np.asarray(nib.load(files["plan"]).dataobj) == 1
    assert result["coverage_core"] == plan[recurrence == 1].mean()
    assert result["coverage_all"] == plan[recurrence > 0].mean()


def test_a_binary_recurrence_can_be_declared_enhancing(files, call):
    assert call("make_plan", *plan_arguments(files))[0] == 0
    assert call("evaluate_plan", *evaluate_arguments(files))[0] == 0
    expected = measures(files)["coverage_enhancing"]
    save(files["recurrence"], (exam()[3] == 3).astype(np.float32))
    assert call("evaluate_plan", *evaluate_arguments(files), "--recurrence-labels", "1:3")[0] == 0
    assert measures(files)["coverage_enhancing"] == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
@pytest.mark.parametrize("value", [1, 255])
def test_plans_of_any_type_are_read(dtype, value, files, call):
    """Every second slice is planned: half of the larger lesion and the single voxel of the other."""
    plan = np.zeros(SHAPE, dtype)
    plan[::2] = value
    save(files["plan"], plan)
    assert call("evaluate_plan", *evaluate_arguments(files)) == (0, "")
    assert measures(files)["coverage_enhancing"] == 10 / 19


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (np.full(SHAPE, 0.5), ["plan.nii.gz", "fractions"]),
        (exam()[1], ["plan.nii.gz", "values 1, 2, 3", "one other value"]),
        (np.full(SHAPE, -1.0), ["plan.nii.gz", "outside 0 to 255"]),
        (np.ones((14, 12, 11)), ["plan.nii.gz", "brain.nii.gz", "not on one grid"]),
    ],
)
def test_what_is_no_plan_is_refused(plan, words, files, call, tmp_path):
    save(files["plan"], plan)
    status, message = call("evaluate_plan", *evaluate_arguments(files))
    assert status == 2
    assert all(word in message for word in words)
    record = tmp_path / "failure.json"
    assert call("evaluate_plan", *evaluate_arguments(files), "--failure", record, "--patient", "P1")[0] == 0
    failure = json.loads(record.read_text())
    assert failure["patient"] == "P1"
    assert failure["stage"] == "evaluate"
    assert all(word in failure["reason"] for word in words)


def test_an_empty_plan_covers_nothing(files, call):
    save(files["plan"], np.zeros(SHAPE, np.uint8))
    more = ("--score", files["score"], "--tumor-seg", files["tumor"])
    assert call("evaluate_plan", *evaluate_arguments(files), *more) == (0, "")
    result = measures(files)
    assert result["coverage_enhancing"] == result["dice"] == 0
    assert result["hd95_mm"] is result["curve"] is None
    assert result["reason"] == "the plan is empty"


def test_a_score_alone_is_not_enough_for_the_curve(files, call):
    status, message = call("evaluate_plan", *evaluate_arguments(files), "--score", files["score"])
    assert status == 2
    assert "--tumor-seg" in message


def test_as_programs(files):
    """Executable by themselves, the same bytes each time, nothing heavy imported."""
    first = subprocess.run(
        [sys.executable, BIN / "make_plan.py", *map(str, plan_arguments(files))],
        capture_output=True,
        text=True,
    )
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    content = files["plan"].read_bytes()
    heavy = "{'scipy.ndimage', 'scipy.stats', 'numba', 'pandas', 'matplotlib', 'torch'}"
    code = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"finally: print(sorted({heavy} & set(sys.modules)))"
    )
    for name, arguments in (("make_plan", plan_arguments), ("evaluate_plan", evaluate_arguments)):
        command = [sys.executable, "-c", code, BIN / f"{name}.py", *map(str, arguments(files))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, "[]")
    assert files["plan"].read_bytes() == content
    assert all((BIN / f"{name}.py").stat().st_mode & 0o111 for name in COMMANDS)


def test_spread(files, call, tmp_path):
    """Mean over the plan's voxels beside brain that is not planned; without a file, or without spread, null."""
    assert call("make_plan", *plan_arguments(files))[0] == 0
    assert call("evaluate_plan", *evaluate_arguments(files)) == (0, "")
    assert measures(files)["spread_border"] is None
    spread = np.random.default_rng(2).random(SHAPE).astype(np.float32)
    for values, expected in ((np.zeros(SHAPE, np.float32), False), (spread, True)):
        path = save(tmp_path / "spread.nii.gz", values)
        assert call("evaluate_plan", *evaluate_arguments(files), "--spread", path) == (0, "")
        found = measures(files)["spread_border"]
        assert (found is not None) == expected
    plan = load_ras(files["plan"])[0].astype(bool)
    inside = ndimage.binary_fill_holes(exam()[2])
    border = plan & ndimage.binary_dilation(inside & ~plan)
    assert found == pytest.approx(spread[border].mean())


def test_dose_and_calibration(files, call, tmp_path):
    """What the library tells of the same arrays, and nulls in place of NaN."""
    score, _, brain, recurrence = exam()
    files["score"] = save(tmp_path / "score.nii.gz", score / 4)
    assert call("make_plan", *plan_arguments(files))[0] == 0
    tissue = save(tmp_path / "wm.nii.gz", np.full(SHAPE, 0.5, np.float32))
    more = (
        "--score",
        files["score"],
        "--tumor-seg",
        files["tumor"],
        "--margin",
        "3",
        "--dose",
        "--probability",
    )
    assert call("evaluate_plan", *evaluate_arguments(files), *more, "--wm", tissue, "--csf", tissue) == (
        0,
        "",
    )
    found = measures(files)
    plan, _ = load_ras(files["plan"])
    spacing = (1.2, 1.0, 2.5)
    dose = plan_dose(plan.astype(bool), spacing)
    assert found["dose"]["measures"]["recurrence_mean_gy"] == pytest.approx(
        dose[recurrence == 3].mean(), rel=1e-4
    )
    assert found["dose"]["measures"]["wm_mean_gy"] == pytest.approx(
        found["dose"]["measures"]["brain_mean_gy"]
    )
    assert "gm_mean_gy" not in found["dose"]["measures"]
    # The brain of 3 ml is too small for painting.
    assert found["dose"]["measures"]["painted_mean_gy"] is None
    assert set(found["dose"]["dvh"]) == {"recurrence", "brain"}
    # All of this small brain is near the core; enhancing and necrotic recurrence is what a probability tells.
    inside = ndimage.binary_fill_holes(brain)
    sums = np.array(found["calibration"]).sum(axis=0)
    came = np.isin(recurrence, (1, 3))[inside]
    told = score[inside] / 4
    assert sums == pytest.approx([told.size, told.sum(), (told**2).sum(), came.sum(), told[came].sum()])
    # Nothing came: no calibration, and doses of the brain alone.
    save(files["recurrence"], np.zeros(SHAPE, np.uint8))
    assert call("evaluate_plan", *evaluate_arguments(files), *more) == (0, "")
    found = measures(files)
    assert "calibration" not in found
    assert found["dose"]["measures"]["recurrence_mean_gy"] is None
    assert found["dose"]["measures"]["brain_mean_gy"] > 0


def test_organs_and_what_is_prescribed(files, call, tmp_path):
    """Organs of the exam folder, on any voxel order; another prescription scales the dose, a sharp edge leaves less."""
    assert call("make_plan", *plan_arguments(files))[0] == 0
    organ = np.zeros(SHAPE, np.uint8)
    organ[-3:, -3:] = 1
    (tmp_path / "exam").mkdir()
    save(tmp_path / "exam" / "sub-1_space-X_label-stem_mask.nii.gz", organ)
    more = ("--score", files["score"], "--tumor-seg", files["tumor"], "--margin", "3", "--dose")
    more = (*more, "--organs", tmp_path / "exam")
    found = []
    for options in ((), ("--prescription", "30"), ("--setup-margin", "0", "--falloff", "1")):
        assert call("evaluate_plan", *evaluate_arguments(files), *more, *options) == (0, "")
        found.append(measures(files)["dose"])
    plan, _ = load_ras(files["plan"])
    mask, _ = load_ras(tmp_path / "exam" / "sub-1_space-X_label-stem_mask.nii.gz")
    dose = plan_dose(plan.astype(bool), (1.2, 1.0, 2.5))
    (row,) = found[0]["organs"]
    assert (row["organ"], row["volume_ml"]) == ("stem", pytest.approx(0.27))
    assert row["mean_gy"] == pytest.approx(dose[mask > 0].mean(), rel=1e-4)
    (half,), (sharp,) = found[1]["organs"], found[2]["organs"]
    for name in ("mean_gy", "d003cc_gy"):
        assert half[name] == pytest.approx(row[name] / 2, rel=1e-4)
        assert sharp[name] < row[name]
    # 95 % of what is prescribed is reached by the same voxels.
    assert found[1]["measures"]["recurrence_v95"] == found[0]["measures"]["recurrence_v95"]
    assert found[1]["measures"]["brain_v95_ml"] == found[0]["measures"]["brain_v95_ml"]


@pytest.mark.parametrize(
    ("option", "value"), [("--prescription", "0"), ("--setup-margin", "-1"), ("--falloff", "0")]
)
def test_what_cannot_be_prescribed(files, call, option, value):
    status, said = call("evaluate_plan", *evaluate_arguments(files), option, value)
    assert status == 2
    assert option in said


def test_a_probability_beyond_one_costs_the_calibration_alone(files, call):
    assert call("make_plan", *plan_arguments(files))[0] == 0
    more = ("--score", files["score"], "--tumor-seg", files["tumor"], "--margin", "3")
    assert call("evaluate_plan", *evaluate_arguments(files), *more) == (0, "")
    undeclared = measures(files)
    assert call("evaluate_plan", *evaluate_arguments(files), *more, "--probability") == (0, "")
    found = measures(files)
    assert "probabilities run from 0 to 3, expected 0 to 1" in found.pop("calibration_reason")
    assert found == undeclared
    assert found["coverage_enhancing"] > 0


def test_options_that_need_the_map_say_so(files, call):
    status, said = call("evaluate_plan", *evaluate_arguments(files), "--dose")
    assert status == 2
    assert "--dose needs --score" in said
