"""MultiQC module of the benchmark: one section per question a reader has, in the order they are asked."""

from __future__ import annotations

import base64
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from multiqc import config, report
from multiqc.base_module import BaseMultiqcModule, ModuleNoSamplesFound

from predictgbm.failures import KINDS
from predictgbm.quality import STAGES, TRIAL
from predictgbm.report import (
    curve,
    dose,
    figure_files,
    figures,
    gallery,
    given_dose,
    guidelines,
    methods,
    networks,
    ranking,
    recurrence,
    reliability,
    robustness,
    secondary,
    sensitivity,
    uncertainty,
    worst,
)
from predictgbm.report.figures import Pair, Panel, Point
from predictgbm.report.formatting import (
    MISSING,
    PICTURES_PLACE,
    Html,
    count,
    details,
    downloadable,
    duration,
    estimate,
    interval,
    memory,
    model_cell,
    number,
    p_value,
    percent,
    readable,
    table,
    viewer_link,
    with_interval,
)
from predictgbm.report.results import REFERENCE, Results, Row, is_true, known, others, ranked, subject

log = logging.getLogger(__name__)

NAME = "predictgbm"
TITLE = "PREDICT-GBM benchmark"
#: Why a patient is left out, in the order of the rules; :mod:`predictgbm.cohort.selection` sets them.
REASON_CODES = (
    "invalid_input",
    "exam_failed",
    "no_followup",
    "followup_invalid",
    "followup_failed",
    "followup_too_early",
    "no_recurrence",
)


def register() -> None:
    """Tell MultiQC which file shows that there is a benchmark to report; its hook ``before_config``."""
    config.update_dict(config.sp, {NAME: {"fn": "cohort.csv"}})


def drop_duplicate() -> None:
    """Drop the second copy of all sections that MultiQC embeds for its assistant; its hook ``before_template``."""
    if config.no_ai:
        nothing = b'{"tools": {}, "sections": {}}'
        report.ai_report_metadata_base64 = base64.b64encode(nothing).decode()


class MultiqcModule(BaseMultiqcModule):
    """The benchmark's part of the report; empty questions are left out."""

    def __init__(self) -> None:
        super().__init__(name="Results", anchor=NAME, info="", autoformat=False)
        found = [Path(file["root"]) for file in self.find_log_files(NAME, filecontents=False)]
        if not found:
            raise ModuleNoSamplesFound
        folder = found[0].parent if found[0].name == "tables" else found[0]
        results = Results(folder)
        self.results = results
        self.css = {"assets/css/predictgbm.css": str(files("predictgbm.report") / "templates" / "report.css")}
        self.js = {
            f"assets/js/predictgbm_{name}": str(files("predictgbm.report") / "templates" / name)
            for name in ("report.js", "figures.js")
        }
        # Read from the parameters, as free text on a command line would have to be kept from the shell. The page begins
        # with what its data is.
        title = str(results.parameters.get("multiqc_title") or config.title or TITLE)
        config.title = f"{'SIMULATED DATA: ' if results.simulated else ''}{escape(title)}"
        config.intro_text = introduction(results)

        for name, anchor, write in SECTIONS:
            self.section(name, anchor, write(results))
        figure_files.write(results, Path(config.output_dir) / "figures")
        log.info(
            "%s, %s", count(len(results.tables["cohort"]), "patient"), count(len(results.models), "model")
        )

    def section(self, name: str, anchor: str, content: tuple[str, str] | None) -> None:
        """Add a section of (how to read it, HTML), unless there is nothing to show."""
        if content is not None:
            how, body = content
            self.add_section(
                name=name,
                anchor=f"{NAME}-{anchor}",
                description=f'<p class="gbm-read">{how}</p>',
                content=body,
                autoformat=False,
            )


