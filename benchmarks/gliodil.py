#!/usr/bin/env python3
"""Compare how low the loss of GliODIL falls: by the package's minimisation, and by Adam on the field as in the source.

Adam works as the source has it: on the sum of four levels of a multigrid, each half as fine in space and time as the
one before, from a forward run with fixed rates that is stopped where it overlaps the labels best, with a rate of 1e-3.
Loss and gradient are those of this package's definition, on the same cells, written for the field itself.

    python benchmarks/gliodil.py --exam PREPARED_EXAM --steps 9000 --curve curve.csv

A prepared exam is a folder of results (results/sub-001/ses-pre) or of bin/simulate_cohort.py (.../sub-001/ses-pre).
"""

from __future__ import annotations

import argparse
import csv
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from predictgbm.exam import Exam
from predictgbm.growth import gliodil
from predictgbm.growth.compilation import kernel
from predictgbm.growth.gliodil import Loss, Scalars
from predictgbm.growth.medium import prepare_medium
from predictgbm.growth.spacetime import Rates, refine
from predictgbm.masks import dice

LEVELS = 4
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-7


@kernel
def change_of(u, d, cx, cy, cz, rho, out):  # type: ignore[no-untyped-def]
    """Right side of the equation in every frame; c = D / (2 h^2). Arrays (frames, nx, ny, nz)."""
    nt, nx, ny, nz = u.shape
    for t in prange(nt):
        for i in range(nx):
            for j in range(ny):
                for k in range(nz):
                    c, dc = u[t, i, j, k], d[i, j, k]
                    total = rho * abs(c) * (1 - c)
                    if dc > 0:
                        if i > 0 and d[i - 1, j, k] > 0:
                            total += cx * (dc + d[i - 1, j, k]) * (u[t, i - 1, j, k] - c)
                        if i < nx - 1 and d[i + 1, j, k] > 0:
                            total += cx * (dc + d[i + 1, j, k]) * (u[t, i + 1, j, k] - c)
                        if j > 0 and d[i, j - 1, k] > 0:
                            total += cy * (dc + d[i, j - 1, k]) * (u[t, i, j - 1, k] - c)
                        if j < ny - 1 and d[i, j + 1, k] > 0:
                            total += cy * (dc + d[i, j + 1, k]) * (u[t, i, j + 1, k] - c)
                        if k > 0 and d[i, j, k - 1] > 0:
                            total += cz * (dc + d[i, j, k - 1]) * (u[t, i, j, k - 1] - c)
                        if k < nz - 1 and d[i, j, k + 1] > 0:
                            total += cz * (dc + d[i, j, k + 1]) * (u[t, i, j, k + 1] - c)
                    out[t, i, j, k] = total


@kernel
def residuals(u, change, days, out, squares):  # type: ignore[no-untyped-def]
    """Residual of every frame, 0 in the first, and the sum of its squares per frame."""
    for t in prange(1, u.shape[0]):
        for i in range(u.shape[1]):
            for j in range(u.shape[2]):
                for k in range(u.shape[3]):
                    r = (u[t, i, j, k] - u[t - 1, i, j, k]) / days
                    r -= (change[t, i, j, k] + change[t - 1, i, j, k]) / 2
                    out[t, i, j, k] = r
                    squares[t] += r * r


