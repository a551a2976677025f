"""Each image has the packages that the package's modules import in it, as far as the lock files tell."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
#: Family -> the lock file of its image.
LOCKS = {
    family: ROOT / "containers" / family / "requirements.lock"
    for family in ("growth", "imaging", "hdbet", "learning")
} | {"report": ROOT / "requirements.lock"}
#: What MultiQC loads by its entry points.
LOADED = {"report": ["multiqc", "predictgbm.report.multiqc_module"]}

HIDE = """
import importlib.metadata as metadata, re, sys
allowed = set(sys.argv[1].split(","))
hidden = {
    name
    for name, distributions in metadata.packages_distributions().items()
    if not {re.sub("[-_.]+", "-", d).lower() for d in distributions} & allowed
} - sys.stdlib_module_names
class Finder:
    def __init__(self, found):
        self.found = found
    def __getattr__(self, name):
        return getattr(self.found, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in hidden else self.found.find_spec(name, path, target)
sys.meta_path[:] = map(Finder, sys.meta_path)
for module in sys.argv[2].split(","):
    __import__(module)
"""


def imported_by_commands(family: str) -> set[str]:
    """Return the package's modules that the commands of a family's tasks import, wherever in the command they do."""
    found = set()
    for path in (ROOT / "modules" / "local").glob("*/*/main.nf"):
        text = path.read_text(encoding="utf-8")
        labels = re.findall(r"^\s*label (.*)$", text, re.MULTILINE)
        # A model runs in the image that its entry names.
        named = "entry.family" in text and family in ("growth", "learning")
        if not named and not any(f"family_{family}'" in label for label in labels):
            continue
        for command in re.findall(r"\b(\w+\.py)\b", text):
            for node in ast.walk(ast.parse((ROOT / "bin" / command).read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("predictgbm"):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                    found |= {name for name in names if is_module(name)} | {node.module}
    return found


def is_module(name: str) -> bool:
    path = ROOT / "src" / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_commands_of_every_family_are_found() -> None:
    assert {
        "predictgbm.dose",
        "predictgbm.guidelines.presets",
        "predictgbm.reliability",
    } <= imported_by_commands("growth")
    assert {"predictgbm.crate", "predictgbm.report.viewer"} <= imported_by_commands("report")
    assert "predictgbm.export.rtstruct" in imported_by_commands("imaging")
    assert "predictgbm.brain" in imported_by_commands("hdbet")
    assert imported_by_commands("learning")


@pytest.mark.parametrize("family", LOCKS)
def test_modules_of_an_image_import_what_its_lock_file_holds(family: str) -> None:
    models = yaml.safe_load((ROOT / "assets" / "models.yml").read_text())["models"]
    own = [model for model in models if model["family"] == family]
    commands = imported_by_commands(family)
    modules = [*sorted(commands), *LOADED.get(family, []), *(m["function"].split(":")[0] for m in own)]
    modules += [model["training"] for model in own if "training" in model]
    if family == "learning" and not all(
        importlib.util.find_spec(name) for name in ("torch", "monai", "nnunetv2", "sklearn")
    ):
        pytest.skip("what trains models is not installed: ./predictgbm setup --learning")
    if family == "hdbet" and not importlib.util.find_spec("torch"):
        pytest.skip("what extracts brains by a network is not installed: ./predictgbm setup --hdbet")
    lock = LOCKS[family].read_text()
    allowed = {
        re.sub("[-_.]+", "-", name).lower() for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    }
    done = subprocess.run(
        [sys.executable, "-c", HIDE, ",".join([*allowed, "predictgbm"]), ",".join(modules)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
