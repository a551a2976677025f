"""Colours of plans are told apart, also by who sees no red, green or blue."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from predictgbm.labels import Tumor
from predictgbm.report.colours import (
    LABEL_COLOURS,
    MODEL_COLOURS,
    RECURRENCE_COLOUR,
    REFERENCE_COLOUR,
    STANDARD_PLAN_COLOUR,
    hexadecimal,
    model_places,
    plan_colour,
)
from predictgbm.report.results import Results, read_models

#: What is seen of linear red, green and blue, severity 1 of Machado et al. 2009, doi:10.1109/TVCG.2009.113.
VISIONS = {
    "all cones": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(colour: tuple[int, int, int], vision: str) -> NDArray[np.float64]:
    """Return CIELAB of an sRGB colour (D65) as a vision has it."""
    part = np.array(colour) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    red, green, blue = np.clip(VISIONS[vision] @ linear, 0, 1)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.0891
    fx, fy, fz = (np.cbrt(v) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("vision", VISIONS)
def test_twelve_plans_core_standard_plan_and_recurrence_differ(vision: str) -> None:
    assert len(MODEL_COLOURS) == 12
    others = (LABEL_COLOURS[Tumor.NECROSIS], STANDARD_PLAN_COLOUR, RECURRENCE_COLOUR, REFERENCE_COLOUR)
    colours = [seen(colour, vision) for colour in (*MODEL_COLOURS, *others)]
    # 2.3 is a just noticeable difference.
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 15


def test_a_model_has_one_colour_in_report_viewer_and_export(tmp_path: Path) -> None:
    listed = [*(f"m{i}" for i in range(6)), "soc", *(f"m{i}" for i in range(6, 12))]
    path = tmp_path / "models" / "models.yml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"models": [{"name": name} for name in listed]}))
    styles = Results(tmp_path).styles
    # A page of a patient who has only some of the models.
    places = model_places([*read_models([path]), "m9", "m2", "soc"])
    for name in ("m9", "m2", "m11"):
        assert styles[name].color == hexadecimal(plan_colour(name, places))
    assert len({style.color for style in styles.values()}) == 13
    assert {style.dash for name, style in styles.items() if name != "soc"} == {"solid"}
