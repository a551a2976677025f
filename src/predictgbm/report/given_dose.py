"""Section of the report on doses that were given: what the recurrence got, and its pattern by their isodose."""

from __future__ import annotations

from predictgbm.dose import COVERING
from predictgbm.patterns import PATTERNS
from predictgbm.report.dose import (
    FOLDED,
    MAIN,
    VOLUME,
    dose_axis,
    organ_titles,
    prescription,
    structure_panels,
)
from predictgbm.report.formatting import (
    count,
    details,
    downloadable,
    interval,
    number,
    p_value,
    table,
    with_interval,
)
from predictgbm.report.line_plots import line_rows, panels
from predictgbm.report.results import PALETTE, REFERENCE_COLOR, ModelStyle, Results

SOURCES = (
    ModelStyle("standard", "Modelled dose", REFERENCE_COLOR, "dash"),
    ModelStyle("given", "Given dose", PALETTE[0]),
)
STRUCTURES = {"recurrence": "Recurrence", "brain": "Brain without the tumour core"}


def section(results: Results) -> tuple[str, str] | None:
    """Section with the histograms of the given dose and what the 95 % isodose makes of the patterns."""
    patients = results.tables["given_dose"]
    if not patients:
        return None
    how = (
        "Where the line of the given dose lies right of the modelled one, the treatment gave the recurrence more than "
        "the model of the standard plan does; what came back within the 95 % isodose was not missed by the treatment."
    )
    prescribed = sorted({row["prescription_gy"] for row in patients})
    span = " to ".join(number(value, 1).removesuffix(".0") for value in {prescribed[0]: 0, prescribed[-1]: 0})
    note = (
        f"The dose that was given is known of {count(len(patients), 'patient')}, prescribed {span} Gy. The pattern of "
        f"a lesion by its part within the {100 * COVERING:.0f} % isodose of that dose, as patterns are defined, stands "
        "beside that by the standard plan, which judges in all other sections. Histograms and shifts are of the same "
        "patients; bands and brackets are 95 % intervals, and all of it is exploratory."
    )
    return how, f'<p class="gbm-note">{note}</p>{histograms(results)}{crossed(results)}' + details(
        "Every dose against the modelled dose of the standard plan", numbers(results)
    )


def histograms(results: Results) -> str:
    """Return the mean dose-volume histograms of the given dose beside the modelled one; empty without any."""
    highest = max(row["prescription_gy"] for row in results.tables["given_dose"])
    axis = dose_axis(max(highest, prescription(results).dose_gy))
    styles = [(style.name, style) for style in SOURCES]
    drawn = structure_panels(results.tables["given_dvh"], "source", styles, STRUCTURES, axis)
    if not drawn:
        return ""
    return downloadable(
        results, panels(drawn, axis, VOLUME), line_rows(drawn), "given_dose_histograms", "given_dvh"
    )


def crossed(results: Results) -> str:
    """Return how many lesions have which pattern by either judge; empty without lesions."""
    lesions = [
        row
        for row in results.tables["given_lesions"]
        if row.get("pattern_isodose") and row.get("pattern_standard")
    ]
    if not lesions:
        return ""
    body = []
    for treated in PATTERNS:
        own = [row for row in lesions if row["pattern_isodose"] == treated]
        counts = [sum(row["pattern_standard"] == name for row in own) for name in PATTERNS]
        body.append([treated, *counts, len(own), number(sum(row["volume_ml"] for row in own), 1)])
    head = [f"By the {100 * COVERING:.0f} % isodose, lesions"]
    head += [f"{name} by the standard plan" for name in PATTERNS]
    return table([*head, "All", "Volume, ml"], body)


def numbers(results: Results) -> str:
    """Return every measure of the given dose with its shift and exploratory p-value."""
    found = {row["measure"]: row for row in results.tables["given_summary"]}
    titles = {measure: (title, scale) for measure, title, scale, _ in MAIN} | FOLDED
    titles |= organ_titles(found)
    titles["core_mean_gy"] = ("Mean dose of the pre-operative tumour core, Gy", 1.0)
    body = []
    for measure, (title, scale) in titles.items():
        if row := found.get(measure):
            ends = [number(row.get(end), 2, scale, sign=True) for end in ("shift_low", "shift_high")]
            body.append(
                [
                    title,
                    int(row["n"]),
                    with_interval(
                        number(row.get("mean"), 2, scale),
                        interval(row.get("ci_low"), row.get("ci_high"), scale),
                    ),
                    with_interval(
                        number(row.get("shift"), 2, scale, sign=True),
                        " to ".join(ends) if row.get("shift_low") is not None else "",
                    ),
                    p_value(row.get("p_pratt")),
                ]
            )
    head = ["Measure", "Patients", "Mean", "Shift against the modelled dose [95 %]", "p (Pratt), exploratory"]
    return table(head, body, (0,))
