"""predictgbm: sets up what is missing, then hands over to Nextflow or to the tests.

Usage
  ./predictgbm demo [options]        set up, then run the benchmark on the simulated cohort of six patients
  ./predictgbm run [options]         set up, then `nextflow run` this pipeline with all the options given
  ./predictgbm leaderboard DIR...    merge the results of several runs into one static site (--out SITE)
  ./predictgbm check-model MODEL     whether an image, a command or a submission.yml can take part, and what is wrong
  ./predictgbm test [options]        set up for development, then run every test (options go to pytest)
  ./predictgbm setup [options]       only set up (Python packages, Java, Nextflow, atlas); --hdbet: HD-BET,
                                     convexAdam and PyTorch too; --learning: PyTorch, MONAI and what else trains
                                     models; --atlas_space MNI152: the atlas in that space
  ./predictgbm nextflow [arguments]  the Nextflow that the pipeline uses, with any arguments
  ./predictgbm --help                this text

Options of the pipeline: ./predictgbm run --help; examples and files: docs/usage.md

Variables
  PREDICTGBM_CACHE   folder for what is fetched or made once     (default: ~/.cache/predictgbm)
  PREDICTGBM_PYTHON  Python interpreter to build .venv with      (default: python3, 3.10 or later)
  PREDICTGBM_ATLAS   prepared atlas folder to use                (default: made in the cache)
  NXF_VER            version of Nextflow                         (default: that on PATH, else 24.10.0)
  JAVA_HOME          Java to run Nextflow on, 17 to 24           (default: that on PATH, else fetched)
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nextflow
import python_env
from console import SetupError, run_step, say, step
from storage import ROOT, cache_folder, digest, made_once

#: Spaces whose atlas is prepared by their name; the first where none is asked for.
ATLAS_SPACES = ("SRI24", "MNI152")
#: Where the demo publishes, in the folder it is started from.
DEMO_RESULTS = "results/demo"


def base_environment(programs: Path) -> dict[str, str]:
    """Return the variables for all that is started: the environment's programs first on PATH."""
    env = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    env |= {
        "PATH": f"{programs}{os.pathsep}{env.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(programs.parent),
        "PYTHONNOUSERSITE": "1",
    }
    if shutil.which("ps") is None:
        # Nextflow needs it to measure tasks; a small Debian system has none.
        env["PATH"] += f"{os.pathsep}{ROOT / 'launcher' / 'programs'}"
    env.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))
    return env


def atlas(space: str | None) -> Path:
    """Return the folder of the prepared atlas in a space (None: the default), made on first use."""
    given = os.environ.get("PREDICTGBM_ATLAS")
    if given:
        if not Path(given).is_dir():
            raise SetupError(f"PREDICTGBM_ATLAS names {given}, which is not a folder")
        return Path(given).absolute()
    space = space or ATLAS_SPACES[0]
    if space not in ATLAS_SPACES:
        raise SetupError(
            f"--atlas_space: '{space}' is not one of {', '.join(ATLAS_SPACES)}; for an atlas of your own "
            "give its folder by --atlas, too"
        )
    # The number is that of the folder's layout and of what is derived for it.
    target = cache_folder() / "atlas" / f"{space}-4"
    with made_once(target) as folder:
        if folder is not None:
            with step(f"preparing the {space} atlas (60 MB)"):
                run_step(
                    [
                        python_env.VENV / "bin" / "python",
                        ROOT / "bin" / "prepare_atlas.py",
                        *("--space", space, "--out", folder),
                    ],
                    env=base_environment(python_env.VENV / "bin"),
                    progress=str.strip,
                )
    return target


def compile_kernels(env: dict[str, str]) -> None:
    """Compile the numerical kernels once for this clone and version of the sources.

    Every task then loads the same machine code: code compiled in place rounds otherwise in the last digit.
    """
    package = ROOT / "src" / "predictgbm"
    sources = sorted([*(package / "growth").glob("*.py"), *(package / "registration").glob("*.py")])
    clone = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
    with made_once(cache_folder() / "kernels" / f"{clone}-{digest(*sources)}") as folder:
        if folder is not None:
            with step("compiling the numerical kernels"):
                run_step(
                    [python_env.VENV / "bin" / "python", ROOT / "containers" / "growth" / "compile.py"],
                    env=env,
                    progress=str.strip,
                )


def option(arguments: list[str], name: str) -> str | None:
    """Return the last value given for an option, written ``--name value`` or ``--name=value``."""
    found = None
    for position, word in enumerate(arguments):
        if word == name and position + 1 < len(arguments):
            found = arguments[position + 1]
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


def parameter(arguments: list[str], name: str) -> str | None:
    """Return what the user gives for a parameter: as an option, or in a file of parameters or settings."""
    given = option(arguments, f"--{name}")
    if given is not None:
        return given
    for kind in ("-params-file", "-c", "-config", "-C"):
        file = option(arguments, kind)
        if file and Path(file).is_file():
            text = Path(file).read_text(errors="replace")
            value = r"""[^\s"',}]*(?:,(?!\w+\s*:)[^\s"',}]+)*"""
            line = rf"""^[\s{{,]*["']?(?:params\.)?{name}["']?\s*[:=]\s*["']?({value})"""
            if found := re.findall(line, text, re.MULTILINE):
                return str(found[-1])
    return None


