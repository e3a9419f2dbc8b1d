"""Non-local block, Gaussian.

Paper     Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018, arXiv:1711.07971, sections 3.2 and 3.3
Idea      Each position takes the average of all positions, weighted by the similarity of the features themselves.
Formula   f_ij = exp(x_i . x_j);  y_i = sum_j f_ij g_j / sum_j f_ij;  z = BN(W y) + x
Shapes    x: B C H W -> z: B C H W
Params    2*C*(C//r) + C//r + 3*C
          C^2 + 3.5C at r = 2: g and W with biases, BN with scale and shift
Cost      2*N*C*(C//r) + N*M*(C + C//r) MACs per image with M keys (M = N; about N/4 with subsample); no query and key
          projections, but their product runs over all C channels; two N x M maps live at once
Defaults  reduction r = 2 for g (section 3.3: half the channels); subsample = False: the 2x2 max-pool of keys and values is the
          paper's own choice to make a block cheaper (section 3.3), an option on top of the block's definition
Differs   the official code has no Gaussian form: this is the paper's equation with the official embedded form's biases, and BN
          after W with its scale 0 at the start (section 4.1); subsample pools x for the keys (there is no phi) and g after
          its convolution; the convolutions keep PyTorch's initialisation
Survey    domain: spatial; g: dot product, softmax; f: matmul; tasks: Action, Det, ISeg; kind: soft; goal: I, IV, V; stage: 4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class NonLocalGaussian(nn.Module):
    """Gaussian non-local block: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 2, subsample: bool = False) -> None:
        super().__init__()
        self.inner = channels // reduction
        self.subsample = subsample
        self.g = nn.Conv2d(channels, self.inner, 1)
        self.w = nn.Conv2d(self.inner, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        phi, g = x, self.g(x)  # B C H W, B C/r H W
        if self.subsample:
            phi, g = F.max_pool2d(phi, 2), F.max_pool2d(g, 2)  # B C H/2 W/2, B C/r H/2 W/2
        theta = x.flatten(2).transpose(1, 2)  # B N C
        phi = phi.flatten(2)  # B C M
        g = g.flatten(2).transpose(1, 2)  # B M C/r
        attention = torch.matmul(theta, phi).softmax(dim=-1)  # B N M
        y = torch.matmul(attention, g)  # B N C/r
        y = y.transpose(1, 2).contiguous().view(batch, self.inner, height, width)  # B C/r H W
        return self.bn(self.w(y)) + x  # B C H W


def params(channels: int, reduction: int = 2, subsample: bool = False) -> int:
    """Closed form of the parameter count."""
    inner = channels // reduction
    return 2 * channels * inner + inner + 3 * channels


def macs(shape: Shape, reduction: int = 2, subsample: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    inner = shape.channels // reduction
    queries = shape.height * shape.width
    keys = (shape.height // 2) * (shape.width // 2) if subsample else queries
    return shape.batch * (2 * queries * shape.channels * inner + queries * keys * (shape.channels + inner))


MECHANISM = Mechanism(
    name="nonlocal_gaussian",
    family="spatial",
    layout="BCHW",
    paper="Wang et al., CVPR 2018",
    build=NonLocalGaussian,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
)
