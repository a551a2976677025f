"""Section of the report on coverage at other plan volumes than the standard plan's."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from statistics import median
from typing import Any

from multiqc.plots import linegraph

from predictgbm.report.formatting import model_cell, number, table
from predictgbm.report.results import Results, ranked


def section(results: Results) -> tuple[str, str] | None:
    """Section with the coverage that plans of other volumes would reach."""
    if not results.tables["curves"]:
        return None
    how = (
        "Each line shows what share of the recurrence a model would cover if all plans were made smaller "
        "or larger; higher is better, and the upright line at 100 % is the volume of the standard plan."
    )
    return how, volume_table(results)


def plot(results: Results) -> Any:
    """Return the curves as MultiQC's own line plot; None if there are none."""
    lines = mean_curves(results)
    if not lines:
        return None
    style = {name: results.styles[name] for name in lines}
    # Plotly reads tags, and no entity for quotes.
    titles = {name: escape(style[name].title, quote=False) for name in lines}
    return linegraph.plot(
        {titles[name]: line for name, line in lines.items()},
        pconfig={
            "id": "predictgbm_curve",
            "title": "Benchmark: mean coverage at other plan volumes",
            "xlab": "Volume of the plan, % of the standard plan",
            "ylab": "Mean coverage of the recurrence, %",
            "ymin": 0,
            "ymax": 100,
            "xmin": 0,
            "height": 480,
            "x_lines": [{"value": 100, "color": "#999999", "dash": "dash", "width": 1}],
            "colors": {titles[name]: style[name].color for name in lines},
            "dash_styles": {titles[name]: style[name].dash for name in lines},
            "tt_label": "%{x:.0f} % of the volume: %{y:.1f} %",
            "style": "lines",
            "showlegend": True,
            "smooth_points": None,
            "series_label": "models",
        },
    )


def mean_curves(results: Results) -> dict[str, dict[float, float]]:
    """Return mean coverage in percent by plan volume in percent of the standard plan, by model."""
    sums: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in results.tables["curves"]:
        if row.get("coverage_enhancing") is not None and row.get("fraction") is not None:
            sums[row["model"]][round(100 * row["fraction"], 3)].append(row["coverage_enhancing"])
    return {
        name: {volume: 100 * sum(values) / len(values) for volume, values in sorted(sums[name].items())}
        for name in results.models
        if name in sums
    }


def volume_table(results: Results) -> str:
    """Return how much of the standard plan's volume each model needs for the standard plan's coverage."""
    rows = []
    for name in ranked(results):
        shares = [
            100 * row["volume_at_soc_coverage_ml"] / row["plan_ml"]
            for row in results.tables["metrics"]
            if row["model"] == name
            and row.get("volume_at_soc_coverage_ml") is not None
            and row.get("plan_ml")
        ]
        if shares:
            less = sum(share < 100 for share in shares)
            rows.append(
                [
                    model_cell(results, name),
                    len(shares),
                    number(median(shares), 0),
                    f"{less} of {len(shares)}",
                ]
            )
    if not rows:
        return ""
    head = [
        "Model",
        "Patients",
        "Volume needed for the standard plan's coverage, % (median)",
        "Patients who need less",
    ]
    return table(head, rows)
