"""The conformance kit: real processes as models, right ones and wrong ones, and manifests of submissions."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import ROOT
from small_exam import arrays, run_command, save, write_exam

from predictgbm import conformance
from predictgbm.cohort.samplesheet import check_samplesheet
from predictgbm.conformance import FAIL, PASS, SKIP, WARN, Check, Runner, Trial, check_model
from predictgbm.exam import Exam
from predictgbm.labels import CORE, region
from predictgbm.models import read_models
from predictgbm.simulation.phantom import BRAIN_MM, RADII_MM, make_phantom

ASSETS = ROOT / "assets"
#: A model in plain Python: FLAIR as the map. What else it does is put in by the tests.
MODEL = """
import os, sys, time
from pathlib import Path

exam, out = Path(sys.argv[1]) / "Patient-00000", Path(sys.argv[2])
memory = Path(__file__).with_suffix(".runs")
runs = len(memory.read_text()) if memory.exists() else 0
memory.write_text("x" * (runs + 1))
answer = (exam / "00000-flair.nii.gz").read_bytes()
{}
(out / "00000.nii.gz").write_bytes(answer)
"""
#: Wrong in every way that does not keep the others from being seen.
SLOPPY = """
if not (exam / "00000-pet.nii.gz").exists():
    sys.exit("KeyError: pet")
if runs % 2:
    answer = (exam / "00000-t1c.nii.gz").read_bytes()
first = Path(__file__).with_suffix(".first")
if not first.exists():
    first.write_bytes(answer)
(out / "log.txt").write_text("words")
if runs == 2:
    answer = first.read_bytes()
if runs == 4:
    sys.exit(0)
