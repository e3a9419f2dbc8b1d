"""Latency of the members of one block, interleaved in one process.

Protocol (pyperf's steady-state test, nvbench's stopping rules, medians with order-statistic intervals): build every member and
look at its outputs; warm each up until two halves of its latest launches agree; then rounds, each timing every active member
once in a fresh random order, so that what disturbs the machine disturbs all of them. A member is done when the relative 95 %
half width of its median is small ('interval'), when its noise and median no longer move ('stable'), or when its time is over
('budget'). Outside the timed window gradients are dropped, tensors moved to other memory (of two equal members one would
otherwise stay the faster by where it lies), caches flushed; the garbage collector is off; every sample is kept. Where caches
stay warm a brief pass is run just before it is timed: what it finds there is its own, whoever else is in the block.

The window itself is in `window.py`.
"""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnprof import stats
from attnprof.profiling.measuring import contention, gpu
from attnprof.profiling.measuring import device as devices
from attnprof.profiling.measuring.prepare import conditions, first_pass, prepare
from attnprof.profiling.measuring.window import Flush, Member, flush_of, move, run_pass, time_pass
from attnprof.records import NOT_MEASURED_BUDGET, Case, Timing

_SLOW_S = 0.05  # a pass above this gets the short warm-up
_BRIEF_S = 0.005  # of warm caches, a pass below this finds what the one before it has left there
_WARMED_S, _MOST_WARMED = 2e-4, 8  # how long it is run before it is timed, once at least
_WARMUP_LAUNCHES = 200
_WARMUP_SHARE = 0.4
_TIMEOUT_SHARE = 0.8  # sampling stops before the parent would call it a hang
_MIN_SAMPLING_S = 0.5
_STABLE_SAMPLES, _STABLE_CHECKS, _STABLE_SPREAD = 64, 8, 0.05
_ENERGY_S = 0.5


@dataclass(frozen=True)
class Plan:
    """Bounds of one block.

    After `enough_s` a member with its least number of samples is done; after `deadline_s` every member is. Both count from
    the start of the child's work; None is no bound.
    """

    block: str
    budget_s: float = 5.0
    min_samples: int = 10
    max_rel_ci: float = 0.01
    timeout_s: float = 300.0
    enough_s: float | None = None
    deadline_s: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Turns:
    """How this process says whose turn it is (and learns what a member has used), and when its work began."""

    turn_to: Callable[[int], None]
    spent_s: Callable[[int], float]
    began: float


