"""Coordinate attention, row by row and column by column (Hou et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"reduction": 2}, {"smallest": 3})


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 32, smallest: int = 8) -> Tensor:
    """y_c(i, j) = x_c(i, j) g_c^h(i) g_c^w(j)."""
    _, channels, height, width = x.shape
    strips = [x[:, :, i].sum(dim=2) / width for i in range(height)] + [x[:, :, :, j].sum(dim=2) / height for j in range(width)]
    z = batch_norm(p, "bn", conv1x1(p, "reduce", torch.stack(strips, dim=2)), training)
    assert z.shape[1] == max(channels // reduction, smallest)
    z = z * (z + 3).clamp(0, 6) / 6
    rows = [torch.sigmoid(conv1x1(p, "rows", z[:, :, i])) for i in range(height)]
    columns = [torch.sigmoid(conv1x1(p, "columns", z[:, :, height + j])) for j in range(width)]
    lines = [torch.stack([x[:, :, i, j] * rows[i] * columns[j] for j in range(width)], dim=2) for i in range(height)]
    return torch.stack(lines, dim=2)
