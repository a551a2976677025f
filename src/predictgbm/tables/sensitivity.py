"""Tables of what changes if the evaluation is set otherwise."""

from __future__ import annotations

from predictgbm.tables.columns import Column, Table, axis, count, difference, fraction, model, rank, setting

SENSITIVITY = Table(
    "Each model if the evaluation were set otherwise, beside the main analysis of the same patients; exploratory",
    ("axis", "setting", "model"),
    (
        axis,
        setting,
        model,
        count("n", "patients", "Patients with a coverage of any model in this setting"),
        fraction("mean", "Mean coverage, a missing plan counted as 0"),
        fraction("mean_main", "The same in the main analysis"),
        difference("shift", "Hodges-Lehmann shift of coverage, model minus standard of care"),
        difference("shift_main", "The same in the main analysis"),
        fraction("p_pratt", "Two-sided signed-rank p-value of that difference, zeros by Pratt; not adjusted"),
        fraction("p_pratt_main", "The same in the main analysis"),
        rank("rank", "Rank of the mean coverage; 1 is the best"),
        rank("rank_main", "The same in the main analysis"),
    ),
)

AGREEMENT = Table(
    "Whether the ranking survives another setting of the evaluation: one row per setting",
    ("axis", "setting"),
    (
        axis,
        setting,
        count("n", "patients", "Patients with a coverage of any model in this setting"),
        count("n_models", "models", "Models ranked"),
        Column(
            "tau",
            "number",
            "1",
            "Kendall's tau-b of the ranking of mean coverages with that of the main analysis on the same patients",
            minimum=-1.0,
            maximum=1.0,
        ),
        Column("same_best", "boolean", "", "Whether the same models have rank 1"),
        Column(
            "verdicts_changed",
            "integer",
            "models",
            "Models whose comparison with the standard of care changes its sign or crosses p = 0.05",
            minimum=0,
        ),
    ),
)
