"""Attention gate, with sums over cells and corners for strided convolution and interpolation (Oktay et al., section 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (32, 7, 10)
VARIANTS = [
    {"form": "unet"},
    {"form": "unet", "gating_channels": 12, "inter_channels": 24},
    {"gating_stride": 4, "gating_channels": 40, "inter_channels": 8},
]


def mix(weight: Tensor, x: Tensor) -> Tensor:
    """A matrix on the channels of every position."""
    return torch.tensordot(weight, x, dims=([1], [1])).transpose(0, 1)


def batch_norm(p: Params, name: str, x: Tensor, training: bool) -> Tensor:
    """With the batch's statistics or the running ones."""
    mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    if training:
        mean = x.mean(dim=(0, 2, 3))
        variance = ((x - mean[:, None, None]) ** 2).mean(dim=(0, 2, 3))
    scale = p[f"{name}.weight"] / torch.sqrt(variance + 1e-5)
    return scale[:, None, None] * (x - mean[:, None, None]) + p[f"{name}.bias"][:, None, None]


def corners(position: int, old: int, new: int) -> list[tuple[int, float]]:
    """The two old places around a new one, and their shares: centres of cells, held at the border."""
    place = max((position + 0.5) * old / new - 0.5, 0.0)
    low = min(math.floor(place), old - 1)
    return [(low, 1 - (place - low)), (min(low + 1, old - 1), place - low)]


def enlarge(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, place by place."""
    out = [
        sum(a * b * x[:, :, i, j] for i, a in corners(y, x.shape[2], height) for j, b in corners(z, x.shape[3], width))
        for y in range(height)
        for z in range(width)
    ]
    return torch.stack([torch.as_tensor(value) for value in out], dim=2).reshape(*x.shape[:2], height, width)


def reference(
    p: Params,
    x: Tensor,
    g: Tensor,
    *,
    training: bool,
    gating_channels: int | None = None,
    inter_channels: int | None = None,
    form: str = "grid",
    gating_stride: int = 2,
) -> tuple[Tensor, Tensor]:
    """alpha = sigmoid(psi relu(theta + phi)), at the resolution of x;  y = alpha x."""
    height, width = x.shape[2:]
    if form == "unet":
        scores = []
        for name, tensor in (("theta", x), ("phi", g)):
            mixed = mix(p[f"{name}.0.weight"][:, :, 0, 0], tensor) + p[f"{name}.0.bias"][:, None, None]
            scores.append(batch_norm(p, f"{name}.1", mixed, training))
        score = mix(p["psi.0.weight"][:, :, 0, 0], torch.relu(scores[0] + scores[1])) + p["psi.0.bias"][:, None, None]
        alpha = 1 / (1 + torch.exp(-batch_norm(p, "psi.1", score, training)))
        return alpha * x, alpha
    rows, columns = height // 2, width // 2
    theta = torch.zeros(1, dtype=x.dtype)
    for i in range(2):
        for j in range(2):
            theta = theta + mix(p["theta.weight"][:, :, i, j], x[:, :, i : 2 * rows : 2, j : 2 * columns : 2])
    phi = mix(p["phi.weight"][:, :, 0, 0], g) + p["phi.bias"][:, None, None]
    score = mix(p["psi.weight"][:, :, 0, 0], torch.relu(theta + enlarge(phi, rows, columns))) + p["psi.bias"]
    alpha = enlarge(1 / (1 + torch.exp(-score)), height, width)
    y = mix(p["output.0.weight"][:, :, 0, 0], alpha * x) + p["output.0.bias"][:, None, None]
    return batch_norm(p, "output.1", y, training), alpha
