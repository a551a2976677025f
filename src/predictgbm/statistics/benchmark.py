"""The tables of a whole benchmark, from the scores of every plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from predictgbm.failures import ANALYSES
from predictgbm.labels import RECURRENCE
from predictgbm.quality import quality_rows
from predictgbm.statistics.bootstrap import bca_interval, cohort_strata
from predictgbm.statistics.causes import cause_rows, frequency_rows
from predictgbm.statistics.conformal import COVERAGE, LEVEL, guarantee_rows
from predictgbm.statistics.curves import curve_rows, volume_rows
from predictgbm.statistics.dose import dose_tables
from predictgbm.statistics.given_dose import given_dose_tables
from predictgbm.statistics.guidelines import guideline_comparisons, guideline_rows
from predictgbm.statistics.paired import (
    MINIMUM_PATIENTS,
    compare,
    count_zeros_and_ties,
    holm,
    sign_flip_p,
    signed_rank_p,
    spearman,
)
from predictgbm.statistics.panels import Bootstrap, Ranking, by_model, find_panels, rank_panel
from predictgbm.statistics.patterns import coverage_rows, pattern_rows
from predictgbm.statistics.reliability import calibration_remarks, calibration_tables
from predictgbm.statistics.robustness import step_down_max_t
from predictgbm.statistics.robustness_tables import robustness_rows
from predictgbm.statistics.settings import settings_rows
from predictgbm.statistics.uncertainty import uncertainty_tables
from predictgbm.tables import COVARIATES, TABLES, TableError, build, data_dictionary

#: Definition of recurrence of the primary endpoint.
PRIMARY = "enhancing"

#: All patients together.
POOLED = "pooled"

#: Columns of ``metrics`` that a record may leave to the cohort's row of its patient.
IDENTITY = ("session", "cohort", "followup_session", "days")


#: Measures of a plan: a model that differs from another in none of them, in no patient, has its plans.
PLAN_MEASURES = ("coverage_enhancing", "coverage_core", "coverage_all", "dice", "hd95_mm", "plan_ml")


@dataclass
class Analysis:
    """Results of :func:`analyse`: rows of tables, the family of Holm's rule, remarks, ranking, robustness."""

    summary: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    correlations: list[dict[str, Any]]
    family: list[dict[str, str]]
    notes: list[str]
    ranking: Ranking
    robustness: dict[str, list[dict[str, Any]]]


@dataclass
class _Remarks:
    """What could not be computed: which models, by cause, data set and definition of recurrence."""

    models: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)

    def add(self, cause: str, dataset: str, definition: str, model: str) -> None:
        names = self.models.setdefault((cause, dataset, definition), [])
        if model not in names:
            names.append(model)

    def sentences(self) -> list[str]:
        """Return one sentence for all data sets and definitions in which a cause concerns the same models."""
        definitions: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
        for (cause, dataset, definition), names in self.models.items():
            definitions.setdefault((cause, tuple(names), dataset), []).append(definition)
        datasets: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
        for (cause, models, dataset), found in definitions.items():
            datasets.setdefault((cause, models, tuple(found)), []).append(dataset)
        return [
            f"{cause}: {', '.join(models)} in {', '.join(where)} (recurrence: {', '.join(found)})."
            for (cause, models, found), where in datasets.items()
        ]


def volume_at_coverage(fraction: ArrayLike, coverage: ArrayLike, target: float, plan_ml: float) -> float:
    """Return the least volume at which a coverage-volume curve reaches a coverage.

    The curve runs through (0, 0) and is linear between its points.

    Parameters
    ----------
    fraction
        Planned volume over ``plan_ml``, shape (k,).
    coverage
        Coverage at these volumes, 0 to 1, shape (k,).
    target
        Coverage to reach.
    plan_ml
        Volume of the plan in ml.

    Returns
    -------
    float
        Volume in ml; NaN if the curve stays below ``target``.
    """
    order = np.argsort(np.asarray(fraction, np.float64), kind="stable")
    x = np.concatenate([[0.0], np.asarray(fraction, np.float64)[order]])
    y = np.concatenate([[0.0], np.asarray(coverage, np.float64)[order]])
    reached = np.flatnonzero(y >= target - 1e-12)
    if not reached.size:
        return float("nan")
    k = int(reached[0])
    if k == 0:
        return 0.0
    part = min((target - y[k - 1]) / (y[k] - y[k - 1]), 1.0)
    return float((x[k - 1] + part * (x[k] - x[k - 1])) * plan_ml)


