#!/usr/bin/env python3
"""Make the prepared folder of one pre-operative exam in atlas space.

All files are brought to the voxel order of the T1c and named sub-X_ses-Y_space-<atlas>_<suffix>.nii.gz; tumour
labels become canonical (1 necrosis, 2 oedema, 3 enhancing, 4 cavity), organs at risk are called
_label-<organ>_mask. Without a brain mask, the non-zero T1c is taken; without tissue maps, those of the atlas.
exam.json states what was given, what was derived, and volumes in ml.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from predictgbm.atlas import load_atlas, normalise_tissue, read_space
from predictgbm.cohort.exam_checks import read_column
from predictgbm.cohort.rows import find_files, read_row
from predictgbm.exam import ORGAN, file_name, organ_file_name
from predictgbm.failures import add_failure_options, run_reporting
from predictgbm.images import Image, ImageError, conform, read_image, write_image
from predictgbm.labels import CORE, region, to_canonical
from predictgbm.preprocessing import derive_brain_mask, tissue_prior
from predictgbm.volumes import tumor_volumes

TISSUES = ("wm", "gm", "csf")

#: Share of the tumour core outside the brain mask from which on exam.json warns.
CORE_OUTSIDE_WARNING = 0.01


def prepare(row: dict[str, Any], files: dict[str, Path], atlas: Path, folder: Path) -> dict[str, Any]:
    """Write the prepared exam and return what exam.json says of it."""
    meta = row["meta"]
    space = read_space(atlas)
    prefix = f"{meta['id']}_space-{space}"
    reference = read_image(files["t1c"])
    warnings = []
    # What earlier steps of the pipeline have made, where the samplesheet gave nothing.
    made = row.get("made") or {}

    def read(column: str) -> Any:
        return conform(read_column(column, files[column]), reference).data

    def write(name: str, data: Any) -> None:
        write_image(folder / file_name(prefix, name), data, reference.affine)

    organs = [column.removeprefix(ORGAN) for column in files if column.startswith(ORGAN)]
    for organ in organs:
        write_image(folder / organ_file_name(prefix, organ), read(f"{ORGAN}{organ}") > 0, reference.affine)

    inputs = [name for name in ("t1", "t1c", "t2", "flair", "adc", "pet", "tensor") if name in files]
    for name in inputs:
        # One image at a time in memory; T1 is needed again for the tissue maps.
        data = reference.data if name == "t1c" else read(name)
        write(name, data)
        if name == "t1":
            t1 = data

    labels = to_canonical(read("tumor_seg"), row["tumor_labels"])
    core = region(labels, CORE)
    if not core.any():
        raise ImageError(
            f"{files['tumor_seg']}: shows no tumour core (labels 1 and 3); check the segmentation"
        )
    write("tumor_seg", labels)

    given = "brain_mask" in files
    if not given and not reference.data.any():
        raise ImageError(
            f"{files['t1c']}: every voxel is zero, there is no brain to find; give another image"
        )
    brain = read("brain_mask") > 0 if given else derive_brain_mask(reference.data)
    write("brain_mask", brain)
    outside = np.count_nonzero(core & ~brain) / np.count_nonzero(core)
    if outside > CORE_OUTSIDE_WARNING:
        warnings.append(f"{outside:.0%} of the tumour core lie outside the brain mask")

    if all(f"tissue_{name}" in files for name in TISSUES):
        wm, gm, csf = (read(f"tissue_{name}") for name in TISSUES)
        wm, gm, csf = normalise_tissue(t1, wm, gm, csf, brain)
        facts = {"tissue": made.get("tissue", "given")}
    else:
        grid = Image(reference.data, reference.affine, files["t1c"].name)
        wm, gm, csf, facts = tissue_prior(load_atlas(atlas), grid, brain, t1)
        facts["tissue"] = "atlas prior"
    for tissue, data in zip(TISSUES, (wm, gm, csf), strict=True):
        write(tissue, data)

    return {
        **meta,
        "space": space,
        **facts,
        "brain_mask": made.get("brain_mask", "given") if given else "derived from T1c",
        "tumor_seg": made.get("tumor_seg", "given"),
        "tumor_labels": row["tumor_labels"],
        "brain_ml": np.count_nonzero(brain) * reference.voxel_ml,
        **tumor_volumes(labels, reference.voxel_ml),
        "shape": reference.shape,
        "spacing_mm": reference.spacing,
        "inputs": [*inputs, "tumor_seg", "brain_mask", *TISSUES],
        "organs": organs,
        "warnings": warnings,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--row", type=Path, required=True, help="JSON of the exam's row, as validate_samplesheet.py makes it"
    )
    parser.add_argument(
        "--atlas", type=Path, required=True, help="atlas folder, as prepare_atlas.py makes it"
    )
    parser.add_argument(
        "--out-dir", type=Path, required=True, help="folder to make; one of this name is replaced"
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="images of the exam (NIfTI)")
    add_failure_options(parser)
    args = parser.parse_args()
    row = read_row(args)

    def work() -> None:
        # The folder appears when it is complete, so that nothing reads half an exam.
        partial = args.out_dir.with_name(f"{args.out_dir.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        facts = prepare(row, find_files(row, args.files), args.atlas, partial)
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        (partial / "exam.json").write_text(text, "utf-8")
        shutil.rmtree(args.out_dir, ignore_errors=True)
        partial.rename(args.out_dir)

    return run_reporting(work, args, model="", stage="prepare exam")


if __name__ == "__main__":
    sys.exit(main())
