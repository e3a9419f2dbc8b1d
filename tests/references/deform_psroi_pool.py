"""Deformable position-sensitive RoI pooling, bin by bin, as weights of rows and columns (Dai et al., section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

SHAPE = (8, 3, 5)
VARIANTS = (
    {"num_classes": 3, "bins": 3, "boxes": 5},
    {"num_classes": 1, "bins": 2, "boxes": 4, "samples": 1, "gamma": 0.5},
)


def reference(
    p: Params,
    x: Tensor,
    rois: Tensor,
    *,
    training: bool,
    num_classes: int = 20,
    bins: int = 7,
    gamma: float = 0.1,
    samples: int = 4,
    boxes: int = 128,
) -> Tensor:
    """A bilinear sample is a sum over rows and columns of products of hats, so the average of a bin is one too."""
    classes = num_classes + 1
    scores = conv1x1(p, "score", x).unflatten(1, (bins, bins, classes))
    offsets = conv1x1(p, "offset", x).unflatten(1, (bins, bins, classes, 2))
    height, width = x.shape[2:]
    lines = []
    for i in range(bins):
        line = []
        for j in range(bins):
            plain = torch.zeros(*rois.shape[:2], 1, dtype=x.dtype)
            down = hats(rois[:, :, 1], rois[:, :, 3], plain, i, height, bins, samples)[:, :, 0]  # B R H
            right = hats(rois[:, :, 0], rois[:, :, 2], plain, j, width, bins, samples)[:, :, 0]  # B R W
            moves = gamma * torch.einsum("brh,brw,bcdhw->brcd", down, right, offsets[:, i, j])
            down = hats(rois[:, :, 1], rois[:, :, 3], moves[..., 1], i, height, bins, samples)  # B R K H
            right = hats(rois[:, :, 0], rois[:, :, 2], moves[..., 0], j, width, bins, samples)  # B R K W
            line.append((torch.einsum("brch,bchw->brcw", down, scores[:, i, j]) * right).sum(dim=3))
        lines.append(torch.stack(line, dim=3))
    return torch.stack(lines, dim=3)


def hats(centre: Tensor, extent: Tensor, move: Tensor, index: int, size: int, bins: int, samples: int) -> Tensor:
    """The mean of max(0, 1 - |q - place|) over the samples of bin `index` on one axis; move: B R K -> B R K size."""
    length = torch.clamp(extent * size, min=0.1)[..., None]
    start = ((centre - extent / 2) * size - 0.5)[..., None]
    step = torch.arange(samples, dtype=move.dtype) / samples
    place = (start + length * move)[..., None] + (length[..., None] * (index + step) / bins)  # B R K s
    counts = ((place >= -0.5) & (place <= size - 0.5)).to(move.dtype)
    held = torch.clamp(place, 0, size - 1)
    hat = torch.relu(1 - (held[..., None] - torch.arange(size, dtype=move.dtype)).abs())  # B R K s size
    found = torch.clamp(counts.sum(dim=3), min=1)
    return (counts[..., None] * hat).sum(dim=3) / found[..., None]
