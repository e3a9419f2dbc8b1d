"""Strip pooling, strip by strip and position by position (Hou et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm

VARIANTS = ({"scale": False}, {"bias": True})


def reference(p: Params, x: Tensor, *, training: bool, scale: bool = True, bias: bool = False) -> Tensor:
    """y_ij = sigmoid(W relu(u_i + v_j) + b) x_ij, with u and v the convolved averages of rows and columns."""
    _, _, height, width = x.shape
    rows = torch.stack([_mean([x[:, :, i, j] for j in range(width)]) for i in range(height)], dim=2)
    columns = torch.stack([_mean([x[:, :, i, j] for i in range(height)]) for j in range(width)], dim=2)
    u = batch_norm(p, "bn1", _along(p, "conv1", rows, bias), training)
    v = batch_norm(p, "bn2", _along(p, "conv2", columns, bias), training)
    out = []
    for i in range(height):
        for j in range(width):
            hidden = torch.relu(u[:, :, i] + v[:, :, j])
            gate = torch.sigmoid(hidden @ p["conv3.weight"][:, :, 0, 0].T + p["conv3.bias"])
            out.append(gate * x[:, :, i, j] if scale else gate)
    return torch.stack(out, dim=2).reshape(x.shape)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum(dim=0) / len(values)


def _along(p: Params, name: str, strip: Tensor, bias: bool) -> Tensor:
    """y_i = sum over three taps of K_t x_(i + t), zero beyond the ends; strip: B C L."""
    kernel = p[f"{name}.weight"].flatten(2)
    length = strip.shape[2]
    out = []
    for i in range(length):
        near = [(kernel[:, :, t], strip[:, :, i + t - 1]) for t in range(3) if 0 <= i + t - 1 < length]
        y = torch.stack([value @ tap.T for tap, value in near]).sum(dim=0)
        out.append(y + p[f"{name}.bias"] if bias else y)
    return torch.stack(out, dim=2)
