"""Budgets as text: '2 GiB' of memory, '1.5 GMACs', '3 GFLOPs', '25.6 M' parameters -> an exact number.

They are read as the amounts of a spec's claims are (`attnprof.spec.quantities`); bytes without a unit are refused.
"""

from __future__ import annotations

from fractions import Fraction

from attnprof.errors import UsageError
from attnprof.spec.quantities import advice, kind_of, of_another, parse_amount


def number(budget: float | Fraction | str, field: str) -> float | Fraction:
    """A budget for a field of Counts as a number: text is read, a number stays as it is. Raises UsageError for other text."""
    __tracebackhide__ = True
    if not isinstance(budget, str):
        return budget
    try:
        amount = parse_amount(budget)
    except UsageError as error:
        raise UsageError(f"{error}; {advice(field)}.") from None
    if amount.counts not in ("", field):
        raise UsageError(f"{of_another(budget, amount.counts, field)}.")
    if kind_of(field) == "bytes" and amount.kind != "bytes":
        raise UsageError(f"'{budget:.40}' is no size of memory: {advice(field)}.")
    if kind_of(field) == "count" and amount.kind == "bytes":
        raise UsageError(f"'{budget:.40}' is a size of memory: {advice(field)}.")
    return amount.value
