"""Relation-aware global attention (RGA).

Paper     Zhang, Lan, Zeng, Jin, Chen, "Relation-Aware Global Attention for Person Re-identification", CVPR 2020,
          arXiv:1904.02998, section 3
Idea      A node's gate comes from its affinities with all nodes, in both directions and in a fixed order, so that a small
          network can read the global structure off them. RGA-S: the nodes are positions; RGA-C: they are channels.
Formula   r_ij = theta(x_i)^T phi(x_j);  e_i = [mean(g(x_i)), relu(BN(W_r [r_i1 .. r_iV, r_1i .. r_Vi]))];
          a_i = sigmoid(BN(W_2 relu(BN(W_1 e_i))));  y_i = a_i x_i for the V nodes;  theta, phi, g = relu(BN(W .))
Shapes    x: B C H W -> y: B C H W, at the resolution for which it was built
Params    (a:=max(C//r,1))*(5*C + 8) + (b:=max(N//r,1))*(5*N + 8) + (4 + b)*max((1 + b)//r,1) + (4 + a)*max((1 + a)//r,1) + 4
          each branch 3(F^2/r + 2F/r) + 2V^2/r + 2V/r + nm + 3m + 2, n = 1 + V/r, m = n//r; S: F = C, V = N; C: the reverse
Cost      3N*C^2/r + N^2*C/r + 2N^3/r + N*(n + 1)*m MACs per image for S, with N and C exchanged for C: cubic in N; the affinity
          map of N^2 elements and both directions of it, 2N^2, live at once
Defaults  reduction r = 8 for features, nodes and the gate (official code); order sc: positions, then channels, the paper's
          RGA-SC; hw from the case
Differs   follows the official code: no biases, BN also after the last layer. Both branches are one module, on x or on its
          transpose, with 1x1 convolutions over one axis of nodes; at least one channel is kept at each reduction, also in the
          gate (the official code would have none where V < 56). order s or c is one branch alone
Survey    domain: channel & spatial; g: self-attention's pairwise relations, relation vectors, sigmoid; f: scale; tasks: ReID;
          kind: soft; goal: I, II, III; stage: 4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


def embed(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution, BN, ReLU."""
    return nn.Sequential(nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())


class RelationGate(nn.Module):
    """Gate of V nodes with F features each: x (B, F, V) -> (B, 1, V)."""

    def __init__(self, features: int, nodes: int, reduction: int) -> None:
        super().__init__()
        width, relations = max(features // reduction, 1), max(nodes // reduction, 1)
        hidden = max((1 + relations) // reduction, 1)
        self.theta = embed(features, width)
        self.phi = embed(features, width)
        self.g = embed(features, width)
        self.relate = embed(2 * nodes, relations)
        self.gate = nn.Sequential(
            *embed(1 + relations, hidden), nn.Conv1d(hidden, 1, 1, bias=False), nn.BatchNorm1d(1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        relations = self.relate(self.affinities(self.theta(x), self.phi(x)))  # B V/r V
        own = self.g(x).mean(dim=1, keepdim=True)  # B 1 V
        gate: Tensor = self.gate(torch.cat([own, relations], dim=1))  # B 1 V
        return gate

    def affinities(self, theta: Tensor, phi: Tensor) -> Tensor:
        """From and to all nodes: two of B F/r V -> B 2V V."""
        affinity = torch.bmm(theta.transpose(1, 2), phi)  # B V V
        return torch.cat([affinity.transpose(1, 2), affinity], dim=1)


class RGA(nn.Module):
    """Gate of the positions, then gate of the channels: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, hw: tuple[int, int], reduction: int = 8, order: str = "sc") -> None:
        super().__init__()
        positions = hw[0] * hw[1]
        if not order or set(order) - {"s", "c"} or len(set(order)) < len(order):
            raise ValueError(f"order is sc, cs, s or c, not {order}")
        self.order = order
        self.spatial = RelationGate(channels, positions, reduction) if "s" in order else None
        self.channel = RelationGate(positions, channels, reduction) if "c" in order else None

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.order:
            maps = x.flatten(2)  # B C N
            if branch == "s":
                assert self.spatial is not None
                x = x * self.spatial(maps).view(x.shape[0], 1, *x.shape[2:])  # B 1 H W
            else:
                assert self.channel is not None
                x = x * self.channel(maps.transpose(1, 2).contiguous()).view(*x.shape[:2], 1, 1)  # B C 1 1
        return x


def params(channels: int, hw: tuple[int, int], reduction: int = 8, order: str = "sc") -> int:
    """Closed form of the parameter count."""
    total = 0
    for branch in order:
        features, nodes = (channels, hw[0] * hw[1]) if branch == "s" else (hw[0] * hw[1], channels)
        width, relations = max(features // reduction, 1), max(nodes // reduction, 1)
        inputs, hidden = 1 + relations, max((1 + relations) // reduction, 1)
        total += 3 * (features * width + 2 * width) + 2 * nodes * relations + 2 * relations
        total += inputs * hidden + 2 * hidden + hidden + 2
    return total


def macs(shape: Shape, hw: tuple[int, int], reduction: int = 8, order: str = "sc") -> int:
    """Multiply-accumulates of one forward pass."""
    total = 0
    for branch in order:
        channels, positions = shape.channels, hw[0] * hw[1]
        features, nodes = (channels, positions) if branch == "s" else (positions, channels)
        width, relations = max(features // reduction, 1), max(nodes // reduction, 1)
        hidden = max((1 + relations) // reduction, 1)
        total += nodes * (3 * features * width + nodes * width + 2 * nodes * relations + (1 + relations) * hidden + hidden)
    return shape.batch * total


MECHANISM = Mechanism(
    name="rga",
    family="channel_spatial",
    layout="BCHW",
    paper="Zhang et al., CVPR 2020",
    build=RGA,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 32, 16),
    rows={"order": ("sc", "s", "c")},
)
