#!/usr/bin/env python3
"""Check a score map made elsewhere, and write it on the grid of the exam.

For the maps of external containers and for those a user brings along: the affine must describe the exam's
grid (axes may be permuted or flipped), every value be finite, and the values differ within the brain.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from predictgbm.exam import Exam
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import read_image, write_image
from predictgbm.models import check_map


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--map",
        required=True,
        type=Path,
        help="score map, NIfTI; the higher a voxel, the earlier it is planned",
    )
    parser.add_argument(
        "--exam", required=True, type=Path, metavar="DIR", help="prepared exam; its brain mask gives the grid"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="MAP_OUT", help="checked map, float32, on the exam's grid"
    )
    parser.add_argument("--model", default="", help="model that made the map, for --failure")
    add_failure_options(parser)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    reference = Exam(args.exam).reference
    write_image(args.out, check_map(read_image(args.map), reference), reference.affine)


def main() -> int:
    args = arguments()
    return run_reporting(lambda: run(args), args, model=args.model, stage="predict")


if __name__ == "__main__":
    sys.exit(main())
