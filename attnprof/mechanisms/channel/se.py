"""Squeeze-and-Excitation.

Paper     Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507, section 3
Idea      Weigh each channel by a gate computed from the global averages of all channels.
Formula   s = sigmoid(W2 relu(W1 GAP(x)));  y = s * x
Shapes    x: B C H W -> y: B C H W
Params    2*C*(C//r)
Cost      2*C*(C//r) MACs per image, whatever the resolution; pooling and scaling touch B*C*H*W elements
Defaults  reduction r = 16 (section 6.4)
Differs   no biases, as in the paper's parameter count 2*C^2/r (section 4); the Caffe release has them; one hidden channel is
          kept where C < r
Survey    domain: channel; g: global average pooling, MLP, sigmoid; f: scale; tasks: Cls, Det; kind: soft; goal: I, II; stage: 3
"""

from __future__ import annotations

from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class SE(nn.Module):
    """Channel gate: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean(dim=(2, 3))  # B C
        s = self.excite(self.squeeze(s).relu()).sigmoid()  # B C
        return x * s[:, :, None, None]


def params(channels: int, reduction: int = 16) -> int:
    """Closed form of the parameter count."""
    return 2 * channels * max(channels // reduction, 1)


def macs(shape: Shape, reduction: int = 16) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * 2 * shape.channels * max(shape.channels // reduction, 1)


MECHANISM = Mechanism(
    name="se",
    family="channel",
    layout="BCHW",
    paper="Hu et al., CVPR 2018",
    build=SE,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
)
