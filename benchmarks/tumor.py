#!/usr/bin/env python3
"""Dice of the trial tumour segmenter on simulated patients, and on a real exam where one is given.

The follow-up is first brought to atlas space by the rigid motion that its true landmarks show.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.atlas import Atlas, load_atlas, resample_atlas
from predictgbm.images import Image, conform, read_image, to_ras
from predictgbm.labels import CORE, WHOLE_TUMOR, Tumor, region
from predictgbm.segmentation.tumor import CONTRASTS, segment_tumor
from predictgbm.simulation import SimulatedPatient, Simulator

REGIONS = {"WT": WHOLE_TUMOR, "TC": CORE, "ET": (Tumor.ENHANCING,), "cavity": (Tumor.CAVITY,)}
#: How a BraTS exam names the contrasts.
BRATS = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f"}

Arrays = dict[str, NDArray[np.generic]]


def rigid_fit(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rigid 4x4 matrix that best takes points to points (Kabsch 1976)."""
    u, _, vt = np.linalg.svd((source - source.mean(0)).T @ (target - target.mean(0)))
    turn = vt.T @ np.diag([1, 1, np.linalg.det(vt.T @ u.T)]) @ u.T
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = target.mean(0) - turn @ source.mean(0)
    return matrix


def followup_in_atlas_space(patient: SimulatedPatient) -> tuple[Arrays, NDArray[np.bool_], NDArray[np.uint8]]:
    exam, grid = patient.followup, patient.preop
    motion = rigid_fit(patient.landmarks_preop, patient.landmarks_followup)
    index = np.linalg.inv(exam.affine) @ motion @ grid.affine

    def move(array: NDArray[np.generic], order: int) -> NDArray[np.float32]:
        shape = grid.brain_mask.shape
        source = array.astype(np.float32)
        return ndimage.affine_transform(source, index[:3, :3], index[:3, 3], output_shape=shape, order=order)

    brain = move(exam.brain_mask, 1) > 0.5
    images: Arrays = {name: move(exam.images[name], 1) * brain for name in CONTRASTS}
    return images, brain, move(exam.tumor_seg, 0).astype(np.uint8)


def disturb(
    images: Arrays, brain: NDArray[np.bool_], spacing: float, rng: np.random.Generator
) -> tuple[Arrays, NDArray[np.bool_]]:
    """Move three contrasts by 1 mm each and leave bright rests of scalp in parts of a mask that is too wide."""
    moved: Arrays = {}
    rim = ndimage.binary_dilation(brain, iterations=max(1, round(3 / spacing))) & ~brain
    rim &= ndimage.gaussian_filter(rng.standard_normal(brain.shape), 10 / spacing) > 0
    for name in CONTRASTS:
        shift = np.zeros(3) if name == "t1c" else rng.standard_normal(3)
        shift *= 1 / max(np.linalg.norm(shift), 1e-9) / spacing
        image = ndimage.shift(images[name].astype(np.float32), shift, order=1)
        bright = np.percentile(image[brain], 97) * rng.uniform(0.5, 1.5, brain.shape)
        moved[name] = np.where(rim, bright, image)
    return moved, brain | rim


def score(
    title: str, images: Arrays, brain: NDArray[np.bool_], truth: NDArray[np.uint8], atlas: Atlas, phase: str
) -> list[float]:
    start = time.process_time()
    labels = segment_tumor(images, brain, atlas, phase)
    seconds = time.process_time() - start
    result = []
    for members in REGIONS.values():
        a, b = region(labels, members), region(truth, members)
        result.append(
            2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum())) if a.any() or b.any() else np.nan
        )
    print(
        f"| {title} | "
        + " | ".join("" if np.isnan(r) else f"{r:.3f}" for r in result)
        + f" | {seconds:.1f} |"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, required=True, help="folder made by prepare_atlas.py")
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--spacing", type=float, default=2.0, help="voxel edge in mm")
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument(
        "--real", type=Path, help="folder of a BraTS exam with its segmentation (*-seg*.nii.gz)"
    )
    arguments = parser.parse_args()
    atlas = load_atlas(arguments.atlas)
    print(f"| exam | {' | '.join(REGIONS)} | CPU s |\n|---|{'---|' * (len(REGIONS) + 1)}")
    if arguments.patients:
        simulator = Simulator(atlas, arguments.spacing)
        scores: dict[str, list[list[float]]] = {}
        for number in range(arguments.first, arguments.first + arguments.patients):
            patient = simulator.patient(arguments.seed, number)
            exam = patient.preop
            grid = resample_atlas(atlas, exam.brain_mask.shape, exam.affine)
            images: Arrays = {name: exam.images[name] for name in CONTRASTS}
            rng = np.random.default_rng(number)
            worse, wide = disturb(images, exam.brain_mask, arguments.spacing, rng)
            later, brain, recurrence = followup_in_atlas_space(patient)
            for name, task in {
                "pre-op": (images, exam.brain_mask, exam.tumor_seg, grid, "preop"),
                "pre-op, disturbed": (worse, wide, exam.tumor_seg, grid, "preop"),
                "follow-up": (later, brain, recurrence, grid, "followup"),
            }.items():
                scores.setdefault(name, []).append(score(f"{number} {name}", *task))
        for name, rows in scores.items():
            columns = [[v for v in column if not np.isnan(v)] for column in zip(*rows, strict=True)]
            means = [f"{sum(c) / len(c):.3f}" if c else "" for c in columns]
            print(f"| mean {name} | {' | '.join(means)} | |")
    if arguments.real:
        paths = {k: next(arguments.real.glob(f"*-{v}.nii.gz")) for k, v in (BRATS | {"seg": "seg*"}).items()}
        read = {k: to_ras(read_image(p, np.uint8 if k == "seg" else np.float32)) for k, p in paths.items()}
        reference = read["t1c"]
        read = {k: conform(Image(i.data, i.affine, k), reference) for k, i in read.items()}
        grid = resample_atlas(atlas, reference.shape, reference.affine)
        images = {name: read[name].data for name in CONTRASTS}
        score(arguments.real.name, images, reference.data > 0, read["seg"].data, grid, "preop")
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
