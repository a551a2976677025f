#!/usr/bin/env python3
"""Merge the results of several runs on the same patients into one static site.

Every mean, interval, test and rank is computed anew from the scores of the single patients. What cannot be compared
is told at once, a line per fault, and nothing is written. Patients appear on the site by number only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictgbm.leaderboard.merge import Run

ASSETS = Path(__file__).resolve().parents[1] / "assets"
#: By this file a folder is known as a site that may be replaced; it lists the site's files.
MARK = Path("data") / "leaderboard.json"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predictgbm leaderboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status 1 if the runs cannot be merged.",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="DIR", help="results folder of a run (its --outdir)")
    add(
        "--out",
        required=True,
        type=Path,
        metavar="SITE",
        help="folder to make; an earlier site there is replaced, if it holds nothing besides",
    )
    add(
        *("--submissions",),
        nargs="+",
        type=Path,
        default=[],
        metavar="YAML",
        help="manifests of the models that were submitted, for their pages",
    )
    add("--title", default="PREDICT-GBM leaderboard", help="heading of the site (default: %(default)s)")
    add(
        "--keep-names",
        action="store_true",
        help="show patients by their names instead of numbers, for public data sets",
    )
    add(
        "--per-patient",
        choices=["none", "rounded"],
        help="publish the scores of single patients rounded to hundredths, which still lead back to a patient for "
        "whoever knows them, or not (default: none; with --keep-names rounded)",
    )
    add("--seed", type=int, default=20251, help="seed of all resampling (default: %(default)s)")
    add("--draws", type=int, default=10_000, help="bootstrap samples, and sign flips (default: %(default)s)")
    add(
        "--ranking-draws",
        type=int,
        default=1000,
        help="bootstrap samples of the ranking (default: %(default)s)",
    )
    args = parser.parse_args()
    args.per_patient = args.per_patient or ("rounded" if args.keep_names else "none")
    if min(args.draws, args.ranking_draws) < 100:
        parser.error("--draws, --ranking-draws: at least 100 are needed for an interval")
    if foreign := find_foreign(args.out):
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        parser.error(
            f"--out {args.out}: holds what is no part of a leaderboard ({', '.join(foreign[:5])}{more}); "
            "move it away, or choose a new folder"
        )
    return args


def find_foreign(site: Path) -> list[str]:
    """Return what lies in a folder and is not of the site there, by the list of the site's own files."""
    if not site.is_dir():
        return [site.name] if site.exists() else []
    try:
        listed = set(json.loads((site / MARK).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    found = (path for path in site.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted({path.relative_to(site).as_posix() for path in found} - listed)


def read_all(args: argparse.Namespace) -> tuple[list[Run], dict[str, dict[str, Any]]]:
    """Read runs and manifests; every fault of every file is told at once."""
    from predictgbm.leaderboard.merge import LeaderboardError, find_faults, read_run
    from predictgbm.submission import SubmissionError, read_submission

    runs, submissions, faults = [], {}, []
    for folder in args.runs:
        try:
            runs.append(read_run(folder))
        except LeaderboardError as error:
            faults.append(str(error))
    for path in args.submissions:
        try:
            submission = read_submission(path, ASSETS)
        except SubmissionError as error:
            faults.append(str(error))
        else:
            if submission.name in submissions:
                faults.append(
                    f"{path}: name: '{submission.name}' is taken by another submission; rename one of them"
                )
            submissions[submission.name] = dict(submission.fields)
    faults += find_faults(runs)
    scored = {model for run in runs for _, model in run.scores}
    if runs:
        faults += [
            f"--submissions: no run has a score of '{name}'; give its results folder, or leave its manifest out"
            for name in submissions
            if name not in scored
        ]
    if faults:
        raise LeaderboardError("\n".join(faults))
    return runs, submissions


def build(args: argparse.Namespace, site: Path) -> tuple[int, int]:
    """Write the site; return the numbers of models and patients."""
    import numpy as np
    import pandas as pd
    import yaml

    from predictgbm.leaderboard import site as pages
    from predictgbm.leaderboard.merge import (
        SETTINGS,
        find_remarks,
        merge,
        model_entries,
        trial_exams,
        without_paths,
    )
    from predictgbm.report import figure_files
    from predictgbm.report.results import Results
    from predictgbm.statistics.benchmark import make_tables

    runs, submissions = read_all(args)
    remarks = find_remarks(runs)
    for sentence, folders in remarks:
        print(f"NOTE: {sentence} ({', '.join(map(str, folders))})")
    settings = {
        name: found
        for name in SETTINGS
        if (found := next((run.parameters[name] for run in runs if name in run.parameters), None)) is not None
    }
    # Bounds that decide nothing about a coverage: those of the first run that states them.
    bounds = {
        name: next(run.parameters[name] for run in runs if name in run.parameters)
        for name in ("equivalence_bound", "guarantee_coverage", "guarantee_level")
        if any(name in run.parameters for run in runs)
    }
    tables, statistics = make_tables(
        *merge(runs),
        simulated=any(run.facts.get("simulated") for run in runs),
        reference=runs[0].reference,
        draws=args.draws,
        ranking_draws=args.ranking_draws,
        seed=args.seed,
        family_definitions=str(settings.get("family_definitions", "enhancing")).split(","),
        **bounds,
    )
    entries = model_entries(runs, [ASSETS / "models.yml"], submissions, statistics["models"])
    patients = sorted(set(tables["metrics"]["patient"]))
    # Of the operating system's randomness, so that the numbers of the patients cannot be found by building again.
    names = dict(zip(patients, patients, strict=True))
    if not args.keep_names:
        names = pages.number_patients(patients, np.random.default_rng())

    data = site / "data"
    data.mkdir(parents=True)
    small = pages.small_datasets(tables["metrics"])
    for name in pages.PUBLIC_TABLES:
        shown = tables[name] if args.keep_names else pages.public_table(tables[name], small)
        write_csv(shown, data / f"{name}.csv")
    scores = pages.public_scores(tables["metrics"], names)
    if args.per_patient == "rounded":
        write_csv(scores.round(pages.SCORE_DECIMALS), data / "metrics.csv")
    dictionary = tables["data_dictionary"]
    listed = dictionary["table"].isin(pages.PUBLIC_TABLES)
    if args.per_patient == "rounded":
        listed |= (dictionary["table"] == "metrics") & dictionary["column"].isin(pages.PUBLIC_SCORES)
    write_csv(dictionary[listed], data / "data_dictionary.csv")
    write_json(data / "statistics.json", statistics)
    (data / "models.yml").write_text(
        yaml.safe_dump({"models": list(entries.values())}, sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )

    learned = {name: str(entry["trained_on"]) for name, entry in submissions.items()}
    for run in runs:
        learned |= {
            name: pages.describe_training(card) for name, card in run.cards.items() if name not in learned
        }
    facts = pages.Facts(
        args.title,
        datetime.date.today().isoformat(),
        next((run.version for run in runs if run.version), ""),
        len(runs),
        trial_exams(runs),
        args.keep_names,
        args.per_patient,
        [sentence for sentence, _ in remarks],
        {name: found for name, found in settings.items() if name != "family_definitions"},
        entries,
        learned
        | {
            name: "no patients" for name, entry in entries.items() if untrained(entry) and name not in learned
        },
        {name: without_paths(found) for run in reversed(runs) for name, found in run.options.items()},
    )
    results = Results(data)
    # Counted on all digits, published on few.
    results.tables["metrics"] = [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in scores.to_dict("records")
    ]
    rows = pages.board(results, [task for run in runs for task in run.tasks], facts)
    columns = list(rows[0]) if rows else []
    write_csv(pd.DataFrame(rows, columns=columns).convert_dtypes(), data / "leaderboard.csv")
    about = {"title": facts.title, "built": facts.built, "version": facts.version, "runs": facts.runs}
    about |= {"simulated": results.simulated, "patients": len(patients), "settings": dict(facts.settings)}
    about["remarks"] = list(facts.remarks)
    for name, content in pages.pages(results, rows, facts).items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(content, encoding="utf-8")
    figure_files.write(results, site / pages.FIGURES)
    files = [path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()]
    write_json(site / MARK, about | {"models": rows, "files": sorted([*files, MARK.as_posix()])})
    return len(rows), len(patients)


def untrained(entry: dict[str, Any]) -> bool:
    """Tell whether a model is one of this package's that learn from no cohort."""
    return str(entry.get("function", "")).startswith("predictgbm.") and not entry.get("training")


def write_csv(table: Any, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    path.write_text(
        json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def replace(site: Path, target: Path) -> None:
    """Put a finished site where the earlier one was, of which nothing else may have come to lie there."""
    if foreign := find_foreign(target):
        raise OSError(f"{target}: {foreign[0]} came to lie there; move it away and build again")
    shutil.rmtree(target, ignore_errors=True)
    site.rename(target)


def main() -> int:
    args = arguments()
    from predictgbm.leaderboard.merge import LeaderboardError
    from predictgbm.tables import TableError

    # Of a name that nobody else's folder has.
    partial = args.out.absolute().with_name(f".{args.out.absolute().name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        models, patients = build(args, partial)
        replace(partial, args.out.absolute())
    except (LeaderboardError, TableError, OSError) as error:
        lines: Sequence[str] = str(error).splitlines()
        print(f"ERROR: the runs cannot be merged, {len(lines)} fault(s):", file=sys.stderr)
        print("\n".join(f"  {line}" for line in lines), file=sys.stderr)
        shutil.rmtree(partial, ignore_errors=True)
        return 1
    print(f"{models} models, {patients} patients: {args.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
