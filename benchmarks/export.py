#!/usr/bin/env python3
"""Print the Dice of masks that were exported as RTSTRUCT and DICOM-SEG and read back by readers of others.

    python benchmarks/export.py [--series FOLDER ...] [--dcmrtstruct2nii PYTHON] [--dicomrttool PYTHON]
        [--plastimatch PROGRAM]

On simulated series (axial, sagittal, oblique) and on those of --series two regions are drawn: a ball of 28 mm and a
plan of ragged outline with holes and islands. Read they are by SimpleITK, which places the contours, and matplotlib,
which fills them; by highdicom; and by each reader that is named. Those are not among the requirements:

    python -m venv one && one/bin/pip install dcmrtstruct2nii "pydicom<3"     # --dcmrtstruct2nii one/bin/python
    python -m venv two && two/bin/pip install DicomRTTool                     # --dicomrttool two/bin/python
    apt-get install plastimatch                                               # --plastimatch plastimatch
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from predictgbm.export.dicom_seg import make_segmentation
from predictgbm.export.reference import Reference, Region, make_reference
from predictgbm.export.rtstruct import make_rtstruct
from predictgbm.images import Image, conform, read_image
from predictgbm.registration.transforms import LPS
from predictgbm.simulation.dicom import write_series

Mask = NDArray[np.bool_]
Read = Callable[[], Mapping[str, Image]]

#: Directions of columns, rows and slices in RAS, and size of voxels in mm.
SIMULATED = {
    "axial": (np.diag([-1.0, -1.0, 1.0]), (1.0, 1.0, 1.0)),
    "axial, thick": (np.diag([-1.0, -1.0, 1.0]), (0.9, 0.9, 3.0)),
    "sagittal": (np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), (1.0, 1.0, 1.0)),
    "oblique": (
        Rotation.from_euler("xyz", (17, -11, 29), degrees=True).as_matrix() @ np.diag([-1.0, -1.0, 1.0]),
        (0.9, 1.1, 2.5),
    ),
}
EXTENT_MM = 90.0
BALL_MM, PLAN_MM = 28.0, 44.0

#: Run by the Python of the reader's own environment: series, RTSTRUCT, folder to write to, names.
DCMRTSTRUCT2NII = """
import sys
from dcmrtstruct2nii import dcmrtstruct2nii
dcmrtstruct2nii(sys.argv[2], sys.argv[1], sys.argv[3], structures=sys.argv[4:], convert_original_dicom=False)
"""
DICOMRTTOOL = """
import os, shutil, sys
import SimpleITK
from DicomRTTool import DicomReaderWriter
series, rtstruct, out, *names = sys.argv[1:]
shutil.copytree(series, os.path.join(out, "in"))
shutil.copy(rtstruct, os.path.join(out, "in"))
reader = DicomReaderWriter(Contour_Names=[name.lower() for name in names], arg_max=False)
reader.walk_through_folders(os.path.join(out, "in"))
reader.get_images_and_mask()
for index, name in enumerate(names, 1):
    mask = SimpleITK.GetImageFromArray(reader.mask[..., index].astype("uint8"))
    mask.CopyInformation(reader.dicom_handle)
    SimpleITK.WriteImage(mask, os.path.join(out, f"mask_{name}.nii.gz"))
"""


def simulate(folder: Path, axes: NDArray[np.float64], spacing: tuple[float, ...]) -> Path:
    """Write a series of noise whose middle is the origin."""
    shape = tuple(round(EXTENT_MM / step) for step in spacing)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    data = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    identity = {"PatientID": "P1", "PatientName": "Simulated^P1"}
    write_series(folder, data, affine, {**identity, "SeriesNumber": 6, "SeriesDescription": "t1c"})
    return folder


def draw(grid: Image) -> list[Region]:
    """Return a ball in the middle of a series, and a plan around it whose outline is noise of 4 mm."""
    shape, affine = grid.shape, grid.affine
    offsets = np.indices(shape).reshape(3, -1).T - (np.array(shape) - 1) / 2
    distance = np.linalg.norm(offsets @ affine[:3, :3].T, axis=1).reshape(shape)
    noise = np.random.default_rng(1).standard_normal(shape)
    noise = ndimage.gaussian_filter(noise, [4 / step for step in grid.spacing])
    ragged = distance + 4 * noise / noise.std() < PLAN_MM / 2
    return [
        Region("ball", f"Ball of {BALL_MM:g} mm.", "tumor", (255, 0, 0), distance < BALL_MM / 2),
        Region("plan", "Ragged plan.", "model", (0, 0, 255), ragged),
    ]


def read_outlines(series: Path, rtstruct: Path) -> dict[str, Image]:
    """Place contours by SimpleITK and fill them by matplotlib, even-odd."""
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    image = SimpleITK.ReadImage(names)
    columns, rows, _ = image.GetSize()
    centres = np.indices((columns, rows)).reshape(2, -1).T
    dataset, masks = pydicom.dcmread(rtstruct), {}
    for roi, contours in zip(dataset.StructureSetROISequence, dataset.ROIContourSequence, strict=True):
        mask = np.zeros(image.GetSize(), bool)
        for contour in contours.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3).tolist()
            index = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points])
            inside = Outline(index[:, :2], closed=False).contains_points(centres)
            mask[:, :, round(index[0, 2])] ^= inside.reshape(columns, rows)
        masks[roi.ROIName] = Image(mask, LPS @ affine_of(image), "SimpleITK")
    return masks


def affine_of(image: SimpleITK.Image) -> NDArray[np.float64]:
    """Return voxel index to LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def read_segments(segmentation: Path, reference: Reference) -> dict[str, Image]:
    """Read a DICOM-SEG by highdicom, each frame placed by the slice it was made from."""
    dataset = hd.seg.segread(segmentation)
    slices = [header.SOPInstanceUID for header in reference.datasets]
    pixels = dataset.get_pixels_by_source_instance(
        slices, assert_missing_frames_are_empty=True, ignore_spatial_locations=True
    )
    labels = [segment.SegmentLabel for segment in dataset.SegmentSequence]
    return {
        label: Image(pixels[..., n].transpose(2, 1, 0).astype(bool), reference.grid.affine, "highdicom")
        for n, label in enumerate(labels)
    }