@kernel
def residual_slope(u, r, d, cx, cy, cz, rho, days, out, by_rates):  # type: ignore[no-untyped-def]
    """Half the derivative of the residuals' sum of squares by the field, and by log D and rho, per frame."""
    nt, nx, ny, nz = u.shape
    for t in prange(nt):
        after = min(t + 1, nt - 1)
        for i in range(nx):
            for j in range(ny):
                for k in range(nz):
                    ahead = r[after, i, j, k] if after > t else r[t, i, j, k] * 0
                    s, c, dc = r[t, i, j, k] + ahead, u[t, i, j, k], d[i, j, k]
                    flow, flux = s * 0, s * 0
                    if dc > 0:
                        for side in range(6):
                            a, b, e = i, j, k
                            weight = cx
                            if side == 0:
                                a -= 1
                            elif side == 1:
                                a += 1
                            elif side == 2:
                                b, weight = j - 1, cy
                            elif side == 3:
                                b, weight = j + 1, cy
                            elif side == 4:
                                e, weight = k - 1, cz
                            else:
                                e, weight = k + 1, cz
                            if a < 0 or b < 0 or e < 0 or a >= nx or b >= ny or e >= nz or not d[a, b, e] > 0:
                                continue
                            w = weight * (dc + d[a, b, e])
                            other = r[t, a, b, e] + (r[after, a, b, e] if after > t else s * 0)
                            flow += w * (other - s)
                            flux += w * (u[t, a, b, e] - c)
                    slope = 1 - 2 * c if c >= 0 else 2 * c - 1
                    out[t, i, j, k] = (r[t, i, j, k] - ahead) / days - (flow + rho * slope * s) / 2
                    by_rates[t, 0] -= s * flux / 2
                    by_rates[t, 1] -= s * abs(c) * (1 - c) / 2


def coarser(field: NDArray[Any]) -> NDArray[Any]:
    """Apply the transpose of :func:`refine` along every axis."""
    for axis in range(field.ndim):
        line = np.moveaxis(field, axis, 0)
        even, odd = line[0::2], line[1::2]
        out = 0.75 * (even + odd)
        out[:-1] += 0.25 * even[1:]
        out[0] += 0.25 * even[0]
        out[1:] += 0.25 * odd[:-1]
        out[-1] += 0.25 * odd[-1]
        field = np.moveaxis(out, 0, axis)
    return np.ascontiguousarray(field)


class Free:
    """The loss as a function of the field itself, on arrays (frames, nx, ny, nz)."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.shape = (loss.equation.shape[0], *loss.equation.grid)
        self.change, self.r = np.zeros((2, *self.shape), np.float32)

    def gradient(self, u: NDArray[Any], scalars: Scalars) -> tuple[float, NDArray[Any], NDArray[np.float64]]:
        """Return the loss and its derivatives by field and scalars (rates, thresholds, PET, seeds), no logarithms."""
        loss, equation = self.loss, self.loss.equation
        volume, days = equation.volume, equation.time_step
        d = np.ascontiguousarray(volume(equation.medium(scalars.white_to_gray)))
        c = [np.float32(scalars.diffusivity / (2 * h * h)) for h in equation.spacing]
        rho = np.float32(scalars.proliferation)
        squares, by_rates = np.zeros(len(u)), np.zeros((len(u), 2))
        change_of(u, d, *c, rho, self.change)
        residuals(u, self.change, np.float32(days), self.r, squares)
        by_u = self.change  # not needed any more
        residual_slope(u, self.r, d, *c, rho, np.float32(days), by_u, by_rates)
        # The derivative by the ratio goes through the medium; differences are exact enough for one scalar.
        step = 1e-3 * scalars.white_to_gray
        further = volume(equation.medium(scalars.white_to_gray + step))
        weight = gliodil.WEIGHT_RESIDUAL**2
        total = weight * squares.sum()
        by_u *= np.float32(2 * weight)
        slopes = np.zeros(7 + scalars.seeds.size)
        slopes[0] = 2 * weight * by_rates[:, 0].sum() / scalars.diffusivity
        slopes[1] = 2 * weight * by_rates[:, 1].sum()
        slopes[2] = self._by_ratio(u, further - d, c) * 2 * weight / step

        seed, seed_slopes = loss.seed(scalars)
        off = u[0] - volume(seed)
        total += gliodil.WEIGHT_INITIAL**2 * float((off.astype(float) ** 2).sum())
        by_u[0] += np.float32(2 * gliodil.WEIGHT_INITIAL**2) * off
        for n, slope in enumerate(seed_slopes):
            slopes[7 + n] = -2 * gliodil.WEIGHT_INITIAL**2 * float((off * volume(slope)).sum())
        value, misfit, by_up, by_down = loss._labels(equation.frame(u[-1]), scalars)
        total += loss.weight_labels**2 * value
        by_u[-1] += np.float32(2 * loss.weight_labels**2) * volume(misfit)
        slopes[3:5] = 2 * loss.weight_labels**2 * by_up, 2 * loss.weight_labels**2 * by_down
        beyond = u - u.clip(0, 1)
        total += float(np.vdot(beyond, beyond))
        by_u += 2 * beyond
        outside = u * volume(loss.outside_tissue)
        total += gliodil.WEIGHT_OUTSIDE**2 * float(np.vdot(outside, outside))
        by_u += np.float32(2 * gliodil.WEIGHT_OUTSIDE**2) * outside
        hinge, signs = scalars.hinges()
        total += loss.count * hinge**2
        slopes[:7] += 2 * loss.count * hinge * signs
        return total / loss.count, by_u / np.float32(loss.count), slopes / loss.count

    def _by_ratio(self, u: NDArray[Any], step: NDArray[Any], c: list[Any]) -> float:
        """Return the derivative of half the squares' sum along a change of the medium, from sums over faces."""
        total = 0.0
        s = self.r.copy()
        s[:-1] += self.r[1:]
        tissue = self.loss.equation.volume(self.loss.equation.tissue)
        for axis in range(3):
            low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
            high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
            face = c[axis] * (step[low] + step[high]) * (tissue[low] & tissue[high])
            for t in range(len(u)):
                total += 0.5 * float(((s[t][high] - s[t][low]) * (u[t][high] - u[t][low]) * face).sum())
        return total


