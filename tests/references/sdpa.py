"""Scaled dot-product attention, query by query (Vaswani et al., section 3.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params


def reference(p: Params, query: Tensor, key: Tensor, value: Tensor, *, training: bool) -> Tensor:
    """y_i = sum_j exp(q_i . k_j / sqrt(C)) v_j / sum_j exp(q_i . k_j / sqrt(C))."""
    batch, positions, channels = query.shape
    images = []
    for b in range(batch):
        rows = []
        for i in range(positions):
            weights = ((query[b, i] * key[b]).sum(dim=1) / channels**0.5).exp()
            rows.append((weights[:, None] * value[b]).sum(dim=0) / weights.sum())
        images.append(torch.stack(rows))
    return torch.stack(images)
