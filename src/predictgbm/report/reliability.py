"""Section of the report on calibration: whether maps that are declared probabilities keep what they tell."""

from __future__ import annotations

from predictgbm.reliability import REGION_MM
from predictgbm.report.formatting import (
    details,
    downloadable,
    model_cell,
    number,
    percent,
    table,
    with_interval,
)
from predictgbm.report.line_plots import Axis, line_rows, mean_curve, panels
from predictgbm.report.results import Results, Row

#: Score, title, decimals.
SCORES = (
    ("prevalence", "Prevalence", 4),
    ("probability", "Mean probability", 4),
    ("brier", "Brier score", 4),
    ("skill", "Skill", 2),
    ("reliability", "Reliability", 4),
    ("resolution", "Resolution", 4),
    ("ece", "Expected calibration error", 4),
)


def section(results: Results) -> tuple[str, str] | None:
    """Section with reliability curves and scores; None without a map that is declared a probability."""
    found = {(row["model"], row["score"]): row for row in results.tables["calibration_summary"]}
    models = [name for name in results.models if (name, "brier") in found]
    if not models:
        return None
    columns = ("probability", "frequency", "frequency_low", "frequency_high")
    curves = [mean_curve(results.styles[name], bins(results, name), columns) for name in models]
    axes = Axis("Probability that the map tells", 0, 1), Axis("Part of the voxels that recurred", 0, 1)
    drawn = [("Calibration", curves)]
    figure = downloadable(
        results, panels(drawn, *axes, diagonal=True), line_rows(drawn), "reliability", "reliability"
    )
    body = []
    for name in models:
        cells: list[object] = [model_cell(results, name), int(found[name, "brier"]["n"])]
        for score, _, decimals in SCORES:
            row = found.get((name, score), {})
            limits = ""
            if row.get("low") is not None:
                limits = f"{number(row['low'], decimals)} to {number(row['high'], decimals)}"
            cells.append(with_interval(number(row.get("value"), decimals), limits))
        body.append(cells)
    how = (
        "A map keeps what it tells where its line runs along the dotted diagonal: below it, recurrence came to fewer "
        "voxels than the probability said; a skill above 0 means that the map tells more than the mean frequency does."
    )
    note = (
        f'<p class="gbm-note">Voxels of the brain within {REGION_MM:g} mm of the core; recurrence is its core, '
        "enhancing and necrotic; every patient counts the same; bands and brackets are 95 % intervals. Only models "
        "whose maps are declared probabilities are asked; a plan needs the order of voxels alone, so that a map can "
        "aim well and be badly calibrated.</p>"
    )
    head = ["Model", "Patients", *(title for _, title, _ in SCORES)]
    return how, figure + table(head, body) + note + bin_table(results, models)


def bins(results: Results, model: str) -> list[Row]:
    """Return the bins of a model's reliability curve, the lowest first."""
    rows = [row for row in results.tables["reliability"] if row["model"] == model]
    return sorted(rows, key=lambda row: row["bin_low"])


def bin_table(results: Results, models: list[str]) -> str:
    """Return the bins of every model, folded."""
    body = [
        [
            model_cell(results, name),
            f"{percent(row['bin_low'])} to {percent(row['bin_high'])}",
            percent(row["share"]),
            percent(row["probability"]),
            percent(row["frequency"]),
            int(row["n"]),
        ]
        for name in models
        for row in bins(results, name)
    ]
    head = ["Model", "Probability, %", "Voxels, %", "Mean probability, %", "Recurred, %", "Patients"]
    return details("Every bin of probability", table(head, body))
