"""A head made of ellipsoids, for trying a model in seconds and without an atlas.

It is no anatomy and shows nothing of a model's worth; the simulated cohort (:mod:`predictgbm.simulation.patient`) does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictgbm.images import Image
from predictgbm.labels import Tumor
from predictgbm.simulation.raw import reorder

#: Half axes of the brain along right, anterior, superior, in mm.
BRAIN_MM = (64.0, 80.0, 56.0)
#: Centre of the tumour, in mm from that of the brain, and the radii of necrosis, enhancing rim and oedema.
TUMOR_MM = (26.0, 10.0, 8.0)
RADII_MM = (6.0, 13.0, 24.0)
#: Free water in tissue, mm²/s, times 1e6 as scanners give ADC.
ADC = {"csf": 3000.0, "gm": 850.0, "wm": 750.0, "tumor": 1300.0}


def make_phantom(
    spacing: Sequence[float], codes: str = "RAS", *, tumor: bool = True, seed: int = 0
) -> dict[str, Image]:
    """Return the images of an exam, by the names of a model's inputs.

    Parameters
    ----------
    spacing : three floats
        Voxel size along right, anterior, superior, in mm.
    codes : str
        Voxel order to store the images in, such as ``LPS``.
    tumor : bool
        Whether there is one; without it ``tumor_seg`` is empty.
    seed : int
        Of the images' noise.

    Returns
    -------
    dict of Image
        All on one grid: four contrasts, ``adc``, ``pet``, ``tensor`` (six volumes), ``tumor_seg``, ``brain_mask`` and
        tissue maps that add up to 1 in the brain.
    """
    size = np.asarray(spacing, np.float64)
    # A rim of two voxels; the origin off the voxel centres, as in any atlas.
    shape = tuple(int(n) for n in np.ceil(2 * np.array(BRAIN_MM) / size) + 4)
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -size * np.array(shape) / 2 + 0.3
    x, y, z = (
        axis.reshape(part)
        for axis, part in zip(
            (affine[a, 3] + size[a] * np.arange(shape[a]) for a in range(3)),
            ((-1, 1, 1), (1, -1, 1), (1, 1, -1)),
            strict=True,
        )
    )
    depth = np.sqrt((x / BRAIN_MM[0]) ** 2 + (y / BRAIN_MM[1]) ** 2 + (z / BRAIN_MM[2]) ** 2)
    ventricles = np.sqrt(((np.abs(x) - 9) / 6) ** 2 + (y / 26) ** 2 + ((z - 4) / 10) ** 2)
    brain = depth <= 1
    csf = np.clip(np.maximum((depth - 0.92) / 0.06, (1.15 - ventricles) / 0.3), 0, 1)
    gm = (1 - csf) * np.clip((depth - 0.72) / 0.1, 0, 1)
    tissue = {"csf": csf, "gm": gm, "wm": 1 - csf - gm}

    labels = np.zeros(shape, np.uint8)
    if tumor:
        distance = np.sqrt((x - TUMOR_MM[0]) ** 2 + ((y - TUMOR_MM[1]) / 1.2) ** 2 + (z - TUMOR_MM[2]) ** 2)
        necrosis, enhancing, edema = (distance < radius for radius in RADII_MM)
        labels = np.select([necrosis, enhancing, edema], [Tumor.NECROSIS, Tumor.ENHANCING, Tumor.EDEMA], 0)
        labels = (labels * (brain & (csf < 0.5))).astype(np.uint8)

    rng = np.random.default_rng(seed)

    def contrast(levels: Sequence[float], marks: Sequence[float]) -> NDArray[Any]:
        """Mix tissues (CSF, grey, white), add what necrosis, oedema and enhancing tumour differ by, and noise."""
        signal = sum(level * part for level, part in zip(levels, tissue.values(), strict=True))
        signal = signal + np.array([0.0, *marks])[labels] + rng.normal(0, 4, shape)
        return np.where(brain, np.maximum(signal, 1), 0).astype(np.float32)

    anywhere = labels > 0
    adc = sum(ADC[name] * part for name, part in tissue.items())
    adc = np.where(brain, np.where(anywhere, ADC["tumor"], adc), 0).astype(np.float32)
    tensor = np.zeros((*shape, 6), np.float32)
    for place, along in ((0, 0.8), (1, 1.4), (5, 0.8)):
        # Fibres of the white matter run from back to front.
        tensor[..., place] = 1e-6 * adc * (1 + (along - 1) * tissue["wm"])
    arrays = {
        "t1": contrast((30, 80, 120), (-40, -25, -10)),
        "t1c": contrast((30, 80, 120), (-40, -25, 90)),
        "t2": contrast((200, 110, 80), (70, 70, 40)),
        "flair": contrast((20, 100, 85), (30, 80, 50)),
        "adc": adc,
        "pet": (brain * (1 + 1.5 * np.isin(labels, (Tumor.ENHANCING, Tumor.NECROSIS)))).astype(np.float32),
        "tensor": tensor,
        "tumor_seg": labels,
        "brain_mask": brain.astype(np.uint8),
        **{name: (part * brain).astype(np.float32) for name, part in tissue.items()},
    }
    images = {}
    for name, data in arrays.items():
        turned, matrix = reorder(data, affine, codes)
        images[name] = Image(turned, matrix, name)
    return images
