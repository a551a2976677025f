"""Reading what a run leaves behind: tables, trace, versions, parameters, model list, QC pictures."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from predictgbm.quality import STAGES
from predictgbm.report.colours import MODEL_COLOURS, REFERENCE_COLOUR, STANDARD, hexadecimal, model_places

Row = dict[str, Any]

#: Name of the model every other one is compared with.
REFERENCE = STANDARD

TABLES = (
    "metrics",
    "lesions",
    "curve_summary",
    "volume_saved",
    "recurrence_patterns",
    "coverage_by_pattern",
    "causes",
    "cause_frequencies",
    "guarantee",
    "sensitivity",
    "agreement",
    "dose",
    "dose_summary",
    "organ_dose",
    "dvh",
    "given_dose",
    "given_lesions",
    "given_organs",
    "given_summary",
    "given_dvh",
    "calibration",
    "calibration_summary",
    "reliability",
    "uncertainty",
    "uncertainty_curve",
    "guidelines",
    "guideline_comparisons",
    "summary",
    "comparisons",
    "equivalence",
    "mixed_model",
    "leave_one_dataset_out",
    "power",
    "correlations",
    "pairwise",
    "rankings",
    "rank_frequencies",
    "cohort",
    "failures",
    "quality",
)

#: Columns that stay text even where they look like numbers, such as a patient called 001.
TEXT_COLUMNS = frozenset(
    {"patient", "session", "followup_session", "cohort", "model", "dataset", "definition", "covariate"}
    | {
        "status",
        "reason",
        "reason_code",
        "stage",
        "kind",
        "analysis",
        "method",
        "tissue",
        "left_out",
        "guideline",
        "fit",
        "measure",
        "organ",
        "pattern",
        "pattern_isodose",
        "pattern_standard",
        "source",
        "group",
        "cause",
        "unit",
        "expected",
        "meaning",
        "note",
        "panel",
        "axis",
        "setting",
        "model_a",
        "model_b",
        "structure",
    }
)

PALETTE = tuple(hexadecimal(colour) for colour in MODEL_COLOURS)
REFERENCE_COLOR = hexadecimal(REFERENCE_COLOUR)
DASHES = ("solid", "dot", "dashdot")

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class ModelStyle:
    """How one model is called and drawn, the same in every table and figure."""

    name: str
    title: str
    color: str
    dash: str = "solid"
    citation: str = ""
    doi: str = ""
    description: str = ""


@dataclass(frozen=True)
class Picture:
    """A QC picture and the sentence that says what to look for in it."""

    path: Path
    patient: str
    caption: str


@dataclass(frozen=True)
class Drawn:
    """A figure as SVG, and the numbers that it shows, one row per mark."""

    svg: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Task:
    """One successful task of the trace; ``model`` is empty unless it ran a model."""

    process: str
    tag: str
    model: str
    seconds: float | None
    memory_bytes: float | None
    cpu_seconds: float | None = None


def read_table(path: Path) -> list[Row]:
    """Read a CSV file as one dictionary per row: numbers as float, empty cells and NaN as None."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{key: _cell(key, value) for key, value in row.items() if key} for row in csv.DictReader(file)]


def _cell(column: str, value: str | None) -> Any:
    if value is None or value == "" or value.lower() == "nan":
        return None
    if column in TEXT_COLUMNS:
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else None


def parse_seconds(text: str) -> float | None:
    """Read a duration of Nextflow's trace in seconds, raw milliseconds (``61500``) or human (``1m 1.5s``)."""
    text = text.strip()
    if re.fullmatch(r"\d+", text):
        return int(text) / 1000.0
    parts = re.findall(r"([\d.]+)\s*(ms|s|m|h|d)", text)
    return sum(float(value) * SECONDS[unit] for value, unit in parts) if parts else None


def parse_bytes(text: str) -> float | None:
    """Read a memory size of Nextflow's trace in bytes: raw (``"1048576"``) or human (``"1.5 GB"``)."""
    match = re.fullmatch(r"([\d.]+)\s*([KMGT]?)B?", text.strip())
    return float(match[1]) * BYTES[match[2]] if match else None


