"""Dose of a plan, its histograms and dose painting, against closed forms and sums over all pairs of voxels."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from predictgbm.dose import (
    STANDARD,
    Prescription,
    dose_at_volume,
    dvh,
    evaluate_dose,
    geud,
    integral_dose,
    painted_dose,
    plan_dose,
    volume_at_dose,
)
from predictgbm.planning import PlanError, RankOrder, make_plan, rank_voxels, soc_mask

SPACING = (1.0, 1.0, 1.0)
#: Parameters of the pipeline, by what they set.
PARAMETERS = {"prescription": "dose_gy", "setup_margin": "margin_mm", "dose_falloff": "falloff_mm"}


def ball(shape, centre, radius, spacing=SPACING):
    axes = [np.arange(n) * s - c for n, s, c in zip(shape, spacing, centre, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= radius**2


def test_defaults_of_the_pipeline_are_those_of_the_package():
    text = (Path(__file__).parents[2] / "nextflow.config").read_text(encoding="utf-8")
    defaults = {name: float(re.search(rf"\b{name} += (\S+)", text)[1]) for name in PARAMETERS}
    assert defaults == {name: getattr(STANDARD, field) for name, field in PARAMETERS.items()}


class TestHistogram:
    def test_uniform_dose(self):
        dose = np.full((3, 4, 5), 57.0)
        np.testing.assert_array_equal(dvh(dose, [0, 56.9, 57.0, 57.1, 80]), [1, 1, 1, 0, 0])
        assert volume_at_dose(dose, 57.0) == 1
        assert all(dose_at_volume(dose, part) == 57.0 for part in (0.02, 0.5, 0.95, 0.98))
        assert geud(dose) == pytest.approx(57.0)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(50, 400), st.floats(0.02, 0.98))
    def test_linear_ramp(self, n, part):
        """Of a dose that rises evenly from 0 to 60, a part gets at least 60 (1 - part)."""
        dose = np.random.default_rng(n).permutation(60 * (np.arange(n) + 0.5) / n)
        assert dose_at_volume(dose, part) == pytest.approx(60 * (1 - part), abs=1e-9)
        assert volume_at_dose(dose, 60 * part) == pytest.approx(1 - part, abs=0.5 / n + 1e-9)

    def test_gaussian_edge(self):
        """Across a blurred edge the part above a dose ends where the normal distribution says."""
        x = (np.arange(40000) + 0.5) / 1000 - 20
        dose = 60 * ndtr(-x / 3)
        for level in (6, 30, 48, 57):
            # The way from -20 mm to where the dose is reached.
            reached = (20 - np.interp(level, 60 * ndtr(-x[::-1] / 3), -x[::-1] * -1)) / 40
            assert volume_at_dose(dose, level) == pytest.approx(1 - reached, abs=1e-4)
        assert dose_at_volume(dose, 0.5) == pytest.approx(30, abs=1e-6)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(0, 80), min_size=1, max_size=40))
    def test_histogram_counts(self, doses):
        levels = range(math.floor(max(doses)) + 2)
        expected = [sum(d >= level for d in doses) / len(doses) for level in levels]
        np.testing.assert_allclose(dvh(doses), expected)
        assert expected[-1] == 0

    def test_nothing_is_not_a_number(self):
        empty = np.zeros(0)
        assert np.isnan(
            [dose_at_volume(empty, 0.5), volume_at_dose(empty, 1), geud(empty), *dvh(empty)]
        ).all()

    def test_geud(self):
        """Half at 30 and half at 60 Gy; a = 1 is the mean; one voxel without dose spoils a target."""
        assert geud([30, 60], -10) == pytest.approx(((30**-10 + 60**-10) / 2) ** -0.1)
        assert geud([30, 60], 1) == pytest.approx(45)
        assert geud([0, 60, 60], -10) == 0
        assert geud([0, 0], -10) == 0
        assert 30 < geud([30, 60], -10) < geud([30, 60], 1) < geud([30, 60], 8) < 60


class TestPlanDose:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize(
        ("spacing", "falloff"),
        [
            *(((1.0, 1.0, 1.0), 5.5), ((2.0, 2.0, 2.0), 5.5), ((1.0, 1.0, 5.0), 5.5), ((0.5, 2.0, 1.0), 5.5)),
            *(((4.0, 4.0, 4.0), 5.5), ((0.7, 7.0, 0.7), 5.5), ((1.0, 1.0, 5.0), 8.0), ((1.0, 1.0, 5.0), 3.7)),
        ],
    )
    def test_flat_edge_is_an_error_function(self, spacing, falloff, axis):
        """A slab wide enough is flat: the dose beyond its edge is Phi((aperture - x) / sigma), along every axis."""
        prescription = Prescription(falloff_mm=falloff)
        size = [90.0, 90.0, 90.0]
        size[axis] = 110.0
        plan = np.zeros([round(n / s) for n, s in zip(size, spacing, strict=True)], bool)
        across = np.moveaxis(plan, axis, 0)
        edge = across.shape[0] // 2
        across[round(5 / spacing[axis]) : edge] = True
        dose = np.moveaxis(plan_dose(plan, spacing, prescription), axis, 0)
        line = dose[:, dose.shape[1] // 2, dose.shape[2] // 2]
        # As for every margin here, distances are between voxel centres.
        x = (np.arange(line.size) + 1 - edge) * spacing[axis]
        expected = 60 * ndtr((prescription.aperture_mm - x) / prescription.sigma_mm)
        near = (x > -20) & (x < 25)
        np.testing.assert_allclose(line[near], expected[near], atol=0.2 * 5.5 / falloff)

    def test_falloff_and_edge_of_the_target(self):
        """From 80 % to 20 % over the way that was asked for; the edge of the PTV gets 95 %."""
        plan = np.zeros((110, 90, 90), bool)
        plan[5:55] = True
        line, x = plan_dose(plan, SPACING)[:, 45, 45], np.arange(110) - 54.0
        near = (x > -20) & (x < 25)
        way = np.interp([12, 48], line[near][::-1], x[near][::-1])
        assert way[0] - way[1] == pytest.approx(5.5, abs=0.1)
        assert np.interp(3.0, x, line) == pytest.approx(57, abs=0.3)

    def test_middle_of_a_ball_against_its_integral(self):
        """The Gaussian's mass within the radius that the radiation reaches, relative to the median of the PTV."""
        prescription = Prescription()
        sigma, reach = prescription.sigma_mm, prescription.aperture_mm
        plan = ball((71, 71, 71), (35, 35, 35), 12.0)
        radius = 12.0 + reach

        def blurred(r):
            """Closed form of a ball blurred by a Gaussian, at distance r from its middle."""
            near, far = (radius - r) / sigma, (radius + r) / sigma
            wave = np.exp(-(near**2) / 2) - np.exp(-(far**2) / 2)
            return ndtr(near) + ndtr(far) - 1 - sigma / (r * np.sqrt(2 * np.pi)) * wave

        dose = plan_dose(plan, SPACING, prescription)
        distance = np.sqrt(((np.indices(plan.shape) - 35) ** 2).sum(axis=0))
        expected = blurred(np.maximum(distance, 1e-3))
        ptv = ball(plan.shape, (35, 35, 35), 15.0)
        expected *= 60 / np.median(expected[ptv])
        near = distance < 32
        # A ball of voxels is smaller than the ball by up to half a voxel, where the dose falls by 7 Gy a millimetre.
        np.testing.assert_allclose(dose[near], expected[near], atol=3.5)
        assert np.abs(dose - expected)[distance < 15].max() < 1.0

    def test_radiation_does_not_end_with_the_image(self):
        plan = ball((50, 50, 50), (25, 25, 25), 8)
        whole = plan_dose(plan, SPACING)
        part = plan_dose(plan[14:], SPACING)
        np.testing.assert_allclose(part, whole[14:], atol=1e-4)

    def test_mirrored_plan_has_mirrored_dose(self):
        rng = np.random.default_rng(3)
        plan = rng.random((9, 8, 7)) > 0.7
        dose = plan_dose(plan, (2.0, 3.0, 2.5))
        np.testing.assert_allclose(
            plan_dose(plan[::-1, :, ::-1], (2.0, 3.0, 2.5))[::-1, :, ::-1], dose, atol=1e-3
        )

    def test_an_empty_plan(self):
        with pytest.raises(PlanError, match="empty plan"):
            plan_dose(np.zeros((4, 4, 4), bool), SPACING)


