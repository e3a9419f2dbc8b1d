"""Asymmetric fusion non-local block, pixel by pixel (Zhu et al., section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"low_channels": 10, "key_channels": 6, "value_channels": 7, "grids": (1, 2)}, {"dropout": 0.0})


def pooling(size: int, cells: int, like: Tensor) -> Tensor:
    """cells x size: row i averages entries floor(i size / cells) to ceil((i + 1) size / cells)."""
    matrix = like.new_zeros(cells, size)
    for i in range(cells):
        start, end = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def samples(x: Tensor, grids: Sequence[int]) -> Tensor:
    """B C S: for each grid, average along rows and along columns by matrices."""
    height, width = x.shape[2:]
    pooled = [torch.einsum("ih,jw,bchw->bcij", pooling(height, n, x), pooling(width, n, x), x) for n in grids]
    return torch.cat([part.flatten(2) for part in pooled], dim=2)


def reference(
    p: Params,
    low: Tensor,
    high: Tensor,
    *,
    training: bool,
    low_channels: int | None = None,
    key_channels: int | None = None,
    value_channels: int | None = None,
    grids: Sequence[int] = (1, 3, 6, 8),
    dropout: float = 0.05,
) -> Tensor:
    """c_i = W sum_s softmax_s(q_i . k_s / sqrt(K)) v_s, q from the high stage, k and v from pooled samples of the low stage."""
    batch, channels, height, width = high.shape
    keys = channels // 8 if key_channels is None else key_channels
    query = batch_norm(p, "query_bn", conv1x1(p, "query", high), training).clamp(min=0)
    key = samples(batch_norm(p, "key_bn", conv1x1(p, "key", low), training).clamp(min=0), grids)
    value = samples(conv1x1(p, "value", low), grids)
    images = []
    for b in range(batch):
        pixels = []
        for i in range(height):
            for j in range(width):
                weights = torch.softmax((query[b, :, i, j, None] * key[b]).sum(dim=0) / keys**0.5, dim=0)
                pixels.append((value[b] * weights).sum(dim=1))
        images.append(torch.stack(pixels, dim=1).reshape(-1, height, width))
    context = conv1x1(p, "w", torch.stack(images))
    y = batch_norm(p, "fuse_bn", conv1x1(p, "fuse", torch.cat([context, high], dim=1)), training)
    if training and dropout > 0:
        keep = torch.empty(batch, channels, 1, 1, dtype=y.dtype).bernoulli_(1 - dropout)
        y = y * keep / (1 - dropout)
    return y
