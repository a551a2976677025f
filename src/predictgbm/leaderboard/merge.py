"""Reading the results of several runs, checking that they may be compared, and merging their scores.

Only scores of single patients are merged; every mean, test and rank is computed from them anew.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from predictgbm.quality import TRIAL
from predictgbm.report.results import Task, read_trace
from predictgbm.tables import TABLES

Row = dict[str, Any]

#: Parameters of a run that decide what a coverage means; they have to agree.
SETTINGS = ("atlas_space", "margin", "min_followup_days", "followup_rule", "family_definitions")
#: Parameters that change what is measured without making a coverage another thing: where they differ, it is told.
MEASURED = (
    *("brain_extraction", "atlas_transform", "interpolation", "normalisation", "n4", "tissue_segmentation"),
    *("tumor_preop", "tumor_followup", "registration"),
)
#: What is known of a patient before any model: it has to agree wherever the patient appears.
PATIENT_COLUMNS = (
    *("cohort", "session", "followup_session", "days", "plan_ml"),
    *("tumor_core_ml", "recurrence_enhancing_ml"),
)
#: What the plan of one model scores.
SCORE_COLUMNS = (
    *("coverage_enhancing", "coverage_core", "coverage_all"),
    *("dice", "hd95_mm", "curve_area"),
)
#: Tables have ten significant digits; a larger difference is another plan.
TOLERANCE = 1e-6
#: Patients named in one line of a fault.
NAMED = 5


class LeaderboardError(ValueError):
    """The runs cannot be merged; the message has one line per fault, with file and remedy."""


@dataclass
class Run:
    """What a results folder says.

    Attributes
    ----------
    folder : Path
    tables : dict of str to list of dict
        Rows of ``metrics``, ``lesions``, ``curves``, ``cohort``, ``failures`` and ``quality``, missing values None.
    facts, parameters : dict
        ``statistics.json`` and ``pipeline_info/params.json``.
    version : str
        Version of the pipeline that made the folder.
    entries, cards, options : dict
        By model: its entry in the list of models, the card of its training, the parameters it ran with.
    tasks : list of Task
        Successful tasks of the last trace.
    """

    folder: Path
    tables: dict[str, list[Row]]
    facts: dict[str, Any]
    parameters: dict[str, Any]
    version: str
    entries: dict[str, Row] = field(default_factory=dict)
    cards: dict[str, Row] = field(default_factory=dict)
    options: dict[str, Row] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """Model that the others are compared with."""
        return str(self.facts.get("reference", "soc"))

    @property
    def scores(self) -> dict[tuple[str, str], Row]:
        """Row of ``metrics`` by patient and model."""
        return {(row["patient"], row["model"]): row for row in self.tables["metrics"]}

    def file(self, name: str) -> Path:
        """Return the path of a table, for messages."""
        return self.folder / "tables" / f"{name}.csv"


def read_run(folder: Path) -> Run:
    """Read a results folder.

    Raises
    ------
    LeaderboardError
        If it holds no tables of a benchmark, or one is unreadable.
    """
    if not (folder / "tables" / "metrics.csv").is_file():
        raise LeaderboardError(
            f"{folder}: holds no tables/metrics.csv; give the folder that --outdir of a finished run named"
        )
    names = ("metrics", "lesions", "curves", "cohort", "failures", "quality")
    description = _object(folder / "dataset_description.json")
    listed = _entries(folder / "pipeline_info" / "models.json")
    parameters = _object(folder / "pipeline_info" / "params.json")
    traces = sorted(folder.glob("pipeline_info/execution_trace_*.txt"))
    return Run(
        folder,
        {name: _table(folder / "tables" / f"{name}.csv", name) for name in names},
        _object(folder / "tables" / "statistics.json"),
        parameters,
        str((description.get("GeneratedBy") or [{}])[0].get("Version", "")),
        listed,
        {path.stem: _object(path) for path in folder.glob("pipeline_info/cards/*.json")},
        _options(folder),
        read_trace(traces[-1]) if traces else [],
    )


def _entries(path: Path) -> dict[str, Row]:
    """Read the entries of the models of a run by their name; none where the file is absent."""
    listed = _object(path).get("models") or []
    if not isinstance(listed, list):
        raise LeaderboardError(
            f"{path}: models: expected a list; copy the file again, or run again with -resume"
        )
    for place, entry in enumerate(listed, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise LeaderboardError(
                f"{path}: models: entry {place} has no name; copy the file again, or run again with -resume"
            )
    return {entry["name"]: entry for entry in listed}


def _options(folder: Path) -> dict[str, Row]:
    """Return the parameters that each model was given, from the file beside one of its maps."""
    found: dict[str, Row] = {}
    for path in sorted(folder.glob("sub-*/ses-*/*_probseg.json")):
        name = path.name.partition("_model-")[2].partition("_")[0]
        if name and name not in found:
            found[name] = _object(path).get("options") or {}
    return found


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is absent."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LeaderboardError(
            f"{path}: is not JSON ({error}); run the pipeline again with -resume"
        ) from error
    return content if isinstance(content, dict) else {}


def _table(path: Path, name: str) -> list[Row]:
    """Read the rows of a table, with the types it is declared with; empty where the file is absent."""
    if not path.is_file():
        return []
    try:
        header = pd.read_csv(path, nrows=0).columns
        types = {column: kind for column, kind in TABLES[name].dtypes.items() if column in header}
        frame = pd.read_csv(
            path,
            dtype=types,
            usecols=list(types),
            keep_default_na=False,
            na_values=[""],
        )
    except (ValueError, OSError) as error:
        raise LeaderboardError(
            f"{path}: cannot be read ({error}); run the pipeline again with -resume"
        ) from error
    if lacking := {"patient", "model"} & set(TABLES[name].key) - types.keys():
        raise LeaderboardError(
            f"{path}: has no column {', '.join(sorted(lacking))}; another version made it, run the pipeline again"
        )
    content = frame.astype(object).where(frame.notna(), None)
    return [{str(key): value for key, value in row.items()} for row in content.to_dict("records")]


def find_faults(runs: Sequence[Run]) -> list[str]:
    """Return why runs cannot be merged, a line per fault that names file and remedy; nothing if they can.

    Runs can be merged if they agree on the version of the pipeline, on what defines a coverage
    (:data:`SETTINGS`), on each patient they share (:data:`PATIENT_COLUMNS` and the coverage of the standard
    plan), and on each model's scores of a patient, where two runs have them.
    """
    faults = [*_setting_faults(runs), *_entry_faults(runs)]
    for number, run in enumerate(runs):
        if not run.tables["metrics"]:
            faults.append(f"{run.file('metrics')}: has no score; a run without follow-ups cannot be compared")
        elif not any(model == run.reference for _, model in run.scores):
            faults.append(
                f"{run.file('metrics')}: has no row of the standard plan; run again with {run.reference} in --models"
            )
        for earlier in runs[:number]:
            faults += [*_patient_faults(earlier, run), *_score_faults(earlier, run)]
    return faults


def find_remarks(runs: Sequence[Run]) -> list[tuple[str, list[Path]]]:
    """Return what is to be known of runs that can be merged: what could not be compared, and how they differ.

    Returns
    -------
    list of (sentence, folders)
        The sentence names neither folder nor patient and may be published; the folders are those it is about.
    """
    remarks = []
    silent: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for run in runs:
        unstated = tuple(name for name in SETTINGS if run.parameters.get(name) is None)
        if unstated := (*unstated, *(() if run.version else ("version of the pipeline",))):
            silent[unstated].append(run.folder)
    for names, folders in silent.items():
        said = ", ".join(name.replace("_", " ") for name in names)
        remarks.append(
            (f"Not compared, as {len(folders)} of {len(runs)} runs do not state it: {said}.", folders)
        )
    for name in MEASURED:
        found: dict[str, list[Path]] = defaultdict(list)
        for run in runs:
            value = run.parameters.get(name)
            found["not stated" if value is None else str(value)].append(run.folder)
        if len(found) > 1:
            counts = ", ".join(f"{value} in {len(folders)}" for value, folders in sorted(found.items()))
            told = f"Runs differ in {name.replace('_', ' ')}: {counts}; it concerns exams that came raw."
            remarks.append((told, [folder for folders in found.values() for folder in folders]))
    return remarks


def _setting_faults(runs: Sequence[Run]) -> Iterator[str]:
    """Compare each run with the first that states a setting."""
    places: list[tuple[str, str, Callable[[Run], Any], str]] = [
        ("dataset_description.json", "version", lambda run: run.version or None, "run one of them again"),
        ("tables/statistics.json", "primary endpoint", lambda run: run.facts.get("primary"), "run again"),
        ("tables/statistics.json", "reference", lambda run: run.facts.get("reference"), "run again"),
        (
            *("tables/statistics.json", "simulated patients", lambda run: run.facts.get("simulated")),
            "simulated and real patients need a site of their own each",
        ),
    ]
    for name in SETTINGS:

        def value(run: Run, name: str = name) -> Any:
            return run.parameters.get(name)

        places.append(("pipeline_info/params.json", f"--{name}", value, f"run again with the same --{name}"))
    for file, what, get, remedy in places:
        stated = [(run, get(run)) for run in runs if get(run) is not None]
        for run, found in stated[1:]:
            first, wanted = stated[0]
            if found != wanted:
                yield f"{run.folder / file}: {what} is {found}, in {first.folder} {wanted}; {remedy}"


def _entry_faults(runs: Sequence[Run]) -> Iterator[str]:
    """Find names that two runs give to different models."""
    known: dict[str, tuple[Run, Row]] = {}
    for run in runs:
        for name, entry in run.entries.items():
            first, other = known.setdefault(name, (run, entry))
            unlike = [
                key for key in ("container", "function", "parameters") if entry.get(key) != other.get(key)
            ]
            if unlike:
                yield (
                    f"{run.folder / 'pipeline_info/models.json'}: model '{name}' is another than in {first.folder} "
                    f"({', '.join(unlike)}); rename one of them and run it again"
                )
    trained: dict[str, tuple[Run, Row]] = {}
    for run in runs:
        for name in sorted({model for _, model in run.scores}):
            card = run.cards.get(name, {})
            first, other = trained.setdefault(name, (run, card))
            if _networks(card) != _networks(other):
                yield (
                    f"{run.folder}: model '{name}' is of another training than in {first.folder}; name one training "
                    "by --weights in both runs, or rename one of the two models, and run again"
                )


def _networks(card: Row) -> Row:
    """Return the checksum of each network of a training, or the whole card where it tells none."""
    networks = card.get("networks")
    return {name: network.get("sha256") for name, network in networks.items()} if networks else card


def _patient_faults(first: Run, second: Run) -> Iterator[str]:
    """Compare what two runs know of the patients they share."""
    rows = [_patients(run) for run in (first, second)]
    shared = sorted(rows[0].keys() & rows[1].keys())
    remedy = "run both on the same exams with the same options, or leave one folder out"
    coverages = tuple(column for column in SCORE_COLUMNS if column.startswith("coverage_"))
    for column in (*PATIENT_COLUMNS, *(f"standard plan's {name}" for name in coverages), "status"):
        unlike = [
            (name, rows[0][name].get(column), rows[1][name].get(column))
            for name in shared
            if not _same(rows[0][name].get(column), rows[1][name].get(column))
        ]
        if unlike:
            file = second.file("cohort" if column == "status" else "metrics")
            yield f"{file}: {column} differs from {first.folder} for {_say(unlike)}; {remedy}"


def _patients(run: Run) -> dict[str, Row]:
    """Return by patient what does not depend on the model, and the scores of the standard plan."""
    found: dict[str, Row] = defaultdict(dict)
    for row in run.tables["cohort"]:
        found[row["patient"]]["status"] = row.get("status")
    for (patient, model), row in run.scores.items():
        found[patient] |= {
            column: row.get(column) for column in PATIENT_COLUMNS if row.get(column) is not None
        }
        if model == run.reference:
            found[patient] |= {f"standard plan's {column}": row.get(column) for column in SCORE_COLUMNS}
    return found


def _score_faults(first: Run, second: Run) -> Iterator[str]:
    """Compare the scores of models that two runs have for the same patient, and where one has none."""
    scores = (first.scores, second.scores)
    failed = [
        {(row["patient"], row["model"]) for row in run.tables["failures"] if row.get("model")}
        for run in (first, second)
    ]
    unlike: dict[str, list[tuple[str, Any, Any]]] = defaultdict(list)
    for patient, model in sorted(scores[0].keys() & scores[1].keys()):
        pair = [own[patient, model] for own in scores]
        column = next((c for c in SCORE_COLUMNS if not _same(pair[0].get(c), pair[1].get(c))), None)
        if column and model != first.reference:
            unlike[model].append((patient, pair[0].get(column), pair[1].get(column)))
    for model, cases in unlike.items():
        yield (
            f"{second.file('metrics')}: model '{model}' has other maps than in {first.folder} for {_say(cases)}; "
            "rename one of the two models and run it again, or leave one folder out"
        )
    one_sided = sorted((scores[0].keys() & failed[1]) | (scores[1].keys() & failed[0]))
    for model in dict.fromkeys(model for _, model in one_sided):
        patients = [patient for patient, name in one_sided if name == model]
        yield (
            f"{second.file('failures')}: model '{model}' failed for {_names(patients)} in one of this folder and "
            f"{first.folder}, and not in the other; leave one of the two out"
        )


def _same(a: Any, b: Any) -> bool:
    """Tell whether two values agree; numbers to :data:`TOLERANCE` of their size."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))
    return bool(a == b)


