"""Global context, position by position (Cao et al., section 4.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (64, 5, 7)  # four hidden channels at r = 16: a layer norm over two has next to no gradient
VARIANTS = ({"reduction": 4},)


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 16) -> Tensor:
    """z_i = x_i + W_v2 relu(LN(W_v1 sum_j a_j x_j)), a_j = exp(W_k x_j) / sum_m exp(W_k x_m)."""
    batch, channels, height, width = x.shape
    hidden = channels // reduction
    out = []
    for b in range(batch):
        positions = [x[b, :, i, j] for i in range(height) for j in range(width)]
        scores = [torch.exp((p["key.weight"].flatten() * x_j).sum() + p["key.bias"][0]) for x_j in positions]
        total = torch.stack(scores).sum()
        context = torch.stack([score / total * x_j for score, x_j in zip(scores, positions, strict=True)]).sum(dim=0)
        u = torch.stack([(p["squeeze.weight"][k].flatten() * context).sum() + p["squeeze.bias"][k] for k in range(hidden)])
        mean = u.sum() / hidden
        variance = ((u - mean) ** 2).sum() / hidden
        u = (u - mean) / (variance + 1e-5) ** 0.5 * p["norm.weight"].flatten() + p["norm.bias"].flatten()
        u = torch.relu(u)
        update = torch.stack([(p["expand.weight"][c].flatten() * u).sum() + p["expand.bias"][c] for c in range(channels)])
        out.append(torch.stack([x_i + update for x_i in positions], dim=1).reshape(channels, height, width))
    return torch.stack(out)
