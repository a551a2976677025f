#!/usr/bin/env python3
"""Make one tumour segmentation of several by majority: each voxel gets the label that most of them give it.

On a tie enhancing tumour wins over necrosis, cavity, oedema and background, in this order. The order of the files
does not matter. All hold canonical labels (1 necrosis, 2 oedema, 3 enhancing tumour, 4 cavity) on one grid.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import conform, read_image, write_image
from predictgbm.labels import to_canonical
from predictgbm.segmentation.fusion import majority_vote


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="labels to write (.nii.gz)")
    parser.add_argument("segmentations", type=Path, nargs="+", metavar="SEG", help="labels to join (NIfTI)")
    add_failure_options(parser)
    args = parser.parse_args()

    def work() -> None:
        reference = read_image(args.segmentations[0], np.uint8)
        arrays = [to_canonical(conform(read_image(p, np.uint8), reference).data) for p in args.segmentations]
        write_image(args.out, majority_vote(arrays), reference.affine)

    return run_reporting(work, args, model="", stage="fuse segmentations")


if __name__ == "__main__":
    sys.exit(main())
