"""Growth in N = H * W: the exponent in a kept closed form, and a slope fitted over squares of 65 to 257.

The exponent is that of the highest power of N in the form's order, whatever stands before it; the slope is the least-squares
line through log(count) over log(N), at the channels of the case, where lower terms still weigh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from attnprof.claims.conventions import products
from attnprof.profiling.forms import kept
from attnprof.profiling.growth import exponent, slope
from attnprof.records import Case, Counts

PRODUCTS = "products"  # the MACs of products of two activations alone: no form of them is kept
SLACK = 0.02  # of a fitted slope
SIDES = (65, 97, 129, 193, 257)


@dataclass(frozen=True)
class Growth:
    """How a count grows: the order and exponent of the kept form (None: none is kept), and the fitted slope."""

    order: str
    exponent: float | None
    slope: float

    def text(self) -> str:
        """'closed form O(C*N**2), slope 1.93 over 65x65 to 257x257'."""
        fitted = f"slope {self.slope:.2f} over {SIDES[0]}x{SIDES[0]} to {SIDES[-1]}x{SIDES[-1]}"
        return f"closed form {self.order}, {fitted}" if self.order else fitted


def grow(case: Case, field: str, count: Callable[[Case], Counts]) -> Growth:
    """The growth of one field of Counts, or of PRODUCTS, which has a slope only. `count` counts a case."""
    forms = kept.forms_for(case) if field != PRODUCTS else None
    form = None if forms is None else forms.forms.get(field)
    order = "" if form is None else form.order
    sizes = [replace(case, shape=replace(case.shape, height=side, width=side)) for side in SIDES]
    points = [(float(side) ** 2, _amount(count(size), field)) for side, size in zip(SIDES, sizes, strict=True)]
    return Growth(order, exponent(order) if order else None, slope(points))


def _amount(counts: Counts, field: str) -> float:
    return float(products(counts) if field == PRODUCTS else getattr(counts, field))
