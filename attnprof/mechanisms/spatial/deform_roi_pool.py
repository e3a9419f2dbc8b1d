"""Deformable RoI pooling.

Paper     Dai, Qi, Xiong, Li, Zhang, Hu, Wei, "Deformable Convolutional Networks", ICCV 2017, arXiv:1703.06211, section 2.2
Idea      Average the features in k x k bins of a box, each bin shifted by an offset that a layer on the plainly pooled box
          predicts.
Formula   y_ij = average of x over bin ij, moved by gamma o_ij * (w, h);  o = W pool(x) + b, pool the same without offsets
Shapes    x: B C H W, rois: B R 4 (centre x, y, width, height, all relative to the map) -> y: B R C k k
Params    2*bins**2*(bins**2*C + 1)
          one fully connected layer, k^2 C -> 2 k^2 with bias
Cost      2*R*k^4*C MACs per image; 2*s^2 samples per box, bin and channel are read; maps of R*k^2*C elements
Defaults  bins k = 7, gamma = 0.1 (section 2.2), samples s = 4 a side and bin (official code), boxes R = 128 (an image's boxes
          in training, official configuration; testing keeps 300)
Differs   follows the official operator: fixed s x s samples per bin at the upper left corners of its s x s parts, where the
          paper averages over the integer positions inside; samples beyond the map's edge do not count, the half pixel before
          the edge repeats it; a box is at least 0.1 pixels. Boxes are relative and not rounded (the official ones are pixels
          of the image, rounded), and get a gradient. The first k^2 offsets are along x, then k^2 along y; the layer starts at
          zero. Samples are read one corner after the other, all bins at once, so that no map of s^2 times the result appears
Survey    domain: spatial; g: sub-network predicts offsets; f: sample, average; tasks: Det; kind: hard; goal: I, III; stage: 2
          (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec

_OUTSIDE = -3.0  # in the units of grid_sample, whose map ends at -1: there all is zero


class DeformRoIPool(nn.Module):
    """Deformable RoI pooling: x (B, C, H, W), rois (B, R, 4) -> (B, R, C, k, k)."""

    def __init__(self, channels: int, bins: int = 7, gamma: float = 0.1, samples: int = 4, boxes: int = 128) -> None:
        super().__init__()
        self.bins, self.gamma, self.samples = bins, gamma, samples
        self.offset = nn.Linear(channels * bins**2, 2 * bins**2)
        for tensor in self.offset.parameters():
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        offset = self.offset(self.pool(x, rois, None).flatten(2))  # B R 2*k^2
        offset = self.gamma * offset.unflatten(2, (2, self.bins**2))  # B R 2 k^2
        return self.pool(x, rois, offset).unflatten(3, (self.bins, self.bins))  # B R C k k

    def pool(self, x: Tensor, rois: Tensor, offset: Tensor | None) -> Tensor:
        """Averages over the bins, moved by offset (B, R, (x, y), k^2) times the size of the box: (B, R, C, k^2)."""
        height, width = x.shape[2:]
        point = torch.arange(self.bins**2, device=x.device)
        column = self.places(rois[:, :, 0::2], None if offset is None else offset[:, :, 0], point % self.bins, width)
        row = self.places(rois[:, :, 1::2], None if offset is None else offset[:, :, 1], point // self.bins, height)
        inside_x, inside_y = self.inside(column, width), self.inside(row, height)  # B R k^2 s
        found = inside_x.sum(dim=3, dtype=x.dtype) * inside_y.sum(dim=3, dtype=x.dtype)  # B R k^2
        column, row = self.read_at(column, inside_x, width), self.read_at(row, inside_y, height)  # B R k^2 s
        total = x.new_zeros(*x.shape[:2], *column.shape[1:3])  # B C R k^2
        for j in range(self.samples):
            for i in range(self.samples):
                grid = torch.stack((column[..., i], row[..., j]), dim=3)  # B R k^2 2
                total += F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return total.div_(found.clamp(min=1).unsqueeze(1)).transpose(1, 2)  # B R C k^2

    def places(self, sides: Tensor, offset: Tensor | None, index: Tensor, size: int) -> Tensor:
        """Pixels along one axis: centre and length (B, R, 2), offset (B, R, k^2), the bins' index (k^2) -> (B, R, k^2, s)."""
        start = (sides[:, :, :1] - sides[:, :, 1:] / 2) * size - 0.5  # B R 1
        length = (sides[:, :, 1:] * size).clamp(min=0.1)  # B R 1
        share = index.to(sides.dtype) / self.bins  # k^2
        start = start + length * (share if offset is None else share + offset)  # B R k^2
        part = torch.arange(self.samples, dtype=sides.dtype, device=sides.device) / (self.bins * self.samples)  # s
        return start.unsqueeze(3) + length.unsqueeze(3) * part

    def inside(self, place: Tensor, size: int) -> Tensor:
        """Which samples count."""
        return (place >= -0.5) & (place <= size - 0.5)

    def read_at(self, place: Tensor, inside: Tensor, size: int) -> Tensor:
        """Pixels to the units of grid_sample: held within the map, and outside it for those that do not count."""
        return torch.where(inside, (2 * place.clamp(0, size - 1) + 1) / size - 1, _OUTSIDE)


def params(channels: int, bins: int = 7, gamma: float = 0.1, samples: int = 4, boxes: int = 128) -> int:
    """Closed form of the parameter count."""
    return 2 * bins**2 * (bins**2 * channels + 1)


def macs(shape: Shape, bins: int = 7, gamma: float = 0.1, samples: int = 4, boxes: int = 128) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * boxes * 2 * bins**4 * shape.channels


def inputs(shape: Shape, boxes: int = 128, **_: object) -> tuple[TensorSpec, ...]:
    """Features and boxes (centre x, y, width, height), relative to the map."""
    features = TensorSpec((shape.batch, shape.channels, *shape.hw), "x")
    return features, TensorSpec((shape.batch, boxes, 4), "rois", values="uniform")


MECHANISM = Mechanism(
    name="deform_roi_pool",
    family="spatial",
    layout="BCHW",
    paper="Dai et al., ICCV 2017",
    build=DeformRoIPool,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 38, 63),
    inputs=inputs,
)
