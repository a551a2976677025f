#!/usr/bin/env python3
"""Train a small U-Net on some patients of a cohort in atlas space, and judge it by the others: losses and blend.

One of three splits: two thirds of the patients train and validate, the others are held out. Each variant of the loss
is a training of its own, kept in --out and found again there. Prints mean coverage of the enhancing recurrence by
plans of the standard plan's volume, with the signed-rank test against the standard plan.

    bin/simulate_cohort.py --atlas ATLAS --out cohort --patients 150 --spacing 2 --adc --jobs 2
    python benchmarks/learned.py --cohort cohort --out networks [--variants both] [--epochs 12]
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from predictgbm.evaluation import coverage
from predictgbm.images import read_image
from predictgbm.labels import CORE, RECURRENCE, region
from predictgbm.learned import unet, unet_training
from predictgbm.learned.splits import Case, draw_splits
from predictgbm.planning import make_plan, soc_mask
from predictgbm.statistics import bca_interval, hodges_lehmann, signed_rank_p

#: A small network, half an hour on one core.
SETTINGS = unet.Settings(base=8, patch=48, batch=2, epochs=12, rate=2e-3)
VARIANTS = {
    "both": SETTINGS,
    "cross-entropy": replace(SETTINGS, tversky=0.0),
    "tversky": replace(SETTINGS, cross_entropy=0.0),
}
#: Smoothing in mm and weight of the distance in the map; the first is the default.
BLENDS = ((2.0, 0.1), (2.0, 0.0), (0.0, 0.0), (2.0, 0.3))
#: Columns of the samplesheet that the network sees, by its names of them.
IMAGES = {"wm": "tissue_wm", "gm": "tissue_gm", "csf": "tissue_csf"} | {c: c for c in unet.CONTRASTS}


@dataclass(frozen=True)
class Exam:
    """A pre-operative exam and the labels of its recurrence."""

    patient: str
    cohort: str
    inputs: dict[str, NDArray[Any]]
    spacing: tuple[float, float, float]
    came: NDArray[np.uint8]


def read_cohort(folder: Path) -> Iterator[Exam]:
    """Read the patients of a samplesheet who have an enhancing recurrence, one at a time."""
    with (folder / "samplesheet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    later = {row["patient"]: row["registered_seg"] for row in rows if row["role"] == "followup"}
    for row in (row for row in rows if row["role"] == "preop" and later.get(row["patient"])):
        came = read_image(folder / later[row["patient"]], "u1").data
        if not region(came, RECURRENCE["enhancing"]).any():
            continue
        inputs = {
            name: read_image(folder / row[column]).data for name, column in IMAGES.items() if row[column]
        }
        labels = read_image(folder / row["tumor_seg"], "u1")
        inputs |= {"tumor_seg": labels.data, "brain_mask": read_image(folder / row["brain_mask"]).data > 0}
        yield Exam(row["patient"], row["cohort"], inputs, labels.spacing, came)


def train(exams: dict[str, Exam], split: dict[str, list[str]], settings: unet.Settings, file: Path) -> None:
    """Train one network, or find it finished."""
    parts = [
        [
            unet.make_sample(
                name,
                **exams[name].inputs,
                spacing=exams[name].spacing,
                recurrence=region(exams[name].came, RECURRENCE["core"]),
            )
            for name in split[part]
        ]
        for part in ("training", "validation")
    ]
    began, cpu = time.time(), time.process_time()

    def report(epoch: int, training_loss: float, validation_loss: float) -> None:
        spent = f"{time.process_time() - cpu:.0f} CPU-s, {time.time() - began:.0f} s"
        print(f"{file.name}, epoch {epoch}: {training_loss:.3f}, {validation_loss:.3f}; {spent}", flush=True)

    unet_training.train(*parts, settings, split="1", seed=0, checkpoint=file, report=report)


def judge(exam: Exam, weights: Path, blend: tuple[float, float]) -> float:
    """Return the coverage of a patient by the plan of a network."""
    score = unet.predict(
        **exam.inputs,
        spacing=exam.spacing,
        weights=weights,
        patient=exam.patient,
        smoothing=blend[0],
        distance_weight=blend[1],
    ).map
    labels, brain = exam.inputs["tumor_seg"], exam.inputs["brain_mask"]
    n = int(soc_mask(labels, brain, exam.spacing).sum())
    plan = make_plan(score, region(labels, CORE), brain, exam.spacing, n)
    return coverage(plan, region(exam.came, RECURRENCE["enhancing"]))


def describe(name: str, values: list[float], reference: list[float]) -> str:
    """Return a row: mean with its interval, median, and the comparison with the standard plan."""
    low, high = bca_interval(values)
    gain = np.subtract(values, reference)
    shift = hodges_lehmann(gain)
    mean, median = 100 * np.mean(values), 100 * np.median(values)
    return (
        f"{name:32} {mean:6.1f} [{100 * low:.1f} to {100 * high:.1f}] {median:7.1f}   {100 * shift.estimate:+5.1f}  "
        f"{(gain > 0).sum():3} / {(gain == 0).sum():2} / {(gain < 0).sum():2}   {signed_rank_p(gain):.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cohort", required=True, type=Path, metavar="DIR", help="folder with samplesheet.csv"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the networks")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=SETTINGS.epochs)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    exams = {exam.patient: exam for exam in read_cohort(args.cohort)}
    cases = [
        Case(exam.patient, exam.cohort, float(region(exam.inputs["tumor_seg"], CORE).sum()))
        for exam in exams.values()
    ]
    splits = draw_splits(cases, 3, seed=0)
    split = splits["splits"]["1"]
    print(json.dumps({part: len(names) for part, names in split.items()}), flush=True)
    for name in args.variants:
        settings = replace(VARIANTS[name], epochs=args.epochs)
        print(name, asdict(settings), flush=True)
        train(exams, split, settings, args.out / f"{name}.net")
        unet.Ensemble.assemble(
            args.out / name,
            [args.out / f"{name}.net"],
            splits,
            {exam.patient: exam.cohort for exam in exams.values()},
        )

    held_out = [exams[name] for name in split["held_out"]]
    reference = [
        coverage(
            soc_mask(exam.inputs["tumor_seg"], exam.inputs["brain_mask"], exam.spacing),
            region(exam.came, RECURRENCE["enhancing"]),
        )
        for exam in held_out
    ]
    print(f"\n{'coverage, %':32}   mean [95 % interval]   median   shift  better / equal / worse   p")
    print(describe("standard plan, distance", reference, reference))
    for name in args.variants:
        for blend in BLENDS if name == args.variants[0] else BLENDS[:1]:
            title = f"{name}, {blend[0]:g} mm, distance {blend[1]:g}"
            print(
                describe(title, [judge(exam, args.out / name, blend) for exam in held_out], reference),
                flush=True,
            )


if __name__ == "__main__":
    main()
