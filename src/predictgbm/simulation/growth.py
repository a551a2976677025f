"""The hidden truth: a go-or-grow process of proliferating, migrating and necrotic cells on a lattice.

None of the benchmarked models is this process. Proliferating cells p divide and push their neighbours aside;
they do not migrate. Migrating cells m do not divide; they hop between lattice sites, mostly along white-matter
tracts. The two change into each other: want of oxygen sends cells away, a favourable niche settles them. Where want
of oxygen lasts, cells die and leave necrosis n. With u = p + m + n <= 1, per day::

    dp/dt = rho(x) p (1-u) (1-H) - (leave + flee H) p + settle niche(x) (1-u) m - die H p + push(p)
    dm/dt = hops(m) + (leave + flee H) p - settle niche(x) (1-u) m
    dn/dt = die H p
    H     = 1 / (1 + exp(-(G*u - hypoxia supply(x)) / 0.03)),  G a Gaussian of 4 mm

hops(m) at site i = sum over its 26 neighbours j of k_ij (m_j (1 - u_i) - m_i (1 - u_j)): an exclusion process whose
rates k follow the tract direction. push(p) = push div(p grad u), upwind between face neighbours: crowded cells
give way to where there is room, which leaves the front sharp. Nothing enters CSF. The go-or-grow dichotomy is that of
Hatzikirou et al., Mathematical Medicine and Biology 29:49-65, 2012.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.neighbours import DIRECTIONS, shifted
from predictgbm.simulation.fields import Grid, Volume

#: Time step of the process, in days; stable for the mobilities and pushes drawn, on a lattice of 2 mm.
STEP_DAYS = 2


@dataclass(frozen=True)
class Rates:
    """Rates of the process; per day, mobility in mm²/day.

    Attributes
    ----------
    proliferation : mean rate of division rho
    mobility : diffusivity of migrating cells along a tract
    push : diffusivity of crowded proliferating cells
    leave, flee : change from proliferating to migrating, and its addition in hypoxia
    settle : change from migrating to proliferating
    die : death of proliferating cells in hypoxia
    hypoxia : smoothed density at which oxygen runs short
    """

    proliferation: float = 0.10
    mobility: float = 0.5
    push: float = 0.25
    leave: float = 0.004
    flee: float = 0.02
    settle: float = 0.01
    die: float = 0.05
    hypoxia: float = 0.72


@dataclass(frozen=True)
class Medium:
    """What the cells live in, on the lattice of ``grid``.

    Attributes
    ----------
    tissue : bool array, sites that cells may enter
    hops : float32 array of shape (13, nx, ny, nz), hop rate per day between a site and its neighbour in each of
        :data:`DIRECTIONS`, for mobility 1 mm²/day
    proliferation : float32 array, local factor of the rate of division, mean near 1
    niche : float32 array, local factor of the rate of settling, mean near 1
    supply : float32 array, local factor of the density that the vessels can feed, near 1
    grid : the lattice
    """

    tissue: NDArray[np.bool_]
    hops: NDArray[np.float32]
    proliferation: Volume
    niche: Volume
    supply: Volume
    grid: Grid


@dataclass(frozen=True)
class Cells:
    """Fractions of a site's room taken by proliferating, migrating and necrotic cells: float32, 0 to 1."""

    proliferating: Volume
    migrating: Volume
    necrotic: Volume

    @property
    def core(self) -> Volume:
        """Proliferating and necrotic cells, what makes the visible core."""
        return self.proliferating + self.necrotic

    @property
    def total(self) -> Volume:
        """All cells."""
        return self.proliferating + self.migrating + self.necrotic


