"""Colours of labels, plans and recurrence in pictures and viewer pages, 0-255, from the palette of Okabe and Ito."""

from predictgbm.labels import Tumor

LABEL_COLOURS: dict[int, tuple[int, int, int]] = {
    Tumor.NECROSIS: (0, 114, 178),
    Tumor.EDEMA: (0, 158, 115),
    Tumor.ENHANCING: (240, 228, 66),
    Tumor.CAVITY: (153, 153, 153),
}
RECURRENCE_COLOUR = (213, 94, 0)
STANDARD_PLAN_COLOUR = (204, 121, 167)
PLAN_COLOURS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66))
