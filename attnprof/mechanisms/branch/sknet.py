"""Selective kernel convolution (SKNet).

Paper     Li, Wang, Hu, Yang, "Selective Kernel Networks", CVPR 2019, arXiv:1903.06586, section 3.1
Idea      Convolve with kernels of several sizes side by side; each channel chooses among them by a softmax computed from the
          global averages of their sum.
Formula   U_m = relu(BN(F_m x));  z = relu(BN(W GAP(sum_m U_m)));  a_mc = softmax_m(A_m z)_c;  y_c = sum_m a_mc U_mc;
          every F_m has the stride
Shapes    x: B C H W -> y: B C H' W' with H' = ceil(H/stride), W' = ceil(W/stride); H W by default
Params    branches*(9*C*C//groups + 2*C) + C*max(C//r, least) + 2*max(C//r, least) + branches*max(C//r, least)*C
          M(9C^2/G + 2C) + Cd + 2d + MdC for M branches in G groups, d = max(C/r, L)
Cost      M*H'*W'*9*C^2/G + (1 + M)*C*d MACs per image; M maps of C*H'*W' elements and their sum
Defaults  branches M = 2 (3x3 and 5x5), groups G = 32, reduction r = 16, which is the paper's SK[2, 32, 16]; least width L = 32
          (section 3.1); stride 1 (Caffe models: 2 in the first unit of every stage but the first)
Differs   nothing in the layers: branch m is a 3x3 kernel of dilation m, which the paper and its Caffe models use for the
          larger kernel, and no layer has a bias, as there. dilated=False takes kernels of 3, 5, 7 ... taps in their place. A
          widespread PyTorch port has these, biases everywhere and neither BN nor ReLU on z: dilated=False, bias=True,
          squeeze_norm=False. timm's layer is another one: it splits the input among the branches, does not group, and rounds d
          to a multiple of 8 without the floor L. The Caffe model of SKNet-101 has d = 16 where C = 256. C has to be divisible
          by G. In training, a batch of one has one z per channel, which BN normalises to its shift
Survey    domain: branch; g: global average pooling, MLP, softmax; f: weighted sum of the branches; tasks: Cls; kind: soft;
          goal: II, III; stage: 3
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


class SKConv(nn.Module):
    """Branches with kernels of several sizes, chosen per channel: x (B, C, H, W) -> (B, C, H', W')."""

    def __init__(
        self,
        channels: int,
        branches: int = 2,
        groups: int = 32,
        reduction: int = 16,
        least: int = 32,
        dilated: bool = True,
        bias: bool = False,
        squeeze_norm: bool = True,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups")
        width = max(channels // reduction, least)
        self.branches = branches
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride, padding=m, dilation=m, groups=groups, bias=bias)
            if dilated
            else nn.Conv2d(channels, channels, 2 * m + 1, stride, padding=m, groups=groups, bias=bias)
            for m in range(1, branches + 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(branches))
        self.squeeze = nn.Linear(channels, width, bias=bias)
        self.norm = BatchNorm(width) if squeeze_norm else None
        self.select = nn.Linear(width, branches * channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        maps = [bn(conv(x)).relu_() for conv, bn in zip(self.convs, self.bns, strict=True)]  # M times B C H' W'
        weights = self._choose(maps)  # B M C
        y = weights[:, 0, :, None, None] * maps[0]  # B C H' W'
        for m in range(1, self.branches):
            y = y + weights[:, m, :, None, None] * maps[m]
        return y

    def _choose(self, maps: list[Tensor]) -> Tensor:
        """The share of every branch in every channel: M times B C H' W' -> B M C."""
        total = maps[0]
        for branch in maps[1:]:
            total = total + branch  # B C H' W'
        z = self.squeeze(total.mean(dim=(2, 3)))  # B d
        if self.norm is not None:
            z = self.norm(z).relu_()
        return self.select(z).unflatten(1, (self.branches, -1)).softmax(dim=1)  # B M C


def params(
    channels: int,
    branches: int = 2,
    groups: int = 32,
    reduction: int = 16,
    least: int = 32,
    dilated: bool = True,
    bias: bool = False,
    squeeze_norm: bool = True,
    stride: int = 1,
) -> int:
    """Closed form of the parameter count."""
    width = max(channels // reduction, least)
    kernels = channels**2 // groups * _taps(branches, dilated) + 2 * branches * channels
    linear = (1 + branches) * channels * width + (2 * width if squeeze_norm else 0)
    return kernels + linear + (2 * branches * channels + width if bias else 0)


def macs(
    shape: Shape,
    branches: int = 2,
    groups: int = 32,
    reduction: int = 16,
    least: int = 32,
    dilated: bool = True,
    bias: bool = False,
    squeeze_norm: bool = True,
    stride: int = 1,
) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, -(-shape.height // stride) * -(-shape.width // stride)
    width = max(channels // reduction, least)
    kernels = positions * channels**2 // groups * _taps(branches, dilated)
    return shape.batch * (kernels + (1 + branches) * channels * width)


def _taps(branches: int, dilated: bool) -> int:
    """Kernel taps of all branches together."""
    return 9 * branches if dilated else sum((2 * m + 1) ** 2 for m in range(1, branches + 1))


MECHANISM = Mechanism(
    name="sknet",
    family="branch",
    layout="BCHW",
    paper="Li et al., CVPR 2019",
    build=SKConv,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 28, 28),
    rows={"dilated": (True, False)},
)