def introduction(results: Results) -> Html:
    """Return what stands below the title: the warning for simulated data, and the run in a sentence."""
    parts = []
    if results.simulated:
        parts.append(
            '<span class="gbm-simulated"><b>SIMULATED DATA.</b> These patients do not exist. Their tumours '
            "and images were "
            "made by a computer to try the benchmark; no figure of this report may be used as clinical "
            "evidence.</span>"
        )
    patients = results.tables["cohort"]
    evaluated = sum(row["status"] == "evaluated" for row in patients)
    kept = sum(row["status"] != "excluded" for row in patients)
    if trial := {
        (r["patient"], r.get("session"))
        for r in results.tables["quality"]
        if TRIAL in (r.get("method") or "")
    }:
        parts.append(
            f'<span class="gbm-simulated"><b>TRIAL QUALITY.</b> The tumour labels of {count(len(trial), "exam")} '
            "come from the built-in segmenter, which is made for trials; no figure that rests on them may be used "
            "as evidence.</span>"
        )
    if not results.simulated and (learned := networks.trained_on_simulated(results)):
        parts.append(
            f'<span class="gbm-simulated"><b>TRAINED ON SIMULATED DATA.</b> {escape(", ".join(learned))} learned from '
            "patients who do not exist; what they say of real ones is a trial.</span>"
        )
    names = count(len(results.models), "model")
    if results.tables["metrics"]:
        parts.append(
            f"{names} of glioblastoma growth and recurrence, judged by the recurrence that came in "
            f"{evaluated} of {count(len(patients), 'patient')}."
        )
        if verdict := methods.verdict(results):
            parts.append(f"<b>{escape(verdict)}</b>")
    else:
        parts.append(
            f"Maps and plans of {names} for {count(kept, 'patient')} without follow-up; there is nothing to "
            "score."
        )
    return Html(" ".join(parts))


def headline(results: Results) -> tuple[str, str] | None:
    """Section with the headline table."""
    rows = results.headline
    if not rows:
        return None
    body = []
    for row in rows:
        name = row["model"]
        pairs = results.pairs(name)
        difference = [round(model - reference, 9) for _, reference, model in pairs]
        better, worse = sum(d > 0 for d in difference), sum(d < 0 for d in difference)
        is_reference = name == REFERENCE
        body.append(
            [
                model_cell(results, name),
                int(row["n"]),
                with_interval(
                    percent(row.get("median")), interval(row.get("median_ci_low"), row.get("median_ci_high"))
                ),
                with_interval(percent(row.get("mean")), interval(row.get("ci_low"), row.get("ci_high"))),
                "reference" if is_reference else estimate(row, "mean_gain"),
                "" if is_reference else estimate(row, "shift"),
                "" if is_reference else p_value(row.get("p_adjusted")),
                "" if is_reference else f"{better} / {len(pairs) - better - worse} / {worse}",
            ]
        )
    head = [
        "Model",
        "Patients",
        "Median coverage, % [95 % CI]",
        "Mean coverage, % [95 % CI]",
        "Mean gain over standard, points [95 % CI]",
        "Shift, points [95 % CI]",
        "p, adjusted",
        "Better / equal / worse",
    ]
    reference = [i for i, row in enumerate(rows) if row["model"] == REFERENCE]
    how = (
        "Coverage is the share of the recurrence that a plan would have treated; all plans of a patient have "
        "the same volume, so a mean gain with an interval above zero and a small p mean that the model aims better "
        "than the uniform margin. The shift (Hodges–Lehmann) is the middle of the gains; where most patients are equal "
        "it is zero although the others gain, and tells nothing against a small p."
    )
    notes = []
    tested = max((int(row["n"]) for row in rows if row.get("p_adjusted") is not None), default=0)
    if 0 < tested < 10:
        notes.append(
            f"With {tested} patients the smallest p this test can give, before adjustment, is "
            f"{p_value(2.0 ** (1 - tested))}."
        )
    missing = [
        f"{escape(results.styles[row['model']].title)} {percent(row['mean_missing_as_zero'])} %"
        for row in rows
        if row.get("mean_missing_as_zero") is not None
        and row.get("mean") is not None
        and abs(row["mean_missing_as_zero"] - row["mean"]) > 5e-4
    ]
    if missing:
        notes.append(f"Mean with a missing plan counted as no coverage: {', '.join(missing)}.")
    baseline = next((row for row in rows if row["model"] == "distance" and row.get("mean") is not None), None)
    if baseline:
        ahead = [
            escape(results.styles[row["model"]].title)
            for row in rows
            if row["model"] not in (REFERENCE, "distance") and (row.get("mean") or 0) > baseline["mean"]
        ]
        notes.append(
            f"Above the baseline “{escape(results.styles['distance'].title)}” on average: "
            f"{', '.join(ahead) or 'no model'}."
        )
    remarks = " ".join(escape(str(remark)) for remark in results.statistics.get("notes") or [])
    note = "".join(f'<p class="gbm-note">{text}</p>' for text in (" ".join(notes), remarks) if text)
    return how, table(head, body, (0,), reference) + note + more_results(results)


