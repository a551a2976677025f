"""Rows of the tables that tell how far the comparisons with the reference hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from predictgbm.statistics.paired import (
    ALPHA,
    MINIMUM_PATIENTS,
    Floats,
    count_zeros_and_ties,
    direction,
    hodges_lehmann,
    signed_rank_p,
    verdict,
)
from predictgbm.statistics.robustness import (
    equivalence_by_ranks,
    equivalence_by_t,
    minimum_difference,
    mixed_model,
)

Row = dict[str, Any]
Remark = Callable[[str, str, str], None]

TOO_FEW = f"Fewer than {MINIMUM_PATIENTS} patients, robustness not computed"


def robustness_rows(
    datasets: Sequence[tuple[str, pd.DataFrame]],
    *,
    bound: float,
    tests: int,
    seed: int,
    remark: Remark,
) -> dict[str, list[Row]]:
    """Compute the rows of tables ``equivalence``, ``mixed_model``, ``leave_one_dataset_out`` and ``power``.

    Parameters
    ----------
    datasets
        Name and differences to the reference, patients x models, NaN where one of both is missing: first of all
        patients together, then of each data set. May be empty.
    bound
        Largest difference of coverage that does not matter.
    tests
        Number of tests in the family that is adjusted together.
    seed
        Seed of the simulated cohorts.
    remark
        Called with cause, data set and model where something could not be computed.
    """
    rows: dict[str, list[Row]] = {
        name: [] for name in ("equivalence", "mixed_model", "leave_one_dataset_out", "power")
    }
    if not datasets:
        return rows
    pooled, everyone = datasets[0]
    for model in everyone.columns:
        gains = {name: part[model].dropna().to_numpy() for name, part in datasets}
        rows["equivalence"] += [
            {"model": model, "dataset": name} | _equivalence(values, bound) for name, values in gains.items()
        ]
        total = gains.pop(pooled)
        gains = {name: values for name, values in gains.items() if values.size}
        if total.size < MINIMUM_PATIENTS:
            remark(TOO_FEW, pooled, model)
            continue
        rows["mixed_model"].append({"model": model} | _mixed_model(gains))
        rows["power"].append({"model": model} | _power(total, tests, seed))
        if np.isnan(rows["power"][-1]["minimum_gain"]):
            remark("Too few patients that differ to detect any gain with 80 % power", pooled, model)
        if len(gains) < 2:
            remark("One data set, none to leave out", pooled, model)
            continue
        for name, row in _leave_one_out(gains, total).items():
            rows["leave_one_dataset_out"].append({"model": model, "left_out": name} | row)
            if row["n"] < MINIMUM_PATIENTS:
                remark(TOO_FEW, f"all but {name}", model)
    return rows


def _equivalence(gain: Floats, bound: float) -> Row:
    row: Row = {"n": gain.size, "bound": bound}
    if gain.size < MINIMUM_PATIENTS:
        return row
    shift = hodges_lehmann(gain, level=1 - 2 * ALPHA)
    row |= {"shift": shift.estimate, "shift_low": shift.low, "shift_high": shift.high, "mean": gain.mean()}
    for prefix, test in (("p", equivalence_by_ranks(gain, bound)), ("p_t", equivalence_by_t(gain, bound))):
        row |= {
            f"{prefix}_noninferiority": test.noninferiority,
            f"{prefix}_nonsuperiority": test.nonsuperiority,
            f"{prefix}_equivalence": test.equivalence,
        }
    return row


def _mixed_model(gains: Mapping[str, Floats]) -> Row:
    fitted = mixed_model(
        np.concatenate(list(gains.values())), np.repeat(list(gains), [part.size for part in gains.values()])
    )
    return {
        "n": sum(part.size for part in gains.values()),
        "n_datasets": len(gains),
        "estimate": fitted.estimate,
        "estimate_low": fitted.low,
        "estimate_high": fitted.high,
        "p": fitted.p,
        "sd_between": fitted.sd_between,
        "sd_within": fitted.sd_within,
        "fit": fitted.fit,
    }


def _leave_one_out(gains: Mapping[str, Floats], total: Floats) -> dict[str, Row]:
    sign, found = direction(total), verdict(total)
    rows: dict[str, Row] = {}
    for left_out in gains:
        rest = np.concatenate([part for name, part in gains.items() if name != left_out])
        rows[left_out] = {"n": rest.size}
        if rest.size < MINIMUM_PATIENTS:
            continue
        shift = hodges_lehmann(rest)
        rows[left_out] |= {
            "shift": shift.estimate,
            "shift_low": shift.low,
            "shift_high": shift.high,
            "p_pratt": signed_rank_p(rest),
            "sign_kept": direction(rest) == sign,
            "significance_kept": verdict(rest) == found,
        }
    return rows


def _power(gain: Floats, tests: int, seed: int) -> Row:
    alone = minimum_difference(gain, seed=seed)
    adjusted = minimum_difference(gain, ALPHA / max(tests, 1), seed=seed)
    return {
        "n": gain.size,
        "n_zero": count_zeros_and_ties(gain)[0],
        "largest_gain": np.abs(gain).mean(),
        "minimum_gain": alone.gain,
        "minimum_gain_error": alone.error,
        "n_tests": tests,
        "family_gain": adjusted.gain,
        "family_gain_error": adjusted.error,
    }
