#!/usr/bin/env python3
"""Compare what PINN-GBM finds with a direct calibration, on tumours whose parameters are known.

Tumours grow at 1 mm from the model's own seed, at random places of individuals of the simulator, and are labelled at
its two thresholds. The calibration of Fisher-KPP is told seed and thresholds; the network starts from characteristic
parameters. Differences are in per cent of D and rho, and in mm of the seed.

    python benchmarks/pinn.py --atlas ATLAS --tumors 8
    python benchmarks/pinn.py --engines

``--engines`` times the derivative by all weights of the equation's share of one step (4,000 points, nine evaluations
each) by this package's numpy, by torch and by jax, where these are installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictgbm.growth import calibration, pinn
from predictgbm.growth.solver import TISSUE_THRESHOLD, FisherKPP, relative_diffusivity
from predictgbm.simulation.patient import random_stream
from predictgbm.training import tumors

#: Individuals of the benchmark, and how many tumours each has.
FIRST, EACH = 9001, 4
SPACING = (1.0, 1.0, 1.0)
#: Tumours of other sizes are drawn again: whole tumour in ml, least core in ml, least width of the front in mm.
VOLUME_ML, LEAST_CORE_ML, LEAST_WIDTH_MM = (3.0, 180.0), 0.8, 1.0
#: Around the tumour, in mm.
AROUND_MM = 35.0
#: What PINN-GBM assumes, in the calibration's words.
ASSUMED = calibration.Assumptions(
    pinn.THRESHOLD_CORE, pinn.THRESHOLD_EDEMA, (0.5 / pinn.SEED_FALL) ** 0.5, pinn.SEED_PEAK
)


def draw(
    rng: np.random.Generator, anatomy: tumors.Anatomy
) -> tuple[tumors.Truth, tumors.Anatomy, NDArray[Any]]:
    """Return a tumour of a size that is operated on: what made it, the part of the brain around it, its labels."""
    while True:
        truth = tumors.draw_truth(rng, anatomy)
        width, reach = truth.spread / truth.growth, 2 * truth.spread * truth.growth
        if width < LEAST_WIDTH_MM:
            continue
        part = anatomy.around(truth.seed, reach + AROUND_MM)
        # The model takes the tissue of a tumour for white and grey matter alone.
        total = np.maximum(part.wm + part.gm, 1e-6)
        tissue = total >= TISSUE_THRESHOLD
        part = replace(part, wm=part.wm / total * tissue, gm=part.gm / total * tissue)
        solver = FisherKPP(relative_diffusivity(part.wm, part.gm), SPACING)
        start = pinn.seed_concentration(solver.shape, SPACING, truth.seed[None], part.first)
        u = solver.simulate(start, truth.spread**2 / pinn.DAYS, truth.growth**2 / pinn.DAYS, pinn.DAYS)
        labels = np.where(u > pinn.THRESHOLD_CORE, 3, np.where(u > pinn.THRESHOLD_EDEMA, 2, 0)).astype(
            np.uint8
        )
        if (
            VOLUME_ML[0] <= (labels > 0).sum() / 1000 <= VOLUME_ML[1]
            and (labels == 3).sum() / 1000 >= LEAST_CORE_ML
        ):
            return truth, part, labels


def recover(atlas: Path, count: int, seed: int) -> None:
    """Print the table of all tumours."""
    from predictgbm.atlas import load_atlas
    from predictgbm.simulation import Simulator

    simulator = Simulator(load_atlas(atlas))
    print("                                   | start       | calibration              | PINN-GBM against it")
    print(
        "whole ml core ml       D     rho   |   D %  rho % |   D %  rho %   mm  CPU s |   D %  rho %   mm  CPU s"
    )
    worst = np.zeros(2)
    for number in range(count):
        if number % EACH == 0:
            anatomy = tumors.draw_anatomy(simulator, seed, FIRST + number // EACH)
        truth, part, labels = draw(random_stream(seed, FIRST + number, 6), anatomy)
        d, rho = truth.spread**2 / pinn.DAYS, truth.growth**2 / pinn.DAYS
        relative = relative_diffusivity(part.wm, part.gm)
        began = time.process_time()
        by_calibration = calibration.calibrate(relative, labels == 3, labels > 0, SPACING, ASSUMED).parameters
        seconds = time.process_time() - began
        brain = part.wm + part.gm > 0
        began = time.process_time()
        found = pinn.predict(labels, part.wm, part.gm, 0 * part.wm, brain, spacing=SPACING).parameters
        own = time.process_time() - began
        rates = np.array([found["diffusivity_mm2_per_day"], found["proliferation_per_day"]])
        start = np.array(
            [found[f"characteristic_{k}"] for k in ("diffusivity_mm2_per_day", "proliferation_per_day")]
        )
        reference = np.array([by_calibration.diffusivity, by_calibration.proliferation])
        place = by_calibration.seeds[0] + part.first
        against = 100 * (rates / reference - 1)
        worst = np.maximum(worst, np.abs(against))
        print(
            f"{(labels > 0).sum() / 1000:8.1f}{(labels == 3).sum() / 1000:8.1f}{d:8.3f}{rho:8.3f}   |"
            f"{100 * (start[0] / d - 1):6.0f}{100 * (start[1] / rho - 1):7.0f} |"
            f"{100 * (reference[0] / d - 1):6.1f}{100 * (reference[1] / rho - 1):7.1f}"
            f"{np.linalg.norm(place - truth.seed):5.1f}{seconds:7.1f} |"
            f"{against[0]:6.1f}{against[1]:7.1f}"
            f"{np.linalg.norm(np.array(found['seeds_mm'])[0] + part.first - place):5.1f}{own:7.1f}",
            flush=True,
        )
    print(f"worst against the calibration: D {worst[0]:.1f} %, rho {worst[1]:.1f} % (bar 15)")


def engines() -> None:
    """Print what the derivative costs by each engine."""
    network = pinn.Network()
    rng = np.random.default_rng(0)
    weights = (network.start(rng) + 0.1 * rng.normal(size=network.count)).astype(np.float32)
    inputs = rng.normal(size=(pinn.POINTS, 9, 5)).astype(np.float32)
    factors = rng.normal(size=(pinn.POINTS, 9)).astype(np.float32)
    sizes = list(zip(network.sizes[:-1], network.sizes[1:], strict=True))

    def output(flat: Any, x: Any, tanh: Any) -> Any:
        at = 0
        for n, (a, b) in enumerate(sizes):
            x = x @ flat[at : at + a * b].reshape(a, b) + flat[at + a * b : at + (a + 1) * b]
            x = tanh(x) if n < len(sizes) - 1 else x
            at += (a + 1) * b
        return x[..., 0]

    def by_numpy() -> Any:
        return network.jacobian(weights, network.activations(weights, inputs), factors)

    ways: dict[str, Callable[[], Any]] = {"numpy": by_numpy}
    try:
        import torch

        w, x, f = (torch.from_numpy(array) for array in (weights, inputs, factors))
        by_torch = torch.func.vmap(
            torch.func.grad(lambda flat, points, factor: (output(flat, points, torch.tanh) * factor).sum()),
            in_dims=(None, 0, 0),
        )
        torch.set_num_threads(1)
        ways["torch"] = lambda: by_torch(w, x, f).numpy()
    except ImportError:
        print("torch is not installed")
    try:
        import jax

        by_jax = jax.jit(
            jax.vmap(
                jax.grad(lambda flat, points, factor: (output(flat, points, jax.numpy.tanh) * factor).sum()),
                in_axes=(None, 0, 0),
            )
        )
        ways["jax"] = lambda: np.asarray(by_jax(weights, inputs, factors).block_until_ready())
    except ImportError:
        print("jax is not installed")
    reference = by_numpy()
    for name, way in ways.items():
        difference = np.abs(way() - reference).max() / np.abs(reference).max()
        costs = []
        for _ in range(5):
            began, cpu = time.perf_counter(), time.process_time()
            way()
            costs.append((time.perf_counter() - began, time.process_time() - cpu))
        wall, cpu = min(costs)
        print(f"{name:8}{1000 * wall:8.0f} ms{1000 * cpu:8.0f} CPU ms   differs by {difference:.0e}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", type=Path, help="folder made by prepare_atlas.py")
    parser.add_argument("--tumors", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engines", action="store_true", help="time numpy, torch and jax instead")
    args = parser.parse_args()
    if args.engines:
        engines()
    elif args.atlas is None:
        parser.error("--atlas is needed, or --engines")
    else:
        recover(args.atlas, args.tumors, args.seed)


if __name__ == "__main__":
    main()
