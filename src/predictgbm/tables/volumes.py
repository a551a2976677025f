"""Tables of coverage by planned volume, over the patients."""

from __future__ import annotations

from predictgbm.tables.columns import Table, amount, count, difference, fraction, model, planned

CURVE_SUMMARY = Table(
    "Mean coverage-volume curve of each model, all patients together: one row per model and planned volume",
    ("model", "fraction"),
    (
        model,
        planned,
        count("n", "patients", "Patients with a curve of this model"),
        fraction("mean", "Mean coverage of the enhancing recurrence"),
        fraction(
            "ci_low",
            "Lower end of its 95 % BCa bootstrap interval, stratified by cohort; for each volume by itself",
        ),
        fraction("ci_high", "Upper end of that interval"),
    ),
)

VOLUME_SAVED = Table(
    "Volume that a model saves if it is to cover as much as the standard plan: one row per model",
    ("model",),
    (
        model,
        count("n", "patients", "Patients with a curve of this model"),
        count(
            "n_less",
            "patients",
            "Of these, patients in whom less than the standard plan's volume is enough",
        ),
        count("n_never", "patients", "Patients in whom not even twice the standard plan's volume is enough"),
        difference(
            "saved",
            "Median over the patients of 1 minus the volume needed over the standard plan's; n_never count as -1",
        ),
        difference("saved_low", "Lower end of its 95 % BCa bootstrap interval, stratified by cohort"),
        difference("saved_high", "Upper end of that interval"),
    ),
)

GUARANTEE = Table(
    "Volume that covers enough of the recurrence of a new patient, by split conformal: one row per model",
    ("model",),
    (
        model,
        count("n", "patients", "Patients with a recurrence and the inputs that the model needs"),
        count(
            "n_missing", "patients", "Of these, patients without a map of the model, whom no volume covers"
        ),
        count("n_reached", "patients", "Of these, patients whose curve reaches that coverage"),
        fraction("coverage", "Part of the enhancing recurrence that is to be covered"),
        fraction("level", "Probability with which the volume is enough for a new patient like these"),
        amount(
            "fraction",
            "1",
            "Planned volume over the volume of the standard plan; empty if there are too few patients, or no "
            "volume of the curve is enough for so many",
        ),
        fraction("kept", "Part of the patients for whom the volume found in all others is enough"),
    ),
)
