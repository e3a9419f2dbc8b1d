"""Spatial-reduction attention: window by window, then head by head (Wang et al., section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"sr_ratio": 1}, {"sr_ratio": 2, "heads": 4}, {"sr_ratio": 10, "heads": 8})
SHAPE = (32, 9, 21)


def layer_norm(p: Params, name: str, x: Tensor) -> Tensor:
    """Zero mean and unit variance over the channels of one token."""
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(p: Params, name: str, x: Tensor) -> Tensor:
    """W x + b for tokens N C."""
    return torch.einsum("oc,nc->no", p[f"{name}.weight"], x) + p[f"{name}.bias"]


def reduced(p: Params, image: Tensor, ratio: int) -> Tensor:
    """One token per whole window of ratio x ratio positions; a smaller map is filled up with zeros: S C."""
    channels, height, width = image.shape
    full = torch.zeros(channels, max(height, ratio), max(width, ratio), dtype=image.dtype)
    full[:, :height, :width] = image
    tokens = []
    for row in range(full.shape[1] // ratio):
        for column in range(full.shape[2] // ratio):
            window = full[:, row * ratio : (row + 1) * ratio, column * ratio : (column + 1) * ratio]
            token = torch.einsum("ocij,cij->o", p["reduce.weight"], window) + p["reduce.bias"]
            tokens.append(layer_norm(p, "norm", token))
    return torch.stack(tokens)


def reference(p: Params, x: Tensor, *, training: bool, sr_ratio: int = 8, heads: int | None = None) -> Tensor:
    """Attention of all positions on the tokens of the reduced map."""
    batch, channels, height, width = x.shape
    heads = max(channels // 64, 1) if heads is None else heads
    size = channels // heads
    images = []
    for b in range(batch):
        positions = x[b].flatten(1).T
        query = linear(p, "query", positions)
        key_value = linear(p, "key_value", positions if sr_ratio == 1 else reduced(p, x[b], sr_ratio))
        outputs = []
        for m in range(heads):
            own = slice(m * size, (m + 1) * size)
            key, value = key_value[:, :channels][:, own], key_value[:, channels:][:, own]
            weights = torch.exp(torch.einsum("ic,jc->ij", query[:, own], key) / math.sqrt(size))
            outputs.append(torch.einsum("ij,jc->ic", weights, value) / weights.sum(dim=1, keepdim=True))
        images.append(linear(p, "out", torch.cat(outputs, dim=1)).T.reshape(channels, height, width))
    return torch.stack(images)
