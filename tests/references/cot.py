"""Contextual Transformer block, position by position where positions meet (Li et al., section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"kernel_size": 5}, {"share": 4}, {"share": 16})


def windows(x: Tensor, kernel_size: int) -> list[Tensor]:
    """The kernel_size x kernel_size values around every position, zeros outside: B C taps each, row by row."""
    batch, channels, height, width = x.shape
    half = kernel_size // 2
    full = torch.zeros(batch, channels, height + 2 * half, width + 2 * half, dtype=x.dtype)
    full[:, :, half : half + height, half : half + width] = x
    found = []
    for i in range(height):
        for j in range(width):
            found.append(full[:, :, i : i + kernel_size, j : j + kernel_size].flatten(2))
    return found


def reference(p: Params, x: Tensor, *, training: bool, kernel_size: int = 3, share: int = 8) -> Tensor:
    """Static context, dynamic context, and a softmax between the two for each channel."""
    _, channels, height, width = x.shape
    sets, quarter = channels // share, channels // 4

    columns = []
    for near in windows(x, kernel_size):
        parts = []
        for group in range(4):
            own = slice(group * quarter, (group + 1) * quarter)
            parts.append(torch.einsum("oct,bct->bo", p["key.0.weight"][own].flatten(2), near[:, own]))
        columns.append(torch.cat(parts, dim=1))
    static = torch.stack(columns, dim=2).view(x.shape)
    static = torch.relu(batch_norm(p, "key.1", static, training))

    hidden = torch.relu(batch_norm(p, "embed.1", conv1x1(p, "embed.0", torch.cat([x, static], dim=1)), training))
    weights = conv1x1(p, "embed.3", hidden).unflatten(1, (sets, kernel_size**2))  # B sets taps H W
    centred = weights - weights.mean(dim=(2, 3, 4), keepdim=True)
    weights = centred / (centred.square().mean(dim=(2, 3, 4), keepdim=True) + 1e-5).sqrt()
    scale, bias = (p[f"embed.4.{name}"].view(1, sets, -1, 1, 1) for name in ("weight", "bias"))
    weights = weights * scale + bias

    value = batch_norm(p, "value.1", conv1x1(p, "value.0", x), training)
    columns = []
    shared = weights[:, [c % sets for c in range(channels)]].flatten(3)  # B C taps HW
    for number, near in enumerate(windows(value, kernel_size)):
        columns.append((shared[..., number] * near).sum(dim=2))
    dynamic = batch_norm(p, "bn", torch.stack(columns, dim=2).view(x.shape), training)
    dynamic = dynamic / (1 + torch.exp(-dynamic))

    pooled = (static + dynamic).sum(dim=(2, 3)) / (height * width)
    fused = torch.relu(batch_norm(p, "fusion.1", conv1x1(p, "fusion.0", pooled), training))
    logits = conv1x1(p, "fusion.3", fused)
    first = torch.sigmoid(logits[:, 0::2] - logits[:, 1::2])[:, :, None, None]  # of two: softmax is a sigmoid
    return first * dynamic + (1 - first) * static
