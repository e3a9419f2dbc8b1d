"""Hamburger with non-negative matrix factorisation.

Paper     Geng et al., "Is Attention Better Than Matrix Decomposition?", ICLR 2021, arXiv:2109.04553, section 2
Idea      Global context is the low-rank part of the features: factorise them by a few multiplicative updates, keep the product.
Formula   X = relu(W_l x);  repeat: C <- C * (D^T X) / (D^T D C), D <- D * (X C^T) / (D C C^T);  y = relu(BN(W_u D C) + x)
Shapes    x: B C H W -> y: B C H W
Params    2*C*C + C + 2*C
          2CD + D + 2C for D latent channels: two 1x1 convolutions, the first with a bias, and BN
Cost      2*N*C*D + (2t + 3)*N*D*R + (2t + 1)*(N*R^2 + D*R^2) MACs per image with t updates (7 in eval); codes of N*R elements
Defaults  latent D = C (the paper's 512 at C = 512), rank R = 64, steps t = 6 in training, eval_steps t = 7 (the official code's
          own defaults)
Differs   the gradient goes through one last code update only: the paper's one-step gradient, done as in the official code,
          which adds that update to the t. 1e-6 in the denominators, initial codes softmax(X^T D) and bases ~ U(0, 1),
          L2-normalised, drawn anew in each forward pass, as in the official code; it draws them per image, here one set serves
          the whole batch, so that an image's output does not depend on its place in the batch. V1 (no second 3x3 convolution,
          the "cheese"). PyTorch's initialisation and BN momentum, where the official code draws from N(0, 2/fan-out) and uses
          3e-4
Survey    domain: spatial; g: matrix decomposition; f: low-rank reconstruction, residual; tasks: SSeg; kind: soft; goal: I, IV;
          stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class HamNMF(nn.Module):
    """Low-rank context by non-negative matrix factorisation: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, latent: int | None = None, rank: int = 64, steps: int = 6, eval_steps: int = 7) -> None:
        super().__init__()
        latent = channels if latent is None else latent
        self.rank, self.steps, self.eval_steps = rank, steps, eval_steps
        self.lower = nn.Conv2d(channels, latent, 1)
        self.upper = nn.Conv2d(latent, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lower(x).relu_()  # B D H W
        y = self.decompose(y.flatten(2)).reshape(y.shape)  # B D H W
        y = self.bn(self.upper(y))  # B C H W
        return (y + x).relu_()

    def decompose(self, x: Tensor) -> Tensor:
        """The rank-R approximation of x (B, D, N), non-negative."""
        with torch.no_grad():
            bases = torch.rand(1, x.shape[1], self.rank, dtype=x.dtype, device=x.device)
            bases = F.normalize(bases, dim=1).expand(x.shape[0], -1, -1)  # B D R
            codes = torch.bmm(x.transpose(1, 2), bases).softmax(dim=-1)  # B N R
            for _ in range(self.steps if self.training else self.eval_steps):
                codes = self.update_codes(x, bases, codes)
                numerator = torch.bmm(x, codes)  # B D R
                denominator = torch.bmm(bases, torch.bmm(codes.transpose(1, 2), codes))  # B D R
                bases = bases * numerator / (denominator + 1e-6)
        codes = self.update_codes(x, bases, codes)
        return torch.bmm(bases, codes.transpose(1, 2))  # B D N

    def update_codes(self, x: Tensor, bases: Tensor, codes: Tensor) -> Tensor:
        """One multiplicative update of the codes (B, N, R)."""
        numerator = torch.bmm(x.transpose(1, 2), bases)  # B N R
        denominator = torch.bmm(codes, torch.bmm(bases.transpose(1, 2), bases))  # B N R
        return codes * numerator / (denominator + 1e-6)


def params(
    channels: int,
    latent: int | None = None,
    rank: int = 64,
    steps: int = 6,
    eval_steps: int = 7,
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
) -> int:
    """Multiply-accumulates of one forward pass in eval mode."""
    positions, latent = shape.height * shape.width, shape.channels if latent is None else latent
    bread = 2 * positions * shape.channels * latent
    large = (2 * eval_steps + 3) * positions * latent * rank
    small = (2 * eval_steps + 1) * (positions + latent) * rank**2
    return shape.batch * (bread + large + small)


MECHANISM = Mechanism(
    name="ham_nmf",
    family="spatial",
    layout="BCHW",
    paper="Geng et al., ICLR 2021",
    build=HamNMF,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
