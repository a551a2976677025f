"""Deformable registration and its commands: derivatives, recovery of a known map, folds, same bits, files."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.images import Image, ImageError, read_image, write_image
from predictgbm.registration import kernels
from predictgbm.registration.deformable import (
    Level,
    Settings,
    Side,
    Spline,
    optimise,
    register_deformable,
    remove_folds,
)
from predictgbm.registration.longitudinal import METHODS, Pair, register, similarity, ventricle_dice
from predictgbm.registration.transforms import (
    Field,
    apply_points,
    compose,
    invert,
    jacobian,
    read_transform,
    resample,
    write_transform,
)

BIN = Path(__file__).resolve().parents[2] / "bin"
QUICK = Settings(levels=(Level(2, 30), Level(1, 15)))


def noise(shape: tuple[int, ...], sigma: float, seed: int) -> NDArray[np.float32]:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return (values / values.std()).astype(np.float32)


def vectors(shape: tuple[int, ...], sigma: float, seed: int) -> NDArray[np.float32]:
    return np.stack([noise(shape, sigma, 10 * seed + axis) for axis in range(3)])


@pytest.mark.parametrize("measure", ["ncc", "mse"])
@pytest.mark.parametrize("which", [0, 1])
def test_derivatives_agree_with_differences(measure: str, which: int) -> None:
    shape = (14, 18, 12)
    still = noise(shape, 1.5, 0)
    side = Side(still, noise(shape, 1.5, 1) + still, Settings(similarity=measure))  # type: ignore[arg-type]
    valid = (noise(shape, 2, 5) < 0.8).astype(np.float32)
    side.compare(np.abs(noise(shape, 2, 2)) * valid, valid)
    level = Level(1, 1, smoothness=0.3, consistency=0.2)
    u = vectors(shape, 2, 3)
    fields = [u, -0.8 * u]
    _, *slopes = side.objective(level, fields[0], fields[1])
    direction = vectors(shape, 1, 4)
    values = []
    for step in (1e-3, -1e-3):
        moved = [f + step * direction * (i == which) for i, f in enumerate(fields)]
        values.append(side.objective(level, moved[0], moved[1])[0])
    expected = float((slopes[which] * direction).sum(dtype=np.float64))
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(expected, rel=0.03, abs=2e-5)


def test_gather_is_the_adjoint_of_expand() -> None:
    spline = Spline((11, 9, 14), 1, Level(2, 1))
    control = np.random.default_rng(0).standard_normal((3, *spline.points)).astype(np.float32)
    other = np.random.default_rng(1).standard_normal((3, 11, 9, 14)).astype(np.float32)
    left = np.vdot(spline.expand(control).astype(np.float64), other)
    assert left == pytest.approx(
        np.vdot(control.astype(np.float64), spline.gather(other)), rel=1e-3, abs=1e-2
    )
    np.testing.assert_allclose(spline.expand(np.ones_like(control)), 1, atol=5e-4)  # partition of unity


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100), radius=st.integers(0, 3))
def test_moving_sum_agrees_with_scipy(seed: int, radius: int) -> None:
    array = np.random.default_rng(seed).standard_normal((7, 9, 8)).astype(np.float32)
    size = 2 * radius + 1
    expected = ndimage.uniform_filter(array.astype(np.float64), size, mode="constant") * size**3
    np.testing.assert_allclose(kernels.moving_sum(array, radius), expected, atol=1e-3)


def brain(shape: tuple[int, int, int] = (32, 36, 28)) -> tuple[Image, NDArray[np.bool_]]:
    index = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    radii = np.array(shape)[:, None, None, None] * 0.38
    mask = ((index / radii) ** 2).sum(axis=0) < 1
    affine = np.array([[-1.0, 0, 0, 16], [0, -1.0, 0, 18], [0, 0, 1.0, -14], [0, 0, 0, 1]])
    return Image(((10 + 3 * noise(shape, 1.5, 7)).clip(1) * mask).astype(np.float32), affine, "pre"), mask


def followup(image: Image, size: float = 4.0) -> tuple[Image, Field]:
    """The image after a smooth deformation of so many mm, in another scale; and the truth, fixed to moving."""
    field = np.moveaxis(vectors(image.shape, 7, 5), 0, -1)
    truth = Field((field * size / np.abs(field).max()).astype(np.float32), image.affine)
    moved = resample(image, image, invert(truth, image), interpolation="bspline")
    return Image(1.3 * moved * (moved > 0.5), image.affine, "post"), truth


def points(mask: NDArray[np.bool_], image: Image) -> NDArray[np.float64]:
    return np.argwhere(mask)[::11] @ image.affine[:3, :3].T + image.affine[:3, 3]


def error(image: Image, mask: NDArray[np.bool_], truth: Field, found: Field | NDArray[np.float64]) -> float:
    p = points(mask, image)
    return float(np.linalg.norm(apply_points(p, found) - apply_points(p, truth), axis=1).mean())


def test_known_deformation_is_found_without_folds_and_with_its_inverse() -> None:
    image, mask = brain()
    moving, truth = followup(image)
    forward, backward = register_deformable(image, moving, np.eye(4), mask, moving.data > 0, settings=QUICK)
    assert error(image, mask, truth, forward) < 0.65 * error(image, mask, truth, np.eye(4))
    assert jacobian(forward).min() > 0
    p = points(mask, image)
    assert np.linalg.norm(apply_points(p, forward, backward) - p, axis=1).mean() < 0.4


def test_optimisation_goes_on_from_given_fields() -> None:
    image, mask = brain()
    moving, truth = followup(image)
    still = Settings(levels=(Level(1, 0),))
    near = Field(np.float32(0.4) * truth.displacement, image.affine)
    initial = near, invert(near, image)
    both = {"fixed_mask": mask, "moving_mask": moving.data > 0, "initial": initial}
    forward, backward = register_deformable(image, moving, np.eye(4), **both, settings=still)
    for start, kept in zip(initial, (forward, backward), strict=True):
        np.testing.assert_allclose(compose(image, kept).displacement, start.displacement, atol=0.2)
    fine = Settings(levels=(Level(1, 15),))
    forward, _ = register_deformable(image, moving, np.eye(4), **both, settings=fine)
    assert error(image, mask, truth, forward) < error(image, mask, truth, near)
    alone, _ = register_deformable(image, moving, np.eye(4), mask, moving.data > 0, settings=fine)
    assert error(image, mask, truth, forward) < error(image, mask, truth, alone)


def test_convexadam_finds_a_known_map() -> None:
    pytest.importorskip("convexAdam", reason="convexAdam is not installed: ./predictgbm setup --hdbet")
    image, mask = brain((44, 50, 40))
    # Axes in another order and direction, so that each component of the displacement has its place to miss.
    turned = np.array([[0, 0, -1.0, 20], [1.0, 0, 0, -22], [0, 1.0, 0, -25], [0, 0, 0, 1]])
    image = Image(image.data, turned, "pre")
    shift = np.eye(4)
    shift[:3, 3] = 3, -4, 2
    moving = Image(resample(image, image, np.linalg.inv(shift)), turned, "post")
    pair = Pair(image, moving, mask, moving.data > 0, None, None, None, 1, 0)
    found = METHODS["convexadam"][1](pair, np.eye(4))
    inside = points(ndimage.binary_erosion(mask, iterations=5), image)
    np.testing.assert_allclose((apply_points(inside, found) - inside).mean(axis=0), shift[:3, 3], atol=0.08)
    again = METHODS["convexadam"][1](pair, np.eye(4))
    np.testing.assert_array_equal(apply_points(inside, found), apply_points(inside, again))


def test_methods_without_their_packages_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = brain((24, 28, 24))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "predictgbm.registration.dirac", raising=False)
    pair = Pair(image, image, mask, mask, None, None, Path("weights.pth"), 1, 0)
    for method in ("convexadam", "dirac"):
        with pytest.raises(ImageError, match="setup --hdbet"):
            METHODS[method][1](pair, np.eye(4))


def test_image_registered_to_itself_stays() -> None:
    image, mask = brain()
    forward, _ = register_deformable(image, image, np.eye(4), mask, mask, settings=QUICK)
    assert np.abs(forward.displacement).mean() < 0.05


def test_a_new_lesion_is_not_drawn_to_the_old_one() -> None:
    image, mask = brain()
    index = np.indices(image.shape)

    def ball(x: int) -> NDArray[np.bool_]:
        return np.asarray(sum((i - c) ** 2 for i, c in zip(index, (x, 18, 14), strict=True)) <= 9)

    old, new = ball(12), ball(19)
    bright = 3 * np.abs(image.data[mask]).max()
    fixed = Image(np.where(old, bright, image.data).astype(np.float32), image.affine)
    moving = Image(np.where(new, bright, image.data).astype(np.float32), image.affine)
    ignored = {"fixed_ignore": old, "moving_ignore": new}
    forward, _ = register_deformable(fixed, moving, np.eye(4), mask, mask, settings=QUICK, **ignored)
    moved = compose(image, forward).displacement
    assert np.linalg.norm(moved[new], axis=-1).max() < 0.5
    assert np.linalg.norm(moved[old], axis=-1).max() < 0.5
    forward, _ = register_deformable(fixed, moving, np.eye(4), mask, mask, settings=QUICK)
    assert np.linalg.norm(compose(image, forward).displacement[new], axis=-1).max() > 0.5


def test_same_bits_whatever_the_threads() -> None:
    image, mask = brain((24, 28, 24))
    moving, _ = followup(image)
    weight, valid = mask.astype(np.float32), np.ones(mask.shape, np.float32)
    one, again, two = (
        optimise(image.data / 3, moving.data / 4, weight, weight, valid, valid, QUICK, threads=n)
        for n in (1, 1, 2)
    )
    for other in (again, two):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(0, 12))
def test_folds_are_removed(seed: int, size: float) -> None:
    field = (size * np.moveaxis(vectors((16, 18, 14), 1.5, seed), 0, -1)).astype(np.float32)
    assert jacobian(Field(remove_folds(field, np.eye(4)), np.eye(4))).min() > 0


def test_similarity_of_two_people_is_lower() -> None:
    image, mask = brain()
    assert similarity(image.data, 2 * image.data, mask) == pytest.approx(1, abs=0.01)
    assert similarity(image.data, noise(image.shape, 1.5, 99), mask) < 0.2


def test_linear_methods_have_exact_inverses() -> None:
    image, mask = brain()
    moving, _ = followup(image)
    result = register(image, moving, "affine", mask, moving.data > 0)
    p = points(mask, image)
    np.testing.assert_allclose(apply_points(p, result.forward, result.backward), p, atol=1e-3)
    assert set(METHODS) >= {"ncc", "rigid", "affine", "greedy", "syn", "ffd", "convexadam", "dirac"}


def test_overlap_of_the_ventricles_falls_with_every_mm_that_they_are_apart() -> None:
    at = np.stack(np.indices((70, 70, 70)) - 35.0)
    brain = np.linalg.norm(at, axis=0) < 33
    inside = np.linalg.norm(at / np.array([6, 10, 6]).reshape(3, 1, 1, 1), axis=0) < 1
    image = np.where(inside, 20.0, 100.0) * brain
    # Where the map sees the ventricle 2 mm aside, and twice as bright a scanner, make no difference.
    csf = np.roll(inside, 2, 0).astype(np.float32)
    nothing = np.zeros_like(brain)
    spacing = (1.0, 1.0, 1.0)
    assert ventricle_dice(image, 2 * image + 5, csf, brain, nothing, spacing) == 1
    apart = [ventricle_dice(image, np.roll(image, n, 1), csf, brain, nothing, spacing) for n in range(5)]
    assert all(near > far for near, far in pairwise(apart))
    count = np.count_nonzero
    for n in (1, 2, 3):
        assert apart[n] == pytest.approx(count(inside & np.roll(inside, n, 1)) / count(inside), abs=0.01)
    # Tumour takes no part, and without fluid there is nothing to compare.
    tumor = at[1] > 0
    other = np.where(tumor, np.roll(image, 3, 0), image)
    assert ventricle_dice(image, other, csf, brain, tumor, spacing) == 1
    assert np.isnan(ventricle_dice(image, image, 0 * csf, brain, nothing, spacing))


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_command_writes_images_labels_transforms_and_measures(tmp_path: Path) -> None:
    image, mask = brain()
    moving, _ = followup(image)
    labels = np.where(mask & (image.data > 14), 3, 0).astype(np.uint8)
    for name, data in (("pre", image.data), ("post", moving.data), ("seg", labels)):
        write_image(tmp_path / f"{name}.nii.gz", data, image.affine)
    command = [BIN / "register_longitudinal.py", "--fixed", tmp_path / "pre.nii.gz"]
    command += ["--moving", tmp_path / "post.nii.gz", "--moving-seg", tmp_path / "seg.nii.gz"]
    command += ["--also", f"FLAIR={tmp_path / 'post.nii.gz'}", "--out-prefix", tmp_path / "out" / "x"]
    csf = (ndimage.distance_transform_edt(mask) > 20) & (image.data < np.median(image.data[mask]))
    write_image(tmp_path / "csf.nii.gz", csf.astype(np.float32), image.affine)
    command += ["--fixed-csf", tmp_path / "csf.nii.gz"]
    command += ["--method", "greedy", "--quality", tmp_path / "q.json", "--picture", tmp_path / "p.png"]
    done = call(*command)
    assert done.returncode == 0, done.stderr
    prefix = f"{tmp_path}/out/x_"
    warped = read_image(f"{prefix}desc-registered_T1c.nii.gz")
    flair = read_image(f"{prefix}desc-registered_FLAIR.nii.gz")
    np.testing.assert_array_equal(warped.data, flair.data)
    assert set(np.unique(read_image(f"{prefix}desc-registered_dseg.nii.gz", np.uint8).data)) <= {0, 3}
    forward = read_transform(f"{prefix}from-fixed_to-moving_xfm.nii.gz")
    np.testing.assert_allclose(resample(moving, image, forward), warped.data, atol=0.05)
    measures = {m["name"]: m for m in json.loads((tmp_path / "q.json").read_text())["measures"]}
    assert measures["folded_voxels"]["value"] == 0
    assert measures["ventricle_dice"]["expected"] == "at least 0.75"
    assert measures["similarity_after"]["value"] > measures["similarity_before"]["value"]
    assert (tmp_path / "p.png").stat().st_size > 0

    # Images and labels on grids of their own are interpolated once: through the joined map, and not smoothed by a stop.
    shift = np.eye(4)
    shift[:3, 3] = 0.5, -0.25, 0.4
    moved = Image(moving.data, np.linalg.inv(shift) @ moving.affine)
    write_image(tmp_path / "flair.nii.gz", moved.data, moved.affine)
    write_image(tmp_path / "own_seg.nii.gz", labels, moved.affine)
    write_transform(tmp_path / "own.tfm", np.linalg.inv(shift))
    own = ["--also", f"FLAIR={tmp_path / 'flair.nii.gz'},{tmp_path / 'own.tfm'}", "--normalisation", "none"]
    own += ["--also", f"dseg={tmp_path / 'own_seg.nii.gz'},{tmp_path / 'own.tfm'}"]
    before = read_image(f"{prefix}desc-registered_dseg.nii.gz", np.uint8).data
    done = call(*command, *own)
    assert done.returncode == 0, done.stderr
    once = read_image(f"{prefix}desc-registered_FLAIR.nii.gz").data
    np.testing.assert_allclose(once[mask], warped.data[mask], atol=0.05)
    assert not once[~mask].any()
    np.testing.assert_array_equal(read_image(f"{prefix}desc-registered_dseg.nii.gz", np.uint8).data, before)

    # Somebody else's brain is refused.
    other = (noise(image.shape, 1.5, 99) + 5) * mask
    write_image(tmp_path / "post.nii.gz", other.astype(np.float32), image.affine)
    done = call(*command)
    assert done.returncode == 2
    assert "different people" in done.stderr

    # Points to the follow-up and back.
    table = pd.DataFrame({"name": ["a", "b"], "x": [1.5, -3], "y": [2.0, 4], "z": [-5.0, 6]})
    table.to_csv(tmp_path / "points.csv", index=False)
    both = [f"{prefix}from-fixed_to-moving_xfm.nii.gz", f"{prefix}from-moving_to-fixed_xfm.nii.gz"]
    arguments = ["--points", tmp_path / "points.csv", "--out", tmp_path / "back.csv", "--transform"]
    assert call(BIN / "transform_points.py", *arguments, *both).returncode == 0
    back = pd.read_csv(tmp_path / "back.csv")
    assert list(back["name"]) == ["a", "b"]
    np.testing.assert_allclose(back[["x", "y", "z"]], table[["x", "y", "z"]], atol=0.05)


def test_command_says_that_diracs_network_did_not_run(tmp_path: Path) -> None:
    image, _ = brain((24, 28, 24))
    moving, _ = followup(image, 2)
    for name, data in (("pre", image.data), ("post", moving.data)):
        write_image(tmp_path / f"{name}.nii.gz", data, image.affine)
    command = [BIN / "register_longitudinal.py", "--fixed", tmp_path / "pre.nii.gz", "--moving"]
    command += [tmp_path / "post.nii.gz", "--out-prefix", tmp_path / "x", "--quality", tmp_path / "q.json"]
    done = call(*command, "--method", "dirac")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "q.json").read_text())["method"] == "dirac without its network"


def test_points_are_lps(tmp_path: Path) -> None:
    shift = np.eye(4)
    shift[:3, 3] = 1, 2, 3
    grid = Image(np.zeros((5, 5, 5), np.float32), np.eye(4))
    write_transform(tmp_path / "t.tfm", shift)
    write_transform(tmp_path / "f.nii.gz", compose(grid, shift))
    (tmp_path / "p.csv").write_text("x,y,z\n0,0,0\n")
    for name in ("t.tfm", "f.nii.gz"):
        arguments = [
            "--points",
            tmp_path / "p.csv",
            "--transform",
            tmp_path / name,
            "--out",
            tmp_path / "o.csv",
        ]
        assert call(BIN / "transform_points.py", *arguments).returncode == 0
        assert pd.read_csv(tmp_path / "o.csv").to_numpy().tolist() == [[-1, -2, 3]]
    (tmp_path / "p.csv").write_text("x,y\n0,0\n")
    done = call(BIN / "transform_points.py", *arguments)
    assert done.returncode == 2
    assert "lacks column z" in done.stderr
