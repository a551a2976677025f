"""Limited-memory BFGS on one large float32 vector; that of scipy works in float64 and copies, too much for fields."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Function = Callable[[Vector], tuple[float, Vector]]

#: Steps remembered.
MEMORY = 8
#: A step must reach this share of the decrease that the slope promises (Armijo).
SUFFICIENT = 1e-4
LARGEST_HALVINGS = 12


def dot(a: Vector, b: Vector) -> float:
    """Return the inner product, summed in pieces in float64."""
    return float(sum(float(np.dot(x, y)) for x, y in zip(_pieces(a), _pieces(b), strict=True)))


def _pieces(a: Vector) -> list[Vector]:
    return [a[start : start + 65536] for start in range(0, len(a), 65536)]


def minimise(
    function: Function, start: Vector, iterations: int, tolerance: float
) -> Iterator[tuple[float, Vector]]:
    """Yield value and place after every step of L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4).

    Parameters
    ----------
    function : callable
        Takes a vector, returns its value and its gradient, which it must not touch again.
    start : float32 array of shape (n,)
    iterations : int
        Largest number of steps.
    tolerance : float
        Ends when ten steps together have lowered the value by less than this share.
    """
    place = start
    value, gradient = function(place)
    memory: deque[tuple[Vector, Vector, float]] = deque(maxlen=MEMORY)
    history = [value]
    for _ in range(iterations):
        direction = _direction(gradient, memory)
        slope = dot(direction, gradient)
        if not slope < 0:
            if not memory:
                return
            memory.clear()
            continue
        length = 1.0 if memory else min(1.0, 1.0 / np.sqrt(-slope))
        for _ in range(LARGEST_HALVINGS):
            candidate = place + np.float32(length) * direction
            trial, after = function(candidate)
            if np.isfinite(trial) and trial <= value + SUFFICIENT * length * slope:
                break
            # Minimum of the parabola through value, slope and the trial, kept within a tenth and a half.
            guess = -slope * length / (2 * ((trial - value) / length - slope)) if np.isfinite(trial) else 0.0
            length = float(np.clip(guess, 0.1 * length, 0.5 * length))
        else:
            if not memory:
                return
            memory.clear()
            continue
        change = after - gradient
        np.multiply(direction, np.float32(length), out=direction)
        curvature = dot(direction, change)
        if curvature > 1e-10 * dot(change, change):
            memory.append((direction, change, curvature))
        place, gradient, value = candidate, after, trial
        history.append(value)
        yield value, place
        if len(history) > 10 and history[-11] - value < tolerance * abs(value):
            return


def _direction(gradient: Vector, memory: deque[tuple[Vector, Vector, float]]) -> Vector:
    direction = -gradient
    factors = []
    for step, change, curvature in reversed(memory):
        factor = dot(step, direction) / curvature
        factors.append(factor)
        direction -= np.float32(factor) * change
    if memory:
        _, change, curvature = memory[-1]
        direction *= np.float32(curvature / dot(change, change))
    for (step, change, curvature), factor in zip(memory, reversed(factors), strict=True):
        direction += np.float32(factor - dot(change, direction) / curvature) * step
    return direction
