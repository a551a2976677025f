"""Numbers and tables as HTML; every text that comes from outside is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from predictgbm.report.results import Drawn, Results, Row, subject

MISSING = "–"
#: Where viewer pages, tables, figures and pictures are, seen from the report.
VIEWER, TABLES_PLACE, FIGURES_PLACE, PICTURES_PLACE = "../viewer", "../tables", "../figures", "../qc"


class Html(str):
    """Text that is HTML already and must not be escaped again."""


def cell(value: object) -> Html:
    """Return a value as HTML: escaped unless it is :class:`Html`, a dash for None."""
    if value is None:
        return Html(MISSING)
    return value if isinstance(value, Html) else Html(escape(str(value)))


def number(value: float | None, decimals: int = 1, scale: float = 1.0, sign: bool = False) -> str:
    """Format a number with a true minus sign; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value * scale:{'+' if sign else ''}.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    """Format a fraction as a percentage without the sign %."""
    return number(value, 1, 100.0)


def interval(low: float | None, high: float | None, scale: float = 100.0, sign: bool = False) -> str:
    """Format an interval as ``low to high``; empty where it is not known."""
    if low is None or high is None:
        return ""
    return f"{number(low, 1, scale, sign)} to {number(high, 1, scale, sign)}"


def p_value(p: float | None) -> str:
    """Format a p-value: two significant digits, powers of ten below 0.001."""
    if p is None:
        return MISSING
    if p >= 0.995:
        return "1.00"
    if p >= 0.001:
        return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    if p <= 0:
        return "0"
    mantissa, exponent = f"{p:.1e}".split("e")
    digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} × 10{digits}"


def duration(seconds: float | None) -> str:
    """Format seconds for reading: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``1 h 05 min``."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(size: float | None) -> str:
    """Format bytes for reading, in MB or GB of 1024."""
    if size is None:
        return MISSING
    megabytes = size / 2**20
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def count(n: int, one: str, many: str | None = None) -> str:
    """Return ``1 patient``, ``2 patients``."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def readable(code: str) -> str:
    """Return a reason code as words."""
    return code.replace("_", " ").replace("followup", "follow-up")


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    text_columns: Iterable[int] = (0,),
    emphasised: Iterable[int] = (),
    sortable: bool = False,
) -> Html:
    """Lay out a table.

    Parameters
    ----------
    head
        Column titles.
    rows
        Cells row by row.
    text_columns
        Columns aligned to the left; all others hold figures and are aligned to the right.
    emphasised
        Rows with a shaded ground.
    sortable
        Whether a click on a column title sorts the rows.
    """
    left, shaded = set(text_columns), set(emphasised)

    def line(tag: str, cells: Sequence[object]) -> str:
        classes = ["" if i in left else ' class="figure-cell"' for i in range(len(cells))]
        return "".join(f"<{tag}{c}>{cell(v)}</{tag}>" for c, v in zip(classes, cells, strict=True))

    body = "".join(
        f"<tr{' class=emphasised' if i in shaded else ''}>{line('td', row)}</tr>"
        for i, row in enumerate(rows)
    )
    kind = "gbm-table sortable" if sortable else "gbm-table"
    return Html(
        f'<div class="gbm-scroll"><table class="{kind}"><thead><tr>{line("th", head)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def details(title: str, content: str) -> Html:
    """Hide content behind a line that opens it."""
    return Html(f'<details class="gbm-details"><summary>{escape(title)}</summary>{content}</details>')


def model_cell(results: Results, name: str) -> Html:
    """Return a model's title with its colour."""
    style = results.styles[name]
    return Html(f'<span class="gbm-swatch" style="background:{style.color}"></span>{escape(style.title)}')


def with_interval(value: str, limits: str) -> Html:
    """Return a value with its interval beside it, smaller."""
    return Html(f'{value} <span class="gbm-interval">[{limits}]</span>' if limits else value)


def downloadable(results: Results, svg: str, rows: Sequence[Row], name: str, *tables: str) -> str:
    """Put a figure in a frame with links that save it, and links to its numbers and the tables it is drawn from.

    The figure is kept in ``results``, to be published as a file.
    """
    results.figures[name] = Drawn(svg, rows)
    links = "".join(
        f'<a href="#" class="gbm-save" data-name="{name}" data-kind="{kind}">{kind.upper()}</a> '
        for kind in ("svg", "png")
    )
    caption = f"Save as {links}{data_links(name, *tables)}"
    return f'<figure class="gbm-frame">{svg}<figcaption>{caption}</figcaption></figure>'


def data_links(figure: str, *tables: str) -> str:
    """Return links to the numbers of a figure and to tables of the run, as CSV."""
    links = [f'<a href="{FIGURES_PLACE}/{figure}.csv" download>this figure</a>']
    links += [f'<a href="{TABLES_PLACE}/{name}.csv" download>{name}</a>' for name in tables]
    return f'<span class="gbm-data">Data as CSV: {", ".join(links)}</span>'


def points(value: float | None, sign: bool = False) -> str:
    """Format a difference of coverage in percentage points."""
    return number(value, 1, 100, sign)


def estimate(row: Row, name: str) -> str:
    """Return an effect with its interval, from columns ``name``, ``name_low`` and ``name_high``."""
    limits = interval(row.get(f"{name}_low"), row.get(f"{name}_high"), sign=True)
    return with_interval(points(row.get(name), sign=True), limits)


def viewer_link(patient: str, label: str | None = None) -> Html:
    """Return a link to the viewer page of a patient."""
    name = subject(patient)
    return Html(f'<a href="{escape(f"{VIEWER}/{name}.html")}" target="_blank">{escape(label or patient)}</a>')
