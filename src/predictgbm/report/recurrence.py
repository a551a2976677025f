"""Section of the report on where the recurrence came back, and what each model covers there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import median

from predictgbm.patterns import MEASURABLE_ML, PATTERNS
from predictgbm.report.figures import GRID, INK, MUTED, line, short, svg, text
from predictgbm.report.formatting import (
    MISSING,
    count,
    details,
    downloadable,
    estimate,
    interval,
    model_cell,
    number,
    percent,
    table,
    with_interval,
)
from predictgbm.report.results import REFERENCE, Results, Row, is_true, known, ranked

FOCALITY = ("unifocal", "multifocal")


@dataclass(frozen=True)
class Mark:
    """A mean with its interval in one panel of :func:`interval_panels`, as fractions; row 0 is the topmost."""

    row: int
    title: str
    color: str
    mean: float
    low: float | None
    high: float | None


def section(results: Results) -> tuple[str, str] | None:
    """Section with the patterns of recurrence and the coverage of each."""
    lesions = list(
        {
            (row["patient"], row["lesion"]): row for row in results.tables["lesions"] if row.get("pattern")
        }.values()
    )
    if not lesions:
        return None
    patients = results.tables["recurrence_patterns"]
    how = (
        "A lesion is central, in-field, marginal or distant by how much of it the standard plan covers; as that plan "
        "makes the classes, it covers nearly all of the central lesions and next to nothing of the distant ones by "
        "definition, so compare the other models with each other."
    )
    multifocal = sum(is_true(row["multifocal"]) for row in patients)
    note = (
        f"{multifocal} of {count(len(patients), 'patient')} came back multifocal, with two or more lesions of at least "
        f"{MEASURABLE_ML:.2f} ml (balls of 10 mm diameter)."
    )
    shown = f'{overview(lesions, patients)}<p class="gbm-note">{note}</p>{figure(results)}'
    return how, shown + details("Every number", numbers(results))


def overview(lesions: list[Row], patients: list[Row]) -> str:
    """Return how many lesions, how much volume and how many patients each pattern has."""
    total = sum(row["volume_ml"] for row in lesions)
    limits = [number(least, 0, 100) for least in PATTERNS.values()]
    ranges = [
        f"{limits[0]} or more",
        *(f"{low} to {high}" for high, low in pairwise(limits[:-1])),
        f"below {limits[-2]}",
    ]
    rows = []
    for name, covered in zip(PATTERNS, ranges, strict=True):
        own = [row for row in lesions if row["pattern"] == name]
        distances = known(own, "core_distance_mm")
        rows.append(
            [
                name,
                covered,
                len(own),
                percent(sum(row["volume_ml"] for row in own) / total),
                f"{number(median(distances))} ({number(min(distances))}–{number(max(distances))})"
                if distances
                else MISSING,
                len({row["patient"] for row in own}),
                sum(row.get("pattern") == name for row in patients),
            ]
        )
    head = ["Pattern", "Covered by the standard plan, %", "Lesions", "Volume, %"]
    head += [
        "Distance to the core, mm, median (range)",
        "Patients with such a lesion",
        "Patients, main pattern",
    ]
    return table(head, rows, (0, 1))


def figure(results: Results) -> str:
    """Return the mean coverage of each model by pattern and by number of lesions."""
    found = {(row["group"], row["model"]): row for row in results.tables["coverage_by_pattern"]}
    groups = (*PATTERNS, *FOCALITY)
    styles = [results.styles[n] for n in ranked(results) if any((group, n) in found for group in groups)]
    panels = []
    for group in groups:
        marks, largest = [], 0
        for place, style in enumerate(styles):
            if row := found.get((group, style.name)):
                largest = max(largest, int(row["n"]))
                limits = row.get("ci_low"), row.get("ci_high")
                marks.append(Mark(place, style.title, style.color, row["mean"], *limits))
        panels.append((group, count(largest, "patient" if group in FOCALITY else "lesion"), marks))
    drawn = interval_panels([style.title for style in styles], panels)
    rows = [
        {"group": group, "model": mark.title, "mean": mark.mean, "low": mark.low, "high": mark.high}
        for group, _, marks in panels
        for mark in marks
    ]
    return downloadable(results, drawn, rows, "coverage_by_pattern", "coverage_by_pattern")


def interval_panels(titles: Sequence[str], panels: Sequence[tuple[str, str, Sequence[Mark]]]) -> str:
    """Draw means with intervals, a row per model and a panel per group, on one scale from 0 to 100 %.

    Parameters
    ----------
    titles
        Models, from top to bottom.
    panels
        Title, note below it, and marks; a model may be missing in a panel.
    """
    labels, wide, gap, top, row = 190.0, 112.0, 32.0, 52.0, 22.0
    bottom = top + row * len(titles)
    parts = [
        text(labels - 12, top + row * (index + 0.5) + 4, short(title), 13, "end")
        for index, title in enumerate(titles)
    ]
    for column, (name, note, marks) in enumerate(panels):
        left = labels + column * (wide + gap)
        parts.append(text(left, 18, name, 14, weight=700) + text(left, 36, note, 11, color=MUTED))
        for value in (0, 50, 100):
            x = left + wide * value / 100
            parts.append(
                line(x, top, x, bottom, GRID) + text(x, bottom + 15, str(value), 11, "middle", MUTED)
            )
        for mark in marks:
            y = top + row * (mark.row + 0.5)
            limits = interval(mark.low, mark.high)
            hover = f"{mark.title}, {name}: {percent(mark.mean)} %{f' [{limits}]' if limits else ''}"
            parts.append(f"<g><title>{escape(hover)}</title>")
            if mark.low is not None and mark.high is not None:
                parts.append(line(left + wide * mark.low, y, left + wide * mark.high, y, mark.color, 3))
            parts.append(
                f'<circle cx="{left + wide * mark.mean:.1f}" cy="{y:.1f}" r="4.5" fill="{mark.color}" stroke="{INK}" '
                'stroke-width=".6"/></g>'
            )
    width = labels + len(panels) * (wide + gap)
    foot = text(
        (labels + width) / 2, bottom + 34, "Mean coverage, %, with its 95 % interval", 12, "middle", MUTED
    )
    return svg(width, bottom + 42, "".join(parts) + foot, "Coverage by pattern of recurrence")


def numbers(results: Results) -> str:
    """Return mean coverage and gain by model and group; a gain is told of patients alone, whom no plan has chosen."""
    found = {(row["group"], row["model"]): row for row in results.tables["coverage_by_pattern"]}
    body = []
    for group in (*PATTERNS, *FOCALITY):
        for name in ranked(results):
            if row := found.get((group, name)):
                gain = estimate(row, "gain") if group in FOCALITY and name != REFERENCE else ""
                covered = with_interval(percent(row["mean"]), interval(row.get("ci_low"), row.get("ci_high")))
                body.append(
                    [group, model_cell(results, name), int(row["n"]), int(row["n_patients"]), covered, gain]
                )
    head = ["Group", "Model", "Lesions or patients", "Patients", "Mean coverage, % [95 % CI]"]
    return table([*head, "Gain over the standard plan, points [95 % CI]"], body, (0, 1), sortable=True)
