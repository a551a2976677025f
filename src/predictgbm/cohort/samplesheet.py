"""Reading and checking of the samplesheet: from the bytes of a CSV or TSV file to exams, or to faults."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from predictgbm.atlas import ATLASES
from predictgbm.cohort.faults import Fault
from predictgbm.exam import ORGAN
from predictgbm.labels import LabelError, parse_convention

SCORE = "score_"

#: Beginning of a column that ends with a name -> what it holds, and a good example.
NAMED = {SCORE: ("a score map", "score_mymodel"), ORGAN: ("an organ at risk", "oar_brainstem")}

#: Columns that hold a NIfTI file or a DICOM folder.
IMAGE_COLUMNS = ("t1", "t1c", "t2", "flair", "adc", "dti", "pet")

#: Columns whose file belongs to one exam alone. Masks and tissue maps may be shared, for example those of an
#: atlas.
OWN_FILES = ("dicom", *IMAGE_COLUMNS, "tensor", "tumor_seg", "registered_seg", "dose")

#: Columns that say something of an exam themselves; all others but the score maps name a file.
TEXT_COLUMNS = (
    *("patient", "session", "cohort", "role", "days", "space", "tumor_labels", "registered_labels"),
    "prescription_gy",
)

#: Column ``space`` of raw exams; all others lie in the atlas space of the run.
NATIVE = "native"

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass
class Row:
    """One line of the sheet: the cells that are filled, by column."""

    line: int
    cells: dict[str, str]
    #: False where the line has more or fewer cells than there are columns, so that cells may stand in wrong
    #: columns.
    aligned: bool = True

    @property
    def patient(self) -> str:
        """Patient without the prefix ``sub-``."""
        return self.cells.get("patient", "").removeprefix("sub-")

    @property
    def session(self) -> str:
        """Session without the prefix ``ses-``."""
        return self.cells.get("session", "").removeprefix("ses-")

    @property
    def role(self) -> str:
        """Role as written."""
        return self.cells.get("role", "")

    def space(self, atlas: str) -> str:
        """Space of the images: as written, else native where there is a DICOM folder and the atlas's where not."""
        folders = "dicom" in self.cells or any(
            not cell.endswith((".nii", ".nii.gz")) for c, cell in self.cells.items() if c in IMAGE_COLUMNS
        )
        return self.cells.get("space", NATIVE if folders else atlas)

    @property
    def days(self) -> int | None:
        """Whole days since the pre-operative exam, or None if the cell is no number."""
        text = self.cells.get("days", "")
        return math.floor(float(text)) if _NUMBER.fullmatch(text) else None

    @property
    def prescription_gy(self) -> float | None:
        """Prescribed dose in Gy, or None if the cell is no number."""
        text = self.cells.get("prescription_gy", "")
        return float(text) if _NUMBER.fullmatch(text) else None

    def fault(self, column: str, what: str, expected: str) -> Fault:
        """Return a fault of this row."""
        return Fault(self.line, column, what, expected, self.patient or None)


