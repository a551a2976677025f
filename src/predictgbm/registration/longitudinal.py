"""Registration of a follow-up T1c to the pre-operative T1c, by several methods, and how well it went."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import cc3d
import edt
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from predictgbm.images import Image, ImageError
from predictgbm.itk import to_simpleitk
from predictgbm.masks import dice
from predictgbm.preprocessing import two_levels
from predictgbm.quality import Measure
from predictgbm.registration import kernels
from predictgbm.registration.deformable import (
    DEFAULT,
    EMPTY_WINDOW,
    Level,
    Settings,
    register_deformable,
    remove_folds,
)
from predictgbm.registration.linear import greedy_field, isotropic, register_linear
from predictgbm.registration.transforms import (
    Field,
    Transform,
    compose,
    invert,
    jacobian,
    read_transform,
    resample,
)

Mask: TypeAlias = NDArray[np.bool_]

#: Similarity after the linear map alone below which the follow-up is taken to be of another person. Measured: 0.67 to
#: 0.83 in ten simulated patients, 0.39 for a real brain deformed by 2 mm rms, 0.20 to 0.27 for ten pairs of different
#: simulated people. After a deformable map two people look alike (0.83 against 0.84): that cannot be the gate.
OTHER_PERSON = 0.3
#: Below this it may be another person's, and the patient is flagged. Blurred images look alike sooner: at 2 mm a
#: simulated patient has 0.74 with the own follow-up and 0.40 with another's.
DOUBTFUL_PERSON = 0.45

#: Share of the brain moved by more than this, in mm beyond the affine map, that a follow-up seldom needs.
FAR_MM = 10.0

#: Ventricles are the largest fluid space this deep in the brain, in mm, looked for up to so far around where the
#: tissue map has it.
VENTRICLE_DEPTH_MM = 20.0
VENTRICLE_SEARCH_MM = 5.0
#: Overlap of the ventricles below which a patient is flagged. Simulated follow-ups reach 0.93 to 0.97, and 0.67 to 0.76
#: once they are moved by 4 mm.
LEAST_VENTRICLE_DICE = 0.75


@dataclass(frozen=True)
class Pair:
    """The two images, and what is known of them; masks have the shape of their image."""

    fixed: Image
    moving: Image
    fixed_mask: Mask
    moving_mask: Mask
    fixed_ignore: Mask | None
    moving_ignore: Mask | None
    weights: Path | None
    threads: int
    seed: int


@dataclass(frozen=True)
class Registration:
    """Result of a method.

    Attributes
    ----------
    forward : Field
        Fixed to moving points, on the fixed grid, the affine map included.
    backward : Field
        Its inverse, on the moving grid.
    matrix : array of shape (4, 4)
        The affine or rigid map alone, fixed to moving, RAS mm.
    """

    forward: Field
    backward: Field
    matrix: NDArray[np.float64]


def _linear(pair: Pair, kind: Any) -> NDArray[np.float64]:
    return register_linear(
        pair.fixed,
        pair.moving,
        kind=kind,
        fixed_mask=pair.fixed_mask,
        moving_mask=pair.moving_mask,
        initial="centres",
        threads=pair.threads,
    )


def _optimised(
    pair: Pair,
    matrix: NDArray[np.float64],
    settings: Settings,
    initial: tuple[Field, Field] | None = None,
) -> Transform:
    forward, _ = register_deformable(
        pair.fixed,
        pair.moving,
        matrix,
        pair.fixed_mask,
        pair.moving_mask,
        fixed_ignore=pair.fixed_ignore,
        moving_ignore=pair.moving_ignore,
        settings=settings,
        initial=initial,
        threads=pair.threads,
    )
    return forward


def _needs_torch(what: str, error: ImportError) -> ImageError:
    return ImageError(
        f"{what} needs packages that are not installed ({error}); install them with ./predictgbm setup --hdbet or pip "
        "install 'predictgbm[registration]', run with containers (image hdbet), or choose another method"
    )


def _cubic_pair(pair: Pair, matrix: NDArray[np.float64], multiple: int = 1) -> tuple[Image, Image]:
    """Return the fixed image and the moving image brought to it by the affine map, on cubic voxels of 1 mm.

    Each axis has a multiple of so many voxels.
    """
    grid = isotropic(pair.fixed, pair.fixed_mask, 1.0)
    shape = tuple(-(-n // multiple) * multiple for n in grid.shape)
    grid = Image(np.broadcast_to(np.float32(0), shape), grid.affine)
    fixed = resample(pair.fixed, grid)
    return Image(fixed, grid.affine), Image(resample(pair.moving, grid, matrix), grid.affine)


def _greedy(pair: Pair, matrix: NDArray[np.float64]) -> Transform:
    fixed, moving = _cubic_pair(pair, matrix)
    return greedy_field(fixed, moving, "-n 100x50x10 -wp 0", threads=pair.threads)


def _syn(pair: Pair, matrix: NDArray[np.float64]) -> Transform:
    # ITK reads both when it is loaded; antspyx ignores its own argument for the seed.
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(pair.threads)
    os.environ["ANTS_RANDOM_SEED"] = str(pair.seed)
    try:
        import ants
    except ImportError as error:
        raise ImageError(
            "method syn needs antspyx, which is not installed; install the extra: pip install 'predictgbm[syn]'"
        ) from error
    fixed, moving = _cubic_pair(pair, matrix)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, image in (("fixed", fixed), ("moving", moving)):
            paths.append(str(Path(folder) / f"{name}.nii.gz"))
            SimpleITK.WriteImage(to_simpleitk(image.data, image.affine), paths[-1])
        first, second = (ants.image_read(path) for path in paths)
        # The affine map is in the moving image already, and joined to the warp by the caller: SyN's own is left out.
        found = ants.registration(
            first,
            second,
            "SyNOnly",
            initial_transform="identity",
            outprefix=f"{folder}/syn_",
            syn_metric="CC",
            syn_sampling=2,
        )
        warps = [path for path in found["fwdtransforms"] if path.endswith(".nii.gz")]
        return read_transform(warps[0])


def _convexadam(pair: Pair, matrix: NDArray[np.float64]) -> Transform:
    # Where an axis is no multiple of its two lattices, 6 and 2 voxels, the package stretches the field.
    fixed, moving = _cubic_pair(pair, matrix, 6)
    with warnings.catch_warnings():  # the package sets filters of warnings for the whole process
        warnings.simplefilter("ignore")
        try:
            import torch
            from convexAdam.convex_adam_MIND import convex_adam_pt
        except ImportError as error:
            raise _needs_torch("method convexadam", error) from error
        torch.set_num_threads(pair.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        voxels = convex_adam_pt(
            fixed.data,
            moving.data,
            grid_sp=6,
            grid_sp_adam=2,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
    # On its second lattice, of n voxels, it takes (n - 1) / 2 voxels for the unit of torch, which is n / 2.
    counts = np.array(fixed.shape) // 2
    voxels = voxels * counts / (counts - 1)
    displacement = np.ascontiguousarray(voxels @ fixed.affine[:3, :3].T, np.float32)
    return Field(remove_folds(displacement, fixed.affine), fixed.affine)


def _nothing(pair: Pair, matrix: NDArray[np.float64]) -> Transform:
    return np.eye(4)


def _normalised(
    factor: int, iterations: int, rate: float, control: int, smoothness: float, consistency: float
) -> Level:
    """Turn rates and weights of coordinates from -1 to 1 over a brain of 160 mm into those of voxels."""
    half = 80.0 / factor
    return Level(factor, iterations, rate * half, control, smoothness / half**2, consistency / half**2)


#: Instance optimisation of DIRAC (Mok TCW, Chung ACS. MICCAI 2022, arXiv:2206.03900): iterations, rates and weights of
#: its five levels, window of 3 voxels. Its network comes first where its weights are given.
DIRAC = Settings(
    levels=(
        _normalised(4, 150, 1e-2, 2, 0.25, 1),
        _normalised(4, 100, 5e-3, 1, 0.275, 2),
        _normalised(2, 100, 5e-3, 2, 0.3, 4),
        _normalised(2, 100, 3e-3, 2, 0.325, 8),
        _normalised(1, 50, 3e-3, 3, 0.35, 10),
    ),
    similarity_weight=1.0,
    radius=1,
)


def _dirac(pair: Pair, matrix: NDArray[np.float64]) -> Transform:
    initial = None
    if pair.weights is not None:
        try:
            from predictgbm.registration.dirac import start_fields
        except ImportError as error:
            raise _needs_torch("DIRAC's network", error) from error
        initial = start_fields(
            pair.weights,
            pair.fixed,
            pair.moving,
            matrix,
            pair.fixed_mask,
            pair.moving_mask,
            threads=pair.threads,
        )
    return _optimised(pair, matrix, DIRAC, initial)


#: Free-form deformation on squared differences, with the default's levels.
FFD = Settings(similarity="mse", occlusion=None)

#: Name -> kind of the linear map before it, method, and a line for the help.
METHODS: dict[str, tuple[str, Callable[[Pair, NDArray[np.float64]], Transform], str]] = {
    "ncc": (
        "affine",
        partial(_optimised, settings=DEFAULT),
        "own, both directions, local correlation, inverse consistency",
    ),
    "rigid": ("rigid", _nothing, "greedy, 6 degrees of freedom"),
    "affine": ("affine", _nothing, "greedy, 12 degrees of freedom"),
    "greedy": ("affine", _greedy, "greedy, deformable, local correlation"),
    "syn": ("affine", _syn, "SyN of ANTs, local correlation (extra: syn)"),
    "ffd": (
        "affine",
        partial(_optimised, settings=FFD),
        "own, squared differences instead of local correlation",
    ),
    "convexadam": ("affine", _convexadam, "convexAdam, MIND features (torch)"),
    "dirac": (
        "affine",
        _dirac,
        "instance optimisation with DIRAC's settings, after its network where its weights are given (torch)",
    ),
}


def register(
    fixed: Image,
    moving: Image,
    method: str,
    fixed_mask: Mask,
    moving_mask: Mask,
    *,
    fixed_ignore: Mask | None = None,
    moving_ignore: Mask | None = None,
    weights: Path | None = None,
    threads: int = 1,
    seed: int = 1,
) -> Registration:
    """Register a follow-up to a pre-operative image of the same contrast.

    Parameters
    ----------
    fixed, moving
        T1c before the operation and at follow-up, any grids, with or without skull.
    method
        One of :data:`METHODS`.
    fixed_mask, moving_mask
        Brain, of the shape of each image, not empty.
    fixed_ignore, moving_ignore
        Parts without a counterpart; used by the methods ``ncc``, ``ffd`` and ``dirac``.
    weights
        Of DIRAC's network, see :func:`predictgbm.registration.dirac.load_network`; for ``dirac``, which without them
        is instance optimisation alone.
    threads
        Cores. The own methods give the same bits whatever their number; those of others differ in the last digits.
    seed
        For ``syn``; the other methods draw nothing that differs between runs.

    Raises
    ------
    ImageError
        If an image or mask is empty, weights are wrong or not for this method, the tool is not installed, or it fails.
    """
    if weights is not None and method != "dirac":
        raise ImageError(f"{weights}: weights are for method dirac, not for {method}; leave them out")
    kind, deform, _ = METHODS[method]
    pair = Pair(fixed, moving, fixed_mask, moving_mask, fixed_ignore, moving_ignore, weights, threads, seed)
    matrix = _linear(pair, kind)
    forward = compose(fixed, deform(pair, matrix), matrix)
    inverse = np.asarray(np.linalg.inv(matrix), np.float64)
    backward = compose(moving, inverse) if deform is _nothing else invert(forward, moving)
    return Registration(forward, backward, matrix)


def similarity(first: NDArray[np.float32], second: NDArray[np.float32], mask: Mask) -> float:
    """Return the mean squared local correlation of two arrays in a mask, window of 5 voxels, 0 to 1."""
    radius, count = 2, np.float32(125)

    def standard(image: NDArray[np.float32]) -> NDArray[np.float32]:
        values = image[mask]
        scale = max(float(np.std(values)), 1e-6)
        return np.asarray((image - values.mean()) / scale * mask, np.float32)

    a, b = standard(first), standard(second)
    total = kernels.moving_sum(a, radius)
    variance = np.maximum(kernels.moving_sum(a * a, radius) - total * total / count, 0)
    correlation, *_ = kernels.correlation_terms(
        total / count,
        variance,
        kernels.moving_sum(b, radius),
        kernels.moving_sum(b * b, radius),
        kernels.moving_sum(a * b, radius),
        mask.astype(np.float32),
        np.full(mask.shape, count, np.float32),
        np.float32(EMPTY_WINDOW),
    )
    return float(correlation) / (int(mask.sum()) or 1)


def ventricle_dice(
    first: NDArray[Any],
    second: NDArray[Any],
    csf: NDArray[np.floating],
    brain: Mask,
    tumor: Mask,
    spacing: tuple[float, float, float],
) -> float:
    """Return the overlap of the ventricles of two T1c on one grid, each found as the dark side of its own threshold.

    Parameters
    ----------
    first, second : arrays of shape (nx, ny, nz)
        T1c of both exams.
    csf : array of shape (nx, ny, nz), 0 to 1
        Tissue map of one exam: it says where to look, not where the ventricles end.
    brain, tumor : bool arrays of shape (nx, ny, nz)
        Brain, and the tumour of either exam, which takes no part.
    spacing : (float, float, float)
        Voxel size in mm.

    Returns
    -------
    float
        Dice coefficient; NaN if the tissue map has no fluid inside the brain.
    """
    deep = edt.edt(brain, anisotropy=spacing, black_border=True) > VENTRICLE_DEPTH_MM
    expected = cc3d.largest_k(((csf > 0.5) & deep).astype(np.uint8), k=1) > 0
    if not expected.any():
        return float("nan")
    near = brain & ~tumor & (edt.edt(~expected, anisotropy=spacing) <= VENTRICLE_SEARCH_MM)
    if not near.any():
        return float("nan")
    fluid = []
    for image in (first, second):
        values = image[near].astype(np.float32)
        threshold, _, _ = two_levels(values, float(np.percentile(values, [5, 95]).mean()))
        fluid.append(values < threshold)
    return dice(*fluid)


def measure(
    result: Registration,
    fixed: Image,
    moving: Image,
    fixed_mask: Mask,
    moving_mask: Mask,
    warped: NDArray[Any],
    *,
    csf: NDArray[np.floating] | None = None,
    tumor: Mask | None = None,
) -> list[Measure]:
    """Return the measures of a registration, with their limits; by name; the linear similarity is the gate.

    ``csf``, on the fixed grid, adds the overlap of the ventricles, in which ``tumor`` (of either exam, there) takes no
    part.
    """
    ventricles = []
    if csf is not None:
        tumor = np.zeros_like(fixed_mask) if tumor is None else tumor
        ventricles = [
            Measure(
                "ventricle_dice",
                ventricle_dice(fixed.data, warped, csf, fixed_mask, tumor, fixed.spacing),
                "overlap of the ventricles, dark on both T1c",
                least=LEAST_VENTRICLE_DICE,
            )
        ]
    before = resample(moving, fixed, interpolation="linear")
    rest = result.forward.displacement - compose(fixed, result.matrix).displacement
    far = np.linalg.norm(rest[fixed_mask], axis=1) > FAR_MM
    determinant = jacobian(result.forward)[fixed_mask]
    brain = resample(
        Image(moving_mask.astype(np.uint8), moving.affine), fixed, result.forward, interpolation="nearest"
    )
    return [
        Measure("similarity_before", similarity(fixed.data, before, fixed_mask), "local correlation, before"),
        Measure(
            "similarity_after",
            similarity(fixed.data, warped, fixed_mask),
            "local correlation of the two images in the brain, 0 to 1, after registration",
        ),
        Measure(
            "similarity_linear",
            similarity(fixed.data, resample(moving, fixed, result.matrix), fixed_mask),
            "local correlation after the linear map alone; as low as this between different people",
            least=DOUBTFUL_PERSON,
        ),
        Measure(
            "folded_voxels",
            float(np.count_nonzero(determinant <= 0)),
            "brain voxels where the deformation turns space over",
            most=0,
        ),
        Measure(
            "moved_far_share",
            float(far.mean()),
            f"share of the brain moved by more than {FAR_MM:g} mm beyond the affine map",
            most=0.05,
        ),
        Measure("brain_dice", dice(fixed_mask, brain > 0), "overlap of the two brain masks", least=0.9),
        *ventricles,
    ]
