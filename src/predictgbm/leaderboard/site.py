"""The pages of a leaderboard, made of the very files that are published beside them.

A page asks nothing of a server and nothing of another host. Patients appear by number only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from numpy.typing import NDArray

from predictgbm.labels import RECURRENCE
from predictgbm.report import figures, ranking
from predictgbm.report.figures import INK, MUTED, Pair, line, svg, text
from predictgbm.report.formatting import (
    FIGURES_PLACE,
    MISSING,
    TABLES_PLACE,
    Html,
    count,
    downloadable,
    duration,
    estimate,
    interval,
    memory,
    model_cell,
    p_value,
    percent,
    table,
    with_interval,
)
from predictgbm.report.results import REFERENCE, Results, Row, Task, known
from predictgbm.statistics.paired import MINIMUM_PATIENTS

#: Tables that are published as they are; of the scores of single patients only :data:`PUBLIC_SCORES`.
PUBLIC_TABLES = (
    *("summary", "comparisons", "equivalence", "leave_one_dataset_out"),
    *("pairwise", "rankings", "rank_frequencies", "guarantee"),
)
PUBLIC_SCORES = (
    *("patient", "cohort", "model", "coverage_enhancing", "coverage_core", "coverage_all"),
    *("dice", "hd95_mm", "curve_area"),
)
#: Decimals of the scores of single patients, where they are published.
SCORE_DECIMALS = {name: 0 if name.endswith("_mm") else 2 for name in PUBLIC_SCORES[3:]}
#: Columns of the tables whose value may be that of one patient.
OF_ONE_PATIENT = (
    *("median", "q1", "q3", "median_ci_low", "median_ci_high", "fraction"),
    *("shift", "shift_low", "shift_high"),
)
#: Decimals of all other numbers but p-values: with more, a small cohort's sum follows from those of the others.
DECIMALS = 4
#: Folder of the figures as files.
FIGURES = "figures"
#: Panel and way to rank of the overall table.
PANEL, METHOD = "all_patients", "mean_then_rank"


@dataclass(frozen=True)
class Facts:
    """What the pages say beside the tables.

    Attributes
    ----------
    title : str
    built : str
        Date.
    version : str
        Of the pipeline that made the runs.
    runs : int
    trial_exams : int
        Exams whose tumour labels are of the built-in segmenter.
    named : bool
        Whether patients bear their own names.
    per_patient : str
        ``rounded`` or ``none``: how scores of single patients are published.
    remarks : sequence of str
        What could not be compared between the runs, and how they differ.
    settings : dict
        Parameters that all runs share.
    entries : dict
        By model: its entry and what its submission says.
    learned : dict
        By model: on whom it was trained, in words.
    options : dict
        By model: the parameters it ran with.
    """

    title: str
    built: str
    version: str
    runs: int
    trial_exams: int
    named: bool
    per_patient: str
    remarks: Sequence[str]
    settings: Mapping[str, Any]
    entries: Mapping[str, Row]
    learned: Mapping[str, str]
    options: Mapping[str, Row]


def number_patients(patients: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    """Return a number for each patient, ``P01`` and so on, in random order, so that nothing leads back."""
    width = len(str(len(patients)))
    order: NDArray[np.int64] = rng.permutation(len(patients))
    return {
        patient: f"P{place + 1:0{width}d}" for patient, place in zip(patients, order.tolist(), strict=True)
    }


def public_scores(metrics: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Return the scores of single patients that are published, under other names, sorted by these."""
    scores = metrics[list(PUBLIC_SCORES)].copy()
    scores["patient"] = scores["patient"].map(names).astype("string")
    return scores.sort_values(["patient", "model"], ignore_index=True)


def small_datasets(metrics: pd.DataFrame) -> set[str]:
    """Return the data sets of fewer than :data:`MINIMUM_PATIENTS` patients."""
    sizes = metrics.groupby("cohort")["patient"].nunique()
    return set(sizes[sizes < MINIMUM_PATIENTS].index)


