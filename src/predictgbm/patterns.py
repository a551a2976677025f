"""Patterns of recurrence: where a lesion came back, seen from the standard plan, and how many lesions count.

The classes are those of Lee SW, Fraass BA, Marsh LH, et al. Patterns of failure following high-dose 3-D conformal
radiotherapy for high-grade astrocytomas. Int J Radiat Oncol Biol Phys 43:79-88, 1999,
doi:10.1016/S0360-3016(98)00266-1, with the name "distant" of Gebhardt BJ, et al. Patterns of failure for glioblastoma
multiforme following limited-margin radiation and concurrent temozolomide. Radiat Oncol 9:130, 2014,
doi:10.1186/1748-717X-9-130. Both measure the part of the recurrence within the 95 % isodose surface of the plan that
was given; here the standard plan takes its place, as the dose is mostly not known. Where it is, both are told.
"""

from __future__ import annotations

import math

#: Pattern -> least part of the lesion inside the standard plan.
PATTERNS: dict[str, float] = {"central": 0.95, "in-field": 0.80, "marginal": 0.20, "distant": 0.0}

#: A ball of 10 mm diameter, in ml: the least lesion that response criteria call measurable (Wen PY, et al. J Clin Oncol
#: 28:1963-1972, 2010, doi:10.1200/JCO.2009.26.3541, two perpendicular diameters of 10 mm). Smaller ones are often
#: crumbs of a segmentation and make no patient multifocal.
MEASURABLE_ML = math.pi / 6

#: Measurable lesions from which on a patient is multifocal.
MULTIFOCAL = 2


def classify(covered: float) -> str:
    """Return the pattern of a lesion of which this part, 0 to 1, lies inside the plan or isodose that judges."""
    return next(pattern for pattern, least in PATTERNS.items() if covered >= least)
