"""Doses that were given: measured on arrays whose answers are known, in tables beside the plan, in the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from predictgbm.dose import dvh, evaluate_dose, evaluate_given_dose, organ_measures, plan_dose
from predictgbm.planning import RankOrder, soc_mask
from predictgbm.report import given_dose
from predictgbm.report.line_plots import HEIGHT, LEFT, TOP, WIDTH
from predictgbm.report.results import Results
from predictgbm.statistics.given_dose import given_dose_tables
from predictgbm.tables import build

SPACING = (2.0, 2.0, 2.0)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.moveaxis(np.indices(shape) * 2.0, 0, -1)
    return np.linalg.norm(grid - centre, axis=-1) <= radius


class TestMeasures:
    shape = (44, 44, 40)

    def masks(self) -> dict[str, np.ndarray]:
        recurrence = ball(self.shape, (62, 50, 40), 7) | ball(self.shape, (20, 30, 40), 5)
        return {
            "brain": ball(self.shape, (44, 44, 40), 40),
            "core": ball(self.shape, (36, 40, 40), 8),
            "recurrence": recurrence,
        }

    def test_modelled_dose_as_given_has_the_measures_of_the_model(self):
        masks = self.masks()
        soc = soc_mask(np.where(masks["core"], 3, 0), masks["brain"], SPACING)
        ranking = RankOrder(soc.astype(float), masks["core"], masks["brain"], SPACING)
        organs = {"stem": ball(self.shape, (44, 70, 40), 6)}
        modelled = evaluate_dose(soc, soc, ranking, spacing=SPACING, organs=organs, **masks)
        given = evaluate_given_dose(
            plan_dose(soc, SPACING), spacing=SPACING, prescribed_gy=60.0, organs=organs, **masks
        )
        shared = set(given["measures"]) & set(modelled["measures"])
        assert len(shared) == 10
        for name in shared:
            assert given["measures"][name] == pytest.approx(modelled["measures"][name]), name
        assert given["dvh"] == {k: v for k, v in modelled["dvh"].items() if k != "painted recurrence"}
        assert given["organs"] == modelled["organs"]
        # The area under the histogram of the organ is its mean dose.
        (organ,) = given["organs"]
        assert 5 < organ["mean_gy"] < 55
        assert np.trapezoid(given["dvh"]["oar_stem"]) == pytest.approx(organ["mean_gy"], abs=0.6)
        assert given["measures"]["core_mean_gy"] == pytest.approx(60, abs=0.5)

    @pytest.mark.parametrize(
        ("part", "pattern"),
        [
            *((1.0, "central"), (0.95, "central"), (0.94, "in-field"), (0.8, "in-field")),
            *((0.79, "marginal"), (0.2, "marginal"), (0.19, "distant"), (0.0, "distant")),
        ],
    )
    def test_pattern_by_the_isodose_of_what_was_prescribed(self, part, pattern):
        """Of a lesion of 100 voxels, a part gets exactly 95 % of 40 Gy, the rest a little less."""
        recurrence = np.zeros((100, 3, 3), bool)
        recurrence[:, 1, 1] = True
        dose = np.where(np.arange(100) < round(100 * part), 38.0, 37.9)[:, None, None] * np.ones((1, 3, 3))
        core, brain = np.zeros_like(recurrence), np.ones_like(recurrence)
        found = evaluate_given_dose(dose, recurrence, core, brain, (1.0, 1.0, 1.0), 40.0)
        (lesion,) = found["lesions"]
        assert (lesion["coverage_isodose"], lesion["pattern_isodose"]) == (pytest.approx(part), pattern)
        assert found["measures"]["recurrence_v95"] == pytest.approx(part)
        assert found["measures"]["brain_v50_ml"] == pytest.approx(0.9)
        assert np.isnan(found["measures"]["core_mean_gy"])

    def test_without_recurrence(self):
        masks = {**self.masks(), "recurrence": np.zeros(self.shape, bool)}
        found = evaluate_given_dose(np.full(self.shape, 30.0), spacing=SPACING, prescribed_gy=60.0, **masks)
        assert found["lesions"] == []
        assert set(found["dvh"]) == {"brain"}
        assert np.isnan(found["measures"]["recurrence_mean_gy"])
        assert found["measures"]["brain_mean_gy"] == 30

    def test_organs(self):
        """A ramp of dose along 100 voxels of 1 mm: D0.03cc lies where 30 of them are hotter."""
        dose = np.tile(np.arange(100.0)[:, None, None] + 0.5, (1, 2, 2))
        organs = {name: np.zeros(dose.shape, bool) for name in ("stem", "lens", "none")}
        organs["stem"][:, 0, 0] = True
        organs["lens"][:20, 0, 0] = True
        rows = {row["organ"]: row for row in organ_measures(dose, organs, (1.0, 1.0, 1.0))}
        assert rows["stem"] == {
            "organ": "stem",
            "volume_ml": pytest.approx(0.1),
            "mean_gy": pytest.approx(50),
            "d003cc_gy": pytest.approx(70),
        }
        assert (rows["lens"]["mean_gy"], rows["none"]["volume_ml"]) == (10, 0)
        assert np.isnan([rows["lens"]["d003cc_gy"], rows["none"]["mean_gy"], rows["none"]["d003cc_gy"]]).all()


def given(i: int) -> dict[str, Any]:
    """Return a patient whose recurrence got uniformly 50 + i Gy of 60; both lesions lie outside of the 95 % isodose."""
    gray = 50.0 + i
    return {
        "patient": f"P{i:02d}",
        "prescription_gy": 60.0,
        "measures": {"recurrence_mean_gy": gray, "brain_mean_gy": 10.0, "core_mean_gy": 59.0},
        "dvh": {"recurrence": dvh([gray]).tolist(), "brain": dvh([10.0]).tolist()}
        | ({"oar_stem": dvh([12.0]).tolist()} if i > 2 else {}),
        "lesions": [
            {"lesion": 1, "volume_ml": 2.0, "coverage_isodose": 0.1, "pattern_isodose": "distant"},
            {"lesion": 2, "volume_ml": 1.0, "coverage_isodose": 0.9, "pattern_isodose": "in-field"},
        ],
        "organs": [{"organ": "stem", "volume_ml": 20.0, "mean_gy": 12.0, "d003cc_gy": 54.0}],
    }


def record(i: int, model: str) -> dict[str, Any]:
    """Return what a plan did for a patient: 2 Gy more than was given by the standard plan, and 9 by another."""
    gray = 50.0 + i + {"soc": 2.0, "mine": 9.0}[model]
    histogram = dvh([gray]).tolist()
    return {
        "patient": f"P{i:02d}",
        "model": model,
        "dose": {
            "measures": {"recurrence_mean_gy": gray, "brain_mean_gy": 10.0 - i % 2},
            "dvh": {"recurrence": histogram, "painted recurrence": histogram},
            "organs": [{"organ": "stem", "volume_ml": 20.0, "mean_gy": 12.0, "d003cc_gy": 55.0}],
        },
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """Six patients with a dose, one of whom was not evaluated; and two without."""
    records = [record(i, model) for i in range(1, 8) for model in ("soc", "mine")]
    cohort = pd.Series({f"P{i:02d}": "A" for i in range(1, 8)})
    lesions = build(
        "lesions",
        [
            {
                "patient": f"P{i:02d}",
                "model": model,
                "lesion": number,
                "volume_ml": 3.0 - number,
                "coverage_standard": part,
                "pattern": pattern,
            }
            for i in range(1, 8)
            for model in ("soc", "mine")
            for number, part, pattern in ((1, 1.0, "central"), (2, 0.0, "distant"))
        ],
    )
    return given_dose_tables([given(i) for i in range(6)], records, lesions, cohort, "soc", 200, 1)


def test_tables(tables):
    patients = tables["given_dose"].set_index("patient")
    assert patients.index.tolist() == [f"P{i:02d}" for i in range(6)]
    assert patients.loc["P03", "recurrence_mean_gy"] == 53
    # Most of the volume decides: the first lesion's.
    assert patients.loc["P03", ["pattern_isodose", "pattern_standard"]].tolist() == ["distant", "central"]
    assert patients.loc["P00", "pattern_isodose"] == "distant"
    assert pd.isna(patients.loc["P00", "pattern_standard"])
    lesions = tables["given_lesions"].set_index(["patient", "lesion"])
    assert lesions.loc[("P04", 2), ["pattern_isodose", "pattern_standard"]].tolist() == [
        "in-field",
        "distant",
    ]
    assert lesions.loc[("P04", 2), "coverage_standard"] == 0
    summary = tables["given_summary"].set_index("measure")
    # Five evaluated patients with 51 to 55 Gy, each 2 Gy below the model.
    row = summary.loc["recurrence_mean_gy"]
    assert (row["n"], row["mean"], row["n_paired"], row["shift"]) == (5, 53, 5, -2)
    assert summary.loc["core_mean_gy", "n"] == 5
    assert pd.isna(summary.loc["core_mean_gy", "shift"])
    assert tables["given_organs"]["d003cc_gy"].tolist() == [54] * 6
    assert (summary.loc["oar_stem_d003cc_gy", "n"], summary.loc["oar_stem_d003cc_gy", "shift"]) == (5, -1)
    curves = tables["given_dvh"].set_index(["source", "structure", "dose_gy"])
    assert set(curves.index.droplevel(2)) == {
        ("given", "recurrence"),
        ("given", "brain"),
        ("standard", "recurrence"),
        ("given", "oar_stem"),
    }
    # To the hottest, 57 Gy by the model, and one beyond.
    assert len(curves) == 4 * 59
    # The mean is over the patients who have the organ.
    stem = curves.loc[("given", "oar_stem")]
    assert stem.loc[[12.0, 13.0, 58.0], ["n", "volume"]].values.tolist() == [[3, 1], [3, 0], [3, 0]]
    # At 54 Gy two of five were given as much; by the model it is four.
    at = [curves.loc[(source, "recurrence", 54.0), "volume"] for source in ("given", "standard")]
    assert at == pytest.approx([0.4, 0.8])


def test_nothing_given():
    empty = given_dose_tables(
        [], [record(1, "soc")], build("lesions", []), pd.Series({"P01": "A"}), "soc", 200, 1
    )
    assert all(table.empty for table in empty.values())


def test_dose_without_a_modelled_one_and_without_recurrence():
    alone = given(1) | {"lesions": [], "organs": [], "dvh": {"brain": dvh([10.0]).tolist()}}
    made = given_dose_tables([alone], [], build("lesions", []), pd.Series(dtype=object), "soc", 200, 1)
    assert len(made["given_dose"]) == 1
    assert all(made[n].empty for n in ("given_lesions", "given_organs", "given_summary", "given_dvh"))


@pytest.fixture(scope="module")
def results(tmp_path_factory, tables) -> Results:
    folder = tmp_path_factory.mktemp("report")
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return Results(folder)


class TestReport:
    def test_section(self, results):
        how, html = given_dose.section(results)
        assert how.count(".") == 1
        assert "known of 6 patients, prescribed 60 Gy" in html
        assert "−2.00" in html
        assert "Near-maximum dose (D0.03cc) of the stem, Gy" in html
        figure = ElementTree.fromstring(re.search(r"<svg.*?</svg>", html, re.DOTALL).group())
        svg = "{http://www.w3.org/2000/svg}"
        drawn = {}
        for path in figure.iter(f"{svg}path"):
            if (title := path.find(f"{svg}title")) is not None:
                drawn.setdefault(title.text, path.get("d"))
        assert set(drawn) == {"Given dose", "Modelled dose"}
        points = [tuple(map(float, point.split())) for point in drawn["Given dose"][1:].split("L")]
        at = {round((x - LEFT) / WIDTH * 80): (TOP + HEIGHT - y) / HEIGHT for x, y in points}
        assert (at[50], at[54], at[56]) == pytest.approx((1, 0.4, 0), abs=1e-3)
        assert "stem, n = 3" in [word.text for word in figure.iter(f"{svg}text")]

    def test_axis_follows_the_highest_prescription(self, results):
        """A patient prescribed 75 Gy: shown to 100."""
        # The volume's axis ends at 100, too.
        assert given_dose.histograms(results).count(">100<") == 1
        rows, results.tables["given_dose"] = results.tables["given_dose"], [{"prescription_gy": 75.0}]
        try:
            assert given_dose.histograms(results).count(">100<") == 1 + 3
        finally:
            results.tables["given_dose"] = rows

    def test_patterns_by_both_judges(self, results):
        """Five lesions distant by treatment are central by the standard plan, five in-field are distant."""
        html = given_dose.crossed(results)
        rows = [
            re.findall(r"<t[dh][^>]*>(?:<[^>]*>)*([^<]*)", row)
            for row in re.findall(r"<tr.*?</tr>", html, re.S)
        ]
        body = {row[0]: row[1:] for row in rows[1:]}
        assert body["distant"] == ["5", "0", "0", "0", "5", "10.0"]
        assert body["in-field"] == ["0", "0", "0", "5", "5", "5.0"]
        assert body["central"][-2] == "0"

    def test_nothing_to_show(self, tmp_path: Path):
        assert given_dose.section(Results(tmp_path)) is None
