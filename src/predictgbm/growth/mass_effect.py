"""Mass effect: a growing tumour pushes the tissue, and the exam shows a brain that is already deformed.

    -div sigma(w) = -p grad u,    sigma = lambda div(w) I + mu (grad w + grad w^T),    w = 0 at the border of the brain

``u`` is the concentration (0 to 1), ``w`` the displacement of the tissue in mm, ``p`` the pressure where ``u = 1``. It
is the quasi-static elasticity of Hogea C, Davatzikos C, Biros G (SIAM Journal on Scientific Computing 30:3050-3072,
2008, doi:10.1137/07069208X; Journal of Mathematical Biology 56:793-825, 2008, doi:10.1007/s00285-007-0139-x) with one
scalar for its strength, as in Subramanian S, Scheufele K, Himthani N, Davatzikos C, Biros G (arXiv 2106.06016). Only
the ratio of pressure and stiffness counts: both are in units of Young's modulus of white matter, about 2.1 kPa.

All is computed in the brain before the tumour, a point X of which the exam shows at x = X + w(X). Its tissue carries
the concentration along, so w is needed of the last concentration alone. Two things are neglected: that deformed tissue
is longer or shorter to cross; and the factor 1 / det(I + grad w) by which u would fall if expanding tissue thinned its
cells. It expands because cells fill the new room, so they are not thinned. Nor is tumour stiffer than the tissue it
grows in: elastography found glioblastoma a little softer (Streitberger KJ et al. PLoS ONE 9:e110588, 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from predictgbm.growth import ModelError, Prediction
from predictgbm.growth.calibration import block_mean
from predictgbm.growth.medium import prepare_medium
from predictgbm.growth.solver import TISSUE_THRESHOLD, Vector
from predictgbm.images import Image
from predictgbm.labels import Tumor
from predictgbm.masks import bounding_box
from predictgbm.registration.transforms import (
    Field,
    apply_points,
    compose,
    invert,
    jacobian,
    resample,
)

#: Young's modulus over that of white matter, and Poisson's ratio: 2.1 kPa and 0.4 in white and grey matter, 0.1 kPa and
#: 0.1 in CSF are the defaults of GLIA, the released code of Subramanian et al. CSF gives way as if it could leave.
ELASTICITY = {"wm": (1.0, 0.4), "gm": (1.0, 0.4), "csf": (0.05, 0.1)}
#: Resolution of the displacement, in mm; none is finer than the image.
RESOLUTION_MM = 4.0
#: The equations are solved to this share of the load.
TOLERANCE = 1e-4
#: How often the displacement is found anew from what grows in the brain that it restores.
ROUNDS = 2


def lame(young: float, poisson: float) -> tuple[float, float]:
    """Return Lame's constants lambda and mu."""
    return young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))


