"""Stand-alone self-attention, position by position over the neighbours that there are (Ramachandran et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = (
    {"kernel": 3, "heads": 4},
    {"relative": False},
    {"kernel": 5, "mask_border": False},
)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    kernel: int = 7,
    heads: int = 8,
    relative: bool = True,
    mask_border: bool = True,
) -> Tensor:
    """y_i = sum_j exp(q_i . (k_j + r_{j-i})) v_j / sum_j exp(q_i . (k_j + r_{j-i})) per head."""
    batch, channels, height, width = x.shape
    size, radius = channels // heads, kernel // 2
    query, key, value = (conv1x1(p, name, x).reshape(batch, heads, size, height, width) for name in ("query", "key", "value"))
    nothing = torch.zeros_like(key[..., 0, 0])
    out = torch.zeros_like(query)
    for y in range(height):
        for z in range(width):
            logits, values = [], []
            for dy in range(-radius, radius + 1):
                for dz in range(-radius, radius + 1):
                    inside = 0 <= y + dy < height and 0 <= z + dz < width
                    if mask_border and not inside:
                        continue
                    k = key[..., y + dy, z + dz] if inside else nothing
                    if relative:
                        k = k + torch.cat([p["rows"][:, :, dy + radius], p["columns"][:, :, dz + radius]], dim=1)
                    logits.append((query[..., y, z] * k).sum(dim=2))
                    values.append(value[..., y + dy, z + dz] if inside else nothing)
            weights = torch.stack(logits).exp()
            total = (weights[..., None] * torch.stack(values)).sum(dim=0)
            out[..., y, z] = total / weights.sum(dim=0)[..., None]
    return out.reshape(x.shape)
