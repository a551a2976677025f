"""Plans with a guarantee: the volume that covers enough of the recurrence in enough patients, by split conformal.

The volume that a patient's plan would have needed is known once the recurrence has come. Of n such volumes and that of
a new patient, all orders are equally likely if the patients are exchangeable; the ceil((n + 1) q)-th smallest is
therefore enough for the new one with probability q at least, and below q + 1 / (n + 1) if no two are equal, whatever
the model and the distribution: Vovk V, Gammerman A, Shafer G. Algorithmic Learning in a Random World. Springer 2005,
doi:10.1007/b106715; Lei J, et al. Distribution-free predictive inference for regression. J Am Stat Assoc
113:1094-1111, 2018, doi:10.1080/01621459.2017.1307116.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

#: Part of the recurrence that is to be covered, and part of the patients in whom.
COVERAGE = 0.9
LEVEL = 0.9


def conformal_bound(values: ArrayLike, level: float = LEVEL) -> float:
    """Return the value that a new one stays at or below with the given probability.

    Parameters
    ----------
    values
        Shape (n,); infinite where no value is enough.
    level
        Probability, above 0 and below 1.

    Returns
    -------
    float
        The ceil((n + 1) level)-th smallest value; infinite where that is one of the infinite ones, or n is too small.

    Raises
    ------
    ValueError
        If a value is NaN or ``level`` is out of its range.
    """
    array = np.sort(np.asarray(values, np.float64).ravel())
    if np.isnan(array).any():
        raise ValueError("values must not be NaN; give infinity where nothing is enough")
    if not 0 < level < 1:
        raise ValueError(f"a probability of {level:g} is not between 0 and 1")
    # Rounded, as 10 x 0.9 must not become 9.000000000000002.
    rank = math.ceil(round((array.size + 1) * level, 9))
    return float(array[rank - 1]) if rank <= array.size else math.inf


def leave_one_out_rate(values: ArrayLike, level: float = LEVEL) -> float:
    """Return the share of values that stay at or below the bound made of all others; NaN for fewer than two values.

    It tells how the guarantee was kept in the patients at hand. A value for which nothing is enough is never covered,
    not even by an infinite bound.
    """
    array = np.asarray(values, np.float64).ravel()
    if array.size < 2:
        return math.nan
    kept = [value <= conformal_bound(np.delete(array, i), level) for i, value in enumerate(array)]
    return float(np.mean(np.array(kept) & np.isfinite(array)))


def volumes_to_cover(curves: pd.DataFrame, coverage: float = COVERAGE) -> pd.Series:
    """Return for each model and patient the least volume of its curve that covers enough of the recurrence.

    A point of the curve, not a value between two: only there the coverage is known.

    Parameters
    ----------
    curves
        Table ``curves``.
    coverage
        Part of the recurrence that is to be covered.

    Returns
    -------
    Series
        Planned volume over that of the standard plan, indexed by model and patient; infinite where none is enough.
    """
    volume = curves["fraction"].where(curves["coverage_enhancing"] >= coverage - 1e-12, math.inf)
    return volume.astype("float64").groupby([curves["model"], curves["patient"]]).min()


def guarantee_rows(
    curves: pd.DataFrame,
    not_asked: Collection[tuple[str, str]] = (),
    coverage: float = COVERAGE,
    level: float = LEVEL,
) -> list[dict[str, Any]]:
    """Compute the rows of table ``guarantee``: one per model, all patients together.

    A patient of whom some model has a curve and this one has none counts as infinite: the model failed, and covers
    nothing at any volume.

    Parameters
    ----------
    curves
        Table ``curves``.
    not_asked
        Pairs of patient and model without an input that the model needs: it is none for such patients.
    coverage
        Part of the recurrence that is to be covered, above 0 and up to 1.
    level
        Part of the patients in whom, above 0 and below 1.
    """
    found = volumes_to_cover(curves, coverage)
    patients = curves["patient"].unique().tolist()
    rows = []
    for model in curves["model"].unique().tolist():
        asked = [patient for patient in patients if (patient, model) not in not_asked]
        own = found[model].reindex(asked)
        volumes = own.fillna(math.inf).to_numpy()
        bound = conformal_bound(volumes, level)
        rows.append(
            {
                "model": model,
                "n": volumes.size,
                "n_missing": int(own.isna().sum()),
                "n_reached": int(np.isfinite(volumes).sum()),
                "coverage": coverage,
                "level": level,
                "fraction": bound if np.isfinite(bound) else None,
                "kept": leave_one_out_rate(volumes, level),
            }
        )
    return rows
