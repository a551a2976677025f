"""Making a table from rows and checking it, and the data dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from predictgbm.tables.catalogue import TABLES
from predictgbm.tables.columns import PANDAS_TYPES, TableError, round_digits

PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (Integral,),
    "number": (Real,),
    "boolean": (bool, np.bool_),
}


def build(name: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Make a table from rows, with its columns in order, typed, sorted by its key and checked.

    Parameters
    ----------
    name
        One of :data:`predictgbm.tables.TABLES`.
    rows
        Column name -> value. Missing columns, None, NaN and empty text are missing values; other names are
        ignored.

    Raises
    ------
    TableError
        If a value has the wrong type or is out of range, a required value is missing, or a key occurs twice.
    """
    table = TABLES[name]
    rows = list(rows)
    data = {}
    for column in table.columns:
        values = [row.get(column.name) for row in rows]
        try:
            data[column.name] = _typed(values, column.type)
        except (TypeError, ValueError) as error:
            raise TableError(f"table {name}, column {column.name}: {error}") from error
    frame = pd.DataFrame(data, columns=table.names)
    frame = frame.sort_values(list(table.key), kind="stable", ignore_index=True)
    return check(name, frame)


def check(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` if it is a valid table ``name``.

    Raises
    ------
    TableError
        Naming the first rows at fault, the column and its value.
    """
    import pandera.errors

    try:
        return schema(name).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
    key = list(TABLES[name].key)
    faults = []
    for case in cases.drop_duplicates(["index", "check"]).head(5).itertuples():
        where, what = f"table {name}", f"{case.column} is {_plain(case.failure_case)}, {case.check}"
        if not pd.isna(case.index):
            row = frame.loc[int(case.index), key]
            where += "".join(f", {column} {_plain(row[column])}" for column in key)
        if case.check == "multiple_fields_uniqueness":
            what = "occurs twice; give each of them once"
        elif case.check == "not_nullable":
            what = f"{case.column} is missing"
        faults.append(f"{where}: {what}")
    raise TableError("; ".join(dict.fromkeys(faults)))


@lru_cache
def schema(name: str) -> Any:
    """Return the pandera schema of table ``name``: columns in order, types, ranges, unique key."""
    import pandera.pandas as pa

    columns = {}
    for column in TABLES[name].columns:
        checks = []
        if column.values is not None:
            checks.append(pa.Check.isin(column.values, error=f"expected one of {', '.join(column.values)}"))
        if column.minimum is not None:
            checks.append(pa.Check.ge(column.minimum, error=f"expected at least {column.minimum:g}"))
        if column.maximum is not None:
            checks.append(pa.Check.le(column.maximum, error=f"expected at most {column.maximum:g}"))
        columns[column.name] = pa.Column(
            PANDAS_TYPES[column.type],
            checks,
            nullable=not column.required,
            description=f"{column.description} [{column.unit}]" if column.unit else column.description,
        )
    return pa.DataFrameSchema(
        columns,
        strict=True,
        ordered=True,
        unique=list(TABLES[name].key),
        name=name,
        description=TABLES[name].description,
    )


def data_dictionary() -> pd.DataFrame:
    """Return every column of every table: ``table, column, type, unit, description``."""
    return pd.DataFrame(
        [
            (name, column.name, column.type, column.unit, column.description)
            for name, table in TABLES.items()
            for column in table.columns
        ],
        columns=["table", "column", "type", "unit", "description"],
    )


def _plain(value: Any) -> str:
    """Say a value as a table shows it."""
    return f"{value:g}" if isinstance(value, (int, float)) else "empty" if value is pd.NA else str(value)


def _typed(values: Sequence[Any], kind: str) -> pd.Series:
    """Return values as a column of the given type, missing values included.

    Raises
    ------
    ValueError
        If a value is of another type.
    """
    missing = np.array([v is None or v is pd.NA or v == "" or v != v for v in values], bool)
    accepted = PYTHON_TYPES[kind]
    for value, absent in zip(values, missing, strict=True):
        if not absent and (
            not isinstance(value, accepted) or (kind != "boolean" and isinstance(value, bool))
        ):
            raise ValueError(f"{value!r} is not of type {kind}")
    if kind == "number":
        # Rounding the distinct values alone is what makes long curves quick.
        distinct, where = np.unique(
            [np.nan if m else float(v) for v, m in zip(values, missing, strict=True)], return_inverse=True
        )
        if np.isinf(distinct).any():
            raise ValueError("holds an infinite number")
        rounded = np.array([round_digits(v) for v in distinct.tolist()], np.float64)
        return pd.Series(pd.arrays.FloatingArray(rounded[where.ravel()], missing))
    return pd.Series(
        [None if m else v for v, m in zip(values, missing, strict=True)], dtype=PANDAS_TYPES[kind]
    )
