"""Copies, joins, and tensors from nothing."""

from __future__ import annotations

import math
from typing import Any

import torch

from attnprof.profiling.counting.outputs.layout import Maker, channels_last_strides, empty, is_channels_last, preserved_strides


def clone(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A copy: preserving dense strides, or in the memory format asked for."""
    source = args[0]
    memory_format = kwargs.get("memory_format")
    if memory_format in (None, torch.preserve_format):
        return empty(source.shape, source.dtype, preserved_strides(source))
    if memory_format is torch.contiguous_format:
        return empty(source.shape, source.dtype)
    return empty(source.shape, source.dtype, channels_last_strides(source.shape))


def _empty_like(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source = args[0]
    dtype = kwargs.get("dtype") or source.dtype
    memory_format = kwargs.get("memory_format")
    if memory_format in (None, torch.preserve_format):
        return empty(source.shape, dtype, preserved_strides(source))
    if memory_format is torch.contiguous_format:
        return empty(source.shape, dtype)
    return empty(source.shape, dtype, channels_last_strides(source.shape))


def _to_copy(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    memory_format = kwargs.get("memory_format")
    if memory_format not in (None, torch.preserve_format):
        return NotImplemented
    if not isinstance(args[0], torch.Tensor):  # a Python number, which torch.func passes on as it is
        return NotImplemented
    return empty(args[0].shape, kwargs.get("dtype") or args[0].dtype, preserved_strides(args[0]))


def _cat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = args[0]
    dim = args[1] if len(args) > 1 else 0
    first = tensors[0]
    if any(t.dtype != first.dtype or t.dim() != first.dim() for t in tensors):
        return NotImplemented
    size = list(first.shape)
    if not -len(size) <= dim < len(size):
        return NotImplemented
    rest = [extent for index, extent in enumerate(size) if index != dim % len(size)]
    if any([extent for index, extent in enumerate(t.shape) if index != dim % len(size)] != rest for t in tensors[1:]):
        return NotImplemented
    size[dim] = sum(t.shape[dim] for t in tensors)
    if all(is_channels_last(t) for t in tensors):
        return empty(size, first.dtype, channels_last_strides(size))
    return empty(size, first.dtype)


def _stack(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = args[0]
    dim = args[1] if len(args) > 1 else 0
    size = list(tensors[0].shape)
    if any(t.shape != tensors[0].shape or t.dtype != tensors[0].dtype for t in tensors[1:]):
        return NotImplemented
    size.insert(dim % (len(size) + 1), len(tensors))
    return empty(size, tensors[0].dtype)


def _factory(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """empty.memory_format, zeros, ones, rand, randn: (size, *, dtype, ...)."""
    if kwargs.get("memory_format") not in (None, torch.contiguous_format):
        return NotImplemented
    return empty(args[0], kwargs.get("dtype") or torch.get_default_dtype())


def _full(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dtype = kwargs.get("dtype")
    if dtype is None:
        if not isinstance(args[1], float):
            return NotImplemented
        dtype = torch.get_default_dtype()
    return empty(args[0], dtype)


def _empty_strided(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return empty(args[0], kwargs.get("dtype") or torch.get_default_dtype(), args[1])


def _new_factory(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return empty(args[1], kwargs.get("dtype") or args[0].dtype)


def _new_empty_strided(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return empty(args[1], kwargs.get("dtype") or args[0].dtype, args[2])


def _slice_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """slice_backward(grad, input_sizes, ...), select_backward: a zero tensor of the input's size."""
    return empty(args[1], args[0].dtype)


def _repeat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source, times = args
    size = [1] * (len(times) - source.dim()) + list(source.shape)
    return empty([extent * count for extent, count in zip(size, times, strict=True)], source.dtype)


def _diag_embed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) > 1 or kwargs:
        return NotImplemented
    return empty([*args[0].shape, args[0].shape[-1]], args[0].dtype)


def _eye(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return empty((args[0], args[-1]), kwargs.get("dtype") or torch.get_default_dtype())


def _arange(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """arange(end) and arange(start, end) of whole numbers; a step or a floating bound is left to torch."""
    if any(type(bound) is not int for bound in args) or len(args) > 2:
        return NotImplemented
    length = args[-1] - (args[0] if len(args) == 2 else 0)
    if length < 0:
        return NotImplemented
    return empty((length,), kwargs.get("dtype") or torch.int64)


def _col2im(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Fold: the kernels (Col2Im.cpp, cuda/Col2Im.cu) resize an `empty_like(columns)`, and the result keeps its storage."""
    columns, size, kernel, dilation, padding, stride = args
    taps = math.prod(kernel)
    if columns.dim() not in (2, 3) or any(len(pair) != 2 for pair in args[1:]) or columns.shape[-2] % taps:
        return NotImplemented
    blocks = [
        (extent + 2 * around - apart * (taken - 1) - 1) // step + 1
        for extent, taken, apart, around, step in zip(size, kernel, dilation, padding, stride, strict=True)
    ]
    if min(blocks) < 1 or columns.shape[-1] != math.prod(blocks):
        return NotImplemented
    return empty(columns.shape, columns.dtype).resize_(*columns.shape[:-2], columns.shape[-2] // taps, *size)


MAKERS: dict[str, Maker] = {
    "col2im": _col2im,
    "clone": clone,
    "empty_like": _empty_like,
    "zeros_like": _empty_like,
    "ones_like": _empty_like,
    "full_like": _empty_like,
    "rand_like": _empty_like,
    "randn_like": _empty_like,
    "_to_copy": _to_copy,
    "cat": _cat,
    "stack": _stack,
    "empty.memory_format": _factory,
    "zeros": _factory,
    "ones": _factory,
    "rand": _factory,
    "randn": _factory,
    "full": _full,
    "arange": _arange,
    "arange.start": _arange,
    "empty_strided": _empty_strided,
    "new_empty": _new_factory,
    "new_zeros": _new_factory,
    "new_ones": _new_factory,
    "new_full": _new_factory,
    "new_empty_strided": _new_empty_strided,
    "slice_backward": _slice_backward,
    "select_backward": _slice_backward,
    "repeat": _repeat,
    "diag_embed": _diag_embed,
    "eye": _eye,
    "eye.m": _eye,
    "scatter.src": clone,
    "scatter.value": clone,
}
