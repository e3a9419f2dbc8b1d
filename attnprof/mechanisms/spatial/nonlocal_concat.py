"""Non-local block, concatenation.

Paper     Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018, arXiv:1711.07971, sections 3.2 and 3.3
Idea      Each position takes a sum over all positions weighted by a learned projection of the pair of embeddings.
Formula   f_ij = relu(w . [theta_i, phi_j]);  y_i = sum_j f_ij g_j / M with M keys;  z = BN(W y) + x
Shapes    x: B C H W -> z: B C H W
Params    4*C*(C//r) + 5*(C//r) + 3*C
          2C^2 + 5.5C at r = 2: theta, phi, g and W with biases, w without, BN with scale and shift
Cost      4*N*C*(C//r) + 3*N*M*(C//r) MACs per image with M keys (M = N; about N/4 with subsample) and a tensor of all pairs of
          2*(C//r)*N*M elements. That is the formula as written; since w . [theta_i, phi_j] = w1 . theta_i + w2 . phi_j, it can
          be split into two projections, which need the N x M map only and save nearly 2*N*M*(C//r) MACs
Defaults  reduction r = 2 (section 3.3: half the channels); subsample = False: the 2x2 max-pool of keys and values is the
          paper's own choice to make a block cheaper (section 3.3), an option on top of the block's definition
Differs   the official code has no concatenation form: this is the paper's equation with the official embedded form's biases (w
          has none), and BN after W with its scale 0 at the start (section 4.1); public ports copy theta and phi out to all
          pairs before they concatenate, which doubles the peak: here only the concatenated tensor is built; subsample pools
          after phi and g, as the paper says; the convolutions keep PyTorch's initialisation
Survey    domain: spatial; g: concatenation, ReLU / N; f: matmul; tasks: Action, Det, ISeg; kind: soft; goal: I, IV, V; stage: 4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class NonLocalConcat(nn.Module):
    """Concatenation non-local block: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 2, subsample: bool = False) -> None:
        super().__init__()
        self.inner = channels // reduction
        self.subsample = subsample
        self.theta = nn.Conv2d(channels, self.inner, 1)
        self.phi = nn.Conv2d(channels, self.inner, 1)
        self.g = nn.Conv2d(channels, self.inner, 1)
        self.pair = nn.Conv2d(2 * self.inner, 1, 1, bias=False)
        self.w = nn.Conv2d(self.inner, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)  # B C/r H W
        if self.subsample:
            phi, g = F.max_pool2d(phi, 2), F.max_pool2d(g, 2)  # B C/r H/2 W/2
        theta = theta.flatten(2).unsqueeze(3)  # B C/r N 1
        phi = phi.flatten(2).unsqueeze(2)  # B C/r 1 M
        g = g.flatten(2).transpose(1, 2)  # B M C/r
        queries, keys = theta.shape[2], phi.shape[3]
        pairs = torch.cat([theta.expand(-1, -1, -1, keys), phi.expand(-1, -1, queries, -1)], dim=1)  # B 2C/r N M
        attention = self.pair(pairs).relu().squeeze(1) / keys  # B N M
        y = torch.matmul(attention, g)  # B N C/r
        y = y.transpose(1, 2).contiguous().view(batch, self.inner, height, width)  # B C/r H W
        return self.bn(self.w(y)) + x  # B C H W


def params(channels: int, reduction: int = 2, subsample: bool = False) -> int:
    """Closed form of the parameter count."""
    inner = channels // reduction
    return 4 * channels * inner + 5 * inner + 3 * channels


def macs(shape: Shape, reduction: int = 2, subsample: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    inner = shape.channels // reduction
    queries = shape.height * shape.width
    keys = (shape.height // 2) * (shape.width // 2) if subsample else queries
    return shape.batch * (4 * queries * shape.channels * inner + 3 * queries * keys * inner)


MECHANISM = Mechanism(
    name="nonlocal_concat",
    family="spatial",
    layout="BCHW",
    paper="Wang et al., CVPR 2018",
    build=NonLocalConcat,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
)
