"""Pairwise self-attention (SAN).

Paper     Zhao, Jia, Koltun, "Exploring Self-attention for Image Recognition", CVPR 2020, arXiv:2004.13621, the section on
          pairwise self-attention
Idea      The weight of a neighbour is a vector, predicted by a small network from the difference of the two features and of the
          two positions.
Formula   a_ij = softmax_{j in N_k(i)}(W_2 relu(BN(W_1 relu(BN([phi(x_i) - psi(x_j), p_i - p_j])))));
          y_i = sum_j a_ij * beta(x_j);  phi, psi, beta = 1x1 convolutions; p = a 1x1 convolution of the coordinates; every
          O/s-th channel shares its weights
Shapes    x: B C H W -> y: B O H W with O = C/4
Params    (C//r)*(2*(C+1) + 2 + C//r + 2 + 2 + C//m//s) + 4 + (C//m)*(C+1) + 6 + C//m//s
          2(C+1)R + (C+1)O + 6 + 2(R+2) + (R+2)R + 2R + (R+1)O/s with R = C/r and O = C/m
Cost      N*(2*C*R + C*O) + N*k^2*((R+2)*R + R*O/s + O) MACs per image, and 4*N for the positions, once for the batch; values of
          all windows, N*k^2*O elements, next to maps of N*k^2*(R+2)
Defaults  relation R = C/16, output O = C/4, s = 8 channels share a weight, kernel k = 7 (official code; 3 in its first stage)
Differs   follows the official code: subtraction as the relation; coordinates from -1 to 1 over the map, columns first;
          reflection at the border, so both sides of x must be larger than k//2; biases as there; channels c and c + O/s share a
          weight. Its kernels read the windows in place: here those of the values are copied for a matmul. The residual
          bottleneck around it (BN, ReLU, 1x1 back to C) is the host's. At least one channel is kept in R
Survey    domain: spatial; g: difference of query and key and of positions, MLP, softmax; f: weighted sum; tasks: Cls;
          kind: soft; goal: I, VI; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class SANPairwise(nn.Module):
    """Vector attention from pairwise differences: x (B, C, H, W) -> (B, C/4, H, W)."""

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
        self.position = nn.Conv2d(2, 2, 1)
        self.weigh = nn.Sequential(
            nn.BatchNorm2d(relation + 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(relation + 2, relation, 1, bias=False),
            nn.BatchNorm2d(relation),
            nn.ReLU(inplace=True),
            nn.Conv2d(relation, self.groups, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) <= self.kernel // 2:
            side, height, width = self.kernel // 2, *x.shape[2:]
            raise ValueError(f"a map mirrored by {side} at the border needs sides larger than {side}, not {height} x {width}")
        weights = self.weigh(self.relation(x)).softmax(dim=3)  # B G N k^2
        return self.aggregate(self.value(x), weights)

    def relation(self, x: Tensor) -> Tensor:
        """Differences to all places of the window, of features and of positions: B R+2 N k^2."""
        position = self.position(self.coordinates(x))  # 1 2 H W
        features = self.query(x)[..., None, None] - self.windows(self.key(x))  # B R H W k k
        offsets = position[..., None, None] - self.windows(position)  # 1 2 H W k k
        relation = torch.cat([features, offsets.expand(x.shape[0], -1, -1, -1, -1, -1)], dim=1)  # B R+2 H W k k
        return relation.flatten(4).flatten(2, 3)

    def coordinates(self, x: Tensor) -> Tensor:
        """Column and row of every position, from -1 to 1: 1 2 H W."""
        height, width = x.shape[2:]
        columns = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device).expand(height, width)
        rows = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)[:, None].expand(height, width)
        return torch.stack([columns, rows])[None]

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
    projections = 2 * (channels + 1) * relation + (channels + 1) * out + 6
    return projections + 2 * (relation + 2) + (relation + 2) * relation + 2 * relation + (relation + 1) * groups


def macs(shape: Shape, kernel: int = 7, relation_reduction: int = 16, mid_reduction: int = 4, share: int = 8) -> int:
    """Multiply-accumulates of one forward pass; the positions are projected once for the batch."""
    relation, out, groups = widths(shape.channels, relation_reduction, mid_reduction, share)
    positions = shape.height * shape.width
    pair = (relation + 2) * relation + relation * groups + out
    return positions * (4 + shape.batch * (shape.channels * (2 * relation + out) + kernel**2 * pair))


MECHANISM = Mechanism(
    name="san_pairwise",
    family="spatial",
    layout="BCHW",
    paper="Zhao et al., CVPR 2020",
    build=SANPairwise,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 28, 28),
    exempt={
        "every_parameter_gets_a_finite_gradient:position.bias": "cancels in the difference of two positions",
        "every_parameter_gets_a_finite_gradient:weigh.5.bias": "softmax is blind to a shift of all logits of a row",
    },
)
