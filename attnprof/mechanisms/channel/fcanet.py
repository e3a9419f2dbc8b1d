"""Frequency channel attention (FcaNet, multi-spectral channel attention).

Paper     Qin, Zhang, Wu, Li, "FcaNet: Frequency Channel Attention Networks", ICCV 2021, arXiv:2012.11879, section 3
Idea      SE's global average is the lowest frequency of a 2D DCT: give each group of channels another frequency.
Formula   f_c = sum_ij x_cij b_u(i, H) b_v(j, W), (u, v) of c's group;
          b_u(i, L) = cos(pi u (i + 1/2)/L) sqrt((2 if u else 1)/L);
          y = sigmoid(W2 relu(W1 f)) * x
Shapes    x: B C H W -> y: B C H W
Params    2*C*(C//r)
          W1 and W2 without biases; the C x H x W DCT weights are a buffer
Cost      2*C*(C//r) MACs per image, whatever the resolution: the weighted sum over space is element-wise (see FLOPs) and makes
          a map of the size of x
Defaults  frequencies 16: the best of a 7x7 grid, each for C/16 channels (official code, top16); reduction r = 16; hw, the size
          of the DCT, from the case
Differs   the DCT is as large as the map, as in the official ImageNet models, which fix it per stage (56, 28, 14 or 7 for the
          stages of a ResNet); maps of another size are averaged to hw first, as there. A frequency u of the 7x7 grid becomes
          u*H//7, the official u*(H//7) where 7 divides H: below 7 the official one is 0 for every u. One hidden channel is kept
          where C < r. Frequency (0, 0) is sqrt(H*W) times the average, as in the official code: SE up to a factor
Survey    domain: channel; g: discrete cosine transform, MLP, sigmoid; f: scale; tasks: Cls, Det, ISeg; kind: soft;
          goal: I, II; stage: 3
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape

# Frequencies of a 7x7 grid, u along H and v along W, the one that classifies best alone first (official code, top32).
TOP_U = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2, 4, 6, 3, 5, 5, 2, 6, 5, 5, 3, 3, 4, 2, 2, 6, 1)
TOP_V = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2, 6, 3, 3, 3, 5, 1, 1, 2, 4, 2, 1, 1, 3, 0, 5, 3)


class FcaNet(nn.Module):
    """Channel gate from DCT coefficients: x (B, C, H, W) -> (B, C, H, W)."""

    dct: Tensor

    def __init__(self, channels: int, hw: tuple[int, int], reduction: int = 16, frequencies: int = 16) -> None:
        super().__init__()
        if not 0 < frequencies <= len(TOP_U) or channels % frequencies:
            raise ValueError(f"frequencies is at most {len(TOP_U)} and divides the channels, {channels}: not {frequencies}")
        hidden = max(channels // reduction, 1)
        self.hw = (hw[0], hw[1])
        self.register_buffer("dct", self.weights(channels, frequencies))
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def weights(self, channels: int, frequencies: int) -> Tensor:
        """The DCT basis function of each channel's group."""
        height, width = self.hw
        rows = torch.stack([basis(u * height // 7, height) for u in TOP_U[:frequencies]])  # n H
        columns = torch.stack([basis(v * width // 7, width) for v in TOP_V[:frequencies]])  # n W
        stacked = (rows.unsqueeze(2) * columns.unsqueeze(1)).to(torch.get_default_dtype())  # n H W
        return stacked.repeat_interleave(channels // frequencies, dim=0)  # C H W

    def forward(self, x: Tensor) -> Tensor:
        pooled = x if x.shape[2:] == self.hw else F.adaptive_avg_pool2d(x, self.hw)  # B C H W of the DCT
        s = (pooled * self.dct).sum(dim=(2, 3))  # B C
        s = self.excite(self.squeeze(s).relu()).sigmoid()  # B C
        return x * s[:, :, None, None]


def basis(frequency: int, size: int) -> Tensor:
    """One function of the orthonormal DCT over `size` positions."""
    positions = torch.arange(size, dtype=torch.float64) + 0.5
    return torch.cos(math.pi * frequency * positions / size) * math.sqrt((2 if frequency else 1) / size)


def params(channels: int, hw: tuple[int, int], reduction: int = 16, frequencies: int = 16) -> int:
    """Closed form of the parameter count."""
    return 2 * channels * max(channels // reduction, 1)


def macs(shape: Shape, hw: tuple[int, int], reduction: int = 16, frequencies: int = 16) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * 2 * shape.channels * max(shape.channels // reduction, 1)


MECHANISM = Mechanism(
    name="fcanet",
    family="channel",
    layout="BCHW",
    paper="Qin et al., ICCV 2021",
    build=FcaNet,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
)