def _names(patients: Sequence[str]) -> str:
    more = f" and {len(patients) - NAMED} more" if len(patients) > NAMED else ""
    return f"{len(patients)} patient{'s' if len(patients) > 1 else ''} ({', '.join(patients[:NAMED])}{more})"


def _say(cases: Sequence[tuple[str, Any, Any]]) -> str:
    """Name patients whose values differ, with the values of the first."""
    patient, a, b = cases[0]
    return f"{_names([name for name, _, _ in cases])}, {patient}: {b} against {a}"


def merge(runs: Sequence[Run]) -> tuple[list[Row], dict[str, Any], list[Row]]:
    """Return scores, cohort and failures of runs without faults, as ``make_tables`` takes them.

    A score that several runs have is taken once. Nothing is averaged.

    Returns
    -------
    records, cohort, failures
        See :func:`predictgbm.statistics.benchmark.make_tables`.
    """
    records: dict[tuple[str, str], Row] = {}
    patients: dict[str, Row] = {}
    for run in runs:
        parts: dict[str, dict[tuple[str, str], list[Row]]] = {}
        for name in ("lesions", "curves"):
            parts[name] = defaultdict(list)
            for row in run.tables[name]:
                parts[name][row["patient"], row["model"]].append(row)
        for key, row in run.scores.items():
            curve = parts["curves"][key]
            more = {"lesions": parts["lesions"][key]} | {
                "curve": {
                    column: [point[column] for point in curve]
                    for column in ("fraction", "coverage_enhancing")
                }
            }
            records.setdefault(key, row | more)
        for row in run.tables["cohort"]:
            patients.setdefault(row["patient"], row)
    failures = [row for run in runs for row in run.tables["failures"]]
    return list(records.values()), {"patients": list(patients.values())}, failures


