"""Images for SimpleITK, and its threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from predictgbm.registration.transforms import LPS


def to_simpleitk(data: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    """Return an array and its RAS affine, whose axes are at right angles, as image of SimpleITK."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0), np.float32))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


@contextmanager
def itk_threads(count: int) -> Iterator[None]:
    """Let ITK use so many threads, and no more.

    A filter's own setting does not reach the filters inside it, and with several threads sums are added in the order
    in which they come: a registration then ends elsewhere each time.
    """
    before = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
