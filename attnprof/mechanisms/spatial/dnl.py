"""Disentangled non-local block.

Paper     Yin, Yao, Cao, Li, Zhang, Lin, Hu, "Disentangled Non-Local Neural Networks", ECCV 2020, arXiv:2006.06668, section 4
Idea      Split non-local's similarity into a whitened pairwise term and a query-free unary term, each with its own softmax.
Formula   a_ij = softmax_j((q_i - mean q) . (k_j - mean k) / (t sqrt(C/r))) + softmax_j(m_j);  z_i = x_i + BN(W sum_j a_ij v_j)
Shapes    x: B C H W -> z: B C H W
Params    4*C*(C//r) + 3*(C//r) + 3*C + 1
          2C^2 + 4.5C + 1 at r = 2: q, k, v and m with biases, W without, BN with scale and shift
Cost      4*N*C*(C//r) + 2*N^2*(C//r) + N*C + N*(C//r) MACs per image; two N x N maps live at once
Defaults  reduction r = 2, temperature t = 0.05, scale sqrt(C/r): those of the segmentation heads; means over all positions
Differs   the paper's equation has neither temperature nor scale: both are the official segmentation code's, some of whose
          configurations use t = 0.1 or drop both. Values of C/r channels, W and BN (scale 0 at the start) are the widely used
          port's: the official code has them as an option, and also a learned scalar on the pairwise part (one parameter more),
          left out here. As in both, each term is applied to v by itself and the results are added, so that the unary term
          needs no N x N map. The convolutions keep PyTorch's initialisation
Survey    domain: spatial; g: whitened dot product, unary, softmax; f: matmul; tasks: SSeg, Det, Action; kind: soft; goal: IV;
          stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class DNL(nn.Module):
    """Whitened pairwise plus unary attention: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 2, temperature: float = 0.05) -> None:
        super().__init__()
        self.inner = channels // reduction
        self.scale = self.inner**0.5
        self.temperature = temperature
        self.query = nn.Conv2d(channels, self.inner, 1)
        self.key = nn.Conv2d(channels, self.inner, 1)
        self.value = nn.Conv2d(channels, self.inner, 1)
        self.mask = nn.Conv2d(channels, 1, 1)
        self.w = nn.Conv2d(self.inner, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        query = self.query(x).flatten(2)  # B C/r N
        key = self.key(x).flatten(2)  # B C/r N
        value = self.value(x).flatten(2).transpose(1, 2)  # B N C/r
        query -= query.mean(dim=2, keepdim=True)
        key -= key.mean(dim=2, keepdim=True)
        pairwise = torch.matmul(query.transpose(1, 2), key)  # B N N
        pairwise = pairwise / self.scale
        pairwise = pairwise / self.temperature
        pairwise = pairwise.softmax(dim=-1)
        y = torch.matmul(pairwise, value)  # B N C/r
        y = y.transpose(1, 2).contiguous().view(batch, self.inner, height, width)  # B C/r H W
        unary = self.mask(x).flatten(2).softmax(dim=-1)  # B 1 N
        context = torch.matmul(unary, value)  # B 1 C/r
        y = y + context.transpose(1, 2).unsqueeze(3)  # B C/r H W
        return self.bn(self.w(y)) + x  # B C H W


def params(channels: int, reduction: int = 2, temperature: float = 0.05) -> int:
    """Closed form of the parameter count."""
    inner = channels // reduction
    return 4 * channels * inner + 3 * inner + 3 * channels + 1


def macs(shape: Shape, reduction: int = 2, temperature: float = 0.05) -> int:
    """Multiply-accumulates of one forward pass."""
    inner = shape.channels // reduction
    n = shape.height * shape.width
    return shape.batch * (4 * n * shape.channels * inner + 2 * n * n * inner + n * shape.channels + n * inner)


MECHANISM = Mechanism(
    name="dnl",
    family="spatial",
    layout="BCHW",
    paper="Yin et al., ECCV 2020",
    build=DNL,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    exempt={
        "every_parameter_gets_a_finite_gradient:query.bias": "the mean over positions is taken off the queries",
        "every_parameter_gets_a_finite_gradient:key.bias": "the mean over positions is taken off the keys",
        "every_parameter_gets_a_finite_gradient:mask.bias": "softmax is blind to a shift of all logits of a row",
    },
)
