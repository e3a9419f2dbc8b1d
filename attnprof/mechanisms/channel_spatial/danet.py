"""Dual attention (DANet): the position and the channel branch, summed.

Paper     Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv:1809.02983, section 3
Idea      Two self-attentions side by side, one among positions with learned projections, one among channels without.
Formula   P = alpha * V softmax(Q^T K)^T + x;  S = beta * softmax(max(X X^T) - X X^T) X + x;  y = P + S
Shapes    x: B C H W -> y: B C H W
Params    (2*max(C//reduction, 1) + C)*(C + 1) + 2
          1.25*C^2 + 1.25*C + 2 where 8 divides C
Cost      N*C*(2*(C//8) + C) + N^2*(C//8 + C) + 2*N*C^2 MACs per image; energy and attention of the position branch have N^2
          elements each, those of the channel branch C^2
Defaults  reduction r = 8 for queries and keys (official code); alpha and beta start at 0 (sections 3.2, 3.3)
Differs   the attention of the head only. In the head each branch works on a 3x3 convolution (with BN and ReLU) of its own from
          the backbone's width to a quarter, is followed by another 3x3 convolution, and the sum goes through dropout and a 1x1
          classifier: these convolutions are left to the host, because they are not attention and would outweigh it (773 of 1110
          GFLOPs at 2048 channels and 97x97). So here both branches read the same x, and y carries x twice (once per residual).
          Follows the official code: biases in the projections, no scaling of the dot products, and the channel branch's softmax
          of (row maximum - energy), which the paper does not mention; queries and keys keep one channel where C < r.
Survey    domain: channel & spatial; g: self-attention in the spatial and in the channel dimension; f: fuse the two branches;
          tasks: SSeg; kind: soft; goal: I, II, III; stage: 4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class DANet(nn.Module):
    """Attention among positions plus attention among channels: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self._positions(x) + self._channels(x)

    def _positions(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)  # B C/r N
        key = self.key(x).flatten(2)  # B C/r N
        energy = torch.bmm(query.transpose(1, 2), key)  # B N N
        attention = energy.softmax(dim=-1)
        value = self.value(x).flatten(2)  # B C N
        out = torch.bmm(value, attention.transpose(1, 2)).reshape(x.shape)  # B C H W
        return self.alpha * out + x

    def _channels(self, x: Tensor) -> Tensor:
        maps = x.flatten(2)  # B C N
        energy = torch.bmm(maps, maps.transpose(1, 2))  # B C C
        reversed_energy = energy.max(dim=-1, keepdim=True).values - energy
        attention = reversed_energy.softmax(dim=-1)
        out = torch.bmm(attention, maps).reshape(x.shape)  # B C H W
        return self.beta * out + x


def params(channels: int, reduction: int = 8) -> int:
    """Closed form of the parameter count."""
    width = max(channels // reduction, 1)
    return (2 * width + channels) * (channels + 1) + 2


def macs(shape: Shape, reduction: int = 8) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    width = max(channels // reduction, 1)
    position_branch = positions * channels * (2 * width + channels) + positions**2 * (width + channels)
    channel_branch = 2 * positions * channels**2
    return shape.batch * (position_branch + channel_branch)


MECHANISM = Mechanism(
    name="danet",
    family="channel_spatial",
    layout="BCHW",
    paper="Fu et al., CVPR 2019",
    build=DANet,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    exempt={
        "every_parameter_gets_a_finite_gradient:key.bias": "softmax is blind to a shift of all logits of a row",
    },
)
