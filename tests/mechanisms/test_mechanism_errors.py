"""Arguments and maps that a mechanism cannot have are refused in words of its own, not in those of an inner call."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from attnprof import mechanisms
from attnprof.records import Shape
from tests.catalogue import make_inputs

MAP = Shape(1, 64, 8, 8)
CLIP = Shape(1, 64, 8, 8, 4)


@pytest.mark.parametrize(
    ("name", "args", "shape", "words"),
    [
        ("soft_attention", {"gate": "vector"}, MAP, "gate is 'none', 'scalar' or 'channel', not 'vector'"),
        ("soft_attention", {"activation": "elu"}, MAP, "activation is 'tanh' or 'relu', not 'elu'"),
        ("hard_attention", {"evaluation": "mean"}, MAP, "evaluation is 'argmax' or 'expectation', not 'mean'"),
        ("emanet", {"iterations": 0}, MAP, "one iteration or more, not 0"),
        ("ram", {"glimpses": 1}, Shape(1, 1, 28, 28), "two glimpses or more, not 1"),
        ("dram", {"patch": 8}, Shape(1, 3, 54, 54), "9 x 9 or more, not 8 x 8"),
        ("local_alignment", {}, Shape(1, 3, 8, 8), "one channel or more, not 0 (3 channels"),
        ("local_alignment", {"embed": 0}, MAP, "one channel or more, not 0 (64 channels, embed 0)"),
        ("stgcn", {}, Shape(1, 7, 8, 8, 4), "one channel or more, not 0 (7 channels"),
        ("stgcn", {"width": 0}, CLIP, "one channel or more, not 0 (64 channels, width 0)"),
        ("axial", {"heads": 7}, MAP, "64 channels do not divide into 7 heads"),
        ("dcn", {"kernel": 4}, MAP, "must be odd, not 4"),
        ("dcn", {"offset_groups": 3}, MAP, "64 channels do not divide into 3 groups of offsets"),
        ("cbam", {"kernel": 4}, MAP, "must be odd, not 4"),
        ("triplet", {"kernel": 4}, MAP, "must be odd, not 4"),
        ("lka", {"local": 4}, MAP, "must be odd, not 4 (local) and 7 (spread)"),
        ("lka", {"spread": 6, "dilation": 2}, MAP, "must be odd, not 5 (local) and 6 (spread)"),
        ("tam", {"kernel_size": 2}, CLIP, "must be odd, not 2"),
        ("lwdn", {"kernel": 2}, Shape(1, 16, 8, 8, 2), "must be odd, not 2"),
        ("sta_lstm", {"layers": 0}, Shape(1, 75, 1, 1, 10), "one layer or more, not 0"),
        ("condconv", {"groups": 3}, MAP, "64 input and 64 output channels do not divide into 3 groups"),
        ("condconv", {"groups": 2, "out": 3}, MAP, "64 input and 3 output channels do not divide into 2 groups"),
        ("attention_gate", {}, Shape(1, 16, 1, 8), "sides of 2 or more, not 1 x 8"),
        ("san_pairwise", {}, Shape(1, 64, 3, 8), "sides larger than 3, not 3 x 8"),
        ("san_patchwise", {"kernel": 5}, Shape(1, 64, 8, 2), "sides larger than 2, not 8 x 2"),
        ("stn", {}, Shape(1, 1, 3, 8), "sides of 4 or more, not 3 x 8"),
        ("mixed_pooling", {}, Shape(1, 3, 8, 8), "3 channels leave mixed_pooling none for"),
        ("ppm", {}, Shape(1, 3, 8, 8), "3 channels leave ppm none for"),
        ("a2net", {}, Shape(1, 3, 8, 8), "3 channels leave a2net none for"),
        ("afnb", {}, Shape(1, 7, 8, 8), "7 channels leave afnb none for"),
        ("apnb", {}, Shape(1, 1, 8, 8), "1 channels leave apnb none for"),
        ("scnet", {}, Shape(1, 1, 8, 8), "1 channels leave scnet none for"),
    ],
)
def test_what_cannot_be_is_refused_in_words(name: str, args: dict[str, Any], shape: Shape, words: str) -> None:
    mechanism = mechanisms.load(name)

    def run() -> None:
        mechanisms.build(mechanism, shape, args)(*make_inputs(mechanism, shape, args, torch.float32))

    with pytest.raises(ValueError, match=re.escape(words)):
        run()


def test_counts_refuse_what_the_module_refuses() -> None:
    for name, args in (("local_alignment", {"embed": 0}), ("sta_lstm", {"layers": 0}), ("soft_attention", {"gate": "vector"})):
        mechanism = mechanisms.load(name)
        assert mechanism.params is not None
        assert mechanism.macs is not None
        with pytest.raises(ValueError, match=r", not (0|'vector')"):
            mechanism.params(64, **args)
        with pytest.raises(ValueError, match=r", not (0|'vector')"):
            mechanism.macs(CLIP, **args)


def test_fgfa_without_a_warp_takes_no_flow() -> None:
    mechanism, shape = mechanisms.load("fgfa"), Shape(1, 8, 4, 4, 2)
    inputs = make_inputs(mechanism, shape, {}, torch.float32)
    assert len(inputs) == 3
    module = mechanisms.build(mechanism, shape, {"warp": False})
    assert module(*inputs[:2]).shape == (1, 8, 4, 4)
    with pytest.raises(ValueError, match=re.escape("not a flow of (1, 2, 2, 4, 4)")):
        module(*inputs)


@pytest.mark.parametrize(
    ("name", "args", "shape"),
    [
        ("mixed_pooling", {"grids": (1, 2)}, Shape(1, 16, 4, 4)),
        ("mixed_pooling", {}, Shape(1, 16, 1, 4)),
        ("strip_pooling", {}, Shape(1, 16, 1, 4)),
        ("psanet", {}, Shape(1, 16, 2, 2)),
        ("psanet", {}, Shape(1, 16, 1, 1)),
    ],
)
def test_one_value_per_channel_trains(name: str, args: dict[str, Any], shape: Shape) -> None:
    mechanism = mechanisms.load(name)
    module = mechanisms.build(mechanism, shape, args).train()
    output = module(*make_inputs(mechanism, shape, args, torch.float32))
    output.square().sum().backward()
    assert bool(output.isfinite().all())
    assert all(bool(buffer.isfinite().all()) for buffer in module.buffers())
    assert all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)
