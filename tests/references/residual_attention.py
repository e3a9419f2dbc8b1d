"""Residual attention module, window by window and kernel tap by kernel tap (Wang et al., section 3, and the Caffe models)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

SHAPE = (16, 9, 11)
VARIANTS = ({"stage": 2}, {"stage": 3, "p": 2}, {"stage": 2, "t": 1, "r": 2, "extra_sums": True})


def reference(
    p_: Params, x: Tensor, *, training: bool, stage: int = 1, p: int = 1, t: int = 2, r: int = 1, extra_sums: bool = False
) -> Tensor:
    """y = units((1 + M) T): three, two or one halvings, each undone beside a skip connection with a unit of its own."""

    def units(name: str, number: int, x: Tensor) -> Tensor:
        for index in range(number):
            x = _unit(p_, f"{name}.{index}", x, training)
        return x

    x = units("before", p, x)
    trunk = units("trunk", t, x)
    levels = [x]
    for index in range(4 - stage):
        levels.append(units(f"mask.down.{index}", r, _halve(levels[-1])))
    y = units("mask.bottom", r, levels[-1])
    for index in range(2 - stage, -1, -1):
        beside = levels[index + 1]
        y = _enlarge(y, *beside.shape[2:]) + _unit(p_, f"mask.skip.{index}", beside, training)
        y = units(f"mask.up.{index}", r, y + beside if extra_sums else y)
    y = _enlarge(y, *x.shape[2:])
    y = y + trunk if extra_sums else y
    for index in (1, 2):
        y = conv1x1(p_, f"mask.conv{index}", torch.relu(batch_norm(p_, f"mask.bn{index}", y, training)))
    return units("after", p, (1 + 1 / (1 + (-y).exp())) * trunk)


def _unit(p: Params, name: str, x: Tensor, training: bool) -> Tensor:
    y = conv1x1(p, f"{name}.conv1", torch.relu(batch_norm(p, f"{name}.bn1", x, training)))
    y = torch.relu(batch_norm(p, f"{name}.bn2", y, training))
    height, width = y.shape[2:]
    padded = torch.nn.functional.pad(y, (1, 1, 1, 1))
    weight = p[f"{name}.conv2.weight"]
    taps = [(weight[:, :, a, b], padded[:, :, a : a + height, b : b + width]) for a in range(3) for b in range(3)]
    y = torch.stack([torch.einsum("oc,bchw->bohw", tap, window) for tap, window in taps]).sum(dim=0)
    return x + conv1x1(p, f"{name}.conv3", torch.relu(batch_norm(p, f"{name}.bn3", y, training)))


def _halve(x: Tensor) -> Tensor:
    """Maxima of 3x3 windows that start at every second pixel; a window ends where the map does."""
    height, width = x.shape[2:]
    rows = []
    for top in range(0, max(height - 1, 1), 2):
        cells = [x[:, :, top : top + 3, left : left + 3].amax(dim=(2, 3)) for left in range(0, max(width - 1, 1), 2)]
        rows.append(torch.stack(cells, dim=2))
    return torch.stack(rows, dim=2)


def _enlarge(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, the corners of both grids on each other."""
    return torch.einsum("ia,jb,kcab->kcij", _hats(x, height, x.shape[2]), _hats(x, width, x.shape[3]), x)


def _hats(x: Tensor, large: int, small: int) -> Tensor:
    """Row i: the share of each of the small grid's points in point i of the large one."""
    places = [i * (small - 1) / max(large - 1, 1) for i in range(large)]
    return torch.tensor([[max(0.0, 1 - abs(place - a)) for a in range(small)] for place in places], dtype=x.dtype)
