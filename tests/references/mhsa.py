"""Multi-head self-attention, head by head and query by query (Vaswani et al., section 3.2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"heads": 1}, {"heads": 4})


def reference(p: Params, x: Tensor, *, training: bool, heads: int = 8) -> Tensor:
    """head_m = softmax(q_m k_m^T / sqrt(d)) v_m with d = C/h;  y = W_o [head_1 ... head_h] + b_o."""
    batch, positions, channels = x.shape
    size = channels // heads
    images = []
    for b in range(batch):
        projected = []
        for part in range(3):
            rows = slice(part * channels, (part + 1) * channels)
            projected.append(torch.einsum("oc,nc->no", p["qkv.weight"][rows], x[b]) + p["qkv.bias"][rows])
        q, k, v = projected
        concatenated = []
        for m in range(heads):
            own = slice(m * size, (m + 1) * size)
            outputs = []
            for i in range(positions):
                weights = ((k[:, own] * q[i, own]).sum(dim=1) / size**0.5).exp()
                outputs.append((weights[:, None] * v[:, own]).sum(dim=0) / weights.sum())
            concatenated.append(torch.stack(outputs))
        y = torch.cat(concatenated, dim=1)
        images.append(torch.einsum("oc,nc->no", p["out.weight"], y) + p["out.bias"])
    return torch.stack(images)
