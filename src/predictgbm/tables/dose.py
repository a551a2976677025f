"""Tables of the modelled dose."""

from __future__ import annotations

from predictgbm.tables.columns import Column, Table, amount, count, fraction, model, patient, text

HISTOGRAM = (
    Column("dose_gy", "number", "Gy", "Dose that is reached", minimum=0.0, required=True),
    count("n", "patients", "Patients in the mean"),
    fraction("volume", "Mean part of the structure that gets this dose or more"),
    fraction("volume_low", "Lower end of its pointwise 95 % percentile interval, bootstrap by patient"),
    fraction("volume_high", "Upper end of that interval"),
)


def shift(of: str, reference: str) -> tuple[Column, ...]:
    """Return the columns that tell a mean over patients and its shift against a reference."""
    return (
        count("n", "patients", "Patients with this measure"),
        amount("mean", "of the measure", "Mean over the patients"),
        amount(
            "ci_low", "of the measure", "Lower end of the 95 % BCa bootstrap interval, stratified by cohort"
        ),
        amount("ci_high", "of the measure", "Upper end of that interval"),
        Column("n_paired", "integer", "patients", "Patients with this measure of both", minimum=0),
        Column("shift", "number", "of the measure", f"Hodges-Lehmann shift, {of} minus {reference}"),
        Column("shift_low", "number", "of the measure", "Lower end of its 95 % interval"),
        Column("shift_high", "number", "of the measure", "Upper end of its 95 % interval"),
        fraction("p_pratt", "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt"),
    )


def brain_dose() -> tuple[Column, ...]:
    """Return the columns of the dose of the brain."""
    return (
        amount("brain_mean_gy", "Gy", "Mean dose of the brain without the pre-operative core"),
        amount("brain_v95_ml", "ml", "Volume of it with 95 % of the prescribed dose or more"),
        amount("brain_v50_ml", "ml", "Volume of it with half of the prescribed dose or more"),
    )


def organ_dose() -> tuple[Column, ...]:
    """Return the columns of the dose of an organ."""
    return (
        text("organ", "Name of the organ, of its column oar_<name> in the samplesheet", required=True),
        amount("volume_ml", "ml", "Volume of the organ"),
        amount("mean_gy", "Gy", "Mean dose of the organ"),
        amount(
            "d003cc_gy", "Gy", "Near-maximum dose: what its hottest 0.03 ml get at least; empty if smaller"
        ),
    )


def recurrence_dose(prefix: str, by: str) -> tuple[Column, ...]:
    """Return the columns of the dose of the recurrence."""
    return (
        *(
            amount(f"{prefix}_d{part}_gy", "Gy", f"Dose that {part} % of the recurrence get at least by {by}")
            for part in (98, 95, 50)
        ),
        amount(f"{prefix}_mean_gy", "Gy", f"Mean dose of the recurrence by {by}"),
        amount(f"{prefix}_geud_gy", "Gy", f"Generalised equivalent uniform dose (a = -10) of it by {by}"),
        fraction(f"{prefix}_v95", f"Part of the recurrence with 95 % of the prescribed dose or more by {by}"),
    )


DOSE = Table(
    "Modelled dose, of a plan and painted by a map at the same integral dose: one row per patient and model",
    ("patient", "model"),
    (
        patient,
        model,
        amount("plan_d95_gy", "Gy", "Dose that 95 % of the plan get at least"),
        amount("integral_gy_l", "Gy l", "Dose times volume over the brain"),
        *recurrence_dose("recurrence", "the plan"),
        *brain_dose(),
        amount("wm_mean_gy", "Gy", "Mean dose of white matter there, weighted by its probability"),
        amount("gm_mean_gy", "Gy", "The same of grey matter"),
        amount("csf_mean_gy", "Gy", "The same of cerebrospinal fluid"),
        amount("painted_ml", "ml", "Volume that painting prescribes a dose to"),
        *recurrence_dose("painted", "dose painting"),
    ),
)

DOSE_SUMMARY = Table(
    "Mean of each measure of table dose and its shift against the standard of care, pooled; exploratory, p-values "
    "are not adjusted",
    ("model", "measure"),
    (
        model,
        text("measure", "Column of table dose, or oar_<organ>_<column of organ_dose>", required=True),
        *shift("model", "standard of care"),
    ),
)

ORGAN_DOSE = Table(
    "Modelled dose of the organs at risk: one row per patient, model and organ",
    ("patient", "model", "organ"),
    (patient, model, *organ_dose()),
)

DVH = Table(
    "Mean cumulative dose-volume histograms: one row per model, structure and dose",
    ("model", "structure", "dose_gy"),
    (
        model,
        text(
            "structure",
            "Recurrence by the plan's dose; the same by painted dose (painted recurrence); brain without the core, and "
            "organ at risk oar_<name>, by the plan's",
            required=True,
        ),
        *HISTOGRAM,
    ),
)
