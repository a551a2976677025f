"""The Nextflow to use: the machine's own where it is recent enough, else one resolved from Maven."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import java
from console import SetupError, run_step, say, step
from python_env import VENV, tool
from storage import LOCKS, cache_folder, digest, made_once

OLDEST = (24, 10)
#: Set for the program found on PATH: it may be a wrapper of this launcher, which must then not look on PATH again.
NESTED = {"PREDICTGBM_NESTED": "1"}

#: What is fetched where PATH has no Nextflow: the newest whose libraries Maven serves as published.
DEFAULT_VERSION = "24.10.0"
#: Packages of the Java runtime that Nextflow looks into.
OPENED = (
    *("java.lang", "java.io", "java.nio", "java.net", "java.util", "java.util.concurrent.locks"),
    *("java.util.concurrent.atomic", "java.util.regex", "sun.nio.ch", "sun.nio.fs"),
    *(f"sun.net.www.protocol.{name}" for name in ("http", "https", "ftp", "file")),
    *("jdk.internal.misc", "jdk.internal.vm"),
)


@dataclass
class Nextflow:
    """A command that starts Nextflow, and the variables it needs."""

    command: list[str]
    version: str
    environment: dict[str, str] = field(default_factory=dict)


def known_versions() -> list[str]:
    """Return the versions that can be fetched: those with a list of jars."""
    return sorted(path.name[len("nextflow-") : -len(".jars")] for path in LOCKS.glob("nextflow-*.jars"))


def _ask_version(program: str, environment: dict[str, str]) -> str | None:
    """Return the version that a ``nextflow`` program reports, or None; the answer is kept."""
    file = Path(os.path.realpath(program))
    state = file.stat()
    key = f"{file} {state.st_mtime_ns} {state.st_size} {os.environ.get('NXF_VER', '')}"
    memory = cache_folder() / "versions" / f"{zlib.crc32(key.encode()):08x}"
    try:
        known, _, asked = memory.read_text().partition(" ")
        if asked == key:
            return known
    except OSError:
        pass
    say(f"asking {program} for its version")
    try:
        answer = subprocess.run(
            [program, "-version"],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment | NESTED | {"NXF_ANSI_LOG": "false"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"version (\d+\.\d+\.\d+[\w.-]*)", answer.stdout)
    if answer.returncode or found is None:
        return None
    memory.parent.mkdir(exist_ok=True)
    temporary = memory.with_suffix(f".{os.getpid()}")
    temporary.write_text(f"{found[1]} {key}")
    temporary.replace(memory)
    return found[1]


def _on_path() -> Nextflow | None:
    """Return the Nextflow on PATH if it starts and is recent enough."""
    program = shutil.which("nextflow")
    if program is None or NESTED.keys() <= os.environ.keys():
        return None
    environment: dict[str, str] = {}
    found = _ask_version(program, environment)
    if found is None:
        # Its Java may be missing or too new; the one that fits is found or fetched below all the same.
        environment = {"NXF_JAVA_HOME": str(java.find().resolve().parent.parent)}
        found = _ask_version(program, environment)
    if found is None:
        say(f"{program} does not start: not used (try `nextflow -version` to see why)")
        return None
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        say(f"{program} is version {found}, {'.'.join(map(str, OLDEST))} or later is needed: not used")
        return None
    return Nextflow([program], found, environment | NESTED)


def _from_maven(version: str) -> Nextflow:
    """Return a Nextflow made of checked jars in the cache, fetched on first use."""
    jars = LOCKS / f"nextflow-{version}.jars"
    runtime = java.find()
    names = [line.split()[1].split(":") for line in jars.read_text().splitlines()]
    folder = cache_folder() / "nextflow" / f"{version}-{digest(jars)}"
    with made_once(folder) as growing:
        if growing is not None:
            resolver = tool("jgo", "fetching jgo, which reads Maven repositories")
            fetch = Path(__file__).resolve().parent / "fetch_jars.py"
            with step(f"fetching Nextflow {version} ({len(names)} jars, 40 MB)"):
                run_step(
                    [VENV / "bin" / "python", fetch, jars, growing],
                    env=os.environ | {"PYTHONPATH": str(resolver)},
                    progress=str.strip,
                )
    class_path = ":".join(str(folder / f"{artifact}-{number}.jar") for _, artifact, number in names)
    command = [
        str(runtime),
        *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED),
        *(
            "-XX:+TieredCompilation",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Djava.awt.headless=true",
        ),
        *os.environ.get("NXF_OPTS", "").split(),
        *os.environ.get("NXF_JVM_ARGS", "").split(),
        *("-cp", class_path, "nextflow.cli.Launcher"),
    ]
    return Nextflow(command, version)


def find() -> Nextflow:
    """Return the Nextflow to use.

    NXF_VER, where set, names the version; else the one on PATH is taken, and 24.10.0 is fetched where PATH
    has none of 24.10 or later.

    Raises
    ------
    SetupError
        If neither can be had; the message says what was tried.
    """
    wanted = os.environ.get("NXF_VER")
    if wanted and wanted in known_versions():
        return _from_maven(wanted)
    own = _on_path()
    if own is not None:
        return own
    if wanted:
        raise SetupError(
            f"NXF_VER asks for Nextflow {wanted}, which is not on PATH and not one of those that can be "
            f"fetched here: {', '.join(known_versions())}. Unset NXF_VER, or install Nextflow yourself."
        )
    try:
        return _from_maven(DEFAULT_VERSION)
    except SetupError as error:
        raise SetupError(
            f"Nextflow {DEFAULT_VERSION} could not be set up: {error}\n"
            "Install Nextflow 24.10 or later yourself (one on PATH is used before anything is fetched), "
            "or check that this machine reaches a Maven repository; docs/offline.md says how to set up "
            "without a network."
        ) from error


def program_folder(engine: Nextflow) -> Path:
    """Return a folder with a program ``nextflow`` that starts this Nextflow."""
    if len(engine.command) == 1:
        return Path(engine.command[0]).parent
    text = f'#!/bin/sh\nexec {shlex.join(engine.command)} "$@"\n'
    folder = cache_folder() / "programs" / f"nextflow-{engine.version}-{zlib.crc32(text.encode()):08x}"
    with made_once(folder) as growing:
        if growing is not None:
            program = growing / "nextflow"
            program.write_text(text)
            program.chmod(0o755)
    return folder


def environment(arguments: list[str]) -> dict[str, str]:
    """Return what Nextflow wants to know: the command line as the user knows it, the terminal's width."""
    return {
        "NXF_CLI": " ".join(["nextflow", *arguments]),
        "COLUMNS": str(shutil.get_terminal_size().columns) if sys.stderr.isatty() else "120",
    }
