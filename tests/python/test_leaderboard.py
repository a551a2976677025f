"""The leaderboard: runs merged patient by patient, what is refused, what the published site tells and does not."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_exam import run_command, write_json

from predictgbm.leaderboard.merge import LeaderboardError, Run, find_faults, merge, model_entries, read_run
from predictgbm.leaderboard.site import describe_training, number_patients

MODELS = {"soc": 0.0, "loti": 0.10, "theirs": 0.05}
#: Cohorts of unequal size, so that a mean of means is another number.
COHORTS = {"Ahorn": 5, "Birke": 11}
PATIENTS = {f"{cohort}77{i:02d}": cohort for cohort, n in COHORTS.items() for i in range(n)}
FIRST = next(iter(PATIENTS))
TRACE = "name\tstatus\trealtime\t%cpu\tpeak_rss\n"


def coverage(patient: str, model: str) -> float:
    """Return the coverage of a patient: the cohorts differ, and so do the models."""
    base = 0.2 if PATIENTS[patient] == "Ahorn" else 0.7
    return round(base + MODELS[model] + 0.01 * (int(patient[-2:]) * (2 if model == "loti" else 1)), 6)


def score(patient: str, model: str, **changes: Any) -> dict[str, Any]:
    value = coverage(patient, model)
    row = {"patient": patient, "session": "prebaseline", "cohort": PATIENTS[patient]}
    row |= {"followup_session": "laterexam", "days": 48217, "model": model, "plan_ml": 151.625}
    row |= {f"coverage_{name}": value for name in ("enhancing", "core", "all")}
    row |= {"dice": 0.2, "hd95_mm": 21.5, "curve_area": value / 2, "recurrence_enhancing_ml": 9.375}
    return row | {"tumor_core_ml": 33.125, "com_distance_cm": 1.0 + int(patient[-2:])} | changes


def write_table(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else list(columns))
        writer.writeheader()
        writer.writerows(rows)


def results(
    folder: Path,
    models: tuple[str, ...],
    patients: list[str] | None = None,
    *,
    failed: tuple[tuple[str, str], ...] = (),
    simulated: bool = False,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row,
    **parameters: Any,
) -> Path:
    """Write a results folder, as far as a leaderboard reads it."""
    patients = patients or list(PATIENTS)
    rows = [change(score(p, m)) for p in patients for m in models if (p, m) not in failed]
    write_table(folder / "tables" / "metrics.csv", rows)
    curves = [
        {
            "patient": r["patient"],
            "model": r["model"],
            "fraction": f,
            "coverage_enhancing": f * r["curve_area"],
        }
        for r in rows
        for f in (0.5, 1.0, 1.5)
    ]
    write_table(folder / "tables" / "curves.csv", curves)
    cohort = [{"patient": p, "cohort": PATIENTS[p], "status": "evaluated"} for p in patients]
    write_table(folder / "tables" / "cohort.csv", cohort)
    failures = [
        {
            "patient": p,
            "session": "prebaseline",
            "model": m,
            "stage": "predict",
            "reason": f"secret path of {p}",
        }
        for p, m in failed
    ]
    write_table(folder / "tables" / "failures.csv", failures, ("patient", "model", "stage"))
    statistics = {"primary": "enhancing", "reference": "soc", "simulated": simulated}
    write_json(folder / "tables" / "statistics.json", statistics)
    (folder / "pipeline_info").mkdir()
    given = {
        "margin": 15,
        "atlas_space": "SRI24",
        "family_definitions": "enhancing",
        "input": "/home/x/sheet.csv",
    }
    write_json(folder / "pipeline_info" / "params.json", given | parameters)
    tasks = [
        f"PREDICTGBM:PREDICT:MODEL_PREDICT (sub-{p}_ses-prebaseline {m})\tCOMPLETED\t2000\t150.0\t104857600\n"
        for p in patients
        for m in models
    ]
    # To look at a finished map is no time of its model.
    tasks.append(
        "PREDICTGBM:PREDICT:MODEL_CHECKMAP (sub-x_ses-y theirs)\tCOMPLETED\t90000\t100.0\t999999999\n" * 40
    )
    (folder / "pipeline_info" / "execution_trace_1.txt").write_text(TRACE + "".join(tasks))
    write_json(folder / "dataset_description.json", {"GeneratedBy": [{"Name": "x", "Version": "0.1.0"}]})
    return folder


MANIFEST = """name: theirs
title: Theirs <b>& co</b>
description: A model of others.
citation: Others, 2026
authors: [First Author, Last Author]
version: "2.1"
licence: CC-BY-4.0
contact: contact@example.org
trained_on: 300 patients of a hospital
inputs: [tumor_seg]
output: rank
kind: maps
folder: maps
"""


def build(*arguments: object) -> int:
    return run_command(
        "build_leaderboard.py", *map(str, arguments), "--draws", "100", "--ranking-draws", "100"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of two runs of different models; one of the models has no map for three patients."""
    folder = tmp_path_factory.mktemp("site")
    lost = tuple((patient, "theirs") for patient in list(PATIENTS)[:3])
    (folder / "submission.yml").write_text(MANIFEST)
    runs = (
        results(folder / "first run", ("soc", "loti")),
        results(folder / "b", ("soc", "theirs"), failed=lost),
    )
    # A model that was run with a file of the organiser's machine.
    entry = {"name": "loti", "title": "Lothar", "parameters": {"weights": "/home/x/w.npz", "prior": 0.25}}
    write_json(runs[0] / "pipeline_info" / "models.json", {"models": [entry]})
    (runs[0] / "sub-1" / "ses-1").mkdir(parents=True)
    write_json(
        runs[0] / "sub-1" / "ses-1" / "sub-1_model-soc_probseg.json", {"options": {"margin": "/home/x/15"}}
    )
    more = ("--submissions", folder / "submission.yml", "--per-patient", "rounded")
    assert build(*runs, "--out", folder / "site", *more) == 0
    return folder / "site"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pages(site: Path) -> dict[Path, str]:
    return {path: path.read_text("utf-8") for path in site.rglob("*.html")}


