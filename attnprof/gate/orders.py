"""Orders of growth that claims are about and no kept closed form answers: from traces, in a child, at multiples of a size.

This is what the pytest fixture does too: exact where the count is a polynomial, whatever its lower terms weigh. Where a module
takes no other size, or its cost depends on data, nothing is found, and the claim is judged by the slope over its own sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from attnprof.errors import UntraceableError
from attnprof.execute import Options, run_cases
from attnprof.gate.baseline import Point
from attnprof.gate.promises import Instance, Orders, smallest
from attnprof.profiling.growth import STEPS, Growth, Sizes, of_form, over_multiples
from attnprof.records import Case, Counts, Record
from attnprof.spec.promises import Metric

_SIDES = {"N": ("height", "width"), "C": ("channels",), "B": ("batch",), "T": ("frames",)}
_TOGETHER = ((1, 2, 3), tuple(STEPS[0] * k for k in range(1, 6)))  # multiples that one child traces, one after the other


def find(instances: Iterable[Instance], points: Mapping[str, Point], timeout_s: float) -> Orders:
    """{(key of the smallest case, metric, variable): Growth} of every order that is to be traced and can be."""
    found: dict[tuple[str, str, str], Growth] = {}
    traced: dict[tuple[str, str], Sizes] = {}
    for case, each in _asked(instances, points):
        key = (case.key, each.metric, each.variable)
        if key in found:
            continue
        sizes = traced.setdefault((case.key, each.variable), Sizes(_Tracer(case, each.variable, timeout_s).counts))
        try:
            growth = over_multiples(sizes, each.metric, each.variable, power=len(_SIDES[each.variable]))
        except UntraceableError:
            continue
        found[key] = replace(growth, of=case.shape.text())
    return found


def _asked(instances: Iterable[Instance], points: Mapping[str, Point]) -> Iterator[tuple[Case, Metric]]:
    for instance in instances:
        for each in instance.promise.metrics:
            cases = instance.cases[each.label or instance.about] if each.variable else ()
            if not cases or any(points[case.key].status != "ok" for case in cases):
                continue
            if of_form(cases, each.metric, each.variable) is None:
                yield smallest(cases), each


@dataclass
class _Tracer:
    """One case at multiples of its size. known: by multiple, the Record of a trace."""

    case: Case
    variable: str
    timeout_s: float
    known: dict[int, Record] = field(default_factory=dict)

    def counts(self, multiple: int) -> Counts:
        """Raises UntraceableError with the reason where there are none, or where they depend on data."""
        if multiple not in self.known:
            wanted = next((group for group in _TOGETHER if multiple in group), (multiple,))
            cases = {k: self._scaled(k) for k in wanted}
            records = {each.case.key: each for each in run_cases(list(cases.values()), Options(timeout_s=self.timeout_s))}
            self.known |= {k: records[case.key] for k, case in cases.items()}
        record = self.known[multiple]
        if record.counts is None:
            raise UntraceableError(f"{record.status}: {record.detail}")
        if record.counts.assumed or record.counts.traced_by == "real":
            raise UntraceableError(f"its cost depends on data ({', '.join(record.counts.assumed)})")
        return record.counts

    def _scaled(self, multiple: int) -> Case:
        shape = self.case.shape
        larger = {side: getattr(shape, side) * multiple for side in _SIDES[self.variable]}
        return replace(self.case, shape=replace(shape, **larger))
