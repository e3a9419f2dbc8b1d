"""OCNet, base object context (base-OC).

Paper     Yuan, Wang, "OCNet: Object Context Network for Scene Parsing", arXiv:1809.00916v1 (2018), base-OC; IJCV 2021
Idea      Self-attention with one transform for query and key estimates which positions belong to the object of each pixel; the
          attended map is concatenated with the input and fused.
Formula   q = k = act(BN(W_k x));  w_ij = softmax_j(q_i . k_j / sqrt(K));  c_i = W sum_j w_ij (W_v x_j);  y = act(BN(U [c, x]))
Shapes    x: B C H W -> y: B C H W
Params    3*C*(K := C//2) + 4*K + 2*C**2 + 4*C
          C*K + 3K, C*V + V, V*C + C, 2*C*C + 3C with K = V = C/2: biases and BN included
Cost      N*C*(2K + 2V + 2C) + N^2*(K + V) MACs per image; two N x N maps live at once
Defaults  key_channels K = value_channels V = C/2 (official code: 256 of 512); dropout 0.05 (official code)
Differs   follows the first official release: the shared transform is applied twice, for the query and for the key, so its MACs
          count twice; biases before BN, dropout after the fusion (training only), W starts at 0. Its fused in-place BN with
          leaky ReLU 0.01 is written as BN, then leaky ReLU in place: the same function, but training keeps BN's input too
Survey    domain: spatial; g: dot product, softmax; f: matmul; tasks: SSeg; kind: soft; goal: I, IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class OCNet(nn.Module):
    """Base object context block: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self, channels: int, key_channels: int | None = None, value_channels: int | None = None, dropout: float = 0.05
    ) -> None:
        super().__init__()
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
        return F.leaky_relu(self.key_bn(self.key(x)), 0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        value = self.value(x).flatten(2).transpose(1, 2)  # B N V
        query = self.transform(x).flatten(2).transpose(1, 2)  # B N K
        key = self.transform(x).flatten(2)  # B K N
        attention = torch.matmul(query, key)  # B N N
        attention = self.key_channels**-0.5 * attention
        attention = attention.softmax(dim=-1)
        context = torch.matmul(attention, value)  # B N V
        context = context.transpose(1, 2).contiguous().view(batch, self.value_channels, height, width)  # B V H W
        y = torch.cat([self.w(context), x], dim=1)  # B 2C H W
        y = F.leaky_relu(self.fuse_bn(self.fuse(y)), 0.01, inplace=True)  # B C H W
        return self.dropout(y)


def params(
    channels: int,
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
    key_channels: int | None = None,
    value_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n = shape.channels, shape.height * shape.width
    k = c // 2 if key_channels is None else key_channels
    v = c // 2 if value_channels is None else value_channels
    return shape.batch * (n * c * (2 * k + 2 * v + 2 * c) + n * n * (k + v))


MECHANISM = Mechanism(
    name="ocnet",
    family="spatial",
    layout="BCHW",
    paper="Yuan and Wang, arXiv 2018",
    build=OCNet,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
