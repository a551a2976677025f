#!/usr/bin/env python3
"""Convert one raw exam, DICOM or NIfTI, to a clean NIfTI file per contrast, each in its own native space.

A column of the row is a NIfTI file or a DICOM folder. The series of a mixed folder (column dicom) are sorted by
what they are; a column of its own goes before it. conversion.json lists every series and why it was chosen or
not. Diffusion series give adc.nii.gz where no ADC is given, and tensor.nii.gz (Dxx, Dxy, Dyy, Dxz, Dyz, Dzz
in RAS axes), both in 1e-6 mm2/s. brain_mask, tumor_seg and tissue_* have to lie on the grid of the T1c. Nothing
that identifies the patient is written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from predictgbm.cohort.exam_checks import GREY_COLUMNS, TISSUE_COLUMNS, is_label, needed_columns
from predictgbm.cohort.rows import find_files, read_row
from predictgbm.conversion.dicom import convert, find_series, is_dicom, read_series
from predictgbm.conversion.diffusion import diffusion_maps
from predictgbm.conversion.headers import (
    CONFLICT_MM,
    Diffusion,
    Placement,
    compact,
    read_diffusion,
    read_native,
)
from predictgbm.conversion.series import OPTIONAL, STRUCTURAL, Series, Verdict, sort_exam
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, MissingInputError, conform, write_image
from predictgbm.quality import Measure, write_quality
from predictgbm.report.overlays import draw_slices

#: Voxel edges above this are thicker slices than a brain exam has, in mm.
THICKEST_MM = 7.0
#: A brain does not fit into a box with a shorter edge, in mm.
SMALLEST_EXTENT_MM = 100.0
#: Median ADC of tissue, in 1e-6 mm2/s; outside, the map is in another unit.
ADC_LIMITS = (200.0, 4000.0)


@dataclass
class Conversion:
    """What has become of an exam so far; ``work`` is a folder for files that do not stay."""

    work: Path
    images: dict[str, Image] = field(default_factory=dict)
    placements: dict[str, Placement] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    sidecars: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tensor: tuple[NDArray[np.float32], NDArray[np.float64]] | None = None

    def judge(self, folder: str, verdicts: Iterable[Verdict]) -> None:
        """Keep verdicts for the table; ``folder`` is the column whose folder the series lie in."""
        self.verdicts += [{"folder": folder, **verdict.as_record()} for verdict in verdicts]

    def take_image(self, column: str, path: Path, source: str) -> None:
        """Take over a 3-D NIfTI file."""
        self.images[column], self.placements[column] = read_native(path)
        self.sources[column] = source

    def take_series(self, column: str, series: Series) -> None:
        """Convert and take over a DICOM series."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            path, sidecar = convert(series, Path(folder))
            source = f"DICOM series {series.number}"
            if column == "dti":
                bval, bvec = path.with_suffix(".bval"), path.with_suffix(".bvec")
                if not bval.exists() or not bvec.exists():
                    raise ImageError(
                        f"{series}: has no b-values; convert it yourself and give dti, dti_bval and dti_bvec"
                    )
                self.take_diffusion(read_diffusion(path, bval, bvec), source)
            else:
                self.take_image(column, path, source)
        self.sidecars[column] = {**sidecar, "ContrastAgent": bool(series.agent)}

    def take_diffusion(self, diffusion: Diffusion, source: str) -> None:
        """Make ADC and tensor of a diffusion series; a given ADC is kept."""
        adc, tensor = diffusion_maps(diffusion.data, diffusion.b_values, diffusion.directions)
        self.placements["dti"], self.sources["dti"] = diffusion.placement, source
        if tensor is not None:
            self.tensor = tensor, diffusion.affine
        if "adc" not in self.images:
            self.images["adc"] = Image(adc, diffusion.affine, "adc")
            self.placements["adc"], self.sources["adc"] = diffusion.placement, f"made of dti, {source}"

    def take_folder(self, column: str, path: Path) -> None:
        """Take over the DICOM folder of one column."""
        series, verdicts, doubt = find_series(path, column)
        verdicts.append(
            Verdict(series, column, "looks like another contrast" if doubt else "named by its column")
        )
        if doubt:
            self.warnings.append(f"{series} does not look like {column}; check the columns of the sheet")
        self.judge(column, verdicts)
        self.take_series(column, series)

    def take_exam(self, path: Path, given: set[str]) -> None:
        """Take over what the mixed folder of an exam holds of the columns that are not given by themselves."""
        found = read_series(path)
        columns, verdicts = sort_exam(found)
        for column in (*STRUCTURAL, *OPTIONAL):
            left = columns.get(column, [])
            if column in given:
                verdicts += [Verdict(s, "", f"{column} is given by its own column") for s in left]
            elif len(left) > 1 and column in STRUCTURAL:
                raise ImageError(
                    f"{path}: {len(left)} series could be {column}: {'; '.join(map(str, left))}; put the files of "
                    f"the wanted one into a folder of its own and name that in column {column}"
                )
            elif len(left) > 1:
                verdicts += [
                    Verdict(s, "", f"one of {len(left)} that could be {column}: left out") for s in left
                ]
                self.warnings.append(
                    f"{column} left out, as {len(left)} series could be it: {'; '.join(map(str, left))}; "
                    f"name the folder of the wanted one in column {column}"
                )
            elif left:
                try:
                    self.take_series(column, left[0])
                except ImageError as error:
                    if column in STRUCTURAL:
                        raise
                    self.warnings.append(f"{column} left out: {error}")
                    verdicts.append(Verdict(left[0], "", f"{column}: {error}"))
                else:
                    verdicts.append(Verdict(left[0], column, "the one series that looks like it"))
        self.judge("dicom", sorted(verdicts, key=lambda verdict: verdict.series.number))


