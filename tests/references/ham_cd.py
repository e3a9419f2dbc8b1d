"""Hamburger with concept decomposition, position by position (Geng et al., section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"rank": 5, "latent": 24, "beta": 0.5}, {"steps": 2, "eval_steps": 1, "inverse_temperature": 10.0})


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    latent: int | None = None,
    rank: int = 64,
    steps: int = 6,
    eval_steps: int = 7,
    inverse_temperature: float = 100.0,
    beta: float = 0.1,
) -> Tensor:
    """Spherical k-means for D; then each position solves min_c |x - D c|^2 + beta |c|^2, which alone has a gradient."""
    batch, channels, height, width = x.shape
    features = conv1x1(p, "lower", x).reshape(batch, -1, height * width)
    assert features.shape[1] == (latent or channels)
    start = torch.randn(1, features.shape[1], rank, dtype=x.dtype)[0]
    start = start / _norm(start)
    images = []
    for b in range(batch):
        fixed = features[b].detach()
        concepts = start
        for _ in range(steps if training else eval_steps):
            codes = []
            for n in range(height * width):
                direction = fixed[:, n] / (fixed[:, n] ** 2).sum().sqrt()
                scores = inverse_temperature * torch.stack([(concepts[:, r] * direction).sum() for r in range(rank)])
                weights = (scores - scores.max()).exp()
                codes.append(weights / weights.sum())
            sums = []
            for r in range(rank):
                weights = torch.stack([code[r] for code in codes])
                sums.append((weights * fixed).sum(dim=1) / (1e-6 + weights.sum()))
            concepts = torch.stack(sums, dim=1)
            concepts = concepts / _norm(concepts).clamp(min=1e-6)  # concepts far from every position fade to zero
        normal = beta * torch.eye(rank, dtype=x.dtype) + torch.einsum("dr,ds->rs", concepts, concepts)
        columns = []
        for n in range(height * width):
            code = torch.linalg.solve(normal, (concepts * features[b, :, n, None]).sum(dim=0))
            columns.append((concepts * code).sum(dim=1))
        images.append(torch.stack(columns, dim=1))
    y = torch.stack(images).reshape(batch, -1, height, width)
    return torch.relu(x + batch_norm(p, "bn", conv1x1(p, "upper", y), training))


def _norm(columns: Tensor) -> Tensor:
    return (columns**2).sum(dim=0).sqrt()