def more_results(results: Results) -> str:
    """Return the other definitions of recurrence, datasets and measures, folded."""
    folded = by_dataset(results)
    comparisons = {(r["model"], r["dataset"], r["definition"]): r for r in results.tables["comparisons"]}
    rows = []
    for row in results.tables["summary"]:
        key = (row["model"], row["dataset"], row["definition"])
        if row["n"] in (None, 0):
            continue
        tests = comparisons.get(key, {})
        in_family = is_true(tests.get("in_family"))
        outside = "same plans" if is_true(tests.get("identical")) else "exploratory" if tests else MISSING
        rows.append(
            [
                model_cell(results, row["model"]),
                row["dataset"],
                row["definition"],
                int(row["n"]),
                percent(row.get("median")),
                f"{percent(row.get('q1'))} to {percent(row.get('q3'))}",
                f"{percent(row.get('mean'))} ± {percent(row.get('sem'))}",
                estimate(tests, "mean_gain"),
                number(tests.get("shift"), 1, 100, sign=True),
                p_value(tests.get("p_pratt")),
                p_value(tests.get("p_wilcox")),
                p_value(tests.get("p_signflip")),
                p_value(tests.get("p_adjusted")) if in_family else outside,
                number(tests.get("rank_biserial"), 2),
            ]
        )
    if len(rows) > len(results.headline) or any(
        r.get("p_signflip") is not None for r in results.tables["comparisons"]
    ):
        head = [
            "Model",
            "Dataset",
            "Recurrence",
            "n",
            "Median, %",
            "Quartiles, %",
            "Mean ± SEM, %",
            "Mean gain, points [95 % CI]",
            "Shift, points",
        ]
        head += ["p (Pratt)", "p (Wilcoxon zeros)", "p (sign flip)", "p, adjusted", "Rank-biserial"]
        folded += details(
            "Every dataset, definition of recurrence and test", table(head, rows, (0, 1, 2), sortable=True)
        )
    return folded + secondary.measures(results)


def by_dataset(results: Results) -> str:
    """Return mean coverage and its standard error by model and dataset, folded; empty for a single dataset."""
    rows = [row for row in results.tables["summary"] if row["definition"] == results.primary and row["n"]]
    datasets = sorted({row["dataset"] for row in rows}, key=lambda name: (name == "pooled", name))
    if len(datasets) < 2:
        return ""
    found = {
        (
            row["model"],
            row["dataset"],
        ): f"{percent(row.get('mean'))} ± {percent(row.get('sem'))} (n = {int(row['n'])})"
        for row in rows
    }
    body = [
        [model_cell(results, row["model"]), *(found.get((row["model"], name)) for name in datasets)]
        for row in results.headline
    ]
    return details("By dataset: mean ± standard error of the coverage, %", table(["Model", *datasets], body))


