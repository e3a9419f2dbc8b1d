"""Dual attention: the sum of a loop over positions and a loop over channels (Fu et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = ({"reduction": 4},)


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 8) -> Tensor:
    """Both branches on the same x, each with its residual."""
    batch, channels, height, width = x.shape
    positions = height * width
    q, k, v, maps = (
        t.reshape(batch, -1, positions) for t in (conv1x1(p, "query", x), conv1x1(p, "key", x), conv1x1(p, "value", x), x)
    )
    assert q.shape[1] == channels // reduction
    images = []
    for b in range(batch):
        by_position = []
        for i in range(positions):
            similarity = torch.stack([(q[b, :, i] * k[b, :, j]).sum() for j in range(positions)]).exp()
            by_position.append((v[b] * (similarity / similarity.sum())).sum(dim=1))
        by_channel = []
        for i in range(channels):
            difference = torch.stack([(-(maps[b, i] * maps[b, j]).sum()).exp() for j in range(channels)])
            by_channel.append((maps[b] * (difference / difference.sum())[:, None]).sum(dim=0))
        position_branch = p["alpha"] * torch.stack(by_position, dim=1) + maps[b]
        channel_branch = p["beta"] * torch.stack(by_channel) + maps[b]
        images.append(position_branch + channel_branch)
    return torch.stack(images).reshape(x.shape)
