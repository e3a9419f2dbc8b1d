"""Spatial-temporal graph convolutional network (STGCN) for person re-identification.

Paper     Yang, Zheng, Yang, Chen, Tian, "Spatial-Temporal Graph Convolutional Network for Video-based Person
          Re-identification", CVPR 2020
Idea      Horizontal patches of all frames are the nodes of one graph, whose edges are learned similarities: frames complete
          each other. The patches of each frame alone are a second, small graph, which holds the structure of the body.
Formula   x = stripe averages;  e_ij = (phi x_i) . (phi x_j);  A_ij = e_ij^2 / sum_j e_ij^2;  G = D^-1/2 (A + I) D^-1/2, D the
          row sums of A + I;  X_m = leakyrelu(LN(G X_(m-1) W_m)) + X_(m-1), the sum from the second layer on;
          f = max over the nodes of X_L;  temporal: one graph of TP nodes, W_m C x C;  structural: T graphs of P nodes, each
          with weights of its own, C x w, then w x w
Shapes    x: B T C H W -> temporal: B C, structural: B Tw
Params    5*C**2 + 6*C + T*(C*(C//8) + 2*(C//8)**2) + 6*(C//8)
          (1 + L) C^2 + 2LC of the temporal branch, C^2 + T(Cw + (L - 1) w^2) + 2Lw of the structural one, L layers
Cost      T*P*(1 + L)*C^2 + (T*P)^2*(1 + L)*C + T*P*(C^2 + C*w + (L - 1)*w^2) + T*P^2*(C + L*w) MACs per clip, whatever the
          resolution; a TP x TP map
Defaults  patches P = 4, layers L = 3, T = 8 frames from the case; w = C/8 (paper: 256 per frame of C = 2048, together 2048 at
          T = 8; temporal feature 2048 = C)
Differs   interpretation: no code of the authors is public. Chosen here: P and L; layer norm as the paper's normalisation layer
          (in the structural branch one for all frames); slope 0.01; phi without bias, one for each branch; structural widths
          C -> w in the first layer; X W before G. A: summaries of the paper give a softmax of phi^T phi; followed here are the
          squares over their sum, as in the formula above. Either way the rows of A add up to 1, so D = 2I, and G is computed as
          (A + I)/2. Stripes overlap by a row where P does not divide H (adaptive pooling). The global branch, a plain average,
          and the heads are outside
Survey    domain: spatial & temporal; g: patch graph from pairwise similarity; f: graph convolution, matmul; tasks: ReID;
          kind: soft; goal: I; stage: 4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class STGCN(nn.Module):
    """Graph convolutions of patches over the clip and in each frame: x (B, T, C, H, W) -> (B, C), (B, T w)."""

    def __init__(self, channels: int, frames: int, patches: int = 4, layers: int = 3, width: int | None = None) -> None:
        super().__init__()
        width = structural_width(channels, width)
        self.patches = patches
        self.temporal_phi = nn.Linear(channels, channels, bias=False)
        self.temporal = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(layers))
        self.temporal_norm = nn.ModuleList(nn.LayerNorm(channels) for _ in range(layers))
        self.structural_phi = nn.Linear(channels, channels, bias=False)
        sizes = [channels, *[width] * (layers - 1)]
        self.structural = nn.ParameterList(torch.randn(frames, size, width) * size**-0.5 for size in sizes)
        self.structural_norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, frames, channels = x.shape[:3]
        x = F.adaptive_avg_pool2d(x.flatten(0, 1), (self.patches, 1))  # BT C P 1
        x = x.squeeze(3).transpose(1, 2).contiguous()  # BT P C
        temporal = self.over_the_clip(x.view(batch, frames * self.patches, channels))
        by_frame = x.view(batch, frames, self.patches, channels).transpose(0, 1).contiguous()  # T B P C
        return temporal, self.in_each_frame(by_frame)

    def over_the_clip(self, x: Tensor) -> Tensor:
        """One graph of all patches of a clip: B TP C -> B C."""
        adjacency = self.adjacency(self.temporal_phi(x))  # B TP TP
        for layer, (linear, norm) in enumerate(zip(self.temporal, self.temporal_norm, strict=True)):
            y = F.leaky_relu(norm(torch.bmm(adjacency, linear(x))))  # B TP C
            x = y + x if layer else y
        return x.amax(dim=1)

    def in_each_frame(self, x: Tensor) -> Tensor:
        """A graph of the patches of each frame, with weights of its own: T B P C -> B Tw."""
        frames, batch, patches, _ = x.shape
        adjacency = self.adjacency(self.structural_phi(x).flatten(0, 1))  # TB P P
        x = x.flatten(1, 2)  # T BP C
        for layer, (weight, norm) in enumerate(zip(self.structural, self.structural_norm, strict=True)):
            y = torch.bmm(x, weight).view(frames * batch, patches, -1)  # TB P w
            y = F.leaky_relu(norm(torch.bmm(adjacency, y))).view(frames, batch * patches, -1)  # T BP w
            x = y + x if layer else y
        x = x.view(frames, batch, patches, -1).amax(dim=2)  # T B w
        return x.transpose(0, 1).flatten(1)  # B Tw

    def adjacency(self, x: Tensor) -> Tensor:
        """Squared similarities, each row with itself added and normalised: G n C -> G n n."""
        edges = torch.bmm(x, x.transpose(1, 2))
        edges = edges * edges
        edges = edges / edges.sum(dim=2, keepdim=True)
        return 0.5 * (edges + torch.eye(x.shape[1], device=x.device, dtype=x.dtype))


def structural_width(channels: int, width: int | None) -> int:
    """Channels of the structural branch: an eighth, where none are given."""
    found = channels // 8 if width is None else width
    if found < 1:
        raise ValueError(f"the structural branch has one channel or more, not {found} ({channels} channels, width {width})")
    return found


def params(channels: int, frames: int, patches: int = 4, layers: int = 3, width: int | None = None) -> int:
    """Closed form of the parameter count."""
    width = structural_width(channels, width)
    temporal = (1 + layers) * channels**2 + 2 * layers * channels
    weights = frames * (channels * width + (layers - 1) * width**2)
    return temporal + channels**2 + weights + 2 * layers * width


def macs(shape: Shape, frames: int, patches: int = 4, layers: int = 3, width: int | None = None) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, nodes = shape.channels, frames * patches
    width = structural_width(channels, width)
    temporal = (1 + layers) * (nodes * channels**2 + nodes**2 * channels)
    structural = nodes * (channels**2 + channels * width + (layers - 1) * width**2)
    return shape.batch * (temporal + structural + nodes * patches * (channels + layers * width))


MECHANISM = Mechanism(
    name="stgcn",
    family="spatial_temporal",
    layout="BTCHW",
    paper="Yang et al., CVPR 2020",
    build=STGCN,
    params=params,
    macs=macs,
    natural=Shape(1, 2048, 16, 8, 8),
)
