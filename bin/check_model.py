#!/usr/bin/env python3
"""Check whether a model can take part: an image, a command, or what a submission.yml describes.

A container or command is run some times on small made-up exams, as the pipeline would run it, without network; finished
maps are checked against the samplesheet of the patients. All faults are told at once, each with its remedy.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictgbm.conformance import Check
    from predictgbm.submission import Submission

ROOT = Path(__file__).resolve().parents[1]
ASSETS, BIN = ROOT / "assets", ROOT / "bin"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predictgbm check-model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status 0 if nothing failed, 1 if something did. docs/add_a_model.md is the contract of a model, "
        "docs/leaderboard.md tells of submissions.",
    )
    add = parser.add_argument
    add(
        "model",
        metavar="IMAGE|COMMAND|MANIFEST",
        help="image name or .sif file; command line, in quotes, which is given the folder of the input and that of the "
        "output as its last two arguments; or submission.yml",
    )
    add("--command", action="store_true", help="MODEL is a command, even if it is a single word")
    add(
        "--engine",
        default="auto",
        choices=["auto", "docker", "podman", "apptainer"],
        help="container engine (default: the first that answers)",
    )
    add("--gpu", action="store_true", help="give the model a GPU (a manifest says so itself)")
    add(
        "--timeout",
        type=float,
        default=60,
        metavar="S",
        help="longest run on one of the small exams; more for a model that loads or starts slowly "
        "(default: %(default)g s)",
    )
    add("--sheet", type=Path, metavar="CSV", help="samplesheet of the patients, for a submission of maps")
    add("--space", default="SRI24", help="atlas space of that sheet (default: %(default)s)")
    add("--out", type=Path, metavar="JSON", help="report to write")
    add(
        "--run-with",
        type=Path,
        metavar="FILE",
        help="if nothing failed, write what './predictgbm run' takes: of a container the list of models for "
        "--external_models, of maps the samplesheet with a column of scores for --input",
    )
    args = parser.parse_args()
    if args.timeout <= 0:
        parser.error("--timeout: expected seconds above 0")
    if args.run_with and not args.model.endswith((".yml", ".yaml")):
        parser.error("--run-with needs a submission.yml, which says what the list of models has to")
    return args


def is_command(args: argparse.Namespace) -> bool:
    """Tell a command from an image: it has blanks, or is a file that can be started."""
    text = args.model
    return bool(args.command or len(text.split()) > 1 or (Path(text).is_file() and not text.endswith(".sif")))


def check_container(args: argparse.Namespace, submission: Submission | None) -> list[Check]:
    """Run an image or a command on small exams."""
    from predictgbm.conformance import FAIL, Check, Runner, check_model
    from predictgbm.report.results import parse_bytes

    fields: dict[str, Any] = dict(submission.fields) if submission else {}
    engine, target = args.engine, submission.image if submission else args.model
    if submission is None and is_command(args):
        engine = "command"
    if engine == "auto" and target.endswith(".sif"):
        engine = "apptainer"
    if target.endswith(".sif") and submission:
        identity = subprocess.run(
            [BIN / "container_engine.sh", "image", "apptainer", target], capture_output=True, text=True
        ).stdout
        if fields["digest"].removeprefix("sha256:") != identity.split(" ")[0]:
            seen = identity.split(" ")[0] or "no such file"
            return [Check("is the image of the manifest", FAIL, seen, "send the image again, or its digest")]
    found = subprocess.run([BIN / "container_engine.sh", "find", engine], capture_output=True, text=True)
    if found.returncode:
        return [Check("a container engine answers", FAIL, "", found.stderr.strip())]
    with tempfile.TemporaryDirectory(prefix="predictgbm-check-", ignore_cleanup_errors=True) as folder:
        runner = Runner(
            BIN / "run_container_model.sh",
            found.stdout.strip(),
            target,
            Path(folder),
            args.timeout,
            args.gpu or bool(fields.get("gpu")),
        )
        return check_model(
            runner,
            inputs=fields.get("inputs", ()),
            memory_bytes=parse_bytes(fields["memory"]) if "memory" in fields else None,
        )


def check_maps(args: argparse.Namespace, submission: Submission) -> list[Check]:
    """Check finished maps: their checksums, and with a samplesheet patients and grids."""
    from predictgbm.conformance import FAIL, PASS, SKIP, Check
    from predictgbm.submission import checksum_faults, map_files

    maps = map_files(submission.folder)
    if not maps:
        remedy = f"put one map per patient, such as 001.nii.gz, into {submission.folder}"
        return [Check("has maps", FAIL, "", remedy)]
    checks = [Check("has maps", PASS, f"{len(maps)}")]
    damaged = list(checksum_faults(submission.folder))
    checks += [Check("matches its checksums", FAIL, fault) for fault in damaged]
    if not damaged:
        checks.append(Check("matches its checksums", PASS))
    if args.sheet is None:
        name, remedy = "has a map for each patient", "give the samplesheet by --sheet"
        needed = "--run-with adds the maps to a samplesheet, and none is given" if args.run_with else ""
        return [*checks, Check(name, FAIL if needed else SKIP, needed, remedy)]
    rows, faults = read_sheet(args)
    if faults:
        return [*checks, *(Check("the samplesheet is in order", FAIL, fault) for fault in faults)]
    exams = {row["meta"]["patient"]: row for row in rows if row["meta"]["role"] == "preop"}
    for name, patients, remedy in (
        (
            "has a map for each patient",
            exams.keys() - maps.keys(),
            "send the maps of these patients; a missing one counts as coverage 0",
        ),
        (
            "knows the patients of its maps",
            maps.keys() - exams.keys(),
            "name each map as its patient is named in the samplesheet, or leave it out",
        ),
    ):
        seen = ", ".join(sorted(patients))
        checks.append(Check(name, FAIL, seen, remedy) if patients else Check(name, PASS))
    wrong = [
        Check("can be planned on", FAIL, fault)
        for patient in sorted(exams.keys() & maps.keys())
        if (fault := map_fault(maps[patient], exams[patient], args.sheet.parent))
    ]
    return checks + (wrong or [Check("can be planned on", PASS)])


def map_fault(path: Path, row: dict[str, Any], folder: Path) -> str | None:
    """Return why a map cannot be planned on in its exam."""
    import numpy as np

    from predictgbm import submission
    from predictgbm.cohort.exam_checks import is_native
    from predictgbm.images import Image, ImageError, read_image
    from predictgbm.preprocessing import derive_brain_mask

    try:
        score = read_image(path)
        if is_native(row):
            return None
        if "brain_mask" in row["files"]:
            brain = read_image(folder / row["files"]["brain_mask"], np.uint8)
        else:
            t1c = read_image(folder / row["files"]["t1c"])
            brain = Image(derive_brain_mask(t1c.data).astype(np.uint8), t1c.affine, t1c.name)
    except ImageError as error:
        return str(error)
    return submission.map_fault(score, brain)


def read_sheet(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of the samplesheet and its faults."""
    from predictgbm.cohort.faults import format_fault
    from predictgbm.cohort.samplesheet import check_samplesheet

    schema = json.loads((ASSETS / "schema_input.json").read_text("utf-8"))
    try:
        found = check_samplesheet(args.sheet.read_bytes(), schema, args.space)
    except OSError as error:
        return [], [f"{args.sheet}: cannot be read ({error.strerror}); check the path"]
    return found["rows"], [format_fault(fault, args.sheet.name) for fault in found["faults"]]


