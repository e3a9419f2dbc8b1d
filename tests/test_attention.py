"""Scaled dot-product attention: the kernel that is chosen, and its counts, against torch on this CPU."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attnprof.errors import UsageError
from attnprof.profiling.counting import attention
from attnprof.profiling.counting.trace import count_real, trace_module
from attnprof.records import MODES, TensorSpec
from tests.test_trace import numbers, real_and_traced


class Options:
    """What `choose` wants to know beside q, k and v."""

    def __init__(self, mask: Tensor | None = None, dropout: float = 0.0, causal: bool = False, gqa: bool = False) -> None:
        self.mask, self.dropout, self.causal, self.gqa, self.scale = mask, dropout, causal, gqa, None


def heads(batch: int = 2, number: int = 4, tokens: int = 6, size: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, number, tokens, size).to(dtype)


TURNED = heads(size=6, tokens=8).transpose(2, 3)
_CASES: dict[str, tuple[Any, Any, Any, Options]] = {
    "plain": (heads(), heads(), heads(), Options()),
    "causal": (heads(), heads(), heads(), Options(causal=True)),
    "cross": (heads(), heads(tokens=9), heads(tokens=9), Options()),
    "bool mask": (heads(), heads(), heads(), Options(mask=torch.ones(6, 6, dtype=torch.bool))),
    "float mask": (heads(), heads(), heads(), Options(mask=torch.zeros(2, 4, 6, 6))),
    "trained mask": (heads(), heads(), heads(), Options(mask=torch.zeros(6, 6).requires_grad_())),
    "mask of 3 dimensions": (heads(), heads(), heads(), Options(mask=torch.zeros(4, 6, 6))),
    "dropout": (heads(), heads(), heads(), Options(dropout=0.1)),
    "three dimensions": (heads()[0], heads()[0], heads()[0], Options()),
    "other value size": (heads(), heads(), heads(size=12), Options()),
    "grouped": (heads(), heads(number=2), heads(number=2), Options(gqa=True)),
    "double": (heads(dtype=torch.float64), heads(dtype=torch.float64), heads(dtype=torch.float64), Options()),
    "half": (heads(dtype=torch.bfloat16), heads(dtype=torch.bfloat16), heads(dtype=torch.bfloat16), Options()),
    "wide heads": (heads(size=512), heads(size=512), heads(size=512), Options()),
    "strided last": (TURNED, TURNED, TURNED, Options()),
    "one token": (heads(tokens=1), heads(tokens=1), heads(tokens=1), Options()),
}


@pytest.mark.parametrize("name", _CASES)
def test_the_cpu_kernel_is_the_one_torch_chooses(name: str) -> None:
    q, k, v, options = _CASES[name]
    chosen = torch._fused_sdp_choice(q, k, v, options.mask, options.dropout, options.causal, enable_gqa=options.gqa)
    expected = {0: "math", 1: "flash_for_cpu"}[chosen]
    assert attention.choose(q, k, v, options, "cpu", "auto") == expected


@pytest.mark.parametrize(
    ("dtype", "size", "options", "expected"),
    [
        (torch.float32, 64, Options(), "efficient"),
        (torch.float16, 64, Options(), "flash"),
        (torch.bfloat16, 256, Options(), "flash"),
        (torch.bfloat16, 264, Options(), "efficient"),
        (torch.float32, 512, Options(), "efficient"),
        (torch.float32, 12, Options(), "efficient"),
        (torch.float32, 6, Options(), "math"),
        (torch.bfloat16, 12, Options(), "flash"),
        (torch.float64, 64, Options(), "math"),
        (torch.float16, 64, Options(mask=torch.zeros(6, 6)), "efficient"),
        (torch.float16, 64, Options(dropout=0.1), "flash"),
    ],
)
def test_the_cuda_kernel_follows_torchs_rules(dtype: torch.dtype, size: int, options: Options, expected: str) -> None:
    """sdp_utils.cpp: flash for half precision without mask up to 256, efficient where 16 bytes divide a head, else math."""
    q, k, v = (heads(size=size, dtype=dtype) for _ in range(3))
    assert attention.choose(q, k, v, options, "cuda", "auto") == expected
    assert attention.choose(q, k, v, options, "cuda", "math") == "math"


def test_fused_is_refused_where_no_kernel_takes_the_call() -> None:
    q = heads(dtype=torch.float64)
    with pytest.raises(UsageError, match="no fused kernel"):
        attention.choose(q, q, q, Options(), "cuda", "fused")


class Attend(nn.Module):
    """One call of SDPA with whatever options."""

    def __init__(self, causal: bool = False, mask: str = "", gqa: bool = False, three: bool = False) -> None:
        super().__init__()
        self.causal, self.mask, self.gqa, self.three = causal, mask, gqa, three

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = None
        if self.mask == "bool":
            mask = q.new_ones((q.shape[-2], k.shape[-2])) > 0
        elif self.mask == "float":
            mask = q.new_zeros((q.shape[-2], k.shape[-2]))
        if self.three:
            q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal, enable_gqa=self.gqa)


_CALLS = [{}, {"causal": True}, {"mask": "float"}, {"mask": "bool"}, {"three": True}, {"three": True, "causal": True}]


@pytest.mark.parametrize("call", _CALLS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_counts_equal_a_real_run(call: dict[str, Any], mode: str) -> None:
    inputs = [heads(tokens=9), heads(), heads()] if "causal" not in call else [heads() for _ in range(3)]
    real, traced = real_and_traced(Attend(**call), inputs, mode)
    assert numbers(traced) == numbers(real)
    scores = 2 * 4 * inputs[0].shape[2] * inputs[1].shape[2] * 8
    forward = sum(row.macs for row in traced.ops if row.phase == "forward")
    assert forward == 2 * scores
    if mode == "training":
        fused = "three" not in call
        assert traced.macs - forward == (5 if fused else 4) * scores


def test_the_efficient_kernel_keeps_a_padded_logsumexp_for_the_backward() -> None:
    """64 x 8 heads, 33 tokens: output 4 * 8 * 33 * 64 bytes, logsumexp padded to 64 rows, two 8-byte numbers."""
    counts = trace_module(Attend(), [TensorSpec((1, 8, 33, 64))] * 3, "training")
    assert counts.activation_bytes == 8 + 8 + 4 * 8 * 64 + 4 * 8 * 33 * 64


def test_a_trained_mask_is_no_matter_of_the_grad_mode() -> None:
    """torch asks whether the mask requires a gradient, not whether gradients are on: math on the CPU in inference too."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1, 2, 9, 9))

        def forward(self, q: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(q, q, q, attn_mask=self.bias)

    real, traced = real_and_traced(Biased(), [heads(number=2, tokens=9)], "inference")
    assert numbers(real)["peak_bytes"] == numbers(traced)["peak_bytes"]
    assert numbers(real)["macs"] == numbers(traced)["macs"]


def test_grouped_heads_count_every_query_head() -> None:
    specs = [TensorSpec((2, 4, 6, 8)), TensorSpec((2, 2, 6, 8)), TensorSpec((2, 2, 6, 8))]
    for target, sdpa in (("cuda", "auto"), ("cpu", "auto"), ("cuda", "math")):
        counts = trace_module(Attend(gqa=True), specs, target=target, sdpa=sdpa)
        assert counts.macs == 2 * 2 * 4 * 6 * 6 * 8
        assert not counts.uncounted


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("weights", "mode"), list(itertools.product([False, True], MODES)))
def test_multihead_attention_module(training: bool, weights: bool, mode: str) -> None:
    """4 N C^2 + 2 N^2 C MACs whatever the mode; no opaque fast path, and the weights cost memory, not MACs."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mha = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.mha(x, x, x, need_weights=weights)[0]
            return out

    module = Wrapped().train(training)
    x = torch.randn(2, 9, 16)
    real, traced = real_and_traced(module, [x], mode)
    assert numbers(traced) == numbers(real)
    forward = sum(row.macs for row in traced.ops if row.phase == "forward")
    assert forward == 2 * (4 * 9 * 16 * 16 + 2 * 9 * 9 * 16)


def test_encoder_layer_and_a_scripted_module() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0).eval()
    counts = trace_module(layer, [TensorSpec((1, 9, 16))], target="cpu")
    assert counts.macs == 9 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 9 * 9 * 16
    assert numbers(counts) == numbers(count_real(layer, [torch.randn(1, 9, 16)]))


def test_memory_is_linear_in_tokens_with_a_fused_kernel_and_quadratic_without() -> None:
    def peak(tokens: int, sdpa: str) -> int:
        return trace_module(Attend(), [TensorSpec((1, 8, tokens, 64))] * 3, sdpa=sdpa).peak_bytes

    assert peak(1024, "auto") < peak(2048, "auto") <= 2 * peak(1024, "auto")
    assert peak(2048, "math") > 3 * peak(1024, "math")


def test_linear_adds_its_bias_in_place_as_eager_does() -> None:
    """A non-contiguous input of three dimensions: the peak is the product alone, not product and sum beside it."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 64)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.linear(x.transpose(1, 2))
            return out

    counts = trace_module(Turned(), [TensorSpec((1, 16, 9))])
    assert counts.peak_bytes == 4 * 9 * 64
