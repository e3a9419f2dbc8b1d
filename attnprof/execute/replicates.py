"""One timing from several processes: what each sampled of a case, side by side, every sample with its process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attnprof import stats
from attnprof.records import Record, Timing

_WORST_FIRST = ("budget", "stable", "interval")


def merged(processes: Sequence[Sequence[Record]]) -> list[Record]:
    """A record for every case that was timed in each of the processes; those of a single one unchanged.

    Rounds pair within a process only: `process_of` tells them apart, and the block is that of the first process. Energy is the
    median over processes; the environment that of the last one. Whatever any of them warned of is kept once.
    """
    if len(processes) == 1:
        return list(processes[0])
    found = [{record.case.key: record for record in records} for records in processes]
    out = []
    for key, last in found[-1].items():
        records = [own[key] for own in found if key in own]
        timings = [record.timing for record in records if record.timing is not None]
        energies = [record.energy_j for record in records if record.energy_j is not None]
        out.append(replace(last, timing=_joined(timings), energy_j=stats.median(energies) if energies else None))
    return out


def _joined(timings: Sequence[Timing]) -> Timing:
    reasons = {timing.stopped_by for timing in timings}
    return Timing(
        latency_s=tuple(sample for timing in timings for sample in timing.latency_s),
        rounds=tuple(number for timing in timings for number in timing.rounds),
        block=timings[0].block,
        warmup=sum(timing.warmup for timing in timings),
        warmup_converged=all(timing.warmup_converged for timing in timings),
        stopped_by=next((reason for reason in _WORST_FIRST if reason in reasons), timings[0].stopped_by),
        warnings=tuple(dict.fromkeys(warning for timing in timings for warning in timing.warnings)),
        process_of=tuple(process for process, timing in enumerate(timings) for _ in timing.latency_s),
    )
