"""The cost table against numbers worked out by hand: every expected value is a literal with its arithmetic beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attnprof.errors import UsageError
from attnprof.profiling.counting import flops
from attnprof.profiling.counting.table import FOREACH, RULES

aten = torch.ops.aten
REVIEWED = "2.13"  # the version of torch whose op list was gone through

# Ops below autograd that deliberately have no row: a trace reports them as uncounted.
LEFT_OUT = frozenset(
    """_amp_foreach_non_finite_check_and_unscale _amp_update_scale _coalesce _coalesced _compute_linear_combination
    _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo _convert_weight_to_int4pack
    _convert_weight_to_int4pack_for_cpu _cslt_sparse_mm _ctc_loss _ctc_loss_backward _dimI _dimV _dirichlet_grad
    _dyn_quant_matmul_4bit _dyn_quant_pack_4bit_weight _empty_affine_quantized _empty_per_channel_affine_quantized
    _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_channel_affine_backward
    _fake_quantize_learnable_per_tensor_affine _fake_quantize_learnable_per_tensor_affine_backward
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _flash_attention_forward_no_dropout_inplace _foobar _foreach_mm
    _foreach_powsum _fused_adagrad _fused_adam _fused_adamw _fused_moving_avg_obs_fq_helper
    _fused_moving_avg_obs_fq_helper_functional _fused_sgd _histogramdd_bin_edges _histogramdd_from_bin_cts
    _histogramdd_from_bin_tensors _jagged_to_padded_dense_forward _make_dep_token _make_per_channel_quantized_tensor
    _make_per_tensor_quantized_tensor _nested_compute_contiguous_strides_offsets _nested_from_padded
    _nested_from_padded_and_nested_example _nested_select_backward _nested_sum_backward _nested_tensor_from_mask
    _nested_tensor_from_mask_left_aligned _nested_tensor_from_tensor_list _nested_tensor_size
    _nested_tensor_softmax_with_shape _nested_tensor_storage_offsets _nested_tensor_strides _nnz
    _padded_dense_to_jagged_forward _philox_key_fold_in _philox_key_split _philox_normal _philox_uniform _print
    _sample_dirichlet _scaled_dot_product_attention_math_for_mps _sparse_addmm _sparse_compressed_tensor_with_dims
    _sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors _sparse_log_softmax
    _sparse_log_softmax_backward_data _sparse_mask_projection _sparse_semi_structured_addmm _sparse_semi_structured_linear
    _sparse_semi_structured_mm _sparse_softmax _sparse_softmax_backward_data _sparse_sparse_matmul _sparse_sum
    _sparse_sum_backward _spdiags _standard_gamma_grad _test_autograd_multiple_dispatch _test_functorch_fallback
    _test_optional_filled_intlist _test_optional_floatlist _test_optional_intlist _test_parallel_materialize
    _test_warn_in_autograd _to_sparse _to_sparse_bsc _to_sparse_bsr _to_sparse_csc _to_sparse_csr
    _validate_compressed_sparse_indices _weight_int4pack_mm _weight_int4pack_mm_for_cpu
    _weight_int4pack_mm_with_scales_and_zeros copy_sparse_to_sparse dense_dim dequantize empty_quantized
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask from_file glu_backward_jvp glu_jvp
    histogram hspmm int_repr matmul_backward multi_margin_loss multi_margin_loss_backward multilabel_margin_loss_backward
    multilabel_margin_loss_forward native_norm q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale
    q_zero_point qscheme quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm
    quantized_gru quantized_lstm quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d resize_as_sparse
    sparse_compressed_tensor sparse_coo_tensor sparse_dim sparse_mask sparse_resize sparse_resize_and_clear to_padded_tensor
    unique_dim unique_dim_consecutive""".split()  # noqa: SIM905
)


def t(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def ids(*shape: int) -> Tensor:
    return t(*shape, dtype=torch.int64)


def overload(name: str) -> Any:
    packet, _, which = name.partition(".")
    return getattr(getattr(aten, packet), which or "default")


def rule(func: Any) -> flops.Rule:
    found = flops.rule_for(func)
    assert found is not None, func
    return found


def cost(name: str, *args: Any, result: Any = None, **kwargs: Any) -> tuple[int, int]:
    """(macs, flops) of one call, on meta; `result` where the op has no meta kernel."""
    func = overload(name)
    macs, work = rule(func)(args, kwargs, func(*args, **kwargs) if result is None else result)
    return macs, work


def check(rows: list[tuple[Any, ...]]) -> None:
    """Rows of (expected, name, args, [kwargs], [result])."""
    for expected, name, args, *rest in rows:
        kwargs = rest[0] if rest else {}
        given = {"result": rest[1]} if len(rest) > 1 else {}
        found = cost(name, *args, **kwargs, **given)
        assert found == expected, f"{name}{[getattr(a, 'shape', a) for a in args]} {kwargs}: {found}, not {expected}"


def test_matmul() -> None:
    a, b = t(3, 4), t(4, 5)
    x, y = t(2, 3, 4), t(2, 4, 5)
    check(
        [
            ((60, 120), "mm", (a, b)),  # 3 * 4 * 5
            ((60, 135), "addmm", (t(5), a, b)),  # 120 + 15 additions
            ((60, 120), "addmm", (t(5), a, b), {"beta": 0}),  # nothing is added
            ((60, 165), "addmm", (t(5), a, b), {"beta": 3, "alpha": 2}),  # 120 + 15 * (add, beta, alpha)
            ((60, 135), "addmm_", (t(3, 5), a, b)),
            ((60, 135), "addmm.out", (t(5), a, b), {"out": t(3, 5)}, t(3, 5)),
            ((60, 150), "_addmm_activation", (t(5), a, b)),  # 120 + 15 bias + 15 ReLU
            ((60, 270), "_addmm_activation", (t(5), a, b), {"use_gelu": True}),  # 120 + 15 + 15 * 9
            ((120, 240), "bmm", (x, y)),  # 2 * 3 * 4 * 5
            ((120, 270), "baddbmm", (t(2, 3, 5), x, y)),  # 240 + 30
            ((120, 270), "baddbmm_", (t(2, 3, 5), x, y)),
            ((120, 255), "addbmm", (t(3, 5), x, y)),  # 240 + 15
            ((120, 255), "addbmm_", (t(3, 5), x, y)),
            ((12, 24), "mv", (a, t(4))),
            ((12, 27), "addmv", (t(3), a, t(4))),  # 24 + 3
            ((12, 24), "addr", (t(3, 4), t(3), t(4))),  # one product, one sum each
            ((12, 36), "addr", (t(3, 4), t(3), t(4)), {"alpha": 2}),
            ((7, 14), "dot", (t(7), t(7))),
            ((28, 56), "vdot", (t(7, dtype=torch.complex64), t(7, dtype=torch.complex64))),  # 4 real products each
            ((240, 480), "mm", (t(3, 4, dtype=torch.complex64), t(4, 5, dtype=torch.complex64))),
            ((4096, 8192), "_int_mm", (t(32, 16), t(16, 8)), {}, t(32, 8)),
            # 16 * 32 * 16 = 8192; 16384 + 256 * (two scales, bias)
            ((8192, 17152), "_scaled_mm", (t(16, 32), t(32, 16), t(1), t(1), t(16)), {}, t(16, 16)),
            ((12, 24), "_grouped_mm", (t(2, 3), t(7, 3, 2), ids(7)), {}, t(2, 2)),  # every row meets one group: 2 * 3 * 2
            ((84, 168), "_grouped_mm", (t(7, 2, 3), t(7, 3, 2)), {}, t(7, 2, 2)),  # a bmm: 7 * 2 * 3 * 2
            ((120, 270), "linear", (t(2, 3, 4), t(5, 4), t(5))),  # 30 * 4; 240 + 30
            ((120, 240), "linear", (t(2, 3, 4), t(5, 4))),
            ((120, 270), "mkldnn_linear", (t(2, 3, 4), t(5, 4), t(5)), {}, t(2, 3, 5)),
            ((240, 510), "linear_backward", (t(2, 3, 4), t(2, 3, 5), t(5, 4), [True] * 3), {}, t(1)),  # 2 * 120; 480 + 30
            ((120, 240), "mkldnn_linear_backward_input", ([2, 3, 4], t(2, 3, 5), t(5, 4)), {}, t(2, 3, 4)),
            ((120, 270), "mkldnn_linear_backward_weights", (t(2, 3, 5), t(2, 3, 4), t(5, 4), True), {}, t(1)),
            # 2 * 5 rows of 3 x 4 weights contracted over 3, then over 4: 2 * 5 * 3 * 4 + 2 * 5 * 4
            ((160, 320), "_trilinear", (t(2, 3), t(5, 3, 4), t(2, 4), [1, 3], [0], [1, 2], [2, 3]), {}, t(2, 5)),
            ((240, 480), "affine_grid_generator", (t(2, 2, 3), [2, 1, 4, 5], False)),  # 2 * 4 * 5 places, 2 numbers of 3
        ]
    )


def test_distances() -> None:
    far = (t(30, 4), t(30, 4))
    check(
        [
            ((0, 390), "_cdist_forward", (t(2, 3, 4), t(2, 5, 4), 2.0, 0)),  # 30 pairs * (4 * (subtract, square, add) + root)
            ((0, 360), "_cdist_forward", (t(2, 3, 4), t(2, 5, 4), 1.0, 0)),  # 30 * 4 * (subtract, abs, add)
            ((0, 510), "_cdist_forward", (t(2, 3, 4), t(2, 5, 4), 3.0, 0)),  # 30 * (4 * 4 + 1)
            # a matmul of inner size 4 + 2: 900 * 6; 10800 + 3 * 120 + 2 * 120 + 2 * 900
            ((5400, 13200), "_cdist_forward", (*far, 2.0, 0)),
            ((5400, 13200), "_euclidean_dist", far),
            ((0, 11700), "_cdist_forward", (*far, 2.0, 2)),  # matmul forbidden: 900 * 13
            ((0, 390), "_cdist_backward", (t(2, 3, 5), t(2, 3, 4), t(2, 5, 4), 2.0, t(2, 3, 5)), {}, t(2, 3, 4)),
            ((0, 39), "_pdist_forward", (t(3, 4), 2.0), {}, t(3)),  # 3 pairs * 13
        ]
    )


def test_convolution() -> None:
    one, none = [1, 1], [0, 0]
    x, w = t(2, 6, 9, 8), t(4, 6, 3, 3)
    y = t(2, 4, 5, 4)  # stride 2, padding 1: 160 elements
    up, up_w = t(2, 6, 5, 4), t(6, 4, 3, 3)  # 240 elements in, 2 x 4 x 11 x 9 = 792 out
    check(
        [
            ((8640, 17440), "convolution", (x, w, t(4), [2, 2], one, one, False, none, 1)),  # 160 * 6 * 9; 17280 + 160
            ((8640, 17280), "convolution", (x, w, None, [2, 2], one, one, False, none, 1)),
            ((4320, 8640), "convolution", (x, t(4, 3, 3, 3), None, [2, 2], one, one, False, none, 2)),  # 160 * 3 * 9
            ((900, 1800), "convolution", (t(1, 4, 5, 5), t(4, 1, 3, 3), None, one, one, one, False, none, 4)),  # 100 * 9
            (
                (2646, 5292),
                "convolution",
                (t(1, 2, 7, 7), t(3, 2, 3, 3), None, one, [2, 2], [2, 2], False, none, 1),
            ),  # 147 * 18
            ((168, 336), "convolution", (t(1, 2, 10), t(3, 2, 4), None, [1], [0], [1], False, [0], 1)),  # 21 * 8
            (
                (1296, 2592),  # 3 * 27 * 16
                "convolution",
                (t(1, 2, 4, 4, 4), t(3, 2, 2, 2, 2), None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1),
            ),
            ((8640, 18072), "convolution", (up, up_w, t(4), [2, 2], none, one, True, none, 1)),  # 240 * 4 * 9; 17280 + 792
            ((4320, 8640), "convolution", (up, t(6, 2, 3, 3), None, [2, 2], none, one, True, none, 2)),  # 240 * 2 * 9
            ((8640, 17440), "_convolution", (x, w, t(4), [2, 2], one, one, False, none, 1, False, False, True, True), {}, y),
            ((8640, 17440), "mkldnn_convolution", (x, w, t(4), one, [2, 2], one, 1), {}, y),
            ((8640, 17280), "cudnn_convolution", (x, w, one, [2, 2], one, 1, False, False, True), {}, y),
            ((8640, 17600), "cudnn_convolution_relu", (x, w, t(4), [2, 2], one, one, 1), {}, y),  # 17280 + bias + ReLU
            ((8640, 17920), "cudnn_convolution_add_relu", (x, w, y, 1.0, t(4), [2, 2], one, one, 1), {}, y),  # + alpha, z
            ((8640, 17280), "cudnn_convolution_transpose", (up, up_w, none, none, [2, 2], one, 1), {}, t(2, 4, 11, 9)),
            ((8640, 17440), "_slow_conv2d_forward", (x, w, [3, 3], t(4), [2, 2], one), {}, y),
            ((168, 357), "conv_tbc", (t(10, 1, 2), t(4, 2, 3), t(3)), {}, t(7, 1, 3)),  # 21 * 8; 336 + 21
        ]
    )
    rest = (x, w, [4], [2, 2], one, one, False, none, 1)
    check(
        [
            ((17280, 34720), "convolution_backward", (y, *rest, [True, True, True])),  # 2 * 8640; 34560 + 160
            ((8640, 17280), "convolution_backward", (y, *rest, [False, True, False])),
            ((8640, 17280), "convolution_backward", (y, *rest, [True, False, False])),
            ((0, 160), "convolution_backward", (y, *rest, [False, False, True]), {}, (None, None, t(4))),
            (
                (17280, 34560),
                "convolution_backward",
                (t(2, 4, 11, 9), up, up_w, None, [2, 2], none, one, True, none, 1, [True, True, False]),
            ),
        ]
    )


Q, K, V = t(2, 3, 5, 4), t(2, 3, 7, 4), t(2, 3, 7, 6)  # 2 * 3 * 5 * 7 = 210 scores
G4, V4, LSE = t(2, 3, 5, 4), t(2, 3, 7, 4), t(2, 3, 5)
# 210 * (4 + 6) = 2100 MACs; 4200 + 210 * (scale 1 + softmax 5); a mask 210 more; dropout 4 * 210
PLAIN, MASKED, DROPPED = (2100, 5460), (2100, 5670), (2100, 6300)
# five products of 4: 210 * 20 = 4200 = 2.5 * 1680; 8400 + 210 * 6 + 2 * 120 for sum(g * out)
BACKWARD, MASKED_BACKWARD = (4200, 9900), (4200, 10110)
MASK = t(5, 7)


@pytest.mark.parametrize(
    ("expected", "name", "args", "kwargs"),
    [
        (PLAIN, "_scaled_dot_product_flash_attention", (Q, K, V), {}),
        (DROPPED, "_scaled_dot_product_flash_attention", (Q, K, V, 0.1), {}),
        (PLAIN, "_scaled_dot_product_flash_attention_for_cpu", (Q, K, V, 0.0, True), {}),
        (MASKED, "_scaled_dot_product_flash_attention_for_cpu", (Q, K, V), {"attn_mask": MASK}),
        (PLAIN, "_scaled_dot_product_efficient_attention", (Q, K, V, None, True), {}),
        (MASKED, "_scaled_dot_product_efficient_attention", (Q, K, V, MASK, True), {}),
        (DROPPED, "_scaled_dot_product_efficient_attention", (Q, K, V, None, True, 0.1), {}),
        (MASKED, "_scaled_dot_product_cudnn_attention", (Q, K, V, MASK, True), {}),
        (MASKED, "_scaled_dot_product_fused_attention_overrideable", (Q, K, V, MASK), {}),
        # grouped queries: six query heads share two key heads: 2 * 6 * 5 * 7 = 420 scores; 8400 + 2520
        ((4200, 10920), "_scaled_dot_product_flash_attention", (t(2, 6, 5, 4), t(2, 2, 7, 4), t(2, 2, 7, 6)), {}),
        # batch, places, heads, width
        (
            PLAIN,
            "_flash_attention_forward",
            (t(2, 5, 3, 4), t(2, 7, 3, 4), t(2, 7, 3, 6), None, None, 5, 7, 0.0, False, False),
            {},
        ),
        (
            MASKED,
            "_efficient_attention_forward",
            (t(2, 5, 3, 4), t(2, 7, 3, 4), t(2, 7, 3, 6), MASK, None, None, None, None, 0.0, 0),
            {},
        ),
        # two packed sequences, the longest 7 and 8: 3 * 2 * 7 * 8 = 336 scores of 4 + 4; 5376 + 2016
        (
            (2688, 7392),
            "_flash_attention_forward",
            (t(12, 3, 4), t(13, 3, 4), t(13, 3, 4), ids(3), ids(3), 7, 8, 0.0, False, False),
            {},
        ),
        (BACKWARD, "_scaled_dot_product_flash_attention_backward", (G4, Q, K, V4, G4, LSE, None, None, 5, 7, 0.0, False), {}),
        (BACKWARD, "_scaled_dot_product_flash_attention_for_cpu_backward", (G4, Q, K, V4, G4, LSE, 0.0, False), {}),
        (
            MASKED_BACKWARD,
            "_scaled_dot_product_flash_attention_for_cpu_backward",
            (G4, Q, K, V4, G4, LSE, 0.0, False),
            {"attn_mask": MASK},
        ),
        (
            MASKED_BACKWARD,
            "_scaled_dot_product_efficient_attention_backward",
            (G4, Q, K, V4, MASK, G4, LSE, ids(1), ids(1), 0.0, [True] * 4),
            {},
        ),
        (
            BACKWARD,
            "_scaled_dot_product_efficient_attention_backward",
            (G4, Q, K, V4, None, G4, LSE, ids(1), ids(1), 0.0, [True] * 4),
            {},
        ),
        (
            BACKWARD,
            "_scaled_dot_product_cudnn_attention_backward",
            (G4, Q, K, V4, G4, LSE, ids(1), ids(1), None, ids(1), ids(1), 5, 7, 0.0, False),
            {},
        ),
        (
            BACKWARD,
            "_scaled_dot_product_fused_attention_overrideable_backward",
            (G4, Q, K, V4, None, [True] * 4, G4, LSE, ids(1), ids(1), 5, 7, 0.0, False),
            {},
        ),
        (
            BACKWARD,
            "_flash_attention_backward",
            (t(2, 5, 3, 4), t(2, 5, 3, 4), t(2, 7, 3, 4), t(2, 7, 3, 4), G4, LSE, None, None, 5, 7, 0.0, False),
            {},
        ),
        (
            BACKWARD,
            "_efficient_attention_backward",
            (t(2, 5, 3, 4), t(2, 5, 3, 4), t(2, 7, 3, 4), t(2, 7, 3, 4), None, G4, None, None, 5, 7, LSE, 0.0),
            {},
        ),
    ],
)
def test_fused_attention(expected: tuple[int, int], name: str, args: Any, kwargs: Any) -> None:
    assert cost(name, *args, result=(t(1),), **kwargs) == expected


def test_whole_blocks() -> None:
    """Batch 2, 5 tokens, width 8, 2 heads: 10 rows, 2 * 2 * 25 = 100 scores of 4 + 4."""
    x = t(2, 5, 8)
    qkv, proj = (t(24, 8), t(24)), (t(8, 8), t(8))
    # 4 * 10 * 64 + 800; 6720 + biases 320 + 600
    assert cost("_native_multi_head_attention", x, x, x, 8, 2, *qkv, *proj, result=(x,)) == (3360, 7640)
    # + 2 * 10 * 8 * 16 MACs; 11840 + 920 + biases 10 * 24 + ReLU 160 + two norms 2 * (8 * 80 + 40) + two sums 160
    layer = (x, 8, 2, *qkv, *proj, False, True, 1e-5, t(8), t(8), t(8), t(8), t(16, 8), t(16), t(8, 16), t(8))
    assert cost("_transformer_encoder_layer_fwd", *layer, result=x) == (5920, 14680)


def test_recurrent_kernels() -> None:
    """Five steps, two sequences, three inputs, four units."""
    x, h = t(5, 2, 3), t(1, 2, 4)

    def layer(gates: int, mode: int) -> tuple[int, int]:
        weights = (t(4 * gates, 3), t(4 * gates, 4), t(4 * gates), t(4 * gates))
        return cost("mkldnn_rnn_layer", x, *weights, h, h, False, [], mode, 4, 1, True, False, False, False, result=(x,))

    assert layer(4, 2) == (1120, 3440)  # LSTM: 10 * (48 + 64); 2240 + 40 * 30
    assert layer(3, 3) == (840, 2560)  # GRU: 10 * (36 + 48); 1680 + 40 * 22
    assert layer(1, 1) == (280, 720)  # tanh: 10 * (12 + 16); 560 + 40 * 4
    weights = [t(16, 3), t(16, 4), t(16), t(16)] * 2 + [t(16, 8), t(16, 4), t(16), t(16)] * 2
    # two layers, both directions: 10 * 2 * (48 + 64 + 128 + 64); 12160 + 10 * 4 * 4 * 30
    forward: tuple[Any, ...] = (x, weights, 4, None, h, h, 2, 4, 0, 2, False, 0.0, True, True, [], None)
    assert cost("_cudnn_rnn", *forward, result=(x,)) == (6080, 16960)
    # twice the MACs; 24320 + 10 * 4 * 4 * 23
    backward: tuple[Any, ...] = (
        x,
        weights,
        4,
        t(1),
        h,
        h,
        x,
        x,
        h,
        h,
        2,
        4,
        0,
        2,
        False,
        0.0,
        True,
        True,
        [],
        None,
        t(1),
        [True] * 4,
    )
    assert cost("_cudnn_rnn_backward", *backward, result=(x,)) == (12160, 28000)
    cell = t(2, 4)
    assert cost("_thnn_fused_lstm_cell", t(2, 16), t(2, 16), cell, t(16), t(16), result=(cell,)) == (0, 240)  # 8 * 30
    assert cost("_thnn_fused_lstm_cell", t(2, 16), t(2, 16), cell, result=(cell,)) == (0, 176)  # 8 * (4 + 18)
    assert cost("_thnn_fused_gru_cell", t(2, 12), t(2, 12), cell, result=(cell,)) == (0, 128)  # 8 * (3 + 13)


@pytest.mark.parametrize(
    ("amount", "names"),
    [
        (1, "abs neg exp log sqrt rsqrt reciprocal sin cos tanh erf floor relu sign isnan logical_not"),
        (2, "hardtanh leaky_relu"),
        (3, "elu nan_to_num"),
        (4, "sigmoid hardsigmoid mish"),
        (5, "silu hardswish softplus gelu"),
        (6, "log_sigmoid_forward"),
    ],
)
def test_unary(amount: int, names: str) -> None:
    for name in names.split():
        out = t(4, 6) if name == "log_sigmoid_forward" else None
        assert cost(name, t(4, 6), result=out) == (0, amount * 24), name


def test_elementwise() -> None:
    x, g = t(4, 6), t(4, 6)  # 24 elements
    z = t(4, 6, dtype=torch.complex64)
    check(
        [
            ((0, 24), "add.Tensor", (x, t(6))),
            ((0, 48), "add.Tensor", (x, t(6)), {"alpha": 2}),
            ((0, 24), "add_.Tensor", (x, g)),
            ((0, 24), "mul.Tensor", (x, t(4, 1))),
            ((0, 24), "mul.Tensor", (t(4, 1), t(6))),  # counted in the result
            ((0, 144), "mul.Tensor", (z, z)),  # four products, two sums
            ((0, 48), "add.Tensor", (z, z)),
            ((0, 264), "div.Tensor", (z, z)),  # 24 * 11
            ((0, 96), "abs", (z,)),  # two squares, a sum, a root
            ((0, 48), "exp", (z,)),
            ((0, 24), "div.Tensor", (x, g)),
            ((0, 48), "div.Tensor_mode", (x, g), {"rounding_mode": "floor"}),
            ((0, 24), "sub.Tensor", (x, g)),
            ((0, 24), "pow.Tensor_Scalar", (x, 2)),
            ((0, 24), "maximum", (x, g)),
            ((0, 24), "max.other", (x, t(6))),
            ((0, 24), "eq.Scalar", (x, 0)),
            ((0, 24), "bitwise_and.Tensor", (ids(4, 6), ids(4, 6))),
            ((0, 24), "__and__.Tensor", (ids(4, 6), ids(4, 6))),
            ((0, 48), "addcmul", (x, g, g)),
            ((0, 72), "addcmul", (x, g, g), {"value": 2}),
            ((0, 72), "lerp.Scalar", (x, g, 0.5)),
            ((0, 24), "clamp", (x, 0)),
            ((0, 48), "clamp", (x, 0, 1)),
            ((0, 24), "clamp", (x, None, 1)),
            ((0, 24), "clamp_min", (x, 0)),
            ((0, 216), "gelu", (x,), {"approximate": "tanh"}),  # 9
            ((0, 96), "elu", (x, 1.67, 1.05)),  # SELU: one more for its scale
            ((0, 60), "glu", (x, 1)),  # 12 results * 5
            ((0, 96), "glu_backward", (t(4, 3), x, 1)),  # 12 * 8
            ((0, 48), "_prelu_kernel", (x, t(6))),
            ((0, 24), "threshold_backward", (g, x, 0)),
            ((0, 72), "sigmoid_backward", (g, x)),
            ((0, 72), "tanh_backward", (g, x)),
            ((0, 216), "silu_backward", (g, x)),  # 9
            ((0, 264), "gelu_backward", (g, x)),  # 11
            ((0, 432), "gelu_backward", (g, x), {"approximate": "tanh"}),  # 18
            ((0, 72), "elu_backward", (g, 1.0, 1, 1, True, x)),
            ((0, 96), "elu_backward", (g, 1.0, 1, 1, False, x)),
            ((0, 48), "leaky_relu_backward", (g, x, 0.1, False)),
            ((0, 48), "hardtanh_backward", (g, x, 0, 6)),
            ((0, 96), "native_dropout", (x, 0.5, True)),  # draw, compare, mask, scale
            ((0, 0), "native_dropout", (x, 0.5, False)),
            ((0, 48), "native_dropout_backward", (g, x, 2.0)),
            ((0, 48), "bernoulli_.float", (x, 0.5)),
            ((0, 24), "normal_", (x,)),
            ((0, 24), "rand", ([4, 6],), {"device": "meta"}),
            ((0, 72), "mse_loss", (x, g)),  # subtract, square, add
            ((0, 48), "mse_loss", (x, g, 0)),
            ((0, 48), "_foreach_sigmoid", ([t(3), t(3), t(6)],), {}, []),  # 12 * 4
            ((0, 6), "_foreach_add_.Scalar", ([t(2), t(4)], 1), {}, []),
        ]
    )


def test_moving_data_costs_nothing() -> None:
    x = t(4, 6)
    check(
        [
            ((0, 0), name, args)
            for name, args in [
                ("clone", (x,)),
                ("copy_", (x, x)),
                ("_to_copy", (x,)),
                ("cat", ([x, x],)),
                ("stack", ([x, x],)),
                ("gather", (x, 1, ids(4, 2))),
                ("index_select", (x, 1, ids(3))),
                ("index.Tensor", (x, [ids(3)])),
                ("where.self", (t(4, 6, dtype=torch.bool), x, x)),
                ("masked_fill.Scalar", (x, t(4, 6, dtype=torch.bool), 0)),
                ("constant_pad_nd", (x, [1, 1])),
                ("roll", (x, [1], [0])),
                ("flip", (x, [0])),
                ("tril", (x,)),
                ("zeros_like", (x,)),
                ("fill_.Scalar", (x, 1)),
                ("zero_", (x,)),
                ("embedding", (x, ids(5))),
                ("upsample_nearest2d", (t(1, 2, 4, 4), [8, 8])),
                ("im2col", (t(1, 2, 4, 4), [3, 3], [1, 1], [1, 1], [1, 1])),
                ("index_put", (x, [ids(3)], t(3, 6))),
                ("scatter.src", (x, 0, ids(2, 6), x)),
                ("view", (x, [24])),
                ("transpose.int", (x, 0, 1)),
                ("expand", (x, [2, 4, 6])),
                ("view_copy", (x, [24])),
                ("expand_copy", (x, [2, 4, 6])),
            ]
        ]
    )


def test_scattering_adds() -> None:
    x = t(4, 6)
    check(
        [
            ((0, 18), "index_add", (x, 0, ids(3), t(3, 6))),
            ((0, 36), "index_add", (x, 0, ids(3), t(3, 6)), {"alpha": 2}),
            ((0, 12), "scatter_add", (x, 0, ids(2, 6), x)),
            ((0, 12), "scatter_reduce.two", (x, 0, ids(2, 6), x, "amax")),
            ((0, 36), "scatter_reduce.two", (x, 0, ids(2, 6), x, "mean")),  # and 24 divisions
            ((0, 18), "index_put", (x, [ids(3)], t(3, 6), True)),
            ((0, 15), "index_put_", (x, [ids(3, 1), ids(5)], t(3, 5), True)),
            ((0, 12), "index_put", (x, [None, ids(3)], t(4, 3), True)),
            ((0, 18), "embedding_dense_backward", (t(3, 6), ids(3), 10, -1, False)),
            ((0, 30), "_embedding_bag", (x, ids(5), ids(2))),  # 5 rows of 6
            ((0, 288), "col2im", (t(1, 18, 16), [4, 4], [3, 3], [1, 1], [1, 1], [1, 1])),
            ((0, 24), "unfold_backward", (t(4, 3, 2), [4, 6], 1, 2, 2)),
            ((0, 24), "reflection_pad2d_backward", (t(1, 4, 6), t(1, 2, 4), [1, 1, 1, 1])),
        ]
    )


def test_reductions() -> None:
    x = t(4, 6)  # 24 elements, 4 rows
    check(
        [
            ((0, 24), "sum.dim_IntList", (x, [1])),
            ((0, 24), "sum", (x,)),
            ((0, 28), "mean.dim", (x, [1])),
            ((0, 24), "amax", (x, [1])),
            ((0, 24), "max", (x,)),
            ((0, 24), "max.dim", (x, 1)),
            ((0, 24), "argmax", (x, 1)),
            ((0, 24), "any", (x,)),
            ((0, 24), "prod", (x,)),
            ((0, 24), "cumsum", (x, 1)),
            ((0, 104), "var.correction", (x, [1])),  # 24 * 4 + 4 * 2
            ((0, 104), "var_mean.correction", (x, [1])),
            ((0, 108), "std.correction", (x, [1])),  # and a root
            ((0, 52), "linalg_vector_norm", (x, 2, [1])),  # 24 * 2 + 4
            ((0, 48), "linalg_vector_norm", (x, 1, [1])),
            ((0, 48), "linalg_vector_norm", (x, float("inf"), [1])),
            ((0, 76), "linalg_vector_norm", (x, 3, [1])),  # 24 * 3 + 4
            ((0, 52), "norm.ScalarOpt_dim", (x, 2, [1])),
            ((0, 104), "logsumexp", (x, [1])),  # 24 * 4 + 4 * 2
            ((0, 48), "count_nonzero", (x,)),
            ((0, 48), "topk", (x, 3)),  # 24 * ceil(log2 3)
            ((0, 24), "topk", (x, 1)),
            ((0, 72), "sort", (x,)),  # 24 * ceil(log2 6)
            ((0, 48), "sort.stable", (x,), {"stable": True, "dim": 0}),  # 24 * log2 4
            ((0, 48), "kthvalue", (x, 2)),
            ((0, 9), "searchsorted.Tensor", (t(5), t(3))),  # 3 * ceil(log2 6)
            ((0, 120), "_softmax", (x, 1, False)),  # 24 * 5
            ((0, 124), "_log_softmax", (x, 1, False)),  # and 4 logarithms
            ((0, 168), "_safe_softmax", (x, 1), {}, t(4, 6)),
            ((0, 96), "_softmax_backward_data", (x, x, 1, torch.float32)),
            ((0, 96), "_log_softmax_backward_data", (x, x, 1, torch.float32)),
        ]
    )


def test_normalisation() -> None:
    x, c = t(2, 3, 4, 5), t(3)  # 120 elements, 3 channels
    full = (c, c, c, c)
    grads = [True, True, True]
    check(
        [
            ((0, 990), "native_batch_norm", (x, *full, True, 0.1, 1e-5)),  # 120 * 8 + 3 * 4 + 3 * 6
            ((0, 486), "native_batch_norm", (x, *full, False, 0.1, 1e-5)),  # 120 * 4 + 3 * 2
            ((0, 246), "native_batch_norm", (x, None, None, c, c, False, 0.1, 1e-5)),  # 120 * 2 + 6
            ((0, 990), "_native_batch_norm_legit", (x, *full, True, 0.1, 1e-5)),
            ((0, 732), "_native_batch_norm_legit.no_stats", (x, None, None, True, 0.1, 1e-5)),  # 120 * 6 + 12
            ((0, 486), "_native_batch_norm_legit_no_training", (x, *full, 0.1, 1e-5)),
            ((0, 990), "_batch_norm_with_update", (x, *full, 0.1, 1e-5)),
            ((0, 486), "_batch_norm_no_update", (x, *full, 0.1, 1e-5), {}, (x, c, c, c)),
            ((0, 990), "cudnn_batch_norm", (x, *full, True, 0.1, 1e-5), {}, (x, c, c, c)),
            ((0, 1089), "native_batch_norm_backward", (x, x, *full, c, True, 1e-5, grads)),  # 120 * 9 + 3 * 3
            ((0, 723), "native_batch_norm_backward", (x, x, *full, c, False, 1e-5, grads)),  # 120 * (1 + 4 + 1) + 3
            ((0, 1089), "cudnn_batch_norm_backward", (x, x, c, c, c, c, c, 1e-5, c), {}, (x, c, c)),
        ]
    )
    rows, w, s = t(6, 10), t(10), t(6, 1)  # 60 elements, 6 rows
    maps, ch, per_group = t(2, 4, 5), t(4), t(2, 2)  # 40 elements, 4 groups
    check(
        [
            ((0, 504), "native_layer_norm", (rows, [10], w, w, 1e-5)),  # 60 * 8 + 6 * 4
            ((0, 384), "native_layer_norm", (rows, [10], None, None, 1e-5)),  # 60 * 6 + 24
            ((0, 792), "native_layer_norm_backward", (rows, rows, [10], s, s, w, w, grads)),  # 60 * (10 + 2 + 1) + 6 * 2
            ((0, 240), "native_layer_norm_backward", (rows, rows, [10], s, s, w, w, [False, True, False])),  # 60 * (2 + 2)
            ((0, 336), "native_group_norm", (maps, ch, ch, 2, 4, 5, 2, 1e-5)),  # 40 * 8 + 4 * 4
            ((0, 528), "native_group_norm_backward", (maps, maps, per_group, per_group, ch, 2, 4, 5, 2, grads)),  # 40 * 13 + 8
            ((0, 258), "_fused_rms_norm", (rows, [10], w, 1e-5), {}, (rows, s)),  # 60 * 4 + 6 * 3
            ((0, 546), "_fused_rms_norm_backward", (rows, rows, [10], s, w, [True, True]), {}, (rows, w)),  # 60 * 9 + 6
            ((0, 192), "_weight_norm_interface", (rows, s, 0), {}, (rows, s)),  # 60 * 3 + 6 * 2
        ]
    )


def test_pooling() -> None:
    x, y = t(1, 2, 6, 6), t(1, 2, 2, 2)
    five = t(1, 2, 5, 5)  # two bins of three cover five: 2 * 6 * 6 = 72 elements
    check(
        [
            ((0, 80), "avg_pool2d", (x, [3, 3])),  # 8 * (9 + 1)
            ((0, 80), "avg_pool2d", (x, [3])),
            ((0, 80), "avg_pool2d_backward", (y, x, [3, 3], [3, 3], [0, 0], False, True, None)),
            ((0, 72), "avg_pool3d", (t(1, 1, 4, 4, 4), [2, 2, 2])),  # 8 * 9
            ((0, 72), "max_pool2d_with_indices", (x, [2, 2])),  # 18 * 4
            (
                (0, 18),
                "max_pool2d_with_indices_backward",
                (t(1, 2, 3, 3), x, [2, 2], [2, 2], [0, 0], [1, 1], False, ids(1, 2, 3, 3)),
            ),
            ((0, 80), "_adaptive_avg_pool2d", (five, [2, 2])),  # 72 + 8
            ((0, 80), "_adaptive_avg_pool2d", (x, [2, 2])),  # no overlap: 72 + 8
            ((0, 80), "_adaptive_avg_pool2d_backward", (y, five)),
            ((0, 72), "adaptive_max_pool2d", (five, [2, 2])),
            ((0, 8), "adaptive_max_pool2d_backward", (y, five, ids(1, 2, 2, 2))),
        ]
    )


def test_sampling() -> None:
    small, large = t(1, 2, 4, 4), t(1, 2, 8, 8)  # 128 elements
    image, grid, taken = t(1, 3, 6, 6), t(1, 4, 5, 2), t(1, 3, 4, 5)  # 60 elements, 20 places
    volume, cube, taken_3d = t(1, 3, 4, 4, 4), t(1, 2, 2, 5, 3), t(1, 3, 2, 2, 5)
    both = [True, True]
    check(
        [
            ((0, 36), "upsample_linear1d", (t(1, 2, 3), [6], False)),  # 12 * 3
            ((0, 896), "upsample_bilinear2d", (small, [8, 8], False)),  # 128 * 7
            ((0, 960), "upsample_trilinear3d", (t(1, 1, 2, 2, 2), [4, 4, 4], False)),  # 64 * 15
            ((0, 3968), "upsample_bicubic2d", (small, [8, 8], False)),  # 128 * 31
            ((0, 1024), "upsample_bilinear2d_backward", (large, [8, 8], [1, 2, 4, 4], False)),  # 128 * 8
            ((0, 128), "upsample_nearest2d_backward", (large, [8, 8], [1, 2, 4, 4])),
            # five taps: 8 x 4 elements * 9, then 4 x 4 * 9
            ((0, 432), "_upsample_bilinear2d_aa", (t(1, 1, 8, 8), [4, 4], False)),
            ((0, 980), "grid_sampler_2d", (image, grid, 0, 0, False)),  # 60 * 7 + 20 * 28
            ((0, 280), "grid_sampler_2d", (image, grid, 1, 0, False)),  # 20 * 14
            ((0, 3740), "grid_sampler_2d", (image, grid, 2, 0, False)),  # 60 * 31 + 20 * 94
            ((0, 1940), "grid_sampler_3d", (volume, cube, 0, 0, False)),  # 60 * 15 + 20 * 52
            ((0, 2560), "grid_sampler_2d_backward", (taken, image, grid, 0, 0, False, both)),  # 60 * (8 + 24) + 20 * (28 + 4)
            ((0, 1040), "grid_sampler_2d_backward", (taken, image, grid, 0, 0, False, [True, False])),  # 60 * 8 + 560
            (
                (0, 7880),  # 60 * (16 + 96) + 20 * (52 + 6)
                "grid_sampler_3d_backward",
                (taken_3d, volume, cube, 0, 0, False, both),
                {},
                (volume, cube),
            ),
        ]
    )


def test_torchvision_ops() -> None:
    """By name, since torchvision need not be there."""
    x, weight, offset, mask, out = t(1, 4, 5, 5), t(6, 4, 3, 3), t(1, 18, 5, 5), t(1, 9, 5, 5), t(1, 6, 5, 5)
    args = (x, weight, offset, mask, t(6), 1, 1, 1, 1, 1, 1, 1, 1, True)
    # 150 * 36 MACs; 10800 + 900 column elements * (7 + mask) + 225 offset pairs * 22 + bias 150
    assert RULES["torchvision::deform_conv2d"](args, {}, out) == (5400, 23100)
    # twice the MACs; 21600 + 900 * (7 + 8 + 24 + 3) + 225 * 22 + 150
    assert RULES["torchvision::_deform_conv2d_backward"]((out, *args), {}, None) == (10800, 64500)
    # each of the 48 bins takes four samples of 8 and a division; the 48 places cost 22 each
    assert RULES["torchvision::roi_align"]((t(1, 4, 8, 8), t(3, 5), 1.0, 2, 2, 2, False), {}, t(3, 4, 2, 2)) == (0, 2640)
    assert RULES["torchvision::nms"]((t(5, 4), t(5), 0.5), {}, None) == (0, 160)  # 13 * 10 + 15 + 5 * 3


def test_fourier_and_linear_algebra() -> None:
    a, tall = t(2, 6, 6), t(2, 6, 4)
    check(
        [
            ((0, 240), "_fft_c2c", (t(2, 8, dtype=torch.complex64), [1], 0, True)),  # 2 * 5 * 8 * 3
            ((0, 272), "_fft_c2c", (t(2, 8, dtype=torch.complex64), [1], 2, False)),  # and 32 real products
            ((0, 120), "_fft_r2c", (t(2, 8), [1], 0, True)),
            ((0, 120), "_fft_c2r", (t(2, 5, dtype=torch.complex64), [1], 0, 8)),
            ((0, 144), "linalg_cholesky_ex", (a,)),  # 2 * 216 / 3
            ((0, 288), "_linalg_det", (a,)),  # 2 * 2/3 * 216
            ((0, 720), "_linalg_solve_ex", (a, t(2, 6, 3))),  # 288 + 2 * 3 * 2 * 36
            ((0, 864), "linalg_inv_ex", (a,)),  # 2 * 2 * 216
            ((0, 3888), "_linalg_eigh", (a,)),  # 2 * 9 * 216
            ((0, 576), "_linalg_eigh", (a, "L", False)),  # 2 * 4/3 * 216
            ((0, 10800), "linalg_eig", (a,)),  # 2 * 25 * 216
            ((0, 3712), "_linalg_svd", (tall,)),  # 2 * (6 * 6 * 16 + 20 * 64)
            ((0, 640), "_linalg_svd", (tall, False, False)),  # 2 * (2 * 6 * 16 + 2 * 64)
            ((0, 598), "linalg_qr", (tall,)),  # 2 * (4 * 6 * 16 - 4/3 * 64) = 597.3
            ((0, 288), "linalg_lu_factor_ex", (a,)),
            ((0, 216), "linalg_solve_triangular", (a, t(2, 6, 3)), {"upper": True}),  # 2 * 3 * 36
            ((0, 4320), "linalg_matrix_exp", (a,)),  # 2 * 10 * 216
        ]
    )


def overloads() -> list[tuple[str, Any]]:
    """Every aten overload with its op's name."""
    found = []
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        packet = getattr(aten, name, None) if space == "aten" else None
        which = schema.overload_name or "default"
        if packet is not None and which in packet.overloads():
            func = getattr(packet, which)
            if torch._C._dispatch_has_kernel(func.name()):
                found.append((name, func))
    return found


