"""Global-local temporal representation (GLTR).

Paper     Li, Wang, Tian, Gao, Zhang, "Global-Local Temporal Representations for Video Person Re-Identification", ICCV 2019,
          arXiv:1908.10049, the parts on DTP and TSA
Idea      Parallel dilated convolutions over time give each frame short-term context at several scales (DTP); self-attention
          between frames then relates the far ones and averages out occlusions (TSA); the mean over time is the descriptor.
Formula   f'_t = [conv_r1(f)_t, ..., conv_rR(f)_t];  M = softmax(Q K^T), Q = relu(BN(W_q f')), K = relu(BN(W_k f'));
          f'' = W (M W_v f') + f';  y = mean_t f''_t
Shapes    x: B T C -> y: B RD, frame features to clip feature
Params    9*C**2 + 12*C*(i := 3*C//2) + 7*i + 3*C
          C*D + D of the embedding if there is one, 3RD^2 of DTP, 4EF + 7E + F of TSA with F = RD and E = F/2
Cost      T*(3*R*D^2 + 4*E*F) + 2*T^2*E MACs per clip, a T x T map: nothing grows with the resolution
Defaults  rates 1, 2, 4, so R = 3, kernels of 3 frames; reduction 2, E = F/2 (paper). The paper's frame feature has D = 128
          channels, F = 384: C = 128 here, or width D = 128 for the backbone's C = 2048; T = 16
Differs   width None takes the input as the frame feature, D = C; a number puts the linear layer in front that makes it, as in
          the first author's code (2048 -> 128). That code has dilations 1, 2, 3, the frame feature itself as a fourth branch
          (rates=[1, 2, 3], keep_input), and a plain non-local block as TSA: no BN or ReLU in the embeddings, BN after W. Here
          TSA is the paper's; DTP has no biases and TSA starts as the identity, as in that code. The classifier is outside
Survey    domain: temporal; g: dilated 1D convolutions, self-attention in temporal dimension; f: matmul; tasks: ReID;
          kind: soft; goal: I, II; stage: 4
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class GLTR(nn.Module):
    """Dilated temporal pyramid and temporal self-attention: x (B, T, C) -> (B, branches D)."""

    def __init__(
        self,
        channels: int,
        width: int | None = None,
        rates: Sequence[int] = (1, 2, 4),
        reduction: int = 2,
        keep_input: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, width) if width else None
        depth, features, inner = sizes(channels, width, rates, reduction, keep_input)
        self.keep_input = keep_input
        self.pyramid = nn.ModuleList(nn.Conv1d(depth, depth, 3, padding=rate, dilation=rate, bias=False) for rate in rates)
        self.query = nn.Sequential(nn.Conv1d(features, inner, 1), nn.BatchNorm1d(inner), nn.ReLU(inplace=True))
        self.key = nn.Sequential(nn.Conv1d(features, inner, 1), nn.BatchNorm1d(inner), nn.ReLU(inplace=True))
        self.value = nn.Conv1d(features, inner, 1)
        self.w = nn.Conv1d(inner, features, 1)
        for tensor in self.w.parameters():
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        if self.embed is not None:
            x = self.embed(x)  # B T D
        x = x.transpose(1, 2).contiguous()  # B D T
        scales = [conv(x) for conv in self.pyramid]  # R of B D T
        x = torch.cat([x, *scales] if self.keep_input else scales, dim=1)  # B F T
        attention = torch.bmm(self.query(x).transpose(1, 2), self.key(x)).softmax(dim=-1)  # B T T
        context = torch.bmm(self.value(x), attention.transpose(1, 2))  # B E T
        return (self.w(context) + x).mean(dim=2)  # B F


def sizes(channels: int, width: int | None, rates: Sequence[int], reduction: int, keep_input: bool) -> tuple[int, int, int]:
    """Channels of a frame feature D, of all branches together F, and of the attention's embeddings E."""
    depth = width or channels
    features = depth * (len(rates) + keep_input)
    return depth, features, features // reduction


def params(
    channels: int,
    width: int | None = None,
    rates: Sequence[int] = (1, 2, 4),
    reduction: int = 2,
    keep_input: bool = False,
) -> int:
    """Closed form of the parameter count."""
    depth, features, inner = sizes(channels, width, rates, reduction, keep_input)
    embedding = channels * width + width if width else 0
    attention = 4 * inner * features + 3 * inner + features + 4 * inner
    return embedding + 3 * len(rates) * depth**2 + attention


def macs(
    shape: Shape,
    width: int | None = None,
    rates: Sequence[int] = (1, 2, 4),
    reduction: int = 2,
    keep_input: bool = False,
) -> int:
    """Multiply-accumulates of one forward pass."""
    depth, features, inner = sizes(shape.channels, width, rates, reduction, keep_input)
    embedding = shape.channels * width if width else 0
    frame = embedding + 3 * len(rates) * depth**2 + 4 * inner * features
    return shape.batch * (shape.frames * frame + 2 * shape.frames**2 * inner)


MECHANISM = Mechanism(
    name="gltr",
    family="temporal",
    layout="BTC",
    paper="Li et al., ICCV 2019",
    build=GLTR,
    params=params,
    macs=macs,
    natural=Shape(1, 128, 1, 1, 16),
)
