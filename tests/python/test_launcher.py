"""The launcher: what it takes from the machine, what it fetches, and that it stays out of Nextflow's way."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from conftest import LAUNCHER, ROOT, wait_until

LOCKS = ROOT / "launcher" / "locks"
HELLO = """
params.word  = 'hello'
params.pause = 0

process GREET {
    input:
    val word

    output:
    stdout

    script:
    "sleep ${params.pause}; echo ${word} from `which python3`; test ${word} != fail"
}

workflow {
    GREET(channel.of(params.word)).view()
}
"""


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The launcher's commands, as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "launcher"))
    import commands

    return commands


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A pipeline of one task, in a folder with a space and an accent in its name."""
    folder = tmp_path / "ma tête"
    folder.mkdir()
    (folder / "main.nf").write_text(HELLO)
    return folder


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH with the system's programs, but neither Java nor Nextflow."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for system in ("/usr/bin", "/bin"):
        for found in Path(system).iterdir():
            if (
                not found.name.startswith(("java", "nextflow", "python"))
                and not (folder / found.name).exists()
            ):
                (folder / found.name).symlink_to(found)
    (folder / "python3").symlink_to(sys._base_executable)  # type: ignore[attr-defined]
    return folder


def start(*arguments: object, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in {"NXF_VER", "NXF_JAVA_HOME", "NXF_SYNTAX_PARSER"}}
    return subprocess.run(
        [LAUNCHER, *map(str, arguments)],
        cwd=cwd,
        env=env | {"NXF_ANSI_LOG": "false"} | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def jdk(folder: Path, version: str, java: str = "exit 0") -> Path:
    """Make what the launcher looks at of a Java installation; returns its ``java``."""
    program(folder / "bin" / "java", java)
    (folder / "release").write_text(f'IMPLEMENTOR="Test"\nJAVA_VERSION="{version}"\n')
    return folder / "bin" / "java"


# Words


def test_help_names_every_command() -> None:
    for arguments in ([], ["--help"]):
        done = start(*arguments)
        assert done.returncode == 0
        for command in ("demo", "run", "leaderboard", "check-model", "test", "setup", "nextflow"):
            assert f"./predictgbm {command}" in done.stdout


def test_unknown_command_is_refused_with_those_there_are() -> None:
    done = start("runn")
    assert done.returncode == 2
    assert "no command 'runn'" in done.stderr
    assert "demo, run, leaderboard, check-model, test" in done.stderr


@pytest.mark.parametrize(
    ("word", "program"), [("leaderboard", "build_leaderboard.py"), ("check-model", "check_model.py")]
)
def test_a_command_of_bin_starts_in_the_environment(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, word: str, program: str
) -> None:
    programs = Path(sys.executable).parent
    monkeypatch.setattr(launcher.python_env, "prepare", lambda: programs)
    started = []
    monkeypatch.setattr(launcher, "hand_over", lambda *call: started.append(call) or 0)
    assert launcher.COMMANDS[word](["a b", "--out", "x"]) == 0
    command, env = started[0]
    assert command == [str(programs / "python"), str(ROOT / "bin" / program), "a b", "--out", "x"]
    assert env["PATH"].startswith(str(programs))
    assert os.access(ROOT / "bin" / program, os.X_OK)


def test_no_python_that_fits_says_which_to_install(tmp_path: Path) -> None:
    old = program(tmp_path / "python3", "exit 1")
    done = start("setup", PREDICTGBM_PYTHON=str(old))
    assert done.returncode == 1
    assert "no Python 3.10 or later" in done.stderr
    assert str(old) in done.stderr
    assert "apt-get install python3" in done.stderr


def test_cache_that_cannot_be_made_names_the_variable() -> None:
    done = start("setup", PREDICTGBM_CACHE="/proc/predictgbm")
    assert done.returncode == 1
    assert "PREDICTGBM_CACHE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_step_shows_the_command_and_what_it_printed(launcher: ModuleType) -> None:
    with pytest.raises(launcher.SetupError, match=r"(?s)status 4.*sh -c.*the reason"):
        launcher.run_step(["sh", "-c", "echo the reason; exit 4"])
    with pytest.raises(launcher.SetupError, match="could not start /no/such/program"):
        launcher.run_step(["/no/such/program"])


# Choice of Java


@pytest.mark.parametrize(
    ("text", "major"), [("17.0.15", 17), ("24", 24), ("25.0.1", 25), ("1.8.0_292", 8), ("21.0.8+9", 21)]
)
def test_java_version_is_read_without_starting_it(
    launcher: ModuleType, tmp_path: Path, text: str, major: int
) -> None:
    assert launcher.nextflow.java.version(jdk(tmp_path, text, "exit 1")) == major


def test_java_without_a_release_file_is_asked(launcher: ModuleType) -> None:
    real = shutil.which("java")
    if real is None:
        pytest.skip("needs a Java on PATH")
    answer = subprocess.run([real, "-version"], capture_output=True, text=True).stderr
    expected = re.search(r'version "(\d+)', answer)
    assert expected is not None
    assert launcher.nextflow.java.version(Path(real)) == int(expected[1])


@pytest.mark.parametrize(
    ("home", "path", "chosen"), [("17", "21", "home"), ("25", "21", "path"), ("11", "24", "path")]
)
def test_java_home_comes_first_where_it_fits(
    launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, path: str, chosen: str
) -> None:
    javas = {"home": jdk(tmp_path / "home", home), "path": jdk(tmp_path / "path", path)}
    monkeypatch.delenv("NXF_JAVA_HOME", raising=False)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path" / "bin"))
    assert launcher.nextflow.java.find() == javas[chosen]


@pytest.mark.network
@pytest.mark.parametrize("unfit", [None, "25.0.1"])
def test_packaged_java_runs_nextflow_where_the_machine_has_none(
    bare_path: Path, hello: Path, tmp_path: Path, unfit: str | None
) -> None:
    if unfit:
        jdk(tmp_path / "jdk", unfit)
        (bare_path / "java").symlink_to(tmp_path / "jdk" / "bin" / "java")
    done = start("nextflow", "run", "main.nf", cwd=hello, PATH=str(bare_path), JAVA_HOME="")
    assert done.returncode == 0, done.stderr
    assert "hello from" in done.stdout
    if "fetching a Java runtime" in done.stderr and unfit:
        assert "version 25" in done.stderr


# Choice of Nextflow


def test_nextflow_of_path_is_used_and_its_status_passed_on(
    hello: Path, tmp_path: Path, bare_path: Path
) -> None:
    shown = start("nextflow", "-version")
    assert shown.returncode == 0
    # A real Nextflow on PATH, that leaves a mark when it is the one started.
    itself = f'PATH={shlex.quote(os.environ["PATH"])} exec {LAUNCHER} nextflow "$@"'
    program(bare_path / "nextflow", f'echo "$@" >> {tmp_path}/calls; {itself}')
    path = os.pathsep.join([str(bare_path), os.environ["PATH"]])
    done = start("nextflow", "run", "main.nf", "--word", "fail", cwd=hello, PATH=path)
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "calls").read_text().splitlines() == ["-version", "run main.nf --word fail"]
    # The answer to -version is kept.
    assert start("nextflow", "run", "main.nf", cwd=hello, PATH=path).returncode == 0
    assert (tmp_path / "calls").read_text().count("-version") == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("echo '      version 23.10.1 build 5891'", "is version 23.10.1, 24.10 or later"),
        ("exit 1", "does not start"),
    ],
)
def test_nextflow_of_path_that_is_old_or_broken_is_passed_over(
    bare_path: Path, hello: Path, answer: str, reason: str
) -> None:
    program(bare_path / "nextflow", answer)
    path = os.pathsep.join([str(bare_path), os.environ["PATH"]])
    done = start("nextflow", "run", "main.nf", cwd=hello, PATH=path)
    assert done.returncode == 0, done.stderr
    assert reason in done.stderr
    assert "hello from" in done.stdout


