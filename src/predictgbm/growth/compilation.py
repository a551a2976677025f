"""Compilation of the numerical kernels, cached on disk so that the tasks of a run do not compile again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Idle threads of the OpenMP pool must sleep, not spin: on cores shared with other tasks, spinning was measured to
# stretch a step of 0.2 ms to 8 ms. It has to be set before the pool is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numba

#: Contraction to fused multiply-adds and free association inside one voxel; NaN and infinity keep their meaning.
FAST_MATH = {"contract", "nsz", "arcp", "reassoc", "afn"}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` for all cores, with its ``prange`` loops in parallel.

    The machine code is kept beside the module or, where that folder is read-only, in the user's cache folder or
    in ``NUMBA_CACHE_DIR``. Where none of them can be written, it is compiled anew in each process.
    """
    return _compile(function, parallel=True)


def serial_kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` for one core, as :func:`kernel` does for all."""
    return _compile(function, parallel=False)


def _compile(function: Callable[..., Any], *, parallel: bool) -> Any:
    options: dict[str, Any] = {
        "parallel": parallel,
        "fastmath": FAST_MATH,
        "error_model": "numpy",
        "nogil": True,
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder to write to
        return numba.njit(**options)(function)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run kernels on at most ``count`` threads within the block."""
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(count, before)))
    try:
        yield
    finally:
        numba.set_num_threads(before)
