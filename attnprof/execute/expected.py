"""What counting a case will take, from what cases like it took: the order of a sweep, its chunks, and the time that is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from attnprof.records import Case

# Before anything was seen: seconds of a case, and how much more a network or a backward pass is than a module's forward pass.
# Medians of the shipped specs on one core; being wrong costs an uneven split of the first chunks and nothing else.
_CASE_S = 0.02
_NETWORK = 8.0
_TRAINING = 2.5

Kind = tuple[str, str | None, str]


@dataclass
class Expected:
    """Seconds per kind of case (mechanism, network, mode) as seen so far; sizes do not matter to a trace."""

    seen: dict[Kind, tuple[int, float]] = field(default_factory=dict)
    seen_s: float = 0.0  # of all that was seen, and what it would have been by the guess alone
    guessed_s: float = 0.0

    def learn(self, case: Case, seconds: float) -> None:
        """Take a case that was counted into account."""
        count, total = self.seen.get(_kind(case), (0, 0.0))
        self.seen[_kind(case)] = (count + 1, total + seconds)
        self.seen_s += seconds
        self.guessed_s += _guess(case)

    def trace_s(self, case: Case) -> float:
        """Seconds that one child will take to count a case."""
        count, total = self.seen.get(_kind(case), (0, 0.0))
        if count:
            return total / count
        return _guess(case) * (self.seen_s / self.guessed_s if self.guessed_s else 1.0)

    def total_s(self, cases: Iterable[Case]) -> float:
        """Seconds that they will take one after the other."""
        return sum(self.trace_s(case) for case in cases)


def _kind(case: Case) -> Kind:
    return (case.mechanism, None if case.host is None else case.host.host, case.mode)


def _guess(case: Case) -> float:
    return _CASE_S * (_NETWORK if case.host is not None else 1.0) * (_TRAINING if case.mode == "training" else 1.0)