@dataclass
class Sheet:
    """The text of a samplesheet, split into columns and rows."""

    columns: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def check_samplesheet(content: bytes, schema: Mapping[str, Any], space: str) -> dict[str, Any]:
    """Check a samplesheet and return its exams, or everything that is wrong with it.

    Parameters
    ----------
    content
        The file's bytes: CSV or TSV, UTF-8 (or UTF-16 with a byte order mark), any line ends.
    schema
        JSON schema of the rows, ``assets/schema_input.json``; ``errorMessage`` says what is expected.
    space
        Space of the run's atlas, in which all exams lie that are not raw.

    Returns
    -------
    dict
        ``rows`` (``line``, ``meta``, ``space``, ``files``, ``scores``, ``tumor_labels``, ``registered_labels``,
        ``prescription_gy`` of each faultless row), ``faults`` (:class:`~predictgbm.cohort.faults.Fault`, sorted by
        line) and ``models_scores`` (names of the score maps in the sheet).
    """
    sheet = parse_sheet(content)
    faults = list(sheet.faults)
    if sheet.columns:
        faults += _check_header(sheet, schema)
        aligned = [row for row in sheet.rows if row.aligned]
        for row in aligned:
            faults += _check_row(row, sheet.columns, schema, space)
        faults += _check_patients(sheet.rows)
        faults += _check_shared_files(aligned)
    wrong_lines = {fault.line for fault in faults}
    cohorts = {
        row.patient: row.cells["cohort"]
        for row in sheet.rows
        if row.role == "preop" and "cohort" in row.cells
    }
    default_cohort = schema["items"]["properties"]["cohort"]["default"]
    return {
        "rows": [
            _exam(row, cohorts.get(row.patient, default_cohort), space)
            for row in sheet.rows
            if row.line not in wrong_lines
        ],
        "faults": sorted(set(faults), key=lambda f: (f.line, f.column, f.what)),
        "models_scores": sorted(c.removeprefix(SCORE) for c in sheet.columns if c.startswith(SCORE)),
    }


def parse_sheet(content: bytes) -> Sheet:
    """Split the bytes of a samplesheet into columns and rows, without blank lines and blanks around cells."""
    sheet = Sheet()

    def refuse(line: int, column: str, what: str, expected: str) -> Sheet:
        sheet.faults.append(Fault(line, column, what, expected))
        return sheet

    if content.startswith(b"PK\x03\x04"):
        return refuse(
            1, "sheet", "is a spreadsheet workbook (.xlsx or .ods)", "a text file; save it as 'CSV UTF-8'"
        )
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return refuse(
            line, "sheet", "has letters that are not written in UTF-8", "UTF-8 text; save it as 'CSV UTF-8'"
        )
    if not text.strip():
        return refuse(1, "sheet", "is empty", "a line of column names and one row per exam")

    first = next(line for line in text.splitlines() if line.strip())
    delimiter = "\t" if "\t" in first else ","
    if first.count(";") > first.count(delimiter):
        return refuse(
            1,
            "sheet",
            "columns are separated by semicolons",
            "commas or tabs; save it as 'CSV UTF-8' with commas, or as tab-separated text",
        )
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    start = 1
    try:
        for record in reader:
            line, start = start, reader.line_num + 1
            cells = [cell.strip() for cell in record]
            if not any(cells):
                continue
            if not sheet.columns:
                while not cells[-1]:
                    cells.pop()
                sheet.columns = cells
                continue
            while len(cells) > len(sheet.columns) and not cells[-1]:
                cells.pop()
            if len(cells) != len(sheet.columns):
                refuse(
                    line,
                    "row",
                    f"has {len(cells)} cells",
                    f"{len(sheet.columns)}, one for each column; put quotes around a cell that holds a comma"
                    if delimiter == ","
                    else f"{len(sheet.columns)}, one for each column",
                )
            filled = {column: cell for column, cell in zip(sheet.columns, cells, strict=False) if cell}
            sheet.rows.append(Row(line, filled, len(cells) == len(sheet.columns)))
    except csv.Error as error:
        refuse(
            start, "row", f"cannot be split into cells ({error})", 'quotes (") in pairs around a whole cell'
        )
    if not sheet.rows and not sheet.faults:
        refuse(1, "sheet", "has column names and no row", "one row per exam below the column names")
    return sheet


