#!/usr/bin/env python3
"""Write how well a trained model did on the patients of its cohort, each told by networks that never saw them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model in the tables")
    parser.add_argument(
        "--tables", type=Path, required=True, metavar="DIR", help="from compute_statistics.py"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="file to write")
    args = parser.parse_args()
    import pandas as pd

    from predictgbm.tables import TABLES

    def rows(name: str, columns: list[str]) -> list[dict[str, object]]:
        table = pd.read_csv(args.tables / f"{name}.csv", dtype=TABLES[name].dtypes)
        chosen = table.loc[table["model"] == args.model, columns]
        return [
            {key: None if pd.isna(value) else value for key, value in row.items()}
            for row in chosen.to_dict("records")
        ]

    facts = json.loads((args.tables / "statistics.json").read_text("utf-8"))
    document = {
        "model": args.model,
        "reference": facts["reference"],
        "simulated": facts["simulated"],
        "coverage": rows("summary", ["dataset", "definition", "n", "mean", "ci_low", "ci_high", "median"]),
        "against_reference": rows(
            "comparisons",
            [
                "dataset",
                "definition",
                "n",
                "shift",
                "shift_low",
                "shift_high",
                "p_pratt",
                "in_family",
                "p_adjusted",
            ],
        ),
        "patients": rows("metrics", ["patient", "cohort", "coverage_enhancing", "coverage_core", "dice"]),
    }
    args.out.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
