"""What one pass of a module costs, as the fixture gives it: exact counts that compare with budgets, and orders of growth.

    cost = count(module, "1x64x33x33", "inference", "float32", {})
    cost.peak_bytes <= "2 GiB"; cost.order("peak", "N") <= 1

An Amount is an int and an Order is a float: they add, print and compare like any other. What they know beside their value is
for the message of a failed assertion.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from attnprof.complexity import budget
from attnprof.complexity.frames import asked, bare
from attnprof.complexity.larger import AXES, larger, scaled
from attnprof.errors import UntraceableError, UsageError
from attnprof.profiling.growth import Growth, Sizes, over_multiples
from attnprof.records import Counts, Record, Shape
from attnprof.spec.values import GATE_ALIASES, nearest

if TYPE_CHECKING:
    from torch import nn

METRICS: Mapping[str, str] = {  # field of Counts: what it is called
    "params": "parameters",
    "macs": "MACs",
    "flops": "FLOPs",
    "bytes_moved": "bytes moved",
    "activation_bytes": "activation memory",
    "resident_bytes": "resident memory",
    "peak_bytes": "peak memory",
    "peak_cuda_bytes": "peak CUDA memory",
}
VARIABLES: Mapping[str, str] = {
    "N": "N = H*W, both sides together; tokens of (B, N, C) or (B, N)",
    "H": "height",
    "W": "width",
    "B": "batch",
    "T": "frames of (B, T, C, H, W)",
    "C": "channels, of a name or an import path",
}


class ComplexityWarning(UserWarning):
    """A count that leaves something out, or that holds for one draw of values only."""


@dataclass(frozen=True)
class Complexity:
    """What one pass costs. `record` is that of `attnprof.profile`; `module` and `inputs` are there where a module was given."""

    record: Record
    dtype: str
    module: nn.Module | None = field(default=None, repr=False)
    inputs: tuple[Any, ...] = field(default=(), repr=False)
    _sizes: dict[str, Sizes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def counts(self) -> Counts:
        """Everything that was counted."""
        assert self.record.counts is not None
        return self.record.counts

    @property
    def params(self) -> Amount:
        """Parameters."""
        return Amount("params", self)

    @property
    def macs(self) -> Amount:
        """Multiply-accumulates of convolution, matmul and attention."""
        return Amount("macs", self)

    @property
    def flops(self) -> Amount:
        """2 per MAC, and everything else that is computed."""
        return Amount("flops", self)

    @property
    def bytes_moved(self) -> Amount:
        """Each op's inputs read once and its outputs written once."""
        return Amount("bytes_moved", self)

    @property
    def activation_bytes(self) -> Amount:
        """What autograd keeps for the backward pass (training); all that ops put out (inference)."""
        return Amount("activation_bytes", self)

    @property
    def resident_bytes(self) -> Amount:
        """Parameters, buffers and inputs."""
        return Amount("resident_bytes", self)

    @property
    def peak_bytes(self) -> Amount:
        """The most memory that is alive at once above the resident."""
        return Amount("peak_bytes", self)

    @property
    def peak_cuda_bytes(self) -> Amount:
        """The same as CUDA's allocator would see it: a model."""
        return Amount("peak_cuda_bytes", self)

    def order(self, metric: str, variable: str = "N") -> Order:
        """The exponent with which a metric grows: 2 for a peak in O(N**2).

        metric: a field of Counts (peak_bytes, macs, ...), or peak, activations. variable: N, H, W, B, T, C.
        Found from traces at multiples of the size asked about, exactly where the count is a polynomial (profiling/growth.py).
        Raises UsageError for other words, UntraceableError where the module takes no other size.
        """
        __tracebackhide__ = True
        name = _field(metric)
        if variable not in VARIABLES:
            raise UsageError(f"'{variable}' is nothing that a count grows in: there are {', '.join(VARIABLES)}.")
        if variable not in self._variables:
            there = ", ".join(self._variables)
            raise UsageError(f"{self.label}: what is counted has no {variable} ({VARIABLES[variable]}); there are {there}.")
        if self.counts.assumed or self.counts.traced_by == "real":
            raise UntraceableError(f"{self.label}: no order, its cost depends on data ({', '.join(self.counts.assumed)}).")
        _warn(name, self, stacklevel=3)
        sizes = self._sizes.setdefault(variable, Sizes(lambda k: self._count(variable, k)))
        try:
            found = over_multiples(sizes, name, variable, self._power(variable))
        except UntraceableError as error:
            raise UntraceableError(f"{self.label}: no order in {variable}: {error}") from None
        return Order(name, found, self)

    @property
    def label(self) -> str:
        """'Mine, 1x64x33x33, inference'."""
        case = self.record.case
        return f"{case.label}, {self.size()}, {case.mode}"

    def size(self, variable: str = "N", multiple: int = 1) -> str:
        """The size of the (first) input at a multiple: '1x64x33x33'."""
        if self.module is None:
            return self._scaled_case(variable, multiple).text()
        return "x".join(map(str, scaled(self._first, variable, multiple, self._rank)))

    @cached_property
    def _first(self) -> tuple[int, ...]:
        return next((tuple(value.shape) for value in self.inputs if hasattr(value, "shape")), ())

    @property
    def _rank(self) -> int:
        return len(self._first)

    @property
    def _variables(self) -> tuple[str, ...]:
        if self.module is not None:
            return tuple(name for name in VARIABLES if name in AXES.get(self._rank, {}))
        return tuple(name for name in VARIABLES if name != "T" or self.record.case.shape.frames > 1)

    def _power(self, variable: str) -> int:
        """The power of k with which a variable grows: N of a map is H*W, both k times as large."""
        return 1 if variable != "N" or (self.module is not None and self._rank < 4) else 2

    def _scaled_case(self, variable: str, multiple: int) -> Shape:
        shape = self.record.case.shape
        names = {"B": "batch", "C": "channels", "H": "height", "W": "width", "T": "frames"}
        return replace(
            shape, **{names[one]: getattr(shape, names[one]) * multiple for one in ("HW" if variable == "N" else variable)}
        )

    def _count(self, variable: str, multiple: int) -> Counts:
        """The Counts at a multiple, without ever running the module."""
        from attnprof.profiling.counting.trace import follow_case, follow_module

        case = self.record.case
        if self.module is None:
            return follow_case(replace(case, shape=self._scaled_case(variable, multiple)), allow_real=False).counts
        inputs = tuple(larger(value, variable, multiple, self._rank) for value in self.inputs)
        return follow_module(self.module, inputs, case.mode, dtype=self.dtype, allow_real=False).counts

    def __repr__(self) -> str:
        return f"<complexity of {self.label}>"


