"""Channel attention of DANet, channel by channel (Fu et al., section 3.3, with the official code's reversed energies)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (16, 5, 7)
VARIANTS = ({"reverse": False},)


def reference(p: Params, x: Tensor, *, training: bool, reverse: bool = True) -> Tensor:
    """y_i = gamma sum_j exp(s x_i . x_j) x_j / sum_j exp(s x_i . x_j) + x_i, s = -1: the softmax does not see the row maximum.

    As the paper's equation has it, s = 1.
    """
    sign = -1 if reverse else 1
    batch, channels, _, _ = x.shape
    images = []
    for b in range(batch):
        rows = []
        for i in range(channels):
            weight = torch.stack([(sign * (x[b, i] * x[b, j]).sum()).exp() for j in range(channels)])
            mixed = sum(weight[j] * x[b, j] for j in range(channels)) / weight.sum()
            rows.append(p["gamma"] * mixed + x[b, i])
        images.append(torch.stack(rows))
    return torch.stack(images)
