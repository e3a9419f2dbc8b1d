"""Triplet attention: rotate, gate, rotate back (Misra et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm

VARIANTS = ({"kernel": 3}, {"spatial": False, "kernel": 5})


def reference(p: Params, x: Tensor, *, training: bool, kernel: int = 7, spatial: bool = True) -> Tensor:
    """Each branch puts one dimension where the channels are, gates by its Z-pool, and puts it back."""
    out = [
        _gated(p, "over_height", x.permute(0, 2, 1, 3), kernel, training).permute(0, 2, 1, 3),
        _gated(p, "over_width", x.permute(0, 3, 2, 1), kernel, training).permute(0, 3, 2, 1),
    ]
    if spatial:
        out.append(_gated(p, "over_channels", x, kernel, training))
    return torch.stack(out).sum(dim=0) / len(out)


def _gated(p: Params, name: str, x: Tensor, kernel: int, training: bool) -> Tensor:
    """x: B D U V under sigmoid(BN(conv of the largest and the mean of D))."""
    _, depth, rows, columns = x.shape
    most, mean = x[:, 0], x[:, 0] / depth
    for d in range(1, depth):
        most = torch.where(x[:, d] > most, x[:, d], most)
        mean = mean + x[:, d] / depth
    weight, reach = p[f"{name}.conv.weight"][0], kernel // 2
    lines = []
    for u in range(rows):
        line = []
        for v in range(columns):
            top, left = max(0, u - reach), max(0, v - reach)
            window = torch.stack([plane[:, top : u + reach + 1, left : v + reach + 1] for plane in (most, mean)], dim=1)
            a, b = top - u + reach, left - v + reach
            line.append((window * weight[:, a : a + window.shape[2], b : b + window.shape[3]]).sum(dim=(1, 2, 3)))
        lines.append(torch.stack(line, dim=1))
    scores = batch_norm(p, f"{name}.bn", torch.stack(lines, dim=1)[:, None], training)
    return x / (1 + torch.exp(-scores))
