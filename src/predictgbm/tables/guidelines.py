"""Tables of the plans within the barriers of a guideline."""

from __future__ import annotations

from predictgbm.tables.columns import Table, amount, count, difference, fraction, model, patient, text

_guideline = text("guideline", "Name of the guideline, as in --guidelines", required=True)

GUIDELINES = Table(
    "Plans within the barriers of a guideline and of its plan's volume: one row per patient, guideline and model",
    ("patient", "guideline", "model"),
    (
        patient,
        _guideline,
        text("model", "Name of the model, or 'guideline' for the guideline's own plan", required=True),
        fraction("coverage_enhancing", "Part of the enhancing recurrence inside the plan"),
        fraction("coverage_core", "Part of the recurrence core (enhancing and necrosis) inside the plan"),
        amount("plan_ml", "ml", "Volume of the plan, that of the guideline's own"),
    ),
)

GUIDELINE_COMPARISONS = Table(
    "Each model against a guideline's own plan, paired by patient: enhancing coverage, exploratory",
    ("guideline", "model"),
    (
        _guideline,
        model,
        count("n", "patients", "Patients with a coverage of both"),
        count("n_zero", "patients", "Patients in whom both cover the same"),
        fraction("mean", "Mean coverage of the model's plans"),
        fraction("mean_guideline", "Mean coverage of the guideline's plans of the same patients"),
        difference("shift", "Hodges-Lehmann shift of coverage, model minus guideline"),
        difference("shift_low", "Lower end of its 95 % interval"),
        difference("shift_high", "Upper end of its 95 % interval"),
        difference(
            "rank_biserial",
            "Matched-pairs rank-biserial correlation; 1 if the model is never worse, -1 if never better",
        ),
        fraction("p_pratt", "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt"),
        fraction("p_adjusted", "p_pratt adjusted by Holm over the models of the guideline"),
    ),
)
