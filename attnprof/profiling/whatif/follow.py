"""A tracer that remembers who asked for each storage, who reads it last, and that frees chosen ones then.

The line of a storage is that of the innermost frame outside torch and the tracer: the mechanism's or the user's own code. In
the backward pass it is the line of the forward call whose node runs, or the frame inside a custom Function's backward.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from attnprof.profiling.counting import trace
from attnprof.profiling.counting.lifetimes import Maker
from attnprof.profiling.counting.tracer import Tracer, tensors_of

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parents[1])  # attnprof/profiling
_EDGE = trace.__file__  # frames beyond it are not part of the pass


@dataclass
class Use:
    """The last read of a block so far: how many reads, after how many events, by what."""

    reads: int
    event: int
    reader: Maker


class Follower(Tracer):
    """The tracer, with lines and last uses. `drop`: {block: number of reads after which it is freed}."""

    def __init__(self, *, real: bool = False, drop: Mapping[int, int] | None = None) -> None:
        super().__init__(real=real)
        self.uses: dict[int, Use] = {}
        self.lines: dict[int, str] = {}
        self.math_lines: dict[tuple[str, str], int] = {}
        self.drop = dict(drop or {})
        self.read_again: list[str] = []
        self._dropped: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.counting and self.phase == "forward":
            self.lines.setdefault(torch._C._autograd._get_sequence_nr() - 1, line_of(sys._getframe()))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _count(self, entry: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        first = len(self.ledger.sizes)
        super()._count(entry, args, kwargs, out)
        line, event = self._asked_by(), len(self.ledger.events)
        reader = Maker(entry.name, self._where(), self.phase, (), line)
        for block in range(first, len(self.ledger.sizes)):
            made = self.ledger.makers[block]
            self.ledger.makers[block] = Maker(made.op, made.module, made.phase, made.shape, line)
            self.uses[block] = Use(0, event, reader)
        read: dict[int, Tensor] = {}
        for tensor in () if entry.creates else tensors_of((args, kwargs)):
            read[tensor.untyped_storage()._cdata] = tensor
        for address, tensor in read.items():
            if address in self._dropped:
                self.read_again.append(f"{entry.name} at {line}")
            block = self.ledger.block_of(tensor)
            if block:
                self._read(block, event, reader)
        for tensor in (*read.values(), *tensors_of(out)):
            block = self.ledger.block_of(tensor)
            if block in self.drop and self.uses[block].reads >= self.drop[block]:
                self._free(tensor)

    def on_math(self, call: str) -> None:
        """Book a call of SDPA that takes the math path, and where it is."""
        super().on_math(call)
        if self.counting and self.phase == "forward":
            key = (line_of(sys._getframe()), call)
            self.math_lines[key] = self.math_lines.get(key, 0) + 1

    def _read(self, block: int, event: int, reader: Maker) -> None:
        use = self.uses.get(block)
        self.uses[block] = Use(1 if use is None else use.reads + 1, event, reader)

    def _free(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        self.ledger.drop(tensor)
        self._dropped[address] = weakref.ref(storage, lambda _: self._dropped.pop(address, None))

    def _asked_by(self) -> str:
        line = line_of(sys._getframe())
        if line or self.phase == "forward":
            return line
        node = torch._C._current_autograd_node()
        return "" if node is None else self.lines.get(node._sequence_nr(), "")


def line_of(frame: FrameType | None) -> str:
    """The innermost frame that is neither torch's nor the tracer's, as 'file.py:12'; empty where the pass has none."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name == _EDGE:
            return ""
        own = _own(name)
        if own:
            return f"{own}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@cache
def _own(name: str) -> str:
    """The name of a file without its folder; empty for torch's and the tracer's."""
    return "" if name.startswith((_TORCH, _OURS, "<")) else Path(name).name
