"""Multiply-accumulates of the harder modules: exact against truth by hand, forward and backward, in evaluation and training."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from attnprof.errors import UntraceableError
from attnprof.profiling.counting import flex
from attnprof.profiling.counting.trace import count_real, follow_module, trace_module
from attnprof.profiling.instantiate import real_input
from attnprof.records import Counts, TensorSpec
from tests.profiling.harder import HARDER

CHANNELS, HEIGHT, WIDTH = 32, 6, 11
pytestmark = pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile.*:UserWarning")


def macs(counts: Counts, phase: str) -> int:
    return sum(row.macs for row in counts.ops if row.phase == phase)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("name", HARDER)
def test_macs_are_exact(name: str, mode: str, training: bool) -> None:
    harder = HARDER[name]
    module = harder.build(CHANNELS).train(training)
    counts = trace_module(module, harder.inputs(CHANNELS, HEIGHT, WIDTH), mode)
    assert macs(counts, "forward") == harder.forward(CHANNELS, HEIGHT, WIDTH)
    assert macs(counts, "backward") == (harder.backward(CHANNELS, HEIGHT, WIDTH) if mode == "training" else 0)
    assert not counts.uncounted
    assert bool(counts.assumed) == (harder.traced_by == "real")
    assert counts.traced_by == harder.traced_by


@pytest.mark.parametrize("name", [name for name, harder in HARDER.items() if harder.flops is not None])
def test_flops_of_the_forward_pass(name: str) -> None:
    harder = HARDER[name]
    assert harder.flops is not None
    counts = trace_module(harder.build(CHANNELS), harder.inputs(CHANNELS, HEIGHT, WIDTH))
    assert counts.flops == harder.flops(CHANNELS, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", HARDER)
def test_a_real_run_counts_the_same(name: str) -> None:
    harder = HARDER[name]
    generator = torch.Generator().manual_seed(0)
    inputs = [real_input(spec, torch.float32, generator) for spec in harder.inputs(16, 5, 8)]
    counts = count_real(harder.build(16).eval(), inputs)
    assert counts.macs == harder.forward(16, 5, 8)
    assert not counts.uncounted


@pytest.mark.parametrize("name", HARDER)
def test_the_module_is_left_as_it_was(name: str) -> None:
    """Scripted submodules as well, whose tensors lie where Python's attributes do not reach."""
    module = HARDER[name].build(CHANNELS)
    before = {key: (id(value), value.clone()) for key, value in module.named_parameters()}
    trace_module(module, HARDER[name].inputs(CHANNELS, HEIGHT, WIDTH), "training")
    for key, parameter in module.named_parameters():
        assert (id(parameter), parameter.device.type, parameter.grad) == (before[key][0], "cpu", None)
        assert torch.equal(parameter, before[key][1])


class Compiled(nn.Module):
    """FlexAttention behind torch.compile, two key heads for four query heads: 3 N C^2 and 2 N^2 C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        from torch.nn.attention.flex_attention import flex_attention

        self.qkv = nn.Linear(channels, 3 * channels)
        self.attend = torch.compile(flex_attention)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.attend(q, k[:, :2], v[:, :2], enable_gqa=True)
        return out


class BlockMasked(nn.Module):
    """FlexAttention under a causal block mask: counted as eager runs it, every pair: 2 N^2 C."""

    def forward(self, x: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        q = x.flatten(2).transpose(1, 2).unflatten(-1, (4, -1)).transpose(1, 2)
        count = q.shape[2]
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, count, count, device=str(x.device))
        out = flex_attention(q, q, q, block_mask=mask)
        assert isinstance(out, Tensor)
        return out


def test_compiled_and_block_masked_flex_attention() -> None:
    places = HEIGHT * WIDTH
    spec = (TensorSpec((1, CHANNELS, HEIGHT, WIDTH)),)
    compiled = trace_module(Compiled(CHANNELS), spec, "training")
    pairs = places**2 * CHANNELS
    assert macs(compiled, "forward") == 3 * places * CHANNELS**2 + 2 * pairs
    assert macs(compiled, "backward") == 6 * places * CHANNELS**2 + 5 * pairs
    assert not compiled.assumed
    masked = trace_module(BlockMasked(), spec)
    assert masked.macs == 2 * pairs
    assert masked.assumed == {flex.MASKED: 1}  # a compiled kernel would skip the blocks above the diagonal
    assert masked.traced_by == "meta"


def test_torch_is_put_back_after_flex_attention() -> None:
    trace_module(HARDER["flex"].build(CHANNELS), HARDER["flex"].inputs(CHANNELS, HEIGHT, WIDTH))
    assert flex.is_loaded()
    api = sys.modules["torch.nn.attention.flex_attention"]
    assert api._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG is False
    with pytest.raises(ValueError, match="only supported on"):
        api._validate_device(*[torch.empty(1, device="meta")] * 3)


class Inferring(nn.Module):
    """A product inside inference_mode, where torch hands composite ops over whole: N C^2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.matmul(x.flatten(2).transpose(1, 2), self.weight)


def test_composite_ops_under_inference_mode() -> None:
    x = torch.randn(1, CHANNELS, HEIGHT, WIDTH)
    expected = HEIGHT * WIDTH * CHANNELS**2
    for counts in (trace_module(Inferring(CHANNELS), [x]), count_real(Inferring(CHANNELS), [x])):
        assert counts.macs == expected
        assert not counts.uncounted


def test_what_needs_data_and_may_not_run_is_refused_or_assumed() -> None:
    """Without a real run the mask is assumed to let everything through, and the counts say so."""
    harder = HARDER["branching"]
    traced = follow_module(harder.build(CHANNELS), harder.inputs(CHANNELS, HEIGHT, WIDTH), allow_real=False).counts
    assert set(traced.assumed) >= {"_local_scalar_dense"}
    with pytest.raises(UntraceableError, match="without data"):
        follow_module(Reading(), harder.inputs(CHANNELS, HEIGHT, WIDTH), allow_real=False)


class Reading(nn.Module):
    """Goes through numpy: no op tells what it did."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().cpu().numpy() * 2)
