"""Domains: the conditions under which expressions hold, learned from points where they do and points where they do not.

A domain is a conjunction of conditions such as `C % 8 == 0`, `H >= 2`, `B == 1`, `H % 8 != 0`. Points that contradict an
expression are cut off by the conditions that lose the fewest points where it holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Env = Mapping[str, npt.NDArray[np.int64]]


_VARIABLES = ("B", "C", "H", "W", "T")
_MOST_LEARNED = 5  # more conditions than these describe the points, not the expression


@dataclass(frozen=True)
class Condition:
    """One comparison. kind: '>=', '<=', '==' (with value), '%' (modulus, value: remainder), '!%' (not that remainder).

    With `other`, an argument, that is what is compared with: `C % heads == 0` ('%'), `C >= reduction` ('>=').
    """

    name: str  # a variable, or 'H*W'
    kind: str
    value: int
    modulus: int = 1
    other: str = ""

    @property
    def text(self) -> str:
        """The condition in Python."""
        if self.other:
            return f"{self.name} % {self.other} == 0" if self.kind == "%" else f"{self.name} {self.kind} {self.other}"
        if self.kind in ("%", "!%"):
            return f"{self.name} % {self.modulus} {'==' if self.kind == '%' else '!='} {self.value}"
        return f"{self.name} {self.kind} {self.value}"

    def holds(self, env: Env) -> Bools:
        """Where it holds."""
        values = env["H"] * env["W"] if self.name == "H*W" else env[self.name]
        if self.other:
            against = env[self.other]
            return np.asarray(values % np.maximum(against, 1) == 0) if self.kind == "%" else np.asarray(values >= against)
        if self.kind == "%":
            return np.asarray(values % self.modulus == self.value)
        if self.kind == "!%":
            return np.asarray(values % self.modulus != self.value)
        compare = {">=": np.greater_equal, "<=": np.less_equal, "==": np.equal}[self.kind]
        return np.asarray(compare(values, self.value))


Domain = tuple[Condition, ...]


def text(domain: Domain) -> str:
    """'C % 8 == 0 and H >= 2', without what other conditions say already; 'True' for everywhere."""
    order = {name: index for index, name in enumerate(("C", "H", "W", "H*W", "T", "B"))}
    kept = [each for each in dict.fromkeys(domain) if each.other or (each.kind, each.value) != (">=", 1)]
    kept = [each for each in kept if not any(_said_by(each, other) for other in kept)]
    kept.sort(key=lambda each: order.get(each.name, len(order)))
    return " and ".join(each.text for each in kept) or "True"


def _said_by(condition: Condition, other: Condition) -> bool:
    """Does `C % 8 == 0` say `C % 4 == 0`?"""
    plain = all(each.kind == "%" and not each.value and not each.other for each in (condition, other))
    finer = other.modulus > condition.modulus and other.modulus % condition.modulus == 0
    return plain and condition.name == other.name and finer


def inside(domain: Domain, env: Env, points: int) -> Bools:
    """Which of the points are inside."""
    found = np.ones(points, dtype=np.bool_)
    for condition in domain:
        found &= condition.holds(env)
    return found


def learn(start: Domain, env: Env, good: Bools, seed: Mapping[str, int], names: Sequence[str]) -> Domain:
    """The domain: `start`, and conditions that hold at the seed, until no bad point is inside."""
    domain = start
    here = {name: np.array([value]) for name, value in seed.items()}
    candidates = [each for each in _candidates(env, seed, names) if each.holds(here).all()]
    tables = {each: each.holds(env) for each in candidates}
    while True:
        now = inside(domain, env, len(good))
        bad = now & ~good
        if not bad.any():
            return simplified(domain, env, good)
        best, score = None, 0.0
        for each, table in tables.items():
            cut = int((bad & ~table).sum())
            lost = int((now & good & ~table).sum())
            worth = cut / (1 + lost) - 0.001 * _size(each)
            if cut and worth > score:
                best, score = each, worth
        if best is None or len(domain) == len(start) + _MOST_LEARNED:
            raise LookupError("no condition on sizes, residues or the batch tells where the expressions hold")
        domain = (*domain, best)


def simplified(domain: Domain, env: Env, good: Bools) -> Domain:
    """The domain without conditions that cut nothing off (the first ones stay longest)."""
    kept = domain
    for condition in reversed(domain):
        if condition.kind in ("%", "!%", "<=") and condition.name == "C" and not condition.other:
            continue
        less = tuple(each for each in kept if each != condition)
        if not (inside(less, env, len(good)) & ~good).any():
            kept = less
    return kept


def _size(condition: Condition) -> int:
    return 4 if condition.other else condition.modulus + abs(condition.value)


def _candidates(env: Env, seed: Mapping[str, int], names: Sequence[str]) -> Iterator[Condition]:
    for name in names:
        values = sorted({int(value) for value in env[name]})
        if name in ("B", "T") or name not in ("C", "H", "W"):
            yield Condition(name, "==", seed[name])
        for value in values:
            if value <= seed[name]:
                yield Condition(name, ">=", value)
            if value >= seed[name]:
                yield Condition(name, "<=", value)
        for modulus in (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 32, 48, 64):
            rest = seed[name] % modulus
            if name != "B":
                yield Condition(name, "%", rest, modulus)
                if rest:
                    yield Condition(name, "!%", 0, modulus)
    arguments = [name for name in names if name not in _VARIABLES]
    for name, other in itertools.product((name for name in names if name not in "BT"), arguments):
        if name != other:
            yield Condition(name, "%", 0, other=other)
            yield Condition(name, ">=", 0, other=other)
    if "H" in names and "W" in names:
        for value in sorted({int(value) for value in env["H"] * env["W"]}):
            yield Condition("H*W", ">=", value)
            yield Condition("H*W", "<=", value)
