"""The tables of a benchmark: every column with its type, unit and meaning, in one place.

The data dictionary, the checks before a table is written and the types of its columns in CSV and Parquet are
all made from :data:`TABLES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from predictgbm.causes import RULES
from predictgbm.failures import ANALYSES, KINDS
from predictgbm.options import AXES
from predictgbm.patterns import PATTERNS
from predictgbm.quality import STAGES

#: Numbers are written with this many significant digits: beyond them, results differ between processors.
SIGNIFICANT_DIGITS = 10

#: Type of a column -> pandas type that keeps missing values and reads back the same from CSV and Parquet.
PANDAS_TYPES: dict[str, str] = {
    "string": "string",
    "integer": "Int64",
    "number": "Float64",
    "boolean": "boolean",
}


PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (Integral,),
    "number": (Real,),
    "boolean": (bool, np.bool_),
}


def round_digits(value: float) -> float:
    """Return a number with :data:`SIGNIFICANT_DIGITS`, as tables and facts show it."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


class TableError(ValueError):
    """Rows do not fit the table they are meant for; the message names table, column and value."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name : str
    type : str
        ``string``, ``integer``, ``number`` or ``boolean``.
    unit : str
        Unit of a quantity; ``1`` for a pure number, empty for text and truth values.
    description : str
    minimum, maximum : float, optional
        Range of the values, both ends included.
    values : tuple of str, optional
        The only values allowed.
    required : bool
        Whether every row must have a value.
    """

    name: str
    type: str
    unit: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    required: bool = False


@dataclass(frozen=True)
class Table:
    """One table: what a row is, the columns that name it, and all columns in order."""

    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    @property
    def dtypes(self) -> dict[str, str]:
        """Pandas type of each column, to be given to :func:`pandas.read_csv`."""
        return {column.name: PANDAS_TYPES[column.type] for column in self.columns}


def _text(
    name: str, description: str, required: bool = False, values: tuple[str, ...] | None = None
) -> Column:
    return Column(name, "string", "", description, values=values, required=required)


def _fraction(name: str, description: str) -> Column:
    return Column(name, "number", "1", description, minimum=0.0, maximum=1.0)


def _amount(name: str, unit: str, description: str) -> Column:
    return Column(name, "number", unit, description, minimum=0.0)


def _count(name: str, unit: str, description: str) -> Column:
    return Column(name, "integer", unit, description, minimum=0, required=True)


def _difference(name: str, description: str) -> Column:
    return Column(name, "number", "1", description, minimum=-1.0, maximum=1.0)


def _rank(name: str, description: str, required: bool = False) -> Column:
    return Column(name, "integer", "1", description, minimum=1.0, required=required)


STATUSES = ("evaluated", "predicted", "excluded")
#: Where tissue maps come from: the samplesheet, the atlas as it lies, or the atlas registered by a method.
TISSUE_SOURCES = ("given", "atlas prior", *(f"registered ({method})" for method in ("greedy", "ncc", "syn")))
#: Models ranked together: those that nearly all patients have, and all on the patients whom each of them has.
PANELS = ("all_patients", "subset")
RANKING_METHODS = ("mean_then_rank", "rank_then_mean", "test_then_rank")
COVARIATES = ("com_distance_cm", "tumor_core_ml", "recurrence_enhancing_ml")

_patient = _text("patient", "Identifier of the patient, as in the samplesheet", required=True)
_session = _text("session", "Pre-operative exam that the models saw")
_cohort = _text("cohort", "Data set the patient belongs to; empty if the samplesheet gives none")
_followup = _text("followup_session", "Follow-up exam that the plan is scored against")
_days = Column("days", "integer", "d", "Time from the pre-operative exam to that follow-up, in whole days")
_model = _text("model", "Name of the model, as in assets/models.yml", required=True)
_dataset = _text("dataset", "Name of a cohort, or 'pooled' for all patients together", required=True)
_definition = _text(
    "definition",
    "What counts as recurrence: enhancing tumour; core (enhancing and necrosis); all (core and oedema)",
    required=True,
    values=("enhancing", "core", "all"),
)
_guideline = _text("guideline", "Name of the guideline, as in --guidelines", required=True)
_panel = _text(
    "panel",
    "all_patients: models with output for nearly all patients; subset: all models, on the patients whom "
    "those with output for fewer have",
    required=True,
    values=PANELS,
)
_ranking_method = _text(
    "method",
    "How ranks are made: from mean coverages, from ranks within each patient, or from the number of models "
    "beaten significantly",
    required=True,
    values=RANKING_METHODS,
)
_axis = _text(
    "axis",
    "What is set otherwise: margin of the standard of care; definition of recurrence; rule that picks the follow-up; "
    "least interval to it; method that registers it; barriers and volume of a guideline",
    required=True,
    values=AXES,
)
_setting = _text(
    "setting", "The other choice: mm, definition, rule, days, method, or guideline", required=True
)
_tumor_core = _amount(
    "tumor_core_ml", "ml", "Volume of the pre-operative tumour core (enhancing and necrosis)"
)
_tumor_whole = _amount("tumor_whole_ml", "ml", "Volume of the whole pre-operative tumour (core and oedema)")
_recurrence = _amount("recurrence_enhancing_ml", "ml", "Volume of the enhancing recurrence")
_com_distance = _amount(
    "com_distance_cm",
    "cm",
    "Distance between the centres of mass of the pre-operative core and of the recurrence",
)
_planned = Column(
    "fraction", "number", "1", "Planned volume over the volume of the plan", minimum=0.0, required=True
)
_cause = _text(
    "cause",
    "Name of the rule, as in predictgbm.causes",
    required=True,
    values=tuple(rule.cause for rule in RULES),
)


