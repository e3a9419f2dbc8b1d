"""Efficient channel attention (ECA).

Paper     Wang, Wu, Zhu, Li, Zuo, Hu, "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020,
          arXiv:1910.03151, section 3.2
Idea      SE without its bottleneck: a channel's gate depends on the averages of its k neighbours only, by one 1D convolution.
Formula   s_c = sigmoid(sum_j w_j GAP(x)_(c + j - (k - 1)/2)), zeros beyond the ends;  y = s * x;  k = odd(log2(C)/2 + 1/2)
Shapes    x: B C H W -> y: B C H W
Params    2*((log2(C) + 1)//4) + 1
          k weights: 3 at C = 64, 5 at 128 to 1024, 7 at 2048
Cost      k*C MACs per image, whatever the resolution; pooling and scaling touch B*C*N elements
Defaults  kernel k from C with gamma = 2 and b = 1: the nearest odd number, the upper one of two (section 3.2); no bias
Differs   nothing in the function. The official layer does not compute k: its ResNets take it per stage and default to 3
          everywhere, argument kernel
Survey    domain: channel; g: global average pooling, conv1d, sigmoid; f: scale; tasks: Cls, Det, ISeg; kind: soft;
          goal: I, II; stage: 3
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class ECA(nn.Module):
    """Channel gate from neighbouring channels: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, kernel: int | None = None) -> None:
        super().__init__()
        k = kernel_size(channels, kernel)
        if k % 2 == 0:
            raise ValueError(f"kernel is odd, not {k}")
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean(dim=(2, 3))  # B C
        s = self.conv(s.unsqueeze(1)).squeeze(1).sigmoid()  # B C
        return x * s[:, :, None, None]


def kernel_size(channels: int, kernel: int | None) -> int:
    """The given one, or the odd number nearest to (log2 C + 1)/2."""
    if kernel is not None:
        return kernel
    t = int((math.log2(channels) + 1) / 2)
    return t if t % 2 else t + 1


def params(channels: int, kernel: int | None = None) -> int:
    """Closed form of the parameter count."""
    return kernel_size(channels, kernel)


def macs(shape: Shape, kernel: int | None = None) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * kernel_size(shape.channels, kernel) * shape.channels


MECHANISM = Mechanism(
    name="eca",
    family="channel",
    layout="BCHW",
    paper="Wang et al., CVPR 2020",
    build=ECA,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
)