def analyse(
    metrics: pd.DataFrame,
    *,
    models: Iterable[str] = (),
    failed: Mapping[tuple[str, str], str] | None = None,
    reference: str = "soc",
    family_definitions: Sequence[str] = (PRIMARY,),
    family_models: Sequence[str] | None = None,
    equivalence_bound: float = 0.05,
    draws: int = 10_000,
    ranking_draws: int = 1000,
    seed: int = 20251,
) -> Analysis:
    """Compute summary, comparisons with the reference, their robustness, correlations, and the ranking of all models.

    A patient is evaluable for a definition of recurrence if any model has a coverage there. Tests are of
    complete cases; a model without output for an evaluable patient shows in ``mean_missing_as_zero``.

    Parameters
    ----------
    metrics
        Table ``metrics``, see :data:`predictgbm.tables.TABLES`.
    models
        Models to list even if they have no row in ``metrics``.
    failed
        Patient and model -> kind of the failure for which there is no result.
    reference
        The model that all others are compared with.
    family_definitions, family_models
        Definitions of recurrence and models whose pooled comparisons form the family of Holm's rule, declared
        before the results are seen. Every other test is exploratory. A declared test that cannot be made still
        counts in the adjustment. None: all models but those whose plans are the reference's in every patient
        (:func:`find_identical`), of which there is nothing to test. The choice rests on absolute differences
        alone, given which the tests are exact, so that it leaves the error rate as it is (Tarone 1990, Biometrics
        46:515-522).
    equivalence_bound
        Largest difference of coverage that is declared not to matter.
    draws, seed
        Bootstrap samples and sign flips, and the seed of everything drawn.
    ranking_draws
        Bootstrap samples of the ranking.

    Raises
    ------
    TableError
        If the family names an unknown definition.
    """
    names = sorted({*metrics["model"].tolist(), *models})
    candidates = [name for name in names if name != reference]
    identical = find_identical(metrics, candidates, reference)
    left_out = identical if family_models is None else []
    if family_models is None:
        family_models = [name for name in candidates if name not in identical]
    for definition in family_definitions:
        if definition not in RECURRENCE:
            raise TableError(
                f"unknown definition of recurrence {definition}; known are {', '.join(RECURRENCE)}"
            )
    cohort = _cohorts(metrics)

    remarks = _Remarks()
    notes = []
    if len(metrics) and reference not in names:
        notes.append(f"No comparison: the reference model '{reference}' has no result.")
    elif len(metrics) and not candidates:
        notes.append(f"No comparison: '{reference}' is the only model.")
    absent = [model for model in family_models if model not in candidates]
    if identical:
        kept = (
            "left out of the family of tests"
            if left_out
            else "in the family of tests only where it is declared"
        )
        notes.append(f"Same plan as {reference} in every patient, {kept}: {', '.join(identical)}.")
    if absent:
        notes.append(f"Declared in the family of tests, but without result: {', '.join(absent)}.")

    summary, comparisons, family_gains = [], [], []
    for definition in RECURRENCE:
        coverage = by_model(metrics, f"coverage_{definition}", names)
        for dataset, part in _datasets(coverage, cohort):
            member = cohort.loc[part.index]
            for model in names:
                summary.append(
                    {"model": model, "dataset": dataset, "definition": definition}
                    | _summarise(part[model], member, draws, seed)
                )
                if summary[-1]["n"] < MINIMUM_PATIENTS:
                    remarks.add(
                        f"Fewer than {MINIMUM_PATIENTS} patients, no interval", dataset, definition, model
                    )
            for model in candidates:
                paired = part[model] - part[reference] if reference in names else part[model] * np.nan
                row, remark = _compare(paired, member, draws, seed)
                in_family = dataset == POOLED and definition in family_definitions and model in family_models
                comparisons.append(
                    {"model": model, "dataset": dataset, "definition": definition, "in_family": in_family}
                    | {"identical": model in identical}
                    | row
                )
                if in_family:
                    family_gains.append(paired * np.nan if np.isnan(row["p_pratt"]) else paired)
                if remark and reference in names:
                    remarks.add(remark, dataset, definition, model)

    family = [
        {"model": model, "dataset": POOLED, "definition": definition}
        for definition in family_definitions
        for model in family_models
    ]
    tests = [row for row in comparisons if row["in_family"]]
    not_made = [float("nan")] * (len(family) - len(tests))
    adjusted = holm([row["p_pratt"] for row in tests] + not_made)
    for row, p in zip(tests, adjusted.tolist(), strict=False):
        row["p_adjusted"] = p
    if tests:
        together = pd.concat(family_gains, axis=1).to_numpy()
        for row, p in zip(tests, step_down_max_t(together, draws, seed).tolist(), strict=True):
            row["p_max_t"] = p
    coverage = by_model(metrics, f"coverage_{PRIMARY}", sorted({*names, reference}))
    gains = coverage[candidates].sub(coverage[reference], axis=0)
    robustness = robustness_rows(
        list(_datasets(gains.dropna(how="all"), cohort)),
        bound=equivalence_bound,
        tests=len(family),
        seed=seed,
        remark=lambda cause, dataset, model: remarks.add(cause, dataset, PRIMARY, model),
    )
    correlations = _correlate(metrics, gains, remarks)
    ranking = _rank(coverage[names], cohort, ranking_draws, seed, failed)
    return Analysis(
        summary, comparisons, correlations, family, notes + remarks.sentences(), ranking, robustness
    )


