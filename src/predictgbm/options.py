"""Choices that a user has: how the evaluation can be set otherwise, and how lists are given to a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

#: Choices that give another recurrence: rule that picks the follow-up, least interval to it, method that registers it.
RECURRENCE_AXES = ("followup", "interval", "registration")
#: All that the evaluation depends on besides the models.
AXES = ("margin", "definition", *RECURRENCE_AXES, "guideline")

Value = TypeVar("Value")


def listed(convert: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """Return a reader of values separated by commas; ``none`` is the empty list.

    The reader raises what ``convert`` raises for one of the values, ``ValueError`` as a rule.
    """

    def values(text: str) -> list[Value]:
        return [] if text == "none" else [convert(part) for part in text.split(",")]

    return values
