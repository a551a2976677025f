#!/usr/bin/env python3
"""Grow tumours with known parameters in one simulated individual, for a network to learn from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Writes what bin/train_lmi.py reads: channels, edges and targets of all tumours, each seen between "
        "several pairs of thresholds.",
    )
    parser.add_argument("--atlas", type=Path, required=True, metavar="DIR", help="made by prepare_atlas.py")
    parser.add_argument(
        "--individual", type=int, required=True, metavar="I", help="number of the individual, from 1"
    )
    parser.add_argument("--tumors", type=int, default=140, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of anatomy and tumours (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    args = parser.parse_args()
    if args.individual < 1 or args.tumors < 1 or args.seed < 0:
        parser.error("--individual and --tumors must be at least 1, --seed not negative")
    return args


def main() -> int:
    args = arguments()
    import numpy as np

    from predictgbm.atlas import load_atlas
    from predictgbm.simulation import Simulator
    from predictgbm.training.tumors import grow_individual

    tumors = grow_individual(Simulator(load_atlas(args.atlas)), args.seed, args.individual, args.tumors)
    with args.out.open("wb") as file:
        np.savez_compressed(file, **tumors._asdict())
    print(f"individual {args.individual}: {args.tumors} tumours grown, {len(tumors.edges)} views kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
