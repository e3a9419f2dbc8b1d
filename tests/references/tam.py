"""Temporal adaptive module, channel by channel and frame by frame (Liu et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm

SHAPE = (32, 3, 5, 4)
VARIANTS = ({"kernel_size": 5}, {"alpha": 3, "beta": 8})


def reference(
    p: Params, x: Tensor, *, training: bool, frames: int, kernel_size: int = 3, alpha: int = 2, beta: int = 4
) -> Tensor:
    """y[t, c] = sum_j Theta_c[j] V_c[t + j - k // 2] x[t + j - k // 2, c], frames outside the clip being zero."""
    batch, _, channels, height, width = x.shape
    half = kernel_size // 2
    pooled = x.sum(dim=(3, 4)) / (height * width)  # B T C
    rows = torch.stack([pooled[b, :, c] for b in range(batch) for c in range(channels)])
    hidden = torch.relu(batch_norm(p, "globally.1", rows @ p["globally.0.weight"].T, training))
    scores = torch.exp(hidden @ p["globally.3.weight"].T)
    kernels = (scores / scores.sum(dim=1, keepdim=True)).reshape(batch, channels, kernel_size)
    weight = p["locally.0.weight"]
    near = []
    for t in range(frames):
        taps = [(j, t + j - half) for j in range(kernel_size) if 0 <= t + j - half < frames]
        near.append(torch.stack([pooled[:, s] @ weight[:, :, j].T for j, s in taps]).sum(dim=0))
    hidden = torch.relu(batch_norm(p, "locally.1", torch.stack(near, dim=2), training))  # B C/beta T
    second = p["locally.3.weight"][:, :, 0]
    gates = torch.stack([torch.sigmoid(hidden[:, :, t] @ second.T) for t in range(frames)], dim=1)  # B T C
    clips = []
    for b in range(batch):
        out = []
        for t in range(frames):
            taps = [(j, t + j - half) for j in range(kernel_size) if 0 <= t + j - half < frames]
            terms = [kernels[b, :, j, None, None] * gates[b, s, :, None, None] * x[b, s] for j, s in taps]
            out.append(torch.stack(terms).sum(dim=0))
        clips.append(torch.stack(out))
    return torch.stack(clips)
