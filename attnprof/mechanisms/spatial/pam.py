"""Position attention module (DANet's spatial branch).

Paper     Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv:1809.02983, section 3.2
Idea      Every position gathers from all positions, weighed by a softmax over the dot products of learned queries and keys.
Formula   E = Q^T K;  A = softmax_j(E);  y_i = gamma * sum_j A_ij v_j + x_i;  Q, K, V = 1x1 convolutions of x
Shapes    x: B C H W -> y: B C H W
Params    (2*max(C//reduction, 1) + C)*(C + 1) + 1
          1.25*C^2 + 1.25*C + 1 where 8 divides C
Cost      N*C*(2*(C//8) + C) + N^2*(C//8 + C) MACs per image; energy and attention are two maps of N^2 elements
Defaults  reduction r = 8 for queries and keys (official code); gamma starts at 0 (section 3.2)
Differs   follows the official code: biases in the three projections, C/8 channels for queries and keys (C in the paper's
          text), no scaling of the dot products; queries and keys keep one channel where C < r, to be usable on an image.
          In the head, a 3x3 convolution to C/4 comes before and one after: they are the host's.
Survey    domain: spatial; g: dot product between query and key, softmax; f: weighted sum, residual; tasks: SSeg; kind: soft;
          goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class PAM(nn.Module):
    """Attention among all positions: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)  # B C/r N
        key = self.key(x).flatten(2)  # B C/r N
        energy = torch.bmm(query.transpose(1, 2), key)  # B N N
        attention = energy.softmax(dim=-1)
        value = self.value(x).flatten(2)  # B C N
        out = torch.bmm(value, attention.transpose(1, 2)).reshape(x.shape)  # B C H W
        return self.gamma * out + x


def params(channels: int, reduction: int = 8) -> int:
    """Closed form of the parameter count."""
    width = max(channels // reduction, 1)
    return (2 * width + channels) * (channels + 1) + 1


def macs(shape: Shape, reduction: int = 8) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    width = max(channels // reduction, 1)
    return shape.batch * (positions * channels * (2 * width + channels) + positions**2 * (width + channels))


MECHANISM = Mechanism(
    name="pam",
    family="spatial",
    layout="BCHW",
    paper="Fu et al., CVPR 2019",
    build=PAM,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    exempt={
        "every_parameter_gets_a_finite_gradient:key.bias": "softmax is blind to a shift of all logits of a row",
    },
)
