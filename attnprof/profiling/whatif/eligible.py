"""Calls of F.scaled_dot_product_attention that no fused kernel takes, given to one with their arguments laid out for it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnprof.profiling.counting import kernels
from attnprof.profiling.whatif.follow import Follower, line_of

_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


@dataclass(frozen=True)
class _Call:
    """The arguments of a call; the names that `kernels` reads beside q, k and v."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    dropout: float
    causal: bool
    scale: float | None
    gqa: bool

    def run(self) -> Tensor:
        return functional.scaled_dot_product_attention(
            self.query, self.key, self.value, self.mask, self.dropout, self.causal, scale=self.scale, enable_gqa=self.gqa
        )

    def refused(self, target: str) -> bool:
        return all(kernels.refusals(self.query, self.key, self.value, self, target).values())


class Eligible(TorchFunctionMode):
    """The mode. `done` says for each line what was done to the arguments of the call there that a fused kernel now takes."""

    def __init__(self, tracer: Follower, target: str) -> None:
        super().__init__()
        self.tracer = tracer
        self.target = target
        self.done: dict[str, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        call = _call(args, kwargs)
        if not call.refused(self.target):
            return func(*args, **kwargs)
        counting, self.tracer.counting = self.tracer.counting, False
        try:
            with torch.no_grad():
                takes = not _laid_out(call, self.target)[0].refused(self.target)
        finally:
            self.tracer.counting = counting
        if not takes:
            return func(*args, **kwargs)
        laid, done = _laid_out(call, self.target)
        self.done[line_of(sys._getframe())] = ", ".join(done)
        out = laid.run()
        return out.squeeze(1) if call.query.dim() == 3 else out


def _call(args: Any, kwargs: Any) -> _Call:
    given = dict(zip(_NAMES, args, strict=False)) | kwargs
    return _Call(
        given["query"],
        given["key"],
        given["value"],
        given.get("attn_mask"),
        given.get("dropout_p", 0.0),
        given.get("is_causal", False),
        given.get("scale"),
        given.get("enable_gqa", False),
    )


def _laid_out(call: _Call, target: str) -> tuple[_Call, list[str]]:
    """The call with what may keep a kernel away put right, and each such thing in words."""
    done = []
    query, key, value, mask, gqa = call.query, call.key, call.value, call.mask, call.gqa
    if query.dim() == key.dim() == value.dim() == 3:
        query, key, value = (tensor.unsqueeze(1) for tensor in (query, key, value))
        mask = mask.unsqueeze(1) if mask is not None and mask.dim() == 3 else mask
        done.append("q, k and v with a dimension of heads (unsqueeze)")
    heads = [tensor.shape[1] for tensor in (key, value)] if query.dim() == key.dim() == value.dim() == 4 else []
    if gqa and target == "cuda" and heads and all(query.shape[1] % n == 0 and query.shape[1] != n for n in heads):
        key, value = (tensor.repeat_interleave(query.shape[1] // n, 1) for tensor, n in zip((key, value), heads, strict=True))
        gqa = False
        done.append("k and v expanded to the heads of q (repeat_interleave)")
    strided = [name for name, tensor in zip("qkv", (query, key, value), strict=True) if tensor.stride(-1) != 1]
    if strided:
        query, key, value = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (query, key, value))
        done.append(f"a contiguous copy of {', '.join(strided)}")
    if mask is not None and mask.stride(-1) != 1:
        mask = mask.contiguous()
        done.append("a contiguous copy of the mask")
    return replace(call, query=query, key=key, value=value, mask=mask, gqa=gqa), done
