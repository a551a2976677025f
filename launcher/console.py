"""What the launcher says: plain lines on standard error; standard output is for the command started."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

#: How often a long step says where it is, in seconds.
HEARTBEAT_S = 10.0


class SetupError(Exception):
    """A step of the set-up failed; the message says what was tried and what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"predictgbm: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a step of the set-up and, at its end, how long it took."""
    say(f"{what} ...")
    start = time.monotonic()
    yield
    say(f"{what}: done in {time.monotonic() - start:.0f} s")


def run_step(
    command: Sequence[str | Path],
    *,
    progress: Callable[[str], str | None] = lambda line: None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a command of the set-up quietly, with a sign of life at least every ten seconds.

    Parameters
    ----------
    command
        Program and arguments.
    progress
        Turns a line of the command's output into words worth showing, or None.
    env, cwd
        As for :class:`subprocess.Popen`.

    Raises
    ------
    SetupError
        If the command is missing or fails; with the last lines it printed.
    """
    words = [str(word) for word in command]
    state = "still running"
    output: list[str] = []
    ended = threading.Event()

    def heartbeat(start: float) -> None:
        while not ended.wait(HEARTBEAT_S):
            say(f"  {time.monotonic() - start:3.0f} s: {state}")

    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=None if env is None else dict(env),
            cwd=cwd,
        )
    except OSError as error:
        raise SetupError(f"could not start {words[0]}: {error.strerror}") from error
    threading.Thread(target=heartbeat, args=(time.monotonic(),), daemon=True).start()
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.append(line.rstrip())
                state = progress(line) or state
        except BaseException:
            process.terminate()
            raise
        finally:
            ended.set()
    if process.returncode:
        tail = "\n".join(f"    {line}" for line in output[-15:] if line)
        raise SetupError(
            f"this command failed with status {process.returncode}:\n    {' '.join(words)}\n{tail}"
        )
