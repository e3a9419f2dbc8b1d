"""Gated channel transformation (GCT).

Paper     Yang, Zhu, Wu, Yang, "Gated Channel Transformation for Visual Recognition", CVPR 2020, arXiv:1909.11519, section 3.
          Gaussian Context Transformer (CVPR 2021) is another mechanism with the same letters
Idea      Channels compete or cooperate: each one's norm, set against the norms of all, opens or closes its gate.
Formula   e_c = alpha_c sqrt(sum_ij x_cij^2 + eps);  n_c = e_c / sqrt(mean_k e_k^2 + eps);
          y_c = x_c (1 + tanh(gamma_c n_c + beta_c))
Shapes    x: B C H W -> y: B C H W
Params    3*C
          alpha, gamma and beta
Cost      0 MACs: norms, gate and scaling are element-wise (see FLOPs); the largest maps are x, its square and y
Defaults  mode l2 (section 3; l1 takes the sum of absolute values in both norms, as the official code's option); eps 1e-5,
          alpha 1, gamma and beta 0 at the start, which is the identity (official code)
Differs   nothing: as the official code, which adds eps under the second root too. It stands before a convolution in the paper,
          not after a block. The option of its l1 mode that leaves out the absolute value after a ReLU is left out: the same
          function there
Survey    domain: channel; g: L2 norm over space, channel normalization, tanh; f: scale; tasks: Cls, Det, Action; kind: soft;
          goal: I, II; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class GCT(nn.Module):
    """Channel gate from normalised channel norms: x (B, C, H, W) -> (B, C, H, W)."""

    eps = 1e-5

    def __init__(self, channels: int, mode: str = "l2") -> None:
        super().__init__()
        if mode not in ("l1", "l2"):
            raise ValueError(f"mode is l1 or l2, not {mode}")
        self.mode = mode
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "l2":
            embedding = self.alpha * (x.square().sum(dim=(2, 3), keepdim=True) + self.eps).sqrt()  # B C 1 1
            scale = self.gamma / (embedding.square().mean(dim=1, keepdim=True) + self.eps).sqrt()
        else:
            embedding = self.alpha * x.abs().sum(dim=(2, 3), keepdim=True)  # B C 1 1
            scale = self.gamma / (embedding.abs().mean(dim=1, keepdim=True) + self.eps)
        gate = 1 + torch.tanh(embedding * scale + self.beta)
        return x * gate


def params(channels: int, mode: str = "l2") -> int:
    """Closed form of the parameter count."""
    return 3 * channels


def macs(shape: Shape, mode: str = "l2") -> int:
    """Multiply-accumulates of one forward pass: none in convolutions or matrix products."""
    return 0


MECHANISM = Mechanism(
    name="gct",
    family="channel",
    layout="BCHW",
    paper="Yang et al., CVPR 2020",
    build=GCT,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
)
