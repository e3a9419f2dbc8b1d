"""Concurrent spatial and channel squeeze and excitation (scSE).

Paper     Roy, Navab, Wachinger, "Recalibrating Fully Convolutional Networks with Spatial and Channel Squeeze and Excitation
          Blocks", TMI 2018, arXiv:1808.08127; its MICCAI 2018 form: arXiv:1803.02579, section 2
Idea      Scale the map once by a gate per channel (cSE) and once, beside it, by a gate per position (sSE), and combine the two.
Formula   c = sigmoid(W2 relu(W1 GAP(x))) * x;  s = sigmoid(w . x_ij) * x;  y = max(c, s)
Shapes    x: B C H W -> y: B C H W, for concat B 2C H W
Params    2*C*(h := max(C//r, 1)) + h + 2*C + 1
          W1, W2 and w with biases
Cost      2*C*(C//r) + N*C MACs per image; c, s and y have N*C elements each
Defaults  reduction r = 2; combine max: what the journal version finds best among max-out, addition, multiplication and
          concatenation, and what the authors' code does
Differs   combine add is the MICCAI paper's; biases are the authors' code's (the equations write none); one hidden channel is
          kept where C < r
Survey    domain: channel & spatial; g: 1x1 convolution, global average pooling, MLP, sigmoid; f: scale, fuse the two branches;
          tasks: SSeg; kind: soft; goal: I, II, III; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class SCSE(nn.Module):
    """Channel gate beside position gate: x (B, C, H, W) -> (B, C, H, W), for concat (B, 2C, H, W)."""

    def __init__(self, channels: int, reduction: int = 2, combine: str = "max") -> None:
        super().__init__()
        if combine not in ("max", "add", "multiply", "concat"):
            raise ValueError(f"combine is max, add, multiply or concat, not {combine}")
        self.combine = combine
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        self.position = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(self.squeeze(x.mean(dim=(2, 3))).relu()).sigmoid()  # B C
        by_channel = x * gate[:, :, None, None]  # B C H W
        by_position = x * self.position(x).sigmoid()  # B C H W
        if self.combine == "max":
            return torch.maximum(by_channel, by_position)
        if self.combine == "add":
            return by_channel + by_position
        if self.combine == "multiply":
            return by_channel * by_position
        return torch.cat([by_channel, by_position], dim=1)  # B 2C H W


def params(channels: int, reduction: int = 2, combine: str = "max") -> int:
    """Closed form of the parameter count."""
    hidden = max(channels // reduction, 1)
    return 2 * channels * hidden + hidden + channels + channels + 1


def macs(shape: Shape, reduction: int = 2, combine: str = "max") -> int:
    """Multiply-accumulates of one forward pass."""
    hidden = max(shape.channels // reduction, 1)
    return shape.batch * shape.channels * (2 * hidden + shape.height * shape.width)


MECHANISM = Mechanism(
    name="scse",
    family="channel_spatial",
    layout="BCHW",
    paper="Roy et al., TMI 2018",
    build=SCSE,
    params=params,
    macs=macs,
    natural=Shape(1, 64, 56, 56),
    rows={"combine": ("max", "add")},
)
