"""GlioMap: how probably each voxel around the tumour recurs, told from its radiomics by an ensemble of trees.

Sources: Cepeda S, Luppino LT, Pérez-Núñez A, et al. Predicting regions of local recurrence in glioblastomas using
voxel-based radiomic features of multiparametric postoperative MRI. Cancers 15:1894, 2023, doi:10.3390/cancers15061894:
peritumoral voxels where the follow-up enhances are recurrence, the others are not, and trees learn from
:mod:`~predictgbm.learned.radiomics` of each. PREDICT-GBM, arXiv 2509.13360, for what its benchmark adds: the
apparent diffusion coefficient, the correction by distance, and the core ahead of everything.

:mod:`~predictgbm.learned.gliomap_training` trains it on the user's cohort. What scikit-learn has learned there is kept
as plain arrays, so that predicting needs nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numba import prange
from numpy.typing import NDArray

from predictgbm.growth import ModelError, Prediction
from predictgbm.growth.compilation import kernel
from predictgbm.images import MissingInputError
from predictgbm.labels import CORE, Tumor, region
from predictgbm.learned.radiomics import Radiomics, Spacing, filter_image, normalise_contrast
from predictgbm.learned.training import SPACING_TOLERANCE
from predictgbm.masks import bounding_box
from predictgbm.planning import distance_um

CONTRASTS = ("t1", "t1c", "t2", "flair", "adc")
#: Distance to tumour or cavity at which the correction is a half, in mm.
HALF_MM = 20.0
#: The peritumoral region ends here, in mm: beyond, the correction is below 0.02.
REACH_MM = 22.0
#: What holds the classifiers in the folder of a training.
FILE = "gliomap.npz"
#: Voxels whose features are in memory at a time.
CHUNK = 10_000


class Forest(NamedTuple):
    """A classifier: the nodes of all trees, one tree after the other.

    Attributes
    ----------
    roots : int32 array of shape (trees,)
    feature : int32 array of shape (nodes,); -1 in a leaf
    threshold : float32 array; a voxel goes left if its feature is not above it
    left, right : int32 arrays; greater than the node itself
    value : float32 array; share of recurrence among the samples of a node
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float32]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of recurrence of voxels in a balanced sample, shape (n,)."""
        out = np.empty(len(features), np.float32)
        _descend(features, *self, out)
        return out

    def check(self, columns: int) -> None:
        """Demand that every path through the trees ends, within the arrays; raises ValueError."""
        nodes = np.arange(self.feature.size)
        inner = self.feature >= 0
        low = np.minimum(self.left, self.right)[inner] > nodes[inner]
        high = np.maximum(self.left, self.right)[inner] < nodes.size
        sound = {array.shape for array in self[1:]} == {nodes.shape} and self.roots.ndim == nodes.ndim == 1
        if not (sound and self.roots.size and low.all() and high.all()):
            raise ValueError("the trees are damaged")
        if not (self.roots.min() >= 0 and self.roots.max() < nodes.size and self.feature.max() < columns):
            raise ValueError("the trees are damaged")


@dataclass(frozen=True)
class Model:
    """A trained GlioMap: one classifier for each split of the cohort.

    Attributes
    ----------
    forests : classifiers
    seen : for each classifier, the patients that it was trained on
    share : for each classifier, the mean share of recurrence in their peritumoral regions
    columns : number of features
    spacing : voxel size in mm of the exams
    """

    forests: tuple[Forest, ...]
    seen: tuple[frozenset[str], ...]
    share: tuple[float, ...]
    columns: int
    spacing: Spacing

    def __call__(self, features: NDArray[np.float32], classifiers: Sequence[int]) -> NDArray[np.float32]:
        """Return the mean probability of recurrence by some of the classifiers, shape (n,).

        Their sample was balanced; the odds are brought back to the share of recurrence in the region: Dal Pozzolo A et
        al. IEEE Symposium Series on Computational Intelligence 159-166, 2015, doi:10.1109/SSCI.2015.33.
        """
        total = np.zeros(len(features))
        for c in classifiers:
            p, share = self.forests[c](features), self.share[c]
            total += p * share / (p * share + (1 - p) * (1 - share))
        return (total / len(classifiers)).astype(np.float32)

    def unseen(self, patient: str) -> list[int]:
        """Return the classifiers that never saw a patient.

        Raises
        ------
        ModelError
            If all did.
        """
        found = [c for c, seen in enumerate(self.seen) if patient not in seen]
        if not found:
            raise ModelError(
                f"every classifier of GlioMap was trained on patient {patient}; it can be judged only by one that "
                "was not: hold the patient out in one of the splits"
            )
        return found

    @staticmethod
    def join(models: Sequence[Model]) -> Model:
        """Return one model with the classifiers of several, which have the same features."""
        forests, seen, share = zip(*((m.forests, m.seen, m.share) for m in models), strict=True)
        first = models[0]
        return Model(sum(forests, ()), sum(seen, ()), sum(share, ()), first.columns, first.spacing)

    def save(self, path: str | os.PathLike[str], **record: Any) -> None:
        """Write the model to an ``.npz`` file of plain arrays, with further ones beside it."""
        patients = sorted(set().union(*self.seen))
        arrays: dict[str, Any] = {
            "columns": self.columns,
            "spacing": np.array(self.spacing, float),
            "patients": np.array(patients, np.str_),
            "seen": np.array([[p in seen for p in patients] for seen in self.seen]),
            "share": np.array(self.share),
        }
        for c, forest in enumerate(self.forests):
            arrays |= {f"{c}.{name}": array for name, array in forest._asdict().items()}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays, **record)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Model:
        """Read what :meth:`save` wrote, a file or the folder of a training; nothing in it is executed.

        Raises
        ------
        ModelError
            If the file cannot be read or holds something else.
        """
        path = Path(path) / FILE if Path(path).is_dir() else Path(path)
        try:
            with np.load(path, allow_pickle=False) as archive:
                columns = int(archive["columns"])
                x, y, z = archive["spacing"].tolist()
                patients, seen, share = (archive[name] for name in ("patients", "seen", "share"))
                forests = tuple(
                    Forest(*(archive[f"{c}.{name}"] for name in Forest._fields)) for c in range(len(share))
                )
            for forest in forests:
                forest.check(columns)
            saw = tuple(frozenset(patients[row].tolist()) for row in seen)
            if not len(saw) == len(forests) > 0:
                raise ValueError("not every classifier says whom it saw")
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, BadZipFile) as error:
            raise ModelError(
                f"{path}: cannot be read as a model of GlioMap ({error}); train one on your cohort"
            ) from error
        return Model(forests, saw, tuple(share.tolist()), columns, (x, y, z))


def correct_distance(distance_mm: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return 1/2 + 1/2 tanh(-(d - 20)) of distances to tumour or cavity: 1 near them, 0 far from them."""
    return 0.5 + 0.5 * np.tanh(HALF_MM - distance_mm)


