"""Squeeze-and-Excitation.

Paper     Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507, section 3
Idea      Weigh each channel by a gate computed from the global averages of all channels.
Formula   s = sigmoid(W2 relu(W1 GAP(x)));  y = s * x
Shapes    x: B C H W -> y: B C H W
Params    2*C*max(C//r, 1) + bias*(max(C//r, 1) + C)
          C/r is rounded where divisor is not 1
Cost      2*C*(C//r) MACs per image, whatever the resolution; pooling and scaling touch B*C*H*W elements
Defaults  reduction r = 16 (section 6.4); no rounding of the hidden width
Differs   no biases, as in the paper's parameter count 2*C^2/r (section 4); the Caffe release and timm have them: bias=True.
          timm rounds C/r to the nearest multiple of 8, to at least 8 (C = 64: 8, not 4): divisor=8 and bias=True make its
          layer. One hidden channel is kept where C < r
Survey    domain: channel; g: global average pooling, MLP, sigmoid; f: scale; tasks: Cls, Det; kind: soft; goal: I, II; stage: 3
"""

from __future__ import annotations

from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class SE(nn.Module):
    """Channel gate: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 16, bias: bool = False, divisor: int = 1) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction, divisor)
        self.squeeze = nn.Linear(channels, hidden, bias=bias)
        self.excite = nn.Linear(hidden, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean(dim=(2, 3))  # B C
        s = self.excite(self.squeeze(s).relu()).sigmoid()  # B C
        return x * s[:, :, None, None]


def hidden_width(channels: int, reduction: int, divisor: int) -> int:
    """C/r, to the nearest multiple of the divisor and at least that."""
    return max((channels // reduction + divisor // 2) // divisor, 1) * divisor


def params(channels: int, reduction: int = 16, bias: bool = False, divisor: int = 1) -> int:
    """Closed form of the parameter count."""
    hidden = hidden_width(channels, reduction, divisor)
    return 2 * channels * hidden + (hidden + channels if bias else 0)


def macs(shape: Shape, reduction: int = 16, bias: bool = False, divisor: int = 1) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * 2 * shape.channels * hidden_width(shape.channels, reduction, divisor)


MECHANISM = Mechanism(
    name="se",
    family="channel",
    layout="BCHW",
    paper="Hu et al., CVPR 2018",
    build=SE,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
    rows={"bias": (False, True)},
)