def first_guess(loss: Loss) -> tuple[NDArray[Any], Scalars]:
    """Return the source's start: a forward run until it overlaps the labels best, stretched over all frames."""
    equation, volume = loss.equation, loss.equation.volume
    core, edema = volume(loss.core), volume(loss.edema)
    centre = (np.argwhere(core).mean(axis=0) + 0.5) * equation.spacing
    rates = Rates(min(edema.sum() / core.sum(), 25 * 0.12), 0.12, gliodil.WHITE_TO_GRAY)
    scalars = Scalars(
        *rates,
        gliodil.THRESHOLD_CORE,
        gliodil.THRESHOLD_EDEMA,
        gliodil.PET_SCALE,
        gliodil.PET_BACKGROUND,
        centre[None],
    )
    frames = equation.solve(loss.seed(scalars)[0], np.zeros(equation.shape, np.float32), rates)
    scores = []
    for frame in frames:
        u = volume(frame)
        up, down = u >= scalars.threshold_core, u >= scalars.threshold_edema
        parts = [(core, up), (edema, down & ~up)]
        scores.append(sum(mask.sum() * np.nan_to_num(dice(mask, found), nan=1.0) for mask, found in parts))
    share = max(int(np.argmax(scores)), 1) / (len(frames) - 1)
    scalars = replace(
        scalars, diffusivity=rates.diffusivity * share, proliferation=rates.proliferation * share
    )
    frames = equation.solve(loss.seed(scalars)[0], np.zeros(equation.shape, np.float32), scalars.rates)
    return np.stack([volume(frame) for frame in frames]), scalars


def source_values(scalars: Scalars) -> NDArray[np.float64]:
    """Return the scalars as the source has them; see :func:`to_scalars`."""
    return np.array([
        scalars.diffusivity, scalars.proliferation, np.log10(scalars.white_to_gray), scalars.threshold_core,
        scalars.threshold_edema, scalars.pet_scale, scalars.pet_background, *scalars.seeds.ravel(),
    ])  # fmt: skip