def exclusions(results: Results) -> list[tuple[str, int]]:
    """Return reason codes and how many patients each took out, in the order in which the rules are applied."""
    codes = [
        str(row.get("reason_code") or "other")
        for row in results.tables["cohort"]
        if row["status"] == "excluded"
    ]
    rank = {code: index for index, code in enumerate(REASON_CODES)}
    return sorted(Counter(codes).items(), key=lambda item: (rank.get(item[0], len(rank)), item[0]))


def flow(results: Results) -> str:
    """Return the flow diagram in its frame, with the reasons beside the step at which they took patients out."""
    steps = [(str(step["step"]), int(step["patients"])) for step in results.statistics.get("flow") or []]
    left = exclusions(results)
    if not steps:
        total = len(results.tables["cohort"])
        steps = [("in the samplesheet", total), ("used", total - sum(n for _, n in left))]
    reasons: list[list[tuple[str, int]]] = [[]]
    for before, after in pairwise(n for _, n in steps):
        taken: list[tuple[str, int]] = []
        while left and sum(n for _, n in taken) < before - after:
            taken.append(left.pop(0))
        reasons.append([(readable(code), n) for code, n in taken])
    rows = [
        {"step": name, "patients": n, "reason": reason, "left_out": lost}
        for (name, n), why in zip(steps, reasons, strict=True)
        for reason, lost in why or [("", 0)]
    ]
    return downloadable(results, figures.flow_diagram(steps, reasons), rows, "patient_flow", "cohort")


def cohort(results: Results) -> tuple[str, str] | None:
    """Section with the flow diagram, the cohorts and every patient."""
    rows = results.tables["cohort"]
    if not rows:
        return None
    columns: list[tuple[str, str, int]] = [
        ("days", "Days to follow-up", 0),
        ("tumor_core_ml", "Tumour core, ml", 1),
        ("tumor_whole_ml", "Whole tumour, ml", 1),
        ("recurrence_enhancing_ml", "Recurrence, ml", 1),
        ("com_distance_cm", "Distance, cm", 1),
    ]
    columns = [column for column in columns if known(rows, column[0])]
    kept = [row for row in rows if row["status"] != "excluded"]
    names = sorted({row["cohort"] or "" for row in kept})
    groups = [
        (name or "no cohort given", [row for row in kept if (row["cohort"] or "") == name]) for name in names
    ]
    if len(groups) != 1:
        groups.append(("all", kept))

    def middle(group: list[Row], column: str, decimals: int) -> str:
        values = known(group, column)
        if not values:
            return MISSING
        centre, low, high = (number(f(values), decimals) for f in (median, min, max))
        return f"{centre} ({low}–{high})"

    overview = table(
        ["Cohort", "Patients", *(f"{title}" for _, title, _ in columns)],
        [
            [name, len(group), *(middle(group, key, decimals) for key, _, decimals in columns)]
            for name, group in groups
        ],
    )
    texts = [("tissue", "Tissue maps"), ("reason", "Reason")]
    texts = [(key, title) for key, title in texts if any(row.get(key) for row in rows)]
    body = [
        [
            viewer_link(row["patient"]) if row["status"] != "excluded" else row["patient"],
            row["cohort"],
            row["status"],
            *(number(row.get(key), decimals) for key, _, decimals in columns),
            *(row.get(key) for key, _ in texts),
        ]
        for row in rows
    ]
    head = [
        "Patient",
        "Cohort",
        "Status",
        *(title for _, title, _ in columns),
        *(title for _, title in texts),
    ]
    left = [0, 1, 2, *range(len(head) - len(texts), len(head))]
    patients = table(head, body, left, sortable=True)
    how = (
        "The boxes count the patients that passed each step; the table gives median (range) per cohort, "
        "where the distance is that from the tumour's to the recurrence's centre of mass."
        if results.tables["metrics"]
        else "The boxes count the patients that passed each step; the table gives median (range) per cohort."
    )
    shown = f'<div class="gbm-patients">{patients}</div>'
    everyone = (
        f"<h4>By patient</h4>{shown}" if len(rows) <= 12 else details(f"All {len(rows)} patients", shown)
    )
    return (
        how,
        f"{flow(results)}<h4>By cohort</h4>{overview}{everyone}",
    )


