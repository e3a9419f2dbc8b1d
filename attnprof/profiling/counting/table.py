"""Which ATen op costs what: one row per op, in the convention of `flops.py`. A new op is a name here, or a formula and a name.

Names are those of torch.ops.aten; 'name.overload' where one overload differs. Ops of other libraries stand with their library.
Left out, so that a trace reports them as uncounted: quantised, sparse, nested and vendor-only ops, optimizers, CTC and margin
losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from attnprof.profiling.counting.formulas import Rule, free
from attnprof.profiling.counting.formulas import algebra as la
from attnprof.profiling.counting.formulas import contractions as ct
from attnprof.profiling.counting.formulas import elementwise as ew
from attnprof.profiling.counting.formulas import fused as fu
from attnprof.profiling.counting.formulas import spatial as sp

_PER_RESULT = {
    1: """acos acosh angle asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or
        bitwise_right_shift bitwise_xor ceil clamp_max clamp_min conj_physical _conj_physical copysign cos cosh deg2rad digamma
        eq erf erfc erfinv exp exp2 expm1 fix floor fmax fmin fmod frac frexp gcd ge gt heaviside hypot i0 igamma igammac isinf
        isnan isneginf isposinf lcm le lgamma log log10 log1p log2 logical_and logical_not logical_or logical_xor lt maximum
        minimum mvlgamma ne neg negative nextafter polygamma pow rad2deg reciprocal relu remainder round rsqrt sgn sign signbit
        sin sinh sqrt square tan tanh threshold threshold_backward trunc __and__ __or__ __xor__ __lshift__ __rshift__
        special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_chebyshev_polynomial_t
        special_chebyshev_polynomial_u special_chebyshev_polynomial_v special_chebyshev_polynomial_w special_entr special_erfcx
        special_hermite_polynomial_h special_hermite_polynomial_he special_i0e special_i1 special_i1e
        special_laguerre_polynomial_l special_legendre_polynomial_p special_log_ndtr special_modified_bessel_i0
        special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 special_ndtri
        special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_shifted_chebyshev_polynomial_t
        special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v special_shifted_chebyshev_polynomial_w
        special_spherical_bessel_j0 special_zeta binomial cauchy exponential _fill_mem_eff_dropout_mask_ geometric log_normal
        normal normal_functional poisson rand rand_like randint
        randint_like randn randn_like random randperm _standard_gamma uniform""",
    2: """_add_relu bernoulli floor_divide hardshrink hardshrink_backward hardtanh hardtanh_backward ldexp leaky_relu
        leaky_relu_backward _masked_scale native_dropout_backward polar _prelu_kernel rrelu_with_noise_backward
        softshrink_backward special_xlog1py xlogy""",
    3: """hardsigmoid_backward lerp linalg_cross logit mse_loss_backward nan_to_num _prelu_kernel_backward rrelu_with_noise
        rrelu_with_noise_functional sigmoid_backward sinc softshrink tanh_backward""",
    4: """batch_norm_backward_elemt batch_norm_elemt bartlett_window celu _fused_dropout hamming_window hann_window
        hardsigmoid _log_softmax_backward_data logit_backward _masked_softmax_backward mish sigmoid
        _softmax_backward_data""",
    5: """glu hardswish hardswish_backward huber_loss_backward _masked_softmax silu smooth_l1_loss_backward softplus
        _softmax softmax""",
    6: """binary_cross_entropy_backward kaiser_window logaddexp logaddexp2 log_sigmoid_forward softplus_backward
        soft_margin_loss_backward""",
    7: "blackman_window _safe_softmax",
    9: "log_sigmoid_backward silu_backward",
    13: "mish_backward",
}

# Operations per element of the first argument, and per element of the first result.
_REDUCTIONS = {
    (1, 0): """all amax amin any argmax argmin bincount cummax _cummax_helper cummin _cummin_helper cumprod cumsum equal
        hash_tensor histc _is_all_true _is_any_true nonzero prod segment_reduce sum trace unique_consecutive""",
    (1, 1): "mean multinomial",
    (2, 0): "aminmax _aminmax count_nonzero kthvalue median mode nanmedian nansum",
    (3, 0): "renorm",
    (4, 0): "logcumsumexp _logcumsumexp",
    (4, 2): "logsumexp var var_mean",
    (4, 3): "std std_mean",
    (4, 4): "batch_norm_stats",
    (4, 8): "batch_norm_update_stats",
    (5, 0): "batch_norm_backward_reduce",
    (7, 0): "allclose",
}

# One addition per element of the first argument, a gradient that several places add to.
_SCATTERED = """adaptive_max_pool2d_backward adaptive_max_pool3d_backward col2im embedding_dense_backward
    fractional_max_pool2d_backward fractional_max_pool3d_backward max_pool2d_backward max_pool2d_with_indices_backward
    max_pool3d_with_indices_backward mkldnn_max_pool2d_backward mkldnn_max_pool3d_backward reflection_pad1d_backward
    reflection_pad2d_backward reflection_pad3d_backward replication_pad1d_backward replication_pad2d_backward
    replication_pad3d_backward _segment_reduce_backward unfold_backward upsample_nearest1d_backward upsample_nearest2d_backward
    upsample_nearest3d_backward _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward
    _upsample_nearest_exact3d_backward"""

# Memory without content: nothing is written.
_ALLOCATIONS = """_efficientzerotensor _resize_output empty empty_like empty_permuted empty_strided new_empty new_empty_strided
    resize resize_as"""

# Questions about a tensor, and its sizes and strides changed in place.
_METADATA = """_assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar
    _functional_sym_constrain_range _functional_sym_constrain_range_for_size _fused_sdp_choice _has_same_storage_numel
    _linalg_check_errors _unsafe_view as_strided_ detach_ is_coalesced is_pinned is_same_size is_set_to record_stream set set_
    squeeze_ swapaxes_ swapdims_ sym_constrain_range sym_constrain_range_for_size t_ transpose_ unsqueeze_"""

# Their schema says view, but they may copy.
_MAYBE_COPIES = (
    "contiguous cpu cuda flatten _lazy_clone pin_memory ravel reshape reshape_as resolve_conj resolve_neg to _to_cpu"
)

# No arithmetic: data moves, or is filled.
_MOVES = """_chunk_cat _conj_copy _copy_from _copy_from_and_resize _local_scalar_dense _mkldnn_reshape _mkldnn_transpose
    _neg_view_copy _new_zeros_with_same_feature_meta _pack_padded_sequence _pin_memory _reshape_copy _stack _to_copy _to_dense
    _unsafe_index _unsafe_masked_index arange as_strided_scatter block_diag cat channel_shuffle clone complex constant_pad_nd
    copy diag_embed diagonal_backward diagonal_scatter embedding eye fft_fftfreq fft_rfftfreq fill fill_diagonal_ flip full
    full_like gather im2col index index_copy index_fill index_select lift lift_fresh_copy linspace logspace lu_unpack
    masked_fill masked_scatter masked_scatter_backward masked_select max_unpool2d max_unpool3d mkldnn_reorder_conv2d_weight
    mkldnn_reorder_conv3d_weight native_channel_shuffle new_full new_ones new_zeros nonzero_static ones ones_like pixel_shuffle
    pixel_unshuffle range reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave
    replication_pad1d replication_pad2d replication_pad3d roll rot90 scalar_tensor select_backward select_scatter
    slice_backward slice_scatter stack take to_mkldnn tril tril_indices triu triu_indices unsafe_split
    unsafe_split_with_sizes upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d where zero zeros zeros_like"""

_ELEMENTWISE: tuple[tuple[Rule, str], ...] = (
    (ew.add, "add sub subtract rsub"),
    (ew.per_output(1, 6), "mul multiply"),
    (ew.absolute, "abs absolute"),
    (ew.div, "div divide true_divide"),
    (ew.addc, "addcmul addcdiv"),
    (ew.clamp, "clamp clip"),
    (ew.elu, "elu"),
    (ew.elu_backward, "elu_backward"),
    (ew.gelu, "gelu"),
    (ew.gelu_backward, "gelu_backward"),
    (ew.per_argument(8), "glu_backward"),
    (ew.dropout, "native_dropout"),
    (ew.rescale_qkv, "_transform_bias_rescale_qkv"),
    (ew.extremum, "max min"),
    (ew.vector_norm, "norm linalg_vector_norm linalg__powsum"),
    (ew.distance, "dist"),
    (ew.log_softmax, "_log_softmax log_softmax"),
    (ew.sort, "sort argsort"),
    (ew.topk, "topk"),
    (ew.unique, "_unique _unique2"),
    (ew.searchsorted, "searchsorted"),
    (ew.bucketize, "bucketize"),
    (ew.loss(2, 2), "mse_loss"),
    (ew.loss(6, 2), "smooth_l1_loss huber_loss"),
    (ew.loss(4, 2), "soft_margin_loss"),
    (ew.embedding_renorm, "embedding_renorm"),
    (ew.isin, "isin"),
    (ew.loss(8, 3), "binary_cross_entropy"),
    (ew.loss(9, 4), "binary_cross_entropy_with_logits"),
    (ew.per_argument(2, 1), "nll_loss_forward nll_loss2d_forward"),
    (ew.per_argument(2, 2), "nll_loss_backward nll_loss2d_backward"),
    (ew.index_add, "index_add"),
    (ew.index_put, "index_put _index_put_impl _unsafe_index_put"),
    (ew.accumulate_put, "_unsafe_masked_index_put_accumulate"),
    (ew.put, "put"),
    (ew.scatter, "scatter"),
    (ew.scatter_add, "scatter_add scatter_reduce"),
    (ew.index_reduce, "index_reduce"),
    (ew.embedding_bag, "_embedding_bag _embedding_bag_forward_only"),
    (ew.embedding_bag_backward(8), "_embedding_bag_dense_backward"),
    (ew.embedding_bag_backward(10), "_embedding_bag_backward"),
    (ew.embedding_bag_weights_backward, "_embedding_bag_per_sample_weights_backward"),
)

_SPATIAL: tuple[tuple[Rule, str], ...] = (
    (
        sp.batch_norm,
        """native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional cudnn_batch_norm
        miopen_batch_norm""",
    ),
    (sp.batch_norm_no_stats, "_native_batch_norm_legit.no_stats"),
    (sp.batch_norm_eval, "_native_batch_norm_legit_no_training _batch_norm_no_update"),
    (sp.batch_norm_training, "_batch_norm_with_update _batch_norm_with_update_functional"),
    (sp.batch_norm_backward, "native_batch_norm_backward batch_norm_backward"),
    (sp.vendor_batch_norm_backward, "cudnn_batch_norm_backward miopen_batch_norm_backward"),
    (sp.layer_norm, "native_layer_norm"),
    (sp.layer_norm_backward, "native_layer_norm_backward"),
    (sp.group_norm, "native_group_norm"),
    (sp.group_norm_backward, "native_group_norm_backward"),
    (sp.rms_norm, "_fused_rms_norm"),
    (sp.rms_norm_backward, "_fused_rms_norm_backward"),
    (sp.weight_norm, "_weight_norm_interface"),
    (sp.weight_norm_backward, "_weight_norm_interface_backward"),
    (sp.average_pool(1), "avg_pool1d"),
    (sp.average_pool(2), "avg_pool2d"),
    (sp.average_pool(3), "avg_pool3d"),
    (sp.average_pool_backward(2), "avg_pool2d_backward"),
    (sp.average_pool_backward(3), "avg_pool3d_backward"),
    (sp.max_pool(1), "max_pool1d"),
    (sp.max_pool(2), "max_pool2d max_pool2d_with_indices mkldnn_max_pool2d fractional_max_pool2d"),
    (sp.max_pool(3), "max_pool3d max_pool3d_with_indices mkldnn_max_pool3d fractional_max_pool3d"),
    (sp.adaptive_average_pool(1), "adaptive_avg_pool1d"),
    (sp.adaptive_average_pool(2), "_adaptive_avg_pool2d mkldnn_adaptive_avg_pool2d"),
    (sp.adaptive_average_pool(3), "_adaptive_avg_pool3d"),
    (sp.adaptive_average_pool_backward(2), "_adaptive_avg_pool2d_backward mkldnn_adaptive_avg_pool2d_backward"),
    (sp.adaptive_average_pool_backward(3), "_adaptive_avg_pool3d_backward adaptive_avg_pool3d_backward"),
    (sp.adaptive_max_pool(2), "adaptive_max_pool2d"),
    (sp.adaptive_max_pool(3), "adaptive_max_pool3d"),
    (ew.per_output(3), "upsample_linear1d"),
    (ew.per_output(7), "upsample_bilinear2d"),
    (ew.per_output(15), "upsample_trilinear3d"),
    (ew.per_output(31), "upsample_bicubic2d"),
    (ew.per_argument(4), "upsample_linear1d_backward"),
    (ew.per_argument(8), "upsample_bilinear2d_backward"),
    (ew.per_argument(16), "upsample_trilinear3d_backward"),
    (ew.per_argument(32), "upsample_bicubic2d_backward"),
    (sp.antialias(1), "_upsample_bilinear2d_aa"),
    (sp.antialias(2), "_upsample_bicubic2d_aa"),
    (sp.antialias(3), "_upsample_lanczos2d_aa"),
    (sp.antialias_backward(1), "_upsample_bilinear2d_aa_backward"),
    (sp.antialias_backward(2), "_upsample_bicubic2d_aa_backward"),
    (sp.antialias_backward(3), "_upsample_lanczos2d_aa_backward"),
    (sp.grid_sample(2), "grid_sampler_2d _grid_sampler_2d_cpu_fallback cudnn_grid_sampler"),
    (sp.grid_sample(3), "grid_sampler_3d"),
    (sp.grid_sample_backward(2), "grid_sampler_2d_backward _grid_sampler_2d_cpu_fallback_backward"),
    (sp.grid_sample_backward(3), "grid_sampler_3d_backward"),
    (sp.roi_align, "torchvision::roi_align"),
    (sp.roi_align_backward, "torchvision::_roi_align_backward"),
    (sp.ps_roi_align, "torchvision::ps_roi_align"),
    (sp.roi_pool, "torchvision::roi_pool torchvision::ps_roi_pool"),
    (ew.per_argument(1), "torchvision::_roi_pool_backward"),
    (ew.per_argument(2), "torchvision::_ps_roi_pool_backward"),
    (sp.nms, "torchvision::nms"),
)

_CONTRACTIONS: tuple[tuple[Rule, str], ...] = (
    (ct.mm, "mm bmm mv _int_mm"),
    (ct.addmm, "addmm addmv baddbmm"),
    (ct.addmm_activation, "_addmm_activation"),
    (ct.addbmm, "addbmm"),
    (ct.addr, "addr"),
    (ct.dot, "dot vdot"),
    (ct.scaled_mm, "_scaled_mm"),
    (ct.scaled_mm_v2, "_scaled_mm_v2"),
    (ct.grouped_mm, "_grouped_mm"),
    (ct.scaled_grouped_mm, "_scaled_grouped_mm"),
    (ct.packed_mm, "_weight_int8pack_mm"),
    (ct.linear, "linear mkldnn_linear"),
    (ct.linear_backward, "linear_backward mkldnn_linear_backward"),
    (ct.linear_backward_input, "mkldnn_linear_backward_input"),
    (ct.linear_backward_weights, "mkldnn_linear_backward_weights"),
    (ct.affine_grid, "affine_grid_generator"),
    (ct.trilinear, "_trilinear"),
    (ct.cdist, "_cdist_forward"),
    (ct.cdist_backward, "_cdist_backward"),
    (ct.euclidean_dist, "_euclidean_dist"),
    (ct.pdist, "_pdist_forward"),
    (ct.pdist_backward, "_pdist_backward"),
    (ct.conv, "convolution _convolution convolution_overrideable"),
    (ct.conv_backward, "convolution_backward"),
    (ct.conv_backward_overrideable, "convolution_backward_overrideable"),
    (ct.conv_kernel(2), "mkldnn_convolution miopen_convolution miopen_depthwise_convolution _nnpack_spatial_convolution"),
    (ct.conv_kernel(None), "cudnn_convolution"),
    (ct.conv_kernel(None, transposed=True), "cudnn_convolution_transpose"),
    (ct.conv_kernel(2, transposed=True), "miopen_convolution_transpose"),
    (ct.conv_relu, "cudnn_convolution_relu"),
    (ct.conv_add_relu, "cudnn_convolution_add_relu"),
    (
        ct.conv_kernel(3),
        """_conv_depthwise2d conv_depthwise3d _slow_conv2d_forward slow_conv3d_forward slow_conv_dilated2d
        slow_conv_dilated3d""",
    ),
    (ct.slow_conv_backward, "_slow_conv2d_backward"),
    (ct.conv_kernel(3, transposed=True), "slow_conv_transpose2d slow_conv_transpose3d"),
    (ct.conv_tbc, "conv_tbc"),
)

ALLOCATIONS = frozenset(_ALLOCATIONS.split())
METADATA = frozenset(_METADATA.split())
MAYBE_COPIES = frozenset(_MAYBE_COPIES.split())
PER_RESULT: Mapping[str, int] = MappingProxyType(
    {name: amount for amount, names in _PER_RESULT.items() for name in names.split()}
)

# List forms; addcmul and addcdiv with their value.
FOREACH: Mapping[str, int] = MappingProxyType(
    {**PER_RESULT, "add": 1, "sub": 1, "mul": 1, "div": 1, "addcmul": 3, "addcdiv": 3}
    | {"norm": 2, "max": 1, "abs": 1, "clone": 0, "copy": 0, "zero": 0}
)


def _rows() -> Iterator[tuple[str, Rule]]:
    yield from ((name, ew.per_output(amount)) for name, amount in PER_RESULT.items())
    yield from ((name, ew.reduction(*amounts)) for amounts, names in _REDUCTIONS.items() for name in names.split())
    yield from ((name, ew.per_argument(1)) for name in _SCATTERED.split())
    yield from ((name, free) for name in (*_MOVES.split(), *ALLOCATIONS, *METADATA, *MAYBE_COPIES))
    for rows in (_ELEMENTWISE, _SPATIAL, _CONTRACTIONS, fu.ROWS, la.ROWS):
        yield from ((name, rule) for rule, names in rows for name in names.split())


def _table() -> dict[str, Rule]:
    table: dict[str, Rule] = {}
    for name, rule in _rows():
        assert name not in table, f"two rows for {name}"
        table[name] = rule
    return table


RULES: Mapping[str, Rule] = MappingProxyType(_table())
