"""Style-based recalibration module (SRM).

Paper     Lee, Kim, Nam, "SRM: A Style-based Recalibration Module for Convolutional Neural Networks", ICCV 2019,
          arXiv:1903.10829, section 3
Idea      Gate each channel by its own style, mean and standard deviation, without looking at the other channels.
Formula   t_c = [mean x_c, sqrt(var x_c + 1e-5)];  z_c = <w_c, t_c>;  y = sigmoid(BN(z)) * x
Shapes    x: B C H W -> y: B C H W
Params    (styles + 2)*C
          a channel-wise fully connected layer (CFC) of styles*C weights without bias, BN 2*C: 4*C for the default
Cost      0 MACs: pooling, weighing and scaling are element-wise (see FLOPs); the largest maps are x and y
Defaults  styles 2: mean and standard deviation (section 3); 1 is the mean alone, 3 adds the maximum (the paper's ablation of
          style pooling); the CFC starts at 0 (official code)
Differs   follows the official code where the paper's standard deviation divides by N and has no epsilon: unbiased variance plus
          1e-5 under the root. In training, torch's BatchNorm2d refuses one value per channel (batch 1): here it is normalised
          all the same, to BN's shift, the CFC gets a zero gradient, and the running statistics stay as they are
Survey    domain: channel; g: style pooling, convolution & MLP, sigmoid; f: scale; tasks: Cls, ST; kind: soft; goal: I, II;
          stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also takes one value per channel in training, of which there is no running variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        return super().forward(x)


class SRM(nn.Module):
    """Channel gate from each channel's style: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, styles: int = 2) -> None:
        super().__init__()
        if styles not in (1, 2, 3):
            raise ValueError(f"styles is 1 (mean), 2 (and standard deviation) or 3 (and maximum), not {styles}")
        self.styles = styles
        self.cfc = nn.Parameter(torch.zeros(channels, styles))
        self.bn = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = x.flatten(2)  # B C N
        if self.styles > 1 and maps.shape[2] < 2:
            raise ValueError("a standard deviation over positions needs a map of two or more")
        style = [maps.mean(dim=2)]  # B C each
        if self.styles > 1:
            style.append((maps.var(dim=2) + 1e-5).sqrt())
        if self.styles > 2:
            style.append(maps.amax(dim=2))
        z = (torch.stack(style, dim=2) * self.cfc).sum(dim=2)  # B C
        gate = self.bn(z[:, :, None, None]).sigmoid()  # B C 1 1
        return x * gate


def params(channels: int, styles: int = 2) -> int:
    """Closed form of the parameter count."""
    return styles * channels + 2 * channels


def macs(shape: Shape, styles: int = 2) -> int:
    """Multiply-accumulates of one forward pass: none in convolutions or matrix products."""
    return 0


MECHANISM = Mechanism(
    name="srm",
    family="channel",
    layout="BCHW",
    paper="Lee et al., ICCV 2019",
    build=SRM,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
)
