"""How a metric grows: the exponent in the kept closed form where that holds, else a slope fitted over the sizes traced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from attnprof.claims import laws
from attnprof.profiling.forms import kept
from attnprof.profiling.forms.expression import ExpressionError, compile_text
from attnprof.records import Case

MARGIN = Fraction(1, 20)  # how far a fitted slope may be from a claim that holds: lower terms and rounded sizes bend it


@dataclass(frozen=True)
class Growth:
    """An exponent, where it is from in words, and whether it is a fitted slope. None: nothing gives it, `text` says why."""

    exponent: float | None
    text: str
    fitted: bool = False


def grow(cases: Sequence[Case], metric: str, variable: str, values: Mapping[str, int]) -> Growth:
    """The growth of one mechanism's metric in N, C, B or T. `cases` differ in that size only; `values` by case key."""
    order = _kept_order(cases, metric) if variable != "B" else ""
    if order:
        exponent = _exponent(order, variable)
        return Growth(exponent, f"{exponent:g}, by the closed form {order}")
    sizes = {_size(case, variable): values[case.key] for case in cases}
    if len(sizes) < 2:
        size = next(iter(sizes))
        return Growth(None, f"no closed form is kept for it, and a slope in {variable} wants two sizes (there is {size:,})")
    if any(value <= 0 for value in sizes.values()) and any(sizes.values()):
        return Growth(None, f"{metric} is 0 at some of the sizes: it has no slope")
    slope = laws.slope([(float(size), float(value)) for size, value in sorted(sizes.items())])
    low, high = min(sizes), max(sizes)
    return Growth(slope, f"{slope:.3f}, the slope over {len(sizes)} sizes from {variable} = {low:,} to {high:,}", fitted=True)


def _size(case: Case, variable: str) -> int:
    shape = case.shape
    sizes = {"N": shape.height * shape.width, "C": shape.channels, "B": shape.batch, "T": shape.frames}
    return sizes[variable]


def _kept_order(cases: Sequence[Case], metric: str) -> str:
    """The order of the kept closed form that holds at every case; '' where there is none."""
    forms = kept.forms_for(cases[0])
    form = None if forms is None else forms.forms.get(metric)
    if form is None:
        return ""
    try:
        domain = compile_text(form.domain)
    except ExpressionError:
        return ""
    inside = [domain(kept.variables(replace(case.shape, batch=1))) for case in cases]
    return form.order if all(inside) else ""


def _exponent(order: str, variable: str) -> float:
    """The highest power of a variable in 'O(C**2*N + C*N**1.5)': of N 1.5, of C 2; 0 where it does not stand there."""
    powers = re.finditer(rf"\b{variable}\b(?:\*\*([0-9.]+))?", order)
    return max((float(match[1] or 1) for match in powers), default=0.0)
