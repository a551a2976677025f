"""The cohort rules: which patients are scored, and against which follow-up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

#: A recurrence earlier than 12 weeks after the pre-operative exam may be residual tumour or the effect of
#: treatment.
MINIMUM_DAYS = 84

#: Rule -> key by which qualifying follow-ups are ordered; the smallest is used. The session settles ties.
RULES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "first": lambda followup: (followup["days"], followup["session"]),
    "last": lambda followup: (-followup["days"], followup["session"]),
    "largest": lambda followup: (-followup["recurrence_enhancing_ml"], followup["days"], followup["session"]),
}

#: Patient and session.
Exam = tuple[str, str | None]

VOLUMES = ("recurrence_enhancing_ml", "recurrence_core_ml", "recurrence_all_ml")
EXAM_FACTS = ("tumor_core_ml", "tumor_whole_ml", "tissue")


def select_followups(
    rows: Sequence[Mapping[str, Any]],
    exams: Iterable[Mapping[str, Any]],
    summaries: Iterable[Mapping[str, Any]],
    failures: Iterable[Mapping[str, Any]] = (),
    min_days: float = MINIMUM_DAYS,
    rule: str = "first",
    other_rules: Sequence[str] = (),
    other_min_days: Sequence[float] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Decide for each patient whether it is scored, and against which follow-up.

    A follow-up qualifies if it lies ``min_days`` or more after the pre-operative exam and shows enhancing
    tumour; of those that qualify, ``rule`` picks one. A sheet without any follow-up is one for prediction:
    nobody is scored and nobody is excluded for it.

    Parameters
    ----------
    rows
        Exams of the samplesheet, as :func:`~predictgbm.cohort.samplesheet.check_samplesheet` returns them.
    exams
        Facts of each prepared pre-operative exam (exam.json).
    summaries
        Session and volumes in ml of each follow-up that could be read.
    failures
        What went wrong: faults of sheet and exams (``line``, ``column``, ``what``, ``patient``) or failures
        of a step (``stage``, ``reason``, ``patient``, ``session``). A patient known by a fault alone is
        listed too.
    min_days
        Days from the pre-operative exam to the earliest follow-up that counts.
    rule
        ``first``, ``last`` or ``largest`` (enhancing volume) of those that qualify.
    other_rules, other_min_days
        Choices to be looked at too, one at a time: which follow-up each would have picked for a patient who is
        scored.

    Returns
    -------
    dict
        ``patients``: one record each, sorted by cohort and patient, with ``status`` (evaluated, predicted,
        excluded), ``reason_code``, ``reason`` and ``followups`` (every follow-up with its own reason_code,
        null if it qualifies), ``others`` ({axis, setting, session, days} of each other choice that finds a
        follow-up; axis is followup or interval). ``flow``: how many patients remain after each step.

    Raises
    ------
    KeyError
        If a rule is unknown.
    """
    order = RULES[rule]
    prepared = {exam["patient"]: exam for exam in exams}
    volumes = {(s["patient"], s["session"]): s for s in summaries}
    wrong = _reasons(rows, failures)
    preop = [row["meta"] for row in rows if row["meta"]["role"] == "preop"]
    cohorts = {row["meta"]["patient"]: row["meta"]["cohort"] for row in rows}
    lost = {patient for patient, _ in wrong} - {meta["patient"] for meta in preop}
    preop += [{"patient": p, "session": None, "cohort": cohorts.get(p)} for p in lost]
    followups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["meta"]["role"] == "followup":
            followups.setdefault(row["meta"]["patient"], []).append(row["meta"])
    predict = not followups

    steps = [("in the samplesheet", ()), ("pre-operative exam usable", ("invalid_input", "exam_failed"))]
    if not predict:
        steps += [
            ("with a follow-up", ("no_followup",)),
            ("follow-up usable", ("followup_invalid", "followup_failed")),
            (f"follow-up {min_days:g} days or more after the pre-operative exam", ("followup_too_early",)),
            ("visible recurrence (enhancing tumour)", ("no_recurrence",)),
        ]

    patients = []
    for meta in sorted(preop, key=lambda m: (m["cohort"] or "", m["patient"])):
        patient = meta["patient"]
        exam = prepared.get(patient)
        record: dict[str, Any] = {
            "patient": patient,
            "cohort": meta["cohort"],
            "session": meta["session"],
            "followup_session": None,
            "days": None,
            "status": "predicted" if predict else "evaluated",
            "reason_code": None,
            "reason": None,
            **{name: exam[name] if exam else None for name in EXAM_FACTS},
            **dict.fromkeys(VOLUMES),
            "others": [],
            "followups": _judge(followups.get(patient, []), volumes, wrong, min_days),
        }
        if exam is None:
            code, reason = _why(wrong, patient, meta["session"])
            record |= {"status": "excluded", "reason_code": code, "reason": reason}
        elif not predict:
            good = [followup for followup in record["followups"] if followup["reason_code"] is None]
            if good:
                used = min(good, key=order)
                record |= {"followup_session": used["session"], "days": used["days"]} | {
                    v: used[v] for v in VOLUMES
                }
                record["others"] = [
                    _choice("followup", other, min(good, key=RULES[other]))
                    for other in dict.fromkeys(other_rules)
                ]
                for days in dict.fromkeys(other_min_days):
                    judged = _judge(followups[patient], volumes, wrong, days)
                    if late := [followup for followup in judged if followup["reason_code"] is None]:
                        record["others"].append(_choice("interval", f"{days:g}", min(late, key=order)))
            else:
                code, reason = _why_none(record["followups"], min_days)
                record |= {"status": "excluded", "reason_code": code, "reason": reason}
        patients.append(record)

    flow, remaining = [], len(patients)
    for step, codes in steps:
        remaining -= sum(p["reason_code"] in codes for p in patients)
        flow.append({"step": step, "patients": remaining})
    return {"patients": patients, "flow": flow}


