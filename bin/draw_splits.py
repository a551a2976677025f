#!/usr/bin/env python3
"""Draw the splits by which models are trained on a cohort, or check those that are given."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from predictgbm.learned.splits import Case, SplitError, check_splits, draw_splits, leave_one_cohort_out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Writes for each split who trains, who decides when training ends (validation) and who is held out; "
        "the cohort of each patient; and why patients without recurrence to learn from are left out.",
    )
    parser.add_argument(
        "--selection", type=Path, required=True, help="follow-up of each patient, from select_followups.py"
    )
    parser.add_argument("--splits", type=int, default=5, help="number of splits (default: %(default)s)")
    parser.add_argument(
        "--leave-one-cohort-out", action="store_true", help="one split per cohort, which it holds out"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--given", type=Path, metavar="JSON", help="splits to check and take instead")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="file to write")
    args = parser.parse_args()
    patients = json.loads(args.selection.read_text("utf-8"))["patients"]
    cases = [
        Case(p["patient"], p["cohort"] or "", p["tumor_core_ml"])
        for p in patients
        if p["status"] == "evaluated"
    ]
    try:
        if args.given:
            document = json.loads(args.given.read_text("utf-8"))
            check_splits(document, [case.patient for case in cases])
        elif args.leave_one_cohort_out:
            document = leave_one_cohort_out(cases, args.seed)
        else:
            document = draw_splits(cases, args.splits, args.seed)
    except (SplitError, ValueError) as error:
        source = args.given or f"{len(cases)} patients with recurrence"
        print(f"ERROR: {source}: {error}", file=sys.stderr)
        return 2
    document["left_out"] = {p["patient"]: p["reason"] for p in patients if p["status"] != "evaluated"}
    document["cohorts"] = {case.patient: case.cohort for case in cases}
    args.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
