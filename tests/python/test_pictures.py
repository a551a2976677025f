"""The viewer page and the quality-control picture of a patient."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
from small_exam import AFFINE, SHAPE, arrays, radius, tumor

from predictgbm.exam import model_name
from predictgbm.images import Image, ImageError, conform, same_grid, to_ras
from predictgbm.report.pictures import draw_patient
from predictgbm.report.viewer import Layer, build_page, to_uint8

ROOT = Path(__file__).resolve().parents[2]
NIIVUE = ROOT / "assets" / "niivue" / "niivue.umd.js"


def page(title: str = "sub-1") -> str:
    brain = radius() < 1
    labels = tumor()
    layers = [
        Layer("T1c", "Exam", Image(arrays()["t1c"], AFFINE), shown=True),
        Layer("Labels", "Labels", Image(labels, AFFINE), {1: (1, 2, 3), 3: (4, 5, 6)}, {1: "necrosis"}),
        Layer("</script><b>plan", "Plan", Image((labels > 0).astype(np.uint8), AFFINE), {1: (9, 9, 9)}),
    ]
    return build_page(title, "note", layers, brain, labels == 3, NIIVUE.read_text(encoding="utf-8"))


def volumes(html: str) -> list[dict]:
    found = re.search(r'<script type="application/json" id="volumes">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found.group(1))


def test_niivue_is_the_stated_build() -> None:
    stated = re.search(r"`([0-9a-f]{64})`", (NIIVUE.parent / "README.md").read_text(encoding="utf-8"))
    assert stated
    assert hashlib.sha256(NIIVUE.read_bytes()).hexdigest() == stated.group(1)


def test_viewer_holds_the_labels_in_their_place() -> None:
    layer = next(item for item in volumes(page()) if item["name"] == "Labels")
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(layer["base64"])))
    cropped = np.asarray(image.dataobj)
    labels = tumor()
    assert (np.bincount(cropped.ravel(), minlength=5) == np.bincount(labels.ravel(), minlength=5))[1:].all()
    there = nib.affines.apply_affine(image.affine, np.argwhere(cropped == 3)).mean(axis=0)
    here = nib.affines.apply_affine(AFFINE, np.argwhere(labels == 3)).mean(axis=0)
    np.testing.assert_allclose(there, here, atol=1e-3)


def test_viewer_needs_no_network_and_text_stays_text() -> None:
    html = page("sub-<b>1</b>")
    assert "<b>1</b>" not in html.split("<script>")[0]
    assert not re.search(
        r"""<(?:script|link|img)[^>]+(?:src|href)=""", html.replace(NIIVUE.read_text(encoding="utf-8"), "")
    )
    assert len(volumes(html)) == 3


def test_viewer_page_draws_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium or chrome on PATH to open the page with")
    (tmp_path / "page.html").write_text(page(), encoding="utf-8")
    flags = (
        "--headless=new --no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
        "--ignore-gpu-blocklist --no-first-run --disable-quic --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=20000 --dump-dom"
    )
    done = subprocess.run(
        [
            browser,
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert 'data-ready="true"' in done.stdout, done.stderr[-2000:]
    assert done.stdout.count('type="checkbox"') == 2


def test_grey_values_use_the_whole_range() -> None:
    scaled = to_uint8(np.linspace(0, 50, 1000).reshape(10, 10, 10))
    assert scaled.min() == 0
    assert scaled.max() == 255
    assert not to_uint8(np.zeros((2, 2, 2))).any()


def test_picture_has_a_column_for_the_exam_and_for_every_model() -> None:
    labels = tumor()
    brain = radius() < 1
    maps = {name: radius() * factor for name, factor in (("soc", -1.0), ("mine", 1.0))}
    plans = dict.fromkeys(maps, labels > 0)
    figure = draw_patient(arrays()["t1c"], labels, brain, (2.0, 2.0, 2.0), maps, plans, labels == 3, "sub-1")
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["exam", "soc", "mine"]
    assert len(figure.axes) == 6
    plt.close(figure)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_to_ras_keeps_every_voxel_where_it_is(flips: tuple[int, int, int]) -> None:
    data = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    affine = AFFINE @ np.diag([*flips, 1.0])
    image = Image(data, affine)
    turned = to_ras(image)
    assert nib.aff2axcodes(turned.affine) == ("R", "A", "S")
    assert same_grid(conform(turned, image), image)
    np.testing.assert_array_equal(conform(turned, image).data, data)


def test_model_name_is_read_from_the_file_name() -> None:
    assert model_name("a/sub-1_space-SRI24_model-loti_desc-isovol_mask.nii.gz") == "loti"
    with pytest.raises(ImageError, match="model-<name>"):
        model_name("plan.nii.gz")