def public_table(table_: pd.DataFrame, small: Collection[str] = ()) -> pd.DataFrame:
    """Return a table without the rows of data sets of fewer than :data:`MINIMUM_PATIENTS` patients, and rounded.

    Such rows would tell single patients, as rows without those of ``small`` do beside the pooled ones, and as median
    and quartiles do with all their digits.
    """
    kept = table_
    if "left_out" in kept:
        kept = kept[~kept["left_out"].isin(small)]
    if {"dataset", "n"} <= set(kept):
        kept = kept[(kept["dataset"] == "pooled") | (kept["n"] >= MINIMUM_PATIENTS)]
    numbers = [str(name) for name in kept.select_dtypes("Float64")]
    numbers = [name for name in numbers if not name.startswith("p_") and name != "p"]
    return kept.round({name: 2 if name in OF_ONE_PATIENT else DECIMALS for name in numbers})


def describe_training(card: Mapping[str, Any]) -> str:
    """Say on whom a model was trained, by the card of its training; cohorts and numbers, no patient."""
    networks = card.get("networks") or {}
    if not networks:
        return "not stated"
    seen = {p for n in networks.values() for part in ("training", "validation") for p in n.get(part, ())}
    known = card.get("cohorts") or {}
    cohorts = pd.Series({p: c for p, c in known.items() if p in seen}, dtype=object).value_counts()
    where = ", ".join(f"{name} {n}" for name, n in sorted(cohorts.items()))
    kind = "simulated patient" if card.get("simulated") else "patient"
    return (
        f"{count(len(seen), kind)}{f' ({where})' if where else ''} in {count(len(networks), 'network')}; "
        "each patient is predicted by networks that never saw him or her"
    )


def board(results: Results, tasks: Sequence[Task], facts: Facts) -> list[Row]:
    """Return the rows of the overall table, best rank first; fractions, seconds and bytes.

    A model that is in no ranking of all patients comes last, without a rank.
    """
    ranks = {
        row["model"]: row
        for row in results.tables["rankings"]
        if (row["panel"], row["method"]) == (PANEL, METHOD)
    }
    column = f"coverage_{results.primary}"
    evaluable = {row["patient"] for row in results.tables["metrics"] if row.get(column) is not None}
    rows = []
    for found in results.headline:
        name = found["model"]
        rank = ranks.get(name, {})
        own = [task for task in tasks if task.model == name]
        times = [task.cpu_seconds for task in own if task.cpu_seconds is not None]
        sizes = [task.memory_bytes for task in own if task.memory_bytes]
        entry = facts.entries.get(name, {})
        keys = ("mean", "ci_low", "ci_high", "median", "mean_missing_as_zero")
        gain = (
            "mean_gain",
            "mean_gain_low",
            "mean_gain_high",
            "shift",
            "shift_low",
            "shift_high",
            "p_adjusted",
        )
        rows.append(
            {
                "rank": whole(rank.get("rank")),
                "model": name,
                "title": results.styles[name].title,
                **{key: found.get(key) for key in keys},
                **{key: None if name == REFERENCE else found.get(key) for key in gain},
                "n": int(found["n"]),
                "missing": len(evaluable) - int(found["n"]),
                "rank_low": whole(rank.get("rank_low")),
                "rank_high": whole(rank.get("rank_high")),
                "cpu_seconds_median": median(times) if times else None,
                "memory_bytes_max": max(sizes, default=None),
                "trained_on": facts.learned.get(name, ""),
                "licence": licence(entry),
                "patients": "simulated" if results.simulated else "real",
            }
        )
    return sorted(rows, key=lambda row: (row["rank"] is None, row["rank"] or 0, -(row["mean"] or 0)))


def whole(found: float | None) -> int | None:
    """Return a count that a CSV file gave as a number."""
    return None if found is None else int(found)


def licence(entry: Mapping[str, Any]) -> str:
    """Return the licence of a model: as stated, or that of this package for its own."""
    own = str(entry.get("function", "")).startswith("predictgbm.")
    return str(entry.get("licence") or ("Apache-2.0" if own else "not stated"))


def value(number_: float | None, shown: str) -> Html:
    """Return a cell that sorts by a number, whatever it shows; empty ones sort last."""
    return Html(f'<data value="{"" if number_ is None else repr(float(number_))}">{shown}</data>')