def _pattern(description: str, name: str = "pattern") -> Column:
    return _text(
        name,
        f"{description}: central, in-field, marginal or distant, by the part that the standard plan covers "
        "(95 %, 80 %, 20 % or more, less)",
        values=tuple(PATTERNS),
    )


def _by_treatment(name: str, description: str) -> Column:
    return _text(
        name,
        f"{description}, by the part within the 95 % isodose of the given dose (95 %, 80 %, 20 % or more, less)",
        values=tuple(PATTERNS),
    )


def _shift(of: str, reference: str) -> tuple[Column, ...]:
    """Return the columns that tell a mean over patients and its shift against a reference."""
    return (
        _count("n", "patients", "Patients with this measure"),
        _amount("mean", "of the measure", "Mean over the patients"),
        _amount(
            "ci_low", "of the measure", "Lower end of the 95 % BCa bootstrap interval, stratified by cohort"
        ),
        _amount("ci_high", "of the measure", "Upper end of that interval"),
        Column("n_paired", "integer", "patients", "Patients with this measure of both", minimum=0),
        Column("shift", "number", "of the measure", f"Hodges-Lehmann shift, {of} minus {reference}"),
        Column("shift_low", "number", "of the measure", "Lower end of its 95 % interval"),
        Column("shift_high", "number", "of the measure", "Upper end of its 95 % interval"),
        _fraction("p_pratt", "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt"),
    )


_HISTOGRAM = (
    Column("dose_gy", "number", "Gy", "Dose that is reached", minimum=0.0, required=True),
    _count("n", "patients", "Patients in the mean"),
    _fraction("volume", "Mean part of the structure that gets this dose or more"),
    _fraction("volume_low", "Lower end of its pointwise 95 % percentile interval, bootstrap by patient"),
    _fraction("volume_high", "Upper end of that interval"),
)


def _brain_dose() -> tuple[Column, ...]:
    return (
        _amount("brain_mean_gy", "Gy", "Mean dose of the brain without the pre-operative core"),
        _amount("brain_v95_ml", "ml", "Volume of it with 95 % of the prescribed dose or more"),
        _amount("brain_v50_ml", "ml", "Volume of it with half of the prescribed dose or more"),
    )


def _organ_dose() -> tuple[Column, ...]:
    return (
        _text("organ", "Name of the organ, of its column oar_<name> in the samplesheet", required=True),
        _amount("volume_ml", "ml", "Volume of the organ"),
        _amount("mean_gy", "Gy", "Mean dose of the organ"),
        _amount(
            "d003cc_gy", "Gy", "Near-maximum dose: what its hottest 0.03 ml get at least; empty if smaller"
        ),
    )


def _recurrence_dose(prefix: str, by: str) -> tuple[Column, ...]:
    return (
        *(
            _amount(
                f"{prefix}_d{part}_gy", "Gy", f"Dose that {part} % of the recurrence get at least by {by}"
            )
            for part in (98, 95, 50)
        ),
        _amount(f"{prefix}_mean_gy", "Gy", f"Mean dose of the recurrence by {by}"),
        _amount(f"{prefix}_geud_gy", "Gy", f"Generalised equivalent uniform dose (a = -10) of it by {by}"),
        _fraction(
            f"{prefix}_v95", f"Part of the recurrence with 95 % of the prescribed dose or more by {by}"
        ),
    )


_SCORES = (
    _fraction("prevalence", "Part of the brain within 60 mm of the core that recurred"),
    _fraction("probability", "Mean probability there"),
    _fraction("brier", "Brier score: mean squared difference of probability and outcome"),
    _fraction("reliability", "Its part by frequencies unlike the probabilities; 0 if calibrated"),
    _fraction("resolution", "Its part by frequencies unlike the prevalence, which lowers it"),
    _fraction("uncertainty", "Brier score of the prevalence itself"),
    Column("within", "number", "1", "Its part by differences within bins"),
    Column(
        "skill",
        "number",
        "1",
        "1 - brier / uncertainty; 0 for the prevalence, 1 for a perfect map",
        maximum=1.0,
    ),
    _fraction("ece", "Expected calibration error: mean distance of frequency and probability over the bins"),
)

