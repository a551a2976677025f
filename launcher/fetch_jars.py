"""Fetch the jars of a list from Maven and check each against its SHA-256; needs jgo on the path.

Usage: fetch_jars.py LIST FOLDER

Each line of LIST is ``SHA256  GROUP:ARTIFACT:VERSION``. The list names the whole graph, so nothing is
resolved and the same files come each time. Repositories of jgo's own settings file (a mirror, for instance)
are asked first.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext

ATTEMPTS = 3


def fetch(context: MavenContext, coordinate: str, sha256: str, folder: Path) -> str:
    """Put the jar of a coordinate into a folder and return its name."""
    group, artifact, version = coordinate.split(":")
    fault: object = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(2**attempt)
        path = None
        try:
            path = context.project(group, artifact).at_version(version).artifact().resolve()
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found == sha256:
                shutil.move(path, folder / path.name)
                return str(path.name)
            fault = f"its SHA-256 is {found}, expected {sha256}"
        except Exception as error:  # whatever the network did, another attempt may do better
            fault = error
        if path is not None:
            path.unlink(missing_ok=True)
    raise SystemExit(f"{coordinate}: not fetched in {ATTEMPTS} attempts: {fault}")


def main() -> None:
    """Fetch what the command line names."""
    jars, folder = Path(sys.argv[1]), Path(sys.argv[2])
    entries = [line.split() for line in jars.read_text().splitlines()]
    repositories = GlobalSettings.load().repositories | {"central": MAVEN_CENTRAL_URL}
    with tempfile.TemporaryDirectory(dir=folder) as temporary, ThreadPoolExecutor(8) as pool:
        context = MavenContext(repo_cache=Path(temporary), remote_repos=repositories, timeout=60)
        jobs = [pool.submit(fetch, context, coordinate, sha256, folder) for sha256, coordinate in entries]
        for number, job in enumerate(jobs, 1):
            print(f"{number} of {len(jobs)}: {job.result()}", flush=True)


if __name__ == "__main__":
    main()
