"""Simplified non-local, position by position (Cao et al., section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params


def reference(p: Params, x: Tensor, *, training: bool) -> Tensor:
    """z_i = x_i + W_v sum_j exp(W_k x_j) / sum_m exp(W_k x_m) x_j."""
    batch, channels, height, width = x.shape
    out = []
    for b in range(batch):
        positions = [x[b, :, i, j] for i in range(height) for j in range(width)]
        scores = [torch.exp((p["key.weight"].flatten() * x_j).sum() + p["key.bias"][0]) for x_j in positions]
        total = torch.stack(scores).sum()
        context = torch.stack([score / total * x_j for score, x_j in zip(scores, positions, strict=True)]).sum(dim=0)
        update = torch.stack([(p["value.weight"][c].flatten() * context).sum() for c in range(channels)])
        out.append(torch.stack([x_i + update for x_i in positions], dim=1).reshape(channels, height, width))
    return torch.stack(out)