def to_scalars(values: NDArray[np.float64]) -> Scalars:
    """Read the scalars as the source has them: absolute values, the ratio as a power of ten."""
    d, rho, *rest = np.abs(values[:7])
    ratio, up, down, scale, background = rest
    return Scalars(d, rho, 10.0**ratio, up, down, scale, background, values[7:].reshape(-1, 3))


def descend(loss: Loss, steps: int) -> Iterator[tuple[int, float, float, NDArray[Any], Scalars]]:
    """Yield step, loss, CPU seconds, field and scalars of Adam, every hundred steps."""
    free = Free(loss)
    field, scalars = first_guess(loss)
    levels = [field] + [
        np.zeros([n // 2**level for n in field.shape], np.float32) for level in range(1, LEVELS)
    ]
    values = source_values(scalars)
    unknowns: list[NDArray[Any]] = [*levels, values]
    first, second = [np.zeros_like(x) for x in unknowns], [np.zeros_like(x) for x in unknowns]
    began = time.process_time()
    for step in range(steps + 1):
        u = levels[-1]
        for level in reversed(levels[:-1]):
            u = level + refine(u, (0, 1, 2, 3))
        scalars = to_scalars(values)
        value, by_u, slopes = free.gradient(u, scalars)
        if step % 100 == 0:
            yield step, value, time.process_time() - began, u, scalars
        slopes[:7] *= np.sign(values[:7])
        slopes[2] *= scalars.white_to_gray * np.log(10)
        gradients = [by_u]
        for _ in range(1, LEVELS):
            gradients.append(coarser(gradients[-1]))
        for x, g, m, v in zip(unknowns, [*gradients, slopes], first, second, strict=True):
            m += np.float32(1 - BETA1) * (g - m)
            v += np.float32(1 - BETA2) * (g * g - v)
            rate = RATE * np.sqrt(1 - BETA2 ** (step + 1)) / (1 - BETA1 ** (step + 1))
            x -= np.float32(rate) * m / (np.sqrt(v) + np.float32(EPSILON))


def refine_torch(field: Any) -> Any:
    """Do what :func:`refine` does along every axis of a tensor."""
    import torch

    for axis in range(field.ndim):
        count = field.shape[axis]
        first, last = field.narrow(axis, 0, 1), field.narrow(axis, count - 1, 1)
        before = torch.cat([first, field.narrow(axis, 0, count - 1)], axis)
        after = torch.cat([field.narrow(axis, 1, count - 1), last], axis)
        pairs = torch.stack([0.75 * field + 0.25 * before, 0.75 * field + 0.25 * after], axis + 1)
        field = pairs.flatten(axis, axis + 1)
    return field


class FreeTorch:
    """The same loss by torch's own differentiation, for a GPU; independent of the kernels above."""

    def __init__(self, loss: Loss, device: str) -> None:
        import torch

        equation = loss.equation
        volume = equation.volume

        def tensor(array: NDArray[Any]) -> Any:
            return torch.as_tensor(np.ascontiguousarray(array), device=device)

        self.loss, self.device = loss, device
        self.wm, self.gm = (tensor(volume(tissue)) for tissue in equation.tissues)
        masks = (equation.tissue, loss.core, loss.edema, loss.outside_tissue)
        self.tissue, self.core, self.edema, self.outside = (tensor(volume(mask)) for mask in masks)
        self.places = torch.meshgrid(*(tensor(a.astype(np.float32)) for a in loss.axes), indexing="ij")
        ranges = np.array(list(gliodil.RANGES.values()), np.float32)
        self.low, self.high = tensor(ranges[:, 0]), tensor(ranges[:, 1])

    def value(self, u: Any, values: Any) -> Any:
        """Return the loss for a field of shape (frames, nx, ny, nz) and the scalars as the source has them."""
        import torch

        scalars = values[:7].abs()
        scalars = torch.cat([scalars[:2], 10.0 ** scalars[2:3], scalars[3:]])
        diffusivity, rho, ratio, up, down = scalars[:5]
        medium = torch.where(self.tissue, self.wm + self.gm / ratio, 0.0)
        change = rho * u.abs() * (1 - u)
        for axis, h in enumerate(self.loss.equation.spacing):
            n = medium.shape[axis] - 1
            low, high = medium.narrow(axis, 0, n), medium.narrow(axis, 1, n)
            face = torch.where((low > 0) & (high > 0), (low + high) * (diffusivity / (2 * h * h)), 0.0)
            flux = face * u.diff(dim=axis + 1)
            end = [0, 0] * (2 - axis)
            change = change + torch.nn.functional.pad(flux, [*end, 0, 1])
            change = change - torch.nn.functional.pad(flux, [*end, 1, 0])
        residual = u.diff(dim=0) / self.loss.equation.time_step - (change[1:] + change[:-1]) / 2
        total = gliodil.WEIGHT_RESIDUAL**2 * (residual**2).sum()
        x, y, z = self.places
        seed = torch.zeros_like(u[0])
        for place in values[7:].reshape(-1, 3):
            off = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
            spot = gliodil.SEED_PEAK * torch.exp(-off / (4 * self.loss.dispersion))
            seed = seed + torch.where(spot > gliodil.SEED_MIN, spot, 0.0)
        total = total + gliodil.WEIGHT_INITIAL**2 * ((u[0] - seed.clamp(max=gliodil.SEED_MAX)) ** 2).sum()
        bottom = torch.where(self.core, up, torch.where(self.edema, down, 0.0))
        ceiling = torch.where(self.core, 1.0, torch.where(self.edema, up, down))
        misfit = (u[-1] - bottom).clamp(max=0) + (u[-1] - ceiling).clamp(min=0)
        total = total + self.loss.weight_labels**2 * (misfit**2).sum()
        total = total + ((u - u.clamp(0, 1)) ** 2).sum()
        total = total + gliodil.WEIGHT_OUTSIDE**2 * ((u * self.outside) ** 2).sum()
        hinge = (scalars - torch.clamp(scalars, self.low, self.high)).abs().sum()
        return total / self.loss.count + hinge**2


def descend_torch(
    loss: Loss, steps: int, device: str
) -> Iterator[tuple[int, float, float, NDArray[Any], Scalars]]:
    """Do what :func:`descend` does by torch; the seconds are those on the clock."""
    import torch

    free = FreeTorch(loss, device)
    field, scalars = first_guess(loss)
    values = source_values(scalars)
    compared = (
        Free(loss).gradient(field, scalars)[0],
        float(
            free.value(torch.as_tensor(field, device=device), torch.as_tensor(values, device=device).float())
        ),
    )
    print(f"loss at the start: kernels {compared[0]:.6g}, torch {compared[1]:.6g}", flush=True)
    unknowns = [torch.as_tensor(field, device=device)]
    for level in range(1, LEVELS):
        unknowns.append(torch.zeros([n // 2**level for n in field.shape], device=device))
    unknowns.append(torch.as_tensor(values, device=device).float())
    moments = [(torch.zeros_like(x), torch.zeros_like(x)) for x in unknowns]
    for x in unknowns:
        x.requires_grad_(True)
    began = time.perf_counter()
    for step in range(steps + 1):
        u = unknowns[-2]
        for level in reversed(unknowns[:-2]):
            u = level + refine_torch(u)
        value = free.value(u, unknowns[-1])
        slopes = torch.autograd.grad(value, unknowns)
        if step % 100 == 0:
            found = unknowns[-1].detach().cpu().numpy().astype(float)
            now = time.perf_counter() - began
            yield step, value.item(), now, u.detach().cpu().numpy(), to_scalars(found)
        rate = RATE * np.sqrt(1 - BETA2 ** (step + 1)) / (1 - BETA1 ** (step + 1))
        with torch.no_grad():
            for x, g, (m, v) in zip(unknowns, slopes, moments, strict=True):
                m.lerp_(g, 1 - BETA1)
                v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
                x.addcdiv_(m, v.sqrt().add_(EPSILON), value=-float(rate))


def describe(loss: Loss, frames: NDArray[Any], scalars: Scalars) -> str:
    """Return terms, scalars and overlaps on one line."""
    terms = ", ".join(f"{name} {value:.3g}" for name, value in loss.terms(frames, scalars).items())
    last = frames[-1]
    overlaps = [
        dice((last > scalars.threshold_core) & loss.inside, loss.core),
        dice((last > scalars.threshold_edema) & loss.inside, loss.core | loss.edema),
    ]
    return (
        f"{terms}; D {scalars.diffusivity:.3g}, rho {scalars.proliferation:.3g}, ratio {scalars.white_to_gray:.3g}, "
        f"thresholds {scalars.threshold_core:.3f} {scalars.threshold_edema:.3f}; "
        f"Dice core {overlaps[0]:.3f}, whole tumour {overlaps[1]:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exam", type=Path, required=True, help="folder of a prepared pre-operative exam")
    parser.add_argument(
        "--cells", type=int, default=gliodil.CELLS, help="along each axis (default: %(default)s)"
    )
    parser.add_argument("--frames", type=int, default=gliodil.FRAMES, help="default: %(default)s")
    parser.add_argument(
        "--steps", type=int, default=9000, help="of Adam; 0 leaves it out (default: %(default)s)"
    )
    parser.add_argument("--free-rates", action="store_true", help="in the package's way")
    parser.add_argument("--margin", type=float, default=gliodil.MARGIN_MM, help="mm (default: %(default)s)")
    parser.add_argument("--adam-only", action="store_true", help="leave out the package's way")
    parser.add_argument("--torch", metavar="DEVICE", help="Adam by torch on this device, such as cuda")
    parser.add_argument("--curve", type=Path, help="CSV to write: method, step, seconds, loss")
    args = parser.parse_args()
    exam = Exam(args.exam)
    names = ("tumor_seg", "wm", "gm", "csf", "brain_mask")
    medium = prepare_medium(*(exam.array(name) for name in names))
    spacing = exam.reference.spacing

    rows: list[tuple[str, int, float, float]] = []
    if not args.adam_only:
        began, wall, states = time.process_time(), time.perf_counter(), 0
        for state in gliodil.descend(
            medium, spacing, None, args.cells, args.frames, args.free_rates, margin_mm=args.margin
        ):
            loss, value, place = state
            seconds = time.process_time() - began
            rows.append((f"package, {loss.equation.grid[0]} cells", states, seconds, value))
            states += 1
        print(f"package: {states} states, {rows[-1][2]:.0f} CPU s, {time.perf_counter() - wall:.0f} s, "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")  # fmt: skip
        print(describe(loss, loss.frames(place), loss.split(place)[1]), flush=True)
        del place, state
    if args.steps:
        domain = gliodil.Domain.around(medium.whole, spacing, args.cells, args.margin)
        loss = gliodil.build_loss(domain, medium, spacing, None, args.frames)
        states_of_adam = (
            descend_torch(loss, args.steps, args.torch) if args.torch else descend(loss, args.steps)
        )
        name = f"Adam, torch on {args.torch}" if args.torch else "Adam"
        for step, value, seconds, u, scalars in states_of_adam:
            rows.append((name, step, seconds, value))
            if step % 1000 == 0:
                frames = np.stack([loss.equation.frame(v) for v in u])
                print(f"{name}: step {step}, {seconds:.0f} s\n{describe(loss, frames, scalars)}", flush=True)
    if args.curve:
        with args.curve.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["method", "step", "seconds", "loss"])
            writer.writerows(
                (name, step, f"{seconds:.1f}", f"{value:.6g}") for name, step, seconds, value in rows
            )


if __name__ == "__main__":
    main()
