"""Which kernel scaled dot-product attention runs, and composite ops that a dispatch mode would change.

On meta tensors F.scaled_dot_product_attention decomposes to the math path: right MACs, wrong memory (50 times too much for a
multi-head attention at 97x97). While a trace runs the op is overridden for meta tensors and sent to the fused ATen op that the
target would choose, by torch's own rules (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp and sdp_utils_cpp.cpp):

    target cuda   flash (float16/bfloat16, no mask, head size <= 256), else efficient (fused for float32 too), else math
    target cpu    flash_for_cpu, else math

The rules that ask for a GPU are taken as compute capability 8.0 or 9.0 answers them; 8.6 to 8.9 and 12.x send training with
heads of 193 to 224 (to 256 with dropout) to another kernel than flash. Where torch prefers cuDNN's attention (half types, 9.0
and 10.0, cuDNN above 9.15) flash stands for it: outputs of the same size.
`sdpa='math'` or `'fused'` forces it. `linear` is overridden as well: under a dispatch mode torch adds the bias of a
non-contiguous input out of place, while eager adds it in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from attnprof.errors import UsageError
from attnprof.profiling.counting import kernels

aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
BACKENDS = ("auto", "math", "fused")


@contextmanager
def overrides(
    target: str, sdpa: str, real: bool = False, fake: bool = False, on_math: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Within: SDPA on meta tensors takes the kernel of `target`, `linear` is eager's own (for a real run on the CPU as well),
    and nn.MultiheadAttention's opaque fast path is off. `fake`: fake CPU tensors are treated as meta tensors are.
    `on_math` hears of every call that goes to the math path: its shapes, and the rule of each fused kernel that refused it.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    library = Library("aten", "IMPL")

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        options = _Options(attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return _attend(query, key, value, options, target, sdpa, on_math)

    torch.backends.mha.set_fastpath_enabled(False)
    try:
        library.impl("scaled_dot_product_attention", attention, "AutogradMeta")
        library.impl("linear", _linear, "AutogradMeta")
        if fake:  # fake tensors of the CPU stand for those of the target
            library.impl("scaled_dot_product_attention", attention, "AutogradCPU")
        if real:
            library.impl("linear", _linear, "AutogradCPU")
        yield
    finally:
        library._destroy()
        torch.backends.mha.set_fastpath_enabled(fastpath)


class _Options:
    """The arguments of SDPA beside q, k and v."""

    __slots__ = ("causal", "dropout", "gqa", "mask", "scale")

    def __init__(self, mask: Tensor | None, dropout: float, causal: bool, scale: float | None, gqa: bool) -> None:
        self.mask, self.dropout, self.causal, self.scale, self.gqa = mask, dropout, causal, scale, gqa


def choose(query: Tensor, key: Tensor, value: Tensor, options: Any, target: str, sdpa: str) -> str:
    """'flash', 'efficient', 'flash_for_cpu' or 'math': the kernel that `target` runs for these arguments."""
    if sdpa == "math":
        return "math"
    reasons = kernels.refusals(query, key, value, options, target)
    kernel = next((kernel for kernel, reason in reasons.items() if not reason), "math")
    if sdpa == "fused" and kernel == "math":
        raise UsageError(
            f"sdpa: fused was asked for, but no fused kernel takes this call ({kernels.shapes(query, key, value)}): "
            f"{kernels.told(reasons)}. Use sdpa: auto or math."
        )
    return kernel


def _needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, options: _Options, target: str, sdpa: str, on_math: Callable[[str], None] | None
) -> Tensor:
    kernel = choose(query, key, value, options, target, sdpa)
    if kernel == "math" and on_math is not None:
        asked = sdpa == "math"
        reason = "sdpa=math was asked for" if asked else kernels.told(kernels.refusals(query, key, value, options, target))
        on_math(f"{kernels.shapes(query, key, value)}: {reason}")
    mask = options.mask
    if mask is not None and mask.dtype == torch.bool:
        mask = _as_bias(mask, query)
    out: Tensor
    if kernel == "math":
        out, _ = torch._scaled_dot_product_attention_math(
            query, key, value, mask, options.dropout, options.causal, scale=options.scale, enable_gqa=options.gqa
        )
    elif kernel == "flash":
        out = _flash_padded(query, key, value, options)
    elif kernel == "efficient":
        if mask is not None:
            mask = _aligned(mask).expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        save = _needs_grad(query, key, value, mask)
        out, *_ = aten._scaled_dot_product_efficient_attention(
            query, key, value, mask, save, options.dropout, options.causal, scale=options.scale
        )
    else:
        out, _ = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, options.dropout, options.causal, attn_mask=mask, scale=options.scale
        )
    return out


def _as_bias(mask: Tensor, query: Tensor) -> Tensor:
    """A boolean mask as the kernels want it: 0 where it lets pass, -inf elsewhere."""
    closed = torch.scalar_tensor(-math.inf, dtype=query.dtype, device=query.device)
    return torch.where(mask, torch.scalar_tensor(0.0, dtype=query.dtype, device=query.device), closed)


def _aligned(mask: Tensor) -> Tensor:
    """The efficient kernel wants rows of a mask 8 elements apart or multiples of that: others are padded (preprocess_mask)."""
    if all(step % 8 == 0 for step in mask.stride()[:-1]):
        return mask
    size = mask.shape[-1]
    return torch.nn.functional.pad(mask, (0, 8 - size % 8))[..., :size]


def _flash_padded(query: Tensor, key: Tensor, value: Tensor, options: _Options) -> Tensor:
    """The flash kernel wants head sizes that are multiples of 8: torch pads, and slices the output."""
    size = query.shape[3]
    scale = options.scale if options.scale is not None else 1 / math.sqrt(size)
    if size % 8:
        query, key, value = (torch.nn.functional.pad(t, (0, 8 - size % 8)) for t in (query, key, value))
    out: Tensor = aten._scaled_dot_product_flash_attention(
        query, key, value, options.dropout, options.causal, False, scale=scale
    )[0]
    return out[..., :size] if size % 8 else out


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """aten::linear as eager runs it (aten/src/ATen/native/Linear.cpp)."""
    if bias is None:
        return torch.matmul(x, weight.t())
    if x.dim() == 2:
        return torch.addmm(bias, x, weight.t())
    if x.dim() == 3 and x.is_contiguous() and not x.is_cuda:
        flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight.t())
        return flat.view(*x.shape[:-1], flat.shape[-1])
    return torch.matmul(x, weight.t()).add_(bias)