def _check_header(sheet: Sheet, schema: Mapping[str, Any]) -> Iterator[Fault]:
    items = schema["items"]
    known = list(items["properties"])
    # Whoever fills in a sheet needs these columns, so each is named even if no row has got as far as needing
    # it.
    images = [] if "dicom" in sheet.columns else items["allOf"][0]["then"]["required"]
    required = [*items["required"], *images]
    suggested = set()
    for number, column in enumerate(sheet.columns, start=1):
        if not column:
            yield Fault(1, "header", f"column {number} has no name", "a name above each column")
        elif sheet.columns.index(column) != number - 1:
            yield Fault(1, column, "column appears twice", "each column once")
        elif column not in known and not any(re.search(p, column) for p in items["patternProperties"]):
            if start := next((start for start in NAMED if column.lower().startswith(start)), ""):
                whose, example = NAMED[start]
                yield Fault(
                    1,
                    column,
                    f"name of {whose} cannot be used",
                    f"{start} and a lower-case name, such as {example}",
                )
                continue
            simplified = re.sub(r"\W+", "_", column.lower())
            guess = difflib.get_close_matches(simplified, known, 1, 0.6)
            suggested.update(guess)
            hint = (
                f"'{guess[0]}' (did you mean that?)"
                if guess
                else f"one of {', '.join((*known, *(f'{start}<name>' for start in NAMED)))}"
            )
            yield Fault(1, column, f"unknown column '{column}'", hint)
    for column in required:
        if column not in sheet.columns and column not in suggested:
            yield Fault(
                1, column, "column is missing", f"the columns {', '.join(required)} in the first line"
            )


def _check_space(row: Row, atlas: str) -> Iterator[Fault]:
    written = row.cells.get("space", NATIVE)
    if written in (NATIVE, atlas):
        return
    if written in ATLASES:
        yield row.fault(
            "space",
            f"exam is in {written}, this run in {atlas}",
            f"native for raw images or {atlas}; where all exams are in {written}, run with --atlas_space {written}",
        )
    else:
        yield row.fault(
            "space",
            f"'{written}' cannot be used",
            f"native for raw images or {atlas} for images in atlas space; an empty cell means native where a DICOM "
            f"folder is given and {atlas} otherwise",
        )


def _check_row(row: Row, columns: list[str], schema: Mapping[str, Any], space: str) -> Iterator[Fault]:
    items = schema["items"]
    record: dict[str, Any] = {
        column: cell
        for column, cell in row.cells.items()
        if column in items["properties"] or any(re.search(p, column) for p in items["patternProperties"])
    }
    if row.days is not None:
        record["days"] = row.days
    if row.prescription_gy is not None:
        record["prescription_gy"] = row.prescription_gy
    validator = Draft202012Validator({**items, "$defs": schema["$defs"]})
    for error in validator.iter_errors(record):
        expected = error.schema["errorMessage"] if isinstance(error.schema, dict) else ""
        if error.path:
            yield row.fault(str(error.path[0]), f"'{error.instance}' cannot be used", expected)
            continue
        for column in _absent(error):
            if column in columns:
                yield row.fault(column, "is empty", expected)
            elif column not in items["required"] and column not in items["allOf"][0]["then"]["required"]:
                yield row.fault(column, "column is missing", expected)
    for column in ("tumor_labels", "registered_labels"):
        try:
            parse_convention(row.cells.get(column, "canonical"))
        except LabelError as error:
            what, _, expected = str(error).partition("; use ")
            yield row.fault(column, what, expected)
    yield from _check_space(row, space)
    if row.space(space) != NATIVE:
        for column in ("dicom", "dti"):
            if column in row.cells:
                yield row.fault(
                    column,
                    f"is given for an exam in {row.space(space)} space",
                    "native in column space, with all images of the exam as the scanner made them",
                )
    elif "tensor" in row.cells:
        yield row.fault(
            "tensor",
            "is given for an exam in native space",
            f"the diffusion series in column dti, of which it is made, or the exam in {space} space",
        )
    elif any(column.startswith(SCORE) for column in row.cells) and row.role == "preop":
        yield row.fault(
            next(column for column in row.cells if column.startswith(SCORE)),
            "score map is given for an exam in native space",
            f"the exam in {space} space (results of an earlier run hold it in anat/), where a score map lies",
        )
    if row.role == "preop":
        if "registered_seg" in row.cells:
            yield row.fault(
                "registered_seg", "is given for a pre-operative exam", "it in rows of role followup only"
            )
        if row.days not in (0, None):
            yield row.fault(
                "days", f"pre-operative exam is at day {row.days}", "0: days count from this exam"
            )
    if row.role == "followup":
        for column in row.cells:
            if held := _before_surgery(column):
                yield row.fault(
                    column, f"{held} is given for a follow-up", "it in the row of the pre-operative exam"
                )
        if row.days is not None and row.days <= 0:
            yield row.fault(
                "days",
                f"follow-up at day {row.days} is not after the pre-operative exam",
                "more than 0, counted from the pre-operative exam",
            )