def test_means_are_of_all_patients_and_not_of_means(site: Path) -> None:
    board = {row["model"]: row for row in read(site / "data" / "leaderboard.csv")}
    summary = {
        (r["model"], r["dataset"]): r
        for r in read(site / "data" / "summary.csv")
        if r["definition"] == "core"
    }
    for model in ("soc", "loti"):
        values = [coverage(patient, model) for patient in PATIENTS]
        of_means = np.mean(
            [np.mean([coverage(p, model) for p in PATIENTS if PATIENTS[p] == c]) for c in COHORTS]
        )
        assert float(board[model]["mean"]) == pytest.approx(np.mean(values), abs=5.1e-5)
        assert abs(float(board[model]["mean"]) - of_means) > 0.01
        assert int(summary[model, "pooled"]["n"]) == len(PATIENTS)
    gain = np.median([coverage(p, "loti") - coverage(p, "soc") for p in PATIENTS])
    assert float(board["loti"]["shift"]) == pytest.approx(gain, abs=0.02)


def test_a_missing_map_counts_in_the_ranking(site: Path) -> None:
    board = {row["model"]: row for row in read(site / "data" / "leaderboard.csv")}
    assert (board["theirs"]["n"], board["theirs"]["missing"]) == (str(len(PATIENTS) - 3), "3")
    # Fewer than nine in ten: in no ranking of all patients, and last in the table.
    assert board["theirs"]["rank"] == ""
    assert list(board)[-1] == "theirs"
    with_zero = sum(coverage(p, "theirs") for p in list(PATIENTS)[3:]) / len(PATIENTS)
    assert float(board["theirs"]["mean_missing_as_zero"]) == pytest.approx(with_zero, abs=5.1e-5)
    assert (board["loti"]["rank"], board["soc"]["rank"]) == ("1", "2")


def test_time_and_memory_come_from_the_trace(site: Path) -> None:
    board = json.loads((site / "data" / "leaderboard.json").read_text())
    assert {row["cpu_seconds_median"] for row in board["models"]} == {3.0}
    assert {row["memory_bytes_max"] for row in board["models"]} == {104857600}