def paired(results: Results) -> tuple[str, str] | None:
    """Section with the coverage of each patient by each model beside that by the standard plan."""
    panels = []
    p_adjusted = {row["model"]: row.get("p_adjusted") for row in results.headline}
    for name in others(results):
        pairs = [Pair(str(row["patient"]), reference, model) for row, reference, model in results.pairs(name)]
        if pairs:
            better = sum(pair.model > pair.reference for pair in pairs)
            worse = sum(pair.model < pair.reference for pair in pairs)
            note = f"{better} better, {len(pairs) - better - worse} equal, {worse} worse"
            style = results.styles[name]
            mark = figures.significance(p_adjusted.get(name))
            panels.append(Panel(style.title, style.color, note, pairs, mark))
    if not panels:
        return None
    how = (
        "Each line joins one patient's coverage by the standard plan (left) with that by the model (right): "
        "full and coloured lines gained, dashed grey lines did not; boxes span the quartiles with the median "
        "as a bar. Hover a line to name the patient and follow it through all panels."
    )
    drawn = figures.paired_coverage(panels, "Standard")
    return how, downloadable(results, drawn, figures.panel_rows(panels), "coverage_by_patient", "metrics")


def guarantee(results: Results) -> tuple[str, str] | None:
    """Section with the volume that covers enough of the recurrence in enough patients, by split conformal."""
    found = {row["model"]: row for row in results.tables["guarantee"]}
    rows = []
    for name in [name for name in ranked(results) if name in found]:
        row = found[name]
        rows.append(
            [
                model_cell(results, name),
                int(row["n"]),
                int(row["n_missing"]),
                int(row["n_reached"]),
                "none" if row.get("fraction") is None else number(row["fraction"], 0, 100),
                percent(row.get("kept")),
            ]
        )
    if not rows:
        return None
    first = next(iter(found.values()))
    covered, level = number(first["coverage"], 0, 100), number(first["level"], 0, 100)
    how = (
        f"A plan of this volume covers {covered} % of the recurrence of a new patient like these with a probability of "
        f"{level} % at least, however good or bad the model is (split conformal); the better it aims, the smaller the "
        "volume. Leaving each patient out in turn shows how it would have gone here."
    )
    head = [
        "Model",
        "Patients",
        "Without a map (never covered)",
        f"{covered} % covered at some volume",
        "Volume of the plan, % of the standard plan",
        f"{covered} % covered when left out, % of patients",
    ]
    note = ""
    if any(row.get("fraction") is None for row in found.values()):
        said = "None: there are too few patients, or twice the standard plan would not be enough."
        note = f'<p class="gbm-note">{said}</p>'
    return how, table(head, rows) + note


def distance(results: Results) -> tuple[str, str] | None:
    """Section with improvement against the distance between tumour and recurrence."""
    rho = {r["model"]: r for r in results.tables["correlations"] if r["covariate"] == "com_distance_cm"}
    panels = []
    for name in others(results):
        points = [
            Point(str(row["patient"]), row["com_distance_cm"], 100 * (model - reference))
            for row, reference, model in results.pairs(name)
            if row.get("com_distance_cm") is not None
        ]
        if points:
            style = results.styles[name]
            note = ""
            if (row := rho.get(name)) and row.get("rho") is not None:
                note = f"ρ = {number(row['rho'], 2)}, p = {p_value(row.get('p'))}, n = {int(row['n'])}"
            panels.append(Panel(style.title, style.color, note, points))
    if not panels:
        return None
    how = (
        "Each point is a patient: above the line the model covered more than the standard plan; a cloud that "
        "rises to the right (Spearman's ρ above 0) means that the model helps most where the recurrence came "
        "far from the tumour."
    )
    scatter = figures.distance_scatter(
        panels,
        "Distance between the centres of mass of tumour and recurrence, cm",
        "Coverage minus standard, points",
    )
    return how, downloadable(
        results,
        scatter,
        figures.panel_rows(panels),
        "distance_against_improvement",
        *("metrics", "correlations"),
    ) + secondary.correlations(results)


