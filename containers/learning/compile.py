"""Compile the numerical kernels of the models that learn while the image is built, so that no task has to.

GlioMap is asked once about a made-up tumour, with a tree of a single leaf. The machine code goes to NUMBA_CACHE_DIR; a
processor of another kind than this one's compiles anew, as if it were not there.
"""

import numpy as np

from predictgbm.labels import Tumor
from predictgbm.learned import gliomap

SIZE, SPACING = 24, (4.0, 4.0, 4.0)

axes = np.indices((SIZE,) * 3) - SIZE // 2
radius = np.sqrt((axes**2).sum(axis=0))
brain = radius < SIZE // 2 - 1
segmentation = np.where(radius < 3, Tumor.ENHANCING, 0).astype(np.uint8)
contrasts = {name: (brain * radius).astype(np.float32) for name in gliomap.CONTRASTS}
whole, real = np.array([-1], np.int32), np.zeros(1, np.float32)
leaf = gliomap.Forest(np.zeros(1, np.int32), whole, real, whole, whole, real + 0.5)
columns = len(gliomap.survey(contrasts, segmentation, brain, SPACING).radiomics.names)
model = gliomap.Model((leaf,), (frozenset(),), (0.1,), columns, SPACING)
gliomap.predict(
    **contrasts, tumor_seg=segmentation, brain_mask=brain, spacing=SPACING, patient="made up", weights=model
)
print("gliomap: compiled")
