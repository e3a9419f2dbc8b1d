"""Frequency channel attention, channel by channel (Qin et al., section 3; the frequencies of the official code)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = (
    {"frequencies": 1},
    {"frequencies": 32, "reduction": 4},
    {"hw": (7, 7)},
    {"hw": (14, 7), "frequencies": 4},
)

ROWS = "00600114513000324635526553342261"  # u of the official top32, v below
COLUMNS = "01052020060463526333511242113053"


def reference(
    p: Params, x: Tensor, *, training: bool, hw: tuple[int, int], reduction: int = 16, frequencies: int = 16
) -> Tensor:
    """f_c = sum_ij x_cij cos(pi u (i + 1/2) / H) cos(pi v (j + 1/2) / W) a_u a_v;  y = sigmoid(W2 relu(W1 f)) x."""
    _, channels, _, _ = x.shape
    height, width = hw
    pooled = x if x.shape[2:] == hw else average(x, height, width)
    coefficients = []
    for c in range(channels):
        group = c // (channels // frequencies)
        u, v = int(ROWS[group]) * height // 7, int(COLUMNS[group]) * width // 7
        weights = [
            [
                math.cos(math.pi * u * (i + 0.5) / height)
                * math.sqrt((2 if u else 1) / height)
                * math.cos(math.pi * v * (j + 0.5) / width)
                * math.sqrt((2 if v else 1) / width)
                for j in range(width)
            ]
            for i in range(height)
        ]
        # the module keeps them in single precision
        coefficients.append((pooled[:, c] * torch.tensor(weights, dtype=torch.float32)).sum(dim=(1, 2)))
    f = torch.stack(coefficients, dim=1)
    hidden = [(p["squeeze.weight"][k] * f).sum(dim=1).clamp(min=0) for k in range(max(channels // reduction, 1))]
    logits = [(p["excite.weight"][c] * torch.stack(hidden, dim=1)).sum(dim=1) for c in range(channels)]
    return x / (1 + torch.exp(-torch.stack(logits, dim=1)))[:, :, None, None]


def average(x: Tensor, height: int, width: int) -> Tensor:
    """Cell (a, b) averages rows floor(a H/height) to ceil((a + 1) H/height), columns alike; cells overlap or repeat."""
    rows, columns = x.shape[2:]
    grid = []
    for a in range(height):
        cells = []
        for b in range(width):
            top, bottom = a * rows // height, -(-(a + 1) * rows // height)
            left, right = b * columns // width, -(-(b + 1) * columns // width)
            cells.append(x[:, :, top:bottom, left:right].sum(dim=(2, 3)) / ((bottom - top) * (right - left)))
        grid.append(torch.stack(cells, dim=2))
    return torch.stack(grid, dim=2)
