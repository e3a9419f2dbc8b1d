"""Attention-augmented convolution (AANet).

Paper     Bello, Zoph, Vaswani, Shlens, Le, "Attention Augmented Convolutional Networks", ICCV 2019, arXiv:1904.09925, section 3
Idea      A part of a convolution's output channels comes from multi-head attention over the whole map, with logits that know
          the relative row and column of two positions; the rest remains a convolution.
Formula   y = [conv(x), W_o [head_1, ..., head_h]];  head_m = softmax_j(q_i . (k_j + r^H_{dy} + r^W_{dx}) / sqrt(dk/h)) v_j with
          (dy, dx) from i to j;  q, k, v = 1x1 convolutions of x to dk, dk and dv channels, in h heads
Shapes    x: B C H W -> y: B C H W, the first C - dv channels from the convolution
Params    k**2*C*(C-(v:=8*max(round(C/80),1)))+C+2*(C+1)*(d:=8*max(round(C/40),20))+(C+1+v)*v+(H+W-1)*d//4
          k^2 C(C-dv) + (C-dv) + C(2dk+dv) + 2dk + dv + dv^2 + dv with dv = v and dk = d; relative: (2H+2W-2)dk/h more
Cost      N*C*(k^2*(C-dv) + 2*dk + dv) + N^2*(dk+dv) + N*dv^2 MACs per image, and N*dk*(2H+2W-2) for the relative logits;
          logits and attention, two maps of h*N^2 elements
Defaults  heads h = 8, kappa = dk/C = 0.2, upsilon = dv/C = 0.1, at least min_key = 20 key channels a head: dk = 160 up to
          C = 820; kernel k = 3; relative logits; hw from the case (the paper's ResNets and Wide-ResNets)
Differs   dk and dv are rounded to the nearest multiple of h, dv to at least one channel a head: the paper gives the ratios
          only. Biases as in public ports. The tables of relative positions are parameters for the given hw (one port draws them
          anew in every pass), shared among the heads. As many output channels as input channels, stride 1; the paper's average
          pooling of large maps is the host's
Survey    domain: spatial; g: dot product of query with key and relative position, softmax; f: weighted sum, concatenation with
          a convolution; tasks: Cls, Det; kind: soft; goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class AANet(nn.Module):
    """A convolution beside relative multi-head attention: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        hw: tuple[int, int],
        kernel: int = 3,
        kappa: float = 0.2,
        upsilon: float = 0.1,
        heads: int = 8,
        min_key: int = 20,
        relative: bool = True,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel's side must be odd, not {kernel}")
        self.heads, self.relative = heads, relative
        self.keys, self.values = widths(channels, kappa, upsilon, heads, min_key)
        self.conv = nn.Conv2d(channels, channels - self.values, kernel, padding=kernel // 2)
        self.qkv = nn.Conv2d(channels, 2 * self.keys + self.values, 1)
        self.out = nn.Conv2d(self.values, self.values, 1)
        if relative:
            size = self.keys // heads
            self.rows = nn.Parameter(size**-0.5 * torch.randn(2 * hw[0] - 1, size))
            self.columns = nn.Parameter(size**-0.5 * torch.randn(2 * hw[1] - 1, size))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        query, key, value = self.qkv(x).split([self.keys, self.keys, self.values], dim=1)
        query = self.heads_of(query * (self.keys // self.heads) ** -0.5)  # B h N dk/h
        logits = torch.matmul(query, self.heads_of(key).transpose(2, 3))  # B h N N
        if self.relative:
            rows, columns = self.relative_logits(query.unflatten(2, (height, width)))
            logits = logits.view(batch, self.heads, height, width, height, width)
            logits += rows[..., :, None]
            logits += columns[..., None, :]
            logits = logits.flatten(4).flatten(2, 3)  # B h N N
        attention = logits.softmax(dim=3)
        attended = torch.matmul(attention, self.heads_of(value))  # B h N dv/h
        attended = attended.transpose(2, 3).reshape(batch, self.values, height, width)  # B dv H W
        return torch.cat([self.conv(x), self.out(attended)], dim=1)  # B C H W

    def heads_of(self, x: Tensor) -> Tensor:
        """B D H W -> B h N D/h."""
        return x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)

    def relative_logits(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Query times embedding, by row and by column of the map: B h H W d -> B h H W H and B h H W W."""
        columns = absolute(torch.matmul(query, self.columns.t()))  # B h H W W
        rows = absolute(torch.matmul(query.transpose(2, 3), self.rows.t()))  # B h W H H
        return rows.transpose(2, 3), columns


def absolute(logits: Tensor) -> Tensor:
    """From places relative to each query to places on the axis, as a view: ... L 2L-1 -> ... L L."""
    length = logits.shape[-2]
    if length == 1:
        return logits
    # entry (i, j - i + L - 1) of rows of 2L - 1 is entry (i, j) of rows of 2L - 2, counted from L - 1
    flat = logits.flatten(-2)[..., length - 1 : -1]
    return flat.unflatten(-1, (length, 2 * length - 2))[..., :length]


def widths(channels: int, kappa: float, upsilon: float, heads: int, min_key: int) -> tuple[int, int]:
    """Channels dk of the keys and dv of the values: multiples of the heads nearest to the ratios, not below the least."""
    keys = heads * max(round(kappa * channels / heads), min_key)
    values = heads * max(round(upsilon * channels / heads), 1)
    if values >= channels:
        raise ValueError(f"{values} channels from the attention leave none of {channels} for the convolution")
    return keys, values


def params(
    channels: int,
    hw: tuple[int, int],
    kernel: int = 3,
    kappa: float = 0.2,
    upsilon: float = 0.1,
    heads: int = 8,
    min_key: int = 20,
    relative: bool = True,
) -> int:
    """Closed form of the parameter count."""
    keys, values = widths(channels, kappa, upsilon, heads, min_key)
    convolution = kernel**2 * channels * (channels - values) + channels - values
    attention = (channels + 1) * (2 * keys + values) + values**2 + values
    tables = (2 * hw[0] + 2 * hw[1] - 2) * (keys // heads)
    return convolution + attention + (tables if relative else 0)


def macs(
    shape: Shape,
    hw: tuple[int, int],
    kernel: int = 3,
    kappa: float = 0.2,
    upsilon: float = 0.1,
    heads: int = 8,
    min_key: int = 20,
    relative: bool = True,
) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    keys, values = widths(channels, kappa, upsilon, heads, min_key)
    convolutions = channels * (kernel**2 * (channels - values) + 2 * keys + values) + values**2
    tables = keys * (2 * hw[0] + 2 * hw[1] - 2) if relative else 0
    return shape.batch * positions * (convolutions + positions * (keys + values) + tables)


MECHANISM = Mechanism(
    name="aanet",
    family="spatial",
    layout="BCHW",
    paper="Bello et al., ICCV 2019",
    build=AANet,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 14, 14),
)
