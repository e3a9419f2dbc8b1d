"""The traced peak against an observer that is not ours: torch's CPU allocator, row by row over the catalogue.

    python -m tests.observer [--hw 97x97] [--channels 512] [--out reports/memory_observer.md] [NAMES...]

For every mechanism and both modes, in a child process of its own:

1. the trace with kernel target 'cpu': its peak, and for each op the bytes alive before it (`Recorder`);
2. the module run for real, without a dispatch mode, after a warm-up pass, under torch's profiler: the running sum of the
   allocator's events from the start of the pass. Training: forward, then backward from a dense gradient allocated inside the
   pass, gradients None before, everything the caller holds kept to the end, as in `attnprof/profiling/trace.py`;
3. each distinct op of the trace (overload, sizes, strides, dtypes, other arguments) once alone under the profiler: its own
   peak, outputs included. The peak to be expected of the allocator is the largest (bytes alive before the op + its own peak).

What the expectation has above the traced peak is explained by the op where it lies; what the allocator has above or below the
expectation is left over. The profiler is torch.autograd.profiler, which torch.profiler wraps.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._profiler import _EventType

from attnprof import mechanisms
from attnprof.profiling import instantiate, trace
from attnprof.profiling.tracer import Tracer, tensors_of
from attnprof.records import MODES, Mechanism, Shape

_MEMORY_SHARE = 0.5  # of what the machine has free: a row predicted above that is not run
_TIMEOUT_S = 300
_HELD_BY_CALLER = "gradient of output"
_VERSION_FREE = 64  # constants up to this many elements are compared by value


@dataclass(frozen=True)
class Hole:
    """A tensor argument without its data: what is needed to make another like it."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def fill(self, value: float | None) -> Tensor:
        """A tensor of this size: floating numbers unset unless `value` is given, whole numbers 0 (a valid index)."""
        made = torch.empty_strided(self.shape, self.stride, dtype=self.dtype)
        if not self.dtype.is_floating_point and not self.dtype.is_complex:
            return made.zero_()
        return made if value is None else made.fill_(value)


@dataclass(frozen=True)
class Call:
    """An op of the trace: its arguments with holes for tensors, the bytes alive before it, and those its outputs added."""

    op: Any
    args: Any
    kwargs: Any
    before: int
    outputs: int
    phase: str
    module: str

    @property
    def signature(self) -> str:
        """Equal for calls that run the same kernel on tensors of the same layout."""
        return f"{self.op} {_text(self.args)} {_text(self.kwargs)}"


@dataclass(frozen=True)
class Probe:
    """An op run alone: its peak, and where what is no output was allocated at that peak ({inner op: bytes})."""

    peak: int
    scratch: Mapping[str, int]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    mode: str
    traced: int = 0
    allocator: int | None = None
    expected: int = 0
    op: str = ""  # where the expected peak lies
    scratch: int = 0
    inner: Mapping[str, int] = field(default_factory=dict)
    seen_in: str = ""  # the op that was running at the allocator's peak
    end: tuple[int, int] = (0, 0)  # traced and allocator: alive after the pass
    traced_by: str = "meta"
    note: str = ""

    @property
    def left_over(self) -> int:
        """Bytes of the allocator's peak that the expectation does not have."""
        return 0 if self.allocator is None else self.allocator - self.expected


