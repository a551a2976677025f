"""Simulated longitudinal glioblastoma patients with their truth."""

from predictgbm.simulation.patient import (
    COHORTS,
    Cohort,
    SimulatedExam,
    SimulatedPatient,
    Simulator,
    cohort_of,
    simulate_patient,
)

__all__ = [
    "COHORTS",
    "Cohort",
    "SimulatedExam",
    "SimulatedPatient",
    "Simulator",
    "cohort_of",
    "simulate_patient",
]
