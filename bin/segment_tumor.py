#!/usr/bin/env python3
"""Segment a glioma of an exam in atlas space without weights; the result is of trial quality.

Reads t1, t1c, t2, flair and brain_mask (.nii.gz, one grid, any linear scale of intensity) from the folder of the
aligned exam and writes canonical labels: 1 necrosis, 2 oedema, 3 enhancing tumour, 4 resection cavity (follow-ups
only). A pre-operative exam without a tumour is an error; a follow-up may come out empty.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from predictgbm.atlas import load_atlas, resample_atlas
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, MissingInputError, conform, read_image, to_ras, write_image
from predictgbm.quality import TRIAL, write_quality
from predictgbm.report.overlays import draw_contours
from predictgbm.segmentation.checks import measure_tumor, outlines
from predictgbm.segmentation.tumor import CONTRASTS, segment_tumor

METHOD = f"intensity against the atlas, without a trained model ({TRIAL})"
NOTE = "Trial quality: found by intensity against the atlas. For trying the pipeline, not for conclusions on patients"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exam", type=Path, required=True, metavar="DIR", help="folder of the aligned exam")
    parser.add_argument("--phase", choices=["preop", "followup"], required=True)
    parser.add_argument("--method", choices=["trial"], default="trial", help="default %(default)s")
    parser.add_argument(
        "--atlas", type=Path, required=True, metavar="DIR", help="atlas folder, as prepare_atlas.py makes it"
    )
    parser.add_argument("--out", type=Path, required=True, help="labels to write (.nii.gz)")
    parser.add_argument("--quality", type=Path, metavar="JSON", help="measures to write")
    parser.add_argument("--summary", type=Path, metavar="JSON", help="method, its quality and volumes in ml")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="outlines over the T1c to draw")
    add_failure_options(parser)
    args = parser.parse_args()

    def work() -> None:
        missing = [c for c in (*CONTRASTS, "brain_mask") if not (args.exam / f"{c}.nii.gz").exists()]
        if missing:
            raise MissingInputError(
                f"{args.exam}: exam lacks {', '.join(missing)}, which the trial segmenter needs; "
                "give the exam a tumor_seg instead"
            )
        reference = read_image(args.exam / "t1c.nii.gz")
        grid = to_ras(reference)

        def read(column: str, dtype: type) -> np.ndarray:
            return conform(read_image(args.exam / f"{column}.nii.gz", dtype), grid).data

        images = {name: read(name, np.float32) for name in CONTRASTS}
        brain = read("brain_mask", np.uint8) > 0
        atlas = resample_atlas(load_atlas(args.atlas), grid.shape, grid.affine)
        try:
            labels = segment_tumor(images, brain, atlas, args.phase)
        except ImageError as error:
            raise ImageError(f"{args.exam}: {error}") from error

        write_image(args.out, conform(Image(labels, grid.affine), reference).data, reference.affine)
        measures = measure_tumor(labels, brain, grid.voxel_ml, args.phase)
        meta = {"patient": args.patient, "session": args.session}
        if args.quality:
            write_quality(args.quality, meta, "tumor", measures, method=METHOD, note=NOTE)
        if args.summary:
            summary = {**meta, "tumor_method": args.method, "tumor_quality": "trial"}
            summary |= {m.name: m.value for m in measures}
            args.summary.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", "utf-8")
        if args.picture:
            title = f"{args.patient} {args.session} tumour (trial quality)".strip()
            focus = labels > 0 if labels.any() else None
            draw_contours(args.picture, grid, outlines(labels), title, focus)

    return run_reporting(work, args, model="", stage="segment tumour")


if __name__ == "__main__":
    sys.exit(main())
