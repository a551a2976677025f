"""Colours of labels, plans and recurrence in pictures, viewer pages and exported plans, 0-255.

They are the palette of Okabe and Ito, and for more than four plans eight more colours, chosen one after the other so
that each is as far as can be from all before, also for who sees no red, green or blue.
"""

from predictgbm.labels import Tumor

LABEL_COLOURS: dict[int, tuple[int, int, int]] = {
    Tumor.NECROSIS: (0, 114, 178),
    Tumor.EDEMA: (0, 158, 115),
    Tumor.ENHANCING: (240, 228, 66),
    Tumor.CAVITY: (153, 153, 153),
}
RECURRENCE_COLOUR = (213, 94, 0)
STANDARD_PLAN_COLOUR = (204, 121, 167)
PLAN_COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (150, 0, 255),
    (195, 255, 135),
    (135, 60, 45),
    (0, 255, 195),
    (165, 120, 255),
    (165, 180, 105),
    (120, 75, 105),
    (90, 60, 195),
)
