"""Section of the report on the choices of the evaluation: whether the ranking survives others."""

from __future__ import annotations

from collections import defaultdict
from html import escape

from predictgbm.report import figures
from predictgbm.report.figures import Setting
from predictgbm.report.formatting import (
    MISSING,
    count,
    details,
    downloadable,
    model_cell,
    number,
    p_value,
    percent,
    table,
)
from predictgbm.report.results import REFERENCE, Results, Row, is_true

#: What is varied, and the words for one of its settings.
AXES = {
    "margin": ("Margin", "{} mm"),
    "definition": ("Recurrence", "{}"),
    "followup": ("Follow-up", "the {}"),
    "interval": ("Interval", "{} days or more"),
    "registration": ("Registration", "{}"),
    "guideline": ("Barriers", "{}"),
}


def section(results: Results) -> tuple[str, str] | None:
    """Section with ranks and gains in every setting, and how far they agree with the main analysis."""
    found: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in results.tables["sensitivity"]:
        found[row["axis"], row["setting"]][row["model"]] = row
    if not found:
        return None
    agreement = {(row["axis"], row["setting"]): row for row in results.tables["agreement"]}
    usual = {row["model"]: row for rows in found.values() for row in rows.values()}
    names = sorted(usual, key=lambda name: (usual[name]["rank_main"], name))
    groups = []
    for axis, (title, words) in AXES.items():
        settings = [
            heat_row(words.format(key[1]), names, rows, agreement[key])
            for key, rows in found.items()
            if key[0] == axis
        ]
        if settings:
            groups.append((title, settings))
    heat_map = figures.rank_heat_map([results.styles[name].title for name in names], groups)
    how = (
        "A ranking that rests on a choice of the analyst is none: each row is the whole evaluation with one choice "
        "changed; the figures are the models’ ranks, and τ tells how far their order is that of the main analysis (1: "
        "the same, 0: unrelated)."
    )
    rows = [
        {
            "varied": title,
            "setting": setting.title,
            "model": name,
            "rank": rank,
            "gain_points": gain,
            "tau": setting.tau,
        }
        for title, settings in groups
        for setting in settings
        for name, rank, gain in zip(names, setting.ranks, setting.gains, strict=True)
    ]
    body = downloadable(results, heat_map, rows, "sensitivity", "sensitivity", "agreement")
    body += agreement_table(results)
    left = [results.styles[name].title for name in results.models if name not in usual]
    if left:
        said = escape(", ".join(left))
        body += f'<p class="gbm-note">Left out, as only some of the patients have their plans: {said}.</p>'
    return how, body + few(results) + details("Every model in every setting", gain_table(results, found))


def heat_row(title: str, names: list[str], rows: dict[str, Row], agreement: Row) -> Setting:
    """Return a setting as the heat map shows it."""
    reference = rows.get(REFERENCE, {}).get("mean")
    gains = [
        None if reference is None or name not in rows else 100 * (rows[name]["mean"] - reference)
        for name in names
    ]
    ranks = [int(rows[name]["rank"]) if name in rows else None for name in names]
    return Setting(title, ranks, gains, agreement.get("tau"))


def title_of(row: Row) -> str:
    """Return the words for a setting."""
    title, words = AXES[row["axis"]]
    return f"{title}: {words.format(row['setting'])}"


def agreement_table(results: Results) -> str:
    """Return how far each setting agrees with the main analysis of the same patients."""
    body = [
        [
            title_of(row),
            int(row["n"]),
            number(row["tau"], 2),
            "yes" if is_true(row["same_best"]) else "no",
            MISSING if row.get("verdicts_changed") is None else int(row["verdicts_changed"]),
        ]
        for row in results.tables["agreement"]
        if row.get("tau") is not None
    ]
    head = ["Setting", "Patients", "Kendall’s τ", "Same best model", "Verdicts on the standard plan changed"]
    return table(head, body)


def few(results: Results) -> str:
    """Name the settings that too few patients have."""
    said = [
        f"{title_of(row)} ({count(int(row['n']), 'patient')})"
        for row in results.tables["agreement"]
        if row.get("same_best") is None
    ]
    return f'<p class="gbm-note">Too few patients for: {"; ".join(said)}.</p>' if said else ""


def gain_table(results: Results, found: dict[tuple[str, str], dict[str, Row]]) -> str:
    """Return mean, shift and p of each model in each setting, beside the main analysis."""
    body = [
        [
            title_of(row),
            model_cell(results, name),
            percent(row["mean"]),
            percent(row["mean_main"]),
            number(row.get("shift"), 1, 100, sign=True),
            number(row.get("shift_main"), 1, 100, sign=True),
            p_value(row.get("p_pratt")),
            p_value(row.get("p_pratt_main")),
        ]
        for rows in found.values()
        for name, row in rows.items()
    ]
    head = ["Setting", "Model", "Mean coverage, %", "Main", "Shift, points", "Main", "p (Pratt)", "Main"]
    return table(head, body, (0, 1), sortable=True)
