"""Conditionally parameterised convolution (CondConv).

Paper     Yang, Bender, Le, Ngiam, "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", NeurIPS 2019,
          arXiv:1904.04971, section 3
Idea      Mix several kernels into one for every image, with weights computed from its global averages, and convolve once.
Formula   a = sigmoid(R GAP(x));  y = (a_1 W_1 + ... + a_K W_K) * x, * being the convolution
Shapes    x: B C H W -> y: B O H W
Params    experts*(9*C**2 + C)
          K*k^2*C*O/groups + K*C; routing_bias adds K, bias adds K*O
Cost      N*k^2*C*O + K*k^2*C*O + K*C MACs per image (groups divide the first two): mixing the kernels does not depend on the
          resolution; the kernels of a batch have B*k^2*C*O elements
Defaults  experts K = 8 (section 4), kernel k = 3, O = C, stride 1, one group
Differs   follows the paper, whose routing is a matrix: the official TensorFlow models and timm have a bias there as well
          (routing_bias=True); timm and common ports have K = 4 by default. The convolution has no bias, as in the official
          models (bias=True: K biases, mixed like the kernels). All images of a batch are convolved at once, in B times as many
          groups, as in timm; the official code does it image by image. Padding is k/2 on every side. BN and activation are the
          host's, and so is a routing that several layers share. Each expert starts as an nn.Conv2d does
Survey    domain: branch; g: global average pooling, linear layer, sigmoid; f: convolution with the mixed kernel; tasks: Cls,
          Det; kind: soft; goal: IV; stage: 3
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class CondConv(nn.Module):
    """A convolution with a kernel for each image: x (B, C, H, W) -> (B, O, H', W')."""

    def __init__(
        self,
        channels: int,
        experts: int = 8,
        kernel: int = 3,
        out: int | None = None,
        stride: int = 1,
        groups: int = 1,
        routing_bias: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        out = channels if out is None else out
        if channels % groups or out % groups:
            raise ValueError(f"{channels} input and {out} output channels do not divide into {groups} groups")
        self.stride, self.groups = stride, groups
        self.routing = nn.Linear(channels, experts, bias=routing_bias)
        self.weight = nn.Parameter(torch.empty(experts, out, channels // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(experts, out)) if bias else None
        for expert in self.weight:
            nn.init.kaiming_uniform_(expert, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0, 0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        shares = self.routing(x.mean(dim=(2, 3))).sigmoid()  # B K
        kernels = torch.matmul(shares, self.weight.flatten(1))  # B O*C/g*k*k
        kernels = kernels.view(-1, *self.weight.shape[2:])  # B*O C/g k k
        bias = None if self.bias is None else torch.matmul(shares, self.bias).flatten()  # B*O
        x = x.reshape(1, batch * channels, height, width)
        padding = self.weight.shape[-1] // 2
        y = F.conv2d(x, kernels, bias, self.stride, padding, groups=batch * self.groups)  # 1 B*O H' W'
        return y.view(batch, -1, *y.shape[2:])  # B O H' W'


def params(
    channels: int,
    experts: int = 8,
    kernel: int = 3,
    out: int | None = None,
    stride: int = 1,
    groups: int = 1,
    routing_bias: bool = False,
    bias: bool = False,
) -> int:
    """Closed form of the parameter count."""
    out = channels if out is None else out
    return experts * (kernel**2 * (channels // groups) * out + channels + int(routing_bias) + (out if bias else 0))


def macs(
    shape: Shape,
    experts: int = 8,
    kernel: int = 3,
    out: int | None = None,
    stride: int = 1,
    groups: int = 1,
    routing_bias: bool = False,
    bias: bool = False,
) -> int:
    """Multiply-accumulates of one forward pass."""
    out = shape.channels if out is None else out
    high, wide = ((side + 2 * (kernel // 2) - kernel) // stride + 1 for side in shape.hw)
    weights = kernel**2 * (shape.channels // groups) * out
    return shape.batch * (high * wide * weights + experts * (weights + shape.channels + (out if bias else 0)))


MECHANISM = Mechanism(
    name="condconv",
    family="branch",
    layout="BCHW",
    paper="Yang et al., NeurIPS 2019",
    build=CondConv,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 14, 14),
    rows={"routing_bias": (False, True)},
)
