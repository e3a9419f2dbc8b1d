"""Spatial-reduction attention (PVT).

Paper     Wang et al., "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions", ICCV 2021,
          arXiv:2102.12122, section 3.3
Idea      Multi-head attention whose keys and values come from a map made R times smaller along each axis.
Formula   SR(x) = LN(W_s * x) with stride R;  head_m = softmax(q_m k_m^T / sqrt(C/h)) v_m with q = W_q x, k, v = W_kv SR(x);
          y = W_o [head_1, ..., head_h]
Shapes    x: B C H W -> y: B C H W
Params    4*C**2 + 4*C + sr_ratio**2*C**2 + 3*C
          with R = 1 neither W_s nor LN: 4C^2 + 4C
Cost      2*N*C^2 + S*(R^2*C^2 + 2*C^2) + 2*N*S*C MACs per image with S = (H//R)*(W//R); h maps of N*S elements
Defaults  R = sr_ratio = 8 (the first stage; 4, 2, 1 in the others), heads C/64 (stages of 64, 128, 320, 512 channels with 1,
          2, 5, 8 heads: section 3.4), at least one
Differs   biases in the projections, as in the released models (the paper writes matrices only). The official code takes tokens
          and the size of their map: here the map itself comes in and goes out. Rows and columns that do not fill a window of R
          are left out of keys and values, as in the official code; a map smaller than R gets zeros below and on the right up
          to R, where that code fails
Survey    domain: spatial; g: dot product between query and key of a reduced map, softmax; f: matmul; tasks: Cls, Det, ISeg,
          SSeg; kind: soft; goal: I, IV, VII; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class SRA(nn.Module):
    """Attention on a reduced map: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, sr_ratio: int = 8, heads: int | None = None) -> None:
        super().__init__()
        self.heads = max(channels // 64, 1) if heads is None else heads
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not divide into {self.heads} heads")
        self.sr_ratio = sr_ratio
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        if sr_ratio > 1:
            self.reduce = nn.Conv2d(channels, channels, sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        size = channels // self.heads
        tokens = x.flatten(2).transpose(1, 2)  # B N C
        query = self.query(tokens).view(batch, -1, self.heads, size).transpose(1, 2)  # B h N C/h
        if self.sr_ratio > 1:
            missing = (max(self.sr_ratio - width, 0), max(self.sr_ratio - height, 0))
            if any(missing):
                x = F.pad(x, (0, missing[0], 0, missing[1]))
            tokens = self.norm(self.reduce(x).flatten(2).transpose(1, 2))  # B S C
        key_value = self.key_value(tokens).view(batch, -1, 2, self.heads, size)  # B S 2 h C/h
        key, value = key_value.permute(2, 0, 3, 1, 4).unbind(0)  # B h S C/h
        attention = torch.matmul(query, key.transpose(2, 3)) * size**-0.5  # B h N S
        attention = attention.softmax(dim=3)
        y = torch.matmul(attention, value)  # B h N C/h
        y = self.out(y.transpose(1, 2).reshape(batch, height * width, channels))  # B N C
        return y.transpose(1, 2).view(batch, channels, height, width)  # B C H W


def params(channels: int, sr_ratio: int = 8, heads: int | None = None) -> int:
    """Closed form of the parameter count."""
    reduction = sr_ratio**2 * channels**2 + 3 * channels if sr_ratio > 1 else 0
    return 4 * channels**2 + 4 * channels + reduction


def macs(shape: Shape, sr_ratio: int = 8, heads: int | None = None) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    reduced = max(shape.height // sr_ratio, 1) * max(shape.width // sr_ratio, 1)
    reduction = reduced * sr_ratio**2 * channels**2 if sr_ratio > 1 else 0
    projections = 2 * positions * channels**2 + 2 * reduced * channels**2
    return shape.batch * (projections + reduction + 2 * positions * reduced * channels)


MECHANISM = Mechanism(
    name="sra",
    family="spatial",
    layout="BCHW",
    paper="Wang et al., ICCV 2021",
    build=SRA,
    params=params,
    macs=macs,
    natural=Shape(1, 64, 56, 56),
)
