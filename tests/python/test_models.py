import importlib.util
import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml

from predictgbm.images import Image, ImageError
from predictgbm.models import Model, ModelListError, check_map, load_function, parse_entry, read_models

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "assets/models.yml"
SCHEMA = ROOT / "assets/schema_models.json"

ENTRY = {
    "name": "other",
    "title": "Other",
    "description": "Another model.",
    "citation": "A paper",
    "inputs": ["tumor_seg", "t1c"],
    "output": "probability",
    "container": "registry.example/other:1.0",
    "cpus": 1,
    "memory": "2 GB",
    "time": "5 min",
}


def written(folder, *entries):
    path = folder / "mine.yml"
    path.write_text(yaml.safe_dump({"models": list(entries)}), encoding="utf-8")
    return path


def test_shipped_models_are_valid_and_their_functions_take_what_is_listed():
    models = read_models(MODELS, SCHEMA)
    assert list(models)[:4] == ["soc", "distance", "loti", "fisherkpp"]
    trains = all(importlib.util.find_spec(name) for name in ("torch", "monai", "nnunetv2"))
    for model in models.values():
        assert model.title
        assert model.citation
        if model.family != "learning" or trains:
            assert callable(load_function(model))


def test_external_models_come_after_the_shipped(tmp_path):
    models = read_models(MODELS, SCHEMA, external=written(tmp_path, ENTRY))
    assert list(models)[-1] == "other"
    assert models["other"].container == "registry.example/other:1.0"
    assert models["other"].inputs == ("tumor_seg", "t1c")


def test_selection_keeps_its_order_and_names_the_unknown():
    assert list(read_models(MODELS, SCHEMA, select=["loti", "soc"])) == ["loti", "soc"]
    with pytest.raises(ModelListError, match=r"unknown model lotti, x; known are soc, distance"):
        read_models(MODELS, SCHEMA, select=["lotti", "soc", "x"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": ["tumor_seg", "swi"]}, r"mine\.yml: other: inputs\.1: 'swi' is not one of"),
        ({"cpus": 0}, r"mine\.yml: other: cpus: 0 is less than the minimum of 1"),
        ({"memory": "lots"}, r"other: memory: 'lots' does not match .*such as 2 GB"),
        ({"name": "My Model"}, r"My Model: name: .*lower-case"),
        ({"name": "soc"}, r"soc: name: is taken"),
        ({"name": "guideline"}, r"guideline: name: .*the guideline's own plan"),
        ({"function": "a.b:c", "family": "growth"}, r"other: needs either 'container', or 'function'"),
        ({"container": None}, r"other: container: None is not of type 'string'"),
        ({"colour": "red"}, r"other: .*'colour' was unexpected"),
        ({"title": ...}, r"other: 'title' is a required property"),
        ({"doi": "https://doi.org/10.1/x"}, r"other: doi"),
    ],
)
def test_faulty_entry_is_named_with_field_and_fault(tmp_path, change, said):
    entry = {key: value for key, value in (ENTRY | change).items() if value is not ...}
    with pytest.raises(ModelListError, match=said):
        read_models(MODELS, SCHEMA, external=written(tmp_path, entry))


def test_every_fault_is_listed_at_once(tmp_path):
    path = written(tmp_path, ENTRY | {"cpus": "two", "output": "colour"}, ENTRY | {"name": "b", "inputs": []})
    with pytest.raises(ModelListError) as caught:
        read_models(MODELS, SCHEMA, external=path)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [", "is not YAML"),
        ("", "None is not of type 'object'"),
        ("- name: x", "is not of type 'object'"),
        ("models:\n  - soc", "'soc' is not of type 'object'"),
        ("models: []", r"mine\.yml: models: \[\]"),
    ],
)
def test_file_that_is_no_list_of_models(tmp_path, text, said):
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(ModelListError, match=said):
        read_models(path, SCHEMA)


def test_missing_file(tmp_path):
    with pytest.raises(ModelListError, match=r"absent\.yml: cannot be read"):
        read_models(tmp_path / "absent.yml", SCHEMA)


