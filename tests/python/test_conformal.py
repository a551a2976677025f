"""Conformal bounds, against their definition, exact probabilities and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from predictgbm.statistics.conformal import conformal_bound, leave_one_out_rate


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
