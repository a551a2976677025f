"""The list of models: reading and checking its entries, running one model, checking the map it returns."""

from __future__ import annotations

import importlib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictgbm.exam import Exam
from predictgbm.growth import ModelError, Prediction
from predictgbm.images import Image, ImageError, conform, describe
from predictgbm.labels import to_canonical


class ModelListError(ValueError):
    """A list of models or one of its entries is faulty; the message has one line per fault."""


@dataclass(frozen=True)
class Model:
    """One entry of the list of models; ``assets/schema_models.json`` says what each field means."""

    name: str
    title: str
    description: str
    citation: str
    inputs: tuple[str, ...]
    output: str
    cpus: int
    memory: str
    time: str
    doi: str = ""
    optional_inputs: tuple[str, ...] = ()
    family: str = ""
    function: str = ""
    training: str = ""
    container: str = ""
    gpu: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Model:
        """Build a model from an entry that the schema has accepted.

        Raises
        ------
        ModelListError
            If a field is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        needed = {"name", "title", "description", "citation", "inputs", "output", "cpus", "memory", "time"}
        if faults := sorted((needed - set(entry)) | (set(entry) - known)):
            raise ModelListError(
                f"model entry '{entry.get('name', '?')}': field missing or unknown: {', '.join(faults)}"
            )
        lists = {key: tuple(entry.get(key, ())) for key in ("inputs", "optional_inputs")}
        return cls(**{**entry, **lists})

    def entry(self) -> dict[str, Any]:
        """Return the entry as JSON values, without what is empty."""
        return {
            key: list(v) if isinstance(v, tuple) else v
            for key, v in asdict(self).items()
            if v not in ("", (), {})
        }


def read_models(
    path: str | os.PathLike[str],
    schema: str | os.PathLike[str],
    external: str | os.PathLike[str] | None = None,
    select: Sequence[str] | None = None,
) -> dict[str, Model]:
    """Read a list of models, and the user's own beside it.

    Parameters
    ----------
    path
        ``assets/models.yml``.
    schema
        JSON schema of both files, ``assets/schema_models.json``.
    external
        A second file of the same schema, whose names must be new.
    select
        Names to keep, in this order; all by default.

    Returns
    -------
    dict
        Model by name, in the order of the files or of ``select``.

    Raises
    ------
    ModelListError
        With every fault of the files, one per line as ``file: model: field: what is wrong``, or the unknown
        names.
    """
    rules = json.loads(Path(schema).read_text(encoding="utf-8"))
    models: dict[str, Model] = {}
    faults: list[str] = []
    for file in [path] if external is None else [path, external]:
        for model in _read_list(Path(file), rules, faults):
            if model.name in models:
                faults.append(f"{file}: {model.name}: name: is taken by another model, choose a new one")
            else:
                models[model.name] = model
    if faults:
        raise ModelListError("\n".join(faults))
    if select is None:
        return models
    if unknown := [name for name in select if name not in models]:
        raise ModelListError(f"unknown model {', '.join(unknown)}; known are {', '.join(models)}")
    return {name: models[name] for name in select}


def _read_list(path: Path, rules: dict[str, Any], faults: list[str]) -> list[Model]:
    import jsonschema
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelListError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelListError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    found = sorted(
        jsonschema.Draft202012Validator(rules).iter_errors(content), key=lambda e: [str(p) for p in e.path]
    )
    for fault in found:
        steps = list(fault.path)
        name = ""
        if len(steps) >= 2:
            entry = content["models"][steps[1]]
            name = f"{entry.get('name', steps[1]) if isinstance(entry, dict) else steps[1]}: "
        field_path = steps[2:] if len(steps) > 1 else steps
        where = ".".join(map(str, field_path)) + ": " if field_path else ""
        faults.append(f"{path}: {name}{where}{explain(fault)}")
    return [] if found else [Model.from_entry(entry) for entry in content["models"]]


def explain(error: Any) -> str:
    """Say in words what a fault found by a JSON schema is."""
    if error.validator == "not":
        return "does not belong here; leave it out"
    if error.validator == "oneOf":
        return "needs either 'container', or 'function' and 'family', not both"
    note = error.schema.get("description", "") if error.validator == "pattern" else ""
    return f"{error.message}{f' ({note})' if note else ''}"


def parse_entry(text: str) -> Model:
    """Read one entry given as JSON, or as the name of a JSON file.

    Raises
    ------
    ModelListError
        If it is not a JSON object, or a field is missing or unknown.
    """
    try:
        entry = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelListError(f"the model entry is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise ModelListError("the model entry is not a JSON object")
    return Model.from_entry(entry)


def load_function(model: Model) -> Callable[..., Prediction]:
    """Import the function of a model.

    Raises
    ------
    ModelListError
        If the model is a container, its function cannot be imported, or does not take what the entry lists.
    """
    if not model.function:
        raise ModelListError(
            f"model '{model.name}' is a container, {model.container}; only the pipeline runs it"
        )
    module, _, name = model.function.partition(":")
    try:
        function: Callable[..., Prediction] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ModelListError(f"model '{model.name}': cannot import {model.function}: {error}") from error
    given = dict.fromkeys([*model.inputs, *model.optional_inputs, "spacing", "seed", *model.parameters])
    if model.training:
        given |= dict.fromkeys(["weights", "patient"])
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise ModelListError(
            f"model '{model.name}': {model.function} does not take what its entry lists "
            f"({', '.join(given)}): {error}"
        ) from error
    return function


def predict(
    model: Model, exam: Exam, seed: int = 0, *, weights: Path | None = None, patient: str = ""
) -> tuple[Prediction, dict[str, str]]:
    """Run one model on one exam and check its map.

    Only the declared inputs are read, the optional ones where the exam has them.

    Parameters
    ----------
    model, exam, seed
        What to run on what.
    weights
        Folder that a training of the model left. A model that learns from a cohort needs it.
    patient
        Whose exam it is: a model that learns from a cohort uses only networks that never saw this patient.

    Returns
    -------
    prediction
        Map on the grid of the exam's brain mask, float32, and what the model inferred.
    inputs
        File name by input that was used.

    Raises
    ------
    ImageError, LabelError
        If an input is absent or unusable, or the map is.
    ModelError
        If the model refuses the exam.
    ModelListError
        If the function cannot be had, or returns something else than a :class:`Prediction`.
    """
    function = load_function(model)
    options: dict[str, Any] = {} if weights is None else {"weights": weights}
    if model.training:
        if weights is None or not patient:
            raise ModelError(
                f"{model.title} needs the folder that its training left (--weights) and the patient's name (--patient)"
            )
        options["patient"] = patient
    present = {name: path for name in model.optional_inputs if (path := exam.path(name)) is not None}
    arrays = {name: exam.array(name) for name in [*model.inputs, *present]}
    if "tumor_seg" in arrays:
        arrays["tumor_seg"] = to_canonical(arrays["tumor_seg"])
    prediction = function(**arrays, spacing=exam.reference.spacing, seed=seed, **model.parameters, **options)
    if not isinstance(prediction, Prediction):
        raise ModelListError(
            f"{model.function} returned {type(prediction).__name__}, expected a growth.Prediction"
        )
    for what, array in (("map", prediction.map), ("spread", prediction.spread)):
        if array is not None and np.shape(array) != exam.reference.shape:
            raise ImageError(
                f"{what} of model '{model.name}' has shape {np.shape(array)}, the exam {exam.reference.shape}"
            )
    values = np.asarray(prediction.map)
    checked = check_map(Image(values, exam.reference.affine, f"map of model '{model.name}'"), exam.reference)
    used = {name: path.name for name in arrays if (path := exam.path(name)) is not None}
    return prediction._replace(map=checked, parameters=dict(prediction.parameters)), used


def check_map(score: Image, reference: Image) -> NDArray[np.float32]:
    """Check a score map, and return it in the voxel order of the exam.

    Parameters
    ----------
    score
        Map of any numeric type; the higher a voxel, the earlier it is planned.
    reference
        The exam's brain mask. The map may have its axes in another order, not another grid.

    Returns
    -------
    float32 array of the reference's shape

    Raises
    ------
    ImageError
        If the grids differ (the message names both), a value is NaN or infinite, or the brain has one value.
    """
    data = conform(score, reference).data
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(data, np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        count = int(values.size - finite.sum())
        raise ImageError(
            f"{score.name}: {count} voxels are NaN, infinite or beyond float32; nothing can be ranked by them"
        )
    brain = values[reference.data != 0]
    if brain.size == 0:
        raise ImageError(f"{reference.name}: the brain mask is empty ({describe(reference)})")
    if brain.min() == brain.max():
        raise ImageError(
            f"{score.name}: the whole brain has the same value, {brain.min():g}; nothing can be ranked by it"
        )
    return values


__all__ = ["Model", "ModelError", "ModelListError", "check_map", "load_function", "predict", "read_models"]
