"""Tables of all models together."""

from __future__ import annotations

from predictgbm.tables.columns import Table, amount, count, difference, fraction, model, rank, text

#: Models ranked together: those that nearly all patients have, and all on the patients whom each of them has.
PANELS = ("all_patients", "subset")

RANKING_METHODS = ("mean_then_rank", "rank_then_mean", "test_then_rank")

_panel = text(
    "panel",
    "all_patients: models with output for nearly all patients; subset: all models, on the patients whom "
    "those with output for fewer have",
    required=True,
    values=PANELS,
)

_ranking_method = text(
    "method",
    "How ranks are made: from mean coverages, from ranks within each patient, or from the number of models "
    "beaten significantly",
    required=True,
    values=RANKING_METHODS,
)

PAIRWISE = Table(
    "Every two models of a panel compared, paired by patient, enhancing coverage of all data sets",
    ("panel", "model_a", "model_b"),
    (
        _panel,
        text("model_a", "Name of the one model", required=True),
        text("model_b", "Name of the other", required=True),
        count("n", "patients", "Patients with a coverage of every model of the panel"),
        count("n_zero", "patients", "Patients in whom both cover the same"),
        difference("shift", "Hodges-Lehmann shift of coverage, model_a minus model_b"),
        difference(
            "rank_biserial",
            "Matched-pairs rank-biserial correlation; 1 if model_a is never worse, -1 if never better",
        ),
        fraction(
            "p",
            "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt; empty if both always cover the same",
        ),
        fraction("p_adjusted", "p adjusted by Holm over all pairs of the panel"),
    ),
)

RANKINGS = Table(
    "Ranks by enhancing coverage of all data sets: one row per panel, method and model",
    ("panel", "method", "model"),
    (
        _panel,
        _ranking_method,
        model,
        count("n", "patients", "Patients of the panel"),
        count("n_missing", "patients", "Of these, patients without output, counted as coverage 0"),
        amount(
            "score",
            "of the method",
            "What is ranked: mean coverage, mean rank within patients, or number of models beaten",
        ),
        rank("rank", "Rank, 1 is the best; models of one score share the best rank among them"),
        rank("rank_median", "Median of the rank over bootstraps of the patients, stratified by cohort"),
        rank("rank_low", "Lower end of the 95 % percentile interval of the rank over the bootstraps"),
        rank("rank_high", "Upper end of that interval"),
        count("n_complete", "patients", "Patients with a coverage of every model of the panel"),
        amount("score_complete", "of the method", "Score on these patients alone"),
        rank("rank_complete", "Rank on these patients alone; empty if they are fewer than 5"),
    ),
)

RANK_FREQUENCIES = Table(
    "How often a model has a rank in bootstraps of the patients",
    ("panel", "method", "model", "rank"),
    (
        _panel,
        _ranking_method,
        model,
        rank("rank", "Rank, 1 is the best", required=True),
        fraction("frequency", "Share of the bootstraps in which the model has that rank"),
    ),
)