def _choice(axis: str, setting: str, followup: Mapping[str, Any]) -> dict[str, Any]:
    return {"axis": axis, "setting": setting, "session": followup["session"], "days": followup["days"]}


def _reasons(
    rows: Sequence[Mapping[str, Any]], failures: Iterable[Mapping[str, Any]]
) -> dict[Exam, tuple[str, str]]:
    """Return code and text of what went wrong with each exam; session None is the patient as a whole."""
    by_line = {row["line"]: row["meta"] for row in rows}
    reasons: dict[Exam, tuple[str, str]] = {}
    # Records of a step first: that of the input may already hold the text of the faults.
    for failure in sorted(failures, key=lambda f: "line" in f):
        if failure.get("model") or not failure["patient"]:
            continue
        if "line" in failure:
            session = by_line[failure["line"]]["session"] if failure["line"] in by_line else None
            code, text = "invalid_input", f"line {failure['line']}: {failure['column']}: {failure['what']}"
        else:
            session = failure["session"] or None
            code, text = "invalid_input" if failure["stage"] == "input" else "exam_failed", failure["reason"]
        key = (failure["patient"], session)
        told = reasons.get(key)
        if told is None:
            reasons[key] = (code, text)
        elif text not in told[1]:
            reasons[key] = (told[0], f"{told[1]} | {text}")
    return reasons


def _why(wrong: Mapping[Exam, tuple[str, str]], patient: str, session: str | None) -> tuple[str, str]:
    """Return code and text of what went wrong with an exam that is not there."""
    unknown = ("exam_failed", "the exam could not be prepared")
    return wrong.get((patient, session)) or wrong.get((patient, None)) or unknown


def _judge(
    followups: Iterable[Mapping[str, Any]],
    volumes: Mapping[tuple[str, str], Mapping[str, Any]],
    wrong: Mapping[Exam, tuple[str, str]],
    min_days: float,
) -> list[dict[str, Any]]:
    """Return each follow-up of a patient with the reason for which it does not qualify, in order of time."""
    judged = []
    for meta in sorted(followups, key=lambda m: (m["days"], m["session"])):
        key = (meta["patient"], meta["session"])
        summary = volumes.get(key)
        record = {"session": meta["session"], "days": meta["days"], "reason_code": None, "reason": None}
        record |= {v: summary[v] if summary else None for v in VOLUMES}
        if summary is None:
            code, text = _why(wrong, *key)
            code = "followup_invalid" if code == "invalid_input" else "followup_failed"
            record |= {"reason_code": code, "reason": text}
        elif meta["days"] < min_days:
            record |= {
                "reason_code": "followup_too_early",
                "reason": f"day {meta['days']:g} is before day {min_days:g}",
            }
        elif not summary["recurrence_enhancing_ml"] > 0:
            record |= {"reason_code": "no_recurrence", "reason": "no enhancing tumour is visible"}
        judged.append(record)
    return judged


def _why_none(followups: Sequence[Mapping[str, Any]], min_days: float) -> tuple[str, str]:
    """Return the reason for which no follow-up qualifies: that of the one that came furthest."""
    if not followups:
        return "no_followup", "the samplesheet has no follow-up of this patient"
    reached = ("followup_invalid", "followup_failed", "followup_too_early", "no_recurrence")
    furthest = max(followups, key=lambda f: reached.index(f["reason_code"]))["reason_code"]
    same = [f for f in followups if f["reason_code"] == furthest]
    days = ", ".join(f"{f['days']:g}" for f in same)
    text = {
        "followup_too_early": f"follow-up at day {days}, at least {min_days:g} needed",
        "no_recurrence": f"no enhancing tumour is visible at day {days}",
    }.get(furthest) or "; ".join(f"ses-{f['session']}: {f['reason']}" for f in same)
    return furthest, text