def _element(
    spacing: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return what a trilinear brick adds to the stiffness and to the load, per lambda, mu and p u.

    Unknowns are the three components at each of its corners, in the order of ``np.ndindex(2, 2, 2)``.
    """
    corners = np.array(list(np.ndindex(2, 2, 2)))
    by_lambda, by_mu, load = np.zeros((24, 24)), np.zeros((24, 24)), np.zeros(24)
    for point in 0.5 + (corners - 0.5) / np.sqrt(3):
        shape = np.where(corners, point, 1 - point)
        slope = np.where(corners, 1, -1) / spacing
        gradient = slope * shape[:, [1, 2, 0]] * shape[:, [2, 0, 1]]
        strain = np.einsum("aj,ik->aikj", gradient, np.eye(3))
        strain = (0.5 * (strain + strain.swapaxes(2, 3))).reshape(24, 9)
        weight, divergence = spacing.prod() / 8, gradient.ravel()
        by_lambda += weight * np.outer(divergence, divergence)
        by_mu += 2 * weight * strain @ strain.T
        load += weight * divergence
    return by_lambda, by_mu, load


def assemble(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    stress: NDArray[np.float64],
    inside: NDArray[np.bool_],
    spacing: Vector,
) -> tuple[sparse.csr_array, NDArray[np.float64], NDArray[np.intp]]:
    """Return stiffness and load of the elastic equation, by trilinear finite elements.

    Parameters
    ----------
    first, second : arrays of shape (nx, ny, nz)
        Lame's lambda and mu of each cell, positive inside.
    stress : array of shape (nx, ny, nz)
        Pressure p u of each cell, in the unit of these.
    inside : bool array of shape (nx, ny, nz)
        Cells that can move. The displacement is zero at their border.
    spacing : (float, float, float)
        Of the cells, in mm.

    Returns
    -------
    stiffness : sparse matrix of shape (m, m), symmetric and positive definite
    load : array of shape (m,)
    unknowns : array of shape (m,)
        Where each of them lies in a flattened array of shape (nx + 1, ny + 1, nz + 1, 3), the displacement of the
        corners of the cells.
    """
    by_lambda, by_mu, by_stress = _element(np.asarray(spacing, float))
    nodes = tuple(n + 1 for n in inside.shape)
    free = np.ones(nodes, bool)
    cells = np.argwhere(inside)
    around = np.pad(inside, 1)
    for corner in np.ndindex(2, 2, 2):
        free &= around[tuple(slice(c, c + n) for c, n in zip(corner, nodes, strict=True))]
    unknowns = np.flatnonzero(np.repeat(free.ravel(), 3))
    # What is held takes a last number, which is cut off in the end.
    size = len(unknowns)
    number = np.full(3 * free.size, size, np.int32)
    number[unknowns] = np.arange(size)
    corners = np.stack(
        [np.ravel_multi_index(tuple((cells + c).T), nodes) for c in np.ndindex(2, 2, 2)], axis=1
    )
    index = number[(3 * corners[:, :, None] + np.arange(3)).reshape(len(cells), 24)]
    values = first[inside][:, None, None] * by_lambda + second[inside][:, None, None] * by_mu
    rows, columns = (np.broadcast_to(i, values.shape).ravel() for i in (index[:, :, None], index[:, None, :]))
    stiffness = sparse.coo_array((values.ravel(), (rows, columns)), (size + 1, size + 1)).tocsr()
    loads = stress[inside][:, None] * by_stress
    load = np.bincount(index.ravel(), loads.ravel(), size + 1).astype(float)
    return stiffness[:size, :size], load[:size], unknowns.astype(np.intp)


def displacement(
    concentration: NDArray[Any],
    wm: NDArray[Any],
    gm: NDArray[Any],
    brain_mask: NDArray[Any],
    spacing: Vector,
    pressure: float,
) -> NDArray[np.float32]:
    """Return how far a tumour has pushed the tissue of a brain that was at rest.

    Parameters
    ----------
    concentration : array of shape (nx, ny, nz), 0 to 1
    wm, gm : arrays of shape (nx, ny, nz), 0 to 1
        White and grey matter, 0 outside the brain; the rest of the brain is CSF.
    brain_mask : array of shape (nx, ny, nz)
        What can move. Its border is held by the skull.
    spacing : (float, float, float)
        Voxel size in mm.
    pressure : float
        At a concentration of 1, over Young's modulus of white matter.

    Returns
    -------
    array of shape (nx, ny, nz, 3)
        In mm along the array's axes, 0 at the border of the brain and outside.
    """
    inside = np.asarray(brain_mask).astype(bool)
    h = np.asarray(spacing, float)
    factors = np.maximum(1, np.rint(RESOLUTION_MM / h).astype(int))
    share = block_mean(inside, factors).astype(float)
    white, grey = (block_mean(tissue, factors) / np.maximum(share, 1e-6) for tissue in (wm, gm))
    parts = {"wm": white, "gm": grey, "csf": np.maximum(1 - white - grey, 0)}
    first, second = (sum(part * lame(*ELASTICITY[name])[k] for name, part in parts.items()) for k in (0, 1))
    stress = pressure * block_mean(concentration, factors).astype(float)
    stiffness, load, unknowns = assemble(first, second, stress, share >= 0.5, h * factors)
    corners = np.zeros((*(n + 1 for n in share.shape), 3), np.float32)
    corners.reshape(-1)[unknowns] = solve(stiffness, load)
    coarse = _grid(h * factors)
    coarse[:3, 3] = -0.5 * h
    moved: NDArray[np.float32] = compose(Image(inside, _grid(h)), Field(corners, coarse)).displacement
    return np.where(inside[..., None], moved, np.float32(0))


def solve(stiffness: sparse.csr_array, load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve the elastic equation by conjugate gradients, preconditioned by the diagonal."""
    inverse = sparse.diags_array(1 / stiffness.diagonal())
    solution, failed = cg(stiffness, load, rtol=TOLERANCE, M=inverse)
    if failed:
        raise ModelError(f"mass effect: the elastic equation is not solved after {failed} steps")
    return np.asarray(solution)


def _level(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a field above 0 in a mask and below 0 outside, whose zeros are the mask's border without its steps.

    Moved by less than half a voxel, a mask itself would stay as it is.
    """
    once = ndimage.gaussian_filter(mask.astype(np.float32), 1.0)
    # Twice the Gaussian less its own smoothing: convex masks do not shrink.
    smooth = 2 * once - ndimage.gaussian_filter(once, 1.0) - np.float32(0.5)
    least = np.float32(1e-3)
    return np.where(mask, np.maximum(smooth, least), np.minimum(smooth, -least))


def _grid(spacing: Vector) -> NDArray[np.float64]:
    return np.diag([*spacing, 1.0])


def grow_displaced(
    grow: Callable[..., Prediction],
    pressure: float,
    tumor_seg: NDArray[Any],
    wm: NDArray[Any],
    gm: NDArray[Any],
    csf: NDArray[Any],
    brain_mask: NDArray[Any],
    spacing: Vector,
) -> Prediction:
    """Let a model grow its tumour in the brain as it was before, and show the result in the exam.

    The model is asked for a concentration, this for a displacement w, and w for the brain before the tumour, where x is
    looked up at x + w(x) of the exam, tissue and tumour labels alike. There the model is asked again, and so on. The
    last concentration is carried to the exam by the displacement that its labels came by, so that its isolines agree
    with the exam's labels as well as they did there.

    Parameters
    ----------
    grow : callable
        Takes tumour labels, tissue maps and brain mask as below, and returns a concentration.
    pressure : float
        At a concentration of 1, over Young's modulus of white matter.
    tumor_seg : array of shape (nx, ny, nz)
        Canonical tumour labels.
    wm, gm, csf : arrays of shape (nx, ny, nz), 0 to 1
        Tissue probabilities.
    brain_mask : array of shape (nx, ny, nz)
    spacing : (float, float, float)
        Voxel size in mm.

    Returns
    -------
    Prediction
        In the exam. Seeds are told where their tissue lies in it; what else is among the parameters concerns the brain
        before. They also hold the pressure, ``mass_effect``; ``largest_displacement_mm``; and how much the
        displacement still changed at most in the last round, ``displacement_change_mm``.

    Raises
    ------
    ValueError
        If the pressure is negative or not finite.
    ModelError
        If the tissue would fold, or the model refuses the exam.
    """
    if not 0 <= pressure < np.inf:
        raise ValueError(f"mass_effect is {pressure}: give a pressure of 0 (off) or more")
    inside = np.asarray(brain_mask).astype(bool)
    box = bounding_box(inside)
    affine = _grid(spacing)
    within = affine.copy()
    within[:3, 3] = [side.start * h for side, h in zip(box, spacing, strict=True)]
    brain = Image(inside[box], within)
    exam = {"wm": wm, "gm": gm, "csf": csf}
    seen = prepare_medium(tumor_seg, **exam, brain_mask=inside)
    core, whole = _level(seen.core), _level(seen.whole)

    def look(image: NDArray[Any], field: Field) -> NDArray[np.float32]:
        there = np.zeros(inside.shape, np.float32)
        there[box] = resample(Image(image, affine), brain, field)
        return there

    field = Field(np.zeros((*brain.shape, 3), np.float32), within)
    tissue, medium = exam, seen
    found = grow(tumor_seg, **tissue, brain_mask=inside)
    for _ in range(ROUNDS):
        last = field.displacement
        moved = displacement(found.map[box], medium.wm[box], medium.gm[box], inside[box], spacing, pressure)
        field = Field(moved, within)
        if not jacobian(field).min() > 0:
            raise ModelError(f"mass_effect of {pressure} would fold the tissue of this exam; give less")
        tissue = {name: look(image, field) for name, image in exam.items()}
        oedema = np.where(look(whole, field) > 0, Tumor.EDEMA, 0)
        labels = np.where(look(core, field) > 0, Tumor.ENHANCING, oedema).astype(np.uint8)
        medium = prepare_medium(labels, **tissue, brain_mask=inside)
        found = grow(labels, **tissue, brain_mask=inside)

    back = invert(field, brain)
    grows = seen.wm + seen.gm >= TISSUE_THRESHOLD

    def carry(image: NDArray[np.float32]) -> NDArray[np.float32]:
        # Nothing is mixed in from where nothing grows.
        share = look((image > 0).astype(np.float32), back)
        return np.where(grows, look(image, back) / np.maximum(share, np.float32(1e-6)), np.float32(0))

    found.parameters.update(
        seeds_mm=apply_points(np.array(found.parameters["seeds_mm"]), field).tolist(),
        mass_effect=pressure,
        largest_displacement_mm=float(np.linalg.norm(moved, axis=-1).max()),
        displacement_change_mm=float(np.linalg.norm(moved - last, axis=-1).max()),
    )
    spread = None if found.spread is None else carry(found.spread)
    return Prediction(carry(found.map), found.parameters, spread)
