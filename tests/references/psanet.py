"""Point-wise spatial attention, pair of positions by pair of positions (Zhao et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"mid": 8, "shrink": 1}, {"shrink": 3})


def reference(p: Params, x: Tensor, *, training: bool, hw: tuple[int, int], mid: int = 512, shrink: int = 2) -> Tensor:
    """Each position's map holds a weight per offset (dy, dx), row-major from (-(h - 1), -(w - 1))."""
    height, width = ((size - 1) // shrink + 1 for size in hw)
    branches = []
    for branch in ("collect", "distribute"):
        z = torch.relu(batch_norm(p, f"reduce_{branch}.1", conv1x1(p, f"reduce_{branch}.0", x), training))
        z = _resize(z, height, width)
        adapted = torch.relu(batch_norm(p, f"adapt_{branch}.1", conv1x1(p, f"adapt_{branch}.0", z), training))
        maps = conv1x1(p, f"map_{branch}", adapted)
        maps = maps.reshape(x.shape[0], 2 * height - 1, 2 * width - 1, height, width)
        branches.append(_collect(z, maps) if branch == "collect" else _distribute(z, maps))
    y = torch.relu(batch_norm(p, "project.1", conv1x1(p, "project.0", torch.cat(branches, dim=1)), training))
    return torch.cat([x, _resize(y, *hw)], dim=1)


def _collect(z: Tensor, maps: Tensor) -> Tensor:
    """out_i = sum_j a_ij z_j / sum_j a_ij with a_ij = exp(map at i, offset j - i)."""
    height, width = z.shape[2:]
    out = []
    for y in range(height):
        for x in range(width):
            total, norm = torch.zeros_like(z[:, :, 0, 0]), torch.zeros_like(z[:, :1, 0, 0])
            for v in range(height):
                for u in range(width):
                    weight = maps[:, v - y + height - 1, u - x + width - 1, y, x].exp()[:, None]
                    total, norm = total + weight * z[:, :, v, u], norm + weight
            out.append(total / norm)
    return torch.stack(out, dim=2).reshape(z.shape)


def _distribute(z: Tensor, maps: Tensor) -> Tensor:
    """out_j = sum_i a_ij z_i / sum_i a_ij with a_ij = exp(map at i, offset j - i)."""
    height, width = z.shape[2:]
    out = []
    for v in range(height):
        for u in range(width):
            total, norm = torch.zeros_like(z[:, :, 0, 0]), torch.zeros_like(z[:, :1, 0, 0])
            for y in range(height):
                for x in range(width):
                    weight = maps[:, v - y + height - 1, u - x + width - 1, y, x].exp()[:, None]
                    total, norm = total + weight * z[:, :, y, x], norm + weight
            out.append(total / norm)
    return torch.stack(out, dim=2).reshape(z.shape)


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, the corners of both grids on each other."""
    rows, columns = _weights(x.shape[2], height, x.dtype), _weights(x.shape[3], width, x.dtype)
    return torch.einsum("vy,bcyx,ux->bcvu", rows, x, columns)


def _weights(size: int, wanted: int, dtype: torch.dtype) -> Tensor:
    matrix = torch.zeros(wanted, size, dtype=dtype)
    for i in range(wanted):
        position = i * (size - 1) / (wanted - 1) if wanted > 1 else 0.0
        low = min(int(position + 1e-12), size - 1)
        matrix[i, low] += 1 - (position - low)
        matrix[i, min(low + 1, size - 1)] += position - low
    return matrix
