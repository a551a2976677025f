"""Compile the numerical kernels while the image is built, so that no task has to.

Each model is run once, for a single iteration where it takes their number, on a made-up tumour in a small brain, with
the array types that a task reads; so is the registration, where the tools around it are installed. The machine code
goes to NUMBA_CACHE_DIR; a processor of another kind than this one's compiles anew, as if it were not there.
"""

import inspect
from importlib.util import find_spec

import numpy as np

from predictgbm.growth import fisher_kpp, gliodil, loti
from predictgbm.labels import Tumor

SIZE = 24

axes = np.indices((SIZE,) * 3) - SIZE // 2
radius = np.sqrt((axes**2).sum(axis=0))
brain = radius < SIZE // 2 - 1
white = np.where(brain, 0.6, 0).astype(np.float32)
segmentation = np.select(
    [radius < 2, radius < 3, radius < 5], [Tumor.NECROSIS, Tumor.ENHANCING, Tumor.EDEMA], 0
).astype(np.uint8)
exam = {
    "tumor_seg": segmentation,
    "brain_mask": brain,
    "wm": white,
    "gm": np.where(brain, 0.3, 0).astype(np.float32),
    "csf": np.where(brain, 0.1, 0).astype(np.float32),
}
isotropic = np.zeros((*brain.shape, 6), np.float32)
isotropic[..., [0, 2, 5]] = 1
for model, further in ((loti, {}), (fisher_kpp, {}), (fisher_kpp, {"tensor": isotropic}), (gliodil, {})):
    names = inspect.signature(model.predict).parameters
    inputs = {name: array for name, array in exam.items() if name in names} | further
    short = {"iterations": 1} if "iterations" in names else {}
    model.predict(**inputs, **short, spacing=(4.0, 4.0, 4.0), seed=0)
    print(f"{model.__name__}: compiled")

if find_spec("picsl_greedy"):
    from predictgbm.images import Image
    from predictgbm.registration.deformable import Level, Settings, register_deformable
    from predictgbm.registration.longitudinal import similarity
    from predictgbm.registration.transforms import compose, invert, resample

    head = Image((white + radius.astype(np.float32) / SIZE) * brain, np.diag([4.0, 4, 4, 1]), "made up")
    quick = Settings(levels=(Level(4, 1),))
    forward, _ = register_deformable(
        head, head, np.eye(4), brain, brain, fixed_ignore=radius < 3, settings=quick
    )
    joined = compose(head, forward, np.eye(4))
    resample(head, head, invert(joined, head))
    similarity(head.data, head.data, brain)
    print("registration: compiled")
