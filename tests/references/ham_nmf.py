"""Hamburger with non-negative matrix factorisation, image by image in the paper's notation (Geng et al., section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"rank": 5, "latent": 24}, {"steps": 2, "eval_steps": 1})


def reference(
    p: Params, x: Tensor, *, training: bool, latent: int | None = None, rank: int = 64, steps: int = 6, eval_steps: int = 7
) -> Tensor:
    """D >= 0 (D x R) and C >= 0 (R x N) by multiplicative updates; the last one of C alone sees X with its gradient."""
    batch, channels, height, width = x.shape
    features = torch.relu(conv1x1(p, "lower", x)).reshape(batch, -1, height * width)
    assert features.shape[1] == (latent or channels)
    start = torch.rand(1, features.shape[1], rank, dtype=x.dtype)[0]
    start = start / (start**2).sum(dim=0).sqrt()
    images = []
    for b in range(batch):
        fixed = features[b].detach()
        d = start
        c = torch.stack(
            [_softmax(torch.stack([(d[:, r] * fixed[:, n]).sum() for r in range(rank)])) for n in range(height * width)]
        )
        c = c.transpose(0, 1)
        for _ in range(steps if training else eval_steps):
            c = c * torch.einsum("dr,dn->rn", d, fixed) / (torch.einsum("dr,dn->rn", d, d @ c) + 1e-6)
            d = d * torch.einsum("dn,rn->dr", fixed, c) / (torch.einsum("dn,rn->dr", d @ c, c) + 1e-6)
        c = c * torch.einsum("dr,dn->rn", d, features[b]) / (torch.einsum("dr,dn->rn", d, d @ c) + 1e-6)
        images.append(d @ c)
    y = torch.stack(images).reshape(batch, -1, height, width)
    return torch.relu(x + batch_norm(p, "bn", conv1x1(p, "upper", y), training))


def _softmax(scores: Tensor) -> Tensor:
    weights = (scores - scores.max()).exp()
    return weights / weights.sum()
