"""Section of the report on uncertainty: whether a large spread of a model's maps means a poor plan."""

from __future__ import annotations

from predictgbm.report.formatting import downloadable, model_cell, number, p_value, percent, table
from predictgbm.report.line_plots import Axis, Curve, line_rows, panels
from predictgbm.report.results import Results


def section(results: Results) -> tuple[str, str] | None:
    """Section with rank correlations and risk-coverage curves; None without a model that has a spread."""
    found = {row["model"]: row for row in results.tables["uncertainty"]}
    models = [name for name in results.models if name in found]
    if not models:
        return None
    body, curves = [], []
    for name in models:
        rows = [row for row in results.tables["uncertainty_curve"] if row["model"] == name]
        points = sorted((100 * row["kept"], 100 * row["coverage"]) for row in rows)
        # By half of the patients, the less uncertain.
        half = next((y for x, y in points if x >= 50), None)
        body.append(
            [
                model_cell(results, name),
                int(found[name]["n"]),
                number(found[name].get("rho"), 2, sign=True),
                p_value(found[name].get("p")),
                percent(half / 100 if half is not None else None),
                percent(points[-1][1] / 100 if points else None),
            ]
        )
        if points:
            curves.append(Curve(results.styles[name], points))
    how = (
        "A model that knows when it is unsure covers less where its spread is large: its correlation is below 0, and "
        "its line falls to the right, from the patients it is surest of to all of them."
    )
    note = (
        '<p class="gbm-note">Spread is the standard deviation over the networks or draws of a model, averaged over the '
        "border of its plan inside the brain; coverage is that of the enhancing recurrence. p-values are not adjusted "
        "and all of it is exploratory.</p>"
    )
    head = ["Model", "Patients", "Spearman's correlation", "p"]
    head += ["Mean coverage of the surer half, %", "Mean coverage of all, %"]
    figure = ""
    if curves:
        axes = Axis("Patients kept, the surest first, %", 0, 100), Axis("Mean coverage, %", 0, 100)
        drawn = [("The most uncertain set aside", curves)]
        figure = downloadable(
            results, panels(drawn, *axes), line_rows(drawn), "uncertainty", "uncertainty_curve"
        )
    return how, figure + table(head, body) + note
