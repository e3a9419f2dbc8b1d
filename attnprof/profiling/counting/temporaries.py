"""Scratch that CUDA kernels take from the caching allocator and no tensor shows: the table behind `peak_cuda_bytes`.

One row per op: what the kernel allocates beside its outputs, as a function of the call, and the file and function of PyTorch
that it was read from (paths below aten/src/ATen/native unless they begin with aten/ or c10/). It holds for an NVIDIA GPU of
compute capability 8.0 or 9.0 with cuDNN. Nothing in it was fitted to measurements; `tests/makers/cuda_memory.py` scores it on
a GPU. What is known and left out stands in `NOT_MODELLED`, each with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnprof.profiling.counting.outputs import layout

Size = Callable[[tuple[Any, ...], Any], int | tuple[int, ...]]
_HALF = (torch.float16, torch.bfloat16)
_MULTIPROCESSORS = 108  # an A100; an H100 has 132


@dataclass(frozen=True)
class Temporary:
    """size(args, out) in bytes of what the kernel of an op holds while it runs, what that is, and where it was read.

    A size may be a tuple: what the kernel holds at one moment or another, of which the largest counts.
    """

    size: Size
    what: str
    source: str


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _accumulated(tensor: Tensor) -> int:
    """Bytes of one number in the type that CUDA kernels accumulate in (AccumulateType.h): half types in float32."""
    return 4 if tensor.dtype in _HALF else tensor.element_size()


def _given(args: tuple[Any, ...], position: int) -> Tensor | None:
    value = args[position] if len(args) > position else None
    return value if isinstance(value, Tensor) else None


def _given_bytes(args: tuple[Any, ...], *positions: int) -> int:
    """Bytes of the arguments there that are not contiguous."""
    found = (_given(args, position) for position in positions)
    return sum(_bytes(tensor) for tensor in found if tensor is not None and not tensor.is_contiguous())


def _contiguous(*positions: int) -> Size:
    """The arguments there that are not contiguous are copied."""
    return lambda args, out: _given_bytes(args, *positions)


def _in_format_of(*positions: int) -> Size:
    """The arguments there are copied into one memory format: channels last where one of them has it, else contiguous."""

    def size(args: tuple[Any, ...], out: Any) -> int:
        found = [tensor for position in positions if (tensor := _given(args, position)) is not None]
        if all(tensor.is_contiguous() for tensor in found):
            return 0
        wanted = torch.channels_last if any(_channels_last(tensor) for tensor in found) else torch.contiguous_format
        return sum(_bytes(tensor) for tensor in found if not tensor.is_contiguous(memory_format=wanted))

    return size


def _channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _softmax_backward(args: tuple[Any, ...], out: Any) -> int:
    grad, output = args[0], args[1]
    product = grad.numel() * max(grad.element_size(), output.element_size())
    laid = list(layout.iterator_strides(grad.shape, [grad, output]))  # a permuted gradient gives a permuted product: copied
    dense = all(a == b for a, b, n in zip(laid, layout.contiguous_strides(grad.shape), grad.shape, strict=True) if n > 1)
    return int(product * (1 if dense else 2) + (0 if output.is_contiguous() else _bytes(output)))


def _blas(*positions: int) -> Size:
    """A matrix whose rows or columns lie dense is taken by cuBLAS as it is; any other is copied."""

    def size(args: tuple[Any, ...], out: Any) -> int:
        return sum(_bytes(args[position]) for position in positions if _not_for_blas(args[position]))

    return size


def _not_for_blas(matrix: Tensor) -> bool:
    rows, columns = matrix.shape[-2:]
    down, across = (int(stride) for stride in matrix.stride()[-2:])
    if (down == 1 and across >= max(1, rows)) or (across == 1 and down >= max(1, columns)):
        return False
    return not (matrix.is_contiguous() and down != 0 and across != 0)


def _layer_norm_backward(args: tuple[Any, ...], out: Any) -> int:
    copies = _given_bytes(args, 0, 1)
    normalized = int(math.prod(args[2]))
    rows = int(args[0].numel()) // max(normalized, 1)
    weight = _given(args, 5)
    if weight is None or rows <= 1 << 16 or normalized // 32 >= _MULTIPROCESSORS // 2:
        return copies
    blocks = min((1 << 15) // -(-normalized // 32), -(-rows // 32))
    return int(copies + 2 * blocks * normalized * weight.element_size())


def _group_norm(args: tuple[Any, ...], out: Any) -> int:
    x, batch, channels, groups = args[0], args[3], args[4], args[6]
    scale_and_shift = 2 * batch * channels if args[1] is not None or args[2] is not None else 0
    statistics = 2 * batch * groups if x.dtype in _HALF else 0
    return int(scale_and_shift + statistics) * _accumulated(x)


def _group_norm_backward(args: tuple[Any, ...], out: Any) -> int:
    x, weight, batch, channels, groups = args[1], args[4], args[5], args[6], args[8]
    per_channel = 2 if weight is None else 3
    return int(per_channel * batch * channels + 2 * batch * groups) * _accumulated(x)


def _index_put(args: tuple[Any, ...], out: Any) -> int:
    """Adding sorts: the linear index, its sorted copy, the order, a range, and cub's second buffers for keys and values."""
    target, indices, values = args[:3]
    if not (len(args) > 3 and args[3]):
        return 0
    shapes = [index.shape for index in indices if index is not None]
    copies = sum(_bytes(tensor) for tensor in (target, values) if not tensor.is_contiguous())
    return int(copies + 6 * 8 * math.prod(torch.broadcast_shapes(*shapes)))


