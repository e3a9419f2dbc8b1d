"""Matmul, distances and convolution: the ops whose work is multiply-accumulates.

Complex operands: a complex multiply-accumulate is 4 real ones, a complex addition 2 operations. Padding is counted as data.
"""

from __future__ import annotations

from math import prod
from typing import Any

from attnprof.profiling.counting.formulas import Args, Cost, Kwargs, Rule, argument

# Matmul ---------------------------------------------------------------------------------------------------------------------


def _product(macs: int, tensor: Any, per_result: int = 0, results: int = 0) -> Cost:
    """`macs`, and `per_result` further operations for each of `results` elements; complex by the type of `tensor`."""
    if tensor.is_complex():
        macs, per_result = 4 * macs, 2 * per_result
    return Cost(macs, 2 * macs + per_result * results)


def _added(kwargs: Kwargs) -> int:
    """What beta * input + alpha * product adds: 1, unless beta is 0; beta and alpha where they are not 1."""
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    return int(beta not in (0, 1)) + int(beta != 0) + int(alpha != 1)


def mm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """mm, bmm, mv: (m, k) x (k, n): m n k."""
    return _product(out.numel() * args[0].shape[-1], out)


def addmm(args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """addmm, baddbmm, addmv: as mm, with what is added."""
    results = out.numel()
    return _product(results * args[1].shape[-1], out, _added(kwargs), results)


def addbmm(args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """The products of a batch summed into one matrix: b m n k."""
    batch, _, inner = args[1].shape
    return _product(batch * out.numel() * inner, out, _added(kwargs), out.numel())


def addr(_args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """The outer product of two vectors added to a matrix: a matmul with k = 1. (torch.outer alone is a mul, element-wise.)"""
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    return _product(out.numel(), out, (beta not in (0, 1)) + (alpha != 1), out.numel())


def addmm_activation(args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """addmm, then ReLU 1 or GELU 9 (tanh)."""
    added = _added(kwargs) + (9 if kwargs.get("use_gelu") else 1)
    return _product(out.numel() * args[1].shape[-1], out, added, out.numel())


def dot(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """As many as n multiply-accumulates."""
    return _product(args[0].numel(), args[0])


def scaled_mm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """_scaled_mm: as mm; two scales per result, one addition with a bias, one product with a result scale."""
    extra = 2 + (argument(args, 4, None) is not None) + (argument(args, 5, None) is not None)
    return _product(out.numel() * args[0].shape[-1], out, extra, out.numel())


def scaled_mm_v2(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """_scaled_mm_v2: the bias stands ninth."""
    return _product(out.numel() * args[0].shape[-1], out, 2 + (argument(args, 8, None) is not None), out.numel())


def _grouped(a: Any, b: Any) -> int:
    """Rows, columns or the inner axis cut into groups by offsets: every row meets one group; a batch of groups is a bmm."""
    groups = a.shape[0] if a.dim() == 3 and b.dim() == 3 else 1
    return int(groups * a.shape[-2] * a.shape[-1] * b.shape[-1])


def grouped_mm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """_grouped_mm(a, b, offsets, bias)."""
    return _product(_grouped(args[0], args[1]), out, int(argument(args, 3, None) is not None), out.numel())


def scaled_grouped_mm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """_scaled_grouped_mm(a, b, scale_a, scale_b, offsets, bias, ...): two scales per result."""
    return _product(_grouped(args[0], args[1]), out, 2 + (argument(args, 5, None) is not None), out.numel())


def packed_mm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """Weight-only quantised matmul: as mm, one scale per result."""
    return _product(out.numel() * args[0].shape[-1], out, 1, out.numel())


def linear(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(x, weight, bias): one multiply-accumulate per result and input feature, one addition per result with a bias."""
    return _product(out.numel() * args[1].shape[-1], out, int(argument(args, 2, None) is not None), out.numel())


def linear_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(x, g, weight, mask): as much as the forward for dx and for dw, one addition per element of g for db."""
    grad, mask = args[1], args[3]
    macs = grad.numel() * args[2].shape[-1] * (bool(mask[0]) + bool(mask[1]))
    return _product(macs, grad, int(mask[2]), grad.numel())


def linear_backward_input(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """mkldnn_linear_backward_input(size, g, weight)."""
    return _product(args[1].numel() * args[2].shape[-1], args[1])


def linear_backward_weights(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """mkldnn_linear_backward_weights(g, x, weight, bias_defined)."""
    return _product(args[0].numel() * args[2].shape[-1], args[0], int(args[3]), args[0].numel())


def trilinear(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """_trilinear, in nn.Bilinear and its backward: the first two factors contracted, then their product with the third.

    An axis in `expand` is missing from that factor; summed axes the third lacks are summed in the first step.
    """
    sizes: dict[int, int] = {}
    axes: list[set[int]] = []
    rank = args[0].dim() + len(args[3])
    for factor, missing in zip(args[:3], args[3:6], strict=True):
        own = [axis for axis in range(rank) if axis not in missing]
        sizes.update(zip(own, factor.shape, strict=True))
        axes.append(set(own))
    pair = axes[0] | axes[1]
    left = (pair - (set(args[6]) - axes[2])) | axes[2]
    return _product(prod(sizes[axis] for axis in pair) + prod(sizes[axis] for axis in left), out)


def affine_grid(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """affine_grid_generator(theta, size): a matmul of all places with theta."""
    return _product(out.numel() * args[0].shape[-1], out)


# Distances ------------------------------------------------------------------------------------------------------------------


def _euclid(a: Any, b: Any, out: Any) -> Cost:
    """Through one matmul of inner size M + 2 (x, |x|^2, 1): squares and sums of both, -2 x, and per result clamp, root."""
    macs = out.numel() * (a.shape[-1] + 2)
    return Cost(macs, 2 * macs + 3 * a.numel() + 2 * b.numel() + 2 * out.numel())


def euclidean_dist(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """_euclidean_dist(a, b)."""
    return _euclid(args[0], args[1], out)


def cdist(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """Order 2 above 25 points (or mode 1): a matmul. Else per pair and feature subtract, square, abs or power, add; a root."""
    a, b, order, mode = args[0], args[1], args[2], argument(args, 3, None)
    large = a.shape[-2] > 25 or b.shape[-2] > 25
    if order == 2 and (mode == 1 or (mode in (None, 0) and large)):
        return _euclid(a, b, out)
    steps, root = (3, order == 2) if order in (0, 1, 2, float("inf")) else (4, True)
    return Cost(0, (steps * a.shape[-1] + root) * out.numel())


def cdist_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """Of the first argument: p = 2 subtract, scale, add per pair and feature, a division per pair; else sign and power: 5."""
    steps = 3 if args[3] == 2 else 5
    return Cost(0, (steps * args[1].shape[-1] + 1) * args[0].numel())


def pdist(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """As cdist without matmul over n (n - 1) / 2 pairs."""
    order = argument(args, 1, 2)
    steps = 3 if order in (0, 1, 2, float("inf")) else 4
    return Cost(0, (steps * args[0].shape[-1] + 1) * out.numel())


def pdist_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, x, p, distances): as cdist_backward, added to both points."""
    return Cost(0, (6 * args[1].shape[-1] + 1) * args[0].numel())


# Convolution ----------------------------------------------------------------------------------------------------------------


def taps(weight: Any) -> int:
    """Multiply-accumulates per element of the side that is not the weight's first axis: C_in / g * kernel."""
    return int(weight.numel() // max(weight.shape[0], 1))


def conv(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(x, weight, bias, stride, padding, dilation, transposed, ...): results * C_in / groups * kernel, whatever the stride.

    Transposed: every input element meets C_out / groups * kernel weights. The bias is one addition per result.
    """
    side = args[0] if argument(args, 6, False) else out
    return _product(side.numel() * taps(args[1]), out, int(argument(args, 2, None) is not None), out.numel())


def conv_kernel(bias: int | None, transposed: bool = False) -> Rule:
    """One backend's kernel: (x, weight, ...) with its bias, if it takes one, at position `bias`."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        result = out[0] if isinstance(out, (tuple, list)) else out
        macs = (args[0] if transposed else result).numel() * taps(args[1])
        return _product(macs, result, int(bias is not None and argument(args, bias, None) is not None), result.numel())

    return rule


def conv_relu(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """cudnn_convolution_relu(x, weight, bias, ...): bias and ReLU."""
    return _product(out.numel() * taps(args[1]), out, 1 + (args[2] is not None), out.numel())


def conv_add_relu(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """cudnn_convolution_add_relu(x, weight, z, alpha, bias, ...): times alpha, add z, bias and ReLU."""
    return _product(out.numel() * taps(args[1]), out, 3 + (args[4] is not None), out.numel())


def conv_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, x, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, mask).

    The forward's multiply-accumulates for dx and again for dw; one addition per element of g for db.
    """
    grad, x, weight, mask = args[0], args[1], args[2], args[10]
    forward = (x if args[7] else grad).numel() * taps(weight)
    return _product(forward * (bool(mask[0]) + bool(mask[1])), grad, int(mask[2]), grad.numel())


def conv_backward_overrideable(args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """As `conv_backward` without bias_sizes."""
    return conv_backward((*args[:3], None, *args[3:]), kwargs, out)


def slow_conv_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_slow_conv2d_backward(g, x, weight, kernel, stride, padding, mask)."""
    grad, mask = args[0], argument(args, 6, (True, True, True))
    macs = grad.numel() * taps(args[2]) * (bool(mask[0]) + bool(mask[1]))
    return _product(macs, grad, int(mask[2]), grad.numel())


def conv_tbc(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(x: T B C, weight: k C_in C_out, bias)."""
    return _product(out.numel() * args[1].shape[0] * args[1].shape[1], out, 1, out.numel())
