"""Pyramid object context: attention over the whole map, masked to the cell of each position (Yuan and Wang)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

SHAPE = (32, 7, 9)  # the grid of 6 needs 6 rows and columns
VARIANTS = ({"grids": (1, 2), "key_channels": 6}, {"grids": (8,)})  # 8: more cells than rows


def leaky(x: Tensor) -> Tensor:
    """x where positive, 0.01 x elsewhere."""
    return torch.where(x > 0, x, 0.01 * x)


def cell_of(index: int, size: int, grid: int) -> int:
    """The cell that a row or column lies in: cells of size // grid, what is left belongs to the last one."""
    step = size // grid
    return 0 if step == 0 else min(index // step, grid - 1)


def same_cell(height: int, width: int, grid: int) -> Tensor:
    """N x N: which positions share a cell."""
    labels = [(cell_of(i, height, grid), cell_of(j, width, grid)) for i in range(height) for j in range(width)]
    return torch.tensor([[a == b for b in labels] for a in labels])


def stage(p: Params, name: str, x: Tensor, grid: int, keys: int, training: bool) -> Tensor:
    """Self-attention in which logits between different cells count as minus infinity."""
    batch, channels, height, width = x.shape
    shared = leaky(batch_norm(p, f"{name}.key_bn", conv1x1(p, f"{name}.key", x), training)).flatten(2)
    value = conv1x1(p, f"{name}.value", x).flatten(2)
    logits = torch.einsum("bcn,bcm->bnm", shared, shared) / keys**0.5
    weights = logits.masked_fill(~same_cell(height, width, grid), -torch.inf).softmax(dim=2)
    context = torch.einsum("bnm,bcm->bcn", weights, value).reshape(batch, channels, height, width)
    return conv1x1(p, f"{name}.w", context)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    grids: Sequence[int] = (1, 2, 3, 6),
    key_channels: int | None = None,
    dropout: float = 0.05,
) -> Tensor:
    """y = act(BN(U [act(BN(P x)), c^1, .., c^G]))."""
    keys = x.shape[1] // 2 if key_channels is None else key_channels
    parts = [leaky(batch_norm(p, "widen_bn", conv1x1(p, "widen", x), training))]
    parts += [stage(p, f"stages.{index}", x, grid, keys, training) for index, grid in enumerate(grids)]
    y = leaky(batch_norm(p, "fuse_bn", conv1x1(p, "fuse", torch.cat(parts, dim=1)), training))
    if training:
        keep = torch.empty(*y.shape[:2], 1, 1, dtype=y.dtype).bernoulli_(1 - dropout)
        y = y * keep / (1 - dropout)
    return y