def test_no_patient_can_be_told_from_the_site(site: Path) -> None:
    published = {path: path.read_text("utf-8") for path in site.rglob("*") if path.is_file()}
    assert len(published) > 15
    private = [
        *PATIENTS,
        "prebaseline",
        "laterexam",
        "48217",
        "9.375",
        "33.125",
        "151.625",
        "secret",
        "/home/x",
    ]
    found = [(path.name, word) for path, text in published.items() for word in private if word in text]
    assert found == []
    assert not any("first run" in text for text in published.values())
    scores = read(site / "data" / "metrics.csv")
    assert {row["patient"] for row in scores} == {f"P{i:02d}" for i in range(1, len(PATIENTS) + 1)}
    # A number stands for one patient: its cohort and the scores of all models go together.
    truth = sorted((PATIENTS[p], *np.round([coverage(p, m) for m in ("soc", "loti")], 2)) for p in PATIENTS)
    by_number: dict[str, dict[str, dict[str, str]]] = {}
    for row in scores:
        by_number.setdefault(row["patient"], {})[row["model"]] = row
    told = [
        (rows["soc"]["cohort"], *(float(rows[m]["coverage_enhancing"]) for m in ("soc", "loti")))
        for rows in by_number.values()
    ]
    assert sorted(told) == truth


class Links(HTMLParser):
    """Collects what a page loads or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data"} and value:
                (self.linked if tag == "a" else self.loaded).append(value)


def test_the_site_asks_nothing_of_other_hosts_and_all_links_lead_somewhere(site: Path) -> None:
    assert {path.name for path in pages(site)} == {"index.html", "soc.html", "loti.html", "theirs.html"}
    for path, text in pages(site).items():
        links = Links()
        links.feed(text)
        assert len(links.loaded) == 2
        for target in links.loaded + [
            t for t in links.linked if t != "#" and not t.startswith("https://doi.org/")
        ]:
            assert (path.parent / target).is_file(), (path, target)
        assert not re.search(r"@import|url\(|<script>", text)
    drawn = {path.stem for path in (site / "figures").glob("*.svg")}
    assert {"patients_by_coverage_soc", "coverage_by_patient_loti"} <= drawn
    shown = re.findall(r'data-name="(\w+)" data-kind="svg"', "".join(pages(site).values()))
    assert sorted(shown) == sorted(drawn)
    for asset in (site / "assets").iterdir():
        assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest", asset.read_text())


def test_a_model_has_a_page_with_its_card(site: Path) -> None:
    page = (site / "models" / "theirs.html").read_text("utf-8")
    assert "Theirs &lt;b&gt;&amp; co&lt;/b&gt;" in page
    assert "<b>&" not in page
    for text in (
        "First Author, Last Author",
        "2.1",
        "CC-BY-4.0",
        "contact@example.org",
        "300 patients of a hospital",
        "Others, 2026",
    ):
        assert text in page
    assert "better in 13, worse in 0 of 13" in page
    # The run's own word on a model goes before the list that is here.
    assert "weights w.npz, prior 0.25" in (site / "models" / "loti.html").read_text("utf-8")
    own = (site / "models" / "soc.html").read_text("utf-8")
    assert "no patients" in own
    assert "doi.org/10.1016/j.radonc.2023.109663" in own


def test_simulated_patients_stand_above_everything(site: Path, tmp_path: Path) -> None:
    run = results(tmp_path / "a", ("soc", "loti"), simulated=True)
    assert build(run, "--out", tmp_path / "out", "--keep-names") == 0
    for text in pages(tmp_path / "out").values():
        assert text.index("SIMULATED DATA.") < text.index("<section")
        assert "<title>SIMULATED DATA:" in text
    assert not any("SIMULATED" in text for text in pages(site).values())
    named = {row["patient"] for row in read(tmp_path / "out" / "data" / "metrics.csv")}
    assert named == set(PATIENTS)


def test_what_is_no_leaderboard_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = results(tmp_path / "a", ("soc", "loti"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    assert build(run, "--out", tmp_path / "mine") == 2
    assert "no part of a leaderboard (thesis.txt); move it away" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    (tmp_path / "mine").rename(tmp_path / "site.partial")
    assert build(run, "--out", tmp_path / "site") == 0
    assert build(run, "--out", tmp_path / "site") == 0, "a site is replaced by the next"
    (tmp_path / "site" / "data" / "notes.txt").write_text("years")
    assert build(run, "--out", tmp_path / "site") == 2
    assert "(data/notes.txt)" in capsys.readouterr().err
    assert (tmp_path / "site" / "data" / "notes.txt").read_text() == "years"
    assert (tmp_path / "site.partial" / "thesis.txt").read_text() == "years"


def test_what_is_not_stated_or_differs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs on disjoint patients: one without its parameters, one registered otherwise."""
    whole = {"min_followup_days": 84, "followup_rule": "first"}
    parts = [[p for p in PATIENTS if PATIENTS[p] == cohort] for cohort in COHORTS]
    runs = [
        results(tmp_path / "a", ("soc", "loti"), parts[0], registration="ncc", **whole),
        results(tmp_path / "b", ("soc", "loti"), parts[1][:5], registration="rigid", **whole),
        results(tmp_path / "c", ("soc", "loti"), parts[1][5:], registration="ncc"),
    ]
    (runs[2] / "pipeline_info" / "params.json").unlink()
    (runs[2] / "dataset_description.json").unlink()
    assert build(*runs, "--out", tmp_path / "site") == 0
    said = capsys.readouterr().out
    silent = "Not compared, as 1 of 3 runs do not state it: atlas space, margin, "
    differ = "Runs differ in registration: ncc in 1, not stated in 1, rigid in 1"
    assert silent in said
    assert re.search(rf"version of the pipeline\. \({tmp_path}/c\)", said)
    assert differ in said
    page = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert silent in page
    assert differ in page
    assert str(tmp_path) not in page
    assert build(*runs[:1], "--out", tmp_path / "alone") == 0
    assert "NOTE" not in capsys.readouterr().out


