"""Feature warping by a flow field, position by position (Zhu et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (16, 5, 7)
VARIANTS = ({"scale": False}, {"padding": "border"}, {"scale": False, "alignment": "shifted", "padding": "border"})


def reference(
    p: Params,
    x: Tensor,
    flow: Tensor,
    *scale_field: Tensor,
    training: bool,
    scale: bool = True,
    alignment: str = "exact",
    padding: str = "zeros",
) -> Tensor:
    """y(p) = s(p) sum_q max(0, 1 - |q_y - r_y|) max(0, 1 - |q_x - r_x|) x(q), r = p + flow(p)."""
    still = warped(x, torch.zeros_like(flow), alignment, padding)
    assert torch.equal(still, x) == (alignment == "exact")  # without motion nothing moves
    y = warped(x, flow, alignment, padding)
    return y * scale_field[0] if scale else y


def warped(x: Tensor, flow: Tensor, alignment: str, padding: str) -> Tensor:
    height, width = x.shape[2:]
    rows, columns = torch.arange(height, dtype=x.dtype), torch.arange(width, dtype=x.dtype)
    lines = []
    for i in range(height):
        line = []
        for j in range(width):
            right, down = j + flow[:, 0, i, j], i + flow[:, 1, i, j]
            if alignment == "shifted":
                right, down = right * (width - 1) / width, down * (height - 1) / height
            if padding == "border":
                right, down = torch.clamp(right, 0, width - 1), torch.clamp(down, 0, height - 1)
            near_row = torch.relu(1 - (rows - down[:, None]).abs())
            near_column = torch.relu(1 - (columns - right[:, None]).abs())
            line.append(torch.einsum("bp,bq,bcpq->bc", near_row, near_column, x))
        lines.append(torch.stack(line, dim=2))
    return torch.stack(lines, dim=2)
