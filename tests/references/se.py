"""Squeeze-and-Excitation, channel by channel (Hu et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"bias": True, "divisor": 8}, {"reduction": 4, "bias": True}, {"reduction": 3, "divisor": 4})


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 16, bias: bool = False, divisor: int = 1) -> Tensor:
    """s_c = sigmoid(sum_k W2[c, k] relu(sum_d W1[k, d] mean(x_d) + b1[k]) + b2[c]);  y_c = s_c x_c."""
    batch, channels, height, width = x.shape
    z = x.sum(dim=(2, 3)) / (height * width)
    b1, b2 = (p["squeeze.bias"], p["excite.bias"]) if bias else (torch.zeros(channels), torch.zeros(channels))
    widths = range(divisor, channels + 1, divisor)
    width = min(widths, key=lambda w: (abs(w - channels // reduction), -w))  # the larger of two that are as near
    out = []
    for b in range(batch):
        hidden = [torch.relu((p["squeeze.weight"][k] * z[b]).sum() + b1[k]) for k in range(width)]
        gates = [torch.sigmoid((p["excite.weight"][c] * torch.stack(hidden)).sum() + b2[c]) for c in range(channels)]
        out.append(torch.stack([gates[c] * x[b, c] for c in range(channels)]))
    return torch.stack(out)
