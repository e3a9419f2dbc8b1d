"""Double attention, descriptor by descriptor (Chen et al., equations 3 to 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = ({"cm": 12, "cn": 5}, {"reconstruct": False}, {"cm": 7, "cn": 4, "reconstruct": False})


def reference(
    p: Params, x: Tensor, *, training: bool, cm: int | None = None, cn: int | None = None, reconstruct: bool = True
) -> Tensor:
    """g_k = sum_i exp(b_ki) / sum_j exp(b_kj) a_i;  z_i = sum_k exp(v_ki) / sum_l exp(v_li) g_k;  y_i = x_i + W z_i."""
    batch, _, height, width = x.shape
    a, b, v = (conv1x1(p, name, x) for name in ("a", "b", "v"))
    positions = [(i, j) for i in range(height) for j in range(width)]
    z = torch.zeros_like(a)
    for image in range(batch):
        descriptors = []
        for k in range(b.shape[1]):
            weights = [torch.exp(b[image, k, i, j]) for i, j in positions]
            total = torch.stack(weights).sum()
            terms = [weight / total * a[image, :, i, j] for weight, (i, j) in zip(weights, positions, strict=True)]
            descriptors.append(torch.stack(terms).sum(dim=0))
        for i, j in positions:
            shares = torch.exp(v[image, :, i, j])
            z[image, :, i, j] = sum(share / shares.sum() * g for share, g in zip(shares, descriptors, strict=True))
    return x + conv1x1(p, "w", z) if reconstruct else z
