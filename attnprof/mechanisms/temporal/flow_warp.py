"""Feature warping by optical flow (Deep Feature Flow).

Paper     Zhu, Xiong, Dai, Yuan, Wei, "Deep Feature Flow for Video Recognition", CVPR 2017, arXiv:1611.07715, section 3
Idea      The features of a key frame are moved along a flow field to the current frame, and their size is corrected by a scale
          field, instead of being computed anew.
Formula   y(p) = s(p) * x(p + flow(p)), bilinear, 0 outside the map
Shapes    x: B C H W (key frame), flow: B 2 H W (right, down, in positions of x), scale: B C H W -> y: B C H W
Params    0
Cost      no MACs: four samples per element, element-wise work only; maps of N*C elements
Defaults  scale True: with the scale field (section 3), of C channels as the official network predicts it; alignment exact and
          padding zeros, as the official operators
Differs   nothing: without motion the map stays as it is, up to the rounding of the coordinates. The flow network is outside,
          its two fields are inputs at the resolution of x (the official one predicts them there). alignment shifted with
          padding border and scale False is mmtracking's: coordinates divided by W and H where the sampler expects W - 1 and
          H - 1, so that a flow of zero moves the map; its resizing of the flow is outside
Survey    domain: temporal; g: sub-network predicts a flow field; f: sample, scale; tasks: Det, SSeg; kind: hard; goal: III;
          stage: 2 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class FlowWarp(nn.Module):
    """Warping: x (B, C, H, W), flow (B, 2, H, W), scale (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, scale: bool = True, alignment: str = "exact", padding: str = "zeros") -> None:
        super().__init__()
        if alignment not in ("exact", "shifted"):
            raise ValueError(f"alignment is exact or shifted, not {alignment}")
        self.scale, self.alignment, self.padding = scale, alignment, padding

    def forward(self, x: Tensor, flow: Tensor, scale: Tensor | None = None) -> Tensor:
        shifted = self.alignment == "shifted"
        grid = torch.stack([self.towards(flow, 0, x.shape[3]), self.towards(flow, 1, x.shape[2])], dim=3)  # B H W 2
        y = F.grid_sample(x, grid, mode="bilinear", padding_mode=self.padding, align_corners=shifted)  # B C H W
        return y if scale is None else y * scale

    def towards(self, flow: Tensor, axis: int, size: int) -> Tensor:
        """Position plus flow along one axis (0: right, 1: down), in the units of grid_sample: B H W."""
        place = torch.arange(size, dtype=flow.dtype, device=flow.device)
        if self.alignment == "exact":
            place = place + 0.5
        place = 2 / size * place - 1  # W, or H
        return torch.add(place if axis == 0 else place[:, None], flow[:, axis], alpha=2 / size)


def params(channels: int, scale: bool = True, alignment: str = "exact", padding: str = "zeros") -> int:
    """Closed form of the parameter count."""
    return 0


def macs(shape: Shape, scale: bool = True, alignment: str = "exact", padding: str = "zeros") -> int:
    """Multiply-accumulates of one forward pass."""
    return 0


def inputs(shape: Shape, scale: bool = True, **_: object) -> tuple[TensorSpec, ...]:
    """Features of the key frame, flow field, scale field."""
    features = TensorSpec((shape.batch, shape.channels, *shape.hw), "x")
    flow = TensorSpec((shape.batch, 2, *shape.hw), "flow")
    field = TensorSpec((shape.batch, shape.channels, *shape.hw), "scale")
    return (features, flow, field) if scale else (features, flow)


MECHANISM = Mechanism(
    name="flow_warp",
    family="temporal",
    layout="BCHW",
    paper="Zhu et al., CVPR 2017",
    build=FlowWarp,
    params=params,
    macs=macs,
    natural=Shape(1, 1024, 38, 63),
    rows={"alignment": ("exact", "shifted")},
    inputs=inputs,
)
