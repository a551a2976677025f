#!/usr/bin/env python3
"""Print the headline of a benchmark: coverage of the recurrence by model, beside the standard plan's.

Reads summary.csv, comparisons.csv, cohort.csv, failures.csv and statistics.json of the tables folder.
Coverages are in percent of the recurrence, mean gains over the standard plan in percentage points.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections import Counter
from pathlib import Path

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def value(row: Row, column: str) -> float:
    """Return a number, NaN where the cell is empty or absent."""
    try:
        return float(row.get(column) or "nan")
    except ValueError:
        return math.nan


def percent(number: float, sign: str = "") -> str:
    return "-" if math.isnan(number) else f"{100 * number:{sign}.1f}"


def interval(row: Row, low: str, high: str, sign: str = "") -> str:
    if math.isnan(value(row, low)) or math.isnan(value(row, high)):
        return ""
    return f" [{percent(value(row, low), sign)}, {percent(value(row, high), sign)}]"


def headline(tables: Path) -> list[str]:
    """Return the lines of the headline."""
    path = tables / "statistics.json"
    statistics = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    primary = statistics.get("primary", "enhancing")
    lines = ["SIMULATED DATA: these patients do not exist"] if statistics.get("simulated") else []
    status = Counter(row["status"] for row in read(tables / "cohort.csv"))
    lines.append("Patients: " + ", ".join(f"{n} {name}" for name, n in sorted(status.items())))

    summary = [row for row in read(tables / "summary.csv") if row["definition"] == primary]
    datasets = sorted({row["dataset"] for row in summary})
    dataset = "pooled" if "pooled" in datasets else "".join(datasets[:1])
    comparisons = {
        row["model"]: row
        for row in read(tables / "comparisons.csv")
        if (row["dataset"], row["definition"]) == (dataset, primary)
    }
    rows = [["Model", "n", "Median %", "Mean % [95 % CI]", "Mean gain, points [95 % CI]", "p (adjusted)"]]
    ranked = [row for row in summary if row["dataset"] == dataset and value(row, "n") > 0]
    for row in sorted(ranked, key=lambda row: -value(row, "mean")):
        test = comparisons.get(row["model"], {})
        p = value(test, "p_adjusted")
        rows.append(
            [
                row["model"],
                f"{value(row, 'n'):.0f}",
                percent(value(row, "median")),
                percent(value(row, "mean")) + interval(row, "ci_low", "ci_high"),
                percent(value(test, "mean_gain"), "+")
                + interval(test, "mean_gain_low", "mean_gain_high", "+")
                if test
                else "reference"
                if row["model"] == "soc"
                else "-",
                "" if row["model"] == "soc" else "-" if math.isnan(p) else f"{p:.2g}",
            ]
        )
    if len(rows) > 1:
        widths = [max(len(cells[i]) for cells in rows) for i in range(len(rows[0]))]
        lines.append(f"Coverage of the recurrence ({primary}), all plans of a patient with the same volume:")
        lines.append("")
        for index, cells in enumerate(rows):
            figures = [text.rjust(width) for text, width in zip(cells[1:], widths[1:], strict=True)]
            lines.append("  " + "  ".join([cells[0].ljust(widths[0]), *figures]).rstrip())
            if index == 0:
                lines.append("  " + "  ".join("-" * w for w in widths))
    if failures := read(tables / "failures.csv"):
        lines += ["", f"{len(failures)} step(s) failed for single patients, see {tables / 'failures.csv'}"]
    return lines


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("tables", type=Path, help="folder 'tables' of a finished run")
    tables = parser.parse_args().tables
    if not (tables / "cohort.csv").exists():
        sys.exit(f"ERROR: {tables}: holds no cohort.csv; give the folder 'tables' of a finished run")
    # A model's name may hold what the terminal cannot show.
    text = "\n".join(headline(tables))
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding))


if __name__ == "__main__":
    main()
