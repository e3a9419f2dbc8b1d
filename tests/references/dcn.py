"""Deformable convolution, kernel point by kernel point (Dai et al., section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (16, 5, 7)
VARIANTS = ({"out": 6, "dilation": 2, "offset_groups": 4}, {"kernel": 5, "out": 8}, {"kernel": 1})


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    out: int | None = None,
    kernel: int = 3,
    dilation: int = 1,
    offset_groups: int = 1,
) -> Tensor:
    """y(p) = sum_n W_n sum_q G(q, p + p_n + o_n(p)) x(q), G(q, p) = max(0, 1 - |q_y - p_y|) max(0, 1 - |q_x - p_x|)."""
    height, width = x.shape[2:]
    reach = kernel // 2
    offsets = p["offset.bias"].reshape(1, -1, 1, 1)
    for i in range(kernel):
        for j in range(kernel):
            moved = shifted(x, (i - reach) * dilation, (j - reach) * dilation)
            offsets = offsets + torch.einsum("oc,bchw->bohw", p["offset.weight"][:, :, i, j], moved)
    rows = torch.arange(height, dtype=x.dtype)
    columns = torch.arange(width, dtype=x.dtype)
    y = torch.zeros((), dtype=x.dtype)
    for g, (part, weight) in enumerate(
        zip(x.chunk(offset_groups, dim=1), p["weight"].chunk(offset_groups, dim=1), strict=True)
    ):
        for i in range(kernel):
            for j in range(kernel):
                pair = 2 * (g * kernel**2 + i * kernel + j)
                at_row = rows[:, None] + (i - reach) * dilation + offsets[:, pair]  # B H W
                at_column = columns + (j - reach) * dilation + offsets[:, pair + 1]  # B H W
                near_row = torch.relu(1 - (at_row[..., None] - rows).abs())  # B H W H
                near_column = torch.relu(1 - (at_column[..., None] - columns).abs())  # B H W W
                sampled = torch.einsum("bhwp,bhwq,bcpq->bchw", near_row, near_column, part)
                y = y + torch.einsum("oc,bchw->bohw", weight[:, :, i, j], sampled)
    return y


def shifted(x: Tensor, down: int, right: int) -> Tensor:
    """x(i + down, j + right), zero outside the map."""
    height, width = x.shape[2:]
    out = torch.zeros_like(x)
    for i in range(max(0, -down), min(height, height - down)):
        for j in range(max(0, -right), min(width, width - right)):
            out[:, :, i, j] = x[:, :, i + down, j + right]
    return out
