"""How a printed number is read: its digits, how near is near enough, and what still holds where the size does not.

Tolerances: parameters 0.5 % (a bias or a BN more or less), operations 2 % (pooling and normalisation counted or not), memory
in inference 3 % or 16 MiB (a workspace), in training 10 % (what kernels keep for themselves), a ratio of
latencies a factor of two on the same side of 1. An exponent of N has none.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_NUMBER = r"[+-]?[0-9][0-9 ]*(?:\.[0-9]+)?"
_PUBLISHED = re.compile(rf"({_NUMBER})(?:\.\.({_NUMBER}))?")
FACTOR = 2.0  # a size that is off by more is no size
MAGNITUDE = 10.0  # a ratio that is off by more has another order of magnitude
PART = 1 / 3  # of what is claimed: a ratio or share with less of it says something else


@dataclass(frozen=True)
class Printed:
    """A printed number, or a range 'low..high'; `decimals` of its digits stand behind the point."""

    text: str
    low: float
    high: float
    decimals: int

    @property
    def range(self) -> tuple[float, float]:
        """(low, high)."""
        return (self.low, self.high)

    @property
    def middle(self) -> float:
        """The number; the middle of a range."""
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from what is printed: a share of it, or an amount in the unit of the claim."""

    share: float
    amount: float = 0.0


def parse_published(value: object) -> Printed | None:
    """108, '0.50', '24.4..28.2' -> Printed; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    text = repr(value) if isinstance(value, float) else str(value)
    match = _PUBLISHED.fullmatch(text.strip())
    if match is None:
        return None
    low, high = (float(part.replace(" ", "")) for part in (match[1], match[2] or match[1]))
    decimals = max(len(part.partition(".")[2]) for part in (match[1], match[2] or ""))
    return Printed(text.strip(), low, high, decimals) if low <= high else None


def default_tolerance(metric: str, mode: str, mebibyte: float) -> Tolerance:
    """The tolerance of a metric; `mebibyte` is the size of 1 MiB in the unit of the claim, 0 for a ratio."""
    if metric == "memory":
        return Tolerance(0.1) if mode == "training" else Tolerance(0.03, 16 * mebibyte)
    return {
        "params": Tolerance(0.005),
        "compute": Tolerance(0.02),
        "activations": Tolerance(0.005),
    }[metric]


def is_exact(published: Printed, value: float) -> bool:
    """Whether `value` rounds to the printed digits."""
    half = 0.5 * 10.0**-published.decimals
    slack = 1e-9 * max(abs(published.low), abs(published.high), 1.0)
    return published.low - half - slack <= value <= published.high + half + slack


def difference(published: Printed, value: float) -> float | None:
    """How far off, as a share: value / published - 1; 0 inside a range, None where 0 is printed and something was found."""
    edge = min(max(value, published.low), published.high)
    if value == edge:
        return 0.0
    return (value - edge) / abs(edge) if edge else None


def is_near(published: Printed, value: float, tolerance: Tolerance) -> bool:
    """Whether `value` is exact or within the tolerance."""
    edge = min(max(value, published.low), published.high)
    return is_exact(published, value) or abs(value - edge) <= max(tolerance.share * abs(edge), tolerance.amount)


def same_side(published: Printed, value: float, unit: str) -> bool:
    """Whether a ratio or a share at least says the same of what is larger: the same side of 1 ('x'), the same sign ('%')."""
    middle = 1.0 if unit == "x" else 0.0
    return (published.middle - middle) * (value - middle) > 0


def holds_in_part(published: Printed, value: float, unit: str) -> bool:
    """Whether a ratio or a share has a third of what is claimed, of a ratio in logarithms (2.2x is a third of 11x), and
    is no further off than its order of magnitude.
    """
    if not same_side(published, value, unit) or not within_factor(published, value, MAGNITUDE):
        return False
    claimed, found = published.middle, value
    if unit == "x":
        claimed, found = math.log(claimed), math.log(found)
    return found / claimed >= PART


def within_factor(published: Printed, value: float, factor: float = FACTOR) -> bool:
    """Whether a size is right within a factor."""
    return published.middle * value > 0 and 1 / factor <= value / published.middle <= factor


def alike(first: Printed, second: Printed) -> bool:
    """Whether two printed numbers are equal, or ranges that meet."""
    return first.low <= second.high and second.low <= first.high


def sign(value: float) -> int:
    """-1, 0, 1."""
    return (value > 0) - (value < 0)
