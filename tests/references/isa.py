"""Interlaced sparse self-attention: groups by their coordinates, one after the other (Huang et al., section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"down_factor": 3}, {"down_factor": 4, "key_channels": 6, "value_channels": 10}, {"dropout": 0.0})
SHAPE = (32, 9, 10)


def conv_bn_relu(p: Params, name: str, first: int, x: Tensor, training: bool) -> Tensor:
    """Layers `first`, `first` + 1 and ReLU of a sequence."""
    return torch.relu(batch_norm(p, f"{name}.{first + 1}", conv1x1(p, f"{name}.{first}", x), training))


def attention(p: Params, name: str, x: Tensor, group: Tensor, training: bool) -> Tensor:
    """Attention of each position on those of its own group; x B C H W, group H*W numbers."""
    query, key = (
        conv_bn_relu(p, f"{name}.{part}", 3, conv_bn_relu(p, f"{name}.{part}", 0, x, training), training).flatten(2)
        for part in ("query", "key")
    )
    value = conv1x1(p, f"{name}.value", x).flatten(2)
    context = torch.zeros_like(value)
    for number in range(int(group.max()) + 1):
        own = (group == number).nonzero().flatten()
        logits = torch.einsum("bci,bcj->bij", query[:, :, own], key[:, :, own]) / math.sqrt(query.shape[1])
        weights = torch.exp(logits - logits.amax(dim=2, keepdim=True))
        weights = weights / weights.sum(dim=2, keepdim=True)
        context[:, :, own] = torch.einsum("bij,bcj->bci", weights, value[:, :, own])
    return conv_bn_relu(p, f"{name}.out", 0, context.view(*value.shape[:2], *x.shape[2:]), training)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    down_factor: int = 8,
    key_channels: int | None = None,
    value_channels: int | None = None,
    dropout: float = 0.05,
) -> Tensor:
    """Among equal remainders by P, then among equal quotients, of the map with zeros on both sides; then the fusion."""
    batch, channels, height, width = x.shape
    tall, wide = (math.ceil(size / down_factor) * down_factor for size in (height, width))
    top, left = (tall - height) // 2, (wide - width) // 2
    y = torch.zeros(batch, channels, tall, wide, dtype=x.dtype)
    y[:, :, top : top + height, left : left + width] = x
    rows, columns = torch.arange(tall)[:, None], torch.arange(wide)[None, :]
    remainders = (rows % down_factor) * down_factor + columns % down_factor
    quotients = (rows // down_factor) * (wide // down_factor) + columns // down_factor
    y = attention(p, "long_range", y, remainders.flatten(), training)
    y = attention(p, "short_range", y, quotients.flatten(), training)
    context = y[:, :, top : top + height, left : left + width]
    weight = p["fuse.0.weight"].flatten(1)
    fused = torch.einsum("oc,bchw->bohw", weight[:, :channels], x)
    fused = fused + torch.einsum("oc,bchw->bohw", weight[:, channels:], context)
    fused = torch.relu(batch_norm(p, "fuse.1", fused, training))
    if not training or dropout == 0:
        return fused
    keep = torch.empty(batch, channels, 1, 1, dtype=x.dtype).bernoulli_(1 - dropout)
    return fused * keep / (1 - dropout)
