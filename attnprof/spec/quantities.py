"""Amounts as people write them in gates: '2GiB', '10G', '1.5 GMACs', and tolerances such as '5%' and '+16MiB'. Exact fractions.

A count may end in the word that says what it is of. MACs are not FLOPs, so the word of another count is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from attnprof.errors import UsageError
from attnprof.spec.values import BYTES, EXACT_METRICS, GATE_ALIASES, nearest

UNITS: Mapping[str, tuple[int, str]] = {  # unit -> (factor, kind)
    "": (1, ""),
    **{f"{prefix}iB": (2 ** (10 * power), "bytes") for power, prefix in enumerate("KMGTP", 1)},
    **{f"{prefix}B": (10 ** (3 * power), "bytes") for power, prefix in enumerate(("", "K", "M", "G", "T", "P"))},
    "kB": (1000, "bytes"),
    **{prefix: (10 ** (3 * power), "count") for power, prefix in enumerate("KMGTP", 1)},
    "k": (1000, "count"),
}
WORDS: Mapping[str, str] = {  # after a count: what it is of
    "MACs": "macs",
    "MAC": "macs",
    "FLOPs": "flops",
    "FLOP": "flops",
    "parameters": "params",
    "params": "params",
}
_EXAMPLES = {"macs": "1.5 GMACs", "flops": "3 GFLOPs", "params": "25.6 M"}
_NUMBER = r"(?:[0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?:[eE][+-]?[0-9]{1,2})?"
_AMOUNT = re.compile(rf"({_NUMBER})\s*([A-Za-z]*(?: +[A-Za-z]+)?)")
_UNIT = re.compile(r" ?([A-Za-z]+)(?!\w*\s*\()")  # what has a label in parentheses is a metric
_WORD = re.compile(rf" +(?:{'|'.join(WORDS)})\b(?!\s*\()")
_PERCENT = re.compile(rf"({_NUMBER})\s*%")
TIMED = ("latency",)  # gated in a class of its own, with a tolerance as well


@dataclass(frozen=True)
class Amount:
    """A number with what it is of: 'bytes', 'count', or '' where nothing says; and the count that its word names, or ''."""

    value: Fraction
    kind: str = ""
    counts: str = ""


@dataclass(frozen=True)
class Tolerance:
    """How much more than before is allowed: a share of what was, and so many on top."""

    share: Fraction = Fraction(0)
    extra: Fraction = Fraction(0)
    text: str = ""

    def allows(self, before: float, after: float) -> bool:
        """Whether the change is within, whatever its direction."""
        return abs(Fraction(after) - Fraction(before)) <= abs(Fraction(before)) * self.share + self.extra


NONE = Tolerance()


def parse_amount(text: str) -> Amount:
    """'2GiB' -> 2147483648 bytes, '1.5 GMACs' -> 1500000000 MACs. Raises UsageError with the nearest unit."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text:.40}' is no amount: write a number such as 100, 2GiB or 10G")
    unit, counts = counted_unit(match[2])
    if unit not in UNITS or (counts and UNITS[unit][1] == "bytes"):
        near = [f"did you mean '{unit}'?" for unit in UNITS if unit.lower() == match[2].lower()]
        hint = near[0] if near else f"units are {', '.join(unit for unit in UNITS if unit)}"
        raise UsageError(f"'{match[2]:.20}' is no unit: {hint}")
    factor, kind = UNITS[unit]
    return Amount(Fraction(match[1]) * factor, "count" if counts else kind, counts)


def counted_unit(text: str) -> tuple[str, str]:
    """'GMACs' -> ('G', 'macs'); 'GiB' -> ('GiB', '')."""
    for word, counts in WORDS.items():
        if text.endswith(word):
            return text.removesuffix(word).strip(), counts
    return text, ""


def unit_end(text: str, at: int) -> int:
    """Where the unit ends that follows a number in a text: 'GiB', ' GMACs', ' M params'; `at` where none does."""
    unit = _UNIT.match(text, at)
    if unit is not None and (unit[1] in UNITS or counted_unit(unit[1])[1] or not unit[0].startswith(" ")):
        at = unit.end()
    word = _WORD.match(text, at)
    return at if word is None else word.end()


def of_another(text: str, counts: str, metric: str) -> str:
    """What is said of an amount of one count where another metric is meant."""
    return f"'{text:.40}' counts {counts}: {advice(metric)}"


def advice(metric: str) -> str:
    """How a budget of a metric is written."""
    return f"write a budget of {metric} as '{_EXAMPLES.get(metric, '2 GiB')}'"


def kind_of(metric: str) -> str:
    """'bytes' or 'count'."""
    return "bytes" if metric in BYTES else "count"


def gated_metric(name: str, also: tuple[str, ...] = ()) -> str:
    """The metric that a gate calls so. Raises UsageError with the nearest name."""
    found = GATE_ALIASES.get(name, name)
    if found in EXACT_METRICS or found in also:
        return found
    known = (*EXACT_METRICS, *also)
    hint = nearest(name, (*known, *GATE_ALIASES)) or f"there are {', '.join(known)}"
    raise UsageError(f"no metric of a gate is called '{name:.40}': {hint}")


def parse_tolerance(metric: str, value: Any) -> Tolerance:
    """'5%' or '+16MiB' of a metric, or a bare number on top. Raises UsageError."""
    text = str(value).strip()
    if (match := _PERCENT.fullmatch(text.removeprefix("+"))) is not None:
        return Tolerance(share=Fraction(match[1]) / 100, text=text)
    if metric in TIMED:
        raise UsageError(f"the tolerance of {metric} is a share such as 5%, not '{text:.40}'")
    try:
        amount = parse_amount(text.removeprefix("+"))
    except UsageError:
        raise UsageError(f"'{text:.40}' is no tolerance: write a share such as 5%, or so much on top such as +16MiB") from None
    if amount.kind not in ("", kind_of(metric)):
        raise UsageError(f"'{text:.40}' is no tolerance of {metric}, which counts no {amount.kind}")
    if amount.counts not in ("", metric):
        raise UsageError(f"'{text:.40}' is no tolerance of {metric}: it counts {amount.counts}")
    return Tolerance(extra=amount.value, text=text)