def test_single_patients_can_be_left_out(tmp_path: Path) -> None:
    """A patient alone in a cohort is in the pooled numbers only."""
    patients = [p for p in PATIENTS if PATIENTS[p] == "Birke"] + [FIRST]
    run = results(tmp_path / "a", ("soc", "loti"), patients)
    assert build(run, "--out", tmp_path / "site") == 0
    data = tmp_path / "site" / "data"
    assert not (data / "metrics.csv").exists()
    assert {row["dataset"] for row in read(data / "summary.csv")} == {"pooled", "Birke"}
    assert {row["n"] for row in read(data / "summary.csv")} == {str(len(patients)), str(len(patients) - 1)}
    model = (tmp_path / "site" / "models" / "loti.html").read_text("utf-8")
    assert "each line is a patient" not in model
    assert "Patients by coverage" in model
    assert not list((tmp_path / "site" / "figures").glob("coverage_by_patient_*"))
    assert "are not published" in (tmp_path / "site" / "index.html").read_text("utf-8")
    # Nor does a data set show by what is left without it.
    left_out = {row["left_out"] for row in read(data / "leave_one_dataset_out.csv")}
    assert left_out <= {"Birke"}
    assert build(run, "--out", tmp_path / "site", "--per-patient", "rounded") == 0
    page = (tmp_path / "site" / "models" / "loti.html").read_text("utf-8")
    assert "better in 12, worse in 0 of 12" in page


@pytest.mark.parametrize("models", [[{"title": "x"}], ["loti"], {"loti": {}}, [{"name": 3}]])
def test_a_damaged_list_of_models_is_told(tmp_path: Path, models: Any) -> None:
    run = results(tmp_path / "a", ("soc", "loti"))
    write_json(run / "pipeline_info" / "models.json", {"models": models})
    with pytest.raises(LeaderboardError, match=r"a/pipeline_info/models.json: models: .*copy the file again"):
        read_run(run)


