"""A trace that remembers every op it counts: what is needed to run the op alone later, and where in the pass it stood.

`record` and `record_module` trace without data, for the kernels of a target. A pass that cannot be followed without data has no
calibrated peak: its sizes would be assumed, or its ops would have run already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.errors import UntraceableError
from attnprof.profiling.counting import trace
from attnprof.profiling.counting.lifetimes import Lifetimes, rounded
from attnprof.profiling.counting.tracer import Tracer
from attnprof.records import Case, Counts

HELD_BY_CALLER = "gradient of output"
_SMALL = 64  # constants up to this many elements are compared by value
_NEEDS_DATA = "the pass cannot be followed without data: there is nothing to probe."


@dataclass(frozen=True)
class Hole:
    """A tensor argument without its data: what is needed to make another like it."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Of the storage that such a tensor needs."""
        if 0 in self.shape:
            return 0
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return (last + 1) * self.dtype.itemsize

    def fill(self, value: float | None, device: str) -> Tensor:
        """A tensor of this size: floating numbers unset unless `value` is given, whole numbers 0 (a valid index)."""
        made = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)
        if not self.dtype.is_floating_point and not self.dtype.is_complex:
            return made.zero_()
        return made if value is None else made.fill_(value)

    def text(self) -> str:
        """'float32[1, 8, 5, 5]', with the strides where they are not those of a contiguous tensor."""
        plain = 1
        expected: list[int] = []
        for size in reversed(self.shape):
            expected.insert(0, plain)
            plain *= max(size, 1)
        strides = "" if list(self.stride) == expected else f"/{list(self.stride)}"
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}{strides}"


@dataclass(frozen=True)
class Call:
    """An op of the trace: its arguments with holes for tensors, and how many events of the ledger came before and with it."""

    op: Any
    args: Any
    kwargs: Any
    before: int
    after: int
    phase: str
    module: str

    @property
    def name(self) -> str:
        """'convolution_backward (backward)'."""
        return f"{str(self.op._schema.name).removeprefix('aten::')} ({self.phase})"

    @property
    def signature(self) -> str:
        """Equal for calls that run the same kernel on tensors of the same layout, on every day."""
        return f"{self.op} {_text(self.args)} {_text(self.kwargs)}"

    @property
    def argument_bytes(self) -> int:
        """Storage that its tensor arguments need."""
        return sum(hole.bytes for hole in _holes_of((self.args, self.kwargs)))


@dataclass(frozen=True)
class Recorded:
    """A trace with its calls."""

    counts: Counts
    lifetimes: Lifetimes
    calls: tuple[Call, ...]

    def live(self, blocks: bool) -> list[int]:
        """Bytes alive after the first 0, 1, 2, ... events; `blocks`: every storage in whole blocks of CUDA's allocator."""
        out, sizes = [0], [rounded(size) for size in self.lifetimes.sizes] if blocks else self.lifetimes.sizes
        for event in self.lifetimes.events:
            out.append(out[-1] + (sizes[event] if event > 0 else -sizes[-event]))
        return out

    def held_by_caller(self, blocks: bool) -> int:
        """The bytes alive when the gradients of the outputs had been made, which is no op of the trace; 0 for inference."""
        live, makers = self.live(blocks), self.lifetimes.makers
        events = enumerate(self.lifetimes.events, 1)
        return max((live[at] for at, event in events if event > 0 and makers[event].op == HELD_BY_CALLER), default=0)


class Recorder(Tracer):
    """The tracer, remembering each op it counts."""

    def __init__(self, *, real: bool = False) -> None:
        if real:
            raise UntraceableError(_NEEDS_DATA)
        super().__init__()
        self.calls: list[Call] = []
        self.running: Any = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.running = func
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _count(self, entry: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        before, op = len(self.ledger.events), self.running
        if args and out is args[0] and not entry.in_place:  # what the tracer takes as in place: the engine's accumulation
            op = entry.in_place_form or op
        super()._count(entry, args, kwargs, out)
        if op.namespace == "prim":  # a question about a tensor, which fake ones pass on: no kernel
            return
        kept = {name: value for name, value in kwargs.items() if name != "_out"}
        after = len(self.ledger.events)
        self.calls.append(Call(op, _holes(args), _holes(kept), before, after, self.phase, self._where()))


def record(case: Case, target: str) -> Recorded:
    """The trace of a case with its calls, for the kernels of `target` ('cpu' or 'cuda'). Raises UntraceableError."""
    targeted = replace(case, settings={**case.settings, "target": target})
    return _recorded(lambda make: trace.follow_case(targeted, make_tracer=make))


def record_module(module: nn.Module, inputs: Sequence[Any], mode: str, **options: Any) -> Recorded:
    """The trace of a module that is there, with its calls: see `trace.follow_module`. Raises UntraceableError."""
    return _recorded(lambda make: trace.follow_module(module, inputs, mode, make_tracer=make, **options))


def _recorded(follow: Callable[[Callable[..., Tracer]], trace.Traced]) -> Recorded:
    made: list[Recorder] = []

    def make(*, real: bool = False) -> Tracer:
        made.append(Recorder(real=real))
        return made[-1]

    traced = follow(make)
    if traced.counts.assumed:
        raise UntraceableError(_NEEDS_DATA)
    return Recorded(traced.counts, traced.lifetimes, tuple(made[-1].calls))


def _holes(tree: Any) -> Any:
    """Arguments with a Hole for every tensor without data, copies of the others, and the device meta left to the probe."""
    if isinstance(tree, Tensor):
        if tree.is_meta or hasattr(tree, "fake_mode"):
            return Hole(tuple(tree.shape), tuple(tree.stride()), tree.dtype)
        return tree.detach().clone()
    if isinstance(tree, (list, tuple)):
        return type(tree)(_holes(item) for item in tree) if type(tree) in (list, tuple) else list(map(_holes, tree))
    if isinstance(tree, dict):
        return {name: _holes(item) for name, item in tree.items()}
    return tree


def _holes_of(tree: Any) -> list[Hole]:
    if isinstance(tree, Hole):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return [hole for item in items for hole in _holes_of(item)]


def filled(tree: Any, value: float | None, device: str) -> Any:
    """Arguments with a tensor on `device` for every hole, and copies of the constants there."""
    if isinstance(tree, Hole):
        return tree.fill(value, device)
    if isinstance(tree, Tensor):
        return tree.to(device, copy=True)
    if isinstance(tree, (list, tuple)):
        return type(tree)(filled(item, value, device) for item in tree)
    if isinstance(tree, dict):
        return {name: filled(item, value, device) for name, item in tree.items()}
    return torch.device(device) if isinstance(tree, torch.device) else tree


def _text(tree: Any) -> str:
    if isinstance(tree, Hole):
        return tree.text()
    if isinstance(tree, Tensor):
        if tree.numel() <= _SMALL:
            return f"{tree.dtype}{tree.tolist()}"
        values = hashlib.sha256(tree.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
        return f"{tree.dtype}{list(tree.shape)}/{list(tree.stride())} {values}"
    if isinstance(tree, (list, tuple)):
        return "[" + ", ".join(map(_text, tree)) + "]"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{name}: {_text(item)}" for name, item in tree.items()) + "}"
    if isinstance(tree, torch.device):
        return "device"
    return "generator" if isinstance(tree, torch.Generator) else repr(tree)
