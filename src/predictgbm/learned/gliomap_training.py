"""Training of :mod:`predictgbm.learned.gliomap`: samples of an exam, one classifier of a split, the folder of all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier

import predictgbm
from predictgbm.growth import ModelError
from predictgbm.images import MissingInputError
from predictgbm.learned.gliomap import CONTRASTS, FILE, REACH_MM, Forest, Model, Surroundings, survey
from predictgbm.learned.radiomics import Spacing
from predictgbm.learned.splits import check_splits
from predictgbm.learned.training import (
    TrainingError,
    TrainingExam,
    check_numbers,
    demand_one_size,
    fill_settings,
)

#: Samples that each leaf holds at least.
LEAF = 10


@dataclass(frozen=True)
class Settings:
    """What may be chosen of a training.

    Attributes
    ----------
    samples : most voxels of recurrence that one exam gives, and of no recurrence
    trees : of one classifier
    """

    samples: int = 600
    trees: int = 100

    def __post_init__(self) -> None:
        check_numbers(self, {"samples": 1, "trees": 1})


class Sample(NamedTuple):
    """What one exam gives to the training.

    Attributes
    ----------
    patient : whose exam it is
    features : float32 array of shape (n, columns); as many voxels of recurrence as of none
    recurrence : bool array of shape (n,)
    share : of recurrence in the peritumoral region, 0 to 1
    spacing : voxel size in mm
    """

    patient: str
    features: NDArray[np.float32]
    recurrence: NDArray[np.bool_]
    share: float
    spacing: Spacing


def draw_sample(
    patient: str,
    surroundings: Surroundings,
    recurrence: NDArray[np.bool_],
    seed: int = 0,
    most: int = Settings.samples,
) -> Sample:
    """Draw as many voxels of recurrence as of none from the peritumoral region of an exam.

    Parameters
    ----------
    patient
        Name of the patient, by which a classifier knows later whom it saw.
    surroundings
        Of the exam, see :func:`survey`.
    recurrence : bool array of shape (nx, ny, nz)
        Enhancing tumour of the registered follow-up.
    seed
        Draws the voxels.
    most
        Voxels of either kind; fewer where the region has fewer. Without recurrence in the region there is none.
    """
    candidates = np.flatnonzero(surroundings.region)
    recurs = recurrence.ravel()[candidates]
    count = min(most, int(recurs.sum()), int((~recurs).sum()))
    rng = np.random.default_rng(seed)
    chosen = np.zeros(surroundings.region.size, bool)
    for kind in (recurs, ~recurs):
        chosen[rng.choice(candidates[kind], count, replace=False)] = True
    mask = chosen.reshape(surroundings.region.shape)
    return Sample(
        patient, surroundings.describe(mask), recurrence[mask], float(recurs.mean()), surroundings.spacing
    )


def train(samples: Sequence[Sample], seed: int = 0, trees: int = Settings.trees, jobs: int = 1) -> Model:
    """Train one classifier.

    Extremely randomised trees: Geurts P, Ernst D, Wehenkel L. Machine Learning 63:3-42, 2006,
    doi:10.1007/s10994-006-6226-1.

    Parameters
    ----------
    samples
        Of its exams, see :func:`draw_sample`.
    seed
        Of the trees.
    trees
        How many.
    jobs
        Cores to use; the result does not depend on it.

    Raises
    ------
    TrainingError
        If there is no recurrence to learn from, or voxel sizes differ.
    """
    if not any(sample.recurrence.any() for sample in samples):
        raise TrainingError(
            f"none of the {len(samples)} exams has recurrence within {REACH_MM:g} mm of the tumour, there is nothing "
            "to learn from; give more patients"
        )
    demand_one_size([sample.spacing for sample in samples])
    classifier = ExtraTreesClassifier(trees, min_samples_leaf=LEAF, random_state=seed, n_jobs=jobs)
    classifier.fit(
        np.concatenate([sample.features for sample in samples]),
        np.concatenate([sample.recurrence for sample in samples]),
    )
    return Model(
        (_join([tree.tree_ for tree in classifier.estimators_]),),
        (frozenset(sample.patient for sample in samples),),
        (float(np.mean([sample.share for sample in samples])),),
        samples[0].features.shape[1],
        samples[0].spacing,
    )


def _join(trees: Sequence[Any]) -> Forest:
    """Return scikit-learn's trees as one forest."""
    sizes = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])

    def collect(attribute: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, attribute) for tree in trees])

    exact = collect("threshold")
    threshold = exact.astype(np.float32)
    # Features are float32: rounded down, a threshold divides them as before.
    threshold[threshold > exact] = np.nextafter(threshold[threshold > exact], np.float32(-np.inf))
    left, right = (collect(side) for side in ("children_left", "children_right"))
    leaf = left < 0
    shift = np.repeat(roots, sizes)
    value = collect("value")[:, 0]
    return Forest(
        roots.astype(np.int32),
        np.where(leaf, -1, collect("feature")).astype(np.int32),
        threshold,
        np.where(leaf, -1, left + shift).astype(np.int32),
        np.where(leaf, -1, right + shift).astype(np.int32),
        (value[:, 1] / value.sum(axis=1)).astype(np.float32),
    )


