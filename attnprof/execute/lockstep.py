"""Two processes in lock-step: the same case in the code of two checkouts, one sample of each side per round, in random order.

    time_pair(cases, sides, sampling, number, sample_s, deadline) -> {case key: Sampled or Broken}

A pair of processes is two fresh interpreters (never forks: those would share one memory layout) on the same cores, of which one
runs at a time. Each imports its own checkout's code, builds, checks that its outputs are finite, warms up; then rounds. A case
that fails is told of and ends both; the cases that are left go on in another pair.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnprof import stats
from attnprof.execute.checkout import Checkout, localised, orders
from attnprof.execute.side import Side, SideError, start
from attnprof.profiling.measuring import gpu
from attnprof.profiling.measuring.device import available_bytes
from attnprof.records import Case, to_json

BASE, HEAD = "base", "head"
_START_S = 120.0  # for an interpreter to import torch, and for a GPU that another run has
_MEMORY_SHARE = 0.45  # of what is available, for either side
_CHECK_EVERY = 5  # rounds between two looks at the interval
_UNCOUNTED = 5  # rounds before those that count: one side was warmed up while the other waited


@dataclass(frozen=True)
class Sampling:
    """How one pair samples one case: rounds until the interval of its ratio is narrow or the time is over. Seconds, bytes.

    min_rounds: fewer than these are no measurement. warmup_s: of either side, at most. timeout_s: for every answer of a child.
    memory_bytes: what each of the two children may allocate on the CPU, None for its half of what the machine has available.
    """

    min_rounds: int = 10
    max_rel_ci: float = 0.005
    warmup_s: float = 1.0
    timeout_s: float = 300.0
    memory_bytes: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Sampled:
    """Latencies of both sides in one pair of processes, round by round. slowed: the GPU's clock was held down meanwhile."""

    base_s: tuple[float, ...]
    head_s: tuple[float, ...]
    slowed: bool = False
    warnings: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Broken:
    """Why a case gave no samples: {side: (status, detail)}; `absent`: sides whose checkout has no such module."""

    failures: Mapping[str, tuple[str, str]]
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Unfinished:
    """The time was over before a case had its least number of rounds."""


Found = Sampled | Broken | Unfinished


@contextlib.contextmanager
def _cores(threads: int) -> Iterator[list[int]]:
    """So many cores that no other measurement has, for both sides to share; none where there are not as many."""
    held: dict[int, int] = {}
    try:
        for core in sorted(os.sched_getaffinity(0), reverse=True) if hasattr(os, "sched_getaffinity") else ():
            if len(held) < threads:
                descriptor = gpu.lock(f"cpu{core}", wait=False)
                if descriptor is not None:
                    held[core] = descriptor
        yield sorted(held) if len(held) == threads else []
    finally:
        for descriptor in held.values():
            os.close(descriptor)


@dataclass
class _Pair:
    """Both sides, alive, with what they were told."""

    base: Side
    head: Side

    def __iter__(self) -> Iterator[Side]:
        return iter((self.base, self.head))


@contextlib.contextmanager
def _pair(sides: tuple[Checkout, Checkout], threads: int, memory: int | None, number: int) -> Iterator[_Pair]:
    """Two fresh interpreters, which import torch side by side; both are killed at the end. memory: what each may allocate.

    number: of the replicate; which side starts first alternates with it.
    """
    with contextlib.ExitStack() as stack:
        cores = stack.enter_context(_cores(threads))
        started = {}
        told = dict(zip((BASE, HEAD), orders(*sides), strict=True))
        for name in _in_turn(number):
            started[name] = start(name, {**told[name], "cores": cores, "memory_bytes": memory})
            stack.callback(started[name].kill)
        yield _Pair(started[BASE], started[HEAD])


def _not_started(pair: _Pair) -> Broken | None:
    """Wait until both sides are up; else why one is not."""
    broken = []
    for side in pair:
        try:
            side.answer(_START_S)
        except SideError as error:
            broken.append(SideError(error.side, error.status, f"the process does not start: {error.detail}"))
    return _broken(broken) if broken else None


def _in_turn(number: int) -> tuple[str, str]:
    """Which side is started, and made ready, first: what goes first is not the same to a scheduler, so it alternates."""
    return (BASE, HEAD) if number % 2 else (HEAD, BASE)


