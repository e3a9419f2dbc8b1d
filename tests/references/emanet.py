"""Expectation-maximization attention, image by image (Li et al., section 3; EM without gradients as in the official code)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"bases": 8}, {"bases": 5, "iterations": 1})


def reference(p: Params, x: Tensor, *, training: bool, bases: int = 64, iterations: int = 3) -> Tensor:
    """E: z_nk = softmax_k(f_n . mu_k);  M: mu_k = unit(sum_n z_nk f_n / sum_n z_nk);  y = relu(x + BN(W2 relu(z mu)))."""
    batch, channels, height, width = x.shape
    rebuilt = []
    with torch.no_grad():
        features = conv1x1(p, "conv1", x)
        for b in range(batch):
            f = [features[b, :, i, j] for i in range(height) for j in range(width)]
            mu = [p["mu"][0, :, k] for k in range(bases)]
            z: list[Tensor] = []
            for _ in range(iterations):
                z = [torch.softmax(torch.stack([(f_n * mu_k).sum() for mu_k in mu]), dim=0) for f_n in f]
                mu_next = []
                for k in range(bases):
                    mass = 1e-6 + sum(float(z_n[k]) for z_n in z)
                    mean = torch.stack([z_n[k] * f_n for z_n, f_n in zip(z, f, strict=True)]).sum(dim=0) / mass
                    mu_next.append(mean / (1e-6 + mean.square().sum().sqrt()))
                mu = mu_next
            rows = [sum((z_n[k] * mu[k] for k in range(bases)), torch.zeros(())) for z_n in z]
            rebuilt.append(torch.stack(rows, dim=1).reshape(channels, height, width))
        y = torch.stack(rebuilt).clamp(min=0)
    return (x + batch_norm(p, "bn", conv1x1(p, "conv2", y), training)).clamp(min=0)
