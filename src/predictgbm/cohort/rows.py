"""The files of a samplesheet row, where a task finds them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from predictgbm.images import ImageError


def read_row(arguments: argparse.Namespace) -> dict[str, Any]:
    """Read the row a command was given as ``--row``; failures of the command are that patient's and session's."""
    row: dict[str, Any] = json.loads(arguments.row.read_text("utf-8"))
    arguments.patient = arguments.patient or row["meta"]["patient"]
    arguments.session = arguments.session or row["meta"]["session"]
    return row


def find_files(row: Mapping[str, Any], files: Iterable[Path]) -> dict[str, Path]:
    """Match the files a command was given to the columns of a row, by path or else by name.

    Raises
    ------
    ImageError
        If a file the row names was not given, or several of that name were.
    """
    given = list(files)
    found = {}
    for column, written in row["files"].items():
        same = [path for path in given if str(path) == written] or [
            path for path in given if path.name == Path(written).name
        ]
        if len(same) != 1:
            raise ImageError(
                f"{written}: {'more than one' if same else 'not'} among the files given for {column}; "
                "name each file of the row once"
            )
        found[column] = same[0]
    return found
