"""The order of growth of a count: its exponent in N = H*W, H, W, B, T or C. Three answers, the best that there is taken first.

of_form          the kept closed form says it, at every case asked about: exact
over_multiples   traces at multiples k of a size: the degree of the polynomial in k, exact where there is one
over_sizes       counts at the sizes that are there: the slope of log count over log size, which lower terms bend

Along multiples k of the size asked about, a count is a polynomial in k (or one for every residue of k, where strides and
windows round). So the sizes are taken at equal steps that are divisible by many numbers, and differences of the integers are
taken again and again until three are equal, and the polynomial is tried at twice the largest size: the number of times is the
degree, exactly, whatever the lower terms weigh. The largest step comes first, where the highest power rules and a peak no
longer passes from one op to another. A module that loops over its input is traced at small multiples alone.

Where no step gives equal differences (n log n, steps that never even out), the slope is fitted over the largest sizes that
were traced, and rounded to two decimals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise

from attnprof.errors import UntraceableError, told
from attnprof.profiling.forms import kept
from attnprof.profiling.forms.expression import ExpressionError, compile_text
from attnprof.records import Case, Counts

MARGIN = Fraction(1, 20)  # how far a fitted slope may be from a claim that holds: lower terms and rounded sizes bend it
STEPS = (48, 12, 4, 1)
MOST_SIZES = 9  # degree 6, which is N**3, and three equal differences
_EQUAL = 3  # differences that have to be equal
_FEWEST = 3  # multiples that a slope is fitted over
_MOST_CALLS = 30_000  # of ops in one trace, where they grow with the size: some seconds


@dataclass(frozen=True)
class Growth:
    """The exponent of a count in a variable.

    exact: by a closed form (`order`) or by equal differences; else a fitted slope. sizes: what it was found over, rising:
    multiples of `of` (such as '1x64x33x33'), or values of the variable where that is ''.
    """

    variable: str
    exponent: float
    exact: bool
    sizes: tuple[int, ...] = ()
    order: str = ""
    of: str = ""

    @property
    def text(self) -> str:
        """'2, by the closed form O(N**2)', '2, exactly, ...', or '1.937, the slope over 3 sizes from N = 81 to 1,089'."""
        if self.order:
            return f"{self.exponent:g}, by the closed form {self.order}"
        if self.of:
            how = "exactly, by" if self.exact else "the slope over"
            return f"{self.exponent:g}, {how} {len(self.sizes)} multiples of {self.of}, the largest {self.sizes[-1]}"
        over = f"{len(self.sizes)} sizes from {self.variable} = {self.sizes[0]:,} to {self.sizes[-1]:,}"
        return f"{self.exponent:.3f}, the slope over {over}"


def exponent(order: str, variable: str = "N") -> float:
    """The highest power of a variable in 'O(C**2*N + C*N**1.5)': of N 1.5, of C 2; 0 where it does not stand there."""
    powers = re.finditer(rf"\b{variable}\b(?:\*\*([0-9.]+))?", order)
    return max((float(match[1] or 1) for match in powers), default=0.0)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares slope of log y over log x; 0 for what is 0 throughout."""
    if all(y == 0 for _, y in points):
        return 0.0
    logs = [(math.log(x), math.log(y)) for x, y in points]
    middle_x, middle_y = (sum(each[axis] for each in logs) / len(logs) for axis in (0, 1))
    return sum((x - middle_x) * (y - middle_y) for x, y in logs) / sum((x - middle_x) ** 2 for x, _ in logs)


def of_form(cases: Sequence[Case], metric: str, variable: str) -> Growth | None:
    """What the kept closed form says, where it holds at every case; None where there is none. B is in no form's order."""
    forms = kept.forms_for(cases[0]) if variable != "B" else None
    form = None if forms is None else forms.forms.get(metric)
    if form is None:
        return None
    try:
        domain = compile_text(form.domain)
    except ExpressionError:
        return None
    inside = all(domain(kept.variables(replace(case.shape, batch=1))) for case in cases)
    return Growth(variable, exponent(form.order, variable), True, order=form.order) if inside and form.order else None


def over_sizes(counts: Mapping[int, int], metric: str, variable: str) -> Growth:
    """The slope over {size: count}. Raises UntraceableError for one size, and for counts that are 0 at some of them."""
    sizes = tuple(sorted(counts))
    if len(sizes) < 2:
        there = f"there is {sizes[0]:,}" if sizes else "there is none"
        raise UntraceableError(f"no closed form is kept for it, and a slope in {variable} wants two sizes ({there})")
    if any(value <= 0 for value in counts.values()) and any(counts.values()):
        raise UntraceableError(f"{metric} is 0 at some of the sizes: it has no slope")
    return Growth(variable, slope([(float(size), float(counts[size])) for size in sizes]), False, sizes)


def size_of(case: Case, variable: str) -> int:
    """N = H*W, C, B or T of a case."""
    shape = case.shape
    sizes = {"N": shape.height * shape.width, "C": shape.channels, "B": shape.batch, "T": shape.frames}
    return sizes[variable]


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

    def counts(self, multiple: int) -> Counts:
        """The Counts at a multiple that was traced."""
        counts = self.at(multiple)
        assert isinstance(counts, Counts)
        return counts

    def calls(self, multiple: int) -> int:
        """How many ops were called there; 0 where there is no trace."""
        found = self.at(multiple)
        return 0 if isinstance(found, str) else sum(op.calls for op in found.ops)


def over_multiples(sizes: Sizes, metric: str, variable: str, power: int = 1) -> Growth:
    """How a field of Counts grows with a variable that is k**power times as large at the multiple k of the size.

    Raises UntraceableError where fewer than three sizes can be traced.
    """
    degree, exact, multiples = _degree_in_k(sizes, metric)
    return Growth(variable, degree / power, exact, multiples)


Degree = tuple[float, bool, tuple[int, ...]]  # in k, whether it is exact, the multiples that it was found over


def _degree_in_k(sizes: Sizes, metric: str) -> Degree:
    refused = sizes.at(2)
    if isinstance(refused, str) and isinstance(sizes.at(3), str):
        raise UntraceableError(f"it cannot be traced at twice or three times that size: {refused}.")
    looping = sizes.calls(1) < sizes.calls(2) < sizes.calls(3)
    best: tuple[int, ...] = ()
    for step in STEPS if not looping else STEPS[-1:]:
        exact, multiples = _traced(sizes, step, metric)
        if exact is not None:
            return float(exact), True, multiples
        best = best if len(best) >= _FEWEST else multiples
    if len(best) < _FEWEST:
        raise UntraceableError(f"only {len(best)} multiples of that size can be traced, and a slope wants {_FEWEST}.")
    points = [(float(k), float(_value(sizes, k, metric))) for k in best]
    fitted = round(slope(points), 2) if all(y > 0 for _, y in points) else 0.0
    return fitted, False, best


def _traced(sizes: Sizes, step: int, metric: str) -> tuple[int | None, tuple[int, ...]]:
    """(degree, multiples) at one step, up to where their differences are equal; without a degree where they never are."""
    found: list[int] = []
    for multiple in range(step, (MOST_SIZES + 1) * step, step):
        if _too_long(sizes, found, multiple) or isinstance(sizes.at(multiple), str):
            break
        found.append(multiple)
        values = [_value(sizes, each, metric) for each in found]
        degree = _degree(values)
        if degree is not None and _goes_on(sizes, found, values, degree, metric):
            return degree, tuple(found)
    return None, tuple(found)


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


def _value(sizes: Sizes, multiple: int, metric: str) -> int:
    value: int = getattr(sizes.counts(multiple), metric)
    return value
