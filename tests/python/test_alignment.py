"""From native grids to the atlas and back: known movements, one interpolation, swapped sides, a real exam."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from small_exam import name_space, run_command

from predictgbm.alignment import Alignment, align, mutual_information, resample_tensor, to_native
from predictgbm.atlas import T1, TISSUES, Atlas
from predictgbm.images import Image, ImageError, read_image, write_image
from predictgbm.masks import dice
from predictgbm.normalisation import correct_bias, normalise
from predictgbm.registration.transforms import apply_points, read_transform, resample
from predictgbm.tensors import COMPONENTS

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "brats2021_00001"
LESION = np.array([18.0, 10, 6])


def rigid(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return a rotation about the axes of space, one after the other, and a shift in mm."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(4)
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    matrix[:3, 3] = shift
    return matrix


def anatomy(points: NDArray[np.float64], lesion: bool) -> dict[str, NDArray[Any]]:
    """Return tissue, brain and lesion of a small brain at points (..., 3) in atlas mm; not symmetric."""
    x, y, z = np.moveaxis(points, -1, 0)
    radius = np.sqrt((x / 38) ** 2 + (y / 46) ** 2 + (z / 34) ** 2)
    folds = (
        np.sin(x / 5 + 0.3 * y / 5) * np.cos(y / 6 + 1) + np.sin(z / 5 + x / 9) + 0.4 * np.sin((x + y) / 4)
    )
    wm = np.clip(0.5 + 0.8 * folds, 0, 1) * np.clip((0.9 - radius) * 8, 0, 1)
    csf = np.clip(1 - np.hypot(x + 2, z) / 7, 0, 1) * (np.abs(y) < 16)
    tumor = (np.linalg.norm(points - LESION, axis=-1) < 11) & lesion
    return {"wm": wm * (1 - csf), "csf": csf, "brain": radius < 1, "tumor": tumor}


def draw(contrast: str, tissue: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    wm, gm, csf, tumor = {
        "t1": (100, 70, 25, 60),
        "t1c": (105, 75, 30, 190),
        "t2": (40, 65, 150, 110),
        "flair": (50, 70, 20, 160),
    }[contrast]
    normal = wm * tissue["wm"] + csf * tissue["csf"] + gm * (1 - tissue["wm"] - tissue["csf"])
    image = np.where(tissue["tumor"], tumor, normal) * tissue["brain"]
    noise = np.random.default_rng(len(contrast)).normal(0, 1.5, image.shape)
    return np.asarray(np.where(tissue["brain"], image + noise, 0), np.float32)


def world(
    shape: tuple[int, int, int], affine: NDArray[np.float64], pose: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the atlas mm of each voxel, given the pose: native mm to atlas mm."""
    matrix = pose @ affine
    return np.asarray(np.moveaxis(np.indices(shape), 0, -1) @ matrix[:3, :3].T + matrix[:3, 3], np.float64)


def centred(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -0.5 * (np.array(shape) - 1) * spacing
    return affine


GRID = (44, 52, 40)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    affine = centred(GRID, (2.0, 2.0, 2.0))
    tissue = anatomy(world(GRID, affine, np.eye(4)), lesion=False)
    brain, wm, csf = tissue["brain"], tissue["wm"], tissue["csf"]
    maps = [(a * brain).astype(np.float32) for a in (wm, 1 - wm - csf, csf)]
    return Atlas(draw("t1", tissue).clip(0), *maps, brain, affine, (2.0, 2.0, 2.0), "MNI152")


#: Native mm to atlas mm of the T1c, and of each contrast besides: it moved a little between them.
POSE = rigid((7, -5, 9), (9, -6, 5))
MOVED = {
    "t1c": np.eye(4),
    "t1": rigid((1, 0.5, -1), (0.5, -1, 0.8)),
    "t2": rigid((-1.5, 1, 0.5), (-1, 0.6, 1.2)),
    "flair": rigid((0.5, -1, 1.5), (1.5, 1, -1)),
}
GRIDS: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    "t1c": ((90, 108, 84), (1.1, 1.1, 1.1)),
    "t1": ((60, 64, 56), (1.6, 1.7, 1.6)),
    "t2": ((140, 150, 24), (0.7, 0.7, 4.0)),
    "flair": ((100, 110, 28), (0.9, 0.9, 3.5)),
}


def native(contrast: str) -> tuple[Image, dict[str, NDArray[Any]]]:
    shape, spacing = GRIDS[contrast]
    affine = centred(shape, spacing)
    tissue = anatomy(world(shape, affine, POSE @ MOVED[contrast]), lesion=True)
    return Image(draw(contrast, tissue), affine, contrast), tissue


