"""Coordinate attention.

Paper     Hou, Zhou, Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv:2103.02907, section 3
Idea      Average along rows and along columns instead of over the whole map, so that a channel's gate is a product of one
          factor per row and one per column and keeps where things are.
Formula   z = delta(BN(F1 [avg_w x, avg_h x])), split into z_h and z_w;  y_ij = x_ij * sigmoid(F_h z_h)_i * sigmoid(F_w z_w)_j
Shapes    x: B C H W -> y: B C H W
Params    3*C*max(C//r, 8) + 3*max(C//r, 8) + 2*C
          F1, F_h, F_w with biases, BN's scale and shift
Cost      2*(H + W)*C*max(C//r, 8) MACs per image; largest are x under the first factor and y, N*C elements each
Defaults  reduction r = 32, at least smallest = 8 hidden channels, delta = h-swish (official code)
Differs   nothing; the biases, also the one before BN, are the official code's
Survey    domain: channel & spatial; g: average pooling along rows and columns, 1x1 convolution, sigmoid; f: scale;
          tasks: Cls, Det, SSeg; kind: soft; goal: I, II, III; stage: 3 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class CoordinateAttention(nn.Module):
    """One gate per channel and row, one per channel and column: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 32, smallest: int = 8) -> None:
        super().__init__()
        hidden = max(channels // reduction, smallest)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.bn = nn.BatchNorm2d(hidden)
        self.rows = nn.Conv2d(hidden, channels, 1)
        self.columns = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        strips = torch.cat([x.mean(dim=3), x.mean(dim=2)], dim=2).unsqueeze(3)  # B C H+W 1
        z = F.hardswish(self.bn(self.reduce(strips)))  # B C/r H+W 1
        by_row, by_column = z.split([height, width], dim=2)  # B C/r H 1, B C/r W 1
        rows = self.rows(by_row).sigmoid()  # B C H 1
        columns = self.columns(by_column.transpose(2, 3)).sigmoid()  # B C 1 W
        return x * columns * rows  # B C H W


def params(channels: int, reduction: int = 32, smallest: int = 8) -> int:
    """Closed form of the parameter count."""
    hidden = max(channels // reduction, smallest)
    return channels * hidden + hidden + 2 * hidden + 2 * (hidden * channels + channels)


def macs(shape: Shape, reduction: int = 32, smallest: int = 8) -> int:
    """Multiply-accumulates of one forward pass."""
    hidden = max(shape.channels // reduction, smallest)
    return shape.batch * 2 * (shape.height + shape.width) * shape.channels * hidden


MECHANISM = Mechanism(
    name="coordinate",
    family="channel_spatial",
    layout="BCHW",
    paper="Hou et al., CVPR 2021",
    build=CoordinateAttention,
    params=params,
    macs=macs,
    natural=Shape(1, 384, 14, 14),
)
