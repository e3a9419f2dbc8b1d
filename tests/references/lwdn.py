"""Locally-weighted deformable neighbours from all pairs of positions (Jiang et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (16, 4, 5)
VARIANTS = (
    {"correlation": 0, "low_channels": 6, "mid": 8},
    {"kernel": 5, "correlation": 1, "mid": 8},
    {"update": True, "correlation": 1, "mid": 8},
)


def reference(
    p: Params,
    key: Tensor,
    low_key: Tensor,
    low_current: Tensor,
    *current: Tensor,
    training: bool,
    kernel: int = 3,
    correlation: int = 4,
    mid: int = 256,
    low_channels: int | None = None,
    update: bool = False,
) -> Tensor:
    """y(p) = sum_n softmax_n(a_n(p)) sum_q max(0, 1 - |q_y - r_y|) max(0, 1 - |q_x - r_x|) f(q), r = p + p_n + o_n(p)."""
    height, width = key.shape[2:]
    pair = compared(low_key, low_current, correlation) if correlation else torch.cat([low_key, low_current], dim=1)
    predicted = conv(p, "predict.2", torch.relu(conv(p, "predict.0", pair)))
    weights = torch.exp(predicted[:, : kernel**2])
    weights = weights / weights.sum(dim=1, keepdim=True)
    rows, columns = torch.arange(height, dtype=key.dtype), torch.arange(width, dtype=key.dtype)
    y = torch.zeros((), dtype=key.dtype)
    for n in range(kernel**2):
        down = rows[:, None] + n // kernel - kernel // 2 + predicted[:, kernel**2 + 2 * n]  # B H W
        right = columns + n % kernel - kernel // 2 + predicted[:, kernel**2 + 2 * n + 1]  # B H W
        near_row = torch.relu(1 - (down[..., None] - rows).abs())  # B H W H
        near_column = torch.relu(1 - (right[..., None] - columns).abs())  # B H W W
        y = y + weights[:, n, None] * torch.einsum("bhwp,bhwq,bcpq->bchw", near_row, near_column, key)
    if not update:
        return y
    memory, fresh = (torch.exp(quality(p, source)) for source in (y, current[0]))
    return (memory * y + fresh * current[0]) / (memory + fresh)


def quality(p: Params, x: Tensor) -> Tensor:
    hidden = torch.relu(conv(p, "quality.0", x))
    return torch.einsum("oc,bchw->bohw", p["quality.2.weight"][:, :, 0, 0], hidden)


def compared(low_key: Tensor, low_current: Tensor, radius: int) -> Tensor:
    """Mean product of the channels at p in the current map and p + d in the key map, d row by row, 0 outside the map."""
    batch, channels, height, width = low_key.shape
    every = torch.einsum("bcij,bcpq->bijpq", low_current, low_key) / channels
    maps = []
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            lines = []
            for i in range(height):
                line = []
                for j in range(width):
                    inside = 0 <= i + down < height and 0 <= j + right < width
                    line.append(every[:, i, j, i + down, j + right] if inside else every.new_zeros(batch))
                lines.append(torch.stack(line, dim=1))
            maps.append(torch.stack(lines, dim=1))
    return torch.stack(maps, dim=1)


def conv(p: Params, name: str, x: Tensor) -> Tensor:
    """A 3x3 convolution as a sum over neighbours, zero outside the map."""
    weight = p[f"{name}.weight"]
    height, width = x.shape[2:]
    lines = []
    for i in range(height):
        line = []
        for j in range(width):
            total = p[f"{name}.bias"]
            for a in range(max(0, i - 1), min(height, i + 2)):
                for b in range(max(0, j - 1), min(width, j + 2)):
                    total = total + x[:, :, a, b] @ weight[:, :, a - i + 1, b - j + 1].T
            line.append(total)
        lines.append(torch.stack(line, dim=2))
    return torch.stack(lines, dim=2)
