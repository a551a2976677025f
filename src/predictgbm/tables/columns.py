"""What tables are made of: columns with type, unit and range, and those that several tables have."""

from __future__ import annotations

from dataclasses import dataclass

from predictgbm.options import AXES
from predictgbm.patterns import PATTERNS

#: Numbers are written with this many significant digits: beyond them, results differ between processors.
SIGNIFICANT_DIGITS = 10

#: Type of a column -> pandas type that keeps missing values and reads back the same from CSV and Parquet.
PANDAS_TYPES: dict[str, str] = {
    "string": "string",
    "integer": "Int64",
    "number": "Float64",
    "boolean": "boolean",
}


def round_digits(value: float) -> float:
    """Return a number with :data:`SIGNIFICANT_DIGITS`, as tables and facts show it."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


class TableError(ValueError):
    """Rows do not fit the table they are meant for; the message names table, column and value."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    name : str
    type : str
        ``string``, ``integer``, ``number`` or ``boolean``.
    unit : str
        Unit of a quantity; ``1`` for a pure number, empty for text and truth values.
    description : str
    minimum, maximum : float, optional
        Range of the values, both ends included.
    values : tuple of str, optional
        The only values allowed.
    required : bool
        Whether every row must have a value.
    """

    name: str
    type: str
    unit: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] | None = None
    required: bool = False


@dataclass(frozen=True)
class Table:
    """One table: what a row is, the columns that name it, and all columns in order."""

    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    @property
    def dtypes(self) -> dict[str, str]:
        """Pandas type of each column, to be given to :func:`pandas.read_csv`."""
        return {column.name: PANDAS_TYPES[column.type] for column in self.columns}


def text(
    name: str, description: str, required: bool = False, values: tuple[str, ...] | None = None
) -> Column:
    """Return a column of words."""
    return Column(name, "string", "", description, values=values, required=required)


def fraction(name: str, description: str) -> Column:
    """Return a column of numbers from 0 to 1."""
    return Column(name, "number", "1", description, minimum=0.0, maximum=1.0)


def amount(name: str, unit: str, description: str) -> Column:
    """Return a column of numbers from 0 on."""
    return Column(name, "number", unit, description, minimum=0.0)


def count(name: str, unit: str, description: str) -> Column:
    """Return a column of whole numbers from 0 on, all of them given."""
    return Column(name, "integer", unit, description, minimum=0, required=True)


def difference(name: str, description: str) -> Column:
    """Return a column of numbers from -1 to 1."""
    return Column(name, "number", "1", description, minimum=-1.0, maximum=1.0)


def rank(name: str, description: str, required: bool = False) -> Column:
    """Return a column of whole numbers from 1 on."""
    return Column(name, "integer", "1", description, minimum=1.0, required=required)


#: Columns that several tables have.
patient = text("patient", "Identifier of the patient, as in the samplesheet", required=True)
session = text("session", "Pre-operative exam that the models saw")
cohort = text("cohort", "Data set the patient belongs to; empty if the samplesheet gives none")
followup = text("followup_session", "Follow-up exam that the plan is scored against")
days = Column("days", "integer", "d", "Time from the pre-operative exam to that follow-up, in whole days")
model = text("model", "Name of the model, as in assets/models.yml", required=True)
axis = text(
    "axis",
    "What is set otherwise: margin of the standard of care; definition of recurrence; rule that picks the follow-up; "
    "least interval to it; method that registers it; barriers and volume of a guideline",
    required=True,
    values=AXES,
)
setting = text("setting", "The other choice: mm, definition, rule, days, method, or guideline", required=True)
tumor_core = amount("tumor_core_ml", "ml", "Volume of the pre-operative tumour core (enhancing and necrosis)")
tumor_whole = amount("tumor_whole_ml", "ml", "Volume of the whole pre-operative tumour (core and oedema)")
recurrence = amount("recurrence_enhancing_ml", "ml", "Volume of the enhancing recurrence")
com_distance = amount(
    "com_distance_cm",
    "cm",
    "Distance between the centres of mass of the pre-operative core and of the recurrence",
)
planned = Column(
    "fraction", "number", "1", "Planned volume over the volume of the plan", minimum=0.0, required=True
)


def pattern(description: str, name: str = "pattern") -> Column:
    """Return a column of patterns of recurrence."""
    return text(
        name,
        f"{description}: central, in-field, marginal or distant, by the part that the standard plan covers "
        "(95 %, 80 %, 20 % or more, less)",
        values=tuple(PATTERNS),
    )