def link(results: Results, name: str, folder: str = "models/") -> Html:
    """Return a model's title with its colour, linked to its page."""
    return Html(f'<a href="{folder}{escape(name)}.html">{model_cell(results, name)}</a>')


def whisker(row: Row, reference: float | None, color: str) -> Html:
    """Draw a mean with its interval on a line from 0 to 100 %, the standard plan's mean as an upright line."""
    width, height, middle = 150.0, 22.0, 11.0

    def x(fraction: float) -> float:
        return 4 + (width - 8) * fraction

    parts = [line(x(0), middle, x(1), middle, "#E2E2E2")]
    if reference is not None:
        parts.append(
            line(x(reference), 2, x(reference), height - 2, "#9A9A9A", 1.0, ' stroke-dasharray="2 2"')
        )
    if row.get("ci_low") is not None and row.get("ci_high") is not None:
        parts.append(line(x(row["ci_low"]), middle, x(row["ci_high"]), middle, color, 3.0))
    if row.get("mean") is not None:
        parts.append(
            f'<circle cx="{x(row["mean"]):.1f}" cy="{middle}" r="4.5" fill="{color}" stroke="{INK}" stroke-width=".5"/>'
        )
    return Html(svg(width, height, "".join(parts), f"Mean coverage {percent(row.get('mean'))} %"))


def overall_table(results: Results, rows: Sequence[Row]) -> Html:
    """Return the overall table."""
    reference = next((row["mean"] for row in rows if row["model"] == REFERENCE), None)
    body = []
    for row in rows:
        mean = with_interval(percent(row["mean"]), interval(row["ci_low"], row["ci_high"]))
        gain = "reference" if row["model"] == REFERENCE else estimate(row, "mean_gain")
        body.append(
            [
                value(row["rank"], MISSING if row["rank"] is None else str(row["rank"])),
                link(results, row["model"]),
                value(row["mean"], mean),
                whisker(row, reference, results.styles[row["model"]].color),
                value(row["mean_gain"], gain),
                value(row["p_adjusted"], p_value(row["p_adjusted"])),
                value(row["n"], str(row["n"])),
                value(row["missing"], str(row["missing"])),
                value(row["cpu_seconds_median"], duration(row["cpu_seconds_median"])),
                value(row["memory_bytes_max"], memory(row["memory_bytes_max"])),
            ]
        )
    head = [
        *(
            "Rank",
            "Model",
            "Mean coverage, %\xa0[95\xa0%\xa0CI]",
            "From 0 to 100 %",
            "Mean gain, points [95\xa0%\xa0CI]",
        ),
        *("p, adjusted", "Patients", "Missing", "CPU time", "Memory"),
    ]
    shaded = [place for place, row in enumerate(rows) if row["model"] == REFERENCE]
    return table(head, body, (1, 3), shaded, sortable=True)


def cohort_tables(results: Results) -> Html:
    """Return one table per cohort: coverage and gain of each model."""
    parts = []
    datasets = sorted({row["dataset"] for row in results.tables["summary"]} - {"pooled"})
    tests = {
        (row["model"], row["dataset"]): row
        for row in results.tables["comparisons"]
        if row["definition"] == results.primary
    }
    for dataset in datasets:
        rows = [
            row
            for row in results.tables["summary"]
            if (row["dataset"], row["definition"]) == (dataset, results.primary) and row["n"]
        ]
        rows.sort(key=lambda row: (-row["mean"], row["model"]))
        body = []
        for row in rows:
            test = tests.get((row["model"], dataset), {})
            gain = "reference" if row["model"] == REFERENCE else estimate(test, "mean_gain")
            mean = with_interval(percent(row["mean"]), interval(row.get("ci_low"), row.get("ci_high")))
            body.append(
                [
                    link(results, row["model"]),
                    value(row["mean"], mean),
                    value(test.get("mean_gain"), gain),
                    value(row["n"], str(int(row["n"]))),
                ]
            )
        head = ["Model", "Mean, %\xa0[95\xa0%\xa0CI]", "Mean gain, points\xa0[95\xa0%\xa0CI]", "Patients"]
        parts.append(f"<div><h3>{escape(dataset)}</h3>{table(head, body, sortable=True)}</div>")
    return Html("".join(parts))


