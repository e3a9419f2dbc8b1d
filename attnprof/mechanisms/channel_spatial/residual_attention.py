"""Residual attention module (Residual Attention Network).

Paper     Wang, Jiang, Qian, Yang, Li, Zhang, Wang, Tang, "Residual Attention Network for Image Classification", CVPR 2017,
          arXiv:1704.06904, section 3
Idea      A trunk of residual units, weighed by a soft mask for every position and channel that an hourglass of residual units
          computes; the mask is added to one, so that stacked modules do not fade.
Formula   y = units((1 + M(x')) * T(x')), x' = units(x); M = sigmoid(W2 relu(BN(W1 relu(BN(up(down(x')))))));
          a unit is x + V3 relu(BN(V2 relu(BN(V1 relu(BN(x)))))) with a 3x3 kernel V2 between two 1x1 kernels
Shapes    x: B C H W -> y: B C H W
Params    (2*p + t + 2*(4 - stage)*r + 3 - stage)*(2*C*(w := max(C//4, 1)) + 9*w**2 + 2*C + 4*w) + 2*C**2 + 4*C
          12, 9 and 6 residual units of C -> C/4 -> C/4 -> C at stages 1, 2 and 3, and the two 1x1 convolutions of the mask
Cost      N*((2*p + t)*U + 2*C^2) + sum over levels 0 < l < d of N/4^l*(2*r + 1)*U + N/4^d*2*r*U MACs per image; a unit takes
          U = 2*C*m + 9*m^2 per position, m = C/4; d = 4 - stage poolings; the largest maps have C*N elements
Defaults  p = 1 unit before the branches (and after them), t = 2 in the trunk, r = 1 between poolings (section 3); stages 1, 2,
          3 have 3, 2, 1 poolings (official models): to 7x7 from the maps of 56x56, 28x28 and 14x14 of the paper's network
Differs   follows the official Caffe models where the text is silent: pre-activation units, max pooling 3x3 with stride 2 and
          no padding (sides are halved and rounded down), one unit on each skip connection, bilinear interpolation with aligned
          corners to the size of the skip, no biases. Sides of one or two pixels are pooled as far as they go. The widespread
          PyTorch port pads the pooling, has an unused convolution in every unit and adds the map of the way down, and in the
          end the trunk, to what is interpolated: extra_sums=True adds them too. Of the three normalisations of section 3.3,
          the first (mixed attention, the best one). One value per channel is normalised in training as well, to BN's shift
Survey    domain: channel & spatial; g: top-down network, bottom-up network, 1x1 convolutions, sigmoid; f: scale, residual;
          tasks: Cls; kind: soft; goal: I, II; stage: 3
"""

from __future__ import annotations

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


class Unit(nn.Module):
    """Pre-activation residual unit: x (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(channels // 4, 1)
        self.bn1 = BatchNorm(channels)
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn2 = BatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = BatchNorm(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.bn1(x).relu_())  # B C/4 h w
        y = self.conv2(self.bn2(y).relu_())  # B C/4 h w
        return x + self.conv3(self.bn3(y).relu_())  # B C h w


class Mask(nn.Module):
    """The soft mask: x, and the trunk's map for its size, (B, C, H, W) -> (B, C, H, W) in (0, 1)."""

    def __init__(self, channels: int, depth: int, r: int, extra_sums: bool) -> None:
        super().__init__()
        self.extra_sums = extra_sums
        self.down = nn.ModuleList(_units(channels, r) for _ in range(depth))
        self.bottom = _units(channels, r)
        self.skip = nn.ModuleList(Unit(channels) for _ in range(depth - 1))
        self.up = nn.ModuleList(_units(channels, r) for _ in range(depth - 1))
        self.bn1 = BatchNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = BatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, trunk: Tensor) -> Tensor:
        maps = []
        for units in self.down:
            window = (min(3, x.shape[2]), min(3, x.shape[3]))
            x = units(F.max_pool2d(x, window, 2, ceil_mode=True))  # B C h/2 w/2
            maps.append(x)
        x = self.bottom(maps.pop())
        for skip, units in zip(reversed(self.skip), reversed(self.up), strict=True):
            x = units(skip(maps[-1]) + self._enlarge(x, maps.pop()))  # B C 2h 2w
        x = self._enlarge(x, trunk)  # B C H W
        x = self.conv1(self.bn1(x).relu_())
        return self.conv2(self.bn2(x).relu_()).sigmoid()

    def _enlarge(self, x: Tensor, like: Tensor) -> Tensor:
        x = F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)
        return x + like if self.extra_sums else x


class ResidualAttention(nn.Module):
    """Residual units weighed by a soft mask: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, stage: int = 1, p: int = 1, t: int = 2, r: int = 1, extra_sums: bool = False) -> None:
        super().__init__()
        if stage not in (1, 2, 3):
            raise ValueError(f"stage is 1, 2 or 3, not {stage}")
        self.before = _units(channels, p)
        self.trunk = _units(channels, t)
        self.mask = Mask(channels, 4 - stage, r, extra_sums)
        self.after = _units(channels, p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        trunk = self.trunk(x)
        return self.after(trunk + self.mask(x, trunk) * trunk)  # B C H W


def _units(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(Unit(channels) for _ in range(number)))


def params(channels: int, stage: int = 1, p: int = 1, t: int = 2, r: int = 1, extra_sums: bool = False) -> int:
    """Closed form of the parameter count."""
    width, depth = max(channels // 4, 1), 4 - stage
    units = 2 * p + t + 2 * depth * r + depth - 1
    return units * (2 * channels * width + 9 * width**2 + 2 * channels + 4 * width) + 2 * channels**2 + 4 * channels


def macs(shape: Shape, stage: int = 1, p: int = 1, t: int = 2, r: int = 1, extra_sums: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, height, width, depth = shape.channels, shape.height, shape.width, 4 - stage
    middle = max(channels // 4, 1)
    unit = 2 * channels * middle + 9 * middle**2
    total = height * width * ((2 * p + t) * unit + 2 * channels**2)
    for level in range(1, depth + 1):
        height, width = max(height // 2, 1), max(width // 2, 1)
        total += height * width * (2 * r + (level < depth)) * unit
    return shape.batch * total


MECHANISM = Mechanism(
    name="residual_attention",
    family="channel_spatial",
    layout="BCHW",
    paper="Wang et al., CVPR 2017",
    build=ResidualAttention,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
    rows={"stage": (1, 2, 3)},
)
