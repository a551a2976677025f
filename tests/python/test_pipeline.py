"""The pipeline as a user runs it: real Nextflow, real files, from samplesheet to report."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from predictgbm.images import read_image, same_grid, write_image
from predictgbm.labels import CORE, RECURRENCE, region
from predictgbm.leaderboard.merge import find_faults, merge, read_run
from predictgbm.segmentation.brats import to_brats

ROOT = Path(__file__).resolve().parents[2]
REAL_EXAM = ROOT.parent / "shared" / "data" / "brats2021_00001"
#: The models that take seconds, as in the profile test; the others have tests of their own, and one in default.nf.test.
MODELS = ["distance", "fisherkpp", "loti", "soc"]
QUICK = ("--models", ",".join(MODELS))
PATIENTS = 3

pytestmark = pytest.mark.pipeline


def run(cwd: Path, *arguments: object, status: int = 0, env: dict[str, str] | None = None) -> str:
    """Run the pipeline in ``cwd``, demand its exit status, and return what it printed."""
    cwd.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [str(ROOT / "predictgbm"), "run", *map(str, arguments)],
        cwd=cwd,
        env={**(env or os.environ), "NXF_ANSI_LOG": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == status, done.stdout[-6000:]
    return done.stdout


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def submitted(output: str) -> list[str]:
    """Names of the processes that ran, once per task; cached tasks are not among them."""
    return [name.split(":")[-1] for name in re.findall(r"Submitted process > (\S+)", output)]


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one benchmark on three simulated patients, run once for all tests that look at it."""
    folder = tmp_path_factory.mktemp("benchmark")
    run(folder, "-profile", "test,standard", "--outdir", "results")
    return folder


@pytest.fixture(scope="session")
def sheet(benchmark: Path) -> list[dict[str, str]]:
    """Rows of the simulated samplesheet with absolute paths."""
    simulated = benchmark / "results" / "simulated"
    table = rows(simulated / "samplesheet.csv")
    for row in table:
        for column, value in row.items():
            if value.endswith(".nii.gz"):
                row[column] = str(simulated / value)
        row["patient"] = row["patient"].removeprefix("sub-")
    return table


