"""Section of the report on dose: what each plan, and dose painting by each map, gives to recurrence and brain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from predictgbm.dose import COVERING, STANDARD, Prescription
from predictgbm.exam import ORGAN
from predictgbm.report.formatting import (
    details,
    downloadable,
    interval,
    model_cell,
    number,
    p_value,
    table,
    with_interval,
)
from predictgbm.report.line_plots import Axis, Curve, line_rows, mean_curve, panels
from predictgbm.report.results import REFERENCE, ModelStyle, Results, Row

#: Highest dose that histograms show, in parts of the prescription: 80 Gy of 60.
SHOWN = 4 / 3
STRUCTURES = {
    "recurrence": "Recurrence, by the plan",
    "painted recurrence": "Recurrence, by painted dose",
    "brain": "Brain without the tumour core",
}
VOLUME = Axis("Volume, %", 0, 100)
#: Measures of the main table: column, title, scale, decimals.
MAIN = (
    ("recurrence_mean_gy", "Mean dose of the recurrence, Gy", 1.0, 1),
    ("recurrence_v95", f"Recurrence above {100 * COVERING:.0f} % of the dose, %", 100.0, 1),
    ("integral_gy_l", "Integral dose, Gy l", 1.0, 2),
    ("painted_mean_gy", "Mean dose of the recurrence, painted, Gy", 1.0, 1),
)
FOLDED = {
    "plan_d95_gy": ("D95 of the plan, Gy", 1.0),
    "recurrence_d98_gy": ("D98 of the recurrence, Gy", 1.0),
    "recurrence_d95_gy": ("D95 of the recurrence, Gy", 1.0),
    "recurrence_d50_gy": ("D50 of the recurrence, Gy", 1.0),
    "recurrence_geud_gy": ("gEUD of the recurrence, Gy", 1.0),
    "brain_mean_gy": ("Mean dose of the brain, Gy", 1.0),
    "brain_v95_ml": (f"Brain above {100 * COVERING:.0f} % of the dose, ml", 1.0),
    "brain_v50_ml": ("Brain above half of the dose, ml", 1.0),
    "wm_mean_gy": ("Mean dose of white matter, Gy", 1.0),
    "gm_mean_gy": ("Mean dose of grey matter, Gy", 1.0),
    "csf_mean_gy": ("Mean dose of CSF, Gy", 1.0),
    "painted_ml": ("Painted volume, ml", 1.0),
    "painted_d98_gy": ("D98 of the recurrence, painted, Gy", 1.0),
    "painted_d95_gy": ("D95 of the recurrence, painted, Gy", 1.0),
    "painted_d50_gy": ("D50 of the recurrence, painted, Gy", 1.0),
    "painted_geud_gy": ("gEUD of the recurrence, painted, Gy", 1.0),
    "painted_v95": (f"Recurrence above {100 * COVERING:.0f} % of the dose, painted, %", 100.0),
}


def section(results: Results) -> tuple[str, str] | None:
    """Section with mean histograms, main doses, and every dose against the standard plan, folded."""
    found = {(row["model"], row["measure"]): row for row in results.tables["dose_summary"]}
    models = [name for name in results.models if any(model == name for model, _ in found)]
    if not models:
        return None
    how = (
        "A line shows what part of the recurrence, of the brain or of an organ at risk (mean over the patients whose "
        "organ is known, their number n) gets at least the dose below it: the further right the better in the "
        "recurrence, the further left in brain and organs; of two plans of the same volume the one with the "
        "larger integral dose has paid for its gain with dose to the brain, which dose painting does not allow."
    )
    prescribed = prescription(results)
    low, high = prescribed.painted_gy
    note = (
        f"<b>The dose is modelled, not planned</b>: {prescribed.dose_gy:g} Gy as the median of the plan with "
        f"{prescribed.margin_mm:g} mm around it, falling from 80 % to 20 % over {prescribed.falloff_mm:g} mm; no "
        "beams, no scatter, so that doses to the brain are lower bounds. Painted dose is a plan of its own: the "
        f"integral dose of the standard plan, spent by the rank of the map from {high:g} Gy down to {low:g} Gy. Bands "
        "and brackets are 95 % intervals."
    )
    return how, f'<p class="gbm-note">{note}</p>{histograms(results)}{main(results, models, found)}' + (
        organs(results, models, found) + every(results, models, found)
    )


def prescription(results: Results) -> Prescription:
    """Return what the run prescribed; what its parameters do not tell is the standard."""
    parameters = results.parameters
    return Prescription(
        float(parameters.get("prescription", STANDARD.dose_gy)),
        float(parameters.get("setup_margin", STANDARD.margin_mm)),
        float(parameters.get("dose_falloff", STANDARD.falloff_mm)),
    )


def histograms(results: Results) -> str:
    """Return the mean dose-volume histograms; empty without any."""
    styles = [(name, results.styles[name]) for name in results.models]
    axis = dose_axis(prescription(results).dose_gy)
    drawn = structure_panels(results.tables["dvh"], "model", styles, STRUCTURES, axis)
    if not drawn:
        return ""
    return downloadable(
        results, panels(drawn, axis, VOLUME), line_rows(drawn), "dose_volume_histograms", "dvh"
    )


def dose_axis(prescribed_gy: float) -> Axis:
    """Return the axis of doses for a prescription."""
    return Axis("Dose, Gy", 0, round(SHOWN * prescribed_gy))


def structure_panels(
    rows: Sequence[Row],
    column: str,
    styles: Sequence[tuple[str, ModelStyle]],
    titles: Mapping[str, str],
    axis: Axis,
) -> list[tuple[str, list[Curve]]]:
    """Return title and lines of a panel for each structure there are histograms of, organs at risk last.

    ``column`` is that of ``rows`` which tells the lines apart, ``styles`` its values in order with how each is drawn.
    """
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["structure"], row[column]].append(row)
    titles = dict(titles)
    for organ in sorted({structure for structure, _ in found if structure.startswith(ORGAN)}):
        patients = sorted(
            {row["n"] for (structure, _), own in found.items() if structure == organ for row in own}
        )
        # A model without an output has fewer.
        number_of = " to ".join(str(int(n)) for n in {patients[0]: 0, patients[-1]: 0})
        titles[organ] = f"{organ.removeprefix(ORGAN)}, n = {number_of}"
    drawn = []
    for structure, title in titles.items():
        if curves := [
            curve(style, found[structure, name], axis) for name, style in styles if (structure, name) in found
        ]:
            drawn.append((title, curves))
    return drawn


def curve(style: ModelStyle, rows: list[Row], axis: Axis) -> Curve:
    """Return the line of a mean histogram along an axis, with its band where there are enough patients."""
    rows = sorted((row for row in rows if row["dose_gy"] <= axis.high), key=lambda row: row["dose_gy"])
    return mean_curve(style, rows, ("dose_gy", "volume", "volume_low", "volume_high"), (1, 100))


def main(results: Results, models: list[str], found: dict[tuple[str, str], Row]) -> str:
    """Return the table of the main doses: means with intervals, and the shift of the recurrence's."""
    body, emphasised = [], []
    for index, name in enumerate(models):
        cells: list[object] = [model_cell(results, name)]
        for measure, _, scale, decimals in MAIN:
            row = found.get((name, measure), {})
            limits = interval(row.get("ci_low"), row.get("ci_high"), scale)
            cells.append(with_interval(number(row.get("mean"), decimals, scale), limits))
        for measure in ("recurrence_mean_gy", "painted_mean_gy"):
            row = found.get((name, measure), {})
            limits = interval(row.get("shift_low"), row.get("shift_high"), 1.0, sign=True)
            shift = with_interval(number(row.get("shift"), 1, sign=True), limits)
            cells.append("reference" if name == REFERENCE else shift)
        body.append(cells)
        if name == REFERENCE:
            emphasised.append(index)
    head = ["Model", *(title for _, title, _, _ in MAIN)]
    head += ["Shift by the plan, Gy", "Shift painted, Gy"]
    return table(head, body, (0,), emphasised)


