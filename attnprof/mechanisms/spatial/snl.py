"""Simplified non-local block.

Paper     Cao, Xu, Lin, Wei, Hu, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019,
          arXiv:1904.11492, section 4.1
Idea      Non-local attention maps hardly depend on the query, so one map, and one context vector, serves every position.
Formula   a = softmax_j(W_k x_j);  z_i = x_i + W_v sum_j a_j x_j
Shapes    x: B C H W -> z: B C H W
Params    C*C + C + 1
Cost      2*N*C + C*C MACs per image; the largest tensors are x and z
Defaults  no arguments
Differs   no official module of this block is public. W_k has a bias, as in the official global context block, W_v has none (the
          equations write no biases); no W_z, as in the paper; W_v is applied to the pooled vector (the paper's final form), not
          to every position (its first form); weights keep PyTorch's initialisation
Survey    domain: spatial; g: key, softmax; f: pool, add; tasks: Det, ISeg; kind: soft; goal: IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class SNL(nn.Module):
    """One context vector for all positions: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.key = nn.Conv2d(channels, 1, 1)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.key(x).flatten(2).softmax(dim=-1)  # B 1 N
        context = torch.matmul(x.flatten(2), attention.transpose(1, 2))  # B C 1
        return x + self.value(context.unsqueeze(3))  # B C H W


def params(channels: int) -> int:
    """Closed form of the parameter count."""
    return channels * channels + channels + 1


def macs(shape: Shape) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * (2 * shape.height * shape.width * shape.channels + shape.channels * shape.channels)


MECHANISM = Mechanism(
    name="snl",
    family="spatial",
    layout="BCHW",
    paper="Cao et al., ICCVW 2019",
    build=SNL,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
    exempt={
        "every_parameter_gets_a_finite_gradient:key.bias": "softmax is blind to a shift of all logits of a row",
    },
)
