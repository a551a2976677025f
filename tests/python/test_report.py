"""The report and the headline for the terminal, on small tables from a seeded generator."""

from __future__ import annotations

import base64
import csv
import io
import json
import queue
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_dose_report import record as dose_record
from test_given_dose import given as given_entry
from test_given_dose import record as given_record

from predictgbm.guidelines.presets import GUIDELINES
from predictgbm.quality import STAGES, TRIAL
from predictgbm.report import figures, gallery, robustness, worst
from predictgbm.report.formatting import duration, memory, number, p_value, table
from predictgbm.report.methods import Reference, References, methods_text, verdict
from predictgbm.report.recurrence import Mark, interval_panels
from predictgbm.report.results import (
    REFERENCE_COLOR,
    Results,
    parse_bytes,
    parse_seconds,
    read_table,
    read_trace,
)
from predictgbm.statistics.benchmark import make_tables
from predictgbm.statistics.dose import dose_tables
from predictgbm.statistics.given_dose import given_dose_tables
from predictgbm.statistics.guidelines import guideline_comparisons, guideline_rows
from predictgbm.statistics.reliability import calibration_tables
from predictgbm.tables import build as build_table

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
GAIN = {"soc": 0.0, "distance": 0.005, "loti": 0.04, "fisherkpp": 0.07, "mine": -0.1}
#: Tables of a run that the benchmark's own statistics make.
MADE = [
    "lesions",
    "pairwise",
    "rankings",
    "rank_frequencies",
    "curve_summary",
    "volume_saved",
    "recurrence_patterns",
    "coverage_by_pattern",
    "causes",
    "cause_frequencies",
]
#: What a shell would read otherwise.
FREE_TEXT = 'Bob\'s 50 $HOME `id` "two" \\ <b>'
#: The title an outside model would use to take over the page.
EVIL = '<img src=x onerror=document.title="taken"> & "mine"'


