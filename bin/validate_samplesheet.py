#!/usr/bin/env python3
"""Check a samplesheet and write its exams, or all its faults at once, as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from predictgbm.atlas import DEFAULT_SPACE
from predictgbm.cohort.faults import format_fault
from predictgbm.cohort.samplesheet import check_samplesheet

SCHEMA = Path(__file__).resolve().parent.parent / "assets" / "schema_input.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="A sheet with faults still ends with status 0: the list of faults is a result.",
    )
    parser.add_argument("--sheet", type=Path, required=True, help="samplesheet, CSV or TSV, one row per exam")
    parser.add_argument("--name", help="what to call the sheet in messages (default: its file name)")
    parser.add_argument(
        "--schema", type=Path, default=SCHEMA, help="JSON schema of the rows (default: %(default)s)"
    )
    parser.add_argument(
        "--space", default=DEFAULT_SPACE, help="atlas space of the run, --atlas_space (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON to write: rows, faults, models_scores")
    parser.add_argument("--format", action="store_true", help="also print each fault on a line")
    args = parser.parse_args()

    try:
        content, schema = args.sheet.read_bytes(), json.loads(args.schema.read_text("utf-8"))
    except OSError as error:
        print(f"ERROR: {error.filename}: cannot be read ({error.strerror}); check the path", file=sys.stderr)
        return 2
    cohort = check_samplesheet(content, schema, args.space)
    name = args.name or args.sheet.name
    if args.format:
        for fault in cohort["faults"]:
            print(format_fault(fault, name))
    cohort["faults"] = [asdict(fault) for fault in cohort["faults"]]
    args.out.write_text(json.dumps(cohort, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
