#!/usr/bin/env python3
"""Draw the quality-control picture of one patient, and write its caption beside it as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from predictgbm.exam import Exam, model_name
from predictgbm.images import ImageError, conform, read_image, to_ras
from predictgbm.labels import RECURRENCE, region
from predictgbm.report.pictures import CAPTION, draw_patient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exam", type=Path, required=True, help="prepared exam folder")
    parser.add_argument(
        "--maps", type=Path, nargs="+", required=True, help="score maps *_model-<name>_probseg.nii.gz"
    )
    parser.add_argument(
        "--plans", type=Path, nargs="+", required=True, help="plans *_model-<name>_desc-isovol_mask.nii.gz"
    )
    parser.add_argument("--recurrence", type=Path, help="follow-up labels in the space of the exam")
    parser.add_argument(
        "--out", type=Path, required=True, help="PNG to write; the caption goes to the same name with .json"
    )
    args = parser.parse_args()

    exam = Exam(args.exam)
    reference = exam.reference
    summary = json.loads((args.exam / "exam.json").read_text(encoding="utf-8"))

    def turned(path: Path, dtype: type) -> np.ndarray:
        return to_ras(conform(read_image(path, dtype), reference)).data

    recurrence = None
    if args.recurrence:
        recurrence = region(turned(args.recurrence, np.uint8), RECURRENCE["enhancing"])
    brain = to_ras(reference)
    figure = draw_patient(
        t1c=to_ras(exam.image("t1c")).data,
        tumor_seg=to_ras(exam.image("tumor_seg")).data,
        brain_mask=brain.data.astype(bool),
        spacing=brain.spacing,
        maps={model_name(path): turned(path, np.float32) for path in args.maps},
        plans={model_name(path): turned(path, np.uint8).astype(bool) for path in args.plans},
        recurrence=recurrence,
        title=f"sub-{summary['patient']} ses-{summary['session']}",
    )
    figure.savefig(args.out, dpi=110, facecolor="black", metadata={"Software": None})
    plt.close(figure)
    sidecar = {"patient": summary["patient"], "session": summary["session"], "caption": CAPTION}
    args.out.with_suffix(".json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except ImageError as error:
        sys.exit(f"ERROR: {error}")
