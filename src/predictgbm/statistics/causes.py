"""Rows of the tables on likely causes of low coverage, and how much more frequent they are among the worst patients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from predictgbm.causes import FLAGS, RULES, WORST_PART
from predictgbm.statistics.paired import MINIMUM_PATIENTS

Row = dict[str, Any]


def cause_rows(metrics: pd.DataFrame, patterns: pd.DataFrame, quality: pd.DataFrame) -> list[Row]:
    """Compute the rows of table ``causes``: every rule of every patient who could be scored.

    Parameters
    ----------
    metrics, patterns, quality
        Tables ``metrics``, ``recurrence_patterns`` and ``quality``.
    """
    values = _values(metrics, patterns, quality)
    return [
        {
            "patient": patient,
            "cause": rule.cause,
            "value": value,
            "present": None if math.isnan(value) else rule.holds(value),
        }
        for rule in RULES
        for patient, value in values[rule.cause].items()
    ]


def _values(metrics: pd.DataFrame, patterns: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """Return patients x rules: what is compared with the limit, NaN where it is not known."""
    scored = metrics[metrics["coverage_enhancing"].notna()]
    known = scored.groupby("patient")[["session", "followup_session", "days", "tumor_core_ml"]].first()
    volume = scored.groupby("patient")["recurrence_enhancing_ml"].first()
    place = patterns.set_index("patient").reindex(known.index)
    found = {
        "tiny_recurrence": volume,
        "distant_recurrence": place["distant_ml"] / volume,
        "multifocal": place["n_measurable"],
        "tiny_core": known["tumor_core_ml"],
        "long_interval": known["days"],
        "outside_brain": place["outside_brain_ml"] / volume,
    }
    for cause, stage in FLAGS.items():
        found[cause] = _flags(quality[quality["stage"] == stage], known)
    return pd.DataFrame({name: column.astype("float64") for name, column in found.items()})


def _flags(quality: pd.DataFrame, known: pd.DataFrame) -> pd.Series:
    """Count the flagged measures of the two exams that a patient is scored by; NaN where nothing was measured."""
    exams = {(row.Index, name) for row in known.itertuples() for name in (row.session, row.followup_session)}
    used = [
        pd.isna(session) or (patient, session) in exams
        for patient, session in zip(quality["patient"], quality["session"], strict=True)
    ]
    return (
        quality[np.array(used, bool)]
        .groupby("patient")["flagged"]
        .sum()
        .astype("float64")
        .reindex(known.index)
    )


def worst(coverage: pd.Series) -> pd.Index:
    """Return the patients of the worst tenth: all who are covered no better than the ceil(n / 10)-th worst."""
    least = np.sort(coverage.to_numpy(np.float64))[math.ceil(round(WORST_PART * len(coverage), 9)) - 1]
    return coverage.index[coverage <= least]


def frequency_rows(metrics: pd.DataFrame, causes: pd.DataFrame) -> list[Row]:
    """Compute the rows of table ``cause_frequencies``: each cause among the worst tenth of a model and the others.

    Parameters
    ----------
    metrics, causes
        Tables ``metrics`` and ``causes``. A patient for whom a rule could not be judged does not count for it.
    """
    coverage = metrics.pivot(index="patient", columns="model", values="coverage_enhancing").astype("float64")
    present = (
        causes.pivot(index="patient", columns="cause", values="present").astype("Float64").astype("float64")
    )
    rows: list[Row] = []
    for model in coverage.columns:
        own = coverage[model].dropna()
        if len(own) < 2 * MINIMUM_PATIENTS:
            continue
        low = own.index.isin(worst(own))
        for rule in RULES:
            there = present.loc[own.index, rule.cause]
            inside, outside = there[low].dropna(), there[~low].dropna()
            rows.append({"model": model, "cause": rule.cause} | _frequency(inside, outside))
    return rows


def _frequency(inside: pd.Series, outside: pd.Series) -> Row:
    """Compare how often a cause is present, by the ratio and by Fisher's exact test (two-sided)."""
    a, b = int(inside.sum()), int(outside.sum())
    row: Row = {"n_worst": len(inside), "worst_with": a, "n_others": len(outside), "others_with": b}
    if len(inside) and len(outside):
        row["p"] = float(fisher_exact(np.array([[a, len(inside) - a], [b, len(outside) - b]]))[1])
        if b:
            row["ratio"] = (a / len(inside)) / (b / len(outside))
    return row