def write_sheet(args: argparse.Namespace, submission: Submission) -> None:
    """Write the samplesheet with a column of scores; paths become absolute, so that it can lie anywhere."""
    from predictgbm.cohort.samplesheet import SCORE, parse_sheet

    rows, _ = read_sheet(args)
    exams = {row["line"]: row for row in rows}
    sheet, maps = parse_sheet(args.sheet.read_bytes()), submission.folder.absolute()
    column = f"{SCORE}{submission.name}"
    folder = args.sheet.absolute().parent
    with args.run_with.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*dict.fromkeys([*sheet.columns, column])], lineterminator="\n")
        writer.writeheader()
        for line in sheet.rows:
            exam = exams[line.line]
            paths = {c: str(folder / cell) for c, cell in exam["files"].items()}
            paths |= {f"{SCORE}{name}": str(folder / cell) for name, cell in exam["scores"].items()}
            if exam["meta"]["role"] == "preop":
                paths[column] = str(map_of(maps, exam["meta"]["patient"]))
            writer.writerow(line.cells | paths)


def map_of(folder: Path, patient: str) -> Path:
    from predictgbm.submission import map_files

    return map_files(folder)[patient]


def write_entry(args: argparse.Namespace, submission: Submission) -> None:
    """Write the list of models that runs a submitted container."""
    import yaml

    schema = json.loads((ASSETS / "schema_models.json").read_text("utf-8"))
    entry = submission.entry(schema["$defs"]["model"]["properties"])
    args.run_with.write_text(
        yaml.safe_dump({"models": [entry]}, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def show(checks: list[Check]) -> str:
    """Return the checks as lines, remedies below what they mend."""
    from predictgbm.conformance import FAIL, WARN

    lines = []
    for check in checks:
        seen = f": {check.seen}" if check.seen else ""
        lines.append(
            f"  {check.status.upper() if check.status in (FAIL, WARN) else check.status:<12}{check.name}{seen}"
        )
        if check.status in (FAIL, WARN) and check.remedy:
            lines.append(f"  {'':<12}-> {check.remedy}")
    return "\n".join(lines)


def main() -> int:
    args = arguments()
    from predictgbm.conformance import FAIL, Check, as_json, passed
    from predictgbm.submission import SubmissionError, read_submission

    submission, checks = None, []
    if args.model.endswith((".yml", ".yaml")):
        try:
            submission = read_submission(args.model, ASSETS)
        except SubmissionError as error:
            checks = [Check("the manifest is in order", FAIL, line) for line in str(error).splitlines()]
        else:
            checks = [Check("the manifest is in order", "pass")]
    if not checks or submission:
        maps = submission is not None and submission.fields["kind"] == "maps"
        checks += check_maps(args, submission) if maps and submission else check_container(args, submission)
    print(show(checks))
    good = passed(checks)
    print(f"{args.model}: {'can take part' if good else 'cannot take part yet'}")
    if args.out:
        args.out.write_text(
            json.dumps(as_json(args.model, checks), indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
    if args.run_with and good and submission:
        (write_sheet if submission.fields["kind"] == "maps" else write_entry)(args, submission)
        print(f"to run it: {args.run_with}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
