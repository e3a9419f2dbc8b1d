"""Recurrent attention model, image by image, with patches cut from a zero-padded image (Mnih et al., section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (32, 9, 13)
VARIANTS = [
    {"patch": 8, "scales": 1, "glimpses": 4},
    {"patch": 3, "scales": 3, "scale": 3, "glimpse_hidden": 24, "location_hidden": 8, "hidden": 48, "std": 0.5},
]


def linear(p: Params, name: str, v: Tensor) -> Tensor:
    """W v + b."""
    return p[f"{name}.weight"] @ v + p[f"{name}.bias"]


def retina(image: Tensor, place: list[float], patch: int, scales: int, scale: int) -> Tensor:
    """Every scale's patch as the means of its cells, from an image with a wide frame of zeros."""
    channels, height, width = image.shape
    seen = []
    for index in range(scales):
        factor = scale**index
        size = patch * factor
        padded = image.new_zeros(channels, height + 2 * size, width + 2 * size)
        padded[:, size : size + height, size : size + width] = image
        left = math.floor((place[0] + 1) / 2 * width) - size // 2 + size
        top = math.floor((place[1] + 1) / 2 * height) - size // 2 + size
        cut = padded[:, top : top + size, left : left + size]
        seen.append(torch.stack([cut[:, i::factor, j::factor] for i in range(factor) for j in range(factor)]).mean(dim=0))
    return torch.cat([cells.reshape(-1) for cells in seen])


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    patch: int = 12,
    scales: int = 3,
    scale: int = 2,
    glimpse_hidden: int = 128,
    location_hidden: int = 128,
    hidden: int = 256,
    glimpses: int = 6,
    classes: int = 10,
    std: float = 0.05,
) -> dict[str, Tensor]:
    """One image after the other; random numbers are drawn for the whole batch, step by step."""
    batch = len(x)
    first = 2 * torch.rand(batch, 2, dtype=x.dtype) - 1 if training else torch.zeros(batch, 2, dtype=x.dtype)
    noise = [torch.randn(batch, 2, dtype=x.dtype) if training else first * 0 for _ in range(glimpses - 1)]
    out: dict[str, list[Tensor]] = {"log_probs": [], "log_pi": [], "baselines": [], "locations": []}
    for b in range(batch):
        place, h = first[b], torch.zeros(hidden, dtype=x.dtype)
        places, log_pi, baselines = [place], [], []
        for step in range(glimpses):
            what = torch.relu(linear(p, "what", retina(x[b], place.tolist(), patch, scales, scale)))
            where = torch.relu(linear(p, "where", place))
            g = torch.relu(linear(p, "merge_what", what) + linear(p, "merge_where", where))
            h = torch.relu(linear(p, "input", g) + linear(p, "recur", h))
            if step == glimpses - 1:
                break
            state = h.detach()
            mean = torch.tanh(linear(p, "locate", state))
            drawn = mean.detach() + std * noise[step][b]
            density = torch.exp(-((drawn - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
            log_pi.append(torch.log(density[0]) + torch.log(density[1]))
            baselines.append(linear(p, "baseline", state)[0])
            place = torch.minimum(torch.maximum(drawn, -torch.ones(2)), torch.ones(2))
            places.append(place)
        scores = linear(p, "classify", h)
        out["log_probs"].append(scores - torch.log(torch.exp(scores).sum()))
        out["log_pi"].append(torch.stack(log_pi))
        out["baselines"].append(torch.stack(baselines))
        out["locations"].append(torch.stack(places))
    return {name: torch.stack(rows) for name, rows in out.items()}