def _embedding_backward(args: tuple[Any, ...], out: Any) -> int:
    """Beyond 3072 indices they are sorted (5 index arrays: sorted copy, order, range, cub's second buffers), then every index
    has a row of partial sums beside 6 index arrays (sorted, order, four for segments), and one more for the frequencies.
    """
    grad, indices, by_frequency = args[0], args[1], bool(len(args) > 4 and args[4])
    copies = _given_bytes(args, 0, 1)
    if indices.numel() <= 3072 and not by_frequency:
        return copies
    return int(copies + (6 + by_frequency) * _bytes(indices) + grad.numel() * _accumulated(grad))


def _sort(args: tuple[Any, ...], out: Any) -> int:
    values = args[0]
    dim = next((arg for arg in args[1:] if isinstance(arg, int) and not isinstance(arg, bool)), -1)
    if values.dim() == 0 or values.shape[dim] <= 4096:
        return 8 * int(values.shape[dim]) if values.dim() else 0  # a range; sorted in place
    return 0 if values.stride(dim) == 1 else int(values.numel()) * (2 * int(values.element_size()) + 8)


def _affine_grid(args: tuple[Any, ...], out: Any) -> int:
    batch, _, *extents = args[1]
    return int(batch * math.prod(extents) * (len(extents) + 1) * args[0].element_size())


def _efficient(args: tuple[Any, ...], out: Any) -> int:
    """Half types accumulate in a float32 copy of the output where a head of values is wider than 128."""
    query, value = args[0], args[2]
    if query.dtype not in _HALF or value.shape[3] <= 128:
        return 0
    return int(4 * math.prod(query.shape[:3]) * value.shape[3])


