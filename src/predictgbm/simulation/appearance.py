"""What a scanner makes of tissue and tumour: contrasts with anatomy, pathology, bias field and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predictgbm.simulation.fields import Volume
from predictgbm.simulation.growth import tract_directions
from predictgbm.tensors import COMPONENTS


@dataclass(frozen=True)
class Contrast:
    """Mean intensities of one contrast, relative to white matter (ADC: 1e-3 mm²/s).

    Attributes
    ----------
    wm, gm, csf : normal tissue
    necrosis, edema, enhancing, cavity : pathology at full strength
    infiltration : change by migrating cells at density 1, what hidden infiltration adds
    detail : weight of the fine structure of the atlas T1 (what its tissue means do not explain)
    quantitative : no bias field and no scanner-dependent scale
    """

    wm: float
    gm: float
    csf: float
    necrosis: float
    edema: float
    enhancing: float
    cavity: float
    infiltration: float
    detail: float
    quantitative: bool = False


#: Typical ratios at 1.5-3 T, chosen by eye against clinical exams.
CONTRASTS = {
    "t1": Contrast(1.00, 0.74, 0.38, 0.52, 0.74, 0.72, 0.40, -0.10, 1.0),
    "t1c": Contrast(1.00, 0.78, 0.40, 0.55, 0.76, 1.75, 0.42, -0.05, 1.0),
    "t2": Contrast(1.00, 1.45, 3.10, 2.50, 2.10, 1.70, 3.05, 0.60, -0.9),
    "flair": Contrast(1.00, 1.25, 0.35, 1.15, 2.05, 1.65, 0.40, 0.50, -0.4),
    "adc": Contrast(0.75, 0.85, 2.90, 2.00, 1.45, 1.05, 2.80, 0.10, 0.0, quantitative=True),
}


#: Diffusivity of water along a coherent tract over that across it.
ALONG_TRACT = 4.0


@dataclass(frozen=True)
class Scene:
    """What lies in each voxel of an exam; all arrays of one shape, fractions 0 to 1.

    Attributes
    ----------
    wm, gm, csf : individual tissue, as it is below the tumour
    t1_detail : fine structure of the T1 beyond its tissue means, relative to white matter
    necrosis, edema, enhancing, cavity : partial volumes of pathology, sum at most 1
    infiltration : density of migrating cells
    heterogeneity : random field of variance 1 that varies tumour intensities
    brain_mask : bool
    """

    wm: Volume
    gm: Volume
    csf: Volume
    t1_detail: Volume
    necrosis: Volume
    edema: Volume
    enhancing: Volume
    cavity: Volume
    infiltration: Volume
    heterogeneity: Volume
    brain_mask: NDArray[np.bool_]


def signal_of(scene: Scene, contrast: Contrast) -> Volume:
    """Return the signal of a scene in one contrast, white matter 1, without bias field and noise."""
    pathology = scene.necrosis + scene.edema + scene.enhancing + scene.cavity
    tissue = contrast.wm * scene.wm + contrast.gm * scene.gm + contrast.csf * scene.csf
    tissue = np.maximum(tissue + contrast.detail * scene.t1_detail, 0.05)
    vary = 1 + np.float32(0.10) * scene.heterogeneity
    # Edema lets the tissue below show through; solid tumour does not.
    return np.asarray(
        (1 - np.clip(pathology - 0.35 * scene.edema, 0, 1)) * tissue
        + scene.edema * (contrast.edema - 0.35 * contrast.wm) * (1 + 0.5 * (vary - 1))
        + scene.enhancing * contrast.enhancing * (1 + 2 * (vary - 1))
        + scene.necrosis * contrast.necrosis * vary
        + scene.cavity * contrast.cavity
        + contrast.infiltration * scene.infiltration * (1 - np.clip(pathology, 0, 1)),
        np.float32,
    )


def add_noise(signal: Volume, rng: np.random.Generator, snr: float) -> Volume:
    """Return the modulus of the signal plus complex Gaussian noise of standard deviation 1 / snr (Rician)."""
    real = signal + 1 / snr * rng.standard_normal(signal.shape, np.float32)
    imaginary = 1 / snr * rng.standard_normal(signal.shape, np.float32)
    return np.asarray(np.hypot(real, imaginary), np.float32)


def render_tensor(scene: Scene, spacing: float, rng: np.random.Generator, snr: float) -> NDArray[np.int16]:
    """Make the diffusion tensor of a scene; its mean is the ADC, its long axis the run of the tracts.

    Along a coherent tract diffusivity is :data:`ALONG_TRACT` times that across; oedema halves what tracts add, solid
    tumour and cavity take it away. Noise of mean / snr is added to each component.

    Parameters
    ----------
    scene
        What is there.
    spacing
        Voxel edge in mm.
    rng
        Source of the noise.
    snr
        Signal-to-noise ratio.

    Returns
    -------
    int16 array of shape (nx, ny, nz, 6), Dxx, Dxy, Dyy, Dxz, Dyz, Dzz in 1e-6 mm²/s, 0 outside the brain
    """
    direction, coherence = tract_directions(scene.wm, spacing)
    solid = scene.necrosis + scene.enhancing + scene.cavity
    share = coherence * scene.wm * (1 - 0.5 * scene.edema) * (1 - np.clip(solid, 0, 1))
    mean = 1000 * signal_of(scene, CONTRASTS["adc"])
    across = 3 / (3 + share * (ALONG_TRACT - 1))
    tensor = np.empty((*mean.shape, 6), np.float32)
    for n, (i, j) in enumerate(COMPONENTS):
        tract = (1 - across) * 3 * direction[..., i] * direction[..., j]
        noise = rng.standard_normal(mean.shape, np.float32) / snr
        tensor[..., n] = mean * (tract + across * (i == j) + noise)
    return np.where(scene.brain_mask[..., None], np.rint(tensor), 0).astype(np.int16)


def render(
    scene: Scene, contrast: Contrast, rng: np.random.Generator, bias: Volume, snr: float, scale: float
) -> NDArray[np.int16]:
    """Make the image of a scene in one contrast.

    Intensity = scale * bias * (mixture of tissue and pathology), then Rician noise: the modulus of the signal plus
    complex Gaussian noise of standard deviation (white matter / snr).

    Parameters
    ----------
    scene, contrast
        What is there and how it looks.
    rng
        Source of the noise.
    bias
        Smooth multiplicative field, mean near 1.
    snr
        Signal-to-noise ratio of white matter.
    scale
        Intensity of white matter.

    Returns
    -------
    image : int16 array, at least 1 in the brain and 0 outside; ADC in 1e-6 mm²/s
    """
    signal = signal_of(scene, contrast)
    if contrast.quantitative:
        scale = 1000.0
    else:
        signal = signal * bias
    image = np.clip(np.rint(scale * add_noise(signal, rng, snr)), 1, 32767)
    return np.where(scene.brain_mask, image, 0).astype(np.int16)