class TestPainting:
    def test_integral_dose_is_spent_and_falls_with_rank(self):
        brain = ball((40, 36, 32), (20, 18, 16), 15)
        score = (
            -np.abs(np.arange(40.0) - 12)[:, None, None] * np.ones(brain.shape)
            + np.linspace(0, 0.5, 36)[:, None]
        )
        order = rank_voxels(score, ball(brain.shape, (12, 18, 16), 3), brain, SPACING)
        dose, painted_ml = painted_dose(order, brain, SPACING, 0.2)
        assert integral_dose(dose, brain, SPACING) == pytest.approx(0.2, rel=1e-5)
        assert 0.2 / 75 * 1000 < painted_ml < brain.sum() / 1000
        # Without blur the prescription itself is seen: linear by rank from the highest to the lowest dose.
        sharp = Prescription(falloff_mm=1e-3)
        dose, painted_ml = painted_dose(order, brain, SPACING, 0.2, prescription=sharp)
        along = dose.ravel()[order]
        count = round(painted_ml * 1000)
        np.testing.assert_allclose(along[:count], 75 - 29 * (np.arange(count) + 0.5) / count, rtol=1e-3)
        assert (along[count:] == 0).all()

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 1000), st.floats(0.01, 0.5))
    def test_against_all_pairs_of_voxels(self, seed, part):
        """The same dose by a sum over every pair of voxels, and its integral without the symmetry of the blur."""
        rng = np.random.default_rng(seed)
        brain = np.ones((6, 5, 4), bool)
        spacing = (2.0, 3.0, 2.5)
        order = rng.permutation(brain.size)
        integral = part * 60 * brain.size * 15e-6
        dose, painted_ml = painted_dose(order, brain, spacing, integral)
        count = round(painted_ml / 0.015)
        wanted = np.zeros(brain.size)
        wanted[order[:count]] = 75 - 29 * (np.arange(count) + 0.5) / count
        sigma = Prescription().sigma_mm
        kernels = []
        for s in spacing:
            reach = int(4 * sigma / s + 0.5)
            k = np.exp(-((np.arange(-reach, reach + 1) * s) ** 2) / (2 * sigma**2))
            kernels.append((k / k.sum(), reach))
        index = np.indices(brain.shape).reshape(3, -1).T
        blurred = np.zeros(brain.size)
        for i, a in enumerate(index):
            weight = np.ones(brain.size)
            for axis, (k, reach) in enumerate(kernels):
                step = index[:, axis] - a[axis]
                weight *= np.where(np.abs(step) <= reach, k[np.clip(step + reach, 0, 2 * reach)], 0)
            blurred[i] = weight @ wanted
        np.testing.assert_allclose(
            dose.ravel(), blurred * integral / (blurred.sum() * 15e-6), rtol=1e-4, atol=1e-4
        )
        # One voxel fewer would not have been enough.
        assert blurred.sum() * 15e-6 >= integral * (1 - 1e-5)

    def test_painted_dose_follows_what_is_prescribed(self):
        """40 Gy in 15 fractions, as for the elderly: the same volume for two thirds of the integral dose."""
        brain = ball((40, 36, 32), (20, 18, 16), 15)
        order = np.flatnonzero(brain)
        usual, usual_ml = painted_dose(order, brain, SPACING, 0.3)
        short, short_ml = painted_dose(order, brain, SPACING, 0.2, Prescription(dose_gy=40))
        assert short_ml == usual_ml
        np.testing.assert_allclose(short, usual * 2 / 3, rtol=1e-4, atol=1e-4)

    def test_blur_does_not_end_with_the_brain(self):
        """Beyond the brain's box there is what the Gaussian of all that is painted has there."""
        brain = np.zeros((50, 24, 24), bool)
        brain[:30] = True
        order = np.flatnonzero(brain)[::-1]  # from the face at 29 inwards
        dose, painted_ml = painted_dose(order, brain, SPACING, 0.3)
        count = round(painted_ml * 1000)
        painted = np.zeros(brain.shape)
        painted.flat[order[:count]] = 75 - 29 * (np.arange(count) + 0.5) / count
        expected = gaussian_filter(painted, Prescription().sigma_mm, mode="constant")
        assert expected[30].max() > 20
        np.testing.assert_allclose(dose, expected * 0.3 / integral_dose(expected, brain, SPACING), atol=1e-3)

    def test_too_few_voxels(self):
        brain = np.ones((4, 4, 4), bool)
        with pytest.raises(PlanError, match="do not take up"):
            painted_dose(np.arange(10), brain, SPACING, 1.0)


