"""Outputs of the hot ops on meta tensors, from shapes and strides alone: what makes a trace take milliseconds.

torch's own meta kernels are right but slow to reach: the first `mul` on a meta tensor imports torch._dynamo (1.7 s), the first
`bmm` sympy (0.7 s). For the ops that attention networks consist of the output is computed here with `empty_strided`, following
TensorIterator's stride rules; every other op goes to torch's meta kernel. `tests/test_outputs.py` sweeps each function here
against the real CPU kernel (sizes, strides, dtype).

A function takes (args, kwargs) of the ATen overload and returns the output, or NotImplemented where it does not know the case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Maker = Callable[[tuple[Any, ...], dict[str, Any]], Any]

aten = torch.ops.aten
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


def _like_format(size: Sequence[int], dtype: torch.dtype, *models: Tensor) -> Tensor:
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


def _broadcast(shapes: list[Sequence[int]]) -> list[int] | None:
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
    return _ordered_strides(shape, operands)


def _channels_last_contiguous(tensor: Tensor) -> bool:
    memory_format = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
    return tensor.is_contiguous(memory_format=memory_format)


def _ordered_strides(shape: list[int], operands: Sequence[Tensor]) -> list[int]:
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
    size = _broadcast([op.shape for op in tensors])
    if size is None:
        return NotImplemented
    return empty(size, dtype, iterator_strides(size, tensors))


def _unary(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _pointwise(args[:1])


def _binary(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if any(isinstance(arg, complex) for arg in args):
        return NotImplemented
    return _pointwise(args[:2])


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
    size = _broadcast([args[0].shape, args[1].shape])
    if size is None or list(args[0].shape) != size:
        return NotImplemented
    return empty(size, args[0].dtype)


def clone(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A copy: preserving dense strides, or in the memory format asked for."""
    source = args[0]
    memory_format = kwargs.get("memory_format")
    if memory_format in (None, torch.preserve_format):
        return empty(source.shape, source.dtype, preserved_strides(source))
    if memory_format is torch.contiguous_format:
        return empty(source.shape, source.dtype)
    return empty(source.shape, source.dtype, channels_last_strides(source.shape))


def preserved_strides(source: Tensor) -> Sequence[int]:
    """Strides of empty_like with preserve_format: the source's if dense, else its dimension order made dense."""
    if is_dense(source.shape, source.stride()):
        return source.stride()
    return _ordered_strides(list(source.shape), [source])


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
    return empty(args[0].shape, kwargs.get("dtype") or args[0].dtype, preserved_strides(args[0]))


def _mm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a, b = args[0], args[1]
    return empty((a.shape[0], b.shape[1]), a.dtype)


def _bmm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    a, b = args[0], args[1]
    return empty((a.shape[0], a.shape[1], b.shape[2]), a.dtype)


def _addmm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _mm(args[1:], kwargs)


def _baddbmm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _bmm(args[1:], kwargs)


