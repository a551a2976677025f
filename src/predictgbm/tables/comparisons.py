"""Tables of each model against the standard of care."""

from __future__ import annotations

from predictgbm.tables.columns import Column, Table, amount, count, difference, fraction, model, text

COVARIATES = ("com_distance_cm", "tumor_core_ml", "recurrence_enhancing_ml")

_dataset = text("dataset", "Name of a cohort, or 'pooled' for all patients together", required=True)

_definition = text(
    "definition",
    "What counts as recurrence: enhancing tumour; core (enhancing and necrosis); all (core and oedema)",
    required=True,
    values=("enhancing", "core", "all"),
)

SUMMARY = Table(
    "Coverage of each model: one row per model, data set and definition of recurrence",
    ("model", "dataset", "definition"),
    (
        model,
        _dataset,
        _definition,
        count("n", "patients", "Patients with a coverage of this model"),
        fraction("mean", "Mean coverage"),
        amount("sd", "1", "Standard deviation of the coverage (n - 1)"),
        amount("sem", "1", "Standard error of the mean"),
        fraction("median", "Median coverage"),
        fraction("q1", "First quartile of the coverage"),
        fraction("q3", "Third quartile of the coverage"),
        fraction(
            "ci_low",
            "Lower end of the 95 % BCa bootstrap interval of the mean, stratified by cohort; cohorts of "
            "fewer than 5 patients form one stratum",
        ),
        fraction("ci_high", "Upper end of that interval"),
        fraction(
            "median_ci_low",
            "Lower end of the 95 % BCa bootstrap interval of the median, stratified likewise",
        ),
        fraction("median_ci_high", "Upper end of that interval"),
        fraction(
            "mean_missing_as_zero",
            "Mean coverage when an evaluable patient without output of the model counts as 0",
        ),
    ),
)

COMPARISONS = Table(
    "Each model against the standard of care, paired by patient; a row per model, data set, definition",
    ("model", "dataset", "definition"),
    (
        model,
        _dataset,
        _definition,
        Column(
            "in_family",
            "boolean",
            "",
            "True for a test of the declared family, which is adjusted together; False: exploratory",
            required=True,
        ),
        Column(
            "identical",
            "boolean",
            "",
            "Whether the model's plan is the standard's in every patient, so that there is nothing to test; such a "
            "model is left out of the family unless it is declared by name",
            required=True,
        ),
        count("n", "patients", "Patients with a coverage of both (complete cases)"),
        count("n_zero", "patients", "Patients in whom both cover the same"),
        count("n_tied", "patients", "Patients whose non-zero difference has the size of another patient's"),
        fraction("p_pratt", "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt; the primary test"),
        fraction("p_wilcox", "The same test with zeros left out (Wilcoxon)"),
        fraction("p_signflip", "Two-sided sign-flip permutation p-value of the mean difference"),
        fraction("p_adjusted", "p_pratt adjusted by Holm over the family; empty outside it"),
        fraction(
            "p_max_t",
            "p_pratt adjusted over the family by the largest statistic under joint sign flips (Westfall-Young "
            "step-down), a check of p_adjusted",
        ),
        difference("mean_gain", "Mean difference of coverage, model minus standard of care"),
        difference(
            "mean_gain_low",
            "Lower end of its 95 % BCa bootstrap interval, stratified as that of the mean coverage",
        ),
        difference("mean_gain_high", "Upper end of that interval"),
        difference(
            "shift",
            "Hodges-Lehmann shift of coverage, model minus standard of care; 0 where most patients are covered alike, "
            "whatever the others gain",
        ),
        difference("shift_low", "Lower end of its 95 % interval"),
        difference("shift_high", "Upper end of its 95 % interval"),
        difference(
            "rank_biserial",
            "Matched-pairs rank-biserial correlation; 1 if the model is never worse, -1 if never better. Its sign is "
            "the direction of p_pratt",
        ),
    ),
)

