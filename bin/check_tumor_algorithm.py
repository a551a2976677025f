#!/usr/bin/env python3
"""Tell whether all that a BraTS algorithm needs is on this machine: engine, image, digest, GPU, weights.

Prints one line for each; nothing is fetched and nothing is run. Exit status 0 if the algorithm can start, 1 if
something is missing, 2 if there is no such algorithm.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from predictgbm.segmentation.brats import Algorithm, AlgorithmError, load_algorithms

HERE = Path(__file__).resolve().parent
ENGINE = HERE / "container_engine.sh"


def call(*command: str | Path) -> tuple[bool, str]:
    """Run a program; return whether it succeeded and what it printed."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    return done.returncode == 0, done.stdout.strip()


def check_image(engine: str, algorithm: Algorithm) -> list[tuple[str, bool, str]]:
    """Look for the image and compare its digest; each result is (what, whether it is in order, in words)."""
    if engine == "apptainer" and not algorithm.image.endswith(".sif"):
        return [
            (
                "image",
                False,
                f"apptainer pull algorithm.sif docker://{algorithm.reference}, then name that file as image",
            )
        ]
    found, identity = call(ENGINE, "image", engine, algorithm.image)
    if not found and algorithm.digest:
        found, identity = call(ENGINE, "image", engine, algorithm.reference)
    if not found:
        return [("image", False, f"{algorithm.image} is not here; {engine} pull {algorithm.reference}")]
    results = [("image", True, f"{algorithm.image}: {identity}")]
    if algorithm.digest is None:
        results.append(
            ("digest", True, "not pinned; put the one above into the list once you trust the image")
        )
    else:
        same = algorithm.digest in identity or algorithm.digest.removeprefix("sha256:") in identity
        results.append(
            (
                "digest",
                same,
                algorithm.digest if same else f"{algorithm.digest} is wanted, the image is another",
            )
        )
    return results


def check(algorithm: Algorithm, engine: str, weights: Path | None) -> list[tuple[str, bool, str]]:
    answers, said = call(ENGINE, "find", engine)
    results = [("engine", answers, said)]
    if answers:
        results += check_image(said, algorithm)
    visible, cards = call("nvidia-smi", "-L")
    if visible:
        results.append(("GPU", True, cards.replace("\n", "; ")))
    else:
        needed = algorithm.gpu == "required"
        text = "none visible (nvidia-smi -L); " + (
            "this algorithm needs one" if needed else "it runs on the CPU, slowly"
        )
        results.append(("GPU", not needed, text))
    if algorithm.weights is not None:
        paths = [p for p in algorithm.weights.get("arguments", {}).values() if p] or ["."]
        absent = [p for p in paths if weights is None or not (weights / p).exists()]
        text = f"{weights}" if not absent else (
            f"{', '.join(absent) if weights else 'no folder given'} missing; unpack Zenodo record "
            f"{algorithm.weights.get('zenodo')} and name the folder by --weights"
        )  # fmt: skip
        results.append(("weights", not absent, text))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="algorithm, for example BraTS23_1")
    parser.add_argument(
        "--algorithms",
        type=Path,
        default=HERE.parent / "assets" / "tumor_algorithms.yml",
        metavar="YAML",
        help="list of algorithms (default: that of the pipeline)",
    )
    parser.add_argument("--engine", choices=["auto", "docker", "podman", "apptainer"], default="auto")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="files the image needs beside itself")
    args = parser.parse_args()
    try:
        algorithms = load_algorithms(args.algorithms)
        if args.name not in algorithms:
            raise AlgorithmError(
                f"no algorithm '{args.name}' in {args.algorithms}; it has {', '.join(algorithms)}"
            )
    except AlgorithmError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    algorithm = algorithms[args.name]
    print(f"{algorithm.name}: {algorithm.phase} exams, {algorithm.citation}")
    results = check(algorithm, args.engine, args.weights)
    for what, fine, text in results:
        print(f"{'ok     ' if fine else 'MISSING'}  {what + ':':9}{text}")
    return 0 if all(fine for _, fine, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
