"""Interlaced sparse self-attention (ISA).

Paper     Huang, Yuan, Guo, Zhang, Chen, Wang, "Interlaced Sparse Self-Attention for Semantic Segmentation", arXiv:1907.12273
          (2019), section 3
Idea      Two sparse attentions in place of a dense one: first among the positions of a coarse grid, far from each other, then
          among the positions of a block; after both every position has heard of every other.
Formula   q, k = two layers relu(BN(W .)) of x;  a = softmax(q k^T / sqrt(K));  c = relu(BN(W_o a (W_v x))) within each group;
          long range: groups of equal (row mod P, column mod P); short range: P x P blocks; y = relu(BN(U [x, c]))
Shapes    x: B C H W -> y: B C H W
Params    4*(C*(K := C//2) + K**2 + 4*K) + 6*C**2 + 6*C
          each attention 2(CK + K^2 + 4K) + 2CV + 2C, the fusion 2C^2 + 2C, at K = C/2 and V = C
Cost      M*(4CK + 4K^2 + 4CV) + M*(M/P^2 + P^2)*(K + V) + 2*N*C^2 MACs per image, M = N padded to multiples of P; maps of
          M*(M/P^2) and M*P^2 elements
Defaults  down_factor P = 8 along both axes; key_channels K = C/2, value_channels V = C (official code: 256 and 512 of 512);
          dropout 0.05 (official code)
Differs   follows the official code (openseg): transforms of two layers and BN with ReLU behind W_o, zeros on both sides up to
          multiples of P that take part in both attentions, x in front of the context in the fusion, dropout of whole channels
          at the end (training only). One factor P for both axes and one pair of attentions: that code also takes a list
Survey    domain: spatial; g: dot product in interlaced groups, softmax; f: matmul; tasks: SSeg, Det, ISeg; kind: soft;
          goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


def conv_bn_relu(inputs: int, outputs: int) -> list[nn.Module]:
    """1x1 convolution without bias, BN, ReLU."""
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class GroupAttention(nn.Module):
    """Self-attention over all positions of each group: x (G, C, h, w) -> (G, C, h, w)."""

    def __init__(self, channels: int, key_channels: int, value_channels: int) -> None:
        super().__init__()
        self.key_channels = key_channels
        self.query = nn.Sequential(*conv_bn_relu(channels, key_channels), *conv_bn_relu(key_channels, key_channels))
        self.key = nn.Sequential(*conv_bn_relu(channels, key_channels), *conv_bn_relu(key_channels, key_channels))
        self.value = nn.Conv2d(channels, value_channels, 1, bias=False)
        self.out = nn.Sequential(*conv_bn_relu(value_channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        groups, _, height, width = x.shape
        value = self.value(x).flatten(2).transpose(1, 2)  # G n V
        query = self.query(x).flatten(2).transpose(1, 2)  # G n K
        key = self.key(x).flatten(2)  # G K n
        attention = torch.matmul(query, key)  # G n n
        attention = self.key_channels**-0.5 * attention
        attention = attention.softmax(dim=2)
        context = torch.matmul(attention, value)  # G n V
        context = context.transpose(1, 2).contiguous().view(groups, -1, height, width)  # G V h w
        return self.out(context)  # G C h w


class ISA(nn.Module):
    """Long-range, then short-range attention: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        down_factor: int = 8,
        key_channels: int | None = None,
        value_channels: int | None = None,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        keys = channels // 2 if key_channels is None else key_channels
        values = channels if value_channels is None else value_channels
        self.factor = down_factor
        self.long_range = GroupAttention(channels, keys, values)
        self.short_range = GroupAttention(channels, keys, values)
        self.fuse = nn.Sequential(*conv_bn_relu(2 * channels, channels), nn.Dropout2d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        factor = self.factor
        below, right = -height % factor, -width % factor
        top, left = below // 2, right // 2
        y = F.pad(x, (left, right - left, top, below - top)) if below or right else x  # B C H' W'
        rows, columns = (height + below) // factor, (width + right) // factor
        y = y.view(batch, channels, rows, factor, columns, factor).permute(0, 3, 5, 1, 2, 4)  # B P P C H'/P W'/P
        y = self.long_range(y.reshape(-1, channels, rows, columns))  # BPP C H'/P W'/P
        y = y.view(batch, factor, factor, channels, rows, columns).permute(0, 4, 5, 3, 1, 2)  # B H'/P W'/P C P P
        y = self.short_range(y.reshape(-1, channels, factor, factor))  # BH'W'/PP C P P
        y = y.view(batch, rows, columns, channels, factor, factor).permute(0, 3, 1, 4, 2, 5)  # B C H'/P P W'/P P
        y = y.reshape(batch, channels, height + below, width + right)  # B C H' W'
        y = y[:, :, top : top + height, left : left + width]  # B C H W
        return self.fuse(torch.cat([x, y], dim=1))  # B C H W


def widths(channels: int, key_channels: int | None, value_channels: int | None) -> tuple[int, int]:
    """K and V."""
    return (
        channels // 2 if key_channels is None else key_channels,
        channels if value_channels is None else value_channels,
    )


def params(
    channels: int,
    down_factor: int = 8,
    key_channels: int | None = None,
    value_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Closed form of the parameter count."""
    k, v = widths(channels, key_channels, value_channels)
    attention = 2 * (channels * k + k**2 + 4 * k) + 2 * channels * v + 2 * channels
    return 2 * attention + 2 * channels**2 + 2 * channels


def macs(
    shape: Shape,
    down_factor: int = 8,
    key_channels: int | None = None,
    value_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Multiply-accumulates of one forward pass."""
    c, block = shape.channels, down_factor**2
    k, v = widths(c, key_channels, value_channels)
    grid = -(-shape.height // down_factor) * -(-shape.width // down_factor)
    padded = grid * block
    transforms = 2 * padded * (2 * (c * k + k**2) + 2 * c * v)
    attention = padded * (grid + block) * (k + v)
    return shape.batch * (transforms + attention + 2 * shape.height * shape.width * c**2)


MECHANISM = Mechanism(
    name="isa",
    family="spatial",
    layout="BCHW",
    paper="Huang et al., arXiv 2019",
    build=ISA,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
