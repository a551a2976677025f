"""Every growth model on tumours that are hard: a sensible map, or a refusal that says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from predictgbm.growth import ModelError, pinn
from predictgbm.models import Model, load_function, read_models

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    name: model
    for name, model in read_models(ROOT / "assets/models.yml", ROOT / "assets/schema_models.json").items()
    if model.family == "growth"
}
#: Models that mean nothing without a core.
NEED_CORE = {"soc", "distance", "loti"}
#: What makes slow ones quick enough for a test.
COARSE = {"gliodil": {"cells": 20, "frames": 40}}
H = 2.0
SHAPE = (72, 84, 64)
CENTRE = (72.0, 84.0, 64.0)


def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n) * H for n in SHAPE), indexing="ij")
    return np.asarray(sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)) <= 1)


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    return ellipsoid(centre, (radius,) * 3)


BRAIN = ellipsoid(CENTRE, (66.0, 78.0, 58.0))
RIND = BRAIN & ~ellipsoid(CENTRE, (60.0, 72.0, 52.0))
VENTRICLE = ellipsoid(CENTRE, (10.0, 26.0, 12.0))


def labelled(*parts: tuple[tuple[float, float, float], float, float]) -> np.ndarray:
    """Return labels of balls: centre, radius of the core, radius of the whole tumour, in mm."""
    labels = np.zeros(SHAPE, np.uint8)
    for centre, _, outer in parts:
        labels[ball(centre, outer) & BRAIN] = 2
    for centre, inner, _ in parts:
        labels[ball(centre, inner) & BRAIN] = 3
    return labels


TUMORS = {
    "multifocal": labelled(((40, 60, 64), 8, 14), ((104, 110, 70), 7, 12), ((50, 120, 50), 4, 8)),
    "core at the ventricle": labelled(((56, 84, 64), 9, 16)),
    "core at the skull": labelled(((132, 84, 64), 10, 18)),
    "0.1 ml": labelled(((42, 84, 64), 2.1, 2.9)),
    "150 ml": labelled(((46, 80, 64), 24, 34)),
    "no oedema": labelled(((42, 84, 64), 11, 11)),
    "no enhancement": np.where(labelled(((42, 84, 64), 7, 14)) > 0, 2, 0).astype(np.uint8),
}


def run(model: Model, labels: np.ndarray) -> np.ndarray:
    wm = (BRAIN & ~RIND & ~VENTRICLE).astype(np.float32)
    arrays = {
        "tumor_seg": labels,
        "wm": wm,
        "gm": RIND.astype(np.float32),
        "csf": VENTRICLE.astype(np.float32),
        "brain_mask": BRAIN.astype(np.uint8),
    }
    given = {name: arrays[name] for name in model.inputs}
    parameters = model.parameters | COARSE.get(model.name, {})
    return load_function(model)(**given, **parameters, spacing=(H,) * 3, seed=0).map


@pytest.mark.parametrize("tumor", TUMORS)
@pytest.mark.parametrize("name", MODELS)
def test_map_is_sensible_or_the_refusal_says_why(
    name: str, tumor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinn, "ROUNDS", 1)
    labels = TUMORS[tumor]
    if tumor == "no enhancement" and name in NEED_CORE:
        with pytest.raises(ModelError, match="core"):
            run(MODELS[name], labels)
        return
    score = run(MODELS[name], labels)
    assert score.shape == SHAPE
    assert np.isfinite(score).all()
    visible = labels > 0
    # Inside the tumour more than around it, there more than far away, and all foci count.
    inside = score[visible].mean()
    near, far = (score[BRAIN & ~VENTRICLE & ~visible & mask].mean() for mask in _distances(visible))
    assert inside >= near >= far
    assert inside > far
    cores = [ball(c, 3) for c in ((40, 60, 64), (104, 110, 70))] if tumor == "multifocal" else []
    for core in cores:
        assert score[core].mean() > near


def _distances(visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distance = ndimage.distance_transform_edt(~visible, (H,) * 3)
    return distance < 10, distance > 30