class Amount(int):
    """One count: an int that compares with budgets as text ('2 GiB', '1.5 GMACs')."""

    metric: str
    of: Complexity

    def __new__(cls, metric: str, of: Complexity) -> Self:
        """The value of a field of Counts. Warns where that is not the whole of it."""
        made = super().__new__(cls, getattr(of.counts, metric))
        made.metric, made.of = metric, of
        _warn(metric, of, stacklevel=4)
        return made

    def __lt__(self, other: float | Fraction | str) -> bool:
        __tracebackhide__ = True
        return int(self) < budget.number(other, self.metric)

    def __le__(self, other: float | Fraction | str) -> bool:
        __tracebackhide__ = True
        return int(self) <= budget.number(other, self.metric)

    def __gt__(self, other: float | Fraction | str) -> bool:
        __tracebackhide__ = True
        return int(self) > budget.number(other, self.metric)

    def __ge__(self, other: float | Fraction | str) -> bool:
        __tracebackhide__ = True
        return int(self) >= budget.number(other, self.metric)

    def __eq__(self, other: object) -> bool:
        __tracebackhide__ = True
        return bool(int(self) == (budget.number(other, self.metric) if isinstance(other, str) else other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __reduce__(self) -> tuple[type[int], tuple[int]]:  # a copy is a plain number
        return int, (int(self),)


class Order(float):
    """An exponent: a float that knows what it was found from."""

    metric: str
    variable: str
    growth: Growth
    of: Complexity

    def __new__(cls, metric: str, growth: Growth, of: Complexity) -> Self:
        """The exponent of a metric in a variable."""
        made = super().__new__(cls, growth.exponent)
        made.metric, made.variable, made.growth, made.of = metric, growth.variable, growth, of
        return made

    def __eq__(self, other: object) -> bool:  # for type checkers: an order may be compared with an int
        return float(self) == other

    __hash__ = float.__hash__

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float(self),)


def count(module: nn.Module | str, inputs: Any, mode: str, dtype: str, args: Mapping[str, Any]) -> Complexity:
    """Count one pass, as `attnprof.profile` does."""
    __tracebackhide__ = True
    import attnprof
    from attnprof import profiled

    try:
        record = attnprof.profile(module, inputs, mode=mode, dtype=dtype, **args)
    except Exception as error:
        bare(error, asked(module, inputs, mode))
        raise
    if isinstance(module, str):
        return Complexity(record, dtype)
    return Complexity(record, dtype, module, tuple(profiled._inputs(inputs)))


def _field(metric: str) -> str:
    """The field of Counts that a word means. Raises UsageError with the nearest one."""
    __tracebackhide__ = True
    name = GATE_ALIASES.get(metric, metric)
    if name not in METRICS:
        hint = nearest(metric, (*METRICS, *GATE_ALIASES)) or f"there are {', '.join(METRICS)}."
        raise UsageError(f"no count is called '{metric}': {hint}")
    return name


def _warn(metric: str, of: Complexity, stacklevel: int) -> None:
    """Say what a count leaves out, or what it was taken on."""
    counts, said = of.counts, ""
    if metric in ("macs", "flops", "bytes_moved") and counts.uncounted:
        said = f"these ops have no cost rule and are not counted: {_calls(counts.uncounted)} (attnprof.register_cost gives one)"
    elif metric != "params" and counts.assumed:
        drawn = "one run on seeded values" if counts.traced_by == "real" else "an assumption"
        said = f"the cost depends on data ({_calls(counts.assumed)}) and was counted on {drawn}"
    if said:
        warnings.warn(f"{of.label}: {metric}: {said}.", ComplexityWarning, stacklevel=stacklevel)


def _calls(ops: Mapping[str, int]) -> str:
    return ", ".join(f"{op} {calls}" for op, calls in ops.items())
