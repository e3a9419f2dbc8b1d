"""Bottleneck attention module (BAM).

Paper     Park, Woo, Lee, Kweon, "BAM: Bottleneck Attention Module", BMVC 2018, arXiv:1807.06514, section 3
Idea      One gate per entry of the map, from the sum of a logit per channel (pooled, MLP) and a logit per position (dilated
          convolutions of a narrow map).
Formula   y = x + sigmoid(M_c(x) + M_s(x)) * x;  M_c = W1 relu(BN(W0 avg_hw x));
          M_s = f_1x1(d_3x3(d_3x3(relu(BN(g_1x1 x)))));  d = relu(BN(a convolution with dilation 4))
Shapes    x: B C H W -> y: B C H W
Params    3*C*(h := max(C//r, 1)) + C + 18*h**2 + 13*h + 1
          channel 2C^2/r + 3C/r + C; position C^2/r + 3C/r + 2(9(C/r)^2 + 3C/r) + C/r + 1
Cost      N*(C*(C//r) + 18*(C//r)**2 + C//r) + 2*C*(C//r) MACs per image; the gate, its product with x and y have N*C elements
Defaults  reduction r = 16, dilation 4 (official code); combine add (section 3)
Differs   combine add is the paper's, multiply the official code's (logits multiplied before the sigmoid). The layers are the
          official code's: BN and ReLU after every layer but the last of each branch, biases everywhere, where the paper writes
          one BN at the end of each branch. Its pooling window is square, H on a side: here the whole map is pooled, so that it
          need not be square. In training, torch's batch normalisation refuses one value per channel (pooled, at batch 1): here
          it is normalised all the same, to BN's shift, and the running statistics stay as they are; one hidden channel is kept
          where C < r
Survey    domain: channel & spatial; g: dilated convolutions, global average pooling, MLP, sigmoid; f: scale, residual;
          tasks: Cls, Det; kind: soft; goal: I, II, III; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that also takes one value per channel in training, of which there is no running variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        return super().forward(x)


class BAM(nn.Module):
    """Gate from a channel and a position branch: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 16, dilation: int = 4, combine: str = "add") -> None:
        super().__init__()
        if combine not in ("add", "multiply"):
            raise ValueError(f"combine is add or multiply, not {combine}")
        self.combine = combine
        width = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, width)
        self.squeeze_bn = BatchNorm(width)
        self.excite = nn.Linear(width, channels)
        self.reduce = nn.Conv2d(channels, width, 1)
        self.reduce_bn = nn.BatchNorm2d(width)
        self.dilated1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.dilated1_bn = nn.BatchNorm2d(width)
        self.dilated2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.dilated2_bn = nn.BatchNorm2d(width)
        self.project = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        channel = self.squeeze_bn(self.squeeze(x.mean(dim=(2, 3)))).relu()  # B C/r
        channel = self.excite(channel)[:, :, None, None]  # B C 1 1
        position = self.reduce_bn(self.reduce(x)).relu()  # B C/r H W
        position = self.dilated1_bn(self.dilated1(position)).relu()
        position = self.dilated2_bn(self.dilated2(position)).relu()
        position = self.project(position)  # B 1 H W
        gate = channel + position if self.combine == "add" else channel * position  # B C H W
        return x + x * gate.sigmoid()


def params(channels: int, reduction: int = 16, dilation: int = 4, combine: str = "add") -> int:
    """Closed form of the parameter count."""
    width = max(channels // reduction, 1)
    channel = 2 * channels * width + 3 * width + channels
    return channel + channels * width + 3 * width + 2 * (9 * width**2 + 3 * width) + width + 1


def macs(shape: Shape, reduction: int = 16, dilation: int = 4, combine: str = "add") -> int:
    """Multiply-accumulates of one forward pass."""
    channels, width = shape.channels, max(shape.channels // reduction, 1)
    position = shape.height * shape.width * (channels * width + 2 * 9 * width**2 + width)
    return shape.batch * (position + 2 * channels * width)


MECHANISM = Mechanism(
    name="bam",
    family="channel_spatial",
    layout="BCHW",
    paper="Park et al., BMVC 2018",
    build=BAM,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
    rows={"combine": ("add", "multiply")},
)