def test_every_row_names_an_op() -> None:
    if not torch.__version__.startswith(REVIEWED):
        pytest.skip(f"the names are those of torch {REVIEWED}")
    names = [name for name in RULES if "::" not in name]
    assert [name for name in names if not hasattr(aten, name.partition(".")[0])] == []
    assert [name for name in FOREACH if hasattr(aten, f"_foreach_{name}")] != []


def test_in_place_and_out_forms_resolve() -> None:
    """mul_, mul.out and mul_.Scalar cost what mul costs: the same rule, without a row of their own."""
    forms = 0
    for name, func in overloads():
        base = name.removesuffix("_")
        specific = f"{name}.{func._schema.overload_name}"
        if base in RULES and not name.endswith("__") and specific not in RULES:
            assert flops.rule_for(func) is (RULES.get(name) or RULES[base]), func
            forms += name != base or "out" in func._schema.overload_name
    assert forms > 500


def test_every_dispatched_op_has_a_rule_or_is_left_out() -> None:
    """What is not composed of other ops reaches a trace: it has a row, or a trace reports it."""
    if not torch.__version__.startswith(REVIEWED):
        pytest.skip(f"the op list of torch {REVIEWED} was gone through")
    backends = ("CPU", "CUDA", "Meta", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    unknown = set()
    for name, func in overloads():
        if "out" in func._schema.overload_name or name.removesuffix("_") in LEFT_OUT or name in LEFT_OUT:
            continue
        if has_kernel(func.name(), "CompositeImplicitAutograd") or flops.rule_for(func) is not None:
            continue
        if any(has_kernel(func.name(), key) for key in backends):
            unknown.add(str(func))
    assert unknown == set()
    assert [str(func) for name, func in overloads() if name in LEFT_OUT and flops.rule_for(func) is not None] == []


def test_views_move_no_data() -> None:
    for name in ("view", "transpose.int", "expand", "select.int", "slice.Tensor", "unsqueeze", "detach", "split.Tensor", "t_"):
        assert flops.moves_no_data(overload(name)), name
        assert flops.rule_for(overload(name)) is not None
    for name in ("clone", "add.Tensor", "add_.Tensor", "copy_", "cat", "empty.memory_format", "reshape", "contiguous", "zero_"):
        assert not flops.moves_no_data(overload(name)), name
    assert flops.moves_no_data(aten._unsafe_view.default)  # its schema does not say so
    assert flops.writes_nothing(aten.empty.memory_format)
    assert flops.writes_nothing(aten.new_empty.default)
    assert not flops.writes_nothing(aten.zeros.default)


def test_what_is_not_an_op_has_no_rule() -> None:
    assert flops.rule_for(object()) is None
    assert not flops.moves_no_data(object())
    assert flops.rule_for(aten._ctc_loss.default) is None


def test_registered_costs() -> None:
    with torch.library._scoped_library("attnprof_test", "DEF") as library:
        library.define("mix(Tensor x, int k) -> Tensor")
        library.define("mix.wide(Tensor x, int k, int m) -> Tensor")
        mix = torch.ops.attnprof_test.mix
        assert flops.rule_for(mix.default) is None
        before = flops.registry_version()
        flops.register_cost("attnprof_test::mix", macs=lambda args, kwargs, out: args[0].numel() * args[1], bytes=7)
        flops.register_cost(mix.wide, macs=2, flops=9)
        assert flops.registry_version() > before
        assert rule(mix.default)((t(3), 4), {}, t(3)) == (12, 24)
        assert rule(mix.wide)((t(3), 4, 5), {}, t(3)) == (2, 9)
        given = flops.bytes_for(mix.default)
        assert given is not None
        assert given((t(3), 4), {}, t(3)) == 7
        assert flops.bytes_for(mix.wide) is None
        flops.register_cost(mix, flops=5)  # the last one counts
        assert rule(mix.default)((t(3), 4), {}, t(3)) == (0, 5)
        flops.register_cost("attnprof_test::mix.default", flops=6)  # an overload before its op
        assert rule(mix.default)((t(3), 4), {}, t(3)) == (0, 6)
        for name in ("attnprof_test::mix.default", mix.wide, "attnprof_test::mix"):
            flops.unregister_cost(name)
        assert flops.rule_for(mix.default) is None


def test_a_registration_replaces_a_row() -> None:
    flops.register_cost("aten::relu", flops=0)
    try:
        assert cost("relu", t(4)) == (0, 0)
    finally:
        flops.unregister_cost(aten.relu)
    assert cost("relu", t(4)) == (0, 4)


def test_wrong_registrations_are_refused() -> None:
    with pytest.raises(UsageError, match="library::name"):
        flops.register_cost("relu", flops=1)
    with pytest.raises(UsageError, match="give macs"):
        flops.register_cost("mylib::op")
    flops.register_cost("aten::relu", macs=3, flops=5)
    try:
        with pytest.raises(UsageError, match="fewer than 2"):
            cost("relu", t(4))
    finally:
        flops.unregister_cost("aten::relu")
