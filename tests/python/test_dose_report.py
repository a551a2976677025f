"""Sections of the report on dose and calibration show what the tables tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from predictgbm.dose import dvh
from predictgbm.reliability import bin_sums
from predictgbm.report import dose, reliability
from predictgbm.report.line_plots import GAP, HEIGHT, LEFT, TOP, WIDTH, Axis, Curve, panels
from predictgbm.report.methods import methods_text
from predictgbm.report.results import Results
from predictgbm.statistics.dose import dose_tables
from predictgbm.statistics.reliability import calibration_tables
from predictgbm.tables import build

SVG = "{http://www.w3.org/2000/svg}"


def record(i: int, model: str) -> dict[str, Any]:
    """Return a patient: uniformly 50 + i Gy by the standard plan, 3 more by the model, which tells 30 % for 10 %."""
    gray = 50.0 + i + (3 if model == "mine" else 0)
    measures = {
        "recurrence_mean_gy": gray,
        "painted_mean_gy": gray,
        "recurrence_v95": 0.25,
        "integral_gy_l": 9.0,
    }
    histogram = dvh([gray]).tolist()
    entry = {"patient": f"{i:03d}", "cohort": "A", "model": model, "coverage_enhancing": 0.5}
    organ = {"organ": "chiasm", "volume_ml": 0.3, "mean_gy": 20.0, "d003cc_gy": gray - 7}
    entry["dose"] = {"measures": measures, "dvh": {"recurrence": histogram, "painted recurrence": histogram}}
    if i < 4:
        entry["dose"]["dvh"]["oar_chiasm"] = dvh([20.0]).tolist()
    entry["dose"]["organs"] = [organ]
    if model == "mine":
        entry["calibration"] = bin_sums(np.full(100, 0.3), np.arange(100) < 10).tolist()
    return entry


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    folder = tmp_path_factory.mktemp("report")
    records = [record(i, model) for i in range(6) for model in ("soc", "mine")]
    cohort = pd.Series({record["patient"]: "A" for record in records})
    tables = {"metrics": build("metrics", records)}
    tables |= dose_tables(records, cohort, "soc", 100, 1)
    tables |= calibration_tables(records, cohort, 1)
    for name, made in tables.items():
        made.to_csv(folder / f"{name}.csv", index=False)
    return Results(folder)


def lines(html: str, title: str) -> list[list[tuple[float, float]]]:
    """Return the points of every line of a model."""
    figure = ElementTree.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL).group())
    paths = [p for p in figure.iter(f"{SVG}path") if p.find(f"{SVG}title") is not None]
    return [
        [tuple(map(float, point.split())) for point in p.get("d")[1:].split("L")]
        for p in paths
        if p.find(f"{SVG}title").text == title
    ]


def test_dose_section(results: Results) -> None:
    how, html = dose.section(results)
    assert how.count(".") == 1
    assert "modelled, not planned" in html
    # 52.5 and 55.5 Gy on average, 3 Gy apart in every patient.
    assert re.findall(r"<td[^>]*>(52\.5|55\.5) <", html) == ["55.5", "55.5", "52.5", "52.5"]
    assert "+3.0" in html
    assert "25.0" in html
    # 7 Gy less at the hottest of the organ.
    cells = re.findall(r"Near-maximum dose \(D0.03cc\) of the chiasm, Gy</td>.*?</tr>", html, re.DOTALL)
    assert ["45.5" in cell for cell in cells[:2]].count(True) == 1
    assert any("48.5" in cell and "+3.0" in cell for cell in cells)
    drawn = lines(html, "mine")
    assert len(drawn) == 3
    # All recurrences get 40 Gy, half of them 56 Gy, none 59.
    at = {round((x - LEFT) / WIDTH * 80): (TOP + HEIGHT - y) / HEIGHT for x, y in drawn[0]}
    assert (at[40], at[56], at[59]) == pytest.approx((1, 0.5, 0), abs=1e-3)
    # The organ of four patients, all of whom got 20 Gy there.
    assert ">chiasm, n = 4<" in html
    at = {
        round((x - LEFT - 2 * (WIDTH + GAP)) / WIDTH * 80): (TOP + HEIGHT - y) / HEIGHT for x, y in drawn[2]
    }
    assert (at[20], at[21]) == pytest.approx((1, 0), abs=1e-3)


@pytest.mark.parametrize(("prescribed", "shown"), [(40.05, 53), (60, 80), (100, 133)])
def test_axis_follows_the_prescription(results: Results, prescribed: float, shown: int) -> None:
    """And lines end where it does: a hot spot beyond is in the table alone."""
    assert dose.dose_axis(prescribed).high == shown
    rows = [{"dose_gy": float(d), "volume": 0.5} for d in range(150)]
    drawn = dose.curve(results.styles["mine"], rows, dose.dose_axis(prescribed))
    assert drawn.points[-1] == (shown, 50)
    assert shown > 75 / 60 * prescribed, "painted dose"


def test_panels_of_many_organs_are_in_rows(results: Results) -> None:
    style = results.styles["mine"]
    axis = Axis("Dose, Gy", 0, 80)
    figure = ElementTree.fromstring(
        panels([(f"organ {k}", [Curve(style, [(0, 100), (80, 0)])]) for k in range(7)], axis, axis)
    )
    width, height = map(float, figure.get("viewBox").split()[2:])
    assert width == LEFT + 3 * (WIDTH + GAP)
    assert height > 3 * HEIGHT


def test_what_the_run_prescribed_is_told(results: Results, tmp_path: Path) -> None:
    assert (
        "60 Gy as the median of the plan with 3 mm around it, falling from 80 % to 20 % over 5.5 mm"
        in (dose.section(results)[1])
    )
    results.parameters = {"prescription": 40.05, "setup_margin": 5, "dose_falloff": 7}
    told = "40.05 Gy as the median of the plan with 5 mm around it"
    assert f"{told}, falling from 80 % to 20 % over 7 mm" in dose.section(results)[1]
    assert "of the plan with 5 mm around it" in methods_text(results)
    results.parameters = {}


def test_calibration_section(results: Results) -> None:
    how, html = reliability.section(results)
    assert how.count(".") == 1
    assert "Standard of care" not in html
    # Told 30 % where 10 % came: Brier 0.1 x 0.49 + 0.9 x 0.09, calibration error 0.2.
    assert "0.1300" in html
    assert "0.2000" in html
    ((point,),) = lines(html, "mine")
    assert ((point[0] - LEFT) / WIDTH, (TOP + HEIGHT - point[1]) / HEIGHT) == pytest.approx(
        (0.3, 0.1), abs=1e-3
    )


def test_methods_text(results: Results) -> None:
    text = methods_text(results)
    assert "modelled, not planned" in text
    for doi in ("10.1093%2Fjicru", "10.1016%2FS1470-2045", "10.1175%2F1520-0493"):
        assert doi.replace("%2F", "/") in text


def test_nothing_to_show(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert dose.section(results) is None
    assert reliability.section(results) is None
    assert "modelled" not in methods_text(results)
