"""Spatial transformer.

Paper     Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS 2015, arXiv:1506.02025, section 3
Idea      A small network looks at the map and says how to shift, scale, rotate and shear it; the map is sampled accordingly.
Formula   theta = loc(x), 2 x 3;  (u, v) = theta (i, j, 1) for each output place (i, j) in [-1, 1]^2;
          y_ij = sum over pixels of x_nm max(0, 1 - |u - m|) max(0, 1 - |v - n|), coordinates in pixels
Shapes    x: B C H W -> y: B C H/downsample W/downsample
Params    392*C + 8 + 2010 + (90 + 1)*32 + (32 + 1)*6
          49*8*C + 8, 25*8*10 + 10, and two linear layers behind a 3 x 3 grid of 10 channels: the localisation network alone
Cost      392*N*C + 2000*N/4 + 10*9*32 + 32*6 + 6*N MACs per image, the last for the grid at downsample 1; sampling has no
          parameter and no MACs but touches 4 pixels per output element (its FLOPs are counted); the largest tensors are x, y
Defaults  localisation network of PyTorch's spatial transformer tutorial, which the paper leaves to the application:
          convolution 7 x 7 to 8, 5 x 5 to 10, each with max pooling and ReLU, linear layers to 32 and to 6, the last with zero
          weights and the identity as bias; zeros outside of the map; align_corners False, the tutorial's and PyTorch's default
Differs   the convolutions are padded and their map is averaged over a grid x grid raster, so that every size from 4 x 4
          on passes (the tutorial has no padding and takes 28 x 28 alone, where its map is 3 x 3: the same parameters). -1 and
          1 are the outer edges of the corner pixels; align_corners True puts them at their centres, as early implementations
          do. Affine transformations and the bilinear kernel only, of those in the paper
Survey    domain: spatial; g: use sub-network to predict an affine transformation; f: sample; tasks: Cls, FGCls; kind: hard;
          goal: I, III; stage: 2
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class STN(nn.Module):
    """The map under a predicted affine transformation: x (B, C, H, W) -> (B, C, H/downsample, W/downsample)."""

    def __init__(
        self,
        channels: int,
        hidden: int = 32,
        grid: int = 3,
        downsample: int = 1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.downsample, self.align_corners = downsample, align_corners
        self.localise = nn.Sequential(
            nn.Conv2d(channels, 8, 7, padding=3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(8, 10, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(grid),
            nn.Flatten(),
            nn.Linear(10 * grid**2, hidden),
            nn.ReLU(),
        )
        self.theta = nn.Linear(hidden, 6)
        nn.init.zeros_(self.theta.weight)
        with torch.no_grad():
            self.theta.bias.copy_(torch.eye(2, 3).flatten())

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if min(height, width) < 4:
            raise ValueError(f"two poolings by 2 need a map with sides of 4 or more, not {height} x {width}")
        theta = self.theta(self.localise(x)).view(batch, 2, 3)
        size = [batch, channels, height // self.downsample, width // self.downsample]
        places = F.affine_grid(theta, size, align_corners=self.align_corners)  # B H W 2
        return F.grid_sample(x, places, mode="bilinear", padding_mode="zeros", align_corners=self.align_corners)  # B C H W


def params(
    channels: int,
    hidden: int = 32,
    grid: int = 3,
    downsample: int = 1,
    align_corners: bool = False,
) -> int:
    """Closed form of the parameter count."""
    return 49 * 8 * channels + 8 + 25 * 8 * 10 + 10 + (10 * grid**2 + 1) * hidden + (hidden + 1) * 6


def macs(
    shape: Shape,
    hidden: int = 32,
    grid: int = 3,
    downsample: int = 1,
    align_corners: bool = False,
) -> int:
    """Multiply-accumulates of one forward pass: localisation network and the grid's matrix product."""
    height, width = shape.hw
    convs = 49 * 8 * shape.channels * height * width + 25 * 8 * 10 * (height // 2) * (width // 2)
    places = (height // downsample) * (width // downsample)
    return shape.batch * (convs + 10 * grid**2 * hidden + hidden * 6 + 2 * 3 * places)


MECHANISM = Mechanism(
    name="stn",
    family="spatial",
    layout="BCHW",
    paper="Jaderberg et al., NIPS 2015",
    build=STN,
    params=params,
    macs=macs,
    natural=Shape(1, 1, 28, 28),
)
