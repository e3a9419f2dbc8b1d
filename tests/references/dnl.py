"""Disentangled non-local: one attention map that is the sum of both terms, query by query (Yin et al., section 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"temperature": 1.0}, {"reduction": 4})


def reference(p: Params, x: Tensor, *, training: bool, reduction: int = 2, temperature: float = 0.05) -> Tensor:
    """a_ij = exp((q_i - q) . (k_j - k) / (t sqrt(d))) / sum + exp(m_j) / sum;  z_i = x_i + BN(W sum_j a_ij v_j)."""
    batch, channels, height, width = x.shape
    n, d = height * width, channels // reduction
    q, k, v, m = (conv1x1(p, name, x).reshape(batch, -1, n) for name in ("query", "key", "value", "mask"))
    y = torch.zeros_like(v)
    for b in range(batch):
        q_mean = sum(q[b, :, j] for j in range(n)) / n
        k_mean = sum(k[b, :, j] for j in range(n)) / n
        unary = torch.exp(m[b, 0])
        for i in range(n):
            logits = [(q[b, :, i] - q_mean) @ (k[b, :, j] - k_mean) / (temperature * d**0.5) for j in range(n)]
            pairwise = torch.exp(torch.stack(logits))
            attention = pairwise / pairwise.sum() + unary / unary.sum()
            y[b, :, i] = (attention * v[b]).sum(dim=1)
    return x + batch_norm(p, "bn", conv1x1(p, "w", y.reshape(batch, d, height, width)), training)
