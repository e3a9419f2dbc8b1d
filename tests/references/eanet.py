"""External attention, one memory row at a time (Guo et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"memory": 8},)


def reference(p: Params, x: Tensor, *, training: bool, memory: int = 64) -> Tensor:
    """Double normalisation: a~_si = exp(m_s . f_i) / sum_i exp(m_s . f_i);  a_si = a~_si / sum_s a~_si."""
    f = conv1x1(p, "conv1", x)
    rows = []
    for s in range(memory):
        logits = torch.einsum("c,bchw->bhw", p["memory_key.weight"][s, :, 0], f)
        scores = torch.exp(logits - logits.amax(dim=(1, 2), keepdim=True))
        rows.append(scores / scores.sum(dim=(1, 2), keepdim=True))
    total = 1e-9 + torch.stack(rows).sum(dim=0)
    y = torch.zeros_like(f)
    for s in range(memory):
        y = y + p["memory_value.weight"][:, s, 0][None, :, None, None] * (rows[s] / total)[:, None]
    return (batch_norm(p, "bn", conv1x1(p, "conv2", y), training) + x).clamp(min=0)
