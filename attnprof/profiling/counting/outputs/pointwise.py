"""Element-wise ops: one dtype, floating but for a few ops on indices, TensorIterator's strides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnprof.profiling.counting.outputs.layout import Maker, broadcast, empty, iterator_strides

_UNARY = """neg exp log sqrt rsqrt sigmoid tanh relu abs sin cos gelu silu hardtanh leaky_relu elu pow.Tensor_Scalar
    reciprocal clamp clamp_min clamp_max erf softplus mul.Scalar add.Scalar div.Scalar sub.Scalar rsub.Scalar exp2
    log1p expm1 log2 hardswish hardsigmoid sign square floor ceil"""
_BINARY = """add.Tensor sub.Tensor mul.Tensor div.Tensor maximum minimum pow.Tensor_Tensor sigmoid_backward tanh_backward
    gelu_backward silu_backward rsub.Tensor"""
_ON_INDICES = """add.Tensor sub.Tensor mul.Tensor maximum minimum clamp clamp_min clamp_max remainder.Scalar floor_divide
    bitwise_and.Tensor bitwise_or.Tensor"""
_TERNARY = """addcmul addcdiv lerp.Tensor"""
_COMPARE = """eq ne lt gt le ge"""


def _pointwise(operands: Sequence[Any], dtype: torch.dtype | None = None) -> Any:
    """Output of an element-wise op over tensors of one floating dtype (numbers do not matter)."""
    tensors = [op for op in operands if isinstance(op, Tensor)]
    first = tensors[0]
    if dtype is None:
        dtype = first.dtype
        if not dtype.is_floating_point:
            return NotImplemented
        for other in tensors[1:]:
            if other.dtype != dtype:
                return NotImplemented
    if len(tensors) == 1 or all(other.shape == first.shape for other in tensors[1:]):
        if all(op.is_contiguous() for op in tensors):
            return empty(first.shape, dtype)
        return empty(first.shape, dtype, iterator_strides(first.shape, tensors))
    size = broadcast([op.shape for op in tensors])
    if size is None:
        return NotImplemented
    return empty(size, dtype, iterator_strides(size, tensors))


def _unary(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _pointwise(args[:1])


def _binary(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if any(isinstance(arg, complex) for arg in args):
        return NotImplemented
    return _pointwise(args[:2])


def _on_indices(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As a floating tensor, or tensors of one integer (for bitwise ops also boolean) dtype, and whole numbers."""
    if args[0].dtype.is_floating_point:
        return _binary(args, kwargs)
    if any(arg.dtype != args[0].dtype if isinstance(arg, Tensor) else isinstance(arg, float) for arg in args):
        return NotImplemented
    return _pointwise(args, args[0].dtype)


def _ternary(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _pointwise(args[:3])


def _compare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _pointwise(args[:2], torch.bool)


def _where(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    condition, a, b = args
    if a.dtype != b.dtype:
        return NotImplemented
    return _pointwise((condition, a, b), a.dtype)


def _masked_fill(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    size = broadcast([args[0].shape, args[1].shape])
    if size is None or list(args[0].shape) != size:
        return NotImplemented
    return empty(size, args[0].dtype)


def _threshold_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The CPU kernel iterates over (input, gradient): the input's layout decides."""
    return _pointwise((args[1], args[0]))


def _elu_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _pointwise((args[0], args[5]))


MAKERS: dict[str, Maker] = {
    **dict.fromkeys(_UNARY.split(), _unary),
    **dict.fromkeys(_BINARY.split(), _binary),
    **dict.fromkeys(_ON_INDICES.split(), _on_indices),
    **dict.fromkeys(_TERNARY.split(), _ternary),
    **{f"{name}.{kind}": _compare for name in _COMPARE.split() for kind in ("Tensor", "Scalar")},
    "where.self": _where,
    "masked_fill.Scalar": _masked_fill,
    "masked_fill.Tensor": _masked_fill,
    "elu_backward": _elu_backward,
    "softplus_backward": _binary,
    "hardswish_backward": _binary,
    "threshold_backward": _threshold_backward,
    "leaky_relu_backward": _threshold_backward,
}
