"""Global context block.

Paper     Cao, Xu, Lin, Wei, Hu, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019,
          arXiv:1904.11492, section 4.3
Idea      Pool all positions into one context vector by attention, pass it through a bottleneck, add it to every position.
Formula   a = softmax_j(W_k x_j);  z_i = x_i + W_v2 relu(LN(W_v1 sum_j a_j x_j))
Shapes    x: B C H W -> z: B C H W
Params    2*C*(h := max(C//r, 1)) + 3*h + 2*C + 1
          W_k, W_v1 and W_v2 with biases, LN with scale and shift
Cost      2*N*C + 2*C*(C//r) MACs per image; the largest tensors are x and z
Defaults  reduction r = 16 (section 4.3; the official configurations use 4 as well); LN over [C/r, 1, 1]; fusion by addition
Differs   nothing in the layers: biases, LN and the zero start of W_v2 are the official code's (the equations write no biases);
          W_k and W_v1 keep PyTorch's initialisation; one hidden channel is kept where C < r
Survey    domain: spatial; g: key, softmax, MLP; f: pool, add; tasks: Cls, Det, ISeg, Action; kind: soft; goal: IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class GCNet(nn.Module):
    """Global context added to every position: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.key = nn.Conv2d(channels, 1, 1)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.LayerNorm([hidden, 1, 1])
        self.expand = nn.Conv2d(hidden, channels, 1)
        for tensor in self.expand.parameters():
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.key(x).flatten(2).softmax(dim=-1)  # B 1 N
        context = torch.matmul(x.flatten(2), attention.transpose(1, 2))  # B C 1
        hidden = self.norm(self.squeeze(context.unsqueeze(3))).relu()  # B C/r 1 1
        return x + self.expand(hidden)  # B C H W


def params(channels: int, reduction: int = 16) -> int:
    """Closed form of the parameter count."""
    hidden = max(channels // reduction, 1)
    return 2 * channels * hidden + 3 * hidden + 2 * channels + 1


def macs(shape: Shape, reduction: int = 16) -> int:
    """Multiply-accumulates of one forward pass."""
    hidden = max(shape.channels // reduction, 1)
    return shape.batch * (2 * shape.height * shape.width * shape.channels + 2 * shape.channels * hidden)


MECHANISM = Mechanism(
    name="gcnet",
    family="spatial",
    layout="BCHW",
    paper="Cao et al., ICCVW 2019",
    build=GCNet,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
    exempt={
        "every_parameter_gets_a_finite_gradient:key.bias": "softmax is blind to a shift of all logits of a row",
    },
)