class Surroundings(NamedTuple):
    """An exam as GlioMap sees it.

    Attributes
    ----------
    tumor : bool array of shape (nx, ny, nz), core and cavity
    region : bool array of the same shape, the peritumoral region
    distance : float array of the same shape, distance to the tumour in mm
    radiomics : of the region, on the part of the grid that ``box`` cuts out
    box : slices
    spacing : voxel size in mm
    """

    tumor: NDArray[np.bool_]
    region: NDArray[np.bool_]
    distance: NDArray[np.float32]
    radiomics: Radiomics
    box: tuple[slice, slice, slice]
    spacing: Spacing

    def describe(self, voxels: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the features of voxels of the region, in C order, shape (n, columns)."""
        return self.radiomics(voxels[self.box])


def survey(
    contrasts: Mapping[str, NDArray[np.floating[Any]] | None],
    tumor_seg: NDArray[np.integer[Any]],
    brain_mask: NDArray[np.bool_],
    spacing: Spacing,
) -> Surroundings:
    """Find the peritumoral region of an exam, and prepare its radiomics.

    The region is the brain outside core and cavity up to 22 mm from them, so that it always holds the standard plan
    of 15 mm, and what is oedema does not hang on a reader.

    Parameters
    ----------
    contrasts
        An array of shape (nx, ny, nz) for each of :data:`CONTRASTS`; any units.
    tumor_seg, brain_mask, spacing
        As :func:`predict`.

    Raises
    ------
    MissingInputError
        If there is no ADC.
    ModelError
        If there is no core or cavity, or no brain around it.
    """
    inside = np.asarray(brain_mask, bool)
    adc = contrasts.get("adc")
    if adc is None or not np.any(adc[inside]):
        raise MissingInputError(
            "the exam has no diffusion image (ADC), which GlioMap needs: it runs on the diffusion subset only"
        )
    tumor = region(tumor_seg, (*CORE, Tumor.CAVITY))
    if not tumor.any():
        raise ModelError(
            "the tumour segmentation has neither core (labels 1 and 3) nor cavity (label 4), around which GlioMap "
            "looks; check the segmentation and its label convention"
        )
    distance = (distance_um(tumor, spacing) / 1000).astype(np.float32)
    around = inside & ~tumor & (distance <= REACH_MM)
    if not around.any():
        raise ModelError(
            f"no brain lies within {REACH_MM:g} mm of the tumour; check that the brain mask and the segmentation "
            "belong to the same exam"
        )
    box = bounding_box(inside)
    images: dict[str, NDArray[np.float32]] = {}
    for name in CONTRASTS:
        image = normalise_contrast(np.asarray(contrasts[name])[box], inside[box])
        images |= {f"{name}_{filtered}": band for filtered, band in filter_image(image, spacing)}
    return Surroundings(tumor, around, distance, Radiomics(images, around[box], spacing), box, spacing)


@kernel
def _descend(features, roots, feature, threshold, left, right, value, out):  # type: ignore[no-untyped-def]
    """Write the mean over the trees of the value of each voxel's leaf."""
    for v in prange(out.size):
        total = 0.0
        for node in roots:
            while feature[node] >= 0:
                node = left[node] if features[v, feature[node]] <= threshold[node] else right[node]
            total += value[node]
        out[v] = total / roots.size


def _chunks(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.bool_]]:
    """Yield masks of at most CHUNK voxels that make up a mask, in C order."""
    at = np.flatnonzero(mask)
    for start in range(0, at.size, CHUNK):
        part = np.zeros(mask.size, bool)
        part[at[start : start + CHUNK]] = True
        yield part.reshape(mask.shape)