@dataclass(frozen=True)
class Outcome:
    """What came of a member: a timing, or why there is none."""

    case: Case
    timing: Timing | None
    detail: str = ""
    energy_j: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class MemberError(Exception):
    """A member's module raised while it was timed."""

    def __init__(self, case: Case, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.case, self.cause = case, cause


def prepare_member(case: Case, index: int, plan: Plan) -> Member | str:
    """Build a case and run it once: a member, or why its output is invalid. Raises what the user's module raises."""
    prepared = prepare(case, plan.seed)
    with conditions(case):
        gradients, invalid = first_pass(prepared)
        if invalid:
            return invalid
        member = Member(case, index, prepared, gradients, 0.0)
        member.estimate_s = time_pass(member).latency_s
    return member


def run_rounds(
    members: Sequence[Member], plan: Plan, turns: Turns, warnings: Callable[[], tuple[str, ...]]
) -> Iterator[Outcome]:
    """Warm up and sample every member; each outcome as soon as it is final. Raises MemberError."""
    if not members:
        return
    flush = flush_of(members[0].case)
    for member in members:
        member.prepared.facts["flush_bytes"] = flush.bytes
    gc.collect()
    gc.freeze()
    with conditions(members[0].case):
        for done, member in enumerate(members):
            most_s = plan.budget_s / 5
            if plan.enough_s is not None:  # and no more than its part of what the block has left
                left = plan.enough_s - (time.monotonic() - turns.began)
                most_s = min(most_s, max(left, 0.0) * _WARMUP_SHARE / (len(members) - done))
            with _turn(member, turns):
                warm_up(member, plan, turns, flush.run, most_s)
        active = list(members)
        shuffler = random.Random(plan.seed)
        number = 0
        while active:
            for member in _not_fitting(active, plan, turns) if number < plan.min_samples else ():
                active.remove(member)
                yield Outcome(member.case, None, _too_dear(member, plan, turns))
            for member in shuffler.sample(active, len(active)):
                reason = _sample(member, number, plan, turns, flush)
                if reason:
                    active.remove(member)
                    turns.turn_to(-1)
                    yield _outcome(member, plan, reason, (*flush.warnings, *warnings()), turns)
            number += 1


@contextlib.contextmanager
def _turn(member: Member, turns: Turns) -> Iterator[None]:
    """Charge the time to a member, and its exceptions too."""
    turns.turn_to(member.index)
    try:
        yield
    except BaseException as error:
        raise MemberError(member.case, error) from error


def _past(bound: float | None, turns: Turns) -> bool:
    return bound is not None and time.monotonic() - turns.began >= bound


def _left_s(member: Member, plan: Plan, turns: Turns) -> float:
    """Seconds that this member may still use."""
    left = _TIMEOUT_SHARE * plan.timeout_s - turns.spent_s(member.index)
    if plan.deadline_s is not None:
        left = min(left, plan.deadline_s - (time.monotonic() - turns.began))
    return left


def _not_fitting(members: Sequence[Member], plan: Plan, turns: Turns) -> list[Member]:
    """Members, dearest first, that must go so that the others get their samples before the deadline."""
    needs = {member.index: member.round_s * (plan.min_samples - len(member.samples)) for member in members}
    total = sum(needs.values())
    left = float("inf") if plan.deadline_s is None else plan.deadline_s - (time.monotonic() - turns.began)
    out = []
    for member in sorted(members, key=lambda m: -needs[m.index]):
        if needs[member.index] > _left_s(member, plan, turns) or total > left:
            out.append(member)
            total -= needs[member.index]
    return out


def _too_dear(member: Member, plan: Plan, turns: Turns) -> str:
    """Why a member gets no timing."""
    needed, left = member.round_s * plan.min_samples, max(_left_s(member, plan, turns), 0.0)
    bound = f"timeout {plan.timeout_s:g} s" if plan.deadline_s is None else "the run's budget, or the timeout"
    return f"{NOT_MEASURED_BUDGET}: {plan.min_samples} passes take about {needed:.3g} s, {left:.3g} s are left ({bound})"


def _sample(member: Member, number: int, plan: Plan, turns: Turns, flush: Flush) -> str:
    """Time one pass; '' or why the member is done."""
    if _left_s(member, plan, turns) < member.estimate_s:
        return "budget"
    began = time.perf_counter()
    with _turn(member, turns):
        gc.collect()
        move(member)
        flush.run()
        if not flush.bytes and member.estimate_s < _BRIEF_S:
            for _ in range(max(min(round(_WARMED_S / max(member.estimate_s, 1e-9)), _MOST_WARMED), 1)):
                run_pass(member)
        timed = time_pass(member)
    member.samples.append(timed.latency_s)
    member.host_s.append(timed.host_s)
    member.waited_s += timed.waited_s
    member.rounds.append(number)
    member.sampling_s += time.perf_counter() - began
    n = len(member.samples)
    if n < plan.min_samples:
        return ""
    if n >= member.next_check:
        member.next_check = n + max(n // 10, 1)
        reason = _settled(member, plan)
        if reason:
            return reason
    return "budget" if member.sampling_s >= plan.budget_s or _past(plan.enough_s, turns) else ""


def _settled(member: Member, plan: Plan) -> str:
    """'interval', 'stable' or ''."""
    samples = member.samples
    centre = stats.median(samples)
    spread = stats.median([abs(sample - centre) for sample in samples]) / centre if centre > 0 else 0.0
    member.checks.append((centre, spread))
    if member.sampling_s >= min(_MIN_SAMPLING_S, plan.budget_s / 4) and stats.relative_half_width(samples) <= plan.max_rel_ci:
        return "interval"
    latest = member.checks[-_STABLE_CHECKS:]
    if len(samples) < _STABLE_SAMPLES or len(latest) < _STABLE_CHECKS:
        return ""
    centres, spreads = [check[0] for check in latest], [check[1] for check in latest]
    still = max(centres) - min(centres) <= plan.max_rel_ci * centre
    even = max(spreads) - min(spreads) <= _STABLE_SPREAD * max(spread, 1e-12)
    return "stable" if still and even else ""


def _outcome(member: Member, plan: Plan, stopped_by: str, noted: tuple[str, ...], turns: Turns) -> Outcome:
    """The timing of a member that is done; with too few samples there is none."""
    n = len(member.samples)
    cuda = member.case.device.startswith("cuda")
    if cuda and member.host_s:
        member.prepared.facts["host_s"] = stats.median(member.host_s)  # on the CPU it is the latency
    member.prepared.facts["waited_for_core_s"] = round(member.waited_s, 6)
    extra = {"flags": devices.flags(), **member.prepared.facts}
    if n < plan.min_samples:
        return Outcome(member.case, None, f"{NOT_MEASURED_BUDGET}: time for {n} of {plan.min_samples} passes", extra=extra)
    if not member.converged:
        noted = (*noted, "the warm-up did not reach a steady state")
    if contention.is_busy(member.waited_s, sum(member.samples)):
        noted = (*noted, contention.BUSY)
    if cuda and stats.median(member.host_s) > stats.median(member.samples):
        host = stats.median(member.host_s)
        noted = (*noted, f"launch-bound: the host needs {host:.3g} s to launch what the device runs in less")
    timing = Timing(
        latency_s=tuple(member.samples),
        rounds=tuple(member.rounds),
        block=plan.block,
        warmup=member.warmup,
        warmup_converged=member.converged,
        stopped_by=stopped_by,
        warnings=noted,
    )
    with _turn(member, turns):
        energy = _energy_j(member, plan, turns)
    turns.turn_to(-1)
    return Outcome(member.case, timing, energy_j=energy, extra=extra)


def warm_up(member: Member, plan: Plan, turns: Turns, flush: Callable[[], None], most_s: float) -> None:
    """Launch until the latest launches are steady, within bounds of launches and time (one launch at least)."""
    half = 3 if member.estimate_s > _SLOW_S else 5
    if plan.enough_s is None:
        most_s = max(most_s, 2 * half * member.estimate_s)
    launches: list[float] = []
    began = time.perf_counter()
    while len(launches) < _WARMUP_LAUNCHES and _left_s(member, plan, turns) > member.estimate_s * (plan.min_samples + 1):
        flush()
        launches.append(time_pass(member).latency_s)
        if len(launches) >= 2 * half and is_steady(launches[-2 * half :]):
            member.converged = True
            break
        if time.perf_counter() - began > most_s:
            break
    member.warmup_s = time.perf_counter() - began
    member.warmup = len(launches) + 2  # the first pass and the one that gave the estimate
    if launches:
        member.estimate_s = stats.median(launches[-half:])


def is_steady(latest: Sequence[float]) -> bool:
    """The test of pyperf on two halves: means within -50 % and +10 %, spread within 10 %, quartiles within 5 %."""
    half = len(latest) // 2
    first, second = list(latest[:half]), list(latest[half:])
    before, after = statistics.fmean(first), statistics.fmean(second)
    if not -0.5 <= (before - after) / after <= 0.1:
        return False
    spreads = [stats.median([abs(x - stats.median(part)) for x in part]) / stats.median(part) for part in (first, second)]
    if abs(spreads[0] - spreads[1]) > 0.1:
        return False
    quartiles = zip(statistics.quantiles(first), statistics.quantiles(second), strict=True)
    low, _, high = ((a - b) / b for a, b in quartiles)
    return abs(low) <= 0.05 and abs(high) <= 0.05


def _energy_j(member: Member, plan: Plan, turns: Turns) -> float | None:
    """Joules per pass by the GPU's counter over half a second of passes; None where there is no counter or no time."""
    device = member.case.device
    if _left_s(member, plan, turns) < 2 * _ENERGY_S or gpu.energy_counter_j(device) is None:
        return None
    passes, began = 0, time.perf_counter()
    before = gpu.energy_counter_j(device)
    while time.perf_counter() - began < _ENERGY_S:
        run_pass(member)
        passes += 1
    after = gpu.energy_counter_j(device)
    return None if before is None or after is None or after <= before else (after - before) / passes
