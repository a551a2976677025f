"""Section of the report on the models among each other: who is told apart, and how firm the ranks are."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from typing import Any

from predictgbm.report import figures
from predictgbm.report.figures import Contender, RankShares
from predictgbm.report.formatting import (
    MISSING,
    count,
    details,
    downloadable,
    model_cell,
    number,
    p_value,
    table,
    with_interval,
)
from predictgbm.report.results import Results, Row

#: What the panels of a ranking are, and what its methods are called.
PANEL_TITLES = {
    "all_patients": "Models with a plan for nearly all patients",
    "subset": "All models, on the patients whom each of them has",
}
METHOD_TITLES = {
    "mean_then_rank": "Mean, then rank",
    "rank_then_mean": "Rank, then mean",
    "test_then_rank": "Test, then rank",
}


def section(results: Results) -> tuple[str, str] | None:
    """Section with the models among each other: who is told apart, and how firm the ranks are."""
    ranks = results.tables["rankings"]
    facts = results.statistics.get("ranking") or {}
    parts = []
    for name, title in PANEL_TITLES.items():
        rows = [row for row in ranks if row["panel"] == name]
        if not rows:
            continue
        about = (facts.get("panels") or {}).get(name) or {}
        parts.append(f"<h4>{title} (n = {int(rows[0]['n'])})</h4>")
        parts.append(critical_difference(results, name, about) + rank_table(results, rows))
        parts.append(rank_figure(results, name, rows) + agreement(about) + pair_table(results, name))
    if not parts:
        return None
    if facts.get("notes"):
        parts.append(f'<p class="gbm-note">{" ".join(escape(str(note)) for note in facts["notes"])}</p>')
    how = (
        "An order of models is to be believed where the three ways to rank agree and the ranks stay when the "
        "patients are drawn anew: a black bar joins models that no test tells apart, a square is a model’s rank "
        "and the discs show how often it has each rank."
    )
    return how, "".join(parts)


def critical_difference(results: Results, panel: str, about: dict[str, Any]) -> str:
    """Return the diagram of mean ranks with the test of all models below it; empty if there was no test."""
    test = about.get("friedman")
    if not test:
        return ""
    names = list(test["mean_ranks"])
    models = [
        Contender(results.styles[n].title, results.styles[n].color, test["mean_ranks"][n]) for n in names
    ]
    groups = [[names.index(name) for name in group] for group in about.get("cliques") or []]
    said = f"No patient tells any two models apart (n = {about['complete']})."
    if test.get("w") is not None:
        f = f"F = {number(test['f'], 2)}, " if test.get("f") is not None else ""
        said = (
            f"Friedman’s test over the {count(about['complete'], 'patient')} with a plan of every model: "
            f"χ² = {number(test['chi2'], 2)}, p = {p_value(test['p'])} ({f}p = {p_value(test['p_f'])} by Iman and "
            f"Davenport); Kendall’s W = {number(test['w'], 2)}, 1 if all patients order the models alike."
        )
    drawn = figures.critical_difference(models, groups)
    rows = [
        {
            "model": name,
            "mean_rank": test["mean_ranks"][name],
            "groups": " ".join(str(i) for i, group in enumerate(groups, 1) if place in group),
        }
        for place, name in enumerate(names)
    ]
    figure = downloadable(results, drawn, rows, f"critical_difference_{panel}", "rankings", "pairwise")
    return f'{figure}<p class="gbm-note">{said}</p>'


def rank_table(results: Results, rows: list[Row]) -> str:
    """Return score and rank of each model by each method."""
    found = {(row["method"], row["model"]): row for row in rows}
    body = []
    for name in rank_order(rows):
        own = [found[method, name] for method in METHOD_TITLES]
        cells: list[object] = []
        for row, (decimals, scale) in zip(own, ((1, 100.0), (2, 1.0), (0, 1.0)), strict=True):
            limits = f"{int(row['rank_low'])} to {int(row['rank_high'])}"
            cells += [number(row["score"], decimals, scale), with_interval(str(int(row["rank"])), limits)]
        alone = [row.get("rank_complete") for row in own]
        shown = MISSING if None in alone else " / ".join(str(int(rank)) for rank in alone if rank is not None)
        body.append([model_cell(results, name), *cells, int(own[0]["n_missing"]), shown])
    head = ["Model", "Mean coverage, %", "Rank [95 %]", "Mean rank", "Rank [95 %]", "Models beaten"]
    head += [
        "Rank [95 %]",
        "Plans missing (counted as 0)",
        f"Ranks, {int(rows[0]['n_complete'])} complete cases",
    ]
    return table(head, body)


def rank_order(rows: list[Row]) -> list[str]:
    """Return the models by their rank of mean coverage."""
    first = [row for row in rows if row["method"] == "mean_then_rank"]
    return [row["model"] for row in sorted(first, key=lambda row: (row["rank"], row["model"]))]


def rank_figure(results: Results, panel: str, rows: list[Row]) -> str:
    """Return the plot of how often each model has each rank."""
    ranks = {(row["method"], row["model"]): int(row["rank"]) for row in rows}
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in results.tables["rank_frequencies"]:
        if row["panel"] == panel:
            shares[row["method"], row["model"]].append(row["frequency"])
    panels, drawn = [], []
    for method, title in METHOD_TITLES.items():
        styles = [results.styles[name] for name in rank_order(rows)]
        models = [RankShares(s.title, s.color, ranks[method, s.name], shares[method, s.name]) for s in styles]
        panels.append((title, models))
        drawn += [
            {
                "method": method,
                "model": s.name,
                "rank": ranks[method, s.name],
                "drawn_rank": rank,
                "share": share,
            }
            for s in styles
            for rank, share in enumerate(shares[method, s.name], 1)
        ]
    figure = figures.rank_frequency(panels)
    return downloadable(results, figure, drawn, f"rank_frequency_{panel}", "rank_frequencies")


def agreement(about: dict[str, Any]) -> str:
    """Return how much bootstraps agree with the ranking, and the methods with each other, by Kendall's tau."""
    stable = [
        f"“{METHOD_TITLES[method]}” {number(tau['mean'], 2)} ({number(tau['low'], 2)})"
        for method, tau in (about.get("tau_bootstrap") or {}).items()
        if tau.get("mean") is not None
    ]
    between = [
        f"{' and '.join(f'“{METHOD_TITLES[m]}”' for m in pair['methods'])} {number(pair['tau'], 2)}"
        for pair in about.get("tau_between") or []
        if pair.get("tau") is not None
    ]
    said = [
        f"{what}: {'; '.join(values)}."
        for what, values in (
            ("Kendall’s τ of the bootstraps with the ranking, mean (2.5 % quantile)", stable),
            ("Between the ways to rank", between),
        )
        if values
    ]
    return f'<p class="gbm-note">{" ".join(said)}</p>' if said else ""


def pair_table(results: Results, panel: str) -> str:
    """Return the tests of all pairs, folded; empty if there were none."""
    body = [
        [
            model_cell(results, row["model_a"]),
            model_cell(results, row["model_b"]),
            int(row["n_zero"]),
            number(row.get("shift"), 1, 100, sign=True),
            number(row.get("rank_biserial"), 2),
            p_value(row.get("p")),
            p_value(row.get("p_adjusted")),
        ]
        for row in results.tables["pairwise"]
        if row["panel"] == panel
    ]
    head = ["Model", "Against", "Equal", "Shift, points", "Rank-biserial", "p (Pratt)", "p, adjusted"]
    return details("Every two models compared", table(head, body, (0, 1), sortable=True)) if body else ""
