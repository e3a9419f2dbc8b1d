"""Sparsely recursive aggregation, position by position (Zhu et al., sections 3.1, 3.2 and 3.4)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.references import Params, conv1x1

SHAPE = (32, 3, 4, 4)
VARIANTS = ({"interval": 2}, {"hidden": 8, "embedding": 12, "threshold": 0.5})


class Update(torch.autograd.Function):
    """1 where Q <= tau, else 0; its derivative is taken as -1 where |Q - tau| <= 0.5, else 0."""

    @staticmethod
    def forward(ctx: Any, quality: Tensor, threshold: float) -> Tensor:
        ctx.near = (quality - threshold).abs() <= 0.5
        return (quality <= threshold).to(quality)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -grad * ctx.near, None


def _warp(x: Tensor, flow: Tensor) -> Tensor:
    """x (C, H, W) read bilinearly at p + flow(p); 0 outside the map."""
    _, height, width = x.shape
    out = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            column, row = j + flow[0, i, j], i + flow[1, i, j]
            left, top = math.floor(column.item()), math.floor(row.item())
            for u in (top, top + 1):
                for v in (left, left + 1):
                    if 0 <= u < height and 0 <= v < width:
                        share = (1 - (row - u).abs()) * (1 - (column - v).abs())
                        out[:, i, j] = out[:, i, j] + share * x[:, u, v]
    return out


def _embed(p: Params, x: Tensor) -> Tensor:
    """1x1, 3x3 and 1x1 convolution with ReLU between; x: 1 C H W."""
    _, _, height, width = x.shape
    x = torch.relu(conv1x1(p, "embed.0", x))
    near = p["embed.2.bias"].reshape(1, -1, 1, 1)
    padded = torch.nn.functional.pad(x, [1, 1, 1, 1])
    for i in range(3):
        for j in range(3):
            crop = padded[:, :, i : i + height, j : j + width]
            near = near + torch.einsum("oc,bchw->bohw", p["embed.2.weight"][:, :, i, j], crop)
    return conv1x1(p, "embed.4", torch.relu(near))


def reference(
    p: Params,
    x: Tensor,
    flow: Tensor,
    quality: Tensor,
    *,
    training: bool,
    hidden: int | None = None,
    embedding: int | None = None,
    interval: int = 10,
    threshold: float = 0.0,
) -> Tensor:
    """For each frame: its own or the key frame's features, then the average with the key frame's aggregate."""
    clips = []
    for b in range(x.shape[0]):
        keys, aggregates = [x[b, 0]], [x[b, 0]]
        out = [x[b, 0]]
        for t in range(1, x.shape[1]):
            motion = flow[b, t - 1]
            propagated = _warp(aggregates[-1], motion)
            features = x[b, t]
            if t % interval:
                u = Update.apply(quality[b, t - 1], threshold)  # type: ignore[no-untyped-call]
                features = u * x[b, t] + (1 - u) * _warp(keys[-1], motion)
            a, c = _embed(p, propagated[None])[0], _embed(p, features[None])[0]
            scores = torch.stack([torch.cosine_similarity(a, c, dim=0), torch.cosine_similarity(c, c, dim=0)]).exp()
            weights = scores / scores.sum(dim=0)
            out.append(weights[0] * propagated + weights[1] * features)
            if t % interval == 0:
                keys.append(features)
                aggregates.append(out[-1])
        clips.append(torch.stack(out))
    return torch.stack(clips)
