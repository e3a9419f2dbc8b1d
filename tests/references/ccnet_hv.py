"""Attention of every position over its row, then, on the result, over its column."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = ({"reduction": 4},)


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 8) -> Tensor:
    """z_u = gamma sum_j softmax_j(q_u . k_j) v_j + x_u with j in the row of u; then the same with j in the column."""
    _, channels, height, width = x.shape
    assert p["query.weight"].shape[0] == channels // reduction
    for axis in ("row", "column"):
        query, key, value = (conv1x1(p, name, x) for name in ("query", "key", "value"))
        context = []
        for i in range(height):
            for j in range(width):
                line = [(i, n) for n in range(width)] if axis == "row" else [(n, j) for n in range(height)]
                weights = torch.stack([(query[:, :, i, j] * key[:, :, a, b]).sum(dim=1) for a, b in line]).exp()  # L B
                total = weights.sum(dim=0)
                values = torch.stack([value[:, :, a, b] for a, b in line])  # L B C
                context.append(((weights / total)[:, :, None] * values).sum(dim=0))
        x = x + p["gamma"] * torch.stack(context, dim=2).reshape(x.shape)
    return x