def _mv(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return empty((args[0].shape[0],), args[0].dtype)


def _convolution(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight, _, stride, padding, dilation, transposed, output_padding, groups = args
    rank = weight.dim() - 2
    if x.dim() != weight.dim() or len(stride) != rank or len(padding) != rank or len(dilation) != rank:
        return NotImplemented
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
    return _like_format(size, x.dtype, x, weight)


def _convolution_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, x, weight, bias_sizes = args[:4]
    mask = args[10]
    grad_x = _like_format(x.shape, x.dtype, x, weight) if mask[0] else None
    pointwise = all(extent == 1 for extent in weight.shape[2:])
    grad_w = None
    if mask[1]:
        grad_w = empty(weight.shape, weight.dtype) if pointwise else _like_format(weight.shape, weight.dtype, x, weight)
    grad_b = empty(bias_sizes or (grad.shape[1],), grad.dtype) if mask[2] else None
    return grad_x, grad_w, grad_b


def _softmax(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args[2]:
        return NotImplemented
    return empty(args[0].shape, args[0].dtype)


def _softmax_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, output = args[0], args[1]
    if grad.dtype != output.dtype:
        return NotImplemented
    return empty(grad.shape, grad.dtype)


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
    return empty(reduced_size(source.shape, dims, keepdim), source.dtype)


def _amax(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dims = args[1] if len(args) > 1 else ()
    keepdim = bool(args[2]) if len(args) > 2 else False
    return empty(reduced_size(args[0].shape, dims, keepdim), args[0].dtype)


def _reduce_all(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not args[0].dtype.is_floating_point or kwargs.get("dtype") not in (None, args[0].dtype):
        return NotImplemented
    return empty((), args[0].dtype)


def _max_dim(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    size = reduced_size(args[0].shape, args[1], bool(args[2]) if len(args) > 2 else False)
    return empty(size, args[0].dtype), empty(size, torch.int64)


def _vector_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source = args[0]
    dims = args[2] if len(args) > 2 else None
    keepdim = bool(args[3]) if len(args) > 3 else False
    if kwargs.get("dtype") not in (None, source.dtype) or not source.dtype.is_floating_point:
        return NotImplemented
    return empty(reduced_size(source.shape, dims, keepdim), source.dtype)


def _cat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = args[0]
    dim = args[1] if len(args) > 1 else 0
    first = tensors[0]
    if any(t.dtype != first.dtype or t.dim() != first.dim() for t in tensors):
        return NotImplemented
    size = list(first.shape)
    size[dim] = sum(t.shape[dim] for t in tensors)
    if all(is_channels_last(t) for t in tensors):
        return empty(size, first.dtype, channels_last_strides(size))
    return empty(size, first.dtype)


def _stack(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = args[0]
    dim = args[1] if len(args) > 1 else 0
    size = list(tensors[0].shape)
    size.insert(dim % (len(size) + 1), len(tensors))
    return empty(size, tensors[0].dtype)


def _batch_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """native_batch_norm(x, weight, bias, mean, var, training, ...): in eval the CPU and CUDA kernels save nothing."""
    x, training = args[0], args[5]
    out = empty(x.shape, x.dtype, _norm_strides(x))
    statistics = (x.shape[1],) if training else (0,)
    return out, empty(statistics, x.dtype), empty(statistics, x.dtype)


def _norm_strides(x: Tensor) -> Sequence[int]:
    return channels_last_strides(x.shape) if is_channels_last(x) else contiguous_strides(x.shape)


def _batch_norm_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight, mask = args[1], args[2], args[9]
    channels = (x.shape[1],)
    grad_x = empty(x.shape, x.dtype, _norm_strides(x)) if mask[0] else None
    return (
        grad_x,
        empty(channels, weight.dtype if weight is not None else x.dtype) if mask[1] else None,
        empty(channels, weight.dtype if weight is not None else x.dtype) if mask[2] else None,
    )


def _layer_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, normalized = args[0], args[1]
    if x.dtype not in (torch.float32, torch.float64):
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
    return _like_format([*x.shape[: x.dim() - len(out)], *out], x.dtype, x)


def _adaptive_avg_pool_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _like_format(args[1].shape, args[1].dtype, args[1])


def _upsample_bilinear(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, out = args[0], args[1]
    if out is None:
        return NotImplemented
    return _like_format([*x.shape[:2], *out], x.dtype, x)


def _upsample_bilinear_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    grad, _, input_size = args[:3]
    return _like_format(input_size, grad.dtype, grad)


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
    return empty((args[0], args[0]), kwargs.get("dtype") or torch.get_default_dtype())


def heads_last(size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """(B, heads, N, d) stored as B, N, heads, d: how attention kernels lay out their results."""
    _, h, n, d = size
    return empty(size, dtype, (n * h * d, d, h * d, 1))


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


def _threshold_backward(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _pointwise(args[:2])


_UNARY = [
    "neg",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "sigmoid",
    "tanh",
    "relu",
    "abs",
    "sin",
    "cos",
    "gelu",
    "silu",
    "hardtanh",
    "leaky_relu",
    "elu",
    "pow.Tensor_Scalar",
    "reciprocal",
    "clamp",
    "clamp_min",
    "clamp_max",
    "erf",
    "softplus",
    "mul.Scalar",
    "add.Scalar",
    "div.Scalar",
    "sub.Scalar",
    "rsub.Scalar",
    "exp2",
    "log1p",
    "expm1",
    "log2",
    "hardswish",
    "hardsigmoid",
    "sign",
    "square",
]
_BINARY = [
    "add.Tensor",
    "sub.Tensor",
    "mul.Tensor",
    "div.Tensor",
    "maximum",
    "minimum",
    "pow.Tensor_Tensor",
    "sigmoid_backward",
    "tanh_backward",
    "gelu_backward",
    "silu_backward",
    "rsub.Tensor",
]
_TERNARY = ["addcmul", "addcdiv", "lerp.Tensor"]
_COMPARE = ["eq", "ne", "lt", "gt", "le", "ge"]
_OTHER: dict[str, Maker] = {
    "where.self": _where,
    "masked_fill.Scalar": _masked_fill,
    "masked_fill.Tensor": _masked_fill,
    "threshold_backward": _threshold_backward,
    "leaky_relu_backward": _binary,
    "clone": clone,
    "empty_like": _empty_like,
    "zeros_like": _empty_like,
    "ones_like": _empty_like,
    "full_like": _empty_like,
    "rand_like": _empty_like,
    "randn_like": _empty_like,
    "_to_copy": _to_copy,
    "mm": _mm,
    "bmm": _bmm,
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "mv": _mv,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
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
    "cat": _cat,
    "stack": _stack,
    "native_batch_norm": _batch_norm,
    "native_batch_norm_backward": _batch_norm_backward,
    "native_layer_norm": _layer_norm,
    "native_layer_norm_backward": _layer_norm_backward,
    "_adaptive_avg_pool2d": _adaptive_avg_pool,
    "_adaptive_avg_pool2d_backward": _adaptive_avg_pool_backward,
    "upsample_bilinear2d": _upsample_bilinear,
    "upsample_bilinear2d_backward": _upsample_bilinear_backward,
    "empty.memory_format": _factory,
    "zeros": _factory,
    "ones": _factory,
    "rand": _factory,
    "randn": _factory,
    "full": _full,
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
    "scatter.src": clone,
    "scatter.value": clone,
    "_scaled_dot_product_efficient_attention": _efficient_attention,
    "_scaled_dot_product_efficient_attention_backward": _efficient_attention_backward,
    "_scaled_dot_product_flash_attention_for_cpu": _cpu_flash_attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _cpu_flash_attention_backward,
}


def _table() -> dict[Any, Maker]:
    """OpOverload -> maker, for the overloads that this torch has."""
    named: dict[str, Maker] = dict.fromkeys(_UNARY, _unary)
    named |= dict.fromkeys(_BINARY, _binary)
    named |= dict.fromkeys(_TERNARY, _ternary)
    named |= {f"{name}.{kind}": _compare for name in _COMPARE for kind in ("Tensor", "Scalar")}
    named |= _OTHER
    table: dict[Any, Maker] = {}
    for name, maker in named.items():
        packet, _, overload = name.partition(".")
        op = getattr(getattr(aten, packet, None), overload or "default", None)
        if op is not None:
            table[op] = maker
    return table


MAKERS = _table()


def writes_out(func: Any) -> bool:
    """True for `out=` overloads with a single result: they return the tensor they were given."""
    return func._schema.arguments[-1:] != [] and func._schema.arguments[-1].name == "out" and len(func._schema.returns) == 1


def returns_self(func: Any) -> bool:
    """True for `add_`-like ops that write to their first argument and return it, leaving its sizes and strides alone."""
    schema = func._schema
    if not schema.name.endswith("_") or schema.name.endswith("__") or not schema.arguments or len(schema.returns) != 1:
        return False
    info, back = schema.arguments[0].alias_info, schema.returns[0].alias_info
    return bool(info and info.is_write and back and back.is_write) and schema.name not in _CHANGES_METADATA


_CHANGES_METADATA = frozenset(
    f"aten::{name}_"
    for name in [
        "resize",
        "resize_as",
        "set",
        "as_strided",
        "transpose",
        "unsqueeze",
        "squeeze",
        "t",
        "swapdims",
        "swapaxes",
        "rename",
        "detach",
        "requires_grad",
    ]
)