def _before_surgery(column: str) -> str | None:
    """Return what a column holds that belongs to pre-operative exams alone; None for all others."""
    if column.startswith(SCORE):
        return "score map"
    return (
        "organ at risk"
        if column.startswith(ORGAN)
        else {"dose": "dose", "prescription_gy": "prescribed dose"}.get(column)
    )


def _absent(error: ValidationError) -> list[str]:
    """Return the columns that a 'required' or 'dependentRequired' error complains of."""
    demanded: Any = error.validator_value
    given: Any = error.instance
    if error.validator == "dependentRequired":
        demanded = [column for trigger, others in demanded.items() if trigger in given for column in others]
    return [column for column in demanded if column not in given]


def _check_patients(rows: list[Row]) -> Iterator[Fault]:
    by_patient: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.patient:
            by_patient[row.patient].append(row)
    for patient, exams in by_patient.items():
        first_line: dict[str, int] = {}
        for row in exams:
            if row.session and row.session in first_line:
                yield row.fault(
                    "session",
                    f"session '{row.session}' of patient '{patient}' is already on line "
                    f"{first_line[row.session]}",
                    "each exam once, with a session name of its own",
                )
            first_line.setdefault(row.session, row.line)
        preop = [row for row in exams if row.role == "preop"]
        if not preop and any(row.role == "followup" for row in exams):
            yield exams[0].fault(
                "role", "patient has follow-ups and no pre-operative exam", "one row of role preop"
            )
        for row in preop[1:]:
            yield row.fault(
                "role",
                f"second pre-operative exam, the first is on line {preop[0].line}",
                "one row of role preop for each patient",
            )
        cohort = preop[0].cells.get("cohort") if preop else None
        for row in exams:
            if "cohort" in row.cells and preop and row.cells["cohort"] != cohort:
                yield row.fault(
                    "cohort",
                    f"'{row.cells['cohort']}' differs from '{cohort or ''}' on line {preop[0].line}",
                    "one cohort for all exams of a patient",
                )


def _check_shared_files(rows: list[Row]) -> Iterator[Fault]:
    seen: dict[str, tuple[Row, str]] = {}
    for row in rows:
        for column, cell in row.cells.items():
            if column not in OWN_FILES and not column.startswith(SCORE):
                continue
            path = posixpath.normpath(cell)
            if path in seen:
                other, its_column = seen[path]
                yield row.fault(
                    column,
                    f"file '{cell}' is already used on line {other.line}, column {its_column}",
                    "a file of its own for each image",
                )
            seen.setdefault(path, (row, column))


def _exam(row: Row, cohort: str, space: str) -> dict[str, Any]:
    cells = row.cells
    return {
        "line": row.line,
        "meta": {
            "id": f"sub-{row.patient}_ses-{row.session}",
            "patient": row.patient,
            "session": row.session,
            "cohort": cohort,
            "role": row.role,
            "days": row.days,
        },
        "space": row.space(space),
        "files": {c: cell for c, cell in cells.items() if c not in TEXT_COLUMNS and not c.startswith(SCORE)},
        "scores": {c.removeprefix(SCORE): cell for c, cell in cells.items() if c.startswith(SCORE)},
        "tumor_labels": cells.get("tumor_labels", "canonical"),
        "registered_labels": cells.get("registered_labels", "canonical"),
        "prescription_gy": row.prescription_gy,
    }
