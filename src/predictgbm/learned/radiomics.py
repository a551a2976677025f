"""Voxel-wise radiomics: first-order and texture features of the 3 x 3 x 3 neighbourhood of each voxel.

Definitions, names and defaults are those of pyradiomics 3 (van Griethuysen JJM et al. Cancer Research 77:e104-e107,
2017, doi:10.1158/0008-5472.CAN-17-0339; https://pyradiomics.readthedocs.io), which follow the Image Biomarker
Standardisation Initiative (Zwanenburg A et al. Radiology 295:328-338, 2020, doi:10.1148/radiol.2020191145) but for
its discretisation and kurtosis: voxel-based extraction with kernel radius 1, a masked kernel, a fixed bin width,
symmetric co-occurrence at distance 1, and the mean over the 13 directions.

It differs where pyradiomics has no number: in a neighbourhood without two adjacent voxels, co-occurrence and run-length
features are 0; and directions without a pair are left out of JointAverage as they are of the other features.

Two things are left out. The maximal correlation coefficient (MCC) needs the eigenvalues of 13 matrices for each voxel
and takes four times as long as the other 87 features together. Local binary patterns have no more than ten values in
two dimensions and eight samples, which one bin of 25 holds together: their texture would be constant.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import SimpleITK
from numba import prange
from numpy.typing import NDArray
from scipy import ndimage

from predictgbm.growth.compilation import kernel, serial_kernel
from predictgbm.masks import bounding_box
from predictgbm.neighbours import DIRECTIONS
from predictgbm.normalisation import normalise

# The types of compiled functions' arguments are those numba sees.
# mypy: disable-error-code="no-untyped-def"

Spacing = tuple[float, float, float]

#: What one standard deviation of an image in the brain becomes, and what is added before intensities are squared.
SCALE, SHIFT = 100.0, 300.0
BIN_WIDTH = 25.0
#: Widths of the Laplacian of Gaussian, in mm.
SIGMAS_MM = (1.0, 3.0, 5.0)
#: Low-pass filter of the wavelet coif1: Daubechies I. SIAM Journal on Mathematical Analysis 24:499-519, 1993.
COIF1 = np.array(
    [np.sqrt(7) - 3, 1 - np.sqrt(7), 14 - 2 * np.sqrt(7), 14 + 2 * np.sqrt(7), 5 + np.sqrt(7), 1 - np.sqrt(7)]
) / (16 * np.sqrt(2))

_FIRST_ORDER = (
    "10Percentile 90Percentile Energy Entropy InterquartileRange Kurtosis Maximum MeanAbsoluteDeviation Mean Median "
    "Minimum Range RobustMeanAbsoluteDeviation RootMeanSquared Skewness TotalEnergy Uniformity Variance"
)
_GLCM = (
    "Autocorrelation ClusterProminence ClusterShade ClusterTendency Contrast Correlation DifferenceAverage "
    "DifferenceEntropy DifferenceVariance Id Idm Idmn Idn Imc1 Imc2 InverseVariance JointAverage JointEnergy "
    "JointEntropy MaximumProbability SumAverage SumEntropy SumSquares"
)
# Three classes are one set of formulas on a matrix of grey levels and sizes: of runs, zones and dependences.
_GLRLM = (
    "ShortRunEmphasis LongRunEmphasis GrayLevelNonUniformity GrayLevelNonUniformityNormalized RunLengthNonUniformity "
    "RunLengthNonUniformityNormalized RunPercentage GrayLevelVariance RunVariance RunEntropy "
    "LowGrayLevelRunEmphasis HighGrayLevelRunEmphasis ShortRunLowGrayLevelEmphasis ShortRunHighGrayLevelEmphasis "
    "LongRunLowGrayLevelEmphasis LongRunHighGrayLevelEmphasis"
)
_GLSZM = (
    "SmallAreaEmphasis LargeAreaEmphasis GrayLevelNonUniformity GrayLevelNonUniformityNormalized "
    "SizeZoneNonUniformity SizeZoneNonUniformityNormalized ZonePercentage GrayLevelVariance ZoneVariance ZoneEntropy "
    "LowGrayLevelZoneEmphasis HighGrayLevelZoneEmphasis SmallAreaLowGrayLevelEmphasis "
    "SmallAreaHighGrayLevelEmphasis LargeAreaLowGrayLevelEmphasis LargeAreaHighGrayLevelEmphasis"
)
# Two of the sixteen say nothing of dependences: every voxel has one.
_GLDM = (
    "SmallDependenceEmphasis LargeDependenceEmphasis GrayLevelNonUniformity DependenceNonUniformity "
    "DependenceNonUniformityNormalized GrayLevelVariance DependenceVariance DependenceEntropy LowGrayLevelEmphasis "
    "HighGrayLevelEmphasis SmallDependenceLowGrayLevelEmphasis SmallDependenceHighGrayLevelEmphasis "
    "LargeDependenceLowGrayLevelEmphasis LargeDependenceHighGrayLevelEmphasis"
)
_CLASSES = {"firstorder": _FIRST_ORDER, "glcm": _GLCM, "glrlm": _GLRLM, "glszm": _GLSZM, "gldm": _GLDM}
#: Features of one image, ``class_Feature``, in the order of their columns.
FEATURES = tuple(f"{group}_{name}" for group, names in _CLASSES.items() for name in names.split())

# Places of a neighbourhood are numbered in C order.
_PLACES = list(itertools.product((-1, 0, 1), repeat=3))
_INDEX = {place: p for p, place in enumerate(_PLACES)}


def _moved(step: Sequence[int]) -> list[int]:
    return [_INDEX.get((x + step[0], y + step[1], z + step[2]), -1) for x, y, z in _PLACES]


#: Place after each place in each direction, and whether a line in that direction begins at it; -1: outside.
_NEXT = np.array([_moved(step) for step in DIRECTIONS.tolist()])
_BEGINS = np.array([[q < 0 for q in _moved([-s for s in step])] for step in DIRECTIONS.tolist()])
#: n log2 n of counts: there are at most 27 voxels, 36 ordered pairs and 54 levels of pairs.
_N_LOG_N = np.array([n * np.log2(n) if n else 0.0 for n in range(55)])
_BLOCK = 256


def normalise_contrast(image: NDArray[np.floating], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return an image with mean 0 and standard deviation :data:`SCALE` in the brain, 0 outside."""
    return np.float32(SCALE) * normalise(image, brain, "zscore")


