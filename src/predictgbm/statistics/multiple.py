"""Several models at once: one test of all, tests of all pairs, and the groups that no test tells apart.

Everywhere ``coverage`` has one row per patient and one column per model, and no gaps: complete blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, fdtrc, gammaln
from scipy.stats import rankdata

from predictgbm.statistics.paired import ALPHA, TIE_DECIMALS, Floats, holm, signed_rank_p, signed_ranks


class Friedman(NamedTuple):
    """Result of :func:`friedman`; statistics and p-values are NaN if no patient tells any two models apart."""

    chi2: float
    p: float
    f: float
    p_f: float
    w: float
    mean_ranks: Floats


class Pairwise(NamedTuple):
    """Result of :func:`pairwise`, one value per pair of :func:`pairs`."""

    p: Floats
    p_adjusted: Floats
    direction: Floats

    @property
    def significant(self) -> NDArray[np.bool_]:
        """Whether the models of each pair are told apart; False where there was nothing to test."""
        return self.p_adjusted < ALPHA


def pairs(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return first and second model of all k (k - 1) / 2 pairs, in order."""
    return np.triu_indices(k, 1)


def block_ranks(coverage: ArrayLike) -> Floats:
    """Rank the models within each patient, shape (n, k): 1 is the best, equal ones share the mean of their ranks."""
    return np.asarray(rankdata(-np.round(np.asarray(coverage, np.float64), TIE_DECIMALS), axis=1), np.float64)


def friedman(coverage: ArrayLike) -> Friedman:
    """Test whether k models rank alike over n patients (Friedman 1937, doi:10.1080/01621459.1937.10503522).

    With the rank r_ij of model j in patient i, its mean R_j over patients and c = (k + 1) / 2, agreement is
    Kendall's W = n sum_j (R_j - c)^2 / sum_ij (r_ij - c)^2, which has the correction for ties in it (Kendall
    and Babington Smith 1939, doi:10.1214/aoms/1177732186), and chi2 = n (k - 1) W. The chi-squared
    approximation is conservative; F = (n - 1) W / (1 - W) with k - 1 and (k - 1) (n - 1) degrees of freedom
    comes closer (Iman and Davenport 1980, doi:10.1080/03610928008827904). Where all patients agree, F is
    infinite and its p-value the share of arrangements of the ranks that do.

    Parameters
    ----------
    coverage
        Shape (n, k), finite, n and k at least 2; higher is better.

    Returns
    -------
    Friedman
        ``chi2``, ``p``; ``f``, ``p_f``; ``w`` between 0 (no agreement) and 1; ``mean_ranks``, shape (k,), 1 is
        the best.

    Raises
    ------
    ValueError
        If there are fewer than two patients or models, or gaps.
    """
    ranks = block_ranks(_blocks(coverage))
    n, k = ranks.shape
    mean_ranks = ranks.mean(axis=0)
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    if spread == 0:
        nothing = float("nan")
        return Friedman(nothing, nothing, nothing, nothing, nothing, mean_ranks)
    w = min(n * float(((mean_ranks - (k + 1) / 2) ** 2).sum()) / spread, 1.0)
    chi2 = n * (k - 1) * w
    if (ranks == ranks[0]).all():
        _, ties = np.unique(ranks[0], return_counts=True)
        f, p_f = float("inf"), float(np.exp((n - 1) * (gammaln(ties + 1).sum() - gammaln(k + 1))))
    else:
        f = (n - 1) * w / (1 - w)
        p_f = float(fdtrc(k - 1, (k - 1) * (n - 1), f))
    return Friedman(chi2, float(chdtrc(k - 1, chi2)), f, p_f, w, mean_ranks)


def pairwise(coverage: ArrayLike) -> Pairwise:
    """Compare every two models by the signed-rank test with Pratt's zeros, adjusted by Holm over all pairs.

    Tests of pairs do not depend on which other models take part, as those on mean ranks do (Benavoli,
    Corani and Mangili 2016, J Mach Learn Res 17(5):1). A pair without any difference has no test; it still
    counts in the adjustment.

    Parameters
    ----------
    coverage
        Shape (n, k), finite, n and k at least 2.

    Returns
    -------
    Pairwise
        ``p``, ``p_adjusted`` (NaN without a test) and ``direction``: 1 where the first model of the pair has
        the larger sum of ranks, -1 where the second has, 0 for neither.

    Raises
    ------
    ValueError
        If there are fewer than two patients or models, or gaps.
    """
    array = _blocks(coverage)
    differences = [array[:, a] - array[:, b] for a, b in zip(*pairs(array.shape[1]), strict=True)]
    p = np.array([signed_rank_p(d, "pratt") for d in differences])
    direction = np.array([np.sign(signed_ranks(d, "pratt").sum()) for d in differences])
    return Pairwise(p, holm(p), direction)


def cliques(significant: ArrayLike, k: int) -> list[tuple[int, ...]]:
    """Return the largest groups of models of which no two are told apart, each of at least two.

    These are the maximal cliques of the graph that joins what no test separates, the bars of a
    critical-difference diagram (Demsar 2006, J Mach Learn Res 7:1) drawn from decisions on pairs (Ismail
    Fawaz et al. 2019, doi:10.1007/s10618-019-00619-1). A group need not be a run of neighbouring mean ranks.

    Parameters
    ----------
    significant
        Whether the models of each pair of :func:`pairs` are told apart, shape (k (k - 1) / 2,).
    k
        Number of models.
    """
    alike = np.zeros((k, k), bool)
    alike[pairs(k)] = ~np.asarray(significant, bool)
    alike |= alike.T
    neighbours = [set(np.flatnonzero(row).tolist()) for row in alike]

    def grow(group: set[int], candidates: set[int], done: set[int]) -> Iterator[tuple[int, ...]]:
        # Bron and Kerbosch 1973, doi:10.1145/362342.362367.
        if not candidates and not done and len(group) > 1:
            yield tuple(sorted(group))
        for model in sorted(candidates):
            yield from grow(group | {model}, candidates & neighbours[model], done & neighbours[model])
            candidates, done = candidates - {model}, done | {model}

    return sorted(grow(set(), set(range(k)), set()))


def _blocks(coverage: ArrayLike) -> Floats:
    array = np.asarray(coverage, np.float64)
    if array.ndim != 2 or min(array.shape) < 2:
        raise ValueError(f"expected at least two patients and two models, found shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("coverage must be finite; leave out patients without a value of every model")
    return array
