"""Self-calibrated convolution (SCNet).

Paper     Liu, Hou, Cheng, Wang, Feng, "Improving Convolutional Networks with Self-Calibrated Convolutions", CVPR 2020,
          section 3
Idea      In place of a convolution: half of the channels is gated by a convolution of the same half at a quarter of the
          resolution, the other half is convolved as ever.
Formula   y1 = K4(K3(x1) * sigmoid(x1 + up(K2(pool(x1)))));  y2 = K1(x2);  y = [y1, y2] for x = [x1, x2];
          K1 and K4 have the stride, K2 and K3 are at the size of x
Shapes    x: B C H W -> y: B C H' W' with H' = ceil(H/stride), W' = ceil(W/stride), H W by default; with half=True x and y have
          the C/2 calibrated channels only
Params    27*(w := C//2)**2 + 6*w + 9*(C - w)**2 + 2*(C - w)
          9*C^2 + 4*C, as one 3x3 convolution with BN has 9*C^2 + 2*C; half=True: 27*C'^2 + 6*C' at C' = C/2
Cost      9*(N + N/rate^2)*(C/2)^2 + 18*H'*W'*(C/2)^2 MACs per image, 27*N*(C/2)^2 + 9*N/rate^2*(C/2)^2 at stride 1 (a 3x3
          convolution takes 36*H'*W'*(C/2)^2); the largest maps have C*N elements
Defaults  rate = 4 (official code); 3x3 kernels, each with BN; stride 1 (official code: 2 in the first unit of every
          stage but the first)
Differs   follows the official code: BN after every convolution, ReLU after K1 and K4 as well; nearest-neighbour enlargement,
          where the paper says bilinear (mode="bilinear", of aligned pixel areas); the average pooling drops the rows and
          columns that do not fill a window, and a side shorter than the window is one window. In its bottleneck, a 1x1
          convolution for each half stands in place of the split of x, and the plain half comes first: the two are the host's.
          Its class SCConv is the calibrated half alone: half=True, with the ReLU that its bottleneck applies. One value per
          channel in the small map is normalised in training as well, to BN's shift
Survey    domain: channel & spatial; g: top-down network, bottom-up network, identity add, sigmoid; f: scale; tasks: Cls, Det,
          ISeg, KD; kind: soft; goal: II, III; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also takes one value per channel in training, of which there is no running variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        return super().forward(x)


class ConvBN(nn.Module):
    """A 3x3 convolution and BN: (B, C, h, w) -> (B, C, h', w')."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class SCConv(nn.Module):
    """Half of the channels calibrated, half convolved: x (B, C, H, W) -> (B, C, H', W')."""

    def __init__(self, channels: int, rate: int = 4, mode: str = "nearest", half: bool = False, stride: int = 1) -> None:
        super().__init__()
        self.rate, self.mode = rate, mode
        self.width = channels // 2
        self.k1 = None if half else ConvBN(channels - self.width, stride)
        self.k2 = ConvBN(self.width)
        self.k3 = ConvBN(self.width)
        self.k4 = ConvBN(self.width, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.k1 is None:
            return self._calibrated(x)  # B C/2 H' W'
        calibrated = self._calibrated(x[:, : self.width])  # B C/2 H' W'
        plain = self.k1(x[:, self.width :]).relu_()  # B C/2 H' W'
        return torch.cat([calibrated, plain], dim=1)  # B C H' W'

    def _calibrated(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        small = F.avg_pool2d(x, (min(self.rate, height), min(self.rate, width)))  # B C/2 H/r W/r
        gate = F.interpolate(self.k2(small), size=(height, width), mode=self.mode)  # B C/2 H W
        gate = (x + gate).sigmoid()
        y: Tensor = self.k4(self.k3(x) * gate).relu_()  # B C/2 H' W'
        return y


def params(channels: int, rate: int = 4, mode: str = "nearest", half: bool = False, stride: int = 1) -> int:
    """Closed form of the parameter count."""
    width = channels // 2
    plain = channels - width
    return 27 * width**2 + 6 * width + (0 if half else 9 * plain**2 + 2 * plain)


def macs(shape: Shape, rate: int = 4, mode: str = "nearest", half: bool = False, stride: int = 1) -> int:
    """Multiply-accumulates of one forward pass."""
    width = shape.channels // 2
    large = shape.height * shape.width
    small = max(shape.height // rate, 1) * max(shape.width // rate, 1)
    returned = -(-shape.height // stride) * -(-shape.width // stride)
    plain = 0 if half else 9 * (shape.channels - width) ** 2 * returned
    return shape.batch * (9 * width**2 * (large + small + returned) + plain)


def inputs(shape: Shape, half: bool = False, **_: object) -> tuple[TensorSpec, ...]:
    """The map, or the calibrated half of it."""
    return (TensorSpec((shape.batch, shape.channels // 2 if half else shape.channels, *shape.hw)),)


MECHANISM = Mechanism(
    name="scnet",
    family="channel_spatial",
    layout="BCHW",
    paper="Liu et al., CVPR 2020",
    build=SCConv,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 14, 14),
    rows={"half": (False, True)},
    inputs=inputs,
)