class Recorder(Tracer):
    """The tracer, remembering each op it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.running: Any = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.running = func
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _count(self, entry: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        before, op = self.ledger.live_bytes, self.running
        if out is args[0] if args else False:
            op = torch.ops.aten.add_.Tensor if op is torch.ops.aten.add.Tensor else op
        super()._count(entry, args, kwargs, out)
        added = self.ledger.live_bytes - before
        kept = {name: value for name, value in kwargs.items() if name != "_out"}
        self.calls.append(Call(op, _holes(args), _holes(kept), before, added, self.phase, self._where()))


def _holes(tree: Any) -> Any:
    """Arguments with a Hole for every meta tensor, and the device meta replaced by the CPU."""
    if isinstance(tree, Tensor):
        return Hole(tuple(tree.shape), tuple(tree.stride()), tree.dtype) if tree.is_meta else tree.detach().clone()
    if isinstance(tree, (list, tuple)):
        return type(tree)(_holes(item) for item in tree) if type(tree) in (list, tuple) else list(map(_holes, tree))
    if isinstance(tree, dict):
        return {name: _holes(item) for name, item in tree.items()}
    return torch.device("cpu") if isinstance(tree, torch.device) else tree


def _filled(tree: Any, value: float | None) -> Any:
    if isinstance(tree, Hole):
        return tree.fill(value)
    if isinstance(tree, Tensor):
        return tree.clone()
    if isinstance(tree, (list, tuple)):
        return type(tree)(_filled(item, value) for item in tree)
    if isinstance(tree, dict):
        return {name: _filled(item, value) for name, item in tree.items()}
    return tree


def _text(tree: Any) -> str:
    if isinstance(tree, Tensor):
        return str(tree.tolist()) if tree.numel() <= _VERSION_FREE else f"{tuple(tree.shape)} {float(tree.double().sum())}"
    if isinstance(tree, (list, tuple)):
        return "[" + ", ".join(map(_text, tree)) + "]"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{name}: {_text(item)}" for name, item in tree.items()) + "}"
    return repr(tree)


# --- the allocator ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """The allocator gave (n > 0) or took back (n < 0) bytes, while `inside` ran (outermost op first)."""

    at: int
    bytes: int
    address: int
    inside: tuple[str, ...]


def profiled(run: Callable[[], Any]) -> tuple[list[Event], Any]:
    """The allocator's events while `run` runs, in the order of time, and what `run` returned."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = run()
    kineto = profile.kineto_results
    assert kineto is not None
    events: list[Event] = []
    pending: list[tuple[Any, tuple[str, ...]]] = [(node, ()) for node in kineto.experimental_event_tree()]
    while pending:
        node, inside = pending.pop()
        kind, fields = node.typed
        if kind == _EventType.Allocation:
            events.append(Event(node.start_time_ns, fields.alloc_size, fields.ptr, inside))
        elif node.children:
            inner = (*inside, node.name)
            pending += [(child, inner) for child in node.children]
    events.sort(key=lambda event: event.at)
    flat = sorted((event.start_ns(), event.nbytes()) for event in kineto.events() if event.name() == "[memory]")
    assert [size for _, size in flat] == [event.bytes for event in events] or len(flat) == len(events)
    return events, result


def highest(events: Iterable[Event]) -> tuple[int, int, int]:
    """(largest running sum, index after which it is reached first, last running sum)."""
    live = best = at = 0
    for index, event in enumerate(events):
        live += event.bytes
        if live > best:
            best, at = live, index
    return best, at, live


def run_pass(module: nn.Module, inputs: Sequence[Tensor], objective: Callable[[Any], Any] | None, training: bool) -> Any:
    """One pass as a user would write it; returns everything the caller holds."""
    with torch.set_grad_enabled(training):
        outputs = module(*inputs)
        if not training:
            return outputs
        roots = [objective(outputs)] if objective is not None else list(tensors_of(outputs))
        roots = [tensor for tensor in roots if tensor.requires_grad]
        gradients = [torch.empty_like(root) for root in roots]
        torch.autograd.backward(roots, gradients)
        return outputs, roots, gradients


def observe(
    module: nn.Module, inputs: Sequence[Tensor], objective: Callable[[Any], Any] | None, training: bool
) -> tuple[int, int, str]:
    """(peak, bytes alive at the end, the op that ran at the peak) of a pass by the allocator, after a pass to warm up."""
    torch.backends.mha.set_fastpath_enabled(False)  # as in a trace
    run_pass(module, inputs, objective, training)
    for tensor in (*module.parameters(), *inputs):
        tensor.grad = None
    gc.collect()
    events, _held = profiled(lambda: run_pass(module, inputs, objective, training))
    best, at, end = highest(events)
    return best, end, " > ".join(_shortened(events[at].inside)[-3:]) if events else ""


def _shortened(inside: Iterable[str]) -> list[str]:
    """Names of ops without their prefix; the engine's wrappers left out."""
    return [name.removeprefix("aten::") for name in inside if not name.startswith(("autograd::engine", "row "))]


def probe(calls: Iterable[Call]) -> dict[str, Probe]:
    """Run each distinct op alone; an op that cannot be run alone is left out."""
    found: dict[str, Probe] = {}
    for call in calls:
        key = call.signature
        if key in found:
            continue
        events = _run_alone(call)
        if events is not None:
            found[key] = _probe_of(events)
    return found


