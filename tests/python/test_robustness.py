"""Robustness of a comparison, against scipy, statsmodels, enumeration, closed forms and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from predictgbm.statistics import hodges_lehmann, robustness, signed_rank_p
from predictgbm.statistics.robustness import (
    NO_SPREAD,
    NO_SPREAD_WITHIN,
    NO_VARIANCE,
    ONE_DATASET,
    RANDOM_EFFECT,
    equivalence_by_ranks,
    equivalence_by_t,
    minimum_difference,
    mixed_model,
    rejection_tilts,
    step_down_max_t,
)
from predictgbm.statistics.robustness_tables import robustness_rows

pytestmark = pytest.mark.filterwarnings("error")

small_samples = st.lists(st.integers(-4, 4).map(lambda v: v / 20), min_size=1, max_size=9)


def zero_heavy(n: int, zeros: float, seed: int, mean: float = 0.0) -> np.ndarray:
    """Return n differences of coverage, skewed in size and not in sign around their mean, many of them zero."""
    generator = np.random.default_rng(seed)
    d = generator.choice([-1, 1], n) * generator.beta(1, 8, n) + mean
    d[generator.random(n) < zeros] = 0
    return d


class TestOneSidedSignedRank:
    @pytest.mark.parametrize("alternative", ["greater", "less"])
    def test_equals_scipy_without_ties(self, alternative):
        d = np.random.default_rng(1).normal(0.3, 1, 30)
        expected = stats.wilcoxon(d, alternative=alternative, method="exact").pvalue
        assert signed_rank_p(d, alternative=alternative) == pytest.approx(expected, rel=1e-10)

    @given(small_samples)
    @settings(max_examples=40, deadline=None)
    def test_equals_enumeration_with_zeros_and_ties(self, sample):
        d = np.array(sample)
        assume(d.any())
        ranks = stats.rankdata(np.abs(d)) * (d != 0)
        sums = np.array([ranks[np.array(s, bool)].sum() for s in product((0, 1), repeat=d.size)])
        observed = ranks[d > 0].sum()
        assert signed_rank_p(d, alternative="greater") == pytest.approx((sums >= observed - 1e-9).mean())
        assert signed_rank_p(d, alternative="less") == pytest.approx((sums <= observed + 1e-9).mean())

    @pytest.mark.parametrize("alternative", ["greater", "less"])
    def test_equals_the_normal_approximation_of_scipy_in_a_large_cohort(self, alternative):
        d = np.round(np.random.default_rng(3).normal(0.02, 0.5, 1500), 1)
        expected = stats.wilcoxon(
            d, zero_method="pratt", alternative=alternative, method="asymptotic", correction=False
        )
        assert signed_rank_p(d, alternative=alternative) == pytest.approx(expected.pvalue, rel=1e-9)


class TestEquivalence:
    def test_t_version_equals_statsmodels(self):
        generator = np.random.default_rng(2)
        reference, model = generator.random(30), generator.random(30) * 0.1
        model = np.clip(reference + model - 0.03, 0, 1)
        p, (t_low, p_low, _), (_, p_high, _) = ttost_paired(model, reference, -0.05, 0.05)
        ours = equivalence_by_t(model - reference, 0.05)
        assert t_low > 0
        assert ours == pytest.approx((p_low, p_high), rel=1e-7)
        assert ours.equivalence == pytest.approx(p, rel=1e-7)

    def test_rank_version_equals_scipy_without_ties(self):
        d = np.random.default_rng(4).normal(0.02, 0.05, 40)
        low = stats.wilcoxon(d + 0.05, alternative="greater", method="exact").pvalue
        high = stats.wilcoxon(d - 0.05, alternative="less", method="exact").pvalue
        ours = equivalence_by_ranks(d, 0.05)
        assert ours == pytest.approx((low, high), rel=1e-9)
        assert ours.equivalence == max(ours)

    def test_differences_on_the_bound_are_zeros_of_pratt(self):
        # Moved by 0.05: one zero of rank 1, then 0.05 (an equal pair) twice, 0.10 and -0.03.
        d = np.array([-0.05, 0, 0, 0.05, -0.08])
        # abs: 0, .05, .05, .10, .03 -> ranks 1, 3.5, 3.5, 5, 2; the negative one has 2. Sums up to 2: {}, 2.
        assert equivalence_by_ranks(d, 0.05).noninferiority == pytest.approx(2 / 2**4)

    @given(st.lists(st.integers(-40, 40).map(lambda v: v / 100), min_size=6, max_size=40))
    @settings(max_examples=40, deadline=None)
    def test_exchanging_the_models_exchanges_the_tests(self, sample):
        one, other = (equivalence_by_ranks(s * np.array(sample), 0.05) for s in (1, -1))
        assert one == (other.nonsuperiority, other.noninferiority)
        first, second = (equivalence_by_t(s * np.array(sample), 0.05) for s in (1, -1))
        assert first == pytest.approx((second.nonsuperiority, second.noninferiority), nan_ok=True)

    @given(small_samples, st.floats(0.01, 0.3), st.floats(1.05, 3))
    @settings(max_examples=40, deadline=None)
    def test_a_wider_bound_is_easier_to_stay_within(self, sample, bound, factor):
        narrow, wide = (equivalence_by_ranks(sample, b) for b in (bound, factor * bound))
        assert wide.equivalence <= narrow.equivalence + 1e-12

    @pytest.mark.parametrize("seed", range(6))
    def test_agrees_with_the_interval_of_the_shift(self, seed):
        d = np.random.default_rng(seed).normal(0.02, 0.1, 30)
        _, low, high = hodges_lehmann(d, level=0.9)
        for bound in (0.02, 0.05, 0.09):
            inside = -bound < low and high < bound
            assert (equivalence_by_ranks(d, bound).equivalence <= 0.05) == inside

    def test_a_copy_of_the_reference_is_equivalent_and_one_at_the_bound_is_not(self):
        assert equivalence_by_ranks(np.zeros(8), 0.05) == (2.0**-8, 2.0**-8)
        assert equivalence_by_ranks(np.full(8, -0.05), 0.05).noninferiority == 1
        assert np.isnan(equivalence_by_t(np.zeros(8), 0.05)).all()

    @pytest.mark.parametrize("zeros", [0.0, 0.5])
    def test_size_at_the_bound(self, zeros):
        # Symmetric around the bound, with many patients exactly on it.
        runs = 700
        d = [zero_heavy(40, zeros, seed) - 0.05 for seed in range(runs)]
        ranks = np.mean([equivalence_by_ranks(row, 0.05).noninferiority <= 0.05 for row in d])
        t = np.mean([equivalence_by_t(row, 0.05).noninferiority <= 0.05 for row in d])
        error = np.sqrt(0.05 * 0.95 / runs)
        assert 0.03 < ranks < 0.05 + 3 * error
        assert 0.03 < t < 0.05 + 3 * error


class TestMixedModel:
    sizes = (40, 61, 142)
    groups = np.repeat(["RHUH", "LUMIERE", "TUM"], sizes)

    def test_balanced_data_sets_follow_the_analysis_of_variance(self):
        # One-way layout of equal sizes: gain and error from the means of the data sets, k - 1 degrees of freedom.
        generator = np.random.default_rng(0)
        d = (generator.normal(0.03, 0.1, (5, 1)) + generator.normal(0, 0.1, (5, 20))) / 2
        fitted = mixed_model(d.ravel(), np.repeat(np.arange(5), 20))
        means = d.mean(axis=1)
        within = d.var(axis=1, ddof=1).mean()
        low, high = stats.t.interval(0.95, 4, means.mean(), stats.sem(means))
        expected = [means.mean(), low, high, stats.ttest_1samp(means, 0).pvalue]
        assert fitted.fit == RANDOM_EFFECT
        assert fitted[:4] == pytest.approx(expected, rel=1e-6)
        assert fitted.sd_within == pytest.approx(np.sqrt(within), rel=1e-6)
        assert fitted.sd_between == pytest.approx(np.sqrt(means.var(ddof=1) - within / 20), rel=1e-5)

    @pytest.mark.parametrize("scale", [1.0, 0.01])
    def test_equals_statsmodels_with_data_sets_of_unequal_size(self, scale):
        generator = np.random.default_rng(3)
        effect = np.repeat([-0.5, 0.1, 0.4], self.sizes)
        d = scale * (0.2 + effect + generator.normal(0, 1, effect.size)) / 4
        theirs = MixedLM(d / scale, np.ones((d.size, 1)), self.groups).fit(reml=True)
        ours = mixed_model(d, self.groups)
        assert theirs.converged
        assert ours.estimate / scale == pytest.approx(theirs.fe_params[0], rel=1e-3)
        assert ours.sd_between / scale == pytest.approx(
            float(np.asarray(theirs.cov_re)[0, 0]) ** 0.5, rel=1e-3
        )
        assert ours.sd_within / scale == pytest.approx(theirs.scale**0.5, rel=1e-3)
        half = (ours.high - ours.low) / 2 / scale
        assert half == pytest.approx(stats.t.ppf(0.975, 2) * theirs.bse_fe[0], rel=1e-2)

    def test_recovers_known_effects(self):
        generator = np.random.default_rng(6)
        groups = np.repeat(np.arange(60), generator.integers(5, 40, 60))
        d = 0.05 + generator.normal(0, 0.06, 60)[groups] + generator.normal(0, 0.12, groups.size)
        fitted = mixed_model(d, groups)
        assert fitted.low < 0.05 < fitted.high
        assert fitted.sd_between == pytest.approx(0.06, abs=0.015)
        assert fitted.sd_within == pytest.approx(0.12, abs=0.01)

    def test_covers_where_data_sets_differ(self):
        # Between-study variation that a normal interval would miss in every fifth cohort.
        generator = np.random.default_rng(8)
        found = []
        for _ in range(400):
            effect = np.repeat(generator.normal(0, 0.08, 3), self.sizes)
            found.append(mixed_model(effect + generator.normal(0, 0.1, effect.size), self.groups))
        wrong = np.mean([m.p < 0.05 for m in found])
        assert wrong < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
        assert np.mean([m.fit == RANDOM_EFFECT for m in found]) > 0.9
        assert [m.p < 0.05 for m in found] == [not m.low <= 0 <= m.high for m in found]

    @pytest.mark.parametrize(
        ("d", "groups", "fit"),
        [
            (np.array([0.1, 0.2, 0.0, 0.3]), ["A"] * 4, ONE_DATASET),
            (np.array([0.1, 0.2, 0.0, 0.1, 0.2, 0.0]), list("AAABBB"), NO_VARIANCE),
            (np.array([0.1, 0.2, 0.0, 0.3]), list("ABCD"), NO_SPREAD_WITHIN),
        ],
    )
    def test_says_what_was_fitted_instead(self, d, groups, fit):
        fitted = mixed_model(d, groups)
        low, high = stats.t.interval(0.95, d.size - 1, d.mean(), stats.sem(d))
        assert fitted.fit == fit
        assert fitted[:4] == pytest.approx((d.mean(), low, high, stats.ttest_1samp(d, 0).pvalue))

    def test_differences_without_spread_have_no_test(self):
        fitted = mixed_model([0.1] * 6, list("AAABBB"))
        assert (fitted.estimate, fitted.fit) == (pytest.approx(0.1), NO_SPREAD)
        assert np.isnan([fitted.low, fitted.high, fitted.p]).all()

    @pytest.mark.parametrize("seed", range(4))
    def test_no_other_variances_have_a_larger_restricted_likelihood(self, seed):
        # Among them cases at the boundary, where general solvers stop early.
        generator = np.random.default_rng(seed)
        _, index = np.unique(np.repeat(np.arange(4), (3, 9, 5, 6)), return_inverse=True)
        d = generator.normal(0, 0.02 * seed, 4)[index] + generator.normal(0, 0.1, index.size)
        same = index[:, None] == index
        ones = np.ones(d.size)

        def likelihood(between: float, within: float) -> float:
            covariance = between * same + within * np.eye(d.size)
            inverse = np.linalg.inv(covariance)
            information = ones @ inverse @ ones
            rest = d - (ones @ inverse @ d) / information
            return float(-np.linalg.slogdet(covariance)[1] - np.log(information) - rest @ inverse @ rest)

        fitted = mixed_model(d, index)
        between, within = fitted.sd_between**2, fitted.sd_within**2
        best = likelihood(between, within)
        for more in (0.0, 1e-5, 1e-4, 1e-3, 1e-2):
            for factor in (0.8, 0.98, 1.0, 1.02, 1.25):
                assert likelihood(between + more, within * factor) <= best + 1e-6
                assert likelihood(between / (1 + 1e3 * more), within * factor) <= best + 1e-6


class TestStepDownMaxT:
    @staticmethod
    def brute_force(d: np.ndarray) -> np.ndarray:
        """Westfall and Young's step-down over all changes of sign, one hypothesis and one flip at a time."""
        scores = np.zeros(d.shape)
        for j, column in enumerate(d.T):
            there = ~np.isnan(column)
            ranks = stats.rankdata(np.abs(column[there])) * np.sign(column[there])
            scores[there, j] = ranks
        scores /= np.sqrt((scores**2).sum(axis=0))
        observed = np.abs(scores.sum(axis=0))
        order = list(np.argsort(-observed))
        p = np.zeros(len(order))
        largest_so_far = 0.0
        for step, j in enumerate(order):
            rest = order[step:]
            count = 0
            for signs in product((-1, 1), repeat=len(d)):
                count += max(abs(np.dot(signs, scores[:, k])) for k in rest) >= observed[j] - 1e-9
            largest_so_far = max(largest_so_far, count / 2 ** len(d))
            p[j] = largest_so_far
        return p

    @pytest.mark.parametrize("seed", range(4))
    def test_equals_brute_force(self, seed):
        generator = np.random.default_rng(seed)
        d = generator.integers(-2, 5, (8, 3)) / 20 + generator.integers(0, 3, (8, 1)) / 20
        d[0, 1] = np.nan
        d[3] = 0
        assert step_down_max_t(d, 256) == pytest.approx(self.brute_force(d), rel=1e-12)

    def test_one_model_is_the_signed_rank_test(self):
        d = zero_heavy(14, 0.3, 2, 0.03)
        assert step_down_max_t(d[:, None], 2**14) == pytest.approx([signed_rank_p(d)], rel=1e-9)

    def test_drawn_flips_approach_all_of_them(self):
        generator = np.random.default_rng(5)
        d = generator.normal(0.4, 1, (12, 4)) + generator.normal(0, 1, (12, 1))
        exact, drawn = step_down_max_t(d, 4096), step_down_max_t(d, 4095, seed=3)
        assert not np.array_equal(exact, drawn)
        assert drawn == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 4095))
        assert np.array_equal(drawn, step_down_max_t(d, 4095, seed=3))

    def test_independent_models_are_adjusted_as_by_sidak_and_equal_ones_not_at_all(self):
        generator = np.random.default_rng(9)
        d = generator.normal(0.2, 1, (200, 3))
        single = np.array([signed_rank_p(column) for column in d.T])
        independent = step_down_max_t(d, 20_000, seed=1)
        assert independent == pytest.approx(multipletests(single, method="holm-sidak")[1], abs=0.015)
        equal = step_down_max_t(np.tile(d[:, :1], 3), 20_000, seed=1)
        assert equal == pytest.approx(np.repeat(single[0], 3), abs=0.015)

    def test_columns_without_a_difference_are_left_out(self):
        d = np.random.default_rng(1).normal(0.5, 1, (7, 2))
        more = np.column_stack([np.zeros(7), d, np.full(7, np.nan)])
        p = step_down_max_t(more, 128)
        assert np.isnan(p[[0, 3]]).all()
        assert p[1:3] == pytest.approx(step_down_max_t(d, 128))
        assert np.isnan(step_down_max_t(np.zeros((7, 2)), 128)).all()

    def test_family_wise_error_is_nominal_under_dependence(self):
        runs, rejected = 400, 0
        generator = np.random.default_rng(15)
        for run in range(runs):
            d = zero_heavy(30, 0.4, 1000 + run)[:, None] * generator.uniform(0.5, 1, (30, 6))
            rejected += step_down_max_t(d, 499, seed=run).min() <= 0.05
        assert 0.015 < rejected / runs < 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


