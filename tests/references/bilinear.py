"""Bilinear attention, pair by pair (Fang et al.; the layers of the official code)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

SHAPE = (64, 5, 7)  # four embedded channels, ten pairs
VARIANTS = ({"reduction": 8}, {"reduction": 64})


def layer(p: Params, name: str, x: Tensor, training: bool) -> Tensor:
    """1x1 convolution, BN, ReLU."""
    return batch_norm(p, f"{name}.1", conv1x1(p, f"{name}.0", x), training).clamp(min=0)


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 16) -> Tensor:
    """t_(a,b) = u_a u_b for a <= b;  y = sigmoid(omega(mean t) psi(t)) x."""
    _, channels, height, width = x.shape
    embedded = channels // reduction
    u = layer(p, "phi", x, training)
    t = torch.stack([u[:, a] * u[:, b] for a in range(embedded) for b in range(a, embedded)], dim=1)
    inner = layer(p, "omega", t.sum(dim=(2, 3)) / (height * width), training)
    local = layer(p, "psi", t, training)
    rows = []
    for i in range(height):
        pixels = [x[:, :, i, j] / (1 + torch.exp(-inner * local[:, :, i, j])) for j in range(width)]
        rows.append(torch.stack(pixels, dim=2))
    return torch.stack(rows, dim=2)