def _run_alone(call: Call) -> list[Event] | None:
    for value in (None, 0.5):
        try:
            args, kwargs = _filled(call.args, value), _filled(call.kwargs, value)
            with torch.no_grad():
                events, _out = profiled(lambda a=args, k=kwargs: call.op(*a, **k))  # type: ignore[misc]
            return events
        except Exception:  # noqa: BLE001, PERF203 - garbage may be no valid argument: once more with numbers
            continue
    return None


def _probe_of(events: list[Event]) -> Probe:
    """Scratch is what lives at the op's own peak and no longer when it returns."""
    best, at, _ = highest(events)
    alive: dict[int, Event] = {}
    for event in events[: at + 1]:
        if event.bytes > 0:
            alive[event.address] = event
        else:
            alive.pop(event.address, None)
    gone = {event.address for event in events[at + 1 :] if event.bytes < 0}
    scratch: dict[str, int] = {}
    for address, event in alive.items():
        if address in gone and best:
            names = _shortened(event.inside)
            inner = next((name for name in reversed(names) if not name.startswith(("empty", "resize"))), "")
            scratch[inner] = scratch.get(inner, 0) + event.bytes
    return Probe(best, scratch)


# --- one row ----------------------------------------------------------------------------------------------------------


def record(module: nn.Module, mechanism: Mechanism, shape: Shape, mode: str) -> tuple[Recorder, int]:
    """The trace with its calls, and the bytes the ledger has alive when the pass is over."""
    training = mode == "training"
    pass_ = trace._Pass(training, "cpu", "auto", None, mechanism.objective)
    specs = mechanisms.input_specs(mechanism, shape, {})
    inputs = tuple(instantiate.meta_input(spec, torch.float32, training) for spec in specs)
    recorder = Recorder()
    with instantiate.random_state_kept(), instantiate.swapped(module, instantiate.to_meta):
        pass_.count(module, inputs, recorder, "meta")
    return recorder, 0


def expect(recorder: Recorder, probes: Mapping[str, Probe]) -> tuple[int, Call | None]:
    """(peak, the call it lies in): the largest sum of the bytes alive before a call and its own peak."""
    best, where = _caller_peak(recorder), None
    for call in recorder.calls:
        found = probes.get(call.signature)
        total = call.before + (call.outputs if found is None else found.peak)
        if total > best:
            best, where = total, call
    return best, where


def _caller_peak(recorder: Recorder) -> int:
    """The bytes alive when the gradients of the outputs had been made: no op of the trace."""
    ledger, live, best = recorder.ledger, 0, 0
    for event in ledger.events:
        live += ledger.sizes[event] if event > 0 else -ledger.sizes[-event]
        if event > 0 and ledger.makers[event][0] == _HELD_BY_CALLER:
            best = max(best, live)
    return best


def observe_row(name: str, mode: str, shape: Shape) -> Row:
    """Trace, run and explain one mechanism in one mode."""
    training = mode == "training"
    mechanism = mechanisms.load(name)
    torch.manual_seed(0)
    module = mechanisms.build(mechanism, shape, {}).train(training)
    specs = mechanisms.input_specs(mechanism, shape, {})
    counts = trace.trace_module(module, specs, mode, target="cpu", objective=mechanism.objective, allow_real=False)
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if counts.peak_bytes + counts.resident_bytes > _MEMORY_SHARE * free:
        return Row(name, mode, counts.peak_bytes, note="not run: more than half of the memory that is free here")
    recorder, _ = record(module, mechanism, shape, mode)
    assert recorder.ledger.peak()[0] == counts.peak_bytes
    inputs = [torch.randn(spec.shape).requires_grad_(training) for spec in specs]
    allocator, end, seen_in = observe(module, inputs, mechanism.objective, training)
    probes = probe(recorder.calls)
    expected, call = expect(recorder, probes)
    found = probes.get(call.signature) if call is not None else None
    return Row(
        name,
        mode,
        counts.peak_bytes,
        allocator,
        expected,
        _HELD_BY_CALLER if call is None else f"{_op_name(call)} ({call.phase})",
        found.peak - call.outputs if found is not None and call is not None else 0,
        {} if found is None else dict(found.scratch),
        seen_in,
        (0, end),
        counts.traced_by,
    )


def _op_name(call: Call) -> str:
    return str(call.op._schema.name).removeprefix("aten::")
