"""Normalisation, pooling, interpolation and grid sampling."""

from __future__ import annotations

from functools import cache
from math import ceil, log2, prod
from typing import Any

from attnprof.profiling.counting.formulas import Args, Cost, Kwargs, Rule, argument, first

# Normalisation --------------------------------------------------------------------------------------------------------------


def _normalised(x: Any, groups: int, *affine: Any) -> int:
    """Statistics 4 per element (sum, subtract, square, sum) and 4 per group (two divisions, + eps, rsqrt); 2 + affine."""
    return (6 + sum(part is not None for part in affine)) * int(x.numel()) + 4 * groups


def _batch_norm(x: Any, weight: Any, bias: Any, training: bool, running: bool) -> Cost:
    """Training as `_normalised` over C groups, and 6 per channel to update two running statistics. Eval: apply only."""
    channels = x.shape[1]
    if training:
        return Cost(0, _normalised(x, channels, weight, bias) + 6 * channels * running)
    affine = (weight is not None) + (bias is not None)
    return Cost(0, (2 + affine) * x.numel() + 2 * channels)


def batch_norm(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(x, weight, bias, running_mean, running_var, training, ...)."""
    return _batch_norm(args[0], args[1], args[2], bool(args[5]), args[3] is not None)


def batch_norm_no_stats(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_native_batch_norm_legit.no_stats: (x, weight, bias, training, ...)."""
    return _batch_norm(args[0], args[1], args[2], True, False)


def batch_norm_training(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_batch_norm_with_update: (x, weight, bias, running_mean, running_var, ...), always training."""
    return _batch_norm(args[0], args[1], args[2], True, True)


def batch_norm_eval(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_batch_norm_no_update, _native_batch_norm_legit_no_training: (x, weight, bias, ...), never training."""
    return _batch_norm(args[0], args[1], args[2], False, False)


def _batch_norm_backward(x: Any, training: bool, mask: Any) -> Cost:
    """Training: x^ 2, sum g, g x^, sum (the parameters' gradients fall out), then x^ c, two subtractions, times w rstd: 9.

    Evaluation: dx = g w rstd 1, dw = sum of g x^ 4, db = sum of g 1. Training without dx stops after the 5 of the sums.
    """
    if training:
        return Cost(0, (9 if mask[0] else 5) * x.numel() + 3 * x.shape[1])
    return Cost(0, (bool(mask[0]) + 4 * bool(mask[1]) + bool(mask[2])) * x.numel() + x.shape[1])


def batch_norm_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, x, weight, mean, var, save_mean, save_invstd, training, eps, mask, ...)."""
    return _batch_norm_backward(args[1], args[7], args[9])


def vendor_batch_norm_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """Vendor kernels: (x, g, ...), training, every gradient."""
    return _batch_norm_backward(args[0], True, (True, True, True))


def layer_norm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(x, shape, weight, bias, eps) -> (y, mean, rstd)."""
    return Cost(0, _normalised(args[0], out[1].numel(), args[2], args[3]))


def group_norm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(x, weight, bias, N, C, HW, groups, eps) -> (y, mean, rstd)."""
    return Cost(0, _normalised(args[0], out[1].numel(), args[1], args[2]))


def _norm_backward(x: Any, weight: Any, mask: Any, groups: int) -> Cost:
    """x^ 2; dx: g w 1, sum 1, times x^ 1, sum 1, combine 4, and two divisions per group; dw: g x^, sum; db: sum."""
    per_element = 2 + (6 + 1 + (weight is not None)) * bool(mask[0]) + 2 * bool(mask[1]) + bool(mask[2])
    return Cost(0, per_element * x.numel() + 2 * groups * bool(mask[0]))


def layer_norm_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, x, shape, mean, rstd, weight, bias, mask)."""
    return _norm_backward(args[1], args[5], args[7], args[3].numel())


def group_norm_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, x, mean, rstd, weight, N, C, HW, groups, mask)."""
    return _norm_backward(args[1], args[4], args[9], args[2].numel())


def rms_norm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(x, shape, weight, eps): square, sum, times rstd, times weight; per row a division, + eps, rsqrt."""
    return Cost(0, (3 + (argument(args, 2, None) is not None)) * args[0].numel() + 3 * out[1].numel())