def trial_exams(runs: Sequence[Run]) -> int:
    """Return how many exams have tumour labels of the built-in segmenter, which is made for trials."""
    rows = [row for run in runs for row in run.tables["quality"]]
    return len({(row["patient"], row.get("session")) for row in rows if TRIAL in (row.get("method") or "")})


def model_entries(
    runs: Sequence[Run], lists: Sequence[Path], submissions: Mapping[str, Row], models: Sequence[str]
) -> dict[str, Row]:
    """Return what is known of each model: its entry, and what a submission says besides.

    Parameters
    ----------
    runs
        Runs, whose own lists of models go before the others.
    lists
        Lists of models (YAML), such as ``assets/models.yml``.
    submissions
        Manifest of a submission by the name of its model.
    models
        Names wanted, in the order of the result.
    """
    known: dict[str, Row] = {}
    for path in lists:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        known |= {str(entry["name"]): entry for entry in content.get("models") or []}
    for run in runs:
        known |= run.entries
    found = {name: {"name": name, **known.get(name, {}), **submissions.get(name, {})} for name in models}
    for entry in found.values():
        # Where the organiser keeps the maps.
        entry.pop("folder", None)
        if "parameters" in entry:
            entry["parameters"] = without_paths(entry["parameters"])
        if str(entry.get("container", "")).endswith(".sif"):
            entry["container"] = Path(entry["container"]).name
    return found


def without_paths(parameters: Mapping[str, Any]) -> Row:
    """Return parameters with the paths of the organiser's machine cut to their last part, for publishing."""
    return {key: _without_paths(value) for key, value in parameters.items()}


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_paths(value)
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value
