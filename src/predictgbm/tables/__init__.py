"""The tables of a benchmark: every column with its type, unit and meaning, in one place.

The data dictionary, the checks before a table is written and the types of its columns in CSV and Parquet are
all made from :data:`TABLES`; :mod:`predictgbm.tables.catalogue` says in which module a table is declared.
"""

from predictgbm.tables.catalogue import TABLES
from predictgbm.tables.columns import TableError, round_digits
from predictgbm.tables.comparisons import COVARIATES
from predictgbm.tables.frames import build, data_dictionary
from predictgbm.tables.ranking import PANELS, RANKING_METHODS

__all__ = [
    "COVARIATES",
    "PANELS",
    "RANKING_METHODS",
    "TABLES",
    "TableError",
    "build",
    "data_dictionary",
    "round_digits",
]
