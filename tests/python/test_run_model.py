import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import predictgbm
from predictgbm.exam import SUFFIXES, VOLUMES, file_name
from predictgbm.images import read_image, write_image

ROOT = Path(__file__).resolve().parents[2]
AFFINE = np.diag([-4.0, -4.0, 4.0, 1.0])
PREFIX = "sub-1_ses-1_space-SRI24"
USER_MODEL = '''
import numpy as np
from predictgbm.growth import ModelError, Prediction


def predict(*, tumor_seg, t1c, adc=None, spacing, seed, power=1):
    """A model as docs/add_a_model.md tells to write one."""
    if (tumor_seg == 3).sum() < 3:
        raise ModelError("fewer than 3 enhancing voxels")
    values = np.random.default_rng(seed).random(t1c.shape) + t1c**power
    return Prediction(values if adc is None else adc, {"mm": list(spacing), "mean": float(t1c.mean())})


def uncertain(*, tumor_seg, spacing, seed):
    return Prediction(tumor_seg + 1.0, {}, np.full(tumor_seg.shape, 0.25, np.float32))


def uncertain_elsewhere(*, tumor_seg, spacing, seed):
    return Prediction(tumor_seg + 1.0, {}, np.zeros((3, 3, 3)))


def crash(*, tumor_seg, spacing, seed):
    return tumor_seg[999]


def flat(*, tumor_seg, spacing, seed):
    return Prediction(np.zeros(tumor_seg.shape), {})


def cut(*, tumor_seg, spacing, seed):
    return Prediction(np.zeros((2, 2, 2)), {})


def bare(*, tumor_seg, spacing, seed):
    return np.zeros(tumor_seg.shape)
'''


def command(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"bin/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command within this process; return its status and what it said on stderr."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        status = command(name)()
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def exam(tmp_path):
    """Return a small exam in a folder with a space and letters of other alphabets."""
    folder = tmp_path / "Übung 1 脑"
    rng = np.random.default_rng(0)
    grid = np.indices((16, 18, 14)) - np.array([8, 9, 7]).reshape(3, 1, 1, 1)
    radius = np.sqrt((grid**2).sum(axis=0))
    brain = radius < 7
    seg = np.select([radius < 2, radius < 3, radius < 5], [1, 3, 2], 0).astype(np.uint8)
    for name, data in {
        "brain_mask": brain,
        "tumor_seg": seg,
        "wm": 0.5 * brain,
        "gm": 0.4 * brain,
        "csf": 0.1 * brain,
        "t1c": rng.random(brain.shape),
    }.items():
        array = data if data.dtype in (bool, np.uint8) else data.astype(np.float32)
        write_image(folder / file_name(PREFIX, name), array, AFFINE)
    return folder


@pytest.fixture
def user_model(tmp_path, monkeypatch):
    (tmp_path / "user_model_for_test.py").write_text(USER_MODEL)
    monkeypatch.syspath_prepend(tmp_path)

    def entry(**change):
        base = {
            "name": "mine",
            "title": "Mine",
            "description": "For a test.",
            "citation": "None",
            "inputs": ["tumor_seg", "t1c"],
            "output": "rank",
            "family": "growth",
            "function": "user_model_for_test:predict",
            "cpus": 1,
            "memory": "1 GB",
            "time": "1 min",
        }
        return json.dumps(base | change)

    yield entry
    sys.modules.pop("user_model_for_test", None)


@pytest.mark.parametrize("model", ["soc", "distance", "loti"])
def test_shipped_model_writes_map_and_sidecar(call, exam, tmp_path, model):
    out = tmp_path / "new folder" / f"{PREFIX}_model-{model}_probseg.nii.gz"
    assert call("run_model", "--model", model, "--exam", exam, "--out", out) == (0, "")
    image = nib.load(out)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, AFFINE)
    values = image.get_fdata()
    assert values[8, 9, 7] == values.max()
    sidecar = json.loads((out.parent / f"{PREFIX}_model-{model}_probseg.json").read_text())
    assert sidecar["model"] == model
    assert sidecar["output"] == ("cell_density" if model == "loti" else "rank")
    assert sidecar["spacing_mm"] == [4.0, 4.0, 4.0]
    assert sidecar["version"] == predictgbm.__version__
    assert sidecar["seconds"] >= 0
    read = {"soc": 2, "distance": 1, "loti": 5}[model]
    assert len(sidecar["inputs"]) == read
    assert all((exam / name).exists() for name in sidecar["inputs"].values())


