"""A prepared exam folder: which file holds what, and a lazy reader for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictgbm.images import Image, ImageError, MissingInputError, conform, read_image
from predictgbm.tensors import along_axes

#: Name of an input -> how its file name ends. All files of one exam share one prefix and one grid.
SUFFIXES: dict[str, str] = {
    "t1": "T1w",
    "t1c": "ce-GD_T1w",
    "t2": "T2w",
    "flair": "FLAIR",
    "adc": "ADC",
    "pet": "pet",
    "tensor": "param-tensor_dwimap",
    "brain_mask": "desc-brain_mask",
    "tumor_seg": "desc-tumor_dseg",
    "wm": "label-WM_probseg",
    "gm": "label-GM_probseg",
    "csf": "label-CSF_probseg",
}

#: Beginning of the samplesheet's columns with masks of organs at risk; the organ's name follows.
ORGAN = "oar_"

#: Volumes of an input that has more than one. The diffusion tensor of water: Dxx, Dxy, Dyy, Dxz, Dyz, Dzz along right,
#: anterior, superior; any unit, 0 where not measured.
VOLUMES = {"tensor": 6}

#: Inputs that are masks or labels; all others are read as float32.
INTEGER_INPUTS = frozenset({"brain_mask", "tumor_seg"})


def file_name(prefix: str, name: str) -> str:
    """Return the file name of input ``name`` for an exam called ``prefix``."""
    return f"{prefix}_{SUFFIXES[name]}.nii.gz"


def organ_file_name(prefix: str, organ: str) -> str:
    """Return the file name of the mask of an organ at risk for an exam called ``prefix``."""
    return f"{prefix}_label-{organ}_mask.nii.gz"


def organ_files(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the masks of organs at risk in a prepared exam folder, by organ."""
    found = sorted(Path(folder).glob("*_label-*_mask.nii.gz"))
    return {path.name.rsplit("_label-", 1)[1].removesuffix("_mask.nii.gz"): path for path in found}


def model_name(path: str | os.PathLike[str]) -> str:
    """Return the model a map or plan belongs to, from the entity ``model-<name>`` of its file name.

    Raises
    ------
    ImageError
        If the file name has no such entity.
    """
    for entity in Path(path).name.split("_"):
        if entity.startswith("model-"):
            return entity.removeprefix("model-")
    raise ImageError(
        f"{path}: file name has no entity model-<name>, expected for example *_model-soc_probseg.nii.gz"
    )


class Exam:
    """Read-only view of a prepared exam folder.

    Parameters
    ----------
    folder
        Folder with the files of one exam; see :data:`SUFFIXES`.

    Raises
    ------
    ImageError
        From :meth:`image` and :meth:`array`, if an input is absent, ambiguous, unreadable or on another grid.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ImageError(f"{self.folder}: exam folder does not exist")
        self._reference: Image | None = None

    def path(self, name: str) -> Path | None:
        """Return the file of input ``name``, or None if the exam has none."""
        # "_T1w" alone would also match the contrast-enhanced image.
        found = [
            path
            for path in sorted(self.folder.glob(f"*_{SUFFIXES[name]}.nii.gz"))
            if name != "t1" or "_ce-" not in path.name
        ]
        if len(found) > 1:
            raise ImageError(
                f"{self.folder}: {len(found)} files for input '{name}': {', '.join(p.name for p in found)}"
            )
        return found[0] if found else None

    def image(self, name: str) -> Image:
        """Read input ``name``, in the voxel order of the brain mask."""
        path = self.path(name)
        if path is None:
            raise MissingInputError(
                f"{self.folder}: no file for input '{name}', expected *_{SUFFIXES[name]}.nii.gz"
            )
        dtype = np.uint8 if name in INTEGER_INPUTS else np.float32
        image = read_image(path, dtype, VOLUMES.get(name, 1))
        if self._reference is None:
            self._reference = image if name == "brain_mask" else self.image("brain_mask")
        return conform(image, self._reference)

    def array(self, name: str) -> NDArray[Any]:
        """Read input ``name`` as an array; the brain mask as bool, the tensor along the axes of the array."""
        image = self.image(name)
        data = image.data
        if name == "tensor":
            return along_axes(data, image.affine)
        return data.astype(bool) if name == "brain_mask" else data

    @property
    def reference(self) -> Image:
        """Brain mask of the exam, whose grid every input and every map shares."""
        if self._reference is None:
            self.image("brain_mask")
        assert self._reference is not None
        return self._reference
