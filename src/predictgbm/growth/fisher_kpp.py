"""The Fisher-KPP model: the growth equation calibrated to the visible tumour, and the concentration it then grows.

Reaction and diffusion with faster spread in white than in grey matter go back to Swanson KR, Alvord EC, Murray JD
(Cell Proliferation 33:317-329, 2000); see :mod:`predictgbm.growth.solver` for the equation and
:mod:`predictgbm.growth.calibration` for the fit.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictgbm.growth import Prediction, calibration
from predictgbm.growth.mass_effect import grow_displaced
from predictgbm.growth.medium import prepare_medium
from predictgbm.growth.solver import WHITE_TO_GRAY, FisherKPP, Vector, relative_diffusivity
from predictgbm.masks import bounding_box, dice

#: The active box of the final run follows the concentration down to this: its faint tail ranks the voxels far from
#: the tumour.
RANKING_THRESHOLD = 1e-24


def grow(solver: FisherKPP, p: calibration.Parameters) -> NDArray[np.float32]:
    """Return the concentration that parameters grow, with a tail that ranks every voxel of tissue.

    Parameters
    ----------
    solver : FisherKPP
        On the brain.
    p : Parameters
        With places in mm from the centre of the first voxel.
    """
    start = calibration.gaussian_seeds(solver.shape, solver.spacing, p.seeds, p.peaks)
    return solver.simulate(
        start, p.diffusivity, p.proliferation, calibration.DAYS, active_threshold=RANKING_THRESHOLD
    )


def predict(
    tumor_seg: NDArray[Any],
    wm: NDArray[Any],
    gm: NDArray[Any],
    csf: NDArray[Any],
    brain_mask: NDArray[Any],
    tensor: NDArray[Any] | None = None,
    *,
    spacing: Vector,
    seed: int = 0,
    samples: int = 0,
    mass_effect: float = 0.0,
) -> Prediction:
    """Calibrate the Fisher-KPP equation to the tumour labels and return the concentration it grows.

    Parameters
    ----------
    tumor_seg : array of shape (nx, ny, nz)
        Canonical tumour labels.
    wm, gm, csf : arrays of shape (nx, ny, nz), 0 to 1
        Tissue probabilities.
    brain_mask : array of shape (nx, ny, nz)
        Nothing is predicted outside.
    tensor : array of shape (nx, ny, nz, 6), optional
        Diffusion of water: Dxx, Dxy, Dyy, Dxz, Dyz, Dzz along the array axes, in any unit, 0 where not measured. Cells
        then spread along tracts as water does.
    spacing : (float, float, float)
        Voxel size in mm.
    seed : int
        Of the draws from the posterior.
    samples : int
        Draws from the posterior, 0 or at least 2. With draws the map is their mean, and their spread comes with it;
        without, the map is that of the best parameters.
    mass_effect : float
        Pressure of the tumour on the tissue, over Young's modulus of white matter; see
        :mod:`predictgbm.growth.mass_effect`. 0: the tissue does not move. With mass effect the tensor is not used.

    Raises
    ------
    ModelError
        If the exam shows no tumour inside the brain, or no tissue.
    ValueError
        If ``samples`` is 1: one draw has no spread. Or if ``mass_effect`` is negative.
    """
    if samples == 1:
        raise ValueError("samples is 1: one draw has no spread; give 0, or 2 and more")
    if mass_effect:
        still = partial(predict, spacing=spacing, seed=seed, samples=samples)
        return grow_displaced(still, mass_effect, tumor_seg, wm, gm, csf, brain_mask, spacing)
    began = time.perf_counter()
    inside = np.asarray(brain_mask).astype(bool)
    medium = prepare_medium(tumor_seg, wm, gm, csf, inside)
    core, whole = medium.core, medium.whole
    box = bounding_box(inside)
    relative = relative_diffusivity(
        medium.wm[box],
        medium.gm[box],
        brain_mask=inside[box],
        tensor=None if tensor is None else np.asarray(tensor)[box],
    )
    found = calibration.calibrate(relative, core[box], whole[box], spacing)
    solver = FisherKPP(relative, spacing)
    parameters = found.parameters
    best = np.zeros(inside.shape, np.float32)
    best[box] = grow(solver, parameters)
    image, spread = best, None
    uncertainty: dict[str, Any] = {}
    if samples:
        mean, squares = np.zeros((2, *best[box].shape))
        for drawn in found.draw(samples, seed):
            u = grow(solver, drawn).astype(float)
            mean += u / samples
            squares += u * u / samples
        image, spread = np.zeros((2, *inside.shape), np.float32)
        image[box] = mean
        spread[box] = np.sqrt(np.maximum(squares - mean**2, 0) * samples / (samples - 1))
        deviations = np.sqrt(np.diag(found.covariance)[:2])
        uncertainty = {
            "samples": samples,
            "log_speed_deviation": float(deviations[0]),
            "log_width_deviation": float(deviations[1]),
        }
    corner = [side.start * h for side, h in zip(box, spacing, strict=True)]
    return Prediction(
        image,
        {
            "diffusivity_mm2_per_day": parameters.diffusivity,
            "proliferation_per_day": parameters.proliferation,
            "white_to_gray_ratio": WHITE_TO_GRAY,
            "anisotropic": tensor is not None,
            "days": calibration.DAYS,
            "seeds_mm": (parameters.seeds + corner).tolist(),
            "seed_peaks": parameters.peaks.tolist(),
            "threshold_core": calibration.CORE_THRESHOLD,
            "threshold_edema": calibration.EDEMA_THRESHOLD,
            "misfit_mm": found.misfit,
            **uncertainty,
            "dice_core": dice(best > calibration.CORE_THRESHOLD, core) if core.any() else None,
            "dice_whole": dice(best > calibration.EDEMA_THRESHOLD, whole),
            "displaced_voxels": medium.displaced,
            "uncovered_voxels": medium.uncovered,
            "seconds": time.perf_counter() - began,
        },
        spread,
    )
