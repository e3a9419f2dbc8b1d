"""Budgets as text: '2 GiB' of memory, '1.5 GMACs', '3 GFLOPs', '25.6 M' parameters -> an exact number.

The units are those of gates (`attnprof.spec.quantities`); a count may end in the word that says what it is. MACs are not FLOPs,
so the word of another count is refused, as bytes without a unit are.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from attnprof.errors import UsageError
from attnprof.spec.quantities import parse_amount

_WORDS: Mapping[str, tuple[str, ...]] = {
    "macs": ("MACs", "MAC"),
    "flops": ("FLOPs", "FLOP"),
    "params": ("parameters", "params"),
}
_EXAMPLES = {"macs": "1.5 GMACs", "flops": "3 GFLOPs", "params": "25.6 M"}


def number(budget: float | Fraction | str, field: str) -> float | Fraction:
    """A budget for a field of Counts as a number: text is read, a number stays as it is. Raises UsageError for other text."""
    __tracebackhide__ = True
    if not isinstance(budget, str):
        return budget
    advice = f"write a budget of {field} as '{_EXAMPLES.get(field, '2 GiB')}'"
    for other, words in _WORDS.items():
        if other != field and budget.strip().endswith(words):
            raise UsageError(f"'{budget:.40}' counts {other}: {advice}.")
    plain = budget.strip()
    for word in _WORDS.get(field, ()):
        plain = plain.removesuffix(word)
    try:
        amount = parse_amount(plain)
    except UsageError as error:
        raise UsageError(f"{error}; {advice}.") from None
    if field not in _WORDS and amount.kind != "bytes":
        raise UsageError(f"'{budget:.40}' is no size of memory: {advice}.")
    if field in _WORDS and amount.kind == "bytes":
        raise UsageError(f"'{budget:.40}' is a size of memory: {advice}.")
    return amount.value
