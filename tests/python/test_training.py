"""Training of LMI: tumours with known parameters, the network in torch and in numpy, the program end to end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import small_exam

from predictgbm.atlas import load_atlas
from predictgbm.growth import lmi as applied
from predictgbm.growth.medium import Medium
from predictgbm.simulation.patient import Simulator
from predictgbm.training import tumors
from predictgbm.training.tumors import Anatomy, Truth, Tumors

NO_TORCH = "torch is not installed: ./predictgbm setup --hdbet"
TRUTH = Truth(8.0, 2.6, np.array([41.0, 52.0, 44.0]))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    wm = np.full((90, 100, 90), 0.7, np.float32)
    wm[:, 60:] = 0.2
    wm[30:36, 30:40, 40:60] = 0
    gm = np.where(wm > 0, 0.9 - wm, 0).astype(np.float32)
    return Anatomy(wm, gm)


def test_part_and_coarser_cells_lie_where_they_should(anatomy: Anatomy) -> None:
    part = anatomy.around(TRUTH.seed, 20.0)
    assert part.first == (21.0, 32.0, 24.0)
    assert part.wm.shape == (41, 41, 41)
    assert np.array_equal(part.wm, anatomy.wm[21:62, 32:73, 24:65])
    coarse = part.coarser()
    assert coarse.first == (21.5, 32.5, 24.5)
    assert coarse.spacing == 2.0
    assert coarse.wm[3, 3, 3] == pytest.approx(part.wm[6:8, 6:8, 6:8].mean())


@pytest.mark.parametrize("fine_below", [0.0, 100.0])
def test_view_shows_what_the_model_will_see(
    anatomy: Anatomy, fine_below: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tumors, "FINE_BELOW_MM", fine_below)
    for name in ("ROUGHNESS", "JITTER_EDGE", "JITTER_SHIFT"):
        monkeypatch.setattr(tumors, name, 0.0)
    monkeypatch.setattr(tumors, "CORE_THRESHOLDS", (0.6, 0.6))
    monkeypatch.setattr(tumors, "EDEMA_THRESHOLDS", (0.2, 0.2))
    u, part = tumors.grow(anatomy, TRUTH)
    assert part.spacing == (1.0 if fine_below else 2.0)
    view = tumors.draw_view(np.random.default_rng(0), anatomy, TRUTH, u, part)
    assert view is not None
    channels, edge, target = view
    found = applied.from_target(target, edge)
    assert (found.spread, found.growth) == pytest.approx((TRUTH.spread, TRUTH.growth))
    if fine_below:
        image = np.zeros(anatomy.wm.shape, np.float32)
        low = np.array(part.first, int)
        image[tuple(slice(a, a + n) for a, n in zip(low, u.shape, strict=True))] = u
        medium = Medium(anatomy.wm, anatomy.gm, image > 0.6, image > 0.2, 0, 0)
        same, box = applied.look(image > 0.6, image > 0.2, medium, (1.0,) * 3)
        assert edge == pytest.approx(box.edge)
        assert box.centre + found.offset == pytest.approx(TRUTH.seed)
        assert np.abs(same.astype(float) - channels).mean(axis=(1, 2, 3)).max() < 3


def test_both_resolutions_grow_the_same_tumour(anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = []
    for fine_below in (0.0, 100.0):
        monkeypatch.setattr(tumors, "FINE_BELOW_MM", fine_below)
        u, part = tumors.grow(anatomy, TRUTH)
        volumes.append([np.count_nonzero(u > t) * part.spacing**3 for t in (0.2, 0.6)])
    assert volumes[0] == pytest.approx(volumes[1], rel=0.08)


def test_individuals_hang_on_seed_and_number_alone(tmp_path: Path) -> None:
    simulator = Simulator(load_atlas(small_exam.write_atlas(tmp_path / "atlas")))
    first, again = (tumors.grow_individual(simulator, 3, 2, 4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(
        tumors.draw_anatomy(simulator, 3, 1).wm, tumors.draw_anatomy(simulator, 3, 2).wm
    )
    assert len(first.edges) == len(first.targets) == len(first.channels) > 0
    assert np.abs(first.targets[:, 2:]).max() < 1
    assert (first.channels[:, 0] <= first.channels[:, 1]).all()  # the core is part of the tumour
    both = tumors.join([first, again])
    assert np.array_equal(both.edges, np.tile(first.edges, 2))


def some_tumors(count: int) -> Tumors:
    """Return boxes with a bright corner whose place is the target."""
    rng = np.random.default_rng(0)
    n = applied.CELLS
    channels = np.zeros((count, 4, n, n, n), np.uint8)
    targets = np.zeros((count, 5), np.float32)
    for number in range(count):
        place = rng.integers(3, n - 3, 3)
        channels[(number, slice(None), *(slice(p - 2, p + 2) for p in place))] = 255
        targets[number, 2:] = (place - n / 2) / n
    return Tumors(channels, np.full(count, 60, np.float32), targets)


def test_mirrored_tumours_keep_their_seeds() -> None:
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    from predictgbm.training.lmi import mirror

    given = some_tumors(12)
    channels, targets = mirror(
        torch.from_numpy(given.channels), torch.from_numpy(given.targets), torch.Generator().manual_seed(5)
    )
    assert not np.array_equal(channels.numpy(), given.channels)
    for image, target in zip(channels.numpy(), targets.numpy(), strict=True):
        centre = np.argwhere(image[0] > 0).mean(axis=0) + 0.5
        assert (centre - applied.CELLS / 2) / applied.CELLS == pytest.approx(target[2:], abs=1e-6)


def test_folded_network_says_the_same_in_numpy() -> None:
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    from predictgbm.training import lmi

    torch.manual_seed(1)
    network = lmi.Network(6)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    network.eval()
    given = some_tumors(3)
    mean, deviation = np.arange(5.0), np.arange(1.0, 6.0)
    expected = lmi.apply(network, given, "cpu") * deviation + mean
    folded = applied.Network(lmi.fold(network, mean, deviation))
    for channels, edge, value in zip(given.channels, given.edges, expected, strict=True):
        assert folded(channels, float(edge)) == pytest.approx(value, abs=1e-4)


def test_training_learns_and_repeats_itself() -> None:
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    from predictgbm.training import lmi

    torch.set_num_threads(1)
    given = some_tumors(24)
    deviation = given.targets.std(axis=0) + 1e-6
    given = given._replace(targets=given.targets / deviation)
    recipe = lmi.Recipe(width=8, epochs=12, batch=8, rate=5e-3)
    losses = [[loss for _, loss, _, _ in lmi.train(given, recipe, "cpu")] for _ in range(2)]
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.5 * losses[0][0]


def test_nearest_neighbour_of_a_known_tumour_is_itself() -> None:
    pytest.importorskip("torch", reason=NO_TORCH)
    from predictgbm.training import lmi

    given = some_tumors(9)
    assert np.array_equal(lmi.nearest_neighbours(given, given, "cpu"), given.targets)
    found = lmi.errors(given.targets, given)
    assert found["factor_diffusivity"] == 1
    assert found["seed_mm"] == 0


def test_programs_grow_tumours_and_train_weights_that_the_model_takes(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason=NO_TORCH)
    atlas, run = small_exam.write_atlas(tmp_path / "atlas"), small_exam.run_command
    files = [tmp_path / f"{number}.npz" for number in (1, 2, 3)]
    for number, file in enumerate(files, 1):
        options = ("--individual", str(number), "--tumors", "4", "--out", file)
        assert run("grow_tumors.py", "--atlas", atlas, *options) == 0
    options = (
        "--held-out",
        "1",
        "--width",
        "4",
        "--epochs",
        "2",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
    )
    assert run("train_lmi.py", *files, *options) == 0
    assert len(applied.Network.load(tmp_path / "out/lmi.npz").weights["stem.bias"]) == 4
    card = json.loads((tmp_path / "out/lmi.json").read_text())
    assert card["data"]["individuals"] == 2
    with (tmp_path / "out/lmi.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert run("train_lmi.py", files[0], "--held-out", "1") == 2
