"""Base object context, query by query (Yuan and Wang, base-OC)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"key_channels": 6, "value_channels": 10}, {"dropout": 0.0})


def leaky(x: Tensor) -> Tensor:
    """x where positive, 0.01 x elsewhere."""
    return torch.where(x > 0, x, 0.01 * x)


def dropped(x: Tensor, rate: float, training: bool) -> Tensor:
    """Whole channels kept with probability 1 - rate and rescaled, in training."""
    if not training or rate == 0:
        return x
    keep = torch.empty(*x.shape[:2], 1, 1, dtype=x.dtype).bernoulli_(1 - rate)
    return x * keep / (1 - rate)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    key_channels: int | None = None,
    value_channels: int | None = None,
    dropout: float = 0.05,
) -> Tensor:
    """c_i = W sum_j exp(q_i . q_j / sqrt(K)) v_j / sum_j exp(q_i . q_j / sqrt(K));  y = act(BN(U [c, x]))."""
    batch, channels, height, width = x.shape
    keys = channels // 2 if key_channels is None else key_channels
    shared = leaky(batch_norm(p, "key_bn", conv1x1(p, "key", x), training))
    value = conv1x1(p, "value", x)
    images = []
    for b in range(batch):
        pixels = []
        for i in range(height):
            for j in range(width):
                logits = torch.einsum("c,chw->hw", shared[b, :, i, j], shared[b]) / keys**0.5
                scores = torch.exp(logits - logits.max())
                pixels.append(torch.einsum("hw,chw->c", scores / scores.sum(), value[b]))
        images.append(torch.stack(pixels, dim=1).reshape(-1, height, width))
    context = conv1x1(p, "w", torch.stack(images))
    weight = p["fuse.weight"].flatten(1)
    fused = torch.einsum("oc,bchw->bohw", weight[:, :channels], context)
    fused = fused + torch.einsum("oc,bchw->bohw", weight[:, channels:], x) + p["fuse.bias"][:, None, None]
    return dropped(leaky(batch_norm(p, "fuse_bn", fused, training)), dropout, training)
