"""BAM, tap by tap of its dilated convolutions (Park et al., section 3; layers of the official code)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

SHAPE = (64, 6, 5)
VARIANTS = ({"combine": "multiply"}, {"reduction": 4, "dilation": 2})


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 16, dilation: int = 4, combine: str = "add") -> Tensor:
    """y = x + sigmoid(M_c + M_s) x, with a product in place of the sum for multiply."""
    _, channels, height, width = x.shape
    pooled = x.sum(dim=(2, 3)) / (height * width)
    hidden = torch.relu(batch_norm(p, "squeeze_bn", conv1x1(p, "squeeze", pooled), training))
    assert hidden.shape[1] == channels // reduction
    by_channel = conv1x1(p, "excite", hidden)
    z = torch.relu(batch_norm(p, "reduce_bn", conv1x1(p, "reduce", x), training))
    for layer in ("dilated1", "dilated2"):
        z = torch.relu(batch_norm(p, f"{layer}_bn", _dilated(p, layer, z, dilation), training))
    by_position = conv1x1(p, "project", z)
    out = []
    for c in range(channels):
        logit, logits = by_channel[:, c, None, None], by_position[:, 0]
        gate = 1 / (1 + torch.exp(-(logit + logits if combine == "add" else logit * logits)))
        out.append((1 + gate) * x[:, c])
    return torch.stack(out, dim=1)


def _dilated(p: Params, name: str, x: Tensor, dilation: int) -> Tensor:
    """out_ij = b + sum over taps (u, v) of W_uv x at (i + d u, j + d v), nothing outside the map."""
    _, _, height, width = x.shape
    weight, rows = p[f"{name}.weight"], []
    for i in range(height):
        row = []
        for j in range(width):
            total = p[f"{name}.bias"].expand(x.shape[0], -1)
            for u in (-1, 0, 1):
                for v in (-1, 0, 1):
                    a, b = i + dilation * u, j + dilation * v
                    if 0 <= a < height and 0 <= b < width:
                        total = total + x[:, :, a, b] @ weight[:, :, u + 1, v + 1].T
            row.append(total)
        rows.append(torch.stack(row, dim=2))
    return torch.stack(rows, dim=2)
