"""The ratio gate: latency of a case over that of its block's reference, against the ratio that a baseline holds.

Every block is timed by `execute.run_cases` in several processes, which is how `compare --replicates` times it; what is
undecided is timed in more of them, up to the most that the options allow. What came out as regressed is measured once more
from nothing, and is REGRESSED only where that finds it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from attnprof import stats
from attnprof.execute import Options as RunOptions
from attnprof.execute import run_cases
from attnprof.execute.measuring import probe
from attnprof.execute.options import Listener
from attnprof.gate.ratio_rows import Found
from attnprof.gate.ratios import REGRESSED, UNDECIDED, Held, Pair, Ratios, decide, held
from attnprof.gate.timing import Options
from attnprof.profiling.measuring.contention import BUSY
from attnprof.records import Case, Record
from attnprof.report.ratios import NOT_PAIRED, Samples, paired

_FIRST_SHARE = 0.6  # of the budget: the rest is for confirming

# cases, number of processes, the first one's number, seconds that are left -> records
Sampler = Callable[[Sequence[Case], int, int, float | None], Iterable[Record]]


def model_of(device: str) -> tuple[str, str]:
    """(model of a device, '' or why it cannot be used), asked in a child."""
    answer = probe(device, [], RunOptions())
    return str(answer["model"]), "" if answer["usable"] else str(answer["reason"])


def sampler(baseline: str, budget_s: float, timeout_s: float, listener: Listener | None = None) -> Sampler:
    """What times cases on their device. budget_s: of sampling, per case and process."""

    def sample(cases: Sequence[Case], processes: int, first: int, left_s: float | None) -> Iterable[Record]:
        options = RunOptions(
            budget_s=budget_s,
            run_budget_s=left_s,
            timeout_s=timeout_s,
            seed=first,
            first=baseline,
            replicates=processes,
            start="spawn",
        )
        return run_cases(cases, options, listener)

    return sample


def measure(pairs: Sequence[Pair], sample: Sampler, processes: int, budget_s: float | None) -> dict[str, Timed]:
    """{key: what was found}, for a baseline: every pair once."""
    points = {pair.key: Timed(pair) for pair in pairs}
    _take(list(points.values()), sample, processes, 0, budget_s)
    return points


def section(points: Iterable[Timed], device: str, torch: str) -> Ratios:
    """What a baseline holds of those that have a ratio."""
    kept = {}
    for point in points:
        found = point.ratio()
        if found is not None and point.failed is None:
            kept[point.pair.key] = held(found, point.pair.reference.label, point.threads or 1)
    return Ratios(device, torch, kept)


def judge(
    pairs: Sequence[Pair],
    stored: Mapping[str, Held],
    sample: Sampler,
    options: Options,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Found]:
    """{key: Found} of pairs whose ratio is stored: measured until each is decided, and once more where it regressed."""
    began = clock()
    until = began + (_FIRST_SHARE if options.confirm else 1.0) * options.budget_s
    first = _stage(pairs, stored, sample, options, until, 0, clock)
    again: dict[str, Timed] = {}
    flagged = [pair for pair in pairs if first[pair.key].verdict == REGRESSED]
    if options.confirm and flagged:
        again = _stage(flagged, stored, sample, options, began + options.budget_s, options.max_processes, clock)
    return {key: point.found(options, again[key].found(options) if key in again else None) for key, point in first.items()}


@dataclass
class Timed:
    """One pair in one stage: what each process sampled, and whether that decides it."""

    pair: Pair
    processes: list[tuple[Samples, Samples]] = field(default_factory=list)
    failed: tuple[str, str, str] | None = None
    why: str = ""
    threads: int | None = None
    busy: bool = False
    verdict: str = UNDECIDED

    def take(self, records: Mapping[str, Record]) -> None:
        """Add what one call of the sampler found."""
        both = [records.get(self.pair.case.key), records.get(self.pair.reference.key)]
        for record in both:
            if record is not None and record.status != "ok":
                self.failed = (record.case.label, record.status, record.detail)
                return
        own, other = both
        if own is None or other is None or own.timing is None or other.timing is None:
            self.why = next((each.detail for each in both if each is not None and each.timing is None), "no record of it")
            return
        self.busy |= BUSY in (*own.timing.warnings, *other.timing.warnings)
        found = paired(own, other)
        self.why = "" if found else NOT_PAIRED
        self.processes += found
        self.threads = own.environment.get("threads")

    def ratio(self, confidence: float = 0.95) -> stats.Ratio | None:
        """The ratio so far; None for fewer than two processes, which have no interval over them."""
        return stats.ratio_over_processes(self.processes, confidence) if len(self.processes) > 1 else None

    def found(self, options: Options, again: Found | None = None) -> Found:
        """What the row is made of."""
        ratio = self.ratio(_two_sided(options))
        why = self.why or ("" if ratio is not None else "too few processes timed it")
        return Found(self.verdict, ratio, self.failed, why, again, self.threads, self.busy)


def _two_sided(options: Options) -> float:
    """The confidence of the interval whose bounds each have --confidence."""
    return 2 * options.confidence - 1


def _stage(
    pairs: Sequence[Pair],
    stored: Mapping[str, Held],
    sample: Sampler,
    options: Options,
    until: float,
    first: int,
    clock: Callable[[], float],
) -> dict[str, Timed]:
    """Processes for whatever is undecided, until nothing is, or there were enough, or the time is over."""
    points = {pair.key: Timed(pair) for pair in pairs}
    for number in range(0, options.max_processes, options.min_processes):
        waiting = [point for point in points.values() if point.verdict == UNDECIDED and point.failed is None]
        left_s = until - clock()
        if not waiting or left_s <= 0:
            break
        _take(waiting, sample, min(options.min_processes, options.max_processes - number), first + number, left_s)
        for point in waiting:
            ratio = point.ratio(_two_sided(options))
            if ratio is not None and ratio.processes >= options.min_processes and point.failed is None:
                point.verdict = decide(ratio, stored[point.pair.key], options.tolerance)
    return points


def _take(points: Sequence[Timed], sample: Sampler, processes: int, first: int, left_s: float | None) -> None:
    cases = {case.key: case for point in points for case in (point.pair.reference, point.pair.case)}
    records = {record.case.key: record for record in sample(list(cases.values()), processes, first, left_s)}
    for point in points:
        point.take(records)
