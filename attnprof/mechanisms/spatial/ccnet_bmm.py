"""Recurrent criss-cross attention, as the widely used plain PyTorch port computes it.

Paper     Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019, arXiv:1811.11721, sections 3.2, 3.3
Idea      Every position gathers from its own row and column; a second pass with the same weights reaches all positions.
Formula   A_u = softmax over the H+W-1 positions of u's row and column of q_u . k;  y_u = gamma * sum_i A_iu v_i + x_u;  R times
Shapes    x: B C H W -> y: B C H W
Params    (2*max(C//reduction, 1) + C)*(C + 1) + 1
          1.25*C^2 + 1.25*C + 1 where 8 divides C, whatever the recurrence
Cost      R * (N*C*(2*(C//8) + C) + N*(H+W)*(C//8 + C)) MACs per image; logits and attention have N*(H+W) elements, and
          queries, keys, values and attention are copied into sequences of rows and of columns
Defaults  recurrence R = 2 (section 3.3); reduction r = 8 for queries and keys and gamma = 0 at the start (official code)
Differs   the paper's own CUDA kernels read rows and columns in place and compute H+W-1 logits; this form computes H+W and masks
          the position itself in its column with -inf, so that it counts once. As in the official code, each pass has its own
          residual and gamma inside, and the projections have biases; queries and keys keep one channel where C < r.
          In the head, 3x3 convolutions come before and after: they are the host's. spatial/ccnet is the same function, leaner.
Survey    domain: spatial; g: dot product between query and key on the criss-cross path, softmax; f: weighted sum, residual;
          tasks: SSeg, ISeg; kind: soft; goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class CrissCrossBMM(nn.Module):
    """Attention along rows and columns, R times: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, recurrence: int = 2, reduction: int = 8) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        if recurrence < 1:
            raise ValueError(f"recurrence={recurrence}: at least one pass")
        self.recurrence = recurrence
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.recurrence):
            x = self._attend(x)
        return x

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        query = self.query(x)  # B C/r H W
        query_columns = _columns(query).transpose(1, 2)  # BW H C/r
        query_rows = _rows(query).transpose(1, 2)  # BH W C/r
        key = self.key(x)  # B C/r H W
        key_columns, key_rows = _columns(key), _rows(key)  # BW C/r H, BH C/r W
        value = self.value(x)  # B C H W
        value_columns, value_rows = _columns(value), _rows(value)  # BW C H, BH C W

        itself = x.new_full((height,), float("-inf")).diag().repeat(batch * width, 1, 1)  # BW H H
        energy_columns = torch.bmm(query_columns, key_columns) + itself  # BW H H
        energy_columns = energy_columns.reshape(batch, width, height, height).transpose(1, 2)  # B H W H
        energy_rows = torch.bmm(query_rows, key_rows).reshape(batch, height, width, width)  # B H W W
        attention = torch.cat([energy_columns, energy_rows], dim=3).softmax(dim=3)  # B H W H+W

        to_columns = attention[..., :height].transpose(1, 2).contiguous().view(batch * width, height, height)  # BW H H
        to_rows = attention[..., height:].contiguous().view(batch * height, width, width)  # BH W W
        from_columns = torch.bmm(value_columns, to_columns.transpose(1, 2))  # BW C H
        from_columns = from_columns.view(batch, width, channels, height).permute(0, 2, 3, 1)  # B C H W
        from_rows = torch.bmm(value_rows, to_rows.transpose(1, 2))  # BH C W
        from_rows = from_rows.view(batch, height, channels, width).transpose(1, 2)  # B C H W
        return x + self.gamma * (from_columns + from_rows)


def _columns(x: Tensor) -> Tensor:
    """Columns as sequences: B C H W -> BW C H, a copy."""
    batch, channels, height, width = x.shape
    return x.permute(0, 3, 1, 2).contiguous().view(batch * width, channels, height)


def _rows(x: Tensor) -> Tensor:
    """Rows as sequences: B C H W -> BH C W, a copy."""
    batch, channels, height, width = x.shape
    return x.transpose(1, 2).contiguous().view(batch * height, channels, width)


def params(channels: int, recurrence: int = 2, reduction: int = 8) -> int:
    """Closed form of the parameter count."""
    width = max(channels // reduction, 1)
    return (2 * width + channels) * (channels + 1) + 1


def macs(shape: Shape, recurrence: int = 2, reduction: int = 8) -> int:
    """Multiply-accumulates of one forward pass; the masked position is computed too."""
    channels, positions = shape.channels, shape.height * shape.width
    width = max(channels // reduction, 1)
    projections = positions * channels * (2 * width + channels)
    attention = positions * (shape.height + shape.width) * (width + channels)
    return shape.batch * recurrence * (projections + attention)


MECHANISM = Mechanism(
    name="ccnet_bmm",
    family="spatial",
    layout="BCHW",
    paper="Huang et al., ICCV 2019",
    build=CrissCrossBMM,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    exempt={
        "every_parameter_gets_a_finite_gradient:key.bias": "softmax is blind to a shift of all logits of a row",
    },
)
