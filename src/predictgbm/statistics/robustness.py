"""How far a paired comparison holds: equivalence, data sets, many models at once, and what could be found.

As in :mod:`predictgbm.statistics.paired`, a difference is one patient's coverage by a model minus the coverage
by the reference, -1 to 1, and exact zeros are frequent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logit, ndtri, stdtr, stdtrit

from predictgbm.statistics.paired import (
    ALPHA,
    Floats,
    clean_differences,
    drawn_signs,
    signed_rank_p,
    signed_ranks,
)

#: Power at which a difference counts as detectable.
POWER = 0.8

#: Cohorts drawn by :func:`minimum_difference`.
SIMULATIONS = 2000

#: Most non-zero differences of a simulated cohort for an exact critical value; beyond, the normal approximation
#: keeps the level.
EXACT_CRITICAL = 12

#: How :func:`mixed_model` came to its result.
RANDOM_EFFECT = "data set as random effect"
ONE_DATASET = "mean of the differences: there is one data set"
NO_VARIANCE = "mean of the differences: data sets differ no more than patients"
NO_SPREAD_WITHIN = "mean of the differences: no data set has a spread of its own"
NO_SPREAD = "mean of the differences: all are the same"
FITS = (RANDOM_EFFECT, ONE_DATASET, NO_VARIANCE, NO_SPREAD_WITHIN, NO_SPREAD)


class Equivalence(NamedTuple):
    """p-values of two one-sided tests against the ends of the range of equivalence."""

    #: Of the hypothesis that the model is worse by the bound or more.
    noninferiority: float
    #: Of the hypothesis that it is better by the bound or more.
    nonsuperiority: float

    @property
    def equivalence(self) -> float:
        """p-value of equivalence: the larger of both."""
        return max(self)


class MixedModel(NamedTuple):
    """Mean gain with a 95 % interval and p-value, standard deviations, and what was fitted."""

    estimate: float
    low: float
    high: float
    p: float
    sd_between: float
    sd_within: float
    fit: str


class Detectable(NamedTuple):
    """Mean gain that would be detected, and the Monte-Carlo standard error of that figure."""

    gain: float
    error: float


def equivalence_by_ranks(differences: ArrayLike, bound: float) -> Equivalence:
    """Test whether the shift lies within ``-bound`` to ``bound`` by two one-sided signed-rank tests.

    Schuirmann's two one-sided tests (1987, doi:10.1007/BF01068419) with exact signed-rank tests of the
    differences moved by the bound, zeros after the move by Pratt (Wellek 2010, Testing Statistical Hypotheses of
    Equivalence and Noninferiority, 2nd ed., sect. 5.4, doi:10.1201/EBK1439808184). What is tested is the centre
    that the signed-rank test sees, the pseudo-median, not the mean: a few large differences among many zeros do
    not count by their size.

    Parameters
    ----------
    differences
        Shape (n,).
    bound
        Largest shift that does not matter, above 0.
    """
    array = clean_differences(differences)
    # All on the bound itself: nothing speaks against the hypothesis.
    return Equivalence(
        *(
            1.0 if np.isnan(p) else p
            for p in (
                signed_rank_p(array + bound, alternative="greater"),
                signed_rank_p(array - bound, alternative="less"),
            )
        )
    )


def equivalence_by_t(differences: ArrayLike, bound: float) -> Equivalence:
    """Test whether the mean lies within ``-bound`` to ``bound`` by two one-sided t-tests; NaN without spread.

    Schuirmann 1987, doi:10.1007/BF01068419. Holds for means of many patients; differences of coverage are bounded
    and skew, so that in small cohorts :func:`equivalence_by_ranks` is the better guide.

    Parameters
    ----------
    differences
        Shape (n,).
    bound
        Largest mean difference that does not matter, above 0.
    """
    array = clean_differences(differences)
    n = array.size
    if n < 2 or np.ptp(array) == 0:
        return Equivalence(float("nan"), float("nan"))
    error = array.std(ddof=1) / np.sqrt(n)
    above, below = (array.mean() + bound) / error, (array.mean() - bound) / error
    return Equivalence(float(stdtr(n - 1, -above)), float(stdtr(n - 1, below)))


def mixed_model(differences: ArrayLike, dataset: ArrayLike) -> MixedModel:
    """Estimate the mean difference with the data set as random effect.

    Patient i of data set g gains d_ig = gain + u_g + e_ig. In a difference the random effect of the patient
    cancels; each model has a variance of its own; and u_g is the model's effect in one data set beyond that in
    the others, which a random effect of the data set on coverage alone would not hold. Variances by REML
    (Patterson and Thompson 1971, doi:10.1093/biomet/58.3.545); the gain by generalised least squares; interval
    and p-value by Student's t with one degree of freedom less than there are data sets, exact where these are of
    one size. The normal distribution would call far too much significant with three data sets.

    Where there is no variance between data sets to estimate, the mean of the differences is given with Student's
    t of n - 1 degrees of freedom instead; ``fit`` says so.

    Parameters
    ----------
    differences
        Shape (n,), n at least 2.
    dataset
        Shape (n,), name or number of the data set of each patient.
    """
    array = clean_differences(differences)
    groups = np.unique(np.asarray(dataset), return_inverse=True)[1].ravel()
    sizes = np.bincount(groups)
    means = np.bincount(groups, array) / sizes
    within = float(((array - means[groups]) ** 2).sum())
    if np.ptp(array) == 0:
        nan = float("nan")
        return MixedModel(float(array[0]), nan, nan, nan, nan, 0.0, NO_SPREAD)
    if sizes.size < 2:
        return _mean_model(array, ONE_DATASET)
    if within < 1e-12:
        return _mean_model(array, NO_SPREAD_WITHIN)
    ratio = _variance_ratio(means, sizes, within)
    if ratio == 0:
        return _mean_model(array, NO_VARIANCE)
    estimate, weight, rest = _weighted_mean(means, sizes, ratio)
    residual = float(np.sqrt((within + rest) / (array.size - 1)))
    limits = _student(estimate, residual / float(np.sqrt(weight)), sizes.size - 1)
    return MixedModel(estimate, *limits, residual * float(np.sqrt(ratio)), residual, RANDOM_EFFECT)


def _weighted_mean(means: Floats, sizes: NDArray[np.intp], ratio: float) -> tuple[float, float, float]:
    """Return the mean over data sets, the sum of their weights, and the weighted squares around the mean.

    ``ratio`` is the variance between data sets over that within.
    """
    weights = sizes / (1 + sizes * ratio)
    mean = float((weights * means).sum() / weights.sum())
    return mean, float(weights.sum()), float((weights * (means - mean) ** 2).sum())


def _variance_ratio(means: Floats, sizes: NDArray[np.intp], within: float) -> float:
    """Return the variance between data sets over that within, by REML; 0 where the likelihood falls from there.

    The residual variance is profiled out, which leaves one number to search for. General solvers of mixed
    models fail to converge in about every second case without variance between data sets.
    """
    degrees = float(sizes.sum() - 1)

    def deviance(part: float) -> float:
        ratio = part / (1 - part)
        _, weight, rest = _weighted_mean(means, sizes, ratio)
        return float(degrees * np.log(within + rest) + np.log1p(sizes * ratio).sum() + np.log(weight))

    found = minimize_scalar(deviance, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-12})
    return float(found.x / (1 - found.x)) if found.fun < deviance(0.0) else 0.0


def _mean_model(array: Floats, fit: str) -> MixedModel:
    spread = float(array.std(ddof=1))
    estimate = float(array.mean())
    limits = _student(estimate, spread / float(np.sqrt(array.size)), array.size - 1)
    return MixedModel(estimate, *limits, 0.0 if fit == NO_VARIANCE else float("nan"), spread, fit)


def _student(estimate: float, error: float, degrees: int) -> tuple[float, float, float]:
    """Return the ends of the 95 % interval and the two-sided p-value by Student's t."""
    half = float(stdtrit(degrees, 1 - ALPHA / 2)) * error
    return estimate - half, estimate + half, float(2 * stdtr(degrees, -abs(estimate) / error))


