"""Line plots drawn as SVG: panels side by side, one line per model, its interval as a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from predictgbm.report.figures import GRID, INK, MUTED, line, short, svg, text, ticks
from predictgbm.report.results import ModelStyle, Row

WIDTH, HEIGHT = 300, 250
#: Panels side by side; more go below.
COLUMNS = 3
LEFT, TOP, BOTTOM, GAP = 52, 52, 48, 26
DASHES = {"solid": "", "dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3"}


@dataclass(frozen=True)
class Curve:
    """One model's line: points (x, y) in order, and the ends of the interval at each, where they are known."""

    style: ModelStyle
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


def mean_curve(
    style: ModelStyle,
    rows: Sequence[Row],
    columns: tuple[str, str, str, str],
    scale: tuple[float, float] = (1, 1),
) -> Curve:
    """Return the line through the means in rows of a table, with its band where each of them has an interval.

    ``columns`` are those of x, of the mean, and of the interval's lower and upper end; ``scale`` is what x and the mean
    are multiplied by.
    """
    x, y, low, high = columns
    points = [(scale[0] * row[x], scale[1] * row[y]) for row in rows]
    band = [(scale[1] * row[low], scale[1] * row[high]) for row in rows if row.get(low) is not None]
    return Curve(style, points, band if len(band) == len(points) else ())


@dataclass(frozen=True)
class Axis:
    """Title of an axis and the range it shows."""

    title: str
    low: float
    high: float


Panels = Sequence[tuple[str, Sequence[Curve]]]


def line_rows(drawn: Panels) -> list[dict[str, object]]:
    """Return the points of lines in panels, with the ends of their intervals, for a table."""
    found: list[dict[str, object]] = []
    for title, curves in drawn:
        for curve in curves:
            for place, (x, y) in enumerate(curve.points):
                low, high = curve.band[place] if curve.band else (None, None)
                row = {"panel": title, "line": curve.style.name, "x": x, "y": y, "low": low, "high": high}
                found.append(row)
    return found


def panels(
    drawn: Panels, x: Axis, y: Axis, diagonal: bool = False, width: int = WIDTH, upright: float | None = None
) -> str:
    """Draw lines in panels that share their axes, :data:`COLUMNS` a row, and a legend below.

    Parameters
    ----------
    drawn
        Title and curves of each panel.
    x, y
        Axes.
    diagonal
        Whether to draw the line y = x for comparison.
    width
        Width of a panel.
    upright
        Where to draw an upright line for comparison.
    """
    parts = []
    row_height = TOP + HEIGHT + BOTTOM
    for index, (title, curves) in enumerate(drawn):
        row, column = divmod(index, COLUMNS)
        left = LEFT + column * (width + GAP)
        panel = text(left, TOP - 14, title, 13, weight=600) + _panel(
            left, curves, x, y, diagonal, width, upright, numbers=column == 0
        )
        parts.append(f'<g transform="translate(0 {row * row_height})">{panel}</g>' if row else panel)
    parts.append(text(4, 14, y.title, 12, color=MUTED))
    whole = LEFT + min(len(drawn), COLUMNS) * (width + GAP)
    styles = list(dict.fromkeys(curve.style for _, curves in drawn for curve in curves))
    legend, height = _legend(styles, whole, -(-len(drawn) // COLUMNS) * row_height)
    return svg(whole, height, "".join(parts) + legend, "; ".join(title for title, _ in drawn))


def _panel(
    left: float,
    curves: Sequence[Curve],
    x: Axis,
    y: Axis,
    diagonal: bool,
    width: int,
    upright: float | None,
    numbers: bool,
) -> str:
    def place(px: float, py: float) -> tuple[float, float]:
        across = left + width * (px - x.low) / (x.high - x.low)
        return across, TOP + HEIGHT * (1 - (py - y.low) / (y.high - y.low))

    parts = []
    for value in ticks(y.low, y.high):
        _, height = place(x.low, value)
        parts.append(line(left, height, left + width, height, GRID))
        if numbers:
            parts.append(text(left - 6, height + 4, f"{value:g}", 11, "end", MUTED))
    for value in ticks(x.low, x.high):
        across, _ = place(value, y.low)
        parts.append(line(across, TOP + HEIGHT, across, TOP + HEIGHT + 4, MUTED))
        parts.append(text(across, TOP + HEIGHT + 17, f"{value:g}", 11, "middle", MUTED))
    parts.append(text(left + width / 2, TOP + HEIGHT + 34, x.title, 12, "middle", INK))
    if diagonal:
        end = min(x.high, y.high)
        parts.append(line(*place(0, 0), *place(end, end), MUTED, extra=' stroke-dasharray="3 3"'))
    if upright is not None:
        parts.append(
            line(*place(upright, y.low), *place(upright, y.high), MUTED, extra=' stroke-dasharray="6 4"')
        )
    # Broken lines last: they let see what is below.
    for curve in sorted(curves, key=lambda curve: curve.style.dash != "solid"):
        if curve.band:
            ends = list(zip(curve.points, curve.band, strict=True))
            edge = [place(px, low) for (px, _), (low, _) in ends]
            edge += [place(px, high) for (px, _), (_, high) in reversed(ends)]
            parts.append(f'<path d="{_path(edge)}Z" fill="{curve.style.color}" fill-opacity="0.10"/>')
        parts.append(
            f'<path d="{_path([place(*point) for point in curve.points])}" fill="none" stroke="{curve.style.color}" '
            f'stroke-width="2"{_dash(curve.style)}><title>{escape(curve.style.title)}</title></path>'
        )
    return "".join(parts)


def _dash(style: ModelStyle) -> str:
    dashes = DASHES[style.dash]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)


def _legend(styles: Sequence[ModelStyle], width: float, top: float) -> tuple[str, float]:
    """Return the names of the lines, and how far down they reach."""
    columns = max(1, int((width - LEFT) // 170))
    parts = []
    for index, style in enumerate(styles):
        across, down = LEFT + 170 * (index % columns), top + 20 * (index // columns) + 8
        parts.append(line(across, down - 4, across + 24, down - 4, style.color, 2.5, _dash(style)))
        parts.append(text(across + 30, down, short(style.title, 20), 12))
    return "".join(parts), top + 20 * -(-len(styles) // columns) + 4
