"""Double attention block.

Paper     Chen, Kalantidis, Li, Yan, Feng, "A^2-Nets: Double Attention Networks", NeurIPS 2018, arXiv:1810.11579, section 3
Idea      Gather features of the whole map into cn global descriptors, then give each position the mixture of them it asks for.
Formula   G = A softmax_N(B)^T;  Z = G softmax_cn(V);  y = x + W Z,  with A, B, V 1x1 convolutions of x
Shapes    x: B C H W -> y: B C H W; with reconstruct=False z: B cm H W
Params    4*C*(C//4) + 3*(C//4) + C
          2C(cm + cn) + cm + 2cn + C in general: A, B, V and W with biases; reconstruct=False leaves C*cm + C out
Cost      2*N*C*(cm + cn) + 2*N*cm*cn MACs per image, linear in N; no N x N map: the order of the products is the one written
Defaults  cm = cn = C/4 (None stands for it); W back to C channels and the residual (section 3.3)
Differs   written from the paper, no official code being known: A, B, V and W have biases as in the public port; no BN inside
          the block; PyTorch's initialisation. The port leaves the residual to the caller, and W too by default:
          reconstruct=False returns z with its cm channels, which cannot be added to x
Survey    domain: spatial; g: bilinear pooling, softmax; f: matmul; tasks: Cls, Action; kind: soft; goal: IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class A2Net(nn.Module):
    """Gather to descriptors and distribute: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, cm: int | None = None, cn: int | None = None, reconstruct: bool = True) -> None:
        super().__init__()
        self.cm = channels // 4 if cm is None else cm
        self.cn = channels // 4 if cn is None else cn
        self.a = nn.Conv2d(channels, self.cm, 1)
        self.b = nn.Conv2d(channels, self.cn, 1)
        self.v = nn.Conv2d(channels, self.cn, 1)
        self.w = nn.Conv2d(self.cm, channels, 1) if reconstruct else None

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        a = self.a(x).flatten(2)  # B cm N
        gather = self.b(x).flatten(2).softmax(dim=2)  # B cn N, sums to one over N
        distribute = self.v(x).flatten(2).softmax(dim=1)  # B cn N, sums to one over cn
        descriptors = torch.matmul(a, gather.transpose(1, 2))  # B cm cn
        z = torch.matmul(descriptors, distribute).view(batch, self.cm, height, width)  # B cm H W
        return z if self.w is None else x + self.w(z)  # B C H W


def params(channels: int, cm: int | None = None, cn: int | None = None, reconstruct: bool = True) -> int:
    """Closed form of the parameter count."""
    cm = channels // 4 if cm is None else cm
    cn = channels // 4 if cn is None else cn
    return channels * (cm + 2 * cn) + cm + 2 * cn + (channels * cm + channels if reconstruct else 0)


def macs(shape: Shape, cm: int | None = None, cn: int | None = None, reconstruct: bool = True) -> int:
    """Multiply-accumulates of one forward pass."""
    cm = shape.channels // 4 if cm is None else cm
    cn = shape.channels // 4 if cn is None else cn
    n = shape.height * shape.width
    projections = cm + 2 * cn + (cm if reconstruct else 0)
    return shape.batch * (n * shape.channels * projections + 2 * n * cm * cn)


MECHANISM = Mechanism(
    name="a2net",
    family="spatial",
    layout="BCHW",
    paper="Chen et al., NeurIPS 2018",
    build=A2Net,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 14, 14),
    rows={"reconstruct": (True, False)},
    exempt={
        "every_parameter_gets_a_finite_gradient:b.bias": "softmax is blind to a shift of all logits of a row",
    },
)
