"""Flow-guided feature aggregation (FGFA).

Paper     Zhu, Wang, Dai, Yuan, Wei, "Flow-Guided Feature Aggregation for Video Object Detection", ICCV 2017, arXiv:1703.10025,
          section 3.2
Idea      Features of nearby frames are warped to the current frame along optical flow and averaged, each position of each frame
          weighted by how much its embedding resembles the current one.
Formula   f_t(p) = x_t(p + flow_t(p));  w_t(p) = softmax_t(cos(E(f_t)(p), E(x)(p)));  y(p) = sum_t w_t(p) f_t(p)
Shapes    x: B C H W (current frame), references: B T C H W, flow: B T 2 H W (right, down) -> y: B C H W
Params    9*C**2 + C
          E: one 3x3 convolution with bias; embedding bottleneck: 3.75*C**2 + 3*C
Cost      9*N*C^2*(T + 1) MACs per image (bottleneck: 3.75*N*C^2*(T + 1)); maps of T*N*C elements: references, warped
          references, embeddings
Defaults  embedding conv: one 3x3 convolution, as mmtracking, so that the count is its 9C^2 + C; the paper's is bottleneck: 1x1,
          3x3, 1x1 to 512, 512 and 2048 channels, ReLU between (section 3.4), here C/2, C/2 and 2C, the same at its C = 1024.
          T = 21 in the paper's tests, the current frame among them
Differs   any batch (mmtracking takes 1). E is applied to the warped maps, as in the paper and the official training; the
          official test network warps embeddings that were computed before. The current frame is among the references where the
          caller puts it there. The flow network is outside; warp False takes references that are warped already, as
          mmtracking's aggregator. The product of embeddings is divided by the product of their lengths, held above 1e-10,
          instead of each embedding by its own: the same cosine without two more maps
Survey    domain: temporal; g: flow, embedding, cosine similarity, softmax; f: sample, weighted sum; tasks: Det; kind: soft;
          goal: III; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class FGFA(nn.Module):
    """Aggregation: x (B, C, H, W), references (B, T, C, H, W), flow (B, T, 2, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, embedding: str = "conv", warp: bool = True) -> None:
        super().__init__()
        if embedding not in ("conv", "bottleneck"):
            raise ValueError(f"embedding is conv or bottleneck, not {embedding}")
        self.warp = warp
        half = channels // 2
        if embedding == "conv":
            self.embed = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1))
        else:
            self.embed = nn.Sequential(
                nn.Conv2d(channels, half, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(half, half, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(half, 2 * channels, 1),
            )

    def forward(self, x: Tensor, references: Tensor, flow: Tensor | None = None) -> Tensor:
        if flow is not None and not self.warp:
            raise ValueError(f"warp False takes references that are warped already, not a flow of {tuple(flow.shape)}")
        frames = references.flatten(0, 1)  # B*T C H W
        if flow is not None:
            frames = self.warped(frames, flow.flatten(0, 1))  # B*T C H W
        weights = self.similarity(frames, x).softmax(dim=1)  # B T H W
        return (weights.unsqueeze(2) * frames.view(references.shape)).sum(dim=1)  # B C H W

    def similarity(self, frames: Tensor, x: Tensor) -> Tensor:
        """Cosine of the embeddings of the frames (B*T, C, H, W) and of the current one (B, C, H, W): (B, T, H, W)."""
        key, query = self.embed(frames), self.embed(x)  # B*T E H W, B E H W
        key = key.view(x.shape[0], -1, *query.shape[1:])  # B T E H W
        query = query.unsqueeze(1)  # B 1 E H W
        lengths = torch.linalg.vector_norm(key, dim=2) * torch.linalg.vector_norm(query, dim=2)  # B T H W
        return (key * query).sum(dim=2) / lengths.clamp(min=1e-10)

    def warped(self, x: Tensor, flow: Tensor) -> Tensor:
        """x(p + flow(p)), bilinear, 0 outside the map: B*T C H W."""
        height, width = x.shape[2:]
        columns = torch.arange(0.5, width, dtype=x.dtype, device=x.device) * (2 / width) - 1  # W
        rows = torch.arange(0.5, height, dtype=x.dtype, device=x.device) * (2 / height) - 1  # H
        right = torch.add(columns, flow[:, 0], alpha=2 / width)  # B*T H W
        down = torch.add(rows[:, None], flow[:, 1], alpha=2 / height)  # B*T H W
        grid = torch.stack((right, down), dim=3)  # B*T H W 2
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def params(channels: int, embedding: str = "conv", warp: bool = True) -> int:
    """Closed form of the parameter count."""
    if embedding == "conv":
        return 9 * channels**2 + channels
    half = channels // 2
    return 3 * channels * half + 9 * half**2 + 2 * half + 2 * channels


def macs(shape: Shape, embedding: str = "conv", warp: bool = True) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, half = shape.channels, shape.channels // 2
    per_position = 9 * channels**2 if embedding == "conv" else 3 * channels * half + 9 * half**2
    return shape.batch * (shape.frames + 1) * shape.height * shape.width * per_position


def inputs(shape: Shape, embedding: str = "conv", warp: bool = True) -> tuple[TensorSpec, ...]:
    """Features of the current frame, features of the other frames, and the flow from the current frame to each of them."""
    features = TensorSpec((shape.batch, shape.channels, *shape.hw), "x")
    references = TensorSpec((shape.batch, shape.frames, shape.channels, *shape.hw), "references")
    flow = TensorSpec((shape.batch, shape.frames, 2, *shape.hw), "flow")
    return (features, references, flow) if warp else (features, references)


MECHANISM = Mechanism(
    name="fgfa",
    family="temporal",
    layout="BCHW",
    paper="Zhu et al., ICCV 2017",
    build=FGFA,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 38, 63, 3),
    inputs=inputs,
)