def find_identical(metrics: pd.DataFrame, models: Iterable[str], reference: str) -> list[str]:
    """Return the models whose plan is that of the reference in every patient whom either of them has.

    Exactly: no measure of a plan (:data:`PLAN_MEASURES`) differs at all, and no patient is without one of the two.
    """
    plans = {
        name: own.set_index("patient")[list(PLAN_MEASURES)].astype("float64").sort_index()
        for name, own in metrics.groupby("model")
    }
    if reference not in plans or plans[reference]["coverage_enhancing"].isna().all():
        return []
    return [name for name in models if name in plans and plans[name].equals(plans[reference])]


def _cohorts(metrics: pd.DataFrame) -> pd.Series:
    """Return the cohort of each patient, in words of which none is that for all patients together."""
    cohort = metrics.drop_duplicates("patient").set_index("patient")["cohort"].astype(object)
    return cohort.where(cohort.notna(), "not given").replace(POOLED, f"{POOLED} (cohort)").astype(str)


def _datasets(coverage: pd.DataFrame, cohort: pd.Series) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield all patients together, then each cohort; nothing if there are no patients."""
    if len(coverage):
        yield POOLED, coverage
    member = cohort.loc[coverage.index]
    for name in sorted(set(member)):
        yield name, coverage[member == name]


def _summarise(coverage: pd.Series, cohort: pd.Series, draws: int, seed: int) -> dict[str, Any]:
    """Describe the coverage of one model; NaN stands for a patient without its output."""
    values = coverage.dropna().to_numpy()
    n = values.size
    row: dict[str, Any] = {"n": n, "mean_missing_as_zero": coverage.fillna(0.0).mean()}
    if n:
        q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        row |= {"mean": values.mean(), "median": median, "q1": q1, "q3": q3}
    if n >= 2:
        sd = values.std(ddof=1)
        row |= {"sd": sd, "sem": sd / np.sqrt(n)}
    if n >= MINIMUM_PATIENTS:
        strata = cohort_strata(cohort[coverage.notna()])
        row["ci_low"], row["ci_high"] = bca_interval(values, strata, "mean", draws, seed)
        row["median_ci_low"], row["median_ci_high"] = bca_interval(values, strata, "median", draws, seed)
    return row


def _compare(gains: pd.Series, cohort: pd.Series, draws: int, seed: int) -> tuple[dict[str, Any], str | None]:
    """Test paired differences, NaN without a pair; return the row and a remark on what is missing from it."""
    differences = gains.dropna().to_numpy()
    n_zero, n_tied = count_zeros_and_ties(differences)
    row: dict[str, Any] = {"n": differences.size, "n_zero": n_zero, "n_tied": n_tied, "p_pratt": float("nan")}
    row |= compare(differences)
    if not differences.size:
        return row, "No patient with both results, no test"
    row["mean_gain"] = differences.mean()
    if differences.size < MINIMUM_PATIENTS:
        return row, f"Fewer than {MINIMUM_PATIENTS} pairs, no test"
    strata = cohort_strata(cohort[gains.notna()])
    row["mean_gain_low"], row["mean_gain_high"] = bca_interval(differences, strata, "mean", draws, seed)
    if n_zero == differences.size:
        return row, "All differences are zero, no test"
    row |= {
        "p_wilcox": signed_rank_p(differences, "wilcoxon"),
        "p_signflip": sign_flip_p(differences, draws, seed),
    }
    remark = None
    if np.isnan(row["shift_low"]):
        remark = "Too few pairs for a 95 % interval of the shift"
    elif n_zero and row["p_pratt"] < 0.05 and row["shift_low"] <= 0 <= row["shift_high"]:
        remark = (
            "The interval of the shift touches zero although p_pratt is below 0.05: "
            "the interval keeps patients without a difference, the test leaves them out after ranking"
        )
    return row, remark


def _correlate(metrics: pd.DataFrame, gains: pd.DataFrame, remarks: _Remarks) -> list[dict[str, Any]]:
    """Correlate gains, patients x models, with what is known of the patients."""
    if gains.empty:
        return []
    # The covariates belong to the patient: any model's row tells them.
    covariates = metrics.groupby("patient")[list(COVARIATES)].first().astype("float64").loc[gains.index]
    rows = []
    for model in gains.columns.tolist():
        for covariate in COVARIATES:
            both = pd.concat([gains[model], covariates[covariate]], axis=1).dropna().to_numpy()
            row: dict[str, Any] = {"model": model, "covariate": covariate, "n": len(both)}
            if len(both) >= MINIMUM_PATIENTS:
                row["rho"], row["p"] = spearman(both[:, 0], both[:, 1])
                if np.isnan(row["rho"]):
                    remarks.add(
                        f"No correlation with {covariate}, one side is constant", POOLED, PRIMARY, model
                    )
            rows.append(row)
    return rows


def _rank(
    coverage: pd.DataFrame,
    cohort: pd.Series,
    draws: int,
    seed: int,
    failed: Mapping[tuple[str, str], str] | None,
) -> Ranking:
    """Compare and rank all models by the primary endpoint, pooled, in the panels that there are."""
    panels, notes = find_panels(coverage, failed)
    ranking = Ranking(notes=notes)
    for panel in panels:
        part = coverage.loc[panel.patients, panel.models]
        bootstrap = Bootstrap(cohort_strata(cohort.loc[part.index]), draws, seed)
        rank_panel(ranking, panel.name, part, bootstrap)
    return ranking


def make_tables(
    records: Sequence[Mapping[str, Any]],
    cohort: Mapping[str, Any],
    failures: Sequence[Mapping[str, Any]],
    quality: Iterable[Mapping[str, Any]] = (),
    given: Sequence[Mapping[str, Any]] = (),
    *,
    simulated: bool = False,
    reference: str = "soc",
    draws: int = 10_000,
    ranking_draws: int = 1000,
    seed: int = 20251,
    guarantee_coverage: float = COVERAGE,
    guarantee_level: float = LEVEL,
    **declared: Any,
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Make every table of a benchmark and the facts about its statistics.

    Parameters
    ----------
    records
        One per patient and model: the columns of table ``metrics``, ``lesions`` (a list of ``{lesion,
        volume_ml, coverage, core_distance_mm, coverage_standard, pattern}``, the last three where they are
        known), ``settings`` (a list of ``{axis, setting, plan_ml, coverage_enhancing}``) and ``curve``
        (``{fraction: [...], coverage_enhancing: [...]}``). A missing ``volume_at_soc_coverage_ml`` is read off
        the curve. Where there are: ``dose`` (of :func:`predictgbm.dose.evaluate_dose`) and ``calibration`` (of
        :func:`predictgbm.reliability.bin_sums`, or ``calibration_reason`` in its place).
    cohort
        ``patients``: rows of table ``cohort``; ``flow``: the list of ``{step, patients}`` from screening to
        analysis. What a row leaves empty is taken from the patient's metrics, and the status is ``evaluated``
        if there is a coverage, else ``predicted``. An absent flow is made of the statuses.
    failures
        Rows of table ``failures``.
    quality
        Records of :func:`predictgbm.quality.write_quality`.
    given
        One per patient whose dose is known, of :func:`predictgbm.dose.evaluate_given_dose`.
    simulated
        Whether the patients are.
    reference, draws, ranking_draws, seed, **declared
        See :func:`analyse`.
    guarantee_coverage, guarantee_level
        See :func:`predictgbm.statistics.conformal.guarantee_rows`.

    Returns
    -------
    tables : dict of DataFrame
        Those of :data:`predictgbm.tables.TABLES`, and ``data_dictionary``.
    facts : dict
        JSON values: seed, n_bootstrap, reference, models, datasets, primary, family, failures (their number by
        analysis), flow, simulated, notes;
        ranking: draws, notes, and for each panel its patients, models, Friedman test, models that no test
        tells apart (cliques), and Kendall's tau.

    Raises
    ------
    TableError
        If a record does not fit its table, or two records are of the same patient and model.
    """
    patients = {row.get("patient"): row for row in cohort.get("patients", [])}
    target = {r.get("patient"): r.get("coverage_enhancing") for r in records if r.get("model") == reference}
    metric_rows, lesion_rows, curve_rows, setting_rows = [], [], [], []
    for record in records:
        identity = {"patient": record.get("patient"), "model": record.get("model")}
        known = {k: v for k, v in patients.get(record.get("patient"), {}).items() if k in IDENTITY}
        row = known | {k: v for k, v in record.items() if v not in (None, "")}
        curve = record.get("curve") or {"fraction": [], "coverage_enhancing": []}
        points = [
            (x, y)
            for x, y in zip(curve["fraction"], curve["coverage_enhancing"], strict=True)
            if y is not None
        ]
        goal, plan_ml = target.get(record.get("patient")), record.get("plan_ml")
        if "volume_at_soc_coverage_ml" not in row and points and goal is not None and plan_ml is not None:
            fraction, coverage = np.array(points, np.float64).T
            row["volume_at_soc_coverage_ml"] = volume_at_coverage(fraction, coverage, goal, plan_ml)
        row["days"] = _whole(row.get("days"))
        metric_rows.append(row)
        lesion_rows += [identity | lesion for lesion in record.get("lesions") or []]
        setting_rows += [identity | setting for setting in record.get("settings") or []]
        curve_rows += [identity | {"fraction": x, "coverage_enhancing": y} for x, y in points]

    # Records of earlier versions do not say to what analysis they belong: there was one.
    failures = [{"analysis": "main"} | {k: v for k, v in row.items() if v is not None} for row in failures]
    unique_failures = {tuple(row.get(name) for name in TABLES["failures"].names): row for row in failures}
    tables = {
        "metrics": build("metrics", metric_rows),
        "lesions": build("lesions", lesion_rows),
        "curves": build("curves", curve_rows),
        "settings": build("settings", setting_rows),
        "failures": build("failures", unique_failures.values()),
        "quality": build("quality", quality_rows(quality)),
    }
    tables["cohort"] = build("cohort", _cohort_rows(patients, tables["metrics"]))
    failed = {
        (str(row["patient"]), str(row["model"])): str(row["kind"])
        for row in unique_failures.values()
        if row.get("model") and row.get("kind") and row["analysis"] == "main"
    }
    analysis = analyse(
        tables["metrics"],
        models=tables["failures"]["model"].dropna().tolist(),
        failed=failed,
        reference=reference,
        draws=draws,
        ranking_draws=ranking_draws,
        seed=seed,
        **declared,
    )
    tables["summary"] = build("summary", analysis.summary)
    tables["comparisons"] = build("comparisons", analysis.comparisons)
    tables["correlations"] = build("correlations", analysis.correlations)
    for name in ("pairwise", "rankings", "rank_frequencies"):
        tables[name] = build(name, getattr(analysis.ranking, name))
    tables |= {name: build(name, rows) for name, rows in analysis.robustness.items()}
    tables |= _evidence(tables, records, reference, draws, seed)
    not_asked = {pair for pair, kind in failed.items() if kind == "missing_input"}
    guaranteed = guarantee_rows(tables["curves"], not_asked, guarantee_coverage, guarantee_level)
    tables["guarantee"] = build("guarantee", guaranteed)
    tables["guidelines"] = build("guidelines", guideline_rows(records))
    tables["guideline_comparisons"] = build(
        "guideline_comparisons", guideline_comparisons(tables["guidelines"])
    )
    members = _cohorts(tables["metrics"])
    tables |= dose_tables(records, members, reference, draws, seed)
    tables |= given_dose_tables(given, records, tables["lesions"], members, reference, draws, seed)
    tables |= calibration_tables(records, members, seed)
    tables |= uncertainty_tables(tables["metrics"])
    changed = settings_rows(tables["metrics"], tables["settings"], tables["guidelines"], reference)
    tables |= {name: build(name, rows) for name, rows in changed.items()}
    tables["data_dictionary"] = data_dictionary()
    facts = {
        "seed": seed,
        "n_bootstrap": draws,
        "reference": reference,
        "models": sorted(set(tables["summary"]["model"]) | set(tables["metrics"]["model"])),
        "datasets": sorted(set(tables["summary"]["dataset"])),
        "primary": PRIMARY,
        "family": analysis.family,
        "failures": {name: int((tables["failures"]["analysis"] == name).sum()) for name in ANALYSES},
        "flow": cohort.get("flow") or _flow(tables["cohort"]),
        "simulated": simulated,
        "notes": analysis.notes + calibration_remarks(records),
        "ranking": {
            "draws": ranking_draws,
            "panels": analysis.ranking.panels,
            "notes": analysis.ranking.notes,
        },
    }
    return tables, facts