def organ_titles(measures: Iterable[str]) -> dict[str, tuple[str, float]]:
    """Return title and scale of the measures that are of organs at risk, by organ."""
    kinds = {"_mean_gy": "Mean dose of the {}, Gy", "_d003cc_gy": "Near-maximum dose (D0.03cc) of the {}, Gy"}
    return {
        measure: (title.format(measure.removeprefix(ORGAN).removesuffix(kind)), 1.0)
        for measure in sorted({name for name in measures if name.startswith(ORGAN)})
        for kind, title in kinds.items()
        if measure.endswith(kind)
    }


def organs(results: Results, models: list[str], found: dict[tuple[str, str], Row]) -> str:
    """Return the doses of the organs at risk by model, with the shift against the standard plan; empty without any."""
    body = []
    for measure, (title, _) in organ_titles(measure for _, measure in found).items():
        for name in models:
            if row := found.get((name, measure)):
                limits = interval(row.get("ci_low"), row.get("ci_high"), 1.0)
                shifted = interval(row.get("shift_low"), row.get("shift_high"), 1.0, sign=True)
                shift = with_interval(number(row.get("shift"), 1, sign=True), shifted)
                mean = with_interval(number(row.get("mean"), 1), limits)
                body.append(
                    [
                        title,
                        model_cell(results, name),
                        int(row["n"]),
                        mean,
                        "reference" if name == REFERENCE else shift,
                    ]
                )
    if not body:
        return ""
    head = ["Organ at risk", "Model", "Patients", "Mean over the patients", "Shift against standard, Gy"]
    return table(head, body, (0, 1), sortable=True)


def every(results: Results, models: list[str], found: dict[tuple[str, str], Row]) -> str:
    """Return every measure of every model with its shift and exploratory p-value, folded."""
    titles = {measure: (title, scale) for measure, title, scale, _ in MAIN} | FOLDED
    body = []
    for measure, (title, scale) in titles.items():
        for name in models:
            if row := found.get((name, measure)):
                shift = number(row.get("shift"), 2, scale, sign=True)
                limits = ""
                if row.get("shift_low") is not None:
                    ends = (number(row[end], 2, scale, sign=True) for end in ("shift_low", "shift_high"))
                    limits = " to ".join(ends)
                body.append(
                    [
                        title,
                        model_cell(results, name),
                        int(row["n"]),
                        number(row.get("mean"), 2, scale),
                        with_interval(shift, limits),
                        p_value(row.get("p_pratt")),
                    ]
                )
    head = ["Measure", "Model", "Patients", "Mean", "Shift against standard [95 %]", "p (Pratt), exploratory"]
    return details("Every dose against the standard plan", table(head, body, (0, 1), sortable=True))