@pytest.mark.network
def test_nxf_ver_chooses_among_those_that_can_be_fetched() -> None:
    assert "version 25.04.4" in start("nextflow", "-version", NXF_VER="25.04.4").stdout
    refused = start("nextflow", "-version", NXF_VER="22.04.0")
    if shutil.which("nextflow") is None:
        assert refused.returncode == 1
        assert "24.10.0, 25.04.0, 25.04.4" in refused.stderr


# Handing over


def test_run_hands_over_in_the_users_folder_with_the_environments_python(hello: Path) -> None:
    done = start("nextflow", "run", "main.nf", "--word", "bonjour", cwd=hello)
    assert done.returncode == 0, done.stderr
    assert f"bonjour from {ROOT}/.venv/bin/python3" in done.stdout
    assert (hello / "work").is_dir()
    assert (
        "Cached process > GREET"
        in start("nextflow", "run", "main.nf", "--word", "bonjour", "-resume", cwd=hello).stdout
    )


def test_no_more_than_a_second_is_spent_before_nextflow_starts(tmp_path: Path) -> None:
    # Time of processor, not of the clock: the machine may be busy with other things.
    jdk(tmp_path, "17.0.1", "exit 0")
    variables = {"NXF_JAVA_HOME": str(tmp_path), "NXF_VER": "24.10.0"}
    assert start("nextflow", "-version", **variables).returncode == 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert start("nextflow", "-version", **variables).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_ctrl_c_ends_the_run(hello: Path) -> None:
    process = subprocess.Popen(
        [LAUNCHER, "nextflow", "run", "main.nf", "--pause", "120", "-ansi-log", "false"],
        cwd=hello,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: bool(list(hello.glob("work/*/*/.command.begin"))), "the task starts")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert list(hello.glob("work/*/*/.exitcode")) == [] or "SIGINT" in (hello / ".nextflow.log").read_text()


