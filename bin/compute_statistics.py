#!/usr/bin/env python3
"""Compute the tables of a benchmark: coverage of each model, tests against the standard of care, the cohort.

Writes every table of a benchmark into one folder, as CSV and as Parquet; besides data_dictionary.csv, which says what
the tables are and for every column its type, unit and meaning, and statistics.json with seed, family of tests, patient
flow, remarks, and the test of all models at once. The same input gives the same files. With nothing to evaluate the
tables are there and empty.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--metrics",
        nargs="*",
        type=Path,
        default=[],
        metavar="PATH",
        help="JSON files of evaluate_plan.py, one per patient and model, or folders with them",
    )
    parser.add_argument(
        "--cohort",
        type=Path,
        metavar="JSON",
        help='{"patients": [{"patient": ..., "status": ...}], "flow": [{"step": ..., "patients": n}]}; '
        "an entry of patients has the columns of table cohort",
    )
    parser.add_argument(
        "--failures",
        nargs="*",
        type=Path,
        default=[],
        metavar="PATH",
        help="JSON files with failures (an object or a list of them), or folders with such files",
    )
    parser.add_argument(
        "--quality",
        nargs="*",
        type=Path,
        default=[],
        metavar="PATH",
        help="JSON files with what the steps measured of their own results, or folders with such files",
    )
    parser.add_argument(
        "--given-dose",
        nargs="*",
        type=Path,
        default=[],
        metavar="PATH",
        help="JSON files of convert_dose.py, one per patient whose dose is known, or folders with them",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write the tables to"
    )
    parser.add_argument(
        "--seed", type=int, default=20251, help="seed of everything drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", type=int, default=10_000, help="bootstrap samples, and sign flips (default: %(default)s)"
    )
    parser.add_argument(
        "--ranking-draws",
        type=int,
        default=1000,
        help="bootstrap samples of the ranking of all models (default: %(default)s)",
    )
    parser.add_argument(
        "--reference",
        default="soc",
        metavar="MODEL",
        help="model that the others are compared with (default: soc)",
    )
    parser.add_argument(
        "--family-definitions",
        nargs="+",
        default=["enhancing"],
        choices=["enhancing", "core", "all"],
        help="definitions of recurrence in the family of Holm's adjustment (default: enhancing)",
    )
    parser.add_argument(
        "--family-models",
        nargs="+",
        metavar="MODEL",
        help="models in that family (default: all but the reference and those of the very same plans)",
    )
    parser.add_argument(
        "--equivalence-bound",
        type=float,
        default=0.05,
        metavar="COVERAGE",
        help="largest difference of coverage that does not matter, for the tests of equivalence; above 0, below 1 "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--guarantee-coverage",
        type=float,
        default=0.9,
        metavar="COVERAGE",
        help="part of the recurrence that a plan with a guarantee covers; above 0, at most 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--guarantee-level",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="share of the patients in whom it does so; above 0, below 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--simulated", action="store_true", help="mark the results as those of simulated patients"
    )
    arguments = parser.parse_args()
    for option, draws in (("--draws", arguments.draws), ("--ranking-draws", arguments.ranking_draws)):
        if draws < 100:
            parser.error(f"{option}: at least 100 are needed for an interval")
    if not 0 < arguments.equivalence_bound < 1:
        parser.error("--equivalence-bound: expected a fraction of the recurrence above 0 and below 1")

    if not 0 < arguments.guarantee_coverage <= 1:
        parser.error("--guarantee-coverage: expected a fraction of the recurrence above 0 and at most 1")
    if not 0 < arguments.guarantee_level < 1:
        parser.error("--guarantee-level: expected a share of the patients above 0 and below 1")

    from predictgbm.statistics.benchmark import make_tables
    from predictgbm.tables import TableError

    try:
        cohort = read_json(arguments.cohort) if arguments.cohort else {}
        if not isinstance(cohort, dict):
            raise TableError(f"{arguments.cohort}: expected an object with 'patients' and 'flow'")
        tables, facts = make_tables(
            read_objects(arguments.metrics),
            cohort,
            read_objects(arguments.failures),
            read_objects(arguments.quality),
            read_objects(arguments.given_dose),
            simulated=arguments.simulated,
            reference=arguments.reference,
            draws=arguments.draws,
            ranking_draws=arguments.ranking_draws,
            seed=arguments.seed,
            family_definitions=arguments.family_definitions,
            family_models=arguments.family_models,
            equivalence_bound=arguments.equivalence_bound,
            guarantee_coverage=arguments.guarantee_coverage,
            guarantee_level=arguments.guarantee_level,
        )
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            write_table(table, arguments.out / name)
        text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
        (arguments.out / "statistics.json").write_text(text + "\n", encoding="utf-8")
    except (TableError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.draws} bootstrap draws, seed {arguments.seed}")
    return 0


def read_objects(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Read the objects in JSON files and in folders of them, in the order of the files' names."""
    from predictgbm.tables import TableError

    files = [file for path in paths for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]
    objects: list[dict[str, Any]] = []
    for file in files:
        content = read_json(file)
        for entry in content if isinstance(content, list) else [content]:
            if not isinstance(entry, dict):
                raise TableError(f"{file}: expected an object, found {entry!r}")
            objects.append(entry)
    return objects


def read_json(path: Path) -> Any:
    from predictgbm.tables import TableError

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TableError(
            f"{path}: not readable as JSON ({error}); the file is damaged, run the step again"
        ) from error


def write_table(table: pd.DataFrame, stem: Path) -> None:
    table.to_csv(stem.with_suffix(".csv"), index=False, lineterminator="\n", encoding="utf-8")
    if stem.name != "data_dictionary":
        table.to_parquet(stem.with_suffix(".parquet"), index=False)


if __name__ == "__main__":
    sys.exit(main())
