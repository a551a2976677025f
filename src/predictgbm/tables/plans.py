"""Tables of the plans themselves: how each covers the recurrence, also at other volumes and by other choices."""

from __future__ import annotations

from predictgbm.tables.columns import (
    Column,
    Table,
    amount,
    axis,
    cohort,
    com_distance,
    days,
    followup,
    fraction,
    model,
    patient,
    pattern,
    planned,
    recurrence,
    session,
    setting,
    text,
    tumor_core,
    tumor_whole,
)

METRICS = Table(
    "One row per patient and model: how well the plan covers the recurrence",
    ("patient", "model"),
    (
        patient,
        session,
        cohort,
        followup,
        days,
        model,
        fraction(
            "coverage_enhancing", "Part of the enhancing recurrence inside the plan; the primary endpoint"
        ),
        fraction("coverage_core", "Part of the recurrence core (enhancing and necrosis) inside the plan"),
        fraction("coverage_all", "Part of the whole recurrence (core and oedema) inside the plan"),
        fraction("dice", "Dice overlap of the plan and the enhancing recurrence"),
        amount(
            "hd95_mm",
            "mm",
            "95th percentile of the surface distance of the plan and the enhancing recurrence",
        ),
        amount("plan_ml", "ml", "Volume of the plan, the same for every model of a patient"),
        recurrence,
        amount("recurrence_core_ml", "ml", "Volume of the recurrence core (enhancing and necrosis)"),
        tumor_core,
        tumor_whole,
        com_distance,
        Column("n_lesions", "integer", "1", "Connected parts of the enhancing recurrence", minimum=0),
        amount(
            "curve_area",
            "1",
            "Area under the coverage-volume curve, divided by the width of its volume axis",
        ),
        amount(
            "volume_at_soc_coverage_ml",
            "ml",
            "Least volume at which the model covers as much of the recurrence as the standard of care; "
            "empty if it never does",
        ),
        amount(
            "spread_border",
            "of the map",
            "Mean standard deviation of the model's map over the border of its plan; empty if the model tells none",
        ),
        text("reason", "Why the plan could not be scored; empty if it was"),
    ),
)

LESIONS = Table(
    "One row per patient, model and connected part of the enhancing recurrence",
    ("patient", "model", "lesion"),
    (
        patient,
        model,
        Column("lesion", "integer", "", "Number of the lesion within the patient", minimum=0, required=True),
        amount("volume_ml", "ml", "Volume of the lesion"),
        fraction("coverage", "Part of the lesion inside the plan"),
        amount(
            "core_distance_mm",
            "mm",
            "Least distance of a voxel centre of the lesion to one of the pre-operative tumour core; 0 where they "
            "overlap",
        ),
        fraction(
            "coverage_standard", "Part of the lesion inside the standard plan, which judges its pattern"
        ),
        pattern("Where the lesion came back"),
    ),
)

CURVES = Table(
    "Coverage-volume curves: one row per patient, model and planned volume",
    ("patient", "model", "fraction"),
    (
        patient,
        model,
        planned,
        fraction("coverage_enhancing", "Part of the enhancing recurrence inside that volume"),
    ),
)

SETTINGS = Table(
    "Coverage if the evaluation were set otherwise: one row per patient, model and setting",
    ("patient", "model", "axis", "setting"),
    (
        patient,
        model,
        axis,
        setting,
        amount("plan_ml", "ml", "Volume of the plan"),
        fraction("coverage_enhancing", "Part of the enhancing recurrence inside the plan"),
    ),
)