def one(patient: str, **changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: row | changes if row["patient"] == patient else row


@pytest.mark.parametrize(
    ("differ", "told"),
    [
        ({"margin": 20}, r"b/pipeline_info/params.json: --margin is 20, in .*/a 15; run again"),
        ({"atlas_space": "MNI152"}, r"--atlas_space is MNI152"),
        ({"family_definitions": "core"}, r"--family_definitions is core"),
        ({"simulated": True}, r"simulated patients is True, in .* False; .* a site of their own"),
        (
            {"change": one(FIRST, plan_ml=150.0)},
            rf"plan_ml differs .* 1 patient \({FIRST}\), {FIRST}: 150.0 against 151",
        ),
        (
            {"change": one(FIRST, days=48218)},
            r"b/tables/metrics.csv: days differs .*48218 against 48217; run both",
        ),
        (
            {"change": one(FIRST, followup_session="fu2")},
            r"followup_session differs .* fu2 against laterexam",
        ),
        (
            {"change": lambda row: row | {"coverage_enhancing": 0.5} if row["model"] == "soc" else row},
            r"standard plan's coverage_enhancing differs .* 16 patients \(Ahorn7700, .* and 11 more\)",
        ),
        (
            {"change": lambda row: row | {"dice": 0.3} if row["model"] == "loti" else row},
            r"b/tables/metrics.csv: model 'loti' has other maps than in .*/a for 16 patients .*rename",
        ),
        (
            {"failed": ((FIRST, "loti"),)},
            r"b/tables/failures.csv: model 'loti' failed for 1 patient .*leave one",
        ),
        ({"models": ("loti",)}, r"b/tables/metrics.csv: has no row of the standard plan; run again with soc"),
    ],
)
def test_runs_that_differ_are_not_merged(tmp_path: Path, differ: dict[str, Any], told: str) -> None:
    first = results(tmp_path / "a", ("soc", "loti"))
    second = results(tmp_path / "b", **({"models": ("soc", "loti")} | differ))
    faults = find_faults([read_run(first), read_run(second)])
    assert any(re.search(told, fault) for fault in faults), faults
    same = results(tmp_path / "c", ("soc", "loti"))
    assert find_faults([read_run(first), read_run(same)]) == []


def test_all_faults_are_told_at_once_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = results(tmp_path / "a", ("soc", "loti"))
    second = results(tmp_path / "b", ("soc", "loti"), change=one(FIRST, plan_ml=150.0, dice=0.9), margin=20)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yml").write_text("name: UPPER\nkind: maps\n")
    write_json(second / "dataset_description.json", {"GeneratedBy": [{"Version": "0.2.0"}]})
    arguments = [
        first,
        second,
        tmp_path / "empty",
        "--out",
        tmp_path / "out",
        "--submissions",
        tmp_path / "bad.yml",
    ]
    assert build(*arguments) == 1
    said = capsys.readouterr().err
    for text in (
        "--margin",
        "plan_ml",
        "other maps",
        "version is 0.2.0",
        "holds no tables/metrics.csv",
        "'UPPER'",
    ):
        assert text in said, said
    assert "'folder' is a required property" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "bad.yml", "empty"]


def test_one_name_for_two_models_is_refused(tmp_path: Path) -> None:
    """Even where no patient is in both runs."""
    folders = []
    for name, cohort, image in (("a", "Ahorn", "x@sha256:1"), ("b", "Birke", "x@sha256:2")):
        patients = [p for p in PATIENTS if PATIENTS[p] == cohort]
        folders.append(results(tmp_path / name, ("soc", "theirs"), patients))
        entry = {"name": "theirs", "container": image}
        write_json(folders[-1] / "pipeline_info" / "models.json", {"models": [entry]})
    faults = find_faults([read_run(folder) for folder in folders])
    assert len(faults) == 1
    assert "model 'theirs' is another than" in faults[0]


def test_a_training_is_told_by_cohorts_and_numbers_alone() -> None:
    networks = {
        "a": {"training": ["Birke7701", "Birke7702"], "validation": ["Ahorn7703"]},
        "b": {"training": ["Birke7702"], "validation": ["Birke7701"]},
    }
    cohorts = {"Birke7701": "Birke", "Birke7702": "Birke", "Ahorn7703": "Ahorn", "Ahorn7704": "Ahorn"}
    told = describe_training({"networks": networks, "cohorts": cohorts, "simulated": True})
    assert told.startswith("3 simulated patients (Ahorn 1, Birke 2) in 2 networks")
    assert not re.search(r"77\d\d", told)
    assert describe_training({"networks": {"a": {"training": ["x"]}}, "cohorts": {}}).startswith(
        "1 patient in 1"
    )
    assert describe_training({}) == "not stated"


