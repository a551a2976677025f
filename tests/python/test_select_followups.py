"""The cohort rules: who is scored, against which follow-up, and why someone is not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_exam import run_command, write_json

from predictgbm.cohort.selection import select_followups

Record = dict[str, Any]


def preop(patient: str, line: int = 2, cohort: str = "A") -> Record:
    meta = {"patient": patient, "session": "pre", "cohort": cohort, "role": "preop", "days": 0}
    return {"line": line, "meta": meta}


def followup(patient: str, session: str, days: float, line: int = 3, cohort: str = "A") -> Record:
    meta = {"patient": patient, "session": session, "cohort": cohort, "role": "followup", "days": days}
    return {"line": line, "meta": meta}


def exam(patient: str) -> Record:
    return {"patient": patient, "tumor_core_ml": 20.0, "tumor_whole_ml": 60.0, "tissue": "atlas prior"}


def summary(patient: str, session: str, enhancing: float) -> Record:
    core, whole = enhancing + 1, enhancing + 2
    volumes = {"recurrence_enhancing_ml": enhancing, "recurrence_core_ml": core, "recurrence_all_ml": whole}
    return {"patient": patient, "session": session, **volumes}


def flow(selection: dict[str, list[Record]]) -> list[int]:
    return [step["patients"] for step in selection["flow"]]


def only(selection: dict[str, list[Record]]) -> Record:
    (patient,) = selection["patients"]
    return patient


def test_first_followup_late_enough_with_enhancement_is_used() -> None:
    days = {"a": 30, "b": 84, "c": 120, "d": 200}
    volumes = {"a": 9.0, "b": 0.0, "c": 2.5, "d": 30.0}
    rows = [preop("1"), *(followup("1", s, d) for s, d in reversed(days.items()))]
    selection = select_followups(rows, [exam("1")], [summary("1", s, v) for s, v in volumes.items()])
    patient = only(selection)
    assert patient == {
        "patient": "1",
        "cohort": "A",
        "session": "pre",
        "followup_session": "c",
        "days": 120,
        "status": "evaluated",
        "reason_code": None,
        "reason": None,
        "tumor_core_ml": 20.0,
        "tumor_whole_ml": 60.0,
        "tissue": "atlas prior",
        "recurrence_enhancing_ml": 2.5,
        "recurrence_core_ml": 3.5,
        "recurrence_all_ml": 4.5,
        "others": [],
        "followups": patient["followups"],
    }
    assert [(f["session"], f["reason_code"], f["reason"]) for f in patient["followups"]] == [
        ("a", "followup_too_early", "day 30 is before day 84"),
        ("b", "no_recurrence", "no enhancing tumour is visible"),
        ("c", None, None),
        ("d", None, None),
    ]
    assert flow(selection) == [1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("rule", "used"), [("first", "a"), ("last", "c"), ("largest", "b")])
def test_rules(rule: str, used: str) -> None:
    rows = [preop("1"), followup("1", "a", 90), followup("1", "b", 150), followup("1", "c", 300)]
    summaries = [summary("1", "a", 1), summary("1", "b", 5), summary("1", "c", 3)]
    assert only(select_followups(rows, [exam("1")], summaries, rule=rule))["followup_session"] == used


def test_twelve_weeks_to_the_day_are_enough_and_the_interval_is_a_parameter() -> None:
    rows, summaries = [preop("1"), followup("1", "a", 84)], [summary("1", "a", 1)]
    assert only(select_followups(rows, [exam("1")], summaries))["status"] == "evaluated"
    late = only(select_followups(rows, [exam("1")], summaries, min_days=85))
    assert (late["status"], late["reason_code"]) == ("excluded", "followup_too_early")
    assert late["reason"] == "follow-up at day 84, at least 85 needed"


def test_each_exclusion_has_its_reason_and_its_place_in_the_flow() -> None:
    rows = [preop(str(n), line=n) for n in range(1, 9)]
    rows += [
        followup("1", "fu1", 100, 21),
        followup("2", "fu1", 10, 22),
        followup("2", "fu2", 20, 23),
        followup("3", "fu1", 100, 24),
        followup("5", "fu1", 100, 25),
        followup("6", "fu1", 100, 26),
        followup("7", "fu1", 100, 27),
        followup("8", "fu1", 100, 28),
    ]
    exams = [exam(n) for n in "12345678" if n not in "67"]
    summaries = [
        summary(n, s, v)
        for n, s, v in (("1", "fu1", 2.0), ("2", "fu1", 2.0), ("2", "fu2", 2.0), ("3", "fu1", 0.0))
    ]
    failures = [
        {"line": 25, "column": "registered_seg", "what": "unknown label 9", "expected": "", "patient": "5"},
        {"line": 6, "column": "t1", "what": "file is empty", "expected": "", "patient": "6"},
        {"line": 6, "column": "t2", "what": "file is empty", "expected": "", "patient": "6"},
        {
            "patient": "7",
            "session": "pre",
            "model": "",
            "stage": "prepare exam",
            "reason": "not in SRI24 space",
        },
        {
            "patient": "8",
            "session": "fu1",
            "model": "",
            "stage": "register follow-up",
            "reason": "other grid",
        },
        {
            "patient": "1",
            "session": "pre",
            "model": "loti",
            "stage": "predict",
            "reason": "no concern of the exam",
        },
        {"line": 1, "column": "sheet", "what": "of nobody", "expected": "", "patient": None},
    ]
    selection = select_followups(rows, exams, summaries, failures)
    assert {p["patient"]: (p["status"], p["reason_code"], p["reason"]) for p in selection["patients"]} == {
        "1": ("evaluated", None, None),
        "2": ("excluded", "followup_too_early", "follow-up at day 10, 20, at least 84 needed"),
        "3": ("excluded", "no_recurrence", "no enhancing tumour is visible at day 100"),
        "4": ("excluded", "no_followup", "the samplesheet has no follow-up of this patient"),
        "5": ("excluded", "followup_invalid", "ses-fu1: line 25: registered_seg: unknown label 9"),
        "6": ("excluded", "invalid_input", "line 6: t1: file is empty | line 6: t2: file is empty"),
        "7": ("excluded", "exam_failed", "not in SRI24 space"),
        "8": ("excluded", "followup_failed", "ses-fu1: other grid"),
    }
    # In the sheet 8; -2 without a usable exam; -1 without follow-up; -2 unusable; -1 too early; -1 without recurrence.
    assert flow(selection) == [8, 6, 5, 3, 2, 1]


def test_patient_refused_with_the_sheet_is_listed() -> None:
    rows = [preop("1"), followup("1", "a", 100), followup("2", "a", 100, line=9, cohort="B")]
    failures = [
        {"line": 8, "column": "t1c", "what": "is empty", "expected": "", "patient": "2"},
        {"patient": "2", "session": None, "model": None, "stage": "input", "reason": "line 8: t1c: is empty"},
    ]
    selection = select_followups(rows, [exam("1")], [summary("1", "a", 1)], failures)
    refused = selection["patients"][1]
    assert (refused["patient"], refused["cohort"], refused["session"]) == ("2", "B", None)
    assert (refused["status"], refused["reason_code"]) == ("excluded", "invalid_input")
    assert refused["reason"] == "line 8: t1c: is empty"
    assert flow(selection) == [2, 1, 1, 1, 1, 1]


def test_sheet_without_followups_is_for_prediction() -> None:
    selection = select_followups([preop("1"), preop("2", 3)], [exam("1")], [])
    first, second = selection["patients"]
    assert (first["status"], first["reason_code"], first["followup_session"]) == ("predicted", None, None)
    assert (second["status"], second["reason_code"]) == ("excluded", "exam_failed")
    assert selection["flow"] == [
        {"step": "in the samplesheet", "patients": 2},
        {"step": "pre-operative exam usable", "patients": 1},
    ]


visits = st.lists(
    st.tuples(st.integers(1, 200), st.one_of(st.none(), st.sampled_from([0.0, 0.5, 3.0]))), max_size=5
)


@settings(max_examples=200, deadline=None)
@given(cohort=st.lists(st.tuples(st.booleans(), visits), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_choice_and_flow_agree_with_the_rule_read_aloud(cohort: list[Any], seed: int) -> None:
    rows, exams, summaries = [], [], []
    for number, (usable, exams_later) in enumerate(cohort):
        patient = f"P{number}"
        rows.append(preop(patient, line=len(rows) + 2))
        exams += [exam(patient)] * usable
        for visit, (days, volume) in enumerate(exams_later):
            rows.append(followup(patient, f"v{visit}", days, line=len(rows) + 2))
            if volume is not None:
                summaries.append(summary(patient, f"v{visit}", volume))
    tidy = select_followups(rows, exams, summaries)
    shuffled = [random.Random(seed).sample(records, len(records)) for records in (rows, exams, summaries)]
    assert select_followups(*shuffled) == tidy

    benchmark = any(later for _, later in cohort)
    for (usable, later), record in zip(cohort, tidy["patients"], strict=True):
        good = [days for days, volume in later if days >= 84 and volume]
        if not usable:
            assert record["status"] == "excluded"
        elif not benchmark:
            assert record["status"] == "predicted"
        else:
            assert record["status"] == ("evaluated" if good else "excluded")
            assert record["days"] == min(good, default=None)
        assert (
            (record["reason_code"] is None) == (record["reason"] is None) == (record["status"] != "excluded")
        )
    counts = flow(tidy)
    assert counts[0] == len(cohort)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == sum(p["status"] != "excluded" for p in tidy["patients"])


def test_command_reads_files_and_folders(tmp_path: Path) -> None:
    fault = {
        "line": 9,
        "column": "days",
        "what": "is empty",
        "expected": "a value in every row",
        "patient": "3",
    }
    rows = [preop("1"), preop("2", 4), followup("1", "fu1", 100), followup("2", "fu1", 100, 5)]
    cohort = write_json(tmp_path / "cohort.json", {"rows": rows, "faults": [fault], "models_scores": []})
    folder = tmp_path / "exams"
    folder.mkdir()
    for patient in "12":
        write_json(folder / f"{patient}.json", exam(patient))
    one = write_json(tmp_path / "one.json", summary("1", "fu1", 3.0))
    failures = tmp_path / "failures"
    failures.mkdir()
    fault = {"line": 5, "column": "registered_seg", "what": "unknown label 8", "expected": "", "patient": "2"}
    write_json(failures / "faults.json", [fault])
    options = ["--cohort", cohort, "--exams", folder, "--summaries", one, "--failures", failures]
    assert run_command("select_followups.py", *options, "--out", tmp_path / "selection.json") == 0
    selection = json.loads((tmp_path / "selection.json").read_text("utf-8"))
    assert {p["patient"]: p["reason_code"] for p in selection["patients"]} == {
        "1": None,
        "2": "followup_invalid",
        "3": "invalid_input",
    }
    (tmp_path / "nothing").mkdir()
    options[5] = tmp_path / "nothing"
    assert (
        run_command("select_followups.py", *options, "--min-days", "7", "--out", tmp_path / "selection.json")
        == 0
    )
    selection = json.loads((tmp_path / "selection.json").read_text("utf-8"))
    assert selection["flow"][-2]["step"] == "follow-up 7 days or more after the pre-operative exam"
    assert flow(selection) == [3, 2, 2, 0, 0, 0]


def test_other_choices_name_the_follow_up_each_would_have_picked() -> None:
    days = {"a": 30, "b": 84, "c": 120, "d": 200}
    volumes = {"a": 9.0, "b": 3.0, "c": 12.5, "d": 0.5}
    rows = [preop("1"), *(followup("1", s, d) for s, d in days.items()), preop("2", line=9)]
    summaries = [summary("1", s, v) for s, v in volumes.items()]
    selection = select_followups(
        rows,
        [exam("1"), exam("2")],
        summaries,
        other_rules=("last", "largest"),
        other_min_days=(0, 100, 300),
    )
    scored, excluded = selection["patients"]
    assert scored["followup_session"] == "b"
    assert [tuple(other.values()) for other in scored["others"]] == [
        ("followup", "last", "d", 200),
        ("followup", "largest", "c", 120),
        ("interval", "0", "a", 30),
        ("interval", "100", "c", 120),
    ]
    assert excluded["others"] == []


@pytest.mark.parametrize(
    ("given_text", "expected"), [("none", []), ("last", ["last"]), ("first,largest,largest", ["largest"])]
)
def test_the_choice_that_is_made_is_none_of_the_others(
    tmp_path: Path, given_text: str, expected: list[str]
) -> None:
    cohort = write_json(
        tmp_path / "cohort.json", {"rows": [preop("1"), followup("1", "a", 100)], "faults": []}
    )
    facts = [write_json(tmp_path / f"{i}.json", d) for i, d in enumerate((exam("1"), summary("1", "a", 1.0)))]
    out = tmp_path / "selection.json"
    options = ("--cohort", cohort, "--exams", facts[0], "--summaries", facts[1], "--other-rules", given_text)
    assert run_command("select_followups.py", *options, "--out", out) == 0
    others = only(json.loads(out.read_text()))["others"]
    assert [other["setting"] for other in others] == expected
