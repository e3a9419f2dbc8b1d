"""Hamburger with soft vector quantisation, position by position (Geng et al., section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"rank": 5, "latent": 24}, {"steps": 2, "eval_steps": 1, "inverse_temperature": 10.0})


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
) -> Tensor:
    """Soft k-means with cosine similarity; the last assignment alone sees X with its gradient, and |X| without."""
    batch, channels, height, width = x.shape
    features = conv1x1(p, "lower", x).reshape(batch, -1, height * width)
    assert features.shape[1] == (latent or channels)
    start = torch.randn(1, features.shape[1], rank, dtype=x.dtype)[0]
    start = start / _norm(start)
    images = []
    for b in range(batch):
        fixed = features[b].detach()
        centres = start
        for _ in range(steps if training else eval_steps):
            codes = _assign(fixed / _norm(fixed), centres, inverse_temperature)
            means = []
            for r in range(rank):
                weights = torch.stack([code[r] for code in codes])
                means.append((weights * fixed).sum(dim=1) / (1e-6 + weights.sum()))
            centres = torch.stack(means, dim=1)
        codes = _assign(features[b] / (1e-6 + _norm(fixed)), centres, inverse_temperature)
        images.append(torch.stack([(code * centres).sum(dim=1) for code in codes], dim=1))
    y = torch.stack(images).reshape(batch, -1, height, width)
    return torch.relu(x + batch_norm(p, "bn", conv1x1(p, "upper", y), training))


def _norm(columns: Tensor) -> Tensor:
    return (columns**2).sum(dim=0).sqrt()


def _assign(directions: Tensor, centres: Tensor, inverse_temperature: float) -> list[Tensor]:
    """For each position the weights of the centres, softmax of the cosines."""
    unit = centres / _norm(centres).clamp(min=1e-6)  # centres far from every position fade to zero
    codes = []
    for n in range(directions.shape[1]):
        scores = inverse_temperature * torch.stack([(unit[:, r] * directions[:, n]).sum() for r in range(unit.shape[1])])
        weights = (scores - scores.detach().max()).exp()
        codes.append(weights / weights.sum())
    return codes
