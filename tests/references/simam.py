"""SimAM, entry by entry from the minimal energy (Yang et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (32, 5, 3)
VARIANTS = ({"lam": 0.1},)


def reference(p: Params, x: Tensor, *, training: bool, lam: float = 1e-4) -> Tensor:
    """e = 4 (v + lambda) / ((t - m)^2 + 2 v + 2 lambda) for each entry t of a channel;  y = sigmoid(1 / e) t."""
    _, _, height, width = x.shape
    pixels = [x[:, :, i, j] for i in range(height) for j in range(width)]
    mean = torch.stack(pixels).sum(dim=0) / len(pixels)
    variance = torch.stack([(t - mean) * (t - mean) for t in pixels]).sum(dim=0) / (len(pixels) - 1)
    out = []
    for t in pixels:
        energy = 4 * (variance + lam) / ((t - mean) ** 2 + 2 * variance + 2 * lam)
        out.append(t / (1 + torch.exp(-1 / energy)))
    return torch.stack(out, dim=2).reshape(x.shape)