def step_down_max_t(differences: ArrayLike, draws: int = 10_000, seed: int = 0) -> Floats:
    """Adjust the signed-rank tests of several models by the distribution of their largest statistic.

    All differences of a patient change sign together, so that the dependence between models stays as it is;
    Holm's rule has to allow for the worst. The statistic is abs(sum of Pratt's signed ranks) over its standard
    deviation under sign changes. Step-down as in Westfall and Young 1993, Resampling-Based Multiple Testing,
    algorithm 2.8; Romano and Wolf 2005, doi:10.1198/016214504000000539. All changes of sign are counted where
    ``draws`` allow it; beyond, p is ``(1 + extreme) / (1 + draws)``.

    Parameters
    ----------
    differences
        Shape (n, k), a column per test; NaN where a patient is not in it.
    draws, seed
        Largest number of changes of sign, and the seed of those that are drawn.

    Returns
    -------
    array
        Adjusted p-values, shape (k,); NaN for a column without a non-zero difference.
    """
    table = np.asarray(differences, np.float64)
    scores = np.zeros(table.shape)
    for column, values in zip(scores.T, table.T, strict=True):
        present = np.flatnonzero(~np.isnan(values))
        present = present[clean_differences(values[present]) != 0]
        column[present] = signed_ranks(values[~np.isnan(values)])
    norm = np.sqrt((scores**2).sum(axis=0))
    tested = np.flatnonzero(norm)
    adjusted = np.full(table.shape[1], np.nan)
    if not tested.size:
        return adjusted
    scores = (scores / np.where(norm > 0, norm, 1))[:, tested]
    scores = scores[scores.any(axis=1)]
    observed = np.abs(scores.sum(axis=0))
    order = np.argsort(-observed, kind="stable")
    scores, observed = scores[:, order], observed[order]

    count_all = 2.0 ** len(scores) <= draws
    extreme = np.zeros(tested.size)
    for signs in _all_signs(len(scores)) if count_all else drawn_signs(len(scores), draws, seed):
        statistic = np.abs(signs @ scores)
        largest = np.maximum.accumulate(statistic[:, ::-1], axis=1)[:, ::-1]
        extreme += (largest >= observed - 1e-9).sum(axis=0)
    p = extreme / 2.0 ** len(scores) if count_all else (1 + extreme) / (1 + draws)
    adjusted[tested[order]] = np.maximum.accumulate(p)
    return adjusted


