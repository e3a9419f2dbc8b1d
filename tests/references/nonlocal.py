"""Embedded Gaussian non-local, query by query (Wang et al., section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"subsample": True}, {"reduction": 4})


def _positions(x: Tensor, b: int, subsample: bool) -> list[Tensor]:
    """The vectors of image b in reading order; sub-sampled: the maximum of each whole 2x2 window."""
    step = 2 if subsample else 1
    rows, columns = x.shape[2] // step, x.shape[3] // step
    windows = [x[b, :, step * i : step * (i + 1), step * j : step * (j + 1)] for i in range(rows) for j in range(columns)]
    return [window.amax(dim=(1, 2)) for window in windows]


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 2, subsample: bool = False) -> Tensor:
    """y_i = sum_j exp(theta_i . phi_j) g_j / sum_j exp(theta_i . phi_j);  z = BN(W y) + x."""
    batch, _, height, width = x.shape
    theta, phi, g = (conv1x1(p, name, x) for name in ("theta", "phi", "g"))
    y = torch.zeros_like(g)
    for b in range(batch):
        keys, values = _positions(phi, b, subsample), torch.stack(_positions(g, b, subsample))
        for row, column in [(i, j) for i in range(height) for j in range(width)]:
            f = torch.exp(torch.stack([theta[b, :, row, column] @ k for k in keys]))
            weights = f / f.sum()
            y[b, :, row, column] = (weights[:, None] * values).sum(dim=0)
    return batch_norm(p, "bn", conv1x1(p, "w", y), training) + x
