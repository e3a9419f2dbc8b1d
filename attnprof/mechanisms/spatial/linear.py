"""Linear attention.

Paper     Katharopoulos, Vyas, Pappas, Fleuret, "Transformers are RNNs: Fast Autoregressive Transformers with Linear
          Attention", ICML 2020, arXiv:2006.16236, section 3.2; the form "softmax": Shen, Zhang, Zhao, Yi, Li, "Efficient
          Attention: Attention with Linear Complexities", WACV 2021, arXiv:1812.01243, section 3
Idea      A kernel in place of the softmax of query-key products: keys and values are summed into one small matrix, which every
          query reads, so that no N x N map exists.
Formula   elu: y_i = phi(q_i)^T sum_j phi(k_j) v_j^T / (phi(q_i) . sum_j phi(k_j)), phi(x) = elu(x) + 1;
          softmax: y = softmax_channels(Q) (softmax_positions(K)^T V); per head, then W_o
Shapes    x: B N C -> y: B N C, with N = H*W
Params    4*C*C + 4*C
Cost      4*N*C^2 + 2*N*C^2/h + N*C MACs per image (the form softmax: without N*C); maps of N*C and h of (C/h)^2 elements
Defaults  form elu with 1e-6 in the denominator (official code); h = 8 heads (as in "Attention Is All You Need")
Differs   no causal mask. Biases in the four projections, q, k and v in one layer of 3C channels. The form softmax keeps these
          projections: its official code has key and value channels of their own, chosen per host, and adds the input, which is
          the host's here
Survey    domain: spatial; g: feature map of query and key; f: matmul; tasks: none; kind: soft; goal: IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class LinearAttention(nn.Module):
    """Multi-head attention of x on itself without a softmax over pairs: x (B, N, C) -> (B, N, C)."""

    def __init__(self, channels: int, heads: int = 8, form: str = "elu") -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        if form not in ("elu", "softmax"):
            raise ValueError(f"form is 'elu' or 'softmax', not {form!r}")
        self.heads = heads
        self.form = form
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, positions, channels = x.shape
        qkv = self.qkv(x).view(batch, positions, 3, self.heads, channels // self.heads)  # B N 3 h C/h
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # B h N C/h
        if self.form == "elu":
            query, key = F.elu(query) + 1, F.elu(key) + 1
        else:
            query, key = query.softmax(dim=3), key.softmax(dim=2)
        context = torch.matmul(key.transpose(2, 3), value)  # B h C/h C/h
        y = torch.matmul(query, context)  # B h N C/h
        if self.form == "elu":
            total = torch.matmul(query, key.sum(dim=2).unsqueeze(3))  # B h N 1
            y = y / (total + 1e-6)
        return self.out(y.transpose(1, 2).reshape(batch, positions, channels))  # B N C


def params(channels: int, heads: int = 8, form: str = "elu") -> int:
    """Closed form of the parameter count."""
    return 4 * channels * channels + 4 * channels


def macs(shape: Shape, heads: int = 8, form: str = "elu") -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    total = positions * channels if form == "elu" else 0
    return shape.batch * (4 * positions * channels**2 + 2 * positions * channels * (channels // heads) + total)


MECHANISM = Mechanism(
    name="linear",
    family="spatial",
    layout="BNC",
    paper="Katharopoulos et al., ICML 2020",
    build=LinearAttention,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 28, 28),
    rows={"form": ("elu", "softmax")},
)
