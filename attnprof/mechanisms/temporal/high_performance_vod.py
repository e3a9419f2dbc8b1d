"""Sparsely recursive feature aggregation with partial updates (Towards High Performance Video Object Detection).

Paper     Zhu, Dai, Yuan, Wei, "Towards High Performance Video Object Detection", CVPR 2018, arXiv:1711.11577,
          sections 3.1, 3.2 and 3.4
Idea      Key frames hand an aggregated feature map on to the next key frame along the optical flow; other frames warp the key
          frame's features, but take their own where a predicted quality says that the warp is no good.
Formula   P_i = U_i F_i + (1 - U_i) warp(F_k, M_i), U_i = 1 where Q_i <= tau (in key frames everywhere), else 0;
          A_i = w_i warp(A_k, M_i) + (1 - w_i) P_i, w_i = exp(s_i) / (exp(s_i) + exp(1)),
          s_i = cosine(E(warp(A_k, M_i)), E(P_i)), k the last key frame before i, A_0 = F_0
Shapes    x: B T C H W (features of every frame), flow: B T-1 2 H W (from frame i to its key frame, in positions, x first),
          quality: B T-1 1 H W -> y: B T C H W, the aggregates A
Params    C*(C//2) + C//2 + 9*(C//2)**2 + C//2 + 2*C*(C//2) + 2*C
          C*h + h + 9h^2 + h + h*e + e of the embedding E at h = C/2, e = 2C: 3.75C^2 + 3C
Cost      2*(T - 1)*N*(C*h + 9*h^2 + h*e) MACs per clip; warps and weights are 0 counted. No map larger than 2C x N lives per
          step in inference; training keeps every step
Defaults  interval = 10 frames from key to key (the paper's baseline); threshold tau = 0; embedding 1x1, 3x3, 1x1 with ReLU
          between, hidden h = C/2 and embedding e = 2C (512 and 2048 at C = 1024: FGFA, which the paper takes over)
Differs   interpretation: no code of the authors is public. The flow network, which predicts flow and quality, and the backbone
          are outside: x holds the full features of every frame, and what a partial update saves in the backbone (whose layers
          would run where U = 1 only) is not in the numbers. Key frames come at a fixed interval: the paper's adaptive choice
          (key where the share of Q <= tau exceeds gamma) depends on the data. The step U has the paper's surrogate gradient, -1
          where |Q - tau| <= 0.5. Warps are bilinear, zero outside the map, and zero flow is the identity. Warped features are
          embedded, as in FGFA's training graph; its test graph warps the embeddings of the frames
Survey    domain: temporal; g: optical flow, feature quality, cosine similarity of embeddings; f: warp, weighted sum;
          tasks: Det; kind: soft, hard; goal: I, III; stage: 2 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class HighPerformanceVOD(nn.Module):
    """Recursive aggregation: x (B, T, C, H, W), flow (B, T-1, 2, H, W), quality (B, T-1, 1, H, W) -> (B, T, C, H, W)."""

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        embedding: int | None = None,
        interval: int = 10,
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        hidden, embedding = widths(channels, hidden, embedding)
        self.interval = interval
        self.threshold = threshold
        self.embed = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, embedding, 1),
        )

    def forward(self, x: Tensor, flow: Tensor, quality: Tensor) -> Tensor:
        key = aggregated = x[:, 0]  # B C H W: of the last key frame
        out = [aggregated]
        for t in range(1, x.shape[1]):
            current, grid = x[:, t], self.grid(flow[:, t - 1])
            warped = self.warp(aggregated, grid)
            is_key = t % self.interval == 0
            if not is_key:
                update = self.update(quality[:, t - 1])  # B 1 H W
                current = update * current + (1 - update) * self.warp(key, grid)
            weight = self.weight(warped, current)  # B 1 H W
            result = weight * warped + (1 - weight) * current
            out.append(result)
            if is_key:
                key, aggregated = current, result
        return torch.stack(out, dim=1)  # B T C H W

    def grid(self, flow: Tensor) -> Tensor:
        """Where each position looks, in grid_sample's units: B 2 H W -> B H W 2."""
        height, width = flow.shape[2:]
        rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
        columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
        x = (columns + flow[:, 0]) * (2 / max(width - 1, 1)) - 1  # B H W
        y = (rows[:, None] + flow[:, 1]) * (2 / max(height - 1, 1)) - 1  # B H W
        return torch.stack([x, y], dim=3)

    def warp(self, x: Tensor, grid: Tensor) -> Tensor:
        """Features sampled at p + flow(p)."""
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)

    def update(self, quality: Tensor) -> Tensor:
        """1 where the quality does not exceed the threshold, else 0; in the backward pass a slope of -1 around it."""
        distance = quality - self.threshold
        step = (distance <= 0).to(quality.dtype)
        slope = (0.5 - distance).clamp(0, 1)
        return step + (slope - slope.detach())

    def weight(self, warped: Tensor, current: Tensor) -> Tensor:
        """The weight of the warped features where the two weights add up to 1: softmax of (cosine, 1)."""
        a, b = self.embed(warped), self.embed(current)  # B e H W
        dot, aa, bb = ((u * v).sum(dim=1, keepdim=True) for u, v in ((a, b), (a, a), (b, b)))  # B 1 H W
        cosine = dot * aa.clamp_min(1e-10).rsqrt() * bb.clamp_min(1e-10).rsqrt()
        return (cosine - 1).sigmoid()


def widths(channels: int, hidden: int | None, embedding: int | None) -> tuple[int, int]:
    """Hidden and output channels of the embedding, with FGFA's proportions where none are given."""
    return hidden or channels // 2, embedding or 2 * channels


def params(
    channels: int,
    hidden: int | None = None,
    embedding: int | None = None,
    interval: int = 10,
    threshold: float = 0.0,
) -> int:
    """Closed form of the parameter count."""
    hidden, embedding = widths(channels, hidden, embedding)
    return channels * hidden + hidden + 9 * hidden**2 + hidden + hidden * embedding + embedding


def macs(
    shape: Shape,
    hidden: int | None = None,
    embedding: int | None = None,
    interval: int = 10,
    threshold: float = 0.0,
) -> int:
    """Multiply-accumulates of one forward pass."""
    hidden, embedding = widths(shape.channels, hidden, embedding)
    position = shape.channels * hidden + 9 * hidden**2 + hidden * embedding
    return shape.batch * 2 * (shape.frames - 1) * shape.height * shape.width * position


def inputs(shape: Shape, **_: object) -> tuple[TensorSpec, ...]:
    """Features of every frame; flow to the key frame and quality of every frame but the first."""
    batch, steps = shape.batch, shape.frames - 1
    features = TensorSpec((batch, shape.frames, shape.channels, *shape.hw), "x")
    return features, TensorSpec((batch, steps, 2, *shape.hw), "flow"), TensorSpec((batch, steps, 1, *shape.hw), "quality")


MECHANISM = Mechanism(
    name="high_performance_vod",
    family="temporal",
    layout="BTCHW",
    paper="Zhu et al., CVPR 2018",
    build=HighPerformanceVOD,
    params=params,
    macs=macs,
    inputs=inputs,
    natural=Shape(1, 1024, 38, 63, 2),
)
