"""Paired comparison of two models: differences in, p-values, effects and intervals out.

Everywhere a difference is one patient's coverage by a model minus the coverage by the reference. Coverage is
a ratio of voxel counts, so zeros and ties are frequent; they are treated exactly, not as a nuisance of
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr

#: Differences that agree to this many decimals are ties; floating-point noise of a subtraction is far below.
TIE_DECIMALS = 12

#: Largest number of patients for which the null distribution of the signed ranks is computed exactly.
EXACT_RANKS = 500

#: Largest number of non-zero differences for which all sign flips are counted instead of drawn.
EXACT_FLIPS = 32

#: Largest number of patients for which all permutations of a rank correlation are counted.
EXACT_PERMUTATIONS = 8

#: Level of every test that is called significant.
ALPHA = 0.05

#: With fewer patients there are neither tests nor intervals: a two-sided exact p-value cannot fall below 0.125.
MINIMUM_PATIENTS = 5

Floats = NDArray[np.float64]


class Shift(NamedTuple):
    """Hodges-Lehmann shift with its confidence interval; NaN where there is none."""

    estimate: float
    low: float
    high: float


def clean_differences(differences: ArrayLike) -> Floats:
    """Return differences as a flat array, with those that agree to :data:`TIE_DECIMALS` made equal."""
    array = np.asarray(differences, np.float64).ravel()
    if not np.isfinite(array).all():
        raise ValueError("differences must be finite; leave out patients without both values")
    return np.round(array, TIE_DECIMALS) + 0.0


def count_zeros_and_ties(differences: ArrayLike) -> tuple[int, int]:
    """Return how many differences are zero, and how many others share their absolute value."""
    sizes = np.abs(clean_differences(differences))
    _, counts = np.unique(sizes[sizes > 0], return_counts=True)
    return int((sizes == 0).sum()), int(counts[counts > 1].sum())


def midranks(values: ArrayLike) -> Floats:
    """Rank from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse.ravel()]


def signed_ranks(differences: ArrayLike, zeros: Literal["pratt", "wilcoxon"] = "pratt") -> Floats:
    """Return the signed ranks of the non-zero differences.

    Parameters
    ----------
    differences
        Shape (n,).
    zeros
        ``pratt``: zeros take part in the ranking and are then left out (Pratt 1959,
        doi:10.1080/01621459.1959.10501526). ``wilcoxon``: zeros are left out first, so that the others' ranks
        start at 1.
    """
    array = clean_differences(differences)
    if zeros == "wilcoxon":
        array = array[array != 0]
    ranks = np.sign(array) * midranks(np.abs(array))
    return ranks[array != 0]


