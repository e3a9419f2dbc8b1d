"""Asymmetric Fusion Non-local Block (AFNB).

Paper     Zhu, Xu, Bai, Huang, Bai, "Asymmetric Non-local Neural Networks for Semantic Segmentation", ICCV 2019,
          arXiv:1908.07678, section 3
Idea      Fuses two stages of a backbone: positions of the high stage attend to pooled samples of the low stage.
Formula   q = relu(BN(W_q h));  k = pool(relu(BN(W_k l))), v = pool(W_v l), each at grids n x n, S samples together;
          c = W softmax_s(q k^T / sqrt(K)) v;  y = BN(U [c, h])
Shapes    low: B L H W, high: B C H W -> y: B C H W
Params    2*(C//2)*(K := C//8) + 2*C*K + 7*K + 2*C**2 + 4*C
          L*(K + V) + C*K + 6K + V + C*V + C + 2C^2 + 3C with L = C/2 low channels and K = V = C/8
Cost      N*(L*K + L*V + C*K + V*C + 2C^2) + N*S*(K + V) MACs per image, S = 110; an N x S map
Defaults  low_channels L = C/2, key_channels K = value_channels V = C/8 (official code: 1024, 256, 256 at C = 2048);
          grids 1, 3, 6, 8: S = 110 (section 3); dropout 0.05 (official code)
Differs   follows the official code: scale K^-0.5; BN and ReLU after query and key; biases before BN; no ReLU after the fusion;
          dropout after it (training only); W starts at 0. Both stages have one resolution, as in its dilated backbone
Survey    domain: spatial; g: pooling, dot product, softmax; f: matmul; tasks: SSeg; kind: soft;
          goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class AFNB(nn.Module):
    """Asymmetric fusion non-local block: low (B, L, H, W), high (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        low_channels: int | None = None,
        key_channels: int | None = None,
        value_channels: int | None = None,
        grids: Sequence[int] = (1, 3, 6, 8),
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        low, self.key_channels, self.value_channels = widths(channels, low_channels, key_channels, value_channels)
        self.grids = tuple(grids)
        self.query = nn.Conv2d(channels, self.key_channels, 1)
        self.query_bn = nn.BatchNorm2d(self.key_channels)
        self.key = nn.Conv2d(low, self.key_channels, 1)
        self.key_bn = nn.BatchNorm2d(self.key_channels)
        self.value = nn.Conv2d(low, self.value_channels, 1)
        self.w = nn.Conv2d(self.value_channels, channels, 1)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        self.fuse_bn = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        for tensor in self.w.parameters():
            nn.init.zeros_(tensor)

    def sample(self, x: Tensor) -> Tensor:
        """Averages over the cells of every grid, one after the other: B C H W -> B C S."""
        return torch.cat([F.adaptive_avg_pool2d(x, grid).flatten(2) for grid in self.grids], dim=2)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        batch, _, height, width = high.shape
        value = self.sample(self.value(low)).transpose(1, 2)  # B S V
        query = self.query_bn(self.query(high)).relu().flatten(2).transpose(1, 2)  # B N K
        key = self.sample(self.key_bn(self.key(low)).relu())  # B K S
        attention = torch.matmul(query, key)  # B N S
        attention = self.key_channels**-0.5 * attention
        attention = attention.softmax(dim=-1)
        context = torch.matmul(attention, value)  # B N V
        context = context.transpose(1, 2).contiguous().view(batch, self.value_channels, height, width)  # B V H W
        y = torch.cat([self.w(context), high], dim=1)  # B 2C H W
        return self.dropout(self.fuse_bn(self.fuse(y)))  # B C H W


def widths(channels: int, low: int | None, key: int | None, value: int | None) -> tuple[int, int, int]:
    """Low, key and value channels, with the paper's proportions to the high channels where none are given."""
    return low or channels // 2, key or channels // 8, value or channels // 8


def params(
    channels: int,
    low_channels: int | None = None,
    key_channels: int | None = None,
    value_channels: int | None = None,
    grids: Sequence[int] = (1, 3, 6, 8),
    dropout: float = 0.05,
) -> int:
    """Closed form of the parameter count."""
    c = channels
    low, k, v = widths(c, low_channels, key_channels, value_channels)
    return low * (k + v) + c * k + 6 * k + v + v * c + c + 2 * c**2 + 3 * c


def macs(
    shape: Shape,
    low_channels: int | None = None,
    key_channels: int | None = None,
    value_channels: int | None = None,
    grids: Sequence[int] = (1, 3, 6, 8),
    dropout: float = 0.05,
) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n, s = shape.channels, shape.height * shape.width, sum(grid**2 for grid in grids)
    low, k, v = widths(c, low_channels, key_channels, value_channels)
    return shape.batch * (n * (low * (k + v) + c * (k + v) + 2 * c**2) + n * s * (k + v))


def inputs(shape: Shape, low_channels: int | None = None, **_: object) -> tuple[TensorSpec, ...]:
    """The features of the low and of the high stage."""
    low, _k, _v = widths(shape.channels, low_channels, None, None)
    return TensorSpec((shape.batch, low, *shape.hw), "low"), TensorSpec((shape.batch, shape.channels, *shape.hw), "high")


MECHANISM = Mechanism(
    name="afnb",
    family="spatial",
    layout="BCHW",
    paper="Zhu et al., ICCV 2019",
    build=AFNB,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    inputs=inputs,
)
