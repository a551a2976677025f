"""DIRAC's network: the checkpoint it takes, what it finds after some training, and the refinement from there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from numpy.typing import NDArray
from scipy import ndimage
from test_registration import brain, call, followup

from predictgbm.images import Image, ImageError, write_image
from predictgbm.registration.deformable import Level, Settings, register_deformable
from predictgbm.registration.longitudinal import register
from predictgbm.registration.transforms import Field, compose

torch = pytest.importorskip("torch", reason="torch is not installed: ./predictgbm setup --hdbet")

from predictgbm.registration import dirac  # noqa: E402

BIN = ROOT / "bin"

#: Features of the published network, and shapes of the weights of one of its blocks.
C = 24
BLOCK = {
    "ai1.style.weight": (2 * C, 64),
    "ai1.style.bias": (2 * C,),
    "conv1.weight": (C, C, 3, 3, 3),
    "ai2.style.weight": (2 * C, 64),
    "ai2.style.bias": (2 * C,),
    "conv2.weight": (C, C, 3, 3, 3),
    "mapping.0.weight": (64, 1),
    "mapping.0.bias": (64,),
    **{f"mapping.{i}.weight": (64, 64) for i in (2, 4, 6)},
    **{f"mapping.{i}.bias": (64,) for i in (2, 4, 6)},
}


def published(blocks: int = 5) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint: 6 start channels, hence 24 features, and 5 conditional blocks."""
    expected: dict[str, tuple[int, ...]] = {}
    # Images, and above the lowest level the field so far.
    for prefix, inputs in (("", 5), ("model_lvl2.", 5), ("model_lvl2.model_lvl1.", 2)):
        expected |= {
            f"{prefix}input_encoder_lvl1.0.weight": (C, inputs, 3, 3, 3),
            f"{prefix}input_encoder_lvl1.2.weight": (C, C, 3, 3, 3),
            f"{prefix}down_conv.weight": (C, C, 3, 3, 3),
            f"{prefix}up.weight": (C, C, 2, 2, 2),
            f"{prefix}output_lvl1.0.weight": (C, 2 * C, 3, 3, 3),
            f"{prefix}output_lvl1.2.weight": (3, C, 3, 3, 3),
        }
        for block in range(0, 2 * blocks, 2):
            expected |= {f"{prefix}resblock_group_lvl1.{block}.{name}": s for name, s in BLOCK.items()}
    return expected


def test_the_published_checkpoint_fits() -> None:
    state = dirac.Pyramid(24, 5).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == published()
    assert len(state) == 228


#: A small stand-in for the network's grid: as many voxels along each axis, of so many mm.
SIZE, EDGE = 16, 4.0
SMALL = {"SHAPE": (SIZE,) * 3, "EXTENT": (SIZE * EDGE,) * 3}


