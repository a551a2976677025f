"""The whole pipeline in the images of containers/, run by podman."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import LAUNCHER, ROOT

pytestmark = [pytest.mark.podman, pytest.mark.pipeline]

# These images hold PyTorch: several GB, which no test run should fetch.
LARGE = {"hdbet", "learning"}
FAMILIES = sorted({file.parent.name for file in (ROOT / "containers").glob("*/Containerfile")} - LARGE)
PREFIX = "localhost/predictgbm-test"
PIN = re.compile(r"^([\w.-]+)==([\w.!+-]+)", re.MULTILINE)
PIN_NAME = re.compile(r"^([\w.-]+)[<>=]", re.MULTILINE)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture(scope="module")
def images(podman: dict[str, str]) -> dict[str, str]:
    """Build every image as a user does; returns family -> image."""
    # The network of the build is this machine's own, with the certificates it trusts.
    options = ["--network=host"]
    env = podman | {"CONTAINER_PREFIX": PREFIX, "CONTAINER_TAG": "test"}
    if CERTIFICATES.is_file():
        options.append(f"--volume={CERTIFICATES}:/run/certificates.crt:ro")
        env["PIP_CERT"] = "/run/certificates.crt"
    done = subprocess.run(
        [ROOT / "containers" / "build", "podman", *FAMILIES],
        cwd="/",
        env=env | {"BUILD_OPTIONS": " ".join(options)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return {family: f"{PREFIX}/{family}:test" for family in FAMILIES}


def in_container(env: dict[str, str], image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        ["podman", "run", "--rm", "--network=none", *options, image, *command],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_image_holds_the_pinned_packages_and_what_nextflow_needs(
    podman: dict[str, str], images: dict[str, str], family: str
) -> None:
    for program in (["bash", "-c", "true"], ["ps", "-e"]):
        in_container(podman, images[family], *program)
    lock = ROOT / "containers" / family / "requirements.lock"
    pinned = (lock if lock.exists() else ROOT / "requirements.lock").read_text()
    frozen = in_container(podman, images[family], "pip", "freeze", "--exclude", "predictgbm")
    wanted = {(re.sub("[-_.]+", "-", name).lower(), version) for name, version in PIN.findall(pinned)}
    packages = {(re.sub("[-_.]+", "-", name).lower(), version) for name, version in PIN.findall(frozen)}
    assert len(packages) > 20
    # pip and setuptools make the installation and are pinned apart.
    assert {package for package in packages - wanted if package[0] not in {"pip", "setuptools"}} == set()
    # Of the package itself, an image has what its family uses; what is there must be complete.
    checked = in_container(podman, images[family], "sh", "-c", "pip check || true").splitlines()
    overrides = ROOT / "containers" / family / "overrides.txt"
    overridden = PIN_NAME.findall(overrides.read_text()) if overrides.exists() else []
    faults = [line for line in checked if not line.startswith(("predictgbm ", "No broken"))]
    assert [line for line in faults if not any(f"requirement {name}" in line for name in overridden)] == []
    if family == "report":
        assert checked == ["No broken requirements found."]


def test_compiled_functions_have_a_place_for_any_user(podman: dict[str, str], images: dict[str, str]) -> None:
    modules = "import predictgbm.growth.fisher_kpp, predictgbm.growth.loti, predictgbm.simulation.growth"
    in_container(podman, images["growth"], "python3", "-c", modules, options=("--user", "4321:4321"))


def test_pipeline_runs_in_containers(podman: dict[str, str], images: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(LAUNCHER, "run", "-profile", "test,podman", "--outdir", "results", "-ansi-log", "false"),
            *("--container_prefix", PREFIX, "--container_tag", "test"),
        ],
        cwd=tmp_path,
        env=podman,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert (tmp_path / "results" / "multiqc" / "multiqc_report.html").stat().st_size > 10_000
    scripts = list((tmp_path / "work").glob("*/*/.command.run"))
    assert len(scripts) > 10
    for script in scripts:
        text = script.read_text()
        assert "podman run" in text, script
        assert any(image in text for image in images.values()), script
    # What a task wrote belongs to the user who started the pipeline.
    assert {path.stat().st_uid for path in (tmp_path / "results").rglob("*")} == {os.getuid()}
    shutil.rmtree(tmp_path / "work")