def train_network(
    training: Iterable[TrainingExam],
    validation: Iterable[TrainingExam],
    *,
    split: str,
    seed: int,
    settings: Mapping[str, Any],
    file: Path,
    report: Callable[[int, float, float], None],
) -> None:
    """Train one classifier; see :mod:`predictgbm.learned.training`. Exams that the model refuses are passed over.

    They are those without ADC, above all. Losses are the cross-entropy of balanced samples; validation decides nothing.

    Parameters
    ----------
    settings
        Fields of :class:`Settings` that are not to have their default.

    Raises
    ------
    TrainingError
        If a setting is unknown, or as :func:`train`.
    """
    chosen = fill_settings(Settings, settings)
    drawn = [
        [sample for exam in part if (sample := _sample(exam, seed, chosen.samples))]
        for part in (training, validation)
    ]
    if not drawn[0]:
        raise TrainingError("no exam of the training part has ADC, which the model needs")
    model = train(drawn[0], seed, chosen.trees, int(os.environ.get("OMP_NUM_THREADS", "1")))
    losses = [_cross_entropy(model, samples) for samples in drawn]
    report(1, *losses)
    # JSON has no NaN.
    history = [[loss if np.isfinite(loss) else None for loss in losses]]
    record = {
        "split": split,
        "seed": seed,
        "settings": dict(settings),
        "validation": sorted({sample.patient for sample in drawn[1]}),
        "history": history,
    }
    model.save(file, record=np.array(json.dumps(record)))


def _sample(exam: TrainingExam, seed: int, most: int) -> Sample | None:
    contrasts = {name: exam.inputs.get(name) for name in CONTRASTS}
    try:
        around = survey(contrasts, exam.inputs["tumor_seg"], exam.inputs["brain_mask"], exam.spacing)
    except (ModelError, MissingInputError) as error:
        print(f"patient {exam.patient} is passed over: {error}", flush=True)
        return None
    return draw_sample(exam.patient, around, exam.recurrence, seed, most)


def _cross_entropy(model: Model, samples: Sequence[Sample]) -> float:
    """Return the mean cross-entropy of balanced samples, in nats; ln 2 is that of a coin. NaN where there are none."""
    if not samples:
        return float("nan")
    found = model.forests[0](np.concatenate([sample.features for sample in samples])).clip(1e-6, 1 - 1e-6)
    came = np.concatenate([sample.recurrence for sample in samples])
    return float(-np.mean(np.log(np.where(came, found, 1 - found)))) if came.size else float("nan")


def assemble(
    folder: str | os.PathLike[str],
    networks: Iterable[str | os.PathLike[str]],
    splits: Mapping[str, Any],
    cohorts: Mapping[str, str],
    simulated: bool = False,
) -> dict[str, Any]:
    """Make a model folder of trained classifiers and return its card; see :mod:`predictgbm.learned.training`.

    Raises
    ------
    ModelError
        If a file cannot be read, or a classifier saw a patient whom its split holds out.
    SplitError
        If the splits do not fit the patients.
    """
    check_splits(splits, cohorts)
    card: dict[str, Any] = {
        "model": "gliomap",
        "name": Path(folder).name,
        "version": 1,
        "code": predictgbm.__version__,
        "splits": dict(splits),
        "cohorts": dict(cohorts),
        "simulated": simulated,
        "networks": {},
    }
    models = []
    for path in map(Path, networks):
        models.append(Model.load(path))
        (seen,) = models[-1].seen
        with np.load(path) as archive:
            record = json.loads(str(archive["record"]))
        if leaked := sorted(seen & set(splits["splits"][record["split"]]["held_out"])):
            raise ModelError(f"{path}: was trained on {', '.join(leaked)}, whom its split holds out")
        card["networks"][f"split-{record['split']}_seed-{record['seed']}"] = {
            **record,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "training": sorted(seen),
        }
    if not models:
        raise ModelError("no network was given")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    Model.join(models).save(folder / FILE)
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card
