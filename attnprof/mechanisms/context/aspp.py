"""Atrous spatial pyramid pooling (DeepLabv3).

Paper     Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv:1706.05587, section 3.3
Idea      Look at the map with 3x3 convolutions of several dilations, a 1x1 convolution and its global average, and mix the
          results.
Formula   b = [f_1x1(x), f_3x3,12(x), f_3x3,24(x), f_3x3,36(x), up(f_1x1(GAP(x)))];  y = dropout(f_1x1(b));  f = relu(BN(W .))
Shapes    x: B C H W -> y: B 256 H W
Params    (2 + 9*len(rates))*C*out + (2 + len(rates))*(out**2 + 2*out) + 2*out
          256*29*C + 330752 for the defaults
Cost      256*(N*(28*C + 1280) + C) MACs per image; five maps of 256*N elements and their concatenation live at once
Defaults  rates 12, 24, 36 (the paper's for output stride 8), out = 256 (section 3.3), dropout 0.5 (torchvision)
Differs   follows torchvision's deeplabv3: its dropout after the projection, bilinear without aligned corners (a 1x1 map:
          constant). In training, torch's BatchNorm2d refuses one value per channel (image pooling at batch 1): here it is
          normalised all the same, to BN's shift, the branch's other parts get a zero gradient, and the running statistics stay
          as they are
Survey    domain: none (baseline); g: dilated convolutions, global average pooling; f: concatenation, convolution; tasks: SSeg;
          kind: soft; goal: IV; stage: none (no row in the survey)
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


class ASPP(nn.Module):
    """Context at several dilations: x (B, C, H, W) -> (B, out, H, W)."""

    def __init__(self, channels: int, rates: Sequence[int] = (12, 24, 36), out: int = 256, dropout: float = 0.5) -> None:
        super().__init__()
        dilated = [nn.Conv2d(channels, out, 3, padding=rate, dilation=rate, bias=False) for rate in rates]
        self.convs = nn.ModuleList([nn.Conv2d(channels, out, 1, bias=False), *dilated])
        self.bns = nn.ModuleList(nn.BatchNorm2d(out) for _ in self.convs)
        self.pool_conv = nn.Conv2d(channels, out, 1, bias=False)
        self.pool_bn = BatchNorm(out)
        self.project = nn.Conv2d((len(self.convs) + 1) * out, out, 1, bias=False)
        self.project_bn = nn.BatchNorm2d(out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        branches = [bn(conv(x)).relu() for conv, bn in zip(self.convs, self.bns, strict=True)]  # B out H W
        pooled = self.pool_conv(F.adaptive_avg_pool2d(x, 1))  # B out 1 1
        pooled = self.pool_bn(pooled).relu()
        branches.append(F.interpolate(pooled, size=x.shape[2:], mode="bilinear", align_corners=False))  # B out H W
        y = torch.cat(branches, dim=1)  # B 5*out H W
        return self.dropout(self.project_bn(self.project(y)).relu())  # B out H W


def params(
    channels: int,
    rates: Sequence[int] = (12, 24, 36),
    out: int = 256,
    dropout: float = 0.5,
) -> int:
    """Closed form of the parameter count."""
    branches = len(rates) + 2
    return (2 + 9 * len(rates)) * channels * out + branches * (out * out + 2 * out) + 2 * out


def macs(
    shape: Shape,
    rates: Sequence[int] = (12, 24, 36),
    out: int = 256,
    dropout: float = 0.5,
) -> int:
    """Multiply-accumulates of one forward pass."""
    per_position = (1 + 9 * len(rates)) * shape.channels * out + (len(rates) + 2) * out * out
    return shape.batch * (shape.height * shape.width * per_position + shape.channels * out)


MECHANISM = Mechanism(
    name="aspp",
    family="context",
    layout="BCHW",
    paper="Chen et al., arXiv:1706.05587",
    build=ASPP,
    params=params,
    macs=macs,
    natural=Shape(1, 2048, 97, 97),
)
