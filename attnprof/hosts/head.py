"""Segmentation head: the reduction that published heads share (3x3 convolution, BN, ReLU).

As in CCNet's and DANet's official code: `reduce` is a 3x3 convolution without bias, batch normalisation and ReLU from the
backbone's channels to `width`; `slot` is where a mechanism stands (`at: slot, how: instead`). Nothing comes after it: a fusion
and a classifier differ from head to head.
"""

from __future__ import annotations

from torch import Tensor, nn

NATURAL = (2048, 97, 97)
VARIANTS: dict[str, dict[str, int]] = {"head": {}}
PARAMS = {"head": 9_438_208}  # 9*2048*512 + 2*512
SITES = {"slot": "slot", "reduce": "reduce"}


class Head(nn.Module):
    """reduce, then the slot."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.reduce = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.slot = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H, W)."""
        out: Tensor = self.slot(self.reduce(x))
        return out


def build(channels: int = 2048, width: int = 512) -> Head:
    """The head."""
    return Head(channels, width)
