"""Attention over a window of the reference frame, position by position."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, conv1x1

SHAPE = (32, 4, 5)
VARIANTS = (
    {"radius": 1, "boundary": "shift"},
    {"radius": 2, "boundary": "shift", "embed": 6},  # a window as wide as the map and higher
)


def _window(at: int, size: int, radius: int, boundary: str) -> range:
    """The coordinates that a position sees along one axis."""
    if boundary == "mask":
        return range(max(at - radius, 0), min(at + radius + 1, size))
    length = min(2 * radius + 1, size)
    start = min(max(at - radius, 0), size - length)
    return range(start, start + length)


def reference(
    p: Params,
    current: Tensor,
    reference: Tensor,
    *,
    training: bool,
    radius: int = 3,
    embed: int | None = None,
    boundary: str = "mask",
) -> Tensor:
    """y_p = sum over the window of exp(q_p . k_u / sqrt(e)) r_u, over the sum of these exponentials."""
    batch, _, height, width = current.shape
    q, k = conv1x1(p, "query", current), conv1x1(p, "key", reference)
    y = torch.zeros_like(current)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                rows, columns = _window(i, height, radius, boundary), _window(j, width, radius, boundary)
                window = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
                similarity = torch.einsum("e,euv->uv", q[b, :, i, j], k[b, :, *window])
                weights = torch.exp(similarity / q.shape[1] ** 0.5)
                y[b, :, i, j] = torch.einsum("uv,cuv->c", weights, reference[b, :, *window]) / weights.sum()
    return y
