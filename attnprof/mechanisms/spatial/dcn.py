"""Deformable convolution (DCN v1).

Paper     Dai, Qi, Xiong, Li, Zhang, Hu, Wei, "Deformable Convolutional Networks", ICCV 2017, arXiv:1703.06211, section 2.1
Idea      A convolution whose k^2 sampling points are shifted, at every position, by offsets that a second convolution predicts.
Formula   y(p) = sum_n W_n x(p + p_n + o_n(p));  o = W_o * x + b_o;  x at fractional places is bilinear, 0 outside the map
Shapes    x: B C H W -> y: B out H W
Params    kernel**2*C*(out or C) + 2*offset_groups*kernel**2*(kernel**2*C + 1)
          k^2 C out + 2 k^2 (k^2 C + 1) with one offset group
Cost      N*k^2*C*out + 2*G*N*k^4*C MACs per image; the sampled columns of N*k^2*C elements, as in the official im2col
Defaults  kernel 3, dilation 1, out = C, one group of offsets (section 2.1: the same offsets for all channels)
Differs   no bias, as in the official networks; the offset layer has one and starts at zero, its channels in pairs (dy, dx), one
          pair per kernel point. A point within one pixel outside is blended with zeros, as in torchvision, mmcv and the
          official later operator; the first official kernel cut it to 0 and repeated the last row within the map. Dilation and
          offset_groups (4 in the official detectors, 1 in their DeepLab) are arguments; stride is 1, the padding keeps the size
Survey    domain: spatial; g: sub-network predicts offsets; f: sample, convolution; tasks: Det, SSeg; kind: hard; goal: I, III;
          stage: 2
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class DCN(nn.Module):
    """Deformable convolution: x (B, C, H, W) -> (B, out, H, W)."""

    def __init__(
        self, channels: int, out: int | None = None, kernel: int = 3, dilation: int = 1, offset_groups: int = 1
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel's side must be odd, not {kernel}")
        if channels % offset_groups:
            raise ValueError(f"{channels} channels do not divide into {offset_groups} groups of offsets")
        self.kernel, self.dilation, self.offset_groups = kernel, dilation, offset_groups
        padding = dilation * (kernel // 2)
        offsets = 2 * offset_groups * kernel**2
        self.offset = nn.Conv2d(channels, offsets, kernel, padding=padding, dilation=dilation)
        for tensor in self.offset.parameters():
            nn.init.zeros_(tensor)
        self.weight = nn.Parameter(torch.empty(channels if out is None else out, channels, kernel, kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        groups, points = self.offset_groups, self.kernel**2
        grid = self.grid(self.offset(x).reshape(batch * groups, points, 2, height, width))  # B*G k^2*H W 2
        columns = x.reshape(batch * groups, channels // groups, height, width)
        columns = F.grid_sample(columns, grid, mode="bilinear", padding_mode="zeros", align_corners=False)  # B*G C/G k^2*H W
        columns = columns.reshape(batch, channels * points, height, width)  # B C*k^2 H W
        return F.conv2d(columns, self.weight.flatten(1)[:, :, None, None])  # B out H W

    def grid(self, offset: Tensor) -> Tensor:
        """Where grid_sample reads, in its units: (X, k^2, (dy, dx), H, W) -> (X, k^2 * H, W, (x, y))."""
        height, width = offset.shape[3:]
        ruler = torch.arange(max(height, width, self.kernel), dtype=offset.dtype, device=offset.device)
        taps = self.dilation * (ruler[: self.kernel] - self.kernel // 2)  # k
        rows = taps.repeat_interleave(self.kernel)[:, None] + ruler[:height]  # k^2 H
        columns = taps.repeat(self.kernel)[:, None] + ruler[:width]  # k^2 W
        rows, columns = (2 * rows + 1) / height - 1, (2 * columns + 1) / width - 1
        y = torch.add(rows[:, :, None], offset[:, :, 0], alpha=2 / height)  # X k^2 H W
        x = torch.add(columns[:, None, :], offset[:, :, 1], alpha=2 / width)  # X k^2 H W
        return torch.stack((x, y), dim=4).flatten(1, 2)  # X k^2*H W 2


def params(channels: int, out: int | None = None, kernel: int = 3, dilation: int = 1, offset_groups: int = 1) -> int:
    """Closed form of the parameter count."""
    points = kernel**2
    return points * channels * (out or channels) + 2 * offset_groups * points * (points * channels + 1)


def macs(shape: Shape, out: int | None = None, kernel: int = 3, dilation: int = 1, offset_groups: int = 1) -> int:
    """Multiply-accumulates of one forward pass."""
    points, channels = kernel**2, shape.channels
    per_position = points * channels * (out or channels) + 2 * offset_groups * points * points * channels
    return shape.batch * shape.height * shape.width * per_position


MECHANISM = Mechanism(
    name="dcn",
    family="spatial",
    layout="BCHW",
    paper="Dai et al., ICCV 2017",
    build=DCN,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 38, 63),
)
