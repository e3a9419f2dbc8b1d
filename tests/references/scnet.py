"""Self-calibrated convolution, window by window and kernel tap by kernel tap (Liu et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm

SHAPE = (32, 9, 13)
VARIANTS = ({"mode": "bilinear"}, {"half": True}, {"rate": 10}, {"stride": 2}, {"mode": "bilinear", "half": True, "stride": 3})


def reference(
    p: Params, x: Tensor, *, training: bool, rate: int = 4, mode: str = "nearest", half: bool = False, stride: int = 1
) -> Tensor:
    """y1 = K4(K3 x1 . sigmoid(x1 + up(K2 pool(x1)))) beside y2 = K1 x2; every K a convolution and BN, K1 and K4 strided."""
    x1, x2 = (x, None) if half else x.chunk(2, dim=1)
    small = _conv_bn(p, "k2", _pool(x1, rate), training)
    gate = 1 / (1 + (-x1 - _enlarge(small, x.shape[2], x.shape[3], mode)).exp())
    y1 = torch.relu(_conv_bn(p, "k4", _conv_bn(p, "k3", x1, training) * gate, training, stride))
    return y1 if x2 is None else torch.cat([y1, torch.relu(_conv_bn(p, "k1", x2, training, stride))], dim=1)


def _conv_bn(p: Params, name: str, x: Tensor, training: bool, stride: int = 1) -> Tensor:
    height, width = x.shape[2:]
    weight = p[f"{name}.conv.weight"]
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    taps = [
        (weight[:, :, a, b], padded[:, :, a : a + height : stride, b : b + width : stride]) for a in range(3) for b in range(3)
    ]
    y = torch.stack([torch.einsum("oc,bchw->bohw", tap, window) for tap, window in taps]).sum(dim=0)
    return batch_norm(p, f"{name}.bn", y, training)


def _pool(x: Tensor, rate: int) -> Tensor:
    """Averages of whole windows; what is left over at the end of a row or column is not looked at."""
    height, width = x.shape[2:]
    high, wide = min(rate, height), min(rate, width)
    rows = []
    for i in range(height // high):
        cells = [x[:, :, i * high : (i + 1) * high, j * wide : (j + 1) * wide] for j in range(width // wide)]
        rows.append(torch.stack([cell.sum(dim=(2, 3)) / (high * wide) for cell in cells], dim=2))
    return torch.stack(rows, dim=2)


def _enlarge(x: Tensor, height: int, width: int, mode: str) -> Tensor:
    """Every pixel from the cell that its area lies in, or from the cells between whose centres its centre lies."""
    rows, columns = (_shares(x, *pair, mode) for pair in ((height, x.shape[2]), (width, x.shape[3])))
    return torch.einsum("ia,jb,kcab->kcij", rows, columns, x)


def _shares(x: Tensor, large: int, small: int, mode: str) -> Tensor:
    """Row i: the share of each of the small grid's cells in pixel i of the large one."""
    table = torch.zeros(large, small, dtype=x.dtype)
    for i in range(large):
        if mode == "nearest":
            table[i, i * small // large] = 1
            continue
        place = min(max((i + 0.5) * small / large - 0.5, 0), small - 1)
        for a in range(small):
            table[i, a] = max(0.0, 1 - abs(place - a))
    return table
