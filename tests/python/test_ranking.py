"""All models at once: tests, ranks, panels, figures, against enumeration, scipy, statsmodels and worked tables."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations, permutations, product
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.multitest import multipletests

from predictgbm.report import figures
from predictgbm.report import ranking as report_ranking
from predictgbm.report.results import Results
from predictgbm.statistics import cliques, friedman, holm, pairwise
from predictgbm.statistics.benchmark import make_tables
from predictgbm.statistics.bootstrap import resample_counts
from predictgbm.statistics.multiple import block_ranks, pairs
from predictgbm.statistics.panels import Bootstrap, Ranking, find_panels, rank_panel
from predictgbm.statistics.ranking import (
    METHODS,
    bootstrap_scores,
    competition_ranks,
    kendall_tau,
    rank_frequencies,
    rank_interval,
    scores,
    signed_rank_z,
)

pytestmark = pytest.mark.filterwarnings("error")

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def null_coverages(generator: np.random.Generator, n: int, k: int, zero_part: float) -> np.ndarray:
    """Return coverages of k exchangeable models, most of which agree in a patient: zeros and ties are the rule."""
    steps = generator.integers(-4, 5, (n, k)) * (generator.random((n, k)) > zero_part)
    return 0.5 + steps / 20


# Few distinct values, so that models tie within patients and differences between them are zero or tied.
tables = st.integers(2, 5).flatmap(
    lambda k: arrays(
        np.float64, st.tuples(st.integers(5, 12), st.just(k)), elements=st.integers(0, 5).map(lambda v: v / 5)
    )
)


class TestFriedman:
    def test_worked_example_with_ties(self):
        # Ranks 1 2 3; 1.5 1.5 3; 2 2 2. Means 3/2, 11/6, 8/3; squares about 2: 13/18 of the means, 7/2 of all.
        result = friedman([[0.9, 0.5, 0.1], [0.9, 0.9, 0.1], [0.5, 0.5, 0.5]])
        assert result.mean_ranks == pytest.approx([3 / 2, 11 / 6, 8 / 3])
        assert result.w == pytest.approx(13 / 21)
        assert result.chi2 == pytest.approx(3 * 2 * 13 / 21)
        assert result.p == pytest.approx(np.exp(-3 * 13 / 21))  # chi-squared of 2 degrees: exp(-x / 2)
        assert result.f == pytest.approx(13 / 4)

    @given(tables)
    @settings(max_examples=60, deadline=None)
    def test_equals_scipy_and_the_analysis_of_variance_of_the_ranks(self, coverage):
        n, k = coverage.shape
        result = friedman(coverage)
        ranks = np.array([stats.rankdata(-row) for row in coverage])
        if np.ptp(ranks, axis=1).max() == 0:
            assert np.isnan([result.chi2, result.p, result.f, result.p_f, result.w]).all()
            return
        if k > 2:  # scipy has no test of two
            expected = stats.friedmanchisquare(*coverage.T)
            assert (result.chi2, result.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
        between = n * ((ranks.mean(axis=0) - ranks.mean()) ** 2).sum()
        within = ((ranks - ranks.mean(axis=0)) ** 2).sum()
        if within > 0:
            f = between / (k - 1) / (within / (k - 1) / (n - 1))
            assert (result.f, result.p_f) == pytest.approx((f, stats.f.sf(f, k - 1, (k - 1) * (n - 1))))
        else:
            assert result.f == np.inf
            assert result.w == 1

    def test_mean_over_all_permutations_is_exact_with_ties(self):
        # Under the null hypothesis the expectation of chi2 is k - 1, which only the right correction gives.
        blocks = [[0.1, 0.2, 0.3], [0.1, 0.1, 0.3], [0.2, 0.2, 0.2], [0.1, 0.4, 0.4]]
        values = [friedman(rows).chi2 for rows in product(*(list(permutations(block)) for block in blocks))]
        assert len(values) == 6**4
        assert np.mean(values) == pytest.approx(2)

    @pytest.mark.parametrize("block", [[0.9, 0.5, 0.1], [0.9, 0.5, 0.5]])
    def test_p_of_perfect_agreement_is_that_of_all_permutations(self, block):
        observed = friedman([block] * 3)
        chi2 = [friedman(rows).chi2 for rows in product(list(permutations(block)), repeat=3)]
        assert observed.p_f == pytest.approx(np.mean(np.array(chi2) > observed.chi2 - 1e-9))
        assert observed.w == 1

    def test_noise_of_summation_is_a_tie(self):
        assert block_ranks([[0.3, 0.1 + 0.2, 0.2]]).tolist() == [[1.5, 1.5, 3]]

    @pytest.mark.parametrize("values", [[[0.5, 0.2]], [[0.5], [0.2]], [0.5, 0.2]])
    def test_refuses_what_is_no_table(self, values):
        with pytest.raises(ValueError, match="two patients and two models"):
            friedman(values)

    def test_refuses_gaps(self):
        with pytest.raises(ValueError, match="finite"):
            friedman([[0.5, np.nan], [0.2, 0.3]])

    def test_false_positive_rate(self):
        generator = np.random.default_rng(7)
        runs = 1500
        p = np.array([friedman(null_coverages(generator, 30, 4, 0.6))[1:4:2] for _ in range(runs)])
        band = 3 * np.sqrt(0.05 * 0.95 / runs)
        rate = (p < 0.05).mean(axis=0)
        assert (rate < 0.05 + band).all()
        assert rate[1] > 0.05 - band


class TestPairwise:
    @given(tables)
    @settings(max_examples=15, deadline=None)
    def test_equals_enumeration_and_statsmodels(self, coverage):
        tests = pairwise(coverage)
        n, k = coverage.shape
        signs = np.array(list(product((-1, 1), repeat=min(n, 12))))
        expected = []
        for index, (a, b) in enumerate(combinations(range(k), 2)):
            d = np.round(coverage[:, a] - coverage[:, b], 9)
            ranks = stats.rankdata(np.abs(d)) * (d != 0)
            total = (ranks * np.sign(d)).sum()
            assert tests.direction[index] == np.sign(total)
            sums = signs @ ranks
            p = min(1.0, 2 * min((sums <= total + 1e-9).mean(), (sums >= total - 1e-9).mean()))
            expected.append(p if d.any() else np.nan)
        assert tests.p == pytest.approx(expected, rel=1e-9, nan_ok=True)
        # A pair without a test counts as one that cannot be rejected.
        adjusted = multipletests(np.nan_to_num(expected, nan=1.0), method="holm")[1]
        known = ~np.isnan(expected)
        assert tests.p_adjusted[known] == pytest.approx(adjusted[known], rel=1e-9)
        assert np.isnan(tests.p_adjusted[~known]).all()

    def test_identical_models_are_not_told_apart_and_break_nothing(self):
        better = np.linspace(0.3, 0.9, 12)
        tests = pairwise(np.column_stack([better, better, better - 0.1]))
        assert np.isnan(tests.p[0])
        # 2 / 2^12 for both pairs that have a test, in a family of three.
        assert tests.p[1:] == pytest.approx(2.0**-11)
        assert tests.p_adjusted[1:] == pytest.approx(3 * 2.0**-11)
        assert tests.significant.tolist() == [False, True, True]
        assert cliques(tests.significant, 3) == [(0, 1)]

    def test_family_wise_error_rate(self):
        generator = np.random.default_rng(8)
        runs, k = 400, 4
        found = [pairwise(null_coverages(generator, 30, k, 0.6)) for _ in range(runs)]
        adjusted = np.mean([test.significant.any() for test in found])
        plain = np.mean([(test.p < 0.05).any() for test in found])
        band = 3 * np.sqrt(0.05 * 0.95 / runs)
        assert 0.01 < adjusted < 0.05 + band
        # Without adjustment, six tests at 5 % are far outside the band that the adjusted ones keep.
        assert plain > 0.05 + 3 * band


def test_holm_takes_each_row_for_a_family():
    p = np.random.default_rng(4).integers(0, 30, (6, 9)) / 200
    expected = [multipletests(row, method="holm")[1] for row in p]
    assert holm(p) == pytest.approx(np.array(expected), rel=1e-12)
    assert not np.allclose(holm(p), holm(p.ravel()).reshape(p.shape))


class TestCliques:
    @given(
        st.integers(2, 7).flatmap(lambda k: st.lists(st.booleans(), min_size=k * (k - 1) // 2, max_size=21))
    )
    @settings(max_examples=60, deadline=None)
    def test_equal_those_found_by_trying_every_set(self, different):
        k = next(k for k in range(7, 1, -1) if k * (k - 1) // 2 <= len(different))
        different = different[: k * (k - 1) // 2]
        apart = {pair for pair, yes in zip(combinations(range(k), 2), different, strict=True) if yes}
        groups = [
            set(group)
            for size in range(2, k + 1)
            for group in combinations(range(k), size)
            if not apart & set(combinations(group, 2))
        ]
        largest = [tuple(sorted(group)) for group in groups if not any(group < other for other in groups)]
        assert cliques(different, k) == sorted(largest)

    def test_worked_example(self):
        # 0-1 and 1-2 are alike, 0-2 not; 3 differs from all.
        assert cliques([False, True, True, False, True, True], 4) == [(0, 1), (1, 2)]


class TestScores:
    def test_worked_example_with_a_tie(self):
        # Nine patients favour the first by as much as ever; the tenth favours the others.
        coverage = np.array([[0.9, 0.6, 0.6]] * 9 + [[0.1, 0.3, 0.2]])
        found = scores(coverage)
        assert found["mean_then_rank"] == pytest.approx([0.82, 0.57, 0.56])
        assert found["rank_then_mean"] == pytest.approx(
            [(9 + 3) / 10, (9 * 2.5 + 1) / 10, (9 * 2.5 + 2) / 10]
        )
        # Against the second: nine of rank 6, one of rank 1 against; only all-positive is more extreme: 2 * 2 / 2^10.
        assert pairwise(coverage).p[0] == pytest.approx(2 * 2 / 2**10)
        assert found["test_then_rank"].tolist() == [2, 0, 0]
        ranks = {method: competition_ranks(found[method], up).tolist() for method, up in METHODS.items()}
        assert ranks == {
            "mean_then_rank": [1, 2, 3],
            "rank_then_mean": [1, 2, 3],
            "test_then_rank": [1, 2, 2],
        }

    def test_ways_to_rank_can_disagree(self):
        # One disaster costs the first its mean, not its rank in most patients.
        coverage = np.array([[0.82, 0.80]] * 9 + [[0.0, 0.8]])
        found = scores(coverage)
        assert competition_ranks(found["mean_then_rank"], True).tolist() == [2, 1]
        assert competition_ranks(found["rank_then_mean"], False).tolist() == [1, 2]

    @given(tables.filter(lambda table: len(table) >= 10), st.data())
    @settings(max_examples=40, deadline=None)
    def test_a_model_better_everywhere_is_first_by_all(self, coverage, data):
        k = coverage.shape[1]
        best = data.draw(st.integers(0, k - 1))
        coverage = coverage / 2
        coverage[:, best] = coverage.max(axis=1) + 0.1
        for method, score in scores(coverage).items():
            ranks = competition_ranks(score, METHODS[method])
            assert ranks[best] == 1
            assert (np.delete(ranks, best) > 1).all()
        for method, score in bootstrap_scores(coverage, draws=50).items():
            assert (competition_ranks(score, METHODS[method])[:, best] == 1).all()

    @given(tables, st.randoms(use_true_random=False))
    @settings(max_examples=40, deadline=None)
    def test_order_of_patients_and_models_changes_nothing(self, coverage, random):
        n, k = coverage.shape
        rows, columns = random.sample(range(n), n), random.sample(range(k), k)
        before, after = scores(coverage), scores(coverage[rows][:, columns])
        for method, up in METHODS.items():
            assert after[method] == pytest.approx(before[method][columns])
            ranks = competition_ranks(before[method], up)
            assert competition_ranks(after[method], up).tolist() == ranks[columns].tolist()
        old, new = friedman(coverage), friedman(coverage[rows][:, columns])
        assert new[:5] == pytest.approx(old[:5], nan_ok=True)
        assert new.mean_ranks == pytest.approx(old.mean_ranks[columns])

    def test_equal_scores_share_the_best_rank(self):
        assert competition_ranks([0.3, 0.5, 0.1 + 0.2, 0.1], True).tolist() == [2, 1, 2, 4]
        assert competition_ranks([[3, 1, 1], [1, 2, 3]], False).tolist() == [[3, 1, 1], [1, 2, 3]]


class TestBootstrap:
    def test_samples_keep_the_strata(self):
        strata = np.array(list("abcabacbac"))
        counts = resample_counts(10, strata, 400, 3)
        assert counts.shape == (400, 10)
        for name in "abc":
            assert (counts[:, strata == name].sum(axis=1) == (strata == name).sum()).all()
        # Each patient is drawn once on average; the variance of one count is below 1.
        assert np.abs(counts.mean(axis=0) - 1).max() < 4 / np.sqrt(400)
        assert (counts == resample_counts(10, strata, 400, 3)).all()
        assert (counts != resample_counts(10, strata, 400, 4)).any()

    @given(
        st.lists(st.integers(-4, 4), min_size=2, max_size=30).filter(any),
        st.integers(0, 2**32 - 1),
    )
    @settings(max_examples=60, deadline=None)
    def test_z_is_that_of_scipy_on_repeated_patients(self, differences, seed):
        d = np.array(differences) / 20
        counts = np.random.default_rng(seed).multinomial(d.size, np.full(d.size, 1 / d.size), 3)
        for z, count in zip(signed_rank_z(d, counts), counts, strict=True):
            sample = np.round(np.repeat(d, count), 9)
            if not sample.any():
                assert np.isnan(z)
                continue
            expected = stats.wilcoxon(sample, zero_method="pratt", method="asymptotic", correction=False)
            assert 2 * stats.norm.sf(abs(z)) == pytest.approx(expected.pvalue, rel=1e-9)
            ranks = stats.rankdata(np.abs(sample))
            assert np.sign(np.round(z, 9)) == np.sign(np.round((ranks * np.sign(sample)).sum(), 9))

    def test_equals_a_loop_over_the_samples(self):
        generator = np.random.default_rng(5)
        coverage = null_coverages(generator, 40, 4, 0.5) + np.array([0.0, 0.0, 0.03, 0.06])
        strata = np.repeat([0, 1], [15, 25])
        found = bootstrap_scores(coverage, strata, 8, 9)
        for draw, count in enumerate(resample_counts(40, strata, 8, 9)):
            sample = np.repeat(coverage, count, axis=0)
            assert found["mean_then_rank"][draw] == pytest.approx(sample.mean(axis=0))
            ranks = np.array([stats.rankdata(-np.round(row, 9)) for row in sample])
            assert found["rank_then_mean"][draw] == pytest.approx(ranks.mean(axis=0))
            differences = [np.round(sample[:, a] - sample[:, b], 9) for a, b in combinations(range(4), 2)]
            p = [stats.wilcoxon(d, zero_method="pratt", method="asymptotic").pvalue for d in differences]
            beaten = np.zeros(4)
            rejected = multipletests(p, method="holm")[0]
            for (a, b), d, yes in zip(combinations(range(4), 2), differences, rejected, strict=True):
                total = (stats.rankdata(np.abs(d)) * np.sign(d)).sum()
                beaten[a if total > 0 else b] += yes
            assert found["test_then_rank"][draw].tolist() == beaten.tolist()
        assert 0 < found["test_then_rank"].mean() < 1.5

    def test_identical_models_share_every_rank(self):
        coverage = null_coverages(np.random.default_rng(6), 15, 3, 0.3)[:, [0, 1, 2, 0]]
        for method, score in bootstrap_scores(coverage, draws=100).items():
            ranks = competition_ranks(score, METHODS[method])
            assert (ranks[:, 0] == ranks[:, 3]).all()

    @given(arrays(np.float64, (30, 4), elements=st.integers(0, 3)))
    @settings(max_examples=30, deadline=None)
    def test_frequencies_count_every_draw_once(self, score):
        ranks = competition_ranks(score, True)
        shares = rank_frequencies(ranks)
        assert shares.sum(axis=1) == pytest.approx(np.ones(4))
        assert shares[:, 0].sum() >= 1  # someone is first in every draw
        expected = np.array([[np.mean(ranks[:, i] == j) for j in range(1, 5)] for i in range(4)])
        assert shares.tolist() == expected.tolist()

    def test_interval_of_the_rank(self):
        # 2.5 % of 40 is one draw: the smallest rank that at least one, 20 and 39 draws do not exceed.
        ranks = np.array([[1]] * 1 + [[2]] * 19 + [[3]] * 18 + [[4]] * 2)
        assert rank_interval(ranks).ravel().tolist() == [1, 2, 4]
        assert rank_interval(np.array([[1]] * 1 + [[2]] * 20 + [[3]] * 18 + [[4]] * 1)).ravel().tolist() == [
            1,
            2,
            3,
        ]


class TestKendall:
    @given(arrays(np.int64, (3, 6), elements=st.integers(1, 5)))
    @settings(max_examples=60, deadline=None)
    def test_equals_scipy_with_ties(self, ranks):
        expected = [stats.kendalltau(row, ranks[0]).statistic for row in ranks]
        assert kendall_tau(ranks, ranks[0]) == pytest.approx(expected, nan_ok=True)

    def test_worked_example(self):
        # Of the pairs of 1 2 2 4: five are ordered; 1 2 3 4 orders six; all five agree.
        assert kendall_tau([1, 2, 2, 4], [1, 2, 3, 4]) == pytest.approx(5 / np.sqrt(5 * 6))
        assert kendall_tau([[4, 3, 2, 1]], [1, 2, 3, 4]).tolist() == [-1]
        assert np.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))


def frame(columns: dict[str, int], n: int = 20, seed: int = 0) -> pd.DataFrame:
    """Return coverages of n patients; a model has those of the first so many patients."""
    generator = np.random.default_rng(seed)
    values = {
        name: np.where(np.arange(n) < outputs, generator.integers(1, 20, n) / 20, np.nan)
        for name, outputs in columns.items()
    }
    return pd.DataFrame(values, index=[f"P{i:02d}" for i in range(n)])


class TestPanels:
    def test_models_that_all_patients_have_are_one_panel(self):
        panels, notes = find_panels(frame({"a": 20, "b": 18, "c": 20}))
        assert [(p.name, p.models, len(p.patients)) for p in panels] == [
            ("all_patients", ["a", "b", "c"], 20)
        ]
        assert notes == []

    def test_models_of_some_patients_are_ranked_on_those(self):
        panels, notes = find_panels(frame({"a": 20, "b": 20, "adc": 12, "pet": 9}))
        assert [(p.name, p.models) for p in panels] == [
            ("all_patients", ["a", "b"]),
            ("subset", ["a", "b", "adc", "pet"]),
        ]
        assert panels[1].patients.tolist() == [f"P{i:02d}" for i in range(9)]
        assert notes == ["Ranked only on the 9 patients whom they have: adc (12 of 20), pet (9 of 20)."]

    def test_models_that_share_too_few_patients_are_told(self):
        coverage = frame({"a": 20, "b": 20, "adc": 8, "pet": 9})
        coverage["pet"] = coverage["pet"].to_numpy()[::-1]
        panels, notes = find_panels(coverage)
        assert [p.name for p in panels] == ["all_patients"]
        assert "share fewer than 5 patients: adc (8 of 20), pet (9 of 20)" in notes[0]

    def test_a_model_of_too_few_patients_shrinks_no_panel(self):
        panels, notes = find_panels(frame({"a": 20, "b": 20, "rare": 3, "broken": 0}))
        assert [(p.name, p.models) for p in panels] == [("all_patients", ["a", "b"])]
        assert [note.split(": ")[1] for note in notes] == ["rare (3).", "broken (0)."]

    def test_a_model_that_lacks_an_input_is_told_from_one_that_fails(self):
        """Of 20 patients each has 12; ``adc`` lacks an input for the others, or for all of them but one."""
        coverage = frame({"a": 20, "b": 20, "adc": 12, "weak": 12})
        absent = coverage.index[12:]
        failed = {(patient, "adc"): "missing_input" for patient in absent}
        failed |= {(patient, "weak"): "crashed" for patient in absent[:-2]} | {(absent[-2], "weak"): "lost"}
        notes = find_panels(coverage, failed)[1]
        assert notes[1].startswith("adc needs an input that 8 of 20 patients lack")
        assert notes[2].startswith(
            "weak failed: no output for 8 of 20 patients "
            "(6 crashed, 1 killed, or out of memory or time, 1 without a reason)"
        )
        assert len(notes) == 3
        failed[absent[0], "adc"] = "crashed"
        assert find_panels(coverage, failed)[1][1].startswith("adc needs an input that 7 of 20"), "12 of 13"
        failed |= {(patient, "adc"): "refused" for patient in absent[:2]}
        assert find_panels(coverage, failed)[1][1].startswith("adc failed"), "12 of 14"

    @pytest.mark.parametrize("columns", [{}, {"a": 20}, {"a": 4, "b": 4}])
    def test_nothing_to_rank(self, columns):
        assert find_panels(frame(columns).dropna(how="all"))[0] == []

    def ranked(self, coverage: pd.DataFrame, draws: int = 200) -> tuple[Ranking, pd.DataFrame]:
        ranking = Ranking()
        rank_panel(ranking, "all_patients", coverage, Bootstrap(np.full(len(coverage), ""), draws, 1))
        return ranking, pd.DataFrame(ranking.rankings).set_index(["method", "model"])

    def test_a_missing_output_counts_zero_and_complete_cases_stand_beside(self):
        coverage = frame({"a": 20, "b": 20})
        coverage["c"] = coverage[["a", "b"]].max(axis=1) + 0.01  # the best wherever it has output
        coverage.loc["P03":"P04", "c"] = np.nan
        ranking, table = self.ranked(coverage)
        row = table.loc[("mean_then_rank", "c")]
        assert (row["n"], row["n_missing"], row["n_complete"]) == (20, 2, 18)
        assert row["score"] == pytest.approx(coverage["c"].sum() / 20)
        assert row["score_complete"] == pytest.approx(coverage["c"].mean())
        # Third of three in two patients, first in all others.
        assert table.loc[("rank_then_mean", "c"), "score"] == pytest.approx((18 * 1 + 2 * 3) / 20)
        assert (table.xs("c", level="model")["rank_complete"] == 1).all()
        assert {row["n"] for row in ranking.pairwise} == {18}
        assert ranking.panels["all_patients"]["friedman"]["mean_ranks"]["c"] == 1

    def test_rank_of_the_mean_can_change_with_missing_outputs(self):
        coverage = pd.DataFrame({"a": [0.5] * 10, "b": [0.6] * 8 + [np.nan] * 2})
        _, table = self.ranked(coverage)
        row = table.loc[("mean_then_rank", "b")]
        assert (row["rank"], row["rank_complete"]) == (2, 1)  # 4.8 / 10 below 0.5 below 0.6

    def test_too_few_complete_blocks_leave_ranks_without_tests(self):
        coverage = frame({"a": 6, "b": 6}, n=6)
        coverage.loc["P00":"P01", "a"] = np.nan
        ranking, table = self.ranked(coverage)
        assert ranking.pairwise == []
        assert ranking.panels["all_patients"]["friedman"] is None
        assert "rank_complete" not in table
        assert table["rank"].notna().all()
        assert "fewer than 5 patients have output of each" in ranking.notes[0]

    def test_identical_models_are_told(self):
        coverage = frame({"a": 20, "b": 20, "c": 20})
        coverage["copy"] = coverage["a"]
        ranking, _ = self.ranked(coverage)
        assert "no test can tell them apart: a, copy (all_patients)" in ranking.notes[0]
        assert any({"a", "copy"} <= set(group) for group in ranking.panels["all_patients"]["cliques"])
        same = next(row for row in ranking.pairwise if (row["model_a"], row["model_b"]) == ("a", "copy"))
        assert (same["n_zero"], same["shift"]) == (20, 0)

    def test_all_models_alike_in_every_patient(self):
        coverage = pd.DataFrame(dict.fromkeys("abc", np.linspace(0, 1, 8)))
        ranking, table = self.ranked(coverage)
        facts = ranking.panels["all_patients"]
        assert facts["friedman"]["p"] is None
        assert facts["friedman"]["mean_ranks"] == {"a": 2, "b": 2, "c": 2}
        assert facts["cliques"] == [["a", "b", "c"]]
        assert (table["rank"] == 1).all()
        assert facts["tau_bootstrap"]["mean_then_rank"] == {"mean": None, "low": None, "undefined": 200}

    def test_clear_order_has_no_spread_and_tau_one(self):
        coverage = frame({"a": 20})
        coverage["b"], coverage["c"] = coverage["a"] + 0.1, coverage["a"] + 0.2
        ranking, table = self.ranked(coverage)
        for method in METHODS:
            assert table.loc[method][["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [
                [3, 3, 3],
                [2, 2, 2],
                [1, 1, 1],
            ]
        facts = ranking.panels["all_patients"]
        assert facts["tau_bootstrap"]["rank_then_mean"] == {"mean": 1, "low": 1, "undefined": 0}
        assert [pair["tau"] for pair in facts["tau_between"]] == [1, 1, 1]
        assert facts["friedman"]["f"] is None  # infinite
        assert facts["friedman"]["p_f"] == pytest.approx(6.0**-19)


def records(n: int = 24) -> list[dict[str, object]]:
    """Return coverages of four models and a copy; one has output for two thirds of the patients."""
    generator = np.random.default_rng(3)
    found: list[dict[str, object]] = []
    for i in range(n):
        base = int(generator.integers(40, 70))
        for model, gain in {"soc": 0, "distance": 0, "loti": 4, "mine": -20, "gliomap": 2}.items():
            if model == "gliomap" and i % 3 == 0:
                continue
            noise = 0 if gain == 0 else int(generator.integers(-4, 5))
            coverage = (base + gain + noise) / 100
            found.append(
                {"patient": f"{i:03d}", "model": model, "cohort": "AB"[i % 2], "coverage_enhancing": coverage}
            )
    return found


@pytest.fixture(scope="module")
def benchmark() -> tuple[dict[str, pd.DataFrame], dict]:
    return make_tables(records(), {}, [], draws=100, ranking_draws=200)


@pytest.fixture(scope="module")
def results(benchmark, tmp_path_factory) -> Results:
    folder = tmp_path_factory.mktemp("run")
    found, facts = benchmark
    for name, table in found.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "statistics.json").write_text(json.dumps(facts, allow_nan=False))
    (folder / "models.yml").write_text(json.dumps({"models": [{"name": "mine", "title": '<b>"mine"</b>'}]}))
    return Results(folder)


class TestBenchmark:
    def test_panels_of_the_tables(self, benchmark):
        found, facts = benchmark
        sizes = found["rankings"].groupby("panel")[["model", "n"]].agg({"model": "nunique", "n": "first"})
        assert sizes.to_numpy().tolist() == [[4, 24], [5, 16]]
        assert found["pairwise"].groupby("panel").size().tolist() == [6, 10]
        assert facts["ranking"]["draws"] == 200
        assert any("gliomap (16 of 24)" in note for note in facts["ranking"]["notes"])

    def test_frequencies_sum_to_one(self, benchmark):
        shares = benchmark[0]["rank_frequencies"]
        assert (shares.groupby(["panel", "method", "model"])["frequency"].sum().round(9) == 1).all()

    def test_same_seed_same_ranks_whatever_the_order_of_records(self, benchmark):
        again, facts = make_tables(records()[::-1], {}, [], draws=100, ranking_draws=200)
        assert facts == benchmark[1]
        for name in ("pairwise", "rankings", "rank_frequencies"):
            pd.testing.assert_frame_equal(again[name], benchmark[0][name])

    def test_command_wants_enough_draws(self, tmp_path):
        command = [sys.executable, str(ROOT / "bin" / "compute_statistics.py"), "--out", str(tmp_path)]
        run = subprocess.run([*command, "--ranking-draws", "9"], capture_output=True, text=True, check=False)
        assert run.returncode == 2
        assert "--ranking-draws: at least 100" in run.stderr


class TestFigures:
    def inside(self, drawing: str) -> ElementTree.Element:
        root = ElementTree.fromstring(drawing)
        width, height = map(float, root.get("viewBox").split()[2:])
        for element in root.iter():
            for name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(element.get(name, 0)) <= width
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(element.get(name, 0)) <= height
        return root

    @pytest.mark.parametrize("k", range(2, 13))
    def test_critical_difference_of_any_number_of_models(self, k):
        generator = np.random.default_rng(k)
        ranks = block_ranks(generator.random((30, k))).mean(axis=0)
        significant = generator.random(k * (k - 1) // 2) < 0.5
        groups = cliques(significant, k)
        contenders = [figures.Contender(f"<{i}>", "#0072B2", float(rank)) for i, rank in enumerate(ranks)]
        root = self.inside(figures.critical_difference(contenders, groups))
        bars = [e for e in root.iter(f"{SVG}g") if e.get("class") == "gbm-group"]
        assert [len(bar.findall(f"{SVG}circle")) for bar in bars] == [len(group) for group in groups]
        for bar, group in zip(bars, groups, strict=True):
            # Bar and dots stand at the mean ranks: ends of the axis are ranks 1 and k.
            axis = next(e for e in root.iter(f"{SVG}line") if e.get("y1") == e.get("y2"))
            low, high = float(axis.get("x1")), float(axis.get("x2"))
            places = [
                1 + (k - 1) * (float(c.get("cx")) - low) / (high - low) for c in bar.iter(f"{SVG}circle")
            ]
            assert places == pytest.approx([ranks[i] for i in group], abs=0.01 * k)
        labels = [e.text for e in root.iter(f"{SVG}text") if e.text.startswith("<")]
        assert sorted(labels) == sorted(f"<{i}>  {rank:.2f}" for i, rank in enumerate(ranks))
        heights = {}
        for e in root.iter(f"{SVG}text"):
            if e.text.startswith("<"):
                heights.setdefault(e.get("text-anchor"), []).append(float(e.get("y")))
        assert all(np.diff(sorted(ys)).min(initial=99) > 15 for ys in heights.values())

    @pytest.mark.parametrize("k", [2, 7, 12])
    def test_rank_frequency_areas_are_the_shares(self, k):
        shares = np.random.default_rng(k).dirichlet(np.ones(k), k)
        models = [figures.RankShares(f"m{i}", "#E69F00", i + 1, row.tolist()) for i, row in enumerate(shares)]
        root = self.inside(figures.rank_frequency([("One", models), ("Two", models)]))
        radii = [float(c.get("r")) for c in root.iter(f"{SVG}circle")]
        expected = np.maximum(10.5 * np.sqrt(np.concatenate([shares.ravel()] * 2)), 0.8)
        assert radii == pytest.approx(expected, abs=0.006)
        assert len(list(root.iter(f"{SVG}rect"))) == 2 * k


class Cells(HTMLParser):
    """Cells of the tables, row by row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag):
        self._inside &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside:
            self.rows[-1][-1] += data


