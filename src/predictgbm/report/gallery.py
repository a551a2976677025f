"""QC pictures made small enough to travel inside a report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

#: The pictures of a report stay below these many bytes: one of each patient, those of the steps from raw exams to
#: labels together, and those of what plans missed. The rest of 15 MB is for MultiQC, tables and figures.
PATIENT_BYTES, STEP_BYTES, MISSED_BYTES = 4_500_000, 2_000_000, 2_500_000
WIDTHS = (1400, 1100, 900, 700, 550, 420, 320)
QUALITY = 82


def encode(path: Path, width: int) -> bytes:
    """Return a picture as WebP, scaled down to ``width`` pixels where it is wider."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        if small.width > width:
            small = small.resize(
                (width, max(1, round(small.height * width / small.width))), Image.Resampling.LANCZOS
            )
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=QUALITY, method=3)
        return buffer.getvalue()


def fitting_width(paths: Sequence[Path], budget: int = PATIENT_BYTES) -> int:
    """Return the largest of :data:`WIDTHS` at which the pictures fit the budget, judged by a few of them."""
    step = max(1, len(paths) // 4)
    sample = list(paths)[::step][:4]
    for width in WIDTHS:
        size = sum(len(encode(path, width)) for path in sample) / len(sample)
        # Base64 makes three bytes four.
        if size * len(paths) * 4 / 3 <= 0.9 * budget:
            return width
    return WIDTHS[-1]


def embed(paths: Sequence[Path], budget: int = PATIENT_BYTES) -> list[str | None]:
    """Return each picture as a data URI; None for the unreadable and for what the budget cannot hold."""
    if not paths:
        return []
    readable = [path for path in paths if _is_picture(path)]
    width = fitting_width(readable, budget) if readable else 0
    uris: list[str | None] = []
    spent = 0
    for path in paths:
        data = encode(path, width) if path in readable else b""
        spent += len(data) * 4 // 3
        fits = bool(data) and spent <= budget
        uris.append(f"data:image/webp;base64,{base64.b64encode(data).decode()}" if fits else None)
    return uris


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.verify()
    except (OSError, SyntaxError):
        return False
    return True


def anchor(patient: str) -> str:
    """Return the name by which a patient's picture is found in the page."""
    return f"gbm-picture-{patient}"


def image(uri: str, label: str) -> str:
    """Return an embedded picture, which the browser decodes when it comes into sight; the label is escaped already."""
    return f'<img src="{uri}" alt="{label}" loading="lazy" decoding="async">'


def card(label: str, uri: str | None, text: str = "", name: str = "") -> str:
    """Return one picture of a gallery with its label; label, name and the HTML that follows are escaped already."""
    shown = '<p class="gbm-note">Left out to keep this page small; see the published files.</p>'
    if uri:
        shown = image(uri, label)
    own = f' id="{name}"' if name else ""
    return f'<figure class="gbm-card"{own}>{shown}<figcaption><b>{label}</b>{text}</figcaption></figure>'