def convert_exam(row: dict[str, Any], files: dict[str, Path], work: Path) -> Conversion:
    """Read everything a row gives and bring what belongs to the T1c onto its grid."""
    exam = Conversion(work)
    for column in GREY_COLUMNS:
        if column in files and is_dicom(files[column]):
            exam.take_folder(column, files[column])
        elif column in files:
            exam.take_image(column, files[column], "NIfTI")
    if "dti" in files and is_dicom(files["dti"]):
        exam.take_folder("dti", files["dti"])
    elif "dti" in files:
        if not {"dti_bval", "dti_bvec"} <= set(files):
            raise ImageError(f"{files['dti']}: has no b-values; fill in columns dti_bval and dti_bvec")
        exam.take_diffusion(read_diffusion(files["dti"], files["dti_bval"], files["dti_bvec"]), "NIfTI")
    if "dicom" in files:
        exam.take_exam(files["dicom"], set(files))

    missing = [column for column in needed_columns(row) if column not in exam.images]
    if missing:
        seen = "; ".join(
            f"series {v['series']} '{v['description']}': {v['column'] or v['reason']}" for v in exam.verdicts
        )
        raise MissingInputError(
            f"exam has no {', '.join(missing)}{f'; found {seen}' if seen else ''}; name the folder or file of "
            f"{'each' if len(missing) > 1 else 'it'} in its own column"
        )
    for column in files:
        if (is_label(column) or column in TISSUE_COLUMNS) and column != "registered_seg":
            kind = np.uint8 if is_label(column) else np.float32
            image, _ = read_native(files[column], kind)
            exam.images[column] = conform(image, exam.images["t1c"])
            exam.sources[column] = "NIfTI"
    return exam


