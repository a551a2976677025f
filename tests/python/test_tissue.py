"""Tissue maps: a known deformation is undone, the tumour is left out, maps sum to 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_exam import name_space, run_command
from test_alignment import GRID, anatomy, atlas, centred, draw, world  # noqa: F401

from predictgbm.atlas import T1, TISSUES, Atlas
from predictgbm.images import Image, ImageError, read_image, write_image
from predictgbm.masks import dice
from predictgbm.segmentation.tissue import METHODS, Method, segment_tissue


def patient() -> tuple[Image, dict[str, NDArray[Any]]]:
    """Return the T1 and the truth of a brain that is a smooth deformation of the atlas's, with a tumour."""
    affine = centred(GRID, (2.0, 2.0, 2.0))
    points = world(GRID, affine, np.eye(4))
    x, y, z = np.moveaxis(points, -1, 0)
    shift = np.stack([3 * np.sin(y / 18), 3 * np.sin(z / 16 + 1), 2.5 * np.cos(x / 17)], axis=-1)
    truth = anatomy(points + shift, lesion=True)
    return Image(draw("t1", truth), affine, "t1"), truth


def scores(
    maps: tuple[NDArray[Any], ...], truth: dict[str, NDArray[Any]], where: NDArray[np.bool_]
) -> list[float]:
    wm, gm, csf = maps
    found = np.stack([wm, gm, csf]).argmax(axis=0)
    true = np.stack([truth["wm"], 1 - truth["wm"] - truth["csf"], truth["csf"]]).argmax(axis=0)
    return [dice((found == k) & where, (true == k) & where) for k in (0, 1)]


@pytest.mark.parametrize("method", METHODS)
def test_maps_follow_the_anatomy_and_sum_to_one(atlas: Atlas, method: Method) -> None:  # noqa: F811
    if method == "syn":
        pytest.importorskip("ants", reason="antspyx is not installed")
    image, truth = patient()
    brain, tumor = truth["brain"], truth["tumor"]
    *maps, facts = segment_tissue(atlas, image, brain, tumor, method)
    total = np.sum(maps, axis=0)
    np.testing.assert_allclose(total[brain], 1, atol=1e-4)
    assert not total[~brain].any()
    assert min(m.min() for m in maps) >= 0
    assert facts["atlas_overlap"] > 0.8
    plain = segment_tissue(atlas, image, brain, tumor, "atlas")[:3]
    before, after = scores(plain, truth, brain & ~tumor), scores(tuple(maps), truth, brain & ~tumor)
    if method != "atlas":
        assert facts["folded_percent"] == 0
        assert min(a - b for a, b in zip(after, before, strict=True)) > 0.03, (before, after)
        # Below the tumour the maps stay as good as the deformation around it allows.
        assert np.mean(scores(tuple(maps), truth, tumor)) > np.mean(scores(plain, truth, tumor)) - 0.05


def test_what_the_tumor_looks_like_does_not_matter(atlas: Atlas) -> None:  # noqa: F811
    image, truth = patient()
    other = Image(np.where(truth["tumor"], 400, image.data).astype(np.float32), image.affine)
    a, b = (segment_tissue(atlas, i, truth["brain"], truth["tumor"])[0] for i in (image, other))
    np.testing.assert_array_equal(a, b)
    seen = segment_tissue(atlas, other, truth["brain"], np.zeros_like(truth["tumor"]))[0]
    assert np.abs(a - seen)[truth["tumor"]].mean() > 0.1


def test_command(tmp_path: Path, atlas: Atlas) -> None:  # noqa: F811
    for name, data in ((T1, atlas.t1), *((TISSUES[t], getattr(atlas, t)) for t in ("wm", "gm", "csf"))):
        write_image(tmp_path / "atlas" / name, data, atlas.affine)
    name_space(tmp_path / "atlas")
    image, truth = patient()
    exam = tmp_path / "aligned"
    write_image(exam / "t1c.nii.gz", image.data, image.affine)
    write_image(exam / "brain_mask.nii.gz", truth["brain"], image.affine)
    write_image(tmp_path / "seg.nii.gz", truth["tumor"], image.affine)
    given = (
        "--exam",
        exam,
        "--tumor-seg",
        tmp_path / "seg.nii.gz",
        "--atlas",
        tmp_path / "atlas",
        "--out-dir",
    )
    report = ("--quality", tmp_path / "q.json", "--picture", tmp_path / "p.png")
    for out in ("one", "two"):
        assert run_command("segment_tissue.py", *given, tmp_path / out, *report) == 0
    maps = [read_image(tmp_path / "one" / f"tissue_{t}.nii.gz") for t in ("wm", "gm", "csf")]
    np.testing.assert_allclose(sum(m.data for m in maps)[truth["brain"]], 1, atol=1e-4)
    for t in ("wm", "gm", "csf"):
        name = f"tissue_{t}.nii.gz"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert json.loads((tmp_path / "q.json").read_text())["method"] == "greedy"
    (exam / "t1c.nii.gz").unlink()
    assert run_command("segment_tissue.py", *given, tmp_path / "three") == 2


def test_a_brain_that_is_all_tumor_is_an_error(atlas: Atlas) -> None:  # noqa: F811
    image, truth = patient()
    with pytest.raises(ImageError, match="tumour fills"):
        segment_tissue(atlas, image, truth["brain"], truth["brain"])
