"""Tables of the patients, of the quality of each step and of what failed."""

from __future__ import annotations

from predictgbm.failures import ANALYSES, KINDS
from predictgbm.quality import STAGES
from predictgbm.tables.columns import (
    Column,
    Table,
    cohort,
    com_distance,
    days,
    followup,
    patient,
    recurrence,
    session,
    text,
    tumor_core,
    tumor_whole,
)

STATUSES = ("evaluated", "predicted", "excluded")

#: Where tissue maps come from: the samplesheet, the atlas as it lies, or the atlas registered by a method.
TISSUE_SOURCES = ("given", "atlas prior", *(f"registered ({method})" for method in ("greedy", "ncc", "syn")))

COHORT = Table(
    "One row per patient of the samplesheet",
    ("patient",),
    (
        patient,
        cohort,
        session,
        followup,
        days,
        text(
            "status",
            "evaluated (plans were scored), predicted (plans without a score) or excluded",
            required=True,
            values=STATUSES,
        ),
        text("reason_code", "Why the patient was not evaluated, as a fixed word"),
        text("reason", "The same in plain language"),
        tumor_core,
        tumor_whole,
        recurrence,
        com_distance,
        text("tissue", "Where the tissue maps come from", values=TISSUE_SOURCES),
    ),
)

QUALITY = Table(
    "What each step from raw exams to labels measured of its own result: a row per exam, step, method and measure",
    ("patient", "session", "stage", "method", "measure"),
    (
        text("patient", "Identifier of the patient, as in the samplesheet", required=True),
        text("session", "Exam that was measured"),
        text("stage", "Step that measured its result", required=True, values=tuple(STAGES)),
        text("method", "By what the step was done, where there is a choice"),
        text("measure", "Name of the measure, with its unit where it has one", required=True),
        Column(
            "value",
            "number",
            "of the measure",
            "Value of the measure, in the unit its name ends with; empty if it could not be taken",
        ),
        text("expected", "Range that is not flagged; empty if there is no limit"),
        Column("flagged", "boolean", "", "Whether the value lies outside that range"),
        text("meaning", "What the measure is"),
        text("note", "What has to be known of the result of this step"),
    ),
)

FAILURES = Table(
    "What went wrong: one row per failed step of a patient, or of one model for a patient",
    ("patient", "model", "stage", "session", "reason"),
    (
        text("patient", "Identifier of the patient, as in the samplesheet"),
        session,
        text("model", "Name of the model; empty if the step belongs to none"),
        text("stage", "Step that failed"),
        text(
            "kind",
            "Why: the exam lacks an input that the step needs; its data cannot be used; the step crashed; or it "
            "was lost (killed, or out of memory or time). Empty for what is not known",
            values=tuple(KINDS),
        ),
        text(
            "analysis",
            "What lacks the result: the main analysis, or a secondary one (another choice in the evaluation), "
            "which does not fail a run",
            required=True,
            values=ANALYSES,
        ),
        text("reason", "What happened and what to do about it"),
    ),
)
