"""Modules that go wrong, each in its own way, and work functions that need no tracer. Imported by path in child processes."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.errors import UntraceableError
from attnprof.records import Case, Counts

COUNTS = Counts(
    params=0,
    macs=1000,
    flops=2000,
    bytes_moved=4000,
    activation_bytes=400,
    resident_bytes=400,
    peak_bytes=400,
    peak_cuda_bytes=512,
)


class Good(nn.Module):
    """A pointwise convolution."""

    def __init__(self, channels: int, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(channels, channels, 1) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class FaultsPages(Good):
    """Raises where a pass gets its memory from the system anew, 8 MiB at the top of the heap."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [x.new_zeros(2**18) for _ in range(8)]
        out = self.layers(x) + held[0][0]
        self.passes += 1
        if not x.is_meta and self.passes > 5 and (new := resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) > 1000:
            raise RuntimeError(f"{new} page faults")
        if not x.is_meta and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
            raise RuntimeError("this heap gives back what it had")
        return out


class Raises(Good):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such luck")


class RaisesInInit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        raise ValueError(f"{channels} channels are too many")


class GivesNan(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("nan")


class Loops(Good):
    def forward(self, x: Tensor) -> Tensor:
        while True:
            time.sleep(0.01)


class Segfaults(Good):
    def forward(self, x: Tensor) -> Tensor:
        ctypes.string_at(0)
        return x


class Allocates(Good):
    def forward(self, x: Tensor) -> Tensor:
        hoard = []
        while True:
            hoard.append(torch.empty(16 * 2**20))  # pages that are not touched: a slow machine runs out of memory in time too


class AllocatesOnDevice(Good):
    def forward(self, x: Tensor) -> Tensor:
        hoard = []
        while True:
            hoard.append(torch.ones(256 * 2**20, device=x.device))


class WantsAGiB(Good):
    def forward(self, x: Tensor) -> Tensor:
        hoard = torch.empty(2**28)  # float32; pages that nobody touches
        return super().forward(x) + 0 * hoard[0].nan_to_num()


class AllocatesInPython(Good):
    def forward(self, x: Tensor) -> Tensor:
        hoard = []
        while True:
            hoard.append(bytes(64 * 2**20))


class LeavesSilently(Good):
    def forward(self, x: Tensor) -> Tensor:
        os._exit(0)


class Exits(Good):
    def forward(self, x: Tensor) -> Tensor:
        raise SystemExit(3)


class Talks(Good):
    def forward(self, x: Tensor) -> Tensor:
        print("x" * 79 + "\n", end="")
        os.write(2, b"y" * (256 * 1024))
        return super().forward(x)


class TalksThenDies(Good):
    def forward(self, x: Tensor) -> Tensor:
        os.write(2, b"y\n" * (512 * 1024) + b"the last words\n")
        os.abort()


class _BackwardRaises(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise ArithmeticError("only in backward")


class RaisesInBackward(Good):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _BackwardRaises.apply(super().forward(x))  # type: ignore[no-untyped-call]
        return y


class DiesLater(Good):
    """Well for some passes, then dead: in the middle of the rounds."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes > 18:
            os.abort()
        return super().forward(x)


class LeavesChildren(Good):
    """Starts a process that outlives the pass."""

    def forward(self, x: Tensor) -> Tensor:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        return super().forward(x)


class Half(Good):
    """Needs a kernel that the CPU lacks for its dtype."""

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError("\"thing\" not implemented for 'Half'")


def count(case: Case) -> Counts:
    """A tracer that counts nothing, for tests of the measuring phase."""
    return COUNTS


def run_on_data(case: Case) -> Counts:
    """A tracer that runs the module, so that its faults meet the tracing phase."""
    from attnprof.profiling.measuring.prepare import backward, conditions, forward, prepare

    if case.settings.get("sdpa") == "math":
        raise UntraceableError("it reads values")
    case = replace(case, device="cpu")
    prepared = prepare(case, 0)
    with conditions(case):
        outputs = forward(prepared)
        if prepared.training:
            backward(prepared, outputs)
    return COUNTS


def huge(case: Case) -> Counts:
    """Every case needs more memory than there is."""
    return Counts(**{**vars(COUNTS), "peak_bytes": 2**60})
