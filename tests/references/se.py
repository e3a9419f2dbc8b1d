"""Squeeze-and-Excitation, channel by channel (Hu et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 16) -> Tensor:
    """s_c = sigmoid(sum_k W2[c, k] relu(sum_d W1[k, d] mean(x_d)));  y_c = s_c x_c."""
    batch, channels, height, width = x.shape
    z = x.sum(dim=(2, 3)) / (height * width)
    out = []
    for b in range(batch):
        hidden = [torch.relu((p["squeeze.weight"][k] * z[b]).sum()) for k in range(channels // reduction)]
        gates = [torch.sigmoid((p["excite.weight"][c] * torch.stack(hidden)).sum()) for c in range(channels)]
        out.append(torch.stack([gates[c] * x[b, c] for c in range(channels)]))
    return torch.stack(out)
