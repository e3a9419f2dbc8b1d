"""Triplet attention.

Paper     Misra, Nalamada, Arasanipalai, Hou, "Rotate to Attend: Convolutional Triplet Attention Module", WACV 2021,
          arXiv:2010.03045, section 3
Idea      Three gates, one for each pair of the dimensions C, H, W, each from the maximum and the average over the third; their
          three results are averaged.
Formula   g_d = sigmoid(BN(f_7x7([max_d x, avg_d x]))) for d in H, W, C;  y = (g_H * x + g_W * x + g_C * x) / 3
Shapes    x: B C H W -> y: B C H W
Params    300
          three convolutions of 98 weights, each with BN's scale and shift
Cost      98*(N + C*H + C*W) MACs per image; the three scaled maps and y have N*C elements each
Defaults  kernel 7 (official code; the paper also tries 3); spatial (official code: no_spatial = False); BN's momentum 0.01
          (official code)
Differs   x with a dimension turned to the place of the channels is a view, and the gate is turned back; the official code
          copies x turned, scales the copy and copies it back: the same function with four more maps of N*C elements. Its
          sigmoid works in place. Without spatial, the gate over (H, W) is left out and the mean is of two
Survey    domain: channel & spatial; g: compute attention maps for pairs of domains, fuse different branches; f: scale, fuse
          branches; tasks: Cls, Det; kind: soft; goal: I, IV; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class Gate(nn.Module):
    """Gate over two dimensions from the pooled third: x (B, C, H, W), dim -> x's shape with 1 at dim."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor, dim: int) -> Tensor:
        x = x.transpose(1, dim)  # dim in the place of the channels
        pooled = torch.cat([x.max(dim=1, keepdim=True).values, x.mean(dim=1, keepdim=True)], dim=1)  # B 2 . .
        gate: Tensor = self.bn(self.conv(pooled)).sigmoid()  # B 1 . .
        return gate.transpose(1, dim)


class TripletAttention(nn.Module):
    """Mean of x under three gates: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, kernel: int = 7, spatial: bool = True) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel's side must be odd, not {kernel}")
        self.over_height = Gate(kernel)
        self.over_width = Gate(kernel)
        self.over_channels = Gate(kernel) if spatial else None

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.over_height(x, 2)  # B C 1 W
        y = y + x * self.over_width(x, 3)  # B C H 1
        if self.over_channels is None:
            return y / 2
        y = y + x * self.over_channels(x, 1)  # B 1 H W
        return y / 3


def params(channels: int, kernel: int = 7, spatial: bool = True) -> int:
    """Closed form of the parameter count."""
    return (2 + spatial) * (2 * kernel**2 + 2)


def macs(shape: Shape, kernel: int = 7, spatial: bool = True) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, height, width = shape.channels, shape.height, shape.width
    outputs = channels * width + channels * height + spatial * height * width
    return shape.batch * 2 * kernel**2 * outputs


MECHANISM = Mechanism(
    name="triplet",
    family="channel_spatial",
    layout="BCHW",
    paper="Misra et al., WACV 2021",
    build=TripletAttention,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
)
