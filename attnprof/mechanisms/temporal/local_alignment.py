"""Local alignment, attention over a neighbourhood in place of a warp.

Paper     none: a known idea for aligning video features without optical flow. Nearest: Guo, Fan, Gu, Zhang, Xiang, Prinet,
          Pan, "Progressive Sparse Local Attention for Video Object Detection", ICCV 2019, arXiv:1903.09126; the shifted window
          is that of Hassani, Walton, Li, Li, Shi, "Neighborhood Attention Transformer", CVPR 2023, arXiv:2204.07143
Idea      Motion between near frames is short: each position of the current frame looks in a window of the reference frame for
          what it resembles and takes the reference's features from there, a soft warp without flow.
Formula   w_pd = softmax_d(theta(c_p) . phi(r_{p + d}) / sqrt(e));  y_p = sum_d w_pd r_{p + d}, d in a (2r + 1)^2 window
Shapes    current: B C H W, reference: B C H W -> y: B C H W, the reference aligned to the current frame
Params    2*(C*(C//4) + C//4)
          theta and phi are 1x1 convolutions C -> e with biases; the values are the reference itself
Cost      2*N*C*e MACs per image; N*(2r + 1)^2*(e + C) multiply-adds of the window are element-wise and 0 MACs. The largest
          tensors have the size of x, the weights are an N x (2r + 1)^2 map. With boundary shift each shifted map is a copy,
          and training keeps them all: N*(2r + 1)^2*(e + C) elements
Defaults  radius r = 3 (a 7 x 7 window, Neighborhood Attention's); embed e = C/4; boundary mask
Differs   interpretation: scaled dot products and one softmax over the window; one scale, not the growing strides of the first
          paper (PSLA). boundary: mask = neighbours outside the frame get no weight; shift = the window moves inwards at the
          border and always has its full size, as in NATTEN (which refuses maps smaller than the window: here the window shrinks
          to the map). The window is a loop over its offsets, nothing is unfolded
Survey    domain: temporal; g: dot product with a window of the reference, softmax; f: weighted sum; tasks: Det; kind: soft;
          goal: I; stage: 4 (no row in the survey)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class LocalAlignment(nn.Module):
    """The reference aligned to the current frame: two (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, radius: int = 3, embed: int | None = None, boundary: str = "mask") -> None:
        super().__init__()
        if boundary not in ("mask", "shift"):
            raise ValueError(f"boundary is 'mask' or 'shift', not '{boundary}'")
        inner = embed_width(channels, embed)
        self.radius = radius
        self.boundary = boundary
        self.scale = inner**-0.5
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        height, width = current.shape[2:]
        query, key = self.scale * self.query(current), self.key(reference)  # B e H W
        if self.boundary == "mask":
            inside = F.pad(key.new_zeros(1, 1, height, width), [self.radius] * 4, value=float("-inf"))
            logits = [
                (query * near).sum(dim=1, keepdim=True) + mask
                for near, mask in zip(self.translated(key), self.crops(inside, height, width), strict=True)
            ]
            values = self.translated(reference)
        else:
            logits = [(query * near).sum(dim=1, keepdim=True) for near in self.shifted(key)]
            values = self.shifted(reference)
        weights = torch.cat(logits, dim=1).softmax(dim=1)  # B (2r+1)^2 H W
        y = torch.zeros_like(reference)
        for weight, near in zip(weights.split(1, dim=1), values, strict=True):
            y = torch.addcmul(y, weight, near)
        return y

    def translated(self, x: Tensor) -> Iterator[Tensor]:
        """The map at p + d for every offset d of the window, zeros outside: views of one padded map."""
        return self.crops(F.pad(x, [self.radius] * 4), x.shape[2], x.shape[3])

    def crops(self, padded: Tensor, height: int, width: int) -> Iterator[Tensor]:
        """The (H, W) crops of a map padded by the radius, in reading order of the window."""
        side = 2 * self.radius + 1
        for row in range(side):
            for column in range(side):
                yield padded[:, :, row : row + height, column : column + width]

    def shifted(self, x: Tensor) -> Iterator[Tensor]:
        """The map at s(p) + d: s is where the window of p starts, moved into the map; d counts from there."""
        height, width = x.shape[2:]
        rows, columns = min(2 * self.radius + 1, height), min(2 * self.radius + 1, width)
        starts = (height - rows + 1, width - columns + 1)  # windows that fit
        top, left = (rows - 1) // 2, (columns - 1) // 2
        borders = [left, columns - 1 - left, top, rows - 1 - top]
        for row in range(rows):
            for column in range(columns):
                by_start = x[:, :, row : row + starts[0], column : column + starts[1]]
                yield F.pad(by_start, borders, mode="replicate")  # B . H W


def embed_width(channels: int, embed: int | None) -> int:
    """Channels of the two embeddings: a quarter, where none are given."""
    width = channels // 4 if embed is None else embed
    if width < 1:
        raise ValueError(f"an embedding has one channel or more, not {width} ({channels} channels, embed {embed})")
    return width


def params(channels: int, radius: int = 3, embed: int | None = None, boundary: str = "mask") -> int:
    """Closed form of the parameter count."""
    inner = embed_width(channels, embed)
    return 2 * (channels * inner + inner)


def macs(shape: Shape, radius: int = 3, embed: int | None = None, boundary: str = "mask") -> int:
    """Multiply-accumulates of one forward pass."""
    inner = embed_width(shape.channels, embed)
    return shape.batch * 2 * shape.height * shape.width * shape.channels * inner


def inputs(shape: Shape, radius: int = 3, embed: int | None = None, boundary: str = "mask") -> tuple[TensorSpec, ...]:
    """Features of the current and of the reference frame."""
    size = (shape.batch, shape.channels, *shape.hw)
    return TensorSpec(size, "current"), TensorSpec(size, "reference")


MECHANISM = Mechanism(
    name="local_alignment",
    family="temporal",
    layout="BCHW",
    paper="after Guo et al., ICCV 2019",
    build=LocalAlignment,
    params=params,
    macs=macs,
    inputs=inputs,
    natural=Shape(1, 1024, 38, 63),
    exempt={
        "every_parameter_gets_a_finite_gradient:key.bias": "softmax is blind to a shift of all logits of a row",
    },
)
