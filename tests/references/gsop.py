"""Second-order pooling, covariance by covariance (Gao et al.; the layers of the official block)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"dims": 6, "stride": 2}, {"dims": 5, "rectify": True})


def reference(p: Params, x: Tensor, *, training: bool, dims: int = 128, stride: int = 1, rectify: bool = False) -> Tensor:
    """S_ij = E[z_i z_j] - E[z_i] E[z_j];  q_ik = sum_j K_ikj S'_ij + b_ik;  y_c = sigmoid(sum_ik W_cik q_ik + w_c) x_c."""
    source = x.clamp(min=0) if rectify else x
    z = torch.relu(batch_norm(p, "reduce_bn", conv1x1(p, "reduce", source[:, :, ::stride, ::stride]), training))
    count = z.shape[2] * z.shape[3]
    mean = z.sum(dim=(2, 3)) / count  # B d
    rows = []
    for i in range(dims):
        together = (z[:, i : i + 1] * z).sum(dim=(2, 3)) / count
        rows.append(together - mean[:, i : i + 1] * mean)  # B d
    covariance = batch_norm(p, "row_bn", torch.stack(rows, dim=1), training)  # B d d
    kernels, biases = p["row_conv.weight"].reshape(dims, 4, dims), p["row_conv.bias"].reshape(dims, 4)
    q = []
    for i in range(dims):
        for k in range(4):
            q.append((kernels[i, k] * covariance[:, i]).sum(dim=1) + biases[i, k])
    logits = torch.stack(q, dim=1) @ p["expand.weight"].flatten(1).T + p["expand.bias"]
    return x / (1 + torch.exp(-logits))[:, :, None, None]
