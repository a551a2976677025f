"""The RO-Crate of a run: what RO-Crate 1.1 and Process Run Crate ask of its structure."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from predictgbm.tables import TABLES

ROOT = Path(__file__).resolve().parents[2]
Graph = dict[str, dict[str, Any]]


def describe(folder: Path, *, pictures: bool, **parameters: str) -> Graph:
    tables = folder / "tables"
    tables.mkdir()
    for name in ("metrics.csv", "metrics.parquet", "data_dictionary.csv", "foreign.csv"):
        (tables / name).touch()
    (tables / "statistics.json").write_text('{"simulated": true}')
    private = {"atlas": "here", "input": "Miller.csv", "weights": "/data/miller", "slurm_account": "miller"}
    (folder / "params.json").write_text(
        json.dumps({"seed": 3, "atlas_space": "SRI24", "n4": False, **private, **parameters})
    )
    if pictures:
        (folder / "pictures").mkdir()
    options = (
        "--tables tables --parameters params.json --version 1.2.3 --nextflow 25.04.0 --pictures pictures"
    )
    command = [sys.executable, str(ROOT / "bin" / "describe_run.py"), *options.split(), "--out", "crate.json"]
    subprocess.run(command, cwd=folder, check=True)
    crate = json.loads((folder / "crate.json").read_text())
    assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
    ids = [entity["@id"] for entity in crate["@graph"]]
    assert len(ids) == len(set(ids))
    return {entity["@id"]: entity for entity in crate["@graph"]}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return describe(tmp_path_factory.mktemp("crate"), pictures=True)


def references(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield item["@id"]


def test_each_reference_leads_to_an_entity_that_is_reached_from_the_root(graph: Graph) -> None:
    reached, new = set(), {"ro-crate-metadata.json"}
    while new:
        reached |= new
        new = {i for name in new for value in graph[name].values() for i in references(value)} - reached
        new.discard("https://w3id.org/ro/crate/1.1")
    assert reached == set(graph)


def test_root_and_action_have_what_the_profiles_require(graph: Graph) -> None:
    root = graph["./"]
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert {"name", "description", "datePublished", "license", "conformsTo"} <= root.keys()
    assert root["name"].endswith("simulated patients")
    assert datetime.fromisoformat(root["datePublished"]).tzinfo
    (action,) = [entity for entity in graph.values() if entity["@type"] == "CreateAction"]
    assert root["mentions"] == {"@id": action["@id"]}
    tool = graph[action["instrument"]["@id"]]
    assert (tool["@type"], tool["version"]) == ("SoftwareApplication", "1.2.3")
    assert list(references(action["result"])) == list(references(root["hasPart"]))
    settings = {graph[i]["name"]: graph[i]["value"] for i in references(action["object"])}
    assert settings == {"seed": 3, "atlas_space": "SRI24", "n4": False}


def test_files_are_described_as_the_tables_are(graph: Graph) -> None:
    parts = {i: graph[i] for i in references(graph["./"]["hasPart"])}
    assert parts["tables/metrics.csv"]["description"] == TABLES["metrics"].description
    assert parts["tables/metrics.csv"]["encodingFormat"] == "text/csv"
    assert "tables/foreign.csv" not in parts
    assert {name for name, part in parts.items() if part["@type"] == "Dataset"} == {
        "figures/",
        "viewer/",
        "qc/",
    }


def test_nothing_tells_of_machines_and_people(graph: Graph) -> None:
    told = json.dumps(graph)
    assert "iller" not in told
    assert "slurm" not in told


def test_a_run_without_patients_has_no_pages_of_patients(tmp_path: Path) -> None:
    graph = describe(tmp_path, pictures=False)
    assert not {"viewer/", "qc/"} & graph.keys()


@pytest.mark.parametrize(
    ("stated", "place"),
    [
        ("CC-BY-4.0", "https://spdx.org/licenses/CC-BY-4.0"),
        ("https://data.example/terms", "https://data.example/terms"),
        ("Apache-2.0", "https://spdx.org/licenses/Apache-2.0"),
    ],
)
def test_who_publishes_names_licence_and_authors(tmp_path: Path, stated: str, place: str) -> None:
    authors = "Anna de Vries-Núñez (0000-0002-1825-0097) ; B. O'Hara"
    graph = describe(tmp_path, pictures=False, results_license=stated, results_authors=authors)
    root = graph["./"]
    assert root["license"] == {"@id": place}
    assert graph[place]["@type"] == "CreativeWork"
    people = [graph[i] for i in references(root["author"])]
    assert [person["name"] for person in people] == ["Anna de Vries-Núñez", "B. O'Hara"]
    assert [person["@type"] for person in people] == ["Person"] * 2
    assert people[0]["@id"] == "https://orcid.org/0000-0002-1825-0097"
    assert "#licence" not in graph
    assert not any(entity.startswith("#parameter-results") for entity in graph)
    software = graph["https://spdx.org/licenses/Apache-2.0"]["description"]
    assert software == f"Licence of the software, {'and' if stated == 'Apache-2.0' else 'not'} of the results"


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("results_license", "CC-BY-4.0", True),
        ("results_license", "https://data.example/terms?v=2", True),
        ("results_license", "free for all", False),
        ("results_license", "https://x/'; rm", False),
        ("results_authors", "Anna de Vries (0000-0002-1825-0097); B. O'Hara", True),
        ("results_authors", "Anna de Vries(0000-0001-5109-370X)", True),
        ("results_authors", "Anna de Vries (0000-0002-1825)", False),
        ("results_authors", "Anna;", False),
        ("results_authors", "; Anna", False),
        ("results_authors", "<b>Anna</b>", False),
    ],
)
def test_what_is_accepted_as_licence_and_authors(name: str, text: str, accepted: bool) -> None:
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    (about,) = [part["properties"][name] for part in schema["$defs"].values() if name in part["properties"]]
    assert bool(re.fullmatch(about["pattern"], text)) == accepted
