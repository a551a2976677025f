"""The network of LMI in torch, its training, and the way of its weights to :mod:`predictgbm.growth.lmi`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from predictgbm.growth.lmi import BLOCKS, CHANNELS, LAYERS, LENGTH_MM, POOLED, STEM
from predictgbm.training.tumors import Tumors

#: Cells along each axis of the small images that the search for the nearest neighbour compares.
NEIGHBOUR_CELLS = 8


@dataclass(frozen=True)
class Recipe:
    """How the network is trained: AdamW, one cycle of the learning rate, mean squared error of standardised targets.

    Attributes
    ----------
    width : channels of every convolution
    epochs, batch : passes over the data, tumours per step
    rate, decay : highest learning rate, weight decay
    seed : of weights, order and mirroring
    """

    width: int
    epochs: int
    batch: int
    rate: float
    decay: float = 0.05
    seed: int = 0


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for j in range(LAYERS):
            layers += [nn.Conv3d(width, width, 3, padding=1, bias=False), nn.BatchNorm3d(width)]
            layers += [nn.ReLU()] * (j < LAYERS - 1)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return an array of the same shape, (m, width, n, n, n)."""
        return torch.relu(x + self.layers(x))


class Network(nn.Module):
    """The network of :class:`predictgbm.growth.lmi.Network`, with its batch normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(CHANNELS, width, STEM, stride=2, padding=STEM // 2, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(*(Block(width) for _ in range(BLOCKS)))
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return standardised targets, shape (m, 5), for inputs of shape (m, 8, n, n, n)."""
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < POOLED:
                x = nn.functional.avg_pool3d(x, 2)
        return self.head(x.mean(dim=(2, 3, 4)).float())


def fold(
    network: Network, mean: NDArray[np.floating[Any]], deviation: NDArray[np.floating[Any]]
) -> dict[str, NDArray[np.float32]]:
    """Return the weights as :class:`predictgbm.growth.lmi.Network` takes them, normalisation folded in.

    Parameters
    ----------
    network
        Trained.
    mean, deviation : arrays of shape (5,)
        What the targets were standardised with.
    """
    pairs = {"stem": (network.stem[0], network.stem[1])}
    for i, block in enumerate(network.blocks):
        convolutions = [m for m in block.layers if isinstance(m, nn.Conv3d)]
        normalisations = [m for m in block.layers if isinstance(m, nn.BatchNorm3d)]
        for j, pair in enumerate(zip(convolutions, normalisations, strict=True)):
            pairs[f"block{i}.{j}"] = pair
    weights: dict[str, torch.Tensor] = {}
    for name, (convolution, norm) in pairs.items():
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weights[f"{name}.weight"] = convolution.weight * scale[:, None, None, None, None]
        weights[f"{name}.bias"] = norm.bias - norm.running_mean * scale
    weights |= {"head.weight": network.head.weight, "head.bias": network.head.bias}
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in weights.items()}
    return arrays | {"mean": np.asarray(mean, np.float32), "deviation": np.asarray(deviation, np.float32)}