def filter_image(image: NDArray[np.float32], spacing: Spacing) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield an image and what filters make of it, by their names in pyradiomics.

    The image itself; its Laplacians of Gaussians, times the square of their width; the eight bands of one level of
    the stationary wavelet transform by coif1, H high and L low along each axis in turn, periodic at the edges.

    Parameters
    ----------
    image : float32 array of shape (nx, ny, nz), at least 4 voxels along each axis
    spacing : voxel size along each axis, in mm
    """
    yield "original", image
    itk = SimpleITK.GetImageFromArray(image.T)
    itk.SetSpacing([float(s) for s in spacing])
    laplacian = SimpleITK.LaplacianRecursiveGaussianImageFilter()
    laplacian.SetNormalizeAcrossScale(True)
    for sigma in SIGMAS_MM:
        laplacian.SetSigma(sigma)
        name = f"log-sigma-{sigma}".replace(".", "-") + "-mm-3D"
        yield name, SimpleITK.GetArrayFromImage(laplacian.Execute(itk)).T.astype(np.float32)
    cut = tuple(slice(n) for n in image.shape)
    even = np.pad(image, [(0, n % 2) for n in image.shape], "wrap")
    bands = {"": even}
    high = COIF1[::-1] * (-1.0) ** np.arange(1, COIF1.size + 1)
    for axis in range(3):
        bands = {
            name + letter: ndimage.convolve1d(band, taps, axis, mode="wrap")
            for name, band in bands.items()
            for letter, taps in (("L", COIF1), ("H", high))
        }
    for name, band in bands.items():
        yield f"wavelet-{name}", band[cut]


class Radiomics:
    """Features of voxels of several images, each of which is discretised once.

    Parameters
    ----------
    images : mapping of float32 arrays of shape (nx, ny, nz)
        By name; see :func:`normalise_contrast`.
    mask : bool array of the same shape, not empty
        Region of interest: what lies outside takes no part in any neighbourhood. Its lowest intensity is in bin 1.
    spacing : voxel size along each axis, in mm

    Attributes
    ----------
    names : ``image_class_Feature`` of each column
    """

    def __init__(
        self, images: Mapping[str, NDArray[np.float32]], mask: NDArray[np.bool_], spacing: Spacing
    ) -> None:
        self.names = [f"{image}_{feature}" for image in images for feature in FEATURES]
        self._mask = mask
        self._volume = float(np.prod(spacing))
        self._box = bounding_box(mask)
        self._inside = np.pad(mask[self._box], 1)
        self._images = []
        for image in images.values():
            values = np.pad(np.asarray(image[self._box], np.float32), 1)
            bins = np.floor(values / BIN_WIDTH).astype(np.int32)
            bins -= bins[self._inside].min() - 1
            self._images.append((values, np.where(self._inside, bins, 0)))

    def __call__(self, voxels: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the features of the voxels of a mask within the region, in C order; shape (n, columns)."""
        if (voxels & ~self._mask).any():
            raise ValueError("features are asked for voxels outside the region of interest")
        at = np.flatnonzero(np.pad(voxels[self._box], 1))
        _, ny, nz = self._inside.shape
        steps = np.array(_PLACES) @ np.array([ny * nz, nz, 1])
        out = np.empty((len(self._images), at.size, len(FEATURES)), np.float32)
        for features, (values, bins) in zip(out, self._images, strict=True):
            _describe(values.ravel(), bins.ravel(), at, steps, int(bins.max()), self._volume, features)
        return np.moveaxis(out, 0, 1).reshape(at.size, len(self.names))


