"""Selective kernel convolution, group by group and kernel tap by kernel tap (Li et al., section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm

VARIANTS = (
    {"dilated": False, "bias": True, "squeeze_norm": False},
    {"branches": 3, "groups": 8, "reduction": 2, "least": 4},
    {"least": 1, "bias": True},
    {"branches": 3, "groups": 4, "stride": 2},
    {"dilated": False, "groups": 8, "stride": 3},
)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    branches: int = 2,
    groups: int = 32,
    reduction: int = 16,
    least: int = 32,
    dilated: bool = True,
    bias: bool = False,
    squeeze_norm: bool = True,
    stride: int = 1,
) -> Tensor:
    """y_c = sum_m exp(s_mc) / sum_n exp(s_nc) U_mc, with s = A relu(BN(W mean(U_1 + ... + U_M)))."""
    batch, channels = x.shape[:2]
    maps = []
    for m in range(branches):
        apart, side = (m + 1, 3) if dilated else (1, 2 * m + 3)
        y = _grouped(p[f"convs.{m}.weight"], x, groups, side, apart, stride)
        y = y + p[f"convs.{m}.bias"][:, None, None] if bias else y
        maps.append(torch.relu(batch_norm(p, f"bns.{m}", y, training)))
    z = _linear(p, "squeeze", torch.stack(maps).sum(dim=(0, 3, 4)) / maps[0][0, 0].numel(), bias)
    assert z.shape == (batch, max(channels // reduction, least))
    if squeeze_norm:
        z = torch.relu(batch_norm(p, "norm", z, training))
    scores = _linear(p, "select", z, bias)
    powers = [scores[:, m * channels : (m + 1) * channels].exp() for m in range(branches)]
    total = torch.stack(powers).sum(dim=0)
    return torch.stack([(power / total)[:, :, None, None] * u for power, u in zip(powers, maps, strict=True)]).sum(dim=0)


def _linear(p: Params, name: str, x: Tensor, bias: bool) -> Tensor:
    y = torch.stack([(row * x).sum(dim=1) for row in p[f"{name}.weight"]], dim=1)
    return y + p[f"{name}.bias"] if bias else y


def _grouped(weight: Tensor, x: Tensor, groups: int, side: int, apart: int, stride: int) -> Tensor:
    """Every group of channels by itself: the sum over taps, which stand `apart` pixels from each other, at every `stride`-th
    position.
    """
    height, width = x.shape[2:]
    edge = side // 2 * apart
    padded = torch.nn.functional.pad(x, (edge, edge, edge, edge))
    kernels = weight.chunk(groups)
    out = []
    for kernel, part in zip(kernels, padded.chunk(groups, dim=1), strict=True):
        size = (len(range(0, height, stride)), len(range(0, width, stride)))
        y = torch.zeros(x.shape[0], kernel.shape[0], *size, dtype=x.dtype)
        for a in range(side):
            for b in range(side):
                window = part[:, :, a * apart : a * apart + height : stride, b * apart : b * apart + width : stride]
                y = y + torch.einsum("oc,bchw->bohw", kernel[:, :, a, b], window)
        out.append(y)
    return torch.cat(out, dim=1)