def predict(
    *,
    t1: NDArray[np.floating[Any]],
    t1c: NDArray[np.floating[Any]],
    t2: NDArray[np.floating[Any]],
    flair: NDArray[np.floating[Any]],
    adc: NDArray[np.floating[Any]] | None = None,
    tumor_seg: NDArray[np.integer[Any]],
    brain_mask: NDArray[np.bool_],
    spacing: Spacing,
    patient: str,
    weights: Model | str | os.PathLike[str],
    seed: int = 0,
) -> Prediction:
    """Predict the probability of recurrence around the tumour by the classifiers that never saw the patient.

    Parameters
    ----------
    t1, t1c, t2, flair, adc : float arrays of shape (nx, ny, nz)
        Contrasts, in any units.
    tumor_seg : integer array of shape (nx, ny, nz)
        Canonical tumour labels.
    brain_mask : bool array of shape (nx, ny, nz)
    spacing
        Voxel size in mm, may be anisotropic.
    patient
        Name by which the model may know the patient; one that it does not know is predicted by all classifiers.
    weights
        Folder that a training left, a file in it, or the model itself.
    seed
        Not used: nothing is random.

    Returns
    -------
    Prediction
        Probability, 0 to 1: 1 in core and cavity, which so come before everything else; in the peritumoral region
        that of the classifiers times :func:`correct_distance`; 0 elsewhere.

    Raises
    ------
    MissingInputError
        If there is no ADC.
    ModelError
        If there is no core or cavity, no brain around it, the model cannot be used, or all of its classifiers were
        trained on this patient.
    """
    used = weights if isinstance(weights, Model) else Model.load(weights)
    if not np.allclose(spacing, used.spacing, rtol=SPACING_TOLERANCE):
        raise ModelError(
            f"the exam has voxels of {spacing} mm, those of the training had {used.spacing}; prepare the exam on such "
            "a grid or train on exams like it"
        )
    classifiers = used.unseen(patient)
    contrasts = {"t1": t1, "t1c": t1c, "t2": t2, "flair": flair, "adc": adc}
    around = survey(contrasts, tumor_seg, brain_mask, spacing)
    if len(around.radiomics.names) != used.columns:
        raise ModelError(
            f"the model of GlioMap knows {used.columns} features, this version has "
            f"{len(around.radiomics.names)}; train it anew"
        )
    result = around.tumor.astype(np.float32)
    for voxels in _chunks(around.region):
        result[voxels] = used(around.describe(voxels), classifiers)
    result[around.region] *= correct_distance(around.distance[around.region])
    return Prediction(
        result,
        {
            "classifiers": len(classifiers),
            "share_of_recurrence": float(np.mean([used.share[c] for c in classifiers])),
            "region_ml": float(np.count_nonzero(around.region) * np.prod(spacing) / 1000),
        },
    )
