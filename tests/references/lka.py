"""Large kernel attention, kernel tap by kernel tap (Guo et al., section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params, conv1x1

VARIANTS = ({"module": True}, {"bias": False, "module": True}, {"local": 3, "spread": 5, "dilation": 2, "bias": False})


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    local: int = 5,
    spread: int = 7,
    dilation: int = 3,
    bias: bool = True,
    module: bool = False,
) -> Tensor:
    """y = W(D2(D1(x))) x; around it, where asked for, W' gelu, W'' and the residual."""
    inner = x
    if module:
        inner = conv1x1(p, "before", x)
        inner = inner / 2 * (1 + torch.erf(inner / math.sqrt(2)))
    y = _depthwise(p, "local", inner, local, 1, bias)
    y = conv1x1(p, "mix", _depthwise(p, "spread", y, spread, dilation, bias)) * inner
    return x + conv1x1(p, "after", y) if module else y


def _depthwise(p: Params, name: str, x: Tensor, side: int, apart: int, bias: bool) -> Tensor:
    """y_c(i, j) = sum_ab w_c(a, b) x_c(i + apart a, j + apart b), a and b around zero; taps beyond the map are left out."""
    height, width = x.shape[2:]
    out = torch.zeros_like(x)
    middle = side // 2
    for a in range(side):
        for b in range(side):
            down, right = (a - middle) * apart, (b - middle) * apart
            rows, columns = range(max(0, -down), min(height, height - down)), range(max(0, -right), min(width, width - right))
            if not rows or not columns:
                continue
            seen = x[:, :, rows[0] + down : rows[-1] + down + 1, columns[0] + right : columns[-1] + right + 1]
            shares = p[f"{name}.weight"][:, 0, a, b, None, None] * seen
            edges = (columns[0], width - 1 - columns[-1], rows[0], height - 1 - rows[-1])
            out = out + torch.nn.functional.pad(shares, edges)
    return out + p[f"{name}.bias"][:, None, None] if bias else out
