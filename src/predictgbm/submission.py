"""The manifest of a submission to a leaderboard: a container, or a folder of finished maps."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from predictgbm.images import Image, ImageError
from predictgbm.models import check_map, explain

#: File with the checksum of each map, as ``sha256sum *.nii.gz > SHA256SUMS`` writes it.
SUMS = "SHA256SUMS"
MAP_SUFFIXES = (".nii.gz", ".nii")


class SubmissionError(ValueError):
    """A manifest is faulty; the message has one line per fault."""


@dataclass(frozen=True)
class Submission:
    """A manifest that the schema has accepted: its fields, and the file it was read from."""

    path: Path
    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.fields["name"])

    @property
    def image(self) -> str:
        """Image by its digest, so that no other can be started; a .sif file by its path."""
        container = str(self.fields["container"])
        if container.endswith(".sif"):
            return str((self.path.parent / container).absolute())
        # Not every engine takes a tag beside a digest.
        place, slash, name = container.partition("@")[0].rpartition("/")
        return f"{place}{slash}{name.partition(':')[0]}@{self.fields['digest']}"

    @property
    def folder(self) -> Path:
        """Folder of the maps."""
        return self.path.parent / str(self.fields["folder"])

    def entry(self, model_fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of a list of models for a container, of the fields that such an entry has."""
        return {key: found for key, found in self.fields.items() if key in model_fields} | {
            "container": self.image
        }


def read_submission(path: str | os.PathLike[str], assets: str | os.PathLike[str]) -> Submission:
    """Read a manifest and check it.

    Parameters
    ----------
    path
        ``submission.yml``.
    assets
        Folder with ``schema_submission.json`` and ``schema_models.json``, which it refers to.

    Raises
    ------
    SubmissionError
        With every fault, one per line as ``file: field: what is wrong``.
    """
    import jsonschema
    import yaml
    from referencing import Registry, Resource

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SubmissionError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SubmissionError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    rules, models = (
        json.loads((Path(assets) / name).read_text(encoding="utf-8"))
        for name in ("schema_submission.json", "schema_models.json")
    )
    registry: Any = Registry().with_resource("schema_models.json", Resource.from_contents(models))
    validator = jsonschema.Draft202012Validator(rules, registry=registry)
    faults = sorted(validator.iter_errors(content), key=lambda fault: [str(step) for step in fault.path])
    if faults:
        places = (".".join(map(str, fault.path)) for fault in faults)
        raise SubmissionError(
            "\n".join(
                f"{path}: {f'{place}: ' if place else ''}{explain(fault)}"
                for place, fault in zip(places, faults, strict=True)
            )
        )
    return Submission(path, content)


def read_sums(folder: Path) -> dict[str, str]:
    """Return the checksum of each file that :data:`SUMS` names.

    Raises
    ------
    SubmissionError
        If it is absent or a line is not a checksum and a name.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise SubmissionError(
            f"{path}: cannot be read ({error.strerror}); make it in that folder by sha256sum *.nii.gz > {SUMS}"
        ) from error
    sums = {}
    for number, text in enumerate(lines, 1):
        checksum, _, name = text.strip().partition(" ")
        if not checksum:
            continue
        if len(checksum) != 64 or not name:
            raise SubmissionError(f"{path}:{number}: is not a checksum and a name, as sha256sum writes them")
        sums[name.lstrip(" *").removeprefix("./")] = checksum
    return sums


def _maps(folder: Path) -> list[tuple[str, Path]]:
    """Return patient and file of each map, by the names of the files; a patient may have several."""
    return [
        (path.name.removesuffix(suffix).removeprefix("sub-"), path)
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if (suffix := next((suffix for suffix in MAP_SUFFIXES if path.name.endswith(suffix)), None))
    ]


def map_files(folder: Path) -> dict[str, Path]:
    """Return the map of each patient: ``001.nii.gz`` or ``sub-001.nii.gz`` is that of patient 001."""
    return dict(_maps(folder))


def checksum_faults(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the checksums of a folder of maps."""
    try:
        sums = read_sums(folder)
    except SubmissionError as error:
        yield str(error)
        return
    maps = _maps(folder)
    taken = dict(maps)
    for patient, path in maps:
        if taken[patient] != path:
            yield f"{path}: is of the same patient as {taken[patient].name}; send one map of each patient"
    names = {path.name: path for _, path in maps}
    for name in sorted(sums.keys() - names.keys()):
        yield f"{folder / name}: is named in {SUMS} and not there; send it, or make {SUMS} again"
    for name, path in names.items():
        if name not in sums:
            yield f"{path}: is not named in {SUMS}; make {SUMS} again"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sums[name].lower():
            yield f"{path}: has another checksum than in {SUMS}; the copy is damaged or changed, send it again"


def map_fault(score: Image, brain: Image) -> str | None:
    """Return why a finished map cannot be planned on; None if it can.

    Parameters
    ----------
    score
        The map.
    brain
        Brain mask of the exam, 0 outside.
    """
    try:
        values = check_map(score, brain)
    except ImageError as error:
        return str(error)
    if not np.any(values[brain.data != 0]):
        return f"{score.name}: every voxel of the brain is 0"
    return None
