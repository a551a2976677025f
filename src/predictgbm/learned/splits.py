"""Splits of a cohort: who trains, who decides when a training ends, and who is held out from both.

What a split holds out shapes none of its networks: the end of a training is chosen on a validation part, which is
drawn from the patients that are not held out. A patient is in one part of a split only, whatever the number of exams.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

#: Parts that the patients who are not held out are dealt to; one of them validates.
VALIDATION_PARTS = 5


class SplitError(ValueError):
    """A cohort cannot be split, or a file of splits does not fit it; the message says why."""


class Case(NamedTuple):
    """One exam of a cohort: its patient, the cohort, and the volume of its tumour in ml."""

    patient: str
    cohort: str
    volume_ml: float


def draw_splits(cases: Iterable[Case], count: int = 5, seed: int = 0) -> dict[str, Any]:
    """Hold out each patient once, in splits that are alike in cohorts and volumes.

    Patients of a cohort are ordered by volume, the mean over their exams, and each ``count`` neighbours go to ``count``
    different splits by chance. Numbers of patients differ by at most one between splits, in each cohort and in all.

    Parameters
    ----------
    cases
        One per exam.
    count
        Number of splits, at least 2.
    seed
        Draws the splits and the validation part of each.

    Returns
    -------
    dict
        JSON values: ``by`` ("patient"), ``seed``, and ``splits``, from the name of a split to its three sorted lists of
        patients, ``training``, ``validation`` and ``held_out``.

    Raises
    ------
    SplitError
        If a patient is in two cohorts, a volume is not a number, or a part would be empty.
    """
    if count < 2:
        raise SplitError(f"{count} splits: at least 2 are needed")
    patients = _by_patient(cases)
    rng = np.random.default_rng([seed, 0])
    held_out = {str(i + 1): part for i, part in enumerate(_deal(patients, count, rng))}
    return _complete("patient", patients, held_out, seed)


def leave_one_cohort_out(cases: Iterable[Case], seed: int = 0) -> dict[str, Any]:
    """Hold out each cohort once; as :func:`draw_splits` otherwise, with ``by`` "cohort" and splits named by cohorts.

    Raises
    ------
    SplitError
        As :func:`draw_splits`, and if there is one cohort only.
    """
    patients = _by_patient(cases)
    held_out: dict[str, list[str]] = {}
    for case in patients:
        held_out.setdefault(case.cohort, []).append(case.patient)
    if len(held_out) < 2:
        raise SplitError(
            f"leave-one-cohort-out needs 2 cohorts or more, found {', '.join(held_out) or 'none'}"
        )
    return _complete("cohort", patients, held_out, seed)


def check_splits(document: Mapping[str, Any], patients: Iterable[str]) -> None:
    """Demand that splits, read from a file, fit a cohort.

    Raises
    ------
    SplitError
        If a part is missing, a patient is in two parts of a split, is held out more than once or never, or is not of
        the cohort. The message names split and patients.
    """
    wanted = set(patients)
    if not document.get("splits"):
        raise SplitError("splits: none in the file; it is not one that this project wrote")
    for name, split in document["splits"].items():
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise SplitError(f"split '{name}': a name has letters, digits, - and _ only")
        try:
            parts = [split[key] for key in ("training", "validation", "held_out")]
        except (KeyError, TypeError):
            raise SplitError(f"split {name}: needs training, validation and held_out") from None
        if not all(parts):
            raise SplitError(f"split {name}: training, validation or held_out is empty")
        together = Counter(p for part in parts for p in part)
        _demand_none(f"split {name}: in two parts", (p for p, n in together.items() if n > 1))
        _demand_none(f"split {name}: not of this cohort", together.keys() - wanted)
        _demand_none(f"split {name}: in no part", wanted - together.keys())
    held_out = Counter(p for split in document["splits"].values() for p in split["held_out"])
    _demand_none("held out by two splits", (p for p, n in held_out.items() if n > 1))
    _demand_none("never held out", wanted - held_out.keys())


def _demand_none(fault: str, patients: Iterable[str]) -> None:
    if found := sorted(patients):
        shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise SplitError(f"{fault}: {shown}; draw new splits for this cohort")


def _by_patient(cases: Iterable[Case]) -> list[Case]:
    """Return one case per patient, with the mean volume, sorted by patient."""
    exams: dict[str, list[Case]] = {}
    for case in cases:
        exams.setdefault(case.patient, []).append(case)
    result = []
    for patient, own in sorted(exams.items()):
        if len(cohorts := sorted({case.cohort for case in own})) > 1:
            raise SplitError(
                f"patient {patient} is in cohorts {' and '.join(cohorts)}; give every person a name of its own"
            )
        volume = float(np.mean([case.volume_ml for case in own]))
        if not np.isfinite(volume):
            raise SplitError(f"patient {patient}: the tumour's volume is {volume}, expected a number of ml")
        result.append(Case(patient, own[0].cohort, volume))
    return result


def _deal(patients: Sequence[Case], count: int, rng: np.random.Generator) -> list[list[str]]:
    """Deal patients to ``count`` parts, alike in cohorts and volumes."""
    parts: list[list[str]] = [[] for _ in range(count)]
    for cohort in sorted({case.cohort for case in patients}):
        ordered = sorted((c for c in patients if c.cohort == cohort), key=lambda c: (c.volume_ml, c.patient))
        for start in range(0, len(ordered), count):
            block = ordered[start : start + count]
            # A block that is not full goes to the smallest parts, so that sizes stay within one of each other.
            by_size = sorted(rng.permutation(count).tolist(), key=lambda i: len(parts[i]))
            for case, i in zip(block, rng.permutation(by_size[: len(block)]).tolist(), strict=True):
                parts[i].append(case.patient)
    return parts


def _complete(
    by: str, patients: Sequence[Case], held_out: Mapping[str, Sequence[str]], seed: int
) -> dict[str, Any]:
    """Draw the validation part of each split."""
    splits = {}
    for i, (name, out) in enumerate(held_out.items()):
        rest = [case for case in patients if case.patient not in set(out)]
        if not out or len(rest) < 2:
            raise SplitError(
                f"{len(patients)} patients are too few: split {name} would hold out {len(out)} and leave "
                f"{len(rest)}, of whom one has to train and another to validate; give more patients or fewer splits"
            )
        parts = _deal(rest, min(VALIDATION_PARTS, len(rest)), np.random.default_rng([seed, 1, i]))
        validation = set(parts[0])
        splits[name] = {
            "training": sorted(case.patient for case in rest if case.patient not in validation),
            "validation": sorted(validation),
            "held_out": sorted(out),
        }
    return {"by": by, "seed": seed, "splits": splits}