def histogram(results: Results, name: str) -> Html:
    """Draw how many patients have a coverage in each tenth, the last one including 100 %; empty without any."""
    column = f"coverage_{results.primary}"
    fractions = known([row for row in results.tables["metrics"] if row["model"] == name], column)
    if not fractions:
        return Html("")
    color = results.styles[name].color
    counts, _ = np.histogram(fractions, bins=10, range=(0, 1))
    left, bottom, wide, tall = 44.0, 176.0, 42.0, 140.0
    top = max(int(counts.max()), 1)
    parts = []
    for tick in sorted({int(t) for t in figures.ticks(0, top, 4)}):
        y = bottom - tall * tick / top
        parts += [
            line(left, y, left + 10 * wide, y, "#E2E2E2"),
            text(left - 8, y + 4, str(tick), 11, "end", MUTED),
        ]
    for place, n in enumerate(counts.tolist()):
        height = tall * n / top
        parts.append(
            f"<g><title>{10 * place} to {10 * place + 10} %: {count(n, 'patient')}</title><rect "
            f'x="{left + wide * place + 2:.1f}" y="{bottom - height:.1f}" width="{wide - 4:.1f}" height="{height:.1f}" '
            f'fill="{color}" stroke="{INK}" stroke-width=".4"/></g>'
        )
    for place in range(0, 11, 2):
        parts.append(text(left + wide * place, bottom + 16, str(10 * place), 11, "middle", MUTED))
    parts.append(line(left, bottom, left + 10 * wide, bottom, MUTED))
    parts.append(text(left + 5 * wide, bottom + 36, "Coverage of the recurrence, %", 12, "middle", MUTED))
    parts.append(text(left - 8, 22, "Patients", 12, color=MUTED))
    drawn = svg(left + 10 * wide + 20, bottom + 46, "".join(parts), "Patients by coverage")
    rows = [
        {"from_percent": 10 * place, "to_percent": 10 * place + 10, "patients": n}
        for place, n in enumerate(counts.tolist())
    ]
    return Html(downloadable(results, drawn, rows, f"patients_by_coverage_{name}"))


def paired(results: Results, name: str) -> Html:
    """Draw the coverage of each patient by the standard plan and by a model; empty for the standard plan."""
    found = results.pairs(name)
    if name == REFERENCE or not found:
        return Html("")
    style = results.styles[name]
    better = sum(own > reference for _, reference, own in found)
    worse = sum(own < reference for _, reference, own in found)
    # Drawn as they are published: a figure has as many digits as its coordinates.
    pairs = [Pair(row["patient"], round(reference, 2), round(own, 2)) for row, reference, own in found]
    note = f"better in {better}, worse in {worse} of {len(pairs)}"
    p = next((row.get("p_adjusted") for row in results.headline if row["model"] == name), None)
    panels = [figures.Panel(style.title, style.color, note, pairs, figures.significance(p))]
    drawn = figures.paired_coverage(panels, "standard")
    rows = figures.panel_rows(panels)
    return Html(
        downloadable(results, drawn, rows, f"coverage_by_patient_{name}", "metrics").replace(
            TABLES_PLACE, "../data"
        )
    )


