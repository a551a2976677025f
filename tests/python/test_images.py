"""Each image has the packages that the package's modules import in it, as far as the lock files tell."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
#: What tasks of a family import beside the functions of the models.
COMMON = ["predictgbm.models", "predictgbm.exam", "predictgbm.failures"]
MODULES = {
    "growth": [
        "predictgbm.planning",
        "predictgbm.evaluation",
        "predictgbm.statistics.paired",
        "predictgbm.learned.splits",
    ],
    "imaging": ["predictgbm.export.rtstruct", "predictgbm.export.dicom_seg", "predictgbm.planning"],
    "learning": [],
}

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


@pytest.mark.parametrize("family", MODULES)
def test_modules_of_an_image_import_what_its_lock_file_holds(family: str) -> None:
    models = yaml.safe_load((ROOT / "assets" / "models.yml").read_text())["models"]
    own = [model for model in models if model["family"] == family]
    modules = [*COMMON, *MODULES[family], *(model["function"].split(":")[0] for model in own)]
    modules += [model["training"] for model in own if "training" in model]
    if family == "learning" and not all(
        importlib.util.find_spec(name) for name in ("torch", "monai", "nnunetv2", "sklearn")
    ):
        pytest.skip("what trains models is not installed: ./predictgbm setup --learning")
    lock = (ROOT / "containers" / family / "requirements.lock").read_text()
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
