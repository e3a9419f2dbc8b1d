"""Flow-guided feature aggregation, position by position and frame by frame (Zhu et al., section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (16, 4, 5, 3)
VARIANTS = ({"embedding": "bottleneck"}, {"warp": False})


def reference(
    p: Params,
    x: Tensor,
    references: Tensor,
    *flow: Tensor,
    training: bool,
    embedding: str = "conv",
    warp: bool = True,
) -> Tensor:
    """y(p) = sum_t w_t(p) f_t(p), w_t(p) proportional to exp(cos(E(f_t)(p), E(x)(p))), f_t warped along the flow."""
    frames = [references[:, t] for t in range(references.shape[1])]
    if warp:
        frames = [warped(frame, flow[0][:, t]) for t, frame in enumerate(frames)]
    embed = bottleneck if embedding == "bottleneck" else single
    query = embed(p, x)
    weights = [torch.exp(cosine(embed(p, frame), query)) for frame in frames]
    total = torch.stack(weights).sum(dim=0)
    return torch.stack([weight / total * frame for weight, frame in zip(weights, frames, strict=True)]).sum(dim=0)


def single(p: Params, x: Tensor) -> Tensor:
    return conv(p, "embed.0", x)


def bottleneck(p: Params, x: Tensor) -> Tensor:
    return conv(p, "embed.4", torch.relu(conv(p, "embed.2", torch.relu(conv(p, "embed.0", x)))))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """B E H W, B E H W -> B 1 H W."""
    dot = (a * b).sum(dim=1, keepdim=True)
    return dot / ((a * a).sum(dim=1, keepdim=True) ** 0.5 * (b * b).sum(dim=1, keepdim=True) ** 0.5)


def conv(p: Params, name: str, x: Tensor) -> Tensor:
    """A convolution as a sum over neighbours, zero outside the map."""
    weight = p[f"{name}.weight"]
    height, width = x.shape[2:]
    reach = weight.shape[2] // 2
    lines = []
    for i in range(height):
        line = []
        for j in range(width):
            total = p[f"{name}.bias"]
            for a in range(max(0, i - reach), min(height, i + reach + 1)):
                for b in range(max(0, j - reach), min(width, j + reach + 1)):
                    total = total + x[:, :, a, b] @ weight[:, :, a - i + reach, b - j + reach].T
            line.append(total)
        lines.append(torch.stack(line, dim=2))
    return torch.stack(lines, dim=2)


def warped(x: Tensor, flow: Tensor) -> Tensor:
    """x(p + flow(p)) as a sum of all positions, each times its two hats."""
    rows, columns = torch.arange(x.shape[2], dtype=x.dtype), torch.arange(x.shape[3], dtype=x.dtype)
    right, down = columns + flow[:, 0], rows[:, None] + flow[:, 1]  # B H W
    near_row = torch.relu(1 - (rows - down[..., None]).abs())  # B H W H
    near_column = torch.relu(1 - (columns - right[..., None]).abs())  # B H W W
    return torch.einsum("bijp,bijq,bcpq->bcij", near_row, near_column, x)
