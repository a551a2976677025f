"""Plans within the barriers of a guideline, each model against the guideline's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from predictgbm.statistics.paired import compare, count_zeros_and_ties, holm

#: Name under which the guideline's own plan stands among the models.
OWN_PLAN = "guideline"


def guideline_rows(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of table ``guidelines`` from the records of ``evaluate_plan.py``.

    The guideline's own plan is measured beside each model's; every patient's stands in the table once.
    """
    models, own = [], {}
    for record in records:
        for entry in record.get("guidelines") or []:
            row = {
                "patient": record.get("patient"),
                "guideline": entry["guideline"],
                "plan_ml": entry["plan_ml"],
            }
            kinds = ("coverage_enhancing", "coverage_core")
            models.append(row | {"model": record.get("model")} | {kind: entry[kind] for kind in kinds})
            own[row["patient"], row["guideline"]] = (
                row | {"model": OWN_PLAN} | {kind: entry[f"guideline_{kind}"] for kind in kinds}
            )
    return [*models, *own.values()]


def guideline_comparisons(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Test the enhancing coverage of each model against that of the guideline's own plan, paired by patient.

    Parameters
    ----------
    table
        Table ``guidelines``.

    Returns
    -------
    list of dict
        Rows of table ``guideline_comparisons``. The p-values of one guideline are adjusted together by Holm, where a
        model that could not be tested counts, too.
    """
    rows = []
    for name, part in table.groupby("guideline"):
        wide = part.pivot(index="patient", columns="model", values="coverage_enhancing").astype("float64")
        own = wide[OWN_PLAN]
        family = [
            {"guideline": name, "model": model} | _compare(wide[model].to_numpy(), own.to_numpy())
            for model in wide.columns
            if model != OWN_PLAN
        ]
        adjusted = holm([row.get("p_pratt", np.nan) for row in family]).tolist()
        for row, p in zip(family, adjusted, strict=True):
            row["p_adjusted"] = p
        rows += family
    return rows


def _compare(model: np.ndarray, own: np.ndarray) -> dict[str, Any]:
    both = np.isfinite(model) & np.isfinite(own)
    difference = model[both] - own[both]
    row: dict[str, Any] = {"n": difference.size, "n_zero": count_zeros_and_ties(difference)[0]}
    if difference.size:
        row |= {"mean": model[both].mean(), "mean_guideline": own[both].mean()} | compare(difference)
    return row