def phantom(points: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float32]:
    """Intensities, 0 to 1, of a smooth head with three lesions at points (..., 3) in mm, after a shift."""
    p = points - shift
    value = 0.6 * np.exp(-((np.linalg.norm(p / [20, 24, 18], axis=-1)) ** 6))
    for centre, height in (((8, 5, 2), 0.4), ((-7, 9, -3), -0.4), ((1, -11, 5), 0.35)):
        value += height * np.exp(-0.5 * (np.linalg.norm(p - centre, axis=-1) / 5) ** 2) * (value > 0.05)
    return value.astype(np.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that has learnt how far the phantom moved, saved as the published one is."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    points = (np.moveaxis(np.indices((SIZE,) * 3), 0, -1) - (SIZE - 1) / 2) * EDGE * np.array(dirac.LPS_AXES)
    network = dirac.Pyramid(8, 1)
    steps = 120
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    code = torch.full((1, 1), dirac.SMOOTHNESS)
    for _ in range(steps):
        shifts = rng.uniform(-5, 5, (2, 4, 3))
        moving, fixed = (
            torch.from_numpy(np.stack([phantom(points, s) for s in side]))[:, None] for side in shifts
        )
        truth = (shifts[0] - shifts[1]) * dirac.LPS_AXES / (EDGE * (SIZE - 1) / 2)
        field, _ = network(moving, fixed, code)
        target = torch.from_numpy(truth[:, ::-1].astype(np.float32))[:, :, None, None, None]
        loss = (fixed > 0.05) * (field - target).square()
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        plan.step()
    path = tmp_path_factory.mktemp("dirac") / "small.pth"
    torch.save(network.state_dict(), path)
    return path


def imaged(shift: NDArray[np.float64]) -> tuple[Image, NDArray[np.bool_]]:
    """The shifted phantom and its mask on another grid than the network's: 2.5 mm, RAS."""
    affine = np.diag([2.5, 2.5, 2.5, 1])
    affine[:3, 3] = -32
    index = np.moveaxis(np.indices((26, 26, 26)), 0, -1)
    data = phantom(index @ affine[:3, :3].T + affine[:3, 3], shift)
    return Image(300 * data, affine, "phantom"), data > 0.02


def test_network_finds_a_shift_both_ways_and_optimisation_goes_on_from_there(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(dirac, name, value)
    shift = np.array([3.0, -4.0, 2.0])
    (fixed, mask), (moving, moved) = imaged(np.zeros(3)), imaged(shift)
    start = dirac.start_fields(trained, fixed, moving, np.eye(4), mask, moved)
    inside = ndimage.binary_erosion(mask, iterations=3)

    def missed(field: Field, expected: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(compose(fixed, field).displacement[inside] - expected, axis=-1).mean())

    length = float(np.linalg.norm(shift))
    assert missed(start[0], shift) < 0.3 * length
    assert missed(start[1], -shift) < 0.3 * length
    again = dirac.start_fields(trained, fixed, moving, np.eye(4), mask, moved)
    np.testing.assert_array_equal(start[0].displacement, again[0].displacement)
    quick = Settings(levels=(Level(2, 20), Level(1, 10)))
    found = register_deformable(fixed, moving, np.eye(4), mask, moved, settings=quick, initial=start)
    assert missed(found[0], shift) < missed(start[0], shift)


def test_wrong_weights_are_named_with_their_remedy(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(ImageError, match=r"weights\.pth: file does not exist.*cwmok/DIRAC"):
        dirac.load_network(file)
    file.write_text("a page that says: not found")
    with pytest.raises(ImageError, match=r"weights\.pth: holds no weights.*cwmok/DIRAC"):
        dirac.load_network(file)
    torch.save({"layer.weight": torch.zeros(3)}, file)
    with pytest.raises(ImageError, match="holds no weights"):
        dirac.load_network(file)
    state = torch.load(trained, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if name != "up.weight"}, file)
    with pytest.raises(ImageError, match="holds no weights"):
        dirac.load_network(file)
    torch.save(state, file)
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name("weights.pth.sha256").write_text(f"{checksum}  weights.pth\n")
    assert dirac.load_network(file).level == 3
    file.with_name("weights.pth.sha256").write_text("0" * 64)
    with pytest.raises(ImageError, match=r"SHA-256 is .*, expected 0000"):
        dirac.load_network(file)


def test_command_says_that_the_network_ran(trained: Path, tmp_path: Path) -> None:
    image, mask = brain((24, 28, 24))
    moving, _ = followup(image, 2)
    for name, data in (("pre", image.data), ("post", moving.data)):
        write_image(tmp_path / f"{name}.nii.gz", data, image.affine)
    command = [BIN / "register_longitudinal.py", "--fixed", tmp_path / "pre.nii.gz", "--moving"]
    command += [tmp_path / "post.nii.gz", "--out-prefix", tmp_path / "x", "--quality", tmp_path / "q.json"]
    done = call(*command, "--method", "dirac", "--dirac-weights", trained)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "q.json").read_text())["method"] == "dirac with its network"
    with pytest.raises(ImageError, match="for method dirac, not for ncc"):
        register(image, moving, "ncc", mask, moving.data > 0, weights=trained)
