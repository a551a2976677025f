"""BraTS algorithms as containers: what an exam looks like to them, and what to make of their output.

Names, mounts and calls follow the challenge's own containers (Kofler F, Rosier M, Astaraki M, et al. BraTS
orchestrator: democratizing and disseminating state-of-the-art brain tumor image analysis. arXiv:2506.13807, 2025).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml
from numpy.typing import NDArray

from predictgbm.images import Image, ImageError, conform, read_image
from predictgbm.labels import LabelError, parse_convention, to_canonical

#: Our contrast -> theirs.
CONTRASTS = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f"}
#: Voxel order of BraTS images. Networks see the array and not its header, so theirs must be met.
ORIENTATION = "LPS"
PHASES = ("preop", "followup")


class AlgorithmError(ValueError):
    """An entry of the list of algorithms cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Algorithm:
    """One entry of assets/tumor_algorithms.yml, whose head says what each field means."""

    name: str
    image: str
    phase: str
    call: str
    suffix: Mapping[str, str]
    labels: str
    year: int = 0
    digest: str | None = None
    space: str | None = None
    gpu: str = "required"
    shm: str = "2g"
    root: bool = False
    weights: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] | None = None
    citation: str = ""

    @property
    def reference(self) -> str:
        """Image as an engine is asked for it: by digest where one is given."""
        if not self.digest:
            return self.image
        last = self.image.rsplit("/", 1)[-1]
        name = self.image[: len(self.image) - len(last)] + last.split(":")[0]
        return f"{name}@{self.digest}"

    def subject(self, phase: str) -> str:
        """Return the name an exam of this phase has for the algorithm.

        Raises
        ------
        AlgorithmError
            If the algorithm was not trained on exams of this phase.
        """
        if self.phase not in ("both", phase) or phase not in self.suffix:
            raise AlgorithmError(
                f"{self.name} segments {self.phase} exams and this one is {phase}; choose an algorithm of its phase"
            )
        return f"BraTS-GLI-00000-{self.suffix[phase]}"

    @property
    def mounts(self) -> dict[str, str]:
        """Folder of the task -> place in the container, ``:ro`` where it is read-only."""
        if self.call == "direct":
            return {"input": "/input:ro", "output": "/output"}
        return {
            "input": "/mlcube_io0:ro",
            "weights": "/mlcube_io1:ro",
            "output": "/mlcube_io2",
            "parameters": "/mlcube_io3:ro",
        }

    @property
    def arguments(self) -> list[str]:
        """What follows the image on the command line."""
        if self.call == "direct":
            return []
        result = ["infer", "--data_path=/mlcube_io0", "--output_path=/mlcube_io2"]
        for option, path in (self.weights or {}).get("arguments", {}).items():
            result.append(f"--{option}=/mlcube_io1/{path}".rstrip("/"))
        if self.parameters is not None:
            result.append("--parameters_file=/mlcube_io3/parameters.yml")
        return result


def make_algorithm(entry: Mapping[str, Any]) -> Algorithm:
    """Check an entry and return it as an :class:`Algorithm`.

    Raises
    ------
    AlgorithmError
        If a field is missing, unknown, or has a value out of its list.
    """
    name = entry.get("name", "an entry without name")
    known = {f.name for f in fields(Algorithm)}
    if unknown := sorted(set(entry) - known):
        raise AlgorithmError(
            f"{name}: unknown field {', '.join(unknown)}; fields are {', '.join(sorted(known))}"
        )
    try:
        algorithm = Algorithm(**entry)
    except TypeError as error:
        raise AlgorithmError(f"{name}: {error}; see the head of assets/tumor_algorithms.yml") from error
    choices = {
        "phase": (algorithm.phase, (*PHASES, "both")),
        "call": (algorithm.call, ("mlcube", "direct")),
        "gpu": (algorithm.gpu, ("required", "optional")),
    }
    for key, (value, allowed) in choices.items():
        if value not in allowed:
            raise AlgorithmError(f"{name}: {key} is '{value}', expected {' or '.join(allowed)}")
    for phase in PHASES if algorithm.phase == "both" else (algorithm.phase,):
        algorithm.subject(phase)
    if algorithm.digest and not algorithm.digest.startswith("sha256:"):
        raise AlgorithmError(f"{name}: digest is '{algorithm.digest}', expected sha256:...")
    try:
        parse_convention(algorithm.labels)
    except LabelError as error:
        raise AlgorithmError(f"{name}: {error}") from error
    return algorithm


def load_algorithms(path: str | os.PathLike[str]) -> dict[str, Algorithm]:
    """Read the list of algorithms; name -> entry.

    Raises
    ------
    AlgorithmError
        If the file is missing or not such a list, or an entry is wrong or named twice.
    """
    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
        entries = content["algorithms"]
        algorithms = [make_algorithm(entry) for entry in entries]
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise AlgorithmError(f"{path}: is not a list of algorithms ({error})") from error
    except AlgorithmError as error:
        raise AlgorithmError(f"{path}: {error}") from error
    names = [a.name for a in algorithms]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise AlgorithmError(f"{path}: {', '.join(twice)} is there more than once")
    return dict(zip(names, algorithms, strict=True))


def to_brats(image: Image) -> Image:
    """Bring an image to the voxel order of BraTS; nothing is interpolated."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(ORIENTATION)
    )
    data = nib.orientations.apply_orientation(image.data, turn)
    affine = image.affine @ nib.orientations.inv_ornt_aff(turn, image.shape)
    return Image(np.ascontiguousarray(data), affine, image.name)


def find_output(folder: str | os.PathLike[str], subject: str) -> Path:
    """Return the segmentation an algorithm wrote: the file with the exam's name, or the only one.

    Raises
    ------
    ImageError
        If there is none, or several of other names.
    """
    found = sorted(p for p in Path(folder).rglob("*") if p.name.endswith((".nii.gz", ".nii")))
    named = [p for p in found if p.name.split(".")[0] == subject]
    chosen = named or found
    if len(chosen) != 1:
        names = ", ".join(p.name for p in found) or "nothing"
        raise ImageError(f"the algorithm should have written {subject}.nii.gz and wrote {names}; see its log")
    return chosen[0]


def read_output(path: str | os.PathLike[str], algorithm: Algorithm, reference: Image) -> NDArray[np.uint8]:
    """Read a segmentation, bring it to the grid of the exam and make its labels canonical.

    Raises
    ------
    ImageError
        If it is unreadable or on another grid.
    LabelError
        If it holds labels its convention does not know.
    """
    image = conform(read_image(path, np.uint8), reference)
    try:
        return to_canonical(image.data, algorithm.labels)
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