def resources(results: Results) -> tuple[str, str] | None:
    """Section with run time and memory from the trace."""
    if not results.tasks:
        return None
    by_model = [
        (model_cell(results, name), [task for task in results.tasks if task.model == name])
        for name in results.models
    ]
    body = resource_table("Model", [(label, tasks) for label, tasks in by_model if tasks])
    processes = sorted({task.process for task in results.tasks})
    steps = resource_table(
        "Step", [(Html(escape(p)), [t for t in results.tasks if t.process == p]) for p in processes]
    )
    how = (
        "Time is how long one task took, memory the most that it held at once, both as Nextflow measured them. "
        "Preparing, predicting and registering take one patient a task, checks, plans and pictures up to "
        "--patients_per_task, training and statistics all of them; plan a cluster by the largest value, not by the "
        "median."
    )
    return how, body + (details("Every step of the pipeline", steps) if body else steps)


def resource_table(label: str, groups: list[tuple[Html, list[Any]]]) -> str:
    """Return median and largest time and memory of groups of tasks, with a bar for the median time."""
    rows = []
    for name, tasks in groups:
        times = [task.seconds for task in tasks if task.seconds is not None]
        sizes = [task.memory_bytes for task in tasks if task.memory_bytes]
        rows.append((name, len(tasks), times, sizes))
    if not rows:
        return ""
    longest = max((median(times) for _, _, times, _ in rows if times), default=0.0) or 1.0

    def bar(times: list[float]) -> Html:
        share = 100 * median(times) / longest if times else 0
        return Html(f'<span class="gbm-bar"><span style="width:{share:.1f}%"></span></span>')

    return table(
        [label, "Tasks", "Time, median", "", "Time, largest", "Memory, median", "Memory, largest"],
        [
            [
                name,
                n,
                duration(median(times) if times else None),
                bar(times),
                duration(max(times, default=None)),
                memory(median(sizes) if sizes else None),
                memory(max(sizes, default=None)),
            ]
            for name, n, times, sizes in rows
        ],
        (0, 3),
    )


def failures(results: Results) -> tuple[str, str] | None:
    """Section with what failed, and who was left out."""
    failed = results.tables["failures"]
    excluded = [row for row in results.tables["cohort"] if row["status"] == "excluded"]
    parts = []
    if failed:
        rows = [
            [
                row.get("patient"),
                row.get("session"),
                model_cell(results, row["model"]) if row.get("model") else MISSING,
                row.get("stage"),
                readable(row.get("kind") or MISSING),
                row.get("reason"),
            ]
            for row in failed
        ]
        head = ["Patient", "Session", "Model", "Step", "Kind", "What happened"]
        parts.append(f"<h4>{count(len(failed), 'failure')}</h4><p>{escape(failure_counts(results))}</p>")
        parts.append(table(head, rows, range(6)))
    else:
        parts.append('<p class="gbm-note">Nothing failed: every step of every patient gave a result.</p>')
    if excluded:
        rows = [
            [row["patient"], row["cohort"], row.get("reason_code"), row.get("reason")] for row in excluded
        ]
        head = ["Patient", "Cohort", "Code", "Reason"]
        parts.append(f"<h4>{count(len(excluded), 'patient')} left out</h4>{table(head, rows, range(4))}")
    how = (
        "A failure costs one model (or, without a model, the whole patient) this one patient and nothing "
        "else; patients left out did not meet the rules of the cohort."
    )
    return how, "".join(parts)


