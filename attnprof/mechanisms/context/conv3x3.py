"""3x3 convolution, batch normalisation and ReLU.

Paper     none: the plain layer that segmentation heads stack, e.g. Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017
Idea      The baseline of every attention mechanism: a learned weighted sum over the eight neighbours and the position itself.
Formula   y = relu(BN(W x))
Shapes    x: B C H W -> y: B C H W
Params    9*C*C + 2*C
Cost      9*N*C^2 MACs per image; maps of N*C elements
Defaults  3x3, stride 1, padding 1, as many output channels as input channels
Differs   nothing to differ from: no bias, as BN follows; the ReLU works in place, as in the usual segmentation heads
Survey    domain: none (baseline); g: none; f: convolution; tasks: SSeg; kind: soft; goal: none; stage: none (no row in the
          survey)
"""

from __future__ import annotations

from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class Conv3x3(nn.Module):
    """Convolution, batch normalisation, ReLU: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu_()  # B C H W


def params(channels: int) -> int:
    """Closed form of the parameter count."""
    return 9 * channels * channels + 2 * channels


def macs(shape: Shape) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * 9 * shape.height * shape.width * shape.channels**2


MECHANISM = Mechanism(
    name="conv3x3",
    family="context",
    layout="BCHW",
    paper="baseline",
    build=Conv3x3,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
