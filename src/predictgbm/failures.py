"""How a command says that it could not do its work: to a person, or to the pipeline."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

#: Why a step gave no result: the words of a failure record, and what each says in a sentence.
KINDS: dict[str, str] = {
    "missing_input": "lacked an input",
    "refused": "had data that cannot be used",
    "crashed": "crashed",
    "lost": "killed, or out of memory or time",
}

#: What lacks the result: the main analysis, or another choice in the evaluation, which is told but fails no run.
ANALYSES = ("main", "secondary")

#: Exit status of what the kernel or the scheduler has killed, mostly for its memory.
KILLED = 137


def kind_of(error: Exception) -> str:
    """Return the kind of a failure: what the error says of itself in ``kind``, else by :func:`is_message`."""
    return getattr(error, "kind", "refused" if is_message(error) else "crashed")


def is_message(error: Exception) -> bool:
    """Whether an error is a message for the user: a subclass of ``ValueError``, such as ``ImageError``."""
    return isinstance(error, ValueError) and type(error) is not ValueError


def add_failure_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--failure``, ``--patient``, ``--session`` and ``--secondary`` to a command."""
    group = parser.add_argument_group(
        "failure", "how the pipeline is told that this patient could not be done"
    )
    group.add_argument(
        "--failure",
        type=Path,
        metavar="JSON",
        help="on an error write its reason here and exit 0 (default: print it and exit 2)",
    )
    group.add_argument("--patient", default="", help="patient, for --failure")
    group.add_argument("--session", default="", help="session, for --failure")
    group.add_argument(
        "--secondary",
        action="store_true",
        help="the result is for another choice in the evaluation: its failure is told, and fails no run",
    )


def run_reporting(work: Callable[[], None], arguments: argparse.Namespace, *, model: str, stage: str) -> int:
    """Do the work of a command and return its exit status.

    With ``--failure`` every error becomes a record there, so that one patient's fault stays that patient's,
    and the status is 0. Without it the status is 2, after one line ``ERROR: ...`` and, for any other error,
    its traceback.
    """
    try:
        work()
    except Exception as error:
        known = is_message(error)
        if not known:
            traceback.print_exc()
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        print(f"ERROR: {reason}", file=sys.stderr)
        if arguments.failure is None:
            return 2
        record = {
            "patient": arguments.patient,
            "session": arguments.session,
            "model": model,
            "stage": stage,
            "kind": kind_of(error),
            "analysis": "secondary" if arguments.secondary else "main",
            "reason": reason,
        }
        arguments.failure.parent.mkdir(parents=True, exist_ok=True)
        arguments.failure.write_text(
            json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0
