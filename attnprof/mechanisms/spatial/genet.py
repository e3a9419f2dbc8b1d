"""Gather-Excite (GENet).

Paper     Hu, Shen, Albanie, Sun, Vedaldi, "Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks",
          NeurIPS 2018, arXiv:1810.12348, sections 2 and 3
Idea      Gather each channel over neighbourhoods of an extent e, spread the result back to all positions, and gate with it: SE
          is the form with global extent and a mixture of the channels.
Formula   y = x * sigmoid(interp(g(x)));  g: average (theta-minus), depth-wise convolutions (theta), these and then
          W2 relu(W1 .) (theta-plus)
Shapes    x: B C H W -> y: B C H W
Params    0
          theta: (9 + 2)*C*log2 e, with global extent (H*W + 2)*C; theta-plus: 2*C*(C//r) more
Cost      no MACs (theta: 9*C per place of every halved map, global N*C; theta-plus: 2*C*(C//r) per place gathered); maps of
          N*C elements
Defaults  form theta-minus, global extent (0): the best of the forms without parameters (section 3); reduction r = 16; hw from
          the case
Differs   nothing for theta-minus: squares of 2e - 1 a side at every e-th position, cut at the edge (section 2). theta: 3x3
          convolutions of stride 2 without bias, each with BN, ReLU between them and not after the last; global: one convolution
          over the whole map, which fits only maps of the size hw. theta-plus has a ReLU before its layers too, as in the
          official definition; their biases, which that one has and the count 2C^2/r has not, are the argument bias. The gate is
          nearest at any size, which need not be divisible by e. In training, torch's BatchNorm2d refuses one value per channel
          (global, batch 1): here it is normalised all the same, to BN's shift, the rest of the branch gets a zero gradient, and
          the running statistics stay as they are. One hidden channel is kept where C < r
Survey    domain: spatial; g: average pooling or depth-wise convolution, interpolation, sigmoid; f: scale; tasks: Cls, Det;
          kind: soft; goal: I; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape

FORMS = ("theta-minus", "theta", "theta-plus")


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also takes one value per channel in training, of which there is no running variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        return super().forward(x)


class GENet(nn.Module):
    """Gather-excite: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        hw: tuple[int, int],
        form: str = "theta-minus",
        extent: int = 0,
        reduction: int = 16,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form is one of {', '.join(FORMS)}, not {form}")
        if form != "theta-minus" and (extent == 1 or extent & (extent - 1)):
            raise ValueError(f"the extent of {form} is 0 or a power of two from 2, not {extent}")
        self.form, self.extent = form, extent
        layers = 0 if form == "theta-minus" else halvings(extent)
        self.gather = nn.ModuleList()
        for _ in range(layers):
            if extent == 0:
                self.gather.append(nn.Conv2d(channels, channels, hw, groups=channels, bias=False))
            else:
                self.gather.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False))
        self.norm = nn.ModuleList(BatchNorm(channels) for _ in range(layers))
        if form == "theta-plus":
            hidden = max(channels // reduction, 1)
            down, up = nn.Conv2d(channels, hidden, 1, bias=bias), nn.Conv2d(hidden, channels, 1, bias=bias)
            self.excite: nn.Module = nn.Sequential(down, nn.ReLU(inplace=True), up)
        else:
            self.excite = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        context = self.excite(self.gathered(x))  # B C h w
        if self.extent:
            context = F.interpolate(context, size=x.shape[2:], mode="nearest")  # B C H W
        return x * context.sigmoid()

    def gathered(self, x: Tensor) -> Tensor:
        """One value per neighbourhood: B C H W -> B C h w, h = w = 1 with global extent."""
        if self.form == "theta-minus":
            if self.extent == 0:
                return x.mean(dim=(2, 3), keepdim=True)
            side = 2 * self.extent - 1
            return F.avg_pool2d(x, side, self.extent, padding=side // 2, count_include_pad=False)
        last = len(self.gather) - 1
        for n, (conv, norm) in enumerate(zip(self.gather, self.norm, strict=True)):
            x = norm(conv(x))
            if n < last or self.form == "theta-plus":
                x = x.relu_()
        return x


def halvings(extent: int) -> int:
    """How many convolutions gather: log2 of the extent, one where it is global (0)."""
    return extent.bit_length() - 1 if extent else 1


def params(
    channels: int,
    hw: tuple[int, int],
    form: str = "theta-minus",
    extent: int = 0,
    reduction: int = 16,
    bias: bool = False,
) -> int:
    """Closed form of the parameter count."""
    if form == "theta-minus":
        return 0
    gather = halvings(extent) * channels * ((9 if extent else hw[0] * hw[1]) + 2)
    if form == "theta":
        return gather
    hidden = max(channels // reduction, 1)
    return gather + 2 * channels * hidden + (channels + hidden) * bias


def macs(
    shape: Shape,
    hw: tuple[int, int],
    form: str = "theta-minus",
    extent: int = 0,
    reduction: int = 16,
    bias: bool = False,
) -> int:
    """Multiply-accumulates of one forward pass."""
    if form == "theta-minus":
        return 0
    channels, height, width = shape.channels, shape.height, shape.width
    total = 0
    if extent == 0:
        total, height, width = height * width * channels, 1, 1
    else:
        for _ in range(halvings(extent)):
            height, width = (height + 1) // 2, (width + 1) // 2
            total += 9 * height * width * channels
    if form == "theta-plus":
        total += height * width * 2 * channels * max(channels // reduction, 1)
    return shape.batch * total


MECHANISM = Mechanism(
    name="genet",
    family="spatial",
    layout="BCHW",
    paper="Hu et al., NeurIPS 2018",
    build=GENet,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
    rows={"form": ("theta-minus", "theta", "theta-plus")},
)
