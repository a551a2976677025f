#!/usr/bin/env python3
"""Measure the growth solver: speed against numpy and against memory bandwidth, exactness, calibration.

The functions named ``measure_*`` each return the figure of one bar; the tests hold them to it.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from predictgbm.atlas import load_atlas
from predictgbm.growth import calibration, kernels
from predictgbm.growth.compilation import kernel, threads
from predictgbm.growth.fisher_kpp import predict
from predictgbm.growth.solver import FisherKPP, relative_diffusivity
from predictgbm.masks import bounding_box

DAYS = 100.0
#: Bytes a step must move per cell: concentration and diffusivity in, concentration out, four bytes each.
BYTES_PER_CELL = 12
#: Steps of the numpy scheme that are timed.
SAMPLE = 20


class Timing(NamedTuple):
    """Least wall time and CPU time of several calls, in seconds."""

    wall: float
    cpu: float


def measure_time(call: Callable[[], Any], repeat: int) -> Timing:
    """Time a call; the least of several is what the machine can do when others leave it alone."""
    walls, cpus = [], []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Timing(min(walls), min(cpus))


@kernel
def triad(a, b, c, s):  # type: ignore[no-untyped-def]
    """STREAM's triad, a = b + s c."""
    for i in numba.prange(a.shape[0]):
        x, y, z = a[i], b[i], c[i]
        for k in range(x.size):
            x[k] = y[k] + s * z[k]


class StepTiming(NamedTuple):
    """Least time of one step and of triads that move as many bytes, in seconds."""

    step: float
    from_memory: float
    same_size: float


