"""Tables of the dose that was given."""

from __future__ import annotations

from predictgbm.patterns import PATTERNS
from predictgbm.tables.columns import Column, Table, amount, fraction, patient, pattern, text
from predictgbm.tables.dose import HISTOGRAM, brain_dose, organ_dose, recurrence_dose, shift


def _by_treatment(name: str, description: str) -> Column:
    return text(
        name,
        f"{description}, by the part within the 95 % isodose of the given dose (95 %, 80 %, 20 % or more, less)",
        values=tuple(PATTERNS),
    )


GIVEN_DOSE = Table(
    "Dose that was given, where the samplesheet has it: one row per patient",
    ("patient",),
    (
        patient,
        amount("prescription_gy", "Gy", "Prescribed dose, of the samplesheet or else of --prescription"),
        amount("core_mean_gy", "Gy", "Mean dose of the pre-operative core; low if the frames do not fit"),
        amount("integral_gy_l", "Gy l", "Dose times volume over the brain"),
        *recurrence_dose("recurrence", "the given dose"),
        *brain_dose(),
        _by_treatment("pattern_isodose", "Pattern that most of the recurrence's volume has"),
        pattern("The same by the standard plan", "pattern_standard"),
    ),
)

GIVEN_LESIONS = Table(
    "Connected parts of the enhancing recurrence of patients whose given dose is known",
    ("patient", "lesion"),
    (
        patient,
        Column("lesion", "integer", "", "Number, as in table lesions", minimum=0, required=True),
        amount("volume_ml", "ml", "Volume of the lesion"),
        fraction("coverage_isodose", "Part of the lesion within the 95 % isodose of the given dose"),
        fraction("coverage_standard", "Part of the lesion inside the standard plan"),
        _by_treatment("pattern_isodose", "Where the lesion came back"),
        pattern("The same by the standard plan", "pattern_standard"),
    ),
)

GIVEN_ORGANS = Table(
    "Given dose of the organs at risk: one row per patient and organ",
    ("patient", "organ"),
    (patient, *organ_dose()),
)

GIVEN_SUMMARY = Table(
    "Mean of each measure of table given_dose and its shift against the modelled dose of the standard plan in the "
    "same patients; exploratory, p-values are not adjusted",
    ("measure",),
    (
        text(
            "measure",
            "Column of table given_dose, or oar_<organ>_<column of given_organs>",
            required=True,
        ),
        *shift("given dose", "modelled dose of the standard plan"),
    ),
)

GIVEN_DVH = Table(
    "Mean cumulative dose-volume histograms of the patients whose given dose is known",
    ("source", "structure", "dose_gy"),
    (
        text(
            "source",
            "The given dose, or the modelled dose of the standard plan in the same patients",
            required=True,
            values=("given", "standard"),
        ),
        text(
            "structure",
            "Recurrence, brain without the pre-operative core, or organ at risk oar_<name>",
            required=True,
        ),
        *HISTOGRAM,
    ),
)
