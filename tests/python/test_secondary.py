"""Tables beside the primary endpoint, against figures worked out by hand."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from predictgbm.report import secondary
from predictgbm.report.results import Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Four patients in two cohorts, the last without a distance."""
    (tmp_path / "metrics.csv").write_text(
        "patient,cohort,model,coverage_enhancing,dice,hd95_mm,curve_area\n"
        "1,A,soc,0.5,0.1,10,0.5\n2,A,soc,0.5,0.2,20,0.5\n3,B,soc,0.5,0.3,30,0.5\n4,B,soc,0.5,0.4,,0.5\n"
        "1,A,loti,0.6,0.5,7,0.5\n"
    )
    (tmp_path / "correlations.csv").write_text(
        "model,covariate,n,rho,p\nloti,com_distance_cm,40,0.31,0.051\nloti,tumor_core_ml,41,-0.2,0.0004\n"
        "loti,recurrence_enhancing_ml,3,,\nsoc,com_distance_cm,2,,\n"
    )
    return Results(tmp_path)


def cells(html: str) -> list[list[str]]:
    """Return the texts of a table's body, row by row."""
    body = html.split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<td.*?</td>", row) for row in body.split("<tr>")[1:]]
    return [[unescape(re.sub(r"<.*?>", "", cell)) for cell in row] for row in rows]


def test_measures_by_data_set(results: Results) -> None:
    rows = {(row[0], row[1]): row[2:] for row in cells(secondary.measures(results))}
    assert sorted(rows) == [
        *(("Standard of care", "A"), ("Standard of care", "B"), ("Standard of care", "pooled")),
        *(("loti", "A"), ("loti", "pooled")),
    ]
    # Of 0.1 to 0.4 the standard deviation is 0.129, of 10 to 30 it is 10.
    assert rows["Standard of care", "pooled"][:3] == ["4", "0.25 ± 0.06", "0.25 [0.18 to 0.33]"]
    assert rows["Standard of care", "pooled"][3:5] == ["20.0 ± 5.8", "20.0 [15.0 to 25.0]"]
    assert rows["Standard of care", "B"][3:5] == ["30.0", "30.0 [30.0 to 30.0]"]
    assert rows["loti", "A"][:2] == ["1", "0.50"]


def test_gain_is_correlated_with_distance_and_both_volumes(results: Results) -> None:
    html = secondary.correlations(results)
    assert "Volume of the tumour core" in html
    assert cells(html) == [["loti", "0.31 (p = 0.051, n = 40)", "−0.20 (p = 4.0 × 10⁻⁴, n = 41)", "–"]]
    results.tables["correlations"] = []
    assert secondary.correlations(results) == ""