class TestEvaluateDose:
    @pytest.fixture
    def patient(self):
        spacing = (2.0, 2.0, 2.0)
        shape = (44, 44, 40)
        brain = ball(shape, (44, 44, 40), 40, spacing)
        core = ball(shape, (36, 40, 40), 8, spacing)
        labels = np.where(core, 3, 0).astype(np.uint8)
        recurrence = ball(shape, (62, 50, 40), 7, spacing)
        soc = soc_mask(labels, brain, spacing)
        return {"soc": soc, "core": core, "recurrence": recurrence, "brain": brain, "spacing": spacing}

    def measure(self, patient, score, **more):
        plan = make_plan(
            score, patient["core"], patient["brain"], patient["spacing"], int(patient["soc"].sum())
        )
        ranking = RankOrder(score, patient["core"], patient["brain"], patient["spacing"])
        return evaluate_dose(plan, ranking=ranking, **patient, **more)

    def test_a_map_that_knows_gives_the_recurrence_more(self, patient):
        shape = patient["soc"].shape
        knowing = self.measure(
            patient, 1e3 - np.hypot(*np.indices(shape)[:2] - 25.0) + 100 * patient["recurrence"]
        )
        standard = self.measure(patient, patient["soc"].astype(float))["measures"]
        known = knowing["measures"]
        for name in (
            "recurrence_mean_gy",
            "recurrence_d98_gy",
            "recurrence_geud_gy",
            "painted_mean_gy",
            "painted_d98_gy",
        ):
            assert known[name] > standard[name] + 1, name
        assert min(known["painted_d98_gy"], known["recurrence_d98_gy"]) > 55 > standard["painted_d98_gy"]
        assert standard["plan_d95_gy"] > 57

    def test_tissues_and_histograms(self, patient):
        shape = patient["soc"].shape
        everywhere = {"wm": np.ones(shape, np.float32), "gm": np.zeros(shape, np.float32)}
        found = self.measure(patient, patient["soc"].astype(float), tissues=everywhere)
        measures = found["measures"]
        # All of the healthy brain is white matter here, and nothing of it grey.
        assert measures["wm_mean_gy"] == pytest.approx(measures["brain_mean_gy"])
        assert np.isnan(measures["gm_mean_gy"])
        # The area under a cumulative histogram is the mean dose.
        for structure, mean in (("recurrence", "recurrence_mean_gy"), ("brain", "brain_mean_gy")):
            curve = np.array(found["dvh"][structure])
            assert np.trapezoid(curve) == pytest.approx(measures[mean], abs=0.6)
        healthy = (patient["brain"] & ~patient["core"]).sum() * 0.008
        assert measures["brain_v50_ml"] == pytest.approx(found["dvh"]["brain"][30] * healthy, abs=0.01)
        assert measures["brain_mean_gy"] * healthy / 1000 < measures["integral_gy_l"]

    def test_without_recurrence(self, patient):
        found = self.measure(
            {**patient, "recurrence": np.zeros_like(patient["soc"])}, patient["soc"].astype(float)
        )
        assert np.isnan(found["measures"]["recurrence_mean_gy"])
        assert found["measures"]["brain_mean_gy"] > 0
        assert set(found["dvh"]) == {"brain"}
