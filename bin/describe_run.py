#!/usr/bin/env python3
"""Write ro-crate-metadata.json: what a run leaves, described for machines."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

from predictgbm.crate import make_crate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="folder with the tables of the run")
    parser.add_argument("--parameters", type=Path, required=True, help="parameters of the run as JSON")
    parser.add_argument("--version", required=True, help="version of the pipeline")
    parser.add_argument("--nextflow", required=True, help="version of Nextflow")
    parser.add_argument("--pictures", type=Path, help="folder with the pictures of the patients")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()

    statistics = json.loads((args.tables / "statistics.json").read_text(encoding="utf-8"))
    crate = make_crate(
        tables=[path.name for path in args.tables.iterdir()],
        parameters=json.loads(args.parameters.read_text(encoding="utf-8")),
        versions={"predictgbm": args.version, "nextflow": args.nextflow},
        finished=datetime.now(timezone.utc),
        patients=bool(args.pictures and args.pictures.is_dir()),
        simulated=bool(statistics.get("simulated")),
    )
    args.out.write_text(json.dumps(crate, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
