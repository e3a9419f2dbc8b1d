"""Conditionally parameterised convolution as what it equals: a weighted sum of K convolutions (Yang et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = (
    {"experts": 4, "routing_bias": True, "bias": True},
    {"experts": 3, "kernel": 1, "out": 24},
    {"experts": 2, "kernel": 5, "stride": 2, "groups": 32, "routing_bias": True},
    {"experts": 2, "stride": 3, "groups": 4, "out": 8, "bias": True},
)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    experts: int = 8,
    kernel: int = 3,
    out: int | None = None,
    stride: int = 1,
    groups: int = 1,
    routing_bias: bool = False,
    bias: bool = False,
) -> Tensor:
    """y = sum_k a_k (W_k * x + b_k), with a_k = sigmoid(sum_c R_kc mean(x_c))."""
    images = []
    for image in x:
        means = image.flatten(1).sum(dim=1) / image[0].numel()
        total = []
        for k in range(experts):
            score = (p["routing.weight"][k] * means).sum()
            score = score + p["routing.bias"][k] if routing_bias else score
            y = _convolve(p["weight"][k], image, stride, groups)
            y = y + p["bias"][k][:, None, None] if bias else y
            total.append(y / (1 + (-score).exp()))
        images.append(torch.stack(total).sum(dim=0))
    assert images[0].shape[0] == (x.shape[1] if out is None else out)
    return torch.stack(images)


def _convolve(weight: Tensor, image: Tensor, stride: int, groups: int) -> Tensor:
    """Every group of channels by itself: the sum over the kernel's taps, at every `stride`-th position."""
    height, width = image.shape[1:]
    side = weight.shape[2]
    edge = side // 2
    padded = torch.nn.functional.pad(image, (edge, edge, edge, edge))
    kernels, maps = weight.unflatten(0, (groups, -1)), padded.unflatten(0, (groups, -1))
    taps = []
    for a in range(side):
        for b in range(side):
            window = maps[:, :, a : a + height : stride, b : b + width : stride]
            taps.append(torch.einsum("goc,gchw->gohw", kernels[:, :, :, a, b], window))
    return torch.stack(taps).sum(dim=0).flatten(0, 1)