class TestSection:
    def test_shows_the_ranks_of_the_tables(self, results, benchmark):
        _, html = report_ranking.section(results)
        rows = [row for row in Cells(html).rows if len(row) == 9 and row[0] != "Model"]
        assert len(rows) == 4 + 5
        table = benchmark[0]["rankings"].set_index(["panel", "method", "model"])
        best = rows[0]
        assert best[0] == "loti"
        for column, method, scale in zip((1, 3, 5), METHODS, (100, 1, 1), strict=True):
            entry = table.loc[("all_patients", method, "loti")]
            rank, low, high = (int(entry[name]) for name in ("rank", "rank_low", "rank_high"))
            assert float(best[column]) == pytest.approx(scale * entry["score"], abs=0.051)
            assert best[column + 1] == f"{rank} [{low} to {high}]"
        assert '<b>"mine"</b>' in rows[3][0]  # escaped: it is text

    def test_draws_both_figures_for_both_panels(self, results):
        how, html = report_ranking.section(results)
        assert how.count(".") == 1
        assert list(dict.fromkeys(re.findall(r'data-name="(\w+)"', html))) == [
            "critical_difference_all_patients",
            "rank_frequency_all_patients",
            "critical_difference_subset",
            "rank_frequency_subset",
        ]
        assert "<b>" not in html
        assert "over the 24 patients with a plan of every model" in html
        assert "gliomap (16 of 24)" in html

    def test_without_rankings_there_is_no_section(self, tmp_path):
        assert report_ranking.section(Results(tmp_path)) is None

    def test_tables_without_facts_still_give_the_ranks(self, results, tmp_path):
        for path in results.folder.glob("*.csv"):
            (tmp_path / path.name).write_text(path.read_text())
        _, html = report_ranking.section(Results(tmp_path))
        assert "rank_frequency_all_patients" in html
        assert "critical_difference" not in html


def test_pairs_are_in_the_order_of_combinations():
    assert list(zip(*pairs(5), strict=True)) == list(combinations(range(5), 2))