def positive_rank_distribution(ranks: ArrayLike) -> tuple[Floats, float]:
    """Return the exact null distribution of the sum of positive ranks, given the absolute ranks.

    Under the null hypothesis every rank is positive with probability 1/2, independently; ties and the gaps
    that Pratt's zeros leave are simply other ranks. The distribution is built by adding one rank at a time.

    Parameters
    ----------
    ranks
        Positive multiples of 1/2, shape (n,).

    Returns
    -------
    probability : array
        Probability of the sums 0, unit, 2 unit, ... up to the sum of all ranks.
    unit : float
        Greatest common divisor of the ranks.
    """
    halves = np.sort(np.rint(2 * np.asarray(ranks, np.float64)).astype(np.int64))
    divisor = max(int(np.gcd.reduce(halves)), 1)
    probability = np.ones(1)
    for step in (halves // divisor).tolist():
        longer = np.zeros(probability.size + step)
        longer[: probability.size] = probability / 2
        longer[step:] += probability / 2
        probability = longer
    return probability, divisor / 2


def signed_rank_p(
    differences: ArrayLike,
    zeros: Literal["pratt", "wilcoxon"] = "pratt",
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> float:
    """p-value of the Wilcoxon signed-rank test; NaN if all differences are zero.

    Exact, conditional on the absolute differences, up to :data:`EXACT_RANKS` non-zero differences whether or
    not there are zeros and ties. Beyond, the normal approximation with the variance of the same conditional
    distribution, sum(ranks^2) / 4, which equals the usual formula with corrections for ties and zeros; no
    continuity correction.

    Parameters
    ----------
    differences
        Shape (n,).
    zeros
        See :func:`signed_ranks`.
    alternative
        What the differences are said to be: ``greater`` or ``less`` than zero, or either (``two-sided``).
    """
    ranks = signed_ranks(differences, zeros)
    if not ranks.size:
        return float("nan")
    positive, negative = float(ranks[ranks > 0].sum()), float(-ranks[ranks < 0].sum())
    contrary = {"greater": negative, "less": positive, "two-sided": min(positive, negative)}[alternative]
    sides = 2 if alternative == "two-sided" else 1
    if ranks.size > EXACT_RANKS:
        return float(min(1.0, sides * ndtr((2 * contrary - positive - negative) / np.sqrt((ranks**2).sum()))))
    probability, unit = positive_rank_distribution(np.abs(ranks))
    return float(min(1.0, sides * probability[: round(contrary / unit) + 1].sum()))


def direction(differences: ArrayLike) -> int:
    """Return the sign of the sum of signed ranks, -1, 0 or 1; 0 if all differences are zero."""
    return int(np.sign(signed_ranks(differences).sum()))


def verdict(differences: ArrayLike) -> int:
    """Return the direction where the signed-rank test is significant at :data:`ALPHA`, else 0."""
    return direction(differences) if signed_rank_p(differences) < ALPHA else 0


def sign_flip_p(differences: ArrayLike, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the mean difference under random changes of sign; NaN if all differences are zero.

    Exact up to :data:`EXACT_FLIPS` non-zero differences. Beyond, ``(1 + extreme) / (1 + draws)`` with drawn
    flips (Phipson and Smyth 2010, doi:10.2202/1544-6115.1585), which cannot fall below ``1 / (1 + draws)``.
    """
    array = clean_differences(differences)
    array = array[array != 0]
    if not array.size:
        return float("nan")
    # Sums of the same numbers in another order differ by rounding; what is this close is as extreme.
    observed = abs(array.sum()) - 1e-12 * np.abs(array).sum()
    if array.size <= EXACT_FLIPS:
        if observed <= 0:
            return 1.0
        half = array.size // 2
        first, second = _signed_sums(array[:half]), np.sort(_signed_sums(array[half:]))
        upper_tail = int((second.size - np.searchsorted(second, observed - first)).sum())
        return float(min(1.0, 2 * upper_tail / 2.0**array.size))
    extreme = sum(
        int((np.abs(signs @ array) >= observed).sum()) for signs in drawn_signs(array.size, draws, seed)
    )
    return (1 + extreme) / (1 + draws)


def drawn_signs(n: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yield blocks of rows of n random signs, ``draws`` in all; the blocks bound the memory."""
    generator = np.random.default_rng(seed)
    for start in range(0, draws, 2000):
        size = (min(2000, draws - start), n)
        yield np.asarray(generator.integers(0, 2, size, dtype=np.int8) * 2.0 - 1.0, np.float64)


def _signed_sums(values: Floats) -> Floats:
    """Return the sums of ``values`` under each of the 2^n choices of signs."""
    sums = np.zeros(1)
    for value in values.tolist():
        sums = np.concatenate([sums - value, sums + value])
    return sums


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation, (R+ - R-) / (R+ + R-) with Pratt's ranks; NaN if all are zero.

    The effect that belongs to the signed-rank test (Kerby 2014, doi:10.2466/11.IT.3.1): 1 if no difference is
    negative, -1 if none is positive. Zeros count on neither side, so it says nothing about how many there
    are.
    """
    ranks = signed_ranks(differences)
    return float(ranks.sum() / np.abs(ranks).sum()) if ranks.size else float("nan")


def hodges_lehmann(differences: ArrayLike, level: float = 0.95) -> Shift:
    """Estimate the shift of symmetrically distributed differences, with a confidence interval.

    The estimate is the median of the Walsh averages (d_i + d_j) / 2, i <= j (Hodges and Lehmann 1963,
    doi:10.1214/aoms/1177704172). The interval holds the shifts that the signed-rank test does not reject: it
    runs between two order statistics of the Walsh averages, taken from the null distribution without ties
    (exact up to :data:`EXACT_RANKS`, normal beyond). With ties and zeros the closed interval covers at least
    as often as it says (Noether 1967, doi:10.1080/01621459.1967.10482899). Zeros stay in as the differences
    they are; the Pratt test leaves them out after ranking, so with many zeros the test can reject while the
    interval still touches zero.

    Parameters
    ----------
    differences
        Shape (n,).
    level
        Confidence, between 0 and 1.

    Returns
    -------
    Shift
        In the unit of the differences. The ends are NaN where n is too small for the level (n < 6 at 95 %).
    """
    array = clean_differences(differences)
    n = array.size
    if not n:
        return Shift(float("nan"), float("nan"), float("nan"))
    first, second = np.triu_indices(n)
    walsh = np.sort((array[first] + array[second]) / 2)
    rank = _lower_rank(n, 1 - level)
    if rank == 0:
        return Shift(float(np.median(walsh)), float("nan"), float("nan"))
    return Shift(float(np.median(walsh)), float(walsh[rank - 1]), float(walsh[walsh.size - rank]))


def compare(differences: ArrayLike) -> dict[str, float]:
    """Return what a table tells of the paired differences of two models, as far as there are enough of them.

    Returns
    -------
    dict
        ``shift`` of one difference or more; ``shift_low``, ``shift_high``, ``rank_biserial`` and ``p_pratt`` of
        :data:`MINIMUM_PATIENTS` or more that are not all zero.
    """
    values = clean_differences(differences)
    if not values.size:
        return {}
    shift = hodges_lehmann(differences)
    if values.size < MINIMUM_PATIENTS or not values.any():
        return {"shift": shift.estimate}
    return {
        "shift": shift.estimate,
        "shift_low": shift.low,
        "shift_high": shift.high,
        "rank_biserial": rank_biserial(differences),
        "p_pratt": signed_rank_p(differences, "pratt"),
    }


@lru_cache(maxsize=1024)
def _lower_rank(n: int, alpha: float) -> int:
    """Return which Walsh average, counted from 1, is the lower end of the interval; 0 if there is none."""
    if n > EXACT_RANKS:
        ranks = np.arange(1.0, n + 1)
        return max(int(np.floor(ranks.sum() / 2 + ndtri(alpha / 2) * np.sqrt((ranks**2).sum()) / 2)), 0)
    probability, _ = positive_rank_distribution(np.arange(1, n + 1))
    return int(np.searchsorted(np.cumsum(probability), alpha / 2, side="right"))


def holm(p: ArrayLike) -> Floats:
    """Adjust p-values by Holm's step-down rule (Holm 1979, Scand J Stat 6:65), families along the last axis.

    NaN stays NaN but counts: a declared test that could not be made still takes its share of the error rate.
    """
    array = np.asarray(p, np.float64)
    order = np.argsort(array, axis=-1, kind="stable")  # NaN last
    stepwise = np.take_along_axis(array, order, -1) * np.arange(array.shape[-1], 0, -1)
    adjusted = np.empty_like(array)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepwise, axis=-1), 1.0), -1)
    return adjusted


def spearman(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Spearman's rank correlation and its two-sided p-value; NaN if a variable is constant or n < 3.

    The p-value counts all permutations up to :data:`EXACT_PERMUTATIONS` pairs; beyond, Student's t with n - 2
    degrees of freedom.
    """
    a, b = (midranks(np.round(np.asarray(v, np.float64), TIE_DECIMALS)) for v in (x, y))
    n = a.size
    if n != b.size:
        raise ValueError(f"variables of {n} and {b.size} values cannot be correlated")
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum()) if n >= 3 else 0.0
    if scale == 0:
        return float("nan"), float("nan")
    rho = float(np.clip((a * b).sum() / scale, -1, 1))
    if n <= EXACT_PERMUTATIONS:
        all_rho = b[np.array(list(permutations(range(n))))] @ a / scale
        return rho, float((np.abs(all_rho) >= abs(rho) - 1e-12).mean())
    if abs(rho) == 1:
        # Of all orders, this one and its reverse.
        return rho, 2.0 / math.factorial(n)
    t = rho * np.sqrt((n - 2) / (1 - rho**2))
    return rho, float(2 * stdtr(n - 2, -abs(t)))