def tract_directions(wm: Volume, spacing: float) -> tuple[NDArray[np.float32], Volume]:
    """Estimate the run of white-matter tracts from the shape of the white matter.

    The structure tensor (Gaussian mean of grad(wm) grad(wm)^T) has its least eigenvector along the direction in
    which white matter changes least: along a tract or gyral stalk.

    Parameters
    ----------
    wm
        White-matter probability, shape (nx, ny, nz), 0 to 1.
    spacing
        Voxel edge in mm.

    Returns
    -------
    direction : float32 array of shape (nx, ny, nz, 3), unit vectors
    coherence : float32 array of shape (nx, ny, nz), 0 (no direction) to 1, (l2 - l3) / (l2 + l3) of the two
        smaller eigenvalues
    """
    smooth = ndimage.gaussian_filter(wm, 1.5 / spacing)
    gradient = np.stack([np.gradient(smooth, spacing, axis=axis) for axis in range(3)])
    tensor = np.empty((*wm.shape, 3, 3), np.float32)
    for i in range(3):
        for j in range(i, 3):
            tensor[..., i, j] = ndimage.gaussian_filter(gradient[i] * gradient[j], 3.0 / spacing)
            tensor[..., j, i] = tensor[..., i, j]
    direction = np.zeros((*wm.shape, 3), np.float32)
    coherence = np.zeros(wm.shape, np.float32)
    where = wm > 0.2
    values, vectors = np.linalg.eigh(tensor[where])
    direction[where] = vectors[:, :, 0]
    coherence[where] = (values[:, 1] - values[:, 0]) / (values[:, 1] + values[:, 0] + 1e-9)
    return direction, coherence


