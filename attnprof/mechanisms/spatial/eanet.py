"""External attention.

Paper     Guo, Liu, Mu, Hu, "Beyond Self-attention: External Attention using Two Linear Layers for Visual Tasks", TPAMI 2022,
          arXiv:2105.02358, section 3
Idea      Positions attend to a small learned memory that all images share, not to each other: linear in N.
Formula   f = W1 x;  a = softmax over positions of M_k f;  a = a / (1e-9 + sum over the memory of a);
          y = relu(BN(W2 M_v a) + x)
Shapes    x: B C H W -> y: B C H W
Params    2*C**2 + 2*C*memory + 3*C
Cost      2*N*C^2 + 2*N*C*S MACs per image with a memory of S rows; an S x N map
Defaults  memory S = 64 (paper and official code)
Differs   follows the official code: softmax over the positions, then division by the sum over the memory (not the common
          softmax over the memory); convolutions before and after, BN and the residual. M_k and M_v start independently: the
          official code starts M_v at the transpose of M_k
Survey    domain: spatial; g: shared memory, double normalisation; f: matmul; tasks: Cls, Det, ISeg, SSeg; kind: soft;
          goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class EANet(nn.Module):
    """External attention block: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, memory: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.memory_key = nn.Conv1d(channels, memory, 1, bias=False)
        self.memory_value = nn.Conv1d(memory, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        f = self.conv1(x).view(batch, channels, height * width)  # B C N
        attention = self.memory_key(f).softmax(dim=2)  # B S N
        attention = attention / (1e-9 + attention.sum(dim=1, keepdim=True))
        y = self.memory_value(attention).view(batch, channels, height, width)  # B C H W
        y = self.bn(self.conv2(y))
        return (y + x).relu()


def params(channels: int, memory: int = 64) -> int:
    """Closed form of the parameter count."""
    return 2 * channels**2 + 2 * channels * memory + 3 * channels


def macs(shape: Shape, memory: int = 64) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n = shape.channels, shape.height * shape.width
    return shape.batch * (2 * n * c**2 + 2 * n * c * memory)


MECHANISM = Mechanism(
    name="eanet",
    family="spatial",
    layout="BCHW",
    paper="Guo et al., TPAMI 2022",
    build=EANet,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    exempt={
        "every_parameter_gets_a_finite_gradient:conv1.bias": "softmax is blind to a shift of all logits of a row",
    },
)
