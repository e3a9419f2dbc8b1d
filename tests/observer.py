"""The traced peak against an observer that is not ours: torch's CPU allocator, row by row over the catalogue.

    python -m tests.observer [--hw 97x97 --channels 512 --frames 1] [--out reports/memory_observer.md] [NAMES...]

For every mechanism and both modes, in a child process of its own:

1. the trace with kernel target 'cpu': its peak, and for each op the bytes alive before it (`Recorder`);
2. the module run for real, without a dispatch mode, after a warm-up pass, under torch's profiler: the running sum of the
   allocator's events from the start of the pass. Training: forward, then backward from a dense gradient allocated inside the
   pass, gradients None before, everything the caller holds kept to the end, as in `attnprof/profiling/counting/trace.py`;
3. each distinct op of the trace (overload, sizes, strides, dtypes, other arguments) once alone under the profiler: its own
   peak, outputs included. The peak to be expected of the allocator is the largest (bytes alive before the op + its own peak).

What the expectation has above the traced peak is explained by the op where it lies; what the allocator has above or below the
expectation is left over. The profiler is torch.autograd.profiler, which torch.profiler wraps.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._profiler import _EventType

from attnprof import mechanisms
from attnprof.profiling import instantiate
from attnprof.profiling.counting import trace
from attnprof.profiling.counting.tracer import Tracer, tensors_of
from attnprof.records import MODES, Mechanism, Shape

_MEMORY_SHARE = 0.5  # of what the machine has free: a row predicted above that is not run
_TIMEOUT_S = 600
_HELD_BY_CALLER = "gradient of output"
_NUMBER = 8  # bytes: the largest a single number takes
_SMALL = 64  # constants up to this many elements are compared by value
_COLUMNS = (
    "mechanism",
    "shape",
    "mode",
    "traced MiB",
    "allocator MiB",
    "difference %",
    "explained by (op: bytes)",
    "left over bytes",
)
_LEGEND = (
    "Bytes above parameters, buffers and inputs. Difference: traced against allocator. Explained by: the op of the trace where",
    "the largest (bytes alive before the op + the op's own peak, run alone) lies, how far that is above the traced peak, and",
    "what the op allocates beside its outputs, by the inner op that asks for it. A number in `x * 0.5` becomes a tensor of 4",
    "or 8 bytes, which a trace does not see. Left over: allocator minus all that. The ops of rows that are equal to the byte",
    "are not run alone.",
)


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
    numbers: int = 0  # bytes of single numbers alive at the allocator's peak, which no trace sees
    note: str = ""
    shape: str = ""

    @property
    def left_over(self) -> int:
        """Bytes of the allocator's peak that neither the expectation nor numbers kept by autograd have."""
        return 0 if self.allocator is None else self.allocator - self.expected - self.kept_numbers

    @property
    def kept_numbers(self) -> int:
        """`x * 0.5` makes a tensor of the number, which the backward pass may keep; under a dispatch mode it stays a number."""
        return 0 if self.allocator is None else min(max(self.allocator - self.expected, 0), self.numbers)


class Recorder(Tracer):
    """The tracer, remembering each op it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.running: Any = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.running = func
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _count(self, entry: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        before, op = self.ledger.live_bytes, self.running
        if args and out is args[0] and not entry.in_place:  # what the tracer takes as in place: the engine's accumulation
            op = getattr(getattr(torch.ops.aten, f"{entry.name}_", None), op._overloadname, op)
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
        return str(tree.tolist()) if tree.numel() <= _SMALL else f"{tuple(tree.shape)} {float(tree.double().sum())}"
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
    flat = sorted((event for event in kineto.events() if event.name() == "[memory]"), key=lambda event: event.start_ns())
    peak = max(itertools.accumulate((event.nbytes() for event in flat), initial=0))
    assert peak == highest(events)[0], "the profiler's tree of events and its flat list tell different peaks"
    return events, result


def highest(events: Iterable[Event]) -> tuple[int, int]:
    """(largest running sum, index of the event that reaches it first)."""
    live = best = at = 0
    for index, event in enumerate(events):
        live += event.bytes
        if live > best:
            best, at = live, index
    return best, at


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
    """(peak, the op that ran at it, bytes of single numbers alive at it) of a pass by the allocator, after one to warm up."""
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
    numbers = sum(event.bytes for event in _alive(events[: at + 1]) if event.bytes <= _NUMBER)
    return best, " > ".join(_shortened(events[at].inside)[-3:]) if events else "", numbers


def _alive(events: Iterable[Event]) -> list[Event]:
    """The allocations that have not been taken back."""
    alive: dict[int, Event] = {}
    for event in events:
        if event.bytes > 0:
            alive[event.address] = event
        else:
            alive.pop(event.address, None)
    return list(alive.values())


def _shortened(inside: Iterable[str]) -> list[str]:
    """Names of ops without their prefix; the engine's wrappers left out."""
    return [name.removeprefix("aten::") for name in inside if not name.startswith("autograd::engine")]


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
        except Exception:  # noqa: BLE001 - garbage may be no valid argument: once more with numbers
            continue
    return None