def test_two_trainings_of_one_name_are_refused(tmp_path: Path) -> None:
    """Even where no patient is in both runs."""
    runs = []
    for cohort in COHORTS:
        patients = [p for p in PATIENTS if PATIENTS[p] == cohort]
        folder = results(tmp_path / cohort, ("soc", "loti"), patients)
        (folder / "pipeline_info" / "cards").mkdir(parents=True)
        card = {"networks": {"a": {"sha256": cohort, "training": []}}, "cohorts": {}}
        write_json(folder / "pipeline_info" / "cards" / "loti.json", card)
        runs.append(read_run(folder))
    (fault,) = find_faults(runs)
    assert "model 'loti' is of another training than in" in fault
    assert find_faults([runs[0], runs[0]]) == []
    # Nor can a model of one's own training be that which is shipped.
    (runs[0].folder / "pipeline_info" / "cards" / "loti.json").unlink()
    assert len(find_faults([read_run(runs[0].folder), runs[1]])) == 1


def test_a_table_that_names_no_patient_is_told(tmp_path: Path) -> None:
    metrics = results(tmp_path / "a", ("soc", "loti")) / "tables" / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("patient,", "subject,", 1))
    with pytest.raises(LeaderboardError, match=r"metrics.csv: has no column patient; .* again"):
        read_run(tmp_path / "a")


def test_no_path_of_a_parameter_or_a_folder_of_maps_is_published() -> None:
    entry = {
        "parameters": {"files": ["/home/x/a.npz", 2], "deep": {"file": "/home/x/b"}},
        "folder": "/home/x/maps",
    }
    (found,) = model_entries([], [], {"theirs": entry}, ["theirs"]).values()
    assert found == {"name": "theirs", "parameters": {"files": ["a.npz", 2], "deep": {"file": "b"}}}


ROWS = [(p, m) for p in list(PATIENTS)[:6] for m in MODELS]


@settings(max_examples=12)
@given(st.lists(st.integers(0, 2), min_size=len(ROWS), max_size=len(ROWS)))
def test_however_scores_are_dealt_to_runs_the_merged_are_the_same(deal: list[int]) -> None:
    runs = []
    for number in range(3):
        keys = [key for key, run in zip(ROWS, deal, strict=True) if run == number or key[1] == "soc"]
        rows = [score(*key) for key in keys]
        curves = [
            {"patient": p, "model": m, "fraction": f, "coverage_enhancing": f / 2}
            for p, m in keys
            for f in (0.5, 1.0)
        ]
        cohort = [{"patient": p, "status": "evaluated"} for p in {p for p, _ in keys}]
        tables = {
            "metrics": rows,
            "curves": curves,
            "cohort": cohort,
            "lesions": [],
            "failures": [],
            "quality": [],
        }
        runs.append(Run(Path(str(number)), tables, {}, {}, "0.1.0"))
    assert find_faults(runs) == []
    records, cohort, failures = merge(runs)
    curve = {"fraction": [0.5, 1.0], "coverage_enhancing": [0.25, 0.5]}
    expected = [score(*key) | {"lesions": [], "curve": curve} for key in ROWS]
    order = lambda row: (row["patient"], row["model"])  # noqa: E731
    assert sorted(records, key=order) == sorted(expected, key=order)
    assert sorted(row["patient"] for row in cohort["patients"]) == sorted({p for p, _ in ROWS})
    assert failures == []


@settings(max_examples=20)
@given(st.integers(1, 120), st.integers(0, 2**32))
def test_every_patient_has_a_number_of_its_own(n: int, seed: int) -> None:
    patients = [f"x{i}" for i in range(n)]
    names = number_patients(patients, np.random.default_rng(seed))
    assert list(names) == patients
    assert sorted(int(name[1:]) for name in names.values()) == list(range(1, n + 1))
    assert len({len(name) for name in names.values()}) == 1
