"""Object-contextual representations, class by class and pixel by pixel (Yuan et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"num_classes": 5, "key_channels": 6}, {"dropout": 0.0})


def layer(p: Params, name: str, index: int, x: Tensor, training: bool) -> Tensor:
    """1x1 convolution, BN, ReLU: entries index and index + 1 of a sequence."""
    return batch_norm(p, f"{name}.{index + 1}", conv1x1(p, f"{name}.{index}", x), training).clamp(min=0)


def reference(
    p: Params,
    x: Tensor,
    logits: Tensor,
    *,
    training: bool,
    num_classes: int = 19,
    key_channels: int | None = None,
    dropout: float = 0.05,
) -> Tensor:
    """f_k = sum_i m_ki x_i, y_i = g([rho(sum_k w_ik delta(f_k)), x_i])."""
    batch, channels, height, width = x.shape
    keys = channels // 2 if key_channels is None else key_channels
    pixels = x.reshape(batch, channels, -1)
    regions = []
    for k in range(num_classes):
        scores = torch.exp(logits[:, k] - logits[:, k].amax(dim=(1, 2), keepdim=True))
        m = scores / scores.sum(dim=(1, 2), keepdim=True)
        regions.append((x * m[:, None]).sum(dim=(2, 3)))  # B C
    f = torch.stack(regions, dim=2)  # B C classes
    phi = layer(p, "phi", 3, layer(p, "phi", 0, pixels, training), training)
    psi = layer(p, "psi", 3, layer(p, "psi", 0, f, training), training)
    delta = layer(p, "delta", 0, f, training)
    contexts = []
    for i in range(height * width):
        kappa = torch.stack([(phi[:, :, i] * psi[:, :, k]).sum(dim=1) / keys**0.5 for k in range(num_classes)], dim=1)
        w = torch.softmax(kappa, dim=1)  # B classes
        contexts.append(sum((w[:, k, None] * delta[:, :, k] for k in range(num_classes)), torch.zeros(())))
    rho = layer(p, "rho", 0, torch.stack(contexts, dim=2), training)
    y = layer(p, "g", 0, torch.cat([rho, pixels], dim=1), training).reshape(batch, channels, height, width)
    if training and dropout > 0:
        keep = torch.empty(batch, channels, 1, 1, dtype=y.dtype).bernoulli_(1 - dropout)
        y = y * keep / (1 - dropout)
    return y
