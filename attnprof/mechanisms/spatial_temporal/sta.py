"""Spatial-temporal attention (STA) for person re-identification.

Paper     Fu, Wang, Wei, Huang, "STA: Spatial-Temporal Attention for Large-Scale Video-based Person Re-Identification", AAAI
          2019, arXiv:1811.04129
Idea      The energy of the features says where a frame shows something: each horizontal stripe of the body is taken once from
          the frame that shows it best, and once as the average of all frames weighted by how well each shows it.
Formula   g_ti = |f_ti| / sqrt(sum_j |f_tj|^2), lengths over the channels;  s_tp = sum of g_ti over stripe p;
          a_tp = s_tp / sum_u s_up;  y = mean over stripes of [f_{best(p), p}, sum_t a_tp f_tp], best(p) = argmax_t a_tp
Shapes    x: B T C H W -> y: B 2C
Params    0
Cost      0 MACs: norms, pooling and a weighted sum over T*N*C elements, all of it element-wise
Defaults  stripes P = 4 (paper); the paper's clips have 4 frames of 16 x 8 positions at C = 2048
Differs   stripes are averaged before they are chosen and weighed, which is the paper's pooling at the end done first: the same
          values where P divides H. Elsewhere stripes overlap by a row, as in adaptive pooling (a public re-implementation).
          s is an average, the paper's sum over the area, which cancels in a. Outside: the inter-frame regularisation (a loss on
          g of two frames) and the fully connected layer 2C -> 1024 of the head
Survey    domain: spatial & temporal; g: a) temporal, per-frame attention maps using l2 norm, b) spatial, scores for each patch
          by summation and l1 norm; f: weighted sum, selection; tasks: ReID; kind: soft, hard; goal: I; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class STA(nn.Module):
    """Stripes of the best frame and of the weighted frames: x (B, T, C, H, W) -> (B, 2C)."""

    def __init__(self, channels: int, stripes: int = 4) -> None:
        super().__init__()
        self.stripes = stripes

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, channels = x.shape[:3]
        energy = (x * x).sum(dim=2)  # B T H W
        attention = energy.sqrt() * energy.sum(dim=(2, 3), keepdim=True).rsqrt()  # B T H W
        scores = self.pool(attention).squeeze(3)  # B T P
        scores = scores / scores.sum(dim=1, keepdim=True)
        parts = self.pool(x.flatten(0, 1)).view(batch, frames, channels, self.stripes)  # B T C P
        best = scores.argmax(dim=1)[:, None, None].expand(-1, 1, channels, -1)  # B 1 C P
        chosen = parts.gather(1, best).squeeze(1)  # B C P
        weighted = (parts * scores[:, :, None]).sum(dim=1)  # B C P
        return torch.cat([chosen, weighted], dim=1).mean(dim=2)  # B 2C

    def pool(self, x: Tensor) -> Tensor:
        """Averages over horizontal stripes: . . H W -> . . P 1."""
        return F.adaptive_avg_pool2d(x, (self.stripes, 1))


def params(channels: int, stripes: int = 4) -> int:
    """Closed form of the parameter count."""
    return 0


def macs(shape: Shape, stripes: int = 4) -> int:
    """Multiply-accumulates of one forward pass."""
    return 0


MECHANISM = Mechanism(
    name="sta",
    family="spatial_temporal",
    layout="BTCHW",
    paper="Fu et al., AAAI 2019",
    build=STA,
    params=params,
    macs=macs,
    natural=Shape(1, 2048, 16, 8, 4),
)
