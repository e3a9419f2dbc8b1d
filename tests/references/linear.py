"""Linear attention: every pair of positions, as if it were quadratic (Katharopoulos et al., section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"heads": 1}, {"heads": 4, "form": "softmax"}, {"form": "softmax"})


def similarity(q: Tensor, k: Tensor, form: str) -> Tensor:
    """What query i (N d) gives to key j (N d) before any normalisation over j: N N."""
    if form == "softmax":
        q = q.exp() / q.exp().sum(dim=1, keepdim=True)
        k = k.exp() / k.exp().sum(dim=0, keepdim=True)
    else:
        q = torch.where(q > 0, q + 1, q.exp())
        k = torch.where(k > 0, k + 1, k.exp())
    return torch.stack([(q[i] * k).sum(dim=1) for i in range(q.shape[0])])


def reference(p: Params, x: Tensor, *, training: bool, heads: int = 8, form: str = "elu") -> Tensor:
    """y_i = sum_j sim(q_i, k_j) v_j / sum_j sim(q_i, k_j); the form softmax without the denominator."""
    batch, _, channels = x.shape
    size = channels // heads
    images = []
    for b in range(batch):
        projected = []
        for part in range(3):
            rows = slice(part * channels, (part + 1) * channels)
            projected.append(torch.einsum("oc,nc->no", p["qkv.weight"][rows], x[b]) + p["qkv.bias"][rows])
        q, k, v = projected
        outputs = []
        for m in range(heads):
            own = slice(m * size, (m + 1) * size)
            weights = similarity(q[:, own], k[:, own], form)
            if form == "elu":
                weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-6)
            outputs.append(torch.einsum("ij,jc->ic", weights, v[:, own]))
        images.append(torch.einsum("oc,nc->no", p["out.weight"], torch.cat(outputs, dim=1)) + p["out.bias"])
    return torch.stack(images)