def test_command_line_limits_threads_and_repeats_itself(exam, tmp_path):
    maps = []
    for cpus in ("1", "2"):
        out = tmp_path / f"{cpus}.nii.gz"
        done = subprocess.run(
            [
                sys.executable,
                ROOT / "bin/run_model.py",
                "--model",
                "loti",
                "--exam",
                exam,
                "--out",
                out,
                "--cpus",
                cpus,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        maps.append(out.read_bytes())
    assert maps[0] == maps[1]


def test_user_model_by_entry_gets_what_it_lists(call, exam, tmp_path, user_model):
    out = tmp_path / "m.nii.gz"
    (tmp_path / "entry.json").write_text(user_model(parameters={"power": 2}, optional_inputs=["adc"]))
    entry = str(tmp_path / "entry.json")
    assert (
        call("run_model", "--model", "mine", "--entry", entry, "--exam", exam, "--out", out, "--seed", 7)[0]
        == 0
    )
    t1c = nib.load(exam / file_name(PREFIX, "t1c")).get_fdata(dtype=np.float32)
    expected = np.random.default_rng(7).random(t1c.shape) + t1c**2
    np.testing.assert_array_equal(nib.load(out).get_fdata(dtype=np.float32), expected.astype(np.float32))
    sidecar = json.loads((tmp_path / "m.json").read_text())
    assert sidecar["parameters"] == {"mm": [4.0, 4.0, 4.0], "mean": pytest.approx(float(t1c.mean()))}
    assert sidecar["options"] == {"power": 2}
    assert set(sidecar["inputs"]) == {"tumor_seg", "t1c"}

    adc = np.arange(t1c.size, dtype=np.float32).reshape(t1c.shape)
    write_image(exam / file_name(PREFIX, "adc"), adc, AFFINE)
    call("run_model", "--model", "mine", "--entry", entry, "--exam", exam, "--out", out)
    np.testing.assert_array_equal(nib.load(out).get_fdata(), adc)


def test_spread_is_written_beside_the_map(call, exam, tmp_path, user_model):
    out = tmp_path / "sub-1_model-mine_probseg.nii.gz"
    entry = user_model(inputs=["tumor_seg"], function="user_model_for_test:uncertain")
    assert call("run_model", "--model", "mine", "--entry", entry, "--exam", exam, "--out", out)[0] == 0
    spread = nib.load(tmp_path / "sub-1_model-mine_spread.nii.gz")
    assert np.all(spread.get_fdata() == 0.25)
    np.testing.assert_array_equal(spread.affine, nib.load(out).affine)


@pytest.mark.parametrize(
    ("change", "said", "kind"),
    [
        ({"inputs": ["tumor_seg", "t1c", "adc"]}, "no file for input 'adc'", "missing_input"),
        ({"inputs": ["tumor_seg", "t1c", "pet"]}, "does not take what its entry lists", "refused"),
        ({"function": "user_model_for_test:crash", "inputs": ["tumor_seg"]}, "IndexError", "crashed"),
        (
            {"function": "user_model_for_test:uncertain_elsewhere", "inputs": ["tumor_seg"]},
            "spread of model 'mine' has shape (3, 3, 3)",
            "refused",
        ),
        ({"function": "user_model_for_test:flat", "inputs": ["tumor_seg"]}, "same value, 0", "refused"),
        ({"function": "user_model_for_test:cut", "inputs": ["tumor_seg"]}, r"(2, 2, 2)", "refused"),
        ({"function": "user_model_for_test:bare", "inputs": ["tumor_seg"]}, "returned ndarray", "refused"),
        ({"name": "yours"}, "--entry describes yours", "refused"),
    ],
)
def test_fault_of_a_model_is_an_error_or_a_record(call, exam, tmp_path, user_model, change, said, kind):
    out, failure = tmp_path / "m.nii.gz", tmp_path / "f.json"
    arguments = ["--model", "mine", "--entry", user_model(**change), "--exam", exam, "--out", out]
    status, error = call("run_model", *arguments)
    assert status == 2
    assert said in error
    assert ("Traceback" in error) == (said == "IndexError")
    status, _ = call("run_model", *arguments, "--failure", failure, "--patient", "P 1", "--session", "S1")
    assert status == 0
    record = json.loads(failure.read_text())
    assert said in record.pop("reason")
    identity = {"patient": "P 1", "session": "S1", "model": "mine", "stage": "predict"}
    assert record == identity | {"kind": kind, "analysis": "main"}
    assert not out.exists()


@pytest.mark.parametrize(
    ("model", "inputs", "kind", "said"),
    [
        (
            "touch started; exit 7;",
            "tumor_seg,flair,adc",
            "missing_input",
            "the exam has no flair adc, which",
        ),
        # The image with contrast agent does not stand for the one without.
        ("touch started; exit 7;", "t1,t1c", "missing_input", "the exam has no t1, which"),
        ("touch started; exit 7;", "tumor_seg,t1c", "crashed", "exit status 7"),
        ("kill -9 $$;", "", "lost", "exit status 137"),
        ("true", "", "crashed", "wrote no /mlcube_io1/00000.nii.gz"),
    ],
)
def test_failure_of_a_container_is_told_by_its_kind(exam, tmp_path, model, inputs, kind, said):
    """A program of this machine stands for the container."""
    work = tmp_path / "work"
    work.mkdir()
    script = ROOT / "bin" / "run_container_model.sh"
    subprocess.run(
        [script, "command", model, exam, "map.nii.gz", "f.json", "P 1", "pre", "mine", "cpu", inputs],
        cwd=work,
        check=True,
        capture_output=True,
    )
    record = json.loads((work / "f.json").read_text())
    assert said in record.pop("reason")
    identity = {"patient": "P 1", "session": "pre", "model": "mine", "stage": "predict"}
    assert record == identity | {"kind": kind, "analysis": "main"}
    assert not (kind == "missing_input" and list(work.rglob("started")))


def test_a_container_is_given_every_input_under_its_name(exam, tmp_path):
    for number, name in enumerate(SUFFIXES):
        shape = (16, 18, 14, 6) if name == "tensor" else (16, 18, 14)
        write_image(exam / file_name(PREFIX, name), np.full(shape, number, np.uint8), AFFINE)
    script = ROOT / "bin" / "run_container_model.sh"
    subprocess.run(
        [script, "command", "cp -r", exam, "m", "f.json", "1", "pre", "mine", "cpu", ",".join(SUFFIXES)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    given = tmp_path / "mlcube_io0" / "Patient-00000"
    assert len(list(given.iterdir())) == len(SUFFIXES)
    for number, name in enumerate(SUFFIXES):
        path = given / f"00000-{'tumorseg' if name == 'tumor_seg' else name}.nii.gz"
        assert (read_image(path, volumes=VOLUMES.get(name, 1)).data == number).all()


def test_faults_of_an_exam_are_told(call, exam, tmp_path):
    def error(model="soc", **files):
        for name, array in files.items():
            write_image(exam / file_name(PREFIX, name), array, AFFINE)
        status, text = call("run_model", "--model", model, "--exam", exam, "--out", tmp_path / "m.nii.gz")
        assert status == 2
        assert text.startswith("ERROR: ")
        assert text.count("\n") == 1
        return text

    assert "unknown model socks; known are soc, distance" in error("socks")
    assert "no core" in error(tumor_seg=np.full((16, 18, 14), 2, np.uint8))
    assert "unknown label 7" in error(tumor_seg=np.full((16, 18, 14), 7, np.uint8))
    assert "not on one grid" in error(tumor_seg=np.ones((16, 18, 15), np.uint8))
    (exam / file_name(PREFIX, "wm")).unlink()
    write_image(exam / file_name(PREFIX, "tumor_seg"), np.ones((16, 18, 14), np.uint8), AFFINE)
    assert "no file for input 'wm'" in error("loti")
    (exam / file_name(PREFIX, "brain_mask")).unlink()
    assert "no file for input 'brain_mask'" in error()


@pytest.mark.parametrize("arguments", [[], ["--model", "soc"], ["--cpus", "0"], ["--out", "map.png"]])
def test_wrong_arguments_end_with_usage(call, exam, tmp_path, capsys, arguments):
    full = {"--model": "soc", "--exam": exam, "--out": tmp_path / "m.nii.gz"}
    full |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    if arguments in ([], ["--model", "soc"]):
        full = {key: value for key, value in full.items() if key in arguments}
    with pytest.raises(SystemExit) as caught:
        call("run_model", *[str(x) for pair in full.items() for x in pair])
    assert caught.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_check_map_turns_a_map_to_the_exam(call, exam, tmp_path):
    values = np.random.default_rng(1).random((16, 18, 14))
    affine = AFFINE @ np.array([[-1, 0, 0, 15], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(values[::-1, :, :, None], affine), tmp_path / "given.nii.gz")
    out = tmp_path / "checked.nii.gz"
    assert call("check_map", "--map", tmp_path / "given.nii.gz", "--exam", exam, "--out", out) == (0, "")
    image = nib.load(out)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), values.astype(np.float32))


def test_check_map_refuses_another_grid_with_both_names(call, exam, tmp_path):
    given, out, failure = tmp_path / "given.nii.gz", tmp_path / "c.nii.gz", tmp_path / "f.json"
    write_image(given, np.random.default_rng(1).random((16, 18, 14)), np.eye(4))
    arguments = ["--map", given, "--exam", exam, "--out", out]
    status, error = call("check_map", *arguments)
    assert status == 2
    assert str(given) in error
    assert file_name(PREFIX, "brain_mask") in error
    status, _ = call(
        "check_map", *arguments, "--failure", failure, "--patient", "1", "--session", "2", "--model", "ext"
    )
    assert status == 0
    assert json.loads(failure.read_text())["model"] == "ext"
    assert not out.exists()


def test_commands_that_need_no_compiler_do_not_load_one():
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        "try: runpy.run_path({path!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import predictgbm.models, predictgbm.growth.soc, predictgbm.growth.distance\n"
        "heavy = {{'numba', 'pandas', 'matplotlib', 'scipy.stats', 'jsonschema', 'yaml'}} & set(sys.modules)\n"
        "sys.exit(f'loaded {{heavy}}' if heavy else 0)"
    )
    for name in ("run_model", "check_map"):
        script = code.format(path=str(ROOT / f"bin/{name}.py"))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
