"""Section of the report on the patients whom each model covers worst, and what may be the cause."""

from __future__ import annotations

from collections import defaultdict
from html import escape

from predictgbm.causes import RULES
from predictgbm.report import gallery
from predictgbm.report.formatting import (
    MISSING,
    Html,
    count,
    details,
    model_cell,
    number,
    percent,
    table,
    viewer_link,
    with_interval,
)
from predictgbm.report.missed import CAPTION
from predictgbm.report.results import REFERENCE, Results, Row, is_true, ranked, subject

#: Patients shown of each model; in a small cohort the worse half.
SHOWN = 10


def section(results: Results) -> tuple[str, str] | None:
    """Section with the worst patients of each model, and how frequent the likely causes are among them."""
    shown = {name: rows for name in ranked(results) if (rows := worst(results, name))}
    if not shown:
        return None
    how = (
        f"For each model the {SHOWN} patients of whom it covers least (in a small cohort the worse half), with what "
        "fixed rules find in them: a cause that is as frequent in the other patients explains nothing."
    )
    places = {row["patient"]: row for row in results.tables["recurrence_patterns"]}
    causes: dict[str, list[str]] = defaultdict(list)
    for rule in RULES:
        for row in results.tables["causes"]:
            if row["cause"] == rule.cause and is_true(row.get("present")):
                causes[row["patient"]].append(rule.title)
    pictured = {shot.patient for shot in results.pictures}
    keys = [(subject(row["patient"]), name) for name, rows in shown.items() for row in rows]
    drawn = [key for key in keys if key in results.missed_pictures]
    missed = dict(
        zip(
            drawn,
            gallery.embed([results.missed_pictures[key] for key in drawn], gallery.MISSED_BYTES),
            strict=True,
        )
    )
    standard = {
        row["patient"]: row.get(f"coverage_{results.primary}")
        for row in results.tables["metrics"]
        if row["model"] == REFERENCE
    }
    parts = [frequencies(results), rules(results)]
    if missed:
        parts.append(f'<p class="gbm-caption">{escape(CAPTION)}</p>')
    for name, rows in shown.items():
        cards = [
            patient_card(
                row,
                row[f"coverage_{results.primary}"],
                None if name == REFERENCE else standard.get(row["patient"]),
                places.get(row["patient"], {}),
                causes[row["patient"]],
                subject(row["patient"]) in pictured,
                missed.get((subject(row["patient"]), name)),
            )
            for row in rows
        ]
        title = f"{results.styles[name].title}: the {count(len(rows), 'patient')} covered worst"
        parts.append(details(title, f'<div class="gbm-gallery">{"".join(cards)}</div>'))
    return how, "".join(parts)


def worst(results: Results, model: str) -> list[Row]:
    """Return the scores of the patients of whom a model covers least, the worst first."""
    column = f"coverage_{results.primary}"
    own = [row for row in results.tables["metrics"] if row["model"] == model and row.get(column) is not None]
    own.sort(key=lambda row: (row[column], row["patient"]))
    return own[: min(SHOWN, len(own) // 2)]


def patient_card(
    row: Row,
    covered: float,
    standard: float | None,
    place: Row,
    causes: list[str],
    pictured: bool,
    missed: str | None,
) -> str:
    """Return the numbers of one patient with the picture of what was missed, a data URI where there is one."""
    patient = row["patient"]
    beside = "" if standard is None else f" (standard {percent(standard)} %)"
    facts = [f"coverage {percent(covered)} %{beside}"]
    lesions = f" in {count(int(row['n_lesions']), 'lesion')}" if row.get("n_lesions") else ""
    facts.append(f"recurrence {number(row.get('recurrence_enhancing_ml'), 2)} ml{lesions}")
    if place.get("pattern"):
        facts.append(
            f"mostly {place['pattern']}, up to {number(place.get('farthest_mm'), 0)} mm from the core"
        )
    facts.append(f"core {number(row.get('tumor_core_ml'), 1)} ml")
    if row.get("days") is not None:
        facts.append(f"after {count(int(row['days']), 'day')}")
    said = ", ".join(causes) or "none of the rules holds"
    links = [viewer_link(patient, "viewer")]
    if pictured:
        links.insert(0, Html(f'<a href="#{escape(gallery.anchor(subject(patient)))}">all models</a>'))
    caption = f"{escape(', '.join(facts))}.<br>Likely causes: {escape(said)}. {' · '.join(links)}"
    image = gallery.image(missed, f"what the plan missed in {escape(patient)}") if missed else ""
    return f'<figure class="gbm-card">{image}<figcaption><b>{escape(patient)}</b> {caption}</figcaption></figure>'


def frequencies(results: Results) -> str:
    """Return how much more frequent each cause is among the worst tenth of a model; causes that nobody has left out."""
    found = {(row["model"], row["cause"]): row for row in results.tables["cause_frequencies"]}
    present = {row["cause"] for row in found.values() if row["worst_with"] or row["others_with"]}
    rules = [rule for rule in RULES if rule.cause in present]
    models = [name for name in ranked(results) if any(name == model for model, _ in found)]
    if not rules or not models:
        return ""
    body = [
        [model_cell(results, name), *(times(found.get((name, rule.cause))) for rule in rules)]
        for name in models
    ]
    head = ["Model", *(rule.title.capitalize() for rule in rules)]
    note = (
        "How many times as frequent among the worst tenth as among the other patients [worst, others]; bold where "
        "Fisher’s exact test gives p &lt; 0.05, not adjusted for the number of tests. The standard plan tells what is "
        "distant: that it covers little there is no finding."
    )
    return f'<h4>Likely causes</h4>{table(head, body)}<p class="gbm-note">{note}</p>'


def times(row: Row | None) -> Html | str:
    """Return the ratio of one cause with the counts it is made of."""
    if not row or not row["n_worst"] or not row["n_others"]:
        return MISSING
    with_cause, others = int(row["worst_with"]), int(row["others_with"])
    ratio = (
        f"{number(row['ratio'], 1)} ×"
        if row.get("ratio") is not None
        else "only there"
        if with_cause
        else MISSING
    )
    if row.get("p") is not None and row["p"] < 0.05:
        ratio = f"<b>{ratio}</b>"
    return with_interval(ratio, f"{with_cause}/{int(row['n_worst'])}, {others}/{int(row['n_others'])}")


def rules(results: Results) -> str:
    """Return the rules and how many patients each holds for, folded."""
    body = []
    for rule in RULES:
        judged = [
            row
            for row in results.tables["causes"]
            if row["cause"] == rule.cause and row.get("present") is not None
        ]
        holds = sum(is_true(row["present"]) for row in judged)
        body.append([rule.title, rule.said, f"{holds} of {len(judged)}" if judged else "not known"])
    return details("The rules", table(["Cause", "Holds for", "Patients"], body, (0, 1)))
