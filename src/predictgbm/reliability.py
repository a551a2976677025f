"""Whether probabilities are kept: of all voxels to which a map gives 20 %, the recurrence should come to a fifth.

Only maps that are declared probabilities are asked. They are asked within a region around the tumour core, since the
many far voxels that no map calls likely would make every map look calibrated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predictgbm.planning import fill_holes, widened

#: Edges of the bins of predicted probability; narrow at the low end, as most voxels never recur.
EDGES: tuple[float, ...] = (0.0, 0.01, 0.02, 0.05, *(round(0.1 * i, 1) for i in range(1, 11)))

#: Voxels up to this far from the core are asked, in mm: four standard margins, which holds nearly every recurrence but
#: new tumours elsewhere, and leaves out the far half of the brain.
REGION_MM = 60.0

#: So far beyond 0 and 1 a value is one of them, rounded in single precision.
ROUNDING = 1e-5

#: Sums over the voxels of each bin: 1, p, p^2, y, p y; shape (bins, 5).
Sums: TypeAlias = NDArray[np.float64]


class ProbabilityError(ValueError):
    """A map that is declared a probability is none; the message says what it holds."""


def calibration_region(
    core: NDArray[np.bool_], brain: NDArray[np.bool_], spacing: Sequence[float], reach_mm: float = REGION_MM
) -> NDArray[np.bool_]:
    """Return the voxels of the brain, holes filled, up to ``reach_mm`` from the tumour core."""
    return widened(core, fill_holes(brain), spacing, reach_mm)


def bin_sums(probability: ArrayLike, outcome: ArrayLike, edges: Sequence[float] = EDGES) -> Sums:
    """Sum up predictions and outcomes by bins of the predicted probability.

    Sums of several patients may be added; every score below follows from them, the Brier score exactly.

    Parameters
    ----------
    probability : shape (n,), 0 to 1
    outcome : shape (n,), whether it came
    edges : shape (k + 1,), rising from 0 to 1; a bin has its lower edge, the last one both

    Returns
    -------
    float array of shape (k, 5)
        Sums of 1, p, p^2, y and p y.

    Raises
    ------
    ProbabilityError
        If a probability is not between 0 and 1, by more than :data:`ROUNDING`.
    """
    p, y = np.asarray(probability, np.float64).ravel(), np.asarray(outcome, np.float64).ravel()
    if p.size and not (p.min() >= -ROUNDING and p.max() <= 1 + ROUNDING):
        raise ProbabilityError(
            f"probabilities run from {p.min():g} to {p.max():g}, expected 0 to 1; declare the map's output a rank"
        )
    p = np.clip(p, 0.0, 1.0)
    bins = len(edges) - 1
    index = np.minimum(np.searchsorted(edges, p, side="right") - 1, bins - 1)
    terms = (None, p, p * p, y, p * y)
    return np.stack([np.bincount(index, term, bins).astype(np.float64) for term in terms], axis=1)


def brier_score(sums: Sums) -> float:
    """Return the mean squared difference of probability and outcome, 0 to 1; NaN without voxels.

    Brier GW. Verification of forecasts expressed in terms of probability. Mon Weather Rev 78:1-3, 1950.
    """
    n, _, pp, y, py = sums.sum(axis=0)
    return float((pp - 2 * py + y) / n) if n else math.nan


def brier_parts(sums: Sums) -> dict[str, float]:
    """Split the Brier score: ``brier = reliability - resolution + uncertainty + within``.

    ``reliability`` is how far the frequencies lie from the probabilities, 0 if calibrated; ``resolution`` how far the
    frequencies of the bins lie from the prevalence; ``uncertainty`` is the Brier score of the prevalence itself, told
    for every voxel (Murphy 1973, doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2). ``within`` is what bins of some
    width add: variance of the probabilities in a bin, less twice their covariance with the outcome (Stephenson et al.
    2008, doi:10.1175/2007WAF2006116.1).
    """
    used = sums[sums[:, 0] > 0]
    n, p, pp, y, py = used.T
    if not used.size:
        return dict.fromkeys(("reliability", "resolution", "uncertainty", "within"), math.nan)
    total, prevalence = n.sum(), y.sum() / n.sum()
    return {
        "reliability": float(((p - y) ** 2 / n).sum() / total),
        "resolution": float((n * (y / n - prevalence) ** 2).sum() / total),
        "uncertainty": float(prevalence * (1 - prevalence)),
        "within": float(((pp - p * p / n) - 2 * (py - p * y / n)).sum() / total),
    }


def expected_calibration_error(sums: Sums) -> float:
    """Return the mean distance of frequency and mean probability over the bins, by their voxels; NaN without voxels.

    Naeini MP, Cooper GF, Hauskrecht M. Obtaining well calibrated probabilities using Bayesian binning. AAAI 2015.
    """
    n, p, _, y, _ = sums.T
    return float(np.abs(p - y).sum() / n.sum()) if n.sum() else math.nan


def scores(sums: Sums) -> dict[str, float]:
    """Return prevalence, mean probability, Brier score, its parts, skill and expected calibration error.

    ``skill`` is 1 - brier / uncertainty: 0 for who tells the prevalence everywhere, 1 for who knows.
    """
    brier, parts = brier_score(sums), brier_parts(sums)
    n, p, _, y, _ = sums.sum(axis=0)
    return {
        "prevalence": float(y / n) if n else math.nan,
        "probability": float(p / n) if n else math.nan,
        "brier": brier,
        **parts,
        "skill": 1 - brier / parts["uncertainty"] if parts["uncertainty"] > 0 else math.nan,
        "ece": expected_calibration_error(sums),
    }
