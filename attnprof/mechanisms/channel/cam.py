"""Channel attention module (DANet's channel branch).

Paper     Fu et al., "Dual Attention Network for Scene Segmentation", CVPR 2019, arXiv:1809.02983, section 3.3
Idea      Every channel gathers from all channels, weighed by a softmax over the dot products of the channel maps themselves.
Formula   E = X X^T;  A = softmax_j(max_k E_ik - E_ij);  y_i = beta * sum_j A_ij x_j + x_i;  X is C x N;
          with reverse=False A = softmax_j(E_ij)
Shapes    x: B C H W -> y: B C H W
Params    1
Cost      2*N*C^2 MACs per image; energy and attention have C^2 elements
Defaults  the scale (the paper's beta, the code's gamma) starts at 0 (section 3.3)
Differs   follows the official code, which takes the softmax of (row maximum - energy): the least similar channels weigh most.
          The paper's equation takes the softmax of the energy and does not mention the reversal: reverse=False does as the
          equation says, and the most similar channels weigh most.
          In the head, a 3x3 convolution to C/4 comes before and one after: they are the host's.
Survey    domain: channel; g: dot product between channels, softmax; f: weighted sum, residual; tasks: SSeg; kind: soft;
          goal: I, II; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class CAM(nn.Module):
    """Attention among all channels: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reverse: bool = True) -> None:
        super().__init__()
        self.reverse = reverse
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        maps = x.flatten(2)  # B C N
        energy = torch.bmm(maps, maps.transpose(1, 2))  # B C C
        if self.reverse:
            energy = energy.max(dim=-1, keepdim=True).values - energy
        attention = energy.softmax(dim=-1)
        out = torch.bmm(attention, maps).reshape(x.shape)  # B C H W
        return self.gamma * out + x


def params(channels: int, reverse: bool = True) -> int:
    """Closed form of the parameter count."""
    return 1


def macs(shape: Shape, reverse: bool = True) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * 2 * shape.height * shape.width * shape.channels**2


MECHANISM = Mechanism(
    name="cam",
    family="channel",
    layout="BCHW",
    paper="Fu et al., CVPR 2019",
    build=CAM,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    rows={"reverse": (True, False)},
)
