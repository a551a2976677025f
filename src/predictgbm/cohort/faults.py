"""What is wrong with an input, where, and what is expected instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault of a samplesheet or of a file named in it.

    Attributes
    ----------
    line : int
        Line of the sheet, counted from 1 as a text editor does.
    column : str
        Column of the sheet; ``header``, ``row`` or ``sheet`` where no single column is at fault.
    what : str
        What is wrong.
    expected : str
        What is expected instead.
    patient : str or None
        Patient of the row, None where the fault is not that of one patient.
    """

    line: int
    column: str
    what: str
    expected: str
    patient: str | None = None


def format_fault(fault: Fault, sheet: str) -> str:
    """Return the fault on one line: ``sheet.csv:3: t1c: what is wrong; expected ...``."""
    whose = f" (patient {fault.patient})" if fault.patient else ""
    return f"{sheet}:{fault.line}: {fault.column}: {fault.what}{whose}; expected {fault.expected}"
