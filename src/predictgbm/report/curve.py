"""Section of the report on coverage at other plan volumes than the standard plan's."""

from __future__ import annotations

from html import escape
from typing import Any

from multiqc.plots import linegraph

from predictgbm.report.formatting import (
    MISSING,
    data_links,
    estimate,
    interval,
    model_cell,
    number,
    percent,
    table,
    with_interval,
)
from predictgbm.report.results import Results, ranked

#: Volumes of the plan, over that of the standard plan, whose coverage the table gives.
VOLUMES = (0.5, 0.75, 1.5)


def section(results: Results) -> tuple[str, str] | None:
    """Section with the coverage that plans of other volumes would reach."""
    if not results.tables["curve_summary"]:
        return None
    how = (
        "Each line shows what share of the recurrence a model would cover if all plans were made smaller "
        "or larger; higher is better, and the upright line at 100 % is the volume of the standard plan."
    )
    data = f'<p class="gbm-note">{data_links("curve_summary", "volume_saved")}</p>'
    return how, volume_table(results) + data


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
    curves: dict[str, dict[float, float]] = {}
    for row in results.tables["curve_summary"]:
        curves.setdefault(row["model"], {})[round(100 * row["fraction"], 3)] = 100 * row["mean"]
    return {name: dict(sorted(curves[name].items())) for name in results.models if name in curves}


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