@kernel
def _describe(values, bins, at, steps, highest, volume, out):
    """Write the features of the voxels with these flat indices; bin 0 is outside."""
    blocks = (at.size + _BLOCK - 1) // _BLOCK
    for block in prange(blocks):
        x = np.empty(27)
        grey = np.empty(27, np.int64)
        level = np.empty(27, np.int64)
        sizes = np.zeros((27, 28), np.int64)
        counts = np.zeros(27, np.int64)
        cells = np.zeros((27, 27), np.int64)
        differences = np.zeros(highest + 1, np.int64)
        sums = np.zeros(2 * highest + 1, np.int64)
        features = np.zeros(out.shape[1])
        for v in range(block * _BLOCK, min(at.size, (block + 1) * _BLOCK)):
            n = 0
            for p in range(27):
                level[p] = bins[at[v] + steps[p]]
                if level[p] > 0:
                    x[n] = values[at[v] + steps[p]]
                    grey[n] = level[p]
                    n += 1
            x[:n].sort()
            m = _distinct(grey[:n])
            for p in range(27):
                level[p] = np.searchsorted(grey[:m], level[p]) if level[p] > 0 else -1
            features[:] = 0.0
            _first_order(x[:n], level, counts, volume, features[:18])
            _cooccurrence(level, grey[:m], highest, counts, cells, differences, sums, features[18:41])
            _runs(level, grey[:m], sizes, features[41:57])
            _zones(level, grey[:m], n, sizes, features[57:73])
            _dependences(level, grey[:m], n, sizes, features[73:])
            for f in range(features.size):
                out[v, f] = features[f]


@serial_kernel
def _distinct(grey):
    """Sort in place, move the distinct values to the front, and return their number."""
    grey.sort()
    m = 1
    for k in range(1, grey.size):
        if grey[k] != grey[m - 1]:
            grey[m] = grey[k]
            m += 1
    return m


@serial_kernel
def _percentile(x, share):
    """Interpolate linearly between sorted values."""
    place = share * (x.size - 1)
    low = min(int(place), x.size - 1)
    high = min(low + 1, x.size - 1)
    return x[low] + (place - low) * (x[high] - x[low])


@serial_kernel
def _first_order(x, level, counts, volume, out):
    """Features of sorted intensities."""
    n = x.size
    for p in range(27):
        if level[p] >= 0:
            counts[level[p]] += 1
    logs, squares = 0.0, 0.0
    for k in range(27):
        logs += _N_LOG_N[counts[k]]
        squares += counts[k] ** 2
        counts[k] = 0
    mean, energy = 0.0, 0.0
    for k in range(n):
        mean += x[k] / n
        energy += (x[k] + SHIFT) ** 2
    m1, m2, m3, m4 = 0.0, 0.0, 0.0, 0.0
    for k in range(n):
        d = x[k] - mean
        m1 += abs(d) / n
        m2 += d**2 / n
        m3 += d**3 / n
        m4 += d**4 / n
    p10, p90 = _percentile(x, 0.1), _percentile(x, 0.9)
    inner, robust, kept = 0.0, 0.0, 0
    for k in range(n):
        if p10 <= x[k] <= p90:
            inner += x[k]
            kept += 1
    for k in range(n):
        if p10 <= x[k] <= p90:
            robust += abs(x[k] - inner / kept) / kept
    flat = x[0] == x[n - 1]
    out[0], out[1], out[2] = p10, p90, energy
    out[3] = np.log2(n) - logs / n
    out[4] = _percentile(x, 0.75) - _percentile(x, 0.25)
    out[5] = 0.0 if flat else m4 / m2**2
    out[6], out[7], out[8], out[9] = x[n - 1], m1, mean, _percentile(x, 0.5)
    out[10], out[11], out[12] = x[0], x[n - 1] - x[0], robust
    out[13] = np.sqrt(energy / n)
    out[14] = 0.0 if flat else m3 / m2**1.5
    out[15], out[16], out[17] = volume * energy, squares / n**2, m2


