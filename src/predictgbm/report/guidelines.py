"""Section of the report on plans within the barriers of guidelines."""

from __future__ import annotations

from predictgbm.guidelines.presets import GUIDELINES
from predictgbm.report.formatting import interval, model_cell, number, p_value, table, with_interval
from predictgbm.report.results import Results
from predictgbm.statistics.guidelines import OWN_PLAN


def section(results: Results) -> tuple[str, str] | None:
    """Section with each model against the plan of each guideline, all of one volume and within its barriers."""
    parts = [guideline_table(results, name) for name in GUIDELINES]
    if not any(parts):
        return None
    how = (
        "A guideline’s plan stops at skull, falx and tentorium and goes little into the ventricles; each model’s plan "
        "here has its volume and keeps its barriers, so that a model is useful in that practice if it covers more than "
        "the guideline itself."
    )
    return how, "".join(parts)


def guideline_table(results: Results, name: str) -> str:
    """Return the table of one guideline, the largest mean coverage first; empty if it was not drawn."""
    rows = [row for row in results.tables["guideline_comparisons"] if row["guideline"] == name]
    if not rows:
        return ""
    own = [
        row["plan_ml"]
        for row in results.tables["guidelines"]
        if row["guideline"] == name and row["model"] == OWN_PLAN
    ]
    body = [
        [
            model_cell(results, row["model"]),
            int(row["n"]),
            number(row.get("mean"), 1, 100),
            number(row.get("mean_guideline"), 1, 100),
            with_interval(
                number(row.get("shift"), 1, 100, sign=True),
                interval(row.get("shift_low"), row.get("shift_high"), sign=True),
            ),
            number(row.get("rank_biserial"), 2),
            p_value(row.get("p_pratt")),
            p_value(row.get("p_adjusted")),
        ]
        for row in sorted(rows, key=lambda row: (-(row.get("mean") or 0.0), row["model"]))
    ]
    rule = GUIDELINES[name]
    volume = number(sum(own) / len(own), 0)
    title = f"<h4>{rule.title}: {rule.margin_mm:g} mm, {volume} ml on average</h4>"
    head = ["Model", "Patients", "Mean coverage, %", "Guideline, %", "Shift, points [95 %]", "Rank-biserial"]
    return title + table([*head, "p (Pratt)", "p, adjusted within this guideline, exploratory"], body)
