"""Embedded Gaussian non-local over space and time, query by query (Wang et al., section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

SHAPE = (32, 4, 3, 3)
VARIANTS = ({"subsample": True}, {"reduction": 4})


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 2, subsample: bool = False) -> Tensor:
    """y_i = sum_j exp(theta_i . phi_j) g_j / sum_j exp(theta_i . phi_j) over all frames;  z = BN(W y) + x."""
    clip = x.permute(0, 2, 1, 3, 4)  # B C T H W, the paper's
    batch, _, frames, height, width = clip.shape
    theta, phi, g = (conv1x1(p, name, clip) for name in ("theta", "phi", "g"))
    step = 2 if subsample else 1
    where = [(t, i, j) for t in range(frames) for i in range(height // step) for j in range(width // step)]
    y = torch.zeros_like(theta)
    for b in range(batch):
        keys, values = (
            torch.stack(
                [m[b, :, t, step * i : step * (i + 1), step * j : step * (j + 1)].amax(dim=(1, 2)) for t, i, j in where]
            )
            for m in (phi, g)
        )
        for t in range(frames):
            for i in range(height):
                for j in range(width):
                    f = torch.exp((theta[b, :, t, i, j] * keys).sum(dim=1))
                    y[b, :, t, i, j] = ((f / f.sum())[:, None] * values).sum(dim=0)
    z = batch_norm(p, "bn", conv1x1(p, "w", y), training) + clip
    return z.permute(0, 2, 1, 3, 4)
