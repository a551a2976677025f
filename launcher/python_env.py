"""The virtual environment .venv of a checkout, made from the lock files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Callable
from pathlib import Path

from console import SetupError, run_step, say, step
from storage import LOCKS, ROOT, cache_folder, digest, exclusive, made_once

VENV = ROOT / ".venv"
STAMP = VENV / "predictgbm-stamp.json"
#: Debian and Ubuntu keep pip, as a wheel, in this package where they leave it out of Python.
PIP_PACKAGE = "python3-pip-whl"
#: A lock file names the whole graph: nothing else may come, from whatever index, and nothing is built.
PINNED = ("--require-hashes", "--no-deps", "--only-binary", ":all:")


def _lock(dev: bool) -> Path:
    return ROOT / ("requirements-dev.lock" if dev else "requirements.lock")


def _wanted() -> dict[str, str]:
    """Return what an environment that is up to date was made from."""
    build = LOCKS / "build.lock"
    return {
        "root": str(ROOT),
        "interpreter": f"{os.path.realpath(sys.executable)} {sys.version.split()[0]}",
        "base": digest(_lock(False), ROOT / "pyproject.toml", build),
        "dev": digest(_lock(True), ROOT / "pyproject.toml", build),
    }


def _stamp() -> dict[str, str]:
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_current(dev: bool) -> bool:
    wanted, stamp = _wanted(), _stamp()
    same = ("root", "interpreter", "base", "dev") if dev else ("root", "interpreter", "base")
    return all(stamp.get(key) == wanted[key] for key in same)


def _works(*command: str | Path) -> bool:
    """Return whether a command ends with status 0."""
    try:
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def pip_install(python: Path, *arguments: str | Path) -> None:
    """Run ``pip install`` of an environment, and show the package it is at."""
    total = 0

    def progress(line: str) -> str | None:
        nonlocal total
        words = line.split()
        if line.startswith("Collecting"):
            total += 1
            return f"package {total}, {words[1].split('=')[0]}"
        return f"unpacking {total} packages" if line.startswith("Installing collected") else None

    # A user's own pip settings stay in force (mirror, certificates), but not a wish to install elsewhere.
    env = {
        key: value for key, value in os.environ.items() if key not in {"PIP_USER", "PIP_TARGET", "PYTHONPATH"}
    }
    run_step(
        [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments],
        progress=progress,
        env=env,
    )


def _debian_pip_wheel() -> Path:
    """Return pip's wheel as Debian packages it, fetched without root where it is not installed."""
    installed = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    if installed:
        return installed[-1]
    target = cache_folder() / "tools" / PIP_PACKAGE
    with made_once(target) as folder:
        if folder is not None:
            download = ["apt-get", "download", PIP_PACKAGE]
            try:
                run_step(download, cwd=folder)
            except SetupError:
                # A fresh image has no package lists yet; private ones need no root.
                own = []
                for option, name in (("State::Lists", "lists"), ("Cache", "archives")):
                    (folder / name / "partial").mkdir(parents=True)
                    own += ["-o", f"Dir::{option}={folder / name}"]
                run_step(["apt-get", *own, "update"])
                run_step(["apt-get", *own, "download", PIP_PACKAGE], cwd=folder)
                shutil.rmtree(folder / "lists")
                shutil.rmtree(folder / "archives")
            for package in folder.glob("*.deb"):
                run_step(["dpkg-deb", "-x", package, folder])
    wheels = sorted(target.glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise SetupError(f"the package {PIP_PACKAGE} holds no wheel of pip")
    return wheels[-1]


def _with_ensurepip() -> None:
    run_step([sys.executable, "-m", "venv", "--clear", VENV])


def _with_uv() -> None:
    run_step(["uv", "venv", "--quiet", "--clear", "--seed", "--python", sys.executable, VENV])


def _with_virtualenv() -> None:
    run_step(["virtualenv", "--quiet", "--clear", "--python", sys.executable, VENV])


def _with_system_pip() -> None:
    run_step([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV])
    run_step([sys.executable, "-m", "pip", "--python", VENV / "bin" / "python", "install", "pip"])


def _with_debian_wheel() -> None:
    wheel = _debian_pip_wheel()
    run_step([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV])
    run_step([VENV / "bin" / "python", wheel / "pip", "install", "--no-index", wheel])


def _create() -> None:
    """Make an empty virtual environment with pip, by the first way that this machine has."""
    if VENV.is_symlink():
        # An environment that belongs to something else, which --clear would empty.
        VENV.unlink()
    if not os.access(ROOT, os.W_OK):
        raise SetupError(f"{ROOT} is not writable, and the virtual environment is made in it (.venv)")
    ways: list[tuple[str, bool, Callable[[], None]]] = [
        ("python3 -m venv", _works(sys.executable, "-c", "import ensurepip, venv"), _with_ensurepip),
        ("uv venv", _works("uv", "--version"), _with_uv),
        ("virtualenv", _works("virtualenv", "--version"), _with_virtualenv),
        (
            "python3 -m venv --without-pip, and the system's pip",
            _works(sys.executable, "-m", "pip"),
            _with_system_pip,
        ),
        (
            f"python3 -m venv --without-pip, and pip from the Debian package {PIP_PACKAGE}",
            bool(shutil.which("apt-get") and shutil.which("dpkg-deb")),
            _with_debian_wheel,
        ),
    ]
    tried = []
    for name, available, make in ways:
        if not available:
            tried.append(f"  {name}: not on this machine")
            continue
        try:
            make()
        except SetupError as error:
            tried.append(f"  {name}: {error}")
            continue
        if _works(VENV / "bin" / "python", "-m", "pip", "--version"):
            say(f"  made by {name}")
            return
        tried.append(f"  {name}: made an environment whose pip does not start")
    raise SetupError(
        "no virtual environment could be made. Tried:\n"
        + "\n".join(tried)
        + "\nInstall what Python needs for it and start again: on Debian and Ubuntu"
        "\n    sudo apt-get install python3-venv"
    )


def prepare(dev: bool = False) -> Path:
    """Bring .venv up to date with its lock file.

    Parameters
    ----------
    dev
        Whether the packages for development (tests, linters) are wanted as well.

    Returns
    -------
    Path
        The folder with the environment's programs.
    """
    programs = VENV / "bin"
    if _is_current(dev):
        return programs
    with exclusive(f"python-{zlib.crc32(str(ROOT).encode()):08x}"):
        if _is_current(dev):
            return programs
        stamp, wanted = _stamp(), _wanted()
        moved = bool(stamp) and any(stamp.get(key) != wanted[key] for key in ("root", "interpreter"))
        if moved or not _works(programs / "python", "-m", "pip", "--version"):
            with step(f"making the virtual environment {VENV}"):
                _create()
            stamp = {}
        dev = dev or "dev" in stamp
        STAMP.unlink(missing_ok=True)
        lock = _lock(dev)
        python = programs / "python"
        with step(f"installing the Python packages of {lock.name} (some 2 GB on disk, a minute or two)"):
            pip_install(python, *PINNED, "-r", lock, "-r", LOCKS / "build.lock")
            pip_install(python, "--no-deps", "--no-build-isolation", "-e", ROOT)
        STAMP.write_text(json.dumps({k: v for k, v in wanted.items() if dev or k != "dev"}, indent=1) + "\n")
    return programs


#: What an image adds to .venv where a run on this machine's own programs needs it.
FAMILIES = {
    "hdbet": "PyTorch, HD-BET and convexAdam",
    "learning": "PyTorch, MONAI and what else trains models",
}


def add(family: str) -> None:
    """Add the packages of an image, one of :data:`FAMILIES`, to .venv, pinned by the image's lock file."""
    lock = ROOT / "containers" / family / "requirements.lock"
    if _stamp().get(family) == digest(lock):
        return
    with exclusive(f"python-{zlib.crc32(str(ROOT).encode()):08x}"):
        with step(f"installing {FAMILIES[family]} (several GB, once)"):
            pip_install(VENV / "bin" / "python", *PINNED, "--no-build-isolation", "-r", lock)
        STAMP.write_text(json.dumps(_stamp() | {family: digest(lock)}, indent=1) + "\n")


def tool(name: str, what: str) -> Path:
    """Install the packages of ``locks/NAME.lock`` into a folder of their own in the cache.

    They stay out of .venv, so that what starts the pipeline never changes what the pipeline computes with.
    """
    lock = LOCKS / f"{name}.lock"
    target = (
        cache_folder() / "tools" / f"{name}-{digest(lock)}-{sysconfig.get_config_var('py_version_nodot')}"
    )
    with made_once(target) as folder:
        if folder is not None:
            with step(what):
                pip_install(VENV / "bin" / "python", *PINNED, "--target", folder, "-r", lock)
    return target
