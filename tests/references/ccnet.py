"""Criss-cross attention, position by position over its H+W-1 neighbours (Huang et al., sections 3.2 and 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = ({"recurrence": 1}, {"recurrence": 3}, {"reduction": 4})


def reference(p: Params, x: Tensor, *, training: bool, recurrence: int = 2, reduction: int = 8) -> Tensor:
    """Each pass: y_u = gamma sum_{i in path(u)} softmax_i(q_u . k_i) v_i + x_u, path(u) being u's row and column."""
    batch, channels, height, width = x.shape
    assert p["query.weight"].shape[0] == channels // reduction
    for _ in range(recurrence):
        query, key, value = (conv1x1(p, name, x) for name in ("query", "key", "value"))
        context = []
        for row in range(height):
            for column in range(width):
                path = [(row, j) for j in range(width)] + [(i, column) for i in range(height) if i != row]
                assert len(path) == height + width - 1
                k = torch.stack([key[:, :, i, j] for i, j in path], dim=2)  # B C/r P
                v = torch.stack([value[:, :, i, j] for i, j in path], dim=2)  # B C P
                affinity = (query[:, :, row, column, None] * k).sum(dim=1).exp()  # B P
                affinity = affinity / affinity.sum(dim=1, keepdim=True)
                context.append((affinity[:, None] * v).sum(dim=2))
        x = p["gamma"] * torch.stack(context, dim=2).reshape(batch, channels, height, width) + x
    return x
