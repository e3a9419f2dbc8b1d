"""Pairwise self-attention, neighbour by neighbour (Zhao et al.): a list of pairs, one network over all, then sums."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = (
    {"kernel": 3, "share": 2},
    {"relation_reduction": 4, "mid_reduction": 2, "kernel": 5},
)
SHAPE = (32, 4, 5)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    kernel: int = 7,
    relation_reduction: int = 16,
    mid_reduction: int = 4,
    share: int = 8,
) -> Tensor:
    """The weights of neighbour j of position i, for all pairs: gamma([phi(x_i) - psi(x_j), P place_i - P place_j])."""
    _, _, height, width = x.shape
    query, key, value = (conv1x1(p, name, x) for name in ("query", "key", "value"))
    places = {(y, z): _placed(p, y, z, height, width) for y in range(height) for z in range(width)}
    relations, values = [], []
    for y in range(height):
        for z in range(width):
            for v, u in _neighbours(y, z, height, width, kernel):
                offset = (places[y, z] - places[v, u]).expand(x.shape[0], 2)
                relations.append(torch.cat([query[:, :, y, z] - key[:, :, v, u], offset], dim=1))
                values.append(value[:, :, v, u])
    pairs = torch.stack(relations, dim=2)  # B R+2 pairs
    pairs = torch.relu(batch_norm(p, "weigh.0", pairs, training))
    pairs = torch.relu(batch_norm(p, "weigh.3", conv1x1(p, "weigh.2", pairs), training))
    weights = conv1x1(p, "weigh.5", pairs).exp().reshape(x.shape[0], -1, height * width, kernel**2)
    weights = weights / weights.sum(dim=3, keepdim=True)
    groups = weights.shape[1]
    window = torch.stack(values, dim=2).reshape(x.shape[0], -1, height * width, kernel**2)
    out = [(weights[:, c % groups] * window[:, c]).sum(dim=2) for c in range(window.shape[1])]
    return torch.stack(out, dim=1).reshape(value.shape)


def _placed(p: Params, y: int, z: int, height: int, width: int) -> Tensor:
    """The projection of a place: column and row from -1 to 1."""
    weight = p["position.weight"].flatten(1)
    place = torch.tensor([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], dtype=weight.dtype)
    return weight @ place + p["position.bias"]


def _neighbours(y: int, z: int, height: int, width: int, kernel: int) -> list[tuple[int, int]]:
    """Rows and columns of a window; one beyond the border is mirrored at the last one within."""
    steps = range(-(kernel // 2), kernel // 2 + 1)
    return [(_mirrored(y + dy, height), _mirrored(z + dz, width)) for dy in steps for dz in steps]


def _mirrored(i: int, size: int) -> int:
    return -i if i < 0 else 2 * (size - 1) - i if i >= size else i
