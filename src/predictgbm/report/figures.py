"""Figures drawn as SVG: patient flow, paired coverage, distance against improvement, rankings, settings."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import pairwise

import numpy as np

from predictgbm.report.results import REFERENCE_COLOR

INK, MUTED, GRID = "#222222", "#666666", "#DDDDDD"
#: Blue and orange of the palette of Okabe and Ito.
BETTER, WORSE = "#0072B2", "#D55E00"
#: What the marks of :func:`significance` mean.
SIGNIFICANCE = (
    "* p < 0.05, ** p < 0.01, *** p < 0.001, n.s. p ≥ 0.05: signed-rank test against the standard plan, p adjusted by "
    "Holm; no mark, no test in the family"
)


@dataclass(frozen=True)
class Pair:
    """Coverage of one patient by the reference and by a model, as fractions."""

    patient: str
    reference: float
    model: float


@dataclass(frozen=True)
class Point:
    """One patient in a scatter plot."""

    patient: str
    x: float
    y: float


@dataclass(frozen=True)
class Panel:
    """One model's part of a figure made of small multiples."""

    title: str
    color: str
    note: str
    values: Sequence[Pair] | Sequence[Point]
    mark: str = ""


@dataclass(frozen=True)
class Contender:
    """One model in a critical-difference diagram."""

    title: str
    color: str
    mean_rank: float


@dataclass(frozen=True)
class RankShares:
    """One model in a rank-frequency plot: its rank, and the share of bootstraps with rank 1, 2, ..."""

    title: str
    color: str
    rank: int
    shares: Sequence[float]


@dataclass(frozen=True)
class Setting:
    """One row of a heat map: the models' ranks and gains in points in one setting, and the ranking's tau."""

    title: str
    ranks: Sequence[int | None]
    gains: Sequence[float | None]
    tau: float | None


def panel_rows(panels: Sequence[Panel]) -> list[dict[str, object]]:
    """Return the patients of all panels for a table."""
    return [{"model": panel.title, **asdict(value)} for panel in panels for value in panel.values]


def text(
    x: float,
    y: float,
    content: str,
    size: int = 12,
    anchor: str = "start",
    color: str = INK,
    weight: int = 400,
) -> str:
    """Return one line of text, escaped."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}" '
        f'font-weight="{weight}">{escape(content)}</text>'
    )


def significance(p: float | None) -> str:
    """Return the mark of an adjusted p-value, see :data:`SIGNIFICANCE`; empty where there is none."""
    if p is None:
        return ""
    return next((mark for mark, limit in (("***", 0.001), ("**", 0.01), ("*", 0.05)) if p < limit), "n.s.")


def short(title: str, width: int = 22) -> str:
    """Cut a title that would not fit its place."""
    return title if len(title) <= width else f"{title[: width - 1].rstrip()}…"


def line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1.0, extra: str = "") -> str:
    """Return a straight line."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}"{extra}/>'


