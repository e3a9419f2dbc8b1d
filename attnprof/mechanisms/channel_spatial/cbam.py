"""Convolutional block attention module (CBAM).

Paper     Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv:1807.06521, section 3
Idea      First a gate per channel from the averages and the maxima over all positions, then, on the result, a gate per position
          from the average and the maximum over all channels.
Formula   F' = sigmoid(MLP(avg_hw F) + MLP(max_hw F)) * F;  F'' = sigmoid(BN(f_7x7([max_c F', avg_c F']))) * F'
Shapes    x: B C H W -> y: B C H W
Params    2*C*(h := max(C//r, 1)) + bias*(h + C) + 2*kernel**2 + 2*norm
          the MLP with biases, 98 weights of the 7x7 convolution, scale and shift of BN
Cost      4*C*(C//r) + 98*N MACs per image: the shared MLP runs on both pooled vectors; largest are F' and y, N*C each
Defaults  kernel 7 (section 3); reduction r = 16, biases, norm and BN's momentum 0.01 (official code)
Differs   follows the official code: the MLP has biases and the convolution is followed by BN (norm), while the paper's
          equations have neither; the map of maxima comes before that of averages (the equation names them the other way
          round, which only swaps the kernel's two planes); one hidden channel is kept where C < r
Survey    domain: channel & spatial; g: global pooling over each dimension, MLP, convolution, sigmoid; f: scale;
          tasks: Cls, Det; kind: soft; goal: I, II, III; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class CBAM(nn.Module):
    """Channel gate, then spatial gate: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7, bias: bool = True, norm: bool = True) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel's side must be odd, not {kernel}")
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, hidden, bias=bias)
        self.excite = nn.Linear(hidden, channels, bias=bias)
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        average = x.mean(dim=(2, 3))  # B C
        largest = x.flatten(2).max(dim=2).values  # B C
        gate = (self.mlp(average) + self.mlp(largest)).sigmoid()  # B C
        x = x * gate[:, :, None, None]
        maps = torch.cat([x.max(dim=1, keepdim=True).values, x.mean(dim=1, keepdim=True)], dim=1)  # B 2 H W
        return x * self.bn(self.conv(maps)).sigmoid()  # B C H W

    def mlp(self, pooled: Tensor) -> Tensor:
        """The shared bottleneck: B C -> B C."""
        out: Tensor = self.excite(self.squeeze(pooled).relu())
        return out


def params(channels: int, reduction: int = 16, kernel: int = 7, bias: bool = True, norm: bool = True) -> int:
    """Closed form of the parameter count."""
    hidden = max(channels // reduction, 1)
    return 2 * channels * hidden + bias * (hidden + channels) + 2 * kernel**2 + 2 * norm


def macs(shape: Shape, reduction: int = 16, kernel: int = 7, bias: bool = True, norm: bool = True) -> int:
    """Multiply-accumulates of one forward pass."""
    hidden = max(shape.channels // reduction, 1)
    return shape.batch * (4 * shape.channels * hidden + 2 * kernel**2 * shape.height * shape.width)


MECHANISM = Mechanism(
    name="cbam",
    family="channel_spatial",
    layout="BCHW",
    paper="Woo et al., ECCV 2018",
    build=CBAM,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
)