def rms_norm_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, x, shape, rstd, weight, mask): x^ 1; dx: g w 1, times x^, sum, combine 3, one division per row; dw: g x^, sum."""
    x, weight, mask = args[1], args[4], args[5]
    per_element = 1 + (5 + (weight is not None)) * bool(mask[0]) + 2 * bool(mask[1])
    return Cost(0, per_element * x.numel() + args[3].numel() * bool(mask[0]))


def weight_norm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(v, g, dim) -> (w, norms): square, add, times g / norm per element; root and division per norm."""
    return Cost(0, 3 * args[0].numel() + 2 * out[1].numel())


def weight_norm_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(grad, v, g, norms, dim): times v, sum, then (grad - v s) g / norm; four operations per norm."""
    return Cost(0, 5 * args[1].numel() + 4 * args[3].numel())


# Pooling --------------------------------------------------------------------------------------------------------------------


def _window(kernel: Any, axes: int) -> int:
    return int(kernel**axes if isinstance(kernel, int) else prod(kernel) ** (axes if len(kernel) == 1 else 1))


def average_pool(axes: int) -> Rule:
    """Per result one addition per element of the window (padding included) and one division."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        return Cost(0, (_window(args[1], axes) + 1) * out.numel())

    return rule


def average_pool_backward(axes: int) -> Rule:
    """Per element of the gradient one division and one addition per element of its window."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        return Cost(0, (_window(args[2], axes) + 1) * args[0].numel())

    return rule


def max_pool(axes: int) -> Rule:
    """One comparison per element of the window."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        return Cost(0, _window(args[1], axes) * first(out).numel())

    return rule