@pytest.fixture(scope="module")
def exam() -> tuple[dict[str, Image], Image]:
    images = {}
    for contrast in GRIDS:
        images[contrast], tissue = native(contrast)
        if contrast == "t1c":
            affine = images["t1c"].affine
            brain = Image(tissue["brain"].astype(np.uint8), affine, "brain")
            labels = Image(tissue["tumor"].astype(np.uint8) * 3, affine, "tumor_seg")
    return {**images, "tumor_seg": labels}, brain


@pytest.fixture(scope="module")
def aligned(atlas: Atlas, exam: tuple[dict[str, Image], Image]) -> Alignment:
    return align(atlas, *exam)


def test_known_movements_are_found(aligned: Alignment) -> None:
    points = 28 * np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
    for contrast, matrix in aligned.transforms.items():
        truth = apply_points(points, np.linalg.inv(POSE @ MOVED[contrast]))
        error = np.linalg.norm(apply_points(points, matrix) - truth, axis=1)
        assert error.max() < 1.0, contrast


def test_images_lie_on_the_atlas_with_zero_outside_and_labels_whole(atlas: Atlas, aligned: Alignment) -> None:
    assert dice(aligned.brain_mask, atlas.brain_mask) > 0.97
    for contrast in GRIDS:
        assert aligned.images[contrast].shape == atlas.shape
        assert not aligned.images[contrast][~aligned.brain_mask].any()
    labels = aligned.images["tumor_seg"]
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 3}
    truth = anatomy(world(GRID, atlas.affine, np.eye(4)), lesion=True)["tumor"]
    assert dice(labels == 3, truth) > 0.9
    assert not any(m.flagged for m in aligned.measures), [m for m in aligned.measures if m.flagged]


def test_each_image_is_interpolated_once(
    atlas: Atlas, exam: tuple[dict[str, Image], Image], aligned: Alignment
) -> None:
    image = exam[0]["flair"]
    once = resample(image, Image(atlas.t1, atlas.affine), aligned.transforms["flair"])
    np.testing.assert_array_equal(aligned.images["flair"], once * aligned.brain_mask)


def test_tensors_turn_with_the_head(atlas: Atlas, aligned: Alignment) -> None:
    """Tracts along a known direction of the atlas, measured in a head that lies askew, run along it again."""
    axes = np.linalg.qr(np.array([[2.0, 1, 0], [1, -1, 1], [0, 1, 2]]))[0]
    tract = axes @ np.diag([1500.0, 400, 300]) @ axes.T
    head = POSE @ MOVED["t1"]  # native mm to atlas mm
    shape, spacing = GRIDS["t1"]
    affine = centred(shape, spacing)
    brain = anatomy(world(shape, affine, head), lesion=False)["brain"]
    measured = head[:3, :3].T @ tract @ head[:3, :3]
    volumes = np.stack([measured[i, j] * brain for i, j in COMPONENTS], axis=-1).astype(np.float32)
    reference = Image(atlas.t1, atlas.affine)
    found = resample_tensor(Image(volumes, affine), reference, np.linalg.inv(head))
    inner = ndimage.binary_erosion(atlas.brain_mask, iterations=2)
    expected = np.array([tract[i, j] for i, j in COMPONENTS])
    assert np.abs(found[inner] - expected).max() < 1e-3 * 1500


def test_labels_come_back(exam: tuple[dict[str, Image], Image], aligned: Alignment, atlas: Atlas) -> None:
    images, _ = exam
    labels = Image(aligned.images["tumor_seg"], atlas.affine)
    back = to_native(labels, images["t1c"], aligned.transforms["t1c"], labels=True)
    # A lesion of 11 mm radius on a grid of 2 mm; at 1 mm, see the real exam below.
    assert dice(back == 3, images["tumor_seg"].data == 3) >= 0.93
    flair = to_native(labels, images["flair"], aligned.transforms["flair"], labels=True)
    assert dice(flair == 3, native("flair")[1]["tumor"]) >= 0.9
    assert (to_native(labels, images["t1c"], rigid((0, 0, 0), (500, 0, 0)), labels=True) == 0).all()


def test_a_contrast_with_swapped_sides_is_flagged(atlas: Atlas, exam: tuple[dict[str, Image], Image]) -> None:
    images, brain = exam
    swapped = Image(np.ascontiguousarray(images["flair"].data[::-1]), images["flair"].affine, "flair")
    result = align(atlas, {"t1c": images["t1c"], "flair": swapped}, brain)
    assert {m.name: m for m in result.measures}["mirrored_flair"].flagged


