"""The traced peak against torch's CPU allocator, small; `python -m tests.makers.memory_page` tables the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.profiling.calibrating import recorder
from attnprof.profiling.calibrating.allocator import profiled
from attnprof.records import MODES, Shape, TensorSpec
from tests import observer
from tests.catalogue import one_thread

SHAPE = Shape(1, 32, 9, 9)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Every test here."""
    with one_thread():
        yield


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["ccnet", "ccnet_bmm", "cam", "nonlocal", "gcnet", "snl"])
def test_equal_to_the_byte(name: str, mode: str) -> None:
    row = observer.observe_mechanism(name, mode, SHAPE)
    assert row.allocator == row.traced, row


class Body(nn.Module):
    """A function of the input and two parameters as a module."""

    def __init__(self, body: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.w = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.v = nn.Parameter(torch.ones(1, 8, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x, self.w, self.v)


class SumInBackward(torch.autograd.Function):
    """A backward pass with an addition of its own, which is no accumulation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return grad * w + grad * x, (grad * x).sum((0, 2, 3), keepdim=True)


ACCUMULATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "one tensor twice in an op": lambda x, w, v: x * w * (x * w) + x,
    "residual": lambda x, w, v: (x * w).tanh() * v + x,
    "three uses": lambda x, w, v: x * v + x.sigmoid() * x + x.exp(),
    "passed on by two additions": lambda x, w, v: (x + x * w) + (x * w + v),
    "views of one gradient": lambda x, w, v: torch.cat([x[:, :4] + x[:, 4:], x[:, 4:] * x[:, :4]], 1) + x,
    "expanded gradient": lambda x, w, v: x * w + x.sum((2, 3), keepdim=True) + x.mean(1, keepdim=True),
    "transposed gradient": lambda x, w, v: (x * v).transpose(2, 3) + x,
    "gradient of another layout": lambda x, w, v: (x * w).transpose(2, 3).contiguous() * v.transpose(2, 3),
    "in place": lambda x, w, v: (x * w).add_(x * v).relu_() + x,
    "detached": lambda x, w, v: x * w + (x * v).detach(),
    "custom function": lambda x, w, v: SumInBackward.apply(x * v, w) + x,  # type: ignore[no-untyped-call]
    "checkpoint": lambda x, w, v: torch.utils.checkpoint.checkpoint(
        lambda u: (u * w + u * v).tanh() * u, x, use_reentrant=False, preserve_rng_state=False
    ),
    "reentrant checkpoint": lambda x, w, v: torch.utils.checkpoint.checkpoint(
        lambda u: (u * w + u * v).tanh() * u, x, use_reentrant=True, preserve_rng_state=False
    ),
}


MAP = 8 * 16 * 16 * 4  # bytes


def curve(changes: Iterable[int]) -> list[int]:
    """Bytes alive in maps after each birth of a map. Ops in these cases take no scratch of that size."""
    alive, found = 0, []
    for change in changes:
        if abs(change) >= MAP:
            alive += change
            if change > 0:
                found.append(alive)
    return found


def both_curves(case: str) -> tuple[list[int], list[int]]:
    """(traced, the allocator's) of one case in training."""
    shape = (1, 8, 16, 16)
    module = Body(ACCUMULATIONS[case])
    lifetimes = recorder.record_module(module, [TensorSpec(shape)], "training", target="cpu").lifetimes
    inputs = [torch.randn(shape).requires_grad_()]
    events, _held = profiled(lambda: observer.run_pass(module, inputs, None, training=True))
    traced = curve(lifetimes.sizes[event] if event > 0 else -lifetimes.sizes[-event] for event in lifetimes.events)
    return traced, curve(event.bytes for event in events)


@pytest.mark.parametrize("case", ACCUMULATIONS)
def test_accumulation_is_eager(case: str) -> None:
    """Gradients are added in place, taken over or copied exactly where eager does so: every map, not the peak alone."""
    traced, allocator = both_curves(case)
    assert traced == allocator


@pytest.mark.parametrize("rule", [False, True])
def test_a_wrong_model_of_accumulation_is_seen(rule: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison has teeth: additions never, or always, in place."""
    monkeypatch.setattr(recorder.Recorder, "_accumulates", lambda self, args: rule and args[0].shape == args[1].shape)
    differing = [case for case in ACCUMULATIONS if len(set(map(tuple, both_curves(case)))) == 2]
    assert len(differing) > 3


def test_a_child_answers_and_a_failure_is_said() -> None:
    assert observer.seen_in_child("channel/se", "inference", Shape(1, 32, 5, 5)) not in ("", "failed: the process died")
    assert observer.seen_in_child("none", "inference", SHAPE).startswith("failed: UsageError")
