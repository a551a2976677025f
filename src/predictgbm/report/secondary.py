"""Tables beside the primary endpoint: overlap and distance by data set, and what a gain goes along with."""

from __future__ import annotations

from statistics import fmean, stdev

import numpy as np

from predictgbm.report.formatting import MISSING, details, model_cell, number, p_value, table, with_interval
from predictgbm.report.results import Results, Row, known, others, ranked

#: Column of table ``metrics``, title and decimals.
MEASURES = (("dice", "Dice", 2), ("hd95_mm", "HD95, mm", 1), ("curve_area", "Area of the curve", 3))
#: Covariate of table ``correlations``, and title.
COVARIATES = (
    ("com_distance_cm", "Distance from tumour to recurrence"),
    ("tumor_core_ml", "Volume of the tumour core"),
    ("recurrence_enhancing_ml", "Volume of the recurrence"),
)


def measures(results: Results) -> str:
    """Return mean with standard error and median with quartiles of each measure, by data set and model, folded."""
    rows = [
        row for row in results.tables["metrics"] if any(row.get(key) is not None for key, _, _ in MEASURES)
    ]
    cohorts = sorted({str(row.get("cohort") or "not given") for row in rows})
    groups: list[tuple[str, list[Row]]] = [("pooled", rows)]
    if len(cohorts) > 1:
        groups += [
            (name, [row for row in rows if str(row.get("cohort") or "not given") == name]) for name in cohorts
        ]
    body = []
    for dataset, members in groups:
        for model in ranked(results):
            own = [row for row in members if row["model"] == model]
            if own:
                cells = [
                    cell for key, _, decimals in MEASURES for cell in described(known(own, key), decimals)
                ]
                body.append([model_cell(results, model), dataset, len(own), *cells])
    if not body:
        return ""
    head = ["Model", "Dataset", "n"]
    for _, title, _ in MEASURES:
        head += [f"{title}: mean ± SE", "median [quartiles]"]
    return str(
        details("Dice, HD95 and area of the curve, by dataset", table(head, body, (0, 1), sortable=True))
    )


def described(values: list[float], decimals: int) -> tuple[str, str]:
    """Return mean ± standard error, and median [first to third quartile]; dashes where there is no value."""
    if not values:
        return MISSING, MISSING
    mean = number(fmean(values), decimals)
    if len(values) > 1:
        mean += f" ± {number(stdev(values) / len(values) ** 0.5, decimals)}"
    low, middle, high = (number(float(q), decimals) for q in np.percentile(values, (25, 50, 75)))
    return mean, with_interval(middle, f"{low} to {high}")


def correlations(results: Results) -> str:
    """Return Spearman's correlation of each model's gain with each covariate; empty where there is none."""
    found = {(row["model"], row["covariate"]): row for row in results.tables["correlations"]}

    def cell(model: str, covariate: str) -> str:
        row = found.get((model, covariate), {})
        if row.get("rho") is None:
            return MISSING
        return f"{number(row['rho'], 2)} (p = {p_value(row.get('p'))}, n = {int(row['n'])})"

    body = []
    for model in others(results):
        cells = [cell(model, covariate) for covariate, _ in COVARIATES]
        if any(text != MISSING for text in cells):
            body.append([model_cell(results, model), *cells])
    if not body:
        return ""
    note = "Spearman’s ρ of the gain over the standard plan with each; p-values are not adjusted."
    head = ["Model", *(title for _, title in COVARIATES)]
    return f'<h4>What a gain goes along with</h4>{table(head, body)}<p class="gbm-note">{note}</p>'
