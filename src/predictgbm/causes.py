"""Likely causes of low coverage: rules with fixed limits, all of them here.

A rule says what a patient has that makes coverage hard or doubtful, for every model alike; it does not prove that this
is why a model failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from predictgbm.patterns import MEASURABLE_ML, MULTIFOCAL


@dataclass(frozen=True)
class Rule:
    """One likely cause.

    Attributes
    ----------
    cause, title : str
        Name in the tables, and in the report.
    measured : str
        What is compared with the limit, in words.
    unit : str
        Its unit; ``%`` for a part, whose limit and values are 0 to 1, empty for a number.
    limit : float
    above : bool
        True: present from the limit on; False: present below it.
    """

    cause: str
    title: str
    measured: str
    unit: str
    limit: float
    above: bool

    def holds(self, value: float) -> bool:
        """Whether the cause is present at this value."""
        return value >= self.limit if self.above else value < self.limit

    @property
    def said(self) -> str:
        """The rule in words."""
        limit = f"{100 * self.limit:g}" if self.unit == "%" else f"{self.limit:.3g}"
        limit = f"{limit} {self.unit}".rstrip()
        return f"{self.measured}: {f'{limit} or more' if self.above else f'below {limit}'}"


RULES: tuple[Rule, ...] = (
    Rule("tiny_recurrence", "tiny recurrence", "enhancing recurrence", "ml", MEASURABLE_ML, False),
    Rule("distant_recurrence", "distant recurrence", "part of its volume in distant lesions", "%", 0.5, True),
    Rule("multifocal", "multifocal", f"lesions of at least {MEASURABLE_ML:.2f} ml", "", MULTIFOCAL, True),
    # A ball of 5 ml is 21 mm wide: with a margin of 15 mm it is a fourteenth of its plan.
    Rule("tiny_core", "tiny tumour core", "tumour core", "ml", 5.0, False),
    Rule("long_interval", "long interval", "time to the follow-up", "d", 365, True),
    Rule(
        "outside_brain",
        "outside the brain mask",
        "part of the recurrence outside the brain mask",
        "%",
        0.05,
        True,
    ),
    Rule("registration_flagged", "registration flagged", "measures of it out of range", "", 1, True),
    Rule("segmentation_flagged", "segmentation flagged", "measures of it out of range", "", 1, True),
)

#: Rule -> stage of table ``quality`` whose flagged measures it counts.
FLAGS = {"registration_flagged": "registration", "segmentation_flagged": "tumor"}

#: Part of the patients that are a model's worst.
WORST_PART = 0.1
