"""Atrous spatial pyramid pooling, kernel tap by kernel tap (Chen et al., section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"rates": (1, 2), "out": 16, "dropout": 0.0}, {"rates": (3,), "out": 8, "dropout": 0.3})


def reference(
    p: Params, x: Tensor, *, training: bool, rates: Sequence[int] = (12, 24, 36), out: int = 256, dropout: float = 0.5
) -> Tensor:
    """y(i) = sum over taps t of W_t x(i + rate t), zero outside the map; the average of the map beside; one 1x1 to mix."""
    batch, _, height, width = x.shape
    branches = [conv1x1(p, "convs.0", x)]
    branches += [_dilated(p[f"convs.{index}.weight"], x, rate) for index, rate in enumerate(rates, start=1)]
    branches = [torch.relu(batch_norm(p, f"bns.{index}", y, training)) for index, y in enumerate(branches)]
    average = x.sum(dim=(2, 3), keepdim=True) / (height * width)
    average = torch.relu(batch_norm(p, "pool_bn", conv1x1(p, "pool_conv", average), training))
    branches.append(average + torch.zeros(batch, out, height, width, dtype=x.dtype))
    y = torch.relu(batch_norm(p, "project_bn", conv1x1(p, "project", torch.cat(branches, dim=1)), training))
    return torch.dropout(y.contiguous(), dropout, training)  # drawn in the order of memory


def _dilated(weight: Tensor, x: Tensor, rate: int) -> Tensor:
    """A 3x3 convolution whose taps stand `rate` apart."""
    height, width = x.shape[2:]
    padded = torch.nn.functional.pad(x, (rate, rate, rate, rate))
    taps = []
    for a in range(3):
        for b in range(3):
            window = padded[:, :, a * rate : a * rate + height, b * rate : b * rate + width]
            taps.append(torch.einsum("oc,bchw->bohw", weight[:, :, a, b], window))
    return torch.stack(taps).sum(dim=0)
