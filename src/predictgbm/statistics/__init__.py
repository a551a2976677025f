"""Statistics of a benchmark: paired tests, effects, bootstrap intervals, rankings, and the tables made of them."""

from predictgbm.statistics.bootstrap import bca_interval
from predictgbm.statistics.multiple import cliques, friedman, pairwise
from predictgbm.statistics.paired import (
    Shift,
    count_zeros_and_ties,
    hodges_lehmann,
    holm,
    rank_biserial,
    sign_flip_p,
    signed_rank_p,
    spearman,
)

__all__ = [
    "Shift",
    "bca_interval",
    "cliques",
    "count_zeros_and_ties",
    "friedman",
    "hodges_lehmann",
    "holm",
    "pairwise",
    "rank_biserial",
    "sign_flip_p",
    "signed_rank_p",
    "spearman",
]
