#!/usr/bin/env python3
"""Time the radiomics of GlioMap on simulated exams with ADC, and pyradiomics on some of the same voxels if installed.

CPU-seconds. Per exam: the filters of five contrasts, and the features of every voxel of the peritumoral region in all
their images. Per 1,000 voxels of one image: here the least of several, over images; pyradiomics on the original FLAIR
in a cube of the region, with the same features, is given one try since it takes long.

    python benchmarks/gliomap.py --atlas ATLAS [--spacing 2 1] [--patient 1]
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from predictgbm.atlas import load_atlas
from predictgbm.growth.compilation import threads
from predictgbm.learned import gliomap, radiomics
from predictgbm.simulation import Simulator

#: Voxels of a chunk, of those that are timed one chunk at a time, and edge of the cube that pyradiomics gets.
CHUNK, TIMED, CUBE = 10_000, 3, 8


def pyradiomics_seconds(
    image: NDArray[np.float32], region: NDArray[np.bool_], spacing: radiomics.Spacing
) -> tuple[float, int] | None:
    """Return the CPU-seconds of pyradiomics in a cube of the region, and its voxels; None where it is not installed."""
    try:
        from radiomics.featureextractor import RadiomicsFeatureExtractor
    except ImportError:
        return None
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    extractor = RadiomicsFeatureExtractor(
        binWidth=radiomics.BIN_WIDTH, voxelArrayShift=radiomics.SHIFT, kernelRadius=1, voxelBatch=500
    )
    extractor.disableAllFeatures()
    groups: dict[str, list[str]] = {}
    for feature in radiomics.FEATURES:
        group, name = feature.split("_")
        groups.setdefault(group, []).append(name)
    extractor.enableFeaturesByName(**groups)
    places = np.argwhere(region)
    start = places[len(places) // 2] - CUBE // 2
    mask = np.zeros(region.shape, np.uint8)
    mask[tuple(slice(s, s + CUBE) for s in start)] = 1
    mask *= region
    images = [SimpleITK.GetImageFromArray(array.T.copy()) for array in (image, mask)]
    for array in images:
        array.SetSpacing([float(s) for s in spacing])
    began = time.process_time()
    extractor.execute(*images, voxelBased=True)
    return time.process_time() - began, int(mask.sum())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", required=True, type=Path, metavar="DIR")
    parser.add_argument("--spacing", nargs="+", type=float, default=[2.0, 1.0], metavar="MM")
    parser.add_argument("--patient", type=int, default=1, help="number of the simulated patient")
    args = parser.parse_args()
    atlas = load_atlas(args.atlas)
    print("spacing   voxels  images  filters  features  exam    per 1,000  pyradiomics  ratio")
    for h in args.spacing:
        exam = Simulator(atlas, h).patient(2025, args.patient, adc=True).preop
        spacing = (h, h, h)
        contrasts = {name: exam.images[name].astype(np.float32) for name in gliomap.CONTRASTS}
        with threads(1):
            began = time.process_time()
            around = gliomap.survey(contrasts, exam.tumor_seg, exam.brain_mask, spacing)
            filters = time.process_time() - began
            at = np.flatnonzero(around.region)
            images = len(around.radiomics.names) // len(radiomics.FEATURES)
            each = []
            # The first compiles.
            for start in np.linspace(0, max(0, at.size - CHUNK), TIMED + 1).astype(int):
                voxels = np.zeros(around.region.size, bool)
                voxels[at[start : start + CHUNK]] = True
                began = time.process_time()
                around.describe(voxels.reshape(around.region.shape))
                each.append((time.process_time() - began) / voxels.sum() / images * 1000)
        one = min(each[1:])
        features = float(np.mean(each[1:])) * at.size * images / 1000
        flair = radiomics.normalise_contrast(contrasts["flair"], exam.brain_mask)
        theirs = pyradiomics_seconds(flair, around.region, spacing)
        shown = ("not installed", "")
        if theirs:
            per_1000 = theirs[0] / theirs[1] * 1000
            shown = (f"{per_1000:.1f}", f"{per_1000 / one:.0f}")
        print(
            f"{h:4.1f} mm {at.size:8d} {images:7d} {filters:8.1f} {features:9.1f} {filters + features:6.1f} "
            f"{one:10.4f} {shown[0]:>12} {shown[1]:>6}",
            flush=True,
        )


if __name__ == "__main__":
    main()
