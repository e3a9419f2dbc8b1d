"""Efficient channel attention, channel by channel (Wang et al., section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"kernel": 1}, {"kernel": 5}, {"kernel": 9})


def reference(p: Params, x: Tensor, *, training: bool, kernel: int | None = None) -> Tensor:
    """s_c = sigmoid(sum_j w_j z_(c + j - half)) over the neighbours that exist;  y_c = s_c x_c."""
    _, channels, height, width = x.shape
    target = math.log2(channels) / 2 + 1 / 2
    # the odd number nearest to the target, the larger one in a tie
    k = kernel or min(range(1, 99, 2), key=lambda odd: (abs(odd - target), -odd))
    z = x.sum(dim=(2, 3)) / (height * width)
    weight = p["conv.weight"].flatten()
    assert len(weight) == k
    gated = []
    for c in range(channels):
        logit = torch.zeros(())
        for j in range(k):
            neighbour = c + j - k // 2
            if 0 <= neighbour < channels:
                logit = logit + weight[j] * z[:, neighbour]
        gated.append(x[:, c] / (1 + torch.exp(-logit))[:, None, None])
    return torch.stack(gated, dim=1)
