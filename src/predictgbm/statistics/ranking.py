"""Rankings of models, and how far they depend on which patients happened to be in the cohort.

Three ways lead from coverages to ranks, and they need not agree (Maier-Hein et al. 2018,
doi:10.1038/s41467-018-07619-7; Wiesenfarth et al. 2021, doi:10.1038/s41598-021-82017-6):

- ``mean_then_rank``: rank the mean coverages;
- ``rank_then_mean``: rank the models within each patient, then rank the means of these ranks;
- ``test_then_rank``: rank by the number of models that a model beats significantly, by
  :func:`predictgbm.statistics.multiple.pairwise`.

Everywhere ``coverage`` has shape (n, k), a row per patient and a column per model, without gaps; rank 1 is
the best, and models of one score share the best rank among them (1, 2, 2, 4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from scipy.stats import rankdata

from predictgbm.statistics.bootstrap import resample_counts
from predictgbm.statistics.multiple import Pairwise, block_ranks, pairs, pairwise
from predictgbm.statistics.paired import ALPHA, TIE_DECIMALS, Floats, clean_differences, holm
from predictgbm.tables import RANKING_METHODS

#: Ways to rank -> whether a higher score is better.
METHODS = dict(zip(RANKING_METHODS, (True, False, True), strict=True))

Ints = NDArray[np.int64]


def scores(coverage: ArrayLike, tests: Pairwise | None = None) -> dict[str, Floats]:
    """Return the score of each model, shape (k,), by each of :data:`METHODS`.

    Parameters
    ----------
    coverage
        Shape (n, k), n and k at least 2.
    tests
        Result of :func:`predictgbm.statistics.multiple.pairwise` on the same values; None: computed.
    """
    array = np.asarray(coverage, np.float64)
    tests = pairwise(array) if tests is None else tests
    return {
        "mean_then_rank": array.mean(axis=0),
        "rank_then_mean": block_ranks(array).mean(axis=0),
        "test_then_rank": _beaten(tests.significant, tests.direction, array.shape[1]),
    }


def bootstrap_scores(
    coverage: ArrayLike, strata: ArrayLike | None = None, draws: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """Return the scores, shape (draws, k), in cohorts resampled by patient within strata.

    The signed-rank tests of the resamples use the normal approximation, with the variance that holds for
    their ties and zeros whatever their number, and no continuity correction; they are adjusted by Holm.
    Resampling repeats patients, which a test takes for new ones: the spread of ``test_then_rank`` is
    therefore only indicative.

    Parameters
    ----------
    coverage
        Shape (n, k).
    strata
        Shape (n,), what stratum each patient belongs to; None: all the same.
    draws, seed
        Number of resamples, and the seed of their generator.
    """
    array = np.asarray(coverage, np.float64)
    n, k = array.shape
    counts = resample_counts(n, strata, draws, seed)
    z = np.stack(
        [signed_rank_z(array[:, a] - array[:, b], counts) for a, b in zip(*pairs(k), strict=True)], axis=-1
    )
    significant = holm(2 * ndtr(-np.abs(z))) < ALPHA
    return {
        "mean_then_rank": counts @ array / n,
        "rank_then_mean": counts @ block_ranks(array) / n,
        "test_then_rank": _beaten(significant, z, k),
    }


def signed_rank_z(differences: ArrayLike, counts: ArrayLike) -> Floats:
    """Standardised sum of signed ranks with Pratt's zeros, for samples in which patients are repeated.

    With the groups of equal absolute differences sorted, a group of c patients that comes after m others has
    the rank m + (c + 1) / 2; z is the sum of the signed ranks of the non-zero differences over the root of
    the sum of their squares (Pratt 1959, doi:10.1080/01621459.1959.10501526).

    Parameters
    ----------
    differences
        Shape (n,).
    counts
        How often each patient is in each sample, shape (draws, n).

    Returns
    -------
    array
        Shape (draws,); NaN where all differences of a sample are zero.
    """
    d = clean_differences(differences)
    order = np.argsort(np.abs(d), kind="stable")
    d, repeated = d[order], np.asarray(counts, np.float64)[:, order]
    starts = np.flatnonzero(np.diff(np.abs(d), prepend=-1.0))
    size = np.add.reduceat(repeated, starts, axis=1)
    balance = np.add.reduceat(repeated * np.sign(d), starts, axis=1)
    ranks = np.cumsum(size, axis=1) - (size - 1) / 2
    variance = (ranks**2 * size) @ (d[starts] != 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((ranks * balance).sum(axis=1) / np.sqrt(variance))


def _beaten(significant: NDArray[np.bool_], direction: Floats, k: int) -> Floats:
    """Return how many models each one beats, shape (..., k), from decisions on pairs, shape (..., pairs)."""
    first, second = (np.equal.outer(models, np.arange(k)).astype(np.float64) for models in pairs(k))
    won, lost = significant & (direction > 0), significant & (direction < 0)
    return np.asarray(won @ first + lost @ second)


def competition_ranks(score: ArrayLike, higher_is_better: bool) -> Ints:
    """Rank scores along the last axis: 1 is the best, equal scores share the best rank among them."""
    array = np.round(np.asarray(score, np.float64), TIE_DECIMALS)
    return np.asarray(rankdata(-array if higher_is_better else array, method="min", axis=-1), np.int64)


def rank_frequencies(ranks: Ints) -> Floats:
    """Return the share of resamples in which model i has rank j + 1, shape (k, k), from ranks (draws, k)."""
    draws, k = ranks.shape
    return np.stack([(ranks == rank).sum(axis=0) for rank in range(1, k + 1)], axis=1) / draws


def rank_interval(ranks: Ints) -> Ints:
    """Return 2.5 %, 50 % and 97.5 % quantile of each model's rank, shape (3, k), from ranks (draws, k).

    Each is a rank that was drawn: the smallest that at least that share of the resamples does not exceed.
    """
    return np.asarray(np.quantile(ranks, [0.025, 0.5, 0.975], axis=0, method="inverted_cdf"), np.int64)


def kendall_tau(ranks: ArrayLike, reference: ArrayLike) -> Floats:
    """Kendall's tau-b of rankings with a reference (Kendall 1945, doi:10.1093/biomet/33.3.239).

    Parameters
    ----------
    ranks
        Shape (..., k).
    reference
        Shape (k,).

    Returns
    -------
    array
        Shape (...), -1 to 1; NaN where one of the two ranks all models alike.
    """
    array, fixed = np.asarray(ranks), np.asarray(reference)
    a, b = pairs(fixed.shape[-1])
    x, y = np.sign(array[..., a] - array[..., b]), np.sign(fixed[a] - fixed[b])
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(axis=-1) / np.sqrt((x != 0).sum(axis=-1) * (y != 0).sum()))