def read_trace(path: Path) -> list[Task]:
    """Read the tasks of a Nextflow trace that ended well; cached ones keep the times of their own run."""
    tasks = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row.get("status") not in ("COMPLETED", "CACHED"):
                continue
            name, _, tag = (row.get("name") or "").partition(" (")
            tag = tag.rstrip(")")
            process = name.split(":")[-1]
            # A model's task is MODEL_<verb> (<exam> <model>); to check a map that is there runs none.
            ran = process.startswith("MODEL_") and process != "MODEL_CHECKMAP"
            model = tag.split()[-1] if ran and len(tag.split()) > 1 else ""
            seconds = parse_seconds(row.get("realtime") or "")
            share = re.fullmatch(r"([\d.]+)%?", (row.get("%cpu") or "").strip())
            cpu = seconds * float(share[1]) / 100 if share and seconds is not None else None
            tasks.append(Task(process, tag, model, seconds, parse_bytes(row.get("peak_rss") or ""), cpu))
    return tasks


def subject(patient: str) -> str:
    """Return the BIDS subject entity of a patient, ``sub-001`` for ``001`` and for ``sub-001``."""
    return patient if patient.startswith("sub-") else f"sub-{patient}"


def read_models(paths: Iterable[Path]) -> dict[str, Row]:
    """Return the entries of lists of models by name, in their order; files that are no such list are passed over."""
    entries: dict[str, Row] = {}
    for path in paths:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        listed = content.get("models") if isinstance(content, dict) else None
        entries.update({str(e["name"]): e for e in listed or [] if isinstance(e, dict) and "name" in e})
    return entries


