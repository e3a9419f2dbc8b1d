"""A pass followed for an explanation: the trace, and the tracer that followed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from attnprof.profiling.counting.lifetimes import Lifetimes
from attnprof.profiling.counting.trace import Traced, follow_case
from attnprof.profiling.whatif.follow import Follower
from attnprof.records import Case


@dataclass(frozen=True)
class Pass:
    """A followed pass."""

    traced: Traced
    tracer: Follower

    @property
    def peak(self) -> int:
        """Bytes."""
        return self.traced.counts.peak_bytes

    @property
    def lifetimes(self) -> Lifetimes:
        """Of every storage."""
        return self.traced.lifetimes

    @property
    def end(self) -> int:
        """Events within the pass; what dies later are its results."""
        return self.tracer.ledger.end


def follow(
    case: Case,
    drop: dict[int, int] | None = None,
    change: Callable[[nn.Module], object] | None = None,
    made: list[Follower] | None = None,
) -> Pass:
    """The pass of a case; see `Follower` and `follow_case`. `made`: gets each tracer as it is made, the running one last."""
    tracers = [] if made is None else made

    def make(*, real: bool = False) -> Follower:
        tracers.append(Follower(real=real, drop=drop))
        return tracers[-1]

    traced = follow_case(case, make, change)
    return Pass(traced, tracers[-1])
