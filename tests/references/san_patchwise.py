"""Patchwise self-attention, window by window (Zhao et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = (
    {"kernel": 3, "share": 2},
    {"relation_reduction": 4, "mid_reduction": 2, "kernel": 5},
)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    kernel: int = 7,
    relation_reduction: int = 16,
    mid_reduction: int = 4,
    share: int = 8,
) -> Tensor:
    """Channel r of psi at place j of the window is entry R + r k^2 + j of the relation; weight (g, j) is entry g k^2 + j."""
    batch, _, height, width = x.shape
    query, key, value = (conv1x1(p, name, x) for name in ("query", "key", "value"))
    relations, windows = [], []
    for y in range(height):
        for z in range(width):
            places = _neighbours(y, z, height, width, kernel)
            patch = torch.stack([key[:, :, v, u] for v, u in places], dim=2)  # B R k^2
            relations.append(torch.cat([query[:, :, y, z], patch.flatten(1)], dim=1))
            windows.append(torch.stack([value[:, :, v, u] for v, u in places], dim=2))
    relation = torch.stack(relations, dim=2)  # B R(k^2+1) N
    relation = torch.relu(batch_norm(p, "weigh.0", relation, training))
    relation = torch.relu(batch_norm(p, "weigh.3", conv1x1(p, "weigh.2", relation), training))
    weights = conv1x1(p, "weigh.5", relation)  # B G*k^2 N
    groups = weights.shape[1] // kernel**2
    window = torch.stack(windows, dim=3)  # B O k^2 N
    out = []
    for c in range(value.shape[1]):
        first = (c % groups) * kernel**2
        out.append((weights[:, first : first + kernel**2] * window[:, c]).sum(dim=1))
    return torch.stack(out, dim=1).reshape(batch, -1, height, width)


def _neighbours(y: int, z: int, height: int, width: int, kernel: int) -> list[tuple[int, int]]:
    """Rows and columns of a window; one beyond the border is mirrored at the last one within."""
    steps = range(-(kernel // 2), kernel // 2 + 1)
    return [(_mirrored(y + dy, height), _mirrored(z + dz, width)) for dy in steps for dz in steps]


def _mirrored(i: int, size: int) -> int:
    return -i if i < 0 else 2 * (size - 1) - i if i >= size else i