(exam / "00000-gm.nii.gz").write_bytes(b"mine now")
"""


def write_model(folder: Path, body: str = "") -> str:
    """Write a model and return the command that starts it."""
    path = folder / "model.py"
    path.write_text(MODEL.format(body))
    return f"{sys.executable} -S -E {path}"


def runner(folder: Path, command: str, timeout: float = 60) -> Runner:
    (folder / "runs").mkdir()
    return Runner(ROOT / "bin" / "run_container_model.sh", "command", command, folder / "runs", timeout)


def verdicts(checks: list[Check], *wanted: str) -> dict[str, Check]:
    return {check.name: check for check in checks if not wanted or check.status in wanted}


def test_a_good_model_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = write_model(tmp_path, "held = bytearray(80_000_000) if runs == 0 else b''\ntime.sleep(0.3)")
    report = tmp_path / "report.json"
    assert run_command("check_model.py", command, "--out", report) == 0
    found = json.loads(report.read_text())
    assert found["passed"] is True
    assert {check["status"] for check in found["checks"]} <= {PASS, SKIP}
    assert len(found["checks"]) >= 13
    assert "can take part" in capsys.readouterr().out
    assert (tmp_path / "model.runs").read_text() == "xxxxx"
    seen = next(check["seen"] for check in found["checks"] if check["check"] == "time and memory")
    held = float(seen.split(" s at most, ")[1].split(" MB")[0])
    assert 76 < held < 200


def test_a_sloppy_model_is_told_all_at_once(tmp_path: Path) -> None:
    checks = check_model(runner(tmp_path, write_model(tmp_path, SLOPPY)), inputs=("flair",))
    wrong = verdicts(checks, FAIL, WARN)
    assert set(wrong) == {
        "gives the same map again",
        "another voxel size and orientation",
        "does without adc, pet, tensor",
        "refuses an exam without tumour, or maps it",
        "leaves nothing but its map",
    }
    assert all(check.remedy for check in wrong.values())
    assert "not on one grid" in wrong["another voxel size and orientation"].seen
    assert "KeyError: pet" in wrong["does without adc, pet, tensor"].seen
    assert "wrote no /mlcube_io1/00000.nii.gz" in wrong["refuses an exam without tumour, or maps it"].seen
    strays = wrong["leaves nothing but its map"].seen
    assert "/mlcube_io0/Patient-00000/00000-gm.nii.gz" in strays
    assert "/mlcube_io1/log.txt" in strays


@pytest.mark.parametrize(
    ("command", "name", "seen"),
    [
        ("/no/such/program --fast", "starts", "exit status 127"),
        ("true", "writes the map", "no file"),
        ("echo no GPU found; exit 3;", "ends with status 0", "exit status 3: no GPU found"),
        ("echo urlopen error: name resolution failed; exit 1;", "works without network", "name resolution"),
    ],
)
def test_a_model_that_gives_nothing_is_told_why(tmp_path: Path, command: str, name: str, seen: str) -> None:
    kit = runner(tmp_path, command)
    found = verdicts(check_model(kit), FAIL)
    assert seen in found[name].seen
    assert found[name].remedy
    if name == "starts":
        assert set(found) == {"starts"}


def test_a_model_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    kit = runner(
        tmp_path,
        "trap '' TERM; sleep 300 & echo $! > PID; sleep 301;".replace("PID", str(tmp_path / "pid")),
        1,
    )
    checks = check_model(kit)
    found = verdicts(checks, FAIL)["ends with status 0"]
    assert found.seen.startswith("was ended after")
    assert "--timeout" in found.remedy
    child = Path("/proc") / (tmp_path / "pid").read_text().strip()
    assert not child.exists() or "Z" in (child / "stat").read_text().split()[2]


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Exam:
    return conformance.write_exam(
        tmp_path_factory.mktemp("exam"), (4, 4, 4), "LPS", tumor=True, optional=False
    )


def tried(exam: Exam, path: Path, data: Any, affine: Any = None, dtype: Any = None) -> Trial:
    """Return a run that ended well and left a map."""
    image = nib.Nifti1Image(np.asarray(data, dtype), exam.reference.affine if affine is None else affine)
    nib.save(image, path)
    return Trial(exam, 0, 1.0, None, path)


Change = Callable[[Any, Any, Any], tuple[Any, Any]]


@pytest.mark.parametrize(
    ("change", "name", "status", "seen"),
    [
        (lambda d, a, s: (d, a), "", "", ""),
        (
            lambda d, a, s: (
                d[::-1],
                a @ np.array([[-1, 0, 0, d.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            ),
            "",
            "",
            "",
        ),
        (
            lambda d, a, s: (d[::2], a @ np.diag([2, 1, 1, 1])),
            "lies on the grid of the exam",
            FAIL,
            "8x4x4 mm",
        ),
        (lambda d, a, s: (d, np.eye(4)), "lies on the grid of the exam", FAIL, "1x1x1 mm"),
        (lambda d, a, s: (np.where(d > 60, np.nan, d), a), "has finite values", FAIL, "NaN or infinite"),
        (lambda d, a, s: (0 * d, a), "differs within the brain", FAIL, "value 0"),
        (lambda d, a, s: (np.stack([d, d], -1), a), "is a 3-D NIfTI image", FAIL, "4 dimensions"),
        (lambda d, a, s: (s > 0, a), "orders the voxels of a whole plan", WARN, "positive voxels"),
        (
            lambda d, a, s: (np.round(d / 60) + 1, a),
            "orders the voxels of a whole plan",
            WARN,
            "share the value",
        ),
    ],
)
def test_every_fault_of_a_map_has_its_own_line(
    exam: Exam, tmp_path: Path, change: Change, name: str, status: str, seen: str
) -> None:
    data = exam.array("flair").astype(np.float32)
    changed, affine = change(data, exam.reference.affine, exam.array("tumor_seg"))
    trial = tried(exam, tmp_path / "map.nii.gz", changed, affine, np.float32)
    wrong = verdicts(conformance._map_checks(trial), FAIL, WARN)
    assert set(wrong) == ({name} if name else set())
    if name:
        assert wrong[name].status == status
        assert seen in wrong[name].seen
        # What fails here is what the pipeline would refuse, no more and no less.
        assert (trial.fault is not None) == (status == FAIL)


def test_a_file_that_is_no_image_is_told(exam: Exam, tmp_path: Path) -> None:
    (tmp_path / "map.nii.gz").write_bytes(b"no image")
    checks = conformance._map_checks(Trial(exam, 0, 1.0, None, tmp_path / "map.nii.gz"))
    assert [check.status for check in checks] == [FAIL, SKIP, SKIP, SKIP]


@pytest.mark.parametrize(("noise", "status"), [(0.0, PASS), (1e-3, WARN), (1.0, FAIL)])
def test_maps_that_hardly_differ_are_forgiven(exam: Exam, tmp_path: Path, noise: float, status: str) -> None:
    data = exam.array("flair").astype(np.float64)
    other = data + noise * np.ptp(data) * np.random.default_rng(0).random(data.shape)
    trials = [tried(exam, tmp_path / f"{i}.nii.gz", d, dtype=np.float32) for i, d in enumerate((data, other))]
    assert conformance._repeats(*trials).status == status


@pytest.mark.parametrize(("spacing", "codes"), [((4, 4, 4), "LPS"), ((3, 3, 5), "RAS"), ((5, 4, 3), "SAR")])
def test_the_phantom_is_one_head_on_any_grid(spacing: tuple[float, ...], codes: str) -> None:
    images = make_phantom(spacing, codes)
    brain = images["brain_mask"]
    assert "".join(nib.aff2axcodes(brain.affine)) == codes
    ellipsoid = 4 / 3 * np.pi * np.prod(BRAIN_MM) / 1000
    assert brain.data.sum() * brain.voxel_ml == pytest.approx(ellipsoid, rel=0.02)
    # Necrosis and rim: an ellipsoid, longer by a fifth from back to front.
    core = region(images["tumor_seg"].data, CORE)
    assert core.sum() * brain.voxel_ml == pytest.approx(
        1.2 * 4 / 3 * np.pi * RADII_MM[1] ** 3 / 1000, rel=0.1
    )
    centre = nib.affines.apply_affine(brain.affine, np.argwhere(core).mean(axis=0))
    np.testing.assert_allclose(centre, (26, 10, 8), atol=1)
    total = sum(images[name].data for name in ("wm", "gm", "csf"))
    np.testing.assert_allclose(total, brain.data, atol=1e-5)
    assert not make_phantom(spacing, codes, tumor=False)["tumor_seg"].data.any()


# Submissions

MANIFEST = {
    "name": "theirs",
    "title": "Theirs",
    "description": "A model of others.",
    "citation": "Others, 2026",
    "authors": ["First Author"],
    "version": "1.0",
    "licence": "MIT",
    "contact": "contact@example.org",
    "trained_on": "no patients",
    "inputs": ["flair"],
    "output": "rank",
}
DIGEST = f"sha256:{'ab' * 32}"
CONTAINER = {
    "kind": "container",
    "container": "registry.example:5000/lab/theirs:1.0",
    "digest": DIGEST,
    "cpus": 2,
    "memory": "4 GB",
    "time": "20 min",
}


def manifest(place: Path, **fields: Any) -> Path:
    path = place / "submission.yml"
    path.write_text(yaml.safe_dump({k: v for k, v in (MANIFEST | fields).items() if v is not None}))
    return path


def test_a_submitted_container_becomes_an_entry_of_a_list_of_models(tmp_path: Path) -> None:
    from predictgbm.submission import read_submission

    fields = json.loads((ASSETS / "schema_models.json").read_text())["$defs"]["model"]["properties"]
    entry = read_submission(manifest(tmp_path, **CONTAINER), ASSETS).entry(fields)
    (tmp_path / "models.yml").write_text(yaml.safe_dump({"models": [entry]}))
    models = read_models(ASSETS / "models.yml", ASSETS / "schema_models.json", tmp_path / "models.yml")
    assert models["theirs"].container == f"registry.example:5000/lab/theirs@{DIGEST}"
    assert (models["theirs"].cpus, models["theirs"].memory) == (2, "4 GB")


def test_another_image_than_the_manifest_names_is_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.sif").write_bytes(b"an image")
    path = manifest(tmp_path, **CONTAINER | {"container": "theirs.sif"})
    assert run_command("check_model.py", path) == 1
    said = capsys.readouterr().out
    assert f"is the image of the manifest: {hashlib.sha256(b'an image').hexdigest()}" in said
    assert "starts" not in said


def test_all_faults_of_a_manifest_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        "name": "My Model",
        "contact": "none",
        "authors": [],
        "digest": "latest",
        "folder": "maps",
        "memory": "big",
        "container": "a;touch${IFS}b;.sif",
    }
    path = manifest(tmp_path, **{**CONTAINER, **wrong, "inputs": ["t9"], "licence": None})
    assert run_command("check_model.py", path) == 1
    said = capsys.readouterr().out
    for text in (
        "name: 'My Model'",
        "contact: 'none'",
        "authors: []",
        "digest: 'latest'",
        "memory: 'big'",
        "container: 'a;touch${IFS}b;.sif'",
        "'t9'",
    ):
        assert text in said
    assert "folder: does not belong here" in said
    assert "'licence' is a required property" in said
    assert "starts" not in said


@pytest.fixture
def challenge(tmp_path: Path) -> tuple[Path, Path]:
    """A samplesheet of two patients, and a submission of their maps."""
    rows = []
    for patient in ("001", "002"):
        files = write_exam(tmp_path / "data" / patient)
        row = {"patient": patient, "session": "pre", "role": "preop", "days": "0"}
        rows.append(row | {column: f"{patient}/{path.name}" for column, path in files.items()})
    with (tmp_path / "data" / "sheet.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    maps = tmp_path / "sent" / "maps"
    for patient in ("001", "002"):
        save(maps / f"{patient}.nii.gz", arrays()["flair"])
    sign(maps)
    return tmp_path / "data" / "sheet.csv", manifest(maps.parent, kind="maps", folder="maps")


def sign(maps: Path) -> None:
    """Write the checksums as sha256sum does."""
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(maps.glob("*.nii.gz"))
    ]
    (maps / "SHA256SUMS").write_text("".join(lines))


def test_maps_in_order_become_scores_of_the_samplesheet(challenge: tuple[Path, Path], tmp_path: Path) -> None:
    sheet, path = challenge
    out = tmp_path / "elsewhere.csv"
    assert run_command("check_model.py", path, "--sheet", sheet, "--run-with", out) == 0
    schema = json.loads((ASSETS / "schema_input.json").read_text())
    cohort = check_samplesheet(out.read_bytes(), schema, "SRI24")
    assert cohort["faults"] == []
    assert cohort["models_scores"] == ["theirs"]
    for row in cohort["rows"]:
        files = [*row["files"].values(), row["scores"]["theirs"]]
        assert all(Path(file).is_file() for file in files)
        assert Path(row["scores"]["theirs"]).name == f"{row['meta']['patient']}.nii.gz"


def test_without_a_samplesheet_maps_are_checked_and_not_added_to_one(
    challenge: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("check_model.py", challenge[1]) == 0
    assert run_command("check_model.py", challenge[1], "--run-with", tmp_path / "out.csv") == 1
    assert "-> give the samplesheet by --sheet" in capsys.readouterr().out


def test_all_faults_of_maps_are_told_at_once(
    challenge: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, path = challenge
    maps = path.parent / "maps"
    save(maps / "001.nii.gz", arrays()["flair"], np.eye(4))
    (maps / "002.nii.gz").unlink()
    save(maps / "003.nii.gz", arrays()["flair"])
    save(maps / "sub-003.nii.gz", arrays()["flair"])
    out = tmp_path / "out.csv"
    assert run_command("check_model.py", path, "--sheet", sheet, "--run-with", out) == 1
    said = capsys.readouterr().out
    assert "001.nii.gz: has another checksum" in said
    assert "002.nii.gz: is named in SHA256SUMS and not there" in said
    assert "003.nii.gz: is not named in SHA256SUMS" in said
    assert "003.nii.gz: is of the same patient as sub-003.nii.gz; send one map of each patient" in said
    assert "has a map for each patient: 002" in said
    assert "knows the patients of its maps: 003" in said
    assert "are not on one grid" in said
    assert not out.exists()
