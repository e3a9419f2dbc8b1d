"""Deformable RoI pooling as one weight per row and one per column of the map (Dai et al., section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (8, 5, 7)
VARIANTS = ({"bins": 3, "boxes": 5, "samples": 2}, {"bins": 2, "boxes": 4, "samples": 1, "gamma": 0.5})


def reference(
    p: Params,
    x: Tensor,
    rois: Tensor,
    *,
    training: bool,
    bins: int = 7,
    gamma: float = 0.1,
    samples: int = 4,
    boxes: int = 128,
) -> Tensor:
    """A bilinear sample is a sum over rows and columns of products of hats, so the average of a bin is one too."""
    batch, count = rois.shape[:2]
    plain = torch.zeros(batch, count, 2, bins, bins, dtype=x.dtype)
    first = pooled(x, rois, plain, bins, samples)
    offset = first.flatten(2) @ p["offset.weight"].T + p["offset.bias"]
    return pooled(x, rois, gamma * offset.reshape(batch, count, 2, bins, bins), bins, samples)


def pooled(x: Tensor, rois: Tensor, offset: Tensor, bins: int, samples: int) -> Tensor:
    """B C H W -> B R C k k."""
    columns = [
        [hats(rois[:, :, 0], rois[:, :, 2], offset[:, :, 0, i, j], j, x.shape[3], bins, samples) for j in range(bins)]
        for i in range(bins)
    ]
    rows = [
        [hats(rois[:, :, 1], rois[:, :, 3], offset[:, :, 1, i, j], i, x.shape[2], bins, samples) for j in range(bins)]
        for i in range(bins)
    ]
    down = torch.stack([torch.stack(line, dim=2) for line in rows], dim=2)  # B R k k H
    right = torch.stack([torch.stack(line, dim=2) for line in columns], dim=2)  # B R k k W
    return torch.einsum("brijp,brijq,bcpq->brcij", down, right, x)


def hats(centre: Tensor, extent: Tensor, offset: Tensor, index: int, size: int, bins: int, samples: int) -> Tensor:
    """The mean of max(0, 1 - |q - place|) over the samples of bin `index` on one axis: B R size."""
    length = torch.clamp(extent * size, min=0.1)
    start = (centre - extent / 2) * size - 0.5
    total, found = torch.zeros((), dtype=offset.dtype), torch.zeros((), dtype=offset.dtype)
    for sample in range(samples):
        place = start + length * ((index + sample / samples) / bins + offset)
        counts = ((place >= -0.5) & (place <= size - 0.5)).to(offset.dtype)
        held = torch.clamp(place, 0, size - 1)
        hat = torch.relu(1 - (held[..., None] - torch.arange(size, dtype=offset.dtype)).abs())
        total = total + counts[..., None] * hat
        found = found + counts
    return total / torch.clamp(found, min=1)[..., None]
