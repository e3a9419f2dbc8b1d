"""Pyramid pooling module.

Paper     Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, arXiv:1612.01105, section 3.2
Idea      Average the map over grids of several sizes, project each, enlarge them and put them beside the input.
Formula   y = [x, up(relu(BN(W_1 pool_1(x)))), ..., up(relu(BN(W_6 pool_6(x))))]
Shapes    x: B C H W -> y: B 2C H W
Params    len(bins)*(C//len(bins))*(C + 2)
          C^2 + 2C for the four bins
Cost      50*C*(C//4) MACs per image whatever the resolution: 1 + 4 + 9 + 36 pooled cells; the output of 2*C*N elements leads
Defaults  bins 1, 2, 3, 6 with C/4 channels each (section 3.2)
Differs   follows the official PyTorch code: bilinear with aligned corners, BN and ReLU after each projection, no bias. In
          training, torch's BatchNorm2d refuses one value per channel (bin 1 at batch 1): here it is normalised all the same, to
          BN's shift, the branch's other parts get a zero gradient, and the running statistics stay as they are
Survey    domain: none (baseline); g: average pooling on grids, convolution; f: concatenation; tasks: SSeg; kind: soft; goal:
          IV; stage: none (no row in the survey)
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


class PPM(nn.Module):
    """Context from pooled grids: x (B, C, H, W) -> (B, 2C, H, W)."""

    def __init__(self, channels: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = bins
        width = channels // len(bins)
        self.convs = nn.ModuleList(nn.Conv2d(channels, width, 1, bias=False) for _ in bins)
        self.bns = nn.ModuleList(BatchNorm(width) for _ in bins)

    def forward(self, x: Tensor) -> Tensor:
        out = [x]
        for grid, conv, bn in zip(self.bins, self.convs, self.bns, strict=True):
            y = F.adaptive_avg_pool2d(x, grid)  # B C g g
            y = bn(conv(y)).relu_()  # B C/4 g g
            out.append(F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=True))  # B C/4 H W
        return torch.cat(out, dim=1)  # B 2C H W


def params(channels: int, bins: Sequence[int] = (1, 2, 3, 6)) -> int:
    """Closed form of the parameter count."""
    return len(bins) * (channels // len(bins)) * (channels + 2)


def macs(shape: Shape, bins: Sequence[int] = (1, 2, 3, 6)) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * sum(grid**2 for grid in bins) * shape.channels * (shape.channels // len(bins))


MECHANISM = Mechanism(
    name="ppm",
    family="context",
    layout="BCHW",
    paper="Zhao et al., CVPR 2017",
    build=PPM,
    params=params,
    macs=macs,
    natural=Shape(1, 2048, 97, 97),
)