def measure_step(relative: NDArray[np.float32], repeat: int, count: int) -> StepTiming:
    """Time one step on a box against the triad on so many threads, in turn, so that both see the same machine.

    A step must read concentration and diffusivity and write concentration: 12 bytes a cell, as many as the triad
    moves per element. One triad has arrays far larger than any cache, another has as many elements as the box.
    """
    d = np.pad(relative, 1)
    ny = d.shape[1]
    d = d.reshape(len(d), -1)
    u, out = np.full_like(d, 0.3), np.zeros_like(d)
    scalars = [np.float32(v) for v in (0.04, 0.04, 0.04, 0.05, 1e-30)]
    large = np.ones((3, 64, 262_144), np.float32)
    small = np.ones((3, 64, max(1, relative.size // 64)), np.float32)
    calls: list[Callable[[], Any]] = [
        lambda: kernels.explicit_step(u, out, d, ny, *scalars),
        lambda: triad(*large, np.float32(0.5)),
        lambda: triad(*small, np.float32(0.5)),
    ]
    least = [np.inf] * 3
    with threads(count):
        for _ in range(20 * repeat):
            for n, call in enumerate(calls):
                call()  # bring the arrays to where this call leaves them
                least[n] = min(least[n], measure_time(call, 1).wall)
    return StepTiming(
        least[0], least[1] * relative.size / large[0].size, least[2] * relative.size / small[0].size
    )


class NumpyEuler:
    """The straightforward way: whole-array numpy, explicit Euler for diffusion and growth together, float32."""

    def __init__(self, relative: NDArray[np.float32], diffusivity: float, proliferation: float) -> None:
        self.rho = np.float32(proliferation)
        self.faces = []
        for axis in range(3):
            low, high = _sides(axis)
            both = (relative[low] > 0) & (relative[high] > 0)
            self.faces.append(np.float32(0.5 * diffusivity) * (relative[low] + relative[high]) * both)

    def run(self, u: NDArray[np.float32], days: float, steps: int) -> NDArray[np.float32]:
        """Advance by so many steps on a grid of 1 mm."""
        dt = np.float32(days / steps)
        u = u.copy()
        for _ in range(steps):
            change = self.rho * u * (1 - u)
            for axis, face in enumerate(self.faces):
                low, high = _sides(axis)
                flux = face * (u[high] - u[low])
                change[low] += flux
                change[high] -= flux
            u += dt * change
        return u


def _sides(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
    high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
    return low, high


def measure_mass_change(days: float = DAYS) -> float:
    """Return the relative change of mass without growth, in a medium with holes and sharp borders."""
    rng = np.random.default_rng(0)
    relative = rng.uniform(0.1, 1.0, (60, 50, 40)).astype(np.float32)
    relative[rng.random(relative.shape) < 0.2] = 0
    solver = FisherKPP(relative, (1.0, 1.0, 1.5))
    start = calibration.gaussian_seeds(
        relative.shape, solver.spacing, np.array([[30.0, 25.0, 30.0]]), np.array([0.8]), width=4.0
    )
    start *= relative > 0
    end = solver.simulate(start, 0.3, 0.0, days)
    return abs(float(end.sum(dtype=float)) / float(start.sum()) - 1.0)


def measure_front_speed(diffusivity: float, proliferation: float, spacing: float = 1.0) -> float:
    """Return the speed of a plane front over 2 sqrt(D rho).

    A front lags behind its final speed by 3/2 sqrt(D/rho) ln t (Bramson, Mem. AMS 285, 1983), so that the speed
    between two times is corrected by the difference of that term.
    """
    rod = np.ones((int(300 / spacing), 1, 1), np.float32)
    solver = FisherKPP(rod, (spacing,) * 3)
    start = np.zeros(rod.shape, np.float32)
    start[: int(5 / spacing)] = 1
    speed = 2.0 * np.sqrt(diffusivity * proliferation)
    times = 100.0 / speed, 200.0 / speed
    positions = []
    for t in times:
        u = solver.simulate(start, diffusivity, proliferation, t, active_threshold=None)[:, 0, 0].astype(
            float
        )
        k = int(np.flatnonzero(u > 0.5)[-1])
        positions.append((k + (u[k] - 0.5) / (u[k] - u[k + 1])) * spacing)
    lag = 1.5 * np.sqrt(diffusivity / proliferation) * np.log(times[1] / times[0])
    return float((positions[1] - positions[0] + lag) / (times[1] - times[0]) / speed)


def measure_order() -> float:
    """Return the observed order in a smooth medium: 4, 2 and 1 mm, each with the solver's own time step."""
    length, fields = 64.0, []
    for h in (4.0, 2.0, 1.0):
        n = int(length / h)
        x = (np.arange(n) + 0.5) * h
        wave = np.cos(np.pi * x / length)
        relative = 0.7 + 0.25 * wave[:, None, None] * wave[None, :, None] * wave[None, None, :]
        start = calibration.gaussian_seeds(
            (n,) * 3,
            (h,) * 3,
            np.array([[30.0, 33.0, 31.0]]),
            np.array([0.5]),
            origin=(h / 2,) * 3,
            width=7.0,
        )
        solver = FisherKPP(relative, (h,) * 3, np.float64)
        fields.append(solver.simulate(start, 2.0, 0.05, 40.0, active_threshold=None))
    averaged = [calibration.block_mean(fine, (2, 2, 2)) for fine in fields[1:]]
    errors = [np.linalg.norm(a - b) / np.sqrt(a.size) for a, b in zip(fields, averaged, strict=False)]
    return float(np.log2(errors[0] / errors[1]))


def measure_gradient_error() -> float:
    """Return the largest relative deviation of the float32 adjoint from float64 central differences.

    Differentiated is a soft overlap with two thresholds, by diffusivity, proliferation and the three coordinates of
    the seed, on a grid with unequal voxel sizes, holes, and the active box in use.
    """
    rng = np.random.default_rng(1)
    shape, spacing = (32, 30, 26), (1.0, 1.2, 1.5)
    relative = np.clip(rng.uniform(0.2, 1.0, shape), 0, 1).astype(np.float32)
    relative[rng.random(shape) < 0.1] = 0
    grid = np.stack(
        np.meshgrid(*[np.arange(n) * h for n, h in zip(shape, spacing, strict=True)], indexing="ij")
    )
    radius = np.sqrt(((grid - np.array([17.0, 18.0, 19.0])[:, None, None, None]) ** 2).sum(axis=0))
    targets = ((radius < 5, 0.6), (radius < 9, 0.2))
    seed, exact, fast = np.array([15.0, 17.0, 20.0]), *(FisherKPP(relative, spacing, t) for t in ("f8", "f4"))

    def overlap(u: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
        value, slope = 0.0, np.zeros(u.shape)
        for target, threshold in targets:
            p = 1 / (1 + np.exp(-20 * (u.astype(float) - threshold)))
            value += float(((p - target) ** 2).sum())
            slope += 2 * (p - target) * 20 * p * (1 - p)
        return value, slope

    def start(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return calibration.gaussian_seeds(shape, spacing, x[None], np.array([0.5]))

    def value(theta: NDArray[np.float64]) -> float:
        u = exact.simulate(start(theta[2:]), theta[0], theta[1], 60.0, time_step=0.5)
        return overlap(u)[0]

    theta = np.array([0.2, 0.11, *seed])
    result = fast.gradient(start(seed), theta[0], theta[1], 60.0, overlap, time_step=0.5)
    by_seed = calibration.seed_gradient(shape, spacing, seed, 0.5, result.initial)
    adjoint = np.array([result.diffusivity, result.proliferation, *by_seed])
    steps = np.diag([1e-5, 1e-5, 1e-4, 1e-4, 1e-4])
    differences = np.array([(value(theta + s) - value(theta - s)) / (2 * s.sum()) for s in steps])
    return float((np.abs(adjoint - differences) / np.abs(differences)).max())


def compare_speed(
    relative: NDArray[np.float32], diffusivity: float, proliferation: float, repeat: int
) -> None:
    """Print the table of speeds: all schemes on one brain, one tumour, 100 days at 1 mm."""
    box = bounding_box(relative > 0)
    relative = np.ascontiguousarray(relative[box])
    spacing = (1.0, 1.0, 1.0)
    white = np.argwhere(relative > 0.9)
    seed = white[np.abs(white - np.array(relative.shape) * (0.66, 0.55, 0.6)).sum(axis=1).argmin()].astype(
        float
    )
    start = calibration.gaussian_seeds(relative.shape, spacing, seed[None], np.array([0.5])).astype(
        np.float32
    )
    start *= relative > 0
    solver = FisherKPP(relative, spacing)
    # Isotropic tensors cost what others do, and have the same solution.
    tensors = np.zeros((*relative.shape, 6), np.float32)
    tensors[..., [0, 2, 5]] = relative[..., None]
    by_tensors = FisherKPP(tensors, spacing)

    # Richardson extrapolation of two fine runs in float64; what remains is of second order in their step.
    step = solver.largest_time_step(diffusivity, proliferation)
    exact = FisherKPP(relative, spacing, np.float64)
    fine, finer = (
        exact.simulate(start, diffusivity, proliferation, DAYS, time_step=step / f, active_threshold=1e-10)
        for f in (8, 16)
    )
    reference = 2 * finer - fine

    def error(u: NDArray[Any]) -> float:
        return float(np.linalg.norm(u - reference) / np.linalg.norm(reference))

    # The numpy scheme's error needs only the box that the tumour reaches; its time is taken on the whole brain.
    reach = bounding_box(reference > 1e-7, 2)
    crop = NumpyEuler(relative[reach], diffusivity, proliferation)

    def numpy_error(steps: int) -> float:
        u = np.zeros_like(relative)
        u[reach] = crop.run(start[reach], DAYS, steps)
        return error(u)

    def full() -> NDArray[Any]:
        return solver.simulate(start, diffusivity, proliferation, DAYS, active_threshold=None)

    def active() -> NDArray[Any]:
        return solver.simulate(start, diffusivity, proliferation, DAYS)

    def along_tracts() -> NDArray[Any]:
        return by_tensors.simulate(start, diffusivity, proliferation, DAYS)

    def implicit() -> NDArray[Any]:
        return solver.simulate(start, diffusivity, proliferation, DAYS, scheme="implicit")

    rows: list[tuple[str, int, float, Timing]] = []
    for name, call in (
        ("solver, whole brain", full),
        ("solver, active box", active),
        ("tensors, active box", along_tracts),
        ("implicit, active box", implicit),
    ):
        u = call()
        rows.append((name, solver.steps.number, error(u), measure_time(call, repeat)))
    target = rows[0][2]

    stable = rows[0][1]
    at_limit = numpy_error(stable)
    steps = int(np.ceil(stable * at_limit / target))
    same = numpy_error(steps)
    whole = NumpyEuler(relative, diffusivity, proliferation)

    def one_step() -> NDArray[Any]:
        return whole.run(start, DAYS / steps, 1)

    per_step = measure_time(one_step, SAMPLE)
    for name, n, e in (("numpy, longest step", stable, at_limit), ("numpy, same error", steps, same)):
        rows.append((name, n, e, Timing(per_step.wall * n, per_step.cpu * n)))
    numpy_time = rows[-1][3]

    print(
        f"\n{DAYS:g} days at 1 mm, D {diffusivity} mm2/day, rho {proliferation} /day, brain box {relative.shape},"
    )
    print(f"{relative.size / 1e6:.2f} M cells, {(relative > 0).sum() / 1e6:.2f} M of tissue,", end=" ")
    print(f"{(reference > calibration.EDEMA_THRESHOLD).sum() / 1e3:.1f} ml of visible tumour at the end\n")
    print(f"{'':22}{'steps':>6}{'error':>10}{'wall s':>9}{'CPU s':>8}{'times faster: wall':>20}{'CPU':>7}")
    for name, n, e, timing in rows:
        ratios = f"{numpy_time.wall / timing.wall:20.1f}{numpy_time.cpu / timing.cpu:7.1f}"
        print(f"{name:22}{n:6d}{e:10.1e}{timing.wall:9.3f}{timing.cpu:8.3f}{ratios}")
    print("error: |u - reference| / |reference|, reference on the same grid in float64 with steps to zero")
    print(f"numpy: time of one step, least of {SAMPLE} on the whole brain, times the number of steps")

    print(f"\n{'one step':23}{'M cells':>8}{'threads':>8}{'ms':>8}{'bound ms':>10}{'times':>7}", end="")
    print(f"{'same-size triad ms':>20}{'times':>7}")
    for name, cells in (("whole brain", relative), ("active box at the end", relative[reach])):
        for count in sorted({1, numba.get_num_threads()}):
            t = measure_step(np.ascontiguousarray(cells), repeat, count)
            print(
                f"{name:23}{cells.size / 1e6:8.2f}{count:8d}{1e3 * t.step:8.3f}{1e3 * t.from_memory:10.3f}",
                end="",
            )
            print(f"{t.step / t.from_memory:7.2f}{1e3 * t.same_size:20.3f}{t.step / t.same_size:7.2f}")
    print(f"bound: {BYTES_PER_CELL} bytes a cell at the speed of the triad from memory")


def compare_calibration(atlas: Any, patients: int, resolution: int) -> None:
    """Print how well and how fast the calibration finds the parameters of tumours that the solver made."""
    factors = (resolution,) * 3
    wm, gm, csf = (calibration.block_mean(m, factors) for m in (atlas.wm, atlas.gm, atlas.csf))
    mask = calibration.block_mean(atlas.brain_mask, factors) >= 0.5
    spacing = tuple(h * resolution for h in atlas.spacing)
    solver = FisherKPP(relative_diffusivity(wm, gm, brain_mask=mask), spacing)
    rng = np.random.default_rng(0)
    white = np.argwhere((wm > 0.8) & mask)
    print(f"\ncalibration, whole model, exams of {resolution} mm: deviations from what made the tumour")
    print(
        f"{'patient':>8}{'core ml':>9}{'whole ml':>9}{'D':>8}{'rho':>8}"
        f"{'D %':>7}{'rho %':>7}{'seed mm':>8}{'wall s':>8}{'CPU s':>7}"
    )
    deviations, cpus = [], []
    while len(deviations) < patients:
        seed = white[rng.integers(len(white))] * np.array(spacing)
        speed, width = rng.uniform(0.12, 0.32), rng.uniform(0.6, 2.0)
        d, rho = 0.5 * speed * width, 0.5 * speed / width
        start = calibration.gaussian_seeds(wm.shape, spacing, seed[None], np.array([calibration.SEED_PEAK]))
        u = solver.simulate(start, d, rho, calibration.DAYS)
        labels = np.where(u > calibration.CORE_THRESHOLD, 3, np.where(u > calibration.EDEMA_THRESHOLD, 2, 0))
        ml = np.prod(spacing) / 1000
        if (labels == 3).sum() * ml < 1:
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        found = predict(labels, wm, gm, csf, mask, spacing=spacing, seed=0).parameters
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        off = np.linalg.norm(np.array(found["seeds_mm"][0]) - seed)
        dev = found["diffusivity_mm2_per_day"] / d - 1, found["proliferation_per_day"] / rho - 1
        deviations.append(np.abs(dev))
        cpus.append(cpu)
        print(
            f"{len(deviations):8d}{(labels == 3).sum() * ml:9.1f}{(labels > 0).sum() * ml:9.1f}{d:8.3f}{rho:8.3f}"
            f"{100 * dev[0]:7.1f}{100 * dev[1]:7.1f}{off:8.2f}{wall:8.2f}{cpu:7.2f}"
        )
    worst = 100 * np.max(deviations, axis=0)
    print(
        f"worst: D {worst[0]:.1f} % (bar 15), rho {worst[1]:.1f} % (bar 5); "
        f"CPU {max(cpus):.1f} s at most (bar 10 at 2 mm)"
    )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atlas", required=True, help="folder made by bin/prepare_atlas.py")
    parser.add_argument(
        "--repeat", type=int, default=10, help="times each run is timed; the least counts (default 10)"
    )
    parser.add_argument(
        "--diffusivity", type=float, default=0.15, help="of the speed table, mm2/day (default 0.15)"
    )
    parser.add_argument(
        "--proliferation", type=float, default=0.1, help="of the speed table, 1/day (default 0.1)"
    )
    parser.add_argument(
        "--patients", type=int, default=8, help="tumours to calibrate per resolution (default 8)"
    )
    arguments = parser.parse_args()
    atlas = load_atlas(arguments.atlas)

    print(
        f"{platform.machine()}, {numba.get_num_threads()} threads, numba {numba.__version__}, numpy {np.__version__}"
    )
    print(f"load average at the start: {os.getloadavg()[0]:.1f}")
    print("\nexactness                                   measured       bar")
    print(f"change of mass, rho = 0                     {measure_mass_change():8.1e}     1e-04")
    for d, rho in ((0.1, 0.05), (0.5, 0.1), (0.1, 0.2)):
        ratio = measure_front_speed(d, rho)
        print(f"front speed / 2 sqrt(D rho), {d:4} {rho:5}     {ratio:8.3f}   +-0.05")
    print(f"order of self-convergence                   {measure_order():8.2f}       2")
    print(f"gradient, adjoint against differences       {measure_gradient_error():8.1e}     1e-03")
    relative = relative_diffusivity(atlas.wm, atlas.gm, brain_mask=atlas.brain_mask)
    compare_speed(relative, arguments.diffusivity, arguments.proliferation, arguments.repeat)
    for resolution in (2, 1):
        compare_calibration(atlas, arguments.patients, resolution)


if __name__ == "__main__":
    main()
