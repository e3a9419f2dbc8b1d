"""X-volution as one dynamic kernel (Chen, Wang, Ni): at every position, static weights plus weights that depend on the map.

In eval both batch norms are folded into that kernel here: that it equals the module of two branches is what re-parameterisation
claims. The merged module is compared with the same kernel, made of its own weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm

VARIANTS = (
    {"deploy": True},
    {"directions": 4, "shift": 2},
    {"directions": 2, "depth": 2, "kernel": 1},
    {"depth": 2, "shift": 3, "deploy": True},
)
SHAPE = (16, 4, 5)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    kernel: int = 3,
    directions: int = 8,
    shift: int = 1,
    depth: int = 1,
    deploy: bool = False,
) -> Tensor:
    """y_i = sum_{j in N_k(i)} (W_A diag(a_j) + W_c) x_j + b, where a_j holds what x_j is multiplied with."""
    dynamic, z = torch.ones_like(x), x
    for _ in range(depth):
        factor = _sum_of_shifted(z, directions, shift)
        dynamic, z = dynamic * factor, z * factor
    if deploy:
        channels = x.shape[1]
        weight = p["merged.weight"]
        return _convolve(x, dynamic, weight[:, :channels], weight[:, channels:]) + p["merged.bias"].reshape(1, -1, 1, 1)
    attention, static = p["attention.weight"], p["convolution.weight"]
    none = torch.zeros_like(static)
    if training:
        branches = (_convolve(x, dynamic, attention, none), _convolve(x, dynamic, none, static))
        names = ("attention_norm", "convolution_norm")
        return torch.stack([batch_norm(p, n, b, training) for n, b in zip(names, branches, strict=True)]).sum(dim=0)
    attention, attention_bias = _folded(p, attention, "attention_norm")
    static, static_bias = _folded(p, static, "convolution_norm")
    return _convolve(x, dynamic, attention, static) + (attention_bias + static_bias).reshape(1, -1, 1, 1)


def _folded(p: Params, weight: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `weight` and then the batch norm with its running statistics."""
    scale = p[f"{norm}.weight"] / (p[f"{norm}.running_var"] + 1e-5).sqrt()
    return weight * scale.reshape(-1, 1, 1, 1), p[f"{norm}.bias"] - scale * p[f"{norm}.running_mean"]


def _sum_of_shifted(x: Tensor, directions: int, shift: int) -> Tensor:
    """What lies `shift` pixels off, summed over left and right (2), up and down as well (4), diagonals too (8)."""
    _, _, height, width = x.shape
    steps = [(dy, dz) for dy in (-1, 0, 1) for dz in (-1, 0, 1) if dy or dz]
    if directions < 8:
        steps = [(dy, dz) for dy, dz in steps if not (dy and dz)]
    if directions < 4:
        steps = [(dy, dz) for dy, dz in steps if not dy]
    assert len(steps) == directions
    out = []
    for y in range(height):
        for z in range(width):
            places = [(y + shift * dy, z + shift * dz) for dy, dz in steps]
            there = [x[:, :, v, u] for v, u in places if 0 <= v < height and 0 <= u < width]
            out.append(torch.stack(there).sum(dim=0) if there else torch.zeros_like(x[:, :, 0, 0]))
    return torch.stack(out, dim=2).reshape(x.shape)


def _convolve(x: Tensor, dynamic: Tensor, attention: Tensor, static: Tensor) -> Tensor:
    """At every position the kernel W_A diag(a_j) + W_c, image by image, on the neighbours that there are."""
    _, _, height, width = x.shape
    radius = static.shape[2] // 2
    out = []
    for y in range(height):
        for z in range(width):
            total = torch.zeros_like(x[:, :, 0, 0])
            for v in range(max(y - radius, 0), min(y + radius + 1, height)):
                for u in range(max(z - radius, 0), min(z + radius + 1, width)):
                    tap = (slice(None), slice(None), v - y + radius, u - z + radius)
                    kernel = attention[tap] * dynamic[:, None, :, v, u] + static[tap]  # B out C
                    total = total + torch.einsum("boc,bc->bo", kernel, x[:, :, v, u])
            out.append(total)
    return torch.stack(out, dim=2).reshape(x.shape)
