#!/usr/bin/env python3
"""Segment an exam in atlas space by a BraTS algorithm in its container.

Lays out t1, t1c, t2, flair (.nii.gz, one grid, brain-extracted) from the folder of the aligned exam as the algorithm
expects them, starts its image without network and with read-only input, checks what it wrote (one segmentation, on
the exam's grid, of known labels) and writes canonical labels: 1 necrosis, 2 oedema, 3 enhancing tumour,
4 resection cavity.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from predictgbm.failures import KILLED, add_failure_options, run_reporting
from predictgbm.images import ImageError, MissingInputError, conform, read_image, write_image
from predictgbm.labels import WHOLE_TUMOR, region
from predictgbm.quality import write_quality
from predictgbm.report.overlays import draw_contours
from predictgbm.segmentation.brats import (
    CONTRASTS,
    Algorithm,
    find_output,
    make_algorithm,
    read_output,
    to_brats,
)
from predictgbm.segmentation.checks import measure_tumor, outlines

ENGINE = Path(__file__).resolve().with_name("container_engine.sh")


class EngineError(ValueError):
    """The container could not be started."""


class ContainerError(ValueError):
    """The container ended with an error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.kind = "lost" if status == KILLED else "crashed"


def lay_out(
    exam: Path, algorithm: Algorithm, subject: str, weights: Path | None, work: Path
) -> dict[str, Path]:
    """Make the folders the container sees; return name of the mount -> folder."""
    folders = {name: work / name for name in algorithm.mounts}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    missing = [c for c in CONTRASTS if not (exam / f"{c}.nii.gz").exists()]
    if missing:
        raise MissingInputError(
            f"{exam}: exam lacks {', '.join(missing)}; {algorithm.name} needs all four contrasts"
        )
    reference = read_image(exam / "t1c.nii.gz")
    for ours, theirs in CONTRASTS.items():
        image = to_brats(conform(read_image(exam / f"{ours}.nii.gz"), reference))
        write_image(folders["input"] / subject / f"{subject}-{theirs}.nii.gz", image.data, image.affine)
    if algorithm.weights is not None:
        if weights is None or not weights.is_dir():
            raise EngineError(
                f"{algorithm.name} needs the files of Zenodo record {algorithm.weights.get('zenodo')}; "
                "unpack them into a folder and name it by --weights"
            )
        folders["weights"] = weights
    if algorithm.parameters is not None:
        text = yaml.safe_dump(dict(algorithm.parameters), sort_keys=False)
        (folders["parameters"] / "parameters.yml").write_text(text, "utf-8")
    return folders


def start(engine: str, algorithm: Algorithm, folders: dict[str, Path], gpu: bool) -> None:
    """Run the container to its end; what it says goes to the log of the task."""
    found = subprocess.run([ENGINE, "find", engine], capture_output=True, text=True)
    if found.returncode:
        raise EngineError(found.stderr.strip())
    options: list[str] = ["--shm", algorithm.shm]
    options += ["--gpu"] if gpu else []
    options += [] if algorithm.root else ["--as-me"]
    for name, place in algorithm.mounts.items():
        options += ["--bind", f"{folders[name].resolve()}:{place}"]
    command: list[str | Path] = [
        ENGINE,
        "run",
        found.stdout.strip(),
        *options,
        algorithm.reference,
        *algorithm.arguments,
    ]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        last = " ".join(done.stdout.split("\n")[-4:]).strip()
        raise ContainerError(
            f"the container {algorithm.reference} ended with exit status {done.returncode}: {last} "
            f"(check_tumor_algorithm.py {algorithm.name} tells whether all it needs is here)",
            done.returncode,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exam", type=Path, required=True, metavar="DIR", help="folder of the aligned exam")
    parser.add_argument("--phase", choices=["preop", "followup"], required=True)
    parser.add_argument(
        "--algorithm", type=Path, required=True, metavar="JSON", help="entry of assets/tumor_algorithms.yml"
    )
    parser.add_argument(
        "--space", metavar="NAME", help="atlas space of the exam, to compare with the algorithm's"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="files the image needs beside itself")
    parser.add_argument("--engine", choices=["auto", "docker", "podman", "apptainer"], default="auto")
    parser.add_argument(
        "--device",
        choices=["gpu", "cpu"],
        default="gpu",
        help="cpu only for algorithms whose GPU is optional (default %(default)s)",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("brats"), metavar="DIR", help="folder for the mounts"
    )
    parser.add_argument("--out", type=Path, required=True, help="labels to write (.nii.gz)")
    parser.add_argument("--quality", type=Path, metavar="JSON", help="measures to write")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="outlines over the T1c to draw")
    add_failure_options(parser)
    args = parser.parse_args()
    entry = json.loads(args.algorithm.read_text("utf-8"))

    def work() -> None:
        algorithm = make_algorithm(entry)
        subject = algorithm.subject(args.phase)
        if args.device == "cpu" and algorithm.gpu == "required":
            raise EngineError(
                f"{algorithm.name} needs a GPU; choose an algorithm whose GPU is optional, or --device gpu"
            )
        folders = lay_out(args.exam, algorithm, subject, args.weights, args.work)
        start(args.engine, algorithm, folders, args.device == "gpu")
        reference = read_image(args.exam / "t1c.nii.gz")
        labels = read_output(find_output(folders["output"], subject), algorithm, reference)
        if args.phase == "preop" and not region(labels, WHOLE_TUMOR).any():
            raise ImageError(f"{algorithm.name} found no tumour in {args.exam}; look at its images")
        write_image(args.out, labels, reference.affine)

        mask = args.exam / "brain_mask.nii.gz"
        brain = (
            conform(read_image(mask, np.uint8), reference).data > 0 if mask.exists() else reference.data != 0
        )
        measures = measure_tumor(labels, brain, reference.voxel_ml, args.phase)
        meta = {"patient": args.patient, "session": args.session}
        method = f"{algorithm.name} ({algorithm.reference})"
        note = ""
        if args.space and algorithm.space not in (None, args.space):
            note = (
                f"{algorithm.name} was trained on images in {algorithm.space}, this exam is in {args.space}"
            )
        if args.quality:
            write_quality(args.quality, meta, "tumor", measures, method=method, note=note)
        if args.picture:
            title = f"{args.patient} {args.session} tumour by {algorithm.name}".strip()
            focus = labels > 0 if labels.any() else None
            draw_contours(args.picture, reference, outlines(labels), title, focus)

    return run_reporting(work, args, model="", stage="segment tumour")


if __name__ == "__main__":
    sys.exit(main())
