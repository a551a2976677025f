"""The samplesheet: what is read, and what a reader of its faults is told."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from predictgbm.cohort.faults import format_fault
from predictgbm.cohort.samplesheet import check_samplesheet, parse_sheet

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((REPOSITORY / "assets" / "schema_input.json").read_text("utf-8"))
COLUMNS = [
    "patient",
    "session",
    "cohort",
    "role",
    "days",
    "t1",
    "t1c",
    "t2",
    "flair",
    "tumor_seg",
    "registered_seg",
]


def preop(patient: str = "001", **cells: str) -> dict[str, str]:
    files = {c: f"{patient}/{c}.nii.gz" for c in ("t1", "t1c", "t2", "flair", "tumor_seg")}
    return {
        "patient": patient,
        "session": "pre",
        "cohort": "A",
        "role": "preop",
        "days": "0",
        **files,
        **cells,
    }


def followup(patient: str = "001", session: str = "fu1", days: str = "100", **cells: str) -> dict[str, str]:
    row = {"patient": patient, "session": session, "cohort": "A", "role": "followup", "days": days}
    return {**row, "registered_seg": f"{patient}/{session}_seg.nii.gz", **cells}


def sheet(
    *rows: dict[str, str], columns: list[str] | None = None, delimiter: str = ",", end: str = "\n"
) -> bytes:
    columns = columns or COLUMNS + [c for c in dict.fromkeys(c for r in rows for c in r) if c not in COLUMNS]
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(lines)
    return text.getvalue().encode()


def check(content: bytes, space: str = "SRI24") -> dict[str, Any]:
    return check_samplesheet(content, SCHEMA, space)


def told(content: bytes) -> list[str]:
    return [format_fault(fault, "sheet.csv") for fault in check(content)["faults"]]


def test_good_sheet_gives_every_exam() -> None:
    cohort = check(sheet(preop(score_mine="m.nii.gz", tumor_labels="brats2021"), followup(), preop("002")))
    assert cohort["faults"] == []
    assert cohort["models_scores"] == ["mine"]
    first, second, third = cohort["rows"]
    assert first == {
        "line": 2,
        "meta": {
            "id": "sub-001_ses-pre",
            "patient": "001",
            "session": "pre",
            "cohort": "A",
            "role": "preop",
            "days": 0,
        },
        "space": "SRI24",
        "files": {c: f"001/{c}.nii.gz" for c in ("t1", "t1c", "t2", "flair", "tumor_seg")},
        "scores": {"mine": "m.nii.gz"},
        "tumor_labels": "brats2021",
        "registered_labels": "canonical",
        "prescription_gy": None,
    }
    assert (second["line"], second["meta"]["days"], second["meta"]["role"]) == (3, 100, "followup")
    assert second["files"] == {"registered_seg": "001/fu1_seg.nii.gz"}
    assert (third["line"], third["meta"]["patient"], third["scores"]) == (4, "002", {})


def test_dose_and_organs_belong_to_the_preoperative_exam() -> None:
    cells = {"dose": "RD.1.2.dcm", "prescription_gy": "40.05", "oar_brainstem": "stem.nii.gz"}
    cohort = check(sheet(preop(**cells), preop("002", dose="dose.nii.gz"), preop("003")))
    assert cohort["faults"] == []
    first, second, third = cohort["rows"]
    assert (first["files"]["dose"], first["files"]["oar_brainstem"]) == ("RD.1.2.dcm", "stem.nii.gz")
    assert [row["prescription_gy"] for row in (first, second, third)] == [40.05, None, None]
    assert "prescription_gy" not in first["files"]


def test_space_is_native_where_a_dicom_folder_is_given() -> None:
    whole = {"t1": "", "t1c": "", "t2": "", "flair": "", "tumor_seg": "", "dicom": "003/scan.1"}
    rows = [preop(t1="dicom/T1"), preop("002", space="native"), preop("003", **whole), preop("004")]
    cohort = check(sheet(*rows))
    assert cohort["faults"] == []
    assert [row["space"] for row in cohort["rows"]] == ["native", "native", "native", "SRI24"]
    assert cohort["rows"][2]["files"] == {"dicom": "003/scan.1"}


def test_exams_lie_in_the_atlas_space_of_the_run() -> None:
    rows = [preop(space="MNI152"), preop("002"), preop("003", space="native"), preop("004", space="SRI24")]
    cohort = check(sheet(*rows), "MNI152")
    assert [row["space"] for row in cohort["rows"]] == ["MNI152", "MNI152", "native"]
    assert [(fault.line, fault.column) for fault in cohort["faults"]] == [(5, "space")]
    own = check(sheet(preop(space="OwnHead"), preop("002", space="SRI24")), "OwnHead")
    assert [row["space"] for row in own["rows"]] == ["OwnHead"]


def test_raw_followup_needs_no_registered_labels() -> None:
    images = {c: f"fu/{c}" for c in ("t1", "t1c", "t2", "flair")}
    rows = [preop(), followup(registered_seg="", **images), followup("002", registered_seg="", dicom="fu2")]
    assert check(sheet(*rows, preop("002")))["faults"] == []


def test_bids_prefixes_days_and_cohort_are_normalised() -> None:
    rows = [
        preop("sub-001", session="ses-pre"),
        followup("001", days="84.5", cohort=""),
        preop("002", cohort=""),
    ]
    cohort = check(sheet(*rows))
    assert cohort["faults"] == []
    assert [row["meta"]["id"] for row in cohort["rows"]] == [
        "sub-001_ses-pre",
        "sub-001_ses-fu1",
        "sub-002_ses-pre",
    ]
    assert [row["meta"]["days"] for row in cohort["rows"]] == [0, 84, 0]
    # A follow-up belongs to the cohort of its patient, a patient without one to the default.
    assert [row["meta"]["cohort"] for row in cohort["rows"]] == ["A", "A", "cohort"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
@pytest.mark.parametrize("delimiter", [",", "\t"], ids=["csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_formats_give_the_same_exams(end: str, delimiter: str, encoding: str) -> None:
    rows = preop("001", t1="Müller, Zoë/T1 vor OP.nii.gz"), followup()
    plain = check(sheet(*rows))
    content = sheet(*rows, delimiter=delimiter, end=end).decode().encode(encoding)
    assert check(content) == plain
    assert plain["faults"] == []
    assert plain["rows"][0]["files"]["t1"] == "Müller, Zoë/T1 vor OP.nii.gz"


def test_blank_lines_and_blanks_are_dropped_and_lines_still_count() -> None:
    text = sheet(preop(), preop("002", role="before")).decode().splitlines()
    padded = "\n".join(
        ["", text[0] + ",,", "", text[1].replace(",", "  , ") + ",,  ", ",,,,", " ", text[2] + ",,", ""]
    )
    cohort = check(padded.encode())
    assert cohort["rows"][0]["files"]["t1c"] == "001/t1c.nii.gz"
    assert cohort["rows"][0]["line"] == 4
    assert [(fault.line, fault.column) for fault in cohort["faults"]] == [(7, "role")]


def test_line_is_that_of_the_text_editor_after_a_cell_with_a_line_break() -> None:
    content = sheet(preop(t1="a\nb.nii.gz"), preop("002", role="x"))
    faults = check(content)["faults"]
    assert [(fault.line, fault.column) for fault in faults] == [(2, "t1"), (4, "role")]


cell = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="\0")).map(
    str.strip
)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(cell, min_size=4, max_size=4).filter(any), min_size=1, max_size=5),
    delimiter=st.sampled_from(",\t"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_a_csv_writer_writes_is_read_back(
    rows: list[list[str]], delimiter: str, end: str, encoding: str, quoting: Any
) -> None:
    text = io.StringIO()
    names = ["a", "b", "c", "d"]
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([names, *rows])
    parsed = parse_sheet(text.getvalue().encode(encoding))
    assert parsed.faults == []
    assert [row.cells for row in parsed.rows] == [
        {name: value for name, value in zip(names, row, strict=True) if value} for row in rows
    ]


header = sheet(preop())


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=80),
        st.binary(max_size=40).map(lambda tail: header + tail),
        st.text(alphabet=',;\t"\r\n\0 a1-\ufeff\x85\u2028é', max_size=60).map(str.encode),
    )
)
def test_no_bytes_crash_the_check_or_pass_in_silence(content: bytes) -> None:
    cohort = check(content)
    assert cohort["faults"] or cohort["rows"]
    assert all(fault.line >= 1 and fault.what and fault.expected for fault in cohort["faults"])


def without(column: str) -> list[str]:
    return [c for c in COLUMNS if c != column]


FAULTS = {
    "missing column": (
        sheet(preop(), columns=without("flair")),
        "sheet.csv:1: flair: column is missing; expected the columns patient, session, role, days, t1, t1c, "
        "t2, flair in the first line",
    ),
    "misspelt column": (
        sheet(preop(tumour_seg="x.nii.gz"), columns=[*without("tumor_seg"), "tumour_seg"]),
        "sheet.csv:1: tumour_seg: unknown column 'tumour_seg'; expected 'tumor_seg' (did you mean that?)",
    ),
    "column in capitals": (
        sheet(preop(), columns=["Patient", *COLUMNS[1:]]),
        "sheet.csv:1: Patient: unknown column 'Patient'; expected 'patient' (did you mean that?)",
    ),
    "column twice": (
        sheet(preop(), columns=[*COLUMNS, "t1"]),
        "sheet.csv:1: t1: column appears twice; expected each column once",
    ),
    "nameless column": (
        sheet(preop(), columns=["patient", "session", "", *COLUMNS[3:]]),
        "sheet.csv:1: header: column 3 has no name; expected a name above each column",
    ),
    "score in capitals": (
        sheet(preop(score_Mine="x.nii.gz")),
        "sheet.csv:1: score_Mine: name of a score map cannot be used; expected score_ and a lower-case "
        "name, such as score_mymodel",
    ),
    "score of the name that tables give the guideline's own plan": (
        sheet(preop(score_guideline="x.nii.gz")),
        "sheet.csv:1: score_guideline: name of a score map cannot be used; expected score_ and a lower-case "
        "name, such as score_mymodel",
    ),
    "organ in capitals": (
        sheet(preop(oar_Chiasm="x.nii.gz")),
        "sheet.csv:1: oar_Chiasm: name of an organ at risk cannot be used; expected oar_ and a lower-case name, such "
        "as oar_brainstem",
    ),
    "empty sheet": (
        b"",
        "sheet.csv:1: sheet: is empty; expected a line of column names and one row per exam",
    ),
    "blank sheet": (
        b"\xef\xbb\xbf \r\n\r\n",
        "sheet.csv:1: sheet: is empty; expected a line of column names and one row per exam",
    ),
    "no rows": (
        sheet(),
        "sheet.csv:1: sheet: has column names and no row; expected one row per exam below the column names",
    ),
    "semicolons": (
        sheet(preop(), delimiter=";"),
        "sheet.csv:1: sheet: columns are separated by semicolons; expected commas or tabs; save it as 'CSV "
        "UTF-8' with commas, or as tab-separated text",
    ),
    "workbook": (
        b"PK\x03\x04rest of a zip file",
        "sheet.csv:1: sheet: is a spreadsheet workbook (.xlsx or .ods); expected a text file; save it as "
        "'CSV UTF-8'",
    ),
    "Latin-1": (
        sheet(preop(), preop("002", t1="Müller.nii.gz")).decode().encode("latin-1"),
        "sheet.csv:3: sheet: has letters that are not written in UTF-8; expected UTF-8 text; save it as "
        "'CSV UTF-8'",
    ),
    "comma in a cell": (
        sheet(preop(t1="X"), columns=COLUMNS[:-1]).replace(b"X", b"Doe, John.nii.gz"),
        "sheet.csv:2: row: has 11 cells; expected 10, one for each column; put quotes around a cell that "
        "holds a comma",
    ),
    "open quote": (
        sheet(preop()) + b'002,pre,"A,preop\n',
        'sheet.csv:3: row: cannot be split into cells (unexpected end of data); expected quotes (") in '
        "pairs around a "
        "whole cell",
    ),
    "patient with a space": (
        sheet(preop("Jane Doe")),
        "sheet.csv:2: patient: 'Jane Doe' cannot be used (patient Jane Doe); expected letters and digits "
        "only, such as 001 or P17 (no spaces, hyphens, underscores or accents)",
    ),
    "session with a hyphen": (
        sheet(preop(session="pre-op")),
        "sheet.csv:2: session: 'pre-op' cannot be used (patient 001); expected letters and digits only, "
        "such as pre or fu1 (no spaces, hyphens, underscores or accents)",
    ),
    "cohort called pooled": (
        sheet(preop(cohort="pooled")),
        "sheet.csv:2: cohort: 'pooled' cannot be used (patient 001); expected letters, digits, hyphens and "
        "underscores, such as RHUH ('pooled' is the name of all cohorts together)",
    ),
    "unknown role": (
        sheet(preop(role="pre")),
        "sheet.csv:2: role: 'pre' cannot be used (patient 001); expected preop or followup",
    ),
    "days in words": (
        sheet(preop(days="none")),
        "sheet.csv:2: days: 'none' cannot be used (patient 001); expected a number of days since the "
        "pre-operative exam, such as 0 or 112",
    ),
    "days not a number": (
        sheet(preop(), followup(days="nan")),
        "sheet.csv:3: days: 'nan' cannot be used (patient 001); expected a number of days since the "
        "pre-operative exam, such as 0 or 112",
    ),
    "no days": (
        sheet(preop(), followup(days="")),
        "sheet.csv:3: days: is empty (patient 001); expected a value in every row",
    ),
    "preop not at day 0": (
        sheet(preop(days="12")),
        "sheet.csv:2: days: pre-operative exam is at day 12 (patient 001); expected 0: days count from this "
        "exam",
    ),
    "follow-up before preop": (
        sheet(preop(), followup(days="-30")),
        "sheet.csv:3: days: follow-up at day -30 is not after the pre-operative exam (patient 001); "
        "expected more than 0, counted from the pre-operative exam",
    ),
    "follow-up on the day of preop": (
        sheet(preop(), followup(days="0")),
        "sheet.csv:3: days: follow-up at day 0 is not after the pre-operative exam (patient 001); expected "
        "more than 0, counted from the pre-operative exam",
    ),
    "two preop rows": (
        sheet(preop(), followup(), preop(session="pre2", **{c: f"b/{c}.nii.gz" for c in COLUMNS[5:10]})),
        "sheet.csv:4: role: second pre-operative exam, the first is on line 2 (patient 001); expected one "
        "row of role preop for each patient",
    ),
    "follow-up alone": (
        sheet(followup()),
        "sheet.csv:2: role: patient has follow-ups and no pre-operative exam (patient 001); expected one "
        "row of role preop",
    ),
    "duplicate session": (
        sheet(preop(), followup(), followup("sub-001", registered_seg="other.nii.gz")),
        "sheet.csv:4: session: session 'fu1' of patient '001' is already on line 3 (patient 001); expected "
        "each exam once, with a session name of its own",
    ),
    "file used twice": (
        sheet(preop(), preop("002", flair="./001/../001/flair.nii.gz")),
        "sheet.csv:3: flair: file './001/../001/flair.nii.gz' is already used on line 2, column flair "
        "(patient 002); expected a file of its own for each image",
    ),
    "one file for two contrasts": (
        sheet(preop(t2="001/flair.nii.gz")),
        "sheet.csv:2: flair: file '001/flair.nii.gz' is already used on line 2, column t2 (patient 001); "
        "expected a file of its own for each image",
    ),
    "preop without T1c": (
        sheet(preop(t1c="")),
        "sheet.csv:2: t1c: is empty (patient 001); expected an image: an exam needs t1, t1c, t2 and "
        "flair (NIfTI files or DICOM folders), or its whole DICOM folder in column dicom",
    ),
    "follow-up without anything": (
        sheet(preop(), followup(registered_seg="")),
        "sheet.csv:3: t1c: is empty (patient 001); expected what shows the recurrence: the images of the "
        "follow-up (at least t1c, and its tumour labels in tumor_seg or t1, t2 and flair besides), its DICOM "
        "folder in column dicom, or in registered_seg its tumour labels in the space of the pre-operative exam",
    ),
    "follow-up without labels and FLAIR": (
        sheet(preop(), followup(registered_seg="", t1="a.nii", t1c="b.nii", t2="c.nii")),
        "sheet.csv:3: flair: is empty (patient 001); expected an image: without tumour labels (tumor_seg) "
        "they are segmented, which needs t1, t1c, t2 and flair",
    ),
    "directions without b-values": (
        sheet(preop(space="native", dti="dti.nii.gz", dti_bvec="dti.bvec")),
        "sheet.csv:2: dti_bval: column is missing (patient 001); expected all three of dti, dti_bval and "
        "dti_bvec, or dti alone where it is a DICOM folder",
    ),
    "unknown space": (
        sheet(preop(space="MNI")),
        "sheet.csv:2: space: 'MNI' cannot be used (patient 001); expected native for raw images or SRI24 for "
        "images in atlas space; an empty cell means native where a DICOM folder is given and SRI24 otherwise",
    ),
    "space of another run": (
        sheet(preop(space="MNI152"), followup(space="native")),
        "sheet.csv:2: space: exam is in MNI152, this run in SRI24 (patient 001); expected native for raw images or "
        "SRI24; where all exams are in MNI152, run with --atlas_space MNI152",
    ),
    "DICOM folder in atlas space": (
        sheet(preop(space="SRI24", dicom="scans")),
        "sheet.csv:2: dicom: is given for an exam in SRI24 space (patient 001); expected native in column "
        "space, with all images of the exam as the scanner made them",
    ),
    "tensor of a raw exam": (
        sheet(preop(space="native", tensor="dt.nii.gz")),
        "sheet.csv:2: tensor: is given for an exam in native space (patient 001); expected the diffusion series in "
        "column dti, of which it is made, or the exam in SRI24 space",
    ),
    "score map of a raw exam": (
        sheet(preop(space="native", score_mine="m.nii.gz")),
        "sheet.csv:2: score_mine: score map is given for an exam in native space (patient 001); expected the "
        "exam in SRI24 space (results of an earlier run hold it in anat/), where a score map lies",
    ),
    "one tissue map": (
        sheet(preop(tissue_gm="gm.nii.gz", tissue_wm="wm.nii.gz")),
        "sheet.csv:2: tissue_csf: column is missing (patient 001); expected all three of tissue_wm, "
        "tissue_gm and tissue_csf, or none of them",
    ),
    "image of another format": (
        sheet(preop(t1="scans/t1.nrrd")),
        "sheet.csv:2: t1: 'scans/t1.nrrd' cannot be used (patient 001); expected the path of a NIfTI file "
        "(.nii or .nii.gz) or of a folder with the DICOM files of one series, written with / and relative to "
        "the sheet or absolute",
    ),
    "Windows path": (
        sheet(preop(t1="C:\\data\\t1.nii.gz")),
        "sheet.csv:2: t1: 'C:\\data\\t1.nii.gz' cannot be used (patient 001); expected the path of a NIfTI "
        "file (.nii or .nii.gz) or of a folder with the DICOM files of one series, written with / and "
        "relative to the sheet or absolute",
    ),
    "unknown convention": (
        sheet(preop(tumor_labels="brats")),
        "sheet.csv:2: tumor_labels: label convention 'brats' is unknown (patient 001); expected one of "
        "brats2021, canonical, hd-glio or a mapping such as 1:1,2:2,4:3 (value in the file:canonical value "
        "0-4)",
    ),
    "registered labels of a preop": (
        sheet(preop(registered_seg="r.nii.gz")),
        "sheet.csv:2: registered_seg: is given for a pre-operative exam (patient 001); expected it in rows "
        "of role followup only",
    ),
    "score of a follow-up": (
        sheet(preop(), followup(score_mine="m.nii.gz")),
        "sheet.csv:3: score_mine: score map is given for a follow-up (patient 001); expected it in the row "
        "of the pre-operative exam",
    ),
    "dose of a follow-up": (
        sheet(preop(), followup(dose="d.dcm")),
        "sheet.csv:3: dose: dose is given for a follow-up (patient 001); expected it in the row of the pre-operative "
        "exam",
    ),
    "organ of a follow-up": (
        sheet(preop(), followup(oar_chiasm="c.nii.gz")),
        "sheet.csv:3: oar_chiasm: organ at risk is given for a follow-up (patient 001); expected it in the row of the "
        "pre-operative exam",
    ),
    "dose of another format": (
        sheet(preop(dose="dose.mha")),
        "sheet.csv:2: dose: 'dose.mha' cannot be used (patient 001); expected the path of a DICOM RTDOSE file (.dcm) "
        "or of a NIfTI file in Gy (.nii or .nii.gz), written with / and relative to the sheet or absolute",
    ),
    "prescription in cGy": (
        sheet(preop(dose="dose.dcm", prescription_gy="6000")),
        "sheet.csv:2: prescription_gy: '6000.0' cannot be used (patient 001); expected the prescribed dose in Gy, 1 to "
        "100, such as 60 or 40.05",
    ),
    "prescription that is no number": (
        sheet(preop(dose="dose.dcm", prescription_gy="60 Gy")),
        "sheet.csv:2: prescription_gy: '60 Gy' cannot be used (patient 001); expected the prescribed dose in Gy, 1 to "
        "100, such as 60 or 40.05",
    ),
    "prescription without a dose": (
        sheet(preop(prescription_gy="60")),
        "sheet.csv:2: dose: column is missing (patient 001); expected the dose that was given, to which the "
        "prescription belongs; or leave prescription_gy empty",
    ),
    "two cohorts": (
        sheet(preop(), followup(cohort="B")),
        "sheet.csv:3: cohort: 'B' differs from 'A' on line 2 (patient 001); expected one cohort for all "
        "exams of a patient",
    ),
}


@pytest.mark.parametrize(("content", "text"), FAULTS.values(), ids=FAULTS)
def test_fault_names_line_column_and_remedy(content: bytes, text: str) -> None:
    assert told(content) == [text]


def test_all_faults_are_told_at_once_in_the_order_of_the_sheet() -> None:
    rows = preop(t1="t1.dcm", role="x"), followup(days="-1"), preop("003", tumor_labels="?"), preop("003")
    faults = check(sheet(*rows, columns=[*COLUMNS, "tumor_labels", "weight"]))["faults"]
    places = [(fault.line, fault.column, fault.patient) for fault in faults]
    assert places == sorted(places, key=lambda place: place[0])
    assert set(places) >= {
        (1, "weight", None),
        (2, "role", "001"),
        (2, "t1", "001"),
        (3, "days", "001"),
        (4, "tumor_labels", "003"),
        (5, "role", "003"),
        (5, "session", "003"),
        (5, "t1", "003"),
    }


def test_atlas_maps_may_be_shared_by_patients() -> None:
    shared = {
        "tissue_wm": "wm.nii",
        "tissue_gm": "gm.nii",
        "tissue_csf": "csf.nii",
        "brain_mask": "brain.nii",
    }
    assert told(sheet(preop(**shared), preop("002", **shared))) == []


def test_faultless_rows_of_a_faulty_sheet_are_kept() -> None:
    cohort = check(sheet(preop(), preop("002", role="x"), preop("003")))
    assert [row["meta"]["patient"] for row in cohort["rows"]] == ["001", "003"]


def test_schema_is_valid_and_says_what_it_expects() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    nifti = SCHEMA["$defs"]["nifti"]
    for name, column in SCHEMA["items"]["properties"].items():
        assert column["description"].endswith("."), name
        resolved = nifti if "$ref" in column else column
        # Only a free text needs no message: it cannot be wrong by the schema.
        assert "errorMessage" in resolved or set(resolved) <= {"type", "description", "default"}, name


def test_command_writes_rows_and_faults_and_prints_them(tmp_path: Path) -> None:
    folder = tmp_path / "Ärzte Übung"
    folder.mkdir()
    path = folder / "my sheet.csv"
    path.write_bytes(sheet(preop(), preop("002", role="x"), end="\r\n"))
    command = [
        sys.executable,
        REPOSITORY / "bin" / "validate_samplesheet.py",
        "--sheet",
        path,
        "--out",
        folder / "c.json",
    ]
    done = subprocess.run([*command, "--format"], capture_output=True, text=True, check=True)
    text = "my sheet.csv:3: role: 'x' cannot be used (patient 002); expected preop or followup\n"
    assert (done.stdout, done.stderr) == (text, "")
    cohort = json.loads((folder / "c.json").read_text("utf-8"))
    assert [row["meta"]["id"] for row in cohort["rows"]] == ["sub-001_ses-pre"]
    assert cohort["faults"] == [
        {
            "line": 3,
            "column": "role",
            "what": "'x' cannot be used",
            "expected": "preop or followup",
            "patient": "002",
        }
    ]


def test_sheet_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, REPOSITORY / "bin" / "validate_samplesheet.py", "--sheet", tmp_path / "no.csv"]
    done = subprocess.run(
        [*command, "--out", tmp_path / "c.json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    text = f"ERROR: {tmp_path}/no.csv: cannot be read (No such file or directory); check the path\n"
    assert done.stderr == text


def test_guide_shows_sheets_that_pass_and_explains_every_column() -> None:
    guide = (REPOSITORY / "docs" / "usage.md").read_text("utf-8")
    examples = re.findall(r"```csv\n(.*?)```", guide, re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        assert told(example.encode()) == []
    table = guide.split("### Columns")[1].split("###")[0]
    explained = set(
        re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    )
    assert explained == set(SCHEMA["items"]["properties"])