def test_images_that_are_aligned_already_stay_where_they_are(atlas: Atlas) -> None:
    tissue = anatomy(world(GRID, atlas.affine, np.eye(4)), lesion=True)
    images = {c: Image(draw(c, tissue), atlas.affine, c) for c in ("t1c", "t2")}
    result = align(atlas, images, Image(tissue["brain"].astype(np.uint8), atlas.affine))
    points = np.array([(30.0, 30, 30), (-30, 30, -30)])
    for contrast in images:
        assert np.abs(apply_points(points, result.transforms[contrast]) - points).max() < 0.3
    assert dice(result.brain_mask, tissue["brain"]) > 0.98


def test_another_organ_is_stopped(atlas: Atlas) -> None:
    x, y, z = np.moveaxis(world((60, 30, 30), centred((60, 30, 30), (3.0, 3.0, 3.0)), np.eye(4)), -1, 0)
    rod = np.hypot(y, z) < 9
    image = Image(
        (rod * (50 + 20 * np.sin(x / 4))).astype(np.float32), centred((60, 30, 30), (3.0, 3.0, 3.0)), "leg"
    )
    with pytest.raises(ImageError, match="brains overlap"):
        align(atlas, {"t1c": image}, Image(rod.astype(np.uint8), image.affine))


def test_commands_there_and_back(
    tmp_path: Path, atlas: Atlas, exam: tuple[dict[str, Image], Image], aligned: Alignment
) -> None:
    for name, data in ((T1, atlas.t1), *((TISSUES[t], getattr(atlas, t)) for t in ("wm", "gm", "csf"))):
        write_image(tmp_path / "atlas" / name, data, atlas.affine)
    name_space(tmp_path / "atlas", "MNI152")
    images, brain = exam
    for column in ("t1c", "flair", "tumor_seg"):
        write_image(tmp_path / "native" / f"{column}.nii.gz", images[column].data, images[column].affine)
    # An organ that is the tumour, and a box that the edge of the brain crosses.
    organ = (images["tumor_seg"].data > 0).astype(np.uint8)
    organ[20:30, 20:30, 20:30] = 1
    write_image(tmp_path / "native" / "oar_stem.nii.gz", organ, brain.affine)
    write_image(tmp_path / "mask.nii.gz", brain.data, brain.affine)
    out = tmp_path / "aligned"
    options = (
        "--exam",
        tmp_path / "native",
        "--brain-mask",
        tmp_path / "mask.nii.gz",
        "--atlas",
        tmp_path / "atlas",
    )
    written = ("--out-dir", out, "--quality", tmp_path / "q.json", "--picture", tmp_path / "p.png")
    assert run_command("align_exam.py", *options, *written) == 0
    moved_organ, tumor = (read_image(out / f"{c}.nii.gz", np.uint8).data for c in ("oar_stem", "tumor_seg"))
    assert set(np.unique(moved_organ)) == {0, 1}
    assert (moved_organ[tumor > 0] == 1).all()
    corner = (moved_organ > 0) & (tumor == 0)
    assert np.mean(read_image(out / "brain_mask.nii.gz").data[corner] == 0) > 0.1
    assert corner.sum() * np.prod(atlas.spacing) == pytest.approx(1000 * 1.1**3, rel=0.1)
    t1c = read_image(out / "t1c.nii.gz").data
    assert (t1c.min(), t1c.max()) == (0, 1)
    assert {m["name"] for m in json.loads((tmp_path / "q.json").read_text())["measures"]} >= {"atlas_overlap"}
    transform = out / "xfm" / "from-t1c_to-MNI152_xfm.tfm"
    # A file's affine is rounded to float32, and the search ends a hair elsewhere.
    corners = np.argwhere(np.ones((2, 2, 2))) * 100.0
    moved = [
        apply_points(corners, matrix) for matrix in (read_transform(transform), aligned.transforms["t1c"])
    ]
    assert np.linalg.norm(np.subtract(*moved), axis=1).max() < 0.3
    back = ("--map", out / "tumor_seg.nii.gz", "--transform", transform, "--out", tmp_path / "back.nii.gz")
    assert run_command("to_native.py", *back, "--reference", tmp_path / "native" / "t1c.nii.gz") == 0
    labels = read_image(tmp_path / "back.nii.gz", np.uint8)
    assert dice(labels.data == 3, images["tumor_seg"].data == 3) >= 0.93
    (tmp_path / "native" / "t1c.nii.gz").unlink()
    assert run_command("align_exam.py", *options, "--out-dir", out) == 2


def test_mutual_information_of_equal_and_of_independent_values() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(2, 200_000))
    assert mutual_information(a, 3 * a + 1) == pytest.approx(2, abs=0.01)
    assert mutual_information(a, b) == pytest.approx(1, abs=0.01)
    assert np.isnan(mutual_information(a, 0 * a))


SCALES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "percentile": lambda v: np.clip(
        (v - np.percentile(v, 0.1)) / (np.percentile(v, 99.9) - np.percentile(v, 0.1)), 0, 1
    ),
    "zscore": lambda v: (v - v.mean()) / v.std(),
    "none": lambda v: v,
}


