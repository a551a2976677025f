#!/usr/bin/env python3
"""Draw the quality-control picture of one patient with its caption as JSON, and what each plan missed.

The small pictures of what was missed are drawn of every patient, since only the statistics know who is worst.
"""

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
from predictgbm.report.missed import draw_missed
from predictgbm.report.pictures import CAPTION, draw_patient
from predictgbm.report.results import REFERENCE


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
    parser.add_argument(
        "--missed",
        type=Path,
        help="folder for <model>.webp, what each plan missed; none without a recurrence",
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
    t1c, inside = to_ras(exam.image("t1c")).data, brain.data.astype(bool)
    plans = {model_name(path): turned(path, np.uint8).astype(bool) for path in args.plans}
    figure = draw_patient(
        t1c=t1c,
        tumor_seg=to_ras(exam.image("tumor_seg")).data,
        brain_mask=inside,
        spacing=brain.spacing,
        maps={model_name(path): turned(path, np.float32) for path in args.maps},
        plans=plans,
        recurrence=recurrence,
        title=f"sub-{summary['patient']} ses-{summary['session']}",
    )
    figure.savefig(args.out, dpi=110, facecolor="black", metadata={"Software": None})
    plt.close(figure)
    sidecar = {"patient": summary["patient"], "session": summary["session"], "caption": CAPTION}
    args.out.with_suffix(".json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
    if args.missed and recurrence is not None and recurrence.any():
        args.missed.mkdir()
        for name, plan in plans.items():
            standard = None if name == REFERENCE else plans.get(REFERENCE)
            picture = draw_missed(t1c, inside, brain.spacing, recurrence, plan, standard)
            picture.save(args.missed / f"{name}.webp", quality=90)


if __name__ == "__main__":
    try:
        main()
    except ImageError as error:
        sys.exit(f"ERROR: {error}")
