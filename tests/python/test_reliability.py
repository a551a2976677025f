"""Calibration of probabilities, against scikit-learn, closed forms and draws that are calibrated by construction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictgbm.reliability import (
    EDGES,
    bin_sums,
    brier_score,
    calibration_region,
    expected_calibration_error,
    scores,
)

forecasts = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=30, deadline=None)
@given(forecasts)
def test_brier_score_and_its_parts(pairs):
    p, y = np.array(pairs, np.float64).T
    found = scores(bin_sums(p, y))
    assert found["brier"] == pytest.approx(np.mean((p - y) ** 2), abs=1e-12)
    split = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within"]
    assert split == pytest.approx(found["brier"], abs=1e-12)
    assert found["prevalence"] == pytest.approx(y.mean())


def test_against_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    p = rng.beta(0.5, 3, 20000)
    y = rng.random(p.size) < p**1.3
    edges = np.linspace(0, 1, 11)
    sums = bin_sums(p, y, edges)
    assert brier_score(sums) == pytest.approx(metrics.brier_score_loss(y, p))
    observed, told = calibration.calibration_curve(y, p, n_bins=10)
    np.testing.assert_allclose(sums[:, 3] / sums[:, 0], observed)
    np.testing.assert_allclose(sums[:, 1] / sums[:, 0], told)
    weight = np.histogram(p, edges)[0] / p.size
    assert expected_calibration_error(sums) == pytest.approx(weight @ np.abs(observed - told))


def test_calibrated_probabilities_are_found_calibrated():
    """Outcomes drawn with the probabilities told: the error is that of drawing alone, larger where they are not."""
    rng = np.random.default_rng(1)
    p = rng.random(200_000)
    y = rng.random(p.size) < p
    found = scores(bin_sums(p, y))
    assert found["ece"] < 0.005
    assert found["reliability"] < 1e-4
    # Of uniform p the Brier score is the mean of p (1 - p), 1/6; the prevalence would score 1/4.
    assert found["brier"] == pytest.approx(1 / 6, abs=2e-3)
    assert found["skill"] == pytest.approx(1 / 3, abs=0.01)
    # Told the square root, the mean error is that of sqrt(p) - p: 2/3 - 1/2.
    assert scores(bin_sums(np.sqrt(p), y))["ece"] == pytest.approx(1 / 6, abs=5e-3)


def test_closed_forms():
    y = np.repeat([True, False], [30, 70])
    constant = scores(bin_sums(np.full(100, 0.3), y))
    assert constant["brier"] == pytest.approx(0.21)
    assert constant["skill"] == pytest.approx(0, abs=1e-12)
    assert constant["ece"] == pytest.approx(0, abs=1e-12)
    perfect = scores(bin_sums(y, y))
    assert (perfect["brier"], perfect["skill"], perfect["ece"]) == (0, 1, 0)
    assert perfect["resolution"] == pytest.approx(perfect["uncertainty"])
    assert scores(bin_sums(1.0 - y, y))["ece"] == 1


def test_bins_and_their_edges():
    sums = bin_sums(EDGES, np.zeros(len(EDGES)))
    np.testing.assert_array_equal(sums[:, 0], [1] * (len(EDGES) - 2) + [2])
    assert np.isnan([*scores(bin_sums([], [])).values()]).all()
    assert np.isnan(scores(bin_sums([0.5], [False]))["skill"])
    for wrong in ([-0.1], [1.1], [np.nan]):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            bin_sums(wrong, [True])


def test_what_single_precision_rounds_is_a_probability():
    sums = bin_sums(np.array([np.nextafter(np.float32(1), np.float32(2)), -1e-9], np.float32), [True, False])
    np.testing.assert_array_equal(sums, bin_sums([1.0, 0.0], [True, False]))


def test_sums_of_patients_add_up():
    rng = np.random.default_rng(2)
    p, y = rng.random(100), rng.random(100) < 0.2
    np.testing.assert_allclose(bin_sums(p[:40], y[:40]) + bin_sums(p[40:], y[40:]), bin_sums(p, y))


def test_region_is_the_brain_near_the_core():
    core, brain = np.zeros((2, 50, 6, 5), bool)
    core[10, 3, 2] = True
    brain[5:48, 1:5, 1:4] = True
    brain[20, 3, 2] = False
    region = calibration_region(core, brain, (3.0, 1.0, 1.0), 60.0)
    x, y, z = np.indices(core.shape)
    near = 9 * (x - 10) ** 2 + (y - 3) ** 2 + (z - 2) ** 2 <= 3600
    brain[20, 3, 2] = True  # a hole of the mask is brain
    np.testing.assert_array_equal(region, near & brain)
