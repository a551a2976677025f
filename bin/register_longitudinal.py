#!/usr/bin/env python3
"""Bring a follow-up exam to the space of its pre-operative exam by its contrast-enhanced T1.

Writes, with P the prefix:
  P_desc-registered_T1c.nii.gz        follow-up T1c on the grid of the pre-operative T1c
  P_desc-registered_dseg.nii.gz       its labels there (nearest neighbour), with --moving-seg
  P_desc-registered_NAME.nii.gz       each image given by --also
  P_from-fixed_to-moving_xfm.nii.gz   displacement field on the pre-operative grid (ITK, LPS mm), affine map included;
                                      resamples follow-up images in ANTs and SimpleITK
  P_from-moving_to-fixed_xfm.nii.gz   its inverse, on the grid of the follow-up T1c
A point map takes points of the first-named space to the second. A follow-up whose similarity after the linear map is as
low as that of two different people ends with an error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.growth.compilation import threads as kernel_threads
from predictgbm.images import Image, ImageError, conform, read_image, write_image
from predictgbm.labels import CORE, region, to_canonical
from predictgbm.normalisation import METHODS as SCALES
from predictgbm.normalisation import normalise
from predictgbm.preprocessing import derive_brain_mask
from predictgbm.quality import write_quality
from predictgbm.registration.longitudinal import METHODS, OTHER_PERSON, measure, register
from predictgbm.registration.transforms import Transform, read_transform, resample, write_transform
from predictgbm.report.overlays import draw_pair

#: Images whose intensities have a unit, and are not scaled.
WITH_UNIT = ("ADC",)


def read_also(text: str) -> tuple[str, Path, list[Transform]]:
    """Take NAME=IMAGE or NAME=IMAGE,TRANSFORM apart."""
    name, separator, rest = text.partition("=")
    path, _, transform = rest.partition(",")
    if not separator or not name.isidentifier():
        raise ImageError(
            f"--also {text}: expected NAME=IMAGE or NAME=IMAGE,TRANSFORM, for example FLAIR=flair.nii.gz"
        )
    return name, Path(path), [read_transform(transform)] if transform else []


def read_mask(path: Path | None, image: Image) -> NDArray[np.bool_]:
    """Read a brain mask on the grid of an image; without one, what is not background."""
    if path is None:
        if not image.data.any():
            raise ImageError(
                f"{image.name}: every voxel is zero, there is no brain to find; give another image"
            )
        return derive_brain_mask(image.data)
    mask = conform(read_image(path, np.uint8), image).data > 0
    if not mask.any():
        raise ImageError(f"{path}: mask is empty")
    return mask


def run(args: argparse.Namespace) -> None:
    """Register, write the results and check them."""
    fixed, moving = read_image(args.fixed), read_image(args.moving)
    fixed_mask, moving_mask = read_mask(args.fixed_mask, fixed), read_mask(args.moving_mask, moving)
    csf = None if args.fixed_csf is None else conform(read_image(args.fixed_csf, np.float32), fixed).data
    fixed_ignore = moving_ignore = None
    labels = None
    tumor = np.zeros_like(fixed_mask)
    if args.fixed_seg is not None:
        fixed_labels = conform(read_image(args.fixed_seg, np.uint8), fixed).data
        fixed_ignore = region(fixed_labels, CORE)
        tumor |= fixed_labels > 0
    if args.moving_seg is not None:
        given = conform(read_image(args.moving_seg, np.uint8), moving)
        labels = Image(to_canonical(given.data, args.moving_labels), given.affine, given.name)
        moving_ignore = labels.data > 0
    also: dict[str, tuple[Image, list[Transform]]] = {}
    for text in args.also:
        name, path, chain = read_also(text)
        also[name] = (read_image(path, np.uint8 if name == "dseg" else np.float32), chain)

    with kernel_threads(args.threads):
        result = register(
            fixed,
            moving,
            args.method,
            fixed_mask,
            moving_mask,
            fixed_ignore=fixed_ignore,
            moving_ignore=moving_ignore,
            weights=args.dirac_weights,
            threads=args.threads,
            seed=args.seed,
        )
    warped = resample(moving, fixed, result.forward)
    warped_labels = None
    if labels is not None:
        source, chain = labels, []
        if "dseg" in also:
            given, chain = also.pop("dseg")
            source = Image(to_canonical(given.data, args.moving_labels), given.affine, given.name)
        warped_labels = resample(source, fixed, result.forward, *chain, interpolation="nearest")
        tumor |= warped_labels > 0
    measures = measure(result, fixed, moving, fixed_mask, moving_mask, warped, csf=csf, tumor=tumor)
    if args.quality is not None:
        meta = {"patient": args.patient, "session": args.session}
        method = args.method
        if method == "dirac":
            method += " without its network" if args.dirac_weights is None else " with its network"
        write_quality(args.quality, meta, "registration", measures, method=method)
    if args.picture is not None:
        draw_pair(
            args.picture, fixed, Image(warped, fixed.affine), f"pre-operative and follow-up, {args.method}"
        )
    alike = next(m.value for m in measures if m.name == "similarity_linear")
    if alike < OTHER_PERSON:
        raise ImageError(
            f"{args.moving}: laid on {args.fixed} by a linear map its similarity is {alike:.2f}, below "
            f"{OTHER_PERSON:g}, as between different people; check that both are of one patient"
        )

    def write(name: str, data: NDArray[np.generic]) -> None:
        write_image(f"{args.out_prefix}_desc-registered_{name}.nii.gz", data, fixed.affine)

    for name, (image, chain) in {"T1c": (moving, []), **also}.items():
        data = resample(image, fixed, result.forward, *chain, interpolation=args.interpolation)
        if chain and name not in WITH_UNIT:
            data = normalise(data, fixed_mask, args.normalisation)
        write(name, data)
    if warped_labels is not None:
        write("dseg", warped_labels)
    write_transform(f"{args.out_prefix}_from-fixed_to-moving_xfm.nii.gz", result.forward)
    write_transform(f"{args.out_prefix}_from-moving_to-fixed_xfm.nii.gz", result.backward)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fixed", type=Path, required=True, metavar="PRE_T1C", help="NIfTI, any grid")
    parser.add_argument("--moving", type=Path, required=True, metavar="POST_T1C", help="NIfTI, any grid")
    for side, exam, ignored in (
        ("fixed", "pre-operative", "necrosis and enhancing tumour"),
        ("moving", "follow-up", "all of them"),
    ):
        parser.add_argument(
            f"--{side}-mask",
            type=Path,
            metavar="MASK",
            help=f"brain of the {exam} exam, on its T1c grid (default: where the T1c is not zero)",
        )
        parser.add_argument(
            f"--{side}-seg",
            type=Path,
            metavar="SEG",
            help=f"canonical labels of the {exam} exam (1 necrosis, 2 oedema, 3 enhancing, 4 cavity), on its T1c "
            f"grid; {ignored} do not count in the similarity",
        )
    parser.add_argument(
        "--fixed-csf",
        type=Path,
        metavar="CSF",
        help="CSF map of the pre-operative exam, for the check of the ventricles",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=IMAGE[,TRANSFORM]",
        help="image in the space of the follow-up T1c, or on its own grid with the ITK transform from that space to "
        "its own, so that it is interpolated once. T1c is written in place of --moving, and labels named dseg in "
        "place of --moving-seg",
    )
    parser.add_argument(
        "--interpolation",
        choices=["linear", "bspline"],
        default="linear",
        help="of grey values (default: %(default)s)",
    )
    parser.add_argument(
        "--normalisation",
        choices=SCALES,
        default="percentile",
        help="of images with a transform, ADC left out, in the pre-operative brain (default: %(default)s)",
    )
    methods = "; ".join(f"{name}: {text}" for name, (_, _, text) in METHODS.items())
    parser.add_argument(
        "--moving-labels",
        default="canonical",
        metavar="CONVENTION",
        help="label convention of --moving-seg; what is written is canonical (default: %(default)s)",
    )
    parser.add_argument("--method", choices=METHODS, default="ncc", help=f"{methods} (default: ncc)")
    parser.add_argument(
        "--dirac-weights",
        type=Path,
        metavar="FILE",
        help="weights of DIRAC's network, for --method dirac (default: instance optimisation alone); "
        "docs/registration.md says where they come from",
    )
    parser.add_argument("--out-prefix", required=True, metavar="P", help="start of the files to write")
    parser.add_argument("--quality", type=Path, metavar="JSON", help="measures to write")
    parser.add_argument(
        "--picture", type=Path, metavar="PNG", help="picture to write: both exams, in squares"
    )
    parser.add_argument("--seed", type=int, default=1, help="for syn (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="cores (default: 1)")
    add_failure_options(parser)
    args = parser.parse_args()
    return run_reporting(lambda: run(args), args, model="", stage=f"register follow-up ({args.method})")


if __name__ == "__main__":
    sys.exit(main())