def svg(width: float, height: float, content: str, label: str) -> str:
    """Wrap drawing commands; the figure shrinks with the page but is never enlarged."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="gbm-figure" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" role="img" aria-label="{escape(label)}" '
        f'font-family="system-ui, Helvetica, Arial, sans-serif">{content}</svg>'
    )


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers that lie in the interval, about ``wanted`` of them."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / wanted
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def flow_diagram(steps: Sequence[tuple[str, int]], reasons: Sequence[Sequence[tuple[str, int]]]) -> str:
    """Draw how many patients passed each step.

    Parameters
    ----------
    steps
        Name and number of patients after each step.
    reasons
        For each step, what took patients out on the way to it: reason and number. The first step has none.
    """
    box, side, gap, left, row = 400, 330, 50, 10, 17
    parts: list[str] = []
    center, y = left + box / 2, 10.0
    for index, (name, patients) in enumerate(steps):
        if index:
            lost = steps[index - 1][1] - patients
            entries = [f"{n} × {reason}" for reason, n in reasons[index]]
            lines = [part for entry in entries for part in textwrap.wrap(entry, 50, subsequent_indent="   ")]
            height = row * (len(lines) + 1) + 14
            drop = max(34.0, height + 14) if lost > 0 else 20.0
            parts.append(line(center, y, center, y + drop - 1, INK, 1.2, ' marker-end="url(#flow-arrow)"'))
            if lost > 0:
                x, middle = left + box + gap, y + drop / 2
                top = middle - height / 2
                parts.append(line(center, middle, x - 1, middle, INK, 1.2, ' marker-end="url(#flow-arrow)"'))
                parts.append(_box(x, top, side, height, "#FFFFFF", "#999999"))
                parts.append(text(x + 12, top + 20, f"{lost} left out", 12, weight=600))
                for i, entry in enumerate(lines):
                    parts.append(text(x + 12, top + 20 + row * (i + 1), entry, 12, color=MUTED))
            y += drop
        wrapped = textwrap.wrap(name[:1].upper() + name[1:], 46) or [""]
        height = row * len(wrapped) + 14
        parts.append(_box(left, y, box, height, "#F2F5F8", "#4A6076"))
        for i, entry in enumerate(wrapped):
            parts.append(text(left + 14, y + 20 + row * i, entry, 13))
        parts.append(text(left + box - 14, y + 13 + height / 2 - 8, f"n = {patients}", 13, "end", weight=700))
        y += height
    arrow = (
        '<defs><marker id="flow-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
    )
    width = left + box + (gap + side if any(a[1] > b[1] for a, b in pairwise(steps)) else 0) + 10
    return svg(width, y + 10, arrow + "".join(parts), "Flow of patients through the benchmark")


def _box(x: float, y: float, width: float, height: float, fill: str, stroke: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="1.2"/>'
    )


def _grid(
    panels: Sequence[Panel],
    draw: Callable[[Panel, bool], str],
    size: tuple[int, int],
    label: str,
    y_label: str,
    x_label: str,
) -> str:
    """Lay panels out in rows of up to four; ``draw`` gets a panel and whether it has the axis numbers."""
    width, height = size
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    parts = []
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        parts.append(
            f'<g transform="translate({50 + column * width} {row * height})">{draw(panel, column == 0)}</g>'
        )
    for row in range(rows):
        y = row * height + height / 2
        parts.append(
            f'<g transform="translate(14 {y:.0f}) rotate(-90)">{text(0, 0, y_label, 12, "middle", MUTED)}</g>'
        )
    said = textwrap.wrap(x_label, (50 + columns * width) // 7)
    for index, part in enumerate(said):
        y = rows * height + 14 + 16 * index
        parts.append(text(25 + columns * width / 2, y, part, 12, "middle", MUTED))
    foot = 8 + 16 * len(said) if said else 0
    return svg(50 + columns * width, rows * height + foot, "".join(parts), label)


def _y_axis(
    values: Iterable[float], scale: Callable[[float], float], x0: float, x1: float, numbers: bool
) -> str:
    parts = []
    for value in values:
        parts.append(line(x0, scale(value), x1, scale(value), GRID))
        if numbers:
            parts.append(text(x0 - 6, scale(value) + 4, f"{value:g}".replace("-", "−"), 11, "end", MUTED))
    return "".join(parts)


def paired_coverage(panels: Sequence[Panel], reference: str) -> str:
    """Draw coverage by the reference beside that by each model, one line per patient, boxes of the quartiles.

    Parameters
    ----------
    panels
        One per model, with :class:`Pair` values; a mark (:func:`significance`) stands on a bracket over both columns.
    reference
        Short title of the reference, below its column.
    """
    marked = any(panel.mark for panel in panels)
    width, height, top, bottom = 215, 330, 66 if marked else 48, 288
    x0, x1 = 4.0, width - 20.0
    left, right = 58.0, width - 74.0

    def scale(percentage: float) -> float:
        return bottom - (bottom - top) * percentage / 100.0

    def draw(panel: Panel, numbers: bool) -> str:
        pairs = [pair for pair in panel.values if isinstance(pair, Pair)]
        few, some = len(pairs) <= 30, len(pairs) <= 100
        faint, width_of_line, radius = (
            (0.75, 1.4, 3.4) if few else (0.4, 1.0, 2.4) if some else (0.22, 0.8, 1.8)
        )
        parts = [
            text(x0, 18, short(panel.title), 14, weight=700),
            text(x0, 35, panel.note, 11, color=MUTED),
            _y_axis((0, 25, 50, 75, 100), scale, x0, x1, numbers),
        ]
        if panel.mark:
            y, hook = top - 11, top - 6
            ends = f"{left},{hook} {left},{y} {right},{y} {right},{hook}"
            parts.append(f'<polyline points="{ends}" fill="none" stroke="{INK}"/>')
            parts.append(text((left + right) / 2, top - 14, panel.mark, 12, "middle"))
        for pair in sorted(pairs, key=lambda pair: pair.model > pair.reference):
            y1, y2 = scale(100 * pair.reference), scale(100 * pair.model)
            better = pair.model > pair.reference
            stroke = panel.color if better else "#8C8C8C"
            dash = "" if better else ' stroke-dasharray="4 3"'
            hover = (
                f"{pair.patient}: {reference} {100 * pair.reference:.1f} %, {panel.title} "
                f"{100 * pair.model:.1f} % ({100 * (pair.model - pair.reference):+.1f} points)"
            )
            parts.append(
                f'<g class="gbm-patient" data-patient="{escape(pair.patient)}" opacity="{faint}">'
                f"<title>{escape(hover)}</title>{line(left, y1, right, y2, stroke, width_of_line, dash)}"
                f'<circle cx="{left}" cy="{y1:.1f}" r="{radius}" fill="{REFERENCE_COLOR}"/><circle '
                f'cx="{right}" cy="{y2:.1f}" r="{radius}" fill="{panel.color}" stroke="{INK}" '
                'stroke-width=".4"/></g>'
            )
        parts.append(_quartiles([100 * pair.reference for pair in pairs], left - 24, scale, REFERENCE_COLOR))
        parts.append(_quartiles([100 * pair.model for pair in pairs], right + 24, scale, panel.color))
        parts.append(text(left - 12, bottom + 20, reference, 11, "middle", MUTED))
        parts.append(
            text(
                right + 12,
                bottom + 20,
                short(panel.title, 17),
                11,
                "middle",
                MUTED,
            )
        )
        return "".join(parts)

    return _grid(
        panels,
        draw,
        (width, height),
        "Coverage by patient",
        "Coverage of the recurrence, %",
        SIGNIFICANCE if marked else "",
    )


def _quartiles(values: Sequence[float], x: float, scale: Callable[[float], float], color: str) -> str:
    if not values:
        return ""
    q1, median, q3 = (scale(float(q)) for q in np.percentile(values, (25, 50, 75)))
    box = ""
    if len(values) >= 4:
        box = (
            f'<rect x="{x - 8:.1f}" y="{q3:.1f}" width="16" height="{max(q1 - q3, 0.5):.1f}" fill="{color}" '
            f'fill-opacity=".22" stroke="{color}"/>'
        )
    return f"{box}{line(x - 8, median, x + 8, median, INK, 2.2)}"


def distance_scatter(panels: Sequence[Panel], x_label: str, y_label: str) -> str:
    """Draw improvement over the reference against a covariate, a panel of points per model, axes shared."""
    points = [point for panel in panels for point in panel.values if isinstance(point, Point)]
    largest = max((point.x for point in points), default=1.0) * 1.05 or 1.0
    low = min([point.y for point in points] + [-5.0]) * 1.1
    high = max([point.y for point in points] + [5.0]) * 1.1
    width, height, top, bottom = 215, 270, 48, 232
    x0, x1 = 4.0, width - 20.0

    def scale_x(value: float) -> float:
        return x0 + 6 + (x1 - x0 - 12) * value / largest

    def scale_y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    def draw(panel: Panel, numbers: bool) -> str:
        parts = [text(x0, 18, short(panel.title), 14, weight=700), text(x0, 35, panel.note, 11, color=MUTED)]
        parts.append(_y_axis(ticks(low, high), scale_y, x0, x1, numbers))
        parts.append(line(x0, scale_y(0), x1, scale_y(0), REFERENCE_COLOR, 1.6))
        for value in ticks(0, largest, 4):
            parts.append(line(scale_x(value), bottom, scale_x(value), bottom + 4, MUTED))
            parts.append(text(scale_x(value), bottom + 17, f"{value:g}", 11, "middle", MUTED))
        parts.append(line(x0, bottom, x1, bottom, MUTED))
        radius = 4.0 if len(panel.values) <= 60 else 2.6
        for point in panel.values:
            if isinstance(point, Point):
                hover = f"{point.patient}: {point.x:.2f} cm, {point.y:+.1f} points"
                parts.append(
                    f'<g class="gbm-patient" data-patient="{escape(point.patient)}" '
                    f'opacity=".75"><title>{escape(hover)}</title><circle cx="{scale_x(point.x):.1f}" '
                    f'cy="{scale_y(point.y):.1f}" r="{radius}" fill="{panel.color}" stroke="{INK}" '
                    'stroke-width=".4"/></g>'
                )
        return "".join(parts)

    return _grid(panels, draw, (width, height), "Distance against improvement", y_label, x_label)


def critical_difference(models: Sequence[Contender], groups: Sequence[Sequence[int]]) -> str:
    """Draw mean ranks on a line, and a bar for every group of models that no test tells apart.

    A bar has a dot at each of its models, as it may pass over one that is not of its group (after Demsar 2006,
    J Mach Learn Res 7:1; groups from tests of pairs, without a single critical difference).

    Parameters
    ----------
    models
        Two or more; mean rank 1 is the best.
    groups
        Positions in ``models``, two or more in each group.
    """
    k = len(models)
    left, right, axis, step, row = 230.0, 650.0, 46.0, 13.0, 24.0
    order = sorted(range(k), key=lambda i: models[i].mean_rank)
    first = axis + 20 + step * len(groups) + 16

    def scale(rank: float) -> float:
        return left + (right - left) * (rank - 1) / (k - 1)

    parts = [text((left + right) / 2, 14, "Mean rank over the patients (1 is the best)", 12, "middle", MUTED)]
    parts.append(line(left, axis, right, axis, INK, 1.4))
    for rank in range(1, k + 1):
        parts.append(line(scale(rank), axis - 5, scale(rank), axis, INK, 1.4))
        parts.append(text(scale(rank), axis - 9, str(rank), 11, "middle", MUTED))
    half = -(-k // 2)
    for place, index in enumerate(order):
        model, on_left = models[index], place < half
        # The outermost models have the topmost labels, so that no two leads cross.
        y = first + row * (place if on_left else k - 1 - place)
        x, end = scale(model.mean_rank), left - 14 if on_left else right + 14
        outwards, anchor = (-1, "end") if on_left else (1, "start")
        parts.append(f"<g><title>{escape(f'{model.title}: mean rank {model.mean_rank:.2f}')}</title>")
        parts.append(line(x, axis, x, y, MUTED) + line(x, y, end, y, MUTED))
        parts.append(
            f'<circle cx="{end:.1f}" cy="{y:.1f}" r="5" fill="{model.color}" stroke="{INK}" stroke-width=".4"/>'
        )
        label = f"{short(model.title)}  {model.mean_rank:.2f}"
        parts.append(text(end + 10 * outwards, y + 4, label, 13, anchor) + "</g>")
    for index, group in enumerate(groups):
        y, places = axis + 20 + step * index, [scale(models[i].mean_rank) for i in group]
        named = f"Not told apart: {', '.join(models[i].title for i in group)}"
        parts.append(f'<g class="gbm-group"><title>{escape(named)}</title>')
        parts.append(line(min(places) - 4, y, max(places) + 4, y, INK, 3.4))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2" fill="{INK}"/>' for x in places]
        parts.append("</g>")
    height = first + row * (half - 1) + 18
    return svg(left + right, height, "".join(parts), "Critical-difference diagram of the mean ranks")


def rank_frequency(panels: Sequence[tuple[str, Sequence[RankShares]]]) -> str:
    """Draw how often each model has each rank: the area of a disc is the share, a square marks the rank itself.

    Parameters
    ----------
    panels
        Title of a way to rank, and the models in one order for all.
    """
    k = len(panels[0][1])
    cell, labels, gap, top = 26.0, 190.0, 30.0, 50.0
    wide = cell * max(k, 6)

    def draw(models: Sequence[RankShares], x0: float) -> Iterable[str]:
        for row, model in enumerate(models):
            y = top + cell * (row + 0.5)
            yield line(x0, y, x0 + cell * k, y, GRID)
            x = x0 + cell * (model.rank - 0.5)
            yield (
                f'<rect x="{x - 11.5:.1f}" y="{y - 11.5:.1f}" width="23" height="23" fill="none" '
                f'stroke="{INK}" stroke-width="1.2"/>'
            )
            for rank, share in enumerate(model.shares, 1):
                if share > 0:
                    hover = f"{model.title}: rank {rank} in {100 * share:.1f} % of the bootstraps"
                    yield (
                        f'<g><title>{escape(hover)}</title><circle cx="{x0 + cell * (rank - 0.5):.1f}" cy="{y:.1f}" '
                        f'r="{max(10.5 * math.sqrt(share), 0.8):.2f}" fill="{model.color}" stroke="{INK}" '
                        'stroke-width=".4"/></g>'
                    )

    parts = []
    for row, model in enumerate(panels[0][1]):
        parts.append(text(labels - 12, top + cell * (row + 0.5) + 4, short(model.title), 13, "end"))
    for column, (title, models) in enumerate(panels):
        x0 = labels + column * (wide + gap)
        parts.append(text(x0, 18, title, 14, weight=700))
        parts += [
            text(x0 + cell * (rank - 0.5), top - 8, str(rank), 11, "middle", MUTED)
            for rank in range(1, k + 1)
        ]
        parts += draw(models, x0)
    width = labels + len(panels) * (wide + gap)
    foot = text(
        labels + (width - labels - gap) / 2, top + cell * k + 18, "Rank (1 is the best)", 12, "middle", MUTED
    )
    return svg(width, top + cell * k + 28, "".join(parts) + foot, "Frequencies of the ranks")


def rank_heat_map(models: Sequence[str], groups: Sequence[tuple[str, Sequence[Setting]]]) -> str:
    """Draw each model's rank in each setting, on a ground that tells its gain over the reference.

    Parameters
    ----------
    models
        Titles, in the order of the columns.
    groups
        Title of what is varied, and its settings; each has a rank and a gain for every model, None if unknown.
    """
    left, cell, row, top = 250.0, 74.0, 25.0, 64.0
    settings = [setting for _, group in groups for setting in group]
    gains = [abs(gain) for setting in settings for gain in setting.gains if gain is not None]
    largest = max(gains, default=0.0) or 1.0
    parts = []
    for column, title in enumerate([*models, "τ"]):
        x, lines = left + cell * (column + 0.5), textwrap.wrap(short(title, 24), 11)[:3]
        for i, content in enumerate(lines):
            parts.append(text(x, top - 10 - 13 * (len(lines) - 1 - i), content, 11, "middle"))
    y = top
    for name, group in groups:
        parts.append(text(8, y + 17, name, 12, weight=700))
        for setting in group:
            parts.append(text(left - 12, y + 17, setting.title, 12, "end"))
            for column, (rank, gain) in enumerate(zip(setting.ranks, setting.gains, strict=True)):
                x = left + cell * column
                hover = f"{models[column]}, {name} {setting.title}: "
                hover += "unknown" if rank is None else f"rank {rank}, {gain or 0.0:+.1f} points"
                color = REFERENCE_COLOR if gain is None else BETTER if gain > 0 else WORSE
                strength = 0.0 if gain is None else 0.55 * abs(gain) / largest
                parts.append(
                    f'<g><title>{escape(hover)}</title><rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{cell - 2:.1f}" '
                    f'height="{row - 2:.1f}" fill="{color}" fill-opacity="{strength:.2f}" stroke="{GRID}"/>'
                )
                shown = "–" if rank is None else str(rank)
                parts.append(text(x + cell / 2, y + 17, shown, 13, "middle") + "</g>")
            tau = "–" if setting.tau is None else f"{setting.tau:.2f}".replace("-", "−")
            parts.append(text(left + cell * (len(models) + 0.5), y + 17, tau, 13, "middle", weight=700))
            y += row
        parts.append(line(8, y + 3, left + cell * (len(models) + 1), y + 3, GRID))
        y += 7
    said = f"Figures are ranks; blue: more coverage than the standard plan, orange: less (up to {largest:.1f} points)"
    parts.append(text(8, y + 16, said, 11, color=MUTED))
    width = max(left + cell * (len(models) + 1) + 8, 640)
    return svg(width, y + 26, "".join(parts), "Ranks of the models in other settings of the evaluation")
