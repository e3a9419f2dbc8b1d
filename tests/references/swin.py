"""Window attention: window by window on coordinates, without rolling the map (Liu et al., section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"shift": 3}, {"heads": 4}, {"window": 4, "shift": 2, "heads": 2}, {"window": 3, "shift": 1})
SHAPE = (32, 8, 9)

Place = tuple[int, int]


def axis_windows(size: int, window: int, shift: int) -> list[list[tuple[int, bool]]]:
    """The windows of one axis: positions in order, and whether each was reached by going round the edge."""
    return [[((i + shift) % size, i + shift >= size) for i in range(k, k + window)] for k in range(0, size, window)]


def attend(p: Params, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, met: Tensor) -> Tensor:
    """Attention of one head in one window: logits plus bias, only pairs that are in `met`."""
    weights = torch.exp(torch.einsum("ic,jc->ij", q, k) / math.sqrt(q.shape[1]) + bias) * met
    return torch.einsum("ij,jc->ic", weights, v) / weights.sum(dim=1, keepdim=True)


def reference(p: Params, x: Tensor, *, training: bool, heads: int | None = None, window: int = 7, shift: int = 0) -> Tensor:
    """Every window of the map with zeros up to whole windows; the shifted ones go round the edges without looking across."""
    batch, channels, height, width = x.shape
    heads = max(channels // 32, 1) if heads is None else heads
    size = channels // heads
    tall, wide = math.ceil(height / window) * window, math.ceil(width / window) * window
    full = torch.zeros(batch, tall, wide, channels, dtype=x.dtype)
    full[:, :height, :width] = x.permute(0, 2, 3, 1)
    qkv = torch.einsum("oc,bijc->bijo", p["qkv.weight"], full) + p["qkv.bias"]
    places = [(i, j) for i in range(window) for j in range(window)]
    offsets = [[(i - k + window - 1) * (2 * window - 1) + j - m + window - 1 for k, m in places] for i, j in places]
    bias = p["bias"][torch.tensor(offsets)]  # query key head
    out: dict[Place, Tensor] = {}
    for rows in axis_windows(tall, window, shift):
        for columns in axis_windows(wide, window, shift):
            members = [(i, j) for i, _ in rows for j, _ in columns]
            sides = torch.tensor([2 * a + b for _, a in rows for _, b in columns])
            met = (sides[:, None] == sides[None, :]).to(x.dtype)
            tokens = torch.stack([qkv[:, i, j] for i, j in members], dim=1)  # B MM 3C
            images = []
            for b in range(batch):
                results = []
                for m in range(heads):
                    q, k, v = (tokens[b, :, part * channels + m * size :][:, :size] for part in range(3))
                    results.append(attend(p, q, k, v, bias[:, :, m], met))
                images.append(torch.cat(results, dim=1))
            for number, place in enumerate(members):
                out[place] = torch.stack([image[number] for image in images])  # B C
    y = torch.stack([torch.stack([out[i, j] for j in range(width)], dim=1) for i in range(height)], dim=1)  # B H W C
    return (torch.einsum("oc,bijc->bijo", p["out.weight"], y) + p["out.bias"]).permute(0, 3, 1, 2)
