"""Hard attention, position by position (Xu et al., sections 3.1.2 and 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = [
    {"sample_share": 1.0, "hidden": 20},
    {"sample_share": 0.0, "evaluation": "expectation", "hidden": 48, "attention": 24},
]


def reference(
    p: Params,
    features: Tensor,
    state: Tensor,
    *,
    training: bool,
    hidden: int | None = None,
    attention: int | None = None,
    sample_share: float = 0.5,
    evaluation: str = "argmax",
) -> dict[str, Tensor]:
    """z = sum_i w_i a_i and log_prob = sum_i w_i log alpha_i with w one-hot, or alpha itself as a constant."""
    batch, positions, _ = features.shape
    coins = torch.rand(batch, 1, dtype=features.dtype) if training else torch.zeros(batch, 1)
    thresholds = torch.rand(batch, 1, dtype=features.dtype) if training else torch.zeros(batch, 1)
    out: dict[str, list[Tensor]] = {"z": [], "alpha": [], "log_prob": [], "entropy": [], "baseline": []}
    for b in range(batch):
        scores = []
        for position in features[b]:
            joint = p["features.weight"] @ position + p["features.bias"] + p["state.weight"] @ state[b] + p["state.bias"]
            scores.append((p["score.weight"][0] * torch.tanh(joint)).sum() + p["score.bias"][0])
        exponentials = torch.exp(torch.stack(scores))
        alpha = exponentials / exponentials.sum()
        values = alpha.tolist()
        if (coins[b] >= sample_share) if training else evaluation == "expectation":
            weights = values
        else:
            place = values.index(max(values))
            if training:
                place, reached = 0, values[0]
                while reached <= thresholds[b].item():
                    place += 1
                    reached += values[place]
            weights = [1.0 if i == place else 0.0 for i in range(positions)]
        out["z"].append(torch.stack([w * a for w, a in zip(weights, features[b], strict=True)]).sum(dim=0))
        out["alpha"].append(alpha)
        out["log_prob"].append(torch.stack([w * torch.log(a) for w, a in zip(weights, alpha, strict=True)]).sum())
        out["entropy"].append(-torch.stack([a * torch.log(a) for a in alpha]).sum())
        out["baseline"].append(p["baseline"])
    return {name: torch.stack(rows) for name, rows in out.items()}
