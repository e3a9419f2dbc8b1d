"""Gated channel transformation, channel by channel (Yang et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"mode": "l1"},)
EPS = 1e-5


def reference(p: Params, x: Tensor, *, training: bool, mode: str = "l2") -> Tensor:
    """y_c = x_c (1 + tanh(gamma_c sqrt(C) e_c / |e| + beta_c)), e_c = alpha_c |x_c|: the norms are l2 or (without root) l1."""
    batch, channels, _, _ = x.shape
    images = []
    for b in range(batch):
        e = []
        for c in range(channels):
            norm = ((x[b, c] ** 2).sum() + EPS) ** 0.5 if mode == "l2" else x[b, c].abs().sum()
            e.append(p["alpha"][0, c, 0, 0] * norm)
        if mode == "l2":
            length = (sum((e_c**2 for e_c in e), torch.zeros(())) + channels * EPS) ** 0.5 / channels**0.5
        else:
            length = (sum((e_c.abs() for e_c in e), torch.zeros(())) + channels * EPS) / channels
        gates = []
        for c in range(channels):
            u = p["gamma"][0, c, 0, 0] * e[c] / length + p["beta"][0, c, 0, 0]
            gates.append(2 / (1 + torch.exp(-2 * u)))  # 1 + tanh u
        images.append(torch.stack([gates[c] * x[b, c] for c in range(channels)]))
    return torch.stack(images)
