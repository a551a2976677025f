"""Tests, effects and intervals, against enumeration, published examples, scipy and statsmodels."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from predictgbm.statistics import (
    bca_interval,
    bootstrap,
    count_zeros_and_ties,
    hodges_lehmann,
    holm,
    paired,
    rank_biserial,
    sign_flip_p,
    signed_rank_p,
    spearman,
)
from predictgbm.statistics.benchmark import volume_at_coverage
from predictgbm.statistics.paired import EXACT_FLIPS, EXACT_RANKS

pytestmark = pytest.mark.filterwarnings("error")

# Few distinct values, so that zeros and ties are the rule.
small_samples = st.lists(st.integers(-4, 4).map(lambda v: v / 20), min_size=1, max_size=9)


def enumerated_p(differences: np.ndarray, zeros: str) -> float:
    """Count the signed-rank statistic over all signs of the differences, zeros among them."""
    d = np.asarray(differences)
    if zeros == "wilcoxon":
        d = d[d != 0]
    ranks = stats.rankdata(np.round(np.abs(d), 9)) * (d != 0)
    observed = ranks[d > 0].sum()
    sums = np.array([ranks[np.array(signs, bool)].sum() for signs in product((0, 1), repeat=d.size)])
    return min(1.0, 2 * min((sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()))


class TestSignedRank:
    def test_worked_example_where_zeros_matter(self):
        # Pratt ranks the five non-zero ones 6-10; the negative one has 8. Sums up to 8: {}, 6, 7, 8.
        # Wilcoxon ranks them 1-5; the negative one has 3. Sums up to 3: {}, 1, 2, 3, 1+2.
        d = [0, 0, 0, 0, 0, 1, 2, -3, 4, 5]
        assert signed_rank_p(d, "pratt") == pytest.approx(2 * 4 / 32)
        assert signed_rank_p(d, "wilcoxon") == pytest.approx(2 * 5 / 32)

    def test_worked_example_with_ties(self):
        # Pratt: 0 has rank 1, the three ones 3 each, 2 has 5. Sums up to 3: {} and three single threes.
        assert signed_rank_p([0, 1, 1, -1, 2], "pratt") == pytest.approx(2 * 4 / 16)

    @given(small_samples, st.sampled_from(["pratt", "wilcoxon"]))
    @settings(max_examples=60, deadline=None)
    def test_equals_enumeration(self, sample, zeros):
        d = np.array(sample)
        assume(d.any())
        assert signed_rank_p(d, zeros) == pytest.approx(enumerated_p(d, zeros), rel=1e-12)

    @pytest.mark.parametrize("n", [5, 12, 30, 50])
    def test_equals_scipy_exact_without_ties(self, n):
        d = np.random.default_rng(n).normal(0.3, 1, n)
        assert signed_rank_p(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-10)

    def test_equals_scipy_permutation_with_pratt_zeros(self):
        d = np.array([0, 0, 0, 1, 1, -1, 2, 3, 3, -4, 5, 5]) / 100
        expected = stats.wilcoxon(d, zero_method="pratt", method=stats.PermutationMethod()).pvalue
        assert signed_rank_p(d) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(("zeros", "scipy_name"), [("pratt", "pratt"), ("wilcoxon", "wilcox")])
    def test_equals_scipy_normal_approximation_in_a_large_cohort(self, zeros, scipy_name):
        d = np.round(np.random.default_rng(3).normal(0.02, 0.5, 3 * EXACT_RANKS), 1)
        assert 100 < (d == 0).sum() < 2 * EXACT_RANKS - 100
        expected = stats.wilcoxon(d, zero_method=scipy_name, method="asymptotic", correction=False).pvalue
        assert signed_rank_p(d, zeros) == pytest.approx(expected, rel=1e-9)

    def test_normal_approximation_continues_the_exact_p(self):
        d = np.round(np.random.default_rng(4).normal(0.1, 1, 450), 1)
        approximate = stats.wilcoxon(d, zero_method="pratt", method="asymptotic", correction=False).pvalue
        assert signed_rank_p(d) == pytest.approx(approximate, rel=0.02)

    def test_noise_of_subtraction_is_neither_difference_nor_rank(self):
        a = np.array([0.3, 0.8, 0.7, 0.6, 0.9, 0.4])
        b = np.array([0.2, 0.7, 0.6, 0.5, 0.8, 0.4])
        assert len(set(a - b)) > 2  # 0.1 in several spellings
        assert count_zeros_and_ties(a - b) == (1, 5)
        assert signed_rank_p(a - b) == pytest.approx(2 / 32)

    def test_keeps_tiny_p_values(self):
        # All 243 patients improve: 2 / 2^243.
        assert signed_rank_p(np.arange(1, 244)) == pytest.approx(2.0**-242, rel=1e-9)

    def test_all_zero_is_no_test(self):
        assert np.isnan([signed_rank_p([0, 0, 0]), sign_flip_p([0, 0, 0]), rank_biserial([0, 0, 0])]).all()

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match="finite"):
            signed_rank_p([0.1, np.nan])

    @pytest.mark.parametrize("zero_part", [0.3, 0.7])
    def test_false_positive_rate_is_nominal_with_many_zeros_and_ties(self, zero_part):
        generator = np.random.default_rng(11)
        n, runs = 60, 1500
        d = generator.integers(1, 12, (runs, n)) * generator.choice([-1, 1], (runs, n))
        d[generator.random((runs, n)) < zero_part] = 0
        rejected = np.array([[signed_rank_p(row), sign_flip_p(row, 400)] for row in d]) < 0.05
        # Three standard errors of 1500 runs; a discrete exact test lies a little below its level.
        assert (rejected.mean(axis=0) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)).all()
        assert (rejected.mean(axis=0) > 0.03).all()


class TestSignFlip:
    @given(small_samples)
    @settings(max_examples=40, deadline=None)
    def test_equals_enumeration(self, sample):
        d = np.array(sample)
        assume(d.any())
        sums = np.array([np.dot(signs, np.abs(d)) for signs in product((-1, 1), repeat=d.size)])
        assert sign_flip_p(d) == pytest.approx((np.abs(sums) >= abs(d.sum()) - 1e-9).mean(), rel=1e-12)

    def test_equals_scipy(self):
        d = np.random.default_rng(5).normal(0.4, 1, 11)
        expected = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert sign_flip_p(d) == pytest.approx(expected.pvalue, rel=1e-12)

    @pytest.mark.parametrize("n", [EXACT_FLIPS, 3 * EXACT_FLIPS])
    def test_agrees_with_the_distribution_of_integer_sums(self, n):
        d = np.random.default_rng(n).integers(-8, 13, n)
        distribution = np.ones(1)
        for step in np.abs(d[d != 0]):
            spread = np.zeros(2 * step + 1)
            spread[[0, -1]] = 0.5
            distribution = np.convolve(distribution, spread)
        sums = np.arange(distribution.size) - distribution.size // 2
        exact = distribution[np.abs(sums) >= abs(d.sum())].sum()
        drawn_error = 0 if n == EXACT_FLIPS else 4 * np.sqrt(exact * (1 - exact) / 20_000)
        assert sign_flip_p(d / 100, 20_000, seed=1) == pytest.approx(exact, rel=1e-9, abs=drawn_error)

    def test_drawn_flips_never_give_zero_and_follow_the_seed(self):
        d = np.full(200, 0.1)
        assert sign_flip_p(d, 1000, seed=1) == 1 / 1001
        d = np.random.default_rng(0).normal(0.1, 1, 200)
        assert sign_flip_p(d, 1000, seed=1) == sign_flip_p(d, 1000, seed=1) != sign_flip_p(d, 1000, seed=2)


class TestHodgesLehmann:
    # Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, example 3.1: Hamilton depression scale.
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])

    def test_published_example(self):
        d = self.after - self.before
        assert signed_rank_p(d) == pytest.approx(0.039, abs=5e-4)
        assert hodges_lehmann(d) == pytest.approx((-0.46, -0.786, -0.010), abs=1e-9)

    @pytest.mark.parametrize("n", [6, 9, 14, 25])
    def test_interval_holds_the_shifts_that_scipy_does_not_reject(self, n):
        d = np.random.default_rng(n).gumbel(0.2, 1, n)
        _, low, high = hodges_lehmann(d)

        def p(shift):
            return stats.wilcoxon(d - shift, method="exact").pvalue

        assert p(low - 1e-6) <= 0.05 < p(low + 1e-6)
        assert p(high + 1e-6) <= 0.05 < p(high - 1e-6)

    def test_normal_approximation_of_the_ends_continues_the_exact_one(self, monkeypatch):
        d = np.round(np.random.default_rng(8).normal(0.1, 1, 400), 9)
        walsh = np.sort([(a + b) / 2 for i, a in enumerate(d) for b in d[i:]])
        exact = np.searchsorted(walsh, hodges_lehmann(d)[1:])
        monkeypatch.setattr(paired, "EXACT_RANKS", 399)
        paired._lower_rank.cache_clear()
        approximate = np.searchsorted(walsh, hodges_lehmann(d)[1:])
        paired._lower_rank.cache_clear()
        # Of 80,200 Walsh averages, the ends differ by the order of a continuity correction.
        assert np.abs(approximate - exact).max() <= 3
        assert approximate.sum() == exact.sum() == walsh.size - 1

    @pytest.mark.parametrize("zero_part", [0.0, 0.5])
    def test_covers_at_least_as_promised_with_ties_and_zeros(self, zero_part):
        generator = np.random.default_rng(21)
        runs, n = 800, 25
        d = generator.integers(1, 8, (runs, n)) * generator.choice([-1, 1], (runs, n)) / 10
        d[generator.random((runs, n)) < zero_part] = 0
        covered = [low <= 0 <= high for _, low, high in map(hodges_lehmann, d)]
        assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs)

    def test_too_few_for_an_interval(self):
        estimate, low, high = hodges_lehmann([0.1, 0.2, 0.3, 0.4, 0.5])
        assert estimate == pytest.approx(0.3)
        assert np.isnan([low, high]).all()
        assert np.isnan(hodges_lehmann([])).all()


class TestProperties:
    samples = st.lists(st.integers(-50, 50).map(lambda v: v / 50), min_size=6, max_size=40)

    @given(samples)
    @settings(max_examples=50, deadline=None)
    def test_exchanging_the_models_turns_the_sign_and_keeps_p(self, sample):
        d = np.array(sample)
        assume(d.any())
        for zeros in ("pratt", "wilcoxon"):
            assert signed_rank_p(-d, zeros) == signed_rank_p(d, zeros)
        if np.count_nonzero(d) <= EXACT_FLIPS:
            assert sign_flip_p(-d) == pytest.approx(sign_flip_p(d), rel=1e-12)
        assert rank_biserial(-d) == pytest.approx(-rank_biserial(d))
        estimate, low, high = hodges_lehmann(d)
        assert hodges_lehmann(-d) == pytest.approx((-estimate, -high, -low))

    @given(samples, st.integers(-20, 20).map(lambda v: v / 50))
    @settings(max_examples=50, deadline=None)
    def test_shift_moves_with_the_data_and_lies_in_its_interval(self, sample, offset):
        d = np.array(sample)
        estimate, low, high = hodges_lehmann(d)
        assert low <= estimate <= high
        assert hodges_lehmann(d + offset) == pytest.approx((estimate + offset, low + offset, high + offset))

    @given(samples)
    @settings(max_examples=50, deadline=None)
    def test_rank_biserial_is_bounded_by_its_meaning(self, sample):
        d = np.array(sample)
        assume(d.any())
        assert -1 <= rank_biserial(d) <= 1
        assert (rank_biserial(d) == 1) == (d.min() >= 0)
        assert rank_biserial(np.abs(d)) == 1

    def test_rank_biserial_worked_example(self):
        # Pratt's ranks 3, 4, 5, 6 after two zeros; 4 is negative.
        assert rank_biserial([0, 0, 1, -2, 3, 4]) == pytest.approx((14 - 4) / 18)


class TestHolm:
    p_values = st.lists(st.floats(0, 1), min_size=1, max_size=20)

    @given(p_values)
    @settings(max_examples=30, deadline=None)
    def test_equals_statsmodels_and_keeps_the_order(self, p):
        adjusted = holm(p)
        assert adjusted == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)
        assert (adjusted >= p).all()
        assert (adjusted <= 1).all()
        assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()

    def test_a_declared_test_without_result_still_counts(self):
        adjusted = holm([np.nan, 0.01, 0.04])
        assert np.isnan(adjusted[0])
        assert adjusted[1:] == pytest.approx([0.03, 0.08])

    def test_no_tests(self):
        assert holm([]).size == 0


class TestSpearman:
    def test_equals_scipy_with_ties(self):
        generator = np.random.default_rng(2)
        x = generator.integers(0, 9, 40)
        y = x + generator.integers(0, 20, 40)
        expected = stats.spearmanr(x, y)
        assert spearman(x, y) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-10)

    def test_small_sample_counts_permutations(self):
        x, y = np.array([1, 2, 3, 4, 5, 5]), np.array([2, 1, 4, 3, 5, 6])
        expected = stats.permutation_test(
            (x,),
            lambda v: stats.spearmanr(v, y).statistic,
            permutation_type="pairings",
            n_resamples=np.inf,
        )
        # scipy doubles the smaller tail; ties make the tails unequal, so compare both tails by counting.
        null = np.asarray(expected.null_distribution)
        rho, p = spearman(x, y)
        assert rho == pytest.approx(expected.statistic)
        assert p == pytest.approx((np.abs(null) >= rho - 1e-9).mean())

    def test_perfect_order_of_five(self):
        assert spearman([1, 2, 3, 4, 5], [10, 20, 30, 40, 50]) == pytest.approx((1.0, 2 / 120))

    def test_perfect_order_of_many(self):
        rho, p = spearman(np.arange(20), -np.arange(20.0))
        assert rho == -1
        assert p == pytest.approx(2 / math.factorial(20))

    def test_constant_or_tiny_is_no_correlation(self):
        assert np.isnan(spearman([1, 1, 1, 1], [1, 2, 3, 4])).all()
        assert np.isnan(spearman([1, 2], [1, 2])).all()

    def test_refuses_unequal_lengths(self):
        with pytest.raises(ValueError, match="4 and 3"):
            spearman([1, 2, 3, 4], [1, 2, 3])


class TestBootstrap:
    # Two independent runs of 10,000 draws differ by about one per cent of the width.
    tolerance = 0.035

    def assert_close(self, ours, theirs):
        width = theirs[1] - theirs[0]
        assert ours == pytest.approx(tuple(theirs), abs=self.tolerance * width)

    @pytest.mark.parametrize("statistic", ["mean", "median"])
    def test_equals_scipy_without_strata(self, statistic):
        values = np.random.default_rng(1).exponential(1, 35)
        theirs = stats.bootstrap(
            (values,), getattr(np, statistic), n_resamples=10_000, method="BCa", rng=np.random.default_rng(5)
        ).confidence_interval
        ours = bca_interval(values, None, statistic, 10_000, 6)
        self.assert_close(ours, theirs)
        if statistic == "mean":
            plain = stats.bootstrap(
                (values,), np.mean, method="percentile", rng=np.random.default_rng(5)
            ).confidence_interval
            # The correction is larger than what the comparison tolerates.
            assert abs(plain.high - theirs.high) > 2 * self.tolerance * (theirs.high - theirs.low)

    @pytest.mark.parametrize("statistic", ["mean", "median"])
    @pytest.mark.parametrize("sizes", [(25,), (6, 14, 9)])
    def test_equals_scipy_exactly_on_the_same_resamples(self, statistic, sizes):
        generator = np.random.default_rng(12)
        parts = [generator.lognormal(i, 1, size) for i, size in enumerate(sizes)]
        values, strata = np.concatenate(parts), np.repeat(np.arange(len(sizes)), sizes)

        def pooled(*samples, axis=-1):
            return getattr(np, statistic)(np.concatenate(samples, axis=axis), axis=axis)

        given = stats.bootstrap(parts, pooled, n_resamples=2, method="percentile", vectorized=True)
        given.bootstrap_distribution = pooled(values[bootstrap._resamples(sizes, 1000, 4)])
        theirs = stats.bootstrap(
            parts, pooled, n_resamples=0, bootstrap_result=given, method="BCa", vectorized=True
        ).confidence_interval
        assert bca_interval(values, strata, statistic, 1000, 4) == pytest.approx(tuple(theirs), rel=1e-9)

    def test_equals_scipy_with_strata_as_samples(self):
        generator = np.random.default_rng(3)
        parts = generator.exponential(1, 12), 4 + generator.exponential(0.5, 30), generator.exponential(3, 8)

        def pooled_mean(*samples, axis):
            return np.concatenate(np.broadcast_arrays(*samples) if axis is None else samples, axis=axis).mean(
                axis=axis
            )

        theirs = stats.bootstrap(
            parts,
            pooled_mean,
            n_resamples=10_000,
            method="BCa",
            vectorized=True,
            rng=np.random.default_rng(5),
        ).confidence_interval
        values = np.concatenate(parts)
        strata = np.repeat(["a", "b", "c"], [12, 30, 8])
        ours = bca_interval(values, strata, "mean", 10_000, 6)
        self.assert_close(ours, theirs)
        low, high = bca_interval(values, None, "mean", 10_000, 6)
        assert ours[1] - ours[0] < 0.8 * (high - low)  # what differs between strata is not uncertainty
        shuffled = generator.permutation(values.size)
        self.assert_close(bca_interval(values[shuffled], strata[shuffled], "mean", 10_000, 7), theirs)

    def test_ratio_of_sums_equals_scipy_exactly_on_the_same_resamples(self):
        generator = np.random.default_rng(2)
        sizes = generator.integers(1, 5, 21)
        totals = np.stack([sizes * generator.random(21), generator.beta(3, 1, 21)], axis=1)
        strata = np.repeat(["b", "a"], [9, 12])
        ours = bootstrap.ratio_intervals(totals, sizes, strata, 1000, 4)
        parts = [np.flatnonzero(strata == name) for name in "ab"]
        drawn = bootstrap._resamples((12, 9), 1000, 4)
        order = np.concatenate(parts)
        for column in range(2):

            def ratio(*samples, axis=-1, column=column):
                rows = np.concatenate(samples, axis=axis)
                return totals[rows, column].sum(axis=axis) / sizes[rows].sum(axis=axis)

            given = stats.bootstrap(parts, ratio, n_resamples=2, method="percentile", vectorized=True)
            given.bootstrap_distribution = ratio(order[drawn])
            theirs = stats.bootstrap(
                parts, ratio, n_resamples=0, bootstrap_result=given, method="BCa", vectorized=True
            ).confidence_interval
            assert ours[column].tolist() == pytest.approx(tuple(theirs), rel=1e-9)

    def test_ratio_with_sizes_of_one_is_the_mean_of_each_column(self):
        generator = np.random.default_rng(7)
        values = np.stack([generator.random(19), generator.integers(0, 2, 19), np.full(19, 0.3)], axis=1)
        strata = np.arange(19) % 3
        ours = bootstrap.ratio_intervals(values, np.ones(19), strata, 400, 3)
        for column in range(3):
            expected = bca_interval(values[:, column], strata, "mean", 400, 3)
            assert ours[column].tolist() == pytest.approx(expected, abs=1e-9)
        assert np.isnan(bootstrap.ratio_intervals([[0.5]], [1.0])).all()

    def test_covers_the_mean_of_skewed_coverage(self):
        generator = np.random.default_rng(9)
        covered = []
        for run in range(400):
            low, high = bca_interval(generator.beta(4, 1, 40), None, "mean", 400, run)
            covered.append(low <= 0.8 <= high)
        assert 0.91 < np.mean(covered) < 0.98

    def test_seed_decides(self):
        values = np.random.default_rng(1).random(30)
        assert bca_interval(values, seed=4) == bca_interval(values, seed=4) != bca_interval(values, seed=5)

    @pytest.mark.parametrize("statistic", ["mean", "median"])
    def test_constant_values_and_too_few(self, statistic):
        assert bca_interval(np.full(9, 0.75), None, statistic) == (0.75, 0.75)
        assert np.isnan(bca_interval([0.5], None, statistic)).all()

    @pytest.mark.parametrize("n", [1, 2, 7, 8])
    def test_median_is_that_of_numpy(self, n):
        values = np.random.default_rng(n).random((5, n))
        assert bootstrap._median(values, axis=1).tolist() == np.median(values, axis=1).tolist()

    def test_large_samples_are_worked_off_in_blocks(self, monkeypatch):
        values = np.random.default_rng(1).random(50)
        whole = bca_interval(values, draws=1000)
        monkeypatch.setattr("predictgbm.statistics.bootstrap.BLOCK", 50 * 7)
        assert bca_interval(values, draws=1000) == whole

    @given(st.lists(st.floats(0, 1), min_size=6, max_size=30))
    @settings(max_examples=25, deadline=None)
    def test_interval_of_the_mean_holds_it_and_stays_within_the_data(self, values):
        low, high = bca_interval(values, draws=1000)
        assert min(values) - 1e-12 <= low <= np.mean(values) + 1e-12
        assert np.mean(values) - 1e-12 <= high <= max(values) + 1e-12


class TestVolumeAtCoverage:
    @given(st.floats(0.1, 3), st.floats(0.01, 0.95), st.floats(1, 300))
    def test_inverts_a_power_law_curve(self, exponent, target, plan_ml):
        # Coverage x^k at volume x reaches t at t^(1/k).
        x = np.linspace(0, 1, 4001)[1:]
        expected = target ** (1 / exponent) * plan_ml
        assert volume_at_coverage(x, x**exponent, target, plan_ml) == pytest.approx(
            expected, abs=2e-3 * plan_ml
        )

    def test_linear_between_points_and_through_the_origin(self):
        assert volume_at_coverage([0.5, 1.0], [0.2, 0.6], 0.1, 100) == pytest.approx(25)
        assert volume_at_coverage([1.0, 0.5], [0.6, 0.2], 0.5, 100) == pytest.approx(87.5)

    def test_first_point_of_a_plateau(self):
        assert volume_at_coverage([0.5, 1.0, 2.0], [0.6, 0.6, 0.9], 0.6, 10) == pytest.approx(5)

    def test_never_reached_and_nothing_to_reach(self):
        assert np.isnan(volume_at_coverage([0.5, 2.0], [0.2, 0.6], 0.7, 100))
        assert volume_at_coverage([0.5, 2.0], [0.2, 0.6], 0.0, 100) == 0
