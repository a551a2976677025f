"""What a run leaves, described for machines: an RO-Crate with the profile Process Run Crate.

The files of single patients are not listed one by one; names of patients, machines and folders stay out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from predictgbm.tables import TABLES

Entity = dict[str, Any]

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
NAME = "PREDICT-GBM: maps, plans and scores"
RUN, NO_LICENCE, CODE = "#run", "#licence", "https://github.com/predict-gbm/predictgbm"
SPDX, SOFTWARE_LICENCE = "https://spdx.org/licenses/", "Apache-2.0"

#: Encoding formats by ending: media types as registered at IANA, Parquet's as proposed by its project.
FORMATS = {
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
VIEWER, PICTURES = OF_PATIENTS = ("viewer/", "qc/")
#: What a run leaves beside its tables, as in docs/output.md. Folders end in a slash.
OUTPUTS = {
    "multiqc/multiqc_report.html": ("Report", "Report of the run: coverage of each model and its tests"),
    "figures/": ("Figures", "Each figure of the report as SVG, and its numbers as CSV"),
    "tables/data_dictionary.csv": ("Data dictionary", "Type, unit and meaning of each column of each table"),
    "tables/statistics.json": (
        "Statistics",
        "Seed, family of tests, patient flow, tests of the ranking, remarks",
    ),
    "pipeline_info/params.json": ("Parameters", "Parameters of the run"),
    "pipeline_info/models.json": ("Models", "Entries of the models that took part"),
    "dataset_description.json": ("BIDS description", "What made the folder, for readers of BIDS derivatives"),
    VIEWER: ("Viewers", "One page per patient: exam, labels, maps, plans and recurrence as layers"),
    PICTURES: ("Pictures", "One picture per patient, and one per exam and step"),
}
#: Parameters that tell of machines and folders rather than of the results.
PRIVATE = {"atlas", "input", "outdir", "publish_dir_mode"}
#: Parameters that tell how the results are published: they are properties of the crate.
PUBLICATION = {"results_license", "results_authors"}
PRIVATE_GROUPS = ("aws_", "container_", "google_", "k8s_", "slurm_")


def parse_authors(text: str) -> list[tuple[str, str]]:
    """Take ``Name (ORCID); Name`` apart: name and ORCID of each author, the latter empty where there is none."""
    found = [re.fullmatch(r"\s*([^(]*?)\s*(?:\((.*)\))?\s*", part) for part in text.split(";")]
    return [(match[1], match[2] or "") for match in found if match and match[1]]


def make_crate(
    tables: Iterable[str],
    parameters: Mapping[str, Any],
    versions: Mapping[str, str],
    finished: datetime,
    patients: bool = True,
    simulated: bool = False,
) -> dict[str, Any]:
    """Describe a run.

    Parameters
    ----------
    tables
        Names of the table files, such as ``metrics.csv``; of each that is one of :data:`predictgbm.tables.TABLES`
        the description is that table's.
    parameters
        Parameters of the run. Paths and what :data:`PRIVATE` and :data:`PRIVATE_GROUPS` name are left out;
        ``results_license`` (SPDX identifier or address) and ``results_authors`` (:func:`parse_authors`) are those of
        the crate.
    versions
        Versions of ``predictgbm`` and ``nextflow``.
    finished
        When the run ended, with its time zone.
    patients
        Whether there are pictures and viewer pages of patients.
    simulated
        Whether the patients are simulated.

    Returns
    -------
    dict
        Content of ``ro-crate-metadata.json``.

    References
    ----------
    Soiland-Reyes et al. 2022, Packaging research artefacts with RO-Crate, https://doi.org/10.3233/DS-210053;
    Leo et al. 2024, Recording provenance of workflow runs with RO-Crate, https://doi.org/10.1371/journal.pone.0309210.
    """
    parts = [_part(name, *about) for name, about in OUTPUTS.items() if patients or name not in OF_PATIENTS]
    parts += [
        _part(f"tables/{file}", f"Table {stem}", TABLES[stem].description)
        for file in sorted(tables)
        if (stem := file.rpartition(".")[0]) in TABLES
    ]
    settings = [
        {
            "@id": f"#parameter-{name}",
            "@type": "PropertyValue",
            "name": name,
            "value": value if isinstance(value, int | float | str) else str(value),
        }
        for name, value in sorted(parameters.items())
        if _public(name, value)
    ]
    nextflow = {
        "@id": "https://www.nextflow.io/",
        "@type": "SoftwareApplication",
        "name": "Nextflow",
        "url": "https://www.nextflow.io/",
        "version": versions["nextflow"],
    }
    workflow = {
        "@id": CODE,
        "@type": "SoftwareApplication",
        "name": "PREDICT-GBM",
        "description": "Benchmark of glioblastoma growth models against the recurrence that came",
        "url": CODE,
        "version": versions["predictgbm"],
        "license": {"@id": SPDX + SOFTWARE_LICENCE},
        "softwareRequirements": {"@id": nextflow["@id"]},
    }
    run = {
        "@id": RUN,
        "@type": "CreateAction",
        "name": "Run of PREDICT-GBM",
        "description": "Maps and plans of each model, scored against the recurrence",
        "endTime": finished.isoformat(timespec="seconds"),
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "instrument": {"@id": CODE},
        "object": _references(settings),
        "result": _references(parts),
    }
    licence, own = _licence(str(parameters.get("results_license") or ""))
    authors: list[Entity] = [
        {
            "@id": f"https://orcid.org/{orcid}" if orcid else f"#author-{place}",
            "@type": "Person",
            "name": name,
        }
        for place, (name, orcid) in enumerate(parse_authors(str(parameters.get("results_authors") or "")), 1)
    ]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{NAME}{' of simulated patients' if simulated else ''}",
        "description": "Growth models of glioblastoma, judged by the recurrence that came. The folders sub-<patient> "
        "hold maps, plans and prepared exams as BIDS derivatives; they are not listed one by one.",
        "datePublished": finished.isoformat(timespec="seconds"),
        "conformsTo": {"@id": PROFILE},
        "license": {"@id": licence},
        **({"author": _references(authors)} if authors else {}),
        "hasPart": _references(parts),
        "mentions": {"@id": RUN},
    }
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": SPECIFICATION},
        "about": {"@id": "./"},
    }
    named = [
        {
            "@id": PROFILE,
            "@type": "CreativeWork",
            "name": "Process Run Crate",
            "version": PROFILE.rpartition("/")[2],
        },
        *own,
        {
            "@id": SPDX + SOFTWARE_LICENCE,
            "@type": "CreativeWork",
            "name": "Apache License 2.0",
            "description": f"Licence of the software, {'not' if own else 'and'} of the results",
        },
    ]
    graph = [descriptor, root, run, workflow, nextflow, *named, *authors, *parts, *settings]
    return {"@context": CONTEXT, "@graph": graph}


def _licence(stated: str) -> tuple[str, list[Entity]]:
    """Return the identifier of the licence of the results, and its entity unless it is that of the software."""
    if not stated:
        about = (
            "Who publishes these results decides on what terms, and names the licence by --results_license."
        )
        return NO_LICENCE, [
            {"@id": NO_LICENCE, "@type": "CreativeWork", "name": "No licence yet", "description": about}
        ]
    place = stated if "://" in stated else SPDX + stated
    if place == SPDX + SOFTWARE_LICENCE:
        return place, []
    about = "Licence of the results, not of the software"
    return place, [{"@id": place, "@type": "CreativeWork", "name": stated, "description": about}]


def _part(place: str, name: str, description: str) -> Entity:
    if place.endswith("/"):
        return {"@id": place, "@type": "Dataset", "name": name, "description": description}
    form = FORMATS[place.rpartition(".")[2]]
    return {
        "@id": place,
        "@type": "File",
        "name": name,
        "description": description,
        "encodingFormat": form,
    }


def _public(name: str, value: Any) -> bool:
    private = name in PRIVATE | PUBLICATION or name.startswith(PRIVATE_GROUPS) or "/" in str(value)
    return value is not None and not private


def _references(entities: Iterable[Entity]) -> list[Entity]:
    return [{"@id": entity["@id"]} for entity in entities]
