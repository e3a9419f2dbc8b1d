"""Gather-excite, position by position (Hu et al., sections 2 and 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from tests.references import Params, batch_norm, conv1x1

VARIANTS = (
    {"extent": 2},
    {"extent": 4},
    {"form": "theta"},
    {"form": "theta", "extent": 4},
    {"form": "theta-plus", "reduction": 4},
    {"form": "theta-plus", "extent": 2, "bias": True},
)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    hw: tuple[int, int],
    form: str = "theta-minus",
    extent: int = 0,
    reduction: int = 16,
    bias: bool = False,
) -> Tensor:
    """y_u = x_u sigmoid(f(gathered)), gathered at the nearest of the places e*u', from its neighbourhood of 2e - 1 a side."""
    height, width = x.shape[2:]
    if form != "theta-minus":
        gathered = learned(p, x, extent, form == "theta-plus", training)
    elif extent == 0:
        gathered = x.sum(dim=(2, 3), keepdim=True) / (height * width)
    else:
        gathered = averaged(x, extent)
    if form == "theta-plus":
        gathered = conv1x1(p, "excite.2", torch.relu(conv1x1(p, "excite.0", gathered)))
    rows, columns = gathered.shape[2:]
    line = []
    for i in range(height):
        near = [gathered[:, :, i * rows // height, j * columns // width] for j in range(width)]
        line.append(torch.stack([x[:, :, i, j] * torch.sigmoid(near[j]) for j in range(width)], dim=2))
    return torch.stack(line, dim=2)


def averaged(x: Tensor, extent: int) -> Tensor:
    """Means over the squares of 2e - 1 a side around every e-th position, cut at the edge."""
    height, width = x.shape[2:]
    lines = []
    for i in range(0, height, extent):
        line = []
        for j in range(0, width, extent):
            square = x[:, :, max(0, i - extent + 1) : i + extent, max(0, j - extent + 1) : j + extent]
            line.append(square.sum(dim=(2, 3)) / (square.shape[2] * square.shape[3]))
        lines.append(torch.stack(line, dim=2))
    return torch.stack(lines, dim=2)


def learned(p: Params, x: Tensor, extent: int, relu_last: bool, training: bool) -> Tensor:
    """Depth-wise convolutions of 3x3 and stride 2 (or one over the whole map), each with BN, ReLU in between."""
    halvings = extent.bit_length() - 1 if extent else 1
    for n in range(halvings):
        weight = p[f"gather.{n}.weight"][:, 0]  # C k k
        if extent == 0:
            x = (weight * x).sum(dim=(2, 3), keepdim=True)
        else:
            padded = pad(x, (1, 1, 1, 1))
            rows, columns = (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2
            x = torch.stack(
                [
                    torch.stack(
                        [(weight * padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]).sum(dim=(2, 3)) for j in range(columns)],
                        dim=2,
                    )
                    for i in range(rows)
                ],
                dim=2,
            )
        x = batch_norm(p, f"norm.{n}", x, training)
        if n < halvings - 1 or relu_last:
            x = torch.relu(x)
    return x
