"""Comparison and ranking of all models together, in panels of models that the same patients can have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from predictgbm.failures import KINDS
from predictgbm.statistics.multiple import Pairwise, cliques, friedman, pairs, pairwise
from predictgbm.statistics.paired import MINIMUM_PATIENTS, count_zeros_and_ties, hodges_lehmann, rank_biserial
from predictgbm.statistics.ranking import (
    METHODS,
    bootstrap_scores,
    competition_ranks,
    kendall_tau,
    rank_frequencies,
    rank_interval,
    scores,
)
from predictgbm.tables import PANELS, round_digits

#: A model with a coverage for at least this share of the patients has nearly all of them.
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Panel:
    """Models that are ranked against each other, and the patients on whom they are."""

    name: str
    patients: pd.Index
    models: list[str]


@dataclass(frozen=True)
class Bootstrap:
    """Stratum of each patient, shape (n,), number of resamples, and their seed."""

    strata: NDArray[np.str_]
    draws: int
    seed: int


@dataclass
class Ranking:
    """Rows of the tables ``pairwise``, ``rankings`` and ``rank_frequencies``, facts by panel, and remarks."""

    pairwise: list[dict[str, Any]] = field(default_factory=list)
    rankings: list[dict[str, Any]] = field(default_factory=list)
    rank_frequencies: list[dict[str, Any]] = field(default_factory=list)
    panels: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def by_model(table: pd.DataFrame, column: str, models: list[str] | None = None) -> pd.DataFrame:
    """Return patients x models of one column as float64; patients without any value are left out.

    Parameters
    ----------
    table
        With columns ``patient``, ``model`` and the named one.
    column
    models
        Columns of the result; default those that there are, in the order of their names.
    """
    wide = table.pivot(index="patient", columns="model", values=column)
    return wide.reindex(columns=models).astype("float64").dropna(how="all").sort_index()


def find_panels(
    coverage: pd.DataFrame, failed: Mapping[tuple[str, str], str] | None = None
) -> tuple[list[Panel], list[str]]:
    """Say which models are ranked on which patients.

    Models with a coverage for at least :data:`NEARLY_ALL` of the patients form the panel ``all_patients``.
    If there are others, such as a model that needs an image which only some exams have, all models together
    form the panel ``subset``, on the patients for whom every one of those others has a coverage. A model
    with fewer than :data:`~predictgbm.statistics.paired.MINIMUM_PATIENTS` patients is in no panel, nor is there
    a panel of fewer patients or of a single model.

    Parameters
    ----------
    coverage
        Patients x models; NaN where a model has no output. Every patient has one of some model.
    failed
        Patient and model -> why there is no output (:data:`predictgbm.failures.KINDS`), where that is known.

    Returns
    -------
    panels, remarks
    """
    outputs = coverage.notna().sum()
    ranked = outputs[outputs >= MINIMUM_PATIENTS].index.tolist()
    partial = [model for model in ranked if outputs[model] < NEARLY_ALL * len(coverage)]
    complete = [model for model in ranked if model not in partial]
    notes = [
        f"In no ranking, output for fewer than {MINIMUM_PATIENTS} patients: {model} ({outputs[model]})."
        for model in coverage.columns
        if model not in ranked and len(coverage) >= MINIMUM_PATIENTS
    ]
    shared = coverage.index[coverage[partial].notna().all(axis=1)]
    everyone, subset = PANELS
    panels = [Panel(everyone, coverage.index, complete)]
    if partial:
        said = ", ".join(f"{model} ({outputs[model]} of {len(coverage)})" for model in partial)
        if len(shared) >= MINIMUM_PATIENTS:
            panels.append(Panel(subset, shared, ranked))
            notes.append(f"Ranked only on the {len(shared)} patients whom they have: {said}.")
        else:
            notes.append(f"In no ranking, they share fewer than {MINIMUM_PATIENTS} patients: {said}.")
    if len(coverage) >= MINIMUM_PATIENTS:
        notes += _why_missing(coverage, failed or {})
    return [p for p in panels if len(p.models) >= 2 and len(p.patients) >= MINIMUM_PATIENTS], notes


def _why_missing(coverage: pd.DataFrame, failed: Mapping[tuple[str, str], str]) -> list[str]:
    """Say of each model without output for many patients whether they lack an input or the model failed.

    A model that has nearly all of the patients with its inputs is not to blame for the others.
    """
    notes = []
    for model in coverage.columns:
        absent = coverage.index[coverage[model].isna()]
        outputs = len(coverage) - len(absent)
        kinds = Counter(failed[patient, model] for patient in absent if (patient, model) in failed)
        if not kinds or outputs >= NEARLY_ALL * len(coverage):
            continue
        if outputs >= NEARLY_ALL * (len(coverage) - kinds["missing_input"]):
            notes.append(
                f"{model} needs an input that {kinds['missing_input']} of {len(coverage)} patients lack: it says "
                "nothing about them, and did not fail."
            )
            continue
        told = [f"{kinds[kind]} {text}" for kind, text in KINDS.items() if kinds[kind]]
        if unknown := len(absent) - kinds.total():
            told.append(f"{unknown} without a reason")
        notes.append(
            f"{model} failed: no output for {len(absent)} of {len(coverage)} patients ({', '.join(told)}). Patients "
            "in whom a model fails may be the harder ones, so its mean over the others flatters it; see its mean "
            "with missing results counted as 0."
        )
    return notes


def rank_panel(
    ranking: Ranking,
    name: str,
    coverage: pd.DataFrame,
    bootstrap: Bootstrap,
) -> None:
    """Add a panel to ``ranking``: tests on its complete blocks, ranks with a missing output counted as 0.

    Tests, and ranks of the complete blocks, want :data:`~predictgbm.statistics.paired.MINIMUM_PATIENTS` of them.

    Parameters
    ----------
    ranking
        What is added to.
    name
        Name of the panel.
    coverage
        Patients x models of the panel; NaN where a model has no output.
    bootstrap
        How the patients are resampled.
    """
    blocks = coverage.dropna()
    facts: dict[str, Any] = {"patients": len(coverage), "complete": len(blocks), "models": list(coverage)}
    facts |= {"friedman": None, "cliques": []}
    tests = pairwise(blocks) if len(blocks) >= MINIMUM_PATIENTS else None
    if tests is None:
        ranking.notes.append(
            f"No test of all models, fewer than {MINIMUM_PATIENTS} patients have output of each ({name})."
        )
    else:
        facts["friedman"] = _friedman_facts(blocks)
        groups = cliques(tests.significant, blocks.shape[1])
        facts["cliques"] = [[str(blocks.columns[i]) for i in group] for group in groups]
        ranking.pairwise += _pairwise_rows(name, blocks, tests)
        ranking.notes += [
            f"Same coverage in every patient, so that no test can tell them apart: {', '.join(same)} ({name})."
            for same in _identical(blocks)
        ]
    ranking.panels[name] = facts | _rank(ranking, name, coverage, tests, bootstrap)


def _rank(
    ranking: Ranking,
    name: str,
    coverage: pd.DataFrame,
    tests: Pairwise | None,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """Add the ranks by each method; return how much they agree."""
    blocks, filled = coverage.dropna().to_numpy(), coverage.fillna(0.0).to_numpy()
    full = scores(filled, tests if len(blocks) == len(filled) else None)
    complete = scores(blocks, tests) if tests else {}
    drawn = bootstrap_scores(filled, bootstrap.strata, bootstrap.draws, bootstrap.seed)
    ranks, stability = {}, {}
    for method, up in METHODS.items():
        ranks[method], resampled = (competition_ranks(score[method], up) for score in (full, drawn))
        stability[method] = _tau_facts(kendall_tau(resampled, ranks[method]))
        shares = rank_frequencies(resampled)
        columns = dict(zip(("rank_low", "rank_median", "rank_high"), rank_interval(resampled), strict=True))
        columns |= {"score": full[method], "rank": ranks[method]}
        if complete:
            alone = complete[method]
            columns |= {"score_complete": alone, "rank_complete": competition_ranks(alone, up)}
        for i, model in enumerate(coverage):
            key = {"panel": name, "method": method, "model": model}
            counts = {"n": len(filled), "n_complete": len(blocks)}
            counts["n_missing"] = int(coverage[model].isna().sum())
            ranking.rankings.append(key | counts | {column: value[i] for column, value in columns.items()})
            ranking.rank_frequencies += [
                key | {"rank": rank, "frequency": share} for rank, share in enumerate(shares[i], 1)
            ]
    between = [
        {"methods": [a, b], "tau": _finite(kendall_tau(ranks[a], ranks[b]))}
        for a, b in combinations(METHODS, 2)
    ]
    return {"tau_bootstrap": stability, "tau_between": between}


def _pairwise_rows(name: str, blocks: pd.DataFrame, tests: Pairwise) -> list[dict[str, Any]]:
    models, values = list(blocks), blocks.to_numpy()
    rows = []
    for index, (a, b) in enumerate(zip(*pairs(len(models)), strict=True)):
        differences = values[:, a] - values[:, b]
        rows.append(
            {
                "panel": name,
                "model_a": models[a],
                "model_b": models[b],
                "n": len(blocks),
                "n_zero": count_zeros_and_ties(differences)[0],
                "shift": hodges_lehmann(differences).estimate,
                "rank_biserial": rank_biserial(differences),
                "p": tests.p[index],
                "p_adjusted": tests.p_adjusted[index],
            }
        )
    return rows


def _friedman_facts(blocks: pd.DataFrame) -> dict[str, Any]:
    """Return the test of all models as JSON values; what is NaN or infinite becomes None."""
    result = friedman(blocks)
    values: dict[str, Any] = {key: _finite(getattr(result, key)) for key in ("chi2", "p", "f", "p_f", "w")}
    return values | {"mean_ranks": dict(zip(blocks, map(_finite, result.mean_ranks), strict=True))}


def _tau_facts(tau: NDArray[np.float64]) -> dict[str, Any]:
    """Return mean and 2.5 % quantile of the tau that are defined, and how many are not."""
    known = tau[np.isfinite(tau)]
    if not known.size:
        return {"mean": None, "low": None, "undefined": int(tau.size)}
    low = np.quantile(known, 0.025)
    return {"mean": _finite(known.mean()), "low": _finite(low), "undefined": int(tau.size - known.size)}


def _identical(blocks: pd.DataFrame) -> list[list[str]]:
    """Return the groups of models whose coverages are the same patient for patient."""
    groups: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for model in blocks:
        groups[tuple(blocks[model])].append(str(model))
    return [group for group in groups.values() if len(group) > 1]


def _finite(value: Any) -> float | None:
    """Return a number as the tables show it, with ten digits; None if it is not finite."""
    return round_digits(float(value)) if np.isfinite(value) else None
