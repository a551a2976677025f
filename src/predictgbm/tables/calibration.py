"""Tables of whether probabilities are kept."""

from __future__ import annotations

from predictgbm.tables.columns import Column, Table, count, fraction, model, patient, text

_SCORES = (
    fraction("prevalence", "Part of the brain within 60 mm of the core that recurred"),
    fraction("probability", "Mean probability there"),
    fraction("brier", "Brier score: mean squared difference of probability and outcome"),
    fraction("reliability", "Its part by frequencies unlike the probabilities; 0 if calibrated"),
    fraction("resolution", "Its part by frequencies unlike the prevalence, which lowers it"),
    fraction("uncertainty", "Brier score of the prevalence itself"),
    Column("within", "number", "1", "Its part by differences within bins"),
    Column(
        "skill",
        "number",
        "1",
        "1 - brier / uncertainty; 0 for the prevalence, 1 for a perfect map",
        maximum=1.0,
    ),
    fraction("ece", "Expected calibration error: mean distance of frequency and probability over the bins"),
)

CALIBRATION = Table(
    "Calibration of maps that are declared probabilities: one row per patient and model",
    ("patient", "model"),
    (patient, model, *_SCORES),
)

CALIBRATION_SUMMARY = Table(
    "The scores of table calibration with all patients pooled, each with the same weight",
    ("model", "score"),
    (
        model,
        text("score", "Column of table calibration", required=True, values=tuple(c.name for c in _SCORES)),
        count("n", "patients", "Patients"),
        Column("value", "number", "1", "Score of all patients together"),
        Column("low", "number", "1", "Lower end of its 95 % percentile interval, bootstrap by patient"),
        Column("high", "number", "1", "Upper end of that interval"),
    ),
)

RELIABILITY = Table(
    "Reliability curves with all patients pooled: one row per model and bin that holds voxels",
    ("model", "bin_low"),
    (
        model,
        Column(
            "bin_low", "number", "1", "Lowest probability of the bin", minimum=0, maximum=1, required=True
        ),
        fraction("bin_high", "Highest probability of the bin"),
        count("n", "patients", "Patients with voxels in the bin"),
        fraction("share", "Part of the voxels in the bin"),
        fraction("probability", "Mean probability in the bin"),
        fraction("frequency", "Part of the voxels that recurred"),
        fraction("frequency_low", "Lower end of its 95 % percentile interval, bootstrap by patient"),
        fraction("frequency_high", "Upper end of that interval"),
    ),
)
