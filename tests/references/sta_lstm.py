"""STA-LSTM, sequence by sequence and joint by joint, gate by gate (Song et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = (
    {"hidden": 10, "classes": 7, "coordinates": 2},
    {"hidden": 16, "layers": 1, "coordinates": 5},
    {"layers": 2, "spatial_weight": 0.3, "temporal_weight": 0.2, "l1_weight": 0.01},
)
SHAPE = (32, 5, 7, 4)

State = tuple[Tensor, Tensor]


def affine(p: Params, name: str, *parts: Tensor) -> Tensor:
    """W [parts] + b of one vector, a matrix for each part."""
    weight, total, start = p[f"{name}.weight"], p[f"{name}.bias"], 0
    for part in parts:
        total = total + weight[:, start : start + len(part)] @ part
        start += len(part)
    return total


def lstm(p: Params, name: str, x: Tensor, state: State) -> State:
    """i, f, o = sigmoid, g = tanh of affine maps of x_t and h_{t-1};  c = f c + i g;  h = o tanh(c)."""
    size = len(state[0])
    i, f, o, g = (affine(p, f"{name}.gates", x, state[0])[k * size : (k + 1) * size] for k in range(4))
    cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    hidden: int = 100,
    classes: int = 60,
    coordinates: int = 3,
    layers: int = 3,
    spatial_weight: float = 1e-3,
    temporal_weight: float = 1e-4,
    l1_weight: float = 5e-4,
) -> Tensor | tuple[Tensor, Tensor]:
    """o = sum_t beta_t z_t; in training also the three weighed penalties of each sequence."""
    batch, frames, channels = x.shape
    zeros = torch.zeros(hidden, dtype=x.dtype)
    l1 = torch.stack([p[name].abs().sum() for name in p if name.endswith("weight")]).sum()
    scores, penalties = [], []
    for b in range(batch):
        joint = frame = (zeros, zeros)
        main = [(zeros, zeros)] * layers
        total, beta_sum = torch.zeros(classes, dtype=x.dtype), torch.zeros((), dtype=x.dtype)
        alphas = []
        for t in range(frames):
            s = affine(p, "joint_score", torch.tanh(affine(p, "joint_hidden", x[b, t], joint[0])))
            alpha = s.exp() / s.exp().sum()
            beta = torch.relu(affine(p, "frame_score", x[b, t], frame[0]))[0]
            joint, frame = lstm(p, "joint_lstm", x[b, t], joint), lstm(p, "frame_lstm", x[b, t], frame)
            below = torch.stack([alpha[c // coordinates] * x[b, t, c] for c in range(channels)])
            for layer in range(layers):
                main[layer] = lstm(p, f"main.{layer}", below, main[layer])
                below = main[layer][0]
            total = total + beta * affine(p, "classify", below)
            beta_sum = beta_sum + beta
            alphas.append(alpha)
        missed = ((1 - torch.stack(alphas).sum(dim=0) / frames) ** 2).sum()
        scores.append(total)
        penalties.append(torch.stack([spatial_weight * missed, temporal_weight * beta_sum / frames, l1_weight * l1]))
    return (torch.stack(scores), torch.stack(penalties)) if training else torch.stack(scores)
