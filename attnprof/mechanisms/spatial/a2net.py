"""Double attention block.

Paper     Chen, Kalantidis, Li, Yan, Feng, "A^2-Nets: Double Attention Networks", NeurIPS 2018, arXiv:1810.11579, section 3
Idea      Gather features of the whole map into cn global descriptors, then give each position the mixture of them it asks for.
Formula   G = A softmax_N(B)^T;  Z = G softmax_cn(V);  y = x + W Z,  with A, B, V 1x1 convolutions of x
Shapes    x: B C H W -> y: B C H W
Params    4*C*(C//4) + 3*(C//4) + C
          2C(cm + cn) + cm + 2cn + C in general: A, B, V and W with biases
Cost      2*N*C*(cm + cn) + 2*N*cm*cn MACs per image, linear in N; no N x N map: the order of the products is the one written
Defaults  cm = cn = C/4 (None stands for it); W back to C channels and the residual (section 3.3)
Differs   written from the paper, no official code being known: A, B, V and W have biases as in the public port, whose W is off
          by default and which leaves the residual to the caller; no BN inside the block; PyTorch's initialisation
Survey    domain: spatial; g: bilinear pooling, softmax; f: matmul; tasks: Cls, Action; kind: soft; goal: IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class A2Net(nn.Module):
    """Gather to descriptors and distribute: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, cm: int | None = None, cn: int | None = None) -> None:
        super().__init__()
        self.cm = channels // 4 if cm is None else cm
        self.cn = channels // 4 if cn is None else cn
        self.a = nn.Conv2d(channels, self.cm, 1)
        self.b = nn.Conv2d(channels, self.cn, 1)
        self.v = nn.Conv2d(channels, self.cn, 1)
        self.w = nn.Conv2d(self.cm, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        a = self.a(x).flatten(2)  # B cm N
        gather = self.b(x).flatten(2).softmax(dim=2)  # B cn N, sums to one over N
        distribute = self.v(x).flatten(2).softmax(dim=1)  # B cn N, sums to one over cn
        descriptors = torch.matmul(a, gather.transpose(1, 2))  # B cm cn
        z = torch.matmul(descriptors, distribute)  # B cm N
        return x + self.w(z.view(batch, self.cm, height, width))  # B C H W


def params(channels: int, cm: int | None = None, cn: int | None = None) -> int:
    """Closed form of the parameter count."""
    cm = channels // 4 if cm is None else cm
    cn = channels // 4 if cn is None else cn
    return 2 * channels * (cm + cn) + cm + 2 * cn + channels


def macs(shape: Shape, cm: int | None = None, cn: int | None = None) -> int:
    """Multiply-accumulates of one forward pass."""
    cm = shape.channels // 4 if cm is None else cm
    cn = shape.channels // 4 if cn is None else cn
    n = shape.height * shape.width
    return shape.batch * (2 * n * shape.channels * (cm + cn) + 2 * n * cm * cn)


MECHANISM = Mechanism(
    name="a2net",
    family="spatial",
    layout="BCHW",
    paper="Chen et al., NeurIPS 2018",
    build=A2Net,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
    exempt={
        "every_parameter_gets_a_finite_gradient:b.bias": "softmax is blind to a shift of all logits of a row",
    },
)
