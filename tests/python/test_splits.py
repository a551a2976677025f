"""Splits of a cohort: balance, separation of patients, reproducibility, refusals."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictgbm.learned.splits import Case, SplitError, check_splits, draw_splits, leave_one_cohort_out


def cohort(name: str, size: int, exams: int = 1) -> list[Case]:
    return [Case(f"{name}{i:03d}", name, float(i * i % 17 + j)) for i in range(size) for j in range(exams)]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    count=st.integers(2, 6),
    exams=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_splits_are_disjoint_complete_and_balanced(
    sizes: list[int], count: int, exams: int, seed: int
) -> None:
    cases = [case for i, size in enumerate(sizes) for case in cohort("abcd"[i], size, exams)]
    if sum(sizes) < max(count, 4):
        return
    splits = draw_splits(cases, count, seed)
    patients = {case.patient for case in cases}
    check_splits(splits, patients)
    held_out = [split["held_out"] for split in splits["splits"].values()]
    assert sorted(p for part in held_out for p in part) == sorted(patients)
    for group in [patients, *({p for p in patients if p[0] == name} for name in "abcd")]:
        numbers = [len(group & set(part)) for part in held_out]
        assert max(numbers) - min(numbers) <= 1
    for split in splits["splits"].values():
        assert sorted(split["training"] + split["validation"] + split["held_out"]) == sorted(patients)
        rest = len(split["training"]) + len(split["validation"])
        assert abs(len(split["validation"]) - rest / min(5, rest)) < 1


def test_neighbours_in_volume_go_to_different_splits() -> None:
    cases = [Case(f"p{i:02d}", "one", float(i)) for i in range(40)]
    splits = draw_splits(cases, 5, seed=3)["splits"]
    where = {p: name for name, split in splits.items() for p in split["held_out"]}
    for start in range(0, 40, 5):
        assert len({where[f"p{i:02d}"] for i in range(start, start + 5)}) == 5
    # By chance, not in turn.
    assert Counter(where[f"p{i:02d}"] for i in range(0, 40, 5)).most_common(1)[0][1] < 8


def test_splits_hang_on_seed_and_patients_alone() -> None:
    cases = cohort("a", 23, exams=2) + cohort("b", 14)
    first = draw_splits(cases, seed=1)
    assert first == draw_splits(reversed(cases), seed=1)
    assert first != draw_splits(cases, seed=2)
    assert json.loads(json.dumps(first)) == first


def test_one_cohort_is_left_out_at_a_time() -> None:
    cases = cohort("a", 7) + cohort("b", 9, exams=2) + cohort("c", 3)
    document = leave_one_cohort_out(cases)
    check_splits(document, {case.patient for case in cases})
    assert document["by"] == "cohort"
    for name, split in document["splits"].items():
        assert {p[0] for p in split["held_out"]} == {name}
        assert name not in {p[0] for p in split["training"] + split["validation"]}


@pytest.mark.parametrize(
    ("cases", "count", "reason"),
    [
        (cohort("a", 3), 5, "3 patients are too few"),
        (cohort("a", 2), 2, "leave 1"),
        (cohort("a", 9), 1, "at least 2"),
        ([*cohort("a", 9), Case("a000", "b", 1.0)], 5, "a000 is in cohorts a and b"),
        ([*cohort("a", 9), Case("x", "a", float("nan"))], 5, "patient x"),
    ],
)
def test_impossible_splits_are_refused(cases: list[Case], count: int, reason: str) -> None:
    with pytest.raises(SplitError, match=reason):
        draw_splits(cases, count)


def test_a_single_cohort_cannot_be_left_out() -> None:
    with pytest.raises(SplitError, match="2 cohorts or more, found a"):
        leave_one_cohort_out(cohort("a", 9))


def test_faulty_files_of_splits_are_refused() -> None:
    cases = cohort("a", 12)
    patients = {case.patient for case in cases}
    good = draw_splits(cases, 3)

    def changed(name: str, part: str, names: list[str]) -> dict:
        document = json.loads(json.dumps(good))
        document["splits"][name][part] = names
        return document

    one = good["splits"]["1"]
    with pytest.raises(SplitError, match=f"in two parts: {one['held_out'][0]}"):
        check_splits(changed("1", "training", [*one["training"], one["held_out"][0]]), patients)
    with pytest.raises(SplitError, match=f"in no part: {one['held_out'][0]}"):
        check_splits(changed("1", "held_out", one["held_out"][1:]), patients)
    with pytest.raises(SplitError, match="not of this cohort: a000; draw new splits"):
        check_splits(good, patients - {"a000"})
    with pytest.raises(SplitError, match="validation or held_out is empty"):
        check_splits(changed("2", "validation", []), patients)
    with pytest.raises(SplitError, match="none in the file"):
        check_splits({}, patients)
    with pytest.raises(SplitError, match="needs training"):
        check_splits({"splits": {"1": {}}}, patients)
    document = json.loads(json.dumps(good))
    document["splits"]["2"] = document["splits"]["1"]
    with pytest.raises(SplitError, match="held out by two splits"):
        check_splits(document, patients)
    del document["splits"]["2"]
    with pytest.raises(SplitError, match="never held out"):
        check_splits(document, patients)