@pytest.mark.parametrize("method", SCALES)
def test_intensities_are_scaled_by_what_lies_in_the_brain(method: str) -> None:
    image = np.random.default_rng(1).gamma(3, 100, (20, 20, 20)).astype(np.float32)
    mask = np.zeros(image.shape, bool)
    mask[3:15, 4:18, 2:19] = True
    image[~mask] *= 50
    result = normalise(image, mask, method)
    np.testing.assert_allclose(
        result[mask], SCALES[method](image[mask].astype(np.float64)), rtol=1e-4, atol=1e-4
    )
    assert not result[~mask].any()
    assert not normalise(np.zeros_like(image), mask, method).any()


def test_n4_takes_off_a_known_bias() -> None:
    affine = centred((40, 48, 36), (2.2, 2.2, 2.2))
    points = world((40, 48, 36), affine, np.eye(4))
    tissue = anatomy(points, lesion=False)
    flat = draw("t1", tissue)
    bias = np.exp(0.35 * np.sin(points[..., 1] / 40) + 0.2 * points[..., 0] / 40)
    brain = tissue["brain"]
    corrected = correct_bias((flat * bias).astype(np.float32), brain, (2.2, 2.2, 2.2))
    core = brain & (flat > 40)
    before = np.std(np.log(bias[core]))
    after = np.std(np.log(corrected[core] / flat[core]))
    assert after < 0.6 * before
    assert corrected[brain].mean() == pytest.approx((flat * bias)[brain].mean(), rel=0.01)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real exam is not here")
def test_a_real_exam_treated_as_raw_returns(tmp_path: Path) -> None:
    """Moved, turned, header altered, FLAIR in thick slices: found within 1 mm, and its labels come back."""
    read = {
        name: read_image(REAL / f"BraTS-GLI-00001-000-{suffix}.nii.gz", kind)
        for name, suffix, kind in (
            ("t1c", "t1c", np.float32),
            ("flair", "t2f", np.float32),
            ("seg", "seg_auto-brats23winner", np.uint8),
        )
    }
    original = read["t1c"]
    brain = ndimage.binary_fill_holes(original.data != 0)
    atlas = Atlas(
        original.data,
        *(np.zeros(original.shape, np.float32),) * 3,
        brain,
        original.affine,
        original.spacing,
        "SRI24",
    )
    # The exam serves as its own atlas, so that the movement is the whole truth.
    moved = rigid((6, -4, 8), (15, -10, 12))
    back = np.linalg.inv(moved)
    low, high = np.argwhere(brain).min(axis=0), np.argwhere(brain).max(axis=0)
    corners = np.array(
        [(i, j, k) for i in (low[0], high[0]) for j in (low[1], high[1]) for k in (low[2], high[2])]
    )
    corners = corners @ original.affine[:3, :3].T + original.affine[:3, 3]
    centre = apply_points(corners.mean(axis=0), moved)[0]

    def grid(
        shape: tuple[int, int, int], spacing: tuple[float, float, float], codes: tuple[int, int, int]
    ) -> Image:
        affine = centred(shape, spacing) @ np.eye(4)
        affine = np.diag([*codes, 1]) @ affine  # other voxel orders than the original's
        affine[:3, 3] += centre
        return Image(np.zeros(shape, np.float32), affine)

    fine, thick = (
        grid((170, 200, 160), (1.0, 1.0, 1.0), (1, 1, 1)),
        grid((190, 220, 32), (0.9, 0.9, 5.0), (-1, 1, 1)),
    )
    between = rigid((1, -1, 0.5), (1, 0.5, -1))
    images = {
        "t1c": Image(resample(original, fine, back), fine.affine, "t1c"),
        "flair": Image(resample(read["flair"], thick, np.linalg.inv(between), back), thick.affine, "flair"),
        "tumor_seg": Image(
            resample(read["seg"], fine, back, interpolation="nearest"), fine.affine, "tumor_seg"
        ),
    }
    mask = Image(brain.astype(np.uint8), original.affine)
    native_mask = Image(resample(mask, fine, back, interpolation="nearest"), fine.affine)
    result = align(atlas, images, native_mask)
    for column, truth in (("t1c", moved), ("flair", between @ moved)):
        error = np.linalg.norm(
            apply_points(corners, result.transforms[column]) - apply_points(corners, truth), axis=1
        )
        assert error.max() < 1.0, (column, error)
    labels = Image(result.images["tumor_seg"], original.affine)
    returned = to_native(labels, images["t1c"], result.transforms["t1c"], labels=True)
    assert dice(returned > 0, images["tumor_seg"].data > 0) >= 0.95
    assert not [m.name for m in result.measures if m.flagged]
