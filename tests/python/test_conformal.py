"""Conformal bounds, against their definition, exact probabilities and simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from predictgbm.evaluation import CURVE_FRACTIONS
from predictgbm.statistics.conformal import conformal_bound, guarantee_rows, leave_one_out_rate


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (99, 0.9, 90), (3, 0.5, 2), (1, 0.5, 1)],
)
def test_bound_is_the_value_of_its_rank(n: int, level: float, rank: int) -> None:
    values = np.random.default_rng(0).permutation(n) + 1.0
    assert conformal_bound(values, level) == rank


def test_too_few_patients_give_no_bound() -> None:
    assert conformal_bound(np.arange(8.0), 0.9) == math.inf
    assert conformal_bound([], 0.9) == math.inf
    assert math.isnan(leave_one_out_rate([1.0]))


@pytest.mark.parametrize("n", [9, 20, 59])
def test_a_new_patient_is_covered_as_often_as_promised(n: int) -> None:
    """The probability is exactly rank / (n + 1); a binomial band of 4 standard errors around it."""
    draws = 4000
    rng = np.random.default_rng(n)
    samples = rng.gamma(1.5, 0.4, (draws, n + 1))
    covered = sum(row[-1] <= conformal_bound(row[:-1], 0.9) for row in samples)
    exact = math.ceil(round((n + 1) * 0.9, 9)) / (n + 1)
    assert 0.9 <= exact < 0.9 + 1 / (n + 1) + 1e-12
    low, high = stats.binom(draws, exact).interval(0.9999)
    assert low <= covered <= high


def test_curves_with_missing_maps_keep_the_guarantee() -> None:
    """Each cohort is a model of its own: 29 patients with curves and one new one; one map of seven is missing."""
    cohorts, n, missing, covered, level = 600, 29, 0.15, 0.85, 0.7
    rng = np.random.default_rng(5)
    fractions = np.array(CURVE_FRACTIONS)
    # How far a lesion reaches, and how well the map aims: coverage rises with volume, at a pace of the patient's own.
    reach, pace = rng.gamma(4, 0.12, (2, cohorts, n + 1, 1)) + 0.1
    coverage = 1 - np.exp(-((fractions / reach) ** (1 + pace)))
    there = rng.random((cohorts, n + 1)) >= missing
    there[:, 0] = True  # so that each patient has a curve of some model
    cohort, patient, point = np.nonzero(there[:, :n, None] & np.ones(fractions.size, bool))
    curves = pd.DataFrame(
        {
            "model": [f"{i:04d}" for i in cohort],
            "patient": [f"{i:02d}" for i in patient],
            "fraction": fractions[point],
            "coverage_enhancing": coverage[cohort, patient, point],
        }
    )
    rows = {row["model"]: row for row in guarantee_rows(curves, (), covered, level)}
    assert {row["n"] for row in rows.values()} == {n}
    kept = 0
    for i in range(cohorts):
        fraction = rows[f"{i:04d}"]["fraction"]
        # Where nothing is promised, nothing is broken.
        enough = there[i, n] and fraction is not None and coverage[i, n, fractions == fraction] >= covered
        kept += bool(enough or fraction is None)
    low, _ = stats.binom(cohorts, level).interval(0.999)
    assert kept >= low
    # Volumes come in steps, so that it is kept somewhat more often than promised; and rarely nothing is.
    assert kept < (level + 0.08) * cohorts
    assert sum(row["fraction"] is None for row in rows.values()) < 0.1 * cohorts


@given(
    st.lists(st.floats(0, 5) | st.just(math.inf), min_size=2, max_size=40),
    st.floats(0.05, 0.95),
    st.floats(0, 1),
)
def test_properties(values: list[float], level: float, more: float) -> None:
    bound = conformal_bound(values, level)
    assert np.mean(np.array(values) <= bound) >= level or bound == math.inf
    assert conformal_bound([*values, math.inf], level) >= bound
    assert conformal_bound(values[::-1], level) == bound
    assert conformal_bound(np.array(values) + more, level) == pytest.approx(bound + more)
    assert 0 <= leave_one_out_rate(values, level) <= np.mean(np.isfinite(values))


def test_leaving_one_out_by_hand() -> None:
    # Without the value 3 the bound at 0.5 is the second of three: 2 < 3; without 1 it is 3.
    assert leave_one_out_rate([1.0, 2.0, 3.0, math.inf], 0.5) == 0.5
    assert leave_one_out_rate(np.ones(30), 0.9) == 1.0


@pytest.mark.parametrize(("values", "level"), [([1.0, math.nan], 0.9), ([1.0], 1.0), ([1.0], 0.0)])
def test_what_has_no_bound_is_refused(values: list[float], level: float) -> None:
    with pytest.raises(ValueError, match=r"NaN|not between"):
        conformal_bound(values, level)
