"""The report's figures as files: each as SVG, and its numbers as CSV."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from predictgbm.report.figures import text
from predictgbm.report.results import Results

SIZE = re.compile(r'viewBox="0 0 (\d+) (\d+)"')
#: Height of the line that warns of simulated data.
FOOT = 22


def write(results: Results, folder: Path) -> list[Path]:
    """Write ``<name>.svg`` and ``<name>.csv`` of every figure that has been drawn; return the files.

    A figure leaves its report, so that one of simulated data says so itself.
    """
    written = []
    for name, drawn in results.figures.items():
        folder.mkdir(parents=True, exist_ok=True)
        picture, numbers = folder / f"{name}.svg", folder / f"{name}.csv"
        picture.write_text(standalone(drawn.svg, results.simulated), encoding="utf-8")
        columns = list(dict.fromkeys(column for row in drawn.rows for column in row))
        with numbers.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(drawn.rows)
        written += [picture, numbers]
    return written


def standalone(svg: str, simulated: bool) -> str:
    """Return a figure on white ground, with a warning below it where its data are simulated."""
    size = SIZE.search(svg)
    if not size:
        raise ValueError("a figure has no size")
    width, height = int(size[1]), int(size[2])
    warning = text(6, height + FOOT - 7, "SIMULATED DATA", 12, weight=700) if simulated else ""
    height += FOOT if simulated else 0
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="Helvetica, Arial, sans-serif"><rect width="{width}" height="{height}" fill="#FFFFFF"/>'
        f"{svg}{warning}</svg>\n"
    )
