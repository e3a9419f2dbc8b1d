"""The claims of a spec: which cases each is about, and whether it holds for their points. Pure.

A claim without labels is about every mechanism, one that names labels about every size, mode and setting that all of them
stand at together; both kinds of metric in one claim: every other mechanism against those that are named. A claim about an order
is about a mechanism over its sizes. What a condition (`@`) leaves without a case is no green claim: it is a row of its own.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from attnprof.errors import UntraceableError
from attnprof.gate.baseline import Point
from attnprof.gate.rows import CLAIMS, Outcome, Reason, Row
from attnprof.profiling.growth import MARGIN, Growth, of_form, over_sizes, size_of
from attnprof.records import Case
from attnprof.report.text import clean
from attnprof.spec.promises import Arithmetic, Condition, Joined, Metric, Number, Promise, Term, Test

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_ARITHMETIC: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


Orders = Mapping[tuple[str, str, str], Growth]  # by (key of the smallest case, metric, variable), from traces (`orders.py`)


@dataclass(frozen=True)
class Instance:
    """One application of a claim. about: the label that it speaks of. cases: {label: its cases}, one unless of an order."""

    promise: Promise
    about: str
    cases: Mapping[str, tuple[Case, ...]]

    @property
    def first(self) -> Case:
        """A case of the mechanism that it speaks of."""
        return self.cases[self.about][0]


def instances(promise: Promise, cases: Iterable[Case]) -> list[Instance]:
    """Every application of a claim to the cases of a spec."""
    named = list(dict.fromkeys(each.label for each in promise.metrics if each.label is not None))
    free = any(each.label is None for each in promise.metrics)
    groups: dict[str, dict[str, list[Case]]] = {}
    for case in cases:
        groups.setdefault(_cell(case, promise.metrics[0].variable), {}).setdefault(case.label, []).append(case)
    found = []
    for members in groups.values():
        if not all(label in members for label in named):
            continue
        for about in [label for label in members if label not in named] if free else named[:1]:
            held = {label: tuple(c for c in members[label] if _meets(promise.condition, c, about)) for label in [about, *named]}
            if all(held.values()):
                found.append(Instance(promise, about, held))
    return found


def _cell(case: Case, variable: str) -> str:
    """What cases that a claim sets side by side share; under an order all but the sizes that its variable is about."""
    varies = {"N": ("height", "width"), "C": ("channels",), "B": ("batch",), "T": ("frames",)}.get(variable, ())
    shape = {name: size for name, size in vars(case.shape).items() if name not in varies}
    return json.dumps([shape, *map(str, case.block[1:])], sort_keys=True)


def _meets(condition: Condition | None, case: Case, about: str) -> bool:
    if condition is None:
        return True
    if isinstance(condition, Joined):
        parts = [_meets(part, case, about) for part in condition.parts]
        return not parts[0] if condition.op == "not" else all(parts) if condition.op == "and" else any(parts)
    return _test(condition, case, about)


def _test(test: Test, case: Case, about: str) -> bool:
    shape = case.shape
    if test.name == "hw":
        assert isinstance(test.value, tuple)
        same = [_COMPARE[test.op](side, limit) for side, limit in zip(shape.hw, test.value, strict=True)]
        return any(same) if test.op == "!=" else all(same)
    if test.name == "mechanism":
        return fnmatchcase(about, str(test.value)) == (test.op == "==")
    known = {"h": shape.height, "w": shape.width, "n": shape.height * shape.width, "channels": shape.channels}
    known |= {"batch": shape.batch, "frames": shape.frames}
    words = {"mode": case.mode, "dtype": case.dtype, "sdpa": case.settings.get("sdpa", "auto")}
    return _COMPARE[test.op]({**known, **words}[test.name], test.value)


def smallest(cases: Sequence[Case]) -> Case:
    """The case whose multiples an order is traced at."""
    return min(cases, key=lambda case: (case.shape.height * case.shape.width, case.shape.channels, case.shape.batch, case.key))


def judge(promise: Promise, found: Sequence[Instance], points: Mapping[str, Point], orders: Orders | None = None) -> list[Row]:
    """A row per application; one that says so where there is none. `points` by case key; `orders`: those that were traced."""
    if not found:
        told = f"claim '{promise.text}': no case of the spec is what it is about, so that it says nothing"
        return [_row(promise, Reason.NOTHING_SELECTED, Outcome.MISMATCH, told)]
    return [_judged(each, points, orders or {}) for each in found]


def _judged(instance: Instance, points: Mapping[str, Point], orders: Orders) -> Row:
    promise, of = instance.promise, [points[case.key] for cases in instance.cases.values() for case in cases]
    about = points[instance.first.key]
    failed = next((point for point in of if point.status != "ok"), None)
    if failed is not None:
        detail = clean(failed.detail)[:160] if failed.detail else ""
        told = f"claim '{promise.text}' cannot be judged: {failed.name}: {failed.status}{f': {detail}' if detail else ''}"
        return _row(promise, Reason.FAILED, Outcome.FAILED, told, about)
    values: dict[str, Fraction | Growth] = {}
    try:
        for each in promise.metrics:
            label = each.label or instance.about
            name = f"{each.text} of {label}" if each.label is None else each.text
            values[name] = _value(each, instance.cases[label], points, orders)
    except UntraceableError as error:
        told = f"claim '{promise.text}' cannot be judged for {instance.about}: {error}"
        return _row(promise, Reason.NOTHING_SELECTED, Outcome.MISMATCH, told, about)
    plain = {name: _number(value) for name, value in values.items()}
    try:
        left, right = (_term(term, instance.about, plain) for term in (promise.left, promise.right))
    except ZeroDivisionError:
        told = f"claim '{promise.text}' cannot be judged for {about.name}: it divides by zero"
        return _row(promise, Reason.NOTHING_SELECTED, Outcome.MISMATCH, told, about)
    fitted = any(isinstance(value, Growth) and not value.exact for value in values.values())
    margin = MARGIN if fitted else Fraction(0)
    holds = _holds(promise.op, left, right, margin)
    where = f"{about.label} {_point(promise, instance.first, about)}"
    named = "; ".join(f"{name} is {_shown(value)}" for name, value in values.items())
    told = f"{where}: claim '{promise.text}' {'holds' if holds else 'is false'}: {named}"
    if margin:
        told += f" (fitted: within {float(margin):g} counts as equal)"
    outcome = (Reason.CLAIM_HOLDS, Outcome.PASS) if holds else (Reason.CLAIM_FALSE, Outcome.REGRESSED)
    row = _row(promise, *outcome, told, about, right, left)
    return replace(row, point=_point(promise, instance.first, about))


def _point(promise: Promise, case: Case, about: Point) -> str:
    """The case; of an order with the name of what varies in place of its size: '1x16xHxW inference'."""
    variable, shape = promise.metrics[0].variable, case.shape
    if not variable:
        return about.text
    sizes = {"B": shape.batch, "T": shape.frames, "C": shape.channels, "N": f"{shape.height}x{shape.width}"}
    named = {name: ("HxW" if name == "N" else name) if name == variable else str(size) for name, size in sizes.items()}
    kept = [text for name, text in named.items() if name != "T" or shape.frames != 1 or variable == "T"]
    return about.text.replace(about.shape, "x".join(kept), 1)


def _value(metric: Metric, cases: Sequence[Case], points: Mapping[str, Point], orders: Orders) -> Fraction | Growth:
    """A count, or an order: by the kept form, else as it was traced, else the slope over the sizes of the cases."""
    name, variable = metric.metric, metric.variable
    if not variable:
        return Fraction(points[cases[0].key].metrics[name])
    found = of_form(cases, name, variable) or orders.get((smallest(cases).key, name, variable))
    return found or over_sizes({size_of(case, variable): points[case.key].metrics[name] for case in cases}, name, variable)


def _number(value: Fraction | Growth) -> Fraction:
    return Fraction(value.exponent) if isinstance(value, Growth) else value


def _term(term: Term, about: str, values: Mapping[str, Fraction]) -> Fraction:
    if isinstance(term, Number):
        return term.value
    if isinstance(term, Metric):
        return values[f"{term.text} of {about}" if term.label is None else term.text]
    assert isinstance(term, Arithmetic)
    return _ARITHMETIC[term.op](_term(term.left, about, values), _term(term.right, about, values))


def _holds(op: str, left: Fraction, right: Fraction, margin: Fraction) -> bool:
    """Compared where what differs by no more than `margin` is equal: a fitted slope is no exact exponent."""
    return _COMPARE[op](Fraction(0) if abs(left - right) <= margin else left - right, 0)


def _shown(value: Fraction | Growth) -> str:
    return value.text if isinstance(value, Growth) else f"{int(value):,}"


def _row(
    promise: Promise,
    reason: Reason,
    outcome: Outcome,
    sentence: str,
    about: Point | None = None,
    before: Fraction | None = None,
    after: Fraction | None = None,
) -> Row:
    return Row(
        CLAIMS,
        reason,
        outcome,
        sentence,
        mechanism=about.mechanism if about is not None else "",
        label=about.label if about is not None else "",
        point=about.text if about is not None else "",
        metric=promise.text,
        key=about.key if about is not None else "",
        before=None if before is None else _plain(before),
        after=None if after is None else _plain(after),
        line=promise.line,
        column=promise.column,
        detail={"claim": promise.text},
    )


def _plain(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)
