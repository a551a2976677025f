#!/usr/bin/env python3
"""Follow-up to pre-operative registration against known truth: synthetic cases on a real exam, simulated patients.

Each synthetic case moves a real exam by a smooth random field, lets the tissue around the tumour move in, replaces the
tumour core by a cavity, sets a recurrence beside it, and changes scale, bias and noise of the image. Each method runs
in a process of its own; the table has its errors against the truth, CPU seconds and peak memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.images import Image, ImageError, read_image
from predictgbm.labels import CORE, Tumor, region
from predictgbm.masks import bounding_box, dice
from predictgbm.preprocessing import derive_brain_mask
from predictgbm.registration.longitudinal import METHODS, register, similarity
from predictgbm.registration.transforms import (
    Field,
    apply_points,
    compose,
    invert,
    jacobian,
    read_transform,
    resample,
)

Mask = NDArray[np.bool_]

#: Name -> seed, correlation length and rms of the field (mm), inward motion at the tumour's edge (mm), direction of the
#: recurrence from the tumour's centre.
CASES = {
    "A": (1, 14.0, 2.1, 4.5, (1.0, 0.3, 0.2)),
    "B": (2, 16.0, 2.0, 3.6, (-0.2, 1.0, 0.3)),
    "C": (3, 12.0, 2.0, 3.3, (0.1, -0.5, 1.0)),
}
RECURRENCE_RADIUS = 7.0
NEAR_MM = 15.0


@dataclass(frozen=True)
class Case:
    """An exam and its made follow-up on one grid; the truth maps fixed to moving points."""

    fixed: Image
    moving: Image
    fixed_mask: Mask
    moving_mask: Mask
    fixed_labels: NDArray[np.uint8]
    moving_labels: NDArray[np.uint8]
    recurrence: Mask
    truth: Field


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> NDArray[np.float32]:
    """Draw Gaussian noise of a correlation length in voxels, on a lattice of every fourth voxel."""
    coarse = ndimage.gaussian_filter(rng.standard_normal([-(-n // 4) + 2 for n in shape]), sigma / 4)
    return ndimage.zoom(coarse, 4, order=3)[tuple(slice(0, n) for n in shape)].astype(np.float32)


def make_case(name: str, t1c: Image, labels: NDArray[np.uint8]) -> Case:
    """Make one of :data:`CASES` from an exam of 1 mm voxels."""
    seed, length, rms, pull, direction = CASES[name]
    rng = np.random.default_rng(seed)
    box = bounding_box(t1c.data > 0, 12)
    corner = t1c.affine.copy()
    corner[:3, 3] = (t1c.affine @ [*(s.start for s in box), 1])[:3]
    fixed = Image(t1c.data[box], corner, t1c.name)
    labels = labels[box]
    shape = fixed.shape
    brain, core = derive_brain_mask(fixed.data), region(labels, CORE)
    outside = ndimage.distance_transform_edt(~core)
    voxels = np.argwhere(core)
    centre = voxels.mean(axis=0)
    radius = np.cbrt(len(voxels) * 3 / 4 / np.pi)

    field = np.stack([smooth_noise(rng, shape, length) for _ in range(3)], axis=-1)
    field *= rms / np.sqrt((field[brain] ** 2).sum(axis=-1).mean())
    offset = np.moveaxis(np.indices(shape, np.float32), 0, -1) - centre.astype(np.float32)
    r = np.linalg.norm(offset, axis=-1)
    inward = pull * r / radius * np.exp(0.5 * (1 - (r / radius) ** 2))
    field -= offset * (inward / np.maximum(r, 1e-3))[..., None]
    field = field @ fixed.affine[:3, :3].T.astype(np.float32)
    a, b, c = rng.normal(0, 0.012, 3)
    u, _, vt = np.linalg.svd(np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]]))
    rigid = np.eye(4)
    rigid[:3, :3] = u @ vt
    middle = apply_points(centre[None], fixed.affine)[0]
    rigid[:3, 3] = middle - rigid[:3, :3] @ middle + rng.normal(0, 0.8, 3)
    truth = compose(fixed, Field(np.asarray(field, np.float32), fixed.affine), rigid)

    toward = np.array(direction) / np.linalg.norm(direction)
    ray = centre + np.arange(0, 90, 0.5)[:, None] * toward
    depth = outside[tuple(np.rint(ray).astype(int).clip(0, np.array(shape) - 1).T)]
    spot = ray[np.flatnonzero(depth < 4)[-1] + 1]
    distance = np.linalg.norm(offset - (spot - centre), axis=-1)
    recurrence = (distance < RECURRENCE_RADIUS) & brain & ~core
    after = np.where(recurrence, Tumor.ENHANCING, np.where(core, Tumor.CAVITY, 0)).astype(np.uint8)
    dark = np.percentile(fixed.data[brain], 8)
    bright = np.percentile(fixed.data[labels == Tumor.ENHANCING], 60)
    cavity = ndimage.gaussian_filter(core.astype(np.float32), 1)
    data = fixed.data * (1 - cavity) + dark * cavity
    enhancing = ndimage.gaussian_filter(recurrence.astype(np.float32), 0.8)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), 1.5)
    data = data * (1 - enhancing) + bright * (1 + 0.1 * texture / texture.std()) * enhancing

    inverse = invert(truth, fixed)
    moved = resample(Image(data.astype(np.float32), fixed.affine), fixed, inverse, interpolation="bspline")
    mask, seg = (
        resample(Image(m, fixed.affine), fixed, inverse, interpolation="nearest")
        for m in (brain.astype(np.uint8), after)
    )
    bias = ndimage.zoom(rng.standard_normal((4, 4, 4)), np.array(shape) / 4, order=3)
    moved = 1.15 * moved * (1 + 0.05 * bias)
    moved += 0.02 * fixed.data[brain].mean() * rng.standard_normal(shape)
    moving = Image((moved * mask).clip(0).astype(np.float32), fixed.affine, f"case {name}")
    return Case(fixed, moving, brain, mask > 0, labels, seg, recurrence, truth)


def simulated_case(truth: Path) -> Case:
    """Read a simulated patient: the folder truth of bin/simulate_cohort.py --raw, or its folder without."""
    pre, post = truth / "ses-pre", truth / "ses-post"

    def one(folder: Path, pattern: str, dtype: Any = np.float32) -> Image:
        (path,) = folder.glob(pattern)
        return read_image(path, dtype)

    fixed, moving = (one(folder, "*_ce-GD_T1w.nii.gz") for folder in (pre, post))
    fixed_mask, moving_mask = (
        one(folder, "*_desc-brain_mask.nii.gz", np.uint8).data > 0 for folder in (pre, post)
    )
    labels = [one(folder, "*_desc-tumor_dseg.nii.gz", np.uint8).data for folder in (pre, post)]
    recurrence = one(post, "*_desc-recurrence_dseg.nii.gz", np.uint8).data == Tumor.ENHANCING
    (path,) = truth.glob("*_from-pre_to-post_xfm.nii.gz")
    known = compose(fixed, read_transform(path))
    # The points are in LPS, as ANTs has them.
    landmarks = pd.read_csv(next(iter(truth.glob("*_landmarks.csv")))).to_numpy() * [-1, -1, 1, -1, -1, 1]
    assert np.abs(apply_points(landmarks[:, :3], known) - landmarks[:, 3:]).max() < 1, (
        "the truth is another map"
    )
    return Case(fixed, moving, fixed_mask, moving_mask, *labels, recurrence, known)


def errors(case: Case, result: Field) -> dict[str, float]:
    """Score a field against the truth; errors in mm over the brain without the tumour core."""
    core = region(case.fixed_labels, CORE)
    distance = np.linalg.norm(result.displacement - case.truth.displacement, axis=-1)
    near = (
        (ndimage.distance_transform_edt(~core, sampling=case.fixed.spacing) <= NEAR_MM)
        & ~core
        & case.fixed_mask
    )
    tissue = distance[case.fixed_mask & ~core]
    enhancing = Image((case.moving_labels == Tumor.ENHANCING).astype(np.uint8), case.moving.affine)
    label = resample(enhancing, case.fixed, result, interpolation="nearest") > 0
    return {
        "TRE": float(tissue.mean()),
        "p95": float(np.percentile(tissue, 95)),
        "near": float(distance[near].mean()),
        "Dice": dice(label, case.recurrence),
        "folded": float((jacobian(result)[case.fixed_mask] <= 0).sum()),
    }


def run_method(case: Case, method: str, labels: bool, answer: Any) -> None:
    """Run one method in this process and send its scores; the time is that of registration with both fields."""
    ignored: dict[str, Mask] = {}
    if labels:
        ignored["fixed_ignore"] = region(case.fixed_labels, CORE)
        ignored["moving_ignore"] = case.moving_labels > 0
    start = time.process_time()
    try:
        result = register(case.fixed, case.moving, method, case.fixed_mask, case.moving_mask, **ignored)
    except ImageError as error:  # a tool that is not installed, for example: the other methods still count
        print(f"{method}: {error}", file=sys.stderr)
        answer.put({})
        return
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    warped = resample(case.moving, case.fixed, result.forward)
    alike = similarity(case.fixed.data, warped, case.fixed_mask)
    answer.put({**errors(case, result.forward), "CPU s": seconds, "RSS GB": peak, "similarity": alike})


def score(name: str, case: Case, method: str, labels: bool) -> dict[str, Any]:
    """Run a method on a case in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=run_method, args=(case, method, labels, answer))
    process.start()
    scores = answer.get()
    process.join()
    return {"case": name, "method": method + (" + labels" if labels else ""), **scores}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--exam", type=Path, help="folder with *-t1c.nii.gz and *-seg*.nii.gz, 1 mm, for cases A to C"
    )
    parser.add_argument("--simulated", type=Path, metavar="FOLDER", help="cohort of bin/simulate_cohort.py")
    parser.add_argument("--cases", default="ABC", help="which of A, B, C (default: ABC)")
    parser.add_argument("--methods", nargs="+", default=["ncc", *METHODS], metavar="NAME[+labels]")
    parser.add_argument("--out", type=Path, help="CSV to write the rows to")
    args = parser.parse_args()
    cases: dict[str, Callable[[], Case]] = {}
    if args.exam is not None:
        (t1c,), (seg,) = (sorted(args.exam.glob(pattern)) for pattern in ("*-t1c.nii.gz", "*-seg*.nii.gz"))
        image, labels = read_image(t1c), read_image(seg, np.uint8).data
        cases |= {name: partial(make_case, name, image, labels) for name in args.cases}
    if args.simulated is not None:
        for path in sorted(args.simulated.glob("**/sub-*_from-pre_to-post_xfm.nii.gz")):
            cases[path.name.partition("_")[0]] = partial(simulated_case, path.parent)
    if not cases:
        parser.error(
            "give --exam, --simulated or both; --simulated is a folder that bin/simulate_cohort.py made"
        )
    rows: list[dict[str, Any]] = []
    for name, make in cases.items():
        case = make()
        still = compose(case.fixed, np.eye(4))
        rows.append({"case": name, "method": "identity", **errors(case, still)})
        print(rows[-1], flush=True)
        for method in args.methods:
            rows.append(score(name, case, method.removesuffix("+labels"), method.endswith("+labels")))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    if args.out is not None:
        table.to_csv(args.out, index=False)
    print(table.round(2).to_string(index=False))
    if len(cases) > 3:
        print(table.groupby("method", sort=False).mean(numeric_only=True).round(2).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main())
