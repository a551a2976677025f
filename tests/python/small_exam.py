"""A small exam in a small atlas space, 6 mm voxels, for tests that need files."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SHAPE = (28, 34, 26)
AFFINE = np.array([[-6.0, 0, 0, 81], [0, -6, 0, 102], [0, 0, 6, -75], [0, 0, 0, 1]])  # LPS voxel order


def world(shape: tuple[int, ...] = SHAPE, affine: NDArray[Any] = AFFINE) -> NDArray[np.float64]:
    """Return the position of every voxel centre, in mm."""
    points: NDArray[np.float64] = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    return points


def radius(shape: tuple[int, ...] = SHAPE, affine: NDArray[Any] = AFFINE) -> NDArray[np.float64]:
    """Return the distance from the centre in units of the brain's, which ends at 1."""
    value: NDArray[np.float64] = np.sqrt(((world(shape, affine) / (60, 75, 55)) ** 2).sum(axis=-1))
    return value


def tumor(shape: tuple[int, ...] = SHAPE, affine: NDArray[Any] = AFFINE) -> NDArray[np.uint8]:
    """Return labels of a tumour in the right hemisphere: necrosis, enhancing rim, oedema."""
    distance = np.linalg.norm(world(shape, affine) - (25, 10, 5), axis=-1)
    return np.select([distance < 9, distance < 16, distance < 25], [1, 3, 2], 0).astype(np.uint8)


def arrays(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the images of an exam by column."""
    rng = np.random.default_rng(seed)
    brain = radius() < 1
    labels = tumor()
    images: dict[str, NDArray[Any]] = {
        column: (brain * (level + 20 * rng.random(SHAPE) + weight * (labels > 0))).astype(np.float32)
        for column, level, weight in (("t1", 100, -30), ("t1c", 110, 60), ("t2", 80, 50), ("flair", 90, 70))
    }
    return {**images, "tumor_seg": labels}


def save(path: Path, data: NDArray[Any], affine: NDArray[Any] = AFFINE) -> Path:
    """Write an image with nibabel alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def write_exam(folder: Path, images: dict[str, NDArray[Any]] | None = None) -> dict[str, Path]:
    """Write the images of an exam and return their files by column."""
    return {c: save(folder / f"{c}.nii.gz", data) for c, data in (images or arrays()).items()}


def row(files: dict[str, Path], role: str = "preop", **values: Any) -> dict[str, Any]:
    """Return the samplesheet row of an exam whose files are given by name."""
    session, days = ("pre", 0) if role == "preop" else ("fu1", 120)
    meta = {"id": f"sub-007_ses-{session}", "patient": "007", "session": session, "cohort": "A", "role": role}
    return {
        "line": 5,
        "meta": {**meta, "days": days},
        "files": {column: path.name for column, path in files.items()},
        "scores": {},
        "tumor_labels": "canonical",
        "registered_labels": "canonical",
        **values,
    }


def run_command(name: str, *arguments: str | Path) -> int:
    """Run a command of bin/ in this process, for speed, and return its exit status."""
    before = sys.argv
    sys.argv = [name, *map(str, arguments)]
    try:
        runpy.run_path(str(Path(__file__).resolve().parents[2] / "bin" / name), run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file and return its path."""
    path.write_text(json.dumps(content), "utf-8")
    return path


def tissue(shape: tuple[int, ...] = SHAPE, affine: NDArray[Any] = AFFINE) -> dict[str, NDArray[np.float64]]:
    """Return tissue maps of nested shells, CSF outside, white matter inside and off the centre on every axis."""
    csf = np.clip((radius(shape, affine) - 0.8) / 0.1, 0, 1)
    gm = np.clip((np.linalg.norm(world(shape, affine) - (9, -14, 6), axis=-1) - 25) / 12, 0, 1)
    return {"csf": csf, "gm": gm * (1 - csf), "wm": (1 - gm) * (1 - csf)}


def name_space(folder: Path, space: str = "SRI24") -> Path:
    """Let an atlas folder name its space."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_json(folder / "manifest.json", {"space": space})


def write_atlas(
    folder: Path, shape: tuple[int, ...] = SHAPE, affine: NDArray[Any] = AFFINE, space: str = "SRI24"
) -> Path:
    """Write an atlas of the maps of :func:`tissue`."""
    name_space(folder, space)
    maps = tissue(shape, affine)
    brain = radius(shape, affine) < 1
    for name, data in maps.items():
        save(folder / f"label-{name.upper()}_probseg.nii.gz", (data * brain).astype(np.float32), affine)
    t1 = 100 * maps["wm"] + 60 * maps["gm"] + 20 * maps["csf"]
    save(folder / "T1w.nii.gz", (t1 * brain).astype(np.float32), affine)
    return folder
