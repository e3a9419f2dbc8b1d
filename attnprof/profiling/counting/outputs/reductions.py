"""Softmax, reductions, normalisation, pooling, interpolation and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnprof.profiling.counting.outputs.layout import (
    Maker,
    channels_last_strides,
    contiguous_strides,
    empty,
    is_channels_last,
    like_format,
)


def _softmax(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args[2]:
        return NotImplemented
    if not within(args[1], args[0].dim()):  # torch's meta kernel does not look
        raise IndexError(f"Dimension out of range: {args[1]} for a tensor of {args[0].dim()} dimensions")
    return empty(args[0].shape, args[0].dtype)


def _softmax_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, output = args[0], args[1]
    if grad.dtype != output.dtype or grad.shape != output.shape:
        return NotImplemented
    return empty(grad.shape, grad.dtype)


def within(dims: Sequence[int] | int | None, rank: int) -> bool:
    """Whether these are dimensions of a tensor of that rank."""
    each = (dims,) if isinstance(dims, int) else dims or ()
    return all(-max(rank, 1) <= dim < max(rank, 1) for dim in each)


def reduced_size(shape: Sequence[int], dims: Sequence[int] | int | None, keepdim: bool) -> list[int]:
    """The shape after reducing `dims` (None or empty: all)."""
    rank = len(shape)
    if isinstance(dims, int):
        dims = (dims,)
    gone = {dim % rank for dim in dims} if dims and rank else set(range(rank))
    if keepdim:
        return [1 if dim in gone else extent for dim, extent in enumerate(shape)]
    return [extent for dim, extent in enumerate(shape) if dim not in gone]


def _reduce(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """sum.dim_IntList, mean.dim, amax, amin, var.correction, linalg_vector_norm-like: (self, dims, keepdim)."""
    source = args[0]
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    keepdim = bool(args[2] if len(args) > 2 else kwargs.get("keepdim", False))
    if kwargs.get("dtype") not in (None, source.dtype) or not source.dtype.is_floating_point:
        return NotImplemented
    if not within(dims, source.dim()):
        return NotImplemented
    return empty(reduced_size(source.shape, dims, keepdim), source.dtype)


def _amax(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dims = args[1] if len(args) > 1 else ()
    keepdim = bool(args[2]) if len(args) > 2 else False
    if not within(dims, args[0].dim()):
        return NotImplemented
    return empty(reduced_size(args[0].shape, dims, keepdim), args[0].dtype)


def _reduce_all(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not args[0].dtype.is_floating_point or kwargs.get("dtype") not in (None, args[0].dtype):
        return NotImplemented
    return empty((), args[0].dtype)


def _max_dim(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not within(args[1], args[0].dim()):
        return NotImplemented
    size = reduced_size(args[0].shape, args[1], bool(args[2]) if len(args) > 2 else False)
    return empty(size, args[0].dtype), empty(size, torch.int64)


def _vector_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source = args[0]
    dims = args[2] if len(args) > 2 else None
    keepdim = bool(args[3]) if len(args) > 3 else False
    if kwargs.get("dtype") not in (None, source.dtype) or not source.dtype.is_floating_point:
        return NotImplemented
    if not within(dims, source.dim()):
        return NotImplemented
    return empty(reduced_size(source.shape, dims, keepdim), source.dtype)


def _batch_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """native_batch_norm(x, weight, bias, mean, var, training, ...): in eval the CPU and CUDA kernels save nothing."""
    x, training = args[0], args[5]
    if any(t is not None and t.shape != (x.shape[1],) for t in args[1:5]):
        return NotImplemented
    out = empty(x.shape, x.dtype, norm_strides(x))
    statistics = (x.shape[1],) if training else (0,)
    return out, empty(statistics, x.dtype), empty(statistics, x.dtype)


def norm_strides(x: Tensor) -> Sequence[int]:
    """Strides of what a batch norm returns: channels last stays, anything else becomes contiguous."""
    return channels_last_strides(x.shape) if is_channels_last(x) else contiguous_strides(x.shape)


def _batch_norm_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight, mask = args[1], args[2], args[9]
    channels = (x.shape[1],)
    grad_x = empty(x.shape, x.dtype, norm_strides(x)) if mask[0] else None
    return (
        grad_x,
        empty(channels, weight.dtype if weight is not None else x.dtype) if mask[1] else None,
        empty(channels, weight.dtype if weight is not None else x.dtype) if mask[2] else None,
    )


def _layer_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, normalized = args[0], args[1]
    if x.dtype not in (torch.float32, torch.float64) or list(x.shape[x.dim() - len(normalized) :]) != list(normalized):
        return NotImplemented
    statistics = [*x.shape[: x.dim() - len(normalized)], *[1] * len(normalized)]
    return empty(x.shape, x.dtype), empty(statistics, x.dtype), empty(statistics, x.dtype)


def _layer_norm_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight, bias, mask = args[1], args[5], args[6], args[7]
    return (
        empty(x.shape, x.dtype) if mask[0] else None,
        empty(weight.shape, weight.dtype) if mask[1] and weight is not None else None,
        empty(bias.shape, bias.dtype) if mask[2] and bias is not None else None,
    )


def _adaptive_avg_pool(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, out = args[0], args[1]
    return like_format([*x.shape[: x.dim() - len(out)], *out], x.dtype, x)


def _adaptive_avg_pool_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return like_format(args[1].shape, args[1].dtype, args[1])


def _upsample_bilinear(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, out = args[0], args[1]
    if out is None:
        return NotImplemented
    return like_format([*x.shape[:2], *out], x.dtype, x)


def _upsample_bilinear_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, _, input_size = args[:3]
    return like_format(input_size, grad.dtype, grad)


def _group_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """native_group_norm(x, weight, bias, N, C, HxW, group, eps) of a contiguous x in one dtype."""
    x, batch, groups = args[0], args[3], args[6]
    same = all(t is None or t.dtype == x.dtype for t in args[1:3])
    if not x.is_contiguous() or not same or x.dtype not in (torch.float32, torch.float64) or args[4] % groups:
        return NotImplemented
    return empty(x.shape, x.dtype), empty((batch, groups), x.dtype), empty((batch, groups), x.dtype)


def _group_norm_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """native_group_norm_backward(grad, x, mean, rstd, weight, N, C, HxW, group, mask)."""
    grad, x, channels, mask = args[0], args[1], args[6], args[9]
    if not (x.is_contiguous() and grad.is_contiguous()) or grad.dtype != x.dtype:
        return NotImplemented
    return (
        empty(x.shape, x.dtype) if mask[0] else None,
        empty((channels,), x.dtype) if mask[1] else None,
        empty((channels,), x.dtype) if mask[2] else None,
    )


def _grid_sample(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, grid = args[:2]
    if x.dim() != 4 or grid.dim() != 4 or x.dtype != grid.dtype or x.shape[0] != grid.shape[0] or grid.shape[3] != 2:
        return NotImplemented
    if not x.numel():
        return NotImplemented
    return empty((x.shape[0], x.shape[1], grid.shape[1], grid.shape[2]), x.dtype)


def _grid_sample_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, grid, mask = args[1], args[2], args[6]
    return (empty(x.shape, x.dtype) if mask[0] else None), empty(grid.shape, grid.dtype)


def _cumsum(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    if not x.dtype.is_floating_point or kwargs.get("dtype") not in (None, x.dtype) or not within(args[1], x.dim()):
        return NotImplemented
    return empty(x.shape, x.dtype)


MAKERS: dict[str, Maker] = {
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "_softmax_backward_data": _softmax_backward,
    "_log_softmax_backward_data": _softmax_backward,
    "sum.dim_IntList": _reduce,
    "mean.dim": _reduce,
    "var.correction": _reduce,
    "std.correction": _reduce,
    "amax": _amax,
    "amin": _amax,
    "sum": _reduce_all,
    "mean": _reduce_all,
    "max.dim": _max_dim,
    "min.dim": _max_dim,
    "linalg_vector_norm": _vector_norm,
    "native_batch_norm": _batch_norm,
    "native_batch_norm_backward": _batch_norm_backward,
    "native_layer_norm": _layer_norm,
    "native_layer_norm_backward": _layer_norm_backward,
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "_adaptive_avg_pool2d_backward": _adaptive_avg_pool_backward,
    "upsample_bilinear2d": _upsample_bilinear,
    "upsample_bilinear2d_backward": _upsample_bilinear_backward,
    "native_group_norm": _group_norm,
    "native_group_norm_backward": _group_norm_backward,
    "grid_sampler_2d": _grid_sample,
    "grid_sampler_2d_backward": _grid_sample_backward,
    "cumsum": _cumsum,
}
