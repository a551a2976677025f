"""LMI without torch: what the network sees, its layers against scipy, the shipped weights on known tumours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from predictgbm.growth import ModelError, calibration, lmi
from predictgbm.growth.medium import Medium
from predictgbm.growth.solver import FisherKPP, relative_diffusivity

WEIGHTS = Path(lmi.__file__).parent / "weights"
SPACING = (2.5,) * 3


def random_weights(width: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = {"stem.weight": rng.normal(size=(width, lmi.CHANNELS, *(lmi.STEM,) * 3)) * 0.1}
    weights["stem.bias"] = rng.normal(size=width)
    for i in range(lmi.BLOCKS):
        for j in range(lmi.LAYERS):
            weights[f"block{i}.{j}.weight"] = rng.normal(size=(width, width, 3, 3, 3)) * 0.1
            weights[f"block{i}.{j}.bias"] = rng.normal(size=width)
    weights |= {"head.weight": rng.normal(size=(5, width)), "head.bias": rng.normal(size=5)}
    return weights | {"mean": np.zeros(5), "deviation": np.ones(5)}


@pytest.mark.parametrize(("edge", "stride"), [(3, 1), (5, 1), (5, 2)])
def test_convolution_is_that_of_scipy(edge: int, stride: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 8, 8, 8)).astype(np.float32)
    weight = rng.normal(size=(4, 3, edge, edge, edge)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    found = lmi._convolve(x, weight, bias, stride)
    for o in range(4):
        whole = sum(ndimage.correlate(x[c], weight[o, c], mode="constant") for c in range(3)) + bias[o]
        assert found[o] == pytest.approx(whole[::stride, ::stride, ::stride], abs=1e-4)


@given(
    spread=st.floats(*lmi.SPREAD_RANGE),
    growth=st.floats(*lmi.GROWTH_RANGE),
    offset=st.tuples(*[st.floats(-10, 10)] * 3),
    edge=st.floats(20, 200),
)
def test_target_is_read_back(
    spread: float, growth: float, offset: tuple[float, float, float], edge: float
) -> None:
    found = lmi.from_target(lmi.to_target(spread, growth, offset, edge), edge)
    assert found.spread == pytest.approx(spread)
    assert found.growth == pytest.approx(growth)
    assert found.offset == pytest.approx(offset, abs=1e-9)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    lmi.Network(random_weights())
    with pytest.raises(ModelError, match=r"block2\.1\.bias has shape None, expected \(6,\)"):
        lmi.Network({k: v for k, v in random_weights().items() if k != "block2.1.bias"})
    with pytest.raises(ModelError, match=r"head\.weight has shape \(4, 6\), expected \(5, 6\)"):
        lmi.Network(random_weights() | {"head.weight": np.zeros((4, 6))})
    cut_off = (WEIGHTS / "lmi.npz").read_bytes()[:10000]
    for content in (b"", b"no archive", cut_off):
        (tmp_path / "w.npz").write_bytes(content)
        with pytest.raises(ModelError, match=r"w\.npz: cannot be read as weights of LMI"):
            lmi.Network.load(tmp_path / "w.npz")
    with pytest.raises(ModelError, match=r"absent\.npz: cannot be read"):
        lmi.Network.load(tmp_path / "absent.npz")


def test_box_holds_the_tumour_wherever_it_lies_and_whatever_the_voxels() -> None:
    whole = np.zeros((50, 40, 30), bool)
    whole[10:30, 12:20, 8:18] = True
    medium = Medium(*np.full((2, *whole.shape), 0.5, np.float32), whole, whole, 0, 0)
    channels, box = lmi.look(whole, whole, medium, (1.0, 2.0, 3.0))
    assert box.centre == pytest.approx([19.5, 31.0, 37.5])
    assert box.edge == pytest.approx(1.5 * 30)
    # The volume that the box shows is that of the tumour.
    shown = channels[1].sum(dtype=float) / 255 * (box.edge / lmi.CELLS) ** 3
    assert shown == pytest.approx(whole.sum() * 6.0, rel=0.08)
    finer = np.repeat(np.repeat(whole, 2, axis=1), 3, axis=2)
    medium = Medium(*np.full((2, *finer.shape), 0.5, np.float32), finer, finer, 0, 0)
    same, other = lmi.look(finer, finer, medium, (1.0, 1.0, 1.0))
    assert other.edge == pytest.approx(box.edge)
    assert np.abs(same[0].astype(float) - channels[0]).mean() < 4


def test_small_parts_get_no_seed() -> None:
    whole = np.zeros((40, 40, 40), bool)
    whole[5:15, 5:15, 5:15] = True
    whole[25:31, 25:31, 25:31] = True
    whole[2, 38, 38] = True
    parts = calibration.find_parts(whole, (1.0,) * 3)
    assert [part.sum() for part in parts] == [1000, 216]
    only = np.zeros_like(whole)
    only[3, 3, 3] = True
    assert len(calibration.find_parts(only, (1.0,) * 3)) == 1


def brain() -> dict[str, np.ndarray]:
    """Return a ball of grey matter around white matter around a ventricle, voxels of 2.5 mm."""
    shape = (52, 56, 48)
    axes = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"), axis=-1)
    r = np.linalg.norm(axes / np.array([24, 26, 22]), axis=-1)
    inside = r < 1
    gm = np.clip((r - 0.75) / 0.1, 0, 1)
    csf = np.linalg.norm(axes / np.array([3, 8, 4]), axis=-1) < 1
    return {
        "wm": np.where(inside & ~csf, 1 - gm, 0).astype(np.float32),
        "gm": np.where(inside & ~csf, gm, 0).astype(np.float32),
        "csf": (inside & csf).astype(np.float32),
        "brain_mask": inside,
    }


def grown(reach: float, width: float, places: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return an exam whose tumour the equation made, and its concentration."""
    exam = brain()
    relative = relative_diffusivity(exam["wm"], exam["gm"], brain_mask=exam["brain_mask"])
    start = calibration.gaussian_seeds(relative.shape, SPACING, places, np.full(len(places), 0.5))
    u = FisherKPP(relative, SPACING).simulate(start, width * reach / 200, reach / width / 200, 100.0)
    labels = np.where(u > 0.6, 3, np.where(u > 0.2, 2, 0)).astype(np.uint8)
    return exam | {"tumor_seg": labels}, u