def card(name: str, row: Row, facts: Facts) -> list[tuple[str, Html]]:
    """Return the lines of a model's card, those that are known."""
    entry = facts.entries.get(name, {})
    doi, contact = str(entry.get("doi") or ""), str(entry.get("contact") or "")
    citation = escape(str(entry.get("citation") or ""))
    if doi:
        citation += f' <a href="https://doi.org/{escape(doi)}">doi:{escape(doi)}</a>'
    options = facts.options.get(name) or entry.get("parameters") or {}
    optional = ", ".join(entry.get("optional_inputs") or ())
    source = entry.get("container") or entry.get("function") or ""
    lines = {
        "Name": escape(name),
        "What it computes": escape(str(entry.get("description") or "")),
        "Authors": escape(", ".join(entry.get("authors") or ())),
        "Version": escape(str(entry.get("version") or "")),
        "Citation": citation,
        "Licence": escape(row["licence"]),
        "Contact": escape(contact),
        "Inputs": escape(
            ", ".join(entry.get("inputs") or ()) + (f"; where given: {optional}" if optional else "")
        ),
        "Its map is": escape(str(entry.get("output") or "").replace("_", " ")),
        "Trained on": escape(row["trained_on"]),
        "Settings": escape(", ".join(f"{key} {found}" for key, found in options.items())),
        "Runs as": f"<code>{escape(str(source))}</code>" if source else "",
        "Digest": f"<code>{escape(str(entry['digest']))}</code>" if entry.get("digest") else "",
        "CPU time, median": duration(row["cpu_seconds_median"])
        if row["cpu_seconds_median"] is not None
        else "",
        "Memory, most": memory(row["memory_bytes_max"]) if row["memory_bytes_max"] else "",
    }
    return [(label, Html(content)) for label, content in lines.items() if content]


def model_table(results: Results, name: str) -> Html:
    """Return the coverage of a model by data set and definition of recurrence."""
    rows = [row for row in results.tables["summary"] if row["model"] == name and row["n"]]
    definitions = list(RECURRENCE)
    rows.sort(
        key=lambda row: (row["dataset"] != "pooled", row["dataset"], definitions.index(row["definition"]))
    )
    body = [
        [
            row["dataset"],
            row["definition"],
            with_interval(percent(row["mean"]), interval(row.get("ci_low"), row.get("ci_high"))),
            with_interval(percent(row["median"]), interval(row.get("q1"), row.get("q3"))),
            int(row["n"]),
        ]
        for row in rows
    ]
    head = ["Data set", "Recurrence", "Mean, %\xa0[95\xa0%\xa0CI]", "Median, %\xa0[quartiles]", "Patients"]
    return table(head, body, (0, 1))


def pages(results: Results, rows: Sequence[Row], facts: Facts) -> dict[str, str]:
    """Return the files of the site by their name within it, but for the data and the figures.

    The figures are then in ``results``, for :func:`predictgbm.report.figure_files.write`.
    """
    templates = resources.files("predictgbm.report").joinpath("templates")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(templates.joinpath("leaderboard.html.jinja").read_text(encoding="utf-8"))
    shared = {"facts": facts, "simulated": results.simulated}
    patients = {
        row["patient"]
        for row in results.tables["metrics"]
        if row.get(f"coverage_{results.primary}") is not None
    }
    cohorts = sorted({row["dataset"] for row in results.tables["summary"]} - {"pooled"})
    section = ranking.section(results)
    site = {
        "index.html": page.render(
            root="",
            heading=facts.title,
            overall=overall_table(results, rows),
            ranking=section
            and (
                Html(section[0]),
                Html(section[1].replace(TABLES_PLACE, "data").replace(FIGURES_PLACE, FIGURES)),
            ),
            cohorts=cohort_tables(results),
            n_patients=count(len(patients), "simulated patient" if results.simulated else "patient"),
            n_models=count(len(rows), "model"),
            n_runs=count(facts.runs, "run"),
            datasets=cohorts,
            notes=results.statistics.get("notes") or [],
            downloads=[
                *(f"{name}.csv" for name in PUBLIC_TABLES),
                *(["metrics.csv"] if facts.per_patient != "none" else []),
                "data_dictionary.csv",
            ],
            **shared,
        ),
        "assets/leaderboard.js": "".join(
            templates.joinpath(name).read_text(encoding="utf-8") for name in ("figures.js", "leaderboard.js")
        ),
        "assets/leaderboard.css": "".join(
            templates.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "leaderboard.css")
        ),
    }
    for row in rows:
        name = row["model"]
        site[f"models/{name}.html"] = page.render(
            root="../",
            heading=row["title"],
            model=row,
            card=card(name, row, facts),
            histogram=histogram(results, name),
            paired=paired(results, name) if facts.per_patient != "none" else "",
            by_dataset=model_table(results, name),
            **shared,
        )
    return site
