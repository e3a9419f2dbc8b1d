"""Locally-weighted deformable neighbours (LWDN).

Paper     Jiang, Gao, Guo, Zhang, Xiang, Pan, "Video Object Detection with Locally-Weighted Deformable Neighbors", AAAI 2019
Idea      In place of optical flow: a small network compares low-level features of key and current frame and predicts, at every
          position, where around it to read the key frame's features and with which weights.
Formula   y(p) = sum_n w_n(p) f(p + p_n + o_n(p));  w = softmax_n(a);  (a, o) = W2 * relu(W1 * corr(l_key, l_current));
          corr_d(p) = mean over channels of l_current(p) l_key(p + d), |d| <= radius
Shapes    key: B C H W, low_key and low_current: B L H W -> y: B C H W (update: and the new key frame's features, B C H W)
Params    (9*(2*correlation + 1)**2 + 1)*mid + (9*mid + 1)*3*kernel**2
          two 3x3 convolutions; update: (9*C + 2)*mid more
Cost      9*N*mid*((2r + 1)^2 + 3k^2) MACs per image (update: 2*N*mid*(9C + 1) more); element-wise: N*k^2*C samples and
          weights, (2r + 1)^2*N*L products; maps of N*C elements, one point at a time (training keeps all k^2)
Defaults  kernel k = 3, correlation radius r = 4, mid = 256, low_channels L = C: all of them interpretations
Differs   interpretation: there is no public code, and the paper was read in its abstract and in summaries. From it:
          position-sensitive weights and offsets for the neighbours, predicted from the correlation of the two low-level maps,
          one weight for all channels. Ours: the softmax that normalises the weights, the radius, two 3x3 layers with biases of
          which the second starts at zero, bilinear reading with 0 outside the map. correlation 0 concatenates the two low-level
          maps instead. update True is the step from key frame to key frame (memory-guided propagation): the moved memory and
          the new key frame's features are mixed by a softmax over the scores of a quality network, here 3x3 to mid, ReLU, 1x1
          to one map, without the bias to which the softmax is blind
Survey    domain: temporal; g: correlation, sub-network predicts weights and offsets, softmax; f: sample, weighted sum;
          tasks: Det; kind: soft, hard; goal: III; stage: 2 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class LWDN(nn.Module):
    """Propagation: key (B, C, H, W), low_key and low_current (B, L, H, W), current (B, C, H, W) or none -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        kernel: int = 3,
        correlation: int = 4,
        mid: int = 256,
        low_channels: int | None = None,
        update: bool = False,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel's side must be odd, not {kernel}")
        self.kernel, self.correlation = kernel, correlation
        compared = (2 * correlation + 1) ** 2 if correlation else 2 * (low_channels or channels)
        last = nn.Conv2d(mid, 3 * kernel**2, 3, padding=1)
        for tensor in last.parameters():
            nn.init.zeros_(tensor)
        self.predict = nn.Sequential(nn.Conv2d(compared, mid, 3, padding=1), nn.ReLU(inplace=True), last)
        if update:
            self.quality = nn.Sequential(
                nn.Conv2d(channels, mid, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(mid, 1, 1, bias=False)
            )

    def forward(self, key: Tensor, low_key: Tensor, low_current: Tensor, current: Tensor | None = None) -> Tensor:
        points = self.kernel**2
        pair = self.compare(low_key, low_current) if self.correlation else torch.cat((low_key, low_current), dim=1)
        weights, offsets = self.predict(pair).split((points, 2 * points), dim=1)  # B k^2 H W, B 2*k^2 H W
        moved = self.gather(key, weights.softmax(dim=1), offsets)  # B C H W
        if current is None:
            return moved
        scores = torch.cat((self.quality(moved), self.quality(current)), dim=1).softmax(dim=1)  # B 2 H W
        return scores[:, :1] * moved + scores[:, 1:] * current  # B C H W

    def compare(self, low_key: Tensor, low_current: Tensor) -> Tensor:
        """Mean products with the neighbours within the radius, row by row: B L H W, B L H W -> B (2r+1)^2 H W."""
        height, width = low_key.shape[2:]
        side = 2 * self.correlation + 1
        padded = F.pad(low_key, (self.correlation,) * 4)  # B L H+2r W+2r
        maps = [  # each slice beside its product: the backward pass then holds one gradient of it at a time
            (low_current * padded[:, :, i : i + height, j : j + width]).mean(dim=1)  # B H W
            for i in range(side)
            for j in range(side)
        ]
        return torch.stack(maps, dim=1)

    def gather(self, key: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
        """The weighted sum of the samples, one kernel point after the other: B C H W."""
        height, width = key.shape[2:]
        columns = torch.arange(0.5, width, dtype=key.dtype, device=key.device) * (2 / width) - 1  # W
        rows = torch.arange(0.5, height, dtype=key.dtype, device=key.device)[:, None] * (2 / height) - 1  # H 1
        total = torch.zeros_like(key)
        for n in range(self.kernel**2):
            down, right = n // self.kernel - self.kernel // 2, n % self.kernel - self.kernel // 2
            y = torch.add(rows + down * 2 / height, offsets[:, 2 * n], alpha=2 / height)  # B H W
            x = torch.add(columns + right * 2 / width, offsets[:, 2 * n + 1], alpha=2 / width)  # B H W
            grid = torch.stack((x, y), dim=3)  # B H W 2
            total.addcmul_(
                weights[:, n : n + 1],
                F.grid_sample(key, grid, mode="bilinear", padding_mode="zeros", align_corners=False),  # B C H W
            )
        return total


def params(
    channels: int,
    kernel: int = 3,
    correlation: int = 4,
    mid: int = 256,
    low_channels: int | None = None,
    update: bool = False,
) -> int:
    """Closed form of the parameter count."""
    compared = (2 * correlation + 1) ** 2 if correlation else 2 * (low_channels or channels)
    return (9 * compared + 1) * mid + (9 * mid + 1) * 3 * kernel**2 + update * (9 * channels + 2) * mid


def macs(
    shape: Shape,
    kernel: int = 3,
    correlation: int = 4,
    mid: int = 256,
    low_channels: int | None = None,
    update: bool = False,
) -> int:
    """Multiply-accumulates of one forward pass."""
    compared = (2 * correlation + 1) ** 2 if correlation else 2 * (low_channels or shape.channels)
    per_position = 9 * mid * (compared + 3 * kernel**2) + update * 2 * mid * (9 * shape.channels + 1)
    return shape.batch * shape.height * shape.width * per_position


def inputs(shape: Shape, low_channels: int | None = None, update: bool = False, **_: object) -> tuple[TensorSpec, ...]:
    """The key frame's features, both frames' low-level features and, with update, the current frame's features."""
    size = (shape.batch, shape.channels, *shape.hw)
    low = (shape.batch, low_channels or shape.channels, *shape.hw)
    found = TensorSpec(size, "key"), TensorSpec(low, "low_key"), TensorSpec(low, "low_current")
    return (*found, TensorSpec(size, "current")) if update else found


MECHANISM = Mechanism(
    name="lwdn",
    family="temporal",
    layout="BCHW",
    paper="Jiang et al., AAAI 2019",
    build=LWDN,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 38, 63),
    inputs=inputs,
)