def failure_counts(results: Results) -> str:
    """Return one sentence: how many failures of each kind each model has, and the steps before the models."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in results.tables["failures"]:
        name = str(row.get("model") or "")
        title = (results.styles[name].title if name in results.styles else name) or "no model"
        found[title][KINDS.get(str(row.get("kind")), "for a reason that is not recorded")] += 1
    told = [
        f"{title}: {', '.join(f'{n} {text}' for text, n in sorted(kinds.items()))}"
        for title, kinds in sorted(found.items())
    ]
    return f"Failures by model: {'; '.join(told)}."


def pictures(results: Results) -> tuple[str, str] | None:
    """Section with the QC pictures and the links to the viewer pages."""
    kept = [row["patient"] for row in results.tables["cohort"] if row["status"] != "excluded"]
    shots = results.pictures
    if not shots and not kept:
        return None
    captions = {shot.caption for shot in shots}
    shared = captions.pop() if len(captions) == 1 else ""
    cards = []
    for shot, uri in zip(shots, gallery.embed([shot.path for shot in shots]), strict=True):
        label = escape(shot.path.name.removesuffix("_desc-qc.png"))
        own = "" if shared else f"<br>{escape(shot.caption)}"
        whole = Html(f'<a href="{PICTURES_PLACE}/{escape(shot.path.name)}" target="_blank">full size</a>')
        link = f" {whole} · {viewer_link(shot.patient, 'open in the viewer')}{own}"
        cards.append(gallery.card(label, uri, link, escape(gallery.anchor(shot.patient))))
    content = f'<p class="gbm-caption">{escape(shared)}</p>' if shared else ""
    content += f'<div class="gbm-gallery">{"".join(cards)}</div>' if cards else ""
    shown = {shot.patient for shot in shots}
    rest = [viewer_link(patient) for patient in kept if subject(patient) not in shown]
    if rest:
        content += f'<p class="gbm-note">Viewer pages without a picture here: {", ".join(rest)}.</p>'
    how = (
        "Look at every patient before you trust a number: labels should follow the tumour, plans should stay "
        "inside the brain; click a picture to enlarge it, or open the patient's viewer page to move through "
        "the volume."
    )
    return how, content


def quality(results: Results) -> tuple[str, str] | None:
    """Section with what the steps from raw exams to labels measured, flagged values first, and their pictures."""
    rows = results.tables["quality"]
    if not rows and not results.step_pictures:
        return None
    parts = []
    notes = sorted({(row["stage"], row["note"]) for row in rows if row.get("note")})
    for stage, note in notes:
        exams = {(row["patient"], row.get("session")) for row in rows if row.get("note") == note}
        parts.append(
            f'<p class="gbm-note"><b>{escape(STAGES[stage][0])}</b> ({count(len(exams), "exam")}): {escape(note)}</p>'
        )
    flagged = [row for row in rows if is_true(row.get("flagged"))]
    if flagged:
        body = [
            [
                row["patient"],
                row.get("session"),
                STAGES[row["stage"]][0],
                row.get("meaning"),
                value(row),
                row.get("expected"),
            ]
            for row in flagged
        ]
        head = ["Patient", "Session", "Step", "Measure", "Value", "Expected"]
        parts.append(f"<h4>{count(len(flagged), 'value')} to look at</h4>{table(head, body, range(6))}")
    elif rows:
        parts.append('<p class="gbm-note">Every measure with a limit lies within it.</p>')
    measures: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        measures[row["stage"], row["measure"]].append(row)
    body = []
    for (stage, _), same in measures.items():
        values = known(same, "value")
        if values:
            ends = f"{number(min(values), 2)} to {number(max(values), 2)}"
            outside = sum(is_true(row.get("flagged")) for row in same)
            limits = same[0].get("expected")
            body.append(
                [
                    STAGES[stage][0],
                    same[0].get("meaning"),
                    len(values),
                    number(median(values), 2),
                    ends,
                    limits,
                    outside,
                ]
            )
    if body:
        head = ["Step", "Measure", "Exams", "Median", "Range", "Expected", "Flagged"]
        parts.append(details("Every measure over all exams", table(head, body, (0, 1, 4, 5), sortable=True)))
    for step, shots in results.step_pictures.items():
        title, look_for = STAGES[step]
        cards = []
        budget = gallery.STEP_BYTES // len(results.step_pictures)
        for shot, uri in zip(shots, gallery.embed([shot.path for shot in shots], budget), strict=True):
            label = escape(shot.path.name.removesuffix(f"_desc-{step}_qc.png"))
            cards.append(gallery.card(label, uri))
        shown = (
            f'<p class="gbm-caption">{escape(look_for)}</p><div class="gbm-gallery">{"".join(cards)}</div>'
        )
        parts.append(details(f"{title}: {count(len(shots), 'picture')}", shown))
    how = (
        "Each step from the raw exam to the labels measures its own result; a value outside its range does not "
        "exclude a patient, it says where to look first."
    )
    return how, "".join(parts)


def value(row: Row) -> str:
    """Return the value of a measure, or that there is none."""
    return MISSING if row.get("value") is None else number(row["value"], 2)


def methods_section(results: Results) -> tuple[str, str] | None:
    """Section with the methods text and all parameters."""
    how = "Copy this text into a paper and edit it; every number in it comes from this run."
    button = '<button type="button" class="btn btn-sm btn-outline-secondary gbm-copy">Copy text</button>'
    content = f'<div class="gbm-methods">{methods.methods_text(results)}</div>{button}'
    if results.parameters:
        rows = [
            [key, value if isinstance(value, (str, int, float)) else json.dumps(value)]
            for key, value in sorted(results.parameters.items())
            if value is not None
        ]
        content += details("All parameters of this run", table(["Parameter", "Value"], rows, (0, 1)))
    return how, content


def versions(results: Results) -> tuple[str, str] | None:
    """Section with the version of each piece of software."""
    used: dict[tuple[str, str], set[str]] = defaultdict(set)
    for process, tools in results.versions.items():
        for tool, version in tools.items():
            used[tool, str(version)].add(process)
    if not used:
        return None
    rows = [[tool, version, ", ".join(sorted(by))] for (tool, version), by in sorted(used.items())]
    how = (
        "Each line is a piece of software with the version that ran; a tool on two lines ran in two versions."
    )
    return how, table(["Software", "Version", "Used by"], rows, range(3))


#: Title, anchor and content of each section, in the order in which a reader asks.
SECTIONS: tuple[tuple[str, str, Callable[[Results], tuple[str, str] | None]], ...] = (
    ("Coverage of the recurrence", "headline", headline),
    ("Patients", "cohort", cohort),
    ("Coverage patient by patient", "patients", paired),
    ("Coverage at other plan volumes", "curve", curve.section),
    ("Plans with a guarantee", "guarantee", guarantee),
    ("Within the barriers of guidelines", "guidelines", guidelines.section),
    ("Ranking", "ranking", ranking.section),
    ("Dose", "dose", dose.section),
    ("Dose that was given", "given_dose", given_dose.section),
    ("Calibration of probabilities", "calibration", reliability.section),
    ("Uncertainty", "uncertainty", uncertainty.section),
    ("Where recurrence was far away", "distance", distance),
    ("Where it came back", "recurrence", recurrence.section),
    ("Worst patients of each model", "worst", worst.section),
    ("Robustness", "robustness", robustness.section),
    ("Other choices in the evaluation", "sensitivity", sensitivity.section),
    ("Time and memory", "resources", resources),
    ("Trained networks", "networks", networks.section),
    ("Failures and exclusions", "failures", failures),
    ("Quality of the raw exams' processing", "quality", quality),
    ("Pictures to check", "gallery", pictures),
    ("Methods text", "methods", methods_section),
    ("Software versions", "versions", versions),
)