EQUIVALENCE = Table(
    "Whether the enhancing coverage of a model lies within a declared bound of the standard of care: a row per "
    "model and data set; exploratory, p-values are not adjusted",
    ("model", "dataset"),
    (
        model,
        _dataset,
        count("n", "patients", "Patients with a coverage of both"),
        amount("bound", "1", "Largest difference of coverage that is declared not to matter"),
        difference("shift", "Hodges-Lehmann shift of coverage, model minus standard of care"),
        difference(
            "shift_low", "Lower end of its 90 % interval, which belongs to two one-sided tests at 5 %"
        ),
        difference("shift_high", "Upper end of its 90 % interval"),
        fraction(
            "p_noninferiority",
            "One-sided exact signed-rank p-value (zeros by Pratt) of the hypothesis that the model is worse by "
            "the bound or more",
        ),
        fraction("p_nonsuperiority", "The same of the hypothesis that it is better by the bound or more"),
        fraction("p_equivalence", "The larger of both: small where the model is equivalent; the main result"),
        difference("mean", "Mean difference of coverage"),
        fraction("p_t_noninferiority", "As p_noninferiority, by the t-test of the mean"),
        fraction("p_t_nonsuperiority", "As p_nonsuperiority, by the t-test of the mean"),
        fraction("p_t_equivalence", "The larger of both"),
    ),
)

MIXED_MODEL = Table(
    "Mean gain in enhancing coverage over the standard of care with the data set as random effect",
    ("model",),
    (
        model,
        count("n", "patients", "Patients with a coverage of both"),
        count("n_datasets", "1", "Data sets they come from"),
        difference("estimate", "Mean gain in an average data set"),
        Column("estimate_low", "number", "1", "Lower end of its 95 % interval by Student's t"),
        Column("estimate_high", "number", "1", "Upper end of that interval"),
        fraction("p", "Two-sided p-value of no gain; not adjusted"),
        amount("sd_between", "1", "Standard deviation of the gain between data sets"),
        amount("sd_within", "1", "Standard deviation of the gain between patients of a data set"),
        text("fit", "What was fitted, and why where it is not the mixed model"),
    ),
)

LEAVE_ONE_DATASET_OUT = Table(
    "Each model against the standard of care without one data set: enhancing coverage, p-values not adjusted",
    ("model", "left_out"),
    (
        model,
        text("left_out", "Data set that is left out", required=True),
        count("n", "patients", "Patients of the other data sets with a coverage of both"),
        difference("shift", "Hodges-Lehmann shift of coverage, model minus standard of care"),
        difference("shift_low", "Lower end of its 95 % interval"),
        difference("shift_high", "Upper end of its 95 % interval"),
        fraction("p_pratt", "Two-sided Wilcoxon signed-rank p-value, zeros by Pratt"),
        Column(
            "sign_kept", "boolean", "", "Whether the signed ranks lean the way they do with all data sets"
        ),
        Column(
            "significance_kept",
            "boolean",
            "",
            "Whether p_pratt is on the same side of 0.05 as with all data sets and, below it, the sign is kept",
        ),
    ),
)

POWER = Table(
    "What mean gain in enhancing coverage the primary test would have detected with 80 % power, by simulation",
    ("model",),
    (
        model,
        count("n", "patients", "Patients with a coverage of both, also in each simulated cohort"),
        count("n_zero", "patients", "Patients in whom both cover the same"),
        fraction("largest_gain", "Mean gain if every difference were an improvement"),
        fraction(
            "minimum_gain",
            "Least mean gain detected by one test at 5 %; empty if even the largest is not",
        ),
        amount("minimum_gain_error", "1", "Monte-Carlo standard error of minimum_gain"),
        count("n_tests", "1", "Tests of the family that is adjusted together"),
        fraction(
            "family_gain", "Least mean gain detected at 5 % over n_tests, the first step of Holm's rule"
        ),
        amount("family_gain_error", "1", "Monte-Carlo standard error of family_gain"),
    ),
)

CORRELATIONS = Table(
    "Spearman correlation of a covariate with the gain in enhancing coverage over the standard of care",
    ("model", "covariate"),
    (
        model,
        text("covariate", "Column of the metrics table", required=True, values=COVARIATES),
        count("n", "patients", "Patients with a gain and a covariate"),
        Column("rho", "number", "1", "Spearman's rank correlation", minimum=-1.0, maximum=1.0),
        fraction("p", "Two-sided p-value: exact to 8 patients, then Student's t; not adjusted"),
    ),
)
