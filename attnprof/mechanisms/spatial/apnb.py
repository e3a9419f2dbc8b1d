"""Asymmetric Pyramid Non-local Block (APNB).

Paper     Zhu, Xu, Bai, Huang, Bai, "Asymmetric Non-local Neural Networks for Semantic Segmentation", ICCV 2019,
          arXiv:1908.07678, section 3
Idea      Non-local attention whose keys and values are a few pooled samples of the map: N x S similarities in place of N x N.
Formula   q = relu(BN(W_k x));  k = pool(q), v = pool(W_v x), each at grids n x n, S samples together;
          c = W softmax_s(q k^T / sqrt(K)) v;  y = relu(BN(U [c, x]))
Shapes    x: B C H W -> y: B C H W
Params    3*C*(K := C//2) + 4*K + 2*C**2 + 4*C
          C*K + 3K, C*V + V, V*C + C, 2*C*C + 3C with K = V = C/2: biases and BN included
Cost      N*C*(2K + 2V + 2C) + N*S*(K + V) MACs per image, S = 110; an N x S map
Defaults  grids 1, 3, 6, 8: S = 110 (section 3); key_channels K = value_channels V = C/2 (official code: 256 of 512);
          dropout 0.05 (official code)
Differs   follows the official code: query and key share one transform that is applied twice, so its MACs count twice; scale
          K^-0.5; BN and ReLU after it; biases before BN; dropout after the fusion (training only); W starts at 0
Survey    domain: spatial; g: pooling, dot product, softmax; f: matmul; tasks: SSeg; kind: soft;
          goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class APNB(nn.Module):
    """Asymmetric pyramid non-local block: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        grids: Sequence[int] = (1, 3, 6, 8),
        key_channels: int | None = None,
        value_channels: int | None = None,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        self.grids = tuple(grids)
        self.key_channels = channels // 2 if key_channels is None else key_channels
        self.value_channels = channels // 2 if value_channels is None else value_channels
        self.key = nn.Conv2d(channels, self.key_channels, 1)
        self.key_bn = nn.BatchNorm2d(self.key_channels)
        self.value = nn.Conv2d(channels, self.value_channels, 1)
        self.w = nn.Conv2d(self.value_channels, channels, 1)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        self.fuse_bn = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        for tensor in self.w.parameters():
            nn.init.zeros_(tensor)

    def transform(self, x: Tensor) -> Tensor:
        """The transform that query and key share."""
        return self.key_bn(self.key(x)).relu()

    def sample(self, x: Tensor) -> Tensor:
        """Averages over the cells of every grid, one after the other: B C H W -> B C S."""
        return torch.cat([F.adaptive_avg_pool2d(x, grid).flatten(2) for grid in self.grids], dim=2)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        value = self.sample(self.value(x)).transpose(1, 2)  # B S V
        query = self.transform(x).flatten(2).transpose(1, 2)  # B N K
        key = self.sample(self.transform(x))  # B K S
        attention = torch.matmul(query, key)  # B N S
        attention = self.key_channels**-0.5 * attention
        attention = attention.softmax(dim=-1)
        context = torch.matmul(attention, value)  # B N V
        context = context.transpose(1, 2).contiguous().view(batch, self.value_channels, height, width)  # B V H W
        y = torch.cat([self.w(context), x], dim=1)  # B 2C H W
        return self.dropout(self.fuse_bn(self.fuse(y)).relu())  # B C H W


def params(
    channels: int,
    grids: Sequence[int] = (1, 3, 6, 8),
    key_channels: int | None = None,
    value_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Closed form of the parameter count."""
    k = channels // 2 if key_channels is None else key_channels
    v = channels // 2 if value_channels is None else value_channels
    return (channels * k + 3 * k) + (channels * v + v) + (v * channels + channels) + (2 * channels**2 + 3 * channels)


def macs(
    shape: Shape,
    grids: Sequence[int] = (1, 3, 6, 8),
    key_channels: int | None = None,
    value_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n, s = shape.channels, shape.height * shape.width, sum(grid**2 for grid in grids)
    k = c // 2 if key_channels is None else key_channels
    v = c // 2 if value_channels is None else value_channels
    return shape.batch * (n * c * (2 * k + 2 * v + 2 * c) + n * s * (k + v))


MECHANISM = Mechanism(
    name="apnb",
    family="spatial",
    layout="BCHW",
    paper="Zhu et al., ICCV 2019",
    build=APNB,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
