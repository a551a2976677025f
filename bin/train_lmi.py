#!/usr/bin/env python3
"""Train the network of LMI on tumours with known parameters."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Writes lmi.npz, lmi.json (recipe, data, and errors on individuals that the network never saw, beside "
        "those of a search for the most similar known tumour) and lmi.csv (loss by epoch). Needs torch.",
    )
    parser.add_argument(
        "tumors", type=Path, nargs="+", metavar="FILE.npz", help="made by grow_tumors.py, one per individual"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="folder to write to (default: this one)"
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=4,
        metavar="N",
        help="files, the last by name, to test with (default: %(default)s)",
    )
    parser.add_argument(
        "--width", type=int, default=32, help="channels of the network (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=32, help="default: %(default)s")
    parser.add_argument(
        "--rate", type=float, default=1e-3, help="highest learning rate (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--cpus", type=int, help="number of threads (default: all cores)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU, where there is one")
    args = parser.parse_args()
    if not 1 <= args.held_out < len(args.tumors):
        parser.error(
            f"--held-out {args.held_out}: needs 1 or more files, and fewer than the {len(args.tumors)} given"
        )
    return args


def main() -> int:
    args = arguments()
    import numpy as np

    try:
        import torch
    except ImportError:
        sys.exit("training needs torch: ./predictgbm setup --hdbet installs it, the image hdbet has it")

    import predictgbm
    from predictgbm.training import lmi
    from predictgbm.training.tumors import VIEWS, Tumors, join

    if args.cpus:
        torch.set_num_threads(args.cpus)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    individuals = []
    for path in sorted(args.tumors):
        with np.load(path) as archive:
            individuals.append(Tumors(**archive))
    known, unknown = join(individuals[: -args.held_out]), join(individuals[-args.held_out :])
    if not len(known.edges) or not len(unknown.edges):
        sys.exit("no tumour of a sensible size to train or to test with; grow more in each individual")
    mean, deviation = known.targets.mean(axis=0), known.targets.std(axis=0) + 1e-6
    standardised = known._replace(targets=(known.targets - mean) / deviation)
    recipe = lmi.Recipe(args.width, args.epochs, args.batch, args.rate, seed=args.seed)
    with (args.out / "lmi.csv").open("w", newline="") as file:
        curve = csv.writer(file, lineterminator="\n")
        curve.writerow(["epoch", "loss", "held_out_loss", "seconds"])
        for epoch, loss, seconds, network in lmi.train(standardised, recipe, device):
            found = lmi.apply(network, unknown, device) * deviation + mean
            held_out = float((((found - unknown.targets) / deviation) ** 2).mean())
            curve.writerow([epoch, f"{loss:.5f}", f"{held_out:.5f}", f"{seconds:.1f}"])
            file.flush()
            folded: dict[str, Any] = lmi.fold(network, mean, deviation)
            with (args.out / "lmi.npz").open("wb") as weights:
                np.savez_compressed(weights, **folded)
            print(f"epoch {epoch}: loss {loss:.4f}, held out {held_out:.4f}, {seconds:.0f} s", flush=True)
    card = {
        "model": "lmi",
        "version": predictgbm.__version__,
        "data": {
            "what": "tumours of the Fisher-KPP equation in deformed copies of the atlas's anatomy; no patient",
            "individuals": len(individuals) - args.held_out,
            "views_per_tumor": VIEWS,
            "views_kept": len(known.edges),
        },
        "training": {
            "seed": recipe.seed,
            "width": recipe.width,
            "epochs": recipe.epochs,
            "batch": recipe.batch,
            "highest_learning_rate": recipe.rate,
            "weight_decay": recipe.decay,
            "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
            "torch": torch.__version__,
            "seconds": round(seconds),
        },
        "held_out": {
            "individuals": args.held_out,
            "views": len(unknown.edges),
            "network": lmi.errors(found, unknown),
            "nearest_neighbour": lmi.errors(lmi.nearest_neighbours(known, unknown, device), unknown),
            "mean_of_the_data": lmi.errors(np.broadcast_to(mean, unknown.targets.shape), unknown),
        },
    }
    (args.out / "lmi.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card["held_out"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
