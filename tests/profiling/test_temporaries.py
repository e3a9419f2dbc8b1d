"""The scratch of CUDA kernels: every row of the table against bytes counted by hand from the source that it names."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.profiling.counting import temporaries
from attnprof.profiling.counting.trace import trace_case, trace_module
from attnprof.records import Case, Shape, TensorSpec


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


half = torch.float16
TURNED = meta(4, 8, 6).transpose(1, 2)  # 4 x 6 x 8, not contiguous
LAST = meta(2, 4, 4, 3).permute(0, 3, 1, 2)  # 2 x 3 x 4 x 4, channels last
STRIDED = meta(4, 12, 16)[:, ::2, ::2]  # 4 x 6 x 8 without a dense dimension
LONG = torch.empty(10_000, dtype=torch.int64, device="meta")


def attention(tokens: int, size: int, dtype: torch.dtype = torch.float32, heads: int = 2) -> Tensor:
    return meta(1, heads, tokens, size, dtype=dtype)


def backward(tokens: int, size: int, dtype: torch.dtype) -> tuple[Any, ...]:
    q = attention(tokens, size, dtype)
    grad = meta(1, tokens, 2, size, dtype=dtype).transpose(1, 2)
    return grad, q, q, q, grad


# op, arguments, bytes
ROWS: list[tuple[str, tuple[Any, ...], int]] = [
    ("_softmax", (meta(4, 6, 8), -1, False), 0),
    ("_softmax", (TURNED, -1, False), 4 * 192),
    ("_log_softmax", (TURNED, -1, False), 4 * 192),
    ("_softmax_backward_data", (meta(4, 6, 8), meta(4, 6, 8), -1, torch.float32), 4 * 192),  # the product
    ("_softmax_backward_data", (TURNED, meta(4, 6, 8), -1, torch.float32), 2 * 4 * 192),  # and its contiguous copy
    ("_softmax_backward_data", (meta(4, 6, 8), TURNED, -1, torch.float32), 2 * 4 * 192),  # and that of the output
    ("_softmax_backward_data", (meta(4, 1, 8).expand(4, 6, 8), meta(4, 6, 8), -1, torch.float32), 4 * 192),  # product is dense
    ("_softmax_backward_data", (meta(4, 6, 16)[..., ::2], meta(4, 6, 8), -1, torch.float32), 4 * 192),
    ("_log_softmax_backward_data", (meta(4, 6, 8), meta(4, 6, 8), -1, torch.float32), 0),
    ("_log_softmax_backward_data", (TURNED, TURNED, -1, torch.float32), 2 * 4 * 192),
    ("mm", (meta(6, 8), meta(9, 8).t()), 0),
    ("mm", (meta(12, 16)[::2, ::2], meta(8, 9)), 4 * 48),
    ("addmm", (meta(9), meta(6, 8), meta(8, 9)), 0),
    ("addmm", (meta(9), meta(12, 16)[::2, ::2], meta(8, 9)), 4 * 48),
    ("addmm_", (meta(12, 18)[::2, ::2], meta(6, 8), meta(8, 9)), 4 * 54),
    ("bmm", (TURNED, meta(4, 8, 5)), 0),  # a transposed matrix is cuBLAS's own
    ("bmm", (STRIDED, meta(4, 8, 5)), 4 * 192),
    ("bmm", (meta(1, 6, 8).expand(4, 6, 8), meta(4, 8, 5)), 0),  # one matrix for a whole batch is no copy
    ("bmm", (meta(4, 6, 1).expand(4, 6, 8), meta(4, 8, 5)), 4 * 192),  # a stride of 0 inside a matrix is
    ("baddbmm", (meta(1), STRIDED, meta(4, 8, 5)), 4 * 192),
    ("baddbmm_", (meta(4, 12, 10)[:, ::2, ::2], meta(4, 6, 8), meta(4, 8, 5)), 4 * 120),
    ("convolution", (meta(2, 3, 4, 4), meta(5, 3, 1, 1)), 0),
    ("convolution", (LAST, meta(5, 3, 2, 2)), 4 * 60),  # the weight in the input's format
    ("convolution", (meta(2, 3, 4, 8)[..., ::2], meta(5, 3, 2, 2)), 4 * 96),
    ("convolution_backward", (meta(2, 5, 4, 8)[..., ::2], meta(2, 3, 4, 4), meta(5, 3, 1, 1)), 4 * 160),
    ("native_batch_norm", (meta(2, 3, 4, 8)[..., ::2],), 4 * 96),
    ("native_batch_norm_backward", (LAST, meta(2, 3, 4, 4)), 4 * 96),
    ("native_layer_norm", (TURNED, [8]), 4 * 192),
    ("native_layer_norm_backward", (TURNED, meta(4, 6, 8), [8], None, None, meta(8), meta(8)), 4 * 192),
    ("native_layer_norm_backward", (meta(70_000, 64), meta(70_000, 64), [64], None, None, meta(64)), 2 * 2188 * 64 * 4),
    ("native_group_norm", (meta(2, 8, 9), meta(8), meta(8), 2, 8, 9, 4, 1e-5), 2 * 16 * 4),
    ("native_group_norm", (meta(2, 8, 9, dtype=half), meta(8), None, 2, 8, 9, 4, 1e-5), (2 * 16 + 2 * 8) * 4),
    ("native_group_norm_backward", (None, meta(2, 8, 9), None, None, meta(8), 2, 8, 9, 4), (3 * 16 + 2 * 8) * 4),
    ("index_put", (meta(50, 7), [LONG[:30]], meta(30, 7), False), 0),
    ("index_put", (meta(50, 7), [LONG[:30]], meta(30, 7), True), 6 * 8 * 30),
    ("index_put_", (meta(50, 7), [LONG[:30], None], meta(7, 30).t(), True), 6 * 8 * 30 + 4 * 210),
    ("embedding_dense_backward", (meta(100, 8), LONG[:100], 50, -1, False), 0),
    ("embedding_dense_backward", (meta(10_000, 8), LONG, 50, -1, False), 6 * 8 * 10_000 + 4 * 8 * 10_000),  # partial sums
    ("embedding_dense_backward", (meta(100, 8), LONG[:100], 50, -1, True), 7 * 8 * 100 + 4 * 8 * 100),
    ("embedding_dense_backward", (meta(10_000, 8, dtype=half), LONG, 50, -1, False), 6 * 8 * 10_000 + 4 * 8 * 10_000),
    ("sort", (meta(3, 100), -1, False), 8 * 100),
    ("sort", (meta(5000, 2), 0, False), 10_000 * (4 + 4 + 8)),
    ("topk", (TURNED, 2), 4 * 192),
    ("cumsum", (TURNED, 1), 4 * 192),
    ("im2col", (LAST, [3, 3]), 4 * 96),
    ("col2im", (TURNED, [3, 3]), 4 * 192),
    ("affine_grid_generator", (meta(2, 2, 3), [2, 5, 6, 7], False), 2 * 42 * 3 * 4),
    ("affine_grid_generator", (meta(2, 3, 4), [2, 5, 6, 7, 8], False), 2 * 336 * 4 * 4),
    ("upsample_bilinear2d_backward", (meta(2, 3, 4, 8)[..., ::2],), 4 * 96),
    ("avg_pool2d", (meta(2, 3, 4, 8)[..., ::2], [2, 2]), 4 * 96),
    ("max_pool2d_with_indices", (LAST, [2, 2]), 0),
    ("avg_pool2d_backward", (LAST, meta(2, 3, 4, 4)), 4 * 96),
    ("_adaptive_avg_pool2d_backward", (LAST, meta(2, 3, 4, 4)), 4 * 96),
    ("_scaled_dot_product_efficient_attention", (attention(100, 256),) * 3, 0),  # float32 accumulates in its own output
    ("_scaled_dot_product_efficient_attention", (attention(100, 128, half),) * 3, 0),
    ("_scaled_dot_product_efficient_attention", (attention(100, 256, half),) * 3, 4 * 2 * 100 * 256),
    # float32, 100 tokens, heads of 64: delta 2 x 100; product 2 x 100 x 64; dq in 2 blocks of 64 x 64 and 4 more each
    ("_scaled_dot_product_efficient_attention_backward", backward(100, 64, torch.float32), 800 + max(51_200, 8 * 2 * 4100)),
    # float16, heads of 128: blocks of 128 x 128
    ("_scaled_dot_product_efficient_attention_backward", backward(300, 128, half), 2400 + 8 * 3 * 16_388),
    # float16, heads of 192: dq in 128 x 64, dk and dv in min(5 blocks of keys, 200 / 2) of 64 x align(192, 128)
    (
        "_scaled_dot_product_efficient_attention_backward",
        backward(300, 192, half),
        2400 + 8 * (3 * 3 * 8196 + 2 * 5 * 64 * 256),
    ),
    # 300 -> 384 tokens, heads of 72 -> 96; softmax_d is one more number per token
    ("_scaled_dot_product_flash_attention_backward", backward(300, 72, half), 4 * 2 * 384 * (96 + 1)),
]


@pytest.mark.parametrize(("op", "args", "expected"), ROWS, ids=[f"{row[0]}-{i}" for i, row in enumerate(ROWS)])
def test_a_row_is_what_its_source_allocates(op: str, args: tuple[Any, ...], expected: int) -> None:
    size = temporaries.size_for(op)
    assert size is not None
    found = size(args, None)
    assert (found if isinstance(found, int) else max(found)) == expected


def test_flash_attention_expands_grouped_keys_and_copies_what_does_not_lie_by_tokens() -> None:
    q, k = attention(128, 64, half, heads=4), attention(128, 64, half)
    size = temporaries.size_for("_scaled_dot_product_flash_attention_backward")
    assert size is not None
    lying = meta(1, 128, 4, 64, dtype=half).transpose(1, 2)
    plain = 4 * 4 * 128 * 65 + 2 * (4 * 128 * 64 * 2)
    assert size((lying, q, k, k, lying), None) == plain
    assert size((attention(128, 64, half, heads=4), q, k, k, lying), None) == plain + 4 * 128 * 64 * 2


def test_every_row_is_tested_and_names_a_file_and_a_function() -> None:
    assert set(temporaries.KERNEL_TEMPORARIES) == {row[0] for row in ROWS}
    for name, row in temporaries.KERNEL_TEMPORARIES.items():
        assert re.search(r"\w+\.(cu|cuh|cpp|h)\b", row.source), name
        assert row.what, name
    assert all(re.search(r"\w+\.(cu|cuh|cpp)\b", why) or "trace" in why for why in temporaries.NOT_MODELLED.values())
    assert temporaries.size_for("relu") is None


@pytest.mark.parametrize("name", temporaries.KERNEL_TEMPORARIES)
def test_every_row_is_an_op_of_this_torch(name: str) -> None:
    assert hasattr(torch.ops.aten, name)


def test_the_backward_of_softmax_has_a_fourth_map() -> None:
    """Probabilities, their gradient and that of the scores are tensors; grad * output is not, and counts as much."""
    case = Case("spatial/nonlocal", "nonlocal", {}, Shape(1, 512, 97, 97), mode="training")
    counts = trace_case(case)
    assert 0 <= counts.peak_cuda_bytes - counts.peak_bytes - 4 * 9409**2 < 64 * 512


def test_scratch_counts_beside_the_outputs_of_its_op_and_of_no_other() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x.transpose(0, 1), 1).sum(0)

    counts = trace_module(Both(), [TensorSpec((1024, 512))])
    assert counts.peak_bytes == 4 * 2**19 + 4 * 1024
    assert counts.peak_cuda_bytes == 2 * 4 * 2**19
