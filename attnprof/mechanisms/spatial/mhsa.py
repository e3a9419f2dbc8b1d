"""Multi-head self-attention.

Paper     Vaswani et al., "Attention Is All You Need", NIPS 2017, arXiv:1706.03762, section 3.2.2
Idea      The channels are split into heads, each with a scaled dot-product attention of its own; a linear layer mixes the
          results.
Formula   q, k, v = W_q x, W_k x, W_v x;  head_m = softmax(q_m k_m^T / sqrt(C/h)) v_m;  y = W_o [head_1, ..., head_h]
Shapes    x: B N C -> y: B N C, with N = H*W
Params    4*C*C + 4*C
Cost      4*N*C^2 + 2*N^2*C MACs per image; h*N^2 elements where the scores are materialised (the math kernel), N*C if fused
Defaults  h = 8 heads (section 3.2.2)
Differs   biases in the four projections, as in common implementations: the paper writes matrices only. q, k and v come from one
          projection of 3C channels. No position encoding, dropout, residual or normalisation: they are the host's
Survey    domain: spatial; g: dot product between query and key, softmax; f: matmul; tasks: none; kind: soft; goal: IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class MHSA(nn.Module):
    """Multi-head attention of x on itself: x (B, N, C) -> (B, N, C)."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, positions, channels = x.shape
        qkv = self.qkv(x).view(batch, positions, 3, self.heads, channels // self.heads)  # B N 3 h C/h
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # B h N C/h
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out(y.transpose(1, 2).reshape(batch, positions, channels))  # B N C


def params(channels: int, heads: int = 8) -> int:
    """Closed form of the parameter count."""
    return 4 * channels * channels + 4 * channels


def macs(shape: Shape, heads: int = 8) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    return shape.batch * (4 * positions * channels**2 + 2 * positions**2 * channels)


MECHANISM = Mechanism(
    name="mhsa",
    family="spatial",
    layout="BNC",
    paper="Vaswani et al., NIPS 2017",
    build=MHSA,
    params=params,
    macs=macs,
    natural=Shape(1, 768, 14, 14),
)