def read_elsewhere(
    command: list[str], series: Path, rtstruct: Path, names: list[str], out: Path
) -> dict[str, Image]:
    """Have another program write masks, and read them."""
    out.mkdir()
    if command[-1] == "convert":
        image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(series)))
        SimpleITK.WriteImage(image, out / "fixed.nii.gz")
        options = ["--input", str(rtstruct), "--fixed", str(out / "fixed.nii.gz")]
        options += ["--prefix-format", "nii.gz", "--output-prefix", f"{out}/mask"]
    else:
        options = [str(series), str(rtstruct), str(out), *names]
    subprocess.run([*command, *options], check=True, capture_output=True)
    return {name: read_image(next(out.rglob(f"*{name}.nii.gz"))) for name in names}


def dice(found: Image, region: Region, grid: Image) -> float:
    mask = conform(Image(found.data > 0, found.affine, found.name), grid).data
    return float(2 * (mask & region.mask).sum() / (mask.sum() + region.mask.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=Path, nargs="*", default=[], help="folders of one DICOM series each")
    parser.add_argument("--dcmrtstruct2nii", metavar="PYTHON", help="Python that has dcmrtstruct2nii")
    parser.add_argument("--dicomrttool", metavar="PYTHON", help="Python that has DicomRTTool")
    parser.add_argument("--plastimatch", metavar="PROGRAM")
    args = parser.parse_args()
    programs = {
        "dcmrtstruct2nii": [args.dcmrtstruct2nii, "-c", DCMRTSTRUCT2NII] if args.dcmrtstruct2nii else [],
        "DicomRTTool": [args.dicomrttool, "-c", DICOMRTTOOL] if args.dicomrttool else [],
        "plastimatch": [args.plastimatch, "convert"] if args.plastimatch else [],
    }
    print(f"{'series':<14}{'reader':<18}{'format':<10}{'ball':>8}{'plan':>8}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        series = {name: simulate(work / name.replace(", ", "_"), *how) for name, how in SIMULATED.items()}
        for name, place in [*series.items(), *((place.name, place) for place in args.series)]:
            headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(place.iterdir())]
            reference = make_reference(headers)
            regions = draw(reference.grid)
            rtstruct, segmentation = work / "rtstruct.dcm", work / "seg.dcm"
            make_rtstruct(regions, reference).save_as(rtstruct, enforce_file_format=True)
            make_segmentation(regions, reference).save_as(segmentation)
            rois = [f"RES_{region.name}" for region in regions]
            readers: dict[tuple[str, str], Read] = {
                ("SimpleITK", "RTSTRUCT"): partial(read_outlines, place, rtstruct),
                ("highdicom", "SEG"): partial(read_segments, segmentation, reference),
            }
            for program, command in programs.items():
                if command:
                    out = work / f"{program}-{place.name}"
                    readers[program, "RTSTRUCT"] = partial(
                        read_elsewhere, command, place, rtstruct, rois, out
                    )
            for (reader, form), read in readers.items():
                found = read()
                values = [
                    dice(found[roi], region, reference.grid)
                    for roi, region in zip(rois, regions, strict=True)
                ]
                print(f"{name:<14}{reader:<18}{form:<10}" + "".join(f"{value:>8.4f}" for value in values))


if __name__ == "__main__":
    main()