def flag(arguments: list[str], name: str) -> bool:
    """Return whether the user has switched a parameter on."""
    value = parameter(arguments, name)
    return value == "true" or (f"--{name}" in arguments and value != "false")


def needed_families(arguments: list[str]) -> set[str]:
    """Return which further packages, by their image, a run on this machine's own programs needs."""
    profiles = set((option(arguments, "-profile") or "").split(","))
    if profiles & {
        "docker",
        "podman",
        "apptainer",
        "singularity",
        "k8s",
        "awsbatch",
        "googlebatch",
    }:
        return set()
    if {"-stub", "-stub-run"} & set(arguments):
        return set()
    needed = {"hdbet"} if needs_torch(arguments, profiles) else set()
    train, weights = parameter(arguments, "train"), parameter(arguments, "weights")
    if train == "lmi":
        needed.add("hdbet")
    elif train or (weights and next(Path(weights).glob("*/card.json"), None)):
        needed.add("learning")
    return needed


def needs_torch(arguments: list[str], profiles: set[str]) -> bool:
    """Return whether raw exams need PyTorch: for their brain by HD-BET, or for convexAdam's or DIRAC's registration."""
    others = (parameter(arguments, "sensitivity_registrations") or "").split(",")
    registrations = {parameter(arguments, "registration"), *others}
    if "convexadam" in registrations:
        return True
    if "dirac" in registrations and parameter(arguments, "dirac_weights") is not None:
        return True
    if "raw_demo" in profiles or parameter(arguments, "brain_extraction") == "atlas":
        return False
    if flag(arguments, "simulate_raw") or flag(arguments, "simulate_dicom"):
        return True
    sheet = Path(parameter(arguments, "input") or "")
    if not sheet.is_file():
        return False
    lines = sheet.read_text(errors="replace").splitlines()
    rows = csv.DictReader(lines, delimiter="\t" if lines and "\t" in lines[0] else ",", skipinitialspace=True)
    images = ("t1", "t1c", "t2", "flair")

    def is_raw(row: dict[str, str | None]) -> bool:
        folder = any(not (row.get(c) or ".nii").strip().endswith((".nii", ".nii.gz")) for c in images)
        return (row.get("space") or "").strip() == "native" or bool(row.get("dicom")) or folder

    return any(is_raw(row) and not (row.get("brain_mask") or row.get("registered_seg")) for row in rows)


def check_writable(outdir: str) -> None:
    """Make the results folder, or say why it cannot be: Nextflow's own word for it comes from deep inside."""
    if "://" in outdir:
        return
    try:
        Path(outdir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=outdir):
            pass
    except OSError as error:
        raise SetupError(
            f"cannot write to the results folder {outdir} ({error.strerror}); choose another by --outdir, "
            "or ask for the right to write there"
        ) from error


def check_cache(arguments: list[str]) -> None:
    """Say so where a run goes on with what another version of the code has computed: Nextflow cannot see that."""
    sources = digest(*sorted((ROOT / "src" / "predictgbm").rglob("*.py")))
    note = Path(".nextflow", "predictgbm-sources")
    if "-resume" not in arguments or not note.is_file():
        # Where nothing can be written, Nextflow itself says so.
        with contextlib.suppress(OSError):
            note.parent.mkdir(exist_ok=True)
            note.write_text(sources)
    elif note.read_text() != sources:
        say(
            "the code below src has changed since the results in this folder were begun; -resume keeps what the old "
            "code has computed, without -resume all is computed again"
        )


