"""Non-local block, embedded Gaussian.

Paper     Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018, arXiv:1711.07971, sections 3.2 and 3.3
Idea      Each position takes the average of all positions, weighted by the similarity of two learned embeddings.
Formula   f_ij = exp(theta_i . phi_j);  y_i = sum_j f_ij g_j / sum_j f_ij;  z = BN(W y) + x
Shapes    x: B C H W -> z: B C H W
Params    4*C*(C//r) + 3*(C//r) + 3*C
          2C^2 + 4.5C at r = 2: theta, phi, g and W with biases, BN with scale and shift
Cost      4*N*C*(C//r) + 2*N*M*(C//r) MACs per image with M keys (M = N; about N/4 with subsample); two N x M maps live at once
Defaults  reduction r = 2 (section 3.3: half the channels); subsample = False: the 2x2 max-pool of keys and values is the
          paper's own choice to make a block cheaper (section 3.3), an option on top of the block's definition
Differs   biases, and BN after W with its scale 0 at the start, as in the paper's networks (section 4.1) and the official code;
          subsample pools after phi and g, as the paper says: the official code pools x before them (fewer MACs, same size);
          no 1/sqrt(d), as in the paper: the official code has it on (NONLOCAL.USE_SCALE); the convolutions keep PyTorch's
          initialisation, the official code draws their weights from a narrow Gaussian
Survey    domain: spatial; g: dot product, softmax; f: matmul; tasks: Action, Det, ISeg; kind: soft; goal: I, IV, V; stage: 4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class NonLocal(nn.Module):
    """Embedded Gaussian non-local block: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 2, subsample: bool = False) -> None:
        super().__init__()
        self.inner = channels // reduction
        self.subsample = subsample
        self.theta = nn.Conv2d(channels, self.inner, 1)
        self.phi = nn.Conv2d(channels, self.inner, 1)
        self.g = nn.Conv2d(channels, self.inner, 1)
        self.w = nn.Conv2d(self.inner, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)  # B C/r H W
        if self.subsample:
            phi, g = F.max_pool2d(phi, 2), F.max_pool2d(g, 2)  # B C/r H/2 W/2
        theta = theta.flatten(2).transpose(1, 2)  # B N C/r
        phi = phi.flatten(2)  # B C/r M
        g = g.flatten(2).transpose(1, 2)  # B M C/r
        attention = torch.matmul(theta, phi).softmax(dim=-1)  # B N M
        y = torch.matmul(attention, g)  # B N C/r
        y = y.transpose(1, 2).contiguous().view(batch, self.inner, height, width)  # B C/r H W
        return self.bn(self.w(y)) + x  # B C H W


def params(channels: int, reduction: int = 2, subsample: bool = False) -> int:
    """Closed form of the parameter count."""
    inner = channels // reduction
    return 4 * channels * inner + 3 * inner + 3 * channels


def macs(shape: Shape, reduction: int = 2, subsample: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    inner = shape.channels // reduction
    queries = shape.height * shape.width
    keys = (shape.height // 2) * (shape.width // 2) if subsample else queries
    return shape.batch * (4 * queries * shape.channels * inner + 2 * queries * keys * inner)


MECHANISM = Mechanism(
    name="nonlocal",
    family="spatial",
    layout="BCHW",
    paper="Wang et al., CVPR 2018",
    build=NonLocal,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
    exempt={
        "every_parameter_gets_a_finite_gradient:phi.bias": "softmax is blind to a shift of all logits of a row",
    },
)
