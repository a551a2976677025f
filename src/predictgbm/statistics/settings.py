"""Whether comparisons and ranking survive if the evaluation is set otherwise.

The margin of the standard of care, the definition of recurrence, the follow-up that counts and the method that
registers it are choices of the analyst, not facts about the models (Steegen et al. 2016,
doi:10.1177/1745691616658637). Each setting is compared with the main analysis of the same patients, so that what
differs is due to the setting and not to the patients who have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from predictgbm.labels import RECURRENCE
from predictgbm.options import AXES
from predictgbm.statistics.paired import (
    MINIMUM_PATIENTS,
    hodges_lehmann,
    signed_rank_p,
    verdict,
)
from predictgbm.statistics.panels import by_model, find_panels
from predictgbm.statistics.ranking import competition_ranks, kendall_tau

Row = dict[str, Any]
PRIMARY = "coverage_enhancing"


def settings_rows(
    metrics: pd.DataFrame, settings: pd.DataFrame, guidelines: pd.DataFrame, reference: str
) -> dict[str, list[Row]]:
    """Compute the rows of tables ``sensitivity`` and ``agreement``.

    Models and patients are those of the first ranking panel: that of nearly all patients, or the subset where fewer
    than two models have those. A patient counts in a setting if any of the models has a coverage there; a missing plan
    counts as coverage 0 in means and ranks and is left out of the paired tests.

    Parameters
    ----------
    metrics, settings, guidelines
        The tables of these names, see :data:`predictgbm.tables.TABLES`.
    reference
        The model that the others are compared with.
    """
    rows: dict[str, list[Row]] = {"sensitivity": [], "agreement": []}
    main = by_model(metrics, PRIMARY)
    panels, _ = find_panels(main)
    if not panels:
        return rows
    main = main.loc[panels[0].patients, panels[0].models]
    for axis, setting, coverage in _settings(metrics, settings, guidelines):
        there = coverage.reindex(columns=main.columns).dropna(how="all")
        there = there.loc[there.index.isin(main.index)]
        choice = {"axis": axis, "setting": setting, "n": len(there)}
        if len(there) < MINIMUM_PATIENTS:
            rows["agreement"].append(choice | {"n_models": len(main.columns)})
            continue
        own, usual = _judge(there, reference), _judge(main.loc[there.index], reference)
        for model in main.columns:
            known = {name: value for name, value in own[model].items() if name != "verdict"}
            known |= {f"{name}_main": value for name, value in usual[model].items() if name != "verdict"}
            rows["sensitivity"].append(choice | {"model": model} | known)
        agreement = {
            "n_models": len(own),
            "tau": float(kendall_tau(_column(own, "rank"), _column(usual, "rank"))),
            "same_best": [row["rank"] == 1 for row in own.values()]
            == [row["rank"] == 1 for row in usual.values()],
        }
        if reference in own:
            changed = [own[model].get("verdict") != usual[model].get("verdict") for model in own]
            agreement["verdicts_changed"] = sum(changed)
        rows["agreement"].append(choice | agreement)
    return rows


def _settings(
    metrics: pd.DataFrame, settings: pd.DataFrame, guidelines: pd.DataFrame
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield axis, setting and coverage, patients x models."""
    others = pd.concat(
        [settings, guidelines.rename(columns={"guideline": "setting"}).assign(axis="guideline")]
    )
    for axis in AXES:
        if axis == "definition":
            for definition in RECURRENCE:
                if f"coverage_{definition}" != PRIMARY:
                    yield axis, definition, by_model(metrics, f"coverage_{definition}")
        for setting, part in others[others["axis"] == axis].groupby("setting", sort=False):
            yield axis, str(setting), by_model(part, PRIMARY)


def _column(rows: dict[str, Row], name: str) -> list[Any]:
    return [row[name] for row in rows.values()]


def _judge(coverage: pd.DataFrame, reference: str) -> dict[str, Row]:
    """Return mean and rank of each model, and shift, p and verdict against the reference where there is a test."""
    mean = coverage.fillna(0.0).mean()
    ranks = competition_ranks(mean.to_numpy(), True).tolist()
    rows: dict[str, Row] = {}
    for model, value, rank in zip(coverage.columns, mean.tolist(), ranks, strict=True):
        rows[model] = {"mean": value, "rank": rank}
        if model == reference or reference not in coverage:
            continue
        gain = (coverage[model] - coverage[reference]).dropna().to_numpy()
        if gain.size >= MINIMUM_PATIENTS:
            rows[model] |= {
                "shift": hodges_lehmann(gain).estimate,
                "p_pratt": signed_rank_p(gain),
                "verdict": verdict(gain),
            }
    return rows
