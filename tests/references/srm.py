"""Style-based recalibration, channel by channel (Lee et al., section 3; variance and epsilon of the official code)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm

VARIANTS = ({"styles": 1}, {"styles": 3})


def reference(p: Params, x: Tensor, *, training: bool, styles: int = 2) -> Tensor:
    """z_c = w_c1 mean + w_c2 sqrt(sum (x - mean)^2 / (N - 1) + 1e-5) + w_c3 max;  y_c = sigmoid(BN(z_c)) x_c."""
    batch, channels, height, width = x.shape
    count = height * width
    images = []
    for b in range(batch):
        z = []
        for c in range(channels):
            values = x[b, c].flatten()
            mean = values.sum() / count
            style = [mean, (((values - mean) ** 2).sum() / (count - 1) + 1e-5) ** 0.5, values.max()]
            z.append(sum((p["cfc"][c, i] * style[i] for i in range(styles)), torch.zeros(())))
        images.append(torch.stack(z))
    logits = batch_norm(p, "bn", torch.stack(images), training)
    return x / (1 + torch.exp(-logits))[:, :, None, None]
