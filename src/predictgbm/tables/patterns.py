"""Tables of where recurrence came back, and of likely causes of low coverage."""

from __future__ import annotations

from predictgbm.causes import RULES
from predictgbm.patterns import PATTERNS
from predictgbm.tables.columns import (
    Column,
    Table,
    amount,
    count,
    difference,
    fraction,
    model,
    patient,
    pattern,
    text,
)

_cause = text(
    "cause",
    "Name of the rule, as in predictgbm.causes",
    required=True,
    values=tuple(rule.cause for rule in RULES),
)

RECURRENCE_PATTERNS = Table(
    "Where the enhancing recurrence came back: one row per patient",
    ("patient",),
    (
        patient,
        count("n_lesions", "1", "Connected parts of the enhancing recurrence"),
        count("n_measurable", "1", "Of these, parts of at least 0.52 ml (a ball of 10 mm diameter)"),
        Column("multifocal", "boolean", "", "Whether two or more parts are that large", required=True),
        pattern("Pattern that most of the volume has"),
        amount("central_ml", "ml", "Volume of the lesions of which the standard plan covers 95 % or more"),
        amount("in_field_ml", "ml", "Volume of those of which it covers 80 % or more, but not 95 %"),
        amount("marginal_ml", "ml", "Volume of those of which it covers 20 % or more, but not 80 %"),
        amount("distant_ml", "ml", "Volume of those of which it covers less than 20 %"),
        amount("farthest_mm", "mm", "Largest core_distance_mm of the patient's lesions"),
        amount("outside_brain_ml", "ml", "Volume of the enhancing recurrence outside the brain mask"),
    ),
)

COVERAGE_BY_PATTERN = Table(
    "Mean coverage by pattern of the lesion, and by number of lesions of the patient; exploratory",
    ("model", "group"),
    (
        model,
        text("unit", "What is averaged: lesions, or patients", required=True, values=("lesion", "patient")),
        text(
            "group",
            "Pattern of the lesions; or patients with two or more lesions of at least 0.52 ml (multifocal), with "
            "fewer (unifocal)",
            required=True,
            values=(*PATTERNS, "unifocal", "multifocal"),
        ),
        count("n", "of the unit", "Lesions or patients with a coverage of this model"),
        count("n_patients", "patients", "Patients they belong to"),
        fraction("mean", "Mean coverage"),
        fraction(
            "ci_low",
            "Lower end of its 95 % BCa bootstrap interval; patients are drawn with all their lesions, stratified "
            "by cohort",
        ),
        fraction("ci_high", "Upper end of that interval"),
        difference(
            "gain", "Mean coverage minus that of the standard of care on the same lesions or patients"
        ),
        difference("gain_low", "Lower end of its 95 % interval, likewise"),
        difference("gain_high", "Upper end of that interval"),
    ),
)

CAUSES = Table(
    "Likely causes of low coverage: one row per scored patient and rule, for all models alike",
    ("patient", "cause"),
    (
        patient,
        _cause,
        amount("value", "of the rule", "What the rule compares with its limit; empty if it is not known"),
        Column("present", "boolean", "", "Whether the cause is present"),
    ),
)

CAUSE_FREQUENCIES = Table(
    "How often a cause is present in the worst tenth of a model's patients and in the others; exploratory",
    ("model", "cause"),
    (
        model,
        _cause,
        count(
            "n_worst",
            "patients",
            "Patients of the worst tenth by enhancing coverage, equal ones included",
        ),
        count("worst_with", "patients", "Of these, patients with the cause"),
        count("n_others", "patients", "The other patients"),
        count("others_with", "patients", "Of these, patients with the cause"),
        amount(
            "ratio",
            "1",
            "Part of the worst with the cause over that of the others; empty if no other has it",
        ),
        fraction("p", "Two-sided p-value of Fisher's exact test; not adjusted"),
    ),
)
