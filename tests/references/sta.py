"""STA, stripe by stripe and frame by frame (Fu et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (32, 5, 3, 3)
VARIANTS = ({"stripes": 1}, {"stripes": 5})


def reference(p: Params, x: Tensor, *, training: bool, stripes: int = 4) -> Tensor:
    """[the stripe of the frame with the highest score, the score-weighted sum of the frames' stripes], mean over stripes."""
    batch, frames, _, height, width = x.shape
    clips = []
    for b in range(batch):
        g = []
        for t in range(frames):
            lengths = torch.stack([torch.stack([x[b, t, :, i, j].norm() for j in range(width)]) for i in range(height)])
            g.append(lengths / lengths.norm())
        both = []
        for stripe in range(stripes):
            rows = slice(stripe * height // stripes, -(-(stripe + 1) * height // stripes))
            s = torch.stack([g[t][rows].sum() for t in range(frames)])
            a = s / s.sum()
            features = [x[b, t, :, rows].mean(dim=(1, 2)) for t in range(frames)]
            best = max(range(frames), key=lambda t: float(a[t].detach()))
            both.append(torch.cat([features[best], sum((a[t] * features[t] for t in range(frames)), torch.zeros(()))]))
        clips.append(torch.stack(both).sum(dim=0) / stripes)
    return torch.stack(clips)
