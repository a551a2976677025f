"""Recurrence models that are trained on a cohort of patients."""