class TestMinimumDifference:
    def test_near_normal_case_follows_the_closed_form(self):
        # Power of the t-test; the signed-rank test needs pi / 3 as many normal patients. Signs are tilted at
        # fixed sizes, so that the variance around the mean is that of the sizes less the squared mean.
        n = 243
        d = stats.norm.ppf((np.arange(n) + 0.5) / n) / 10
        effect = TTestPower().solve_power(nobs=n * 3 / np.pi, alpha=0.05, power=0.8)
        expected = d.std() * effect / np.sqrt(1 + effect**2)
        found = minimum_difference(d, draws=8000, seed=2)
        assert found.gain == pytest.approx(expected, abs=3 * found.error + 0.005 * expected)
        assert found.error < 0.01 * found.gain

    @pytest.mark.parametrize("n", [16, 60])
    def test_simulated_gain_is_detected_as_often_as_promised(self, n):
        d = zero_heavy(n, 0.4, 4)
        gain, _ = minimum_difference(d, draws=4000, seed=1)
        size = np.abs(d)
        # The tilt that belongs to the gain, by bisection.
        low, high = 0.0, 1e4
        for _ in range(80):
            tilt = (low + high) / 2
            low, high = (tilt, high) if (size * np.tanh(tilt * size)).mean() < gain else (low, tilt)
        generator = np.random.default_rng(77)
        runs = 600
        detected = 0
        for _ in range(runs):
            drawn = generator.choice(size, n)
            improves = generator.random(n) < 1 / (1 + np.exp(-2 * tilt * drawn))
            change = np.where(improves, drawn, -drawn)
            detected += change.sum() > 0 and signed_rank_p(change) <= 0.05
        assert detected / runs == pytest.approx(0.8, abs=3.5 * np.sqrt(0.8 * 0.2 / runs))

    @pytest.mark.parametrize("zeros", [0.0, 0.4, 0.7])
    @pytest.mark.parametrize("n", [8, 15, 30, 243])
    def test_false_positive_rate_lies_in_its_band(self, n, zeros):
        draws = 6000
        rate = np.mean(rejection_tilts(np.abs(zero_heavy(n, zeros, 3)), 0.05, draws, 5) <= 0)
        # A discrete exact test may lie below its level, far below with few patients that differ.
        assert rate < 0.025 + 3 * np.sqrt(0.025 * 0.975 / draws)
        if n * (1 - zeros) > 30:
            assert rate > 0.025 - 3 * np.sqrt(0.025 * 0.975 / draws) - 0.001

    def test_critical_values_are_those_of_the_exact_test(self):
        ranks = np.array([[1.0, 2, 3, 4, 5, 6, 7, 8], [0, 0, 3.5, 3.5, 5.5, 5.5, 7, 8]])
        # Published tables of the signed-rank test, n = 8, two-sided 5 %: the smaller sum of ranks is at most 3.
        assert 36 - 2 * 4 < robustness._critical_values(ranks, 0.05)[0] <= 36 - 2 * 3
        for row, critical in zip(ranks, robustness._critical_values(ranks, 0.05), strict=True):
            positive = row[row > 0]
            for signs in product((-1, 1), repeat=positive.size):
                total = np.dot(signs, positive)
                p = signed_rank_p(np.concatenate([np.zeros((row == 0).sum()), signs * positive]))
                assert (abs(total) >= critical - 1e-9) == (p <= 0.05)

    def test_scales_with_the_differences_and_shrinks_with_the_patients(self):
        d = zero_heavy(200, 0.4, 6)
        gain, error = minimum_difference(d, draws=500)
        assert minimum_difference(d / 2, draws=500) == pytest.approx((gain / 2, error / 2))
        assert minimum_difference(-d, draws=500) == (gain, error)
        assert minimum_difference(np.tile(d, 4), draws=500).gain == pytest.approx(gain / 2, rel=0.06)
        assert gain < minimum_difference(d, alpha=0.01, draws=500).gain < np.abs(d).mean()
        assert minimum_difference(d, draws=500, seed=1) != (gain, error)

    def test_error_is_the_spread_over_seeds(self):
        d = zero_heavy(60, 0.4, 6)
        found = [minimum_difference(d, draws=400, seed=seed) for seed in range(60)]
        spread = np.std([f.gain for f in found], ddof=1)
        assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.35)

    def test_nothing_can_be_detected_with_too_few_changes(self):
        # Five changes of one size: even all in one direction have p = 0.0625.
        assert np.isnan(minimum_difference([0.1] * 5)).all()
        assert np.isnan(minimum_difference([0.0] * 30 + [0.1, 0.2])).all()
        assert np.isnan(minimum_difference(np.zeros(9))).all()
        assert minimum_difference([0.1] * 6 + [0.2] * 6).gain < 0.15


