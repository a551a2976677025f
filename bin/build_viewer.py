#!/usr/bin/env python3
"""Write the viewer page of one patient: a single HTML file that opens without a network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from predictgbm.exam import Exam, model_name
from predictgbm.images import Image, ImageError, conform, read_image
from predictgbm.labels import CORE, RECURRENCE, Tumor, region
from predictgbm.report.colours import LABEL_COLOURS, RECURRENCE_COLOUR, model_places, plan_colour
from predictgbm.report.results import read_models
from predictgbm.report.viewer import Layer, build_page

CONTRASTS = {
    "t1c": "T1 with contrast agent",
    "flair": "FLAIR",
    "t1": "T1",
    "t2": "T2",
    "adc": "ADC",
    "pet": "PET",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exam", type=Path, required=True, help="prepared exam folder")
    parser.add_argument(
        "--maps", type=Path, nargs="+", required=True, help="score maps *_model-<name>_probseg.nii.gz"
    )
    parser.add_argument(
        "--plans", type=Path, nargs="+", required=True, help="plans *_model-<name>_desc-isovol_mask.nii.gz"
    )
    parser.add_argument(
        "--spreads",
        type=Path,
        nargs="*",
        default=[],
        help="standard deviations of maps *_model-<name>_spread.nii.gz",
    )
    parser.add_argument("--recurrence", type=Path, help="follow-up labels in the space of the exam")
    parser.add_argument(
        "--models", type=Path, nargs="*", default=[], help="lists of models; their order gives the colours"
    )
    parser.add_argument("--niivue", type=Path, required=True, help="NiiVue library, UMD build")
    parser.add_argument("--out", type=Path, required=True, help="HTML page to write")
    args = parser.parse_args()

    exam = Exam(args.exam)
    reference = exam.reference
    summary = json.loads((args.exam / "exam.json").read_text(encoding="utf-8"))

    layers = [
        Layer(title, "Exam", exam.image(name), shown=name == "t1c")
        for name, title in CONTRASTS.items()
        if exam.path(name) is not None
    ]
    for path in sorted(args.maps):
        layers.append(
            Layer(model_name(path), "Map", conform(read_image(path), reference), colormap="inferno")
        )
    for path in sorted(args.spreads):
        layers.append(
            Layer(model_name(path), "Spread", conform(read_image(path), reference), colormap="viridis")
        )
    tumor = exam.image("tumor_seg")
    layers.append(
        Layer(
            "Tumour labels",
            "Labels",
            tumor,
            LABEL_COLOURS,
            {int(label): label.name.lower() for label in Tumor},
        )
    )
    plans = {model_name(path): path for path in sorted(args.plans)}
    places = model_places([*read_models(args.models), *plans])
    for name, path in sorted(plans.items(), key=lambda item: item[0] != "soc"):
        colour = plan_colour(name, places)
        layers.append(
            Layer(
                name, "Plan", conform(read_image(path, np.uint8), reference), {1: colour}, shown=name == "soc"
            )
        )
    if args.recurrence:
        labels = conform(read_image(args.recurrence, np.uint8), reference)
        mask = Image(
            region(labels.data, RECURRENCE["enhancing"]).astype(np.uint8), labels.affine, labels.name
        )
        layers.append(Layer("Recurrence (enhancing)", "Labels", mask, {1: RECURRENCE_COLOUR}, shown=True))

    page = build_page(
        title=f"sub-{summary['patient']} ses-{summary['session']}",
        note="Pre-operative exam, maps, plans of one volume and, where known, the recurrence. For research only.",
        layers=layers,
        brain=reference.data.astype(bool),
        focus=region(tumor.data, CORE),
        niivue_js=args.niivue.read_text(encoding="utf-8"),
    )
    args.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except ImageError as error:
        sys.exit(f"ERROR: {error}")
