"""Point-wise spatial attention.

Paper     Zhao et al., "PSANet: Point-wise Spatial Attention Network for Scene Parsing", ECCV 2018, section 3
Idea      Each position predicts, from its own features, a weight for every relative offset: in one branch the weights with
          which it collects from the others, in the other branch those with which it sends to them.
Formula   collect: z_i = sum_j softmax_j(m_i[j - i]) x_j;  distribute: z_j = sum_i softmax_i(m_i[j - i]) x_i; y = [x, relu(BN(W
          [z_collect, z_distribute]))];  m_i = a map of (2h - 1) x (2w - 1) offsets, n = h*w positions after shrinking
Shapes    x: B C H W -> y: B 2C H W
Params    2*min(m, C)*(2*C + min(m, C) + 4 + (2*((H-1)//s) + 1)*(2*((W-1)//s) + 1)) + 2*C
          2(CM + 2M) + 2(M^2 + 2M + MS) + 2MC + 2C with S = (2h - 1)(2w - 1): grows with the resolution
Cost      2*N*C*M + 2*n*M^2 + 2*n*M*S + 2*n^2*M + 2*n*M*C MACs per image; two maps of n*S ~ 4*n^2 elements live at once
Defaults  mid M = 512, at most C (official code: 512 for C = 2048); shrink s = 2 with h = (H - 1)//s + 1 (official code); hw
          from the case
Differs   follows the official code: softmax over the contributing positions (its psa_softmax) with normalisation factor 1,
          where the paper's formula divides by a number of positions; bilinear with aligned corners. The layer that predicts the
          map is a linear layer over positions, the same function as a 1x1 convolution, so that the official kernel that
          re-orders maps into n x n weights is a strided view and its copy. The result is enlarged to the size of x, which is
          the official (h - 1)*s + 1 where s divides H - 1, the only sizes it takes. A map has the size for hw; at other
          resolutions the official code cuts it, here the features are resampled to h x w. One value per channel is normalised
          in training as well, to BN's shift, and the running statistics stay as they are
Survey    domain: spatial; g: predict an attention map using a sub-network; f: collect, distribute; tasks: SSeg; kind: soft;
          goal: I, IV; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also takes one value per channel in training, of which there is no running variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        return super().forward(x)


class PSANet(nn.Module):
    """Bi-directional point-wise attention: x (B, C, H, W) -> (B, 2C, H, W)."""

    def __init__(self, channels: int, hw: tuple[int, int], mid: int = 512, shrink: int = 2) -> None:
        super().__init__()
        mid = min(mid, channels)
        self.height, self.width = ((size - 1) // shrink + 1 for size in hw)
        offsets = (2 * self.height - 1) * (2 * self.width - 1)
        self.reduce_collect = nn.Sequential(nn.Conv2d(channels, mid, 1, bias=False), BatchNorm(mid), nn.ReLU(inplace=True))
        self.adapt_collect = nn.Sequential(nn.Conv2d(mid, mid, 1, bias=False), BatchNorm(mid), nn.ReLU(inplace=True))
        self.map_collect = nn.Linear(mid, offsets, bias=False)
        self.reduce_distribute = nn.Sequential(nn.Conv2d(channels, mid, 1, bias=False), BatchNorm(mid), nn.ReLU(inplace=True))
        self.adapt_distribute = nn.Sequential(nn.Conv2d(mid, mid, 1, bias=False), BatchNorm(mid), nn.ReLU(inplace=True))
        self.map_distribute = nn.Linear(mid, offsets, bias=False)
        self.project = nn.Sequential(nn.Conv2d(2 * mid, channels, 1, bias=False), BatchNorm(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        collect = self.reduce_collect(x)  # B M H W
        distribute = self.reduce_distribute(x)  # B M H W
        collect = self.resize(collect, self.height, self.width)  # B M h w
        distribute = self.resize(distribute, self.height, self.width)  # B M h w
        collect_weights = self.map_collect(self.adapt_collect(collect).flatten(2).transpose(1, 2))  # B n S
        distribute_weights = self.map_distribute(self.adapt_distribute(distribute).flatten(2).transpose(1, 2))  # B n S
        collect_weights = self.by_target(collect_weights)  # B n n
        distribute_weights = self.by_target(distribute_weights)  # B n n
        collect_weights = collect_weights.softmax(dim=2)
        distribute_weights = distribute_weights.softmax(dim=1)
        collect = torch.bmm(collect.flatten(2), collect_weights.transpose(1, 2)).view(collect.shape)  # B M h w
        distribute = torch.bmm(distribute.flatten(2), distribute_weights).view(distribute.shape)  # B M h w
        y = self.project(torch.cat([collect, distribute], dim=1))  # B C h w
        return torch.cat([x, self.resize(y, x.shape[2], x.shape[3])], dim=1)  # B 2C H W

    def by_target(self, maps: Tensor) -> Tensor:
        """Weights per offset (B, n, S) -> per pair of positions (B, n, n), the predicting position first."""
        height, width = self.height, self.width
        wide = 2 * width - 1
        offsets = (2 * height - 1) * wide
        # position (y, x) keeps its weight for (v, u) at row v - y + h - 1, column u - x + w - 1: linear in all four
        strides = (height * width * offsets, width * offsets - wide, offsets - 1, wide, 1)
        start = (height - 1) * wide + width - 1
        maps = maps.contiguous()
        view = maps.as_strided((maps.shape[0], height, width, height, width), strides, maps.storage_offset() + start)
        return view.reshape(maps.shape[0], height * width, height * width)

    def resize(self, x: Tensor, height: int, width: int) -> Tensor:
        """Bilinear with aligned corners, where the size changes."""
        if x.shape[2:] == (height, width):
            return x
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)


def params(channels: int, hw: tuple[int, int], mid: int = 512, shrink: int = 2) -> int:
    """Closed form of the parameter count."""
    mid = min(mid, channels)
    offsets = (2 * ((hw[0] - 1) // shrink) + 1) * (2 * ((hw[1] - 1) // shrink) + 1)
    branch = channels * mid + 2 * mid + mid**2 + 2 * mid + mid * offsets
    return 2 * branch + 2 * mid * channels + 2 * channels


def macs(shape: Shape, hw: tuple[int, int], mid: int = 512, shrink: int = 2) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, mid = shape.channels, min(mid, shape.channels)
    offsets = (2 * ((hw[0] - 1) // shrink) + 1) * (2 * ((hw[1] - 1) // shrink) + 1)
    positions = ((hw[0] - 1) // shrink + 1) * ((hw[1] - 1) // shrink + 1)
    reduce = 2 * shape.height * shape.width * channels * mid
    attention = 2 * positions * mid * (mid + offsets + positions)
    return shape.batch * (reduce + attention + 2 * positions * mid * channels)


MECHANISM = Mechanism(
    name="psanet",
    family="spatial",
    layout="BCHW",
    paper="Zhao et al., ECCV 2018",
    build=PSANet,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
