"""Tests of all pairs and the bars of the critical-difference diagram, against scikit-posthocs."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from numpy.typing import NDArray

from predictgbm.statistics.multiple import cliques, friedman, pairs, pairwise

mpl.use("agg")


def coverages(
    n: int, seed: int, step: float = 1 / 64, equal: float = 0.0, rise: float = 1.5
) -> NDArray[np.float64]:
    """Return n patients x 5 models of rising coverage, in steps that floats hold exactly; a part of them all alike."""
    rng = np.random.default_rng(seed)
    values = (
        np.floor(rng.uniform(0.2, 0.7, (n, 1)) / step + rng.normal(np.arange(5) * rise, 12, (n, 5))) * step
    )
    alike = rng.random(n) < equal
    values[alike] = values[alike, :1]
    return values


@pytest.mark.parametrize(
    ("coverage", "rel"),
    [
        # Neither zeros nor ties: both are exact.
        pytest.param(np.random.default_rng(1).normal(np.arange(5) * 0.2, 1, (20, 5)), 1e-9, id="exact"),
        # More differences than are counted out: the normal approximation with the same corrections.
        pytest.param(coverages(1200, 2, equal=0.4), 1e-9, id="normal, zeros and ties"),
        # As many patients as the paper has: exact here, approximate there.
        pytest.param(coverages(243, 3, equal=0.5), 0.05, id="paper, zeros and ties"),
    ],
)
def test_pairs_equal_scikit_posthocs(coverage: NDArray[np.float64], rel: float) -> None:
    tests, upper = pairwise(coverage), pairs(coverage.shape[1])
    plain, adjusted = (
        scikit_posthocs.posthoc_wilcoxon(list(coverage.T), zero_method="pratt", p_adjust=adjust).to_numpy()[
            upper
        ]
        for adjust in (None, "holm")
    )
    assert plain.min() < 0.05 < plain.max()
    assert tests.p == pytest.approx(plain, rel=rel)
    assert tests.p_adjusted == pytest.approx(adjusted, rel=rel)


@pytest.mark.parametrize("seed", range(4))
def test_bars_of_the_diagram_equal_scikit_posthocs(seed: int) -> None:
    coverage = coverages(150, seed, equal=0.3, rise=4)
    tests, upper = pairwise(coverage), pairs(5)
    p = np.ones((5, 5))
    p[upper] = tests.p_adjusted
    names = [f"m{i}" for i in range(5)]
    ranks = friedman(coverage).mean_ranks
    matrix = pd.DataFrame(np.minimum(p, p.T), index=names, columns=names)
    diagram = scikit_posthocs.critical_difference_diagram(dict(zip(names, ranks, strict=True)), matrix)
    drawn = [np.concatenate([line.get_xdata() for line in bar]) for bar in diagram["crossbars"]]
    groups = cliques(tests.significant, 5)
    expected = sorted((ranks[list(group)].min(), ranks[list(group)].max()) for group in groups)
    found = sorted((bar.min(), bar.max()) for bar in drawn)
    assert len(found) == len(expected) > 0
    assert np.array(found) == pytest.approx(np.array(expected))
