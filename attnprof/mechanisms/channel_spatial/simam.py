"""SimAM, parameter-free attention.

Paper     Yang, Zhang, Li, Xie, "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks", ICML 2021,
          PMLR 139, section 3
Idea      An entry that differs from the rest of its channel matters: gate each entry by the inverse of the energy with which a
          linear function would tell it from the others, which has a closed form.
Formula   1/e = (x - m)^2 / (4 (v + lambda)) + 1/2, m and v the mean and the variance of the channel;  y = sigmoid(1/e) * x
Shapes    x: B C H W -> y: B C H W
Params    0
Cost      no MACs: a mean, a sum and about a dozen element-wise operations for each of the N*C entries, with maps of that size
Defaults  lam (lambda) 1e-4 (official code; its ImageNet models use 0.1)
Differs   follows the code in the paper: the variance is divided by N - 1, by N in the text; by 1 for a map of one position,
          where the official code divides by 0
Survey    domain: channel & spatial; g: squared distance from the channel's mean, sigmoid; f: scale; tasks: Cls, Det, ISeg;
          kind: soft; goal: I, II; stage: 3 (no row in the survey)
"""

from __future__ import annotations

from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class SimAM(nn.Module):
    """A gate for every entry, without parameters: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, lam: float = 1e-4) -> None:
        super().__init__()
        self.lam = lam

    def forward(self, x: Tensor) -> Tensor:
        others = max(x.shape[2] * x.shape[3] - 1, 1)
        squared = (x - x.mean(dim=(2, 3), keepdim=True)).pow(2)  # B C H W
        variance = squared.sum(dim=(2, 3), keepdim=True) / others  # B C 1 1
        inverse_energy = squared / (4 * (variance + self.lam)) + 0.5  # B C H W
        return x * inverse_energy.sigmoid()


def params(channels: int, lam: float = 1e-4) -> int:
    """Closed form of the parameter count."""
    return 0


def macs(shape: Shape, lam: float = 1e-4) -> int:
    """Multiply-accumulates of one forward pass."""
    return 0


MECHANISM = Mechanism(
    name="simam",
    family="channel_spatial",
    layout="BCHW",
    paper="Yang et al., ICML 2021",
    build=SimAM,
    params=params,
    macs=macs,
    natural=Shape(1, 64, 56, 56),
)
