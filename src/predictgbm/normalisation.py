"""Intensities of magnetic resonance images: bias field, and a common scale."""

from __future__ import annotations

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from predictgbm.itk import itk_threads

#: The ways to scale an image.
METHODS = ("percentile", "zscore", "none")
#: Percentiles in the brain that become 0 and 1.
PERCENTILES = (0.1, 99.9)


def normalise(
    image: NDArray[np.floating], mask: NDArray[np.bool_], method: str = "percentile"
) -> NDArray[np.float32]:
    """Scale the intensities of an image by what lies in a mask; outside the mask the result is 0.

    Parameters
    ----------
    image : array of shape (nx, ny, nz), any unit
    mask : bool array of the same shape, not empty
    method
        ``percentile``: the percentiles :data:`PERCENTILES` in the mask become 0 and 1, and what lies beyond is
        clipped; ``zscore``: mean 0 and standard deviation 1 in the mask; ``none``: only the outside becomes 0.
        A constant image becomes 0 by either scale.

    Raises
    ------
    ValueError
        If the mask is empty or the method unknown.
    """
    inside = image[mask].astype(np.float32)
    if not inside.size:
        raise ValueError("the mask is empty, there is nothing to scale by")
    if method == "percentile":
        low, high = np.percentile(inside, PERCENTILES)
        inside = np.clip((inside - low) / (high - low), 0, 1) if high > low else np.zeros_like(inside)
    elif method == "zscore":
        deviation = inside.std(dtype=np.float64)
        inside = (inside - inside.mean(dtype=np.float64)) / deviation if deviation > 0 else 0 * inside
    elif method != "none":
        raise ValueError(f"no way to scale an image is called {method!r}, there are {', '.join(METHODS)}")
    result = np.zeros(image.shape, np.float32)
    result[mask] = inside
    return result


def correct_bias(
    image: NDArray[np.floating],
    mask: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    *,
    coarse_mm: float = 4.0,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Divide an image by its smooth bias field, estimated in a mask by N4.

    N4: Tustison NJ et al. IEEE Transactions on Medical Imaging 29:1310-1320, 2010, doi:10.1109/TMI.2010.2046908, with
    four levels of at most 50 iterations on the image shrunk to about ``coarse_mm``.

    Parameters
    ----------
    image : array of shape (nx, ny, nz); values below 0 are taken as 0
    mask : bool array of the same shape
    spacing : voxel size along each axis, in mm
    coarse_mm
        Voxel size the field is estimated at, in mm.
    threads
        Threads to use; the result depends on their number in the last digits.

    Returns
    -------
    float32 array of the same shape, with the mean it had in the mask
    """
    image = np.asarray(image, np.float32).clip(0)
    # Voxels of value 0 have no logarithm; they take no part.
    valid = mask & (image > 0)
    if not valid.any():
        return image
    whole, part = (SimpleITK.GetImageFromArray(a.T) for a in (image, valid.astype(np.uint8)))
    for array in (whole, part):
        array.SetSpacing(spacing)
    shrink = [max(1, min(round(coarse_mm / s), n // 4)) for s, n in zip(spacing, image.shape, strict=True)]
    n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50] * 4)
    n4.SetConvergenceThreshold(1e-3)
    with itk_threads(threads):
        n4.Execute(SimpleITK.Shrink(whole, shrink), SimpleITK.Shrink(part, shrink))
        logarithm = SimpleITK.GetArrayFromImage(n4.GetLogBiasFieldAsImage(whole)).T
    corrected = (image / np.exp(logarithm)).astype(np.float32)
    scale = image[valid].mean(dtype=np.float64) / corrected[valid].mean(dtype=np.float64)
    return np.asarray(corrected * scale, np.float32)
