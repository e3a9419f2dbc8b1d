"""Position attention, position by position (Fu et al., section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = ({"reduction": 4},)


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 8) -> Tensor:
    """y_i = gamma sum_j exp(q_i . k_j) v_j / sum_j exp(q_i . k_j) + x_i, for each position i on its own."""
    batch, channels, height, width = x.shape
    q, k, v = (conv1x1(p, name, x).reshape(batch, -1, height * width) for name in ("query", "key", "value"))
    assert q.shape[1] == channels // reduction
    images = []
    for b in range(batch):
        columns = []
        for i in range(height * width):
            similarity = torch.stack([(q[b, :, i] * k[b, :, j]).sum() for j in range(height * width)]).exp()
            columns.append((v[b] * (similarity / similarity.sum())).sum(dim=1))
        images.append(torch.stack(columns, dim=1))
    return p["gamma"] * torch.stack(images).reshape(x.shape) + x