def _evidence(
    tables: Mapping[str, pd.DataFrame],
    records: Sequence[Mapping[str, Any]],
    reference: str,
    draws: int,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Make the tables on plans of other volumes, patterns of recurrence and likely causes of low coverage."""
    metrics, lesions = tables["metrics"], tables["lesions"]
    cohort = _cohorts(metrics)
    patterns = build("recurrence_patterns", pattern_rows(lesions, records))
    causes = build("causes", cause_rows(metrics, patterns, tables["quality"]))
    by_pattern = coverage_rows(
        lesions, patterns, metrics, cohort, reference=reference, draws=draws, seed=seed
    )
    return {
        "curve_summary": build("curve_summary", curve_rows(tables["curves"], cohort, draws, seed)),
        "volume_saved": build("volume_saved", volume_rows(metrics, cohort, draws, seed)),
        "recurrence_patterns": patterns,
        "coverage_by_pattern": build("coverage_by_pattern", by_pattern),
        "causes": causes,
        "cause_frequencies": build("cause_frequencies", frequency_rows(metrics, causes)),
    }


def _cohort_rows(patients: Mapping[Any, Mapping[str, Any]], metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Complete the rows of table ``cohort`` by what the metrics tell about the patients."""
    shared = [name for name in TABLES["cohort"].names if name in TABLES["metrics"].names and name != "reason"]
    measured = metrics.groupby("patient")[[*shared, f"coverage_{PRIMARY}"]].first()
    rows = []
    for patient in [*patients, *(name for name in measured.index if name not in patients)]:
        given = {k: v for k, v in patients.get(patient, {}).items() if v not in (None, "")}
        found = measured.loc[patient].dropna().to_dict() if patient in measured.index else {}
        status = "evaluated" if f"coverage_{PRIMARY}" in found else "predicted"
        row = {"patient": patient, "status": status} | found | given
        rows.append(row | {"days": _whole(row.get("days"))})
    return rows


def _whole(days: Any) -> Any:
    return round(days) if isinstance(days, float) and np.isfinite(days) else days


def _flow(cohort: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the steps from the samplesheet to the analysis, as far as the statuses tell."""
    kept = cohort[cohort["status"] != "excluded"]
    counts = {
        "patients in the samplesheet": len(cohort),
        "not excluded": len(kept),
        "evaluated against a recurrence": int((kept["status"] == "evaluated").sum()),
    }
    return [{"step": step, "patients": patients} for step, patients in counts.items()]
