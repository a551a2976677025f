"""The head around a brain: fluid, skull, scalp, face and neck, made from distances to the brain.

A caricature: proportions of an adult head, surfaces that follow this brain, no anatomy beyond what brain
extraction and registration meet.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.masks import bounding_box
from predictgbm.simulation.fields import Grid, Volume, random_field, sample_vectors

#: Grid of the distances, in mm, whatever the spacing of the exam, and how far it reaches beyond the brain.
GRID_MM = 3.0
REACH_MM = 63.0
#: The skull spans clefts of the brain narrower than twice this, in mm.
CLOSING_MM = 14.0


class Part(IntEnum):
    """What a head is made of outside the brain."""

    AIR = 0
    CSF = 1
    BONE = 2
    MARROW = 3
    MUSCLE = 4
    FAT = 5
    SKIN = 6
    MUCOSA = 7
    EYE = 8
    CORD = 9


#: Contrast -> intensity of each part in the order of :class:`Part`, white matter 1 (ADC: 1e-3 mm²/s). Typical
#: ratios at 1.5-3 T, chosen by eye against clinical exams.
INTENSITIES = {
    "t1": (0.0, 0.28, 0.10, 0.85, 0.60, 1.55, 0.75, 0.60, 0.30, 0.85),
    "t1c": (0.0, 0.30, 0.10, 0.95, 0.68, 1.60, 0.95, 1.45, 0.32, 0.85),
    "t2": (0.0, 3.20, 0.15, 1.00, 0.55, 1.60, 1.00, 2.20, 3.30, 1.00),
    "flair": (0.0, 0.30, 0.12, 0.80, 0.65, 1.30, 0.90, 1.60, 0.35, 1.00),
    "adc": (0.0, 3.00, 0.20, 0.40, 1.30, 0.30, 1.00, 1.70, 2.90, 0.85),
}


Cut = tuple[slice, slice, slice]
EVERYWHERE: Cut = (slice(None), slice(None), slice(None))

#: Ellipsoids of the face, on both sides where off the midline: what fills them, centre in fractions of the half
#: brain from its middle, radii in mm, what lines them, thickness of the lining in mm.
CAVITIES: tuple[tuple[Part, tuple[float, float, float], tuple[float, float, float], Part, float], ...] = (
    (Part.MARROW, (0.0, 0.55, -1.25), (40, 40, 13), Part.BONE, 2.0),  # jaws
    (Part.EYE, (0.48, 0.74, -0.62), (12, 12, 12), Part.FAT, 7.0),
    (Part.AIR, (0.42, 0.66, -1.10), (12, 14, 15), Part.MUCOSA, 2.0),  # maxillary sinus
    (Part.AIR, (0.0, 0.82, -1.00), (8, 26, 18), Part.MUCOSA, 3.0),  # nasal cavity
    (Part.AIR, (0.0, 0.30, -0.74), (11, 10, 9), Part.MUCOSA, 2.0),  # sphenoid sinus
    (Part.AIR, (0.0, 0.28, -1.55), (9, 7, 42), Part.MUCOSA, 2.0),  # pharynx
)


class Head:
    """The head of one patient, in the space of its brain at rest.

    Parameters
    ----------
    rng
        Source of the thickness of its layers.
    brain
        Mask of the brain.
    grid
        Grid of the mask; the brain should stay clear of its edge by :data:`REACH_MM`.
    """

    def __init__(self, rng: np.random.Generator, brain: NDArray[np.bool_], grid: Grid) -> None:
        self.grid = grid

        def distance(mask: NDArray[np.bool_]) -> Volume:
            return ndimage.distance_transform_edt(mask, sampling=grid.spacing).astype(np.float32)

        outside = distance(~brain)
        wide = outside <= CLOSING_MM
        # Signed distance to the closed brain: inwards from its dilation, and outwards.
        closed = np.float32(CLOSING_MM) - distance(wide) + distance(~wide)
        fluid, skull, scalp = (
            np.clip(mean + spread * random_field(rng, grid, 24.0), low, high)
            for mean, spread, low, high in (
                (2.2, 0.6, 1.0, 4.0),
                (6.5, 1.2, 4.0, 10.0),
                (6.5, 1.4, 4.0, 11.0),
            )
        )
        marbling = random_field(rng, grid, 4.0)
        smooth = ndimage.gaussian_filter(closed, 1.0)
        self.fields = np.stack([outside, smooth, fluid, skull, scalp, marbling]).astype(np.float32)

        box = bounding_box(brain)
        low = np.array([o + grid.spacing * s.start for o, s in zip(grid.origin, box, strict=True)])
        high = np.array([o + grid.spacing * (s.stop - 1) for o, s in zip(grid.origin, box, strict=True)])
        self.middle, self.half = (low + high) / 2, (high - low) / 2
        # The spinal cord leaves where the brain reaches lowest.
        points = grid.points()
        bottom = brain & (points[2] < low[2] + 9)
        self.foramen = points[:, bottom].mean(axis=1)
        self.bottom = float(low[2])

    def parts(self, grid: Grid) -> NDArray[np.uint8]:
        """Return the :class:`Part` in each voxel of a grid; fluid where the brain is."""
        fields = sample_vectors(self.fields, self.grid, grid.points())
        outside, closed, fluid, skull, scalp, marbling = fields
        x, y, z = np.ogrid[tuple(slice(n) for n in grid.shape)]
        x, y, z = (
            (o + grid.spacing * i).astype(np.float32) for o, i in zip(grid.origin, (x, y, z), strict=True)
        )
        half = self.half

        def ball(
            centre: tuple[float, float, float], radii: tuple[float, float, float], cut: Cut = EVERYWHERE
        ) -> Volume:
            """Distance, near its surface, to an ellipsoid with its centre at fractions of the half brain."""
            cx, cy, cz = (self.middle + half * centre).astype(np.float32)
            rx, ry, rz = radii
            scaled = ((x[cut[0]] - cx) / rx) ** 2 + ((y[:, cut[1]] - cy) / ry) ** 2
            scaled = scaled + ((z[:, :, cut[2]] - cz) / rz) ** 2
            return np.asarray((np.sqrt(scaled) - 1) * min(radii), np.float32)

        # Outer surface: cranium, face, nose and neck, joined smoothly; negative inside.
        drop = np.maximum(self.bottom + 12 - z, 0)
        across = x - np.float32(self.foramen[0])
        # The cord runs down and slightly back from the brain stem.
        along = y - np.float32(self.foramen[1]) + np.float32(0.12) * drop
        surface = closed - (fluid + skull + scalp)
        surface = _join(surface, ball((0, 0.42, -0.95), (63, 62, 78)), 20)
        neck = (np.hypot(across / np.float32(58), (along - 8) / np.float32(66)) - 1) * np.float32(58)
        neck = np.maximum(neck, z - np.float32(self.middle[2] - 0.55 * half[2]))
        surface = _join(surface, neck, 16)
        surface = _join(surface, ball((0, 1.16, -1.05), (13, 22, 26)), 8)

        parts = np.full(grid.shape, Part.MUSCLE, np.uint8)
        parts[marbling > 0.9] = Part.FAT
        canal = np.hypot(across, along)
        below = z < self.bottom + 4
        spine = np.hypot(across, along - 10) - 24
        parts[below & (spine < 0)] = Part.MARROW
        parts[below & (np.abs(spine) < 1.5)] = Part.BONE

        shell = closed - fluid
        parts[(surface > -scalp) & (shell > skull)] = Part.FAT
        parts[surface > -2] = Part.SKIN
        parts[shell < skull] = Part.MARROW
        parts[(shell < 1.8) | ((shell < skull) & (shell > skull - 1.8))] = Part.BONE
        parts[(shell < 0) & (outside > 6)] = Part.MARROW
        parts[(shell < 0) & (outside <= 6)] = Part.CSF

        for part, centre, radii, wall, rim in CAVITIES:
            for side in (-1, 1) if centre[0] else (1,):
                middle = self.middle + half * centre * (side, 1, 1)
                cut = _box(grid, middle, max(radii) + rim)
                distance = ball((side * centre[0], centre[1], centre[2]), radii, cut)
                clear = closed[cut] > fluid[cut] + 2
                parts[cut][clear & (distance < rim)] = wall
                parts[cut][clear & (distance < 0)] = part
        parts[(canal < 10) & below] = Part.CSF
        parts[(canal < 6) & below & (outside > 0)] = Part.CORD
        parts[surface > 0] = Part.AIR
        parts[outside < 1.5] = Part.CSF
        return parts


def _box(grid: Grid, centre: NDArray[np.float64], reach: float) -> Cut:
    """Return the slices of a grid that hold a cube of half edge ``reach`` mm."""
    low = np.floor((centre - reach - grid.origin) / grid.spacing).astype(int).clip(0, None)
    high = np.ceil((centre + reach - grid.origin) / grid.spacing).astype(int).clip(0, None) + 1
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return x, y, z


def head_grid(grid: Grid, brain: NDArray[np.bool_]) -> Grid:
    """Return the grid for a head around a brain that is given on a grid of any spacing."""
    near, _ = grid.box(brain, 0.0)
    origin = [o - REACH_MM for o in near.origin]
    shape = [int(np.ceil((n * grid.spacing + 2 * REACH_MM) / GRID_MM)) + 1 for n in near.shape]
    return Grid((shape[0], shape[1], shape[2]), GRID_MM, (origin[0], origin[1], origin[2]))


def _join(a: Volume, b: Volume, width: float) -> Volume:
    """Return the smooth minimum of two distances, in mm: their union with the crease filled over ``width``."""
    blend = np.maximum(np.float32(width) - np.abs(a - b), 0) / np.float32(width)
    return np.asarray(np.minimum(a, b) - blend**2 * np.float32(width / 4), np.float32)
