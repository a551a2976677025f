"""The network of DIRAC: the displacement between two exams in one pass, to be refined by instance optimisation.

Mok TCW, Chung ACS. Unsupervised deformable image registration with absent correspondences in pre-operative and
post-recurrence brain tumor MRI scans. MICCAI 2022, arXiv:2206.03900. A Laplacian pyramid of three levels, each of which
sees the images at its resolution, the moving one warped by the level below, and adds to that level's field; one number
says how smooth the field is to be. Written from the publication; the modules are named as in the published
checkpoint, which so loads as it is (github.com/cwmok/DIRAC). This needs torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from predictgbm.atlas import check_checksum
from predictgbm.images import Image, ImageError
from predictgbm.masks import bounding_box
from predictgbm.registration.transforms import Field, Transform, resample

#: Where the authors publish their weights.
ORIGIN = (
    "github.com/cwmok/DIRAC: "
    "Model/Brats_NCC_disp_fea6b5_AdaIn64_t1ce_fbcon_occ01_inv5_a0015_aug_mean_fffixed_github_stagelvl3_64000.pth"
)

#: Grid the network was trained on, with the orientation of its axes and its extent in mm: arrays of 240 x 240 x 155
#: voxels of 1 mm, along which left, posterior and superior grow.
SHAPE = (160, 160, 80)
EXTENT = (240.0, 240.0, 155.0)
LPS_AXES = (-1.0, -1.0, 1.0)

#: Smoothness, 0 to 1, that the authors test with.
SMOOTHNESS = 0.3

#: Largest displacement that one level adds, as a share of half the grid's extent.
RANGE = 0.4

#: Units of the code that smoothness becomes.
CODE = 64
SLOPE = 0.2


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Module:
    return nn.Conv3d(channels, out, 3, stride=stride, padding=1, bias=False)


class Modulation(nn.Module):
    """Scale and shift of each channel, by the code of the smoothness."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.style = nn.Linear(CODE, 2 * channels)

    def forward(self, features: Any, code: Any) -> Any:
        """Modulate features (1, channels, x, y, z) by a code (1, CODE)."""
        gamma, beta = self.style(code)[..., None, None, None].chunk(2, dim=1)
        return (1 + gamma) * features + beta


