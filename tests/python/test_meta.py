"""Every module and subworkflow is described by its meta.yml as its main.nf declares it, and has a test and a stub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "modules" / "local").glob("*/*/main.nf"))
SUBWORKFLOWS = sorted((ROOT / "subworkflows" / "local").glob("*/main.nf"))
SECTIONS = ("input", "output", "script", "stub", "take", "main", "emit")


def name(path: Path) -> str:
    return "/".join(path.parent.parts[path.parent.parts.index("local") + 1 :])


def meta(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.with_name("meta.yml").read_text(encoding="utf-8"))


def without_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"^\s*//.*$|\s//.*$", "", text, flags=re.MULTILINE)


def section(path: Path, title: str) -> str:
    """Return the text of a labelled section of the (one) process or workflow of a file, without comments."""
    text = without_comments(path.read_text(encoding="utf-8"))
    text = re.search(r"^(?:process|workflow) \w+ \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE).group(1)
    later = "|".join(SECTIONS)
    found = re.search(rf"^    {title}:\n(.*?)(?=^    (?:{later}):\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return found.group(1) if found else ""


def elements(declaration: str) -> list[str]:
    """Return what ``val x``, ``path(y, stageAs: ...)`` or ``tuple ...`` declares, in order."""
    return [
        quoted or bare
        for quoted, bare in re.findall(r"\b(?:val|path)[ (]\s*(?:[\"']([^\"']+)[\"']|(\w+))", declaration)
    ]


def declared(path: Path, title: str) -> Iterator[tuple[str | None, bool, list[str]]]:
    """Yield emit name, whether it is a tuple, and elements of every line of a process section."""
    for line in section(path, title).strip().splitlines():
        emit = re.search(r"\bemit: (\w+)", line)
        yield (
            emit.group(1) if emit else None,
            line.strip().startswith("tuple"),
            elements(line.split(", emit:")[0]),
        )


def described(entry: Any) -> tuple[bool, list[str]]:
    """Return whether meta.yml describes a tuple, and the names of its elements."""
    if isinstance(entry, list):
        return True, [key for element in entry for key in element]
    return False, list(entry)


def leaves(entries: Any) -> Iterator[dict[str, Any]]:
    for entry in entries:
        for element in entry if isinstance(entry, list) else [entry]:
            yield from element.values()


@pytest.fixture(scope="module")
def parameters() -> dict[str, dict[str, Any]]:
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    return {key: value for part in schema["$defs"].values() for key, value in part["properties"].items()}


@pytest.fixture(scope="module")
def settings() -> str:
    """Text of all configuration of the processes."""
    return "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "conf" / "modules").glob("*.config"))
    )


def test_all_modules_and_subworkflows_are_looked_at() -> None:
    assert len(MODULES) >= 15
    assert len(SUBWORKFLOWS) >= 10
    assert len({name(path) for path in MODULES + SUBWORKFLOWS}) == len(MODULES + SUBWORKFLOWS)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module_inputs_and_outputs(path: Path) -> None:
    described_meta = meta(path)
    inputs = [(is_tuple, names) for _, is_tuple, names in declared(path, "input")]
    assert inputs, "no input found in main.nf"
    assert [described(entry) for entry in described_meta["input"]] == inputs
    outputs = {emit: [(is_tuple, names)] for emit, is_tuple, names in declared(path, "output")}
    assert None not in outputs, "an output without emit"
    assert {
        emit: [described(entry) for entry in entries] for emit, entries in described_meta["output"].items()
    } == outputs


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module_options(path: Path, parameters: dict[str, dict[str, Any]], settings: str) -> None:
    """Every ``task.ext`` the process reads is described, with the parameters and the defaults it really has."""
    process = re.search(r"^process (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE).group(1)
    described_ext = {key: value for entry in meta(path).get("ext", []) for key, value in entry.items()}
    assert set(described_ext) == set(re.findall(r"task\.ext\.(\w+)", path.read_text(encoding="utf-8")))
    # A selector's own block ends at the next selector; the first may be of aliases too.
    block = re.search(rf"withName: '{process}(?:\|[^']*)?' \{{(.*?)(?=withName:|\Z)", settings, re.DOTALL)
    for key, entry in described_ext.items():
        line = re.search(rf"ext\.{key}\s*=(.*)", block.group(1)) if block else None
        configured = line.group(1) if line else ""
        options = {flag: value for option in entry.get("options", []) for flag, value in option.items()}
        assert set(re.findall(r"--[a-z][a-z0-9-]+", configured)) == set(options)
        for flag, option in [*options.items(), *([(key, entry)] if "parameter" in entry else [])]:
            parameter = parameters[option["parameter"]]
            assert f"params.{option['parameter']}" in configured, flag
            assert option.get("default") == parameter.get("default"), flag
            assert option["type"] == parameter["type"], flag
            if "enum" in parameter:
                assert option["choices"] == parameter["enum"], flag
            if flag in options and option["type"] != "boolean" and "default" in option:
                assert f"{flag} {option['default']}" in entry["default"]


def test_no_free_text_becomes_part_of_a_command(parameters: dict[str, dict[str, Any]], settings: str) -> None:
    """A parameter in the options of a command is a number or one of a few words, or its signs are checked."""
    used = {
        found
        for line in re.findall(r"ext\.\w+\s*=(.*)", settings)
        for found in re.findall(r"params\.(\w+)", line)
    }
    assert len(used) > 10
    for found in sorted(used):
        about = parameters[found]
        assert about["type"] != "string" or about.keys() & {"enum", "pattern"}, found


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module_description(path: Path) -> None:
    entry = meta(path)
    assert entry["name"] == name(path).replace("/", "_")
    process = re.search(r"^process (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert process == entry["name"].upper()
    assert len(entry["description"]) > 30
    assert len(entry["keywords"]) >= 3
    for tool in entry["tools"]:
        for text in tool.values():
            assert text["homepage"].startswith("https://")
            assert text["licence"]
            assert text["description"]
    for leaf in [
        *leaves(entry["input"]),
        *(leaf for out in entry["output"].values() for leaf in leaves(out)),
    ]:
        assert leaf["type"] in {"map", "file", "directory", "integer", "number", "string", "boolean"}
        assert leaf["description"]


@pytest.mark.parametrize("path", SUBWORKFLOWS, ids=name)
def test_subworkflow_description(path: Path) -> None:
    entry = meta(path)
    assert entry["name"] == name(path)
    assert len(entry["description"]) > 30
    assert len(entry["keywords"]) >= 3
    takes = section(path, "take").split()
    assert [key for element in entry["input"] for key in element] == takes
    emits = re.findall(r"^    (\w+)", section(path, "emit"), re.MULTILINE)
    assert [key for element in entry["output"] for key in element] == emits
    for leaf in leaves(entry["input"] + entry["output"]):
        assert leaf["description"]
        assert leaf["structure"]
    included = re.findall(r"from '[./]*/modules/local/([\w/]+)/main\.nf'", path.read_text(encoding="utf-8"))
    assert entry["components"] == included


@pytest.mark.parametrize("path", MODULES + SUBWORKFLOWS, ids=name)
def test_has_an_nf_test_that_runs_it_for_real_and_as_stub(path: Path) -> None:
    text = (path.parent / "tests" / "main.nf.test").read_text(encoding="utf-8")
    kind = "process" if path in MODULES else "workflow"
    component = re.search(
        r"^(?:process|workflow) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE
    ).group(1)
    assert text.startswith(f"nextflow_{kind} {{")
    assert 'script "../main.nf"' in text
    assert f'{kind} "{component}"' in text
    tests = re.split(r'^    test\("', text, flags=re.MULTILINE)[1:]
    stubs = [test for test in tests if 'options "-stub"' in test]
    assert stubs, "no stub test"
    assert len(tests) > len(stubs), "no test that runs it for real"
    for test in tests:
        assert "assert " in test
    script = re.findall(r'script "(?!\.\./main\.nf)([^"]+)"', text)
    assert all((ROOT / place).is_file() for place in script), script


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_stub_makes_every_required_output(path: Path) -> None:
    """An output that is not optional must be named in the stub, or match a name in it."""
    stub = section(path, "stub")
    assert stub.strip()
    outputs = section(path, "output").strip().splitlines()
    for line in outputs:
        if "optional: true" in line:
            continue
        for place in re.findall(r"path\(?\s*\"([^\"]+)\"", line):
            pattern = re.escape(place).replace(r"\*", r"\S*")
            assert re.search(pattern, stub), f"{place} is not made by the stub"
