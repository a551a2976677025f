"""Colours of models, labels and recurrence in the report, pictures, viewer pages and exported plans, 0-255.

The first are of Okabe and Ito's palette; those that follow were chosen by a search so that all are far from each
other, from core, recurrence and standard plan, also for who sees no red, green or blue, and are seen on white and
on black. The faint ones come last.
"""

from __future__ import annotations

from collections.abc import Iterable

from predictgbm.labels import Tumor

Colour = tuple[int, int, int]

LABEL_COLOURS: dict[int, Colour] = {
    Tumor.NECROSIS: (0, 114, 178),
    Tumor.EDEMA: (0, 158, 115),
    Tumor.ENHANCING: (240, 228, 66),
    Tumor.CAVITY: (153, 153, 153),
}
RECURRENCE_COLOUR: Colour = (213, 94, 0)
#: The standard plan on images, where grey would be lost.
STANDARD_PLAN_COLOUR: Colour = (204, 121, 167)
#: The standard plan in figures, where it is what others are compared with.
REFERENCE_COLOUR: Colour = (95, 95, 95)
MODEL_COLOURS: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (150, 0, 250),
    (150, 0, 0),
    (150, 125, 250),
    (150, 175, 100),
    (150, 0, 125),
    (75, 50, 175),
    (250, 200, 100),
    (175, 225, 175),
    (225, 200, 225),
)
#: The model that has no colour of this palette.
STANDARD = "soc"


def model_places(names: Iterable[str]) -> dict[str, int]:
    """Return the place of each model beside the standard plan, by the order in which the run lists them.

    Its remainder by the number of :data:`MODEL_COLOURS` is the place of its colour there.
    """
    others = [name for name in dict.fromkeys(names) if name != STANDARD]
    return {name: place for place, name in enumerate(others)}


def plan_colour(name: str, places: dict[str, int]) -> Colour:
    """Return the colour of a model's plan on images."""
    return STANDARD_PLAN_COLOUR if name == STANDARD else MODEL_COLOURS[places[name] % len(MODEL_COLOURS)]


def hexadecimal(colour: Colour) -> str:
    """Return a colour as a page writes it, ``#RRGGBB``."""
    return "#{:02X}{:02X}{:02X}".format(*colour)
