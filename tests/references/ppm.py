"""Pyramid pooling, cell by cell (Zhao et al., section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"bins": (1, 4)},)


def reference(p: Params, x: Tensor, *, training: bool, bins: Sequence[int] = (1, 2, 3, 6)) -> Tensor:
    """Cell (a, b) of a grid of g x g averages rows floor(a H/g) to ceil((a + 1) H/g), columns alike."""
    _, _, height, width = x.shape
    out = [x]
    for index, grid in enumerate(bins):
        rows = []
        for a in range(grid):
            cells = []
            for b in range(grid):
                top, bottom = a * height // grid, -(-(a + 1) * height // grid)
                left, right = b * width // grid, -(-(b + 1) * width // grid)
                cells.append(x[:, :, top:bottom, left:right].sum(dim=(2, 3)) / ((bottom - top) * (right - left)))
            rows.append(torch.stack(cells, dim=2))
        pooled = torch.stack(rows, dim=2)
        y = torch.relu(batch_norm(p, f"bns.{index}", conv1x1(p, f"convs.{index}", pooled), training))
        out.append(_enlarge(y, height, width))
    return torch.cat(out, dim=1)


def _enlarge(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, the corners of both grids on each other: each output pixel from the four cells around it."""
    grid = x.shape[2]
    rows = []
    for i in range(height):
        pixels = []
        for j in range(width):
            y, u = i * (grid - 1) / (height - 1), j * (grid - 1) / (width - 1)
            corners = [
                max(0.0, 1 - abs(y - a)) * max(0.0, 1 - abs(u - b)) * x[:, :, a, b] for a in range(grid) for b in range(grid)
            ]
            pixels.append(torch.stack(corners).sum(dim=0))
        rows.append(torch.stack(pixels, dim=2))
    return torch.stack(rows, dim=2)
