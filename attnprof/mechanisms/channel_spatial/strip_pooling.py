"""Strip pooling module (SPM).

Paper     Hou, Zhang, Cheng, Feng, "Strip Pooling: Rethinking Spatial Pooling for Scene Parsing", CVPR 2020, arXiv:2003.13328,
          section 3
Idea      Gate every position by the averages of its whole row and its whole column.
Formula   u_i = BN(K1 * mean_j x_ij);  v_j = BN(K2 * mean_i x_ij);  s_ij = sigmoid(W relu(u_i + v_j) + b);  y = s * x;
          K1 and K2 convolve with three taps along the strip
Shapes    x: B C H W -> y: B C H W
Params    7*C**2 + 5*C
          3*C^2 + 2*C for each strip with its BN, C^2 + C for the 1x1 convolution
Cost      N*C^2 + 3*C^2*(H + W) MACs per image; the largest maps have C*N elements
Defaults  kernels of 3 taps, C channels throughout (section 3 and official code)
Differs   follows the official code: no biases before BN (an earlier version had them: bias=True), a bias in the 1x1
          convolution. The official class returns the map s and leaves the product to its host; here y = s * x as in the paper,
          and scale=False returns the map. One value per channel (a strip of one) is normalised in training as well, to BN's
          shift, and the running statistics stay as they are
Survey    domain: channel & spatial; g: horizontal and vertical global pooling, 1D convolution, point-wise summation, 1x1
          convolution, sigmoid; f: scale; tasks: SSeg; kind: soft; goal: I, II, III; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also takes one value per channel in training, of which there is no running variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        return super().forward(x)


class SPM(nn.Module):
    """A gate from the strips through every position: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, scale: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=bias)
        self.bn1 = BatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=bias)
        self.bn2 = BatchNorm(channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.bn1(self.conv1(x.mean(dim=3, keepdim=True)))  # B C H 1
        columns = self.bn2(self.conv2(x.mean(dim=2, keepdim=True)))  # B C 1 W
        gate: Tensor = self.conv3((rows + columns).relu_()).sigmoid_()  # B C H W
        return x * gate if self.scale else gate


def params(channels: int, scale: bool = True, bias: bool = False) -> int:
    """Closed form of the parameter count."""
    return 7 * channels**2 + (7 if bias else 5) * channels


def macs(shape: Shape, scale: bool = True, bias: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    height, width = shape.hw
    return shape.batch * shape.channels**2 * (height * width + 3 * (height + width))


MECHANISM = Mechanism(
    name="strip_pooling",
    family="channel_spatial",
    layout="BCHW",
    paper="Hou et al., CVPR 2020",
    build=SPM,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 60, 60),
    rows={"scale": (True, False)},
)
