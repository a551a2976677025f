"""Compartments of an atlas, the commands that draw and measure guidelines, and their tables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import small_exam
from scipy import stats

from predictgbm.atlas import COMPARTMENTS, Atlas, load_atlas, resample_atlas
from predictgbm.exam import Exam, organ_file_name
from predictgbm.guidelines.compartments import (
    SEEDS as ATLAS_SEEDS,
)
from predictgbm.guidelines.compartments import (
    Compartment,
    derive_compartments,
    dura_mask,
    load_compartments,
)
from predictgbm.guidelines.geodesic import geodesic_distance
from predictgbm.guidelines.placement import place_compartments
from predictgbm.images import Image, ImageError, read_image
from predictgbm.statistics.guidelines import guideline_comparisons, guideline_rows
from predictgbm.tables import build


def blocks() -> tuple[Atlas, np.ndarray]:
    """Two hemispheres, a cerebellum behind and below, a stem; white blocks in grey, dark fissures between them."""
    shape = (60, 60, 50)
    x, y, z = np.indices(shape)
    dark = (np.abs(x - 29.5) < 2) & (z > 20) | (np.abs(z - 18.5) < 2) & (y < 30)
    dark &= ~((np.abs(x - 29.5) < 6) & (y >= 22) & (y < 38) & (z > 26) & (z < 34))  # a corpus callosum
    brain = (x > 1) & (x < 58) & (y > 1) & (y < 58) & (z > 1) & (z < 48)
    wm = (brain & ~dark).astype(np.float32)
    truth = np.select([(z < 19) & (y < 30), z < 19, x < 30], [3, 4, 1], 2)
    affine = np.eye(4)
    t1 = np.where(dark, 0.1, 1.0).astype(np.float32) * brain
    half = (0.5 * (brain & dark)).astype(np.float32)
    atlas = Atlas(t1, wm, half, half, brain, affine, (1.0, 1.0, 1.0), "SRI24")
    return atlas, truth


SEEDS = {
    Compartment.LEFT: [(14.0, 30.0, 32.0)],
    Compartment.RIGHT: [(44.0, 30.0, 32.0)],
    Compartment.POSTERIOR_FOSSA: [(20.0, 14.0, 9.0), (40.0, 14.0, 9.0)],
    Compartment.MIDBRAIN: [(30.0, 45.0, 9.0)],
}


def test_compartments_meet_in_the_dark_and_the_callosum_is_open() -> None:
    atlas, truth = blocks()
    found = place_compartments(derive_compartments(atlas, SEEDS), Image(atlas.t1, atlas.affine))
    x, y, z = np.indices(truth.shape)
    # Nothing dark lies between stem and hemispheres, or stem and cerebellum: there the fronts meet somewhere.
    clear = (
        (np.abs(x - 29.5) > 12)
        & (np.abs(z - 18.5) > np.where(y < 24, 4, 10))
        & ((z > 19) | (np.abs(y - 30) > 6))
    )
    assert (found == truth)[clear].all()
    wall = dura_mask(found)
    # The falx stands above the callosum, in front and behind; the callosum and what is below it are open.
    assert wall[28:32, 30, 42].any()
    assert wall[28:32, 50, 30].any()
    assert not wall[26:34, 30, 22:33].any()
    # The tentorium closes the way from the occipital lobe to the cerebellum, not that to the stem.
    assert wall[14, 10, 15:23].any()
    assert not wall[14, 50, 10:30].any()
    assert not (wall & (found == Compartment.MIDBRAIN)).any()


def test_in_the_atlas_ways_lead_through_callosum_and_midbrain_alone() -> None:
    cache = os.environ.get("PREDICTGBM_CACHE", "~/.cache/predictgbm")
    folder = Path(os.environ.get("PREDICTGBM_ATLAS", f"{cache}/atlas/SRI24-4")).expanduser()
    if not folder.is_dir():
        pytest.skip(f"no atlas in {folder}; ./predictgbm setup makes it")
    atlas = load_atlas(folder)
    if atlas.space != "SRI24":
        pytest.skip(f"the points are of SRI24, not of {atlas.space}")
    found = derive_compartments(atlas, ATLAS_SEEDS["SRI24"])
    passable = resample_atlas(atlas, found.shape, found.affine).brain_mask & ~dura_mask(found.data)

    def way(start: tuple[int, int, int], end: tuple[int, int, int]) -> float:
        a, b = np.rint((np.linalg.inv(found.affine) @ np.array([[*start, 1], [*end, 1]]).T)[:3].T).astype(int)
        source = np.zeros_like(passable)
        source[tuple(a)] = True
        return float(geodesic_distance(source, passable, (2.0, 2.0, 2.0), 100.0)[tuple(b)])

    # Beside each other across falx or tentorium, each pair 16 to 24 mm apart: above the callosum, frontal, occipital;
    # occipital, left and right medial temporal lobe and cerebellum.
    assert way((-128, 100, 112), (-112, 100, 112)) > 35
    assert way((-128, 172, 90), (-112, 172, 90)) > 35
    assert way((-128, 50, 80), (-112, 50, 80)) > 35
    assert way((-140, 60, 60), (-140, 62, 36)) > 60
    assert way((-145, 96, 52), (-138, 80, 42)) > 30
    assert way((-97, 96, 52), (-103, 80, 42)) > 30
    assert way((-150, 100, 48), (-145, 80, 38)) > 40
    # Callosum; thalamus, midbrain and pons.
    assert way((-128, 120, 90), (-112, 120, 90)) == 16
    assert way((-134, 112, 66), (-124, 100, 54)) < 24
    assert way((-119, 96, 54), (-119, 100, 36)) < 20


def test_an_atlas_of_ones_own_brings_its_compartments_or_has_none(tmp_path: Path) -> None:
    folder = small_exam.write_atlas(tmp_path / "atlas")
    assert load_compartments(folder) is None
    halves = np.where(small_exam.world()[..., 0] < 0, 1, 2).astype(np.uint8)
    small_exam.save(folder / COMPARTMENTS, halves)
    image = load_compartments(folder)
    assert image is not None
    grid = Image(np.zeros(small_exam.SHAPE), small_exam.AFFINE)
    assert (place_compartments(image, grid) == halves).all()
    small_exam.save(folder / COMPARTMENTS, halves * 5)
    with pytest.raises(ImageError, match="label 10"):
        load_compartments(folder)


def test_the_commands_draw_and_measure(tmp_path: Path) -> None:
    atlas = small_exam.write_atlas(tmp_path / "atlas")
    # The exam's anatomy is the atlas's, so that the atlas stays where it is.
    t1 = read_image(atlas / "T1w.nii.gz").data + small_exam.arrays()["t1"] / 10
    files = small_exam.write_exam(tmp_path / "in", {**small_exam.arrays(), "t1": t1})
    row = small_exam.write_json(tmp_path / "row.json", small_exam.row(files))
    exam = tmp_path / "exam"
    assert (
        small_exam.run_command(
            "prepare_exam.py", "--row", row, "--atlas", atlas, "--out-dir", exam, *files.values()
        )
        == 0
    )
    right = np.where(small_exam.world()[..., 0] < 12, 1, 2).astype(np.uint8)
    small_exam.save(atlas / COMPARTMENTS, right)
    prefix = tmp_path / "sub-007_ses-pre"
    names = ("estroeano2023", "astro2025")
    drawn = ("--exam", exam, "--atlas", atlas, "--out-prefix", prefix, "--guidelines")
    assert small_exam.run_command("make_guidelines.py", *drawn, *names) == 0
    masks = sorted(tmp_path.glob("sub-007_ses-pre_desc-*_mask.nii.gz"))
    assert len(masks) == 4
    plan = read_image(f"{prefix}_desc-estroeano2023_mask.nii.gz", np.uint8).data.astype(bool)
    sidecar = json.loads(Path(f"{prefix}_desc-estroeano2023_mask.json").read_text())
    assert sidecar["n_voxels"] == plan.sum()
    assert sidecar["falx_and_tentorium"]
    assert sidecar["midline_shift_mm"] is None  # this map has no midline compartment
    # The core, right of the falx at 12 mm, and what it reaches stay there, but for core beyond the falx itself.
    core = np.isin(small_exam.tumor(), (1, 3))
    left = (right == 1) & plan
    assert left.sum() <= (core & (right == 1)).sum() + 60
    assert small_exam.run_command("make_guidelines.py", *drawn, "nonsense") == 2
    assert small_exam.run_command("make_guidelines.py", *drawn, *names, "--margin", 20) == 2
    assert small_exam.run_command("make_guidelines.py", *drawn, *names, "--spare", "stem") == 2

    # Half of the plan is an organ: that half is spared but for the core, and the other margin goes farther.
    organ = (np.arange(small_exam.SHAPE[2]) < np.argwhere(plan)[:, 2].mean()) & np.ones(
        small_exam.SHAPE, bool
    )
    organ_path = exam / organ_file_name("sub-007_ses-pre_space-SRI24", "stem")
    small_exam.save(organ_path, organ.astype(np.uint8))
    other = (*drawn[:4], "--out-prefix", tmp_path / "other" / "x", "--guidelines", "astro2025")
    (tmp_path / "other").mkdir()
    assert small_exam.run_command("make_guidelines.py", *other, "--margin", 20, "--spare", "stem") == 0
    spared = read_image(tmp_path / "other" / "x_desc-astro2025_mask.nii.gz", np.uint8).data.astype(bool)
    told = json.loads((tmp_path / "other" / "x_desc-astro2025_mask.json").read_text())
    assert (told["margin_mm"], told["spared"]) == (20, ["stem"])
    assert not (spared & organ & ~core).any()
    usual = read_image(f"{prefix}_desc-astro2025_mask.nii.gz", np.uint8).data.astype(bool)
    assert (usual & organ & ~core).any()
    assert (spared & ~organ).sum() > (usual & ~organ).sum()
    organ_path.unlink()

    given = Exam(exam)
    score = small_exam.save(
        tmp_path / "score.nii.gz", np.random.default_rng(0).random(small_exam.SHAPE).astype(np.float32)
    )
    later = small_exam.save(tmp_path / "later.nii.gz", small_exam.tumor())
    inputs = [str(given.path(name)) for name in ("brain_mask", "tumor_seg")]
    out = tmp_path / "metrics.json"
    measured = (
        "--plan",
        masks[0],
        "--recurrence",
        later,
        "--brain-mask",
        inputs[0],
        "--out",
        out,
        "--guidelines",
        *masks,
    )
    assert small_exam.run_command("evaluate_plan.py", *measured) == 2
    assert (
        small_exam.run_command("evaluate_plan.py", *measured, "--tumor-seg", inputs[1], "--score", score) == 0
    )
    found = {entry["guideline"]: entry for entry in json.loads(out.read_text())["guidelines"]}
    assert list(found) == list(names)
    assert found["estroeano2023"]["plan_ml"] == pytest.approx(plan.sum() * 0.216)
    target = small_exam.tumor() == 3
    assert found["estroeano2023"]["guideline_coverage_enhancing"] == pytest.approx(
        (plan & target).sum() / target.sum()
    )


def test_each_model_is_tested_against_the_guidelines_own_plan() -> None:
    rng = np.random.default_rng(1)
    own, gain = rng.uniform(0.3, 0.6, 12), rng.normal(0.05, 0.1, (2, 12))
    records = [
        {
            "patient": f"{i:03d}",
            "model": model,
            "guidelines": [
                {
                    "guideline": "estroeano2023",
                    "plan_ml": 100.0,
                    "coverage_enhancing": own[i] + gain[m, i],
                    "coverage_core": 0.5,
                    "guideline_coverage_enhancing": own[i],
                    "guideline_coverage_core": 0.4,
                }
            ],
        }
        for i in range(12)
        for m, model in enumerate(("loti", "soc"))
    ]
    table = build("guidelines", guideline_rows(records))
    assert table["model"].value_counts().to_dict() == {"guideline": 12, "loti": 12, "soc": 12}
    rows = {row["model"]: row for row in guideline_comparisons(table)}
    p = [stats.wilcoxon(gain[m], zero_method="pratt", method="exact").pvalue for m in range(2)]
    assert [rows[m]["p_pratt"] for m in ("loti", "soc")] == pytest.approx(p)
    assert min(r["p_adjusted"] for r in rows.values()) == pytest.approx(min(1, 2 * min(p)))
    # A model with too few patients is of the family all the same.
    few = [{**r, "model": "pinn"} for r in records[:6:2]]
    three = guideline_comparisons(build("guidelines", guideline_rows([*records, *few])))
    assert min(r["p_adjusted"] for r in three if r["model"] != "pinn") == pytest.approx(min(1, 3 * min(p)))
    assert rows["loti"]["mean"] - rows["loti"]["mean_guideline"] == pytest.approx(gain[0].mean())
    assert guideline_comparisons(build("guidelines", guideline_rows(records[:6])))[0].get("p_pratt") is None
    assert guideline_comparisons(build("guidelines", [])) == []
