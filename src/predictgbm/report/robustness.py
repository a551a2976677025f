"""Section of the report on how far the comparisons with the standard plan hold."""

from __future__ import annotations

from predictgbm.report.formatting import (
    MISSING,
    details,
    estimate,
    model_cell,
    number,
    p_value,
    points,
    table,
)
from predictgbm.report.results import Results, Row, is_true, others


def section(results: Results) -> tuple[str, str] | None:
    """Section with equivalence, the effect over data sets, joint sign flips and the detectable gain."""
    equivalence = [row for row in results.tables["equivalence"] if row.get("p_equivalence") is not None]
    overall = {row["model"]: row for row in equivalence if row["dataset"] == results.dataset}
    if not overall:
        return None
    bound = number(next(iter(overall.values()))["bound"], 1, 100).removesuffix(".0")
    mixed = {row["model"]: row for row in results.tables["mixed_model"]}
    power = {row["model"]: row for row in results.tables["power"]}
    compared = {row["model"]: row for row in results.headline}
    left = [row for row in results.tables["leave_one_dataset_out"] if row.get("p_pratt") is not None]
    names = [name for name in others(results) if name in overall]
    body = []
    for name in names:
        same, effect, found = overall[name], mixed.get(name, {}), power.get(name, {})
        kept = [is_true(row["significance_kept"]) for row in left if row["model"] == name]
        body.append(
            [
                model_cell(results, name),
                int(same["n"]),
                p_value(same["p_noninferiority"]),
                p_value(same["p_equivalence"]),
                p_value(compared.get(name, {}).get("p_max_t")),
                f"{sum(kept)} of {len(kept)}" if kept else MISSING,
                estimate(effect, "estimate"),
                p_value(effect.get("p")),
                "none" if found and found.get("minimum_gain") is None else points(found.get("minimum_gain")),
            ]
        )
    head = [
        "Model",
        "Patients",
        f"Not worse by {bound} points, p",
        f"Within ±{bound} points, p",
        "Better or worse, p by joint sign flips",
        "Verdict kept without each data set",
        "Mean gain, data set as random effect, points [95 % CI]",
        "Its p",
        "Smallest detectable mean gain, points",
    ]
    how = (
        "A difference is robust if joint sign flips find it too and its verdict is kept without each data set; where "
        "none was found, a small p for “within” says that the model does as well as the standard plan, and a large "
        "one that there are too few patients to tell."
    )
    return how, table(head, body) + more_robustness(results, equivalence, left, names)


def more_robustness(results: Results, equivalence: list[Row], left: list[Row], names: list[str]) -> str:
    """Return the tables behind the section on robustness, folded."""
    folded = ""
    by_model = {name: model_cell(results, name) for name in names}
    rows = [
        [
            by_model[row["model"]],
            row["left_out"],
            int(row["n"]),
            estimate(row, "shift"),
            p_value(row["p_pratt"]),
            "yes" if is_true(row["sign_kept"]) else "no",
            "yes" if is_true(row["significance_kept"]) else "no",
        ]
        for row in left
        if row["model"] in by_model
    ]
    if rows:
        head = ["Model", "Left out", "n", "Shift, points [95 % CI]", "p (Pratt)", "Sign kept", "Verdict kept"]
        folded += details("Without each data set in turn", table(head, rows, (0, 1), sortable=True))
    rows = [
        [
            by_model[row["model"]],
            row["dataset"],
            int(row["n"]),
            estimate(row, "shift"),
            *(p_value(row.get(f"p_{test}")) for test in ("noninferiority", "nonsuperiority", "equivalence")),
            points(row["mean"], sign=True),
            p_value(row.get("p_t_noninferiority")),
            p_value(row.get("p_t_equivalence")),
        ]
        for row in equivalence
        if row["model"] in by_model
    ]
    head = ["Model", "Dataset", "n", "Shift, points [90 % CI]", "Not worse, p", "Not better, p", "Within, p"]
    head += ["Mean, points", "Not worse, p (t)", "Within, p (t)"]
    folded += details("Equivalence, by ranks and by t-test", table(head, rows, (0, 1), sortable=True))
    rows = [
        [
            by_model[row["model"]],
            row["fit"],
            int(row["n_datasets"]),
            points(row.get("sd_between")),
            points(row.get("sd_within")),
        ]
        for row in results.tables["mixed_model"]
        if row["model"] in by_model
    ]
    head = ["Model", "Fitted", "Data sets", "SD between data sets, points", "SD between patients, points"]
    folded += details("What was fitted for the mean gain", table(head, rows, (0, 1)))
    rows = [
        [
            by_model[row["model"]],
            int(row["n"]),
            int(row["n_zero"]),
            *(
                f"{points(row[gain])} ± {number(row[f'{gain}_error'], 2, 100)}"
                if row.get(gain) is not None
                else "none"
                for gain in ("minimum_gain", "family_gain")
            ),
            points(row["largest_gain"]),
        ]
        for row in results.tables["power"]
        if row["model"] in by_model
    ]
    head = [
        "Model",
        "n",
        "Equal",
        "One test, points",
        "All tests of the family, points",
        "If all changes were gains",
    ]
    return folded + details(
        "Mean gain that is detected with 80 % power (± simulation error)", table(head, rows)
    )
