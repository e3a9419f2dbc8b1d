"""Generalized non-local attention with the matrix of all pairs of entries (Yue et al., section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = (
    {"kernel": "gaussian"},
    {"kernel": "gaussian", "order": 3, "gamma": 0.1, "groups": 4, "scale": True},
    {"groups": 2, "scale": True},
)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    kernel: str = "dot",
    groups: int = 8,
    order: int = 2,
    gamma: float = 1e-4,
    scale: bool = False,
) -> Tensor:
    """y = F g with F the (C' N) x (C' N) matrix of a group's entries, C' its channels."""
    batch, channels, height, width = x.shape
    t, q, g = (conv1x1(p, name, x) for name in ("t", "p", "g"))
    own, wide = channels // 2 // groups, channels // groups
    images = []
    for b in range(batch):
        maps = []
        for k in range(groups):
            t_k, q_k, g_k = (z[b, k * own : (k + 1) * own].flatten() for z in (t, q, g))
            products = t_k[:, None] * q_k[None, :]
            matrix = products
            if kernel == "gaussian":
                matrix = torch.zeros_like(products)
                for n in range(order + 1):
                    matrix = matrix + math.exp(-2 * gamma) * (2 * gamma) ** n / math.factorial(n) * products**n
            if scale:
                matrix = matrix / math.sqrt(len(t_k))
            y = (matrix * g_k).sum(dim=1).reshape(own, height * width)
            y = p["project.weight"][k * wide : (k + 1) * wide].flatten(1) @ y
            mean = y.sum() / y.numel()
            variance = ((y - mean) ** 2).sum() / y.numel()
            maps.append((y - mean) / (variance + 1e-5) ** 0.5)
        z = torch.cat(maps) * p["norm.weight"][:, None] + p["norm.bias"][:, None]
        images.append(z.reshape(channels, height, width) + x[b])
    return torch.stack(images)
