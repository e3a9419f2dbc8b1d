"""The time gate: latency of base and head, measured side by side in one job. Cases -> Rows.

    time_rows(cases, "origin/main", repository, Options()) -> [Row, ...]

Every point is measured by pairs of processes (`attnprof.execute.lockstep`), as many as it takes to decide it, from the least to
the most that the options allow, looked at after every second one. A point that comes out as regressed is measured again from
nothing, and is REGRESSED only where that finds it too. Time is never gated against a file from another machine or day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnprof import stats
from attnprof.errors import UsageError
from attnprof.execute.checkout import checkouts
from attnprof.execute.lockstep import BASE, HEAD, Broken, Found, Sampled, Sampling, time_pair
from attnprof.execute.options import Listener, Progress
from attnprof.gate.latency import PASSED, REGRESSED, UNDECIDED, Estimate, Pairing, Rule, decide, estimate
from attnprof.gate.rows import Row
from attnprof.gate.timed import Judged, row_of, unmeasured
from attnprof.records import Case

_OWN = Path(__file__).resolve().parent  # attnprof may be what the repository holds
_STEP = 2  # pairs between two looks: every look is a chance to be wrong
_FIRST_SHARE = 0.6  # of the budget: the rest is for confirming
SAMPLING_SHARE = 0.5  # of the first pair's time: the rest goes into starting, building and warming up
_LEAST_S = 0.05  # of rounds
_USED = 0.9  # of the time that is left, by the pairs that are still wanted

Sampler = Callable[[Sequence[Case], int, float, float], Mapping[str, Found]]  # cases, number, seconds per case, deadline


@dataclass(frozen=True)
class Options:
    """tolerance: of head / base, 0.05 for 5 %. sample_s: seconds of rounds per point and pair of processes, at most.

    budget_s: for all points together, confirming included. on_inconclusive: warn, fail or pass.
    """

    tolerance: float = 0.05
    confidence: float = 0.95
    min_processes: int = 5
    max_processes: int = 15
    budget_s: float = 600.0
    confirm: bool = True
    on_inconclusive: str = "warn"
    sample_s: float = 2.0
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def rule(self) -> Rule:
        """The part of them that decides."""
        return Rule(self.tolerance, self.confidence, self.min_processes, self.max_processes)


def check(options: Options) -> None:
    """Raises UsageError for options under which nothing could be decided."""
    if not 0.5 < options.confidence < 1:
        raise UsageError(f"--confidence {options.confidence:g}: a number above 0.5 and below 1, such as 0.95.")
    if options.min_processes < 2:
        raise UsageError(f"--min-processes {options.min_processes}: an interval over processes wants two or more.")
    if options.max_processes < options.min_processes:
        raise UsageError(f"--max-processes {options.max_processes} is less than --min-processes {options.min_processes}.")


def time_rows(
    cases: Sequence[Case],
    base_ref: str,
    repository: Path,
    options: Options | None = None,
    listener: Listener | None = None,
    places: Mapping[str, tuple[int, int]] | None = None,
) -> list[Row]:
    """A row for every distinct case: its latency in the working tree against that in the commit that `base_ref` names.

    Cases need a concrete device. What runs no code of the repository (the catalogue of an attnprof that is installed) is the
    same on both sides, and is not measured. `places`: {label: (line, column)} in the spec. Raises UsageError for options, a
    repository, a ref or a device that cannot be; what a module does is in its row.
    """
    options = options or Options()
    check(options)
    distinct = list({case.key: case for case in cases}.values())
    for case in distinct:
        if case.device != "cpu" and not case.device.startswith("cuda:"):
            raise UsageError(f"latency is measured on a device, and '{case.device}' is none: --device cpu, or cuda:0.")
    with checkouts(repository, base_ref) as sides:

        def sample(chosen: Sequence[Case], number: int, sample_s: float, deadline: float) -> Mapping[str, Found]:
            return time_pair(chosen, sides, options.sampling, number, sample_s, deadline)

        in_question = [case for case in distinct if case.imported or _OWN.is_relative_to(sides[0].home)]
        judged = {each.case.key: each for each in judge(in_question, sample, options, listener)}
        return [
            row_of(judged[case.key], options.rule, options.on_inconclusive, sides[0].commit, places or {})
            if case.key in judged
            else unmeasured(case, bool(judged), places or {})
            for case in distinct
        ]


def judge(
    cases: Sequence[Case],
    sample: Sampler,
    options: Options,
    listener: Listener | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Judged]:
    """Measure every case until it is decided, and once more where it came out as regressed."""
    tell, began = listener or (lambda _: None), clock()
    until = began + (_FIRST_SHARE if options.confirm else 1.0) * options.budget_s
    end = began + options.budget_s
    first = _stage(cases, sample, options, until, "time", tell, clock, end)
    flagged = [case for case in cases if first[case.key].verdict == REGRESSED]
    second: dict[str, _Point] = {}
    if options.confirm and flagged:
        second = _stage(flagged, sample, options, end, "confirm", tell, clock, end)
    return [first[case.key].judged(options, second.get(case.key)) for case in cases]


@dataclass
class _Point:
    """One case in one stage: what its pairs found, and whether that decides it."""

    case: Case
    pairings: list[Pairing] = field(default_factory=list)
    sampled: list[Sampled] = field(default_factory=list)
    broken: Broken | None = None
    slowed: int = 0
    verdict: str = UNDECIDED
    short_of_time: bool = False

    @property
    def waits(self) -> bool:
        """Whether another pair of processes would tell more."""
        return self.verdict == UNDECIDED and self.broken is None

    def take(self, found: Found | None) -> None:
        """Add what one pair of processes found; what was sampled while heat or power held the clock down is left out."""
        if isinstance(found, Broken):
            self.broken = found
        elif isinstance(found, Sampled):
            self.slowed += found.slowed
            if not found.slowed:
                self.sampled.append(found)
                self.pairings.append(Pairing(found.base_s, found.head_s))

    def leans(self, options: Options) -> bool:
        """Whether it looks like a regression so far: that will have to be measured again."""
        return bool(self.pairings) and stats.median([each.ratio for each in self.pairings]) > 1 + options.tolerance

    def estimate(self, options: Options) -> Estimate | None:
        """The ratio so far."""
        return estimate(self.pairings, options.confidence)

    def judged(self, options: Options, again: _Point | None) -> Judged:
        """The point with its confirmation, for a row."""
        return Judged(
            case=self.case,
            verdict=self.verdict,
            found=self.estimate(options),
            ratios=tuple(each.ratio for each in self.pairings),
            broken=self.broken,
            slowed=self.slowed,
            short_of_time=self.short_of_time,
            confirming=None if again is None else again.judged(options, None),
            confirmed=not options.confirm or (again is not None and again.verdict == REGRESSED),
            warnings=tuple(dict.fromkeys(warning for each in self.sampled for warning in each.warnings)),
            environment=self.sampled[-1].environment if self.sampled else {},
        )


def _stage(
    cases: Sequence[Case],
    sample: Sampler,
    options: Options,
    until: float,
    name: str,
    tell: Listener,
    clock: Callable[[], float],
    end: float,
) -> dict[str, _Point]:
    """Pairs of processes for whatever is undecided, until nothing is, or there were enough, or the time is over.

    The time is `until`, and what is left from there to `end` where nothing leans towards a regression, which would have to be
    confirmed. What a pair takes beside sampling is seen in the first one; the others sample for what that leaves.
    """
    points = {case.key: _Point(case) for case in cases}
    pairs_s = SAMPLING_SHARE * max(until - clock(), 0.0) / options.min_processes
    sample_s = min(options.sample_s, pairs_s / max(len(cases), 1))
    offset = 0 if name == "time" else options.max_processes  # no seed twice
    each_s = 0.0  # of a case, in the pair before
    for number in range(options.max_processes):
        waiting = [point for point in points.values() if point.waits]
        if not waiting:
            break
        began = clock()
        if began + each_s * len(waiting) >= until:
            for point in waiting:
                point.short_of_time = True
            break
        found = sample([point.case for point in waiting], offset + number, sample_s, until)
        each_s = (clock() - began) / len(waiting)
        look = number + 1 >= options.min_processes and (number + 1 - options.min_processes) % _STEP == 0
        for point in waiting:
            point.take(found.get(point.case.key))
            if point.broken is None and (look or number + 1 == options.max_processes):
                point.verdict = decide(point.estimate(options), options.rule)
        if not any(point.leans(options) for point in waiting):
            until = end
        if number + 1 < options.min_processes:
            left_s = _USED * (until - clock()) / (options.min_processes - number - 1) / len(waiting)
            sample_s = min(options.sample_s, max(left_s - (each_s - sample_s), _LEAST_S))
        done = sum(not point.waits for point in points.values())
        tell(Progress(name, done, len(points), waiting[-1].case, f"pair {number + 1} of at most {options.max_processes}"))
    return points


__all__ = ["BASE", "HEAD", "PASSED", "REGRESSED", "UNDECIDED", "Options", "check", "judge", "time_rows"]
