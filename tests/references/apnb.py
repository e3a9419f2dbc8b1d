"""Asymmetric pyramid non-local block, sample by sample (Zhu et al., section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"grids": (1, 2), "key_channels": 6, "value_channels": 10}, {"dropout": 0.0})


def samples(x: Tensor, grids: Sequence[int]) -> list[Tensor]:
    """Mean of each cell of each grid, B C: cell i of n covers rows floor(i H / n) to ceil((i + 1) H / n), columns alike."""
    height, width = x.shape[2:]
    found = []
    for n in grids:
        for i in range(n):
            for j in range(n):
                rows = range(i * height // n, -(-(i + 1) * height // n))
                columns = range(j * width // n, -(-(j + 1) * width // n))
                cell = [x[:, :, row, column] for row in rows for column in columns]
                found.append(torch.stack(cell).sum(dim=0) / len(cell))
    return found


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    grids: Sequence[int] = (1, 3, 6, 8),
    key_channels: int | None = None,
    value_channels: int | None = None,
    dropout: float = 0.05,
) -> Tensor:
    """c_i = W sum_s softmax_s(q_i . k_s / sqrt(K)) v_s over the pooled samples s."""
    channels = x.shape[1]
    keys = channels // 2 if key_channels is None else key_channels
    query = batch_norm(p, "key_bn", conv1x1(p, "key", x), training).clamp(min=0)
    key = samples(query, grids)
    value = samples(conv1x1(p, "value", x), grids)
    scores = torch.stack([torch.einsum("bchw,bc->bhw", query, k_s) for k_s in key]) / keys**0.5
    weights = torch.exp(scores - scores.amax(dim=0))
    weights = weights / weights.sum(dim=0)
    context = torch.stack([torch.einsum("bhw,bc->bchw", w_s, v_s) for w_s, v_s in zip(weights, value, strict=True)]).sum(dim=0)
    y = conv1x1(p, "fuse", torch.cat([conv1x1(p, "w", context), x], dim=1))
    y = batch_norm(p, "fuse_bn", y, training).clamp(min=0)
    if training and dropout > 0:
        keep = torch.empty(*y.shape[:2], 1, 1, dtype=y.dtype).bernoulli_(1 - dropout)
        y = y * keep / (1 - dropout)
    return y
