"""Patchwise self-attention (SAN).

Paper     Zhao, Jia, Koltun, "Exploring Self-attention for Image Recognition", CVPR 2020, arXiv:2004.13621, the section on
          patchwise self-attention
Idea      A small network predicts all weights of a window at once, from the features of the whole window: it can tell the
          places in the window apart, which pairwise attention cannot.
Formula   a_i = W_2 relu(BN(W_1 relu(BN([phi(x_i), psi(x_j) for all j in N_k(i)]))));  y_i = sum_{j in N_k(i)} a_ij * beta(x_j)
          phi, psi, beta = 1x1 convolutions; every O/s-th channel shares its weights; no softmax
Shapes    x: B C H W -> y: B O H W with O = C/4
Params    (C//r)*(2*(C+1) + (k**2+1)*(2 + C//m//s)) + (C//m)*(C+1) + (C//m//s)*(2 + k**2*(C//m//s + 1))
          2(C+1)R + (C+1)O + 2R(k^2+1) + R(k^2+1)O/s + 2O/s + (O/s+1)k^2 O/s with R = C/r and O = C/m
Cost      N*(2*C*R + C*O) + N*((k^2+1)*R*O/s + k^2*(O/s)^2 + k^2*O) MACs per image; values of all windows, N*k^2*O elements,
          next to maps of N*(k^2+1)*R
Defaults  relation R = C/16, output O = C/4, s = 8 channels share a weight, kernel k = 7 (official code; 3 in its first stage)
Differs   follows the official code: concatenation as the relation; reflection at the border, so both sides of x must be larger
          than k//2; biases as there; channels c and c + O/s share a weight. Its kernels read the windows of the values in
          place: here they are copied for a matmul. The residual bottleneck around it (BN, ReLU, 1x1 back to C) is the host's.
          At least one channel is kept in R
Survey    domain: spatial; g: query and the keys of a window, MLP; f: weighted sum; tasks: Cls; kind: soft;
          goal: I, VI; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class SANPatchwise(nn.Module):
    """Vector attention from whole windows: x (B, C, H, W) -> (B, C/4, H, W)."""

    def __init__(
        self, channels: int, kernel: int = 7, relation_reduction: int = 16, mid_reduction: int = 4, share: int = 8
    ) -> None:
        super().__init__()
        relation, out, self.groups = widths(channels, relation_reduction, mid_reduction, share)
        if kernel % 2 == 0:
            raise ValueError(f"the window's side must be odd, not {kernel}")
        self.kernel = kernel
        self.query = nn.Conv2d(channels, relation, 1)
        self.key = nn.Conv2d(channels, relation, 1)
        self.value = nn.Conv2d(channels, out, 1)
        self.weigh = nn.Sequential(
            nn.BatchNorm2d(relation * (kernel**2 + 1)),
            nn.ReLU(inplace=True),
            nn.Conv2d(relation * (kernel**2 + 1), self.groups, 1, bias=False),
            nn.BatchNorm2d(self.groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.groups, kernel**2 * self.groups, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) <= self.kernel // 2:
            side, height, width = self.kernel // 2, *x.shape[2:]
            raise ValueError(f"a map mirrored by {side} at the border needs sides larger than {side}, not {height} x {width}")
        weights = self.weigh(self.relation(x)).flatten(2)  # B G*k^2 N
        weights = weights.unflatten(1, (self.groups, -1)).transpose(2, 3)  # B G N k^2
        return self.aggregate(self.value(x), weights)

    def relation(self, x: Tensor) -> Tensor:
        """The query of a position and the keys of its window: B R(k^2+1) H W."""
        patch = self.windows(self.key(x)).permute(0, 1, 4, 5, 2, 3)  # B R k k H W
        return torch.cat([self.query(x), patch.flatten(1, 3)], dim=1)

    def windows(self, x: Tensor) -> Tensor:
        """The window of every position, mirrored at the border, as a view: B C H W -> B C H W k k."""
        padded = F.pad(x, [self.kernel // 2] * 4, mode="reflect")
        return padded.unfold(2, self.kernel, 1).unfold(3, self.kernel, 1)

    def aggregate(self, value: Tensor, weights: Tensor) -> Tensor:
        """Sums of windows, each group of weights for every G-th channel: B O H W, B G N k^2 -> B O H W."""
        batch, _, height, width = value.shape
        windows = self.windows(value).unflatten(1, (-1, self.groups))  # B s G H W k k
        windows = windows.permute(0, 2, 3, 4, 1, 5, 6).reshape(-1, windows.shape[1], self.kernel**2)  # B*G*N s k^2
        y = torch.bmm(windows, weights.reshape(-1, self.kernel**2, 1))  # B*G*N s 1
        return y.view(batch, self.groups, height, width, -1).permute(0, 4, 1, 2, 3).reshape(value.shape)  # B O H W


def widths(channels: int, relation_reduction: int, mid_reduction: int, share: int) -> tuple[int, int, int]:
    """Channels of the relation and of the output, and groups of weights."""
    out = channels // mid_reduction
    if out % share or not out:
        raise ValueError(f"{out} output channels do not divide into groups that share weights among {share}")
    return max(channels // relation_reduction, 1), out, out // share


def params(channels: int, kernel: int = 7, relation_reduction: int = 16, mid_reduction: int = 4, share: int = 8) -> int:
    """Closed form of the parameter count."""
    relation, out, groups = widths(channels, relation_reduction, mid_reduction, share)
    window, points = relation * (kernel**2 + 1), kernel**2
    projections = 2 * (channels + 1) * relation + (channels + 1) * out
    return projections + 2 * window + window * groups + 2 * groups + (groups + 1) * points * groups


def macs(shape: Shape, kernel: int = 7, relation_reduction: int = 16, mid_reduction: int = 4, share: int = 8) -> int:
    """Multiply-accumulates of one forward pass."""
    relation, out, groups = widths(shape.channels, relation_reduction, mid_reduction, share)
    points = kernel**2
    weigh = relation * (points + 1) * groups + groups * points * groups
    per_position = shape.channels * (2 * relation + out) + weigh + points * out
    return shape.batch * shape.height * shape.width * per_position


MECHANISM = Mechanism(
    name="san_patchwise",
    family="spatial",
    layout="BCHW",
    paper="Zhao et al., CVPR 2020",
    build=SANPatchwise,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 28, 28),
)