PLACES = np.array([[35.0, 80.0, 60.0], [95.0, 60.0, 60.0]])


@pytest.fixture
def plausible(tmp_path: Path) -> str:
    """Return a file of weights that say about the same of every tumour."""
    weights = random_weights() | {
        "mean": np.array([np.log(0.12), np.log(3.0), 0, 0, 0]),
        "deviation": np.full(5, 1e-3),
    }
    np.savez(tmp_path / "mine.npz", **weights)
    return str(tmp_path / "mine.npz")


def test_each_part_of_a_tumour_grows_by_the_weights_that_are_given(plausible: str) -> None:
    exam, u = grown(30.0, 2.5, PLACES)
    found = lmi.predict(**exam, spacing=SPACING, weights=plausible)
    assert np.array(sorted(found.parameters["seeds_mm"])) == pytest.approx(PLACES, abs=6.0)
    for place in PLACES:
        assert found.map[tuple(np.rint(place / 2.5).astype(int))] > 0.3
    assert found.map.min() >= 0
    assert found.map.max() <= 1
    assert not found.map[~exam["brain_mask"]].any()
    best = np.argsort(-found.map, axis=None, kind="stable")[: int((u > 0.2).sum())]
    assert (u.ravel()[best] > 0.2).mean() > 0.7
    again = lmi.predict(**exam, spacing=SPACING, weights=plausible)
    assert np.array_equal(found.map, again.map)
    json.dumps(found.parameters)


def test_tumours_of_every_kind_get_a_map(plausible: str) -> None:
    exam, _ = grown(40.0, 3.0, PLACES[:1])
    labels = exam["tumor_seg"]
    tiny = np.zeros_like(labels)
    tiny[14:16, 32:34, 24:26] = 3
    huge, _ = grown(75.0, 3.0, PLACES[:1])
    # In a ventricle the network's seed would find no tissue; what is labelled tumour counts as such.
    ventricle = np.zeros_like(labels)
    ventricle[22:30, 22:30, 20:28] = 3
    for kind in (tiny, huge["tumor_seg"], np.where(labels, 2, 0), np.where(labels == 3, 3, 0), ventricle):
        found = lmi.predict(**exam | {"tumor_seg": kind.astype(np.uint8)}, spacing=SPACING, weights=plausible)
        assert np.isfinite(found.map).all()
        tumour, tissue = kind > 0, (exam["wm"] + exam["gm"] > 0.1) & (kind == 0)
        assert found.map[tumour].mean() > 2 * found.map[tissue].mean()
    with pytest.raises(ModelError, match="no tumour"):
        lmi.predict(**exam | {"tumor_seg": np.zeros_like(labels)}, spacing=SPACING, weights=plausible)


@pytest.mark.parametrize(("reach", "width"), [(25.0, 1.5), (40.0, 3.0), (60.0, 3.0), (70.0, 5.0)])
def test_shipped_weights_find_what_made_a_tumour(reach: float, width: float) -> None:
    exam, u = grown(reach, width, PLACES[:1])
    found = lmi.predict(**exam, spacing=SPACING)
    d, rho = (found.parameters[f"{name}"][0] for name in ("diffusivity_mm2_per_day", "proliferation_per_day"))
    assert 2 * np.sqrt(d * rho) * 100 == pytest.approx(reach, rel=0.3)
    assert np.sqrt(d / rho) == pytest.approx(width, rel=0.6)
    assert found.parameters["seeds_mm"][0] == pytest.approx(PLACES[0], abs=8.0)
    # The plan goes by the order of voxels: where the tumour is densest, so is the map.
    count = int((u > 0.05).sum())
    best = np.argsort(-found.map, axis=None, kind="stable")[:count]
    assert (u.ravel()[best] > 0.05).mean() > 0.9


def test_weights_come_with_their_card() -> None:
    assert (WEIGHTS / "lmi.npz").stat().st_size < 20e6
    card = json.loads((WEIGHTS / "lmi.json").read_text())
    network, neighbour = (card["held_out"][name] for name in ("network", "nearest_neighbour"))
    assert all(network[name] < neighbour[name] for name in network)
    assert len(lmi.Network.load().weights["stem.bias"]) == card["training"]["width"]