@cache
def _covered(size: int, bins: int) -> int:
    """Elements in all bins of an adaptive pool along one axis; more than `size` where bins overlap."""
    return sum(-(-(i + 1) * size // bins) - i * size // bins for i in range(bins))


def _adaptive(x: Any, y: Any, axes: int) -> int:
    windows = prod(_covered(x.shape[axis], y.shape[axis]) for axis in range(-axes, 0))
    return int(windows * y.numel() // max(prod(y.shape[-axes:]), 1))


def adaptive_average_pool(axes: int) -> Rule:
    """One addition per element of every bin, one division per bin."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        return Cost(0, _adaptive(args[0], out, axes) + out.numel())

    return rule


def adaptive_average_pool_backward(axes: int) -> Rule:
    """(g, x): one division per bin, one addition per element of every bin."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        return Cost(0, _adaptive(args[1], args[0], axes) + args[0].numel())

    return rule


def adaptive_max_pool(axes: int) -> Rule:
    """One comparison per element of every bin."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        return Cost(0, _adaptive(args[0], out[0], axes))

    return rule


# Sampling: t taps are t multiplications and t - 1 additions per result --------------------------------------------------------

_MODE_TAPS = {0: {2: 4, 3: 8}, 1: {2: 0, 3: 0}, 2: {2: 16}}  # 0 bilinear, 1 nearest, 2 bicubic


def _positions(mode: int, axes: int, count: int) -> int:
    """Coordinates and weights of `count` sampled places, shared by all channels.

    Per axis: unnormalise 4; nearest: round 1, bounds 2; linear: floor, + 1, two fractions 4, bounds 4;
    cubic: floor, fraction 2, four weights 25, bounds 8. Then the product of the axes' weights for every linear tap.
    """
    per_axis = {0: 12, 1: 7, 2: 39}[mode]
    products = {0: {2: 4, 3: 16}, 1: {2: 0, 3: 0}, 2: {2: 16}}[mode][axes]
    return count * (axes * per_axis + products)


def grid_sample(axes: int) -> Rule:
    """(x, grid, interpolation, padding, align): 2 t - 1 per result (bilinear 7, trilinear 15, bicubic 31), and `_positions`."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        grid, mode = args[1], args[2]
        taps = _MODE_TAPS[mode][axes]
        return Cost(0, max(2 * taps - 1, 0) * out.numel() + _positions(mode, axes, grid.numel() // axes))

    return rule


def grid_sample_backward(axes: int) -> Rule:
    """(g, x, grid, interpolation, padding, align, mask).

    Input: times weight, add, for each tap (nearest: add). Grid: for each axis and tap, value times slope times g, subtract
    (one more product in three dimensions and for bicubic); positions again, two per axis to rescale.
    """

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        grad, grid, mode = args[0], args[2], args[3]
        wants_x, wants_grid = argument(args, 6, (True, True))
        taps, places = _MODE_TAPS[mode][axes], grid.numel() // axes
        per_element = (max(2 * taps, 1) if wants_x else 0) + (axes * taps * (3 if taps == 4 else 4) if wants_grid else 0)
        return Cost(0, per_element * grad.numel() + _positions(mode, axes, places) + (2 * axes * places if wants_grid else 0))

    return rule


def _antialias_taps(size: int, result: int, support: int) -> int:
    """Taps along an axis: twice the support, widened by the shrink factor."""
    return ceil(support * max(size / result, 1.0)) * 2 + 1


def _passes(small: Any, large: Any, support: int, less: int) -> int:
    """Two separable passes over the widened support, width then height: 2 t - less per element of each pass."""
    height = _antialias_taps(small.shape[-2], large.shape[-2], support)
    width = _antialias_taps(small.shape[-1], large.shape[-1], support)
    middle = large.numel() // max(large.shape[-2], 1) * small.shape[-2]
    return int((2 * width - less) * middle + (2 * height - less) * large.numel())


def antialias(support: int) -> Rule:
    """Interpolation with antialiasing: 2 t - 1 per result of each pass, t = 2 ceil(support * shrink) + 1."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        return Cost(0, _passes(args[0], out, support, 1))

    return rule


def antialias_backward(support: int) -> Rule:
    """Times weight, add, for each tap of each pass."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        return Cost(0, _passes(out, args[0], support, 0))

    return rule


# Regions (torchvision) --------------------------------------------------------------------------------------------------------


def _roi_samples(ratio: int) -> int:
    """Samples per bin; four where the ratio is left to the size of the region."""
    return ratio * ratio if ratio > 0 else 4


def roi_align(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(x, rois, scale, height, width, ratio): per sample bilinear 7, add 1; per bin a division; per place 22."""
    samples = _roi_samples(args[5])
    return Cost(0, (8 * samples + 1) * out.numel() + 22 * samples * (out.numel() // max(out.shape[1], 1)))


def ps_roi_align(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """As roi_align; every channel has places of its own."""
    samples = _roi_samples(args[5])
    return Cost(0, (30 * samples + 1) * out[0].numel())


def roi_align_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, rois, scale, height, width, B, C, H, W, ratio): per sample times weight, add, for four taps; a division; places."""
    grad, samples = args[0], _roi_samples(args[9])
    return Cost(0, (8 * samples + 1) * grad.numel() + 22 * samples * (grad.numel() // max(grad.shape[1], 1)))


def roi_pool(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """One operation per element of the bin, for regions as large as the map: an upper bound."""
    height, width = args[0].shape[-2:]
    return Cost(0, ceil(height / args[3]) * ceil(width / args[4]) * first(out).numel())


def nms(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """All pairs of n boxes: intersection over union 12, compare; areas 3 n; sort by score."""
    n = args[0].shape[0]
    return Cost(0, 13 * n * (n - 1) // 2 + 3 * n + n * ceil(log2(max(n, 1))))
