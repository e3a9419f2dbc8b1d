"""Local relation layer, position by position over the neighbours that there are (Hu et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = (
    {"similarity": "absolute", "kernel": 3},
    {"similarity": "product", "m": 4, "hidden": 5, "kernel": 5},
    {"mask_border": False, "kernel": 5},
)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    kernel: int = 7,
    m: int = 8,
    hidden: int | None = None,
    similarity: str = "squared",
    mask_border: bool = True,
) -> Tensor:
    """w_ij = exp(phi(q_i, k_j) + g(j - i)); y_i = W_o sum_j w_ij x_j / sum_j w_ij, m channels in a row under one w."""
    _, _, height, width = x.shape
    query, key = conv1x1(p, "query", x), conv1x1(p, "key", x)
    radius = kernel // 2
    prior = {(dy, dz): _prior(p, dy, dz) for dy in range(-radius, radius + 1) for dz in range(-radius, radius + 1)}
    nothing, nothing_there = torch.zeros_like(key[:, :, 0, 0]), torch.zeros_like(x[:, :, 0, 0])
    rows = []
    for y in range(height):
        for z in range(width):
            logits, features = [], []
            for (dy, dz), geometry in prior.items():
                inside = 0 <= y + dy < height and 0 <= z + dz < width
                if mask_border and not inside:
                    continue
                k = key[:, :, y + dy, z + dz] if inside else nothing
                logits.append(_phi(query[:, :, y, z], k, similarity) + geometry)
                features.append(x[:, :, y + dy, z + dz] if inside else nothing_there)
            weights = torch.stack(logits).exp()
            weights = (weights / weights.sum(dim=0)).repeat_interleave(m, dim=2)
            rows.append((weights * torch.stack(features)).sum(dim=0))
    return conv1x1(p, "out", torch.stack(rows, dim=2).reshape(x.shape))


def _phi(q: Tensor, k: Tensor, similarity: str) -> Tensor:
    if similarity == "product":
        return q * k
    return -((q - k) ** 2) if similarity == "squared" else -torch.maximum(q - k, k - q)


def _prior(p: Params, dy: int, dz: int) -> Tensor:
    first, last = p["geometry.0.weight"], p["geometry.2.weight"]
    hidden = torch.relu(first[:, 0] * dy + first[:, 1] * dz + p["geometry.0.bias"])
    return (last * hidden).sum(dim=1) + p["geometry.2.bias"]
