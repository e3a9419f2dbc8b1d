"""The timed window: one pass of one member on its device, and what happens around it.

CPU: wall clock. CUDA: an event pair around the pass, its launches hidden behind a short device sleep where they take long.
Gradients are dropped, tensors moved, caches flushed and the garbage collector stopped outside the window.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnprof import stats, units
from attnprof.profiling.measuring import contention
from attnprof.profiling.measuring import device as devices
from attnprof.profiling.measuring.prepare import InvalidOutputError, Prepared, backward, forward, not_finite, reset
from attnprof.records import Case

_SHORT_S = 100e-6  # a CUDA pass below this is launched behind a sleep
_LONGEST_SLEEP_S = 5e-3


@dataclass
class Member:
    """One case of the block and what was sampled of it so far."""

    case: Case
    index: int
    prepared: Prepared
    gradients: list[Tensor] | None
    estimate_s: float
    samples: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    host_s: list[float] = field(default_factory=list)
    waited_s: float = 0.0
    warmup: int = 0
    warmup_s: float = 0.0
    converged: bool = False
    sampling_s: float = 0.0
    next_check: int = 0
    checks: list[tuple[float, float]] = field(default_factory=list)  # (median, MAD over median)

    @property
    def round_s(self) -> float:
        """Seconds of wall time for one sample, the flush included."""
        done = len(self.samples)
        return self.sampling_s / done if done else max(self.estimate_s, self.warmup_s / max(self.warmup - 2, 1))


class Pass(NamedTuple):
    """Seconds of one timed pass: on its device, on the host, and of the latter those without a core (0 for CUDA)."""

    latency_s: float
    host_s: float
    waited_s: float = 0.0


def time_pass(member: Member) -> Pass:
    """One timed pass. What it returned is looked at and dropped outside the window.

    Raises InvalidOutputError where an output or a gradient is not finite.
    """
    reset(member.prepared)
    enabled = gc.isenabled()
    gc.disable()
    try:
        timed = _on_cuda if member.case.device.startswith("cuda") else _on_cpu
        return timed(member)
    finally:
        if enabled:
            gc.enable()


def _on_cpu(member: Member) -> Pass:
    prepared, gradients = member.prepared, member.gradients
    waited = contention.waited_s()
    began = time.perf_counter_ns()
    outputs = forward(prepared)
    if prepared.training:
        backward(prepared, outputs, gradients)
    seconds = (time.perf_counter_ns() - began) / 1e9
    waited = contention.waited_s() - waited
    _check(prepared, outputs)
    return Pass(seconds, seconds, waited)


def _check(prepared: Prepared, outputs: Any) -> None:
    invalid = not_finite(prepared, outputs)
    if invalid:
        raise InvalidOutputError(invalid)


def _on_cuda(member: Member) -> Pass:
    """Events around the pass. One synchronisation per pass, outside them: a fault is charged to the member that made it."""
    prepared, gradients = member.prepared, member.gradients
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    if member.host_s:  # never in the warm-up
        launch = stats.median(member.host_s[-20:])
        if member.estimate_s < _SHORT_S or launch > member.estimate_s / 2:
            torch.cuda._sleep(int(min(1.5 * launch, _LONGEST_SLEEP_S) * 2e9))
    start.record()
    began = time.perf_counter_ns()
    outputs = forward(prepared)
    if prepared.training:
        backward(prepared, outputs, gradients)
    host = (time.perf_counter_ns() - began) / 1e9
    stop.record()
    torch.cuda.synchronize()
    _check(prepared, outputs)
    return Pass(start.elapsed_time(stop) / 1e3, host)


def run_pass(member: Member) -> None:
    """The pass alone, to its end on the device: no clock, nothing looked at."""
    reset(member.prepared)
    outputs = forward(member.prepared)
    if member.prepared.training:
        backward(member.prepared, outputs, member.gradients)
    if member.case.device.startswith("cuda"):
        torch.cuda.synchronize()


def move(member: Member) -> None:
    """Give a member's parameters, buffers, inputs and incoming gradients other memory, on the CPU.

    Where its tensors happen to lie can make one of two equal members the faster for as long as they lie there, which no
    interval over the rounds of a process covers. Moved before every sample, placement varies within those rounds. How much it
    matters depends on the machine: the experiment in reports/interval_honesty.md saw no such bias on the one it ran on.
    Tensors that share storage go on sharing it. A GPU's kernels are left what they have: cuDNN's flat weights, captured graphs.
    """
    if member.case.device != "cpu":
        return
    module, moved = member.prepared.module, dict[int, torch.UntypedStorage]()
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers(), *member.prepared.inputs, *(member.gradients or ())):
            if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout is not torch.strided:
                continue  # a tensor of another kind may hold more than one storage
            old = tensor.untyped_storage()
            if old.data_ptr() not in moved:
                moved[old.data_ptr()] = old.clone()
            place = (tensor.storage_offset(), tensor.shape, tensor.stride())
            tensor.data = torch.empty(0, dtype=tensor.dtype).set_(moved[old.data_ptr()], *place)


@dataclass(frozen=True)
class Flush:
    """What makes the caches cold: `run` writes `bytes` (0: it does nothing, they are warm)."""

    run: Callable[[], None] = lambda: None
    bytes: int = 0
    warnings: tuple[str, ...] = ()


def flush_of(case: Case) -> Flush:
    """What makes the caches cold before a sample of a case: nothing where it asks for 'warm'."""
    return Flush() if case.settings.get("cache") == "warm" else flush(case.device)


def flush(device: str) -> Flush:
    """A write of twice the last cache, its buffer allocated once; on the CPU none where that is too large.

    By size, not by time: every process of a machine decides alike.
    """
    size = devices.flush_bytes(device)
    if not size:
        cache = units.format_bytes(devices.cache_bytes(device))
        return Flush(warnings=(f"caches were warm: flushing a last cache of {cache} takes too long",))
    buffer = torch.empty(size, dtype=torch.uint8, device=device).zero_()
    if device.startswith("cuda"):
        return Flush(lambda: _discard(buffer.zero_()), size)
    return Flush(lambda: _discard(buffer.fill_(1)), size)


def _discard(_: Any) -> None:
    return None
