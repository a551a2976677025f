"""Voxel-wise radiomics: against the definitions written out on whole matrices, closed forms, and pyradiomics."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from predictgbm.learned import radiomics
from predictgbm.learned.radiomics import BIN_WIDTH, FEATURES, SHIFT, Radiomics, filter_image

SPACING = (1.0, 2.0, 1.5)
STEPS = [s for s in itertools.product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]


def texture_image(seed: int = 0, shape: tuple[int, int, int] = (9, 8, 11)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return (400 * ndimage.gaussian_filter(noise, 0.7)).astype(np.float32)


def patchy_mask(shape: tuple[int, int, int]) -> np.ndarray:
    """Region with holes, an edge at the end of the array, and voxels without neighbours."""
    return ndimage.gaussian_filter(np.random.default_rng(5).normal(size=shape), 1) > 0


def features_at(image: np.ndarray, mask: np.ndarray, place: tuple[int, int, int]) -> dict[str, float]:
    voxel = np.zeros(mask.shape, bool)
    voxel[place] = True
    (row,) = Radiomics({"a": image}, mask, SPACING)(voxel)
    return dict(zip(FEATURES, row.tolist(), strict=True))


# The definitions, on dense matrices.


def entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def first_order(x: np.ndarray, levels: np.ndarray) -> list[float]:
    p = np.unique(levels, return_counts=True)[1] / levels.size
    p10, p25, p50, p75, p90 = np.percentile(x, [10, 25, 50, 75, 90])
    inner = x[(x >= p10) & (x <= p90)]
    d = x - x.mean()
    energy = ((x + SHIFT) ** 2).sum()
    kurtosis = (d**4).mean() / d.var() ** 2 if np.ptp(x) else 0
    skewness = (d**3).mean() / d.var() ** 1.5 if np.ptp(x) else 0
    robust = np.abs(inner - inner.mean()).mean()
    return [
        *(
            p10,
            p90,
            energy,
            entropy(p),
            p75 - p25,
            kurtosis,
            x.max(),
            np.abs(d).mean(),
            x.mean(),
            p50,
            x.min(),
        ),
        *(np.ptp(x), robust, np.sqrt(((x + SHIFT) ** 2).mean()), skewness, energy * np.prod(SPACING)),
        *((p**2).sum(), x.var()),
    ]


def glcm_of_direction(p: np.ndarray) -> list[float]:
    n = len(p)
    i, j = np.mgrid[1 : n + 1, 1 : n + 1].astype(float)
    px = p.sum(axis=1)
    level = np.arange(1, n + 1)
    mean = (level * px).sum()
    variance = ((level - mean) ** 2 * px).sum()
    k = np.arange(n)
    minus = np.array([p[np.abs(i - j) == d].sum() for d in k])
    plus = np.array([p[i + j == s].sum() for s in range(2, 2 * n + 1)])
    independent = np.outer(px, px)
    seen = p > 0
    hxy1 = -(p[seen] * np.log2(independent[seen])).sum()
    cluster = i + j - 2 * mean
    difference = (k * minus).sum()
    correlation = (p * (i - mean) * (j - mean)).sum() / variance if variance > 1e-12 else 1.0
    imc1 = (entropy(p) - hxy1) / entropy(px) if entropy(px) > 1e-12 else 0.0
    imc2 = np.sqrt(max(0.0, 1 - np.exp(-2 * (entropy(independent) - entropy(p)))))
    return [
        *((p * i * j).sum(), (p * cluster**4).sum(), (p * cluster**3).sum(), (p * cluster**2).sum()),
        *(
            (p * (i - j) ** 2).sum(),
            correlation,
            difference,
            entropy(minus),
            (minus * (k - difference) ** 2).sum(),
        ),
        *((minus / (1 + k)).sum(), (minus / (1 + k**2)).sum(), (minus / (1 + k**2 / n**2)).sum()),
        *((minus / (1 + k / n)).sum(), imc1, imc2, (minus[1:] / k[1:] ** 2).sum(), mean, (p**2).sum()),
        *(entropy(p), p.max(), 2 * mean, entropy(plus), variance),
    ]


def level_size(counts: np.ndarray, voxels: int) -> list[float]:
    """Sixteen features of a matrix of levels and sizes, both from 1."""
    i, j = np.mgrid[1 : counts.shape[0] + 1, 1 : counts.shape[1] + 1].astype(float)
    total = counts.sum()
    p = counts / total
    levels, sizes = counts.sum(axis=1), counts.sum(axis=0)
    level_mean, size_mean = (p * i).sum(), (p * j).sum()
    return [
        *((p / j**2).sum(), (p * j**2).sum(), (levels**2).sum() / total, (levels**2).sum() / total**2),
        *((sizes**2).sum() / total, (sizes**2).sum() / total**2, total / voxels),
        *((p * (i - level_mean) ** 2).sum(), (p * (j - size_mean) ** 2).sum(), entropy(p)),
        *((p / i**2).sum(), (p * i**2).sum(), (p / (i**2 * j**2)).sum(), (p * i**2 / j**2).sum()),
        *((p * j**2 / i**2).sum(), (p * i**2 * j**2).sum()),
    ]


def expected_features(image: np.ndarray, mask: np.ndarray, place: tuple[int, int, int]) -> list[float]:
    x = image.astype(np.float64)
    bins = np.floor(x / BIN_WIDTH)
    bins = np.where(mask, bins - bins[mask].min() + 1, 0).astype(int)
    highest = bins.max()
    cut = tuple(slice(k, k + 3) for k in place)
    cube = np.pad(bins, 1)[cut]
    inside = [tuple(c) for c in np.argwhere(cube > 0)]
    x = np.pad(x, 1)[cut][cube > 0]

    pair_features, run_features = [], []
    for step in STEPS:
        matrix, runs, voxels = np.zeros((highest, highest)), np.zeros((highest, 3)), 0
        for c in inside:
            other = tuple(np.add(c, step))
            if other in inside:
                matrix[cube[c] - 1, cube[other] - 1] += 1
                matrix[cube[other] - 1, cube[c] - 1] += 1
            before = tuple(np.subtract(c, step))
            if before in inside and cube[before] == cube[c]:
                continue
            length = 1
            while (after := tuple(np.add(c, np.multiply(length, step)))) in inside and cube[after] == cube[c]:
                length += 1
            runs[cube[c] - 1, length - 1] += 1
        voxels = len(inside)
        if matrix.any():
            pair_features.append(glcm_of_direction(matrix / matrix.sum()))
        # Two voxels of one line, be they neighbours or not.
        if any(tuple(np.add(c, np.multiply(k, step))) in inside for c in inside for k in (1, 2)):
            run_features.append(level_size(runs, voxels))

    zones, dependences = np.zeros((highest, 27)), np.zeros((highest, 27))
    for level in np.unique(cube[cube > 0]):
        labelled, count = ndimage.label(cube == level, np.ones((3, 3, 3)))
        for zone in range(1, count + 1):
            zones[level - 1, (labelled == zone).sum() - 1] += 1
        alike = ndimage.convolve((cube == level).astype(int), np.ones((3, 3, 3), int), mode="constant")
        for dependence in alike[cube == level]:
            dependences[level - 1, dependence - 1] += 1
    of_dependences = np.delete(level_size(dependences, len(inside)), [3, 6])
    return [
        *first_order(x, cube[cube > 0]),
        *(np.mean(pair_features, axis=0) if pair_features else np.zeros(23)),
        *(np.mean(run_features, axis=0) if run_features else np.zeros(16)),
        *level_size(zones, len(inside)),
        *of_dependences,
    ]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    scale = np.abs(expected) + 1e-3 * np.abs(expected).max(axis=0)
    worst = (np.abs(found - expected) / np.maximum(scale, 1e-6)).max(axis=0)
    assert (worst < 1e-4).all(), {FEATURES[k]: worst[k] for k in np.flatnonzero(worst >= 1e-4)}


@pytest.mark.parametrize("seed", range(2))
def test_features_are_those_of_their_definitions(seed: int) -> None:
    image = texture_image(seed)
    mask = patchy_mask(image.shape)
    places = np.argwhere(mask)[::20]
    voxels = np.zeros(mask.shape, bool)
    voxels[tuple(places.T)] = True
    found = Radiomics({"a": image}, mask, SPACING)(voxels)
    expected = np.array([expected_features(image, mask, tuple(place)) for place in places.tolist()])
    assert_close(found, expected)


@settings(max_examples=20, deadline=None)
@given(
    levels=st.lists(st.integers(0, 2), min_size=27, max_size=27),
    inside=st.lists(st.booleans(), min_size=27, max_size=27),
)
def test_few_levels_and_any_mask(levels: list[int], inside: list[bool]) -> None:
    image = 7 + BIN_WIDTH * np.array(levels, np.float32).reshape(3, 3, 3)
    mask = np.array(inside).reshape(3, 3, 3)
    mask[1, 1, 1] = True
    voxels = np.zeros_like(mask)
    voxels[1, 1, 1] = True
    found = Radiomics({"a": image}, mask, SPACING)(voxels)
    assert_close(found, np.array([expected_features(image, mask, (1, 1, 1))]))


def test_even_neighbourhood_has_closed_forms() -> None:
    f = features_at(np.full((3, 3, 3), 60, np.float32), np.ones((3, 3, 3), bool), (1, 1, 1))
    assert f["firstorder_Mean"] == f["firstorder_Median"] == f["firstorder_10Percentile"] == 60
    assert f["firstorder_Energy"] == 27 * 360**2
    assert f["firstorder_TotalEnergy"] == 3 * f["firstorder_Energy"]
    for name in (
        "firstorder_Entropy",
        "firstorder_Skewness",
        "glcm_Contrast",
        "glcm_JointEntropy",
        "glcm_Imc1",
    ):
        assert f[name] == pytest.approx(0, abs=1e-12)
    for name in ("glcm_Correlation", "glcm_JointEnergy", "glcm_MaximumProbability", "glcm_Autocorrelation"):
        assert f[name] == pytest.approx(1)
    # One zone of 27; the centre, 6 faces, 12 edges and 8 corners have 27, 18, 12 and 8 voxels of their level.
    assert f["glszm_LargeAreaEmphasis"] == 27**2
    assert f["glszm_ZonePercentage"] == pytest.approx(1 / 27)
    dependence = (27**2 + 6 * 18**2 + 12 * 12**2 + 8 * 8**2) / 27
    assert f["gldm_LargeDependenceEmphasis"] == pytest.approx(dependence)
    # Runs: 9 of three along 3 axes; 3 of three, 6 of two, 6 of one along 6 diagonals; 1, 6, 12 along 4.
    percentage = (3 * 9 + 6 * 15 + 4 * 19) / (13 * 27)
    assert f["glrlm_RunPercentage"] == pytest.approx(percentage)


def test_chessboard_has_closed_forms() -> None:
    odd = np.indices((3, 3, 3)).sum(axis=0) % 2
    f = features_at((BIN_WIDTH * odd).astype(np.float32), np.ones((3, 3, 3), bool), (1, 1, 1))
    # Neighbours along axes and space diagonals differ, those along face diagonals do not.
    assert f["glcm_Contrast"] == pytest.approx(7 / 13)
    assert f["glcm_DifferenceEntropy"] == pytest.approx(0)
    # Face diagonals join all voxels of one level, but never the two levels.
    assert f["glszm_ZonePercentage"] == pytest.approx(2 / 27)
    assert f["glszm_LargeAreaEmphasis"] == pytest.approx((13**2 + 14**2) / 2)


def test_voxel_alone_has_no_pairs() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    f = features_at(texture_image(shape=(3, 3, 3)), mask, (1, 1, 1))
    assert all(value == 0 for name, value in f.items() if name.startswith(("glcm", "glrlm")))
    assert f["glszm_ZonePercentage"] == 1


def test_only_the_region_counts() -> None:
    image = texture_image()
    mask = patchy_mask(image.shape)
    rewritten = np.where(mask, image, 1e4).astype(np.float32)
    found, other = (Radiomics({"a": x}, mask, SPACING)(mask) for x in (image, rewritten))
    assert np.array_equal(found, other)


def test_columns_are_named_by_image_and_voxels_come_in_order() -> None:
    images = {"one": texture_image(1), "two": texture_image(2)}
    mask = patchy_mask(images["one"].shape)
    voxels = mask & (np.random.default_rng(0).random(mask.shape) < 0.2)
    together = Radiomics(images, mask, SPACING)
    assert together.names[0] == "one_firstorder_10Percentile"
    alone = np.concatenate([Radiomics({"a": x}, mask, SPACING)(mask) for x in images.values()], axis=1)
    assert np.array_equal(together(voxels), alone[voxels[mask]])
    with pytest.raises(ValueError, match="outside the region"):
        together(~mask)


def test_threads_change_nothing() -> None:
    from predictgbm.growth.compilation import threads

    image, mask = texture_image(), np.ones((9, 8, 11), bool)
    with threads(1):
        one = Radiomics({"a": image}, mask, SPACING)(mask)
    assert np.array_equal(one, Radiomics({"a": image}, mask, SPACING)(mask))


def test_wavelet_is_orthonormal_with_vanishing_moments() -> None:
    h = radiomics.COIF1
    assert h.sum() == pytest.approx(np.sqrt(2))
    for shift in range(3):
        assert (h[: 6 - 2 * shift] * h[2 * shift :]).sum() == pytest.approx(float(shift == 0))
    high = h[::-1] * (-1.0) ** np.arange(6)
    for power in range(2):
        assert (high * np.arange(6) ** power).sum() == pytest.approx(0, abs=1e-12)


def test_bands_keep_energy_and_direction() -> None:
    # Along an even axis the bands of the undecimated transform have twice the energy of the image.
    image = texture_image(shape=(8, 6, 10))
    bands = {name: band for name, band in filter_image(image, SPACING) if name.startswith("wavelet")}
    assert sorted(bands) == [f"wavelet-{a}{b}{c}" for a in "HL" for b in "HL" for c in "HL"]
    energy = sum((band.astype(float) ** 2).sum() for band in bands.values())
    assert energy == pytest.approx(8 * (image.astype(float) ** 2).sum(), rel=1e-5)
    # What changes along the first axis alone is not seen by bands that are high along another.
    line = np.broadcast_to(image[:, :1, :1], image.shape)
    for name, band in filter_image(line.copy(), SPACING):
        if name.startswith("wavelet") and "H" in name[-2:]:
            assert band == pytest.approx(0, abs=1e-3)


def test_laplacian_of_a_wave() -> None:
    # cos(kx) is multiplied by -k² exp(-k² s² / 2), here times s².
    x = np.arange(120) * 1.5
    k = 2 * np.pi / 45
    image = np.broadcast_to(100 * np.cos(k * x), (8, 8, 120)).astype(np.float32)
    found = dict(filter_image(image, SPACING))
    for sigma in radiomics.SIGMAS_MM:
        band = found[f"log-sigma-{sigma:.0f}-0-mm-3D"]
        expected = -((k * sigma) ** 2) * np.exp(-0.5 * (k * sigma) ** 2) * image
        assert band[4, 4, 30:-30] == pytest.approx(expected[4, 4, 30:-30], abs=0.03 * np.abs(expected).max())


def test_contrast_is_normalised_in_the_brain() -> None:
    image, brain = 3 * texture_image() + 1000, patchy_mask((9, 8, 11))
    scaled = radiomics.normalise_contrast(image, brain)
    assert scaled[brain].mean() == pytest.approx(0, abs=1e-2)
    assert scaled[brain].std() == pytest.approx(radiomics.SCALE, rel=1e-4)
    assert not scaled[~brain].any()


@pytest.mark.parametrize("whole", [True, False])
def test_features_are_those_of_pyradiomics(whole: bool) -> None:
    extraction = pytest.importorskip(
        "radiomics.featureextractor", reason="pyradiomics is not installed; the definitions are tested above"
    )
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)
    image = texture_image(shape=(7, 6, 8))
    mask = np.pad(np.ones((5, 4, 6), bool), 1) if whole else patchy_mask(image.shape)
    extractor = extraction.RadiomicsFeatureExtractor(
        binWidth=BIN_WIDTH, voxelArrayShift=SHIFT, kernelRadius=1, maskedKernel=True, minimumROIDimensions=1
    )
    extractor.disableAllFeatures()
    for group in ("firstorder", "glcm", "glrlm", "glszm", "gldm"):
        extractor.enableFeatureClassByName(group)
    extractor.enableImageTypes(Original={}, LoG={"sigma": list(radiomics.SIGMAS_MM)}, Wavelet={})
    itk = [SimpleITK.GetImageFromArray(array.T.copy()) for array in (image, mask.astype(np.uint8))]
    for array in itk:
        array.SetSpacing(SPACING)
    result = extractor.execute(*itk, voxelBased=True)
    # It crops its maps to the region and one voxel around.
    inside = mask[tuple(slice(max(0, k.min() - 1), k.max() + 2) for k in np.nonzero(mask))]
    region = Radiomics(dict(filter_image(image, SPACING)), mask, SPACING)
    found = dict(zip(region.names, region(mask).T, strict=True))
    assert found.keys() <= result.keys()
    for name, values in found.items():
        theirs = SimpleITK.GetArrayFromImage(result[name]).T[inside]
        known = np.isfinite(theirs)
        if name.endswith("glcm_Imc1"):
            # Where a direction has one level it divides rounding errors by each other.
            known &= found[name.replace("Imc1", "DifferenceEntropy")] > 0.3
        # JointAverage is no number there where a direction has no pair.
        assert known.mean() > 0.5 or name.endswith("Imc1")
        scale = np.abs(theirs[known]) + 1e-2 * np.abs(theirs[known]).max(initial=1e-6)
        assert (np.abs(values[known] - theirs[known]) / scale).max(initial=0) < 1e-4, name
