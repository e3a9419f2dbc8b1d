"""CBAM, channel by channel and pixel by pixel (Woo et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm

SHAPE = (64, 5, 7)
VARIANTS = ({"norm": False, "bias": False, "kernel": 3}, {"reduction": 4})


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    reduction: int = 16,
    kernel: int = 7,
    bias: bool = True,
    norm: bool = True,
) -> Tensor:
    """F' = M_c(F) F, F'' = M_s(F') F'; the mean and the largest of a channel go through the same two layers."""
    batch, channels, height, width = x.shape
    pixels = [(i, j) for i in range(height) for j in range(width)]
    average = torch.stack([x[:, :, i, j] for i, j in pixels]).sum(dim=0) / (height * width)
    largest = x[:, :, 0, 0]
    for i, j in pixels:
        largest = torch.where(x[:, :, i, j] > largest, x[:, :, i, j], largest)
    logits = torch.zeros_like(average)
    for pooled in (average, largest):
        hidden = torch.einsum("kc,bc->bk", p["squeeze.weight"], pooled)
        hidden = torch.relu(hidden + p["squeeze.bias"]) if bias else torch.relu(hidden)
        assert hidden.shape[1] == channels // reduction
        logits = logits + torch.einsum("ck,bk->bc", p["excite.weight"], hidden)
        logits = logits + p["excite.bias"] if bias else logits
    refined = torch.stack([x[:, c] / (1 + torch.exp(-logits[:, c]))[:, None, None] for c in range(channels)], dim=1)
    most = refined[:, 0]
    for c in range(1, channels):
        most = torch.where(refined[:, c] > most, refined[:, c], most)
    mean = torch.stack([refined[:, c] for c in range(channels)]).sum(dim=0) / channels
    weight, reach = p["conv.weight"][0], kernel // 2
    rows = []
    for i in range(height):
        row = []
        for j in range(width):
            total = torch.zeros(batch, dtype=x.dtype)
            for a in range(max(0, i - reach), min(height, i + reach + 1)):
                for b in range(max(0, j - reach), min(width, j + reach + 1)):
                    u, v = a - i + reach, b - j + reach
                    total = total + weight[0, u, v] * most[:, a, b] + weight[1, u, v] * mean[:, a, b]
            row.append(total)
        rows.append(torch.stack(row, dim=1))
    scores = torch.stack(rows, dim=1)[:, None]
    if norm:
        scores = batch_norm(p, "bn", scores, training)
    return refined / (1 + torch.exp(-scores))
