"""Global second-order pooling block (GSoP).

Paper     Gao, Xie, Wang, Li, "Global Second-order Pooling Convolutional Networks", CVPR 2019, arXiv:1811.12006
Idea      Squeeze a map into the covariance of its channels instead of their averages; each row of it describes one channel by
          its relations to all others.
Formula   z = relu(BN(W_r x)), d channels at M positions;  S = (1/M) sum_m (z_m - mean z)(z_m - mean z)^T;  S' = row BN(S);
          q_ik = sum_j K_ikj S'_ij + b_ik, k = 1..4;  y = sigmoid(W q) * x
Shapes    x: B C H W -> y: B C H W
Params    5*C*d + 4*d**2 + 9*d + C
          W_r with bias C*d + d, its BN 2*d, row BN 2*d, row-wise convolution 4*d^2 + 4*d, W with bias 4*d*C + C
Cost      M*C*d + M*d^2 + 4*d^2 + 4*d*C MACs per image, M = N at stride 1; the largest maps are x and y, the covariance d x d
Defaults  dims d = 128 and 4 numbers per row (official code); stride 1 (official code: 2 where C = 256, the first stage, else 1)
Differs   centres by subtracting the mean: the official code multiplies by an M x M centring matrix, which costs d*M^2 MACs and
          M^2 numbers more for the same covariance. Divides by M, not M - 1, and takes no matrix square root, as the official
          code's block. No activation between the row-wise convolution and W, as there (accounts of the paper mention a leaky
          ReLU of slope 0.1). The official code rectifies the block's input before W_r, as it stands before a ReLU: argument
          rectify. Position attention, the second branch of the paper, is not part of it
Survey    domain: channel; g: 2nd-order pooling, convolution & MLP, sigmoid; f: scale; tasks: Cls; kind: soft; goal: I, II;
          stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class GSoP(nn.Module):
    """Channel gate from second-order statistics: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, dims: int = 128, stride: int = 1, rectify: bool = False) -> None:
        super().__init__()
        self.rectify = rectify
        self.reduce = nn.Conv2d(channels, dims, 1, stride=stride)
        self.reduce_bn = nn.BatchNorm2d(dims)
        self.row_bn = nn.BatchNorm2d(dims)
        self.row_conv = nn.Conv2d(dims, 4 * dims, (dims, 1), groups=dims)
        self.expand = nn.Conv2d(4 * dims, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = x.relu() if self.rectify else x
        z = self.reduce_bn(self.reduce(z)).relu_()  # B d h w
        z = z.flatten(2)  # B d M
        z = z - z.mean(dim=2, keepdim=True)
        covariance = torch.bmm(z, z.transpose(1, 2)) / z.shape[2]  # B d d
        rows = self.row_bn(covariance.unsqueeze(3))  # B d d 1
        s = self.expand(self.row_conv(rows)).sigmoid()  # B C 1 1
        return x * s


def params(channels: int, dims: int = 128, stride: int = 1, rectify: bool = False) -> int:
    """Closed form of the parameter count."""
    reduce = channels * dims + dims + 2 * dims
    rows = 2 * dims + 4 * dims**2 + 4 * dims
    return reduce + rows + 4 * dims * channels + channels


def macs(shape: Shape, dims: int = 128, stride: int = 1, rectify: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    positions = ((shape.height - 1) // stride + 1) * ((shape.width - 1) // stride + 1)
    covariance = positions * (shape.channels * dims + dims**2)
    return shape.batch * (covariance + 4 * dims**2 + 4 * dims * shape.channels)


MECHANISM = Mechanism(
    name="gsop",
    family="channel",
    layout="BCHW",
    paper="Gao et al., CVPR 2019",
    build=GSoP,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
)
