"""Tables of whether the spread of a model's maps tells how well they cover."""

from __future__ import annotations

from predictgbm.tables.columns import Column, Table, count, fraction, model

UNCERTAINTY = Table(
    "Spearman correlation of spread_border and coverage_enhancing of models with a spread; exploratory",
    ("model",),
    (
        model,
        count("n", "patients", "Patients with a spread and a coverage"),
        Column("rho", "number", "1", "Spearman's rank correlation", minimum=-1.0, maximum=1.0),
        fraction("p", "Two-sided p-value: exact to 8 patients, then Student's t; not adjusted"),
    ),
)

UNCERTAINTY_CURVE = Table(
    "Risk-coverage curve: mean coverage of the patients that are kept when those of the largest spread are set aside",
    ("model", "n_kept"),
    (
        model,
        count("n_kept", "patients", "Patients that are kept, 5 or more"),
        fraction("kept", "Part of the patients with a spread and a coverage that is kept"),
        fraction("coverage", "Mean enhancing coverage of those kept"),
    ),
)