def write_sheet(path: Path, table: list[dict[str, str]], newline: str = "\n") -> Path:
    columns = list(dict.fromkeys(column for row in table for column in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator=newline, restval="")
        writer.writeheader()
        writer.writerows(table)
    return path


def preop(table: list[dict[str, str]], number: int) -> dict[str, str]:
    return [row for row in table if row["role"] == "preop"][number]


def test_benchmark_scores_every_model_of_every_patient(benchmark: Path) -> None:
    results = benchmark / "results"
    metrics = rows(results / "tables" / "metrics.csv")
    cohort = rows(results / "tables" / "cohort.csv")
    assert len(cohort) == PATIENTS
    evaluated = [row["patient"] for row in cohort if row["status"] == "evaluated"]
    assert evaluated, cohort
    assert sorted((row["patient"], row["model"]) for row in metrics) == sorted(
        (patient, model) for patient in evaluated for model in MODELS
    )
    assert rows(results / "tables" / "failures.csv") == []
    doses = {(row["patient"], row["model"]): row for row in rows(results / "tables" / "dose.csv")}
    assert sorted(doses) == sorted((row["patient"], row["model"]) for row in metrics)
    for row in metrics:
        # A plan that covers more than half of the recurrence gives half of it at least the edge's dose.
        if float(row["coverage_enhancing"]) > 0.5:
            assert float(doses[row["patient"], row["model"]]["recurrence_d50_gy"]) > 50
    assert rows(results / "tables" / "calibration.csv") == []
    # What a leaderboard reads of a run: it agrees with itself, and knows its models.
    own = read_run(results)
    assert sorted(own.entries) == MODELS
    assert find_faults([own, own]) == []
    assert len(merge([own, own])[0]) == len(metrics)


def test_results_are_described_for_those_who_publish_them(benchmark: Path) -> None:
    results = benchmark / "results"
    text = (results / "ro-crate-metadata.json").read_text()
    crate = {entity["@id"]: entity for entity in json.loads(text)["@graph"]}
    parts = [part["@id"] for part in crate["./"]["hasPart"]]
    assert {"tables/metrics.csv", "viewer/", "pipeline_info/models.json"} <= set(parts)
    assert [part for part in parts if not (results / part).exists()] == []
    assert str(benchmark) not in text
    # A sidecar at the top holds for every image that bears its entities and its suffix.
    for suffix in ("T1w", "mask", "dseg", "probseg"):
        sidecar = json.loads((results / f"space-SRI24_{suffix}.json").read_text())
        assert sidecar["SpatialReference"] == "https://doi.org/10.1002/hbm.20906"
        assert list(results.glob(f"sub-*/ses-*/anat/*_space-SRI24_*{suffix}.nii.gz"))
    report = (results / "multiqc" / "multiqc_report.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="\.\./((?:tables|figures)/[^"]+)"', report))
    assert {"tables/metrics.csv", "figures/coverage_by_volume.csv"} <= linked
    assert [name for name in linked if not (results / name).is_file()] == []
    evaluated = sum(row["status"] == "evaluated" for row in rows(results / "tables" / "cohort.csv"))
    assert report.count('alt="what the plan missed') == len(MODELS) * (evaluated // 2)


def bids_errors(folder: Path) -> list[tuple[str, str]]:
    """Return what the BIDS validator calls an error, by code and file."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [validator, "--format", "json", folder], capture_output=True, text=True, timeout=300, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    return sorted((issue["code"], issue["location"]) for issue in issues if issue["severity"] == "error")


def test_bids_validator_accepts_the_results(benchmark: Path, tmp_path: Path) -> None:
    pytest.importorskip("bids_validator_deno", reason="bids-validator-deno is of the development set-up")
    # As an archive gets it: files, not links into the work folder.
    folder = shutil.copytree(benchmark / "results", tmp_path / "results")
    assert bids_errors(folder) == []
    # It does look at the exams, and .bidsignore lets pass only the names that it lists.
    plan = next(folder.glob("sub-*/ses-*/*_model-soc_desc-isovol_mask.nii.gz"))
    brain = next(folder.glob("sub-*/ses-*/anat/*_desc-brain_mask.nii.gz"))
    strays = [plan.with_name("plan.nii.gz"), brain.with_name("brain.nii.gz")]
    plan.rename(strays[0])
    brain.rename(strays[1])
    names = {location for _, location in bids_errors(folder)}
    assert names >= {f"/{stray.relative_to(folder)}" for stray in strays}


def test_rocrate_validator_accepts_the_results(benchmark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "roc-validator is of the development set-up"
    requests = pytest.importorskip("requests", reason=reason)
    vocabulary = pytest.importorskip("rocrate.vocabs", reason=reason).RO_CRATE
    services = pytest.importorskip("rocrate_validator.services", reason=reason)
    severity = pytest.importorskip("rocrate_validator.models", reason=reason).Severity

    def get(_session: object, url: str, **_options: object) -> object:
        # The web is asked for the terms alone; rocrate brings those of a later version, in which these are the same.
        assert url == "https://w3id.org/ro/crate/1.1/context"
        response = requests.Response()
        response.status_code, response.headers["Content-Type"] = 200, "application/ld+json"
        response._content = json.dumps({"@context": vocabulary["@context"]}).encode()
        return response

    monkeypatch.setattr(requests.Session, "get", get)
    result = services.validate(
        services.ValidationSettings(
            rocrate_uri=str(benchmark / "results"),
            profile_identifier="process-run-crate-0.5",
            requirement_severity=severity.RECOMMENDED,
            no_cache=True,
        )
    )
    issues = result.get_issues()
    assert [issue.message for issue in issues if issue.severity == severity.REQUIRED] == []
    # People and institutions are for those who publish to name.
    recommended = {word for issue in issues for word in re.findall(r"agent|author|publisher", issue.message)}
    assert len(issues) == len(recommended) == 3


def test_the_standard_plan_judges_the_lesions_of_every_model(benchmark: Path) -> None:
    tables = benchmark / "results" / "tables"
    lesions = rows(tables / "lesions.csv")
    judged = {
        (row["patient"], row["lesion"]): (row["coverage"], row["pattern"], row["core_distance_mm"])
        for row in lesions
        if row["model"] == "soc"
    }
    assert judged
    for row in lesions:
        found = (row["coverage_standard"], row["pattern"], row["core_distance_mm"])
        assert found == judged[row["patient"], row["lesion"]]
    patients = {row["patient"]: row for row in rows(tables / "recurrence_patterns.csv")}
    for row in rows(tables / "metrics.csv"):
        assert patients[row["patient"]]["n_lesions"] == row["n_lesions"]
        assert patients[row["patient"]]["outside_brain_ml"] != ""


def test_published_plans_have_one_volume_and_the_scores_are_theirs(benchmark: Path) -> None:
    results = benchmark / "results"
    scores = {(row["patient"], row["model"]): row for row in rows(results / "tables" / "metrics.csv")}
    for exam in sorted(results.glob("sub-*/ses-pre")):
        patient = exam.parent.name.removeprefix("sub-")
        brain = read_image(next(exam.glob("anat/*_desc-brain_mask.nii.gz")), np.uint8)
        plans = {
            model: read_image(next(exam.glob(f"*_model-{model}_desc-isovol_mask.nii.gz")), np.uint8)
            for model in MODELS
        }
        assert len({int(plan.data.sum()) for plan in plans.values()}) == 1
        assert all(same_grid(plan, brain) for plan in plans.values())
        for followup in (results / f"sub-{patient}").glob("ses-*/*_desc-registered_dseg.nii.gz"):
            if followup.name.split("_")[1] != f"ses-{scores[patient, 'soc']['followup_session']}":
                continue
            recurrence = region(read_image(followup, np.uint8).data, RECURRENCE["enhancing"])
            for model, plan in plans.items():
                expected = (recurrence & (plan.data > 0)).sum() / recurrence.sum()
                assert float(scores[patient, model]["coverage_enhancing"]) == pytest.approx(
                    expected, abs=1e-9
                )


def test_standard_plan_is_the_core_and_fifteen_millimetres(benchmark: Path) -> None:
    """Brute force over voxel centres, on the published files."""
    exam = next(iter(sorted((benchmark / "results").glob("sub-*/ses-pre"))))
    labels = read_image(next(exam.glob("anat/*_desc-tumor_dseg.nii.gz")), np.uint8)
    plan = read_image(next(exam.glob("*_model-soc_desc-isovol_mask.nii.gz")), np.uint8).data > 0
    core = np.argwhere(region(labels.data, CORE)) * labels.spacing
    rng = np.random.default_rng(0)
    for index in rng.permutation(
        np.argwhere(read_image(next(exam.glob("anat/*_desc-brain_mask.nii.gz"))).data > 0)
    )[:300]:
        near = np.linalg.norm(core - index * labels.spacing, axis=1).min()
        if abs(near - 15.0) > 1e-3:
            assert plan[tuple(index)] == (near < 15.0)


def test_report_is_complete(benchmark: Path) -> None:
    results = benchmark / "results"
    report = (results / "multiqc" / "multiqc_report.html").read_text(encoding="utf-8")
    assert "simulated" in report.lower()
    for text in (
        "Standard of care",
        "LOTI",
        "Fisher-KPP",
        "Wilcoxon",
        "peak",
        "modelled, not planned",
        "viewer/sub-",
        "Where it came back",
    ):
        assert text.lower() in report.lower(), text
    pages = sorted((results / "viewer").glob("sub-*.html"))
    assert len(pages) == PATIENTS
    assert not re.search(r"""(?:src|href)=["']https?://""", pages[0].read_text(encoding="utf-8")[:5000])
    assert len(list((results / "qc").glob("*.png"))) == PATIENTS


def test_every_table_is_csv_and_parquet_and_described(benchmark: Path) -> None:
    tables = benchmark / "results" / "tables"
    described = rows(tables / "data_dictionary.csv")
    for path in tables.glob("*.csv"):
        if path.stem == "data_dictionary":
            continue
        assert path.with_suffix(".parquet").exists(), path
        with path.open(encoding="utf-8") as handle:
            columns = next(csv.reader(handle))
        assert columns == [row["column"] for row in described if row["table"] == path.stem]


def test_resume_redoes_only_the_report(benchmark: Path) -> None:
    output = run(benchmark, "-profile", "test,standard", "--outdir", "results", "-resume")
    # The report shows the trace of its own run.
    assert set(submitted(output)) <= {"MULTIQC_REPORT"}, submitted(output)


def test_one_more_model_runs_that_model_alone(
    benchmark: Path, sheet: list[dict[str, str]], tmp_path: Path
) -> None:
    """Spaces, unicode and Windows line ends in the way; then a rerun with one model more."""
    folder = tmp_path / "Kohorte ä ö (1)"
    table = [{**row} for row in sheet]
    for row in table:
        for column, value in row.items():
            if value.endswith(".nii.gz"):
                place = folder / "Bilder für alle" / f"{row['patient']} {row['session']} {column} é.nii.gz"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(value, place)
                row[column] = str(place.relative_to(folder))
    path = write_sheet(folder / "sheet ü.csv", table, newline="\r\n")
    output = run(tmp_path, "--input", path, "--models", "soc", "--outdir", "out put", "-profile", "standard")
    assert submitted(output).count("MODEL_PREDICT") == PATIENTS
    output = run(
        tmp_path,
        "--input",
        path,
        "--models",
        "soc,distance",
        "--outdir",
        "out put",
        "-profile",
        "standard",
        "-resume",
    )
    assert submitted(output).count("MODEL_PREDICT") == PATIENTS
    assert "EXAM_PREPARE" not in submitted(output)
    assert {row["model"] for row in rows(tmp_path / "out put" / "tables" / "metrics.csv")} == {
        "soc",
        "distance",
    }


def test_predict_without_followup(sheet: list[dict[str, str]], tmp_path: Path) -> None:
    table = [
        {k: v for k, v in row.items() if not k.startswith("registered")}
        for row in sheet
        if row["role"] == "preop"
    ]
    path = write_sheet(tmp_path / "sheet.csv", table[:1])
    entry = (ROOT / "assets/models.yml").read_text().split("- name: fisherkpp")[1].split("- name:")[0]
    own = f"models:\n  - name: posterior{entry.rstrip()}\n    parameters: {{samples: 2}}\n"
    (tmp_path / "own.yml").write_text(own)
    models = ("--models", "soc,posterior", "--external_models", "own.yml")
    run(tmp_path, "--input", path, *models, "--outdir", "results", "-profile", "standard")
    results = tmp_path / "results"
    assert rows(results / "tables" / "metrics.csv") == []
    assert [row["status"] for row in rows(results / "tables" / "cohort.csv")] == ["predicted"]
    assert len(list(results.glob("sub-*/ses-pre/*_desc-isovol_mask.nii.gz"))) == 2
    assert len(list(results.glob("sub-*/ses-pre/*_model-posterior_spread.nii.gz"))) == 1
    assert (results / "multiqc" / "multiqc_report.html").exists()


ALGORITHM = """algorithms:
  - name: Made_1
    image: localhost/predictgbm-segments:test
    phase: both
    call: direct
    suffix: {preop: "000", followup: "100"}
    labels: "1:1,2:2,3:3"
    gpu: optional
"""


@pytest.mark.podman
def test_a_segmentation_container_labels_an_exam(
    sheet: list[dict[str, str]], podman: dict[str, str], tmp_path: Path
) -> None:
    """The image knows the one patient it will see, and answers by the contract of the BraTS containers."""
    row = next(row for row in sheet if row["role"] == "preop")
    truth = read_image(Path(row["tumor_seg"]), np.uint8)
    answer = to_brats(truth)
    write_image(tmp_path / "image" / "answer.nii.gz", answer.data, answer.affine)
    (tmp_path / "image" / "run.sh").write_text("#!/bin/sh\ncp /answer.nii.gz /output/$(ls /input).nii.gz\n")
    (tmp_path / "image" / "Containerfile").write_text(
        f'FROM {podman["BASE_IMAGE"]}\nCOPY answer.nii.gz /\nCOPY --chmod=755 run.sh /\nENTRYPOINT ["/run.sh"]\n'
    )
    build = ["podman", "build", "-q", "-t", "localhost/predictgbm-segments:test", tmp_path / "image"]
    subprocess.run(build, env=podman, check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "algorithms.yml").write_text(ALGORITHM)
    path = write_sheet(tmp_path / "sheet.csv", [row | {"tumor_seg": "", "tumor_labels": ""}])
    run(
        tmp_path,
        *("--input", path, "--models", "soc", "--outdir", "results", "-profile", "standard"),
        *("--tumor_algorithms", "algorithms.yml", "--tumor_preop", "Made_1", "--external_engine", "podman"),
        env=podman,
    )
    exam = next((tmp_path / "results").glob("sub-*/ses-pre"))
    found = read_image(next(exam.glob("anat/*_desc-tumor_dseg.nii.gz")), np.uint8)
    np.testing.assert_array_equal(found.data, truth.data)
    measures = rows(tmp_path / "results" / "tables" / "quality.csv")
    assert "tumor" in {measure["stage"] for measure in measures}
    assert list((tmp_path / "results" / "qc").glob("*_desc-tumor_qc.png"))


@pytest.mark.skipif(not REAL_EXAM.is_dir(), reason=f"the real exam is not here ({REAL_EXAM.name})")
def test_predict_on_a_real_exam(tmp_path: Path) -> None:
    names = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f", "tumor_seg": "seg_auto-brats23winner"}
    row = {"patient": "real", "session": "pre", "role": "preop", "days": "0"}
    row |= {column: str(REAL_EXAM / f"BraTS-GLI-00001-000-{name}.nii.gz") for column, name in names.items()}
    path = write_sheet(tmp_path / "sheet.csv", [row])
    run(tmp_path, "--input", path, *QUICK, "--outdir", "results", "-profile", "standard")
    exam = tmp_path / "results" / "sub-real" / "ses-pre"
    plans = [
        read_image(next(exam.glob(f"*_model-{model}_desc-isovol_mask.nii.gz")), np.uint8) for model in MODELS
    ]
    core = region(read_image(next(exam.glob("anat/*_desc-tumor_dseg.nii.gz")), np.uint8).data, CORE)
    assert len({int(plan.data.sum()) for plan in plans}) == 1
    for plan in plans:
        assert (plan.data[core] > 0).mean() > 0.99, "a plan leaves the visible tumour"
    assert json.loads((exam / "anat" / "exam.json").read_text())["tissue"] == "registered (greedy)"
    assert "registered (greedy)" in (tmp_path / "results" / "multiqc" / "multiqc_report.html").read_text(
        encoding="utf-8"
    )


def test_a_run_in_mni152_says_so_in_every_name(tmp_path: Path) -> None:
    """The atlas is prepared by the launcher; what is published lies where MNI152 has its brain, tensors too."""
    options = ("--simulate", 1, "--simulate_spacing", 4, "--simulate_tensor", "--bootstrap_draws", 1000)
    options = (*options, "--models", "soc,fisherkpp", "--guidelines", "estroeano2023")
    run(tmp_path, "-profile", "standard", *options, "--atlas_space", "MNI152", "--outdir", "results")
    results = tmp_path / "results"
    published = [path.relative_to(results).as_posix() for path in results.rglob("*")]
    assert not [name for name in published if "SRI24" in name]
    patient = results / "sub-001"
    spaces = [re.findall(r"_space-([^_]+)_", path.name) for path in patient.rglob("*.nii.gz")]
    assert len(spaces) > 10
    assert {tuple(found) for found in spaces} == {("MNI152",)}
    brain = read_image(next(patient.glob("ses-pre/anat/*_desc-brain_mask.nii.gz")), np.uint8)
    centre = brain.affine @ [*np.argwhere(brain.data > 0).mean(axis=0), 1]
    np.testing.assert_allclose(centre[:3], (0, -22, 9), atol=6)
    for image in patient.rglob("*.nii.gz"):
        volumes = 6 if "param-tensor" in image.name else 1
        assert same_grid(read_image(image, volumes=volumes), brain), image.name
    assert json.loads((patient / "ses-pre" / "anat" / "exam.json").read_text())["space"] == "MNI152"
    (sidecar,) = patient.rglob("*_model-fisherkpp_probseg.json")
    assert json.loads(sidecar.read_text())["parameters"]["anisotropic"]
    (drawn,) = patient.rglob("*_desc-estroeano2023_mask.json")
    assert json.loads(drawn.read_text())["falx_and_tentorium"]
    compared = {row["model"]: float(row["plan_ml"]) for row in rows(results / "tables" / "guidelines.csv")}
    assert compared.keys() == {"guideline", "soc", "fisherkpp"}
    assert len(set(compared.values())) == 1
    assert compared["soc"] == pytest.approx(json.loads(drawn.read_text())["volume_ml"])
    sources = json.loads((results / "dataset_description.json").read_text())["SourceDatasets"]
    assert {"DOI": "10.1016/j.neuroimage.2010.07.033", "Version": "MNI152"} in sources
    assert {row["space"] for row in rows(results / "simulated" / "samplesheet.csv")} == {"MNI152"}
    report = (results / "multiqc" / "multiqc_report.html").read_text(encoding="utf-8")
    assert "the MNI152 atlas" in report
    assert "Rohlfing" not in report


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"space": "SRI24"}, "--atlas_space: the run is in MNI152, the atlas in"),
        ({"files": {}}, "does not name its space"),
    ],
)
def test_an_atlas_of_another_space_stops_the_run(
    tmp_path: Path, manifest: dict[str, object], message: str
) -> None:
    folder = tmp_path / "atlas"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    options = ("--simulate", 1, "--atlas", folder, "--atlas_space", "MNI152", "--outdir", "results")
    output = run(tmp_path, "-profile", "standard", *options, status=1)
    assert message in output
    assert not submitted(output)


def test_all_faults_of_a_sheet_come_at_once_and_nothing_runs(
    sheet: list[dict[str, str]], tmp_path: Path
) -> None:
    good = preop(sheet, 0)
    image = read_image(good["t1c"])

    def broken(name: str) -> Path:
        return tmp_path / "images" / f"{name}.nii.gz"

    broken("empty").parent.mkdir()
    broken("empty").touch()
    broken("truncated").write_bytes(Path(good["t1c"]).read_bytes()[:2000])
    write_image(broken("nan"), np.where(image.data > 0, np.nan, 0).astype(np.float32), image.affine)
    write_image(broken("shape"), image.data[:-3], image.affine)
    moved = image.affine.copy()
    moved[0, 3] += 20
    write_image(broken("moved"), image.data, moved)
    labels = read_image(good["tumor_seg"], np.uint8)
    write_image(broken("label7"), np.where(labels.data == 3, 7, labels.data).astype(np.uint8), labels.affine)
    write_image(broken("notumour"), np.zeros_like(labels.data), labels.affine)

    def row(patient: str, **changes: object) -> dict[str, str]:
        plain = {
            key: value
            for key, value in good.items()
            if key in ("role", "days", "t1", "t1c", "t2", "flair", "tumor_seg")
        }
        fresh = {"patient": patient, "session": "pre", **plain}
        for column in ("t1", "t1c", "t2", "flair", "tumor_seg"):
            place = tmp_path / "images" / f"{patient}_{column}.nii.gz"
            shutil.copy(good[column], place)
            fresh[column] = str(place)
        return {**fresh, **{key: str(value) for key, value in changes.items()}}

    table = [
        row("missing", t1=tmp_path / "nowhere.nii.gz"),
        row("empty", t2=broken("empty")),
        row("truncated", flair=broken("truncated")),
        row("nan", t1c=broken("nan")),
        row("shape", t1=broken("shape")),
        row("moved", flair=broken("moved")),
        row("label", tumor_seg=broken("label7")),
        row("notumour", tumor_seg=broken("notumour")),
        row("drift"),
    ]
    # Labels said to be registered that lie on another grid than the pre-operative exam.
    write_image(broken("drift"), labels.data, moved)
    later = {"patient": "drift", "session": "later", "role": "followup", "days": "99"}
    table = [{**row, "registered_seg": ""} for row in table]
    table.append(dict.fromkeys(table[0], "") | later | {"registered_seg": str(broken("drift"))})
    path = write_sheet(tmp_path / "sheet.csv", table)
    output = run(tmp_path, "--input", path, "--outdir", "results", "-profile", "standard", status=1)
    for line, (column, words) in enumerate(
        [
            ("t1", "does not exist"),
            ("t2", "empty"),
            ("flair", "cut short"),
            ("t1c", "NaN"),
            ("t1", "grid"),
            ("flair", "grid"),
            ("tumor_seg", "unknown label 7"),
            ("tumor_seg", "tumour"),
            ("drift", ""),
            ("registered_seg", "grid"),
        ],
        start=2,
    ):
        if column == "drift":
            assert f"sheet.csv:{line}:" not in output
            continue
        assert re.search(rf"sheet\.csv:{line}: {column}: [^\n]*{words}", output), (
            line,
            column,
            words,
            output,
        )
    assert not {"EXAM_PREPARE", "MODEL_PREDICT"} & set(submitted(output))


def test_dose_that_was_given_and_organs_at_risk(sheet: list[dict[str, str]], tmp_path: Path) -> None:
    """One side of the head got 50 of 54 Gy, on a grid of its own; a patient whose dose is elsewhere is told."""
    table = [{**row, "dose": "", "prescription_gy": "", "oar_left": "", "oar_right": ""} for row in sheet]
    treated, missed = preop(table, 0), preop(table, 1)
    brain = read_image(treated["brain_mask"], np.uint8)
    middle = brain.affine[:3] @ [*np.argwhere(brain.data).mean(axis=0), 1.0]
    affine = np.diag([-5.0, 3.0, 7.0, 1.0])
    affine[:3, 3] = middle + np.array([200, -240, -224])
    shape = 80, 160, 64
    x = np.indices(shape)[0] * affine[0, 0] + affine[0, 3]
    write_image(tmp_path / "dose.nii.gz", 50 * (x < middle[0]).astype(np.float32), affine)
    treated |= {"dose": str(tmp_path / "dose.nii.gz"), "prescription_gy": "54"}
    x = np.indices(brain.shape)[0] * brain.affine[0, 0] + brain.affine[0, 3]
    for side, inside in (("left", x < middle[0] - 10), ("right", x > middle[0] + 10)):
        path = tmp_path / f"{side}.nii.gz"
        write_image(path, (brain.data > 0) & inside, brain.affine)
        treated[f"oar_{side}"] = str(path)
    far = affine.copy()
    far[0, 3] += 1000
    write_image(tmp_path / "far.nii.gz", np.full(shape, 50, np.float32), far)
    missed["dose"] = str(tmp_path / "far.nii.gz")
    path = write_sheet(tmp_path / "sheet.csv", table)
    more = ("--models", "soc,distance", "--outdir", "results", "-profile", "standard", "--input", path)
    said = run(tmp_path, *more, status=1)
    line = table.index(missed) + 2
    assert f"sheet.csv:{line}: dose: no dose reaches the T1c, they are not in one frame" in said
    missed["dose"] = ""
    write_sheet(path, table)
    run(tmp_path, *more, "--bootstrap_draws", 1000, "--setup_margin", 0, "--prescription", 54)
    tables = tmp_path / "results" / "tables"
    (given,) = rows(tables / "given_dose.csv")
    assert given["patient"] == treated["patient"]
    assert float(given["prescription_gy"]) == 54
    doses = {row["organ"]: row for row in rows(tables / "given_organs.csv")}
    assert [float(doses[side]["mean_gy"]) for side in ("left", "right")] == [50, 0]
    assert float(doses["left"]["d003cc_gy"]) == 50
    # 95 % of 54 Gy was nowhere reached, so that all lesions are distant by the treatment.
    assert {row["pattern_isodose"] for row in rows(tables / "given_lesions.csv")} == {"distant"}
    lesions = {
        (row["lesion"], row["pattern"])
        for row in rows(tables / "lesions.csv")
        if row["patient"] == given["patient"]
    }
    assert {(row["lesion"], row["pattern_standard"]) for row in rows(tables / "given_lesions.csv")} == lesions
    modelled = rows(tables / "organ_dose.csv")
    assert sorted((row["model"], row["organ"]) for row in modelled) == [
        (model, side) for model in ("distance", "soc") for side in ("left", "right")
    ]
    assert max(float(row["plan_d95_gy"]) for row in rows(tables / "dose.csv")) < 54
    report = (tmp_path / "results" / "multiqc" / "multiqc_report.html").read_text(encoding="utf-8")
    assert "known of 1 patient, prescribed 54 Gy" in report
    assert "54 Gy as the median of the plan with 0 mm around it" in report


def test_not_strict_leaves_the_faulty_patient_out(sheet: list[dict[str, str]], tmp_path: Path) -> None:
    table = [{**row} for row in sheet]
    preop(table, 1)["t1"] = str(tmp_path / "gone.nii.gz")
    path = write_sheet(tmp_path / "sheet.csv", table)
    run(
        tmp_path,
        "--input",
        path,
        "--models",
        "soc,distance",
        "--strict",
        "false",
        "--outdir",
        "results",
        "-profile",
        "standard",
    )
    cohort = {row["patient"]: row for row in rows(tmp_path / "results" / "tables" / "cohort.csv")}
    bad = preop(table, 1)["patient"]
    assert cohort[bad]["status"] == "excluded"
    assert cohort[bad]["reason_code"]
    assert "gone.nii.gz" in json.dumps(rows(tmp_path / "results" / "tables" / "failures.csv"))
    assert {row["patient"] for row in rows(tmp_path / "results" / "tables" / "metrics.csv")} == set(
        cohort
    ) - {bad}


def test_bad_map_costs_that_model_that_patient(
    benchmark: Path, sheet: list[dict[str, str]], tmp_path: Path
) -> None:
    """Score maps from the sheet, one good, one constant, one on another grid, two patients a task."""
    table = [{**row, "score_mine": ""} for row in sheet]
    for number, row in enumerate(row for row in table if row["role"] == "preop"):
        image = read_image(row["flair"])
        affine = image.affine.copy()
        data = image.data if number != 1 else np.ones_like(image.data)
        if number == 2:
            affine[:3, 3] += 7.0
        row["score_mine"] = str(tmp_path / f"mine{number}.nii.gz")
        write_image(row["score_mine"], data, affine)
    path = write_sheet(tmp_path / "sheet.csv", table)
    # No other choice in the evaluation is looked at, besides.
    options = (
        "--input",
        path,
        "--models",
        "soc",
        "--sensitivity_rules",
        "none",
        "--sensitivity_margins",
        "none",
        "--patients_per_task",
        "2",
    )
    output = run(tmp_path, *options, "--outdir", "results", "-profile", "standard", status=3)
    tasks = Counter(submitted(output))
    assert {tasks[name] for name in ("EXAM_VALIDATE", "FOLLOWUP_IMPORT", "MODEL_CHECKMAP")} == {2}
    # An exam is prepared alone, so that one more patient finds the others prepared.
    assert tasks["EXAM_PREPARE"] == PATIENTS
    # Two for the standard plan, one for the map that is left.
    assert tasks["PLAN_MAKE"] == tasks["PLAN_EVALUATE"] == 3
    tables = tmp_path / "results" / "tables"
    patients = [row["patient"] for row in sheet if row["role"] == "preop"]
    failures = rows(tables / "failures.csv")
    assert sorted((row["patient"], row["model"]) for row in failures) == [(p, "mine") for p in patients[1:]]
    assert "constant" in failures[0]["reason"] or "same value" in failures[0]["reason"]
    assert [row["patient"] for row in rows(tables / "metrics.csv") if row["model"] == "mine"] == patients[:1]
    assert rows(tables / "settings.csv") == []
    # One by one, the same patients have the same scores.
    alone, together = (
        [row for row in rows(folder / "metrics.csv") if row["model"] == "soc"]
        for folder in (benchmark / "results" / "tables", tables)
    )
    assert len(together) == PATIENTS
    assert together == alone
    report = (tmp_path / "results" / "multiqc" / "multiqc_report.html").read_text(encoding="utf-8")
    assert failures[0]["patient"] in report
    run(tmp_path, *options, "--outdir", "results", "--strict", "false", "-profile", "standard", "-resume")


@pytest.mark.podman
def test_outside_model_comes_as_a_container(
    podman: dict[str, str], sheet: list[dict[str, str]], tmp_path: Path
) -> None:
    """A container that obeys the published contract: it scores by FLAIR where ADC is given, and else gives up."""
    (tmp_path / "model.sh").write_text(
        """#!/bin/sh
set -e
cd /mlcube_io0/Patient-00000
for name in gm wm csf tumorseg t1 t1c t2 flair brain_mask; do test -s 00000-$name.nii.gz; done
if touch /mlcube_io0/written 2>/dev/null; then echo the input can be written; exit 8; fi
if grep -v -e Iface -e lo /proc/net/route | grep -q .; then echo there is a network; exit 9; fi
test -s 00000-adc.nii.gz || { echo this model needs ADC; exit 7; }
cp 00000-flair.nii.gz /mlcube_io1/00000.nii.gz
"""
    )
    (tmp_path / "Containerfile").write_text(
        f'FROM {podman["BASE_IMAGE"]}\nCOPY --chmod=755 model.sh /model.sh\nENTRYPOINT ["/model.sh"]\n'
    )
    subprocess.run(
        ["podman", "build", "-q", "-t", "localhost/flairmodel:test", str(tmp_path)],
        env=podman,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    report = tmp_path / "report.json"
    check = [
        sys.executable,
        ROOT / "bin" / "check_model.py",
        "localhost/flairmodel:test",
        "--engine",
        "podman",
    ]
    subprocess.run([*check, "--out", report], env=podman, check=True, stdout=subprocess.DEVNULL)
    found = {
        c["check"]: c for c in json.loads(report.read_text())["checks"] if c["status"] in ("warn", "fail")
    }
    assert list(found) == ["does without adc, pet, tensor"]
    assert "exit status 7: this model needs ADC" in found["does without adc, pet, tensor"]["seen"]
    (tmp_path / "outside.yml").write_text(
        """models:
  - name: flairmodel
    title: Brightness of FLAIR
    description: The brighter, the sooner treated.
    citation: Made for this test
    inputs: [flair, adc]
    output: rank
    container: localhost/flairmodel:test
    cpus: 1
    memory: 1 GB
    time: 10 min
"""
    )
    table = [{**row} for row in sheet]
    first = preop(table, 0)
    first["adc"] = str(tmp_path / "adc.nii.gz")
    image = read_image(first["t2"])
    write_image(first["adc"], image.data, image.affine)
    path = write_sheet(tmp_path / "sheet.csv", table)
    options = [
        "--input",
        path,
        "--external_models",
        "outside.yml",
        "--models",
        "soc,flairmodel",
        "--external_engine",
        "podman",
    ]
    run(tmp_path, *options, "--outdir", "results", "-profile", "standard", status=3, env=podman)
    tables = tmp_path / "results" / "tables"
    assert [row["patient"] for row in rows(tables / "metrics.csv") if row["model"] == "flairmodel"] == [
        first["patient"]
    ]
    failures = rows(tables / "failures.csv")
    assert {row["model"] for row in failures} == {"flairmodel"}
    assert len(failures) == PATIENTS - 1
    assert {row["kind"] for row in failures} == {"missing_input"}
    assert all("the exam has no adc" in row["reason"] for row in failures)
    plan = next((tmp_path / "results").glob("sub-*/ses-pre/*_model-flairmodel_desc-isovol_mask.nii.gz"))
    soc = plan.with_name(plan.name.replace("flairmodel", "soc"))
    inside = read_image(plan, np.uint8).data > 0
    assert inside.sum() == (read_image(soc, np.uint8).data > 0).sum()
    brain = read_image(next(plan.parent.glob("anat/*_desc-brain_mask.nii.gz")), np.uint8).data > 0
    flair = read_image(next(plan.parent.glob("anat/*_FLAIR.nii.gz"))).data
    assert flair[inside].min() >= flair[brain & ~inside].max() - 1e-4
    assert "Brightness of FLAIR" in (tmp_path / "results" / "multiqc" / "multiqc_report.html").read_text(
        encoding="utf-8"
    )


def test_parameters_are_refused_with_a_list(tmp_path: Path) -> None:
    output = run(
        tmp_path,
        *("--simulte", 3, "--margin", "wide", "--followup_rule", "any", "--models", "soc"),
        *("--outdir", "re $HOME"),
        status=1,
    )
    assert "--outdir: 're $HOME' has a $ or a backtick" in output
    assert "--simulte: unknown parameter; did you mean --simulate" in output
    assert "--margin: 'wide' is not of type number" in output
    assert "--followup_rule: 'any' is not one of first, last, largest" in output
    assert "--input: no samplesheet given" in output
    output = run(tmp_path, "--simulate", 1, "--models", "soc,oracle", status=1)
    assert "unknown model oracle; known are" in output
    output = run(tmp_path, "--simulate", 1, "--models", "soc,loti", "--family_models", "loti, lmi", status=1)
    assert "--family_models: no model of this run is called lmi; there are loti" in output


def test_training_grows_tumours_in_every_individual_and_leaves_weights(tmp_path: Path) -> None:
    numbers = ("--train_individuals", 2, "--train_held_out", 1)
    output = run(tmp_path, "--train", "lmi", *numbers, "-stub-run", "--outdir", "results")
    assert sorted(submitted(output)) == ["LMI_TRAIN", *["TUMORS_GROW"] * 3]
    assert sorted(file.name for file in (tmp_path / "results/models/lmi").iterdir()) == [
        "lmi.csv",
        "lmi.json",
        "lmi.npz",
    ]
    output = run(tmp_path, "--train", "lmi", "--simulate", 2, "-stub-run", "--outdir", "again", status=1)
    assert "lmi learns from tumours of its own; train it alone, without --input and --simulate" in output


def test_networks_are_trained_on_a_cohort_one_task_each(tmp_path: Path) -> None:
    """Where the packages of the training are absent, the tasks of the networks are stubs."""
    tiny = tmp_path / "tiny.yml"
    tiny.write_text(
        "unet: {base: 4, levels: 3, patch: 16, batch: 2, epochs: 2}\ngliomap: {samples: 50, trees: 10}\n"
    )
    real = all(importlib.util.find_spec(name) for name in ("torch", "monai", "sklearn", "tensorboardX"))
    cohort = ("--simulate", 6, "--simulate_spacing", 6, "--simulate_adc", "--min_followup_days", 0)
    numbers = ("--train_splits", 2, "--train_seeds", 1, "--train_settings", tiny)
    train = (
        *("--train", "unet,gliomap", "--models", "soc", "--bootstrap_draws", 1000),
        *cohort,
        *numbers,
        "--outdir",
        "trained",
        *([] if real else ["-stub-run"]),
    )
    output = run(tmp_path, *train)
    assert submitted(output).count("NETWORK_TRAIN") == 4
    models = tmp_path / "trained" / "models"
    splits = json.loads((models / "splits.json").read_text())["splits"]
    assert sorted(p for split in splits.values() for p in split["held_out"]) == [
        f"00{n}" for n in range(1, 7)
    ]
    assert (models / "unet" / "card.json").exists()
    assert (models / "gliomap" / "card.json").exists()
    assert (models / "unet" / "metrics.json").exists()
    if not real:
        return
    assert len(rows(models / "unet" / "history.csv")) == 4
    assert json.loads((models / "unet" / "card.json").read_text())["simulated"] is True
    report = (tmp_path / "trained" / "multiqc" / "multiqc_report.html").read_text(encoding="utf-8")
    assert "Trained networks" in report
    sidecars = sorted((tmp_path / "trained").glob("sub-*/ses-pre/*_model-unet_probseg.json"))
    assert len(sidecars) == 6
    for sidecar in sidecars:
        patient = sidecar.name[4:7]
        (network,) = json.loads(sidecar.read_text())["parameters"]["networks"]
        held_out = splits[network.removeprefix("split-").split("_")[0]]["held_out"]
        assert patient in held_out, "a patient is predicted by a network that saw it"
    scored = [row["model"] for row in rows(tmp_path / "trained" / "tables" / "metrics.csv")]
    assert scored.count("soc") == scored.count("unet") == scored.count("gliomap") > 0
    known = json.loads((models / "unet" / "metrics.json").read_text())
    assert [row["patient"] for row in known["patients"]] == sorted(
        splits["1"]["held_out"] + splits["2"]["held_out"]
    )

    options = (*cohort, "--models", "soc,unet", "--weights", models, "--bootstrap_draws", 1000)
    output = run(tmp_path, *options, "--outdir", "results", "-resume")
    assert "EXAM_PREPARE" not in submitted(output), "a benchmark repeats what a training has prepared"
    again = tmp_path / "results" / "tables" / "metrics.csv"
    assert [
        row for row in rows(tmp_path / "trained" / "tables" / "metrics.csv") if row["model"] == "unet"
    ] == [row for row in rows(again) if row["model"] == "unet"]


def test_models_that_learn_need_a_training(tmp_path: Path) -> None:
    output = run(tmp_path, "--simulate", 1, "--models", "soc,unet", status=1)
    assert "unet learns from a cohort; train it (--train unet --input samplesheet.csv)" in output
    output = run(tmp_path, "--simulate", 6, "--train", "unet,loti", "-stub-run", status=1)
    assert "--train: loti cannot be trained; lmi and gliomap, unet, nnunet can" in output


def test_help_lists_every_parameter(tmp_path: Path) -> None:
    output = run(tmp_path, "--help")
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    for section in schema["$defs"].values():
        for name, entry in section["properties"].items():
            assert entry["description"]
            assert entry.get("hidden") or f"--{name} [" in output, name


def test_unwritable_outdir_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    output = run(tmp_path, "-profile", "test,standard", "--outdir", tmp_path / "file" / "results", status=1)
    assert "cannot write" in output
    assert submitted(output) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_full_disk_ends_the_run_and_resume_goes_on(
    benchmark: Path, sheet: list[dict[str, str]], tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    path = write_sheet(tmp_path / "sheet.csv", sheet)
    try:
        output = run(
            tmp_path, "--input", path, "--models", "soc", "--outdir", small, "-profile", "standard", status=1
        )
        assert re.search(r"No space left|Failed to publish", output), output[-3000:]
    finally:
        subprocess.run(["umount", str(small)], check=False)
    run(
        tmp_path,
        "--input",
        path,
        "--models",
        "soc",
        "--outdir",
        tmp_path / "large",
        "-profile",
        "standard",
        "-resume",
    )
    assert (tmp_path / "large" / "multiqc" / "multiqc_report.html").exists()


def test_killed_run_goes_on_where_it_was(sheet: list[dict[str, str]], tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "sheet.csv", sheet)
    arguments = ["run", "--input", str(path), *QUICK, "--outdir", "results", "-profile", "standard"]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(
            [str(ROOT / "predictgbm"), *arguments],
            cwd=tmp_path,
            env={**os.environ, "NXF_ANSI_LOG": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 600
        while "MODEL_PREDICT" not in (tmp_path / "first.log").read_text() and time.monotonic() < deadline:
            assert first.poll() is None, (tmp_path / "first.log").read_text()
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    done = submitted((tmp_path / "first.log").read_text())
    output = run(tmp_path, *arguments[1:], "-resume")
    assert "EXAM_VALIDATE" in done
    assert "EXAM_VALIDATE" not in submitted(output)
    assert len(rows(tmp_path / "results" / "tables" / "metrics.csv")) == PATIENTS * len(MODELS)


def test_same_seed_gives_the_same_numbers(
    benchmark: Path, sheet: list[dict[str, str]], tmp_path: Path
) -> None:
    """The simulated cohort, taken from its files in a second run, has the same plans."""
    path = write_sheet(tmp_path / "sheet.csv", sheet)
    options = ("--outdir", "results", "-profile", "standard", "--bootstrap_draws", 1000)
    run(tmp_path, "--input", path, *QUICK, *options)
    first = sorted((benchmark / "results").glob("sub-*/ses-pre/*_desc-isovol_mask.nii.gz"))
    assert len(first) == PATIENTS * len(MODELS)
    for plan in first:
        again = tmp_path / "results" / plan.relative_to(benchmark / "results")
        if "_model-soc_" in plan.name or "_model-distance_" in plan.name:
            assert gzip.decompress(plan.read_bytes()) == gzip.decompress(again.read_bytes()), plan.name
        one, two = (read_image(path, np.uint8).data for path in (plan, again))
        # Code compiled in place may round otherwise in the last digit than the same code loaded from the cache.
        assert (one != two).sum() <= 0.002 * one.sum(), plan.name
