"""OCNet, pyramid object context (pyramid-OC).

Paper     Yuan, Wang, "OCNet: Object Context Network for Scene Parsing", arXiv:1809.00916v1 (2018), pyramid-OC
Idea      Object context at several scales: the map is cut into 1, 2, 3 and 6 cells a side, self-attention runs in each cell.
Formula   per grid g and cell R: w_ij = softmax_(j in R)(q_i . k_j / sqrt(K)), i in R;  c^g_i = W^g sum_(j in R) w_ij v_j;
          y = act(BN(U [act(BN(P x)), c^1, .., c^G]))
Shapes    x: B C H W -> y: B C H W
Params    len(grids)*(C*(K := C//2) + 3*K + 5*C**2 + 5*C) + 3*C
          per grid C*K + 3K + 2*(C^2 + C), K = C/2; P: G*C^2 + 3*G*C; U: 2*G*C^2 + 3C; G = 4 grids
Cost      N*C*(G*(2K + 2C) + 3*G*C) + (K + C)*sum of n^2 over the cells of all grids, n positions each, MACs per image
Defaults  grids (1, 2, 3, 6); key_channels K = C/2; values C wide; dropout 0.05 (all official code)
Differs   follows the first official release: every grid has its own transforms; cells are H//g x W//g, the last row and column
          of cells take the remainder; P widens the input to G*C; query and key share one transform, applied twice; W starts at
          0. A map with fewer than g rows (columns) is one cell high (wide): the code's other cells would be empty. The fused
          in-place BN with leaky ReLU 0.01 is written as BN, then leaky ReLU in place: the same function
Survey    domain: spatial; g: dot product, softmax; f: matmul; tasks: SSeg; kind: soft; goal: I, IV; stage: 4
          (no row in the survey)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


def cell_bounds(size: int, grid: int) -> list[tuple[int, int]]:
    """(start, end) of the cells along one axis: equal steps, the last cell takes what is left."""
    step = size // grid
    if step == 0:
        return [(0, size)]
    return [(i * step, size if i == grid - 1 else (i + 1) * step) for i in range(grid)]


class GridAttention(nn.Module):
    """Self-attention inside the cells of one grid: x (B, C, H, W) -> context (B, C, H, W)."""

    def __init__(self, channels: int, key_channels: int, grid: int) -> None:
        super().__init__()
        self.channels = channels
        self.key_channels = key_channels
        self.grid = grid
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.key_bn = nn.BatchNorm2d(key_channels)
        self.value = nn.Conv2d(channels, channels, 1)
        self.w = nn.Conv2d(channels, channels, 1)
        for tensor in self.w.parameters():
            nn.init.zeros_(tensor)

    def transform(self, x: Tensor) -> Tensor:
        """The transform that query and key share."""
        return F.leaky_relu(self.key_bn(self.key(x)), 0.01, inplace=True)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention among the positions of one cell; query and key: B K h w, value: B C h w."""
        batch, _, height, width = value.shape
        value = value.flatten(2).transpose(1, 2)  # B n C
        query = query.flatten(2).transpose(1, 2)  # B n K
        attention = torch.matmul(query, key.flatten(2))  # B n n
        attention = self.key_channels**-0.5 * attention
        attention = attention.softmax(dim=-1)
        context = torch.matmul(attention, value)  # B n C
        return context.transpose(1, 2).contiguous().view(batch, self.channels, height, width)  # B C h w

    def forward(self, x: Tensor) -> Tensor:
        value, query, key = self.value(x), self.transform(x), self.transform(x)  # B C H W, B K H W, B K H W
        rows = []
        for top, bottom in cell_bounds(x.shape[2], self.grid):
            cells = []
            for left, right in cell_bounds(x.shape[3], self.grid):
                q, k, v = (t[:, :, top:bottom, left:right] for t in (query, key, value))
                cells.append(self.attend(q, k, v))
            rows.append(torch.cat(cells, dim=3))  # B C h W
        return self.w(torch.cat(rows, dim=2))  # B C H W


class PyramidOCNet(nn.Module):
    """Pyramid object context block: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self, channels: int, grids: Sequence[int] = (1, 2, 3, 6), key_channels: int | None = None, dropout: float = 0.05
    ) -> None:
        super().__init__()
        keys = channels // 2 if key_channels is None else key_channels
        self.stages = nn.ModuleList([GridAttention(channels, keys, grid) for grid in grids])
        self.widen = nn.Conv2d(channels, len(grids) * channels, 1)
        self.widen_bn = nn.BatchNorm2d(len(grids) * channels)
        self.fuse = nn.Conv2d(2 * len(grids) * channels, channels, 1)
        self.fuse_bn = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        contexts = [stage(x) for stage in self.stages]
        wide = F.leaky_relu(self.widen_bn(self.widen(x)), 0.01, inplace=True)  # B GC H W
        y = torch.cat([wide, *contexts], dim=1)  # B 2GC H W
        y = F.leaky_relu(self.fuse_bn(self.fuse(y)), 0.01, inplace=True)  # B C H W
        return self.dropout(y)


def params(
    channels: int,
    grids: Sequence[int] = (1, 2, 3, 6),
    key_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Closed form of the parameter count."""
    c, g = channels, len(grids)
    k = c // 2 if key_channels is None else key_channels
    return g * (c * k + 3 * k + 2 * c**2 + 2 * c) + (g * c**2 + 3 * g * c) + (2 * g * c**2 + 3 * c)


def macs(
    shape: Shape,
    grids: Sequence[int] = (1, 2, 3, 6),
    key_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n, g = shape.channels, shape.height * shape.width, len(grids)
    k = c // 2 if key_channels is None else key_channels
    sides = [(cell_bounds(shape.height, grid), cell_bounds(shape.width, grid)) for grid in grids]
    pairs = sum(((b - a) * (d - c0)) ** 2 for rows, columns in sides for a, b in rows for c0, d in columns)
    return shape.batch * (n * c * (g * (2 * k + 2 * c) + 3 * g * c) + (k + c) * pairs)


MECHANISM = Mechanism(
    name="ocnet_pyramid",
    family="spatial",
    layout="BCHW",
    paper="Yuan and Wang, arXiv 2018",
    build=PyramidOCNet,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