def test_the_atlas_is_prepared_in_the_space_asked_for(
    launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREDICTGBM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PREDICTGBM_ATLAS", raising=False)
    calls: list[list[object]] = []
    monkeypatch.setattr(launcher, "run_step", lambda command, **_: calls.append(command))
    Path("given.yml").write_text("outdir: here\natlas_space: MNI152 # as BraTS 2024\n")
    Path("given.json").write_text('{"atlas_space": "MNI152"}')
    Path("given.config").write_text("params.atlas_space = 'MNI152'\n")
    ways = (
        ["--atlas_space", "MNI152"],
        *(["-params-file", name] for name in ("given.yml", "given.json")),
        ["-c", "given.config"],
    )
    for arguments in ways:
        assert launcher.parameter(arguments, "atlas_space") == "MNI152"
        assert launcher.parameter(arguments, "atlas") is None
    folders = [launcher.atlas(space) for space in (None, "SRI24", "MNI152")]
    assert [folder.name for folder in folders] == ["SRI24-4", "SRI24-4", "MNI152-4"]
    assert [command[command.index("--space") + 1] for command in calls] == ["SRI24", "MNI152"]
    with pytest.raises(launcher.SetupError, match=r"'MNI' is not one of SRI24, MNI152.*--atlas"):
        launcher.atlas("MNI")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--atlas", "folder"], True),
        (["--atlas=folder"], True),
        (["--input", "--atlas-like"], False),
        (["-params-file", "given.yml"], True),
        (["-params-file", "given.json"], True),
        (["-c", "given.config"], True),
        (["-params-file", "other.yml"], False),
        (["-params-file", "absent.yml"], False),
    ],
)
def test_an_atlas_of_the_user_is_left_alone(
    launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("given.yml").write_text("outdir: here\natlas: /some/folder\n")
    Path("given.json").write_text('{"outdir": "here",\n "atlas": "/some/folder"}\n')
    Path("given.config").write_text("params {\n    atlas = '/some/folder'\n}\n")
    Path("other.yml").write_text("outdir: here # not the atlas: that one is made\n")
    assert (launcher.parameter(arguments, "atlas") is not None) is named


def test_last_value_of_an_option_counts(launcher: ModuleType) -> None:
    assert launcher.option(["--outdir", "a", "--outdir=b"], "--outdir") == "b"
    assert launcher.option(["--outdir"], "--outdir") is None
    assert launcher.option([], "--outdir") is None


def test_tasks_are_measured_on_a_machine_without_ps(bare_path: Path, hello: Path) -> None:
    java = shutil.which("java")
    if java is None:
        pytest.skip("needs a Java on PATH")
    (bare_path / "java").symlink_to(java)
    (bare_path / "ps").unlink()
    done = start(
        "nextflow", "run", "main.nf", "--pause", "2", "-with-trace", "trace", cwd=hello, PATH=str(bare_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    header, values = (line.split("\t") for line in (hello / "trace").read_text().splitlines())
    assert dict(zip(header, values, strict=True))["peak_rss"].endswith("MB")


def test_stand_in_for_ps_lists_what_ps_lists() -> None:
    words = ["-e", "-o", "pid=", "-o", "ppid="]
    program = ROOT / "launcher" / "programs" / "ps"
    child = subprocess.Popen(["sleep", "60"])
    try:
        own = subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout
        real = subprocess.run(["ps", *words], capture_output=True, text=True, check=True).stdout
    finally:
        child.kill()
        child.wait()
    pairs = [{tuple(line.split()) for line in text.splitlines()} for text in (own, real)]
    assert (str(child.pid), str(os.getpid())) in pairs[0]
    # Other processes come and go between the two.
    assert len(pairs[0] & pairs[1]) > 0.5 * len(pairs[1])


# Cache


def test_a_folder_of_the_cache_is_made_once_by_two_starts_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from storage import made_once\n"
        "with made_once(Path(sys.argv[2])) as folder:\n"
        "    if folder is not None:\n"
        "        time.sleep(1); (folder / str(os.getpid())).touch()\n"
        "assert len(list(Path(sys.argv[2]).iterdir())) == 1\n"
    )
    target = tmp_path / "made"
    command = [sys.executable, "-c", code, str(ROOT / "launcher"), str(target)]
    env = os.environ | {"PREDICTGBM_CACHE": str(tmp_path / "cache")}
    both = [subprocess.Popen(command, env=env) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "cache", target]


def test_a_folder_whose_making_failed_is_not_there(
    launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREDICTGBM_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "sub" / "made"

    def fail() -> None:
        with launcher.made_once(target) as folder:
            (folder / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "sub").iterdir()) == []


@pytest.mark.network
def test_a_jar_with_another_checksum_is_refused(launcher: ModuleType, tmp_path: Path) -> None:
    _, coordinate = next(
        line.split()
        for line in (LOCKS / "nextflow-24.10.0.jars").read_text().splitlines()
        if "failureaccess" in line
    )
    (tmp_path / "list").write_text(f"{'0' * 64}  {coordinate}\n")
    (tmp_path / "jars").mkdir()
    resolver = launcher.nextflow.tool("jgo", "fetching jgo")
    done = subprocess.run(
        [sys.executable, ROOT / "launcher" / "fetch_jars.py", tmp_path / "list", tmp_path / "jars"],
        env=os.environ | {"PYTHONPATH": str(resolver)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert f"{coordinate}: not fetched" in done.stderr
    assert "expected 0000" in done.stderr
    assert list((tmp_path / "jars").iterdir()) == []


# Lock files


def pinned(lock: Path) -> set[str]:
    """Lines ``name==version ; marker`` of a lock file."""
    text = re.sub(r"\s*\\\n.*?(?=\n[A-Za-z0-9#]|\Z)", "", lock.read_text(), flags=re.DOTALL)
    return {line.strip() for line in text.splitlines() if line and not line.startswith("#")}


def names(lines: set[str]) -> set[str]:
    return {re.split(r"[=<> ;\[]", line)[0].lower().replace("_", "-") for line in lines}


def test_lock_files_agree_with_each_other_and_with_the_project() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, dev = pinned(ROOT / "requirements.lock"), pinned(ROOT / "requirements-dev.lock")
    growth = pinned(ROOT / "containers" / "growth" / "requirements.lock")
    assert names(set(project["dependencies"])) <= names(base)
    assert names(set(project["optional-dependencies"]["dev"])) <= names(dev)
    versions = {line.split(" ;")[0] for line in base}
    assert versions <= {line.split(" ;")[0] for line in dev}
    assert {line.split(" ;")[0] for line in growth} <= versions


def test_lock_files_pin_by_checksum_and_name_no_host() -> None:
    locks = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock", *LOCKS.iterdir()]
    locks += (ROOT / "containers").glob("*/requirements.lock")
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text, lock
        if lock.suffix == ".jars":
            lines = text.splitlines()
            assert all(re.fullmatch(r"[0-9a-f]{64}  [\w.-]+:[\w.-]+:[\w.-]+", line) for line in lines), lock
            coordinates = [line.split()[1].rsplit(":", 1)[0] for line in lines]
            assert len(set(coordinates)) == len(coordinates), lock
        else:
            assert text.count("--hash=sha256:") >= len(pinned(lock)) > 0, lock


# Environment


@pytest.mark.network
def test_environment_without_venv_of_python_gets_pip_from_debian(tmp_path: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("needs apt-get and dpkg-deb")
    shutil.copytree(ROOT / "launcher", tmp_path / "launcher")
    done = subprocess.run(
        [sys._base_executable, "-c", "import python_env; python_env._with_debian_wheel()"],  # type: ignore[attr-defined]
        cwd=tmp_path / "launcher",
        env=os.environ | {"PREDICTGBM_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pip = subprocess.run(
        [tmp_path / ".venv" / "bin" / "python", "-m", "pip", "--version"], capture_output=True, text=True
    )
    assert str(tmp_path / ".venv") in pip.stdout


def test_environment_is_up_to_date_and_its_stamp_says_from_what() -> None:
    stamp = json.loads((ROOT / ".venv" / "predictgbm-stamp.json").read_text())
    assert stamp["root"] == str(ROOT)
    begin = time.monotonic()
    done = start("nextflow", "-version")
    assert "installing the Python packages" not in done.stderr
    assert time.monotonic() - begin < 60


# PyTorch


SHEET = "patient,session,role,days,space,dicom,t1,t1c,t2,flair,brain_mask,registered_seg\n"
IMAGES = "a.nii.gz,b.nii.gz,c.nii.gz,d.nii.gz"


@pytest.mark.parametrize(
    ("row", "options", "needed"),
    [
        (f"1,pre,preop,0,SRI24,,{IMAGES},,", [], False),
        (f"1,pre,preop,0,,,{IMAGES},,", [], False),
        (f"1,pre,preop,0,native,,{IMAGES},,", [], True),
        (f"1,pre,preop,0,native,,{IMAGES},brain.nii.gz,", [], False),
        ("1,pre,preop,0,,scans,,,,,,", [], True),
        ("1,pre,preop,0,,,s/t1,s/t1c,s/t2,s/flair,,", [], True),
        ("1,fu,followup,90,,,,,,,,registered.nii.gz", [], False),
        (f"1,pre,preop,0,native,,{IMAGES},,", ["--brain_extraction", "atlas"], False),
        (f"1,pre,preop,0,native,,{IMAGES},,", ["-profile", "slurm,apptainer"], False),
        (f"1,pre,preop,0,native,,{IMAGES},,", ["-profile", "slurm"], True),
    ],
)
def test_hd_bet_is_installed_where_raw_exams_have_no_brain_mask(
    launcher: ModuleType, tmp_path: Path, row: str, options: list[str], needed: bool
) -> None:
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(SHEET + row + "\n")
    families = {"hdbet"} if needed else set()
    assert launcher.needed_families(["--input", str(sheet), *options]) == families
    settings = tmp_path / "params.yml"
    settings.write_text(f"input: {sheet}\n")
    assert launcher.needed_families(["-params-file", str(settings), *options]) == families


def test_simulated_raw_exams_need_hd_bet_and_their_demo_does_not(launcher: ModuleType) -> None:
    assert launcher.needed_families(["--simulate", "2", "--simulate_raw"]) == {"hdbet"}
    assert launcher.needed_families(["--simulate", "2", "--simulate_dicom", "true"]) == {"hdbet"}
    assert not launcher.needed_families(["--simulate", "2", "--simulate_raw", "false"])
    assert not launcher.needed_families(["-profile", "raw_demo"])
    assert not launcher.needed_families(["--simulate", "2"])


def test_results_of_older_code_are_told_on_resume(
    launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher.check_cache(["-resume"])
    launcher.check_cache(["-resume"])
    assert capsys.readouterr().err == ""
    (tmp_path / ".nextflow" / "predictgbm-sources").write_text("older")
    for _ in range(2):
        launcher.check_cache(["-resume"])
        assert "the code below src has changed since" in capsys.readouterr().err
    launcher.check_cache([])
    launcher.check_cache(["-resume"])
    assert capsys.readouterr().err == ""


def test_training_needs_torch_unless_nothing_is_computed(launcher: ModuleType) -> None:
    assert launcher.needed_families(["--train", "lmi"]) == {"hdbet"}
    assert not launcher.needed_families(["--train", "lmi", "-stub-run"])
    assert not launcher.needed_families(["--train", "lmi", "-profile", "apptainer"])
    assert launcher.needed_families(["--train", "unet", "--simulate", "9"]) == {"learning"}


def test_networks_of_a_training_need_what_trained_them(launcher: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "lmi").mkdir()
    (tmp_path / "lmi" / "lmi.json").touch()
    options = ["--simulate", "2", "--weights", str(tmp_path)]
    assert not launcher.needed_families(options)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "card.json").touch()
    assert launcher.needed_families(options) == {"learning"}


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (["--registration", "convexadam"], True),
        (["--registration", "convexadam", "-profile", "raw_demo"], True),
        (["--registration", "convexadam", "-profile", "podman"], False),
        (["--registration=dirac", "--dirac_weights=w.pth"], True),
        (["--registration", "dirac"], False),
        (["--sensitivity_registrations", "rigid,convexadam"], True),
        (["--sensitivity_registrations=dirac", "--dirac_weights", "w.pth"], True),
        (["--sensitivity_registrations", "rigid,dirac"], False),
        (["--registration", "ncc", "--dirac_weights", "w.pth"], False),
    ],
)
def test_registration_by_convexadam_and_by_diracs_network_needs_torch(
    launcher: ModuleType, options: list[str], needed: bool
) -> None:
    assert launcher.needed_families(["--simulate", "2", *options]) == ({"hdbet"} if needed else set())