@serial_kernel
def _cooccurrence(level, grey, highest, counts, cells, differences, sums, out):
    """Mean over the directions of the features of pairs of neighbours; the scratch arrays are zero before and after."""
    m = grey.size
    used = 0
    for step in _NEXT:
        pairs = 0
        mean = 0.0
        for p in range(27):
            q = step[p]
            if q >= 0 and level[p] >= 0 and level[q] >= 0:
                a, b = min(level[p], level[q]), max(level[p], level[q])
                cells[a, b] += 1
                pairs += 1
                mean += 0.5 * (grey[a] + grey[b])
        if pairs == 0:
            continue
        used += 1
        mean /= pairs
        moment2, covariance, largest, joint_logs, joint_squares, difference = 0.0, 0.0, 0, 0.0, 0.0, 0.0
        for a in range(m):
            for b in range(a, m):
                c = cells[a, b]
                if c == 0:
                    continue
                i, j = float(grey[a]), float(grey[b])
                d, s, w = j - i, i + j - 2 * mean, c / pairs
                counts[a] += c
                counts[b] += c
                differences[grey[b] - grey[a]] += c
                sums[grey[a] + grey[b]] += c
                # An unequal pair is two entries of the symmetric matrix, an equal one is twice in one entry.
                entry = 2 * c if a == b else c
                entries = 1 if a == b else 2
                largest = max(largest, entry)
                joint_logs += entries * _N_LOG_N[entry]
                joint_squares += entries * entry**2
                moment2 += w * 0.5 * ((i - mean) ** 2 + (j - mean) ** 2)
                covariance += w * (i - mean) * (j - mean)
                difference += w * d
                out[0] += w * i * j
                out[1] += w * s**4
                out[2] += w * s**3
                out[3] += w * s**2
                out[4] += w * d**2
                out[9] += w / (1 + d)
                out[10] += w / (1 + d**2)
                out[11] += w / (1 + d**2 / highest**2)
                out[12] += w / (1 + d / highest)
                if d > 0:
                    out[15] += w / d**2
        level_logs, difference_logs, sum_logs = 0.0, 0.0, 0.0
        for a in range(m):
            level_logs += _N_LOG_N[counts[a]]
            counts[a] = 0
            for b in range(a, m):
                if cells[a, b] > 0:
                    d = float(grey[b] - grey[a])
                    out[8] += (d - difference) ** 2 * cells[a, b] / pairs
                    difference_logs += _N_LOG_N[differences[grey[b] - grey[a]]]
                    sum_logs += _N_LOG_N[sums[grey[a] + grey[b]]]
                    differences[grey[b] - grey[a]] = 0
                    sums[grey[a] + grey[b]] = 0
                    cells[a, b] = 0
        total = 2.0 * pairs
        entropy = np.log2(total) - level_logs / total
        joint = np.log2(total) - joint_logs / total
        # The matrix is symmetric, so both entropies of independence of the definition are twice that of one level.
        information = max(2 * entropy - joint, 0.0)
        # Rounding must not make something of a direction with one level.
        varied = level_logs < _N_LOG_N[2 * pairs]
        out[5] += covariance / moment2 if varied else 1.0
        out[6] += difference
        out[7] += np.log2(pairs) - difference_logs / pairs
        out[13] -= information / entropy if varied else 0.0
        out[14] += np.sqrt(1 - np.exp(-2 * information))
        out[16] += mean
        out[17] += joint_squares / total**2
        out[18] += joint
        out[19] += largest / total
        out[20] += 2 * mean
        out[21] += np.log2(pairs) - sum_logs / pairs
        out[22] += moment2
    if used > 0:
        for f in range(23):
            out[f] /= used


