"""Mixed pooling: averages and interpolation as tables of shares, convolutions tap by tap (Hou et al., section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.references import Params, batch_norm

VARIANTS = ({"grids": (3,)}, {"grids": (2, 6, 9)})


def reference(p: Params, x: Tensor, *, training: bool, grids: Sequence[int] = (20, 12)) -> Tensor:
    """y = relu(x + W [near context, far context])."""
    _, _, height, width = x.shape
    near, far = (torch.relu(_conv_bn(p, name, x, training)) for name in ("near_in", "far_in"))
    short = [_conv_bn(p, "near", near, training)]
    for index, grid in enumerate(grids):
        pooled = torch.einsum("ai,bj,kcij->kcab", _cells(x, grid, height), _cells(x, grid, width), near)
        pooled = _conv_bn(p, f"cells.{index}", pooled, training)
        short.append(torch.einsum("ia,jb,kcab->kcij", _hats(x, height, grid), _hats(x, width, grid), pooled))
    columns = _conv_bn(p, "columns", far.sum(dim=2, keepdim=True) / height, training)
    rows = _conv_bn(p, "rows", far.sum(dim=3, keepdim=True) / width, training)
    long = torch.stack([columns[:, :, 0] + rows[:, :, i] for i in range(height)], dim=2)
    short_out = torch.relu(_conv_bn(p, "near_out", torch.relu(torch.stack(short).sum(dim=0)), training))
    long_out = torch.relu(_conv_bn(p, "far_out", torch.relu(long), training))
    return torch.relu(x + _conv_bn(p, "mix", torch.cat([short_out, long_out], dim=1), training))


def _conv_bn(p: Params, name: str, x: Tensor, training: bool) -> Tensor:
    height, width = x.shape[2:]
    weight = p[f"{name}.conv.weight"]
    high, wide = weight.shape[2:]
    padded = torch.nn.functional.pad(x, (wide // 2, wide // 2, high // 2, high // 2))
    places = [(a, b) for a in range(high) for b in range(wide)]
    taps = [torch.einsum("oc,bchw->bohw", weight[:, :, a, b], padded[:, :, a : a + height, b : b + width]) for a, b in places]
    return batch_norm(p, f"{name}.bn", torch.stack(taps).sum(dim=0), training)


def _cells(x: Tensor, grid: int, side: int) -> Tensor:
    """Row a: cell a of a grid averages the pixels from floor(a side/grid) to ceil((a + 1) side/grid)."""
    table = torch.zeros(grid, side, dtype=x.dtype)
    for a in range(grid):
        first, last = a * side // grid, -(-(a + 1) * side // grid)
        table[a, first:last] = 1 / (last - first)
    return table


def _hats(x: Tensor, large: int, small: int) -> Tensor:
    """Row i: the share of each cell in pixel i, the corners of both grids on each other."""
    places = [i * (small - 1) / (large - 1) for i in range(large)]
    return torch.tensor([[max(0.0, 1 - abs(place - a)) for a in range(small)] for place in places], dtype=x.dtype)
