"""Non-local block in space and time, embedded Gaussian.

Paper     Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018, arXiv:1711.07971, sections 3.2, 3.3 and 4.1
Idea      Each position of each frame takes the average of all positions of all frames, weighted by the similarity of two
          learned embeddings.
Formula   f_ij = exp(theta_i . phi_j);  y_i = sum_j f_ij g_j / sum_j f_ij;  z = BN(W y) + x, i and j over T*H*W positions
Shapes    x: B T C H W -> z: B T C H W
Params    4*C*(C//r) + 3*(C//r) + 3*C
          2C^2 + 4.5C at r = 2: theta, phi, g and W with biases, BN with scale and shift
Cost      4*T*N*C*(C//r) + 2*(T*N)*(T*M)*(C//r) MACs per clip with M keys per frame (M = N; about N/4 with subsample); two
          T*N x T*M maps live at once
Defaults  reduction r = 2 (section 3.3: half the channels); subsample = False: the 1x2x2 max-pool of keys and values, over
          space only, is the paper's choice to make a block cheaper (section 3.3; the official networks have it)
Differs   biases, and BN after W with its scale 0 at the start, as in the paper's networks (section 4.1) and the official code;
          subsample pools after phi and g, as the paper says: the official code pools x before them; no 1/sqrt(d), as in the
          paper: the official code has it on (NONLOCAL.USE_SCALE). 1x1x1 convolutions are 1x1 convolutions of the frames, which
          stand before the channels here: keys, queries and values are copied into rows, where the official layout B C T H W
          needs no copies
Survey    domain: spatial & temporal; g: dot product, softmax; f: matmul; tasks: Action; kind: soft; goal: II; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class NonLocal3D(nn.Module):
    """Embedded Gaussian non-local block over space and time: x (B, T, C, H, W) -> (B, T, C, H, W)."""

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
        batch, frames, _, height, width = x.shape
        maps = x.flatten(0, 1)  # BT C H W
        theta = self.rows(self.theta(maps), batch)  # B TN C/r
        phi = self.rows(self.pool(self.phi(maps)), batch)  # B TM C/r
        g = self.rows(self.pool(self.g(maps)), batch)  # B TM C/r
        attention = torch.matmul(theta, phi.transpose(1, 2)).softmax(dim=-1)  # B TN TM
        y = torch.matmul(attention, g)  # B TN C/r
        y = y.view(batch * frames, height * width, self.inner).transpose(1, 2)  # BT C/r N
        y = y.contiguous().view(batch * frames, self.inner, height, width)  # BT C/r H W
        return (self.bn(self.w(y)) + maps).view(x.shape)  # B T C H W

    def pool(self, x: Tensor) -> Tensor:
        """The maximum of 1x2x2 windows, if asked for: BT . H W -> BT . H/2 W/2."""
        return F.max_pool2d(x, 2) if self.subsample else x

    def rows(self, x: Tensor, batch: int) -> Tensor:
        """The positions of all frames of a clip, one after the other: BT . H W -> B TN . ."""
        return x.flatten(2).transpose(1, 2).reshape(batch, -1, self.inner)


def params(channels: int, reduction: int = 2, subsample: bool = False) -> int:
    """Closed form of the parameter count."""
    inner = channels // reduction
    return 4 * channels * inner + 3 * inner + 3 * channels


def macs(shape: Shape, reduction: int = 2, subsample: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    inner = shape.channels // reduction
    queries = shape.frames * shape.height * shape.width
    keys = shape.frames * (shape.height // 2) * (shape.width // 2) if subsample else queries
    return shape.batch * (4 * queries * shape.channels * inner + 2 * queries * keys * inner)


MECHANISM = Mechanism(
    name="nonlocal3d",
    family="spatial_temporal",
    layout="BTCHW",
    paper="Wang et al., CVPR 2018",
    build=NonLocal3D,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14, 4),
    exempt={
        "every_parameter_gets_a_finite_gradient:phi.bias": "softmax is blind to a shift of all logits of a row",
    },
)
