"""scSE, channel by channel and pixel by pixel (Roy et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"combine": "add"}, {"combine": "multiply"}, {"combine": "concat", "reduction": 4})


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 2, combine: str = "max") -> Tensor:
    """c and s of every entry, then their combination."""
    batch, channels, height, width = x.shape
    z = x.sum(dim=(2, 3)) / (height * width)
    images = []
    for b in range(batch):
        hidden = [
            torch.relu((p["squeeze.weight"][k] * z[b]).sum() + p["squeeze.bias"][k]) for k in range(channels // reduction)
        ]
        logits = [(p["excite.weight"][c] * torch.stack(hidden)).sum() + p["excite.bias"][c] for c in range(channels)]
        by_channel = torch.stack([x[b, c] / (1 + torch.exp(-logits[c])) for c in range(channels)])
        rows = []
        for i in range(height):
            scores = [(p["position.weight"].flatten() * x[b, :, i, j]).sum() + p["position.bias"][0] for j in range(width)]
            rows.append(torch.stack([x[b, :, i, j] / (1 + torch.exp(-scores[j])) for j in range(width)], dim=1))
        by_position = torch.stack(rows, dim=1)
        if combine == "max":
            images.append(torch.where(by_channel > by_position, by_channel, by_position))
        elif combine == "add":
            images.append(by_channel + by_position)
        elif combine == "multiply":
            images.append(by_channel * by_position)
        else:
            images.append(torch.stack([*by_channel, *by_position]))
    return torch.stack(images)
