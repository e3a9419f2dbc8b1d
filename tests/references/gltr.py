"""GLTR, frame by frame (Li et al., section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

SHAPE = (32, 1, 1, 6)
VARIANTS = ({"width": 16}, {"rates": [1, 2, 3], "keep_input": True}, {"rates": [1], "reduction": 4})


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    width: int | None = None,
    rates: Sequence[int] = (1, 2, 4),
    reduction: int = 2,
    keep_input: bool = False,
) -> Tensor:
    """y = mean_t (f'_t + W sum_s softmax_s(q_t . k_s) v_s), f' the branches side by side."""
    batch, frames, _ = x.shape
    if width is not None:
        x = torch.stack([x[:, t] @ p["embed.weight"].T + p["embed.bias"] for t in range(frames)], dim=1)
    branches = [x] if keep_input else []
    for index, rate in enumerate(rates):
        weight = p[f"pyramid.{index}.weight"]  # D D 3
        out = []
        for t in range(frames):
            near = [(tap, t + (tap - 1) * rate) for tap in range(3) if 0 <= t + (tap - 1) * rate < frames]
            out.append(torch.stack([torch.einsum("od,bd->bo", weight[:, :, tap], x[:, s]) for tap, s in near]).sum(dim=0))
        branches.append(torch.stack(out, dim=1))
    f = torch.cat(branches, dim=2).transpose(1, 2)  # B F T
    q = torch.relu(batch_norm(p, "query.1", conv1x1(p, "query.0", f), training))
    k = torch.relu(batch_norm(p, "key.1", conv1x1(p, "key.0", f), training))
    v = conv1x1(p, "value", f)
    clips = []
    for b in range(batch):
        rows = []
        for t in range(frames):
            scores = torch.exp(torch.stack([(q[b, :, t] * k[b, :, s]).sum() for s in range(frames)]))
            attended = sum(scores[s] * v[b, :, s] for s in range(frames)) / scores.sum()
            rows.append(p["w.weight"][:, :, 0] @ attended + p["w.bias"] + f[b, :, t])
        clips.append(torch.stack(rows).sum(dim=0) / frames)
    return torch.stack(clips)
