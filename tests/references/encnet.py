"""Context encoding, codeword by codeword (Zhang et al., section 2; means and signs of the official code)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"codes": 5}, {"classes": 19}, {"codes": 3, "classes": 1})


def reference(p: Params, x: Tensor, *, training: bool, codes: int = 32, classes: int = 0) -> Tensor | tuple[Tensor, Tensor]:
    """e_k = sum_i exp(s_k |r_ik|^2) / sum_j exp(s_j |r_ij|^2) r_ik, r_ik = h_i - d_k;  y = relu(x (1 + sigmoid(W e)))."""
    h = torch.relu(batch_norm(p, "bn", conv1x1(p, "conv", x), training)).flatten(2)  # B C N
    residuals = [h - p["codewords"][k][:, None] for k in range(codes)]
    logits = torch.stack([p["scale"][k] * (residuals[k] ** 2).sum(dim=1) for k in range(codes)])  # K B N
    weights = torch.exp(logits - logits.amax(dim=0))
    weights = weights / weights.sum(dim=0)
    sums = torch.stack([(weights[k][:, None] * residuals[k]).sum(dim=2) for k in range(codes)], dim=1)  # B K C
    normed = batch_norm(p, "code_bn", sums, training).clamp(min=0)
    e = sum((normed[:, k] for k in range(codes)), torch.zeros(())) / codes  # B C
    gate = 1 / (1 + torch.exp(-(e @ p["gate.weight"].T + p["gate.bias"])))
    y = (x * (1 + gate[:, :, None, None])).clamp(min=0)
    if not classes:
        return y
    return y, torch.stack([(p["presence.weight"][m] * e).sum(dim=1) + p["presence.bias"][m] for m in range(classes)], dim=1)
