#!/usr/bin/env python3
"""Make the folder of a trained model: its networks, the card that says who trained them, and their curves."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any


def draw_curves(path: Path, networks: dict[str, Any]) -> None:
    """Draw the losses of all networks by epoch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for name, network in networks.items():
        for axis, losses in zip(axes, zip(*network["history"], strict=True), strict=True):
            axis.plot(range(1, len(losses) + 1), losses, linewidth=0.9, label=name)
    for axis, title in zip(axes, ("training", "validation"), strict=True):
        axis.set_title(title)
        axis.set_xlabel("epoch")
    axes[0].set_ylabel("loss")
    axes[1].legend(fontsize=6, ncols=2)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--entry", required=True, metavar="JSON", help="the model's entry: JSON or a JSON file"
    )
    parser.add_argument("--splits", type=Path, required=True, metavar="JSON", help="from draw_splits.py")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--simulated", action="store_true", help="mark the patients as simulated on the card")
    parser.add_argument("networks", type=Path, nargs="+", help="files and logs that train_network.py wrote")
    args = parser.parse_args()
    from predictgbm.growth import ModelError
    from predictgbm.learned.splits import SplitError
    from predictgbm.models import ModelListError, parse_entry

    splits = json.loads(args.splits.read_text("utf-8"))
    cohorts = splits.pop("cohorts")
    try:
        recipe = importlib.import_module(parse_entry(args.entry).training)
        files = [path for path in args.networks if path.is_file()]
        card = recipe.assemble(args.out, files, splits, cohorts, args.simulated)
    except (ModelError, ModelListError, SplitError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"ERROR: {error}; ./predictgbm setup --learning installs what is needed", file=sys.stderr)
        return 2
    for log in (path for path in args.networks if path.is_dir()):
        shutil.copytree(log, args.out / "log" / log.name.removesuffix("_log"), dirs_exist_ok=True)
    with (args.out / "history.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["network", "epoch", "training_loss", "validation_loss"])
        for name, network in card["networks"].items():
            for epoch, losses in enumerate(network["history"], 1):
                table.writerow([name, epoch, *("" if loss is None else f"{loss:.6g}" for loss in losses)])
    draw_curves(args.out / "curves.png", card["networks"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
