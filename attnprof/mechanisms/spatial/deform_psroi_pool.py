"""Deformable position-sensitive RoI pooling.

Paper     Dai, Qi, Xiong, Li, Zhang, Hu, Wei, "Deformable Convolutional Networks", ICCV 2017, arXiv:1703.06211, section 2.2
Idea      Each of the k x k bins of a box averages score maps of its own; the shift of a bin is read from offset maps in the
          same way, for every class.
Formula   y_cij = average of map (c, i, j) of S x over bin ij, moved by gamma o_cij * (w, h);  o_cij = average of the pair of
          maps (c, i, j) of O x over bin ij
Shapes    x: B C H W, rois: B R 4 (centre x, y, width, height, all relative to the map) -> y: B R num_classes+1 k k
Params    3*bins**2*(num_classes + 1)*(C + 1)
          1x1 convolutions with biases to k^2 (classes + 1) score maps and 2 k^2 (classes + 1) offset maps
Cost      3*N*k^2*(classes + 1)*C MACs per image, whatever the number of boxes; 3*N*k^2*(classes + 1) elements of maps, and
          2*s^2*R*k^2*(classes + 1) sampled values of offsets, then half as many of scores
Defaults  bins k = 7, gamma = 0.1 (section 2.2), num_classes = 20 (PASCAL VOC), samples s = 4 a side and bin (official code),
          boxes R = 128 (an image's boxes in training, official configuration; testing keeps 300)
Differs   follows the official operator: fixed s x s samples per bin at the upper left corners of its s x s parts, where the
          paper averages over the integer positions inside; samples beyond the map's edge do not count, the half pixel before
          the edge repeats it; a box is at least 0.1 pixels. Boxes are relative and not rounded (the official ones are pixels
          of the image, rounded), and get a gradient. Both layers are here, the branch for box regression, the average over
          bins and the softmax are not; maps lie in the order bin, class, (x, y); the offset layer starts at zero. All samples
          of a box are read in one call: a map of s^2 times the result, which the official operator does not hold
Survey    domain: spatial; g: sub-network predicts offsets; f: sample, average; tasks: Det; kind: hard; goal: I, III; stage: 2
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec

_OUTSIDE = -3.0  # in the units of grid_sample, whose map ends at -1: there all is zero


class DeformPSRoIPool(nn.Module):
    """Deformable position-sensitive RoI pooling: x (B, C, H, W), rois (B, R, 4) -> (B, R, num_classes + 1, k, k)."""

    def __init__(
        self,
        channels: int,
        num_classes: int = 20,
        bins: int = 7,
        gamma: float = 0.1,
        samples: int = 4,
        boxes: int = 128,
    ) -> None:
        super().__init__()
        self.classes, self.bins, self.gamma, self.samples = num_classes + 1, bins, gamma, samples
        self.score = nn.Conv2d(channels, bins**2 * self.classes, 1)
        self.offset = nn.Conv2d(channels, 2 * bins**2 * self.classes, 1)
        for tensor in self.offset.parameters():
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        batch, points, size = x.shape[0], self.bins**2, x.shape[2:]
        point = torch.arange(points, device=x.device)
        column = self.places(rois[:, :, 0::2], point % self.bins, size[1])  # B k^2 R s
        row = self.places(rois[:, :, 1::2], point // self.bins, size[0])  # B k^2 R s
        maps = self.offset(x).reshape(batch * points, 2 * self.classes, *size)  # B*k^2 2*K H W
        moves = self.pool(maps, column.flatten(0, 1), row.flatten(0, 1))  # B*k^2 2*K R
        moves = self.gamma * moves.view(batch, points, self.classes, 2, -1, 1)  # B k^2 K 2 R 1
        wide = (rois[:, None, None, :, 2:3] * size[1]).clamp(min=0.1)  # B 1 1 R 1
        high = (rois[:, None, None, :, 3:4] * size[0]).clamp(min=0.1)  # B 1 1 R 1
        column = column.unsqueeze(2) + moves[:, :, :, 0] * wide  # B k^2 K R s
        row = row.unsqueeze(2) + moves[:, :, :, 1] * high  # B k^2 K R s
        maps = self.score(x).reshape(batch * points * self.classes, 1, *size)  # B*k^2*K 1 H W
        pooled = self.pool(maps, column.flatten(0, 2), row.flatten(0, 2))  # B*k^2*K 1 R
        return pooled.view(batch, self.bins, self.bins, self.classes, -1).permute(0, 4, 3, 1, 2)  # B R K k k

    def places(self, sides: Tensor, index: Tensor, size: int) -> Tensor:
        """Pixels along one axis: centre and length (B, R, 2), the bins' index (k^2) -> (B, k^2, R, s)."""
        start = (sides[:, None, :, :1] - sides[:, None, :, 1:] / 2) * size - 0.5  # B 1 R 1
        length = (sides[:, None, :, 1:] * size).clamp(min=0.1)  # B 1 R 1
        part = torch.arange(self.samples, dtype=sides.dtype, device=sides.device) / self.samples  # s
        return start + length * ((index.to(sides.dtype)[:, None, None] + part) / self.bins)

    def pool(self, maps: Tensor, column: Tensor, row: Tensor) -> Tensor:
        """Averages over the samples that lie inside: maps (X, M, H, W), pixels (X, R, s) -> (X, M, R)."""
        height, width = maps.shape[2:]
        inside_x = (column >= -0.5) & (column <= width - 0.5)  # X R s
        inside_y = (row >= -0.5) & (row <= height - 0.5)  # X R s
        found = inside_x.sum(dim=2, dtype=maps.dtype) * inside_y.sum(dim=2, dtype=maps.dtype)  # X R
        column = torch.where(inside_x, (2 * column.clamp(0, width - 1) + 1) / width - 1, _OUTSIDE)
        row = torch.where(inside_y, (2 * row.clamp(0, height - 1) + 1) / height - 1, _OUTSIDE)
        pairs = torch.broadcast_tensors(column[:, :, None, :], row[:, :, :, None])  # X R s s
        grid = torch.stack(pairs, dim=4).flatten(2, 3)  # X R s^2 2
        values = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)  # X M R s^2
        return values.sum(dim=3) / found.clamp(min=1).unsqueeze(1)


def params(
    channels: int,
    num_classes: int = 20,
    bins: int = 7,
    gamma: float = 0.1,
    samples: int = 4,
    boxes: int = 128,
) -> int:
    """Closed form of the parameter count."""
    return 3 * bins**2 * (num_classes + 1) * (channels + 1)


def macs(
    shape: Shape,
    num_classes: int = 20,
    bins: int = 7,
    gamma: float = 0.1,
    samples: int = 4,
    boxes: int = 128,
) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * shape.height * shape.width * 3 * bins**2 * (num_classes + 1) * shape.channels


def inputs(shape: Shape, boxes: int = 128, **_: object) -> tuple[TensorSpec, ...]:
    """Features and boxes (centre x, y, width, height), relative to the map."""
    features = TensorSpec((shape.batch, shape.channels, *shape.hw), "x")
    return features, TensorSpec((shape.batch, boxes, 4), "rois", values="uniform")


MECHANISM = Mechanism(
    name="deform_psroi_pool",
    family="spatial",
    layout="BCHW",
    paper="Dai et al., ICCV 2017",
    build=DeformPSRoIPool,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 38, 63),
    inputs=inputs,
)
