"""What steps measure of their own results: limits, records, table, pictures and their place in the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from predictgbm.images import Image
from predictgbm.quality import STAGES, Measure, quality_rows, write_quality
from predictgbm.report.overlays import draw_contours, draw_pair
from predictgbm.tables import build

META = {"patient": "001", "session": "pre"}


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(0, 10))
def test_a_value_is_flagged_exactly_outside_its_limits(value: float, least: float, width: float) -> None:
    measure = Measure("x", value, "a number", least, least + width)
    assert measure.flagged == (not least <= value <= least + width)


def test_without_limits_nothing_is_flagged_and_an_unmeasured_value_is_only_with_them() -> None:
    assert not Measure("x", float("nan"), "a number").flagged
    assert Measure("x", float("nan"), "a number", least=0).flagged
    assert Measure("x", 1, "a number", least=0.5, most=2).expected == "at least 0.5, at most 2"


def test_record_becomes_rows_of_the_table(tmp_path: Path) -> None:
    measures = [Measure("brain_ml", 700.0, "volume", 900, 2000), Measure("parts", float("nan"), "pieces")]
    write_quality(tmp_path / "q.json", META, "brain", measures, method="by hand", note="a remark")
    record = json.loads((tmp_path / "q.json").read_text())
    table = build("quality", quality_rows([record]))
    assert table["measure"].tolist() == ["brain_ml", "parts"]
    assert table["flagged"].tolist() == [True, False]
    assert table["value"].isna().tolist() == [False, True]
    assert set(table["note"]) == {"a remark"}
    assert set(table["method"]) == {"by hand"}
    # Several methods may do the same step on one exam, as tumour algorithms do before they are fused.
    others = [record, record | {"method": "by another hand"}]
    assert len(build("quality", quality_rows(others))) == 4


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-2.0, -1, 1, 1]), np.eye(4)[[2, 0, 1, 3]]])
def test_pictures_are_drawn_in_any_voxel_order_and_are_the_same_each_time(
    tmp_path: Path, affine: np.ndarray
) -> None:
    data = np.random.default_rng(0).random((24, 30, 20)).astype(np.float32) * 100
    data[:4] = 0
    image = Image(data, affine)
    for name in ("a", "b"):
        draw_contours(tmp_path / f"c{name}.png", image, {"bright": data > 60, "none": data > 1e6}, "Title")
        draw_pair(tmp_path / f"p{name}.png", image, Image(data[::-1].copy(), affine), "Title")
    assert (tmp_path / "ca.png").read_bytes() == (tmp_path / "cb.png").read_bytes()
    assert (tmp_path / "pa.png").read_bytes() == (tmp_path / "pb.png").read_bytes()
    with Picture.open(tmp_path / "ca.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    # The outline's colour is there, and grey values of the image.
    assert (np.abs(pixels - (0xF0, 0xA6, 0x30)).sum(axis=-1) < 30).any()
    assert ((pixels.max(axis=-1) - pixels.min(axis=-1) < 4) & (pixels.mean(axis=-1) > 60)).any()


def test_every_step_has_a_title_and_says_what_to_look_for() -> None:
    assert all(title and look_for.endswith(".") for title, look_for in STAGES.values())
