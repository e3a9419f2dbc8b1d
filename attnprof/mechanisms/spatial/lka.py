"""Large kernel attention (LKA, of the Visual Attention Network).

Paper     Guo, Lu, Liu, Cheng, Hu, "Visual Attention Network", Computational Visual Media 2023, arXiv:2202.09741
          (2022), section 3.1
Idea      Multiply the map by a convolution of itself with a large kernel, taken apart into a local and a dilated depth-wise
          convolution and one across channels.
Formula   y = W(D2(D1(x))) * x, elementwise; D1 depth-wise 5x5, D2 depth-wise 7x7 of dilation 3, W 1x1
Shapes    x: B C H W -> y: B C H W
Params    C**2 + C*(local**2 + spread**2 + 3)
          C^2 + 77*C; module=True adds two more 1x1 convolutions, 2*C^2 + 2*C
Cost      N*(C^2 + 74*C) MACs per image (module=True: 3*C^2 + 74*C); the largest maps have C*N elements
Defaults  local 5, spread 7, dilation 3, which stand for a kernel of K = 21: 2*dilation - 1 and K/dilation taps (section 3.1)
Differs   follows the official code: biases in all convolutions (the paper's count, C^2 + 74*C, leaves them out: bias=False).
          This is the attention that the paper names LKA. The attention block of its network puts a 1x1 convolution and GELU
          before it, a 1x1 convolution behind it and a residual around it: module=True. BN before the block and the layer scale
          on it are the host's. Zero padding keeps the size; PyTorch's initialisation
Survey    domain: spatial; g: depth-wise convolution, dilated depth-wise convolution, 1x1 convolution; f: scale; tasks: Cls,
          Det, SSeg, ISeg; kind: soft; goal: I, IV, VI; stage: 3 (no row in the survey)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class LKA(nn.Module):
    """The map times its large-kernel convolution: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self, channels: int, local: int = 5, spread: int = 7, dilation: int = 3, bias: bool = True, module: bool = False
    ) -> None:
        super().__init__()
        if local % 2 == 0 or spread % 2 == 0:
            raise ValueError(f"the sides of both kernels must be odd, not {local} (local) and {spread} (spread)")
        self.before = nn.Conv2d(channels, channels, 1, bias=bias) if module else None
        self.local = nn.Conv2d(channels, channels, local, padding=local // 2, groups=channels, bias=bias)
        reach = spread // 2 * dilation
        self.spread = nn.Conv2d(channels, channels, spread, padding=reach, dilation=dilation, groups=channels, bias=bias)
        self.mix = nn.Conv2d(channels, channels, 1, bias=bias)
        self.after = nn.Conv2d(channels, channels, 1, bias=bias) if module else None

    def forward(self, x: Tensor) -> Tensor:
        if self.before is None or self.after is None:
            return self._attend(x)
        y: Tensor = self.after(self._attend(F.gelu(self.before(x))))
        return y + x

    def _attend(self, x: Tensor) -> Tensor:
        y: Tensor = self.mix(self.spread(self.local(x)))
        return x * y


def params(channels: int, local: int = 5, spread: int = 7, dilation: int = 3, bias: bool = True, module: bool = False) -> int:
    """Closed form of the parameter count."""
    pointwise = 3 if module else 1
    return channels * (local**2 + spread**2 + pointwise * channels + (2 + pointwise if bias else 0))


def macs(shape: Shape, local: int = 5, spread: int = 7, dilation: int = 3, bias: bool = True, module: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    return shape.batch * positions * channels * (local**2 + spread**2 + (3 if module else 1) * channels)


MECHANISM = Mechanism(
    name="lka",
    family="spatial",
    layout="BCHW",
    paper="Guo et al., Computational Visual Media 2023",
    build=LKA,
    params=params,
    macs=macs,
    natural=Shape(1, 64, 56, 56),
    rows={"module": (False, True)},
)