def write_csv(path: Path, rows: list[dict[str, Any]], columns: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns.split() or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_trace(path: Path, patients: list[str], raw: bool, models: list[str]) -> None:
    rows = []
    for i, patient in enumerate(patients):
        for j, model in enumerate(models):
            milliseconds, size = 1500 + 1000 * i + 40000 * j, (100 + 50 * i + 400 * j) * 2**20
            rows.append(
                {
                    "task_id": len(rows) + 1,
                    "hash": f"{i:02x}/{j:06x}",
                    "native_id": 100 + len(rows),
                    "name": f"PREDICTGBM:PREDICT:MODEL_PREDICT (sub-{patient}_ses-pre {model})",
                    "status": "COMPLETED" if i else "CACHED",
                    "exit": 0,
                    "submit": 0,
                    "duration": milliseconds + 500 if raw else f"{(milliseconds + 500) / 1000:g}s",
                    "realtime": milliseconds if raw else f"{milliseconds / 1000:g}s",
                    "%cpu": "150",
                    "peak_rss": size if raw else f"{size / 2**20:g} MB",
                    "peak_vmem": 0,
                    "rchar": 0,
                    "wchar": 0,
                }
            )
    rows.append({**rows[-1], "status": "FAILED", "realtime": 10**9, "exit": 137})
    rows.append({**rows[0], "name": "PREDICTGBM:PLAN:PLAN_MAKE (sub-001_ses-pre soc)", "status": "COMPLETED"})
    write_csv_tab(path, rows)


def write_csv_tab(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def write_run(
    folder: Path,
    n: int = 6,
    seed: int = 1,
    scored: bool = True,
    simulated: bool = True,
    pictures: bool = True,
) -> Path:
    """Write what a run of ``n`` patients hands to the report, as the pipeline lays it out."""
    rng = np.random.default_rng(seed)
    tables = folder / "tables"
    tables.mkdir(parents=True)
    patients = [f"{i + 1:03d}" for i in range(n)]
    models = list(GAIN)
    cohorts = ["RHUH", "LUMIERE", "TUM"]
    base = rng.beta(4, 2, n)
    distances = rng.gamma(4, 0.45, n)
    metrics: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    for i, patient in enumerate(patients):
        core, recurrence = rng.lognormal(3.2, 0.5), rng.lognormal(1.8, 0.6)
        person = {
            "patient": patient,
            "cohort": cohorts[i % 3],
            "session": "pre",
            "followup_session": "fu1" if scored else "",
            "days": int(rng.integers(90, 400)) if scored else "",
            "status": "evaluated" if scored else "predicted",
            "reason_code": "",
            "reason": "",
            "tumor_core_ml": round(core, 3),
            "tumor_whole_ml": round(core * 2.5, 3),
            "recurrence_enhancing_ml": round(recurrence, 3) if scored else "",
            "com_distance_cm": round(distances[i], 3) if scored else "",
            "tissue": "given",
        }
        people.append(person)
        for model in models:
            if not scored or (model == "loti" and i == 1):
                continue
            coverage = (
                0.0
                if i == 2 and n < 10
                else float(np.clip(base[i] + GAIN[model] + (model != "soc") * rng.normal(0, 0.04), 0, 1))
            )
            metrics.append(
                {key: person[key] for key in ("patient", "session", "cohort", "followup_session", "days")}
                | {"model": model, "coverage_enhancing": coverage, "coverage_core": coverage * 0.98}
                | {
                    "coverage_all": coverage * 0.8,
                    "dice": 0.1 * coverage,
                    "hd95_mm": 30 - 10 * coverage,
                    "plan_ml": 150,
                }
                | {
                    "recurrence_enhancing_ml": recurrence,
                    "recurrence_core_ml": recurrence,
                    "tumor_core_ml": core,
                }
                | {"tumor_whole_ml": 2.5 * core, "com_distance_cm": distances[i], "n_lesions": 1}
                | {"curve_area": coverage, "volume_at_soc_coverage_ml": 150 * (1 - GAIN[model]), "reason": ""}
            )
            for fraction in np.arange(0.05, 2.001, 0.05):
                value = coverage ** (1 / fraction) if coverage else 0.0
                curves.append(
                    {
                        "patient": patient,
                        "model": model,
                        "fraction": f"{fraction:.2f}",
                        "coverage_enhancing": value,
                    }
                )
    for patient, code in (("900", "followup_too_early"), ("901", "no_followup")):
        excluded = {
            "status": "excluded",
            "reason_code": code,
            "reason": f"why {patient} is out",
            "cohort": "TUM",
        }
        people.append({**dict.fromkeys(people[0], ""), **excluded, "patient": patient})
    write_csv(tables / "cohort.csv", people)
    if scored:
        write_csv(tables / "metrics.csv", metrics)
        write_statistics(tables, metrics, models)
        made, facts = make_tables(records(metrics, curves), {}, [], draws=100, ranking_draws=100)
        for name in MADE:
            made[name].to_csv(tables / f"{name}.csv", index=False)
    failed = {
        "patient": "002",
        "session": "pre",
        "model": "loti",
        "stage": "model",
        "kind": "missing_input",
        "analysis": "main",
        "reason": "map is <constant>",
    }
    write_csv(
        tables / "failures.csv",
        [failed] if n < 100 else [],
        "patient session model stage kind analysis reason",
    )
    steps = {"in the samplesheet": n + 2, "with a follow-up": n + 1, "late enough": n}
    flow = [{"step": step, "patients": left} for step, left in steps.items()]
    (tables / "statistics.json").write_text(
        json.dumps(
            {
                "seed": 0,
                "n_bootstrap": 10000,
                "family": [],
                "primary": "enhancing",
                "flow": flow,
                "simulated": simulated,
                "ranking": facts["ranking"] if scored else None,
            }
        )
    )
    write_trace(folder / "trace.txt", patients, raw=True, models=models)
    (folder / "software_versions.yml").write_text(
        '"MODEL_PREDICT":\n  python: "3.11.7"\n  numba: 0.60\n"PLAN_MAKE":\n  python: "3.11.7"\n'
    )
    (folder / "params.json").write_text(
        json.dumps(
            {
                "atlas_space": "MNI152",
                "margin": 15,
                "min_followup_days": 84,
                "followup_rule": "first",
                "simulate": n,
                "multiqc_title": FREE_TEXT,
            }
        )
    )
    (folder / "models" / "1").mkdir(parents=True)
    (folder / "models" / "1" / "models.yml").symlink_to(ROOT / "assets" / "models.yml")
    (folder / "models" / "2").mkdir()
    (folder / "models" / "2" / "ours.yml").write_text(
        json.dumps({"models": [{"name": "mine", "title": EVIL, "container": "x"}]})
    )
    if pictures:
        write_pictures(folder / "pictures", patients, rng)
    write_card(folder / "networks" / "1", patients, simulated)
    return folder


def records(metrics: list[dict[str, Any]], curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what evaluate_plan.py would have written: two lesions, the smaller one far from the tumour."""
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in curves:
        points.setdefault((row["patient"], row["model"]), []).append(row)
    found = []
    for row in metrics:
        own = points[row["patient"], row["model"]]
        curve = {name: [float(c[name]) for c in own] for name in ("fraction", "coverage_enhancing")}
        volume, covered = row["recurrence_enhancing_ml"], row["coverage_enhancing"]
        lesions = [
            {"lesion": 1, "volume_ml": 0.75 * volume, "coverage": covered}
            | {"core_distance_mm": 0.0, "coverage_standard": 0.97, "pattern": "central"},
            {"lesion": 2, "volume_ml": 0.25 * volume, "coverage": 0.5 * covered}
            | {"core_distance_mm": 31.5, "coverage_standard": 0.0, "pattern": "distant"},
        ]
        found.append(row | {"curve": curve, "lesions": lesions, "recurrence_outside_brain_ml": 0.0})
    return found


def write_card(folder: Path, patients: list[str], simulated: bool) -> None:
    """Write the card of ``mine``, whose two networks learned from all but the first patient and all but the last."""
    networks = {
        f"split-{k}_seed-0": {
            "training": seen[:-1],
            "validation": seen[-1:],
            "history": [[0.9, 0.8 - k / 10], [0.7, 0.61], [0.6, 0.75]],
            "best_epoch": 2,
            "device": "CPU",
        }
        for k, seen in ((1, patients[1:]), (2, patients[:-1]))
    }
    card = {"model": "unet", "name": "mine", "simulated": simulated, "settings": {"base": 8}, "code": "0.1.0"}
    card |= {"cohorts": dict.fromkeys(patients, "A"), "networks": networks}
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card))


def write_statistics(tables: Path, metrics: list[dict[str, Any]], models: list[str]) -> None:
    summary, comparisons, correlations = [], [], []
    for definition in ("enhancing", "core", "all"):
        column = f"coverage_{definition}"
        reference = {row["patient"]: row[column] for row in metrics if row["model"] == "soc"}
        for model in models:
            rows = [row for row in metrics if row["model"] == model]
            values = np.array([row[column] for row in rows])
            sem = values.std(ddof=1) / len(values) ** 0.5
            q1, middle, q3 = np.percentile(values, (25, 50, 75))
            summary.append(
                {
                    "model": model,
                    "dataset": "pooled",
                    "definition": definition,
                    "n": len(values),
                    "mean": values.mean(),
                }
                | {"sd": values.std(ddof=1), "sem": sem, "median": middle, "q1": q1, "q3": q3}
                | {"ci_low": values.mean() - 2 * sem, "ci_high": min(1, values.mean() + 2 * sem)}
                | {
                    "median_ci_low": q1,
                    "median_ci_high": q3,
                    "mean_missing_as_zero": values.sum() / len(reference),
                }
            )
            if model == "soc":
                continue
            shifts = values - np.array([reference[row["patient"]] for row in rows])
            comparisons.append(
                {
                    "model": model,
                    "dataset": "pooled",
                    "definition": definition,
                    "in_family": definition == "enhancing",
                    "identical": False,
                }
                | {"n": len(shifts), "n_zero": int((shifts == 0).sum()), "n_tied": 0}
                | {
                    "p_pratt": 0.03125,
                    "p_wilcox": 0.0625,
                    "p_signflip": 0.04,
                    "p_adjusted": 5.7e-6 if model == "fisherkpp" else 0.125,
                }
                | {
                    "mean_gain": shifts.mean(),
                    "mean_gain_low": shifts.mean() - 0.02,
                    "mean_gain_high": shifts.mean() + 0.02,
                    "shift": np.median(shifts),
                    "shift_low": np.median(shifts) - 0.02,
                    "shift_high": np.median(shifts) + 0.02,
                }
                | {"rank_biserial": 0.9}
            )
            if definition == "enhancing":
                correlations.append(
                    {"model": model, "covariate": "com_distance_cm", "n": len(shifts), "rho": 0.31, "p": 0.12}
                )
    write_csv(tables / "summary.csv", summary)
    write_csv(tables / "comparisons.csv", comparisons)
    write_csv(tables / "correlations.csv", correlations)


def write_pictures(folder: Path, patients: list[str], rng: np.random.Generator) -> None:
    folder.mkdir()
    for patient in patients:
        noise = rng.integers(0, 255, (60, 180, 3), np.uint8)
        stem = folder / f"sub-{patient}_ses-pre_desc-qc"
        Image.fromarray(noise).resize((1800, 600), Image.Resampling.BICUBIC).save(stem.with_suffix(".png"))
        stem.with_suffix(".json").write_text(
            json.dumps({"caption": f"Patient {patient}: <b>labels</b> follow the tumour."})
        )
        missed = folder / f"sub-{patient}_ses-pre_desc-missed"
        missed.mkdir()
        for model in GAIN:
            small = rng.integers(0, 255, (26, 38, 3), np.uint8)
            Image.fromarray(small).resize((380, 260)).save(missed / f"{model}.webp")


class Page(HTMLParser):
    """What a reader and a browser find in a page: texts in order, and attributes of every element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._silent = ""
        self._main = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._main |= dict(attrs).get("class") == "mainpage"
        if tag in ("script", "style", "svg", "noscript"):
            self._silent = self._silent or tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = ""

    def handle_data(self, data: str) -> None:
        if self._main and not self._silent and data.strip():
            self.texts.append(" ".join(data.split()))

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for name, found in self.elements if name == tag and (value := found.get(attribute))]


def build(run: Path) -> str:
    """Run MultiQC as the pipeline does: in a work folder of Nextflow, on links to the inputs."""
    work = run.parent / "work" / "ab" / "0123456789abcdef0123456789abcd"
    work.mkdir(parents=True)
    for path in run.iterdir():
        (work / path.name).symlink_to(path)
    config = ROOT / "assets" / "multiqc_config.yml"
    command = [str(Path(sys.executable).parent / "multiqc"), "--force", "--config", str(config), "."]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in work.glob("multiqc*")] == ["multiqc_report.html"]
    return (work / "multiqc_report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def report(run: Path) -> str:
    return build(run)


@pytest.fixture(scope="module")
def page(report: str) -> Page:
    return Page(report)


def sections(page: Page) -> list[str]:
    ids = [found.get("id") or "" for _, found in page.elements]
    return [
        i.removeprefix("mqc-section-wrapper-predictgbm-") for i in ids if i.startswith("mqc-section-wrapper")
    ]


def test_report_begins_with_the_warning_and_answers_in_order(page: Page) -> None:
    assert page.texts[0].startswith("SIMULATED DATA")
    expected = (
        "headline cohort patients curve ranking distance recurrence worst resources networks failures gallery methods "
        "versions"
    )
    assert sections(page) == expected.split()


def test_headline_shows_the_means_of_the_metrics(run: Path, page: Page) -> None:
    with (run / "tables" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    start = page.texts.index("Better / equal / worse")
    shown = page.texts[start : start + 50]
    titles = {"soc": "Standard of care", "distance": "Distance to core", "loti": "LOTI"}
    for model, title in {**titles, "fisherkpp": "Fisher-KPP", "mine": EVIL}.items():
        values = [100 * float(row["coverage_enhancing"]) for row in rows if row["model"] == model]
        at = shown.index(title)
        assert shown[at + 1] == str(len(values))
        assert float(shown[at + 2]) == pytest.approx(np.median(values), abs=0.051)
        assert float(shown[at + 4]) == pytest.approx(np.mean(values), abs=0.051)
    text = " ".join(page.texts)
    assert "smallest p this test can give, before adjustment, is 0.031" in text  # 2 / 2^6 sign patterns
    assert "5.7 × 10⁻⁶" in text


def test_report_needs_no_network_and_tells_no_paths(report: str, page: Page, run: Path) -> None:
    loaded = page.values("script", "src") + page.values("img", "src") + page.values("link", "href")
    assert loaded
    assert all(address.startswith("data:") for address in loaded)
    assert str(run.parent) not in report
    assert len(report.encode()) < 15e6


#: The report's figures and the tables each is drawn from; a training has none.
FIGURES = {
    "patient_flow": {"cohort"},
    "coverage_by_patient": {"metrics"},
    "coverage_by_volume": {"curve_summary", "volume_saved"},
    "critical_difference_all_patients": {"rankings", "pairwise"},
    "rank_frequency_all_patients": {"rank_frequencies"},
    "critical_difference_subset": {"rankings", "pairwise"},
    "rank_frequency_subset": {"rank_frequencies"},
    "distance_against_improvement": {"metrics", "correlations"},
    "coverage_by_pattern": {"coverage_by_pattern"},
    "training_mine": set(),
}


def published(run: Path) -> Path:
    """Return the folder of figures that the report of a run left."""
    return next((run.parent / "work").glob("*/*/figures"))


PATIENTS, MODELS = 243, 12


def enlarged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Repeat the rows of a table until they are of 243 patients and 12 models, the standard plan among them."""
    for column, wanted in (("patient", PATIENTS), ("model", MODELS - 1)):
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(str(row.get(column) or ""), []).append(row)
        kept = ("", "soc", "guideline") if column == "model" else ("",)
        fixed = [row for name in kept for row in groups.pop(name, [])]
        sources = list(groups.values())
        rows = fixed
        for place in range(wanted if sources else 0):
            name = f"{column} {place + 1:03d}"
            rows += [{**row, column: name} for row in sources[place % len(sources)]]
    return rows


def sections_of(results: Results) -> dict[str, int]:
    """Return how many bytes each section takes that the report would have."""
    import multiqc  # noqa: F401  # first, as it loads the module itself

    from predictgbm.report.multiqc_module import SECTIONS

    made = {anchor: write(results) for _, anchor, write in SECTIONS}
    return {name: len("".join(content).encode()) for name, content in made.items() if content}


def test_report_of_a_large_cohort_is_below_15_mb(run: Path, report: str) -> None:
    small = Results(run)
    base = len(report.encode()) - sum(sections_of(small).values())
    assert base > 1e6
    large = Results(run)
    patients = [f"P{i:02d}" for i in range(1, 7)]
    doses = [dose_record(i, model) for i in range(6) for model in ("soc", "mine")]
    cohort = pd.Series({row["patient"]: "A" for row in doses})
    made = dose_tables(doses, cohort, "soc", 20, 1) | calibration_tables(doses, cohort, 1)
    lesions = [
        {"patient": patient, "model": "soc", "lesion": lesion, "volume_ml": 2.0, "pattern": "central"}
        for patient in patients
        for lesion in (1, 2)
    ]
    made |= given_dose_tables(
        [given_entry(i) for i in range(1, 7)],
        [given_record(i, "soc") for i in range(1, 7)],
        build_table("lesions", lesions),
        pd.Series(dict.fromkeys(patients, "A")),
        *("soc", 20, 1),
    )
    compared = [
        {
            "patient": f"{i:03d}",
            "model": model,
            "guidelines": [
                {"guideline": name, "plan_ml": 100.0}
                | {
                    f"{whose}coverage_{part}": 0.1 * i
                    for whose in ("", "guideline_")
                    for part in ("enhancing", "core")
                }
                for name in GUIDELINES
            ],
        }
        for i in range(6)
        for model in ("soc", "mine")
    ]
    made["guidelines"] = build_table("guidelines", guideline_rows(compared))
    made["guideline_comparisons"] = build_table(
        "guideline_comparisons", guideline_comparisons(made["guidelines"])
    )
    for name, frame in made.items():
        frame.to_csv(run.parent / f"{name}.csv", index=False)
        large.tables[name] = read_table(run.parent / f"{name}.csv")
    large.parameters["atlas_transform"] = "affine"
    # Of each exam twenty measures by step, one of them outside of its range.
    large.tables["quality"] = [
        {"patient": "001", "session": session, "stage": stage, "measure": f"measure {i}", "value": 0.5}
        | {"meaning": f"what measure {i} means, in a line", "expected": "0.9 or more", "flagged": i == 0}
        for session in ("pre", "post")
        for stage in STAGES
        for i in range(20)
    ]
    by_patient = ("metrics", "lesions", "cohort", "failures", "causes", "recurrence_patterns", "quality")
    by_model = ("curve_summary", "volume_saved", "coverage_by_pattern", "cause_frequencies", "guarantee")
    for name in (*by_patient, *by_model, "summary", "comparisons", "correlations", *made):
        large.tables[name] = enlarged(large.tables[name])
    pictures = gallery.PATIENT_BYTES + gallery.STEP_BYTES + gallery.MISSED_BYTES
    large.pictures, large.missed_pictures, large.tasks = [], {}, []
    sizes = sections_of(large)
    assert len(large.models) == MODELS
    assert len(large.tables["metrics"]) > 0.9 * PATIENTS * MODELS
    assert {"quality", "guidelines", "calibration", "given_dose", "dose", "worst", "curve"} <= sizes.keys()
    assert base + sum(sizes.values()) + pictures < 15e6, (base, sizes, pictures)


def test_each_figure_is_saved_and_leads_to_its_numbers(run: Path, report: str) -> None:
    frames = re.findall(r'<figure class="gbm-frame">.*?</figure>', report, re.DOTALL)
    assert report.count('class="gbm-figure"') == len(frames)
    found = {}
    for frame in frames:
        saves = set(re.findall(r'data-name="(\w+)" data-kind="(\w+)"', frame))
        (name,) = {name for name, _ in saves}
        assert saves == {(name, "svg"), (name, "png")}
        links = set(re.findall(r'href="\.\./(\w+/\w+\.csv)"', frame))
        assert f"figures/{name}.csv" in links
        found[name] = {Path(link).stem for link in links if link.startswith("tables/")}
        assert all((run / "tables" / f"{table}.csv").is_file() for table in found[name])
    assert found == FIGURES
    assert {path.name for path in published(run).iterdir()} == {
        f"{name}.{kind}" for name in FIGURES for kind in ("svg", "csv")
    }


def test_published_figures_stand_alone_and_their_numbers_are_those_of_the_tables(
    run: Path, report: str
) -> None:
    assert report
    for path in published(run).glob("*.svg"):
        ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert "SIMULATED DATA" in path.read_text(encoding="utf-8")
    points = read_table(published(run) / "coverage_by_volume.csv")
    table = read_table(run / "tables" / "curve_summary.csv")
    for key, column in (("y", "mean"), ("low", "ci_low"), ("high", "ci_high")):
        told = {(row["line"], round(row["x"], 6)): row[key] for row in points}
        expected = {(row["model"], round(100 * row["fraction"], 6)): row[column] for row in table}
        assert told.keys() == expected.keys()
        for place, value in expected.items():
            assert told[place] == (None if value is None else pytest.approx(100 * value))
    assert any(row["low"] is not None for row in points)
    pairs = read_table(published(run) / "coverage_by_patient.csv")
    assert len(pairs) == sum(
        row["model"] != "soc" and row["coverage_enhancing"] is not None
        for row in read_table(run / "tables" / "metrics.csv")
    )


def test_every_patient_has_a_picture_and_a_viewer_page(page: Page) -> None:
    pictures = [src for src in page.values("img", "src") if src.startswith("data:image/webp")]
    assert len(pictures) == 6 + 14  # and those of the worst patients of each model
    links = {href for href in page.values("a", "href") if "viewer" in href}
    assert links == {f"../viewer/sub-{i:03d}.html" for i in range(1, 7)}


def test_section_on_patterns_tells_what_the_tables_do(run: Path, page: Page) -> None:
    start = page.texts.index("Where it came back")
    texts = page.texts[start:]
    # Six patients with two lesions each: three quarters of the volume central, the rest distant.
    at = texts.index("central")
    assert texts[at : at + 7] == ["central", "95 or more", "6", "75.0", "0.0 (0.0–0.0)", "6", "6"]
    at = texts.index("distant")
    assert texts[at : at + 7] == ["distant", "below 20", "6", "25.0", "31.5 (31.5–31.5)", "6", "0"]
    found = {
        (row["group"], row["model"]): row for row in read_table(run / "tables" / "coverage_by_pattern.csv")
    }
    head = texts.index("Gain over the standard plan, points [95 % CI]")
    at = texts.index("Fisher-KPP", head)
    assert texts[at - 1] == "central"
    assert texts[at + 1 : at + 4] == ["6", "6", number(found["central", "fisherkpp"]["mean"], 1, 100)]


def test_mark_of_a_mean_lies_in_its_panel_at_its_height() -> None:
    marks = [Mark(0, "one & only", "#123456", 0.5, 0.25, 1.0), Mark(1, "two", "#654321", 0.0, None, None)]
    drawn = ElementTree.fromstring(
        interval_panels(["one & only", "two"], [("a", "", marks), ("b", "", marks[:1])])
    )
    titles = [node.text for node in drawn.iter(f"{SVG}title")]
    assert titles == [
        "one & only, a: 50.0 % [25.0 to 100.0]",
        "two, a: 0.0 %",
        "one & only, b: 50.0 % [25.0 to 100.0]",
    ]
    groups = list(drawn.iter(f"{SVG}g"))
    for group, limits in zip(groups, (True, False, True), strict=True):
        circle = group.find(f"{SVG}circle")
        line = group.find(f"{SVG}line")
        assert circle is not None
        assert (line is not None) == limits
        if line is not None:
            x1, x, x2 = (float(v) for v in (line.get("x1", ""), circle.get("cx", ""), line.get("x2", "")))
            assert (x - x1) * 2 == pytest.approx(x2 - x, abs=0.3)
            assert line.get("y1") == circle.get("cy")
    assert len({group[1].get("y1") for group in groups if len(group) > 2}) == 1


def test_worst_patients_come_first_with_what_was_missed(run: Path, page: Page) -> None:
    missed = [label for label in page.values("img", "alt") if label.startswith("what the plan missed")]
    # The worse half of six patients for four models, of five for LOTI, which failed once.
    assert len(missed) == 4 * 3 + 2
    linked = {link[1:] for link in page.values("a", "href") if link.startswith("#gbm-picture")}
    assert linked
    assert linked <= set(page.values("figure", "id"))
    metrics = read_table(run / "tables" / "metrics.csv")
    own = sorted(
        (row["coverage_enhancing"], row["patient"]) for row in metrics if row["model"] == "fisherkpp"
    )
    at = page.texts.index("Fisher-KPP: the 3 patients covered worst")
    following = page.texts[at:]
    places = [following.index(patient) for _, patient in own[:3]]
    assert places == sorted(places)
    covered = number(own[0][0], 1, 100)
    assert following[places[0] + 1].startswith(f"coverage {covered} % (standard ")
    assert "mostly central, up to 32 mm from the core" in following[places[0] + 1]


def test_causes_are_told_with_their_counts(tmp_path: Path) -> None:
    results = Results(tmp_path)
    frequency = {"model": "loti", "n_worst": 2.0, "n_others": 18.0}
    results.tables["cause_frequencies"] = [
        frequency | {"cause": "tiny_core", "worst_with": 2.0, "others_with": 3.0, "ratio": 6.0, "p": 0.02},
        frequency
        | {"cause": "long_interval", "worst_with": 1.0, "others_with": 0.0, "ratio": None, "p": 0.1},
        frequency | {"cause": "multifocal", "worst_with": 0.0, "others_with": 9.0, "ratio": 0.0, "p": 0.5},
        frequency
        | {"cause": "outside_brain", "worst_with": 0.0, "others_with": 0.0, "ratio": None, "p": 1.0},
    ]
    results.tables["metrics"] = [{"model": "loti", "patient": "1"}]
    results.tables["causes"] = [
        {"cause": "tiny_core", "present": "True"},
        {"cause": "tiny_core", "present": "False"},
        {"cause": "tiny_core", "present": None},
    ]
    told = worst.frequencies(results)
    assert "<b>6.0 ×</b>" in told
    assert Page(f'<div class="mainpage">{told}</div>').texts[1:13] == [
        *("Model", "Multifocal", "Tiny tumour core", "Long interval", "loti"),
        *("0.0 ×", "[0/2, 9/18]", "6.0 ×", "[2/2, 3/18]", "only there", "[1/2, 0/18]"),
        "How many times as frequent among the worst tenth as among the other patients [worst, others]; bold where "
        "Fisher’s exact test gives p < 0.05, not adjusted for the number of tests. The standard plan tells what is "
        "distant: that it covers little there is no finding.",
    ]
    rules = Page(f'<div class="mainpage">{worst.rules(results)}</div>').texts
    at = rules.index("tiny tumour core")
    assert rules[at : at + 3] == ["tiny tumour core", "tumour core: below 5 ml", "1 of 2"]
    assert rules[-1] == "not known"


def test_trained_networks_tell_whom_they_saw(run: Path, page: Page) -> None:
    start = page.texts.index("Patients learned from")
    row = page.texts[page.texts.index(EVIL, start) :]
    assert row[:6] == [EVIL, "2", "6 (simulated)", "6", "0", "base 8"]
    network = page.texts[page.texts.index("split-2_seed-0", start) :]
    assert network[:8] == ["split-2_seed-0", "4", "1", "3", "2", "0.700", "0.610", "CPU"]
    text = " ".join(page.texts)
    assert "TRAINED ON SIMULATED DATA" not in text, "said of real patients alone"


def test_networks_of_simulated_patients_are_told_below_the_title(tmp_path: Path) -> None:
    import multiqc  # noqa: F401  # first, as it loads the module itself

    from predictgbm.report.multiqc_module import introduction

    results = Results(write_run(tmp_path, simulated=False, pictures=False))
    assert "TRAINED ON SIMULATED" not in introduction(results)
    results.cards["mine"]["simulated"] = True
    assert "TRAINED ON SIMULATED DATA" in introduction(results)


def test_outside_text_stays_text(report: str, page: Page) -> None:
    assert EVIL in page.texts
    assert "map is <constant>" in page.texts
    assert "Failures by model: LOTI: 1 lacked an input." in page.texts
    assert "x" not in page.values("img", "src")
    assert not re.search(r"<img src=x", report)


def test_the_title_is_free_text(report: str) -> None:
    title = re.search(r"<title>(.*?)</title>", report, re.DOTALL)
    assert FREE_TEXT in unescape(title[1])


def test_failures_and_exclusions_are_named(page: Page) -> None:
    start = page.texts.index("1 failure")
    part = page.texts[start:]
    assert part[part.index("002") : part.index("002") + 4] == ["002", "pre", "LOTI", "model"]
    for patient in ("900", "901"):
        assert part[part.index(patient) + 3] == f"why {patient} is out"


def test_prediction_alone_gives_no_empty_plots(tmp_path: Path) -> None:
    html = build(write_run(tmp_path / "run", n=2, scored=False, simulated=False))
    page = Page(html)
    assert sections(page) == ["cohort", "resources", "networks", "failures", "gallery", "methods", "versions"]
    assert "SIMULATED" not in html
    assert "nothing to score" in " ".join(page.texts)
    assert "Wilcoxon" not in " ".join(page.texts)


@contextmanager
def served(page: str) -> Iterator[tuple[str, queue.Queue[tuple[str, str]]]]:
    """Serve a page on this machine, and give its address and what it sends back: path and text of each message."""
    sent: queue.Queue[tuple[str, str]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def do_POST(self) -> None:
            sent.put((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", sent
        server.shutdown()


def test_browser_draws_the_curve_and_runs_nothing_foreign(report: str, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium or chrome on PATH to open the report with")
    # What a link would save is sent here instead, with the size of its figure; at last the page as drawn.
    script = """
      window.addEventListener("load", async () => {
        document.querySelectorAll("details").forEach(part => part.open = true);
        const send = (kind, text) => fetch("/" + kind, { method: "POST", body: text });
        let waiting = 0;
        const finish = () => { if (--waiting === 0) send("page", document.documentElement.outerHTML); };
        HTMLAnchorElement.prototype.click = function () {
          const name = this.download;
          fetch(this.href).then(file => file.blob()).then(file => createImageBitmap(file))
            .then(image => send("saved", [name, image.width, image.height].join(" "))).then(finish);
        };
        const links = document.querySelectorAll(".gbm-save[data-kind=png]");
        waiting = links.length;
        links.forEach(link => link.dispatchEvent(new Event("click")));
      });
    """
    page, _, end = report.rpartition("</body>")
    text = f"{page}<script>{script}</script></body>{end}"
    quiet = "--no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-quic"
    options = ["--headless", "--no-sandbox", "--disable-gpu", *quiet.split(), "--remote-debugging-port=0"]
    with served(text) as (address, sent):
        opened = subprocess.Popen(
            [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            received = [sent.get(timeout=120)]
            while received[-1][0] != "/page":
                received.append(sent.get(timeout=120))
        finally:
            opened.terminate()
            opened.wait(30)
    dom = received[-1][1]
    assert "<title>taken" not in dom
    shown = [src for src in Page(dom).values("img", "src") if src.startswith("data:image/webp")]
    assert len(shown) == len(set(shown)) == 6 + 14
    assert "x" not in Page(dom).values("img", "src")
    drawn = re.findall(
        r'<figure class="gbm-frame"><svg[^>]* viewBox="0 0 (\d+) (\d+)".*?data-name="(\w+)"', report
    )
    assert len(drawn) == len(FIGURES)
    expected = {f"{name}.png {3 * int(w)} {3 * int(h)}" for w, h, name in drawn}
    assert {text for kind, text in received if kind == "/saved"} == expected


def test_results_of_the_trial_segmenter_are_told_below_the_title(run: Path) -> None:
    import multiqc  # noqa: F401  # first, as it loads the module itself

    from predictgbm.report.multiqc_module import introduction

    results = Results(run)
    assert "TRIAL QUALITY" not in introduction(results)
    segmented = {"patient": "001", "session": "pre", "stage": "tumor"}
    results.tables["quality"] = [
        segmented | {"method": f"by a rule ({TRIAL})"},
        segmented | {"patient": "002", "method": "BraTS23_1"},
    ]
    assert "<b>TRIAL QUALITY.</b> The tumour labels of 1 exam come" in introduction(results)


def test_robustness_shows_what_the_tables_tell(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", n=30, pictures=False)
    assert robustness.section(Results(folder)) is None
    assert "one-sided" not in methods_text(Results(folder))
    records = [row | {"n_lesions": 1} for row in read_table(folder / "tables" / "metrics.csv")]
    tables, _ = make_tables(records, {}, (), draws=200)
    for name in ("comparisons", "equivalence", "mixed_model", "leave_one_dataset_out", "power"):
        tables[name].to_csv(folder / "tables" / f"{name}.csv", index=False)
    found = robustness.section(Results(folder))
    assert found is not None
    texts = Page(f'<div class="mainpage">{found[1]}</div>').texts
    assert "Within ±5 points, p" in texts
    row = texts[texts.index("Fisher-KPP") :]
    same = tables["equivalence"].set_index(["model", "dataset"]).loc["fisherkpp", "pooled"]
    kept = tables["leave_one_dataset_out"].set_index("model").loc["fisherkpp", "significance_kept"]
    assert row[1:3] == ["30", p_value(same["p_noninferiority"])]
    assert row[3] == p_value(same["p_equivalence"]) != row[2]
    assert row[5] == f"{kept.sum()} of 3"
    detectable = tables["power"].set_index("model").loc["fisherkpp", "minimum_gain"]
    assert row[9] == number(detectable, 1, 100)
    for text in ("RHUH", "data set as random effect", "yes"):
        assert text in texts
    assert "within ±5.0 points of coverage" in methods_text(Results(folder))
    # The outside model's title stays text here too.
    assert "x" not in Page(found[1]).values("img", "src")


def test_methods_text_tells_how_raw_images_were_processed(run: Path) -> None:
    results = Results(run)
    assert "<b>Images.</b>" not in methods_text(results)
    results.tables["quality"] = [
        {"stage": "brain", "method": "by HD-BET, version 1"},
        {"stage": "registration", "method": "ncc"},
        {"stage": "registration", "method": "ncc"},
    ]
    html = methods_text(results)
    assert "by HD-BET, version 1" in html
    assert html.count("by the method ncc,") == 1
    assert "dcm2niix" not in html
    assert "Isensee" in html
    results.tables["quality"][1]["method"] = "dirac without its network"
    html = methods_text(results)
    assert re.search(r"by the method dirac without its network and ncc<sup>\d+</sup>, which", html)
    assert "Mok TCW" in html
    assert "Siebert" not in html


@pytest.mark.parametrize(
    ("space", "cited", "absent"),
    [("SRI24", "Rohlfing", "Fonov"), ("MNI152", "Fonov", "Rohlfing"), ("Own1", "the Own1 atlas", "Fonov")],
)
def test_methods_text_names_the_atlas_of_the_run(run: Path, space: str, cited: str, absent: str) -> None:
    results = Results(run)
    results.parameters["atlas_space"] = space
    html = methods_text(results)
    assert f"in the space of the {space} atlas" in html
    assert cited in html
    assert absent not in html
    del results.parameters["atlas_space"]
    assert "in the space of" not in methods_text(results)


def test_methods_text_says_who_publishes_and_how(run: Path) -> None:
    results = Results(run)
    assert "Availability" not in methods_text(results)
    results.parameters["results_authors"] = "Anna de Vries (0000-0002-1825-0097); B. O'Hara"
    assert "are published by Anna de Vries and B. O&#39;Hara.</p>" in methods_text(results)
    results.parameters["results_license"] = "CC-BY-4.0"
    assert "and B. O&#39;Hara under the licence CC-BY-4.0.</p>" in methods_text(results)


def test_methods_text_cites_each_work_once_and_in_order(run: Path) -> None:
    html = methods_text(Results(run))
    cited = [int(n) for n in re.findall(r"<sup>(\d+)</sup>", html)]
    entries = re.findall(r"<li>(.*?)</li>", html)
    first = list(dict.fromkeys(cited))
    assert first == list(range(1, len(entries) + 1))
    assert len(set(entries)) == len(entries)
    assert "margin of 15 mm" in html
    assert "10,000 draws, seed 0" in html
    assert "Of 8 patients, 6 could be evaluated and 2 were left out" in html


def test_verdict_follows_the_adjusted_p_values(tmp_path: Path) -> None:
    results = Results(write_run(tmp_path / "run", n=6, pictures=False))
    assert verdict(results).startswith("Fisher-KPP (+")  # the only adjusted p below 0.05 of the input
    assert "more of the recurrence" in verdict(results)
    for row in results.tables["comparisons"]:
        row["p_adjusted"] = 0.5
    results.__dict__.pop("headline")
    assert verdict(results).startswith("No model differed")
    for row in results.tables["comparisons"]:
        row["p_adjusted"] = None
    results.__dict__.pop("headline")
    assert verdict(results).startswith("There are too few patients")
    for row in results.tables["comparisons"]:
        row["identical"] = "True"
    results.__dict__.pop("headline")
    assert verdict(results).startswith("Nothing to test: ")


def test_references_of_one_doi_share_a_number() -> None:
    refs = References(
        {"a": Reference("A", "10.1/X"), "b": Reference("B"), "c": Reference("A again", "10.1/x")}
    )
    assert [refs.number(key) for key in "abca"] == [1, 2, 1, 1]


def test_trace_raw_and_human_agree(tmp_path: Path) -> None:
    for name, raw in (("raw", True), ("human", False)):
        write_trace(tmp_path / name, ["001", "002"], raw, ["soc", "loti"])
    tasks = read_trace(tmp_path / "raw")
    assert tasks == read_trace(tmp_path / "human")
    assert [(t.model, t.seconds, t.memory_bytes) for t in tasks[:2]] == [
        ("soc", 1.5, 100 * 2**20),
        ("loti", 41.5, 500 * 2**20),
    ]
    assert [t.process for t in tasks] == ["MODEL_PREDICT"] * 4 + ["PLAN_MAKE"]
    assert tasks[-1].model == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0ms", 0),
        ("873ms", 0.873),
        ("61500", 61.5),
        ("1m 1.5s", 61.5),
        ("1h 2m 3s", 3723),
        ("-", None),
    ],
)
def test_durations_of_the_trace(text: str, seconds: float | None) -> None:
    assert parse_seconds(text) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "size"), [("1048576", 2**20), ("1 MB", 2**20), ("1.5 GB", 1.5 * 2**30), ("0", 0), ("-", None)]
)
def test_sizes_of_the_trace(text: str, size: float | None) -> None:
    assert parse_bytes(text) == size


@given(st.floats(-1e6, 1e6), st.integers(0, 4))
def test_numbers_read_back(value: float, decimals: int) -> None:
    text = number(value, decimals)
    assert "-" not in text
    assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.5000001 * 10.0**-decimals)
    assert (float(text.replace("−", "-")) == 0) <= ("−" not in text)


@given(st.floats(1e-12, 1))
def test_p_values_keep_two_digits(p: float) -> None:
    shown = p_value(p).replace(" × 10", "e").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    assert float(shown) == pytest.approx(p, rel=0.051)


def test_durations_and_sizes_for_reading() -> None:
    assert [duration(s) for s in (0.04, 9.96, 59.6, 3599.7, 7260, None)] == [
        "0.0 s",
        "10 s",
        "1 min 00 s",
        "1 h 00 min",
        "2 h 01 min",
        "–",
    ]
    assert [memory(b) for b in (2**20, 1000 * 2**20, 1.5 * 2**30)] == ["1 MB", "1.0 GB", "1.5 GB"]


def test_table_escapes_what_is_not_html() -> None:
    assert "&lt;b&gt;" in table(["a"], [["<b>"]])
    assert Page(f'<div class="mainpage">{table(["a & b"], [["<b>"]])}').texts == ["a & b", "<b>"]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8),
    st.integers(1, 6),
    st.text(min_size=1, max_size=40).filter(lambda s: s.isprintable()),
)
def test_paired_plot_places_every_patient(values: list[tuple[float, float]], panels: int, title: str) -> None:
    pairs = [figures.Pair(f"p<{i}>", a, b) for i, (a, b) in enumerate(values)]
    drawing = figures.paired_coverage([figures.Panel(title, "#0072B2", "note", pairs)] * panels, "Standard")
    groups = ElementTree.fromstring(drawing).findall(f".//{SVG}g[@class='gbm-patient']")
    assert len(groups) == panels * len(pairs)
    by_patient = {pair.patient: pair for pair in pairs}
    for group in groups:
        pair = by_patient[group.attrib["data-patient"]]
        heights = [float(circle.attrib["cy"]) for circle in group.findall(f"{SVG}circle")]
        # 0 % at 288, 100 % at 48, linear between.
        assert heights == pytest.approx([288 - 240 * pair.reference, 288 - 240 * pair.model], abs=0.06)


def test_brackets_bear_the_marks_of_adjusted_p() -> None:
    values = (0.05, 0.049, 0.01, 0.0099, 0.001, 0.00099, None)
    marks = [figures.significance(p) for p in values]
    assert marks == ["n.s.", "*", "*", "**", "**", "***", ""]
    pairs = [figures.Pair("001", 0.5, 1.0)]
    panels = [figures.Panel(f"model {i}", "#0072B2", "note", pairs, mark) for i, mark in enumerate(marks)]
    tree = ElementTree.fromstring(figures.paired_coverage(panels, "Standard"))
    texts = [element.text for element in tree.iter(f"{SVG}text")]
    for index, mark in enumerate(marks):
        after = texts[texts.index(f"model {index}") :]
        if mark:
            assert after.index(mark) < after.index("Standard")
    brackets = [element.attrib["points"] for element in tree.iter(f"{SVG}polyline")]
    assert len(brackets) == 6
    highest = min(float(circle.attrib["cy"]) for circle in tree.iter(f"{SVG}circle"))
    assert max(float(point.split(",")[1]) for point in brackets[0].split()) < highest - 4
    assert "*** p < 0.001" in " ".join(filter(None, texts))
    plain = figures.paired_coverage([figures.Panel("m", "#0072B2", "note", pairs)], "Standard")
    assert "p < 0.001" not in plain
    assert "polyline" not in plain


def test_flow_diagram_gives_each_loss_beside_its_step() -> None:
    steps = [("in the sheet", 10), ("usable", 10), ("late enough", 7)]
    drawing = figures.flow_diagram(steps, [[], [], [("follow-up too early", 2), ("no follow-up", 1)]])
    texts = [element.text for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]
    assert [t for t in texts if t and t.startswith("n =")] == ["n = 10", "n = 10", "n = 7"]
    assert texts.count("3 left out") == 1
    assert texts.index("3 left out") > texts.index("Usable")
    assert {"2 × follow-up too early", "1 × no follow-up"} <= set(texts)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_even_and_inside(low: float, span: float) -> None:
    found = np.array(figures.ticks(low, low + span))
    assert 2 <= len(found) <= 7
    assert found.min() >= low - 1e-6 * span
    assert found.max() <= low + span + 1e-6 * span
    assert np.diff(found) == pytest.approx(np.diff(found)[0])


def test_gallery_keeps_the_budget(tmp_path: Path) -> None:
    write_pictures(tmp_path / "qc", [f"{i:03d}" for i in range(8)], np.random.default_rng(3))
    broken = tmp_path / "qc" / "sub-999_desc-qc.png"
    broken.write_bytes(b"\x89PNG no picture")
    paths = sorted((tmp_path / "qc").glob("*.png"))
    for budget in (300_000, 40_000):
        uris = gallery.embed(paths, budget)
        assert sum(len(uri) for uri in uris if uri) <= budget
        assert uris[-1] is None
        assert any(uris)
    large = gallery.embed(paths[:1])[0]
    assert large is not None
    data = base64.b64decode(large.partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (1400, 467)  # 1800 x 600 brought to the largest width


def test_colours_stay_with_the_model(tmp_path: Path) -> None:
    everyone = Results(write_run(tmp_path / "all", n=3, pictures=False)).styles
    folder = write_run(tmp_path / "few", n=3, pictures=False)
    for name in ("metrics", "summary", "curve_summary"):
        path = folder / "tables" / f"{name}.csv"
        kept = [
            line
            for line in path.read_text().splitlines()
            if ",loti" not in line and not line.startswith("loti")
        ]
        path.write_text("\n".join(kept) + "\n")
    fewer = Results(folder).styles
    assert everyone["soc"].color == fewer["soc"].color == REFERENCE_COLOR
    assert {n: s.color for n, s in everyone.items()} == {n: s.color for n, s in fewer.items()}
    looks = [(style.color, style.dash) for style in everyone.values()]
    assert len(set(looks)) == len(looks)


def headline(tables: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", str(ROOT / "bin" / "print_headline.py"), str(tables)]
    return subprocess.run(command, capture_output=True, check=False, env=environment or None)


def test_headline_for_the_terminal(run: Path) -> None:
    lines = headline(run / "tables").stdout.decode().splitlines()
    assert lines[0].startswith("SIMULATED DATA")
    assert lines[1] == "Patients: 6 evaluated, 2 excluded"
    top = next(i for i, line in enumerate(lines) if line.split()[:1] == ["Model"])
    rows = lines[top + 2 : top + 2 + len(GAIN)]
    assert {line.split()[0] for line in rows} == set(GAIN)
    means = [float(line.split()[3]) for line in rows]
    assert means == sorted(means, reverse=True)
    # Right-aligned figures: the medians end in one column.
    assert len({re.match(r" *\S+ +\d+ +[\d.]+", line).end() for line in rows}) == 1  # type: ignore[union-attr]
    assert lines[-1].startswith("1 step(s) failed")


def test_headline_without_scores_and_without_tables(tmp_path: Path) -> None:
    done = headline(
        write_run(tmp_path / "run", n=2, scored=False, simulated=False, pictures=False) / "tables"
    )
    assert done.stdout.decode().splitlines()[0] == "Patients: 2 excluded, 2 predicted"
    assert b"Model" not in done.stdout
    missing = headline(tmp_path)
    assert missing.returncode != 0
    assert missing.stderr.startswith(b"ERROR: ")
    assert b"Traceback" not in missing.stderr
