"""Apparent diffusion coefficient and diffusion tensor of diffusion-weighted volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel
from numpy.typing import NDArray

from predictgbm.images import ImageError

#: Above this b-value, in s/mm2, the decay of the signal is no longer that of Gaussian diffusion.
LARGEST_B = 1200.0
#: b-values up to this one count as unweighted, in s/mm2.
UNWEIGHTED_B = 50.0
#: The component that directions determine worst, against the best: evenly spread ones reach 0.4 to 0.7.
LEAST_STRENGTH = 0.05
#: Voxels whose unweighted signal is below this share of the brightest (99th percentile) are background.
BACKGROUND = 0.05
#: From mm2/s to the unit of ADC maps.
UNIT = 1e6


def diffusion_maps(
    data: NDArray[np.floating[Any]], b_values: NDArray[np.float64], directions: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return the apparent diffusion coefficient and, where there are directions enough, the tensor.

    With b up to 1200 s/mm2 and at least 6 directions that determine a tensor: the tensor by weighted least squares
    (dipy; Basser, Mattiello and LeBihan 1994) and its mean diffusivity, a third of its trace. With fewer: the slope
    of the logarithm of the signal over b by least squares, which for equally weighted orthogonal directions is the
    mean diffusivity too.
    Neither motion nor eddy currents are corrected.

    Parameters
    ----------
    data
        Signal, shape (nx, ny, nz, n).
    b_values
        Shape (n,), s/mm2.
    directions
        Shape (n, 3), unit vectors; zero where a volume has none.

    Returns
    -------
    adc : float32 array of shape (nx, ny, nz)
        1e-6 mm2/s, at least 0; 0 in the background.
    tensor : float32 array of shape (nx, ny, nz, 6) or None
        Dxx, Dxy, Dyy, Dxz, Dyz, Dzz in the axes of ``directions``, 1e-6 mm2/s; 0 in the background.

    Raises
    ------
    ImageError
        If there are not two b-values up to 1200 s/mm2.
    """
    used = b_values <= LARGEST_B
    data, b_values, directions = data[..., used], b_values[used], directions[used]
    levels = np.unique(np.rint(b_values / UNWEIGHTED_B))
    if len(levels) < 2:
        raise ImageError(
            f"diffusion series has {len(levels)} b-value up to {LARGEST_B:g} s/mm2, expected at least two "
            "(for example 0 and 1000); give an ADC map in column adc, or leave column dti empty"
        )
    lowest = b_values <= max(UNWEIGHTED_B, float(b_values.min()))
    baseline = data[..., lowest].mean(axis=-1)
    top = float(np.percentile(baseline, 99))
    shown = baseline > BACKGROUND * top
    # A logarithm needs a positive signal.
    data = np.maximum(data, max(1e-4 * top, 1e-12))
    weighted = (b_values > UNWEIGHTED_B) & directions.any(axis=1)
    # Trace-weighted volumes have no direction and do not belong into a tensor.
    oriented = weighted | (b_values <= UNWEIGHTED_B)
    if determines_tensor(directions[weighted]) and (b_values[oriented] <= UNWEIGHTED_B).any():
        table = gradient_table(
            b_values[oriented],
            bvecs=directions[oriented] * weighted[oriented, None],
            b0_threshold=UNWEIGHTED_B,
        )
        model = TensorModel(table, fit_method="WLS")
        tensor = np.zeros((*shown.shape, 6), np.float32)
        if shown.any():
            tensor[shown] = UNIT * model.fit(data[shown][:, oriented].astype(np.float64)).lower_triangular()
        adc = tensor[..., [0, 2, 5]].mean(axis=-1)
        return np.clip(adc, 0, None).astype(np.float32), tensor
    adc = np.zeros(shown.shape, np.float32)
    centred = b_values - b_values.mean()
    slope = np.log(data[shown].astype(np.float64)) @ centred / (centred @ centred)
    adc[shown] = np.clip(-UNIT * slope, 0, None)
    return adc, None


def determines_tensor(directions: NDArray[np.float64]) -> bool:
    """Tell whether directions, shape (n, 3), determine the six components of a tensor.

    It takes at least six axes; directions on a cone or in a plane do not do, however many.
    """
    x, y, z = directions.T
    products = np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
    if len(products) < 6:
        return False
    strengths = np.linalg.svd(products, compute_uv=False)
    return bool(strengths[-1] > LEAST_STRENGTH * strengths[0])
