"""Sizes and strides: how torch lays out what an op returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Maker = Callable[[tuple[Any, ...], dict[str, Any]], Any]

_META = torch.device("meta")


def empty(size: Sequence[int], dtype: torch.dtype, stride: Sequence[int] | None = None) -> Tensor:
    """A meta tensor; contiguous unless strides are given."""
    return torch.empty_strided(size, contiguous_strides(size) if stride is None else stride, dtype=dtype, device=_META)


def contiguous_strides(size: Sequence[int]) -> list[int]:
    """Row-major strides; a dimension of size 0 counts as 1, as in torch."""
    strides = [1] * len(size)
    step = 1
    for dim in range(len(size) - 1, 0, -1):
        step *= size[dim] or 1
        strides[dim - 1] = step
    return strides


def channels_last_strides(size: Sequence[int]) -> list[int]:
    """Strides of (N, C, spatial...) stored as N, spatial..., C."""
    strides = [0] * len(size)
    step = 1
    for dim in (1, *range(len(size) - 1, 1, -1), 0):
        strides[dim] = step
        step *= max(size[dim], 1)
    return strides


def is_channels_last(tensor: Tensor) -> bool:
    """Torch's suggest_memory_format for 4-D and 5-D tensors: channels last, and not ambiguous."""
    if tensor.dim() not in (4, 5):
        return False
    stride = tensor.stride()
    if stride[1] == 0 or stride[-1] < stride[1]:  # the second is what a contiguous tensor fails by, in the loop's second step
        return False
    size = tensor.shape
    least = 0
    for dim in (1, *range(tensor.dim() - 1, 1, -1), 0):
        if size[dim] == 0 or stride[dim] < least:
            return False
        if dim == 0 and least == stride[1]:
            return False
        least = stride[dim]
        if size[dim] > 1:
            least *= size[dim]
    return True


def like_format(size: Sequence[int], dtype: torch.dtype, *models: Tensor) -> Tensor:
    """Contiguous, or channels last where a model tensor suggests it."""
    if any(is_channels_last(model) for model in models):
        return empty(size, dtype, channels_last_strides(size))
    return empty(size, dtype)


def is_dense(size: Sequence[int], stride: Sequence[int]) -> bool:
    """Non-overlapping and dense: some permutation of the dimensions is contiguous."""
    expected = 1
    for step, extent in sorted(zip(stride, size, strict=True)):
        if extent == 1:
            continue
        if step != expected:
            return False
        expected *= extent
    return True


def broadcast(shapes: list[Sequence[int]]) -> list[int] | None:
    """The common shape, or None where they do not fit."""
    rank = max(len(shape) for shape in shapes)
    out = [1] * rank
    for shape in shapes:
        for dim in range(-len(shape), 0):
            extent = shape[dim]
            if extent != 1:
                if out[dim] not in (1, extent):
                    return None
                out[dim] = extent
    return out


def iterator_strides(size: Sequence[int], operands: Sequence[Tensor]) -> Sequence[int]:
    """Strides TensorIterator gives a fresh output: the operands' own where they agree, else their dimension order."""
    rank = len(size)
    shape = list(size)
    if all(list(op.shape) == shape for op in operands):
        first = operands[0]
        if all(op.is_contiguous() for op in operands):
            return contiguous_strides(size)
        if rank in (4, 5) and all(_channels_last_contiguous(op) for op in operands):
            return channels_last_strides(size)
        strides = first.stride()
        if is_dense(size, strides) and all(op.stride() == strides for op in operands[1:]):
            return strides
    return ordered_strides(shape, operands)


def _channels_last_contiguous(tensor: Tensor) -> bool:
    memory_format = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
    return tensor.is_contiguous(memory_format=memory_format)


def ordered_strides(shape: list[int], operands: Sequence[Tensor]) -> list[int]:
    """TensorIterator::reorder_dimensions: an insertion sort of the dimensions by the operands' strides, ambiguity by extent."""
    rank = len(shape)
    every = []
    for op in operands:
        steps = [0] * (rank - op.dim())
        steps += [0 if extent == 1 and shape[rank - op.dim() + i] != 1 else op.stride(i) for i, extent in enumerate(op.shape)]
        every.append(steps)

    def should_swap(a: int, b: int) -> int:
        for steps in every:
            if steps[a] == 0 or steps[b] == 0:
                continue
            if steps[a] != steps[b]:
                return -1 if steps[a] < steps[b] else 1
            if shape[a] > shape[b]:
                return 1
        return 0

    order = list(range(rank - 1, -1, -1))
    for i in range(1, rank):
        at = i
        for j in range(i - 1, -1, -1):
            verdict = should_swap(order[j], order[at])
            if verdict > 0:
                order[j], order[at] = order[at], order[j]
                at = j
            elif verdict < 0:
                break
    strides = [0] * rank
    step = 1
    for dim in order:
        strides[dim] = step
        step *= max(shape[dim], 1)
    return strides


def preserved_strides(source: Tensor) -> Sequence[int]:
    """Strides of empty_like with preserve_format: the source's if dense, else its dimension order made dense."""
    if is_dense(source.shape, source.stride()):
        return source.stride()
    return ordered_strides(list(source.shape), [source])


def heads_last(size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """(B, heads, N, d) stored as B, N, heads, d: how attention kernels lay out their results."""
    _, h, n, d = size
    return empty(size, dtype, (n * h * d, d, h * d, 1))