class TestRows:
    @staticmethod
    def rows(gains: pd.DataFrame, cohort: list[str], **options):
        remarks: list[tuple[str, str, str]] = []
        member = pd.Series(cohort, index=gains.index)
        datasets = [("pooled", gains), *((name, gains[member == name]) for name in sorted(set(cohort)))]
        defaults = {"bound": 0.05, "tests": 2, "seed": 1} | options
        found = robustness_rows(datasets, remark=lambda *r: remarks.append(r), **defaults)
        return found, remarks

    def test_a_gain_that_hangs_on_one_data_set_is_shown(self):
        generator = np.random.default_rng(0)
        gain = np.concatenate([generator.normal(0.2, 0.05, 20), generator.normal(0, 0.05, 40)])
        steady = generator.normal(0.05, 0.05, 60)
        gains = pd.DataFrame({"hangs": gain, "holds": steady})
        found, remarks = self.rows(gains, ["A"] * 20 + ["B"] * 20 + ["C"] * 20)
        left = {(r["model"], r["left_out"]): r for r in found["leave_one_dataset_out"]}
        assert len(left) == 6
        assert left["hangs", "A"]["p_pratt"] == pytest.approx(signed_rank_p(gain[20:]))
        assert left["hangs", "A"]["p_pratt"] > 0.05
        assert not left["hangs", "A"]["significance_kept"]
        assert left["hangs", "B"]["significance_kept"]
        assert all(left["holds", name]["significance_kept"] for name in "ABC")
        assert all(left["holds", name]["sign_kept"] for name in "ABC")
        mixed = {r["model"]: r for r in found["mixed_model"]}
        assert mixed["hangs"]["n_datasets"] == 3
        assert mixed["hangs"]["p"] > 0.05 > mixed["holds"]["p"]
        assert remarks == []

    def test_significance_in_the_other_direction_is_not_kept(self):
        generator = np.random.default_rng(2)
        gains = pd.DataFrame(
            {"m": np.concatenate([generator.normal(0.3, 0.02, 60), generator.normal(-0.1, 0.02, 30)])}
        )
        found, _ = self.rows(gains, ["A"] * 60 + ["B"] * 30)
        without_a = next(r for r in found["leave_one_dataset_out"] if r["left_out"] == "A")
        assert without_a["p_pratt"] < 0.05
        assert (without_a["sign_kept"], without_a["significance_kept"]) == (False, False)

    def test_fewer_than_five_patients_give_a_remark_and_no_numbers(self):
        gains = pd.DataFrame({"m": [0.1, 0.2, 0.1, 0.3], "absent": [np.nan] * 4})
        found, remarks = self.rows(gains, ["A", "A", "B", "B"])
        assert found["mixed_model"] == found["power"] == found["leave_one_dataset_out"] == []
        assert all(set(row) == {"model", "dataset", "n", "bound"} for row in found["equivalence"])
        assert [(dataset, model) for _, dataset, model in remarks] == [("pooled", "m"), ("pooled", "absent")]

    def test_small_remainders_and_single_data_sets_are_remarked(self):
        gains = pd.DataFrame({"m": np.linspace(-0.1, 0.3, 10)})
        found, remarks = self.rows(gains, ["A"] * 7 + ["B"] * 3)
        assert {r["left_out"]: "p_pratt" in r for r in found["leave_one_dataset_out"]} == {
            "A": False,
            "B": True,
        }
        assert any("all but A" in remark for remark in remarks)
        found, remarks = self.rows(gains, ["A"] * 10)
        assert found["leave_one_dataset_out"] == []
        assert any("none to leave out" in cause for cause, *_ in remarks)
        assert found["mixed_model"][0]["fit"] == ONE_DATASET

    def test_power_of_the_family_needs_more(self):
        gains = pd.DataFrame({"m": zero_heavy(60, 0.4, 1, 0.02)})
        one, twelve = (self.rows(gains, ["A"] * 60, tests=tests)[0]["power"][0] for tests in (1, 12))
        assert one["minimum_gain"] == one["family_gain"] == twelve["minimum_gain"] < twelve["family_gain"]
        assert twelve["n_zero"] == int((gains["m"] == 0).sum())
        assert twelve["family_gain"] < twelve["largest_gain"] == pytest.approx(gains["m"].abs().mean())

    def test_no_patients(self):
        assert not any(robustness_rows([], bound=0.05, tests=0, seed=0, remark=lambda *r: None).values())
