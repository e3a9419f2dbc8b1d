"""Matrix products, convolution and fused attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnprof.profiling.counting.outputs.layout import Maker, broadcast, empty, heads_last, like_format, preserved_strides


def same_dtype(a: Tensor, b: Tensor) -> None:
    """Raises what the real kernels raise; torch's meta kernels do not look."""
    if a.dtype != b.dtype:
        raise RuntimeError(f"expected both operands to have the same dtype, but got {a.dtype} and {b.dtype}")


def _mm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a, b = args[0], args[1]
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        return NotImplemented
    same_dtype(a, b)
    return empty((a.shape[0], b.shape[1]), a.dtype)


def _bmm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a, b = args[0], args[1]
    if a.dim() != 3 or b.dim() != 3 or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        return NotImplemented
    same_dtype(a, b)
    return empty((a.shape[0], a.shape[1], b.shape[2]), a.dtype)


def _added(bias: Tensor, product: Any) -> Any:
    """The product, where the bias can be expanded to it."""
    if product is NotImplemented or bias.dtype != product.dtype:
        return NotImplemented
    return product if broadcast([product.shape, bias.shape]) == list(product.shape) else NotImplemented


def _addmm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _added(args[0], _mm(args[1:], kwargs))


def _baddbmm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _added(args[0], _bmm(args[1:], kwargs))


def _mv(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    matrix, vector = args[:2]
    if matrix.dim() != 2 or matrix.shape[1:] != vector.shape or matrix.dtype != vector.dtype:
        return NotImplemented
    return empty((matrix.shape[0],), matrix.dtype)


def _convolution(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    rank = weight.dim() - 2
    if x.dim() != weight.dim() or len(stride) != rank or len(padding) != rank or len(dilation) != rank:
        return NotImplemented
    if x.shape[1] != (weight.shape[0] if transposed else weight.shape[1] * groups):
        return NotImplemented
    same_dtype(x, weight)
    size = [x.shape[0], weight.shape[1] * groups if transposed else weight.shape[0]]
    for dim in range(rank):
        extent, kernel = x.shape[2 + dim], weight.shape[2 + dim]
        reach = dilation[dim] * (kernel - 1) + 1
        if transposed:
            extra = output_padding[dim] if dim < len(output_padding) else output_padding[0]
            size.append((extent - 1) * stride[dim] - 2 * padding[dim] + reach + extra)
        else:
            size.append((extent + 2 * padding[dim] - reach) // stride[dim] + 1)
    if min(size) <= 0 and 0 not in x.shape:
        return NotImplemented
    if bias is not None and bias.shape != (size[1],):  # torch's meta kernel does not look
        raise RuntimeError(f"a convolution with {size[1]} output channels wants a bias of that size, not {tuple(bias.shape)}")
    return like_format(size, x.dtype, x, weight)


def _convolution_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, x, weight, bias_sizes = args[:4]
    mask = args[10]
    grad_x = like_format(x.shape, x.dtype, x, weight) if mask[0] else None
    pointwise = all(extent == 1 for extent in weight.shape[2:])
    grad_w = None
    if mask[1]:
        grad_w = empty(weight.shape, weight.dtype) if pointwise else like_format(weight.shape, weight.dtype, x, weight)
    grad_b = empty(bias_sizes or (grad.shape[1],), grad.dtype) if mask[2] else None
    return grad_x, grad_w, grad_b


def _efficient_attention(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The logsumexp is padded to a multiple of 32 rows, and only made where a backward will want it."""
    query, _, value, _, save = args[:5]
    b, h, n = query.shape[:3]
    rows = -(-n // 32) * 32 if save else 0
    seed, offset = empty((), torch.int64), empty((), torch.int64)
    return heads_last((b, h, n, value.shape[3]), query.dtype), empty((b, h, rows), torch.float32), seed, offset


def _efficient_attention_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    query, key, value, bias = args[1:5]
    if bias is not None:
        return NotImplemented
    return *(heads_last(t.shape, t.dtype) for t in (query, key, value)), None


def _cpu_flash_attention(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    query = args[0]
    b, h, n = query.shape[:3]
    kind = torch.float32 if query.dtype in (torch.float16, torch.bfloat16) else query.dtype
    logsumexp = empty((b, h, n), kind, (n * h, 1, h))
    return empty(query.shape, query.dtype, preserved_strides(query)), logsumexp


def _cpu_flash_attention_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return tuple(heads_last(t.shape, t.dtype) for t in args[1:4])


MAKERS: dict[str, Maker] = {
    "mm": _mm,
    "bmm": _bmm,
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "mv": _mv,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "_scaled_dot_product_efficient_attention": _efficient_attention,
    "_scaled_dot_product_efficient_attention_backward": _efficient_attention_backward,
    "_scaled_dot_product_flash_attention_for_cpu": _cpu_flash_attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _cpu_flash_attention_backward,
}
