"""How long a gate will take, about, and from what that is said: the cases to count, and the options of what is measured. Pure.

The rates of counting were seen once: 60 cases of specs/survey.yaml, traced in one child on two busy cores, the first after
4.3 s, the others in 0.075 s each on average. What the kept closed forms take is for the caller to time: it asks them anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnprof.execute.predict import block_overhead_s
from attnprof.gate.ratios import Pair
from attnprof.gate.timing import SAMPLING_SHARE, Options

FIRST_S, TRACE_S = 4.3, 0.075  # see above


@dataclass(frozen=True)
class Forecast:
    """Seconds at least and at most, and what they are made of."""

    least_s: float
    most_s: float
    basis: str

    @property
    def text(self) -> str:
        """'about 5 s: ...', 'about 40 s to 2 min: ...'."""
        least, most = spoken(self.least_s), spoken(self.most_s)
        return f"about {least if least == most else f'{least} to {most}'}: {self.basis}"


def spoken(seconds: float) -> str:
    """'under 1 s', '40 s', '12 min', '1.5 h'."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def of_counting(known: int, known_s: float, to_trace: int) -> Forecast:
    """Of exact and claims. known: cases that the kept forms answer, which took `known_s` just now."""
    forms = f"{known} by kept closed forms ({known_s:.2g} s just now)"
    if not to_trace:
        return Forecast(known_s, known_s, forms)
    seconds = known_s + FIRST_S + TRACE_S * (to_trace - 1)
    return Forecast(seconds, seconds, f"{forms}, {to_trace} to trace (the first {FIRST_S:g} s, the others {TRACE_S:g} s each)")


def of_time(points: int, options: Options) -> Forecast:
    """Of the time class, should all of these points be measured."""
    pair_s = points * options.sample_s / SAMPLING_SHARE
    basis = (
        f"{options.min_processes} to {options.max_processes} pairs of processes of at most {points} points, "
        f"{options.sample_s:g} s of sampling in each and as much again for the start, within --budget"
    )
    return _measured(pair_s, options, basis)


def of_ratio(pairs: Sequence[Pair], budget_s: float, options: Options) -> Forecast:
    """Of the ratio class. budget_s: of sampling per case and process, which a quiet machine does not use up."""
    cases = {case.key: case for pair in pairs for case in (pair.case, pair.reference)}
    blocks = len({case.block for case in cases.values()})
    start_s = blocks * (block_overhead_s(3) - block_overhead_s(2))
    basis = (
        f"{options.min_processes} to {options.max_processes} processes, at most {budget_s:g} s of sampling "
        f"of {len(cases)} cases in each, within --budget"
    )
    return _measured(start_s + len(cases) * budget_s, options, basis)


def _measured(each_s: float, options: Options, basis: str) -> Forecast:
    """Of processes (or pairs of them), each of which takes so long; the most with a confirmation."""
    stages = 2 if options.confirm else 1
    least, most = (min(number * each_s, options.budget_s) for number in (options.min_processes, stages * options.max_processes))
    return Forecast(least, most, basis)
