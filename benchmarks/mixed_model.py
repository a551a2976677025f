#!/usr/bin/env python3
"""Print how often the mixed model rejects, at 5 %, that there is no gain on average where there is none.

    python benchmarks/mixed_model.py [--cohorts 2000]

Cohorts of three data sets whose mean gains are drawn around zero. Told are the part of cohorts rejected by Student's t,
as the package does, and by the normal approximation of the same estimate.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from predictgbm.statistics.robustness import RANDOM_EFFECT, mixed_model

SIZES = (40, 61, 142)
SD_WITHIN = 0.1
SD_BETWEEN = (0.01, 0.02, 0.04, 0.08, 0.16)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohorts", type=int, default=2000, help="(default: %(default)s)")
    args = parser.parse_args()
    groups = np.repeat(np.arange(len(SIZES)), SIZES)
    widest = stats.t.ppf(0.975, len(SIZES) - 1) / stats.norm.ppf(0.975)
    print("sd between / within   variance estimated   rejected by t   by the normal approximation")
    for sd in SD_BETWEEN:
        generator = np.random.default_rng(0)
        fitted, by_t, by_normal = [], [], []
        for _ in range(args.cohorts):
            gain = generator.normal(0, sd, len(SIZES))[groups]
            found = mixed_model(gain + generator.normal(0, SD_WITHIN, gain.size), groups)
            fitted.append(found.fit == RANDOM_EFFECT)
            by_t.append(found.p < 0.05)
            # Without a variance between data sets the interval is that of the mean of all patients already.
            half = (found.high - found.low) / 2 / (widest if fitted[-1] else 1)
            by_normal.append(abs(found.estimate) > half)
        parts = [np.mean(part) for part in (fitted, by_t, by_normal)]
        print(f"{sd / SD_WITHIN:>19.1f}{parts[0]:>21.1%}{parts[1]:>16.1%}{parts[2]:>30.1%}")


if __name__ == "__main__":
    main()
