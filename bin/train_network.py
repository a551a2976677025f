#!/usr/bin/env python3
"""Train one network of a model that learns from a cohort."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predictgbm.learned.training import TrainingExam
    from predictgbm.models import Model


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Writes OUT.net, the network, and OUT_log, its losses for TensorBoard. Needs what trains models: "
        "./predictgbm setup --learning, or the image learning.",
    )
    parser.add_argument(
        "--entry", required=True, metavar="JSON", help="the model's entry: JSON or a JSON file"
    )
    parser.add_argument("--exams", type=Path, required=True, metavar="DIR", help="folder of prepared exams")
    parser.add_argument(
        "--recurrences",
        type=Path,
        required=True,
        metavar="DIR",
        help="follow-ups' labels on the grids of the exams: sub-PATIENT_*.nii.gz",
    )
    parser.add_argument("--splits", type=Path, required=True, metavar="JSON", help="from draw_splits.py")
    parser.add_argument("--split", required=True, metavar="NAME", help="the one to train by")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--settings", type=Path, metavar="JSON", help="settings of the training, by name")
    parser.add_argument("--out", type=Path, required=True, help="what to write, without suffix")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="where an unfinished training is kept and found again (default: it begins anew)",
    )
    parser.add_argument("--cpus", type=int, help="number of threads (default: all cores)")
    return parser.parse_args()


def read_exams(
    folder: Path, recurrences: Path, model: Model, patients: Sequence[str]
) -> Iterator[TrainingExam]:
    """Read the exams of patients, one at a time."""
    from predictgbm.exam import Exam
    from predictgbm.images import conform, read_image
    from predictgbm.labels import RECURRENCE, region
    from predictgbm.learned.training import TrainingExam

    wanted = set(patients)
    for path in sorted(folder.iterdir()):
        patient = json.loads((path / "exam.json").read_text("utf-8"))["patient"]
        if patient not in wanted:
            continue
        exam = Exam(path)
        optional = [name for name in model.optional_inputs if exam.path(name) is not None]
        inputs = {name: exam.array(name) for name in (*model.inputs, *optional)}
        (labels,) = recurrences.glob(f"sub-{patient}_*.nii.gz")
        came = conform(read_image(labels, "u1"), exam.reference).data
        yield TrainingExam(patient, inputs, exam.reference.spacing, region(came, RECURRENCE["core"]))


def main() -> int:
    args = arguments()
    if args.cpus:
        for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(args.cpus)
    from predictgbm.growth import ModelError
    from predictgbm.images import ImageError
    from predictgbm.learned.training import TrainingError
    from predictgbm.models import ModelListError, parse_entry

    try:
        model = parse_entry(args.entry)
        if not model.training:
            raise TrainingError(f"model '{model.name}' has no training in its entry")
        recipe = importlib.import_module(model.training)
        from tensorboardX import SummaryWriter
    except (ModelListError, TrainingError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"ERROR: {error}; ./predictgbm setup --learning installs what is needed", file=sys.stderr)
        return 2
    split = json.loads(args.splits.read_text("utf-8"))["splits"][args.split]
    parts = (
        read_exams(args.exams, args.recurrences, model, split[part]) for part in ("training", "validation")
    )
    settings = json.loads(args.settings.read_text("utf-8")) if args.settings else {}
    network = args.out.with_name(f"{args.out.name}.net")
    kept = args.checkpoint or network
    kept.parent.mkdir(parents=True, exist_ok=True)
    log = SummaryWriter(str(args.out.with_name(f"{args.out.name}_log")))
    began = time.monotonic()

    def report(epoch: int, training_loss: float, validation_loss: float) -> None:
        log.add_scalar("loss/training", training_loss, epoch)
        log.add_scalar("loss/validation", validation_loss, epoch)
        losses = f"training {training_loss:.4f}, validation {validation_loss:.4f}"
        print(f"epoch {epoch}: {losses}, {time.monotonic() - began:.0f} s", flush=True)

    try:
        recipe.train_network(
            *parts, split=args.split, seed=args.seed, settings=settings, file=kept, report=report
        )
    except (TrainingError, ModelError, ImageError) as error:
        what = f"{model.title}, split {args.split}, seed {args.seed}"
        print(f"ERROR: {what}: {error}", file=sys.stderr)
        return 2
    log.close()
    if kept != network:
        shutil.copyfile(kept, network)
    return 0


if __name__ == "__main__":
    sys.exit(main())