def test_entry_survives_json_inline_and_as_file(tmp_path):
    for model in read_models(MODELS, SCHEMA, external=written(tmp_path, ENTRY)).values():
        text = json.dumps(model.entry())
        assert parse_entry(text) == model
        (tmp_path / "entry.json").write_text(f"    {text}\n")
        assert parse_entry(str(tmp_path / "entry.json")) == model


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"name": "x"}', json.dumps(ENTRY | {"colour": 1})])
def test_entry_that_is_none(tmp_path, text):
    with pytest.raises(ModelListError, match="entry"):
        parse_entry(text)


def test_function_that_is_not_there_or_takes_something_else(tmp_path, monkeypatch):
    (tmp_path / "given_models.py").write_text("def predict(*, tumor_seg, spacing, seed): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = {key: value for key, value in ENTRY.items() if key != "container"} | {"family": "growth"}

    def model(**change):
        return Model.from_entry(entry | change)

    assert load_function(model(function="given_models:predict", inputs=["tumor_seg"]))
    for change, said in (
        ({"function": "no_such_module:predict"}, "cannot import"),
        ({"function": "given_models:forecast"}, "cannot import"),
        ({"function": "given_models:predict"}, r"does not take what its entry lists \(tumor_seg, t1c"),
        ({"function": "given_models:predict", "inputs": []}, "tumor_seg"),
    ):
        with pytest.raises(ModelListError, match=said):
            load_function(model(**change))
    with pytest.raises(ModelListError, match="container"):
        load_function(Model.from_entry(ENTRY))


@pytest.fixture
def brain():
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = 10, -20, 5
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[1:5, 1:6, 1:7] = 1
    return Image(mask, affine, "brain.nii.gz")


def test_map_with_other_axes_is_turned(brain):
    values = np.random.default_rng(0).random(brain.shape)
    # First axis of the file: the exam's last, reversed; then the exam's first and second.
    stored = np.ascontiguousarray(np.moveaxis(values, (0, 1, 2), (1, 2, 0))[::-1])
    affine = brain.affine @ np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 7], [0, 0, 0, 1.0]])
    result = check_map(Image(stored, affine, "map.nii.gz"), brain)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, values.astype(np.float32))


@pytest.mark.parametrize("fault", ["shape", "origin", "spacing"])
def test_map_on_another_grid_is_refused_with_both_names(brain, fault):
    values, affine = np.random.default_rng(0).random(brain.shape), brain.affine.copy()
    if fault == "shape":
        values = values[:-1]
    elif fault == "origin":
        affine[0, 3] += 0.5
    else:
        affine[2, 2] = 2.1
    with pytest.raises(ImageError, match=r"map\.nii\.gz and brain\.nii\.gz"):
        check_map(Image(values, affine, "map.nii.gz"), brain)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_map_with_a_value_that_cannot_be_ranked(brain, value):
    values = np.random.default_rng(0).random(brain.shape)
    values[0, 0, :2] = value
    with pytest.raises(ImageError, match=r"map\.nii\.gz: 2 voxels are NaN, infinite"):
        check_map(Image(values, brain.affine, "map.nii.gz"), brain)


def test_map_that_is_constant_in_the_brain(brain):
    values = np.random.default_rng(0).random(brain.shape)
    values[brain.data == 1] = 0.25
    with pytest.raises(ImageError, match=r"the same value, 0\.25"):
        check_map(Image(values, brain.affine, "map.nii.gz"), brain)


def test_integer_map_is_accepted(brain):
    values = np.arange(np.prod(brain.shape), dtype=np.int16).reshape(brain.shape)
    np.testing.assert_array_equal(check_map(Image(values, brain.affine, "m"), brain), values)


def test_the_example_of_the_documentation_is_valid(tmp_path):
    text = (ROOT / "docs/add_a_model.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    assert len(blocks) >= 2
    for block in blocks:
        block = textwrap.dedent(block)
        if not block.startswith("models:"):
            block = "models:\n" + textwrap.indent(block, "  ")
        (tmp_path / "doc.yml").write_text(block)
        assert read_models(tmp_path / "doc.yml", SCHEMA)