class Block(nn.Module):
    """Residual block, each of its two convolutions after a modulation and a leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ai1, self.ai2 = Modulation(channels), Modulation(channels)
        self.conv1, self.conv2 = _convolution(channels, channels), _convolution(channels, channels)
        widths = (1, CODE, CODE, CODE)
        layers = [layer for width in widths for layer in (nn.Linear(width, CODE), nn.LeakyReLU(SLOPE))]
        self.mapping = nn.Sequential(*layers)

    def forward(self, features: Any, smoothness: Any) -> Any:
        """Return features of the same shape; smoothness is (1, 1)."""
        code = self.mapping(smoothness)
        inner = self.conv1(functional.leaky_relu(self.ai1(features, code), SLOPE))
        return features + self.conv2(functional.leaky_relu(self.ai2(inner, code), SLOPE))


def warp(image: Any, field: Any) -> Any:
    """Sample an image (1, c, x, y, z) where a field (1, 3, x, y, z) points, beyond the edge the edge itself.

    The field's channels run from the last axis to the first, in units of half the distance of the outermost voxel
    centres, as torch has it.
    """
    identity = functional.affine_grid(torch.eye(3, 4)[None], [1, *field.shape[1:]], align_corners=True)
    points = identity + field.permute(0, 2, 3, 4, 1)
    return functional.grid_sample(image, points, padding_mode="border", align_corners=True)


class Pyramid(nn.Module):
    """One level, and in it those below.

    Parameters
    ----------
    width
        Channels of the features.
    blocks
        Residual blocks.
    level
        1 (a quarter of the resolution) to 3 (all of it).
    """

    def __init__(self, width: int, blocks: int, level: int = 3) -> None:
        super().__init__()
        self.level = level
        if level > 1:
            self.add_module(f"model_lvl{level - 1}", Pyramid(width, blocks, level - 1))
        self.input_encoder_lvl1 = nn.Sequential(
            _convolution(2 if level == 1 else 5, width), nn.LeakyReLU(SLOPE), _convolution(width, width)
        )
        self.down_conv = _convolution(width, width, stride=2)
        parts = [part for _ in range(blocks) for part in (Block(width), nn.LeakyReLU(SLOPE))]
        self.resblock_group_lvl1 = nn.ModuleList(parts)
        self.up = nn.ConvTranspose3d(width, width, 2, stride=2, bias=False)
        self.output_lvl1 = nn.Sequential(
            _convolution(2 * width, width), nn.LeakyReLU(SLOPE), _convolution(width, 3), nn.Softsign()
        )

    def forward(self, moving: Any, fixed: Any, smoothness: Any) -> tuple[Any, Any]:
        """Return the field and the features of this level.

        Parameters
        ----------
        moving, fixed
            Images (1, 1, x, y, z) at this level's resolution, 0 to 1; axes are multiples of 2 ** level.
        smoothness
            Number 0 to 1, of shape (1, 1).

        Returns
        -------
        field : (1, 3, x, y, z), as :func:`warp` takes it; warps moving to fixed
        features : (1, width, x, y, z)
        """
        images = torch.cat([moving, fixed], dim=1)
        below: Any = 0
        field: Any = 0
        if self.level > 1:
            coarse = functional.avg_pool3d(images, 3, stride=2, padding=1, count_include_pad=False)
            lower = getattr(self, f"model_lvl{self.level - 1}")
            field, below = lower(coarse[:, :1], coarse[:, 1:], smoothness)
            field = functional.interpolate(field, scale_factor=2, mode="trilinear", align_corners=False)
            images = torch.cat([warp(moving, field), fixed, field], dim=1)
        encoded = self.input_encoder_lvl1(images)
        features = self.down_conv(encoded) + below
        for position, part in enumerate(self.resblock_group_lvl1):
            features = part(features) if position % 2 else part(features, smoothness)
        features = self.up(features)
        return field + RANGE * self.output_lvl1(torch.cat([features, encoded], dim=1)), features


def load_network(path: Path) -> Pyramid:
    """Read the weights of a network; how wide and deep it is, they say themselves.

    Where a file of the same name and ``.sha256`` lies beside, its first word is the expected checksum.

    Parameters
    ----------
    path
        State dictionary, as torch.save writes it.

    Raises
    ------
    ImageError
        If the file is missing, differs from its checksum or holds anything but the weights of such a network.
    """
    remedy = f"give the file of {ORIGIN}"
    if not path.is_file():
        raise ImageError(f"{path}: file does not exist; {remedy}")
    check_checksum(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        blocks = sum(
            name.startswith("resblock_group_lvl1.") and name.endswith(".conv1.weight") for name in state
        )
        network = Pyramid(state["down_conv.weight"].shape[0], blocks)
        network.load_state_dict(state)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ImageError(f"{path}: holds no weights of DIRAC's network ({reason}); {remedy}") from error
    return network.eval()


def predict(
    network: Pyramid, fixed: NDArray[np.float32], moving: NDArray[np.float32], *, threads: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Let the network find the displacements between two images on one grid.

    Parameters
    ----------
    network
        See :func:`load_network`.
    fixed, moving
        Arrays of one shape, 0 to 1, each axis a multiple of 8.
    threads
        Threads of torch; their number may change the last digits.

    Returns
    -------
    u, v : float32 arrays of shape (nx, ny, nz, 3), voxels: fixed to moving points and back
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    still, other = (
        torch.from_numpy(np.ascontiguousarray(a, np.float32))[None, None] for a in (fixed, moving)
    )
    smoothness = torch.full((1, 1), SMOOTHNESS)
    half = (np.array(fixed.shape, np.float32) - 1) / 2
    found = []
    with torch.inference_mode():
        for warped, target in ((other, still), (still, other)):
            field, _ = network(warped, target, smoothness)
            found.append(np.moveaxis(field[0].numpy()[::-1], 0, -1) * half)
    return found[0], found[1]


def start_fields(
    weights: Path,
    fixed: Image,
    moving: Image,
    matrix: NDArray[np.float64],
    fixed_mask: NDArray[np.bool_],
    moving_mask: NDArray[np.bool_],
    *,
    threads: int = 1,
) -> tuple[Field, Field]:
    """Let the network find where instance optimisation starts.

    Parameters
    ----------
    weights
        See :func:`load_network`.
    fixed, moving
        T1c in any grids, both of one contrast.
    matrix
        Affine map (4, 4), fixed to moving, RAS mm; the fields come on top of it.
    fixed_mask, moving_mask
        Brain, of the shape of each image; what is outside is not shown.
    threads
        As in :func:`predict`.

    Returns
    -------
    forward, backward : Field
        RAS mm, as those of :func:`predictgbm.registration.deformable.register_deformable`, around the middle of the
        fixed brain.

    Raises
    ------
    ImageError
        As :func:`load_network`.
    """
    network = load_network(weights)
    affine = np.diag([*(np.array(LPS_AXES) * EXTENT / SHAPE), 1.0])
    box = bounding_box(fixed_mask)
    middle = fixed.affine @ [*((s.start + s.stop - 1) / 2 for s in box), 1]
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    grid = Image(np.broadcast_to(np.float32(0), SHAPE), affine)

    def bring(image: Image, mask: NDArray[np.bool_], *chain: Transform) -> NDArray[np.float32]:
        values = image.data[mask]
        low, high = min(float(values.min()), 0.0), float(values.max())
        scaled = (image.data.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-6))
        return np.asarray(resample(Image(scaled * mask, image.affine), grid, *chain), np.float32)

    still, other = bring(fixed, fixed_mask), bring(moving, moving_mask, matrix)
    axes = affine[:3, :3].astype(np.float32)
    u, v = (
        Field(np.ascontiguousarray(displacement @ axes.T), affine)
        for displacement in predict(network, still, other, threads=threads)
    )
    return u, v
