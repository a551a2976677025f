"""Style, types and structure, each checked by its own tool."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LAUNCHER, ROOT


def tool(name: str, *arguments: object, cwd: Path = ROOT, **variables: str) -> str:
    """Run a program of the environment, demand its success and return what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = shutil.which(name, path=path)
    assert found, f"{name} is not in the environment: run ./predictgbm test"
    done = subprocess.run(
        [found, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "160", "PATH": path} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def repository_files() -> list[Path]:
    """Files of the project: what is committed, and what is not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted({ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()})


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the project in a git repository of its own: some tools write where they look."""
    folder = tmp_path_factory.mktemp("snapshot") / "predictgbm"
    for file in repository_files():
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "snapshot"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_python_style() -> None:
    tool("ruff", "check", ".")


def test_python_format() -> None:
    tool("ruff", "format", "--check", ".")


def test_python_types() -> None:
    tool("mypy")


def test_launcher_types() -> None:
    # Its modules are started as files of one folder, and what reads Maven repositories is not in this environment.
    modules = sorted(file.name for file in (ROOT / "launcher").glob("*.py"))
    tool("mypy", "--strict", "--disable-error-code=import-not-found", *modules, cwd=ROOT / "launcher")


def test_shell_scripts_parse() -> None:
    scripts = [
        file
        for file in repository_files()
        if file.stat().st_mode & 0o100
        and file.read_bytes().startswith((b"#!/usr/bin/env bash", b"#!/bin/bash"))
    ]
    assert {ROOT / "predictgbm", ROOT / "containers" / "build", ROOT / ".ci" / "run"} <= set(scripts)
    for script in scripts:
        tool("bash", "-n", script)


def nextflow_files(folder: Path) -> list[Path]:
    files = [file.relative_to(ROOT) for file in repository_files() if file.suffix in {".nf", ".config"}]
    return [folder / file for file in files if file.name != "nf-test.config"]


@pytest.mark.network
def test_nextflow_strict_syntax(snapshot: Path) -> None:
    shown = tool(
        str(LAUNCHER),
        "nextflow",
        "lint",
        *nextflow_files(snapshot),
        cwd=snapshot,
        NXF_VER="25.04.0",
        NXF_ANSI_LOG="false",
    )
    assert "had no errors" in shown, shown
    assert "had warnings" not in shown, shown


@pytest.mark.parametrize("profile", ["standard", "docker", "podman", "apptainer", "singularity", "slurm"])
def test_configuration_of_a_profile_parses(tmp_path: Path, profile: str) -> None:
    shown = tool(str(LAUNCHER), "nextflow", "config", "-profile", profile, ROOT, cwd=tmp_path)
    assert "manifest {" in shown


@pytest.mark.parametrize(
    ("profile", "options", "expected"),
    [
        ("awsbatch", "aws_queue: here\naws_region: eu-west-1\n", "awsbatch"),
        ("googlebatch", "google_project: here\ngoogle_location: europe-west4\n", "google-batch"),
        ("k8s", "k8s_namespace: here\nk8s_claim: there\n", "k8s"),
    ],
)
def test_configuration_of_a_cloud_parses(tmp_path: Path, profile: str, options: str, expected: str) -> None:
    (tmp_path / "params.yml").write_text(options)
    shown = tool(str(LAUNCHER), "nextflow", "config", "-profile", profile, ROOT, cwd=tmp_path)
    assert f"executor = '{expected}'" in shown, shown


@pytest.mark.network
def test_nf_core_lint(snapshot: Path, tmp_path: Path) -> None:
    program = tmp_path / "nextflow"
    program.write_text(f'#!/bin/sh\nexec {LAUNCHER} nextflow "$@"\n')
    program.chmod(0o755)
    shown = tool(
        "nf-core",
        *("--hide-progress", "pipelines", "lint", "--dir", snapshot),
        NFCORE_NO_VERSION_CHECK="true",
        PATH=os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
    )
    assert "0 Tests Failed" in shown.replace("  ", " "), shown


@pytest.mark.network
@pytest.mark.pipeline
def test_pipeline_under_the_strict_parser(tmp_path: Path) -> None:
    shown = tool(
        str(LAUNCHER),
        *(
            "run",
            "-profile",
            "test,standard",
            "--simulate",
            "1",
            "--models",
            "soc,distance",
            "--outdir",
            "results",
        ),
        cwd=tmp_path,
        NXF_VER="25.04.4",
        NXF_SYNTAX_PARSER="v2",
        NXF_ANSI_LOG="false",
    )
    assert re.search(r"version 25\.04\.4", shown)
    report = tmp_path / "results" / "multiqc" / "multiqc_report.html"
    assert report.stat().st_size > 10_000
    plans = [path.name for path in (tmp_path / "results").glob("sub-*/ses-*/*_desc-isovol_mask.nii.gz")]
    assert sorted(re.findall(r"model-(\w+)_", " ".join(plans))) == ["distance", "soc"]
