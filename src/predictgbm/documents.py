"""Measures as JSON, which knows no NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def write_measures(path: Path, content: dict[str, Any]) -> None:
    """Write measures as a JSON file, with null for NaN; folders are made.

    Raises
    ------
    ValueError
        If a number is infinite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """Replace NaN by None at every depth."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