def measure(exam: Conversion) -> list[Measure]:
    """Measure the grids of the contrasts."""
    measures = []
    for column in GREY_COLUMNS:
        if column not in exam.images:
            continue
        image, conflict = exam.images[column], exam.placements[column].conflict_mm
        extent = min(n * s for n, s in zip(image.shape, image.spacing, strict=True))
        thickest = int(np.argmax(image.spacing))
        measures += [
            Measure(
                f"{column}_slices", image.shape[thickest], f"slices of {column} along its largest voxel edge"
            ),
            Measure(
                f"{column}_voxel_mm", max(image.spacing), f"largest voxel edge of {column}", most=THICKEST_MM
            ),
            Measure(
                f"{column}_extent_mm",
                extent,
                f"shortest edge of the box {column} shows",
                least=SMALLEST_EXTENT_MM,
            ),
        ]
        if conflict > CONFLICT_MM:
            text = f"distance of the two positions that the header of {column} gives (sform, qform)"
            measures.append(Measure(f"{column}_header_conflict_mm", conflict, text, most=CONFLICT_MM))
    if "adc" in exam.images:
        positive = exam.images["adc"].data[exam.images["adc"].data > 0]
        median = float(np.median(positive)) if positive.size else float("nan")
        low, high = ADC_LIMITS
        text = "median ADC in 1e-6 mm2/s; outside its limits the map has another unit"
        measures.append(Measure("adc_median", median, text, least=low, most=high))
    measures.append(
        Measure("conversion_warnings", len(exam.warnings), "what the conversion had doubts about", most=0)
    )
    return measures


def write_exam(exam: Conversion, folder: Path) -> None:
    """Write images, sidecars and the table of series."""
    folder.mkdir(parents=True)
    for column, image in exam.images.items():
        data = image.data if image.data.dtype.kind in "bu" else compact(image.data)
        write_image(folder / f"{column}.nii.gz", data, image.affine)
    if exam.tensor is not None:
        write_image(folder / "tensor.nii.gz", *exam.tensor)
    for column, sidecar in exam.sidecars.items():
        _write_json(folder / f"{column}.json", sidecar)
    columns: dict[str, dict[str, Any]] = {}
    for column, source in exam.sources.items():
        columns[column] = {"source": source}
        if column in exam.placements:
            placement = exam.placements[column]
            columns[column] |= {"position": placement.source, "conflict_mm": round(placement.conflict_mm, 4)}
        if column in exam.images:
            image = exam.images[column]
            columns[column] |= {
                "shape": image.shape,
                "spacing_mm": [round(s, 4) for s in image.spacing],
                "axes": "".join(nib.aff2axcodes(image.affine)),
            }
    table = {"columns": columns, "series": exam.verdicts, "warnings": exam.warnings}
    _write_json(folder / "conversion.json", table)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def note(exam: Conversion) -> str:
    """Say what a reader has to know of the conversion."""
    notes = [
        f"The header of {column} gives two positions {placement.conflict_mm:.3g} mm apart; the {placement.source} "
        "was used. Look whether it fits the others after registration."
        for column, placement in exam.placements.items()
        if placement.conflict_mm > CONFLICT_MM
    ]
    return " ".join([*notes, *(f"{w[:1].upper()}{w[1:]}." for w in exam.warnings)])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--row", type=Path, required=True, help="JSON of the exam's row, as validate_samplesheet.py makes it"
    )
    parser.add_argument(
        "--out-dir", type=Path, required=True, help="folder to make; one of this name is replaced"
    )
    parser.add_argument("--quality", type=Path, required=True, help="JSON to write: measures of the grids")
    parser.add_argument(
        "--picture", type=Path, required=True, help="PNG to write: middle slices of each contrast"
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="NIfTI files and DICOM folders of the exam"
    )
    add_failure_options(parser)
    args = parser.parse_args()
    row = read_row(args)

    def work() -> None:
        args.out_dir.parent.mkdir(parents=True, exist_ok=True)
        exam = convert_exam(row, find_files(row, args.files), args.out_dir.parent)
        # The folder appears when it is complete, so that nothing reads half an exam.
        partial = args.out_dir.with_name(f"{args.out_dir.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        write_exam(exam, partial)
        write_quality(args.quality, row["meta"], "conversion", measure(exam), note=note(exam))
        shown = {column: exam.images[column] for column in GREY_COLUMNS if column in exam.images}
        draw_slices(args.picture, shown, f"{row['meta']['id']}: contrasts as they came")
        shutil.rmtree(args.out_dir, ignore_errors=True)
        partial.rename(args.out_dir)

    return run_reporting(work, args, model="", stage="convert exam")


if __name__ == "__main__":
    sys.exit(main())