class Results:
    """Everything a report is made of.

    Parameters
    ----------
    folder
        Folder that holds, at any depth, the tables as CSV, ``statistics.json``, ``trace.txt``,
        ``software_versions.yml``, ``params.json``, lists of models as YAML (``models.yml``, or any name in a
        folder ``models``), cards of trained models (``card.json``), the QC pictures
        ``sub-<patient>*_desc-qc.png`` with JSON sidecars, and those of what each plan missed,
        ``sub-<patient>*_desc-missed/<model>.webp``. What is absent is empty.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        # Staged folders are links, which Path.rglob would not enter.
        walk = os.walk(self.folder, followlinks=True)
        self._files = sorted(Path(root, name) for root, _, names in walk for name in names)
        self.tables: dict[str, list[Row]] = {
            name: read_table(path) if (path := self._find(f"{name}.csv")) else [] for name in TABLES
        }
        self.statistics: dict[str, Any] = self._load("statistics.json")
        self.parameters: dict[str, Any] = self._load("params.json")
        trace = self._find("trace.txt")
        self.tasks = read_trace(trace) if trace else []
        #: What the report has drawn so far, by name, for :func:`predictgbm.report.figure_files.write`.
        self.figures: dict[str, Drawn] = {}

    def _find(self, name: str) -> Path | None:
        return next((path for path in self._files if path.name == name), None)

    def _load(self, name: str) -> dict[str, Any]:
        path = self._find(name)
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path else None
        return content if isinstance(content, dict) else {}

    @cached_property
    def cards(self) -> dict[str, dict[str, Any]]:
        """Cards of the trained models that took part, by name."""
        found = [
            json.loads(path.read_text(encoding="utf-8")) for path in self._files if path.name == "card.json"
        ]
        return {str(card["name"]): card for card in found}

    @property
    def simulated(self) -> bool:
        """Whether the patients are simulated."""
        return bool(self.statistics.get("simulated"))

    @property
    def primary(self) -> str:
        """Definition of recurrence of the primary endpoint."""
        return str(self.statistics.get("primary", "enhancing"))

    @cached_property
    def versions(self) -> dict[str, dict[str, str]]:
        """Version of each piece of software by process."""
        versions: dict[str, dict[str, str]] = {}
        for path in self._files:
            if path.name == "versions.yml" or path.name.endswith("_versions.yml"):
                # BaseLoader keeps version 1.10 from becoming the number 1.1.
                content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
                for process, tools in (content or {}).items():
                    if isinstance(tools, dict):
                        versions.setdefault(str(process).split(":")[-1], {}).update(tools)
        return versions

    @cached_property
    def styles(self) -> dict[str, ModelStyle]:
        """Style by model name: first as listed in the model lists, then what else the tables name."""
        entries = read_models(
            path
            for path in self._files
            if any("models" in part for part in path.relative_to(self.folder).parts)
            and path.suffix in (".yml", ".yaml")
        )
        for name in self._names():
            entries.setdefault(name, {})
        styles = {}
        places = model_places(entries)
        for name, entry in entries.items():
            # Broken, so that a model that does the same as the reference stays visible below it.
            color, dash = REFERENCE_COLOR, "dash"
            if name != REFERENCE:
                color = PALETTE[places[name] % len(PALETTE)]
                dash = DASHES[places[name] // len(PALETTE) % len(DASHES)]
            title = str(entry.get("title") or ("Standard of care" if name == REFERENCE else name))
            about = [str(entry.get(key) or "").strip() for key in ("citation", "doi", "description")]
            styles[name] = ModelStyle(name, title, color, dash, *about)
        return styles

    def _names(self) -> Iterable[str]:
        for table in ("metrics", "summary", "curve_summary", "failures"):
            yield from (row["model"] for row in self.tables[table] if row.get("model"))
        yield from (task.model for task in self.tasks if task.model)

    @cached_property
    def models(self) -> list[str]:
        """Models that took part in this run, in the order of :attr:`styles`."""
        present = set(self._names())
        return [name for name in self.styles if name in present]

    @cached_property
    def pictures(self) -> list[Picture]:
        """QC pictures, by patient."""
        pictures = []
        for path in self._files:
            if path.name.startswith("sub-") and path.name.endswith("_desc-qc.png"):
                sidecar = path.with_suffix(".json")
                note = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else {}
                caption = next(
                    (str(note[k]) for k in ("caption", "Caption", "Description") if note.get(k)), ""
                )
                pictures.append(Picture(path, path.name.split("_")[0], caption))
        return pictures

    @cached_property
    def missed_pictures(self) -> dict[tuple[str, str], Path]:
        """Pictures of what a plan missed, ``sub-<patient>*_desc-missed/<model>.webp``, by (sub-<patient>, model)."""
        return {
            (path.parent.name.split("_")[0], path.stem): path
            for path in self._files
            if path.suffix == ".webp" and path.parent.name.endswith("_desc-missed")
        }

    @cached_property
    def step_pictures(self) -> dict[str, list[Picture]]:
        """Pictures of the steps from raw exams to labels, by step and then by exam."""
        found: dict[str, list[Picture]] = {}
        for step, (_, look_for) in STAGES.items():
            end = f"_desc-{step}_qc.png"
            shots = [path for path in self._files if path.name.startswith("sub-") and path.name.endswith(end)]
            if shots:
                found[step] = [Picture(path, path.name.split("_")[0], look_for) for path in shots]
        return found

    @property
    def dataset(self) -> str:
        """Dataset of the headline: ``pooled``, or the only cohort there is."""
        names = {row["dataset"] for row in self.tables["summary"]}
        return "pooled" if "pooled" in names or not names else sorted(names)[0]

    @cached_property
    def headline(self) -> list[Row]:
        """Summary of the primary endpoint with the comparison against the reference, best mean first."""
        key = (self.dataset, self.primary)
        comparisons = {
            row["model"]: row
            for row in self.tables["comparisons"]
            if (row["dataset"], row["definition"]) == key
        }
        rows = [row for row in self.tables["summary"] if (row["dataset"], row["definition"]) == key]
        rows.sort(key=lambda row: -math.inf if row.get("mean") is None else row["mean"], reverse=True)
        return [{**comparisons.get(row["model"], {}), **row} for row in rows]

    def pairs(self, model: str, column: str | None = None) -> list[tuple[Row, float, float]]:
        """Return (row, reference, model) of each patient that both have a coverage for, as fractions."""
        column = column or f"coverage_{self.primary}"
        rows = [row for row in self.tables["metrics"] if row.get(column) is not None]
        reference: dict[str, float] = {
            row["patient"]: row[column] for row in rows if row["model"] == REFERENCE
        }
        return [
            (row, reference[row["patient"]], row[column])
            for row in rows
            if row["model"] == model and row["patient"] in reference
        ]


def ranked(results: Results) -> list[str]:
    """Return all models, best mean first."""
    best = [row["model"] for row in results.headline]
    return [*best, *(name for name in results.models if name not in best)]


def others(results: Results) -> list[str]:
    """Return the models beside the reference, best mean first."""
    return [name for name in ranked(results) if name != REFERENCE]


def known(rows: list[Row], column: str) -> list[float]:
    """Return the values of a column that are there."""
    return [row[column] for row in rows if row.get(column) is not None]


def is_true(value: Any) -> bool:
    """Whether a truth value of a table is true, however it was written."""
    return str(value).lower() in ("true", "1", "1.0")
