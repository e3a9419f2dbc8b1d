"""Criss-cross attention taken apart: one pass along the rows, then one along the columns.

Paper     none: a proposal in a review of Huang et al., "CCNet", ICCV 2019, arXiv:1811.11721, after its section 3.3
Idea      Two criss-cross passes reach every position; so does a horizontal pass followed by a vertical one.
Formula   z_u = gamma * sum_{j in row(u)} softmax_j(q_u . k_j) v_j + x_u;  y = the same along columns, with q, k, v from z
Shapes    x: B C H W -> y: B C H W
Params    (2*max(C//reduction, 1) + C)*(C + 1) + 1
          1.25*C^2 + 1.25*C + 1 where 8 divides C
Cost      2*N*C*(2*(C//8) + C) + N*(H+W)*(C//8 + C) MACs per image: beside two criss-cross passes only the part with H+W halves;
          energy and attention have N*W elements in the first pass, N*H in the second
Defaults  reduction r = 8 for queries and keys, gamma starts at 0 (both as in CCNet's official code)
Differs   nothing is published, so these are choices: rows first; both passes share one set of projections and one gamma, as
          CCNet's passes do, and the second pass projects the first one's output again; softmax along one axis at a time, the
          position itself included (no mask); residual and gamma inside each pass; biases in the projections; queries and keys
          keep one channel where C < r. Rows and columns are permuted views (for one image matmul takes them without a copy).
Survey    domain: spatial; g: dot product between query and key along one axis, softmax; f: weighted sum, residual; tasks: SSeg;
          kind: soft; goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class HorizontalVertical(nn.Module):
    """Attention along rows, then along columns: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        out = self._attend(self.query(x), self.key(x), self.value(x))
        x = x + self.gamma * out
        query, key, value = (project(x).transpose(2, 3) for project in (self.query, self.key, self.value))  # B C W H
        out = self._attend(query, key, value).transpose(2, 3)  # B C H W
        return x + self.gamma * out

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention among the L positions of the last axis, for each of S along the third: B C S L -> B C S L."""
        energy = query.permute(0, 2, 3, 1) @ key.transpose(1, 2)  # B S L L
        attention = energy.softmax(dim=-1)
        out = value.transpose(1, 2) @ attention.transpose(2, 3)  # B S C L
        return out.transpose(1, 2)  # B C S L


def params(channels: int, reduction: int = 8) -> int:
    """Closed form of the parameter count."""
    width = max(channels // reduction, 1)
    return (2 * width + channels) * (channels + 1) + 1


def macs(shape: Shape, reduction: int = 8) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    width = max(channels // reduction, 1)
    projections = positions * channels * (2 * width + channels)
    attention = positions * (shape.height + shape.width) * (width + channels)
    return shape.batch * (2 * projections + attention)


MECHANISM = Mechanism(
    name="ccnet_hv",
    family="spatial",
    layout="BCHW",
    paper="proposal after Huang et al., ICCV 2019",
    build=HorizontalVertical,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    exempt={
        "every_parameter_gets_a_finite_gradient:key.bias": "softmax is blind to a shift of all logits of a row",
    },
)
