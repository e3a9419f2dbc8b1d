"""Multiply-accumulates of the twelve peer modules: exact, in evaluation and training, with and without gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnprof.profiling.counting.trace import trace_module
from attnprof.records import Counts, TensorSpec
from tests.profiling.peers import PEERS

CHANNELS, SIDE = 512, 97
SPEC = TensorSpec((1, CHANNELS, SIDE, SIDE))


def forward_macs(counts: Counts) -> int:
    return sum(row.macs for row in counts.ops if row.phase == "forward")


def backward_macs(counts: Counts) -> int:
    return sum(row.macs for row in counts.ops if row.phase == "backward")


@pytest.mark.parametrize("name", PEERS)
def test_formula_gives_the_known_number(name: str) -> None:
    assert PEERS[name].macs(CHANNELS, SIDE, SIDE) == PEERS[name].at_97


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("name", PEERS)
def test_macs_are_exact(name: str, mode: str, training: bool) -> None:
    with torch.device("meta"):
        module = PEERS[name].build(CHANNELS).train(training)
    counts = trace_module(module, [SPEC], mode)
    assert forward_macs(counts) == PEERS[name].at_97
    assert counts.macs == PEERS[name].at_97 + (backward_macs(counts) if mode == "training" else 0)
    assert counts.flops >= 2 * counts.macs
    assert not counts.uncounted


@pytest.mark.parametrize("name", PEERS)
def test_backward_is_twice_the_forward(name: str) -> None:
    """Every product has two derivatives; a fused attention kernel also computes its N^2 C scores again."""
    with torch.device("meta"):
        module = PEERS[name].build(CHANNELS)
    counts = trace_module(module, [SPEC], "training")
    places = SIDE * SIDE
    again = places * places * CHANNELS if name in ("sdpa", "mha") else 0
    assert backward_macs(counts) == 2 * PEERS[name].at_97 + again


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("name", PEERS)
def test_macs_at_another_size_from_real_tensors(name: str, grad: bool) -> None:
    """A module with data is counted as it stands, and runs: H is not W."""
    module = PEERS[name].build(32)
    x: Tensor = torch.randn(1, 32, 6, 9)
    module(x)
    module.requires_grad_(grad)
    counts = trace_module(module, [x], "inference")
    assert counts.macs == PEERS[name].macs(32, 6, 9)
