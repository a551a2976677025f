#!/usr/bin/env python3
"""Run one of the commands beside this one many times in one process: once for each line of standard input.

A line has the options as a shell would take them; words with *, ? or [ are file patterns. Python and the packages are
loaded once. A line that fails is named on standard error and the next one runs; the exit status is 0 if any line did
its work, and else that of the last one.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path


def load_main(command: str) -> Callable[[], int | None]:
    """Return the function ``main`` of a command of this folder."""
    path = Path(__file__).resolve().with_name(command)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{command}: there is no such command in {path.parent}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    main: Callable[[], int | None] = module.main
    return main


def words(line: str) -> Iterator[str]:
    """Yield the words of a line, file patterns as the files they match; one without a match stays, as in a shell."""
    for word in shlex.split(line):
        root = Path(word).anchor
        pattern = any(mark in word for mark in "*?[") and not Path(word).exists()
        found = Path(root).glob(word.removeprefix(root)) if pattern else []
        yield from sorted(map(str, found)) or [word]


def run_line(main: Callable[[], int | None], command: str, line: str) -> int:
    """Run a command with the options of one line and return its exit status."""
    try:
        sys.argv = [command, *words(line)]
        return main() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except Exception:
        traceback.print_exc()
        return 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", help="file name of the command, such as make_plan.py")
    command = parser.parse_args().command
    try:
        command_main = load_main(command)
    except FileNotFoundError as error:
        parser.error(str(error))
    statuses = []
    for line in filter(str.strip, sys.stdin):
        statuses.append(run_line(command_main, command, line))
        if statuses[-1]:
            print(f"ERROR: {command} ended with status {statuses[-1]}: {line.strip()}", file=sys.stderr)
    return 0 if 0 in statuses or not statuses else statuses[-1]


if __name__ == "__main__":
    sys.exit(main())