def time_pair(
    cases: Sequence[Case],
    sides: tuple[Checkout, Checkout],
    sampling: Sampling,
    number: int,
    sample_s: float,
    deadline: float = float("inf"),
) -> dict[str, Found]:
    """What one replicate finds of every case: `number` seeds its order, `sample_s` are the seconds of rounds per case.

    Cases that share a device and a number of threads share a pair of processes, one after the other. deadline: monotonic.
    """
    found: dict[str, Found] = {}
    groups: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.device, int(case.settings.get("threads") or 1)), []).append(case)
    for (device, threads), waiting in groups.items():
        cpu = not device.startswith("cuda")  # CUDA reserves more addresses than there is memory
        while waiting:
            if time.monotonic() >= deadline:
                found |= {case.key: Unfinished() for case in waiting}
                break
            memory = (sampling.memory_bytes or int(_MEMORY_SHARE * available_bytes())) if cpu else None
            with _pair(sides, threads, memory, number) as pair:
                failed = _not_started(pair)
                if failed is not None:  # as it would for the next pair of this group; other groups have their own
                    found |= {case.key: failed for case in waiting}
                    break
                for case in list(waiting):
                    waiting.remove(case)
                    found[case.key] = one = _time_case(case, pair, sides, sampling, number, sample_s, deadline)
                    if isinstance(one, Broken):
                        break  # what a process does after a failure is anybody's guess
    return found


def _time_case(
    case: Case,
    pair: _Pair,
    sides: tuple[Checkout, Checkout],
    sampling: Sampling,
    number: int,
    sample_s: float,
    deadline: float,
) -> Found:
    """Prepare a case on one side after the other, then rounds of both."""
    request = {"do": "prepare", "seed": sampling.seed + number}
    request |= {"timeout_s": sampling.timeout_s, "warmup_s": sampling.warmup_s}
    told = {name: to_json(localised(case, side)) for name, side in zip((BASE, HEAD), sides, strict=True)}
    broken: list[SideError] = []
    ready: dict[str, dict[str, Any]] = {}
    waits_s = sampling.timeout_s if case.device == "cpu" else max(sampling.timeout_s, _START_S)  # for the lock of a GPU
    order = [{BASE: pair.base, HEAD: pair.head}[name] for name in _in_turn(number)]
    for side in order:
        try:
            more = {"case": told[side.name], "lock": side is order[0]}  # the first takes that lock for both
            ready[side.name] = side.ask({**request, **more}, waits_s)
        except SideError as error:
            broken.append(error)
    if broken:
        return _broken(broken)
    try:
        samples = _rounds(pair, sampling, random.Random(f"{sampling.seed} {number} {case.key}"), sample_s, deadline)
        dropped = [side.ask({"do": "drop"}, sampling.timeout_s) for side in pair]
    except SideError as error:
        return _broken([error])
    if len(samples[BASE]) < sampling.min_rounds:
        return Unfinished()
    said = [warning for answer in (*ready.values(), *dropped) for warning in answer["warnings"]]
    said += [f"{name}: the warm-up did not reach a steady state" for name, answer in ready.items() if not answer["converged"]]
    environment = ready[HEAD]["environment"] | dropped[1]["environment"]
    environment["page_faults"] = {side.name: answer["page_faults"] for side, answer in zip(pair, dropped, strict=True)}
    slowed = any(answer["slowed"] for answer in dropped)
    return Sampled(tuple(samples[BASE]), tuple(samples[HEAD]), slowed, tuple(dict.fromkeys(said)), environment)


def _broken(errors: Sequence[SideError]) -> Broken:
    failures = {error.side: (error.status, error.detail) for error in errors}
    return Broken(failures, frozenset(error.side for error in errors if error.absent))


def _rounds(pair: _Pair, sampling: Sampling, draw: random.Random, sample_s: float, deadline: float) -> dict[str, list[float]]:
    """{side: latencies in seconds}, as many of one as of the other. Raises SideError."""
    samples: dict[str, list[float]] = {BASE: [], HEAD: []}
    for _ in range(_UNCOUNTED):
        for side in draw.sample(list(pair), 2):
            side.ask({"do": "once"}, sampling.timeout_s)
    began = time.monotonic()
    while time.monotonic() < deadline:
        for side in draw.sample(list(pair), 2):
            samples[side.name].append(side.ask({"do": "once"}, sampling.timeout_s)["s"])
        n = len(samples[BASE])
        if n < sampling.min_rounds:
            continue
        if time.monotonic() - began >= sample_s or (n % _CHECK_EVERY == 0 and _settled(samples, sampling)):
            break
    return samples


def _settled(samples: Mapping[str, Sequence[float]], sampling: Sampling) -> bool:
    ratio = stats.paired_ratio(samples[HEAD], samples[BASE])
    return (ratio.high - ratio.low) / 2 <= sampling.max_rel_ci * ratio.value