TABLES: dict[str, Table] = {
    "metrics": Table(
        "One row per patient and model: how well the plan covers the recurrence",
        ("patient", "model"),
        (
            _patient,
            _session,
            _cohort,
            _followup,
            _days,
            _model,
            _fraction(
                "coverage_enhancing", "Part of the enhancing recurrence inside the plan; the primary endpoint"
            ),
            _fraction(
                "coverage_core", "Part of the recurrence core (enhancing and necrosis) inside the plan"
            ),
            _fraction("coverage_all", "Part of the whole recurrence (core and oedema) inside the plan"),
            _fraction("dice", "Dice overlap of the plan and the enhancing recurrence"),
            _amount(
                "hd95_mm",
                "mm",
                "95th percentile of the surface distance of the plan and the enhancing recurrence",
            ),
            _amount("plan_ml", "ml", "Volume of the plan, the same for every model of a patient"),
            _recurrence,
            _amount("recurrence_core_ml", "ml", "Volume of the recurrence core (enhancing and necrosis)"),
            _tumor_core,
            _tumor_whole,
            _com_distance,
            Column("n_lesions", "integer", "1", "Connected parts of the enhancing recurrence", minimum=0),
            _amount(
                "curve_area",
                "1",
                "Area under the coverage-volume curve, divided by the width of its volume axis",
            ),
            _amount(
                "volume_at_soc_coverage_ml",
                "ml",
                "Least volume at which the model covers as much of the recurrence as the standard of care; "
                "empty if it never does",
            ),
            _text("reason", "Why the plan could not be scored; empty if it was"),
        ),
    ),
    "lesions": Table(
        "One row per patient, model and connected part of the enhancing recurrence",
        ("patient", "model", "lesion"),
        (
            _patient,
            _model,
            Column(
                "lesion", "integer", "", "Number of the lesion within the patient", minimum=0, required=True
            ),
            _amount("volume_ml", "ml", "Volume of the lesion"),
            _fraction("coverage", "Part of the lesion inside the plan"),
            _amount(
                "core_distance_mm",
                "mm",
                "Least distance of a voxel centre of the lesion to one of the pre-operative tumour core; 0 where they "
                "overlap",
            ),
            _fraction(
                "coverage_standard", "Part of the lesion inside the standard plan, which judges its pattern"
            ),
            _pattern("Where the lesion came back"),
        ),
    ),
    "recurrence_patterns": Table(
        "Where the enhancing recurrence came back: one row per patient",
        ("patient",),
        (
            _patient,
            _count("n_lesions", "1", "Connected parts of the enhancing recurrence"),
            _count("n_measurable", "1", "Of these, parts of at least 0.52 ml (a ball of 10 mm diameter)"),
            Column("multifocal", "boolean", "", "Whether two or more parts are that large", required=True),
            _pattern("Pattern that most of the volume has"),
            _amount(
                "central_ml", "ml", "Volume of the lesions of which the standard plan covers 95 % or more"
            ),
            _amount("in_field_ml", "ml", "Volume of those of which it covers 80 % or more, but not 95 %"),
            _amount("marginal_ml", "ml", "Volume of those of which it covers 20 % or more, but not 80 %"),
            _amount("distant_ml", "ml", "Volume of those of which it covers less than 20 %"),
            _amount("farthest_mm", "mm", "Largest core_distance_mm of the patient's lesions"),
            _amount("outside_brain_ml", "ml", "Volume of the enhancing recurrence outside the brain mask"),
        ),
    ),
    "coverage_by_pattern": Table(
        "Mean coverage by pattern of the lesion, and by number of lesions of the patient; exploratory",
        ("model", "group"),
        (
            _model,
            _text(
                "unit", "What is averaged: lesions, or patients", required=True, values=("lesion", "patient")
            ),
            _text(
                "group",
                "Pattern of the lesions; or patients with two or more lesions of at least 0.52 ml (multifocal), with "
                "fewer (unifocal)",
                required=True,
                values=(*PATTERNS, "unifocal", "multifocal"),
            ),
            _count("n", "of the unit", "Lesions or patients with a coverage of this model"),
            _count("n_patients", "patients", "Patients they belong to"),
            _fraction("mean", "Mean coverage"),
            _fraction(
                "ci_low",
                "Lower end of its 95 % BCa bootstrap interval; patients are drawn with all their lesions, stratified "
                "by cohort",
            ),
            _fraction("ci_high", "Upper end of that interval"),
            _difference(
                "gain", "Mean coverage minus that of the standard of care on the same lesions or patients"
            ),
            _difference("gain_low", "Lower end of its 95 % interval, likewise"),
            _difference("gain_high", "Upper end of that interval"),
        ),
    ),
    "causes": Table(
        "Likely causes of low coverage: one row per scored patient and rule, for all models alike",
        ("patient", "cause"),
        (
            _patient,
            _cause,
            _amount(
                "value", "of the rule", "What the rule compares with its limit; empty if it is not known"
            ),
            Column("present", "boolean", "", "Whether the cause is present"),
        ),
    ),
    "cause_frequencies": Table(
        "How often a cause is present in the worst tenth of a model's patients and in the others; exploratory",
        ("model", "cause"),
        (
            _model,
            _cause,
            _count(
                "n_worst",
                "patients",
                "Patients of the worst tenth by enhancing coverage, equal ones included",
            ),
            _count("worst_with", "patients", "Of these, patients with the cause"),
            _count("n_others", "patients", "The other patients"),
            _count("others_with", "patients", "Of these, patients with the cause"),
            _amount(
                "ratio",
                "1",
                "Part of the worst with the cause over that of the others; empty if no other has it",
            ),
            _fraction("p", "Two-sided p-value of Fisher's exact test; not adjusted"),
        ),
    ),
    "curves": Table(
        "Coverage-volume curves: one row per patient, model and planned volume",
        ("patient", "model", "fraction"),
        (
            _patient,
            _model,
            _planned,
            _fraction("coverage_enhancing", "Part of the enhancing recurrence inside that volume"),
        ),
    ),
    "settings": Table(
        "Coverage if the evaluation were set otherwise: one row per patient, model and setting",
        ("patient", "model", "axis", "setting"),
        (
            _patient,
            _model,
            _axis,
            _setting,
            _amount("plan_ml", "ml", "Volume of the plan"),
            _fraction("coverage_enhancing", "Part of the enhancing recurrence inside the plan"),
        ),
    ),
    "sensitivity": Table(
        "Each model if the evaluation were set otherwise, beside the main analysis of the same patients; exploratory",
        ("axis", "setting", "model"),
        (
            _axis,
            _setting,
            _model,
            _count("n", "patients", "Patients with a coverage of any model in this setting"),
            _fraction("mean", "Mean coverage, a missing plan counted as 0"),
            _fraction("mean_main", "The same in the main analysis"),
            _difference("shift", "Hodges-Lehmann shift of coverage, model minus standard of care"),
            _difference("shift_main", "The same in the main analysis"),
            _fraction(
                "p_pratt", "Two-sided signed-rank p-value of that difference, zeros by Pratt; not adjusted"
            ),
            _fraction("p_pratt_main", "The same in the main analysis"),
            _rank("rank", "Rank of the mean coverage; 1 is the best"),
            _rank("rank_main", "The same in the main analysis"),
        ),
    ),
    "agreement": Table(
        "Whether the ranking survives another setting of the evaluation: one row per setting",
        ("axis", "setting"),
        (
            _axis,
            _setting,
            _count("n", "patients", "Patients with a coverage of any model in this setting"),
            _count("n_models", "models", "Models ranked"),
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
    ),
    "curve_summary": Table(
        "Mean coverage-volume curve of each model, all patients together: one row per model and planned volume",
        ("model", "fraction"),
        (
            _model,
            _planned,
            _count("n", "patients", "Patients with a curve of this model"),
            _fraction("mean", "Mean coverage of the enhancing recurrence"),
            _fraction(
                "ci_low",
                "Lower end of its 95 % BCa bootstrap interval, stratified by cohort; for each volume by itself",
            ),
            _fraction("ci_high", "Upper end of that interval"),
        ),
    ),
    "volume_saved": Table(
        "Volume that a model saves if it is to cover as much as the standard plan: one row per model",
        ("model",),
        (
            _model,
            _count("n", "patients", "Patients with a curve of this model"),
            _count(
                "n_less",
                "patients",
                "Of these, patients in whom less than the standard plan's volume is enough",
            ),
            _count(
                "n_never", "patients", "Patients in whom not even twice the standard plan's volume is enough"
            ),
            _difference(
                "saved",
                "Median over the patients of 1 minus the volume needed over the standard plan's; n_never count as -1",
            ),
            _difference("saved_low", "Lower end of its 95 % BCa bootstrap interval, stratified by cohort"),
            _difference("saved_high", "Upper end of that interval"),
        ),
    ),
    "guarantee": Table(
        "Volume that covers enough of the recurrence of a new patient, by split conformal: one row per model",
        ("model",),
        (
            _model,
            _count("n", "patients", "Patients with a coverage-volume curve"),
            _count("n_reached", "patients", "Of these, patients whose curve reaches that coverage"),
            _fraction("coverage", "Part of the enhancing recurrence that is to be covered"),
            _fraction("level", "Probability with which the volume is enough for a new patient like these"),
            _amount(
                "fraction",
                "1",
                "Planned volume over the volume of the standard plan; empty if there are too few patients, or no "
                "volume of the curve is enough for so many",
            ),
            _fraction("kept", "Part of the patients for whom the volume found in all others is enough"),
        ),
    ),
    "dose": Table(
        "Modelled dose, of a plan and painted by a map at the same integral dose: one row per patient and model",
        ("patient", "model"),
        (
            _patient,
            _model,
            _amount("plan_d95_gy", "Gy", "Dose that 95 % of the plan get at least"),
            _amount("integral_gy_l", "Gy l", "Dose times volume over the brain"),
            *_recurrence_dose("recurrence", "the plan"),
            *_brain_dose(),
            _amount("wm_mean_gy", "Gy", "Mean dose of white matter there, weighted by its probability"),
            _amount("gm_mean_gy", "Gy", "The same of grey matter"),
            _amount("csf_mean_gy", "Gy", "The same of cerebrospinal fluid"),
            _amount("painted_ml", "ml", "Volume that painting prescribes a dose to"),
            *_recurrence_dose("painted", "dose painting"),
        ),
    ),
    "dose_summary": Table(
        "Mean of each measure of table dose and its shift against the standard of care, pooled; exploratory, p-values "
        "are not adjusted",
        ("model", "measure"),
        (
            _model,
            _text("measure", "Column of table dose, or oar_<organ>_<column of organ_dose>", required=True),
            *_shift("model", "standard of care"),
        ),
    ),
    "organ_dose": Table(
        "Modelled dose of the organs at risk: one row per patient, model and organ",
        ("patient", "model", "organ"),
        (_patient, _model, *_organ_dose()),
    ),
    "dvh": Table(
        "Mean cumulative dose-volume histograms: one row per model, structure and dose",
        ("model", "structure", "dose_gy"),
        (
            _model,
            _text(
                "structure",
                "Recurrence by the plan's dose; the same by painted dose; brain without the core by the plan's",
                required=True,
                values=("recurrence", "painted recurrence", "brain"),
            ),
            *_HISTOGRAM,
        ),
    ),
    "given_dose": Table(
        "Dose that was given, where the samplesheet has it: one row per patient",
        ("patient",),
        (
            _patient,
            _amount("prescription_gy", "Gy", "Prescribed dose, of the samplesheet or else of --prescription"),
            _amount(
                "core_mean_gy", "Gy", "Mean dose of the pre-operative core; low if the frames do not fit"
            ),
            _amount("integral_gy_l", "Gy l", "Dose times volume over the brain"),
            *_recurrence_dose("recurrence", "the given dose"),
            *_brain_dose(),
            _by_treatment("pattern_isodose", "Pattern that most of the recurrence's volume has"),
            _pattern("The same by the standard plan", "pattern_standard"),
        ),
    ),
    "given_lesions": Table(
        "Connected parts of the enhancing recurrence of patients whose given dose is known",
        ("patient", "lesion"),
        (
            _patient,
            Column("lesion", "integer", "", "Number, as in table lesions", minimum=0, required=True),
            _amount("volume_ml", "ml", "Volume of the lesion"),
            _fraction("coverage_isodose", "Part of the lesion within the 95 % isodose of the given dose"),
            _fraction("coverage_standard", "Part of the lesion inside the standard plan"),
            _by_treatment("pattern_isodose", "Where the lesion came back"),
            _pattern("The same by the standard plan", "pattern_standard"),
        ),
    ),
    "given_organs": Table(
        "Given dose of the organs at risk: one row per patient and organ",
        ("patient", "organ"),
        (_patient, *_organ_dose()),
    ),
    "given_summary": Table(
        "Mean of each measure of table given_dose and its shift against the modelled dose of the standard plan in the "
        "same patients; exploratory, p-values are not adjusted",
        ("measure",),
        (
            _text(
                "measure",
                "Column of table given_dose, or oar_<organ>_<column of given_organs>",
                required=True,
            ),
            *_shift("given dose", "modelled dose of the standard plan"),
        ),
    ),
    "given_dvh": Table(
        "Mean cumulative dose-volume histograms of the patients whose given dose is known",
        ("source", "structure", "dose_gy"),
        (
            _text(
                "source",
                "The given dose, or the modelled dose of the standard plan in the same patients",
                required=True,
                values=("given", "standard"),
            ),
            _text(
                "structure",
                "Recurrence, or brain without the pre-operative core",
                required=True,
                values=("recurrence", "brain"),
            ),
            *_HISTOGRAM,
        ),
    ),
    "calibration": Table(
        "Calibration of maps that are declared probabilities: one row per patient and model",
        ("patient", "model"),
        (_patient, _model, *_SCORES),
    ),
    "calibration_summary": Table(
        "The scores of table calibration with all patients pooled, each with the same weight",
        ("model", "score"),
        (
            _model,
            _text(
                "score", "Column of table calibration", required=True, values=tuple(c.name for c in _SCORES)
            ),
            _count("n", "patients", "Patients"),
            Column("value", "number", "1", "Score of all patients together"),
            Column("low", "number", "1", "Lower end of its 95 % percentile interval, bootstrap by patient"),
            Column("high", "number", "1", "Upper end of that interval"),
        ),
    ),
    "reliability": Table(
        "Reliability curves with all patients pooled: one row per model and bin that holds voxels",
        ("model", "bin_low"),
        (
            _model,
            Column(
                "bin_low", "number", "1", "Lowest probability of the bin", minimum=0, maximum=1, required=True
            ),
            _fraction("bin_high", "Highest probability of the bin"),
            _count("n", "patients", "Patients with voxels in the bin"),
            _fraction("share", "Part of the voxels in the bin"),
            _fraction("probability", "Mean probability in the bin"),
            _fraction("frequency", "Part of the voxels that recurred"),
            _fraction("frequency_low", "Lower end of its 95 % percentile interval, bootstrap by patient"),
            _fraction("frequency_high", "Upper end of that interval"),
        ),
    ),
    "guidelines": Table(
        "Plans within the barriers of a guideline and of its plan's volume: one row per patient, guideline and model",
        ("patient", "guideline", "model"),
        (
            _patient,
            _guideline,
            _text("model", "Name of the model, or 'guideline' for the guideline's own plan", required=True),
            _fraction("coverage_enhancing", "Part of the enhancing recurrence inside the plan"),
            _fraction(
                "coverage_core", "Part of the recurrence core (enhancing and necrosis) inside the plan"
            ),
            _amount("plan_ml", "ml", "Volume of the plan, that of the guideline's own"),
        ),
    ),
    "guideline_comparisons": Table(
        "Each model against a guideline's own plan, paired by patient: enhancing coverage, exploratory",
        ("guideline", "model"),
        (
            _guideline,
            _model,
            _count("n", "patients", "Patients with a coverage of both"),
            _count("n_zero", "patients", "Patients in whom both cover the same"),
            _fraction("mean", "Mean coverage of the model's plans"),
            _fraction("mean_guideline", "Mean coverage of the guideline's plans of the same patients"),
            _difference("shift", "Hodges-Lehmann shift of coverage, model minus guideline"),
            _difference("shift_low", "Lower end of its 95 % interval"),
            _difference("shift_high", "Upper end of its 95 % interval"),
            _difference(
                "rank_biserial",
                "Matched-pairs rank-biserial correlation; 1 if the model is never worse, -1 if never better",
            ),
            _fraction("p_pratt", "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt"),
            _fraction("p_adjusted", "p_pratt adjusted by Holm over the models of the guideline"),
        ),
    ),
    "summary": Table(
        "Coverage of each model: one row per model, data set and definition of recurrence",
        ("model", "dataset", "definition"),
        (
            _model,
            _dataset,
            _definition,
            _count("n", "patients", "Patients with a coverage of this model"),
            _fraction("mean", "Mean coverage"),
            _amount("sd", "1", "Standard deviation of the coverage (n - 1)"),
            _amount("sem", "1", "Standard error of the mean"),
            _fraction("median", "Median coverage"),
            _fraction("q1", "First quartile of the coverage"),
            _fraction("q3", "Third quartile of the coverage"),
            _fraction(
                "ci_low",
                "Lower end of the 95 % BCa bootstrap interval of the mean, stratified by cohort; cohorts of "
                "fewer than 5 patients form one stratum",
            ),
            _fraction("ci_high", "Upper end of that interval"),
            _fraction(
                "median_ci_low",
                "Lower end of the 95 % BCa bootstrap interval of the median, stratified likewise",
            ),
            _fraction("median_ci_high", "Upper end of that interval"),
            _fraction(
                "mean_missing_as_zero",
                "Mean coverage when an evaluable patient without output of the model counts as 0",
            ),
        ),
    ),
    "comparisons": Table(
        "Each model against the standard of care, paired by patient; a row per model, data set, definition",
        ("model", "dataset", "definition"),
        (
            _model,
            _dataset,
            _definition,
            Column(
                "in_family",
                "boolean",
                "",
                "True for a test of the declared family, which is adjusted together; False: exploratory",
                required=True,
            ),
            Column(
                "identical",
                "boolean",
                "",
                "Whether the model's plan is the standard's in every patient, so that there is nothing to test; such a "
                "model is left out of the family unless it is declared by name",
                required=True,
            ),
            _count("n", "patients", "Patients with a coverage of both (complete cases)"),
            _count("n_zero", "patients", "Patients in whom both cover the same"),
            _count(
                "n_tied", "patients", "Patients whose non-zero difference has the size of another patient's"
            ),
            _fraction("p_pratt", "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt; the primary test"),
            _fraction("p_wilcox", "The same test with zeros left out (Wilcoxon)"),
            _fraction("p_signflip", "Two-sided sign-flip permutation p-value of the mean difference"),
            _fraction("p_adjusted", "p_pratt adjusted by Holm over the family; empty outside it"),
            _fraction(
                "p_max_t",
                "p_pratt adjusted over the family by the largest statistic under joint sign flips (Westfall-Young "
                "step-down), a check of p_adjusted",
            ),
            _difference("shift", "Hodges-Lehmann shift of coverage, model minus standard of care"),
            _difference("shift_low", "Lower end of its 95 % interval"),
            _difference("shift_high", "Upper end of its 95 % interval"),
            _difference(
                "rank_biserial",
                "Matched-pairs rank-biserial correlation; 1 if the model is never worse, -1 if never better",
            ),
        ),
    ),
    "equivalence": Table(
        "Whether the enhancing coverage of a model lies within a declared bound of the standard of care: a row per "
        "model and data set; exploratory, p-values are not adjusted",
        ("model", "dataset"),
        (
            _model,
            _dataset,
            _count("n", "patients", "Patients with a coverage of both"),
            _amount("bound", "1", "Largest difference of coverage that is declared not to matter"),
            _difference("shift", "Hodges-Lehmann shift of coverage, model minus standard of care"),
            _difference(
                "shift_low", "Lower end of its 90 % interval, which belongs to two one-sided tests at 5 %"
            ),
            _difference("shift_high", "Upper end of its 90 % interval"),
            _fraction(
                "p_noninferiority",
                "One-sided exact signed-rank p-value (zeros by Pratt) of the hypothesis that the model is worse by "
                "the bound or more",
            ),
            _fraction(
                "p_nonsuperiority", "The same of the hypothesis that it is better by the bound or more"
            ),
            _fraction(
                "p_equivalence", "The larger of both: small where the model is equivalent; the main result"
            ),
            _difference("mean", "Mean difference of coverage"),
            _fraction("p_t_noninferiority", "As p_noninferiority, by the t-test of the mean"),
            _fraction("p_t_nonsuperiority", "As p_nonsuperiority, by the t-test of the mean"),
            _fraction("p_t_equivalence", "The larger of both"),
        ),
    ),
    "mixed_model": Table(
        "Mean gain in enhancing coverage over the standard of care with the data set as random effect",
        ("model",),
        (
            _model,
            _count("n", "patients", "Patients with a coverage of both"),
            _count("n_datasets", "1", "Data sets they come from"),
            _difference("estimate", "Mean gain in an average data set"),
            Column("estimate_low", "number", "1", "Lower end of its 95 % interval by Student's t"),
            Column("estimate_high", "number", "1", "Upper end of that interval"),
            _fraction("p", "Two-sided p-value of no gain; not adjusted"),
            _amount("sd_between", "1", "Standard deviation of the gain between data sets"),
            _amount("sd_within", "1", "Standard deviation of the gain between patients of a data set"),
            _text("fit", "What was fitted, and why where it is not the mixed model"),
        ),
    ),
    "leave_one_dataset_out": Table(
        "Each model against the standard of care without one data set: enhancing coverage, p-values not adjusted",
        ("model", "left_out"),
        (
            _model,
            _text("left_out", "Data set that is left out", required=True),
            _count("n", "patients", "Patients of the other data sets with a coverage of both"),
            _difference("shift", "Hodges-Lehmann shift of coverage, model minus standard of care"),
            _difference("shift_low", "Lower end of its 95 % interval"),
            _difference("shift_high", "Upper end of its 95 % interval"),
            _fraction("p_pratt", "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt"),
            Column(
                "sign_kept", "boolean", "", "Whether the signed ranks lean the way they do with all data sets"
            ),
            Column(
                "significance_kept",
                "boolean",
                "",
                "Whether p_pratt is on the same side of 0.05 as with all data sets and, below it, the sign is kept",
            ),
        ),
    ),
    "power": Table(
        "What mean gain in enhancing coverage the primary test would have detected with 80 % power, by simulation",
        ("model",),
        (
            _model,
            _count("n", "patients", "Patients with a coverage of both, also in each simulated cohort"),
            _count("n_zero", "patients", "Patients in whom both cover the same"),
            _fraction("largest_gain", "Mean gain if every difference were an improvement"),
            _fraction(
                "minimum_gain",
                "Least mean gain detected by one test at 5 %; empty if even the largest is not",
            ),
            _amount("minimum_gain_error", "1", "Monte-Carlo standard error of minimum_gain"),
            _count("n_tests", "1", "Tests of the family that is adjusted together"),
            _fraction(
                "family_gain", "Least mean gain detected at 5 % over n_tests, the first step of Holm's rule"
            ),
            _amount("family_gain_error", "1", "Monte-Carlo standard error of family_gain"),
        ),
    ),
    "correlations": Table(
        "Spearman correlation of a covariate with the gain in enhancing coverage over the standard of care",
        ("model", "covariate"),
        (
            _model,
            _text("covariate", "Column of the metrics table", required=True, values=COVARIATES),
            _count("n", "patients", "Patients with a gain and a covariate"),
            Column("rho", "number", "1", "Spearman's rank correlation", minimum=-1.0, maximum=1.0),
            _fraction("p", "Two-sided p-value: exact to 8 patients, then Student's t; not adjusted"),
        ),
    ),
    "pairwise": Table(
        "Every two models of a panel compared, paired by patient, enhancing coverage of all data sets",
        ("panel", "model_a", "model_b"),
        (
            _panel,
            _text("model_a", "Name of the one model", required=True),
            _text("model_b", "Name of the other", required=True),
            _count("n", "patients", "Patients with a coverage of every model of the panel"),
            _count("n_zero", "patients", "Patients in whom both cover the same"),
            _difference("shift", "Hodges-Lehmann shift of coverage, model_a minus model_b"),
            _difference(
                "rank_biserial",
                "Matched-pairs rank-biserial correlation; 1 if model_a is never worse, -1 if never better",
            ),
            _fraction(
                "p",
                "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt; empty if both always cover the same",
            ),
            _fraction("p_adjusted", "p adjusted by Holm over all pairs of the panel"),
        ),
    ),
    "rankings": Table(
        "Ranks by enhancing coverage of all data sets: one row per panel, method and model",
        ("panel", "method", "model"),
        (
            _panel,
            _ranking_method,
            _model,
            _count("n", "patients", "Patients of the panel"),
            _count("n_missing", "patients", "Of these, patients without output, counted as coverage 0"),
            _amount(
                "score",
                "of the method",
                "What is ranked: mean coverage, mean rank within patients, or number of models beaten",
            ),
            _rank("rank", "Rank, 1 is the best; models of one score share the best rank among them"),
            _rank("rank_median", "Median of the rank over bootstraps of the patients, stratified by cohort"),
            _rank("rank_low", "Lower end of the 95 % percentile interval of the rank over the bootstraps"),
            _rank("rank_high", "Upper end of that interval"),
            _count("n_complete", "patients", "Patients with a coverage of every model of the panel"),
            _amount("score_complete", "of the method", "Score on these patients alone"),
            _rank("rank_complete", "Rank on these patients alone; empty if they are fewer than 5"),
        ),
    ),
    "rank_frequencies": Table(
        "How often a model has a rank in bootstraps of the patients",
        ("panel", "method", "model", "rank"),
        (
            _panel,
            _ranking_method,
            _model,
            _rank("rank", "Rank, 1 is the best", required=True),
            _fraction("frequency", "Share of the bootstraps in which the model has that rank"),
        ),
    ),
    "cohort": Table(
        "One row per patient of the samplesheet",
        ("patient",),
        (
            _patient,
            _cohort,
            _session,
            _followup,
            _days,
            _text(
                "status",
                "evaluated (plans were scored), predicted (plans without a score) or excluded",
                required=True,
                values=STATUSES,
            ),
            _text("reason_code", "Why the patient was not evaluated, as a fixed word"),
            _text("reason", "The same in plain language"),
            _tumor_core,
            _tumor_whole,
            _recurrence,
            _com_distance,
            _text("tissue", "Where the tissue maps come from", values=TISSUE_SOURCES),
        ),
    ),
    "quality": Table(
        "What each step from raw exams to labels measured of its own result: a row per exam, step, method and measure",
        ("patient", "session", "stage", "method", "measure"),
        (
            _text("patient", "Identifier of the patient, as in the samplesheet", required=True),
            _text("session", "Exam that was measured"),
            _text("stage", "Step that measured its result", required=True, values=tuple(STAGES)),
            _text("method", "By what the step was done, where there is a choice"),
            _text("measure", "Name of the measure, with its unit where it has one", required=True),
            Column(
                "value",
                "number",
                "of the measure",
                "Value of the measure, in the unit its name ends with; empty if it could not be taken",
            ),
            _text("expected", "Range that is not flagged; empty if there is no limit"),
            Column("flagged", "boolean", "", "Whether the value lies outside that range"),
            _text("meaning", "What the measure is"),
            _text("note", "What has to be known of the result of this step"),
        ),
    ),
    "failures": Table(
        "What went wrong: one row per failed step of a patient, or of one model for a patient",
        ("patient", "model", "stage", "session", "reason"),
        (
            _text("patient", "Identifier of the patient, as in the samplesheet"),
            _session,
            _text("model", "Name of the model; empty if the step belongs to none"),
            _text("stage", "Step that failed"),
            _text(
                "kind",
                "Why: the exam lacks an input that the step needs; its data cannot be used; the step crashed; or it "
                "was lost (killed, or out of memory or time). Empty for what is not known",
                values=tuple(KINDS),
            ),
            _text(
                "analysis",
                "What lacks the result: the main analysis, or a secondary one (another choice in the evaluation), "
                "which does not fail a run",
                required=True,
                values=ANALYSES,
            ),
            _text("reason", "What happened and what to do about it"),
        ),
    ),
}


def build(name: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Make a table from rows, with its columns in order, typed, sorted by its key and checked.

    Parameters
    ----------
    name
        One of :data:`TABLES`.
    rows
        Column name -> value. Missing columns, None, NaN and empty text are missing values; other names are
        ignored.

    Raises
    ------
    TableError
        If a value has the wrong type or is out of range, a required value is missing, or a key occurs twice.
    """
    table = TABLES[name]
    rows = list(rows)
    data = {}
    for column in table.columns:
        values = [row.get(column.name) for row in rows]
        try:
            data[column.name] = _typed(values, column.type)
        except (TypeError, ValueError) as error:
            raise TableError(f"table {name}, column {column.name}: {error}") from error
    frame = pd.DataFrame(data, columns=table.names)
    frame = frame.sort_values(list(table.key), kind="stable", ignore_index=True)
    return check(name, frame)


def check(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` if it is a valid table ``name``.

    Raises
    ------
    TableError
        Naming the first rows at fault, the column and its value.
    """
    import pandera.errors

    try:
        return schema(name).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
    key = list(TABLES[name].key)
    faults = []
    for case in cases.drop_duplicates(["index", "check"]).head(5).itertuples():
        where, what = f"table {name}", f"{case.column} is {_plain(case.failure_case)}, {case.check}"
        if not pd.isna(case.index):
            row = frame.loc[int(case.index), key]
            where += "".join(f", {column} {_plain(row[column])}" for column in key)
        if case.check == "multiple_fields_uniqueness":
            what = "occurs twice; give each of them once"
        elif case.check == "not_nullable":
            what = f"{case.column} is missing"
        faults.append(f"{where}: {what}")
    raise TableError("; ".join(dict.fromkeys(faults)))


@lru_cache
def schema(name: str) -> Any:
    """Return the pandera schema of table ``name``: columns in order, types, ranges, unique key."""
    import pandera.pandas as pa

    columns = {}
    for column in TABLES[name].columns:
        checks = []
        if column.values is not None:
            checks.append(pa.Check.isin(column.values, error=f"expected one of {', '.join(column.values)}"))
        if column.minimum is not None:
            checks.append(pa.Check.ge(column.minimum, error=f"expected at least {column.minimum:g}"))
        if column.maximum is not None:
            checks.append(pa.Check.le(column.maximum, error=f"expected at most {column.maximum:g}"))
        columns[column.name] = pa.Column(
            PANDAS_TYPES[column.type],
            checks,
            nullable=not column.required,
            description=f"{column.description} [{column.unit}]" if column.unit else column.description,
        )
    return pa.DataFrameSchema(
        columns,
        strict=True,
        ordered=True,
        unique=list(TABLES[name].key),
        name=name,
        description=TABLES[name].description,
    )


def data_dictionary() -> pd.DataFrame:
    """Return every column of every table: ``table, column, type, unit, description``."""
    return pd.DataFrame(
        [
            (name, column.name, column.type, column.unit, column.description)
            for name, table in TABLES.items()
            for column in table.columns
        ],
        columns=["table", "column", "type", "unit", "description"],
    )


def _plain(value: Any) -> str:
    """Say a value as a table shows it."""
    return f"{value:g}" if isinstance(value, (int, float)) else "empty" if value is pd.NA else str(value)


def _typed(values: Sequence[Any], kind: str) -> pd.Series:
    """Return values as a column of the given type, missing values included.

    Raises
    ------
    ValueError
        If a value is of another type.
    """
    missing = np.array([v is None or v is pd.NA or v == "" or v != v for v in values], bool)
    accepted = PYTHON_TYPES[kind]
    for value, absent in zip(values, missing, strict=True):
        if not absent and (
            not isinstance(value, accepted) or (kind != "boolean" and isinstance(value, bool))
        ):
            raise ValueError(f"{value!r} is not of type {kind}")
    if kind == "number":
        # Rounding the distinct values alone is what makes long curves quick.
        distinct, where = np.unique(
            [np.nan if m else float(v) for v, m in zip(values, missing, strict=True)], return_inverse=True
        )
        if np.isinf(distinct).any():
            raise ValueError("holds an infinite number")
        rounded = np.array([round_digits(v) for v in distinct.tolist()], np.float64)
        return pd.Series(pd.arrays.FloatingArray(rounded[where.ravel()], missing))
    return pd.Series(
        [None if m else v for v, m in zip(values, missing, strict=True)], dtype=PANDAS_TYPES[kind]
    )