@serial_kernel
def _emphases(sizes, grey, largest, voxels, out):
    """Add the features of a matrix of grey levels and sizes, and clear it; column j holds size j."""
    total, logs, level_squares, mean_level, mean_level2 = 0, 0.0, 0.0, 0.0, 0.0
    size_squares, mean_size, mean_size2 = 0.0, 0.0, 0.0
    for j in range(1, largest + 1):
        column = 0
        for a in range(grey.size):
            column += sizes[a, j]
        total += column
        size_squares += column**2
    for a in range(grey.size):
        row = 0
        i2 = float(grey[a]) ** 2
        for j in range(1, largest + 1):
            c = sizes[a, j]
            if c == 0:
                continue
            sizes[a, j] = 0
            row += c
            logs += _N_LOG_N[c]
            j2 = float(j) ** 2
            w = c / total
            mean_size += w * j
            mean_size2 += w * j2
            out[0] += w / j2
            out[1] += w * j2
            out[10] += w / i2
            out[11] += w * i2
            out[12] += w / (i2 * j2)
            out[13] += w * i2 / j2
            out[14] += w * j2 / i2
            out[15] += w * i2 * j2
        level_squares += row**2
        # Levels from the first on keep the difference of squares exact where levels are high.
        mean_level += row / total * (grey[a] - grey[0])
        mean_level2 += row / total * (grey[a] - grey[0]) ** 2
    out[2] += level_squares / total
    out[3] += level_squares / total**2
    out[4] += size_squares / total
    out[5] += size_squares / total**2
    out[6] += total / voxels
    out[7] += mean_level2 - mean_level**2
    out[8] += mean_size2 - mean_size**2
    out[9] += np.log2(total) - logs / total


@serial_kernel
def _runs(level, grey, sizes, out):
    """Mean over the directions of the features of runs of one grey level."""
    used = 0
    for direction in range(13):
        step, begins = _NEXT[direction], _BEGINS[direction]
        voxels = 0
        longest_line = 0
        for p in range(27):
            if not begins[p]:
                continue
            q, run, line = p, 0, 0
            while q >= 0:
                if level[q] >= 0:
                    run += 1
                    line += 1
                    following = step[q]
                    if following < 0 or level[following] != level[q]:
                        sizes[level[q], run] += 1
                        run = 0
                q = step[q]
            voxels += line
            longest_line = max(longest_line, line)
        # A direction in which no line has two voxels says nothing; as in pyradiomics it is left out.
        if longest_line > 1:
            used += 1
            _emphases(sizes, grey, 3, voxels, out)
        else:
            for a in range(grey.size):
                sizes[a, 1] = 0
    if used > 0:
        for f in range(16):
            out[f] /= used


@serial_kernel
def _zones(level, grey, n, sizes, out):
    """Features of zones: connected voxels, by faces, edges or corners, of one grey level."""
    root = np.arange(27)
    for step in _NEXT:
        for p in range(27):
            q = step[p]
            if q >= 0 and level[p] >= 0 and level[p] == level[q]:
                a, b = p, q
                while root[a] != a:
                    a = root[a]
                while root[b] != b:
                    b = root[b]
                root[max(a, b)] = min(a, b)
    size = np.zeros(27, np.int64)
    for p in range(27):
        a = p
        while root[a] != a:
            a = root[a]
        size[a] += 1
    for p in range(27):
        if level[p] >= 0 and root[p] == p:
            sizes[level[p], size[p]] += 1
    _emphases(sizes, grey, n, n, out)


@serial_kernel
def _dependences(level, grey, n, sizes, out):
    """Features of dependences: of each voxel, itself and the neighbours of the same grey level."""
    size = np.ones(27, np.int64)
    for step in _NEXT:
        for p in range(27):
            q = step[p]
            if q >= 0 and level[p] >= 0 and level[p] == level[q]:
                size[p] += 1
                size[q] += 1
    for p in range(27):
        if level[p] >= 0:
            sizes[level[p], size[p]] += 1
    features = np.zeros(16)
    _emphases(sizes, grey, n, n, features)
    f = 0
    for k in range(16):
        if k != 3 and k != 6:
            out[f] = features[k]
            f += 1
