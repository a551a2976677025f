#!/usr/bin/env python3
"""Run one growth model on one prepared exam and write its map."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

MODELS = Path(__file__).resolve().parents[1] / "assets" / "models.yml"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Writes OUT and, beside it, a .json with the model, the meaning of the values, the inferred "
        "parameters, the inputs that were used, the seconds it took and the package's version; a model that knows how "
        "uncertain its map is also writes *_spread.nii.gz, its standard deviation. "
        "Exit status 2 on an error.",
    )
    parser.add_argument("--model", required=True, help="name in the list of models")
    parser.add_argument(
        "--exam",
        required=True,
        type=Path,
        metavar="DIR",
        help="prepared exam: *_desc-brain_mask.nii.gz, *_desc-tumor_dseg.nii.gz (1 necrosis, 2 oedema, "
        "3 enhancing, 4 cavity), *_label-{WM,GM,CSF}_probseg.nii.gz, *_ce-GD_T1w.nii.gz ..., on one grid; "
        "only what the model lists is read",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="MAP.nii.gz", help="map, float32, on the exam's grid"
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=MODELS,
        metavar="YAML",
        help="list of models (default: assets/models.yml)",
    )
    parser.add_argument(
        "--entry", metavar="JSON", help="the model's entry as JSON or a JSON file, instead of --models"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of a model that draws random numbers (default: %(default)s)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder that a training of the model left (models/NAME)"
    )
    parser.add_argument("--cpus", type=int, help="number of threads (default: all cores)")
    from predictgbm.failures import add_failure_options

    add_failure_options(parser)
    args = parser.parse_args()
    if not args.out.name.endswith((".nii", ".nii.gz")):
        parser.error(f"--out {args.out}: must end in .nii.gz")
    if args.cpus is not None and args.cpus < 1:
        parser.error(f"--cpus {args.cpus}: must be at least 1")
    return args


def limit_threads(cpus: int) -> None:
    """Set the number of threads; has an effect only before numpy and numba are imported."""
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(cpus)


def run(args: argparse.Namespace) -> None:
    import predictgbm
    from predictgbm import models
    from predictgbm.exam import Exam
    from predictgbm.images import write_image

    if args.entry:
        model = models.parse_entry(args.entry)
        if args.model != model.name:
            raise models.ModelListError(f"--model is {args.model}, but --entry describes {model.name}")
    else:
        schema = MODELS.with_name("schema_models.json")
        model = models.read_models(args.models, schema, select=[args.model])[args.model]
    exam = Exam(args.exam)
    start = time.perf_counter()
    prediction, inputs = models.predict(model, exam, args.seed, weights=args.weights, patient=args.patient)
    seconds = time.perf_counter() - start
    write_image(args.out, prediction.map, exam.reference.affine)
    stem = args.out.name.removesuffix(".gz").removesuffix(".nii")
    if prediction.spread is not None:
        spread = args.out.with_name(f"{stem.removesuffix('_probseg')}_spread.nii.gz")
        write_image(spread, prediction.spread, exam.reference.affine)
    sidecar = {
        "model": model.name,
        "title": model.title,
        "output": model.output,
        "parameters": prediction.parameters,
        "options": model.parameters,
        "inputs": inputs,
        "spacing_mm": [round(s, 6) for s in exam.reference.spacing],
        "seed": args.seed,
        "seconds": round(seconds, 3),
        "version": predictgbm.__version__,
    }
    args.out.with_name(f"{stem}.json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    args = arguments()
    if args.cpus:
        limit_threads(args.cpus)
    from predictgbm.failures import run_reporting

    return run_reporting(lambda: run(args), args, model=args.model, stage="predict")


if __name__ == "__main__":
    sys.exit(main())
