"""The exams of a simulated patient as scanners deliver them: heads with skull, each contrast on a grid of its own.

Spaces, all in RAS mm: the atlas, in which the head rests; the scanner during the contrast-enhanced T1 (T1c); and
the scanner during each other contrast, between which the head moves a little. ``a_from_b`` is the matrix that
takes points of b to a.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.images import Image
from predictgbm.simulation.appearance import CONTRASTS, add_noise, signal_of
from predictgbm.simulation.fields import (
    Grid,
    Vectors,
    Volume,
    random_field,
    rigid_matrix,
    sample,
    transform,
)
from predictgbm.simulation.head import INTENSITIES, Head, head_grid
from predictgbm.simulation.patient import (
    SCALE,
    SNR,
    Life,
    SimulatedExam,
    SimulatedPatient,
    Simulator,
    live,
    photograph,
    random_stream,
    remove_specks,
    scene_of,
)

Matrix = NDArray[np.float64]
Margins = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

#: Space around the brain, in mm before and after it along right, anterior and superior: field of view of a
#: volume and of a stack of slices, and what is computed so that a tilted field of view finds a head everywhere.
VOLUME_VIEW: Margins = ((26, 26), (28, 44), (50, 28))
STACK_VIEW: Margins = ((26, 26), (28, 44), (10, 14))
COMPUTED: Margins = ((36, 36), (38, 52), (74, 38))
HEAD: Margins = ((42, 42), (46, 60), (98, 44))


@dataclass(frozen=True)
class Protocol:
    """How a contrast is acquired.

    Attributes
    ----------
    description : name of the series at the scanner
    kind : "3D" for a volume, "2D" for a stack of slices
    plane : orientation of slices
    in_plane, thickness, gap : voxel edge in the slice, extent through it, and space between slices, in mm
    echo, repetition, inversion : times in ms, 0 where there is none
    flip : flip angle in degrees
    sequence : DICOM's Scanning Sequence
    """

    description: str
    kind: Literal["3D", "2D"]
    plane: Literal["axial", "sagittal"]
    in_plane: float
    thickness: float
    gap: float
    echo: float
    repetition: float
    inversion: float = 0.0
    flip: float = 90.0
    sequence: str = "SE"

    @property
    def size(self) -> NDArray[np.float64]:
        """Distance of voxels along right, anterior and superior, in mm."""
        return self.extent + self.gap * self.across

    @property
    def extent(self) -> NDArray[np.float64]:
        """Extent of a voxel along right, anterior and superior, in mm, without the gap between slices."""
        return np.where(self.across, self.thickness, self.in_plane)

    @property
    def across(self) -> NDArray[np.bool_]:
        """Which of right, anterior and superior runs through the slices."""
        return np.arange(3) == (0 if self.plane == "sagittal" else 2)


#: What clinical protocols ask for; one is drawn for each contrast of an exam.
PROTOCOLS: dict[str, tuple[Protocol, ...]] = {
    "t1": (
        Protocol("t1_mprage_sag", "3D", "sagittal", 1.0, 1.0, 0.0, 2.9, 2300, 900, 9, "GR\\IR"),
        Protocol("t1_mprage_sag", "3D", "sagittal", 1.0, 1.2, 0.0, 2.9, 2300, 900, 9, "GR\\IR"),
        Protocol("t1_se_tra", "2D", "axial", 0.9, 5.0, 0.5, 9.0, 500),
    ),
    "t1c": (
        Protocol("t1_mprage_sag_KM", "3D", "sagittal", 1.0, 1.0, 0.0, 2.9, 2300, 900, 9, "GR\\IR"),
        Protocol("t1_mprage_tra_KM", "3D", "axial", 1.0, 1.0, 0.0, 2.9, 2300, 900, 9, "GR\\IR"),
    ),
    "t2": (
        Protocol("t2_tse_tra", "2D", "axial", 0.5, 5.0, 0.5, 95, 5500, 0, 150),
        Protocol("t2_tse_tra", "2D", "axial", 0.5, 3.0, 0.0, 95, 5500, 0, 150),
        Protocol("t2_space_sag", "3D", "sagittal", 1.0, 1.0, 0.0, 408, 3200, 0, 120),
    ),
    "flair": (
        Protocol("flair_tra", "2D", "axial", 0.4, 6.0, 0.0, 110, 9000, 2500, 150, "SE\\IR"),
        Protocol("flair_tra", "2D", "axial", 0.9, 3.0, 0.0, 110, 9000, 2500, 150, "SE\\IR"),
        Protocol("flair_space_sag", "3D", "sagittal", 1.0, 1.0, 0.0, 388, 5000, 1800, 120, "SE\\IR"),
    ),
    "adc": (
        Protocol("ep2d_diff_ADC", "2D", "axial", 1.8, 5.0, 0.5, 85, 4500, sequence="EP"),
        Protocol("ep2d_diff_ADC", "2D", "axial", 1.2, 4.0, 0.0, 85, 4500, sequence="EP"),
    ),
}

#: Voxel orders that converters leave behind.
ORDERS = {"axial": ("LPS", "LAS", "RAS"), "sagittal": ("PIL", "PSR", "ASL")}


@dataclass(frozen=True)
class RawExam:
    """One exam as it comes from the scanner, and what is true of it.

    Attributes
    ----------
    images : contrast -> int16 image in its own space and on its own grid; ADC in 1e-6 mm²/s
    protocols : contrast -> how it was acquired, as far as the spacing of the simulation allows
    localizer : three single slices, sagittal, coronal and axial
    truth : brain mask, labels and tissue on the grid of the T1c; no images
    t1c_from_atlas : rigid matrix; in the follow-up tissue has moved besides
    from_t1c : contrast -> rigid matrix from the T1c to it
    parameters : what was drawn, JSON values
    """

    images: dict[str, Image]
    protocols: dict[str, Protocol]
    localizer: list[Image]
    truth: SimulatedExam
    t1c_from_atlas: Matrix
    from_t1c: dict[str, Matrix]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class RawPatient:
    """Both raw exams, and the same patient as :meth:`Simulator.patient` makes it."""

    preop: RawExam
    followup: RawExam
    patient: SimulatedPatient


def simulate_raw(simulator: Simulator, seed: int, number: int, adc: bool = False) -> RawPatient:
    """Simulate one patient with skull, in native space; depends on what :meth:`Simulator.patient` depends on.

    The head lies turned by up to 8 degrees about each axis and up to 12 mm from the scanner's centre, in the
    follow-up as in the brain-extracted one.

    Parameters
    ----------
    simulator
        Its spacing is the resolution at which the anatomy is computed; see :func:`feasible`.
    seed, number, adc
        As :meth:`Simulator.patient` takes them.
    """
    life = live(simulator, seed, number)
    patient = photograph(simulator, life, seed, number, adc)
    index = np.argwhere(patient.preop.brain_mask).mean(axis=0)
    centre = patient.preop.affine[:3, :3] @ index + patient.preop.affine[:3, 3]
    to_scanner = np.eye(4)
    to_scanner[:3, 3] = -centre
    rng = random_stream(seed, number, 7)
    pose = rigid_matrix(np.deg2rad(rng.uniform(-8, 8, 3)), rng.uniform(-12, 12, 3), centre)

    anatomy = life.anatomy
    grid = head_grid(simulator.coarse, simulator.small.brain_mask)
    rest = anatomy.positions(grid.points())
    brain = sample(anatomy.fraction, anatomy.atlas_grid, rest) >= 0.5
    surroundings = _Surroundings(Head(rng, brain, grid), grid.points()[:, brain], simulator.spacing, adc)
    exams = [
        _scan_exam(rng, life, surroundings, to_scanner @ motion, followup)
        for rng, motion, followup in (
            (random_stream(seed, number, 8), pose, False),
            (random_stream(seed, number, 9), patient.motion, True),
        )
    ]
    return RawPatient(exams[0], exams[1], patient)


def feasible(protocol: Protocol, spacing: float) -> Protocol:
    """Return a protocol no finer than the anatomy: half its spacing in the slice, its spacing through it."""
    return replace(
        protocol,
        in_plane=max(protocol.in_plane, spacing / 2),
        thickness=max(protocol.thickness, spacing),
    )


class _Surroundings:
    """Head of a patient at rest, each contrast as a volume; the same in both exams."""

    def __init__(self, head: Head, brain_points: Vectors, spacing: float, adc: bool) -> None:
        self.spacing, self.brain_points = spacing, brain_points
        affine, shape = lattice(brain_points, np.eye(3), np.full(3, spacing), HEAD)
        x, y, z = affine[:3, 3].tolist()
        self.grid = Grid(shape, spacing, (x, y, z))
        parts = head.parts(self.grid)
        self.signals = {
            # Half a voxel of blur in place of partial volumes.
            name: ndimage.gaussian_filter(
                np.array(INTENSITIES[name], np.float32)[parts], 0.5, mode="nearest", truncate=3
            )
            for name in CONTRASTS
            if adc or name != "adc"
        }


def lattice(
    points: Vectors, axes: Matrix, size: NDArray[np.float64], margins: Margins
) -> tuple[Matrix, tuple[int, int, int]]:
    """Return affine and shape of a grid that covers points and a margin around them.

    Parameters
    ----------
    points
        Array of shape (3, n), RAS mm.
    axes
        Directions of the voxel axes, in columns; a rotation.
    size
        Voxel size along each of them, in mm.
    margins
        Space before and after the points along each of them, in mm.
    """
    inside = np.einsum("ji,jn->in", axes, points.astype(np.float64))
    before, after = np.array(margins).T
    low, high = inside.min(axis=1) - before, inside.max(axis=1) + after
    x, y, z = np.ceil((high - low) / size).astype(int).tolist()
    affine = np.eye(4)
    affine[:3, :3] = axes * size
    affine[:3, 3] = axes @ (low + size / 2)
    return affine, (x, y, z)


def reorder(data: NDArray[Any], affine: Matrix, codes: str, now: str = "RAS") -> tuple[NDArray[Any], Matrix]:
    """Permute and flip the axes of an image from voxel order ``now`` to ``codes``."""
    orientation = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(now), nib.orientations.axcodes2ornt(codes)
    )
    turned = nib.orientations.apply_orientation(data, orientation)
    return np.ascontiguousarray(turned), affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)


def _positions(matrix: Matrix, shape: tuple[int, int, int], offset: NDArray[np.float64]) -> Vectors:
    """Return where a matrix takes the voxels of a grid, index plus ``offset``; shape (3, *shape)."""
    linear = matrix[:3, :3].astype(np.float32)
    start = (matrix[:3, :3] @ offset + matrix[:3, 3]).astype(np.float32)
    i, j, k = np.ogrid[tuple(slice(n) for n in shape)]
    i, j, k = (a.astype(np.float32) for a in (i, j, k))
    return np.stack([(linear[a, 0] * i + start[a]) + linear[a, 1] * j + linear[a, 2] * k for a in range(3)])


def average(
    signal: Volume,
    matrix: Matrix,
    shape: tuple[int, int, int],
    extent: NDArray[np.float64],
    steps: NDArray[np.int_],
) -> Volume:
    """Average a signal over the voxels of another grid.

    Parameters
    ----------
    signal
        Array of shape (nx, ny, nz).
    matrix
        Index of the other grid -> index of the signal.
    shape
        Number of voxels of the other grid.
    extent
        Extent of a voxel along each axis of the other grid, 1 where voxels touch, less where gaps lie between.
    steps
        Number of samples across that extent along each axis.
    """
    grid = Grid((signal.shape[0], signal.shape[1], signal.shape[2]), 1.0, (0.0, 0.0, 0.0))
    offsets = [((np.arange(n) + 0.5) / n - 0.5) * e for n, e in zip(steps, extent, strict=True)]
    total = np.zeros(shape, np.float32)
    for offset in product(*offsets):
        total += sample(signal, grid, _positions(matrix, shape, np.array(offset)))
    return total / np.float32(np.prod(steps))


def _acquire(
    rng: np.random.Generator, signal: Volume, affine: Matrix, snr: float, quantitative: bool
) -> NDArray[np.int16]:
    """Make an image of a signal: bias field, scale of the scanner, Rician noise; maps of ADC have none in air."""
    scale = float(rng.uniform(*SCALE))
    size = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    extent = [int(np.ceil(n * s / 8)) + 1 for n, s in zip(signal.shape, size, strict=True)]
    coarse = Grid((extent[0], extent[1], extent[2]), 8.0, (0.0, 0.0, 0.0))
    field = random_field(rng, coarse, 45.0)
    if quantitative:
        image = np.where(signal > 0.05, 1000 * add_noise(signal, rng, snr), 0)
    else:
        x, y, z = signal.shape
        at = _positions(np.diag([*size, 1.0]), (x, y, z), np.zeros(3))
        bias = np.exp(np.float32(0.12) * sample(field, coarse, at, edge=True))
        image = scale * add_noise(signal * bias, rng, snr)
    return np.clip(np.rint(image), 0, 32767).astype(np.int16)


def _tilt(rng: np.random.Generator, plane: str) -> NDArray[np.float64]:
    """Draw the tilt of slices: none for two in five, else mostly about the left-right axis; degrees."""
    oblique = rng.random() < 0.6
    most = np.array([15.0, 3.0, 3.0] if plane == "axial" else [8.0, 3.0, 3.0])
    return rng.uniform(-most, most) * oblique


def _rotation(degrees: NDArray[np.float64]) -> Matrix:
    return rigid_matrix(np.deg2rad(degrees), np.zeros(3), np.zeros(3))[:3, :3]


def _scan_exam(
    rng: np.random.Generator, life: Life, around: _Surroundings, t1c_from_atlas: Matrix, followup: bool
) -> RawExam:
    """Scan a head: anatomy on the grid of the T1c, from which each contrast is seen on its own."""
    spacing = around.spacing
    snr = float(rng.uniform(*SNR))
    *streams, other = rng.spawn(len(CONTRASTS) + 1)
    protocols, orders, tilts, moves = {}, {}, {}, {}
    for name, stream in zip(CONTRASTS, streams, strict=True):
        if name not in around.signals:
            continue
        choices = PROTOCOLS[name]
        protocol = choices[int(stream.integers(len(choices)))]
        protocols[name] = feasible(protocol, spacing)
        tilts[name] = _tilt(stream, protocol.plane)
        orders[name] = ORDERS[protocol.plane][int(stream.integers(3))]
        motion = rigid_matrix(
            np.deg2rad(stream.uniform(-1.2, 1.2, 3)), stream.uniform(-1.2, 1.2, 3), np.zeros(3)
        )
        moves[name] = np.eye(4) if name == "t1c" else motion
    # The anatomy is computed on the grid of the T1c, which therefore has voxels of that size.
    protocols["t1c"] = replace(protocols["t1c"], in_plane=spacing, thickness=spacing)

    brain_points = transform(t1c_from_atlas, around.brain_points)
    axes = _rotation(tilts["t1c"])
    affine, shape = lattice(brain_points, axes, np.full(3, spacing), COMPUTED)
    atlas_from_index = np.linalg.inv(t1c_from_atlas) @ affine
    head_from_index = np.linalg.inv(around.grid.affine) @ atlas_from_index

    index_from_t1c: Matrix = np.linalg.inv(affine).astype(np.float64)

    # Brain and tumour, within the box of the brain.
    inside = transform(index_from_t1c, brain_points)
    low = np.floor(inside.min(axis=1)).astype(int) - int(np.ceil(8 / spacing))
    high = np.ceil(inside.max(axis=1)).astype(int) + int(np.ceil(8 / spacing)) + 1
    x, y, z = (slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, shape, strict=True))
    box = Grid((x.stop - x.start, y.stop - y.start, z.stop - z.start), spacing, (0.0, 0.0, 0.0))
    first = np.array([x.start, y.start, z.start], np.float64)
    view = life.see(_positions(atlas_from_index, box.shape, first), followup)
    scene = scene_of(rng, view, box)

    at = _positions(head_from_index, shape, np.zeros(3))
    unit = Grid(around.grid.shape, 1.0, (0.0, 0.0, 0.0))
    images = {}
    localizer: list[Image] = []
    for name, stream in zip(CONTRASTS, streams, strict=True):
        if name not in around.signals:
            continue
        signal = sample(around.signals[name], unit, at)
        signal[x, y, z] = np.where(view.brain, signal_of(scene, CONTRASTS[name]), signal[x, y, z])
        protocol = protocols[name]
        if name == "t1c":
            crop = _crop(shape, spacing)
            data, grid = signal[crop], affine.copy()
            grid[:3, 3] = affine[:3, :3] @ [s.start for s in crop] + affine[:3, 3]
        else:
            grid, size = lattice(
                transform(moves[name], brain_points),
                _rotation(tilts[name]),
                protocol.size,
                VOLUME_VIEW if protocol.kind == "3D" else STACK_VIEW,
            )
            # A voxel a little larger than the spacing needs no more than one sample.
            steps = np.maximum(np.ceil(protocol.extent / spacing - 0.25).astype(int), 1)
            matrix = index_from_t1c @ np.linalg.inv(moves[name]) @ grid
            data = average(signal, matrix, size, protocol.extent / protocol.size, steps)
        image = _acquire(stream, data, grid, snr, CONTRASTS[name].quantitative)
        images[name] = Image(*reorder(image, grid, orders[name]), name)
        if name == "t1":
            localizer = _localize(other, signal, index_from_t1c, brain_points, spacing, snr)

    crop = _crop(shape, spacing)

    def on_t1c(array: NDArray[Any]) -> NDArray[Any]:
        result = np.zeros(shape, array.dtype)
        result[x, y, z] = array
        return reorder(result[crop], affine, orders["t1c"])[0]

    truth = SimulatedExam(
        images["t1c"].affine,
        {},
        on_t1c(view.brain),
        on_t1c(remove_specks(view.labels, 0.05, box.voxel_ml)),
        {"wm": on_t1c(view.wm), "gm": on_t1c(view.gm), "csf": on_t1c(view.csf)},
    )
    parameters = {
        "snr": snr,
        "contrasts": {
            name: {
                "series": protocol.description,
                "plane": protocol.plane,
                "voxel_order": orders[name],
                "voxel_mm": [round(v, 4) for v in images[name].spacing],
                "slice_thickness_mm": protocol.thickness,
                "tilt_degrees": tilts[name].round(3).tolist(),
            }
            for name, protocol in protocols.items()
        },
    }
    return RawExam(images, protocols, localizer, truth, t1c_from_atlas, moves, parameters)


def _crop(shape: tuple[int, int, int], spacing: float) -> tuple[slice, slice, slice]:
    """Return the slices that cut the field of view of a volume out of the computed grid."""
    x, y, z = (
        slice(int((computed[0] - seen[0]) / spacing), n - int((computed[1] - seen[1]) / spacing))
        for n, computed, seen in zip(shape, COMPUTED, VOLUME_VIEW, strict=True)
    )
    return x, y, z


def _localize(
    rng: np.random.Generator,
    signal: Volume,
    index_from_t1c: Matrix,
    brain_points: Vectors,
    spacing: float,
    snr: float,
) -> list[Image]:
    """Take a sagittal, a coronal and an axial slice of 8 mm through the middle of the brain."""
    slices = []
    middle = brain_points.mean(axis=1)
    for axis, codes in enumerate(("PIL", "LIP", "LPS")):
        size = np.full(3, max(1.5, spacing))
        size[axis] = 8.0
        affine, shape = lattice(brain_points, np.eye(3), size, VOLUME_VIEW)
        affine[axis, 3] = middle[axis]
        count = [1 if a == axis else n for a, n in enumerate(shape)]
        steps = np.maximum(np.rint(size / spacing).astype(int), 1)
        data = average(signal, index_from_t1c @ affine, (count[0], count[1], count[2]), np.ones(3), steps)
        slices.append(Image(*reorder(_acquire(rng, data, affine, snr, False), affine, codes), "localizer"))
    return slices
