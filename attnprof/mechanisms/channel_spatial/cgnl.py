"""Compact generalized non-local block (CGNL).

Paper     Yue, Sun, Yuan, Zhou, Ding, Xu, "Compact Generalized Non-local Network", NeurIPS 2018, arXiv:1810.13125, section 3
Idea      Every entry, a channel at a position, attends to every entry of its group of channels. The similarity is a short sum
          of products, so that the sum over all entries is taken first and the matrix of all pairs is never made.
Formula   y_i = sum_j f(t_i, p_j) g_j over the C/2g * N entries j of i's group;  z = x + GN(W y);  f = t p for dot,
          f = exp(-gamma |t - p|^2) ~ beta sum_{k <= P} (2 gamma)^k / k! t^k p^k for gaussian;  t, p, g: 1x1 convolutions of x
Shapes    x: B C H W -> z: B C H W
Params    3*C*(C//2) + C*(C//2)//groups + 2*C
          1.5C^2 + C^2/2g + 2C: three projections without biases, W grouped, GN's scale and shift
Cost      N*C*(3*C//2) + N*C*(C//2)//groups + N*C*(P + 1) MACs per image with P = 0 for dot: linear in N; maps of N*C elements,
          for gaussian two of (P + 1)*N*C/2
Defaults  kernel dot, groups 8, half the channels (official code); order P = 2 (default of its class; its models use 3), gamma
          1e-4, scale False (official code)
Differs   follows the official code: f is not normalised; the Taylor sum keeps beta at exp(-2 gamma), a constant, where the
          kernel has exp(-gamma (t^2 + p^2)), because training becomes hard otherwise; scale divides the sum by the root of the
          number of entries. All groups go through one batched product instead of one after the other. GN starts at 0 (the
          identity) as there, the convolutions keep PyTorch's initialisation
Survey    domain: channel & spatial; g: dot product or Gaussian kernel between all entries; f: matmul, residual; tasks: FGCls,
          Action, Cls, Det, ISeg; kind: soft; goal: III, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class CGNL(nn.Module):
    """Attention among all entries of a group of channels: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        kernel: str = "dot",
        groups: int = 8,
        order: int = 2,
        gamma: float = 1e-4,
        scale: bool = False,
    ) -> None:
        super().__init__()
        if kernel not in ("dot", "gaussian"):
            raise ValueError(f"kernel is dot or gaussian, not {kernel}")
        self.groups = groups
        self.scale = scale
        self.roots: list[float] = []  # square roots of the Taylor sum's coefficients
        if kernel == "gaussian":
            terms = ((2 * gamma) ** k / math.factorial(k) for k in range(order + 1))
            self.roots = [math.sqrt(math.exp(-2 * gamma) * term) for term in terms]
        self.t = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.p = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.project = nn.Conv2d(channels // 2, channels, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, channels)
        for tensor in self.norm.parameters():
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        t = self.entries(self.t(x))  # B*g 1 L with L = C/2g * N entries
        p = self.entries(self.p(x))  # B*g 1 L
        g = self.entries(self.g(x))  # B*g 1 L
        if self.roots:
            t, p = self.powers(t), self.powers(p)  # B*g P+1 L
        pooled = torch.bmm(p, g.transpose(1, 2))  # B*g P+1 1
        if self.scale:
            pooled = pooled / t.shape[2] ** 0.5
        y = torch.bmm(pooled.transpose(1, 2), t)  # B*g 1 L
        y = y.reshape(batch, channels // 2, height, width)  # B C/2 H W
        return self.norm(self.project(y)) + x  # B C H W

    def entries(self, x: Tensor) -> Tensor:
        """Each group of channels as one vector: B C/2 H W -> B*g 1 L."""
        return x.reshape(x.shape[0] * self.groups, 1, -1)

    def powers(self, x: Tensor) -> Tensor:
        """The terms of the Taylor sum that belong to x: B*g 1 L -> B*g P+1 L."""
        power = torch.ones_like(x)
        terms = [self.roots[0] * power]
        for root in self.roots[1:]:
            power = power * x
            terms.append(root * power)
        return torch.cat(terms, dim=1)


def params(
    channels: int,
    kernel: str = "dot",
    groups: int = 8,
    order: int = 2,
    gamma: float = 1e-4,
    scale: bool = False,
) -> int:
    """Closed form of the parameter count."""
    half = channels // 2
    return 3 * channels * half + channels * half // groups + 2 * channels


def macs(
    shape: Shape,
    kernel: str = "dot",
    groups: int = 8,
    order: int = 2,
    gamma: float = 1e-4,
    scale: bool = False,
) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, half = shape.channels, shape.channels // 2
    terms = order + 1 if kernel == "gaussian" else 1
    per_position = 3 * channels * half + channels * half // groups + 2 * half * terms
    return shape.batch * shape.height * shape.width * per_position


MECHANISM = Mechanism(
    name="cgnl",
    family="channel_spatial",
    layout="BCHW",
    paper="Yue et al., NeurIPS 2018",
    build=CGNL,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
    rows={"kernel": ("dot", "gaussian")},
)
