"""Global Reasoning unit (GloRe).

Paper     Chen, Rohrbach, Yan, Yan, Feng, Kalantidis, "Graph-Based Global Reasoning Networks", CVPR 2019, arXiv:1811.12814,
          section 3
Idea      Positions are pooled into the nodes of a small graph, a graph convolution reasons over them, and they are spread back.
Formula   S = W_s x, P = W_p x;  V = S P^T;  Z = W_g relu(V (I + A));  y = x + BN(W_e (Z P))
Shapes    x: B C H W -> y: B C H W
Params    5*C*(M := C//4) + 4*M + 5*M**2 + 2*C
          5CM + 3M + 5M^2 + M + 2C with M nodes of 2M states, at M = C/4
Cost      5*N*C*M + 4*N*M^2 + 6*M^3 MACs per image; 3M x N maps
Defaults  nodes M = C/4, states 2M (official code: 128 nodes at 512 channels, 256 at 1024)
Differs   follows the official code: states are 2M wide; I + A and a ReLU before W_g where the paper has (I - A) and none;
          biases in the two projections and in A, not in W_g and W_e; one projection P there and back; BN eps 1e-4 with scale 0
          at the start. V is not divided by N, as in the paper (the code has it as an option, off by default)
Survey    domain: spatial; g: projection to a graph, graph convolution; f: matmul; tasks: Cls, SSeg, Action; kind: soft;
          goal: IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class GloRe(nn.Module):
    """Global reasoning unit: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, nodes: int | None = None) -> None:
        super().__init__()
        self.nodes = channels // 4 if nodes is None else nodes
        self.states = 2 * self.nodes
        self.state = nn.Conv2d(channels, self.states, 1)
        self.projection = nn.Conv2d(channels, self.nodes, 1)
        self.adjacency = nn.Conv1d(self.nodes, self.nodes, 1)
        self.update = nn.Conv1d(self.states, self.states, 1, bias=False)
        self.extend = nn.Conv2d(self.states, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-4)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        state = self.state(x).flatten(2)  # B 2M N
        projection = self.projection(x).flatten(2)  # B M N
        v = torch.matmul(state, projection.transpose(1, 2))  # B 2M M
        h = self.adjacency(v.transpose(1, 2).contiguous()).transpose(1, 2)  # B 2M M
        h = h + v
        h = self.update(h.relu_())
        y = torch.matmul(h, projection).view(batch, self.states, height, width)  # B 2M H W
        return x + self.bn(self.extend(y))  # B C H W


def params(channels: int, nodes: int | None = None) -> int:
    """Closed form of the parameter count."""
    m = channels // 4 if nodes is None else nodes
    return 5 * channels * m + 3 * m + 5 * m**2 + m + 2 * channels


def macs(shape: Shape, nodes: int | None = None) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n = shape.channels, shape.height * shape.width
    m = c // 4 if nodes is None else nodes
    return shape.batch * (5 * n * c * m + 4 * n * m**2 + 6 * m**3)


MECHANISM = Mechanism(
    name="glore",
    family="spatial",
    layout="BCHW",
    paper="Chen et al., CVPR 2019",
    build=GloRe,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
)
