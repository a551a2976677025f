#!/usr/bin/env python3
"""Map points through a transform, as ITK does: fixed points to moving points.

The table has columns x, y, z: LPS millimetres, as in ITK, ANTs and DICOM. They are replaced by those of the mapped
points; other columns are kept as they are. To take points of the follow-up to the pre-operative exam, give
*_from-moving_to-fixed_xfm.nii.gz; several transforms are applied in the order given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import ImageError
from predictgbm.registration.transforms import apply_points, read_transform

AXES = ["x", "y", "z"]
#: LPS and RAS differ by the signs of the first two axes.
LPS = np.array([-1.0, -1.0, 1.0])


def transform(points: Path, paths: list[Path], out: Path) -> None:
    """Read, map and write the table."""
    try:
        table = pd.read_csv(points, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ImageError(f"{points}: cannot be read as CSV ({error})") from error
    missing = [axis for axis in AXES if axis not in table.columns]
    if missing:
        raise ImageError(f"{points}: lacks column {', '.join(missing)}; expected x, y, z in LPS mm")
    try:
        values = table[AXES].astype(float).to_numpy()
    except ValueError as error:
        raise ImageError(f"{points}: a coordinate is not a number ({error})") from error
    if not np.isfinite(values).all():
        raise ImageError(f"{points}: a coordinate is NaN or infinite")
    moved = apply_points(values * LPS, *(read_transform(path) for path in paths)) * LPS
    for axis, column in zip(AXES, moved.T, strict=True):
        table[axis] = [f"{value:.4f}" for value in column]
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False, lineterminator="\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=Path, required=True, metavar="CSV", help="columns x, y, z, LPS mm")
    parser.add_argument(
        "--transform",
        type=Path,
        required=True,
        nargs="+",
        metavar="FILE",
        help="ITK matrix (.tfm, .txt, .mat) or displacement field (.nii.gz)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="CSV", help="table to write")
    add_failure_options(parser)
    args = parser.parse_args()
    return run_reporting(
        lambda: transform(args.points, args.transform, args.out), args, model="", stage="transform points"
    )


if __name__ == "__main__":
    sys.exit(main())
