"""Mixed pooling module (MPM).

Paper     Hou, Zhang, Cheng, Feng, "Strip Pooling: Rethinking Spatial Pooling for Scene Parsing", CVPR 2020, arXiv:2003.13328,
          section 3
Idea      Beside the map, one branch gathers near context from averages over two grids, another far context from averages of
          whole rows and columns.
Formula   a = relu(BN(A x)), b = relu(BN(B x));  s = relu(F0(a) + up(F1(grid_20(a))) + up(F2(grid_12(a))));
          l = relu(F3(mean of rows of b) + F4(mean of columns of b));  y = relu(x + BN(W [relu(F5(s)), relu(F6(l))]));
          every F a convolution of three taps to the side (F3, F4: along the strip) and BN
Shapes    x: B C H W -> y: B C H W
Params    4*C*(C//4) + 51*(C//4)**2 + 18*(C//4) + 2*C
          4.1875*C^2 + 6.5*C where 4 divides C: two 1x1 convolutions to C/4, five 3x3 and two strips there, one 1x1 to C, BN
Cost      N*(4*C*m + 27*m^2) + 9*m^2*(20^2 + 12^2) + 3*m^2*(H + W) MACs per image at m = C/4; the largest maps: C*N elements
Defaults  grids 20x20 and 12x12 (official code), C/4 channels inside (section 3)
Differs   follows the official code: BN after every convolution, no biases, bilinear interpolation with aligned corners. The
          strips are broadcast over the map where the official code interpolates them, which gives the same map. On maps
          smaller than a grid the cells of the grid repeat positions, as torch's adaptive pooling has it. One value per channel
          is normalised in training as well, to BN's shift, and the running statistics stay as they are
Survey    domain: channel & spatial; g: pooling on grids, horizontal and vertical global pooling, convolution; f: add; tasks:
          SSeg; kind: soft; goal: III; stage: 3 (no row in the survey)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also takes one value per channel in training, of which there is no running variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        return super().forward(x)


class ConvBN(nn.Module):
    """A convolution that keeps the size, and BN."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=(kernel[0] // 2, kernel[1] // 2), bias=False)
        self.bn = BatchNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class MPM(nn.Module):
    """Context from grids and strips: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, grids: Sequence[int] = (20, 12)) -> None:
        super().__init__()
        width = channels // 4
        self.grids = tuple(grids)
        self.near_in = ConvBN(channels, width, (1, 1))
        self.far_in = ConvBN(channels, width, (1, 1))
        self.near = ConvBN(width, width, (3, 3))
        self.cells = nn.ModuleList(ConvBN(width, width, (3, 3)) for _ in grids)
        self.columns = ConvBN(width, width, (1, 3))
        self.rows = ConvBN(width, width, (3, 1))
        self.near_out = ConvBN(width, width, (3, 3))
        self.far_out = ConvBN(width, width, (3, 3))
        self.mix = ConvBN(2 * width, channels, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat([self._short_range(x), self._long_range(x)], dim=1)  # B C/2 H W
        return (x + self.mix(out)).relu_()  # B C H W

    def _short_range(self, x: Tensor) -> Tensor:
        x = self.near_in(x).relu_()  # B C/4 H W
        y = self.near(x)  # B C/4 H W
        for grid, cells in zip(self.grids, self.cells, strict=True):
            pooled = cells(F.adaptive_avg_pool2d(x, grid))  # B C/4 g g
            y = y + F.interpolate(pooled, size=x.shape[2:], mode="bilinear", align_corners=True)  # B C/4 H W
        out: Tensor = self.near_out(y.relu_()).relu_()
        return out

    def _long_range(self, x: Tensor) -> Tensor:
        x = self.far_in(x).relu_()  # B C/4 H W
        columns = self.columns(x.mean(dim=2, keepdim=True))  # B C/4 1 W
        rows = self.rows(x.mean(dim=3, keepdim=True))  # B C/4 H 1
        y: Tensor = self.far_out((columns + rows).relu_()).relu_()  # B C/4 H W
        return y


def params(channels: int, grids: Sequence[int] = (20, 12)) -> int:
    """Closed form of the parameter count."""
    width = channels // 4
    return 4 * channels * width + 2 * channels + (33 + 9 * len(grids)) * width**2 + (14 + 2 * len(grids)) * width


def macs(shape: Shape, grids: Sequence[int] = (20, 12)) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, height, width = shape.channels, shape.height, shape.width
    inner = channels // 4
    full = height * width * (4 * channels * inner + 27 * inner**2)
    return shape.batch * (full + 9 * inner**2 * sum(grid**2 for grid in grids) + 3 * inner**2 * (height + width))


MECHANISM = Mechanism(
    name="mixed_pooling",
    family="channel_spatial",
    layout="BCHW",
    paper="Hou et al., CVPR 2020",
    build=MPM,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 60, 60),
)
