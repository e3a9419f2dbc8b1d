"""Attention-augmented convolution, query by query with the relative embeddings added to the keys (Bello et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.references import Params, conv1x1

VARIANTS = (
    {"relative": False, "kernel": 1, "heads": 4},
    {"kappa": 0.8, "upsilon": 0.5, "heads": 2, "min_key": 1},
)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    hw: tuple[int, int],
    kernel: int = 3,
    kappa: float = 0.2,
    upsilon: float = 0.1,
    heads: int = 8,
    min_key: int = 20,
    relative: bool = True,
) -> Tensor:
    """logit_ij = q_i . (k_j + r^H_{row j - row i} + r^W_{column j - column i}) / sqrt(d) in every head."""
    batch, _, height, width = x.shape
    values = p["out.weight"].shape[0]
    keys = (p["qkv.weight"].shape[0] - values) // 2
    qkv = conv1x1(p, "qkv", x)
    query = qkv[:, :keys].reshape(batch, heads, keys // heads, height, width)
    key = qkv[:, keys : 2 * keys].reshape(query.shape)
    value = qkv[:, 2 * keys :].reshape(batch, heads, values // heads, height, width)
    attended = torch.zeros_like(value)
    for y in range(height):
        for z in range(width):
            addressed = key
            if relative:
                rows = torch.stack([p["rows"][v - y + height - 1] for v in range(height)], dim=1)
                columns = torch.stack([p["columns"][u - z + width - 1] for u in range(width)], dim=1)
                addressed = key + rows[:, :, None] + columns[:, None, :]
            logits = (query[..., y, z][..., None, None] * addressed).sum(dim=2) / (keys / heads) ** 0.5
            weights = logits.exp() / logits.exp().sum(dim=(2, 3), keepdim=True)
            attended[..., y, z] = (weights[:, :, None] * value).sum(dim=(3, 4))
    attended = conv1x1(p, "out", attended.reshape(batch, values, height, width))
    return torch.cat([_convolution(p, "conv", x), attended], dim=1)


def _convolution(p: Params, name: str, x: Tensor) -> Tensor:
    """A sum over the kernel's taps, zeros outside the image."""
    weight, (height, width) = p[f"{name}.weight"], x.shape[2:]
    padded = functional.pad(x, [weight.shape[2] // 2] * 4)
    out = p[f"{name}.bias"].reshape(1, -1, 1, 1)
    for v in range(weight.shape[2]):
        for u in range(weight.shape[3]):
            out = out + torch.einsum("oc,bchw->bohw", weight[:, :, v, u], padded[:, :, v : v + height, u : u + width])
    return out
