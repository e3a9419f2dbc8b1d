"""An observer of memory that is not ours: torch's CPU allocator over a real pass, written as a user would write it.

`observe` runs a module for real, without a dispatch mode, after a warm-up pass, under torch's profiler: the running sum of the
allocator's events from the start of the pass. Training: forward, then backward from a dense gradient allocated inside the
pass, gradients None before, everything the caller holds kept to the end, as in `attnprof/profiling/counting/trace.py`.
tests/profiling/test_observer.py holds traces against it; `python -m tests.makers.memory_page` asks it what ran at the
allocator's peak.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attnprof import mechanisms
from attnprof.profiling import instantiate
from attnprof.profiling.calibrating import calibrate
from attnprof.profiling.calibrating.allocator import alive, highest, profiled, shortened
from attnprof.profiling.calibrating.cache import Cache
from attnprof.profiling.calibrating.recorder import record_module
from attnprof.profiling.counting.tracer import tensors_of
from attnprof.records import Shape

_TIMEOUT_S = 600
_NUMBER = 8  # bytes: the largest a single number takes


def run_pass(module: nn.Module, inputs: Sequence[Tensor], objective: Callable[[Any], Any] | None, training: bool) -> Any:
    """One pass as a user would write it; returns everything the caller holds."""
    with torch.set_grad_enabled(training):
        outputs = module(*inputs)
        if not training:
            return outputs
        roots = list(tensors_of(outputs if objective is None else objective(outputs)))
        roots = [tensor for tensor in roots if tensor.requires_grad]
        gradients = [torch.empty_like(root) for root in roots]
        torch.autograd.backward(roots, gradients)
        return outputs, roots, gradients


def observe(
    module: nn.Module, inputs: Sequence[Tensor], objective: Callable[[Any], Any] | None, training: bool
) -> tuple[int, str, int]:
    """(peak, the op that ran at it, bytes of single numbers alive at it) of a pass by the allocator, after one to warm up.

    `x * 0.5` makes a tensor of the number, which the backward pass may keep; under a dispatch mode it stays a number.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # as in a trace
    try:
        run_pass(module, inputs, objective, training)
        for tensor in (*module.parameters(), *inputs):
            tensor.grad = None
        gc.collect()
        events, _held = profiled(lambda: run_pass(module, inputs, objective, training))
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    best, at = highest(events)
    numbers = sum(event.bytes for event in alive(events[: at + 1]) if event.bytes <= _NUMBER)
    return best, " > ".join(shortened(events[at].inside)[-3:]) if events else "", numbers


@dataclass(frozen=True)
class Observed:
    """Traced peak for the kernels of a CPU, the allocator's, and the one expected from ops run alone; in bytes.

    seen_in: the op that ran at the allocator's peak. numbers: bytes of single numbers alive there.
    """

    traced: int
    allocator: int
    expected: int
    seen_in: str
    numbers: int = 0

    @property
    def left_over(self) -> int:
        """What the allocator has beside the expectation and the numbers that autograd may keep."""
        return self.allocator - self.expected - min(max(self.allocator - self.expected, 0), self.numbers)


def observe_mechanism(name: str, mode: str, shape: Shape) -> Observed:
    """A mechanism's defaults, traced and run. Its ops are run alone only where the two peaks differ."""
    torch.set_num_threads(1)
    training = mode == "training"
    mechanism = mechanisms.load(name)
    torch.default_generator.manual_seed(0)
    module = mechanisms.build(mechanism, shape, {}).train(training)
    specs = mechanisms.input_specs(mechanism, shape, {})
    recorded = record_module(module, specs, mode, target="cpu", objective=mechanism.objective, allow_real=False)
    traced = recorded.counts.peak_bytes
    inputs = [instantiate.real_input(spec, torch.float32) for spec in specs]
    inputs = [tensor.requires_grad_(training and tensor.is_floating_point()) for tensor in inputs]
    allocator, seen_in, numbers = observe(module, inputs, mechanism.objective, training)
    if allocator == traced:
        return Observed(traced, allocator, allocator, seen_in)
    probes, _ = calibrate.probes_of(recorded, Cache(None, {}), "cpu", None)
    expected, _ = calibrate.highest(recorded, probes, blocks=False)
    return Observed(traced, allocator, expected, seen_in, numbers)


def _serve(answer: Any, name: str, mode: str, shape: Shape) -> None:
    try:
        answer.send(observe_mechanism(name, mode, shape).seen_in)
    except Exception as error:  # noqa: BLE001 - a row's failure is that row's
        answer.send(f"failed: {type(error).__name__}: {error}".splitlines()[0])


def seen_in_child(name: str, mode: str, shape: Shape) -> str:
    """The op that runs at the allocator's peak, found in a process of its own; 'failed: ...' where it is not found."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "attnprof.profiling.counting.trace"])
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(there, name, mode, shape))
    child.start()
    there.close()
    try:
        return str(here.recv()) if here.poll(_TIMEOUT_S) else f"failed: no answer within {_TIMEOUT_S} s"
    except EOFError:
        return "failed: the process died"
    finally:
        child.kill()
        child.join()
