"""Section of the report on coverage at other plan volumes than the standard plan's."""

from __future__ import annotations

from collections import defaultdict

from predictgbm.report.formatting import (
    MISSING,
    downloadable,
    estimate,
    interval,
    model_cell,
    number,
    percent,
    table,
    with_interval,
)
from predictgbm.report.line_plots import Axis, Curve, line_rows, mean_curve, panels
from predictgbm.report.results import ModelStyle, Results, Row, ranked

#: Volumes of the plan, over that of the standard plan, whose coverage the table gives.
VOLUMES = (0.5, 0.75, 1.5)


def section(results: Results) -> tuple[str, str] | None:
    """Section with the coverage that plans of other volumes would reach."""
    if not results.tables["curve_summary"]:
        return None
    how = (
        "Each line shows what share of the recurrence a model would cover if all plans were made smaller "
        "or larger; higher is better, and the upright line at 100 % is the volume of the standard plan. Bands are "
        "95 % intervals of the mean at one volume by itself."
    )
    return how, figure(results) + volume_table(results)


def figure(results: Results) -> str:
    """Return the mean curves with their intervals."""
    points: dict[str, list[Row]] = defaultdict(list)
    for row in results.tables["curve_summary"]:
        points[row["model"]].append(row)
    curves = [curve(results.styles[name], points[name]) for name in results.models if name in points]
    largest = max(x for line in curves for x, _ in line.points)
    drawn = [("Mean over the patients", curves)]
    axes = Axis("Volume of the plan, % of the standard plan", 0, largest), Axis("Coverage, %", 0, 100)
    return downloadable(
        results,
        panels(drawn, *axes, width=620, upright=100),
        line_rows(drawn),
        "coverage_by_volume",
        *("curve_summary", "volume_saved"),
    )


def curve(style: ModelStyle, found: list[Row]) -> Curve:
    """Return the line of one model in percent, with its band where there are enough patients."""
    found = sorted(found, key=lambda row: row["fraction"])
    return mean_curve(style, found, ("fraction", "mean", "ci_low", "ci_high"), (100, 100))


def volume_table(results: Results) -> str:
    """Return how much of the standard plan's volume each model saves, and what it covers at some volumes."""
    saved = {row["model"]: row for row in results.tables["volume_saved"]}
    curves = {(row["model"], round(row["fraction"], 6)): row for row in results.tables["curve_summary"]}
    body = []
    for name in [name for name in ranked(results) if name in saved]:
        row = saved[name]
        covered = [
            with_interval(percent(point["mean"]), interval(point.get("ci_low"), point.get("ci_high")))
            if (point := curves.get((name, fraction)))
            else MISSING
            for fraction in VOLUMES
        ]
        body.append(
            [
                model_cell(results, name),
                int(row["n"]),
                estimate(row, "saved"),
                int(row["n_less"]),
                int(row["n_never"]),
                *covered,
            ]
        )
    if not body:
        return ""
    head = [
        "Model",
        "Patients",
        "Volume saved, %, median [95 % CI]",
        "Need less",
        "Need more than twice",
        *(f"Coverage at {number(fraction, 0, 100)} % of the volume, % [95 % CI]" for fraction in VOLUMES),
    ]
    note = (
        "Saved is what a model does not need of the standard plan’s volume to cover as much as that plan; its own row "
        "tells what a smaller margin would have saved in hindsight. Patients of whom the standard plan covers nothing "
        "are not counted. Coverage is the mean over the patients; each interval is that of one volume by itself."
    )
    return f'{table(head, body)}<p class="gbm-note">{note}</p>'
