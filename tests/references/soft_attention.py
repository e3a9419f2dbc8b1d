"""Soft attention, position by position (Xu et al., sections 3.1.2 and 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = [
    {"gate": "scalar", "hidden": 20},
    {"gate": "channel", "activation": "relu", "hidden": 48, "attention": 24},
]


def reference(
    p: Params,
    features: Tensor,
    state: Tensor,
    *,
    training: bool,
    hidden: int | None = None,
    attention: int | None = None,
    gate: str = "none",
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """alpha_i = exp(e_i) / sum_j exp(e_j);  z = beta sum_i alpha_i a_i."""
    bend = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    contexts, weights = [], []
    for a, h in zip(features, state, strict=True):
        scores = []
        for position in a:
            joint = p["features.weight"] @ position + p["features.bias"] + p["state.weight"] @ h + p["state.bias"]
            scores.append((p["score.weight"][0] * bend(joint)).sum() + p["score.bias"][0])
        exponentials = [torch.exp(score) for score in scores]
        alpha = [value / sum(exponentials) for value in exponentials]
        z = torch.stack([weight * position for weight, position in zip(alpha, a, strict=True)]).sum(dim=0)
        if gate != "none":
            z = z / (1 + torch.exp(-(p["gate.weight"] @ h + p["gate.bias"])))
        contexts.append(z)
        weights.append(torch.stack(alpha))
    return torch.stack(contexts), torch.stack(weights)
