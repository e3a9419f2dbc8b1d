"""Which fused kernels of F.scaled_dot_product_attention take a call, and the rule by which the others refuse it.

The rules are those of aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, sdp_utils_cpp.cpp and sdp_utils_cpp.h, named in
tests/profiling/test_attention.py. A kernel with an empty reason takes the call; the first one that does runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)
_NAMES = ("q", "k", "v")


def refusals(query: Tensor, key: Tensor, value: Tensor, options: Any, target: str) -> dict[str, str]:
    """{kernel: why it refuses these arguments, '' where it takes them}, in the order in which `target` asks them.

    `options` has mask, dropout, causal and gqa; target is 'cuda' or 'cpu'.
    """
    if target == "cpu":
        return {"flash_for_cpu": _cpu_flash(query, key, value, options)}
    return {"flash": _flash(query, key, value, options), "efficient": _efficient(query, key, value, options)}


def told(reasons: dict[str, str]) -> str:
    """The reasons in one line, those that two kernels share once."""
    kernels: dict[str, list[str]] = {}
    for kernel, reason in reasons.items():
        kernels.setdefault(reason, []).append(kernel)
    return "; ".join(f"{' and '.join(names)}: {reason}" for reason, names in kernels.items())


def shapes(query: Tensor, key: Tensor, value: Tensor) -> str:
    """'q 1x8x196x8, k 1x2x196x8, v 1x2x196x8, float32'."""
    texts = (f"{name} {'x'.join(map(str, t.shape))}" for name, t in zip(_NAMES, (query, key, value), strict=True))
    return f"{', '.join(texts)}, {_dtype(query)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _fused_shapes(query: Tensor, key: Tensor, value: Tensor, gqa: bool, single: bool = True) -> str:
    """4-D, one batch size, equal heads (or whole groups with GQA), nothing empty, last dimension contiguous.

    `single`: a last dimension of one element may have any stride.
    """
    tensors = (query, key, value)
    for name, t in zip(_NAMES, tensors, strict=True):
        if t.dim() != 4:
            return f"{name} is {t.dim()}-D, not (batch, heads, tokens, size)"
        if t.numel() == 0:
            return f"{name} is empty"
    strided = [name for name, t in zip(_NAMES, tensors, strict=True) if t.stride(3) != 1 and (t.shape[3] != 1 or not single)]
    if strided:
        return f"the last dimension of {_listed(strided)} is not contiguous (.contiguous() makes it so)"
    if len({t.shape[0] for t in tensors}) != 1:
        return f"the batch sizes differ ({_sizes(tensors, 0)})"
    if len({t.dtype for t in tensors}) != 1:
        return f"the dtypes differ ({', '.join(map(_dtype, tensors))})"
    if gqa:
        if key.shape[1] == value.shape[1] and query.shape[1] % key.shape[1] == 0:
            return ""
        return f"the heads are not whole groups ({_sizes(tensors, 1)})"
    if query.shape[1] == key.shape[1] == value.shape[1]:
        return ""
    return f"the heads differ ({_sizes(tensors, 1)})"


def _flash(query: Tensor, key: Tensor, value: Tensor, options: Any) -> str:
    if query.dtype not in _HALF:
        return f"{_dtype(query)}, it takes float16 and bfloat16"
    if options.mask is not None:
        return "a mask, it takes none"
    if reason := _fused_shapes(query, key, value, options.gqa):
        return reason
    if len({t.shape[-1] for t in (query, key, value)}) != 1:
        return f"the head sizes differ ({_sizes((query, key, value), 3)})"
    if query.shape[-1] > 256:
        return f"the head size {query.shape[-1]} is over 256"
    if options.causal and query.shape[2] != key.shape[2]:
        return "causal with as many queries as keys only"
    return ""


def _efficient(query: Tensor, key: Tensor, value: Tensor, options: Any) -> str:
    alignment = 8 if query.dtype in _HALF else 4
    if query.dtype not in (*_HALF, torch.float32):
        return f"{_dtype(query)}, it takes float32, float16 and bfloat16"
    if reason := _fused_shapes(query, key, value, gqa=False, single=False):
        groups = options.gqa and reason.startswith("the heads differ")
        return f"{reason}: it takes no enable_gqa (k and v expanded to the heads of q would do)" if groups else reason
    if options.mask is not None and options.mask.stride(-1) != 1:
        return "the last dimension of the mask is not contiguous"
    if query.shape[3] != key.shape[3]:
        return f"the head sizes of q and k differ ({query.shape[3]}, {key.shape[3]})"
    for name, t in (("q and k", query), ("v", value)):
        if t.shape[3] % alignment != 0:
            return f"the head size of {name}, {t.shape[3]}, is not a multiple of {alignment}"
    return ""


def _cpu_flash(query: Tensor, key: Tensor, value: Tensor, options: Any) -> str:
    mask = options.mask
    if mask is not None and mask.dim() not in (2, 4):
        return f"a mask of {mask.dim()} dimensions, it takes 2 or 4"
    if mask is not None and mask.requires_grad:
        return "a mask that is trained"
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, query.dtype):
        return f"a mask of {_dtype(mask)}"
    if query.dtype not in (*_HALF, torch.float32, torch.float64):
        return _dtype(query)
    if options.dropout != 0.0:
        return "dropout"
    if reason := _fused_shapes(query, key, value, options.gqa, single=False):
        return reason
    if query.shape[3] == key.shape[3] == value.shape[3]:
        return ""
    return f"the head sizes differ ({_sizes((query, key, value), 3)})"


def _sizes(tensors: tuple[Tensor, ...], dim: int) -> str:
    return ", ".join(f"{name} {t.shape[dim]}" for name, t in zip(_NAMES, tensors, strict=True))


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