def _probe_of(events: list[Event]) -> Probe:
    """Scratch is what lives at the op's own peak and no longer when it returns."""
    best, at = highest(events)
    gone = {event.address for event in events[at + 1 :] if event.bytes < 0}
    scratch: dict[str, int] = {}
    for event in _alive(events[: at + 1]):
        if event.address in gone and best:
            names = _shortened(event.inside)
            inner = next((name for name in reversed(names) if not name.startswith(("empty", "resize"))), "number")
            scratch[inner] = scratch.get(inner, 0) + event.bytes
    return Probe(best, scratch)


# --- one row ----------------------------------------------------------------------------------------------------------


def record(module: nn.Module, mechanism: Mechanism, shape: Shape, mode: str) -> Recorder:
    """The trace with its calls; the module is left as it was found."""
    training = mode == "training"
    pass_ = trace._Pass(training, "cpu", "auto", None, mechanism.objective)
    specs = mechanisms.input_specs(mechanism, shape, {})
    inputs = tuple(instantiate.meta_input(spec, torch.float32, training) for spec in specs)
    recorder = Recorder()
    with instantiate.random_state_kept(), instantiate.swapped(module, instantiate.to_meta):
        pass_.count(module, inputs, recorder, "meta")
    return recorder


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
    """The bytes alive when the gradients of the outputs had been made, which is no op of the trace."""
    ledger, live, best = recorder.ledger, 0, 0
    for event in ledger.events:
        live += ledger.sizes[event] if event > 0 else -ledger.sizes[-event]
        if event > 0 and ledger.makers[event].op == _HELD_BY_CALLER:
            best = max(best, live)
    return best


def observe_row(name: str, mode: str, shape: Shape) -> Row:
    """Trace, run and explain one mechanism in one mode."""
    torch.set_num_threads(1)
    training = mode == "training"
    mechanism = mechanisms.load(name)
    torch.manual_seed(0)
    module = mechanisms.build(mechanism, shape, {}).train(training)
    specs = mechanisms.input_specs(mechanism, shape, {})
    counts = trace.trace_module(module, specs, mode, target="cpu", objective=mechanism.objective, allow_real=False)
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if counts.peak_bytes + counts.resident_bytes > _MEMORY_SHARE * free:
        return Row(name, mode, counts.peak_bytes, note=f"not run: {counts.peak_bytes} bytes predicted")
    recorder = record(module, mechanism, shape, mode)
    assert recorder.ledger.lifetimes().peak()[0] == counts.peak_bytes, "the recorder's trace is not the tracer's"
    inputs = [instantiate.real_input(spec, torch.float32) for spec in specs]
    inputs = [tensor.requires_grad_(training and tensor.is_floating_point()) for tensor in inputs]
    allocator, seen_in, numbers = observe(module, inputs, mechanism.objective, training)
    if allocator == counts.peak_bytes:
        return Row(name, mode, allocator, allocator, allocator)
    probes = probe(recorder.calls)
    expected, call = expect(recorder, probes)
    row = Row(name, mode, counts.peak_bytes, allocator, expected, _HELD_BY_CALLER, seen_in=seen_in, numbers=numbers)
    if call is None:
        return row
    found = probes.get(call.signature, Probe(call.outputs, {}))
    op = f"{str(call.op._schema.name).removeprefix('aten::')} ({call.phase})"
    return replace(row, op=op, scratch=found.peak - call.outputs, inner=dict(found.scratch))


def _serve(answer: Any, name: str, mode: str, shape: Shape | None) -> None:
    """A child's work: one row, sent as a dictionary."""
    try:
        shape = shape or mechanisms.load(name).natural or Shape(1, 64, 14, 14)
        row = replace(observe_row(name, mode, shape), shape=shape.text())
    except Exception as error:  # noqa: BLE001 - a row's failure is that row's
        note = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        row = Row(name, mode, note=note, shape=shape.text() if shape else "")
    answer.send(asdict(row))