def _all_signs(n: int) -> Iterator[Floats]:
    """Yield one block of all 2^n rows of n signs."""
    yield np.asarray(1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1), np.float64)


def minimum_difference(
    differences: ArrayLike,
    alpha: float = ALPHA,
    power: float = POWER,
    draws: int = SIMULATIONS,
    seed: int = 0,
) -> Detectable:
    """Return the mean gain that the signed-rank test of as many patients would detect with the given power.

    A cohort is drawn from the observed patients, with replacement. Each keeps the size of its difference; its
    direction is an improvement with probability 1 / (1 + exp(-2 tilt size)). This is the null distribution of
    sign changes, tilted exponentially. It keeps the zeros and, as a change of sign exchanges model and
    reference, every coverage within 0 to 1; a plain shift does neither. The mean gain is that of size *
    tanh(tilt size), and the largest possible one that of the sizes.

    With one uniform number per patient, each simulated cohort rejects from a tilt of its own upwards, so that the
    wanted tilt is a quantile of these and needs no search. The test is two-sided, and only rejections in favour
    of the gain count. Its critical value is exact up to
    :data:`EXACT_CRITICAL` patients that differ and normal beyond.

    Parameters
    ----------
    differences
        Shape (n,).
    alpha, power
        Level of the two-sided test, and the probability of detection; between 0 and 1.
    draws, seed
        Number of simulated cohorts, and the seed of their generator.

    Returns
    -------
    Detectable
        In the unit of the differences; NaN where even improvement of every patient that differs would be
        detected too rarely. The error is half the distance between the gains whose simulated power is one
        standard error below and above the wanted one.
    """
    sizes = np.abs(clean_differences(differences))
    tilts = np.sort(rejection_tilts(sizes, alpha, draws, seed))
    margin = np.sqrt(draws * power * (1 - power))
    places = np.ceil(power * draws + margin * np.array([-1, 0, 1])).astype(int) - 1
    low, tilt, high = tilts[np.clip(places, 0, draws - 1)].tolist()
    if not np.isfinite(tilt):
        return Detectable(float("nan"), float("nan"))
    changed = sizes[sizes > 0]
    low, gain, high = (float((changed * np.tanh(t * changed)).sum()) / sizes.size for t in (low, tilt, high))
    return Detectable(gain, (high - low) / 2)


