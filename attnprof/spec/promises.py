"""A claim that a spec makes of its own mechanisms, as a text: `macs(ccnet) < macs(nonlocal) @ hw >= 65x65`. Its nouns.

    claim      =  sum  ("<" | "<=" | ">" | ">=" | "==")  sum  [ "@" condition ]
    sum        =  products, added or subtracted;   product  =  terms, multiplied or divided;   ( sum ) is a term
    term       =  100 | 2GiB | 10G | 1.5 GMACs | metric | metric(label) | order(metric, N) | order(metric(label), N)
    condition  =  tests joined by and, or, not and parentheses
    test       =  hw >= 65x65 | h == 97 | w | n (h * w) | channels | batch | frames | mode == training | dtype | sdpa
                  | mechanism == 'ccnet*'

A metric without a label stands for every mechanism of the spec. A label with special characters may be quoted. N is H * W;
order() takes C, B and T as well. `promise_text` reads the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from attnprof.spec.quantities import of_another
from attnprof.spec.values import nearest

VARIABLES = {"N": "h * w", "C": "channels", "B": "batch", "T": "frames"}


class PromiseError(ValueError):
    """What is wrong with a claim, at which character of it, and what would be right."""

    def __init__(self, what: str, offset: int, hint: str = "") -> None:
        self.what, self.offset, self.hint = what, offset, hint
        super().__init__(what)


@dataclass(frozen=True)
class Number:
    """An amount. counts: the metric that its word names ('GMACs'), or ''. offset: where it stands in the text."""

    value: Fraction
    kind: str
    text: str
    counts: str = ""
    offset: int = 0


@dataclass(frozen=True)
class Metric:
    """A traced metric of one label, or of every mechanism in turn (None); with `variable` the order in which it grows."""

    metric: str
    label: str | None
    text: str
    variable: str = ""
    offset: int = 0  # of the label in the text


@dataclass(frozen=True)
class Arithmetic:
    """left op right, op one of + - * /."""

    op: str
    left: Term
    right: Term


Term = Number | Metric | Arithmetic


@dataclass(frozen=True)
class Test:
    """One comparison in a condition: a name, and what it is compared with."""

    name: str
    op: str
    value: int | str | tuple[int, int]


@dataclass(frozen=True)
class Joined:
    """Conditions under 'and' or 'or'; one under 'not'."""

    op: str
    parts: tuple[Condition, ...]


Condition = Test | Joined


@dataclass(frozen=True)
class Promise:
    """One claim. line, column: of its text in the spec's file."""

    text: str
    left: Term
    op: str
    right: Term
    condition: Condition | None = None
    line: int = 0
    column: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every metric in it."""
        return tuple(each for each in self._leaves if isinstance(each, Metric))

    @property
    def numbers(self) -> tuple[Number, ...]:
        """Every amount in it."""
        return tuple(each for each in self._leaves if isinstance(each, Number))

    @property
    def _leaves(self) -> tuple[Number | Metric, ...]:
        return (*_leaves(self.left), *_leaves(self.right))


def _leaves(term: Term) -> Iterator[Number | Metric]:
    if isinstance(term, Arithmetic):
        yield from _leaves(term.left)
        yield from _leaves(term.right)
    else:
        yield term


def check_amounts(promise: Promise) -> None:
    """Raises PromiseError for an amount of a count that the claim is not about: MACs are not FLOPs."""
    about = [each.metric for each in promise.metrics]
    for each in promise.numbers:
        if each.counts and each.counts not in about:
            what, _, hint = of_another(each.text, each.counts, about[0]).partition(": ")
            raise PromiseError(what, each.offset, hint)


def check_labels(promise: Promise, labels: Sequence[str]) -> Iterator[PromiseError]:
    """Labels of a claim that are none of the spec's."""
    for each in promise.metrics:
        if each.label is not None and each.label not in labels:
            variants = [label for label in labels if label.startswith(f"{each.label}[")]
            hint = f"it has variants: {', '.join(variants[:6])}" if variants else nearest(each.label, labels)
            yield PromiseError(
                f"'{each.label}' is no label of this spec", each.offset, hint or f"one of {', '.join(labels[:12])}"
            )