def hop_rates(
    wm: Volume, gm: Volume, spacing: float, grey: float = 0.15
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return where cells may live and how fast they hop to each neighbour, for mobility 1 mm²/day.

    A site's rates are a mixture of an isotropic part and one along the tract (cosine to the eighth power), by
    coherence; grey matter slows them to ``grey``. The rate of an edge is the mean of its two sites, 0 if one is not
    tissue, and falls with the square of its length, so that each direction spreads alike.

    Returns
    -------
    tissue : bool array of shape (nx, ny, nz), WM + GM >= 0.5
    hops : float32 array of shape (13, nx, ny, nz), 1/day
    """
    tissue = (wm + gm) >= 0.5
    direction, coherence = tract_directions(wm, spacing)
    share = np.clip(wm / np.maximum(wm + gm, 1e-6), 0, 1)
    speed = grey + (1 - grey) * share
    length = np.linalg.norm(DIRECTIONS, axis=1)
    unit = DIRECTIONS / length[:, None]
    along = (direction @ unit.T.astype(np.float32)) ** 8
    along /= np.maximum(along.sum(axis=-1, keepdims=True), 1e-6)
    part = (coherence * share)[..., None]
    # An even split over the 13 directions spreads by 1/3 along each axis, raised here to 0.4.
    even = np.full(len(DIRECTIONS), 1 / len(DIRECTIONS), np.float32)
    rates = (part * along + (1 - part) * even * 1.2) * speed[..., None]
    hops = np.zeros((len(DIRECTIONS), *wm.shape), np.float32)
    for d, direction in enumerate(DIRECTIONS):
        rate = (
            0.5 * (rates[..., d] + shifted(rates[..., d], direction)) * (tissue & shifted(tissue, direction))
        )
        hops[d] = rate / (length[d] * spacing) ** 2
    return tissue, hops


@njit(cache=True, error_model="numpy", fastmath=True)
def _step(  # type: ignore[no-untyped-def]
    p,
    m,
    n,
    p_next,
    m_next,
    n_next,
    u,
    hops,
    birth,
    settle,
    hypoxic,
    mobility,
    push,
    leave,
    flee,
    die,
    dt,
    low,
    high,
):
    # Row by row, one neighbour after the other, so that the inner loops run over contiguous memory.
    one, zero = np.float32(1), np.float32(0)
    size = high[2] - low[2]
    for i in range(low[0] - 1, high[0] + 1):
        for j in range(low[1] - 1, high[1] + 1):
            for k in range(low[2] - 1, high[2] + 1):
                u[i, j, k] = p[i, j, k] + m[i, j, k] + n[i, j, k]
    arrive, leaving, shove = (
        np.empty(size, np.float32),
        np.empty(size, np.float32),
        np.empty(size, np.float32),
    )
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            here = slice(low[2], high[2])
            pi, mi, ui, ni = p[i, j, here], m[i, j, here], u[i, j, here], n[i, j, here]
            arrive[:] = zero
            leaving[:] = zero
            shove[:] = zero
            for d in range(DIRECTIONS.shape[0]):
                for sign in (1, -1):
                    a, b, c = sign * DIRECTIONS[d, 0], sign * DIRECTIONS[d, 1], sign * DIRECTIONS[d, 2]
                    there = slice(low[2] + c, high[2] + c)
                    mj, uj = m[i + a, j + b, there], u[i + a, j + b, there]
                    rate = hops[d, i, j, here] if sign == 1 else hops[d, i + a, j + b, there]
                    for k in range(size):
                        arrive[k] += rate[k] * mj[k]
                        leaving[k] += rate[k] * max(one - uj[k], zero)
                    if abs(a) + abs(b) + abs(c) == 1:
                        pj = p[i + a, j + b, there]
                        for k in range(size):
                            open_edge = one if rate[k] > zero else zero
                            excess = uj[k] - ui[k]
                            shove[k] += open_edge * excess * (pj[k] if excess > zero else pi[k])
            hi, rho, stays = hypoxic[i, j, here], birth[i, j, here], settle[i, j, here]
            pn, mn, nn = p_next[i, j, here], m_next[i, j, here], n_next[i, j, here]
            for k in range(size):
                room = max(one - ui[k], zero)
                move = mobility * (arrive[k] * room - leaving[k] * mi[k])
                go = (leave + flee * hi[k]) * pi[k]
                stay = stays[k] * room * mi[k]
                dead = die * hi[k] * pi[k]
                divide = rho[k] * pi[k] * room * (one - hi[k])
                pn[k] = max(pi[k] + dt * (divide - go + stay - dead + push * shove[k]), zero)
                mn[k] = max(mi[k] + dt * (move + go - stay), zero)
                nn[k] = ni[k] + dt * dead


def grow(
    cells: Cells,
    medium: Medium,
    rates: Rates,
    target_ml: float,
    visible: float,
    max_days: int,
    core: bool = True,
    min_days: int = 1,
) -> tuple[Cells, int]:
    """Let the process run until what is visible has reached a volume.

    Parameters
    ----------
    cells
        State to start from; left unchanged.
    medium, rates
        Where and how fast.
    target_ml
        Volume at which to stop, in ml.
    visible
        Density above which cells count: the core (proliferating and necrotic), or proliferating cells alone if
        ``core`` is False.
    max_days
        Stop at the latest after so many days.

    Returns
    -------
    cells : the state reached
    days : how long it took
    """
    grid = medium.grid
    p, m, n = (
        a.astype(np.float32, copy=True) for a in (cells.proliferating, cells.migrating, cells.necrotic)
    )
    now, following = (p, m, n), (p.copy(), m.copy(), n.copy())
    u = np.zeros_like(p)
    birth = (rates.proliferation * medium.proliferation * medium.tissue).astype(np.float32)
    settle = (rates.settle * medium.niche).astype(np.float32)
    hypoxic = np.zeros_like(p)
    limit = (rates.hypoxia * medium.supply).astype(np.float32)
    mobility, push = np.float32(rates.mobility), np.float32(rates.push / grid.spacing**2)
    leave, flee, die = (np.float32(r) for r in (rates.leave, rates.flee, rates.die))
    day = 0
    for step, day in enumerate(range(STEP_DAYS, max_days + 1, STEP_DAYS)):
        if step % 4 == 0:
            low, high = _active_box(p, m, grid)
            cut = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
            crowd = ndimage.gaussian_filter(
                (p + m + n)[cut], 4.0 / grid.spacing, truncate=2.5, mode="constant"
            )
            hypoxic[cut] = 1 / (1 + np.exp(-(crowd - limit[cut]) / np.float32(0.03)))
        _step(*now, *following, u, medium.hops, birth, settle, hypoxic,
              mobility, push, leave, flee, die, np.float32(STEP_DAYS), low, high)  # fmt: skip
        now, following = following, now
        p, m, n = now
        if day >= min_days:
            seen = p[cut] + n[cut] if core else p[cut]
            if np.count_nonzero(seen > visible) * grid.voxel_ml >= target_ml:
                break
    return Cells(p, m, n), day


def _active_box(p: Volume, m: Volume, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the corners of the box that holds all cells, widened by what they reach before the next look."""
    active = (p + m) > 1e-6
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis, size in enumerate(grid.shape):
        hit = np.flatnonzero(active.any(axis=tuple(a for a in range(3) if a != axis)))
        low[axis], high[axis] = (max(1, hit[0] - 4), min(size - 1, hit[-1] + 5)) if len(hit) else (1, 1)
    return low, high


@njit(cache=True, error_model="numpy", fastmath=True)
def _leak(e, f, source, hops, mobility, decay, low, high):  # type: ignore[no-untyped-def]
    size = high[2] - low[2]
    move = np.empty(size, np.float32)
    for i in range(low[0], high[0]):
        for j in range(low[1], high[1]):
            here = slice(low[2], high[2])
            ei, fi, si = e[i, j, here], f[i, j, here], source[i, j, here]
            move[:] = np.float32(0)
            for d in range(DIRECTIONS.shape[0]):
                for sign in (1, -1):
                    a, b, c = sign * DIRECTIONS[d, 0], sign * DIRECTIONS[d, 1], sign * DIRECTIONS[d, 2]
                    there = slice(low[2] + c, high[2] + c)
                    ej = e[i + a, j + b, there]
                    rate = hops[d, i, j, here] if sign == 1 else hops[d, i + a, j + b, there]
                    for k in range(size):
                        move[k] += rate[k] * (ej[k] - ei[k])
            for k in range(size):
                fi[k] = ei[k] + mobility * move[k] - decay * ei[k] + si[k]


def edema(source: Volume, medium: Medium, reach: float = 9.0, steps: int = 50) -> Volume:
    """Return the water that leaks out of the tumour and seeps along the tracts, in arbitrary units.

    Explicit relaxation of hops(e) - e / reach² + source = 0.

    Parameters
    ----------
    source
        Leakage per site, for example the proliferating cells.
    reach
        Distance along a tract over which water falls by a factor e, in mm.
    steps
        Number of relaxation steps.
    """
    grid = medium.grid
    e = np.zeros_like(source)
    f = np.zeros_like(source)
    hit = [
        np.flatnonzero((source > 0.05).any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)
    ]
    if not all(len(h) for h in hit):
        return e
    pad = int(45 / grid.spacing)
    low = np.array([max(1, int(h[0]) - pad) for h in hit])
    high = np.array([min(n - 1, int(h[-1]) + 1 + pad) for h, n in zip(hit, grid.shape, strict=True)])
    # The largest step at which no site gives away more than it holds.
    outflow = sum(medium.hops[d].max() for d in range(len(DIRECTIONS))) * 2
    mobility = np.float32(0.9 / outflow)
    for _ in range(steps):
        _leak(e, f, source, medium.hops, mobility, mobility / np.float32(reach**2), low, high)
        e, f = f, e
    return e


def resect(cells: Cells, cavity: NDArray[np.bool_], medium: Medium, survival: Volume) -> tuple[Cells, Medium]:
    """Remove all tissue in a cavity, and thin the cells that remain by the local survival of treatment.

    Returns
    -------
    cells, medium : state after surgery and treatment, and a medium that cells cannot enter at the cavity
    """
    left = np.where(cavity, np.float32(0), survival)
    necrotic = np.where(cavity, np.float32(0), cells.necrotic)
    kept = Cells(cells.proliferating * left, cells.migrating * left, necrotic)
    tissue = medium.tissue & ~cavity
    hops = medium.hops.copy()
    for d, direction in enumerate(DIRECTIONS):
        hops[d] *= tissue & shifted(tissue, direction)
    return kept, replace(medium, tissue=tissue, hops=hops)
