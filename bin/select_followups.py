#!/usr/bin/env python3
"""Choose the follow-up each patient is scored against, and say why a patient is not scored."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from predictgbm.cohort.selection import MINIMUM_DAYS, RULES, select_followups
from predictgbm.options import listed


def rule(text: str) -> str:
    if text not in RULES:
        raise ValueError(text)
    return text


def read_all(paths: list[Path]) -> list[dict[str, Any]]:
    """Read JSON files, or those of folders, that hold one record or a list of records each."""
    records: list[dict[str, Any]] = []
    for path in sorted(f for p in paths for f in (p.rglob("*.json") if p.is_dir() else [p])):
        content = json.loads(path.read_text("utf-8"))
        records += content if isinstance(content, list) else [content]
    return records


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Inputs are JSON files or folders of them. Without any follow-up in the sheet, "
        "patients get the status 'predicted'.",
    )
    parser.add_argument(
        "--cohort", type=Path, required=True, help="JSON of the samplesheet, from validate_samplesheet.py"
    )
    parser.add_argument("--exams", type=Path, nargs="*", default=[], help="exam.json of each prepared exam")
    parser.add_argument(
        "--summaries",
        type=Path,
        nargs="*",
        default=[],
        help="summary of each follow-up, from import_registered.py",
    )
    parser.add_argument(
        "--failures",
        type=Path,
        nargs="*",
        default=[],
        help="what went wrong: lists of faults from validate_exam.py, failure records of other steps",
    )
    parser.add_argument(
        "--min-days",
        type=float,
        default=MINIMUM_DAYS,
        help="days from the pre-operative exam to the earliest follow-up that counts (default: %(default)s)",
    )
    parser.add_argument(
        "--rule",
        choices=sorted(RULES),
        default="first",
        help="which of the follow-ups that qualify; largest goes by enhancing volume (default: %(default)s)",
    )
    parser.add_argument(
        "--other-rules",
        type=listed(rule),
        default=[],
        metavar="RULE,...",
        help="rules to be looked at too, or none: which follow-up each would pick is written beside the choice",
    )
    parser.add_argument(
        "--other-min-days",
        type=listed(float),
        default=[],
        metavar="DAYS,...",
        help="least intervals to be looked at too, or none, likewise",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON to write: patients, flow")
    args = parser.parse_args()
    cohort = json.loads(args.cohort.read_text("utf-8"))
    selection = select_followups(
        cohort["rows"],
        read_all(args.exams),
        read_all(args.summaries),
        [*cohort["faults"], *read_all(args.failures)],
        args.min_days,
        args.rule,
        [other for other in args.other_rules if other != args.rule],
        [days for days in args.other_min_days if days != args.min_days],
    )
    args.out.write_text(json.dumps(selection, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
