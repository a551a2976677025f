"""What a step measured of its own result, and the limits beyond which a patient is flagged."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Step as its pictures name it (``sub-X_ses-Y_desc-<step>_qc.png``) -> title, and what to look for.
STAGES = {
    "conversion": (
        "Conversion",
        "The middle slices of every contrast: each should show the contrast its name says, upright, of "
        "the same head.",
    ),
    "brain": (
        "Brain extraction",
        "The outline should follow the brain's surface: no scalp or eyes inside, no brain outside, "
        "above all near the tumour.",
    ),
    "alignment": (
        "Alignment to the atlas",
        "Ventricles and the brain's edge should run on from square to square, and both sides of the "
        "head be where they belong.",
    ),
    "tumor": (
        "Tumour segmentation",
        "Outlines should sit on the lesion: none in ventricles, vessels or on the brain's rim, and no "
        "part of the lesion left out.",
    ),
    "tissue": (
        "Tissue segmentation",
        "White and grey matter should follow the cortex and the deep nuclei; within the tumour they are "
        "the atlas's.",
    ),
    "registration": (
        "Follow-up to pre-operative exam",
        "Edges should run on from square to square, above all around the resection cavity; labels "
        "should sit on the recurrence.",
    ),
}


#: What the method of a segmentation says if nothing may be concluded from it.
TRIAL = "trial quality"


@dataclass(frozen=True)
class Measure:
    """One number about the quality of a result.

    Attributes
    ----------
    name : str
        Snake case, with the unit where there is one: ``brain_volume_ml``, ``similarity_after``.
    value : float
        NaN where it could not be measured, which flags the patient if there is a limit.
    text : str
        What the number is, in one short sentence for the report.
    least, most : float or None
        Smallest and largest value that is not flagged; None for no limit.
    """

    name: str
    value: float
    text: str
    least: float | None = None
    most: float | None = None

    @property
    def flagged(self) -> bool:
        """Whether the value lies outside its limits."""
        if self.least is None and self.most is None:
            return False
        if math.isnan(self.value):
            return True
        return (self.least is not None and self.value < self.least) or (
            self.most is not None and self.value > self.most
        )

    @property
    def expected(self) -> str:
        """The limits in words, empty if there are none."""
        bounds = []
        if self.least is not None:
            bounds.append(f"at least {self.least:g}")
        if self.most is not None:
            bounds.append(f"at most {self.most:g}")
        return ", ".join(bounds)


def write_quality(
    path: str | os.PathLike[str],
    meta: Mapping[str, Any],
    stage: str,
    measures: Iterable[Measure],
    *,
    method: str = "",
    note: str = "",
) -> None:
    """Write the measures of one step on one exam as JSON.

    Parameters
    ----------
    path
        File to write.
    meta
        Identity of the exam; ``patient`` and ``session`` are taken from it.
    stage
        Key of :data:`STAGES`.
    measures
        What was measured.
    method
        By what it was done, where there is a choice; the methods section of the report says so.
    note
        What a reader has to know of this result, for example that a segmentation is of trial quality.
    """
    assert stage in STAGES, stage
    record = {
        "patient": meta.get("patient", ""),
        "session": meta.get("session", ""),
        "stage": stage,
        "method": method,
        "note": note,
        "measures": [
            {
                "name": m.name,
                "value": None if math.isnan(m.value) else float(m.value),
                "text": m.text,
                "expected": m.expected,
                "flagged": bool(m.flagged),
            }
            for m in measures
        ],
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def quality_rows(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per measure of the records of :func:`write_quality`, as table ``quality`` has them."""
    return [
        {
            "patient": record["patient"],
            "session": record["session"],
            "stage": record["stage"],
            "method": record["method"],
            "measure": measure["name"],
            "value": measure["value"],
            "expected": measure["expected"],
            "flagged": measure["flagged"],
            "meaning": measure["text"],
            "note": record["note"],
        }
        for record in records
        for measure in record["measures"]
    ]