def pipeline_command(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return command and variables of ``nextflow run`` on this pipeline."""
    programs = python_env.prepare()
    engine = nextflow.find()
    arguments = ["-resume" if word == "--resume" else word for word in arguments]
    outdir = option(arguments, "--outdir")
    if outdir is not None:
        check_writable(outdir)
    if not {"--help", "-h", "-help"} & set(arguments) and parameter(arguments, "atlas") is None:
        arguments += ["--atlas", str(atlas(parameter(arguments, "atlas_space")))]
    arguments = ["run", str(ROOT / "main.nf"), *arguments]
    env = base_environment(programs) | engine.environment | nextflow.environment(arguments)
    if not {"--help", "-h", "-help"} & set(arguments):
        check_cache(arguments)
        compile_kernels(env)
        for family in sorted(needed_families(arguments)):
            python_env.add(family)
    return [*engine.command, *arguments], env


def hand_over(command: list[str], env: dict[str, str]) -> int:
    """Become the command: its exit status, its signals and its terminal are the user's own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, env)


def wait_for(command: list[str], env: dict[str, str], cwd: Path | None = None) -> int:
    """Run a command to its end, leaving Ctrl-C to it, and return its exit status as a shell would."""
    process = subprocess.Popen(command, env=env, cwd=cwd)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        status = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return status if status >= 0 else 128 - status


def run(arguments: list[str]) -> int:
    """Run the pipeline with the user's options."""
    return hand_over(*pipeline_command(arguments))


def demo(arguments: list[str]) -> int:
    """Run the pipeline on the simulated cohort, then show the headline."""
    start = time.time()
    profiles = option(arguments, "-profile")
    if profiles is not None:
        place = next(i for i, word in enumerate(arguments) if word.startswith("-profile"))
        width = 1 if "=" in arguments[place] else 2
        arguments = arguments[:place] + arguments[place + width :]
    results = Path(option(arguments, "--outdir") or DEMO_RESULTS)
    given = [] if option(arguments, "--outdir") else ["--outdir", DEMO_RESULTS]
    command, env = pipeline_command(
        ["-profile", ",".join(["demo", *filter(None, [profiles])]), *given, *arguments]
    )
    say(f"set up in {time.time() - start:.0f} s; starting the benchmark of six simulated patients")
    status = wait_for(command, env)
    report = (results / "multiqc" / "multiqc_report.html").absolute()
    if not report.exists() or report.stat().st_mtime < start:
        return status
    tables = results / "tables"
    if tables.is_dir():
        wait_for(
            [
                shutil.which("python3", path=env["PATH"]) or "python3",
                str(ROOT / "bin/print_headline.py"),
                str(tables),
            ],
            env,
        )
    say(f"finished in {time.time() - start:.0f} s. The report, to open in a browser:")
    print(report, flush=True)
    return status


def script(name: str, arguments: list[str]) -> int:
    """Run a command of bin/ in the project's environment."""
    programs = python_env.prepare()
    return hand_over(
        [str(programs / "python"), str(ROOT / "bin" / name), *arguments], base_environment(programs)
    )


def leaderboard(arguments: list[str]) -> int:
    """Merge the results of several runs into one site."""
    return script("build_leaderboard.py", arguments)


def check_model(arguments: list[str]) -> int:
    """Check whether a model can take part."""
    return script("check_model.py", arguments)


def test(arguments: list[str]) -> int:
    """Run the nf-test files where nf-test is on PATH, then pytest."""
    programs = python_env.prepare(dev=True)
    engine = nextflow.find()
    env = base_environment(programs) | engine.environment
    # Programs that call Nextflow themselves (nf-test, nf-core) look for it on PATH.
    env["PATH"] = os.pathsep.join([env["PATH"], str(nextflow.program_folder(engine))])
    status = 0
    if shutil.which("nf-test"):
        status = wait_for(["nf-test", "test"], env, ROOT)
    else:
        say("nf-test is not on PATH: the *.nf.test files are skipped; pytest drives the same pipeline")
    # Two files of tests side by side: much of what they do waits for Nextflow, containers or one core.
    command = [str(programs / "python"), "-m", "pytest", "--numprocesses=2", "--dist=loadfile", *arguments]
    return wait_for(command, env, ROOT) or status


def raw_nextflow(arguments: list[str]) -> int:
    """Start Nextflow with the user's arguments."""
    programs = python_env.prepare()
    engine = nextflow.find()
    env = base_environment(programs) | engine.environment | nextflow.environment(arguments)
    return hand_over([*engine.command, *arguments], env)


def setup(arguments: list[str]) -> int:
    """Make all that `run` needs, and say what it is."""
    space = option(arguments, "--atlas_space")
    families = {f"--{family}": family for family in python_env.FAMILIES}
    known = {*families, "--atlas_space", f"--atlas_space={space}", *filter(None, [space])}
    if set(arguments) - known:
        raise SetupError(
            f"setup knows the options {', '.join(families)} and --atlas_space only, got: {' '.join(arguments)}"
        )
    programs = python_env.prepare()
    for option_name, family in families.items():
        if option_name in arguments:
            python_env.add(family)
    engine = nextflow.find()
    say(f"Python packages: {programs.parent}")
    origin = "from PATH" if len(engine.command) == 1 else "fetched, runs on"
    say(f"Nextflow {engine.version}: {origin} {engine.command[0]}")
    say(f"atlas: {atlas(space)}")
    return 0


COMMANDS = {
    "demo": demo,
    "run": run,
    "leaderboard": leaderboard,
    "check-model": check_model,
    "test": test,
    "setup": setup,
    "nextflow": raw_nextflow,
}


def main() -> int:
    """Do what the command line asks for."""
    words = sys.argv[1:]
    if not words or words[0] in {"-h", "--help", "-help", "help"}:
        print((__doc__ or "").strip())
        return 0
    if words[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        say(f"ERROR: there is no command '{words[0]}'; there are {known} (see ./predictgbm --help)")
        return 2
    try:
        return COMMANDS[words[0]](words[1:])
    except SetupError as error:
        say(f"ERROR: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
