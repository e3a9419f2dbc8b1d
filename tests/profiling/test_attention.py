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
from tests.profiling.test_trace import numbers, real_and_traced


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
    "double with a float mask": (
        heads(dtype=torch.float64),
        heads(dtype=torch.float64),
        heads(dtype=torch.float64),
        Options(mask=torch.zeros(6, 6)),
    ),
    "half with a float mask": (
        heads(dtype=torch.bfloat16),
        heads(dtype=torch.bfloat16),
        heads(dtype=torch.bfloat16),
        Options(mask=torch.zeros(6, 6)),
    ),
    "heads of one": (heads(size=2)[..., :1], heads(size=2)[..., :1], heads(size=2)[..., :1], Options()),
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


def one_column(tokens: int = 6) -> Tensor:
    """A mask of one column, seen as a whole row: its last dimension has a stride of 0."""
    return torch.zeros(tokens, 1).expand(tokens, tokens)


_RULES: dict[str, tuple[tuple[Tensor, Tensor, Tensor], Options, str, str]] = {  # in float32, in float16
    "plain": ((heads(), heads(), heads()), Options(), "efficient", "flash"),
    "three dimensions": ((heads()[0], heads()[0], heads()[0]), Options(), "math", "math"),
    "other batch": ((heads(), heads(batch=1), heads(batch=1)), Options(), "math", "math"),
    "other heads": ((heads(), heads(number=2), heads(number=2)), Options(), "math", "math"),
    "whole groups of heads": ((heads(), heads(number=2), heads(number=2)), Options(gqa=True), "math", "flash"),
    "groups of equal heads": ((heads(), heads(), heads()), Options(gqa=True), "efficient", "flash"),
    "groups that do not divide": ((heads(), heads(number=3), heads(number=3)), Options(gqa=True), "math", "math"),
    "other value size": ((heads(), heads(), heads(size=16)), Options(), "efficient", "efficient"),
    "value size that does not divide": ((heads(), heads(), heads(size=6)), Options(), "math", "math"),
    "other key size": ((heads(), heads(size=16), heads()), Options(), "math", "math"),
    "causal": ((heads(), heads(), heads()), Options(causal=True), "efficient", "flash"),
    "causal, not square": ((heads(), heads(tokens=9), heads(tokens=9)), Options(causal=True), "efficient", "efficient"),
    "strided last dimension": ((TURNED, TURNED, TURNED), Options(), "math", "math"),
    "no tokens": ((heads(tokens=0), heads(), heads()), Options(), "math", "math"),
    "mask": ((heads(), heads(), heads()), Options(mask=torch.zeros(6, 6)), "efficient", "efficient"),
    "trained mask": ((heads(), heads(), heads()), Options(mask=torch.zeros(6, 6).requires_grad_()), "efficient", "efficient"),
    "mask without a dense row": ((heads(), heads(), heads()), Options(mask=one_column()), "math", "math"),
    "dropout": ((heads(), heads(), heads()), Options(dropout=0.5), "efficient", "flash"),
    "heads of one number": ((heads(size=1), heads(size=1), heads(size=1)), Options(), "math", "flash"),
}


@pytest.mark.parametrize("name", _RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_each_rule_of_sdp_utils(name: str, dtype: torch.dtype) -> None:
    """check_tensor_shapes, check_batch_size_and_num_heads_dense, check_head_dim_size_*, check_last_dim_stride_equals_1_dense,
    check_for_attn_mask, check_flash_causal_non_square_seqlens, check_nonzero_sequence_lengths_dense."""
    tensors, options, single, half = _RULES[name]
    q, k, v = (tensor.to(dtype) for tensor in tensors)
    if name == "strided last dimension":
        assert q.stride(-1) != 1
    assert attention.choose(q, k, v, options, "cuda", "auto") == (single if dtype is torch.float32 else half)


def test_a_mask_with_rows_that_are_not_aligned_is_padded_before_it_is_expanded() -> None:
    """preprocess_mask: rows of 33 become 40, for the two heads and both batches at once."""

    class Masked(nn.Module):
        def forward(self, q: Tensor, mask: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)

    padded = trace_module(Masked(), [TensorSpec((2, 2, 33, 8)), TensorSpec((33, 33))])
    aligned = trace_module(Masked(), [TensorSpec((2, 2, 40, 8)), TensorSpec((40, 40))])
    assert sum(row.calls for row in padded.ops if row.op == "constant_pad_nd") == 1
    assert not any(row.op == "constant_pad_nd" for row in aligned.ops)
    assert {holder.shape for holder in padded.at_peak} >= {(33, 40)}


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