def rejection_tilts(sizes: ArrayLike, alpha: float, draws: int, seed: int) -> Floats:
    """Return, for each simulated cohort, the least tilt at which it rejects in favour of a gain.

    See :func:`minimum_difference`. The part of the tilts below 0 is the probability of such a rejection where there
    is no difference, which should be alpha / 2.

    Parameters
    ----------
    sizes
        Absolute differences, shape (n,).
    alpha
        Level of the two-sided test.
    draws, seed
        Number of cohorts, and the seed.

    Returns
    -------
    array
        Shape (draws,); infinite where no tilt suffices.
    """
    values, kinds = np.unique(np.asarray(sizes, np.float64), return_inverse=True)
    generator = np.random.default_rng(seed)
    drawn = kinds.ravel()[generator.integers(0, kinds.size, (draws, kinds.size))]
    uniform = generator.random(drawn.shape)

    # Midranks of a cohort follow from how often each size occurs in it.
    rows = np.arange(draws)[:, None]
    counts = np.bincount((rows * values.size + drawn).ravel(), minlength=draws * values.size)
    counts = counts.reshape(draws, values.size)
    ranks = (np.cumsum(counts, axis=1) - (counts - 1) / 2)[rows, drawn]
    ranks[values[drawn] == 0] = 0.0

    # The patient improves where uniform < 1 / (1 + exp(-2 tilt size)), that is, above this tilt.
    own = logit(uniform) / (2 * np.where(values > 0, values, 1))[drawn]
    order = np.argsort(own, axis=1)
    needed = (ranks.sum(axis=1) + _critical_values(ranks, alpha)) / 2
    improved = np.cumsum(np.take_along_axis(ranks, order, axis=1), axis=1)
    enough = improved >= needed[:, None] - 1e-9
    tilts = np.take_along_axis(own, order, axis=1)[rows.ravel(), enough.argmax(axis=1)]
    return np.where(enough.any(axis=1), tilts, np.inf)


def _critical_values(ranks: Floats, alpha: float) -> Floats:
    """Return from which signed-rank sum on the two-sided test rejects, for each row of absolute ranks."""
    critical = -float(ndtri(alpha / 2)) * np.sqrt((ranks**2).sum(axis=1))
    few = np.flatnonzero((ranks > 0).sum(axis=1) <= EXACT_CRITICAL)
    largest_first = -np.sort(-ranks[few], axis=1)[:, :EXACT_CRITICAL]
    for part in np.array_split(np.arange(few.size), few.size // 200 + 1):
        critical[few[part]] = _exact_critical_values(largest_first[part], alpha)
    return critical


def _exact_critical_values(ranks: Floats, alpha: float) -> Floats:
    """Do so by the null distribution of each row, see :func:`paired.positive_rank_distribution`."""
    halves = np.rint(2 * ranks).astype(np.intp)
    sums = np.arange(halves.sum(axis=1).max(initial=0) + 1)
    probability = np.zeros((len(ranks), sums.size))
    probability[:, 0] = 1.0
    for step in halves.T:
        before = sums - step[:, None]
        moved = np.take_along_axis(probability, np.maximum(before, 0), axis=1) * (before >= 0)
        probability = (probability + moved) / 2
    allowed = (np.cumsum(probability, axis=1) <= alpha / 2 * (1 + 1e-12)).sum(axis=1)
    return np.where(allowed > 0, ranks.sum(axis=1) - (allowed - 1), np.inf)
