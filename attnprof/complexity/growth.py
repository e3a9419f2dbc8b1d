"""The order of growth of a count: its exponent in N, H, W, B, T or C, found by tracing at several sizes.

Along multiples k of the size asked about, a count is a polynomial in k (or one for every residue of k, where strides and
windows round). So the sizes are taken at equal steps that are divisible by many numbers, and differences of the integers are
taken again and again until three are equal, and the polynomial is tried at twice the largest size: the number of times is the
degree, exactly, whatever the lower terms weigh. The largest step comes first, where the highest power rules and a peak no
longer passes from one op to another. A module that loops over its input is traced at small multiples alone.

Where no step gives equal differences (n log n, steps that never even out), the slope of log count over log size is fitted
over the largest sizes that were traced, and rounded to two decimals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from attnprof.claims.laws import slope
from attnprof.errors import UntraceableError, told
from attnprof.records import Counts

STEPS = (48, 12, 4, 1)
MOST_SIZES = 9  # degree 6, which is N**3, and three equal differences
_EQUAL = 3  # differences that have to be equal
_FEWEST = 3  # sizes that a slope is fitted over
_MOST_CALLS = 30_000  # of ops in one trace, where they grow with the size: some seconds


@dataclass(frozen=True)
class Growth:
    """A degree in k. exact: by equal differences; else a fitted slope. multiples: the k that it was found over, rising."""

    degree: float
    exact: bool
    multiples: tuple[int, ...]
    largest: Counts  # at the last of them


@dataclass
class Sizes:
    """Traces at multiples of a size. count(k) gives the Counts at k times the size; what it raises is the reason."""

    count: Callable[[int], Counts]
    known: dict[int, Counts | str] = field(default_factory=dict)

    def at(self, multiple: int) -> Counts | str:
        """The Counts there, or why there are none."""
        if multiple not in self.known:
            try:
                self.known[multiple] = self.count(multiple)
            except Exception as error:  # noqa: BLE001  a module refuses what it is not made for
                self.known[multiple] = told(error)
        return self.known[multiple]

    def calls(self, multiple: int) -> int:
        """How many ops were called there; 0 where there is no trace."""
        found = self.at(multiple)
        return 0 if isinstance(found, str) else sum(op.calls for op in found.ops)


def growth(sizes: Sizes, metric: str) -> Growth:
    """How a field of Counts grows with k. Raises UntraceableError where fewer than three sizes can be traced."""
    refused = sizes.at(2)
    if isinstance(refused, str) and isinstance(sizes.at(3), str):
        raise UntraceableError(f"it cannot be traced at twice or three times that size: {refused}.")
    looping = sizes.calls(1) < sizes.calls(2) < sizes.calls(3)
    best: tuple[int, ...] = ()
    for step in STEPS if not looping else STEPS[-1:]:
        traced = _traced(sizes, step, metric)
        if isinstance(traced, Growth):
            return traced
        best = best if len(best) >= _FEWEST else traced
    if len(best) < _FEWEST:
        raise UntraceableError(f"only {len(best)} multiples of that size can be traced, and a slope wants {_FEWEST}.")
    points = [(float(k), float(_value(sizes, k, metric))) for k in best]
    fitted = round(slope(points), 2) if all(y > 0 for _, y in points) else 0.0
    return Growth(fitted, False, best, _counts(sizes, best[-1]))


def _traced(sizes: Sizes, step: int, metric: str) -> Growth | tuple[int, ...]:
    """Sizes at one step, up to where their differences are equal: the Growth then, else the multiples that were traced."""
    found: list[int] = []
    for multiple in range(step, (MOST_SIZES + 1) * step, step):
        if _too_long(sizes, found, multiple) or isinstance(sizes.at(multiple), str):
            break
        found.append(multiple)
        values = [_value(sizes, each, metric) for each in found]
        degree = _degree(values)
        if degree is not None and _goes_on(sizes, found, values, degree, metric):
            return Growth(float(degree), True, tuple(found), _counts(sizes, multiple))
    return tuple(found)


def _degree(values: Sequence[int]) -> int | None:
    """How often differences have to be taken until the last three are equal; None where they never are."""
    degree, left = 0, list(values)
    while len(left) >= _EQUAL:
        if len(set(left[-_EQUAL:])) == 1:
            return degree
        left = [after - before for before, after in pairwise(left)]
        degree += 1
    return None


def _goes_on(sizes: Sizes, found: Sequence[int], values: Sequence[int], degree: int, metric: str) -> bool:
    """Whether the polynomial through the last values holds at twice the largest size, where that can be traced.

    n * floor(log2(n)) is a line between two powers of 2.
    """
    far = 2 * found[-1]
    if _too_long(sizes, found, far) or isinstance(sizes.at(far), str):
        return True
    expected, ahead, left = 0, len(found), list(values)
    for order in range(degree + 1):  # Newton's backward differences
        expected += left[-1] * math.comb(ahead + order - 1, order)
        left = [after - before for before, after in pairwise(left)]
    return expected == _value(sizes, far, metric)


def _too_long(sizes: Sizes, found: Sequence[int], multiple: int) -> bool:
    """Whether a module that loops over its input would take too many ops at a multiple, judged by the last one traced."""
    if not found:
        return False
    calls = sizes.calls(found[-1])
    return calls > sizes.calls(1) and calls * multiple > _MOST_CALLS * found[-1]


def _counts(sizes: Sizes, multiple: int) -> Counts:
    counts = sizes.at(multiple)
    assert isinstance(counts, Counts)
    return counts


def _value(sizes: Sizes, multiple: int, metric: str) -> int:
    value: int = getattr(_counts(sizes, multiple), metric)
    return value
