"""What an op costs: multiply-accumulates and operations of every ATen op, by one table. This is the project's convention.

    macs     multiply-accumulates of matmul, convolution, attention and recurrent kernels: what vision papers mostly print as
             "FLOPs". A product of k factors counts k. A bias is not a MAC; neither is interpolation, pooling or scaling.
    flops    2 * macs + everything else, by the table below. Work that is executed counts: a backward kernel that recomputes
             counts it, a zero in the padding or behind a mask counts as data. Integers and booleans count as floats do.

Per element of the result unless another unit is named:

    1        each arithmetic operation, comparison, rounding, logical operation, and each evaluation of a function of the
             mathematical library (exp, log, sqrt, rsqrt, erf, tanh, sin, pow, ...); each number drawn at random
    0        moving data: views, copies, casts, cat, gather, scatter, index, pad, roll, where, masked_fill, triu; filling,
             arange; an embedding. Adding on the way costs 1 per added element: index_add, scatter_add, col2im, the
             backward of gather, index, embedding, padding, unfold, nearest upsampling
    activation   ReLU 1; leaky ReLU, PReLU 2; hardtanh (ReLU6) 2; ELU 3; sigmoid 4 (negate, exp, add, divide); hardsigmoid 4;
             SiLU, GLU, hardswish, GELU 5 (GELU by tanh 9); Mish 4; softplus 5; log-sigmoid 6. Backward: ReLU 1, leaky ReLU,
             hardtanh 2, sigmoid, tanh, hardsigmoid 3, SiLU 9, GELU 11 (by tanh 18), GLU 8, hardswish 5, softplus 6, Mish 13
    alpha, beta  of add, addmm and their like: 1 each where they are not 1; the addition of the bias in addmm, linear, conv: 1
    reduction    per element of the input: sum, max, any, cumsum 1; count 2; var 4 (sum, subtract, square, sum), 2-norm 2;
             per result: mean 1, var 2, std 3, norm 1 (root); logsumexp 4 and 2
    softmax  5 (max, subtract, exp, sum, divide), log-softmax 5 and 1 per row; backward of both 4
    sort     n ceil(log2 n) comparisons per row; topk n ceil(log2 k), at least n; median, kthvalue 2 n
    norm     batch, layer, group: statistics as var, then subtract, times rstd, weight, bias: 8, and 4 per group; running
             statistics 6 per channel. Batch norm in evaluation: 4, and 2 per channel. RMS norm: 4, and 3 per row.
             Backward: batch 9 (evaluation 1, weight 4, bias 1); layer, group 10, weight 2, bias 1; RMS 7, weight 2
    pooling  average: one addition per element of the window, 1; max: one comparison per element of the window; adaptive: the
             elements of every bin, overlaps included. Backward: average as forward, max 1 per element of the gradient
    interpolation   t taps: t multiplications, t - 1 additions: linear 3, bilinear 7, trilinear 15, bicubic 31, nearest 0; its
             weights belong to rows and columns and are left out. Backward: 2 t per element of the gradient
    grid_sample     as interpolation, and per sampled place, all channels together: bilinear 28 (per axis: unnormalise 4, floor,
             + 1, two fractions, bounds 4; four products), trilinear 52, bicubic 94, nearest 7 per axis. Backward: input 2 t,
             grid 24 (trilinear 96, bicubic 128), the places again
    attention       the score matrix: S T (d + e) MACs; per score: scale 1, softmax 5, mask 1, dropout 4. Backward of a fused
             kernel: scores again, dV, dP, dQ, dK: S T (3 d + 2 e) MACs, 2.5 times the forward's when d = e
    recurrent       per step and hidden unit, biases included: ReLU, tanh cell 4, LSTM 30, GRU 22
    Fourier  5 N log2 N per transform, half of it for real input or output; scaling 1 per real number
    linear algebra  textbook leading terms, no macs: LU, det 2/3 n^3, solve + 2 n^2 per right-hand side, inverse 2 n^3, Cholesky
             1/3 n^3, eigh 9 n^3, eig 25 n^3, SVD 6 m n^2 + 20 n^3, QR 4 m n^2 - 4/3 n^3, triangular solve n^2, exp 10 n^3
    complex  addition 2, multiplication 6, division 11, a multiply-accumulate 4 MACs; other functions twice their real cost

`rule_for` looks an op up: what the user registered, then the table by name and overload, then by name; in-place and foreach
forms follow their base, out forms share its name, views and `*_copy` are free. No rule means None, and the tracer says so: a
cost is never silently zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload, OpOverloadPacket

from attnprof.errors import UsageError
from attnprof.profiling.formulas import Args, Cost, Kwargs, Rule, free
from attnprof.profiling.formulas import algebra as la
from attnprof.profiling.formulas import contractions as ct
from attnprof.profiling.formulas import elementwise as ew
from attnprof.profiling.formulas import fused as fu
from attnprof.profiling.formulas import spatial as sp

__all__ = ["TABLE", "Cost", "Rule", "bytes_for", "moves_no_data", "register_cost", "rule_for", "unregister_cost"]

Amount = int | Callable[[Args, Kwargs, Any], int]

# Operations per element of the result.
_PER_RESULT = {
    1: """abs acos acosh angle asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or
        bitwise_right_shift bitwise_xor ceil clamp_max clamp_min copysign cos cosh deg2rad digamma eq erf erfc erfinv exp exp2
        expm1 floor fmax fmin fmod frac frexp gcd ge gt heaviside hypot i0 igamma igammac isinf isnan isneginf isposinf lcm le
        lgamma log log10 log1p log2 logical_and logical_not logical_or logical_xor lt maximum minimum ne neg nextafter polar
        polygamma pow rad2deg reciprocal relu remainder round rsqrt sgn sign signbit sin sinh sqrt tan tanh threshold
        threshold_backward trunc __lshift__ __rshift__ __and__ __or__ __xor__
        square relu_ fix absolute negative arctan2 conj_physical _conj_physical
        special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1
        special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
        special_chebyshev_polynomial_w special_entr special_erfcx special_hermite_polynomial_h special_hermite_polynomial_he
        special_i0e special_i1 special_i1e special_laguerre_polynomial_l special_legendre_polynomial_p special_log_ndtr
        special_modified_bessel_i0 special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1
        special_ndtri special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1
        special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
        special_shifted_chebyshev_polynomial_w special_spherical_bessel_j0 special_zeta mvlgamma
        rand rand_like randint randint_like randn randn_like random randperm uniform normal normal_functional log_normal
        exponential cauchy geometric poisson _standard_gamma binomial multinomial
        gelu_placeholder""",
    2: """bernoulli hardshrink hardshrink_backward hardtanh hardtanh_backward ldexp leaky_relu leaky_relu_backward
        _masked_scale native_dropout_backward _prelu_kernel rrelu_with_noise_backward xlogy special_xlog1py _add_relu
        floor_divide _fused_dropout_backward softshrink_backward""",
    3: """hardsigmoid_backward lerp nan_to_num _prelu_kernel_backward sigmoid_backward sinc softshrink tanh_backward logit
        rrelu_with_noise rrelu_with_noise_functional linalg_cross""",
    4: "celu hardsigmoid _log_softmax_backward_data logit_backward mish sigmoid _softmax_backward_data _masked_softmax_backward",
    5: "glu hardswish hardswish_backward silu _softmax _masked_softmax softplus",
    6: "logaddexp logaddexp2 log_sigmoid_forward softplus_backward",
    7: "_safe_softmax",
    9: "log_sigmoid_backward silu_backward",
    13: "mish_backward",
}

# Operations per element of the input, and per element of the result.
_REDUCTIONS = {
    (1, 0): """all amax amin any argmax argmin cummax cummin _cummax_helper _cummin_helper cumprod cumsum equal hash_tensor
        is_all_true is_any_true _is_all_true _is_any_true prod sum trace isin bincount histc nonzero""",
    (1, 1): "mean",
    (2, 0): "_aminmax aminmax count_nonzero kthvalue median mode nanmedian nansum",
    (3, 0): "logcumsumexp _logcumsumexp",
    (4, 2): "logsumexp var var_mean",
    (4, 3): "std std_mean",
}

# No arithmetic: data moves, or is filled.
_MOVES = """_chunk_cat _conj _copy_from _copy_from_and_resize _efficientzerotensor _embedding_bag_offsets _lazy_clone _mkldnn_reshape
    _mkldnn_transpose _neg_view _new_zeros_with_same_feature_meta _pack_padded_sequence _pin_memory _reshape_alias
    _reshape_copy _resize_output _stack _to_copy _to_cpu _to_dense _unsafe_index _unsafe_masked_index _unsafe_view arange
    as_strided_scatter block_diag cat channel_shuffle clone complex constant_pad_nd contiguous copy cpu cuda diag_embed
    diagonal_backward diagonal_scatter embedding empty empty_like empty_permuted empty_strided eye fill fill_diagonal flatten
    flip full full_like gather im2col index index_copy index_fill index_select lift lift_fresh lift_fresh_copy linspace
    logspace masked_fill masked_scatter masked_scatter_backward masked_select max_unpool2d max_unpool3d meshgrid mkldnn_reorder_conv2d_weight
    mkldnn_reorder_conv3d_weight narrow_copy native_channel_shuffle new_empty new_empty_strided new_full new_ones new_zeros
    nonzero_static one_hot ones ones_like pad pin_memory pixel_shuffle pixel_unshuffle put range ravel reflection_pad1d
    reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape
    reshape_as resize resize_as resolve_conj resolve_neg roll rot90 scalar_tensor select_backward select_scatter set
    slice_backward slice_scatter split stack take take_along_dim tile to to_mkldnn to_padded_tensor tril tril_indices triu
    triu_indices type_as unbind unfold unsafe_chunk unsafe_split unsafe_split_with_sizes upsample_nearest1d
    upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    where zero zeros zeros_like _local_scalar_dense item _assert_async _assert_scalar _assert_tensor_metadata
    _functional_assert_async _functional_assert_scalar _linalg_check_errors sym_constrain_range
    sym_constrain_range_for_size _functional_sym_constrain_range _functional_sym_constrain_range_for_size is_same_size
    is_pinned is_set_to is_coalesced _has_same_storage_numel _fused_sdp_choice lu_unpack _print fft_fftfreq fft_rfftfreq
    record_stream _make_dep_token _fw_primal _make_dual _sparse_dim resize_as_ _jagged_to_padded_dense_forward
    _padded_dense_to_jagged_forward _propagate_xla_data qscheme _resize_output _cudnn_init_dropout_state
    _cudnn_rnn_flatten_weight convolution_mode_placeholder"""

# One addition per element of the argument at this position.
_SCATTERED = {
    0: """avg_unpool adaptive_max_pool2d_backward adaptive_max_pool3d_backward col2im embedding_dense_backward
        fractional_max_pool2d_backward fractional_max_pool3d_backward max_pool2d_with_indices_backward
        max_pool3d_with_indices_backward mkldnn_max_pool2d_backward mkldnn_max_pool3d_backward reflection_pad1d_backward
        reflection_pad2d_backward reflection_pad3d_backward replication_pad1d_backward replication_pad2d_backward
        replication_pad3d_backward unfold_backward upsample_nearest1d_backward upsample_nearest2d_backward
        upsample_nearest3d_backward _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward
        _upsample_nearest_exact3d_backward segment_reduce _segment_reduce_backward max_pool2d_backward""",
}