def to_input(channels: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Return the input for a batch of stored channels, as :func:`predictgbm.growth.lmi.network_input` for one."""
    count, n = len(channels), channels.shape[-1]
    places = (2 * torch.arange(n, device=channels.device) + 1) / n - 1
    grid = torch.stack(torch.meshgrid(places, places, places, indexing="ij"))
    size = torch.log(edges / LENGTH_MM)[:, None, None, None, None].expand(count, 1, n, n, n)
    return torch.cat([channels.float() / 255, size, grid[None].expand(count, 3, n, n, n)], dim=1)


def mirror(
    channels: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn tumours into others of the same equation: axes in another order, each tumour mirrored at random."""
    order = torch.randperm(3, generator=generator).tolist()
    channels = channels.permute(0, 1, *(2 + axis for axis in order))
    flips = torch.randint(2, (3, len(channels)), generator=generator).bool().to(channels.device)
    for axis, flip in enumerate(flips):
        channels = torch.where(flip[:, None, None, None, None], channels.flip(2 + axis), channels)
    places = targets[:, 2:][:, order] * torch.where(flips, -1.0, 1.0).T
    return channels, torch.cat([targets[:, :2], places], dim=1)


def train(tumors: Tumors, recipe: Recipe, device: str) -> Iterator[tuple[int, float, float, Network]]:
    """Train a network; yield epoch, mean loss of the epoch, seconds so far, and the network, always the same.

    Parameters
    ----------
    tumors
        Targets standardised by the caller.
    recipe
    device
        ``cpu`` or ``cuda``; the latter computes convolutions in bfloat16.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    network = Network(recipe.width).to(device, memory_format=torch.channels_last_3d)
    channels, edges, targets = (torch.from_numpy(array).to(device) for array in tumors)
    steps = -(-len(channels) // recipe.batch)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=steps * recipe.epochs)
    began = time.perf_counter()
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        losses = []
        for indices in torch.randperm(len(channels), generator=generator).chunk(steps):
            indices = indices.to(device)
            x, y = mirror(channels[indices], targets[indices], generator)
            batch = to_input(x, edges[indices]).contiguous(memory_format=torch.channels_last_3d)
            with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
                loss = ((network(batch) - y) ** 2).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.detach())
        network.eval()
        yield epoch, float(torch.stack(losses).mean()), time.perf_counter() - began, network


@torch.no_grad()
def apply(network: Network, tumors: Tumors, device: str, batch: int = 256) -> NDArray[np.float32]:
    """Return what a network in evaluation mode says of tumours, shape (m, 5), standardised as its targets."""
    results = []
    for start in range(0, len(tumors.edges), batch):
        part = slice(start, start + batch)
        channels = torch.from_numpy(tumors.channels[part]).to(device)
        x = to_input(channels, torch.from_numpy(tumors.edges[part]).to(device))
        results.append(network(x).cpu().numpy())
    return np.concatenate(results)


@torch.no_grad()
def nearest_neighbours(database: Tumors, tumors: Tumors, device: str) -> NDArray[np.float32]:
    """Return the targets of the most similar tumours of a database: least squared difference of small images.

    Compared are core and whole tumour on cells of an eighth of the box and the logarithm of its edge.
    """

    def features(of: Tumors) -> torch.Tensor:
        parts = []
        for start in range(0, len(of.edges), 1024):
            part = slice(start, start + 1024)
            masks = torch.from_numpy(of.channels[part, :2]).to(device).float() / 255
            small = nn.functional.adaptive_avg_pool3d(masks, NEIGHBOUR_CELLS).flatten(1)
            # One e-fold of the edge weighs as much as a fifth of the cells.
            edge = torch.log(torch.from_numpy(of.edges[part])).to(device)[:, None]
            parts.append(torch.cat([small, edge * (small.shape[1] / 5) ** 0.5], dim=1))
        return torch.cat(parts)

    known = features(database)
    nearest = [torch.cdist(some, known).argmin(dim=1).cpu() for some in features(tumors).split(256)]
    return np.asarray(database.targets[torch.cat(nearest).numpy()])


def errors(found: NDArray[np.floating[Any]], tumors: Tumors) -> dict[str, float]:
    """Return median errors of targets that are not standardised: factors of D T and rho T, distance of the seed in mm.

    A factor of 1.2 says that half of the estimates lie between the true value divided and multiplied by 1.2.
    """
    off = np.asarray(found, float) - tumors.targets
    return {
        "factor_diffusivity": float(np.exp(2 * np.median(np.abs(off[:, 0])))),
        "factor_proliferation": float(np.exp(2 * np.median(np.abs(off[:, 1])))),
        "seed_mm": float(np.median(np.linalg.norm(off[:, 2:], axis=1) * tumors.edges)),
        "mean_squared_spread": float((off[:, 0] ** 2).mean()),
        "mean_squared_growth": float((off[:, 1] ** 2).mean()),
    }