def _efficient_backward(args: tuple[Any, ...], out: Any) -> tuple[int, ...]:
    """grad_out made contiguous; delta (float32: from the product of grad_out and out); accumulators of dq, and of dk and dv."""
    grad, query, key, value = args[:4]
    batch, heads, tokens, size = query.shape
    kept = 0 if grad.transpose(1, 2).is_contiguous() else _bytes(grad)
    delta = 4 * batch * heads * tokens
    half = query.dtype in _HALF
    widest = max(size, value.shape[3])
    rows, columns = (64, 64) if widest <= 64 else (128, 128) if half and widest <= 128 else (128, 64)
    floats = -(-tokens // rows) * -(-size // columns) * (rows * columns + 4)
    if half and widest > 128:
        splits = max(1, min(-(-key.shape[2] // columns), 200 // (batch * heads)))
        floats += splits * columns * rows * (-(-size // rows) + -(-value.shape[3] // rows))
    work = 4 * batch * heads * floats  # whole groups of four floats
    if half:
        return (int(kept + delta + work),)
    return int(kept + delta + work), int(kept + delta + 4 * batch * heads * tokens * value.shape[3])


def _flash_backward(args: tuple[Any, ...], out: Any) -> int:
    """grad_out and out made contiguous, float32 accumulators of dq and of the row sums, dk and dv of every query head."""
    grad, query, key, _, output = args[:5]
    batch, heads, tokens, size = query.shape
    copies = sum(_bytes(tensor) for tensor in (grad, output) if not tensor.transpose(1, 2).is_contiguous())
    tokens = -(-tokens // 128) * 128
    wide = -(-size // (32 if size <= 128 else 64)) * (32 if size <= 128 else 64)
    grouped = 2 * batch * heads * key.shape[2] * size * key.element_size() if key.shape[1] != heads else 0
    return int(copies + grouped + 4 * batch * heads * tokens * (wide + 1))


_COPY = "arguments that are not contiguous"
_BLAS = "matrices without a dense dimension"
_POOL_BACKWARD = Temporary(_contiguous(0, 1), _COPY, "cuda/AveragePool2d.cu, AdaptiveAveragePooling.cu: the backward functions")

KERNEL_TEMPORARIES: dict[str, Temporary] = {
    "_softmax": Temporary(_contiguous(0), _COPY, "cuda/SoftMax.cu: host_softmax"),
    "_log_softmax": Temporary(_contiguous(0), _COPY, "cuda/SoftMax.cu: host_softmax"),
    "_softmax_backward_data": Temporary(
        _softmax_backward, "grad * output, whole; copies", "cuda/SoftMax.cu: softmax_backward_cuda_out, host_softmax_backward"
    ),
    "_log_softmax_backward_data": Temporary(_contiguous(0, 1), _COPY, "cuda/SoftMax.cu: host_softmax_backward"),
    "mm": Temporary(_blas(0, 1), _BLAS, "cuda/Blas.cpp: prepare_matrix_for_cublas"),
    "addmm": Temporary(_blas(1, 2), _BLAS, "cuda/Blas.cpp: prepare_matrix_for_cublas"),
    "addmm_": Temporary(_blas(0, 1, 2), _BLAS, "cuda/Blas.cpp: prepare_matrix_for_cublas"),
    "bmm": Temporary(_blas(0, 1), _BLAS, "cuda/Blas.cpp: prepare_batch_matrix_for_cublas"),
    "baddbmm": Temporary(_blas(1, 2), _BLAS, "cuda/Blas.cpp: prepare_batch_matrix_for_cublas"),
    "baddbmm_": Temporary(_blas(0, 1, 2), _BLAS, "cuda/Blas.cpp: baddbmm_out_cuda_impl, prepare_batch_matrix_for_cublas"),
    "convolution": Temporary(
        _in_format_of(0, 1), "input and weight in one format", "Convolution.cpp: _convolution; cudnn/ConvShared.cpp"
    ),
    "convolution_backward": Temporary(
        _in_format_of(0, 1, 2), "gradient, input and weight in one format", "Convolution.cpp: convolution_backward"
    ),
    "native_batch_norm": Temporary(_in_format_of(0), _COPY, "cudnn/BatchNorm.cpp: cudnn_batch_norm"),
    "native_batch_norm_backward": Temporary(
        _in_format_of(0, 1), "gradient and input in one format", "cudnn/BatchNorm.cpp: cudnn_batch_norm_backward"
    ),
    "native_layer_norm": Temporary(_contiguous(0), _COPY, "cuda/layer_norm_kernel.cu: layer_norm_cuda"),
    "native_layer_norm_backward": Temporary(
        _layer_norm_backward,
        "copies; beyond 65536 rows partial sums for weight and bias",
        "cuda/layer_norm_kernel.cu: layer_norm_backward_cuda, LaunchGammaBetaBackwardCUDAKernel",
    ),
    "native_group_norm": Temporary(
        _group_norm, "scale and shift per channel", "cuda/group_norm_kernel.cu: GroupNormKernelImplInternal"
    ),
    "native_group_norm_backward": Temporary(
        _group_norm_backward, "sums per channel and group", "cuda/group_norm_kernel.cu: GroupNormBackwardKernelImplInternal"
    ),
    "index_put": Temporary(_index_put, "sorting where it adds", "cuda/Indexing.cu: index_put_with_sort_kernel"),
    "index_put_": Temporary(_index_put, "sorting where it adds", "cuda/Indexing.cu: index_put_with_sort_kernel"),
    "embedding_dense_backward": Temporary(
        _embedding_backward,
        "copies; sorting; partial sums",
        "cuda/Embedding.cu: embedding_dense_backward_cuda; cuda/EmbeddingBackwardKernel.cu: embedding_backward_cuda_kernel",
    ),
    "sort": Temporary(_sort, "a range, or copies with the dimension innermost", "cuda/Sort.cpp: sort_cuda_kernel"),
    "topk": Temporary(_contiguous(0), _COPY, "cuda/TensorTopK.cu: launch_gather_topk_kernel"),
    "cumsum": Temporary(_contiguous(0), _COPY, "cuda/ScanUtils.cuh: scan_dim"),
    "im2col": Temporary(_contiguous(0), _COPY, "cuda/Im2Col.cu: im2col_out_cuda_template"),
    "col2im": Temporary(_contiguous(0), _COPY, "cuda/Col2Im.cu: col2im_out_cuda_template"),
    "affine_grid_generator": Temporary(_affine_grid, "the base grid", "AffineGridGenerator.cpp: make_base_grid_4D, _5D"),
    "upsample_bilinear2d_backward": Temporary(
        _in_format_of(0), _COPY, "cuda/UpSampleBilinear2d.cu: upsample_bilinear2d_backward_out_cuda_template"
    ),
    "avg_pool2d": Temporary(_in_format_of(0), _COPY, "cuda/AveragePool2d.cu: avg_pool2d_out_cuda"),
    "max_pool2d_with_indices": Temporary(_in_format_of(0), _COPY, "cuda/DilatedMaxPool2d.cu: max_pool2d_with_indices_out_cuda"),
    "avg_pool2d_backward": _POOL_BACKWARD,
    "_adaptive_avg_pool2d_backward": _POOL_BACKWARD,
    "_scaled_dot_product_efficient_attention": Temporary(
        _efficient,
        "float32 accumulator of wide heads",
        "transformers/cuda/attention.cu: _efficient_attention_forward; mem_eff_attention/kernel_forward.h",
    ),
    "_scaled_dot_product_efficient_attention_backward": Temporary(
        _efficient_backward,
        "a copy, delta, accumulators",
        "transformers/cuda/attention_backward.cu: _efficient_attention_backward; mem_eff_attention/kernel_backward.h",
    ),
    "_scaled_dot_product_flash_attention_backward": Temporary(
        _flash_backward,
        "copies, dq_accum, softmax_d",
        "transformers/cuda/attention_backward.cu: _flash_attention_backward; cuda/flash_attn/flash_api.cpp: mha_bwd",
    ),
}

NOT_MODELLED: dict[str, str] = {
    "cuBLAS and cuBLASLt workspaces": "taken from the caching allocator once per handle and stream, kept: 8,519,680 bytes, 32"
    " MiB on compute capability 9.0, or as CUBLAS_WORKSPACE_CONFIG says; after a warm-up pass they are in what was allocated"
    " before (aten/src/ATen/cuda/CublasHandlePool.cpp: parseChosenWorkspaceSize, getCurrentCUDABlasHandle)",
    "cuDNN workspaces and batch norm reserves": "their size is the choice of cuDNN's heuristics for the algorithm, by GPU and"
    " version (cudnn/Conv_v7.cpp, cudnn/Conv_v8.cpp, cudnn/BatchNorm.cpp)",
    "staging buffers of reductions": "their size goes by the number of multiprocessors, small beside what is reduced"
    " (cuda/Reduce.cuh: ReduceConfig::global_memory_size)",
    "segmented sort": "buffers of cub by GPU and version (cuda/Sort.cu, cuda/SortStable.cu)",
    "backward of EmbeddingBag": "sorting and partial sums as embedding's, by its own code, not read (EmbeddingBag.cu)",
    "split-KV attention": "accumulators of flash attention where batch x heads x blocks do not fill the multiprocessors"
    " (transformers/cuda/flash_attn/flash_api.cpp: set_params_splitkv)",
    "cuDNN attention": "half types on compute capability 9.0 and 10.0 go to cuDNN above version 9.15: outputs of the same"
    " size, another workspace (transformers/cuda/sdp_utils.cpp: check_prefer_cudnn_attention)",
    "slow convolutions": "columns of im2col: not reached where cuDNN is there (Convolution.cpp: _select_conv_backend)",
    "grid sampling": "nothing to model: grid_sampler_2d and its backward read strided tensors (cuda/GridSampler.cu)",
    "random state of dropout in attention": "two 8-byte numbers, which are outputs of the op and so in the trace",
    "LAPACK-like ops": "workspaces of cuSOLVER and MAGMA (linalg/BatchLinearAlgebra.cpp)",
}


def size_for(name: str) -> Size | None:
    """The size(args, out) of scratch that the CUDA kernel of this op takes; None where it takes none that is known."""
    row = KERNEL_TEMPORARIES.get(name)
    return None if row is None else row.size
