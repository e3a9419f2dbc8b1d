"""Scaled dot-product attention.

Paper     Vaswani et al., "Attention Is All You Need", NIPS 2017, arXiv:1706.03762, section 3.2.1
Idea      Every position gathers the values of all positions, weighed by a softmax over the scaled query-key dot products.
Formula   y = softmax(Q K^T / sqrt(C)) V
Shapes    q, k, v: B N C -> y: B N C, with N = H*W
Params    0
Cost      2*N^2*C MACs per image; N^2 elements where the scores are materialised (the math kernel), N*C in a fused kernel
Defaults  one head of size C, nothing dropped
Differs   nothing in the values. One call of F.scaled_dot_product_attention on B 1 N C, because torch's fused kernels take 4-D
          inputs only; at C > 256 the flash kernel is out of reach and torch falls back to the memory-efficient one (float64:
          math)
Survey    domain: spatial; g: dot product between query and key, softmax; f: matmul; tasks: none; kind: soft; goal: IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class SDPA(nn.Module):
    """Single-head attention without projections: q, k, v (B, N, C) -> (B, N, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)  # B 1 N C
        return F.scaled_dot_product_attention(query, key, value).squeeze(1)  # B N C


def params(channels: int) -> int:
    """Closed form of the parameter count."""
    return 0


def macs(shape: Shape) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * 2 * (shape.height * shape.width) ** 2 * shape.channels


def inputs(shape: Shape) -> tuple[TensorSpec, ...]:
    """Query, key and value."""
    size = (shape.batch, shape.height * shape.width, shape.channels)
    return (TensorSpec(size, "query"), TensorSpec(size, "key"), TensorSpec(size, "value"))


MECHANISM = Mechanism(
    name="sdpa",
    family="spatial",
    layout="BNC",
    paper="Vaswani et al., NIPS 2017",
    build=SDPA,
    params=params,
    macs=macs,
    natural=Shape(1, 768, 14, 14),
    inputs=inputs,
)
