"""Spatial transformer with the sum over all pixels of equation 5 (Jaderberg et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (32, 7, 10)
VARIANTS = [
    {"align_corners": True},
    {"downsample": 2, "hidden": 50, "grid": 2},
]


def convolve(p: Params, name: str, x: Tensor) -> Tensor:
    """A sum over the kernel's points of maps shifted within a frame of zeros."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    batch, channels, height, width = x.shape
    reach = weight.shape[2] // 2
    framed = x.new_zeros(batch, channels, height + 2 * reach, width + 2 * reach)
    framed[:, :, reach : reach + height, reach : reach + width] = x
    total = bias[:, None, None].expand(batch, -1, height, width)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            total = total + torch.einsum("oc,bcyx->boyx", weight[:, :, i, j], framed[:, :, i : i + height, j : j + width])
    return total


def pool_relu(x: Tensor) -> Tensor:
    """The largest of four neighbours, and 0; an odd last row or column is left out."""
    rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    corners = torch.stack([x[:, :, i:rows:2, j:columns:2] for i in range(2) for j in range(2)])
    return torch.relu(corners.max(dim=0).values)


def means(x: Tensor, size: int) -> Tensor:
    """Averages over the cells of a size x size grid, which overlap where the sides do not divide."""
    height, width = x.shape[2:]
    rows = [(i * height // size, -(-(i + 1) * height // size)) for i in range(size)]
    columns = [(j * width // size, -(-(j + 1) * width // size)) for j in range(size)]
    return torch.stack([x[:, :, a:b, c:d].mean(dim=(2, 3)) for a, b in rows for c, d in columns], dim=2)


def place(index: int, size: int, align_corners: bool) -> float:
    """A pixel's coordinate, -1 to 1 from edge to edge or from centre to centre."""
    if align_corners:
        return -1 + 2 * index / (size - 1)
    return -1 + (2 * index + 1) / size


def pixels(coordinate: Tensor, size: int, align_corners: bool) -> Tensor:
    """The inverse of `place`."""
    if align_corners:
        return (coordinate + 1) / 2 * (size - 1)
    return ((coordinate + 1) * size - 1) / 2


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    hidden: int = 32,
    grid: int = 3,
    downsample: int = 1,
    align_corners: bool = False,
) -> Tensor:
    """y_ij = sum_nm x_nm max(0, 1 - |u - m|) max(0, 1 - |v - n|)."""
    batch, channels, height, width = x.shape
    seen = pool_relu(convolve(p, "localise.3", pool_relu(convolve(p, "localise.0", x))))
    cells = means(seen, grid).flatten(1)
    features = torch.relu(cells @ p["localise.8.weight"].T + p["localise.8.bias"])
    theta = (features @ p["theta.weight"].T + p["theta.bias"]).view(batch, 2, 3)
    rows, columns = height // downsample, width // downsample
    out = []
    for b in range(batch):
        for i in range(rows):
            for j in range(columns):
                target = torch.tensor([place(j, columns, align_corners), place(i, rows, align_corners), 1.0], dtype=x.dtype)
                source = theta[b] @ target
                u, v = pixels(source[0], width, align_corners), pixels(source[1], height, align_corners)
                across = torch.relu(1 - torch.abs(u - torch.arange(width)))
                down = torch.relu(1 - torch.abs(v - torch.arange(height)))
                out.append((x[b] * down[:, None] * across).sum(dim=(1, 2)))
    return torch.stack(out).view(batch, rows, columns, channels).permute(0, 3, 1, 2)
