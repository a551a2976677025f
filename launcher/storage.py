"""The cache of the launcher: where it is, and how two first starts at once share it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from console import SetupError, say

ROOT = Path(__file__).resolve().parent.parent
LOCKS = Path(__file__).resolve().parent / "locks"


def cache_folder() -> Path:
    """Return the folder for all that is fetched or made once: PREDICTGBM_CACHE, or below the user's."""
    given = os.environ.get("PREDICTGBM_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(given).absolute() if given else Path(base) / "predictgbm"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"cannot make the cache folder {folder}: {error.strerror}. "
            "Set PREDICTGBM_CACHE to a folder that you may write to."
        ) from error
    if not os.access(folder, os.W_OK):
        raise SetupError(
            f"the cache folder {folder} is not writable. Set PREDICTGBM_CACHE to one that you may write to."
        )
    return folder


def digest(*files: Path) -> str:
    """Return a short name for the content of some files."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()[:12]


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the lock ``name`` of the cache, waiting for another start that holds it."""
    folder = cache_folder() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another start is setting up {name}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def made_once(target: Path) -> Iterator[Path | None]:
    """Make the folder ``target`` at one stroke: it is complete, or it is not there.

    Yields
    ------
    Path or None
        An empty folder to fill, which becomes ``target`` at the end, or None if ``target`` exists.
    """
    if target.exists():
        yield None
        return
    with exclusive(target.name):
        if target.exists():
            yield None
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        growing = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield growing
            growing.chmod(0o755)
            growing.rename(target)
        finally:
            shutil.rmtree(growing, ignore_errors=True)