def row_in_child(name: str, mode: str, shape: Shape | None) -> Row:
    """`observe_row` in a process of its own, forked from a server that has loaded torch and run nothing.

    `shape` None: the mechanism's natural one.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "attnprof.profiling.counting.trace"])
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(there, name, mode, shape))
    child.start()
    there.close()
    try:
        if here.poll(_TIMEOUT_S):
            return Row(**here.recv())
        note = f"failed: no answer within {_TIMEOUT_S} s"
    except EOFError:
        note = "failed: the process died"
    finally:
        child.kill()
        child.join()
    return Row(name, mode, note=note)


# --- the table --------------------------------------------------------------------------------------------------------


def _explained_by(row: Row) -> str:
    """The op where the expected peak lies, what it adds to the traced peak, and its scratch by inner op."""
    if row.allocator is None:
        return row.note
    added = row.expected - row.traced
    numbers = f"numbers kept for the backward pass: {row.kept_numbers}" if row.kept_numbers else ""
    if not added:
        return f"at the peak ran {row.seen_in}" if row.left_over else numbers
    inner = ", ".join(f"{name} {size}" for name, size in sorted(row.inner.items(), key=lambda item: -item[1]))
    text = f"{row.op}: {added}"
    if row.scratch != added:
        text += f" (the peak moves here; {row.scratch} above its outputs)"
    return "; ".join(filter(None, (text, inner, numbers)))


def _line(row: Row) -> str:
    cells = [row.name, row.shape, row.mode, f"{row.traced / 2**20:.3f}"]
    if row.allocator is None:
        cells += ["-", "-", row.note, "-"]
    else:
        difference = 100 * (row.traced - row.allocator) / row.allocator if row.allocator else 0.0
        shown = "0" if row.traced == row.allocator else f"{difference:+.4f}"
        cells += [f"{row.allocator / 2**20:.3f}", shown, _explained_by(row), str(row.left_over)]
    return "| " + " | ".join(cells) + " |"


def summary(rows: Sequence[Row]) -> str:
    """How many rows are equal to the byte, explained entirely, left with something, and not run."""
    ran = [row for row in rows if row.allocator is not None]
    equal = [row for row in ran if row.allocator == row.traced]
    whole = [row for row in ran if row.allocator != row.traced and not row.left_over]
    worst = max(ran, key=lambda row: abs(row.left_over), default=None)
    text = (
        f"{len(rows)} rows, {len(ran)} run: {len(equal)} equal to the byte, {len(whole)} explained entirely, "
        f"{len(ran) - len(equal) - len(whole)} with bytes left over"
    )
    if worst is None or not worst.left_over:
        return text + "."
    share = 100 * abs(worst.left_over) / (worst.allocator or 1)
    return text + f". The largest unexplained: {worst.left_over} bytes ({share:.4f} %), {worst.name} {worst.mode}."


def _processor() -> str:
    """The CPU's model name, and the instruction set that torch uses on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model} ({torch.backends.cpu.get_cpu_capability()})"


def markdown(rows: Sequence[Row], command: str) -> str:
    """The report."""
    made_by = f"Made by `{command}` with torch {torch.__version__} on {_processor()}, one thread, float32."
    return "\n".join(
        [
            "# Traced peak memory against torch's CPU allocator",
            "",
            made_by,
            "",
            summary(rows),
            "",
            *_LEGEND,
            "",
            "| " + " | ".join(_COLUMNS) + " |",
            "|---|---|---|---:|---:|---:|---|---:|",
            *map(_line, rows),
            "",
        ]
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.observer", description="The traced peak against torch's CPU allocator.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="mechanisms; the whole catalogue when none is given")
    parser.add_argument("--hw", help="height x width; default: each mechanism at its natural shape")
    parser.add_argument("--channels", type=int, default=512, help="with --hw")
    parser.add_argument("--frames", type=int, default=1, help="with --hw")
    parser.add_argument("--out", type=Path, help="write the table to this file instead of the terminal")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """One row after the other, then the table."""
    options = _parse(arguments)
    os.environ |= {"OMP_NUM_THREADS": "1", "KINETO_LOG_LEVEL": "99"}  # read by the children
    shape = None
    if options.hw:
        height, width = map(int, options.hw.split("x"))
        shape = Shape(1, options.channels, height, width, options.frames)
    every = [f"{family}/{name}" for family, members in mechanisms.names().items() for name in members]
    rows: list[Row] = []
    for name in map(mechanisms.resolve, options.names) if options.names else every:
        for mode in MODES:
            rows.append(row_in_child(name, mode, shape))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    command = " ".join(["python -m tests.observer", *arguments])
    text = markdown(rows, command)
    if options.out is None:
        print(text)
    else:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    print(summary(rows), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
