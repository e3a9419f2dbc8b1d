"""Hamburger with soft vector quantisation.

Paper     Geng et al., "Is Attention Better Than Matrix Decomposition?", ICLR 2021, arXiv:2109.04553, section 2
Idea      Global context is the low-rank part of the features: a few steps of soft k-means on the positions, then each position
          is rebuilt from the centres.
Formula   X = W_l x;  repeat: C <- softmax_r(cos(D, X) / T), D <- X C^T diag(C 1)^-1;  y = relu(BN(W_u D C) + x)
Shapes    x: B C H W -> y: B C H W
Params    2*C*C + C + 2*C
          2CD + D + 2C for D latent channels: two 1x1 convolutions, the first with a bias, and BN
Cost      2*N*C*D + (2t + 3)*N*D*R MACs per image with t steps (7 in eval); codes of N*R elements
Defaults  latent D = C (the paper's 512 at C = 512), rank R = 64, steps t = 6 in training, eval_steps t = 7, inverse temperature
          1/T = 100 (official code)
Differs   the gradient goes through one last code update only: the paper's one-step gradient, done as in the official code,
          which adds that update to the t and keeps the norm of x in it out of the gradient. The initial codes softmax(X^T D /
          T), which no step reads, are computed as in the official code (N*D*R MACs). Bases ~ N(0, 1), L2-normalised, drawn anew
          in each forward pass, as in the official code; it draws them per image, here one set serves the whole batch, so that
          an image's output does not depend on its place in the batch. No ReLU after W_l (official code: for NMF only). V1 (no
          second 3x3 convolution, the "cheese"). PyTorch's initialisation and BN momentum, where the official code draws from
          N(0, 2/fan-out) and uses 3e-4
Survey    domain: spatial; g: matrix decomposition; f: low-rank reconstruction, residual; tasks: SSeg; kind: soft; goal: I, IV;
          stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class HamVQ(nn.Module):
    """Low-rank context by soft vector quantisation: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        latent: int | None = None,
        rank: int = 64,
        steps: int = 6,
        eval_steps: int = 7,
        inverse_temperature: float = 100.0,
    ) -> None:
        super().__init__()
        latent = channels if latent is None else latent
        self.rank, self.steps, self.eval_steps = rank, steps, eval_steps
        self.inverse_temperature = inverse_temperature
        self.lower = nn.Conv2d(channels, latent, 1)
        self.upper = nn.Conv2d(latent, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lower(x)  # B D H W
        y = self.decompose(y.flatten(2)).reshape(y.shape)  # B D H W
        y = self.bn(self.upper(y))  # B C H W
        return (y + x).relu_()

    def decompose(self, x: Tensor) -> Tensor:
        """Rebuild x (B, D, N) from R centres."""
        with torch.no_grad():
            bases = torch.randn(1, x.shape[1], self.rank, dtype=x.dtype, device=x.device)
            bases = F.normalize(bases, dim=1).expand(x.shape[0], -1, -1)  # B D R
            codes = self.assign(x, bases)
            for _ in range(self.steps if self.training else self.eval_steps):
                codes = self.assign(F.normalize(x, dim=1), F.normalize(bases, dim=1, eps=1e-6))  # B N R
                codes = codes / (1e-6 + codes.sum(dim=1, keepdim=True))
                bases = torch.bmm(x, codes)  # B D R
            norm = x.norm(dim=1, keepdim=True)  # B 1 N
        codes = self.assign(x / (1e-6 + norm), F.normalize(bases, dim=1, eps=1e-6))
        return torch.bmm(bases, codes.transpose(1, 2))  # B D N

    def assign(self, x: Tensor, bases: Tensor) -> Tensor:
        """Soft assignment of each position to the centres (B, N, R)."""
        return (self.inverse_temperature * torch.bmm(x.transpose(1, 2), bases)).softmax(dim=-1)


def params(
    channels: int,
    latent: int | None = None,
    rank: int = 64,
    steps: int = 6,
    eval_steps: int = 7,
    inverse_temperature: float = 100.0,
) -> int:
    """Closed form of the parameter count."""
    latent = channels if latent is None else latent
    return 2 * channels * latent + latent + 2 * channels


def macs(
    shape: Shape,
    latent: int | None = None,
    rank: int = 64,
    steps: int = 6,
    eval_steps: int = 7,
    inverse_temperature: float = 100.0,
) -> int:
    """Multiply-accumulates of one forward pass in eval mode."""
    positions, latent = shape.height * shape.width, shape.channels if latent is None else latent
    return shape.batch * positions * latent * (2 * shape.channels + (2 * eval_steps + 3) * rank)


MECHANISM = Mechanism(
    name="ham_vq",
    family="spatial",
    layout="BCHW",
    paper="Geng et al., ICLR 2021",
    build=HamVQ,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
