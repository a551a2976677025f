#!/usr/bin/env python3
"""Make the tissue maps of an exam in atlas space: white matter, grey matter, cerebrospinal fluid.

The atlas is brought to the exam's T1 (or T1c) by deformable registration in which the tumour takes no part; its maps go
along and are made to sum to 1 in the brain. Below the tumour they tell what tissue lies or lay there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from predictgbm.atlas import load_atlas
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, conform, read_image, write_image
from predictgbm.preprocessing import EXPECTED_ATLAS_OVERLAP
from predictgbm.quality import Measure, write_quality
from predictgbm.report.overlays import draw_contours
from predictgbm.segmentation.tissue import METHODS, segment_tissue

#: Least overlap (Dice) of the brain with the atlas's after deformable registration.
EXPECTED_BRAIN_DICE = 0.93


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--exam",
        type=Path,
        required=True,
        help="folder as align_exam.py makes it: t1.nii.gz or t1c.nii.gz, and brain_mask.nii.gz",
    )
    parser.add_argument("--tumor-seg", type=Path, help="labels of the tumour; all above 0 is left out")
    parser.add_argument(
        "--atlas", type=Path, required=True, help="atlas folder, as prepare_atlas.py makes it"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="greedy",
        help="registration: greedy, the project's own (ncc), ANTs SyN as in the paper (syn; antspyx), or none, the "
        "maps as they lie in the atlas (atlas) (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads (default: %(default)s)")
    parser.add_argument(
        "--out-dir", type=Path, required=True, help="folder for tissue_wm, tissue_gm, tissue_csf (.nii.gz)"
    )
    parser.add_argument("--quality", type=Path, help="JSON to write: what was measured of the result")
    parser.add_argument(
        "--picture", type=Path, help="PNG to write: edges of white matter and CSF on the image"
    )
    add_failure_options(parser)
    args = parser.parse_args()

    def work() -> None:
        found = [path for name in ("t1", "t1c") if (path := args.exam / f"{name}.nii.gz").exists()]
        if not found:
            raise ImageError(f"{args.exam}: holds neither t1.nii.gz nor t1c.nii.gz; one of them is needed")
        image = read_image(found[0])
        brain = conform(read_image(args.exam / "brain_mask.nii.gz", np.uint8), image).data > 0
        tumor = np.zeros(image.shape, bool)
        if args.tumor_seg:
            tumor = conform(read_image(args.tumor_seg, np.uint8), image).data > 0
        wm, gm, csf, facts = segment_tissue(
            load_atlas(args.atlas), image, brain, tumor, args.method, threads=args.threads
        )
        for name, data in (("wm", wm), ("gm", gm), ("csf", csf)):
            write_image(args.out_dir / f"tissue_{name}.nii.gz", data, image.affine)
        if args.quality:
            measures = [
                Measure(
                    "atlas_overlap",
                    facts["atlas_overlap"],
                    "Share of the smaller brain, the exam's or the atlas's, within the larger",
                    least=EXPECTED_ATLAS_OVERLAP,
                )
            ]
            if args.method != "atlas":
                measures += [
                    Measure(
                        "brain_dice",
                        facts["brain_dice"],
                        "Overlap of the brain with the warped atlas's (Dice)",
                        least=EXPECTED_BRAIN_DICE,
                    ),
                    Measure(
                        "folded_percent",
                        facts["folded_percent"],
                        "Voxels where the deformation folds (%)",
                        most=0.1,
                    ),
                ]
            for name, data in (("wm", wm), ("gm", gm), ("csf", csf)):
                share = float(data[brain].mean()) if brain.any() else float("nan")
                measures.append(Measure(f"share_{name}", share, f"Share of {name.upper()} in the brain"))
            meta = {"patient": args.patient, "session": args.session}
            write_quality(args.quality, meta, "tissue", measures, method=args.method)
        if args.picture:
            edges = {"white matter": wm > 0.5, "cerebrospinal fluid": csf > 0.5}
            if tumor.any():
                edges["tumour"] = tumor
            shown = Image(image.data * brain, image.affine)
            draw_contours(args.picture, shown, edges, f"Tissue by {args.method}", focus=brain)

    return run_reporting(work, args, model="", stage="tissue")


if __name__ == "__main__":
    sys.exit(main())
