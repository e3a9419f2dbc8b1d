"""Contextual Transformer block (CoT).

Paper     Li, Yao, Pan, Mei, "Contextual Transformer Networks for Visual Recognition", TPAMI 2022, arXiv:2107.12292,
          section 3.2
Idea      A 3x3 convolution gives each key its neighbourhood (static context); query and contextual key together predict the
          weights with which each position adds up the values around it (dynamic context); both contexts are fused.
Formula   k = relu(BN(conv_3x3(x)));  w = GN(W_d relu(BN(W_t [x, k])));  v = BN(W_v x);
          d_i = silu(BN(sum_n w_i[n] v_{i+n}));  a = softmax over the two of MLP(GAP(d + k));  y = a_1 * d + a_2 * k
Shapes    x: B C H W -> y: B C H W
Params    k*k*C*C//4 + 2*C*C + k*k*C*C//(2*s) + 3*k*k*C//s + 9*C + 3*max(C//2, 32)*(C + 1)
          static 9C^2/4 + 2C; weights C^2 + C + 9C^2/16 + 27C/8; values C^2 + 2C; BN 2C; fusion 3AC + 3A + 2C, A = C/2
Cost      N*(9*C^2/4 + 2*C^2 + 9*C^2/16) + 3*A*C MACs per image; the weights are 9*N*C/8 elements. Adding up the values is
          element-wise: 9*N*C multiplications and additions, no MACs
Defaults  kernel_size k = 3; share s = 8 (weights for C/8 channels, each set for 8 channels), groups 4 in the static
          convolution, C/2 channels between the two layers for the weights, A = max(C/2, 32) (official code)
Differs   follows the official code (CotLayer), which has more than the paper's equations: groups in the static convolution,
          GN over the weights of each set of channels, BN and SiLU behind the values' sum. Channels c and c + C/8 share
          weights. The official CUDA kernel for the sum is a sum over shifted views here, with no memory beside the kernel's but
          a padded copy of the values; d + k is averaged without the official copy of both. In training, torch's BatchNorm2d
          refuses one value per channel (the fusion at batch 1): here it is normalised all the same, to BN's shift, and the
          running statistics stay as they are
Survey    domain: spatial; g: contextual key and query, two 1x1 convolutions; f: weighted sum of the neighbourhood;
          tasks: Cls, Det, ISeg; kind: soft; goal: I, VI; stage: 4 (no row in the survey)
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


class CoT(nn.Module):
    """Static and dynamic context of every position: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, kernel_size: int = 3, share: int = 8) -> None:
        super().__init__()
        if channels % share or channels % 4:
            raise ValueError(f"{channels} channels do not divide into sets of {share} and 4 groups")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} has no middle")
        self.kernel_size = kernel_size
        self.share = share
        sets, taps, hidden = channels // share, kernel_size**2, max(channels // 2, 32)
        self.key = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=4, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.embed = nn.Sequential(
            nn.Conv2d(2 * channels, channels // 2, 1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, sets * taps, 1),
            nn.GroupNorm(sets, sets * taps),
        )
        self.value = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.bn = nn.BatchNorm2d(channels)
        self.fusion = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), BatchNorm(hidden), nn.ReLU(inplace=True), nn.Conv2d(hidden, 2 * channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        static = self.key(x)  # B C H W
        weights = self.embed(torch.cat([x, static], dim=1))  # B C/s*k*k H W
        dynamic = F.silu(self.bn(self.collect(self.value(x), weights)))  # B C H W
        pooled = (dynamic + static).mean(dim=(2, 3), keepdim=True)  # B C 1 1
        share = self.fusion(pooled).view(x.shape[0], x.shape[1], 2, 1, 1).softmax(dim=2)  # B C 2 1 1
        return dynamic * share[:, :, 0] + static * share[:, :, 1]

    def collect(self, value: Tensor, weights: Tensor) -> Tensor:
        """Sum over the taps of weights (B, C/s*k*k, H, W) times the values there, zeros outside: B C H W."""
        batch, channels, height, width = value.shape
        k, margin = self.kernel_size, self.kernel_size // 2
        value = F.pad(value, (margin, margin, margin, margin))
        value = value.view(batch, self.share, -1, height + 2 * margin, width + 2 * margin)  # B s C/s H+2 W+2
        weights = weights.view(batch, 1, channels // self.share, k * k, height, width)  # B 1 C/s k*k H W
        total = weights[:, :, :, 0] * value[..., :height, :width]  # B s C/s H W
        for tap in range(1, k * k):
            row, column = divmod(tap, k)
            around = value[..., row : row + height, column : column + width]
            total.addcmul_(weights[:, :, :, tap], around)
        return total.view(batch, channels, height, width)  # B C H W


def params(channels: int, kernel_size: int = 3, share: int = 8) -> int:
    """Closed form of the parameter count."""
    c, taps, hidden = channels, kernel_size**2, max(channels // 2, 32)
    weights = taps * c // share
    static = taps * c * c // 4 + 2 * c
    embed = c * c + c + c // 2 * weights + weights + 2 * weights
    fusion = c * hidden + hidden + 2 * hidden + 2 * hidden * c + 2 * c
    return static + embed + (c * c + 2 * c) + 2 * c + fusion


def macs(shape: Shape, kernel_size: int = 3, share: int = 8) -> int:
    """Multiply-accumulates of one forward pass."""
    c, taps, hidden = shape.channels, kernel_size**2, max(shape.channels // 2, 32)
    per_position = taps * c * c // 4 + c * c + c // 2 * (taps * c // share) + c * c
    return shape.batch * (shape.height * shape.width * per_position + 3 * hidden * c)


MECHANISM = Mechanism(
    name="cot",
    family="spatial",
    layout="BCHW",
    paper="Li et al., TPAMI 2022",
    build=CoT,
    params=params,
    macs=macs,
    natural=Shape(1, 64, 56, 56),
)
